//! What a new head costs a pool with 10,000 waiting transactions: nothing of theirs touched, one in a hundred, all.
//! Prints one table.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that cannot go on stops")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;

use penstock_pipe::PoolConfig;
use support::{Program, World, tx};

const WAITING: u16 = 10_000;
const ROUNDS: usize = 50;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A pool whose transactions wait for dear answers; each reads one of a hundred slots.
fn waiting(slots: u16) -> World {
    let mut world = World::new(PoolConfig { max_txs: 20_000, ..PoolConfig::default() });
    for n in 0..WAITING {
        let reads = (n % slots) as u8;
        let asks = Program { reads, questions: 1, ops: 200_000_000 + u64::from(n), ..Program::TRANSFER };
        world.submit(tx(n, 0, 5_000, asks)).unwrap();
        while !world.jobs.is_empty() {
            world.simulate(0);
        }
    }
    world
}

fn main() {
    println!("{:<64} {:>10} {:>12}", format!("a new head, {WAITING} transactions waiting"), "ms", "simulations");
    for (name, slots, touched) in
        [("none touched", 100, None), ("1 % touched", 100, Some(0)), ("all touched", 1, Some(0))]
    {
        let mut world = waiting(slots);
        let (mut times, mut again) = (Vec::new(), 0);
        for _ in 0..ROUNDS {
            if let Some(slot) = touched {
                *world.slots.entry(slot).or_default() += 1;
            }
            let begin = Instant::now();
            world.head_with_changed(touched);
            times.push(begin.elapsed().as_secs_f64() * 1e3);
            again = world.jobs.len();
            while !world.jobs.is_empty() {
                world.simulate(0);
            }
            world.wishes.clear();
        }
        println!("{name:<64} {:>10.3} {again:>12}", median(times));
    }
}
