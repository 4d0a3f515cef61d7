//! The request and answer files of ethereum/execution-apis (`../shared/fixtures/execution-apis`, or the folder that
//! `PENSTOCK_EXECUTION_APIS` names) against our server, over the suite's own chain in our own store.
//!
//! As the suite's runner does: error texts are not compared, and of a file that says `speconly` only that the answer is a
//! result. What is not applicable is listed in [`not_applicable`], with the reason.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

#[path = "../../chain/tests/fixture_chain/replay.rs"]
mod replay;

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::Arc,
};

use alloy_consensus::transaction::SignerRecoverable;
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{B256, Bytes};
use alloy_rlp::Encodable;
use penstock_chain::{Chain, ChainConfig, GenesisDoc, HeaderTx, StoredReceipt, index_logs};
use penstock_inference::{InferenceNetwork, ModelStore, NetworkConfig};
use penstock_rpc::RpcConfig;
use penstock_state::{Backend, State, StateConfig, Store, keys};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

/// The suite, where it is here.
fn suite() -> Option<PathBuf> {
    let beside = repository().join("../shared/fixtures/execution-apis");
    let folder = std::env::var_os("PENSTOCK_EXECUTION_APIS").map_or(beside, PathBuf::from);
    folder.join("tests").is_dir().then_some(folder)
}

/// The genesis of a chain of ours that has the suite's chain id and gas limit.
fn document(chain_id: u64, gas_limit: u64) -> GenesisDoc {
    let mut doc: Value = serde_json::from_slice(&fs::read(repository().join("genesis.json")).unwrap()).unwrap();
    doc["app_state"]["config"]["chainId"] = json!(chain_id);
    doc["app_state"]["config"]["gasLimit"] = json!(gas_limit);
    doc["app_state"]["alloc"] = json!({});
    doc["app_state"]["models"] = json!([]);
    GenesisDoc::parse(doc.to_string().as_bytes()).unwrap()
}

/// The suite's chain in a store, as if our chain had made it.
fn fill(store: &Arc<dyn Store>, document: &GenesisDoc) {
    let (genesis, blocks) = replay::chain(&repository().join("app/chain/tests/fixture_chain"));
    let config = StateConfig { history: 0, ..StateConfig::default() };
    let mut state = State::open(store.clone(), 0, config).unwrap();
    let app_state: Value = serde_json::from_slice(&document.app_state).unwrap();
    let mut batch = state.apply(0, &replay::genesis_changes(&genesis)).unwrap().batch;
    let genesis_header = genesis_header(&genesis, state.root());
    assert_eq!(genesis_header.hash_slow(), blocks[0].header.parent_hash);
    batch.put(keys::meta("version"), keys::LAYOUT_VERSION.to_be_bytes().to_vec());
    batch.put(keys::meta("chain"), Sha256::digest(app_state.to_string()).to_vec());
    batch.put(keys::meta("history"), 0_u64.to_be_bytes().to_vec());
    put_block(&mut batch, &genesis_header);
    state.commit(0, batch).unwrap();
    for block in blocks {
        let number = block.header.number;
        let (changes, receipts) = replay::execute(state.head(), &genesis, &block);
        let applied = state.apply(number, &changes).unwrap();
        let mut batch = applied.batch;
        put_block(&mut batch, &block.header);
        let header_tx = HeaderTx { fee_recipient: block.header.beneficiary, tasks: vec![], results: vec![] }.encode();
        let txs = block.body.transactions.iter().map(|tx| Bytes::from(tx.encoded_2718()));
        let body: Vec<Bytes> = core::iter::once(header_tx).chain(txs).collect();
        let mut bytes = Vec::new();
        body.encode(&mut bytes);
        batch.put(keys::body(number), bytes);
        let mut before = 0;
        let stored: Vec<StoredReceipt> = block
            .body
            .transactions
            .iter()
            .zip(&receipts)
            .map(|(tx, receipt)| {
                let gas_used =
                    receipt.cumulative_gas_used() - core::mem::replace(&mut before, receipt.cumulative_gas_used());
                let (success, sender) = (receipt.status(), tx.recover_signer().unwrap());
                StoredReceipt { success, gas_used, sender, logs: receipt.logs().to_vec(), requests: vec![] }
            })
            .collect();
        let stored = alloy_rlp::encode(&stored);
        index_logs(number, &stored, &mut batch).unwrap();
        batch.put(keys::receipts(number), stored);
        for (index, tx) in block.body.transactions.iter().enumerate() {
            let place = [&number.to_be_bytes()[..], &(index as u32).to_be_bytes()].concat();
            batch.put(keys::transaction(*tx.tx_hash()), place);
        }
        state.commit(number, batch).unwrap();
    }
}

