//! The pool under random orders of events: nothing is lost or doubled, nothing is stuck, and `ready` always
//! means that nothing is missing. A failing story is shrunk and its seed is printed and kept.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::{collections::HashSet, time::Duration};

use alloy_primitives::{B256, U256};
use penstock_pipe::{Event, PoolConfig, Rejected, Stage};
use proptest::prelude::*;
use support::{BALANCE, Program, World, sender, tx};

const MAX_TXS: usize = 24;
const MAX_BYTES: usize = 60_000;

fn config() -> PoolConfig {
    PoolConfig {
        max_txs: MAX_TXS,
        max_bytes: MAX_BYTES,
        max_gapped: 8,
        max_per_sender: 12,
        max_wait_blocks: 1_000,
        free_sender_ops: 2_000_000_000,
        earned_sender_ops: 2_000_000_000,
        ..PoolConfig::default()
    }
}

#[derive(Debug, Clone)]
enum Happening {
    Submit {
        from: u16,
        ahead: u64,
        fee: u128,
        program: Program,
    },
    Simulate(usize),
    Answer(usize),
    Block(usize),
    Jump {
        from: u16,
        by: u64,
    },
    BaseFee(u64),
    Poor {
        from: u16,
    },
    Wait(u64),
    /// A proposal that is not decided.
    Undecided(usize),
}

fn program() -> impl Strategy<Value = Program> {
    let writes = prop_oneof![2 => Just(255u8), 3 => 0u8..4];
    let ops = prop_oneof![Just(1_000u64), Just(20_000_000), Just(400_000_000)];
    (0u8..4, writes, 0u8..4, any::<[bool; 3]>(), ops).prop_map(
        |(reads, writes, questions, [fickle, dependent, volatile], ops)| Program {
            reads,
            writes,
            fickle,
            questions,
            dependent,
            volatile,
            ops,
        },
    )
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => (1u16..5, 0u64..5, 1u128..6, program())
            .prop_map(|(from, ahead, fee, program)| Happening::Submit { from, ahead, fee: fee * 1_000, program }),
        8 => any::<usize>().prop_map(Happening::Simulate),
        6 => any::<usize>().prop_map(Happening::Answer),
        3 => (0usize..6).prop_map(Happening::Block),
        1 => (1u16..6, 1u64..4).prop_map(|(from, by)| Happening::Jump { from, by }),
        1 => prop_oneof![Just(1u64), Just(2_500), Just(4_500)].prop_map(Happening::BaseFee),
        1 => (1u16..6).prop_map(|from| Happening::Poor { from }),
        1 => (1u64..4_000).prop_map(Happening::Wait),
        1 => (0usize..6).prop_map(Happening::Undecided),
    ]
}

