//! The node on real CometBFT: time of a block, transfers a second beside CometBFT's own kvstore, the gap between blocks
//! with thousands of inferences pending, and four validators with a slow model in flight.
//!
//! `PENSTOCK_COMETBFT=$PWD/target/cometbft cargo bench -p penstock --bench cometbft [-- blocks | transfers | pending |
//! four]`; `scripts/install-cometbft --tests` installs what it needs.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a benchmark that cannot go on stops")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_signer_local::PrivateKeySigner;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use support::{
    Tx, account, contracts, heavy,
    network::{Comet, Member, Network, Setup, V0_38, V0_40, signal},
};

/// Transactions of the throughput comparison.
const TRANSFERS: usize = 20_000;
const SENDERS: usize = 2_000;

/// Inferences that are pending while gaps are measured.
const PENDING: usize = 5_000;

fn percentile(values: &[f64], percent: f64) -> f64 {
    let index = (values.len().saturating_sub(1) as f64 * percent / 100.0).round() as usize;
    values.get(index).copied().unwrap_or(f64::NAN)
}

/// Milliseconds between the blocks that a node logged since a moment, sorted.
fn gaps(node: &Member, since: SystemTime) -> Vec<f64> {
    let log = node.log_text();
    let times: Vec<SystemTime> = log
        .lines()
        .filter(|line| line.contains(" committed "))
        .filter_map(|line| humantime::parse_rfc3339(line.split_whitespace().next()?).ok())
        .filter(|time| *time >= since)
        .collect();
    let mut gaps: Vec<f64> =
        times.windows(2).map(|pair| pair[1].duration_since(pair[0]).unwrap_or_default().as_secs_f64() * 1e3).collect();
    gaps.sort_by(f64::total_cmp);
    gaps
}

fn print_gaps(what: &str, gaps: &[f64]) {
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    println!(
        "{what:<68} mean {mean:>7.1}  p50 {:>7.1}  p99 {:>7.1} ms  ({} blocks)",
        percentile(gaps, 50.0),
        percentile(gaps, 99.0),
        gaps.len()
    );
}

fn signer(index: usize) -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&B256::from(U256::from(0xbe4c_0000u64 + index as u64))).unwrap()
}

/// The repository's genesis with the slow model and many funded accounts.
fn genesis(folder: &Path, layers: usize) -> PathBuf {
    let path = heavy::genesis_with_heavy(folder, layers);
    let mut document: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for index in 0..SENDERS {
        let balance = json!({ "balance": "0x21e19e0c9bab2400000" });
        document["app_state"]["alloc"][signer(index).address().to_string()] = balance;
    }
    std::fs::write(&path, document.to_string()).unwrap();
    path
}

/// One validator with `timeout_commit` 0.
fn blocks(comet: Comet) {
    let Some(mut network) = Network::new(&Setup { block_time: "0s", ..Setup::of(comet, 1) }) else { return };
    network.start_and_wait();
    thread::sleep(Duration::from_secs(2));
    let since = SystemTime::now();
    thread::sleep(Duration::from_secs(10));
    print_gaps(
        &format!("{} one validator, timeout_commit 0: time of a block", comet.version),
        &gaps(&network.nodes[0], since),
    );
}

/// Posts batches from four threads; answers when all are taken.
fn post(url: &str, bodies: &[String]) {
    thread::scope(|scope| {
        for part in bodies.chunks(bodies.len().div_ceil(4)) {
            scope.spawn(move || {
                let agent: ureq::Agent = ureq::Agent::config_builder().build().into();
                for body in part {
                    let answer = agent.post(url).header("content-type", "application/json").send(body);
                    let text = answer.unwrap().body_mut().read_to_string().unwrap();
                    assert!(!text.contains("\"error\""), "{text}");
                }
            });
        }
    });
}

fn batches(method: &str, params: impl Iterator<Item = Value>) -> Vec<String> {
    let call = |(id, params)| json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
    let calls: Vec<Value> = params.enumerate().map(call).collect();
    calls.chunks(10).map(|calls| json!(calls).to_string()).collect()
}