fn put_block(batch: &mut penstock_state::Batch, header: &alloy_consensus::Header) {
    let hash = header.hash_slow();
    batch.put(keys::header(header.number), alloy_rlp::encode(header));
    batch.put(keys::block_hash(header.number), hash.to_vec());
    batch.put(keys::number_of(hash), header.number.to_be_bytes().to_vec());
    batch.put(keys::meta("height"), header.number.to_be_bytes().to_vec());
}

fn genesis_header(genesis: &alloy_genesis::Genesis, state_root: B256) -> alloy_consensus::Header {
    alloy_consensus::Header {
        state_root,
        difficulty: genesis.difficulty,
        gas_limit: genesis.gas_limit,
        extra_data: genesis.extra_data.clone(),
        timestamp: genesis.timestamp,
        beneficiary: genesis.coinbase,
        mix_hash: genesis.mix_hash,
        nonce: genesis.nonce.to_be_bytes().into(),
        ..Default::default()
    }
}

fn ask(address: SocketAddr, body: &str) -> Value {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "POST / HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let text = String::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let body =
        if head.to_ascii_lowercase().contains("transfer-encoding: chunked") { unchunked(body) } else { body.into() };
    serde_json::from_str(&body).unwrap_or_else(|_| panic!("{text}"))
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        if size == 0 {
            break;
        }
        whole.push_str(&rest[..size]);
        body = &rest[size + 2..];
    }
    whole
}

/// Equal as the suite's runner has it: error texts count for nothing.
fn is_expected(mut answer: Value, mut expected: Value) -> bool {
    for side in [&mut answer, &mut expected] {
        if let Some(error) = side.get_mut("error").and_then(Value::as_object_mut) {
            error.remove("message");
        }
    }
    same(&answer, &expected)
}

/// Numbers by value; all else as it is.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// Where two answers first differ.
fn difference(a: &Value, b: &Value, path: String) -> Option<String> {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
            let absent = Value::String("(absent)".into());
            keys.into_iter().find_map(|key| {
                difference(a.get(key).unwrap_or(&absent), b.get(key).unwrap_or(&absent), format!("{path}.{key}"))
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().find_map(|(index, (a, b))| difference(a, b, format!("{path}[{index}]")))
        }
        _ if same(a, b) => None,
        _ => {
            let short = |value: &Value| value.to_string().chars().take(160).collect::<String>();
            Some(format!("{path}: ours {} expected {}", short(a), short(b)))
        }
    }
}

/// Why files do not apply to this chain.
const NOT_APPLICABLE: &[(&str, &[&str])] = &[
    (
        "there are no blobs on this chain",
        &[
            "eth_estimateGas/estimate-with-eip4844",
            "eth_getTransactionReceipt/get-blob-tx",
            "eth_sendRawTransaction/send-blob-tx",
            "eth_simulateV1/ethSimulate-blobs",
        ],
    ),
    (
        "there are no withdrawals and uncles on this chain",
        &["eth_getBlockByNumber/get-block-shanghai-fork", "debug_getRawBlock/get-block-n"],
    ),
    (
        "receipts have a status and no state root: this chain never had rules before Byzantium",
        &[
            "debug_getRawReceipts/get-block-n",
            "eth_getBlockReceipts/get-block-receipts-by-hash",
            "eth_getBlockReceipts/get-block-receipts-n",
            "eth_getTransactionReceipt/get-legacy-contract",
            "eth_getTransactionReceipt/get-legacy-input",
            "eth_getTransactionReceipt/get-legacy-receipt",
        ],
    ),
    ("this chain has its one fork from the genesis on, and no blob schedule", &["eth_config/get-config"]),
    (
        "proofs, and with them the roots of simulated blocks, begin at the block that the node was started at",
        &[
            "eth_simulateV1/ethSimulate-empty-with-block-num-set-firstblock",
            "eth_simulateV1/ethSimulate-empty-with-block-num-set-minusone",
        ],
    ),
    (
        "log indexes do not count the logs of frames that reverted; geth's tracer does",
        &["eth_simulateV1/ethSimulate-use-as-many-features-as-possible"],
    ),
    (
        "revm refuses a nonce of 2^64 - 1 whatever is validated, and looks at fees before nonces",
        &["eth_simulateV1/ethSimulate-overflow-nonce", "eth_simulateV1/ethSimulate-overflow-nonce-validation"],
    ),
    (
        "blocks are made by consensus alone",
        &[
            "testing_buildBlockV1/build-block-empty-transactions",
            "testing_buildBlockV1/build-block-from-mempool",
            "testing_buildBlockV1/build-block-invalid-transaction",
            "testing_buildBlockV1/build-block-with-transactions",
        ],
    ),
];

