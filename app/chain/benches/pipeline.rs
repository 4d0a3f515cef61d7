//! What a transaction costs on its way: admission against bare signature recovery, simulation, and a
//! block of 1,000 transfers through all four consensus calls. Prints one table; one thread submits.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that cannot go on stops")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use alloy_consensus::{TxEnvelope, transaction::SignerRecoverable};
use alloy_eips::eip2718::Decodable2718;
use alloy_primitives::Bytes;
use penstock_abci::Application;
use penstock_pipe::{PoolConfig, Stage};
use support::{TestChain, Tx};

const SENDERS: u8 = 8;
const EACH: u64 = 125;
const COUNT: u32 = SENDERS as u32 * EACH as u32;
const ROUNDS: usize = 5;

fn micros(total: Duration) -> f64 {
    total.as_secs_f64() * 1e6 / f64::from(COUNT)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn signed(make: impl Fn(u64, u8) -> Tx) -> Vec<Bytes> {
    (0..EACH)
        .flat_map(|nonce| (0..SENDERS).map(move |sender| (nonce, sender)))
        .map(|(n, s)| make(n, s).sign(s))
        .collect()
}

fn main() {
    let transfers = signed(|nonce, _| Tx::transfer(nonce));
    let questions = signed(|nonce, sender| Tx::ask(nonce, [nonce.into(), sender.into()]));
    let config = PoolConfig { ripeness: 0.0, max_per_sender: 10_000, ..PoolConfig::default() };

    let recover = (0..ROUNDS).map(|_| {
        let begin = Instant::now();
        for raw in &transfers {
            TxEnvelope::decode_2718_exact(raw).unwrap().recover_signer().unwrap();
        }
        micros(begin.elapsed())
    });
    println!("{:<58} {:>9.1} µs", "decode and recover the signature, alone", median(recover.collect()));

    let (mut admit, mut calls): (Vec<f64>, [Vec<f64>; 4]) = Default::default();
    for _ in 0..ROUNDS {
        let chain = TestChain::with(config, true);
        let begin = Instant::now();
        let hashes: Vec<_> = transfers.iter().map(|raw| chain.chain.admit(raw.clone()).unwrap()).collect();
        admit.push(micros(begin.elapsed()));
        hashes.iter().for_each(|hash| chain.wait_for(*hash, Stage::Ready));
        let mut timed = |index: usize, work: &mut dyn FnMut()| {
            let begin = Instant::now();
            work();
            calls[index].push(begin.elapsed().as_secs_f64() * 1e3);
        };
        let mut block = None;
        timed(0, &mut || block = Some(chain.propose()));
        let block = block.unwrap();
        // Another validator's view: it has the transactions, and not the proposal.
        let other = TestChain::with(config, true);
        for raw in &transfers {
            other.chain.admit(raw.clone()).unwrap();
        }
        timed(1, &mut || assert!(other.accepts(&block)));
        timed(2, &mut || {
            chain.finalize(&block);
        });
        timed(3, &mut || {
            chain.chain.commit().unwrap();
        });
    }
    println!("{:<58} {:>9.1} µs", "admission (CheckTx) of a transfer, simulation beside it", median(admit));
    for (name, values) in
        ["PrepareProposal", "ProcessProposal on another validator", "FinalizeBlock of the kept execution", "Commit"]
            .iter()
            .zip(calls)
    {
        println!("{:<58} {:>9.1} ms", format!("{name}, {COUNT} transfers"), median(values));
    }

    let mut until_ready = Vec::new();
    for _ in 0..ROUNDS {
        let chain = TestChain::with(config, true);
        let begin = Instant::now();
        let hashes: Vec<_> = questions.iter().map(|raw| chain.chain.admit(raw.clone()).unwrap()).collect();
        hashes.iter().for_each(|hash| chain.wait_for(*hash, Stage::Ready));
        until_ready.push(micros(begin.elapsed()));
    }
    println!("{:<58} {:>9.1} µs", "a question from admission to ready (2 simulations, 1 run)", median(until_ready));
}
