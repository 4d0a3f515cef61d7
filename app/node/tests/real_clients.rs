//! The scenarios of `tests/clients`, run by viem, ethers, web3.py, alloy, cast, forge, hardhat and OpenGradient's SDK against a node;
//! the calls of MetaMask; the answers against Ethereum's schemas; and thousands of transactions against anvil.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::{
    fs,
    process::{Command, Stdio},
};

use serde_json::Value;
use support::{Node, PROGRAM, clients, repository};

/// Runs a script against a fresh node; its last line.
fn run(script: &str) -> Option<String> {
    let clients = clients::installed()?;
    let node = Node::start(&["--block-time", "100ms"]);
    Some(clients::run(&clients, script, &node))
}

#[test]
fn viem_runs_all_scenarios_and_contracts_get_the_bits_of_model_run() {
    let Some(last) = run("viem.mjs") else { return };
    let answers: Value = serde_json::from_str(&last).unwrap();
    let answers = answers["answers"].as_array().unwrap();
    assert!(answers.len() >= 3);
    let folder = tempfile::tempdir().unwrap();
    for answer in answers {
        let name = answer["model"].as_str().unwrap().strip_prefix("penstock/").unwrap();
        let input = folder.path().join("input.json");
        fs::write(&input, serde_json::json!({ "inputs": answer["inputs"] }).to_string()).unwrap();
        let model = repository().join(format!("inference/models/{name}/{name}.onnx"));
        let output = Command::new(PROGRAM).args(["model", "run"]).args([&model, &input]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let ours: Value = serde_json::from_slice(&output.stdout).unwrap();
        let numbers: Vec<&Value> =
            ours["outputs"].as_object().unwrap().values().flat_map(|o| o["numbers"].as_array().unwrap()).collect();
        let theirs: Vec<&Value> = answer["numbers"].as_array().unwrap().iter().collect();
        assert_eq!(numbers, theirs, "{name}");
    }
}

#[test]
fn web3_py_runs_all_scenarios() {
    run("web3_client.py");
}

#[test]
fn opengradients_own_sdk_runs_with_nothing_but_addresses_and_the_url_changed() {
    let Some(last) = run("opengradient_client.py") else { return };
    if last.starts_with("skipped") {
        eprintln!("{last}");
    }
}

#[test]
fn ethers_runs_its_scenarios() {
    run("ethers.mjs");
}

#[test]
fn viem_fills_replaces_delegates_simulates_and_chooses_answers() {
    run("viem_more.mjs");
}

#[test]
fn viem_reads_traces_and_raw_bytes_of_a_transaction_that_asked_a_model() {
    run("viem_traces.mjs");
}

#[test]
fn cast_runs_its_scenarios() {
    run("cast.mjs");
}

#[test]
fn alloy_runs_its_scenarios() {
    let Some(clients) = clients::installed() else { return };
    clients::run_alloy(&clients, &Node::start(&["--block-time", "100ms"]));
}

#[test]
fn forge_deploys_and_asks_a_model_by_a_script() {
    run("forge.mjs");
}

#[test]
fn hardhat_compiles_deploys_and_asks_a_model() {
    run("hardhat.mjs");
}

#[test]
fn metamask_adds_the_network_and_sends() {
    run("metamask.mjs");
}

#[test]
fn answers_are_those_of_the_specification() {
    run("openrpc.py");
}

#[test]
fn anvil_has_the_same_receipts_and_state_roots_for_thousands_of_random_transactions() {
    let Some(clients) = clients::installed() else { return };
    // It starts both nodes, since they need the same genesis.
    let output = Command::new("node")
        .arg(repository().join("app/node/tests/clients/anvil.mjs"))
        .env("PENSTOCK_CLIENTS", clients)
        .env("PENSTOCK_PROGRAM", PROGRAM)
        // Without it the script takes another one each time.
        .env("SEED", "7483")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn stages_and_requests_are_told_over_websocket() {
    let Some(clients) = clients::installed() else { return };
    // Requests go to the network, so that they can be seen there.
    let node = Node::start_with(&["--block-time", "100ms"], &[("PENSTOCK_POOL_SIMULATION_OPS", "0")]);
    clients::run(&clients, "subscribe.mjs", &node);
}
