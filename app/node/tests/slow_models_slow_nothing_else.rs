//! Twenty transactions that call a one-second model and a thousand transfers, sent together: the
//! transfers go in at once, no block waits for a model, and every stage is visible.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::collections::BTreeSet;

use alloy_primitives::{Address, B256, U256};
use serde_json::json;
use support::{Node, Tx, account, contracts, eventually, heavy, quantity};

const SLOW: usize = 20;
const TRANSFERS: usize = 1_000;
/// About a second each on one core of the reference machine.
const LAYERS: usize = 100;

#[test]
fn transfers_go_in_at_once_while_twenty_slow_inferences_run() {
    let folder = tempfile::tempdir().unwrap();
    let genesis = heavy::genesis_with_heavy(folder.path(), LAYERS);
    let node = Node::start(&["--block-time", "200ms", "--genesis", genesis.to_str().unwrap()]);
    let probe = node.deploy(&account(9), "Probe", &[]);
    let begin = node.height();

    let slow: Vec<B256> = (0..SLOW)
        .map(|i| {
            // Two accounts, ten transactions each: a sender's transactions run side by side, too.
            let signer = account(i % 2);
            let tx = Tx::call((i / 2) as u64, probe, contracts::ask(heavy::NAME, &[i as i128, 1, 2, 3]));
            node.send(&Tx { gas: 29_000_000, ..tx }.sign(&signer))
        })
        .collect();
    let transfers: Vec<B256> = (0..TRANSFERS)
        .map(|i| {
            let tx = Tx { to: Address::repeat_byte(0x77).into(), value: U256::from(1), ..Tx::of((i / 5) as u64) };
            node.send(&tx.sign(&account(2 + i % 5)))
        })
        .collect();

    let mut seen = BTreeSet::new();
    let mut heights = BTreeSet::new();
    eventually("the transfers are included", || {
        for hash in &slow {
            let status = node.call("pipe_getTransaction", json!([hash]));
            seen.insert(status["stage"].as_str().unwrap().to_owned());
        }
        heights.insert(node.height());
        !node.call("eth_getTransactionReceipt", json!([transfers[TRANSFERS - 1]])).is_null()
    });
    let included = slow.iter().filter(|hash| !node.call("eth_getTransactionReceipt", json!([hash])).is_null()).count();
    assert!(included < SLOW, "the transfers waited for all slow inferences");
    assert!(seen.contains("inferring"), "{seen:?}");
    assert!(node.height() > begin, "blocks went on");

    for hash in &transfers {
        assert_eq!(node.receipt(*hash)["status"], "0x1");
    }
    for hash in &slow {
        let receipt = node.receipt(*hash);
        assert_eq!(receipt["status"], "0x1", "{receipt}");
        let status = node.call("pipe_getTransaction", json!([hash]));
        let stages: Vec<&str> =
            status["stages"].as_array().unwrap().iter().map(|s| s["stage"].as_str().unwrap()).collect();
        for stage in ["queued", "simulating", "inferring", "ready", "proposed", "included"] {
            assert!(stages.contains(&stage), "{stages:?} of {hash} lacks {stage}");
        }
        assert!(status["requests"][0]["tookMs"].as_f64().unwrap() > 10.0, "{status}");
    }
    // Different questions have different answers, all recorded.
    let answers: BTreeSet<String> = slow
        .iter()
        .map(|hash| {
            let id = node.call("pipe_getTransaction", json!([hash]))["requests"][0]["id"].as_str().unwrap().to_owned();
            node.call("pipe_getInference", json!([id]))["outputDigest"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(answers.len(), SLOW);
    assert_eq!(quantity(&node.call("eth_getBalance", json!([Address::repeat_byte(0x77), "latest"]))), TRANSFERS as u64);
}
