//! Whatever is wrong with what comes from outside gets a clear answer that names the place, and the node goes on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::{fs, path::Path};

use alloy_primitives::{Address, Bytes, U256};
use serde_json::{Value, json};
use support::{Node, Tx, account, program, repository};

#[test]
fn malformed_transactions_are_refused_with_the_reason() {
    let mut node = Node::start(&[]);
    let good = Tx { value: U256::from(1), ..Tx::of(0) };
    let signer = account(0);
    let raw = good.sign(&signer);
    let truncated = raw.slice(..raw.len() - 1);
    let trailing: Bytes = [raw.as_ref(), &[0]].concat().into();
    let huge = Tx { input: vec![1; 200_000].into(), gas: 20_000_000, ..Tx::of(0) }.sign(&signer);
    let chain_1 = Tx { chain_id: 1, ..good.clone() }.sign(&signer);
    let cases: [(Bytes, &str); 12] = [
        (Bytes::new(), "rlp"),
        (Bytes::from_static(b"\x05\x01\x02"), "transaction type not supported"),
        (Bytes::from_static(&[0x9e, 1]), "type not supported"),
        (truncated, "rlp"),
        (trailing, "rlp"),
        (huge, "oversized data"),
        (chain_1, "invalid chain id for signer: have 1 want 7483"),
        (Tx { gas: 20_000, ..good.clone() }.sign(&signer), "intrinsic gas too low"),
        (Tx { gas: 60_000_001, ..good.clone() }.sign(&signer), "exceeds block gas limit"),
        (
            Tx { tip: 30_000_000_000, ..good.clone() }.sign(&signer),
            "max priority fee per gas higher than max fee per gas",
        ),
        (Tx { value: U256::MAX >> 1, ..good.clone() }.sign(&signer), "insufficient funds"),
        (Tx { nonce: 1_000_000, ..good }.sign(&signer), "nonce too high"),
    ];
    for (raw, reason) in cases {
        let answer = node.answer("eth_sendRawTransaction", json!([raw]));
        assert_eq!(answer["error"]["code"], -32000, "{reason}: {answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(reason), "{message:?} does not say {reason:?}");
    }
    let receipt = node.send_and_succeed(&raw);
    assert_eq!(receipt["gasUsed"], "0x5208");
    for (tx, reason) in [(raw, "nonce too low"), (Tx::of(0).sign(&account(1)), "")] {
        let answer = node.answer("eth_sendRawTransaction", json!([tx]));
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(reason), "{answer}");
    }
    assert!(node.is_running());
}

#[test]
fn a_replacement_must_pay_ten_percent_more() {
    let node = Node::start(&["--block-time", "1h"]);
    let signer = account(0);
    let with_fee = |max_fee: u128, tip: u128| Tx { max_fee, tip, ..Tx::of(0) }.sign(&signer);
    let first = with_fee(20_000_000_000, 1_000_000_000);
    let old = node.send(&first);
    let refused = |raw: &Bytes, reason: &str| {
        let answer = node.answer("eth_sendRawTransaction", json!([raw]));
        assert!(answer["error"]["message"].as_str().unwrap_or_default().contains(reason), "{answer}");
    };
    refused(&first, "already known");
    refused(&with_fee(21_000_000_000, 1_200_000_000), "replacement transaction underpriced");
    refused(&with_fee(25_000_000_000, 1_000_000_000), "replacement transaction underpriced");
    let new = node.send(&with_fee(22_000_000_000, 1_100_000_000));
    let status = node.call("pipe_getTransaction", json!([old]));
    assert_eq!(status["stage"], "dropped");
    assert!(status["reason"].as_str().unwrap().contains(&new.to_string()), "{status}");
    let gap = node.send(&Tx::of(5).sign(&signer));
    support::eventually("the gap is named", || {
        let status = node.call("pipe_getTransaction", json!([gap]));
        status["stage"] == "queued" && status["reason"] == "waits for nonce 1"
    });
    assert_eq!(node.nonce(signer.address()), 1);
}

