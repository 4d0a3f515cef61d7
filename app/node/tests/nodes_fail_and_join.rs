//! Outages of validators, and nodes that join: by block sync and by state sync, without a single model.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::{thread, time::Duration};

use alloy_primitives::{Address, hex};
use alloy_sol_types::SolCall;
use penstock_chain::VALIDATORS;
use serde_json::{Value, json};
use support::{
    Rpc, Tx, account, bytes, contracts, eventually,
    network::{Comet, Network, Setup, V0_38, V0_40},
    quantity,
};

/// Questions by one account, all included.
fn ask(node: &Rpc, probe: Address, sender: usize, count: u64) {
    let signer = account(sender);
    let first = node.nonce(signer.address());
    let hashes: Vec<_> = (first..first + count)
        .map(|nonce| {
            let tx = Tx::call(nonce, probe, contracts::ask("penstock/linear", &[i128::from(nonce), 1]));
            node.send(&Tx { gas: 1_000_000, ..tx }.sign(&signer))
        })
        .collect();
    for hash in hashes {
        assert_eq!(node.receipt(hash)["status"], "0x1");
    }
}

/// The last answer in the contract, as a call on a node gives it.
fn answer(node: &Rpc, probe: Address) -> (i128, i128) {
    let data = hex::encode_prefixed(contracts::firstNumberCall {}.abi_encode());
    let output = node.call("eth_call", json!([{ "to": probe, "data": data }, "latest"]));
    let number = contracts::firstNumberCall::abi_decode_returns(&bytes(&output)).unwrap();
    (number.value, number.decimals)
}

fn height_of(node: &Rpc) -> u64 {
    node.try_height().unwrap_or_default()
}

fn outages(comet: Comet) {
    let Some(mut network) = Network::new(&Setup { block_time: "100ms", ..Setup::of(comet, 4) }) else { return };
    network.start_and_wait();
    let probe = network.nodes[0].deploy(&account(0), "Probe", &[]);

    // One down: it goes on.
    network.nodes[3].kill();
    ask(&network.nodes[1], probe, 1, 5);

    // Two down: it halts, without a fork.
    network.nodes[2].kill();
    thread::sleep(Duration::from_secs(3));
    let halted = height_of(&network.nodes[0]);
    thread::sleep(Duration::from_secs(4));
    assert!(height_of(&network.nodes[0]) <= halted + 1, "two of four validators decided blocks");
    let pending = network.nodes[0].send(&Tx::of(0).sign(&account(4)));

    // One returns: it resumes, with what was pending.
    network.nodes[2].start(&[]);
    assert_eq!(network.nodes[0].receipt(pending)["status"], "0x1");
    network.nodes[3].start(&[]);
    network.wait_for_progress();
    network.assert_equal();
}

#[test]
fn one_of_four_down_changes_nothing_two_halt_the_chain_and_one_that_returns_resumes_it_on_v0_38() {
    outages(V0_38);
}

#[test]
fn one_of_four_down_changes_nothing_two_halt_the_chain_and_one_that_returns_resumes_it_on_v0_40() {
    outages(V0_40);
}

