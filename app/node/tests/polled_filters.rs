//! Filters that a client polls tell what is new, once, and nothing outside of the blocks that they name.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use serde_json::json;
use support::{Node, Tx, account, contracts};

#[test]
fn a_poll_answers_new_logs_once_and_within_the_blocks_of_the_filter() {
    let node = Node::start(&["--block-time", "100ms"]);
    let probe = node.deploy(&account(0), "Probe", &[]);
    let install = |filter| node.call("eth_newFilter", json!([filter]));
    let open = install(json!({ "address": probe }));
    let past = install(json!({ "address": probe, "toBlock": format!("{:#x}", node.height()) }));
    let future = install(json!({ "address": probe, "fromBlock": "0xffffff" }));

    let ask = Tx::call(0, probe, contracts::ask("penstock/linear", &[1, 2]));
    let receipt = node.send_and_succeed(&ask.sign(&account(1)));
    let poll = |id| node.call("eth_getFilterChanges", json!([id])).as_array().unwrap().clone();
    let new = poll(&open);
    assert_eq!(new.len(), 1);
    assert_eq!(new[0]["transactionHash"], receipt["transactionHash"]);
    assert!(poll(&open).is_empty(), "once");
    assert!(poll(&past).is_empty() && poll(&future).is_empty());

    let one_block = json!([{ "blockHash": receipt["blockHash"] }]);
    assert_eq!(node.answer("eth_newFilter", one_block)["error"]["code"], -32602);
    assert_eq!(node.call("eth_uninstallFilter", json!([open])), true);
    assert_eq!(node.answer("eth_getFilterChanges", json!([open]))["error"]["code"], -32000);
}
