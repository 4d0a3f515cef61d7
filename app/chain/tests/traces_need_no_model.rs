//! A committed block can be executed again, and looked at, from what it recorded.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use penstock_chain::{ChainError, Replayed};
use revm::inspector::NoOpInspector;
use support::{TestChain, Tx};

#[test]
fn a_node_without_models_executes_a_block_again_with_the_results_in_it() {
    let chain = TestChain::new();
    let hash = chain.submit(&Tx::ask(0, [3, 4]), 0);
    let block = chain.produce();
    let known = chain.chain.block(block.height as u64).unwrap().unwrap();

    let follower = TestChain::with(Default::default(), false);
    follower.decide(&block);
    let theirs = follower.chain.block(block.height as u64).unwrap().unwrap();
    assert_eq!(theirs.hash, known.hash);
    let mut seen = Vec::new();
    let visit = |replayed: Replayed<'_, '_, NoOpInspector>| {
        seen.push((replayed.index, replayed.inspected.result.result.tx_gas_used(), replayed.inspected.calls.len()));
        Ok::<_, ChainError>(())
    };
    follower.chain.replay(&theirs, (0, usize::MAX), NoOpInspector, visit).unwrap();
    assert_eq!(*known.txs[0].tx_hash(), hash);
    assert_eq!(seen, [(0, known.receipts[0].gas_used, 1)]);
}

#[test]
fn a_transaction_is_executed_on_what_those_before_it_left() {
    let chain = TestChain::new();
    for nonce in 0..3 {
        chain.submit(&Tx::bump(nonce), 0);
    }
    let block = chain.produce();
    let block = chain.chain.block(block.height as u64).unwrap().unwrap();
    assert_eq!(block.txs.len(), 3);
    let mut seen = Vec::new();
    let visit = |replayed: Replayed<'_, '_, NoOpInspector>| {
        seen.push((replayed.index, replayed.inspected.result.result.is_success()));
        Ok::<_, ChainError>(())
    };
    // Alone the third one would fail: its nonce is not the next.
    chain.chain.replay(&block, (2, 2), NoOpInspector, visit).unwrap();
    assert_eq!(seen, [(2, true)]);
}
