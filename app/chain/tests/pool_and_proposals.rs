//! The pool's promises, from admission to the block, with consensus played by the test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use alloy_primitives::U256;
use alloy_sol_types::SolCall;
use penstock_chain::HeaderTx;
use penstock_evm::Denied;
use penstock_inference::Failure;
use penstock_pipe::{PoolConfig, Stage};
use penstock_state::View;
use revm::DatabaseRef;
use support::{PROBE, TestChain, Tx};

fn counter(view: &View) -> U256 {
    // Probe's storage: see app/contracts/src/test/Probe.sol.
    view.storage_ref(PROBE, U256::from(7)).unwrap()
}

fn results(chain: &TestChain) -> Vec<Result<Vec<penstock_inference::Tensor>, Failure>> {
    let block = chain.chain.block(chain.chain.height().unwrap()).unwrap().unwrap();
    let header: &HeaderTx = block.header_tx.as_ref().unwrap();
    header.results.iter().map(|result| result.result.clone()).collect()
}

fn config() -> PoolConfig {
    PoolConfig { ripeness: 0.0, ..PoolConfig::default() }
}

#[test]
fn equal_questions_of_different_accounts_run_once_and_are_recorded_once() {
    let chain = TestChain::new();
    for sender in 0..5 {
        chain.submit(&Tx::ask(0, [7, 7]), sender);
    }
    chain.produce();
    assert_eq!(results(&chain).len(), 1);
    assert_eq!(chain.chain.network().status().done, 1);
}

#[test]
fn a_question_that_depends_on_an_answer_takes_two_waves_and_leaves_no_placeholder_behind() {
    // Nothing is answered inside a simulation.
    let chain = TestChain::with(PoolConfig { simulation_ops: 0, ..config() }, true);
    // linear(5, 0) = 8 > 6, so that the second question is (5, 1); on the placeholder 0 it would be (5, -1).
    let call = support::askTwoWaysCall { model: "penstock/linear".into(), x: 5, threshold: 6 };
    let hash = chain.submit(&Tx::call(0, call.abi_encode()), 0);
    let status = chain.chain.pool().unwrap().read(|pool| pool.status(&hash)).unwrap();
    assert_eq!(status.waves, 2, "{status:?}");
    chain.produce();
    let block = chain.chain.block(1).unwrap().unwrap();
    assert!(block.receipts[0].success);
    assert_eq!(results(&chain).len(), 2, "the question behind the placeholder is not in the block");
}

#[test]
fn a_question_that_moves_with_the_state_is_answered_inside_the_proposal_when_it_is_cheap() {
    let chain = TestChain::new();
    chain.submit(&Tx { tip: 1, ..Tx::ask_volatile(0) }, 0);
    chain.submit(&Tx { tip: 9_000_000_000, ..Tx::bump(0) }, 1);
    chain.produce();
    let block = chain.chain.block(1).unwrap().unwrap();
    assert_eq!(block.receipts.iter().filter(|receipt| receipt.success).count(), 2, "both in one block");
    assert_eq!(results(&chain).len(), 1);
}

#[test]
fn a_dear_question_that_moves_every_block_is_deferred_and_ends_with_inference_unavailable() {
    const DEFERRALS: u32 = 3;
    let chain = TestChain::with(PoolConfig { inline_ops: 0, max_deferrals: DEFERRALS, ..config() }, true);
    let other = TestChain::new();
    let hash = chain.submit(&Tx { tip: 1, ..Tx::ask_volatile(0) }, 0);
    for round in 0..DEFERRALS {
        chain.submit(&Tx { tip: 9_000_000_000, ..Tx::bump(round.into()) }, 1);
        let block = chain.produce();
        assert!(other.accepts(&block));
        other.decide(&block);
        chain.wait_for(hash, Stage::Ready);
        let status = chain.chain.pool().unwrap().read(|pool| pool.status(&hash)).unwrap();
        assert_eq!(status.deferrals, round + 1);
    }
    chain.submit(&Tx { tip: 9_000_000_000, ..Tx::bump(DEFERRALS.into()) }, 1);
    let block = chain.produce();
    assert!(other.accepts(&block), "other validators accept a bounded number of unavailable results");
    assert_eq!(other.decide(&block), chain.chain.head().unwrap().hash);
    assert_eq!(results(&chain), [Err(Failure::Unavailable)]);
    let committed = chain.chain.block(chain.chain.height().unwrap()).unwrap().unwrap();
    let receipt = &committed.receipts[1];
    assert!(!receipt.success && receipt.gas_used > 21_000, "it pays and ends: {receipt:?}");
    assert_eq!(Denied::InferenceUnavailable.revert_data().len(), 4);
}

#[test]
fn sixteen_transactions_of_one_account_ask_side_by_side_and_go_in_together() {
    let chain = TestChain::new();
    let hashes: Vec<_> =
        (0..16).rev().map(|nonce| chain.chain.admit(Tx::ask(nonce, [nonce.into(), 1]).sign(0)).unwrap()).collect();
    hashes.iter().for_each(|hash| chain.wait_for(*hash, Stage::Ready));
    chain.produce();
    assert_eq!(chain.chain.block(1).unwrap().unwrap().txs.len(), 16);
    assert_eq!(results(&chain).len(), 16);
}

