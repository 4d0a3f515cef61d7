//! `kill -9` of applications, of CometBFT, of both, at random moments under load: all nodes end with the same blocks,
//! nothing that was committed is lost, and nobody has to help.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use alloy_primitives::{Address, B256, U256};
use serde_json::{Value, json};
use support::{
    Rpc, Tx, account, contracts, eventually,
    network::{Comet, Network, Setup, V0_38, V0_40},
    quantity,
};

const KILLS: u64 = 50;

/// A small generator: the seed is printed, and gives the same kills again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Sends transfers and questions to whatever node is up, until it is told to stop. Answers the receipts that it saw.
fn load(nodes: &[Rpc], probe: Address, stop: &AtomicBool) -> BTreeMap<B256, Value> {
    let (mut seen, mut pending) = (BTreeMap::new(), Vec::new());
    let mut turn = 0usize;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let (node, sender) = (&nodes[turn % nodes.len()], turn % 4);
        let signer = account(sender);
        let count = node.try_call("eth_getTransactionCount", json!([signer.address(), "pending"]));
        if let Some(nonce) = count.as_ref().map(quantity) {
            let tx = match turn % 3 {
                0 => Tx { to: Address::repeat_byte(9).into(), value: U256::from(1), ..Tx::of(nonce) },
                _ => Tx::call(nonce, probe, contracts::ask("penstock/linear", &[turn as i128, nonce as i128])),
            };
            let raw = Tx { gas: 1_000_000, ..tx }.sign(&signer);
            let sent = node.try_call("eth_sendRawTransaction", json!([raw]));
            pending.extend(sent.and_then(|hash| hash.as_str()?.parse::<B256>().ok()));
        }
        pending.retain(|hash| match node.try_call("eth_getTransactionReceipt", json!([hash])) {
            Some(receipt) if !receipt.is_null() => {
                seen.insert(*hash, receipt["blockHash"].clone());
                false
            }
            _ => true,
        });
        let surplus = pending.len().saturating_sub(20);
        pending.drain(..surplus);
        thread::sleep(Duration::from_millis(15));
    }
    seen
}

fn nodes_survive(comet: Comet) {
    let Some(mut network) = Network::new(&Setup { block_time: "50ms", ..Setup::of(comet, 4) }) else { return };
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into();
    println!("seed {seed}");
    let mut random = Random(seed);
    network.start_and_wait();
    let probe = network.nodes[0].deploy(&account(9), "Probe", &[]);
    let rpcs: Vec<Rpc> = network.nodes.iter().map(|node| node.rpc.clone()).collect();
    let stop = AtomicBool::new(false);
    let seen = thread::scope(|scope| {
        let loader = scope.spawn(|| load(&rpcs, probe, &stop));
        let mut kills = 0;
        while kills < KILLS {
            thread::sleep(Duration::from_millis(random.below(2_500)));
            let node = &mut network.nodes[random.below(4) as usize];
            match random.below(3) {
                0 => node.kill_app(),
                1 if !node.kill_cometbft() => continue, // it was just being started again
                1 => {}
                _ => node.kill(),
            }
            kills += 1;
            if !node.is_running() {
                // What systemd does.
                thread::sleep(Duration::from_millis(random.below(300)));
                node.start(&[]);
            }
        }
        stop.store(true, Ordering::Relaxed);
        loader.join().unwrap()
    });
    network.wait_for_progress();
    let height = network.assert_equal();
    assert!(height > 40, "the chain stood still: height {height}");
    assert!(seen.len() > 20, "only {} transactions were seen included", seen.len());
    for node in &network.nodes {
        for (hash, block) in &seen {
            let receipt = node.call("eth_getTransactionReceipt", json!([hash]));
            assert_eq!(receipt["blockHash"], *block, "{hash} on {}", node.name);
        }
    }
    let hash = network.nodes[1].send(&Tx::of(0).sign(&account(8)));
    eventually("all nodes have a new transaction", || {
        network.nodes.iter().all(|node| !node.call("eth_getTransactionReceipt", json!([hash])).is_null())
    });
    println!("{KILLS} kills, height {height}, {} transactions", seen.len());
}

#[test]
fn fifty_kills_on_v0_38() {
    nodes_survive(V0_38);
}

#[test]
fn fifty_kills_on_v0_40() {
    nodes_survive(V0_40);
}
