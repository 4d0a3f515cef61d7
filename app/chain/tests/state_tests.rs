//! Ethereum's state tests (the `GeneralStateTests` format) through our executor, store and trie: each test's state is
//! committed to the store, its transaction runs, and the state root and the hash of the logs are compared.
//!
//! `state_tests/random_*.json` are random programs whose results are those of Ethereum's executable specification
//! (`scripts/state-tests` makes them). `PENSTOCK_STATE_TESTS=FOLDER` reads all files below a folder, too.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use alloy_eips::{
    eip2930::{AccessList, AccessListItem},
    eip7702::{Authorization, SignedAuthorization},
};
use alloy_primitives::{Address, B256, Bytes, Log, TxKind, U256, keccak256};
use penstock_chain::GenesisDoc;
use penstock_evm::{BlockContext, Db, ExecError, Executor, OnMiss, Rules};
use penstock_inference::{InferenceResult, RequestId};
use penstock_state::{Backend, State, StateConfig, clear};
use revm::{
    bytecode::Bytecode,
    context::{TxEnv, either::Either},
    database::{BundleState, State as Working, WrapDatabaseRef, states::bundle_state::BundleRetention},
    primitives::{KECCAK_EMPTY, hardfork::SpecId},
    state::AccountInfo,
};
use serde_json::Value;

/// EIP-7825's cap, which this chain raises to the block's limit.
const OSAKA_GAS_CAP: u64 = 1 << 24;

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            found.push(path);
        }
    }
    found.sort();
}

/// A number as text: hexadecimal, perhaps of no digit, or decimal.
fn number(value: &Value) -> U256 {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is no number"));
    let text = text.strip_prefix("0x:bigint ").unwrap_or(text);
    match text.strip_prefix("0x") {
        Some("") => U256::ZERO,
        Some(digits) => U256::from_str_radix(digits, 16).unwrap(),
        None => text.parse().unwrap(),
    }
}

fn small(value: &Value) -> u64 {
    number(value).saturating_to()
}

fn bytes(value: &Value) -> Bytes {
    value.as_str().unwrap_or("0x").parse().unwrap()
}

fn address(value: &Value) -> Address {
    value.as_str().unwrap().parse().unwrap()
}

/// The accounts of a test as changes of the empty state.
fn genesis(pre: &Value) -> BundleState {
    let mut builder = BundleState::builder(0..=0);
    for (address, account) in pre.as_object().unwrap() {
        let address: Address = address.parse().unwrap();
        let code = Some(bytes(&account["code"])).filter(|code| !code.is_empty()).map(Bytecode::new_raw);
        let code_hash = code.as_ref().map_or(KECCAK_EMPTY, Bytecode::hash_slow);
        let (balance, nonce) = (number(&account["balance"]), small(&account["nonce"]));
        let info = AccountInfo { balance, nonce, code_hash, code: code.clone(), ..AccountInfo::default() };
        builder = builder.state_present_account_info(address, info);
        let slots = account["storage"].as_object().into_iter().flatten();
        let slots: Vec<_> =
            slots.map(|(slot, value)| (number(&slot.as_str().into()), (U256::ZERO, number(value)))).collect();
        builder =
            builder.state_storage(address, slots.into_iter().filter(|(_, (_, value))| !value.is_zero()).collect());
        if let Some(code) = code {
            builder = builder.contract(code_hash, code);
        }
    }
    builder.build()
}

fn access_list(value: &Value) -> AccessList {
    let item = |item: &Value| AccessListItem {
        address: address(&item["address"]),
        storage_keys: item["storageKeys"].as_array().unwrap().iter().map(|key| number(key).into()).collect(),
    };
    AccessList(value.as_array().into_iter().flatten().map(item).collect())
}

fn authorization(value: &Value) -> SignedAuthorization {
    let parity = value.get("yParity").unwrap_or(&value["v"]);
    let inner = Authorization {
        chain_id: number(&value["chainId"]),
        address: address(&value["address"]),
        nonce: small(&value["nonce"]),
    };
    SignedAuthorization::new_unchecked(inner, small(parity) as u8, number(&value["r"]), number(&value["s"]))
}

/// One of the transactions of a test.
fn tx_of(tx: &Value, indexes: &Value) -> TxEnv {
    let at = |field: &str, index: &str| tx[field][indexes[index].as_u64().unwrap() as usize].clone();
    let list = tx.get("accessLists").map(|lists| &lists[indexes["data"].as_u64().unwrap() as usize]);
    let authorizations = tx.get("authorizationList").and_then(Value::as_array);
    let max_fee = tx.get("maxFeePerGas").map(|fee| number(fee).saturating_to());
    let tx_type = match (authorizations, max_fee, list.filter(|list| !list.is_null())) {
        (Some(_), ..) => 4,
        (_, Some(_), _) => 2,
        (_, _, Some(_)) => 1,
        _ => 0,
    };
    TxEnv {
        tx_type,
        caller: address(&tx["sender"]),
        gas_limit: small(&at("gasLimit", "gas")),
        gas_price: max_fee.unwrap_or_else(|| number(&tx["gasPrice"]).saturating_to()),
        kind: match tx["to"].as_str() {
            None | Some("") => TxKind::Create,
            Some(to) => TxKind::Call(to.parse().unwrap()),
        },
        value: number(&at("value", "value")),
        data: bytes(&at("data", "data")),
        nonce: small(&tx["nonce"]),
        chain_id: Some(1),
        access_list: list.map(access_list).unwrap_or_default(),
        gas_priority_fee: tx.get("maxPriorityFeePerGas").map(|fee| number(fee).saturating_to()),
        blob_hashes: vec![],
        max_fee_per_blob_gas: 0,
        authorization_list: authorizations.into_iter().flatten().map(|a| Either::Left(authorization(a))).collect(),
    }
}

