//! The scenarios of `tests/clients`, run by viem, ethers, web3.py and OpenGradient's SDK against a node.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::{fs, process::Command};

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
fn stages_and_requests_are_told_over_websocket() {
    let Some(clients) = clients::installed() else { return };
    // Requests go to the network, so that they can be seen there.
    let node = Node::start_with(&["--block-time", "100ms"], &[("PENSTOCK_POOL_SIMULATION_OPS", "0")]);
    clients::run(&clients, "subscribe.mjs", &node);
}