#[test]
fn malformed_rpc_bodies_get_json_rpc_errors() {
    let mut node = Node::start(&[]);
    let code = |body: &str| node.post(body).1["error"]["code"].as_i64();
    assert_eq!(code("{"), Some(-32700), "no JSON");
    assert_eq!(code("[]"), Some(-32600), "an empty batch");
    // jsonrpsee does not tell "no JSON" from "JSON, but no request" here; the specification has -32600.
    assert!(matches!(code("{}"), Some(-32600 | -32700)), "no request");
    assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"eth_nonsense","params":[]}"#), Some(-32601));
    assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"eth_getBalance","params":[]}"#), Some(-32602));
    assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"eth_getBalance","params":["0x12"]}"#), Some(-32602));
    assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"eth_getBlockByNumber","params":[{},1]}"#), Some(-32602));
    let unknown = r#"{"jsonrpc":"2.0","id":1,"method":"eth_getBalance","params":["0x0000000000000000000000000000000000000001","0xfffffff"]}"#;
    assert_eq!(code(unknown), Some(-32000), "a block that is not there");
    let overrides = json!([{ "to": Address::ZERO }, "latest", { "0x0000000000000000000000000000000000000001": { "nonce": "many" } }]);
    assert_eq!(node.answer("eth_call", overrides)["error"]["code"], -32602, "a wrong override");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(node.post(&deep).1.to_string().contains("-32600"), "nesting without end");
    // The server may hang up before it has read all of it.
    let large = node.try_post(&format!("\"{}\"", "x".repeat(16 << 20)));
    assert!(large.as_ref().map_or(true, |(status, _)| *status == 413), "{large:?}");
    let batch: Vec<Value> =
        (0..3).map(|id| json!({ "jsonrpc": "2.0", "id": id, "method": "eth_chainId", "params": [] })).collect();
    let answers = node.post(&Value::Array(batch).to_string()).1;
    assert_eq!(answers.as_array().map(Vec::len), Some(3), "{answers}");
    assert!(node.is_running());
}

#[test]
fn a_wrong_genesis_is_refused_with_the_path_of_the_wrong_field() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("genesis.json");
    let good: Value = serde_json::from_slice(&fs::read(repository().join("genesis.json")).unwrap()).unwrap();
    let refused = |text: &str, place: &str| {
        fs::write(&path, text).unwrap();
        let (code, _, errors) = program(&["dev", "--genesis", path.to_str().unwrap(), "--rpc-listen", "127.0.0.1:0"]);
        assert_eq!(code, 1, "{errors}");
        assert!(errors.contains(place), "{errors:?} does not name {place:?}");
    };
    refused("{", "genesis");
    refused("{}", "chain_id");
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 10] = [
        (|g| g["genesis_time"] = json!("yesterday"), "genesis_time"),
        (|g| g["app_state"]["config"]["gasLimit"] = json!("many"), "app_state.config.gasLimit"),
        (|g| g["app_state"]["config"]["fork"] = json!("berlin"), "app_state.config.fork"),
        (|g| g["app_state"]["surprise"] = json!(1), "surprise"),
        (|g| g["app_state"]["alloc"]["0x12"] = json!({}), "app_state.alloc"),
        (|g| g["app_state"]["models"][2]["hash"] = json!("0x12"), "app_state.models[2].hash"),
        (|g| g["app_state"]["models"][1]["policy"] = json!("attested"), "app_state.models[1].policy"),
        (|g| g["app_state"]["models"][1]["id"] = g["app_state"]["models"][0]["id"].clone(), "app_state.models"),
        (|g| g["app_state"]["models"][3]["ops"]["per_row"] = json!(5), "app_state.models[3]"),
        (
            |g| g["app_state"]["models"][0]["ops"]["terms"] = json!([{ "ops": 1, "dims": { "batch": 9 } }]),
            "app_state.models[0].ops.terms",
        ),
    ];
    for (change, place) in cases {
        let mut genesis = good.clone();
        change(&mut genesis);
        refused(&genesis.to_string(), place);
    }
}

#[test]
fn data_of_another_chain_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    assert!(Node::start(&["--data", data]).stop().success());
    let mut genesis: Value = serde_json::from_slice(&fs::read(repository().join("genesis.json")).unwrap()).unwrap();
    genesis["app_state"]["config"]["chainId"] = json!(1);
    let path = folder.path().join("genesis.json");
    fs::write(&path, genesis.to_string()).unwrap();
    let (code, _, errors) = program(&["dev", "--data", data, "--genesis", path.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(errors.contains("another genesis"), "{errors}");
}

#[test]
fn bad_usage_exits_with_2_and_every_command_has_help() {
    assert_eq!(program(&["nonsense"]).0, 2);
    assert_eq!(program(&["dev", "--block-time", "soon"]).0, 2);
    assert_eq!(program(&[]).0, 2);
    for command in [
        &["--help"][..],
        &["dev", "--help"],
        &["model", "--help"],
        &["model", "inspect", "--help"],
        &["model", "run", "--help"],
    ] {
        let (code, output, _) = program(command);
        assert!(code == 0 && output.contains("Usage:"), "{command:?}");
    }
    assert!(!Path::new("/nonexistent").exists());
}
