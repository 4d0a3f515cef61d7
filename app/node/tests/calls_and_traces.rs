//! Calls see what their caller overrides, inference included; a trace shows what a transaction did.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use alloy_primitives::{Address, U256, hex, keccak256};
use alloy_sol_types::{SolCall, SolValue};
use serde_json::{Value, json};
use support::{
    Node, Tx, account,
    contracts::{self, firstNumberCall},
    quantity,
};

const INFERENCE: &str = "0x00000000000000000000000000000000000000f4";

/// A node with the probe, which answers (1, 2) to `penstock/linear`'s owner.
fn node() -> (Node, Address) {
    let node = Node::start(&["--block-time", "100ms"]);
    let probe = node.deploy(&account(0), "Probe", &[]);
    (node, probe)
}

fn ask(probe: Address) -> Value {
    json!({ "from": account(1).address(), "to": probe, "input": contracts::ask("penstock/linear", &[1, 2]) })
}

/// `eth_call` with an object of inferences; the answer's first number and whether it is a placeholder.
fn called(node: &Node, probe: Address, inferences: &Value) -> Value {
    node.answer("eth_call", json!([ask(probe), "latest", null, null, inferences]))
}

fn result_of(answer: &Value) -> Vec<u8> {
    hex::decode(answer["result"].as_str().unwrap_or_else(|| panic!("{answer}"))).unwrap()
}

#[test]
fn a_call_takes_real_results_placeholders_or_given_ones() {
    let (node, probe) = node();
    let real = result_of(&called(&node, probe, &json!({ "mode": "real" })));
    let without = result_of(&node.answer("eth_call", json!([ask(probe), "latest"])));
    assert_eq!(real, without, "real ones are the default");
    let placeholder = result_of(&called(&node, probe, &json!({ "mode": "placeholder" })));
    assert_ne!(placeholder, real);
    // A given result is the answer, bit for bit: that of the model is the real one again.
    let model = node.call("pipe_getModel", json!(["penstock/linear"]));
    let count: u64 =
        model["outputs"][0]["shape"].as_array().unwrap().iter().map(|dim| dim.as_u64().unwrap_or(1)).product();
    let given =
        |numbers: Value| json!({ "results": [{ "model": "penstock/linear", "output": [{ "numbers": numbers }] }] });
    let sevens = result_of(&called(&node, probe, &given(json!(vec![json!(7.5); count as usize]))));
    assert!(sevens != real && sevens != placeholder);
    assert_eq!(sevens, result_of(&called(&node, probe, &given(json!(vec![json!(["75", "1"]); count as usize])))));
    let failed = called(&node, probe, &json!({ "results": [{ "model": "penstock/linear", "failure": 1 }] }));
    assert_eq!(failed["error"]["code"], 3, "{failed}");
    assert!(failed["error"]["message"].as_str().unwrap().contains("InferenceFailed"), "{failed}");
    for wrong in [
        json!({ "mode": "other" }),
        json!({ "mode": "placeholder", "timeoutMs": 1 }),
        json!({ "results": [{ "model": "nobody/knows", "failure": 1 }] }),
        json!({ "results": [{ "model": "penstock/linear", "failure": 999 }] }),
        json!({ "results": [{ "model": "penstock/linear" }] }),
        given(json!([1, 2, 3, 4, 5, 6, 7, 8, 9])),
        given(json!(["x"])),
        json!({ "unknown": 1 }),
    ] {
        let answer = called(&node, probe, &wrong);
        assert_eq!(answer["error"]["code"], -32602, "{wrong}: {answer}");
    }
    // The gas of a call must not depend on where its results come from.
    let gas = |inferences: Value| {
        quantity(&node.call("eth_estimateGas", json!([ask(probe), "latest", null, null, inferences])))
    };
    let (real, placeholder) = (gas(json!({ "mode": "real" })), gas(json!({ "mode": "placeholder" })));
    assert!(placeholder >= real, "an estimate on placeholders has a margin: {placeholder} and {real}");
}