#[test]
fn a_simulation_is_made_again_when_what_it_read_changes_and_only_then() {
    // Nothing is light.
    let chain = TestChain::with(PoolConfig { inline_ops: 0, ..config() }, true);
    let volatile = chain.submit(&Tx { tip: 1, gas: 60_000_000, ..Tx::ask_volatile(0) }, 0);
    let steady = chain.submit(&Tx { tip: 1, gas: 60_000_000, ..Tx::ask(0, [1, 1]) }, 1);
    chain.submit(&Tx { tip: 9_000_000_000, gas: 60_000_000, ..Tx::bump(0) }, 2);
    let simulations = |hash| {
        let status = chain.chain.pool().unwrap().read(|pool| pool.status(&hash)).unwrap();
        status.stages.iter().filter(|(stage, _)| *stage == Stage::Simulating).count()
    };
    let before = (simulations(volatile), simulations(steady));
    // Only the first fits the block's gas.
    assert_eq!(chain.produce().txs.len(), 2);
    assert_eq!(counter(&chain.chain.head().unwrap().view), U256::from(1));
    chain.wait_for(volatile, Stage::Ready);
    chain.wait_for(steady, Stage::Ready);
    assert!(simulations(volatile) > before.0, "its counter moved");
    assert_eq!(simulations(steady), before.1, "nothing that it read moved");
}

#[test]
fn proposals_stay_within_the_bytes_that_consensus_counts() {
    let chain = TestChain::new();
    for nonce in 0..30 {
        chain.submit(&Tx::ask(nonce, [nonce.into(), 3]), 0);
    }
    for max_tx_bytes in [0, 100, 1_000, 3_000, 10_000] {
        let request = penstock_abci::messages::RequestPrepareProposal {
            max_tx_bytes,
            height: 1,
            time: Some(penstock_abci::Timestamp { seconds: 1, nanos: 0 }),
            ..Default::default()
        };
        let txs = penstock_abci::Application::prepare_proposal(&*chain.chain, request).unwrap().txs;
        let size: usize = txs.iter().map(|tx| penstock_abci::proto_tx_size(tx.len())).sum();
        // The header transaction alone needs a few bytes; consensus gives at least some kilobytes.
        assert!(size as i64 <= max_tx_bytes.max(40), "{size} of {max_tx_bytes}");
    }
}

#[test]
fn transactions_that_ask_nothing_are_not_simulated_again_and_go_in_all_the_same() {
    let chain = TestChain::with(PoolConfig { inline_ops: 0, ..config() }, true);
    // All of them read the balance that the first one changes.
    let large = |tx: Tx| Tx { tip: 1, gas: 60_000_000, ..tx };
    let plain = chain.submit(&large(Tx::transfer(0)), 0);
    let before_a_question = chain.submit(&large(Tx::transfer(0)), 1);
    chain.submit(&large(Tx::ask(1, [1, 1])), 1);
    chain.submit(&Tx { tip: 9_000_000_000, gas: 60_000_000, ..Tx::transfer(0) }, 2);
    let simulations = |hash| {
        let status = chain.chain.pool().unwrap().read(|pool| pool.status(&hash)).unwrap();
        status.stages.iter().filter(|(stage, _)| *stage == Stage::Simulating).count()
    };
    let before = (simulations(plain), simulations(before_a_question));
    assert_eq!(chain.produce().txs.len(), 2, "only the first fits the block's gas");
    chain.wait_for(before_a_question, Stage::Ready);
    assert_eq!(simulations(plain), before.0, "it asks nothing");
    assert!(simulations(before_a_question) > before.1, "a question stands on what it leaves behind");
    let begin = std::time::Instant::now();
    while !chain.chain.pool().unwrap().read(|pool| pool.all().is_empty()) {
        assert!(begin.elapsed().as_secs() < 20, "not all are included");
        chain.produce();
    }
}

#[test]
fn a_question_behind_one_that_was_not_simulated_again_is_asked_on_what_that_leaves_behind_now() {
    let chain = TestChain::new();
    let bump = chain.submit(&Tx { tip: 1, gas: 60_000_000, ..Tx::bump(0) }, 0);
    chain.submit(&Tx { tip: 9_000_000_000, gas: 60_000_000, ..Tx::bump(0) }, 1);
    assert_eq!(chain.produce().txs.len(), 2, "only one fits the block's gas");
    // The counter moved under the bump that waits, which asks nothing.
    let simulations = || {
        let status = chain.chain.pool().unwrap().read(|pool| pool.status(&bump)).unwrap();
        status.stages.iter().filter(|(stage, _)| *stage == Stage::Simulating).count()
    };
    assert_eq!(simulations(), 1);
    chain.submit(&Tx { tip: 1, ..Tx::ask_volatile(1) }, 0);
    assert_eq!(simulations(), 2);
    chain.produce();
    assert_eq!(counter(&chain.chain.head().unwrap().view), U256::from(2));
    assert_eq!(results(&chain).len(), 1);
    assert_eq!(chain.chain.network().status().done, 1, "the right question was asked at once");
}

