//! Every way to break a block that DESIGN.md section 3 names is rejected, and the honest block is accepted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use penstock_chain::{BlockResult, HeaderTx, ScheduledTask};
use penstock_inference::{Failure, Tensor, TensorValues};
use support::{TestBlock, TestChain, Tx};

/// Two questions and a transfer, proposed by one validator.
fn proposed() -> (TestBlock, TestChain) {
    let proposer = TestChain::new();
    proposer.submit(&Tx { tip: 3_000_000_000, ..Tx::ask(0, [1, 2]) }, 0);
    proposer.submit(&Tx { tip: 2_000_000_000, ..Tx::ask(0, [3, 4]) }, 1);
    proposer.submit(&Tx::transfer(0), 2);
    (proposer.propose(), proposer)
}

fn with_header(block: &TestBlock, change: impl FnOnce(&mut HeaderTx)) -> TestBlock {
    let mut header = HeaderTx::decode(&block.txs[0]).unwrap();
    change(&mut header);
    let mut block = block.clone();
    block.txs[0] = header.encode().0;
    block
}

#[test]
fn the_honest_block_is_accepted_by_another_validator_and_gives_the_same_app_hash() {
    let (block, proposer) = proposed();
    assert_eq!(block.txs.len(), 4);
    let validator = TestChain::new();
    assert!(validator.accepts(&block));
    assert_eq!(validator.decide(&block), proposer.decide(&block));
    // A node that never saw the proposal, and one without any model.
    assert_eq!(TestChain::new().decide(&block), TestChain::with(Default::default(), false).decide(&block));
}

#[test]
fn every_malformed_block_is_rejected() {
    let (block, _proposer) = proposed();
    let validator = TestChain::new();
    let forged = |tensor: Tensor| with_header(&block, move |header| header.results[0].result = Ok(vec![tensor]));
    let tensor = |value: f32, shape: Vec<usize>| Tensor::new(shape, TensorValues::Float32(vec![value])).unwrap();
    let change = |change: fn(&mut TestBlock)| {
        let mut block = block.clone();
        change(&mut block);
        block
    };
    let cases = [
        ("no transactions", change(|b| b.txs.clear())),
        ("no header transaction", change(|b| drop(b.txs.remove(0)))),
        ("the header transaction not first", change(|b| b.txs.swap(0, 1))),
        ("two header transactions", change(|b| b.txs.push(b.txs[0].clone()))),
        ("an unknown version", change(|b| b.txs[0] = [&[0x9e, 7], &b.txs[0][2..]].concat().into())),
        ("an unknown field", change(|b| b.txs[0] = [&b.txs[0][..], &[0x78, 1]].concat().into())),
        ("a truncated header", change(|b| b.txs[0] = b.txs[0].slice(..b.txs[0].len() - 1))),
        ("a forged output", forged(tensor(999.0, vec![1, 1]))),
        ("a forged shape", forged(tensor(8.0, vec![1]))),
        ("a negative zero for a result", forged(tensor(-0.0, vec![1, 1]))),
        ("a failure for a result", with_header(&block, |h| h.results[0].result = Err(Failure::NonFinite))),
        ("a missing result", with_header(&block, |h| drop(h.results.remove(0)))),
        ("no results at all", with_header(&block, |h| h.results.clear())),
        ("results in another order", with_header(&block, |h| h.results.reverse())),
        ("a result twice", with_header(&block, |h| h.results.push(h.results[0].clone()))),
        (
            "a result that nothing uses",
            with_header(&block, |h| {
                let id = penstock_inference::RequestId(alloy_primitives::B256::repeat_byte(9));
                h.results.push(BlockResult { id, result: Err(Failure::Engine) });
            }),
        ),
        ("a task that is not there", with_header(&block, |h| h.tasks.push(ScheduledTask { id: 1, gas: 3_197_619 }))),
        (
            "a thousand tasks",
            with_header(&block, |h| h.tasks = (1..1_000).map(|id| ScheduledTask { id, gas: 150_000 }).collect()),
        ),
        ("a transaction that is none", change(|b| b.txs.push(vec![1, 2, 3].into()))),
        ("a transaction with a trailing byte", change(|b| b.txs[3] = [&b.txs[3][..], &[0]].concat().into())),
        ("a transaction twice", change(|b| b.txs.push(b.txs[3].clone()))),
        ("a nonce gap", change(|b| b.txs.push(Tx::transfer(5).sign(2).0))),
        ("an unfunded sender", change(|b| b.txs.push(Tx::transfer(0).sign(50).0))),
        ("another height", change(|b| b.height += 1)),
    ];
    for (name, block) in cases {
        assert!(!validator.accepts(&block), "{name}");
    }
    assert!(validator.accepts(&block), "and the honest one is accepted after all of that");
}

#[test]
fn unavailable_results_are_bounded() {
    let (block, _proposer) = proposed();
    let validator = TestChain::new();
    let limit = validator.chain.rules().limits.max_unavailable_per_block as usize;
    let unavailable = |count: usize| {
        with_header(&block, |header| {
            header.results = (0..count)
                .map(|i| {
                    let id = penstock_inference::RequestId(alloy_primitives::U256::from(i).into());
                    BlockResult { id, result: Err(Failure::Unavailable) }
                })
                .collect();
        })
    };
    assert!(!validator.accepts(&unavailable(limit + 1)));
}

#[test]
fn a_block_can_be_finalized_again_before_its_commit() {
    let (block, proposer) = proposed();
    let other = TestBlock { seconds: block.seconds + 1, ..block.clone() };
    let first = proposer.finalize(&block);
    let second = proposer.finalize(&other);
    assert_ne!(first, second, "another time is another block");
    assert_eq!(proposer.finalize(&block), first, "what was finalized before left nothing behind");
    proposer.chain.commit().ok();
    assert_eq!(proposer.chain.head().unwrap().hash, first);
}

use penstock_abci::Application as _;