#[test]
fn a_call_sees_the_state_and_the_block_that_its_caller_chose() {
    let (node, probe) = node();
    let counter = json!({ "to": probe, "input": hex::encode_prefixed(contracts::counterCall {}.abi_encode()) });
    let read = |state: Value| node.call("eth_call", json!([counter, "latest", state]));
    let word = |number: u64| hex::encode_prefixed(U256::from(number).abi_encode());
    assert_eq!(read(json!(null)), word(0));
    // Whichever slot it is in: of the first twenty exactly one makes it another number.
    let changed =
        (0..20).filter(|slot| read(json!({ probe.to_string(): { "stateDiff": { word(*slot): word(9) } } })) == word(9));
    assert_eq!(changed.count(), 1);
    // Code that returns the block's number, time, coinbase, base fee and the caller's balance.
    let code = "0x43600052426020524160405248606052333160805260a06000f3";
    let state = json!({
        "0x00000000000000000000000000000000000c0de0": { "code": code },
        "0x00000000000000000000000000000000000000aa": { "balance": "0x1234" },
    });
    let block = json!({
        "number": "0x100", "time": "0x200", "feeRecipient": "0x00000000000000000000000000000000000000bb", "baseFeePerGas": "0x7",
    });
    let call = json!({ "from": "0x00000000000000000000000000000000000000aa", "to": "0x00000000000000000000000000000000000c0de0" });
    let seen = node.call("eth_call", json!([call, "latest", state, block]));
    let expected =
        (U256::from(0x100), U256::from(0x200), Address::with_last_byte(0xbb), U256::from(7), U256::from(0x1234));
    assert_eq!(seen, hex::encode_prefixed(expected.abi_encode()));
    // The inference precompile moves as any other, and its old place is an account then.
    let moved = "0x00000000000000000000000000000000000ff4f4";
    let state = json!({ INFERENCE: { "movePrecompileToAddress": moved } });
    let input = contracts::ask("penstock/linear", &[1, 2]);
    let direct = |to: &str| node.answer("eth_call", json!([{ "to": to, "input": input }, "latest", state]));
    assert_eq!(direct(moved)["error"]["code"], 3, "a precompile's own error");
    assert!(direct(INFERENCE).get("result").is_some() || direct(INFERENCE)["error"]["code"] != 3);
    for (state, code) in [
        (json!({ probe.to_string(): { "movePrecompileToAddress": moved } }), -32000),
        (json!({ probe.to_string(): { "state": {}, "stateDiff": {} } }), -32000),
        (json!({ probe.to_string(): { "balance": "many" } }), -32602),
    ] {
        let answer = node.answer("eth_call", json!([counter, "latest", state]));
        assert_eq!(answer["error"]["code"], code, "{state}: {answer}");
    }
}

#[test]
fn a_trace_shows_the_question_and_its_answer() {
    let (node, probe) = node();
    let receipt =
        node.send_and_succeed(&Tx::call(0, probe, contracts::ask("penstock/linear", &[1, 2])).sign(&account(1)));
    let hash = &receipt["transactionHash"];
    let trace = node
        .call("debug_traceTransaction", json!([hash, { "tracer": "callTracer", "tracerConfig": { "withLog": true } }]));
    assert_eq!(trace["gasUsed"], receipt["gasUsed"], "the whole transaction, as it was charged");
    let inner = trace["calls"].as_array().unwrap().iter().find(|call| call["to"] == INFERENCE).expect("the question");
    assert!(inner["output"].as_str().unwrap().len() > 100, "{inner}");
    let numbers =
        node.call("eth_call", json!([{ "to": probe, "input": hex::encode_prefixed(firstNumberCall {}.abi_encode()) }]));
    let first = numbers.as_str().unwrap().trim_start_matches("0x").get(..64).unwrap();
    assert!(inner["output"].as_str().unwrap().contains(first), "what it answered is what was stored");

    let structs = node.call("debug_traceTransaction", json!([hash]));
    assert_eq!(structs["failed"], false);
    assert!(structs["structLogs"].as_array().unwrap().len() > 100);
    let before = node.call("debug_traceTransaction", json!([hash, { "tracer": "prestateTracer" }]));
    assert!(before.as_object().unwrap().keys().any(|address| address.parse() == Ok(probe)), "{before}");
    let diff = json!({ "tracer": "prestateTracer", "tracerConfig": { "diffMode": true } });
    let diff = node.call("debug_traceTransaction", json!([hash, diff]));
    assert!(diff["post"].as_object().unwrap().keys().any(|address| address.parse() == Ok(probe)), "{diff}");

    let block = node.call("debug_traceBlockByNumber", json!([receipt["blockNumber"], { "tracer": "callTracer" }]));
    assert_eq!(block[0]["txHash"], *hash);
    assert_eq!(block, node.call("debug_traceBlockByHash", json!([receipt["blockHash"], { "tracer": "callTracer" }])));
    let call = json!([ask(probe), "latest", { "tracer": "callTracer", "inferences": { "mode": "placeholder" } }]);
    assert!(node.call("debug_traceCall", call)["calls"].is_array());
    for (params, code) in [
        (json!([hash, { "tracer": "{ step: function() {} }" }]), -32602),
        (json!([hash, { "tracer": "callTracer", "tracerConfig": { "withLog": 7 } }]), -32602),
        (json!([keccak256("unknown")]), -32000),
        (json!([hash, { "timeout": "soon" }]), -32602),
    ] {
        let answer = node.answer("debug_traceTransaction", params.clone());
        assert_eq!(answer["error"]["code"], code, "{params}: {answer}");
    }
}