/// Plain transfers by `eth_sendRawTransaction`, until the last one is in a block. Transactions a second.
fn transfers(comet: Comet) -> Option<f64> {
    let folder = tempfile::tempdir().unwrap();
    let genesis = genesis(folder.path(), 1);
    let environment =
        vec![("PENSTOCK_POOL_MAX_TXS", "50000"), ("PENSTOCK_POOL_MAX_PER_SENDER", "1000"), ("RUST_LOG", "warn")];
    let setup = Setup { block_time: "100ms", genesis: Some(&genesis), environment, ..Setup::of(comet, 1) };
    let mut network = Network::new(&setup)?;
    enlarge_mempool(&network.nodes[0].home);
    network.start_and_wait();
    let each = TRANSFERS / SENDERS;
    let signed: Vec<Bytes> = (0..each as u64)
        .flat_map(|nonce| (0..SENDERS).map(move |sender| (nonce, sender)))
        .map(|(nonce, sender)| {
            Tx { to: Address::repeat_byte(9).into(), value: U256::from(1), ..Tx::of(nonce) }.sign(&signer(sender))
        })
        .collect();
    let bodies = batches("eth_sendRawTransaction", signed.iter().map(|raw| json!([raw])));
    let node = &network.nodes[0];
    let begin = Instant::now();
    post(&node.url, &bodies);
    let received = json!([Address::repeat_byte(9), "latest"]);
    while node.call("eth_getBalance", received.clone()) != format!("{TRANSFERS:#x}") {
        assert!(begin.elapsed() < Duration::from_secs(180), "not all transfers are included");
        thread::sleep(Duration::from_millis(20));
    }
    Some(TRANSFERS as f64 / begin.elapsed().as_secs_f64())
}

