//! Ten thousand transactions over hours of simulated time, with models that take from a tenth of a millisecond to
//! minutes. The seeds are fixed; `PENSTOCK_SEED=N` runs another one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::{collections::HashMap, time::Duration};

use alloy_primitives::B256;
use penstock_pipe::{PoolConfig, Stage};
use support::{
    Program, RULES,
    day::{Day, Dice, OPS_PER_SECOND},
    sender, tx,
};

const TRANSACTIONS: u64 = 10_000;
const SENDERS: u64 = 600;
const SECOND: Duration = Duration::from_secs(1);

fn seeds() -> Vec<u64> {
    std::env::var("PENSTOCK_SEED").map_or_else(|_| (1..=5).collect(), |seed| vec![seed.parse().unwrap()])
}

/// Kinds of programs by how dear they are.
fn program(dice: &mut Dice) -> (&'static str, Program) {
    let slot = |dice: &mut Dice| dice.below(200) as u8;
    let base = Program { reads: slot(dice), writes: slot(dice), ..Program::TRANSFER };
    match dice.below(100) {
        0..40 => ("plain", Program { writes: 255, ..base }),
        40..75 => {
            ("light", Program { questions: 1 + dice.below(4) as u8, ops: 7_000, volatile: dice.one_in(2), ..base })
        }
        75..85 => ("chain", Program { questions: 8, dependent: true, ops: 50_000_000, ..base }),
        85..93 => ("medium", Program { questions: 1 + dice.below(3) as u8, ops: 160_000_000, ..base }),
        93..97 => {
            ("contended", Program { reads: 0, writes: 0, questions: 1, ops: 200_000_000, volatile: true, ..base })
        }
        // A second to three minutes of a core.
        _ => ("heavy", Program { questions: 1, ops: OPS_PER_SECOND * (1 + dice.below(180)), ..base }),
    }
}

fn at(sorted: &[Duration], quantile: f64) -> Duration {
    sorted.get(((sorted.len().max(1) - 1) as f64 * quantile) as usize).copied().unwrap_or_default()
}

#[test]
fn ten_thousand_transactions_over_hours_all_end_and_slow_models_delay_only_their_own() {
    for seed in seeds() {
        println!("seed {seed}");
        one_day(seed);
    }
}