#[test]
fn light_questions_that_move_are_left_to_the_proposal_which_answers_them_within_its_budget() {
    // Light up to an eighth of it, which is what a question to `linear` costs.
    let chain = TestChain::with(PoolConfig { inline_ops: 8 * 22_009, max_deferrals: 2, ..config() }, true);
    let hashes: Vec<_> = (0..5).map(|sender| chain.submit(&Tx { tip: 1, ..Tx::ask_volatile(0) }, sender)).collect();
    let rounds = (0..).find(|nonce| {
        // Whoever pays more moves the counter that all of them ask about.
        chain.submit(&Tx { tip: 9_000_000_000, ..Tx::bump(*nonce) }, 5);
        chain.produce();
        chain.chain.pool().unwrap().read(|pool| pool.all().is_empty())
    });
    assert!(rounds.unwrap() < 5);
    for hash in hashes {
        let status = chain.chain.pool().unwrap().read(|pool| pool.status(&hash)).unwrap();
        let simulations = status.stages.iter().filter(|(stage, _)| *stage == Stage::Simulating).count();
        assert!(simulations <= 2, "{status:?}");
        assert_eq!(status.deferrals, 0, "a question that is cheap is nobody's fault");
    }
}

#[test]
fn a_transaction_that_takes_longer_than_a_proposal_may_is_the_first_of_a_block_and_holds_up_nobody() {
    let chain = TestChain::with(PoolConfig { proposal_budget: std::time::Duration::ZERO, ..config() }, true);
    for sender in 0..3 {
        chain.submit(&Tx::ask(0, [sender.into(), 1]), sender);
    }
    let blocks: Vec<usize> = (0..3).map(|_| chain.produce().txs.len() - 1).collect();
    assert_eq!(blocks, [1, 1, 1]);
}

#[test]
fn a_dear_result_waits_until_others_have_it_and_delays_nobody_meanwhile() {
    let chain = TestChain::with(PoolConfig { inline_ops: 0, simulation_ops: 0, ripeness: 20_000.0, ..config() }, true);
    let dear = chain.submit(&Tx { tip: 9_000_000_000, ..Tx::ask(0, [1, 1]) }, 0);
    chain.submit(&Tx::transfer(0), 1);
    assert_eq!(chain.produce().txs.len(), 2, "the transfer alone");
    assert_eq!(chain.chain.pool().unwrap().read(|pool| pool.status(&dear)).unwrap().stage, Stage::Ready);
    let begin = std::time::Instant::now();
    while chain.chain.pool().unwrap().read(|pool| pool.get(&dear).is_some()) {
        assert!(begin.elapsed().as_secs() < 60, "it never ripens");
        chain.produce();
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn what_a_path_behind_a_placeholder_does_besides_asking_counts_for_nothing() {
    // Reverts, divides by zero, asks until the gas ends, writes until the gas ends: only as long as the answer is zero,
    // which it is as a placeholder alone.
    for otherwise in 0..4u8 {
        let chain = TestChain::with(PoolConfig { simulation_ops: 0, ..config() }, true);
        let call = support::askUnlessZeroCall { model: "penstock/linear".into(), x: 5, otherwise };
        let hash = chain.submit(&Tx::call(0, call.abi_encode()), 0);
        let status = chain.chain.pool().unwrap().read(|pool| pool.status(&hash)).unwrap();
        let done = chain.chain.network().status().done;
        assert!(status.waves <= 2 && done <= 300, "{otherwise}: {} waves, {done} runs", status.waves);
        chain.produce();
        assert!(chain.chain.block(1).unwrap().unwrap().receipts[0].success, "{otherwise}");
        assert_eq!(results(&chain).len(), 2, "{otherwise}: the two questions of the real path");
    }
}

#[test]
fn sixteen_waves_are_within_the_limit_and_one_more_is_not() {
    // ModelChain's `iterate` asks about the answer before, `depth` times; nothing is answered inside a simulation.
    let (mut genesis, app_state) = support::genesis();
    genesis.inference.limits.max_waves_per_tx = 16;
    let chain = TestChain::of_genesis(genesis, &app_state, true, PoolConfig { simulation_ops: 0, ..config() });
    chain.init();
    let model_chain = chain.deploy("ModelChain", 0);
    let iterate = |depth: u64| support::iterateCall { x: depth as i128, depth: U256::from(depth) }.abi_encode();
    let hash = chain.submit(&Tx { to: model_chain, ..Tx::call(1, iterate(16)) }, 0);
    assert_eq!(chain.chain.pool().unwrap().read(|pool| pool.status(&hash)).unwrap().waves, 16);
    let late = chain.chain.admit(Tx { to: model_chain, ..Tx::call(2, iterate(17)) }.sign(0)).unwrap();
    chain.wait_for(late, Stage::Dropped);
    let status = chain.chain.pool().unwrap().read(|pool| pool.status(&late)).unwrap();
    assert_eq!(status.reason.unwrap(), "its requests depend on each other in more than 16 waves");
    chain.produce();
    assert!(chain.chain.block(2).unwrap().unwrap().receipts[0].success);
}
