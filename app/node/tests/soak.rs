//! An hour of blocks (3,600 of them, as fast as they come) under a mixed load, with kills at random moments. The seed is
//! printed; `PENSTOCK_SEED=N` runs another one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::{
    collections::HashMap,
    thread,
    time::{Duration, Instant},
};

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::SolCall;
use serde_json::{Value, json};
use support::{Node, Tx, account, contracts, eventually, heavy, quantity};

const BLOCKS: u64 = 3_600;
const SENDERS: usize = 8;

struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

struct Contracts {
    probe: Address,
    advisor: Address,
    chain: Address,
    pool: Address,
}

fn transaction(dice: &mut Dice, contracts: &Contracts, nonce: u64) -> Tx {
    let n = dice.below(1 << 20) as i128;
    let tip = 1_000_000_000 + u128::from(dice.below(1_000_000_000));
    let tx = match dice.below(100) {
        0..35 => Tx { to: Address::repeat_byte(9).into(), value: U256::from(1), ..Tx::of(nonce) },
        35..60 => Tx { gas: 500_000, ..Tx::call(nonce, contracts.advisor, contracts::ask("penstock/linear", &[n, 1])) },
        60..70 => {
            let iterate = contracts::iterateCall { x: n, depth: U256::from(8) };
            Tx { gas: 1_500_000, ..Tx::call(nonce, contracts.chain, iterate.abi_encode()) }
        }
        70..80 => {
            let swap = contracts::swapCall { aForB: dice.below(2) == 0, amountIn: U256::from(1_000 + dice.below(500)) };
            Tx { gas: 1_500_000, ..Tx::call(nonce, contracts.pool, swap.abi_encode()) }
        }
        80..87 => Tx { gas: 100_000, ..Tx::call(nonce, contracts.probe, contracts::bumpCall {}.abi_encode()) },
        87..94 => Tx { gas: 500_000, ..Tx::call(nonce, contracts.probe, contracts::ask_volatile("penstock/linear")) },
        _ => {
            let values: Vec<i128> = vec![n, 1, 2, 3];
            Tx { gas: 29_000_000, ..Tx::call(nonce, contracts.advisor, contracts::ask(heavy::NAME, &values)) }
        }
    };
    Tx { tip, ..tx }
}

/// Resident memory of a process in MiB.
fn memory(node: &Node) -> u64 {
    node.resident_kib() / 1_024
}

#[test]
fn an_hour_of_blocks_with_kills_loses_nothing_that_was_seen() {
    let seed = std::env::var("PENSTOCK_SEED").map_or(4, |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let mut dice = Dice(seed * 2 + 1);
    let folder = tempfile::tempdir().unwrap();
    // Some 30 ms on a core.
    let genesis = heavy::genesis_with_heavy(folder.path(), 4);
    let data = folder.path().join("data");
    let arguments = ["--block-time", "10ms", "--data", data.to_str().unwrap(), "--genesis", genesis.to_str().unwrap()];
    let mut node = Node::start(&arguments);
    let payer = account(9);
    let contracts = Contracts {
        probe: node.deploy(&payer, "Probe", &[]),
        advisor: node.deploy(&payer, "Advisor", &[]),
        chain: node.deploy(&payer, "ModelChain", &[]),
        pool: node.deploy(&payer, "DynamicFeePool", &contracts::pool_arguments(1_000_000_000, 1_000_000_000)),
    };
    for sender in 0..SENDERS {
        let fund = contracts::fundCall { a: U256::from(1u64 << 40), b: U256::from(1u64 << 40) };
        node.send_and_succeed(
            &Tx { gas: 300_000, ..Tx::call(0, contracts.pool, fund.abi_encode()) }.sign(&account(sender)),
        );
    }

    let mut seen: HashMap<B256, Value> = HashMap::new();
    let mut open: Vec<B256> = Vec::new();
    let (mut sent, mut kills, mut next_kill) = (0u64, 0, 100 + dice.below(300));
    let begin = Instant::now();
    while node.height() < BLOCKS {
        for sender in 0..SENDERS {
            let signer = account(sender);
            // After a kill the pool is empty: the account goes on where the chain is.
            let nonce = node.nonce(signer.address());
            for n in 0..1 + dice.below(3) {
                let tx = transaction(&mut dice, &contracts, nonce + n);
                let answer = node.answer("eth_sendRawTransaction", json!([tx.sign(&signer)]));
                if let Some(hash) = answer["result"].as_str() {
                    open.push(hash.parse().unwrap());
                    sent += 1;
                }
            }
        }
        let receipts: Vec<(B256, Value)> = open
            .iter()
            .map(|hash| (*hash, node.call("eth_getTransactionReceipt", json!([hash]))))
            .filter(|(_, receipt)| !receipt.is_null())
            .collect();
        open.retain(|hash| !receipts.iter().any(|(included, _)| included == hash));
        seen.extend(receipts);
        if node.height() >= next_kill {
            next_kill = node.height() + 100 + dice.below(400);
            kills += 1;
            thread::sleep(Duration::from_millis(dice.below(30)));
            node.kill();
            node = Node::start(&arguments);
            open.clear();
            // The newest ones are those that a lost write would hit.
            let newest = seen.values().map(|receipt| quantity(&receipt["blockNumber"])).max().unwrap_or_default();
            for (hash, receipt) in seen.iter().filter(|(_, r)| quantity(&r["blockNumber"]) + 3 >= newest) {
                assert_eq!(node.call("eth_getTransactionReceipt", json!([hash])), *receipt);
            }
        }
        assert!(begin.elapsed() < Duration::from_secs(600), "height {} after ten minutes", node.height());
    }
    let took = begin.elapsed();
    eventually("the pool is empty", || {
        let status = node.call("pipe_status", json!([]));
        let txs = &status["transactions"];
        ["queued", "simulating", "inferring", "ready", "proposed"].iter().all(|stage| txs[stage] == 0)
    });
    for (hash, receipt) in &seen {
        assert_eq!(node.call("eth_getTransactionReceipt", json!([hash])), *receipt);
        assert_eq!(receipt["status"], "0x1", "{receipt}");
    }
    let status = node.call("pipe_status", json!([]));
    assert_eq!(status["transactions"]["bytes"], 0, "{status}");
    let memory = memory(&node);
    println!("{BLOCKS} blocks in {took:.0?}: {sent} sent, {} receipts seen, {kills} kills; {memory} MiB", seen.len());
    assert!(kills >= 5 && seen.len() > 1_000, "{kills} kills, {} receipts", seen.len());
    assert!(memory < 600, "{memory} MiB");
}