fn joining(comet: Comet) {
    let environment = vec![("PENSTOCK_SNAPSHOTS_INTERVAL", "20"), ("PENSTOCK_SNAPSHOTS_KEEP", "50")];
    let setup = Setup { block_time: "100ms", environment, ..Setup::of(comet, 1) };
    let Some(mut network) = Network::new(&setup) else { return };
    network.start_and_wait();
    let probe = network.nodes[0].deploy(&account(0), "Probe", &[]);
    ask(&network.nodes[0], probe, 1, 5);
    eventually("a snapshot is made", || network.nodes[0].metric("penstock_snapshot_height") > 0.0);
    let snapshot = network.nodes[0].metric("penstock_snapshot_height") as u64;
    network.wait_for(snapshot + 5);

    network.join(&[]).start(&["--no-models"]);
    let rpc = network.nodes[0].cometbft_rpc.clone();
    network.join(&["--state-sync", &format!("{rpc},{rpc}")]).start(&["--no-models"]);
    network.wait_for_progress();
    // New answers reach them, too.
    ask(&network.nodes[0], probe, 2, 5);
    network.wait_for_progress();
    network.assert_equal();

    let [validator, by_blocks, by_state] = network.nodes.as_slice() else { panic!("three nodes") };
    for node in [by_blocks, by_state] {
        assert_eq!(answer(node, probe), answer(validator, probe), "{}", node.name);
        let model = node.call("pipe_getModel", json!(["penstock/linear"]));
        assert_eq!(model["available"], false, "{model}");
        assert!(node.log_text().contains("committed height"));
        let balance = |node: &Rpc| node.call("eth_getBalance", json!([account(1).address(), "latest"]));
        assert_eq!(balance(node), balance(validator));
        assert_eq!(node.call("pipe_validators", json!([])), validator.call("pipe_validators", json!([])));
    }
    // One has all blocks, the other those after its snapshot, and says so.
    assert!(!by_blocks.call("eth_getBlockByNumber", json!(["0x1", false])).is_null());
    assert!(by_state.call("eth_getBlockByNumber", json!(["0x1", false])).is_null());
    let refused = by_state.answer("eth_getLogs", json!([{ "fromBlock": "0x1" }]));
    assert_eq!(refused["error"]["code"], 4444, "{refused}");
    assert!(by_state.log_text().contains("the state is the snapshot's"), "{} was restored", by_state.name);
    // What a contract deployed later writes is the same everywhere: the joiners' state is whole.
    let late = validator.deploy(&account(5), "Probe", &[]);
    ask(validator, late, 5, 2);
    network.wait_for_progress();
    network.assert_equal();
    let [validator, .., by_state] = network.nodes.as_slice() else { panic!("three nodes") };
    let nonce = |node: &Rpc| quantity(&node.call("eth_getTransactionCount", json!([account(5).address(), "latest"])));
    assert_eq!((nonce(by_state), nonce(validator)), (3, 3));
    // A restart of the one that was restored.
    let node = network.nodes.last_mut().unwrap();
    node.kill();
    node.start(&["--no-models"]);
    network.wait_for_progress();
    network.assert_equal();
}

#[test]
fn nodes_without_models_join_by_block_sync_and_by_state_sync_on_v0_38() {
    joining(V0_38);
}

#[test]
fn nodes_without_models_join_by_block_sync_and_by_state_sync_on_v0_40() {
    joining(V0_40);
}

/// A full node becomes a validator, and the chain goes on without the one that it replaces.
#[test]
fn the_admin_adds_a_validator_and_removes_another() {
    let Some(program) = V0_40.program() else { return };
    let admin = account(6);
    let admin_text = admin.address().to_string();
    let setup = Setup { block_time: "100ms", full_nodes: 1, validator_admin: Some(&admin_text), ..Setup::of(V0_40, 2) };
    let Some(mut network) = Network::new(&setup) else { return };
    network.start_and_wait();
    let key_of = |node: &support::network::Member| -> [u8; 32] {
        let output = std::process::Command::new(&program).args(["show-validator", "--home"]).arg(&node.home).output();
        let shown: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
        let bytes =
            base64::Engine::decode(&base64::engine::general_purpose::STANDARD, shown["value"].as_str().unwrap());
        bytes.unwrap().try_into().unwrap()
    };
    let set = |node: usize, power: u64, nonce: u64| {
        let call = contracts::setValidatorCall { ed25519Key: key_of(&network.nodes[node]).into(), power };
        let tx = Tx::call(nonce, VALIDATORS, call.abi_encode());
        network.nodes[0].send_and_succeed(&Tx { gas: 1_000_000, ..tx }.sign(&admin));
    };
    let validators = |expected: usize| {
        eventually("the validators change", || {
            let set = network.nodes[0].cometbft("validators").unwrap();
            set["validators"].as_array().unwrap().len() == expected
        });
    };
    validators(2);
    set(2, 10, 0);
    validators(3);
    set(1, 0, 1);
    validators(2);
    // Two validators are left: the new one must sign, the removed one need not.
    network.nodes[1].kill();
    let height = network.nodes[0].height();
    for index in [0, 2] {
        network.nodes[index].wait_for(height + 4);
    }
    let consensus = network.nodes[0].call("pipe_getBlockConsensus", json!(["latest"]));
    let votes = consensus["lastCommit"].as_array().unwrap();
    assert!(votes.len() == 2 && votes.iter().all(|vote| vote["vote"] == "commit"), "{consensus}");
    assert_eq!(network.nodes[0].call("pipe_validators", json!([])).as_array().unwrap().len(), 2);
    // It comes back as a full node.
    network.nodes[1].start(&[]);
    network.wait_for_progress();
    network.assert_equal();
}
