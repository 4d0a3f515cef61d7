//! Scheduled tasks through JSON-RPC: their runs are transactions like others for whoever reads the chain, on a chain whose
//! blocks wait for something to do, too; they go on after a restart and in a chain that begins with the exported state.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::{
    path::Path,
    process::{Command, Output},
    time::{Duration, SystemTime},
};

use alloy_primitives::{Address, U256, address, hex, keccak256};
use alloy_sol_types::{SolCall, sol};
use serde_json::{Value, json};
use support::{Node, PROGRAM, Tx, account, bytes, eventually, quantity};

sol! {
    function registerTask(address contractAddress, uint256 endTime, uint256 frequency);
    function stopTask(address contractAddress);
    function setMode(uint8 mode);
    function runs() returns (uint256);
    function runTask(uint256 id);
}

const SCHEDULER: Address = address!("00000000000000000000000000000000000000F9");
const TASK_SENDER: &str = "0xfffffffffffffffffffffffffffffffffffffff9";
/// Ticker's mode in which it asks a model about the number of its runs.
const ASK: u8 = 4;
const COIN: u64 = 1_000_000_000_000_000_000;

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// A Ticker that asks a model every second.
fn ticker(node: &Node) -> Address {
    let owner = account(0);
    let ticker = node.deploy(&owner, "Ticker", &[]);
    let nonce = node.nonce(owner.address());
    let mode = Tx::call(nonce, ticker, setModeCall { mode: ASK }.abi_encode());
    node.send_and_succeed(&mode.sign(&owner));
    let register =
        registerTaskCall { contractAddress: ticker, endTime: U256::from(now() + 3_600), frequency: U256::from(1) };
    // The gas that OpenGradient's SDK sends.
    let tx = Tx::call(nonce + 1, SCHEDULER, register.abi_encode());
    node.send_and_succeed(&Tx { gas: 300_000, value: U256::from(3 * COIN), ..tx }.sign(&owner));
    ticker
}

fn runs(node: &Node, ticker: Address) -> u64 {
    let data = hex::encode_prefixed(runsCall {}.abi_encode());
    let output = node.call("eth_call", json!([{ "to": ticker, "data": data }, "latest"]));
    runsCall::abi_decode_returns(&bytes(&output)).unwrap().to()
}

/// The logs of runs.
fn run_logs(node: &Node) -> Vec<Value> {
    let topic = keccak256("TaskRun(uint256,address,bool,uint256)");
    let filter = json!({ "fromBlock": "0x0", "address": SCHEDULER, "topics": [topic] });
    node.call("eth_getLogs", json!([filter])).as_array().unwrap().clone()
}

fn penstock(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).env("PENSTOCK_HOME", "/nonexistent").output().unwrap()
}

#[test]
fn runs_are_transactions_for_every_tool_on_a_chain_whose_blocks_wait_for_something_to_do() {
    let node = Node::start(&["--block-time", "0"]);
    let ticker = ticker(&node);
    let (sent, height) = (node.nonce(account(0).address()), node.height());
    eventually("it runs by itself", || runs(&node, ticker) >= 3);
    assert_eq!(node.nonce(account(0).address()), sent, "nobody sent anything");
    let logs = run_logs(&node);
    assert!(node.height() - height <= logs.len() as u64 + 3, "hardly any block without a run");
    let hash = logs[1]["transactionHash"].clone();
    let (tx, receipt) =
        (node.call("eth_getTransactionByHash", json!([hash])), node.call("eth_getTransactionReceipt", json!([hash])));
    assert_eq!((&tx["from"], &receipt["from"]), (&json!(TASK_SENDER), &json!(TASK_SENDER)), "{tx}");
    assert_eq!(tx["to"].as_str().unwrap().parse::<Address>().unwrap(), SCHEDULER);
    assert_eq!(bytes(&tx["input"]), runTaskCall { id: U256::from(1) }.abi_encode());
    assert_eq!((&tx["r"], &tx["s"]), (&json!("0x5"), &json!("0x1")), "well-formed, and nobody's");
    assert_eq!((&receipt["status"], &receipt["transactionIndex"]), (&json!("0x1"), &json!("0x0")));
    let block = node.call("eth_getBlockByNumber", json!([tx["blockNumber"], false]));
    assert!(block["transactions"].as_array().unwrap().contains(&hash));
    assert_eq!(block["gasUsed"], receipt["gasUsed"]);
    assert_eq!(receipt["effectiveGasPrice"], block["baseFeePerGas"]);
    let raw = bytes(&node.call("eth_getRawTransactionByHash", json!([hash])));
    assert_eq!(json!(keccak256(&raw)), hash, "the bytes that the hash is of");
    let refused = node.answer("eth_sendRawTransaction", json!([hex::encode_prefixed(&raw)]));
    assert!(refused["error"].is_object(), "{refused}");
    let life = node.call("pipe_getTransaction", json!([hash]));
    assert_eq!((&life["stage"], life["requests"].as_array().unwrap().len()), (&json!("included"), 1), "{life}");
    let inferences = node.call("pipe_getBlockInferences", json!([tx["blockNumber"]]));
    assert_eq!(inferences.as_array().unwrap().len(), 1, "{inferences}");
    let trace = node.call("debug_traceTransaction", json!([hash, { "tracer": "callTracer" }]));
    let inner = trace["calls"].as_array().unwrap();
    assert_eq!(inner[0]["to"].as_str().unwrap().parse::<Address>().unwrap(), ticker, "{trace}");
    assert_eq!(trace["gasUsed"], receipt["gasUsed"]);
    // From then on nothing makes a block.
    let stop = Tx::call(sent, SCHEDULER, stopTaskCall { contractAddress: ticker }.abi_encode());
    node.send_and_succeed(&stop.sign(&account(0)));
    let (height, count) = (node.height(), runs(&node, ticker));
    std::thread::sleep(Duration::from_millis(2_500));
    assert_eq!((node.height(), runs(&node, ticker)), (height, count));
}

#[test]
fn tasks_go_on_after_a_restart_and_in_the_chain_of_an_exported_state() {
    let data = tempfile::tempdir().unwrap();
    let arguments = ["--block-time", "100ms", "--data", data.path().to_str().unwrap()];
    let node = Node::start(&arguments);
    let ticker = ticker(&node);
    eventually("it runs", || runs(&node, ticker) >= 2);
    assert!(node.stop().success());
    let node = Node::start(&arguments);
    let before = runs(&node, ticker);
    eventually("it runs on", || runs(&node, ticker) > before);
    let runs_at_end = runs(&node, ticker);
    assert!(node.stop().success());
    let store = data.path().join("state");
    let store = store.to_str().unwrap();
    let verified = penstock(&["db", "verify", "--store", store]);
    let told = String::from_utf8_lossy(&verified.stdout);
    assert!(verified.status.success() && told.contains("Nothing is wrong"), "{told}");
    let exported = data.path().join("genesis.json");
    let output = penstock(&["export", "--store", store, "--output", exported.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    goes_on(&exported, ticker, runs_at_end);
}

/// A chain that begins with an exported state runs its tasks.
fn goes_on(genesis: &Path, ticker: Address, before: u64) {
    let node = Node::start(&["--block-time", "100ms", "--genesis", genesis.to_str().unwrap()]);
    assert!(quantity(&node.call("eth_getBalance", json!([SCHEDULER, "latest"]))) > COIN, "deposits are there");
    eventually("it runs on", || runs(&node, ticker) > before);
}
