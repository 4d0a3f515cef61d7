//! The scenarios of `tests/clients` pass against any node of a network: one validator and four, on both CometBFT versions.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use serde_json::json;
use support::{
    clients,
    network::{Comet, Network, Setup, V0_38, V0_40},
};

fn clients_pass(comet: Comet, validators: usize) {
    let Some(clients) = clients::installed() else { return };
    let Some(mut network) = Network::new(&Setup { block_time: "100ms", ..Setup::of(comet, validators) }) else {
        return;
    };
    network.start_and_wait();
    clients::run(&clients, "viem.mjs", &network.nodes[0]);
    clients::run(&clients, "web3_client.py", &network.nodes[validators - 1]);
    clients::run(&clients, "ethers.mjs", &network.nodes[validators / 2]);
    network.wait_for_progress();
    network.assert_equal();

    // The block says who signed the one before, and the state has the validators' keys.
    let node = &network.nodes[0];
    let keys = node.call("pipe_validators", json!([]));
    assert_eq!(keys.as_array().unwrap().len(), validators);
    assert_eq!(keys[0]["type"], "ed25519");
    assert_eq!(keys[0]["publicKey"].as_str().unwrap().len(), 2 + 64);
    let consensus = node.call("pipe_getBlockConsensus", json!(["latest"]));
    let votes = consensus["lastCommit"].as_array().unwrap();
    assert_eq!(votes.len(), validators);
    let signed = votes.iter().filter(|vote| vote["vote"] == "commit").count();
    assert!(signed * 3 > validators * 2, "{consensus}");
    assert!(!node.call("eth_syncing", json!([])).as_bool().unwrap());
    // Blocks are not executed twice: the proposal's execution is the block's (a node may begin with some by block sync).
    let from_proposals = node.metric("penstock_finalized_executions_total{from=\"proposal\"}");
    let all = node.metric("penstock_finalized_executions_total");
    assert!(from_proposals > all * 0.75, "{from_proposals} of {all}");
    for node in &mut network.nodes {
        assert!(node.stop(), "{}: SIGTERM is a clean stop", node.name);
    }
}

#[test]
fn one_validator_on_v0_38() {
    clients_pass(V0_38, 1);
}

#[test]
fn one_validator_on_v0_40() {
    clients_pass(V0_40, 1);
}

#[test]
fn four_validators_on_v0_38() {
    clients_pass(V0_38, 4);
}

#[test]
fn four_validators_on_v0_40() {
    clients_pass(V0_40, 4);
}