/// The mempools of both applications hold all transactions of the comparison.
fn enlarge_mempool(home: &Path) {
    let path = home.join("config/config.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let text =
        text.replace("size = 10000\n", "size = 50000\n").replace("cache_size = 20000\n", "cache_size = 100000\n");
    std::fs::write(path, text).unwrap();
}

/// The same number of transactions of the same size to the kvstore that is built into CometBFT, with the same
/// configuration but for the flood mempool, which is the one that it has.
fn kvstore(comet: Comet) -> Option<f64> {
    let program = comet.program()?;
    let setup = Setup { block_time: "100ms", ..Setup::of(V0_38, 1) };
    let network = Network::new(&setup)?;
    let node = &network.nodes[0];
    enlarge_mempool(&node.home);
    let genesis = node.home.join("config/genesis.json");
    let mut document: Value = serde_json::from_slice(&std::fs::read(&genesis).unwrap()).unwrap();
    document["app_state"] = json!({});
    std::fs::write(&genesis, document.to_string()).unwrap();
    let mut child = Command::new(program)
        .args(["start", "--proxy_app", "kvstore", "--home"])
        .arg(&node.home)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while node.cometbft("block?height=1").is_none() {
        thread::sleep(Duration::from_millis(50));
    }
    let txs = (0..TRANSFERS).map(|i| json!({ "tx": STANDARD.encode(format!("key-{i:040}=value-{i:060}")) }));
    let bodies = batches("broadcast_tx_async", txs);
    let begin = Instant::now();
    post(&node.cometbft_rpc, &bodies);
    let (mut height, mut included) = (1, 0);
    while included < TRANSFERS {
        assert!(begin.elapsed() < Duration::from_secs(180), "{included} included");
        match node.cometbft(&format!("block?height={height}")) {
            Some(block) if !block["block"].is_null() => {
                included += block["block"]["data"]["txs"].as_array().map_or(0, Vec::len);
                height += 1;
            }
            _ => thread::sleep(Duration::from_millis(20)),
        }
    }
    let rate = TRANSFERS as f64 / begin.elapsed().as_secs_f64();
    signal("-TERM", child.id());
    child.wait().unwrap();
    Some(rate)
}

fn throughput() {
    for comet in [V0_38, V0_40] {
        let (Some(ours), Some(theirs)) = (transfers(comet), kvstore(comet)) else { return };
        println!(
            "{} {TRANSFERS} transfers, submission to block: {ours:.0}/s; built-in kvstore: {theirs:.0}/s; ratio {:.2}",
            comet.version,
            ours / theirs
        );
    }
}

/// Gaps between blocks with an empty pool, and with thousands of transactions that wait for a slow model.
fn pending(comet: Comet) {
    let folder = tempfile::tempdir().unwrap();
    let genesis = genesis(folder.path(), 100);
    for block_time in ["0s", "200ms"] {
        // Blocks of five milliseconds would soon end the wait that is counted in blocks.
        let environment = vec![("PENSTOCK_POOL_MAX_WAIT_BLOCKS", "1000000")];
        let setup = Setup { block_time, genesis: Some(&genesis), environment, ..Setup::of(comet, 1) };
        let Some(mut network) = Network::new(&setup) else { return };
        network.start_and_wait();
        let node = &network.nodes[0];
        let probe = node.deploy(&account(9), "Probe", &[]);
        thread::sleep(Duration::from_secs(2));
        let since = SystemTime::now();
        thread::sleep(Duration::from_secs(10));
        let name = format!("{} timeout_commit {block_time}", comet.version);
        print_gaps(&format!("{name}: empty pool"), &gaps(node, since));
        let signed = (0..PENDING).map(|i| {
            let (sender, nonce) = (i % SENDERS, (i / SENDERS) as u64);
            let tx = Tx::call(nonce, probe, contracts::ask(heavy::NAME, &[i as i128, 1, 2, 3]));
            json!([Tx { gas: 29_000_000, ..tx }.sign(&signer(sender))])
        });
        post(&node.url, &batches("eth_sendRawTransaction", signed));
        thread::sleep(Duration::from_secs(3));
        let since = SystemTime::now();
        thread::sleep(Duration::from_secs(15));
        let stages = node.call("pipe_status", json!([]))["transactions"].clone();
        print_gaps(&format!("{name}: {stages}"), &gaps(node, since));
    }
}

/// Intervals of four validators, with and without a one-second model in flight.
fn four(comet: Comet) {
    let folder = tempfile::tempdir().unwrap();
    let genesis = genesis(folder.path(), 100);
    let setup = Setup { block_time: "500ms", genesis: Some(&genesis), ..Setup::of(comet, 4) };
    let Some(mut network) = Network::new(&setup) else { return };
    network.start_and_wait();
    let node = &network.nodes[0];
    let probe = node.deploy(&account(9), "Probe", &[]);
    thread::sleep(Duration::from_secs(2));
    let since = SystemTime::now();
    thread::sleep(Duration::from_secs(25));
    let name = format!("{} four validators, timeout_commit 500 ms", comet.version);
    print_gaps(&format!("{name}: idle"), &gaps(node, since));
    let since = SystemTime::now();
    let begin = Instant::now();
    let mut hashes = Vec::new();
    while begin.elapsed() < Duration::from_secs(25) {
        // One at a time: four validators share two cores here.
        let nonce = hashes.len() as u64;
        let tx = Tx::call(nonce, probe, contracts::ask(heavy::NAME, &[i128::from(nonce), 1, 2, 3]));
        hashes.push(node.send(&Tx { gas: 29_000_000, ..tx }.sign(&signer(0))));
        node.receipt(*hashes.last().unwrap());
    }
    print_gaps(&format!("{name}: a slow model in flight"), &gaps(node, since));
    let took: Vec<f64> = hashes
        .iter()
        .filter_map(|hash| node.call("pipe_getTransaction", json!([hash]))["requests"][0]["tookMs"].as_f64())
        .collect();
    let mean = took.iter().sum::<f64>() / took.len().max(1) as f64;
    println!("    {} inferences, {mean:.0} ms each on this node, all included", hashes.len());
}

fn main() {
    let chosen: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|chosen| chosen == name);
    for comet in [V0_38, V0_40] {
        if wanted("blocks") {
            blocks(comet);
        }
    }
    if wanted("transfers") {
        throughput();
    }
    for comet in [V0_38, V0_40] {
        if wanted("pending") {
            pending(comet);
        }
        if wanted("four") {
            four(comet);
        }
    }
}