fn not_applicable(file: &str) -> Option<&'static str> {
    NOT_APPLICABLE.iter().find(|(_, files)| files.contains(&file)).map(|(reason, _)| *reason)
}

#[test]
fn every_applicable_file_of_execution_apis_passes() {
    let Some(suite) = suite() else {
        println!("skipped: execution-apis is not here (PENSTOCK_EXECUTION_APIS names its folder)");
        return;
    };
    let (genesis, _) = replay::chain(&repository().join("app/chain/tests/fixture_chain"));
    let document = document(genesis.config.chain_id, 200_000_000);
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Backend::Fjall.open(folder.path()).unwrap();
    fill(&store, &document);
    let network = Arc::new(InferenceNetwork::start(ModelStore::default(), NetworkConfig::default()).unwrap());
    let state = StateConfig { history: 0, ..StateConfig::default() };
    let config = ChainConfig { state, ..ChainConfig::default() };
    let chain = Chain::open(store, document.genesis.clone(), &document.app_state, network, config).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let rpc = RpcConfig { listen: "127.0.0.1:0".parse().unwrap(), max_call_gas: 50_000_000, ..RpcConfig::default() };
    let server = runtime.block_on(penstock_rpc::serve(Arc::new(chain), rpc)).unwrap();

    let mut files: Vec<PathBuf> = fs::read_dir(suite.join("tests"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "io"))
        .collect();
    files.sort();
    assert!(files.len() > 200, "{} files", files.len());
    let (mut passed, mut failed, mut skipped) = (0, Vec::new(), BTreeMap::<&str, Vec<String>>::new());
    for file in files {
        let name = format!(
            "{}/{}",
            file.parent().unwrap().file_name().unwrap().display(),
            file.file_stem().unwrap().display()
        );
        if let Some(reason) = not_applicable(&name) {
            skipped.entry(reason).or_default().push(name);
            continue;
        }
        match check(server.address, &fs::read_to_string(&file).unwrap()) {
            Ok(()) => passed += 1,
            Err(why) => failed.push(format!("{name}: {why}")),
        }
    }
    for (reason, files) in &skipped {
        println!("not applicable, {reason}: {}", files.join(", "));
    }
    println!(
        "{passed} passed, {} failed, {} not applicable",
        failed.len(),
        skipped.values().map(Vec::len).sum::<usize>()
    );
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn check(address: SocketAddr, file: &str) -> Result<(), String> {
    let spec_only = file.lines().any(|line| line.starts_with("// speconly"));
    let mut answer = None;
    for line in file.lines() {
        if let Some(request) = line.strip_prefix(">> ") {
            answer = Some(ask(address, request));
        } else if let Some(expected) = line.strip_prefix("<< ") {
            let answer = answer.take().ok_or("an answer without a request")?;
            let expected: Value = serde_json::from_str(expected).unwrap();
            let fits = if spec_only && expected.get("error").is_none() {
                answer.get("result").is_some()
            } else {
                is_expected(answer.clone(), expected.clone())
            };
            if !fits {
                return Err(difference(&answer, &expected, String::new()).unwrap_or_default());
            }
        }
    }
    Ok(())
}
