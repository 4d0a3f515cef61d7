//! The scenarios of `tests/clients`, run by viem, ethers and web3.py against a node.
//!
//! `scripts/test` installs the clients and names the folder in `PENSTOCK_CLIENTS`; without it the tests
//! say that they were skipped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::{
    env, fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;
use support::{Node, PROGRAM, repository};

/// Runs a script against a fresh node; its last line.
fn run(program: PathBuf, script: &str) -> Option<String> {
    let Ok(clients) = env::var("PENSTOCK_CLIENTS") else {
        eprintln!("skipped: PENSTOCK_CLIENTS is not set (scripts/test sets it)");
        return None;
    };
    let program = if program.is_absolute() || program.components().count() == 1 {
        program
    } else {
        PathBuf::from(&clients).join(program)
    };
    let node = Node::start(&["--block-time", "100ms"]);
    let output = Command::new(program)
        .arg(repository().join("app/node/tests/clients").join(script))
        .env("PENSTOCK_RPC", &node.url)
        .env("PENSTOCK_WS", node.websocket())
        .env("PENSTOCK_CLIENTS", &clients)
        .env("PENSTOCK_CONTRACTS", repository().join("app/contracts/out"))
        .env("PENSTOCK_MODELS", repository().join("inference/models"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{script}:\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text.lines().last().map(str::to_owned)
}

#[test]
fn viem_runs_all_scenarios_and_contracts_get_the_bits_of_model_run() {
    let Some(last) = run("node".into(), "viem.mjs") else { return };
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
    run("python/bin/python".into(), "web3_client.py");
}

#[test]
fn ethers_runs_its_scenarios() {
    run("node".into(), "ethers.mjs");
}
