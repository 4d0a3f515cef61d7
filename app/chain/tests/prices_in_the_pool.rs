//! A pending question about prices stands on the candles that it read: when others come it is asked anew, and the block has
//! the answer to what is true in it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use alloy_primitives::{Address, Bytes};
use alloy_sol_types::{SolCall, sol};
use penstock_evm::CANDLE_FEED;
use penstock_pipe::{PoolConfig, Stage};
use support::{FEEDER, TestChain, Tx, account};

sol! {
    struct Candle { uint64 time; uint64 open; uint64 high; uint64 low; uint64 close; uint64 volume; }
    function addPair(string base, string quote, uint8 priceDecimals, uint8 volumeDecimals);
    function pushCandles(string base, string quote, Candle[] candles);
    struct Query {
        string base;
        string quote;
        uint32 total_candles;
        uint32 candle_duration_in_mins;
        uint8 order;
        uint8[] candle_types;
    }
    function construct(string model, string inputName, Query query);
    function run();
}

/// Multiple of three minutes; blocks are made just after it.
const NOON: u64 = 1_800_000_000 / 60;

/// Candles of the minutes from one distance to noon down to another.
fn push(from: u64, to: u64) -> Bytes {
    let candle = |distance: u64| Candle {
        time: (NOON - distance) * 60,
        open: 100 + distance,
        high: 150 + distance,
        low: 50 + distance,
        close: 101 + distance,
        volume: 1,
    };
    let candles = (to..=from).rev().map(candle).collect();
    pushCandlesCall { base: "ETH".into(), quote: "USD".into(), candles }.abi_encode().into()
}

fn deploy_workflow(chain: &TestChain) -> Address {
    let artifact = std::fs::read(support::repository().join("app/contracts/out/PriceHistoryInference.json")).unwrap();
    let artifact: serde_json::Value = serde_json::from_slice(&artifact).unwrap();
    let code: Bytes = artifact["bytecode"].as_str().unwrap().parse().unwrap();
    let query = Query {
        base: "ETH".into(),
        quote: "USD".into(),
        total_candles: 10,
        candle_duration_in_mins: 3,
        order: 0,
        candle_types: vec![2, 0, 1, 3],
    };
    let arguments = constructCall { model: "penstock/volatility".into(), inputName: "candles".into(), query };
    let input = [&code[..], &arguments.abi_encode()[4..]].concat();
    let raw = Tx { input: input.into(), gas: 5_000_000, ..Tx::transfer(0) }.sign_creation(0);
    let hash = chain.chain.admit(raw).unwrap();
    chain.wait_for(hash, Stage::Ready);
    chain.produce();
    account(0).address().create(0)
}

#[test]
fn a_question_about_prices_is_asked_anew_when_new_candles_come() {
    // Nothing is light: what is asked is asked before the proposal.
    let chain = TestChain::with(PoolConfig { inline_ops: 0, ripeness: 0.0, ..PoolConfig::default() }, true);
    let workflow = deploy_workflow(&chain);
    let feed = |nonce: u64, input: Bytes| Tx { to: CANDLE_FEED, gas: 5_000_000, ..Tx::call(nonce, input) };
    let add = addPairCall { base: "ETH".into(), quote: "USD".into(), priceDecimals: 2, volumeDecimals: 0 };
    chain.submit(&feed(0, add.abi_encode().into()), FEEDER);
    chain.produce();
    chain.submit(&feed(1, push(40, 4)), FEEDER);
    chain.produce();

    let run = Tx { to: workflow, tip: 1, gas: 60_000_000, ..Tx::call(1, runCall {}.abi_encode()) };
    let asked = chain.submit(&run, 0);
    let status = || chain.chain.pool().unwrap().read(|pool| pool.status(&asked)).unwrap();
    let simulations = || status().stages.iter().filter(|(stage, _)| *stage == Stage::Simulating).count();
    let (before, done) = (simulations(), chain.chain.network().status().done);
    // A transfer changes nothing that it read.
    chain.submit(&Tx { tip: 9_000_000_000, gas: 60_000_000, ..Tx::transfer(0) }, 2);
    assert_eq!(chain.produce().txs.len(), 2);
    chain.wait_for(asked, Stage::Ready);
    assert_eq!(simulations(), before);
    chain.submit(&Tx { tip: 9_000_000_000, gas: 60_000_000, ..feed(2, push(3, 1)) }, FEEDER);
    assert_eq!(chain.produce().txs.len(), 2, "only the candles fit the block's gas");
    chain.wait_for(asked, Stage::Ready);
    assert!(simulations() > before, "a candle that it needs is another one");
    assert_eq!(chain.chain.network().status().done, done + 1, "another question");
    let block = chain.produce();
    assert_eq!(block.txs.len(), 2);
    let committed = chain.chain.block(chain.chain.height().unwrap()).unwrap().unwrap();
    assert!(committed.receipts[0].success);
    assert_eq!(committed.header_tx.as_ref().unwrap().results.len(), 1);
}