fn one_day(seed: u64) {
    let config =
        PoolConfig { free_sender_ops: 400 * OPS_PER_SECOND, max_wait: 3_600 * SECOND, ..PoolConfig::default() };
    let mut day = Day::new(config, seed, 16, SECOND, 100);
    let mut dice = Dice::new(seed + 100);
    let mut next: HashMap<u64, u64> = HashMap::new();
    let mut kinds: HashMap<B256, &'static str> = HashMap::new();
    for _ in 0..TRANSACTIONS {
        let pause = Duration::from_millis(dice.below(500));
        day.run_until(day.world.now + pause);
        let from = dice.below(SENDERS);
        let nonce = next.entry(from).or_default();
        *nonce = (*nonce).max(day.world.nonce(sender(from as u16)));
        let fee = 1_000 + u128::from(dice.below(50)) * 100;
        let (kind, program) = program(&mut dice);
        // Some come out of order, some replace the one before, some cancel it.
        let (kind, program, number, fee) = match dice.below(40) {
            0 => (kind, program, *nonce + 1, fee),
            1 if *nonce > 0 => (kind, program, *nonce - 1, fee * 8),
            2 if *nonce > 0 => ("cancel", Program::TRANSFER, *nonce - 1, fee * 8),
            _ => (kind, program, *nonce, fee),
        };
        let Ok(hash) = day.submit(tx(from as u16, number, fee, program)) else { continue };
        kinds.insert(hash, kind);
        if number == *nonce {
            *nonce += 1;
        }
        let here = day.world.nonce(sender(from as u16));
        *nonce = (*nonce).max(day.world.pool.pending_nonce(&sender(from as u16), here));
    }
    let limit = day.world.now + 6 * 3_600 * SECOND;
    while day.world.now < limit && day.world.pool.counts().queued < day.world.pool.all().len() {
        day.run_until(day.world.now + 60 * SECOND);
        day.world.check_ready(config.inline_ops);
    }
    // Whatever is left waits for a nonce that nobody sent.
    for (tx, stage) in day.world.pool.all() {
        let status = day.world.pool.status(&tx.hash()).unwrap();
        assert_eq!(stage, Stage::Queued, "stuck: {status:?}");
        assert!(status.reason.unwrap().starts_with("waits for nonce"));
    }
    let pooled: usize = day.world.pool.all().len();
    let (included, dropped) = (day.included.len(), day.world.left.len() - day.included.len());
    assert_eq!(included + dropped + pooled, day.world.submitted.len(), "none is lost or doubled");
    assert!(day.world.wanted.is_empty());

    // A transaction behind a slow one of its own account waits for it; others do not.
    let mut alone: HashMap<&str, Vec<B256>> = HashMap::new();
    for (hash, kind) in &kinds {
        alone.entry(kind).or_default().push(*hash);
    }
    for (kind, hashes) in &alone {
        let latencies = day.latencies(hashes);
        println!(
            "{kind:>10}: {:>5} included, p50 {:>8.2?}, p95 {:>8.2?}, max {:>8.2?}",
            latencies.len(),
            at(&latencies, 0.5),
            at(&latencies, 0.95),
            at(&latencies, 1.0)
        );
    }
    let median = |kind: &str| at(&day.latencies(&alone[kind]), 0.5);
    assert!(median("plain") <= SECOND, "half of all transfers are in the next block");
    assert!(median("light") <= SECOND);
    assert!(median("chain") <= 2 * SECOND, "eight steps, and each starts at once");
    println!(
        "{included} included, {dropped} dropped, {pooled} behind gaps; {} blocks; cores worked {:?}",
        day.blocks, day.worked
    );
}

/// Nobody's light transaction waits for a slow model, whatever else is there: each account has one kind only.
#[test]
fn a_thousand_transactions_that_wait_for_a_minute_do_not_delay_a_thousand_light_ones() {
    let mut day = Day::new(PoolConfig::default(), 7, 8, SECOND / 5, 500);
    let slow = Program { questions: 1, ops: 60 * OPS_PER_SECOND / 20, ..Program::TRANSFER };
    let slow: Vec<B256> = (0..1_000)
        .map(|n| day.submit(tx(n, 0, 5_000, Program { ops: slow.ops + u64::from(n), ..slow })).unwrap())
        .collect();
    let mut light = Vec::new();
    for n in 0..1_000u16 {
        day.run_until(day.world.now + SECOND / 50);
        let asks = Program { reads: n as u8, questions: 1, ops: 7_000, volatile: true, ..Program::TRANSFER };
        light.push(day.submit(tx(2_000 + n, 0, 1_000, asks)).unwrap());
    }
    let waiting = day.world.pool.counts().inferring;
    day.run_until(day.world.now + SECOND);
    let latencies = day.latencies(&light);
    assert_eq!(latencies.len(), 1_000);
    assert!(at(&latencies, 1.0) <= SECOND / 5 + SECOND / 50, "the next block has it: {:?}", at(&latencies, 1.0));
    assert!(waiting > 900, "{waiting} still wait for the slow model");
    let before = day.included.len();
    day.run_until(day.world.now + 3_600 * SECOND);
    assert_eq!(day.included.len(), before + slow.len() - (1_000 - waiting), "and all of them end");
}

