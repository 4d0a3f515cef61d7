//! `penstock bench`, on nodes that it starts and on one that runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;
use support::{Node, PROGRAM};

fn bench(arguments: &[&str], json: &Path) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(["bench"]).args(arguments).arg("--json").arg(json);
    command.env("PENSTOCK_HOME", "/nonexistent").env("RUST_LOG", "warn").output().unwrap()
}

fn rows(output: &Output, json: &Path) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    report["rows"].as_array().unwrap().clone()
}

#[test]
fn it_starts_a_node_runs_scenarios_with_their_baseline_and_writes_json() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    let scenarios = ["transfers", "light", "medium", "dependent", "contended", "one"];
    let output = bench(&[&scenarios[..], &["--scale", "0.05", "--block-time", "50ms"]].concat(), &json);
    let rows = rows(&output, &json);
    let names: Vec<(&str, &str)> =
        rows.iter().map(|row| (row["scenario"].as_str().unwrap(), row["system"].as_str().unwrap())).collect();
    let with_baseline = scenarios[1..].iter().flat_map(|name| [(*name, "penstock"), (*name, "blocking")]);
    assert_eq!(names, [("transfers", "penstock")].into_iter().chain(with_baseline).collect::<Vec<_>>());
    for row in &rows {
        let count = |key: &str| row[key].as_u64().unwrap();
        assert_eq!(count("included"), count("sent"), "{row}");
        assert_eq!((count("failed"), count("refused"), count("missing")), (0, 0, 0), "{row}");
        assert!(row["transactionsPerSecond"].as_f64().unwrap() > 0.0);
    }
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("light, blocking") && table.contains("of the throughput of transfers"), "{table}");
}

#[test]
fn it_loads_a_node_that_runs_and_says_what_is_missing_there() {
    let node = Node::start(&["--block-time", "50ms"]);
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    let mix = "plain=4,light=3,dependent=1,contended=1";
    let arguments = ["mixed", "--url", &node.url, "--duration", "2s", "--rate", "50", "--mix", mix];
    for _ in 0..2 {
        let rows = rows(&bench(&arguments, &json), &json);
        assert_eq!(rows[0]["included"], rows[0]["sent"], "{}", rows[0]);
        assert_eq!(rows[0]["failed"], 0);
        assert_eq!(rows[0]["latencyMs"].as_object().unwrap().len(), 4);
    }
    for (arguments, reason) in [
        (vec!["medium", "--url", &node.url], "`medium` needs the model bench/medium"),
        (vec!["transfers", "--url", "http://127.0.0.1:1"], "no JSON-RPC answer"),
        (vec!["mixed", "--mix", "plain=1,nothing=2"], "there is no kind of transaction `nothing`"),
        (vec!["mixed", "--mix", "plain=0"], "all shares are 0"),
        (vec!["transfers", "--scale", "0"], "--scale must be"),
        (vec!["transfers", "--url", &node.url, "--key", "0x12"], "--key is no private key"),
    ] {
        let output = bench(&arguments, &json);
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && message.contains(reason), "{arguments:?}: {message}");
    }
}
