//! Time between blocks of `penstock dev`: with nothing to do, with transfers, and with twenty one-second
//! inferences pending beside the transfers. Prints one table.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that cannot go on stops")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    thread,
    time::{Duration, Instant, SystemTime},
};

use alloy_primitives::{Address, U256};
use serde_json::json;
use support::{Node, Tx, account, contracts, heavy};

const INTERVAL: Duration = Duration::from_millis(200);
const RUN: Duration = Duration::from_secs(15);

/// Intervals in milliseconds between the blocks that the log tells of.
fn intervals(node: &Node, since: SystemTime) -> Vec<f64> {
    let committed = node.log_lines().into_iter().filter(|line| line.contains(" committed "));
    let times: Vec<SystemTime> = committed
        .filter_map(|line| humantime::parse_rfc3339(line.split_whitespace().next()?).ok())
        .filter(|time| *time >= since)
        .collect();
    let mut values: Vec<f64> =
        times.windows(2).map(|pair| pair[1].duration_since(pair[0]).unwrap_or_default().as_secs_f64() * 1e3).collect();
    values.sort_by(f64::total_cmp);
    values
}

fn row(name: &str, values: &[f64]) {
    let at = |quantile: f64| values[((values.len() - 1) as f64 * quantile) as usize];
    println!("{name:<52} {:>5} {:>9.1} {:>9.1} {:>9.1}", values.len(), at(0.5), at(0.99), at(1.0));
}

fn send_transfers(node: &Node, nonce: &mut u64, until: Instant) {
    while Instant::now() < until {
        let tx = Tx { to: Address::repeat_byte(0x77).into(), value: U256::from(1), ..Tx::of(*nonce) };
        node.send(&tx.sign(&account(5)));
        *nonce += 1;
        thread::sleep(Duration::from_millis(5));
    }
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let genesis = heavy::genesis_with_heavy(folder.path(), 100);
    let block_time = humantime::format_duration(INTERVAL).to_string();
    let node = Node::start(&["--block-time", &block_time, "--genesis", genesis.to_str().unwrap()]);
    let probe = node.deploy(&account(9), "Probe", &[]);
    println!(
        "{:<52} {:>5} {:>9} {:>9} {:>9}",
        format!("block interval in ms (set to {block_time})"),
        "n",
        "p50",
        "p99",
        "max"
    );

    let since = SystemTime::now();
    thread::sleep(RUN);
    row("empty chain", &intervals(&node, since));

    let mut nonce = 0;
    let since = SystemTime::now();
    send_transfers(&node, &mut nonce, Instant::now() + RUN);
    row("some 150 transfers a second", &intervals(&node, since));

    let slow: Vec<_> = (0..20)
        .map(|i| {
            let tx = Tx::call(i, probe, contracts::ask(heavy::NAME, &[i.into(), 1, 2, 3]));
            node.send(&Tx { gas: 29_000_000, ..tx }.sign(&account(0)))
        })
        .collect();
    let since = SystemTime::now();
    send_transfers(&node, &mut nonce, Instant::now() + RUN);
    let pending = slow.iter().filter(|hash| node.call("eth_getTransactionReceipt", json!([hash])).is_null()).count();
    row(&format!("the same, and 20 slow inferences ({pending} left at the end)"), &intervals(&node, since));
    let took: Vec<f64> = slow
        .iter()
        .filter_map(|hash| node.call("pipe_getTransaction", json!([hash]))["requests"][0]["tookMs"].as_f64())
        .collect();
    println!("{:<52} {:>9.0} ms", "one slow inference takes", took.iter().sum::<f64>() / took.len().max(1) as f64);
}