#[test]
fn when_demand_exceeds_capacity_the_fee_decides_and_among_equals_the_account_with_less_under_way() {
    let config = PoolConfig { free_sender_ops: 1_000 * OPS_PER_SECOND, ..PoolConfig::default() };
    let mut day = Day::new(config, 7, 2, SECOND, 500);
    let asks = Program { questions: 1, ops: OPS_PER_SECOND, ..Program::TRANSFER };
    // One account with fifty, one with a single one, both at the same fee; one that pays more, later.
    let many: Vec<B256> =
        (0..50).map(|nonce| day.submit(tx(1, nonce, 2_000, asks_about(asks, nonce))).unwrap()).collect();
    day.run_until(SECOND / 2);
    let single = day.submit(tx(2, 0, 2_000, asks_about(asks, 100))).unwrap();
    let rich = day.submit(tx(3, 0, 9_000, asks_about(asks, 101))).unwrap();
    day.run_until(120 * SECOND);
    let latency = |hash: &B256| day.latencies([hash])[0];
    assert!(latency(&rich) <= 4 * SECOND, "{:?}", latency(&rich));
    assert!(latency(&single) <= 5 * SECOND, "{:?}", latency(&single));
    assert!(latency(&many[49]) >= 25 * SECOND, "fifty seconds of work on two cores");
    let order: Vec<Duration> = many.iter().map(latency).collect();
    assert!(order.is_sorted(), "and in the order of their nonces");
}

/// The same program about something else.
fn asks_about(program: Program, n: u64) -> Program {
    Program { ops: program.ops + n, ..program }
}

/// What the pool runs for transactions that never pay: within the bound that `budget.rs` explains.
#[test]
fn whoever_makes_the_pool_compute_and_then_invalidates_the_transaction_can_not_do_so_for_free_for_long() {
    const HOURS: u64 = 10;
    let config = PoolConfig::default();
    let mut day = Day::new(config, 7, 4, SECOND, 500);
    let attacker = 1u16;
    let heavy = Program { questions: 1, ops: 20_000_000_000, ..Program::TRANSFER };
    let (mut paid, mut rounds, mut cancelled) = (0u64, 0u64, Vec::new());
    let mut honest = Vec::new();
    let end = HOURS * 3_600;
    while day.world.now.as_secs() < end {
        // Eight heavy questions; a few seconds later transfers that pay a little more take their nonces.
        let nonce = day.world.nonce(sender(attacker));
        for n in 0..8u64 {
            let _ = day.submit(tx(attacker, nonce + n, 3_000, Program { ops: heavy.ops + rounds * 8 + n, ..heavy }));
        }
        day.run_until(day.world.now + SECOND / 2);
        for n in 0..8u64 {
            if let Ok(hash) = day.submit(tx(attacker, nonce + n, 4_000 + u128::from(rounds % 7), Program::TRANSFER)) {
                cancelled.push(hash);
                paid += Program::TRANSFER.gas() * RULES.ops_per_gas;
            }
        }
        // Somebody else asks at a lower fee meanwhile.
        let asks = Program { questions: 1, ops: OPS_PER_SECOND / 2 + rounds, ..Program::TRANSFER };
        honest.push(day.submit(tx(10 + (rounds % 500) as u16, rounds / 500, 2_000, asks)).unwrap());
        day.run_until(day.world.now + 20 * SECOND);
        rounds += 1;
    }
    let honest_work: u64 = (0..rounds).map(|n| OPS_PER_SECOND / 2 + n).sum();
    let worked = (day.worked.as_secs_f64() * OPS_PER_SECOND as f64) as u64;
    let unpaid = worked.saturating_sub(honest_work);
    let bound = config.free_sender_ops * (1 + HOURS) + paid + heavy.ops;
    println!(
        "{rounds} rounds in {HOURS} hours: {:.0} core seconds for nothing; the bound is {:.0}; all that was asked for {:.0}",
        unpaid as f64 / OPS_PER_SECOND as f64,
        bound as f64 / OPS_PER_SECOND as f64,
        (rounds * 8 * heavy.ops) as f64 / OPS_PER_SECOND as f64,
    );
    assert!(unpaid <= bound, "{unpaid} > {bound}");
    assert!(unpaid > config.free_sender_ops / 2, "the attack did something at all");
    assert!(cancelled.len() as u64 > rounds / 2, "and went on");
    let latencies = day.latencies(&honest);
    assert_eq!(latencies.len(), honest.len());
    assert!(at(&latencies, 0.99) <= 4 * SECOND, "others hardly notice: {:?}", at(&latencies, 0.99));
}
