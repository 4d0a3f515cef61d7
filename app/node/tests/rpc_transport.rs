//! What stands before the methods: which are served, health, sending that waits, what is told of pending transactions.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::process::Command;

use alloy_primitives::U256;
use serde_json::{Value, json};
use support::{Node, Tx, account, contracts, eventually, heavy};

#[test]
fn only_the_methods_that_the_operator_allows_are_served_also_within_batches() {
    let node = Node::start_with(&[], &[("PENSTOCK_RPC_METHODS", r#"["net", "eth_chainId"]"#)]);
    assert!(node.answer("eth_chainId", json!([])).get("result").is_some());
    assert!(node.answer("net_version", json!([])).get("result").is_some());
    assert_eq!(node.answer("eth_blockNumber", json!([]))["error"]["code"], -32601);
    assert!(ureq::get(format!("{}/health", node.rpc().url)).call().is_ok(), "a load balancer is no client");
    let one = |id: u64, method: &str| json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": [] });
    let (_, batch) = node.post(&json!([one(1, "eth_chainId"), one(2, "debug_traceCall"), 7]).to_string());
    let codes: Vec<&Value> = batch.as_array().unwrap().iter().map(|answer| &answer["error"]["code"]).collect();
    assert_eq!(codes, [&Value::Null, &json!(-32601), &json!(-32600)], "{batch}");
}

#[test]
fn a_name_that_is_no_method_is_refused_at_the_start() {
    let mut command = Command::new(support::PROGRAM);
    command.args(["dev", "--quiet", "--rpc-listen", "127.0.0.1:0"]).env("PENSTOCK_HOME", "/nonexistent");
    let output = command.env("PENSTOCK_RPC_METHODS", r#"["eth", "eth_cal"]"#).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("`eth_cal` is neither a method nor a namespace"));
}

#[test]
fn a_filter_of_any_size_is_not_kept() {
    let node = Node::start(&[]);
    let addresses: Vec<String> = (0..1_001).map(|n| format!("0x{n:040x}")).collect();
    let answer = node.answer("eth_newFilter", json!([{ "address": addresses }]));
    assert_eq!(answer["error"]["code"], -32000, "{answer}");
}

#[test]
fn a_bad_parameter_is_named_in_the_message() {
    let node = Node::start(&[]);
    let answer = node.answer("eth_getBalance", json!(["0x12", "latest"]));
    assert_eq!(answer["error"]["code"], -32602);
    assert!(answer["error"]["message"].as_str().unwrap().starts_with("invalid params: "), "{answer}");
    assert!(answer["error"].get("data").is_none(), "{answer}");
}

#[test]
fn a_load_balancer_asks_for_health() {
    let node = Node::start(&[]);
    let body = ureq::get(format!("{}/health", node.rpc().url)).call().unwrap().body_mut().read_to_string().unwrap();
    assert!(serde_json::from_str::<Value>(&body).unwrap()["height"].is_string(), "{body}");
    assert!(ureq::get(format!("{}/other", node.rpc().url)).call().is_err());
}

#[test]
fn sending_can_wait_for_the_receipt_and_says_when_it_waited_in_vain() {
    let folder = tempfile::tempdir().unwrap();
    let genesis = heavy::genesis_with_heavy(folder.path(), 100);
    let node = Node::start(&["--block-time", "100ms", "--genesis", genesis.to_str().unwrap()]);
    let receipt = node.call("eth_sendRawTransactionSync", json!([Tx::of(0).sign(&account(0))]));
    assert_eq!(receipt["status"], "0x1", "{receipt}");
    let probe = node.deploy(&account(1), "Probe", &[]);
    let slow = Tx::call(0, probe, contracts::ask(heavy::NAME, &[1, 1, 2, 3])).sign(&account(2));
    let answer = node.answer("eth_sendRawTransactionSync", json!([slow, 50]));
    assert_eq!(answer["error"]["code"], 4, "{answer}");
    let hash = answer["error"]["data"].clone();
    assert_eq!(node.call("eth_getTransactionByHash", json!([hash]))["hash"], hash, "it goes on waiting in the pool");
    let bad = node.answer("eth_sendRawTransactionSync", json!([Tx::of(0).sign(&account(0))]));
    assert_eq!(bad["error"]["code"], -32000, "{bad}");
}

#[test]
fn a_pending_transaction_is_told_once_by_hash_or_whole() {
    let node = Node::start(&["--block-time", "100ms"]);
    let hashes = node.call("eth_newPendingTransactionFilter", json!([]));
    let whole = node.call("eth_newPendingTransactionFilter", json!([true]));
    // With a gap it is not pending: nothing can be done with it.
    let later = node.send(&Tx::of(1).sign(&account(0)));
    let poll = |id: &Value| node.call("eth_getFilterChanges", json!([id])).as_array().unwrap().clone();
    assert!(poll(&hashes).is_empty());
    let first = node.send(&Tx { value: U256::from(5), ..Tx::of(0) }.sign(&account(0)));
    let mut told = Vec::new();
    eventually("both are pending", || {
        told.extend(poll(&hashes));
        told.len() >= 2
    });
    assert_eq!(told, [json!(first), json!(later)]);
    let txs = poll(&whole);
    assert_eq!(txs.iter().map(|tx| &tx["nonce"]).collect::<Vec<_>>(), ["0x0", "0x1"], "{txs:?}");
    assert!(poll(&hashes).is_empty() && poll(&whole).is_empty(), "once");
}

#[test]
fn a_filled_transaction_has_what_the_node_knows_better() {
    let node = Node::start(&["--block-time", "100ms"]);
    let probe = node.deploy(&account(0), "Probe", &[]);
    let request =
        json!({ "from": account(1).address(), "to": probe, "input": contracts::ask("penstock/linear", &[1, 2]) });
    let filled = node.call("eth_fillTransaction", json!([request]));
    let tx = &filled["tx"];
    assert_eq!(tx["nonce"], "0x0");
    assert!(u64::from_str_radix(tx["gas"].as_str().unwrap().trim_start_matches("0x"), 16).unwrap() > 21_000, "{tx}");
    assert!(tx["maxFeePerGas"].is_string() && filled["raw"].as_str().unwrap().starts_with("0x02"), "{filled}");
    let reverting = json!({ "from": account(1).address(), "to": probe, "input": contracts::ask("no/model", &[1, 2]) });
    assert_eq!(node.answer("eth_fillTransaction", json!([reverting]))["error"]["code"], 3);
}