fn happen(world: &mut World, happening: Happening) {
    match happening {
        Happening::Submit { from, ahead, fee, program } => {
            let nonce = world.nonce(sender(from)) + ahead;
            // Any refusal leaves everything as it was: the invariants say the rest.
            let _ = world.submit(tx(from, nonce, fee, program));
        }
        Happening::Simulate(index) if !world.jobs.is_empty() => world.simulate(index),
        Happening::Answer(index) if !world.wanted.is_empty() => world.answer_nth(index),
        Happening::Block(count) => drop(world.block(count)),
        Happening::Jump { from, by } => drop(world.block_with(0, Some((sender(from), by)), world.base_fee)),
        Happening::BaseFee(fee) => drop(world.block_with(0, None, fee)),
        Happening::Poor { from } => {
            let poor = !world.balances.contains_key(&sender(from));
            world.balances.insert(sender(from), if poor { U256::from(1) } else { BALANCE });
            world.dirty.insert(sender(from));
        }
        Happening::Undecided(count) => {
            let hashes = world.candidates().into_iter().take(count).map(|candidate| candidate.tx.hash()).collect();
            world.step(Event::Proposed(hashes));
        }
        Happening::Wait(seconds) => world.now += Duration::from_secs(seconds),
        _ => {}
    }
    world.now += Duration::from_millis(1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_no_transaction_is_lost_doubled_or_stuck(story in proptest::collection::vec(happening(), 1..160)) {
        let mut world = World::new(config());
        for happening in story {
            happen(&mut world, happening);
            world.check_ready(config().inline_ops);
            let counts = world.pool.counts();
            prop_assert!(world.pool.all().len() <= MAX_TXS && counts.bytes <= MAX_BYTES, "{counts:?}");
        }
        world.settle();
        // Debts are forgiven. Whatever has no gap before it and pays the base fee goes in; the rest waits, and is told why.
        for _ in 0..200 {
            world.now += Duration::from_secs(60);
            world.block_with(usize::MAX, None, 1);
            world.settle();
            world.check_ready(config().inline_ops);
        }
        for (tx, stage) in world.pool.all() {
            prop_assert_eq!(stage, Stage::Queued, "{} of {} is stuck", tx.nonce(), tx.sender);
            let reason = world.pool.status(&tx.hash()).unwrap().reason.unwrap();
            prop_assert!(reason.starts_with("waits for nonce"), "{}", reason);
        }
        let inside: HashSet<B256> = world.pool.all().iter().map(|(tx, _)| tx.hash()).collect();
        for hash in &world.submitted {
            prop_assert!(inside.contains(hash) != world.left.contains_key(hash), "{} is lost or doubled", hash);
        }
        prop_assert!(world.wanted.is_empty());
        // Nothing is remembered of what left.
        for tx in inside {
            world.step(Event::Unfit { hash: tx, reason: "the story ends".into() });
        }
        prop_assert!(world.pool.is_clean());
    }
}

#[test]
fn an_account_whose_nonce_jumps_over_its_pending_transactions_loses_them_and_nothing_else() {
    let mut world = World::new(config());
    world.nonces.insert(sender(1), 6);
    for (from, nonce) in [(1, 6), (1, 7), (2, 0)] {
        world.submit(tx(from, nonce, 1_000, Program::TRANSFER)).unwrap();
    }
    world.block_with(0, Some((sender(1), 2)), 1);
    world.settle();
    assert_eq!(world.pool.all().len(), 1);
    world.block(1);
    assert!(world.pool.is_clean());
}

#[test]
fn peers_hear_of_a_transaction_when_it_becomes_executable_and_again_when_it_stays_pending() {
    let mut world = World::new(config());
    let told = |world: &mut World| world.pool.take_outgoing(0, 0).iter().map(|tx| tx.nonce()).collect::<Vec<_>>();
    world.submit(tx(1, 2, 1_000, Program::TRANSFER)).unwrap();
    world.submit(tx(1, 1, 1_000, Program::TRANSFER)).unwrap();
    assert_eq!(told(&mut world), [0u64; 0], "nonce 0 is missing");
    world.submit(tx(1, 0, 1_000, Program::TRANSFER)).unwrap();
    world.settle();
    assert_eq!(told(&mut world), [0, 1, 2], "the gap is closed");
    assert!(!world.pool.has_outgoing(), "each once");
    for _ in 0..29 {
        world.block(0);
    }
    assert_eq!(told(&mut world), [0u64; 0]);
    world.block(0);
    let mut again = told(&mut world);
    again.sort_unstable();
    assert_eq!(again, [0, 1, 2], "a peer may have been away");
}

#[test]
fn what_peers_are_told_stays_within_bytes_and_gas_and_skips_nothing() {
    let mut world = World::new(config());
    for from in 1..5 {
        let raw = vec![0; 100].into();
        world.submit(penstock_pipe::PoolTx { raw, ..tx(from, 0, 1_000, Program::TRANSFER) }).unwrap();
    }
    let quiet = penstock_pipe::PoolTx { tell_peers: false, ..tx(5, 0, 1_000, Program::TRANSFER) };
    world.submit(quiet).unwrap();
    assert_eq!(world.pool.take_outgoing(250, 0).len(), 2);
    assert_eq!(world.pool.take_outgoing(0, 21_000).len(), 1);
    assert_eq!(world.pool.take_outgoing(0, 0).len(), 1);
    assert!(world.pool.take_outgoing(0, 0).is_empty());
}

#[test]
fn a_full_pool_evicts_the_end_of_the_cheapest_senders_chain_and_refuses_what_pays_no_more() {
    let mut world = World::new(PoolConfig { max_txs: 4, ..config() });
    let chain: Vec<B256> = [(0, 1_000), (1, 9_000), (2, 9_000)]
        .iter()
        .map(|(nonce, fee)| world.submit(tx(1, *nonce, *fee, Program::TRANSFER)).unwrap())
        .collect();
    world.submit(tx(2, 0, 5_000, Program::TRANSFER)).unwrap();
    world.settle();
    let refused = world.submit(tx(3, 0, 1_000, Program::TRANSFER)).unwrap_err();
    assert_eq!(refused, Rejected::Underpriced { fee_cap: 1_000, least: 1_000 });
    let refused = world.submit(tx(1, 3, 9_000, Program::TRANSFER)).unwrap_err();
    assert_eq!(refused, Rejected::Underpriced { fee_cap: 9_000, least: 1_000 }, "it can only come after the cheapest");
    world.submit(tx(3, 0, 2_000, Program::TRANSFER)).unwrap();
    assert_eq!(world.left.get(&chain[2]), Some(&Stage::Dropped), "the last can only come after the cheapest");
    let reason = world.pool.status(&chain[2]).unwrap().reason.unwrap();
    assert!(reason.contains("evicted"), "{reason}");
    world.settle();
    assert_eq!(world.block(9), 4);
}

#[test]
fn transactions_behind_gaps_are_bounded() {
    let mut world = World::new(config());
    for n in 0..8 {
        world.submit(tx(10 + n, 1, 1_000, Program::TRANSFER)).unwrap();
    }
    assert_eq!(world.submit(tx(9, 1, 1_000, Program::TRANSFER)), Err(Rejected::Full(8)));
    world.submit(tx(9, 0, 1_000, Program::TRANSFER)).unwrap();
    world.submit(tx(10, 0, 1_000, Program::TRANSFER)).unwrap();
    world.submit(tx(11, 2, 1_000, Program::TRANSFER)).unwrap();
}

#[test]
fn those_behind_a_transaction_that_did_something_else_in_its_block_are_asked_again() {
    const DEAR: u64 = 400_000_000;
    let mut world = World::new(config());
    let idle = Program::TRANSFER;
    // One writes slot 1 as long as slot 0 is even; the one behind it asks about slot 1. Another account, which pays more,
    // makes slot 0 odd in the same block.
    world.submit(tx(1, 0, 1_000, Program { reads: 0, writes: 1, fickle: true, ..idle })).unwrap();
    let asks = Program { reads: 1, questions: 1, volatile: true, ops: DEAR, ..idle };
    let behind = world.submit(tx(1, 1, 1_000, asks)).unwrap();
    world.submit(tx(2, 0, 9_000, Program { reads: 3, writes: 0, ..idle })).unwrap();
    world.settle();
    assert_eq!(world.block(2), 2);
    assert_eq!(world.slots.get(&1), None, "not written after all");
    assert_eq!(world.pool.status(&behind).unwrap().stage, Stage::Simulating);
    world.settle();
    world.check_ready(config().inline_ops);
    assert_eq!(world.block(1), 1);
}

#[test]
fn when_an_early_transaction_of_sixteen_is_replaced_only_those_that_read_its_writes_run_again() {
    const DEAR: u64 = 400_000_000;
    let mut world = World::new(PoolConfig { max_per_sender: 16, ..PoolConfig::default() });
    let writes = |slot| Program { reads: 9, writes: slot, questions: 1, ops: DEAR, ..Program::TRANSFER };
    for nonce in 0..16 {
        // The first writes slot 0. Of the others every fourth asks about slot 0, the rest about slot 9.
        let reads = if nonce % 4 == 0 { 0 } else { 9 };
        let program = Program { reads, writes: 20 + nonce as u8, ..writes(0) };
        world.submit(tx(1, nonce, 1_000, if nonce == 0 { writes(0) } else { program })).unwrap();
    }
    world.settle();
    assert_eq!(world.pool.counts().ready, 16);
    let before = world.simulations;
    // The same with a higher fee: it leaves the same behind.
    world.submit(tx(1, 0, 2_000, writes(0))).unwrap();
    world.settle();
    assert_eq!(world.simulations - before, 1, "itself, with the answer of the replaced one");
    // Another one, which does not write slot 0.
    let before = world.simulations;
    world.submit(tx(1, 0, 3_000, Program { questions: 0, ..writes(50) })).unwrap();
    world.settle();
    assert_eq!(world.simulations - before, 1 + 3, "itself and the three that read slot 0");
    world.check_ready(config().inline_ops);
    assert_eq!(world.block(16), 16);
}

#[test]
fn an_account_that_can_not_pay_for_all_any_more_loses_the_last_ones() {
    let mut world = World::new(config());
    let hashes: Vec<B256> = (0..4).map(|nonce| world.submit(tx(1, nonce, 1_000, Program::TRANSFER)).unwrap()).collect();
    world.settle();
    world.balances.insert(sender(1), U256::from(2 * 21_000 * 1_000));
    world.dirty.insert(sender(1));
    world.block(0);
    let stage = |world: &World, n: usize| world.pool.status(&hashes[n]).unwrap().stage;
    assert_eq!([0, 1, 2, 3].map(|n| stage(&world, n)), [Stage::Ready, Stage::Ready, Stage::Dropped, Stage::Dropped]);
    assert!(world.pool.status(&hashes[3]).unwrap().reason.unwrap().contains("insufficient funds"));
}

#[test]
fn a_request_that_never_ran_costs_its_account_nothing_and_one_that_did_becomes_debt() {
    const DEAR: u64 = 400_000_000;
    let mut world = World::new(config());
    let asks = Program { questions: 1, ops: DEAR, ..Program::TRANSFER };
    world.submit(tx(1, 0, 1_000, asks)).unwrap();
    world.simulate(0);
    let asked = *world.wanted.keys().next().unwrap();
    assert_eq!(world.pool.allowance(world.now, &sender(1)).pending, DEAR);
    let cancel = world.submit(tx(1, 0, 2_000, Program::TRANSFER)).unwrap();
    world.simulate(0);
    // The network took it out of its queue.
    world.step(Event::NotRun { id: asked, ops: DEAR, hash: cancel, sender: sender(1) });
    let allowance = world.pool.allowance(world.now, &sender(1));
    assert_eq!((allowance.pending, allowance.debt), (0, 0));
    world.block(1);
    // The same, but it ran: the gas of a transfer pays for a part.
    world.submit(tx(1, 1, 1_000, asks)).unwrap();
    world.settle();
    world.submit(tx(1, 1, 2_000, Program::TRANSFER)).unwrap();
    world.settle();
    world.block(1);
    let earned = 2 * 21_000 * 1_000;
    assert_eq!(world.pool.allowance(world.now, &sender(1)).debt, DEAR - earned / 2);
}

#[test]
fn dear_questions_about_what_an_earlier_transaction_wrote_on_a_placeholder_wait_for_its_answer() {
    const DEAR: u64 = 400_000_000;
    let mut world = World::new(PoolConfig::default());
    // Each asks about the slot that the one before it writes; the last about another one.
    let asks = |reads, writes| Program { reads, writes, questions: 1, volatile: true, ops: DEAR, ..Program::TRANSFER };
    let chain = [asks(9, 0), asks(0, 1), asks(1, 2), asks(7, 3)];
    let hashes: Vec<B256> =
        (0..).zip(chain).map(|(nonce, program)| world.submit(tx(1, nonce, 1_000, program)).unwrap()).collect();
    while !world.jobs.is_empty() {
        world.simulate(0);
    }
    let reason = |world: &World, n: usize| world.pool.status(&hashes[n]).unwrap().reason.unwrap_or_default();
    assert_eq!(world.wanted.len(), 2, "the first one's, and that of the last, which reads nothing of theirs");
    assert_eq!(reason(&world, 1), "waits for the answers of the sender's transaction before it");
    assert!(reason(&world, 3).starts_with("waits for 1 results"));
    let mut asked = 0;
    while !world.wanted.is_empty() {
        world.answer_nth(0);
        asked += 1;
        while !world.jobs.is_empty() {
            world.simulate(0);
        }
    }
    assert_eq!(asked, 4, "none for nothing");
    world.check_ready(PoolConfig::default().inline_ops);
    assert_eq!(world.block(4), 4);
}