#[test]
fn a_trace_that_grows_too_large_ends_and_a_smaller_one_does_not() {
    let node = Node::start_with(&["--block-time", "100ms"], &[("PENSTOCK_RPC_MAX_RESPONSE_BYTES", "100000")]);
    let state = json!({ "0x00000000000000000000000000000000000c0de0": { "code": "0x5b600056" } });
    let trace = |options: Value| {
        let mut options = options;
        options["stateOverrides"] = state.clone();
        let call = json!({ "to": "0x00000000000000000000000000000000000c0de0", "gas": "0x30d40" });
        node.answer("debug_traceCall", json!([call, "latest", options]))
    };
    let answer = trace(json!({}));
    assert_eq!(answer["error"]["code"], -32000, "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("too large"), "{answer}");
    assert_eq!(trace(json!({ "tracer": "callTracer" }))["result"]["error"], "out of gas");
}

#[test]
fn a_price_may_be_overridden_like_any_precompile() {
    let node = Node::start(&["--block-time", "100ms"]);
    let feed = "0x00000000000000000000000000000000000000f5";
    let state = json!({ feed: { "code": "0x602a5f5260205ff3" } });
    let answer = node.call("eth_call", json!([{ "to": feed }, "latest", state]));
    assert_eq!(answer, hex::encode_prefixed(U256::from(42).abi_encode()));
}

#[test]
fn a_transfer_into_a_frame_that_failed_is_not_told_of() {
    let node = Node::start(&["--block-time", "100ms"]);
    let [a, b] = ["0x00000000000000000000000000000000000000aa", "0x00000000000000000000000000000000000000bb"];
    // Sends one wei to the other one, and goes on whatever becomes of it.
    let sends = format!("0x5f5f5f5f600173{}5af100", &b[2..]);
    let simulate = |code: &str| {
        let state = json!({ a: { "balance": "0x5", "code": sends }, b: { "code": code } });
        let block = json!({ "stateOverrides": state, "calls": [{ "to": a }] });
        let payload = json!({ "blockStateCalls": [block], "traceTransfers": true });
        let blocks = node.call("eth_simulateV1", json!([payload, "latest"]));
        assert_eq!(blocks[0]["calls"][0]["status"], "0x1", "{blocks}");
        blocks[0]["calls"][0]["logs"].as_array().unwrap().len()
    };
    assert_eq!(simulate("0x00"), 1);
    assert_eq!(simulate("0x5f5ffd"), 0, "it reverted");
}

#[test]
fn a_trace_ends_at_its_time() {
    let node = Node::start_with(&["--block-time", "100ms"], &[("PENSTOCK_RPC_TRACE_TIME", "20ms")]);
    // Jumps back until the gas is gone: some seconds with a trace.
    let state = json!({ "0x00000000000000000000000000000000000c0de0": { "code": "0x5b600056" } });
    let call = json!([{ "to": "0x00000000000000000000000000000000000c0de0" }, "latest", { "stateOverrides": state }]);
    let answer = node.answer("debug_traceCall", call);
    assert_eq!(answer["error"]["code"], -32000, "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("timeout"), "{answer}");
}

#[test]
fn a_call_that_names_a_tip_and_no_cap_is_refused_as_one_whose_tip_is_above_its_cap() {
    let node = Node::start(&["--block-time", "100ms"]);
    let request = json!({ "to": account(0).address(), "maxPriorityFeePerGas": "0x1" });
    let answer = node.answer("eth_call", json!([request]));
    assert_eq!(answer["error"]["message"], "max priority fee per gas higher than max fee per gas", "{answer}");
}