/// Why a test says nothing about this chain.
fn skipped(test: &Value, fork: &str, tx: &TxEnv) -> Option<&'static str> {
    if !matches!(fork, "Cancun" | "Prague" | "Osaka") {
        return Some("rules older than Cancun, or not known");
    }
    if test["transaction"].get("blobVersionedHashes").is_some() {
        return Some("blob transactions are not supported");
    }
    if test["env"].get("currentExcessBlobGas").is_some_and(|excess| small(excess) > 0) {
        return Some("this chain has no blob gas");
    }
    if fork == "Osaka" && tx.gas_limit > OSAKA_GAS_CAP {
        return Some("EIP-7825's cap is raised here");
    }
    let ours = |address: &str| {
        let last = address.trim_start_matches("0x").trim_start_matches('0').to_lowercase();
        matches!(last.as_str(), "f4" | "1f4")
    };
    let addresses = test["pre"].as_object().into_iter().flatten().map(|(address, _)| address.as_str());
    addresses
        .chain(test["transaction"]["to"].as_str())
        .any(ours)
        .then_some("it uses the address of the inference precompile")
}

struct Outcome {
    root: B256,
    logs: B256,
    refused: Option<String>,
}

fn execute(state: &mut State, rules: &Rules, test: &Value, tx: TxEnv) -> Outcome {
    clear(&**state.store()).unwrap();
    state.reload(0).unwrap();
    let before = state.apply(0, &genesis(&test["pre"])).unwrap();
    let mut batch = before.batch;
    batch.put(penstock_state::keys::meta("height"), 0_u64.to_be_bytes().to_vec());
    state.commit(0, batch).unwrap();
    let env = &test["env"];
    let block = BlockContext {
        number: small(&env["currentNumber"]),
        timestamp: small(&env["currentTimestamp"]),
        beneficiary: address(&env["currentCoinbase"]),
        base_fee: small(&env["currentBaseFee"]),
        prevrandao: number(&env["currentRandom"]).into(),
        parent_hash: B256::ZERO,
    };
    let results: HashMap<RequestId, Arc<InferenceResult>> = HashMap::new();
    let db = Working::builder().with_database(WrapDatabaseRef(Db(state.head()))).with_bundle_update().build();
    let mut executor = Executor::new(rules, block, db, &results, OnMiss::Revert);
    let (logs, refused): (Vec<Log>, _) = match executor.run(tx) {
        Ok(execution) => {
            executor.commit(execution.state);
            (execution.logs, None)
        }
        Err(ExecError::Invalid(invalid)) => (vec![], Some(invalid.to_string())),
        Err(other) => panic!("{other}"),
    };
    let mut db = executor.into_db();
    db.merge_transitions(BundleRetention::Reverts);
    let applied = state.apply(1, &db.take_bundle()).unwrap();
    Outcome { root: applied.root, logs: keccak256(alloy_rlp::encode(logs)), refused }
}

#[test]
fn state_tests_have_the_roots_and_logs_of_the_specification() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/state_tests");
    let mut found = Vec::new();
    files(&own, &mut found);
    if let Ok(folder) = std::env::var("PENSTOCK_STATE_TESTS") {
        files(Path::new(&folder), &mut found);
    }
    let text = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../genesis.json")).unwrap();
    let rules = GenesisDoc::parse(&text).unwrap().genesis.rules().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut state = State::open(Backend::Fjall.open(folder.path()).unwrap(), 0, StateConfig::default()).unwrap();
    let (mut passed, mut failed) = (0, Vec::new());
    let mut skips: BTreeMap<&str, u64> = BTreeMap::new();
    for file in found {
        let tests: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let Some(tests) = tests.as_object() else { continue };
        for (name, test) in tests.iter().filter(|(_, test)| test.get("transaction").is_some()) {
            for (fork, posts) in test["post"].as_object().unwrap() {
                for (index, post) in posts.as_array().unwrap().iter().enumerate() {
                    let tx = tx_of(&test["transaction"], &post["indexes"]);
                    if let Some(why) = skipped(test, fork, &tx) {
                        *skips.entry(why).or_default() += 1;
                        continue;
                    }
                    let spec = match fork.as_str() {
                        "Cancun" => SpecId::CANCUN,
                        "Prague" => SpecId::PRAGUE,
                        _ => SpecId::OSAKA,
                    };
                    let block_gas_limit = small(&test["env"]["currentGasLimit"]);
                    let rules = Rules { chain_id: 1, spec, block_gas_limit, ..rules.clone() };
                    let outcome = execute(&mut state, &rules, test, tx);
                    let refuses = post.get("expectException").is_some();
                    let hash = |field: &str| -> B256 { post[field].as_str().unwrap().parse().unwrap() };
                    if outcome.root == hash("hash")
                        && outcome.logs == hash("logs")
                        && outcome.refused.is_some() == refuses
                    {
                        passed += 1;
                    } else {
                        let place = format!("{}: {name} {fork} {index}", file.file_name().unwrap().to_string_lossy());
                        failed.push(format!("{place}: root {}, refused {:?}", outcome.root, outcome.refused));
                    }
                }
            }
        }
    }
    println!("state tests: {passed} passed, {} failed, {} skipped", failed.len(), skips.values().sum::<u64>());
    for (why, number) in skips {
        println!("  skipped {number}: {why}");
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(passed >= 100, "only {passed} tests");
}
