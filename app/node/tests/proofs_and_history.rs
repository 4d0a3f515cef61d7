//! The state at past heights, proofs of accounts, slots and inferences, and what `penstock db`, `export` and `verify-proof`
//! make of a chain's store, on both backends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::{
    path::Path,
    process::{Command, Output},
};

use alloy_consensus::Header;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_rlp::Decodable;
use alloy_trie::{Nibbles, TrieAccount, proof::verify_proof};
use serde_json::{Value, json};
use support::{Node, Tx, account, bytes, contracts, quantity};

fn penstock(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_penstock");
    Command::new(program).args(arguments).env("PENSTOCK_HOME", "/nonexistent").output().unwrap()
}

fn succeeds(arguments: &[&str]) -> String {
    let output = penstock(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn hash(value: &Value) -> B256 {
    value.as_str().unwrap().parse().unwrap()
}

fn nodes(value: &Value) -> Vec<Bytes> {
    value.as_array().unwrap().iter().map(|node| bytes(node).into()).collect()
}

/// Checks an answer of `eth_getProof` against the state root of its block, with alloy's verifier.
fn check_proof(node: &Node, address: Address, slot: U256, height: u64) -> (TrieAccount, U256) {
    let block = format!("{height:#x}");
    let root = hash(&node.call("eth_getBlockByNumber", json!([block, false]))["stateRoot"]);
    let proof = node.call("eth_getProof", json!([address, [format!("{slot:#x}")], block]));
    let account = TrieAccount {
        nonce: quantity(&proof["nonce"]),
        balance: proof["balance"].as_str().unwrap().parse().unwrap(),
        storage_root: hash(&proof["storageHash"]),
        code_hash: hash(&proof["codeHash"]),
    };
    let leaf = (account != TrieAccount::default()).then(|| alloy_rlp::encode(account));
    verify_proof(root, Nibbles::unpack(keccak256(address)), leaf, &nodes(&proof["accountProof"])).unwrap();
    let proved = &proof["storageProof"][0];
    let value: U256 = proved["value"].as_str().unwrap().parse().unwrap();
    let leaf = (!value.is_zero()).then(|| alloy_rlp::encode(value));
    let key = Nibbles::unpack(keccak256(slot.to_be_bytes::<32>()));
    verify_proof(account.storage_root, key, leaf, &nodes(&proved["proof"])).unwrap();
    (account, value)
}

fn chain_on(backend: &str) {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().to_str().unwrap();
    let environment = [
        ("PENSTOCK_STATE_BACKEND", backend),
        ("PENSTOCK_STATE_HISTORY", "12"),
        ("PENSTOCK_STATE_PROOF_WINDOW", "6"),
        ("PENSTOCK_STATE_TRIE_BYTES", "0"),
    ];
    let arguments = ["--block-time", "0", "--data", path];
    let node = Node::start_with(&arguments, &environment);
    let signer = account(0);
    let probe = node.deploy(&signer, "Probe", &[]);
    let receiver = Address::repeat_byte(9);

    // Each block moves one wei and asks a model once.
    let mut inferences = Vec::new();
    let mut states = vec![];
    for step in 0..30_u64 {
        let nonce = node.nonce(signer.address());
        let tx = Tx { to: receiver.into(), value: U256::from(1), ..Tx::of(nonce) };
        node.send_and_succeed(&tx.sign(&signer));
        let ask = Tx::call(nonce + 1, probe, contracts::ask("penstock/linear", &[step as i128, 1]));
        let receipt = node.send_and_succeed(&ask.sign(&signer));
        let height = quantity(&receipt["blockNumber"]);
        let results = node.call("pipe_getBlockInferences", json!([format!("{height:#x}")]));
        inferences.push((height, results[0]["id"].clone()));
        states.push((height, step + 1));
    }
    let head = node.height();

    // What is kept reads as it was; what is not says so.
    for (height, wei) in &states {
        let block = format!("{height:#x}");
        let answer = node.answer("eth_getBalance", json!([receiver, block]));
        if head - height <= 12 {
            assert_eq!(quantity(&answer["result"]), *wei, "{backend}, height {height}");
            let slot = node.call("eth_getStorageAt", json!([probe, "0x0", block]));
            assert_eq!(bytes(&slot).len(), 32);
            node.call("eth_call", json!([{ "to": receiver }, block]));
        } else if head - height > 24 {
            assert_eq!(answer["error"]["code"], 4444, "{answer}");
        }
        if head - height <= 6 {
            let (proved, _) = check_proof(&node, receiver, U256::ZERO, *height);
            assert_eq!(proved.balance, U256::from(*wei));
            check_proof(&node, probe, U256::from(height % 3), *height);
            check_proof(&node, Address::repeat_byte(0x77), U256::from(5), *height);
        }
    }
    let old = node.answer("eth_getProof", json!([receiver, [], format!("{:#x}", head - 8)]));
    assert_eq!(old["error"]["code"], 4444, "{old}");

    // An inference is proved for as long as its block is here.
    let files = tempfile::tempdir().unwrap();
    let proof_file = files.path().join("proof.json");
    let proof_path = proof_file.to_str().unwrap();
    for (height, id) in &inferences {
        let proof = node.answer("pipe_getInferenceProof", json!([id, format!("{height:#x}")]));
        let block = node.call("eth_getBlockByNumber", json!([format!("{height:#x}"), false]));
        assert_eq!(proof["result"]["blockHash"], block["hash"]);
        let header = bytes(&proof["result"]["header"]);
        assert_eq!(Header::decode(&mut header.as_slice()).unwrap().number, *height);
        std::fs::write(&proof_file, proof.to_string()).unwrap();
    }
    let (height, id) = inferences.last().unwrap();
    let app_hash = node.call("eth_getBlockByNumber", json!([format!("{height:#x}"), false]))["hash"].clone();
    let app_hash = app_hash.as_str().unwrap();
    let said = succeeds(&["verify-proof", proof_path, "--app-hash", app_hash]);
    assert!(said.contains(id.as_str().unwrap()) && said.contains("Proved"), "{said}");
    assert!(said.contains(r#""shape":[1,"#) && said.contains(r#""numbers":[["#), "what was answered: {said}");
    let wrong = penstock(&["verify-proof", proof_path, "--app-hash", &B256::repeat_byte(1).to_string()]);
    assert!(!wrong.status.success());
    let mut forged: Value = serde_json::from_slice(&std::fs::read(&proof_file).unwrap()).unwrap();
    let result = forged["result"]["result"].as_str().unwrap().to_owned();
    let last = if result.ends_with('0') { "1" } else { "0" };
    forged["result"]["result"] = format!("{}{last}", &result[..result.len() - 1]).into();
    std::fs::write(&proof_file, forged.to_string()).unwrap();
    assert!(!penstock(&["verify-proof", proof_path, "--app-hash", app_hash]).status.success());

    // Logs by index: of the contract, of the precompile, of nobody.
    let logs = |filter: Value| node.call("eth_getLogs", json!([filter])).as_array().unwrap().len();
    let all = logs(json!({ "fromBlock": "0x0" }));
    let precompile = logs(json!({ "fromBlock": "0x0", "address": "0x00000000000000000000000000000000000000F4" }));
    assert_eq!(precompile, 30);
    assert!(all >= precompile);
    assert_eq!(logs(json!({ "fromBlock": "0x0", "address": receiver })), 0);
    assert_eq!(logs(json!({ "fromBlock": "0x5", "toBlock": "0x6" })), logs_by_receipts(&node, 5..=6));

    let state_root = node.call("eth_getBlockByNumber", json!(["latest", false]))["stateRoot"].clone();
    let before = node.call("eth_getBlockByNumber", json!([format!("{:#x}", head - 5), false]))["stateRoot"].clone();
    let code = node.call("eth_getCode", json!([probe, "latest"]));
    assert!(node.stop().success());

    // Of the stopped node.
    let store = data.path().join("state");
    let store = store.to_str().unwrap();
    let verified = succeeds(&["db", "verify", "--store", store]);
    assert!(verified.contains("Nothing is wrong"), "{verified}");
    let info = succeeds(&["db", "info", "--store", store]);
    assert!(info.contains(backend) && info.contains(&format!("Height   {head}")), "{info}");
    let exported = files.path().join("genesis.json");
    for (at, root) in [(None, &state_root), (Some(head - 5), &before)] {
        let number = at.unwrap_or(head).to_string();
        succeeds(&["export", "--store", store, "--height", &number, "--output", exported.to_str().unwrap()]);
        begins_with(&exported, root, probe, &code);
    }
    let too_old = penstock(&["export", "--store", store, "--height", "1"]);
    assert!(String::from_utf8_lossy(&too_old.stderr).contains("archive"), "{too_old:?}");

    // To the other backend, and on.
    let other = if backend == "fjall" { "sled" } else { "fjall" };
    if backend == "sled" {
        // The default is fjall.
        let refused = penstock(&["dev", "--data", path, "--rpc-listen", "127.0.0.1:0", "--quiet"]);
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && told.contains("[state] backend"), "{told}");
    }
    succeeds(&["db", "migrate", "--store", store, "--backend", other]);
    assert!(succeeds(&["db", "verify", "--store", store]).contains("Nothing is wrong"));
    let node = Node::start_with(&arguments, &[("PENSTOCK_STATE_BACKEND", other)]);
    assert_eq!(node.height(), head);
    assert_eq!(node.call("eth_getBlockByNumber", json!(["latest", false]))["stateRoot"], state_root);
    let nonce = node.nonce(signer.address());
    node.send_and_succeed(&Tx { to: receiver.into(), value: U256::from(1), ..Tx::of(nonce) }.sign(&signer));
    check_proof(&node, receiver, U256::ZERO, node.height());
}

fn logs_by_receipts(node: &Node, heights: std::ops::RangeInclusive<u64>) -> usize {
    let of = |height: u64| {
        let receipts = node.call("eth_getBlockReceipts", json!([format!("{height:#x}")]));
        receipts.as_array().unwrap().iter().map(|receipt| receipt["logs"].as_array().unwrap().len()).sum::<usize>()
    };
    heights.map(of).sum()
}

/// A chain that begins with an exported document has the same state, and goes on.
fn begins_with(document: &Path, state_root: &Value, contract: Address, code: &Value) {
    let node = Node::start(&["--block-time", "0", "--genesis", document.to_str().unwrap()]);
    assert_eq!(&node.call("eth_getBlockByNumber", json!(["0x0", false]))["stateRoot"], state_root);
    assert_eq!(&node.call("eth_getCode", json!([contract, "latest"])), code);
    let signer = account(0);
    let nonce = node.nonce(signer.address());
    node.send_and_succeed(&Tx::call(nonce, contract, contracts::ask("penstock/linear", &[1, 2])).sign(&signer));
}

#[test]
fn a_chain_on_fjall_is_read_proved_checked_exported_and_moved() {
    chain_on("fjall");
}

#[test]
fn a_chain_on_sled_is_read_proved_checked_exported_and_moved() {
    chain_on("sled");
}
