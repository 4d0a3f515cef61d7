//! What the price-feed precompile answers from the candles that the feeder pushed to the contract `CandleFeed`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::{collections::HashMap, sync::Arc};

use alloy_primitives::{Address, Bytes, U256, address};
use alloy_sol_types::{SolCall, SolError, SolEvent, SolValue, sol};
use penstock_evm::{
    BlockContext, CANDLE_FEED, Denied, ExecError, Execution, Executor, INFERENCE, InputFault, OnMiss, PRICE_FEED,
    ReadKey, ReadSet, Rules, abi,
};
use penstock_inference::{InferenceResult, RequestId};
use revm::{DatabaseCommit, context::TxEnv, database::CacheDB, state::AccountInfo};
use support::{Nothing, block, code, model, rules, state, tx, user};

sol! {
    #[derive(Debug)]
    struct Candle { uint64 time; uint64 open; uint64 high; uint64 low; uint64 close; uint64 volume; }

    contract CandleFeed {
        error NotFeeder();
        error PairExists();
        error UnknownPair();
        error InvalidPair();
        error InvalidCount();
        error InvalidTime(uint256 index);
        error InvalidCandle(uint256 index);
        error NoCandle();

        function addPair(string base, string quote, uint8 priceDecimals, uint8 volumeDecimals);
        function pushCandles(string base, string quote, Candle[] candles);
        function setFeeder(address next);
        function feeder() returns (address);
        function latest(string base, string quote) returns (uint64);
        function candleAt(string base, string quote, uint64 time) returns (Candle);
    }
}
use CandleFeed::{addPairCall, candleAtCall, feederCall, latestCall, pushCandlesCall, setFeederCall};

/// A minute of the block's time that is a multiple of 30.
const NOON: u64 = 1_800_000_000 / 60;
const FEEDER: u64 = 0;
const OTHER: u64 = 1;

/// A contract that hands its call data on to the feed by STATICCALL.
const STATIC_CALLER: Address = address!("00000000000000000000000000000000000ab003");

/// A state with the feed's contract, at a time.
struct Stand {
    db: CacheDB<Nothing>,
    rules: Rules,
    block: BlockContext,
    nonces: HashMap<u64, u64>,
    answers: HashMap<RequestId, Arc<InferenceResult>>,
}

impl Stand {
    fn new() -> Self {
        let mut db = state(2);
        let code = code("CandleFeed");
        let info = AccountInfo { nonce: 1, code_hash: code.hash_slow(), code: Some(code), ..Default::default() };
        db.insert_account_info(CANDLE_FEED, info);
        db.insert_account_storage(CANDLE_FEED, U256::ZERO, user(FEEDER).into_word().into()).unwrap();
        let block = BlockContext { timestamp: NOON * 60, ..block() };
        let rules = Rules { price_feed: true, ..rules() };
        Self { db, rules, block, nonces: HashMap::new(), answers: HashMap::new() }
    }

    /// With the pair ETH/USD: prices in cents, volumes in tenths.
    fn with_pair() -> Self {
        let mut stand = Self::new();
        let add = addPairCall { base: "ETH".into(), quote: "USD".into(), priceDecimals: 2, volumeDecimals: 1 };
        assert!(stand.send(FEEDER, CANDLE_FEED, add.abi_encode()).is_success());
        stand
    }

    /// With the candles of the minutes before noon, the newest last, each as `candle` makes it from its distance to noon.
    fn with_minutes(count: u64, candle: impl Fn(u64) -> Candle) -> Self {
        let mut stand = Self::with_pair();
        let candles: Vec<Candle> = (1..=count).rev().map(candle).collect();
        for part in candles.chunks(1_000) {
            let pushed = stand.send(FEEDER, CANDLE_FEED, push(part.to_vec()));
            assert!(pushed.is_success(), "{:?}", pushed.output);
        }
        stand
    }

    fn try_call(&self, from: u64, to: Address, input: Vec<u8>, gas: u64) -> Result<Execution, ExecError> {
        let nonce = self.nonces.get(&from).copied().unwrap_or_default();
        let tx: TxEnv = tx(from, nonce, to, input, gas);
        Executor::new(&self.rules, self.block, self.db.clone(), &self.answers, OnMiss::Placeholder).run(tx)
    }

    fn call(&self, to: Address, input: Vec<u8>) -> Execution {
        self.try_call(OTHER, to, input, 100_000_000).unwrap()
    }

    /// Runs a transaction and keeps what it changes.
    fn send(&mut self, from: u64, to: Address, input: Vec<u8>) -> Execution {
        let execution = self.try_call(from, to, input, 100_000_000).unwrap();
        self.db.commit(execution.state.clone());
        *self.nonces.entry(from).or_default() += 1;
        execution
    }

    fn numbers(&self, query: abi::HistoricalInputQuery) -> Vec<(i128, i128)> {
        let execution = self.call(PRICE_FEED, ask_candles(query));
        assert!(execution.is_success(), "{:?}", penstock_evm::name_of_revert(&execution.output));
        let numbers = Vec::<abi::Number>::abi_decode(&execution.output).unwrap();
        numbers.into_iter().map(|number| (number.value, number.decimals)).collect()
    }

    fn denial(&self, query: abi::HistoricalInputQuery) -> Bytes {
        let execution = self.call(PRICE_FEED, ask_candles(query));
        assert!(!execution.is_success());
        execution.output
    }
}

/// The candle of a minute before noon: its distance is its price.
fn plain(distance: u64) -> Candle {
    let price = 100 * distance;
    Candle { time: (NOON - distance) * 60, open: price, high: price + 50, low: price - 50, close: price, volume: 3 }
}

fn push(candles: Vec<Candle>) -> Vec<u8> {
    pushCandlesCall { base: "ETH".into(), quote: "USD".into(), candles }.abi_encode()
}

fn eth_usd(count: u32, minutes: u32, types: &[u8]) -> abi::HistoricalInputQuery {
    abi::HistoricalInputQuery {
        base: "ETH".into(),
        quote: "USD".into(),
        total_candles: count,
        candle_duration_in_mins: minutes,
        order: 0,
        candle_types: types.to_vec(),
    }
}

fn ask_candles(input: abi::HistoricalInputQuery) -> Vec<u8> {
    abi::queryHistoricalCandlesCall { input }.abi_encode()
}

fn ask_model(model: &str, input: abi::HistoricalInputQuery) -> Vec<u8> {
    abi::runInferenceOnPriceFeedCall { model_id: model.into(), input_name: "x".into(), input }.abi_encode()
}

const HIGH: u8 = 0;
const LOW: u8 = 1;
const OPEN: u8 = 2;
const CLOSE: u8 = 3;
const VOLUME: u8 = 4;

#[test]
fn candles_come_row_by_row_in_the_order_and_with_the_numbers_asked_for() {
    let stand = Stand::with_minutes(5, plain);
    assert_eq!(
        stand.numbers(eth_usd(2, 1, &[OPEN, HIGH, LOW, CLOSE, VOLUME])),
        [(200, 2), (250, 2), (150, 2), (200, 2), (3, 1), (100, 2), (150, 2), (50, 2), (100, 2), (3, 1)]
    );
    let descending = abi::HistoricalInputQuery { order: 1, ..eth_usd(3, 1, &[CLOSE, CLOSE]) };
    assert_eq!(stand.numbers(descending), [(100, 2), (100, 2), (200, 2), (200, 2), (300, 2), (300, 2)]);
}

#[test]
fn longer_candles_are_made_of_whole_minutes_and_begin_at_multiples_of_their_duration() {
    // Noon is a multiple of 30 minutes; the newest minute is two after it, which no half hour has yet.
    let mut stand = Stand::with_minutes(60, plain);
    let after = |minute| Candle { time: (NOON + minute) * 60, open: 1, high: 1, low: 1, close: 1, volume: 1 };
    stand.block.timestamp += 600;
    assert!(stand.send(FEEDER, CANDLE_FEED, push(vec![after(0), after(1)])).is_success());
    assert_eq!(
        stand.numbers(eth_usd(2, 30, &[OPEN, HIGH, LOW, CLOSE, VOLUME])),
        [(6000, 2), (6050, 2), (3050, 2), (3100, 2), (90, 1), (3000, 2), (3050, 2), (50, 2), (100, 2), (90, 1)]
    );
    assert_eq!(stand.numbers(eth_usd(1, 1, &[VOLUME])), [(1, 1)], "minutes go on");
}

#[test]
fn what_is_not_there_is_an_error_that_says_so() {
    let mut stand = Stand::with_minutes(10, plain);
    let named = |data: Bytes| penstock_evm::name_of_revert(&data).unwrap();
    let other = abi::HistoricalInputQuery { base: "eth".into(), ..eth_usd(1, 1, &[OPEN]) };
    assert_eq!(named(stand.denial(other)), "UnknownPair()");
    let before_the_first = (NOON - 11) * 60;
    assert_eq!(named(stand.denial(eth_usd(11, 1, &[OPEN]))), format!("CandlesUnavailable({before_the_first})"));
    let fault = |fault: InputFault| Denied::InvalidInput(fault).revert_data();
    assert_eq!(stand.denial(eth_usd(0, 1, &[OPEN])), fault(InputFault::EmptyQuery));
    assert_eq!(stand.denial(eth_usd(1, 0, &[OPEN])), fault(InputFault::EmptyQuery));
    assert_eq!(stand.denial(eth_usd(1, 1, &[])), fault(InputFault::EmptyQuery));
    assert_eq!(stand.denial(eth_usd(20_161, 1, &[OPEN])), fault(InputFault::QueryTooLarge));
    assert_eq!(stand.denial(eth_usd(u32::MAX, u32::MAX, &[OPEN])), fault(InputFault::QueryTooLarge));
    assert_eq!(stand.denial(eth_usd(1, 1, &[OPEN; 6])), fault(InputFault::QueryTooLarge));
    assert_eq!(stand.denial(eth_usd(1, 1, &[5])), fault(InputFault::Malformed));
    let order = abi::HistoricalInputQuery { order: 2, ..eth_usd(1, 1, &[OPEN]) };
    assert_eq!(stand.denial(order), fault(InputFault::Malformed));
    // A gap: minute 0 is not pushed.
    stand.block.timestamp += 600;
    let after = Candle { time: (NOON + 1) * 60, ..plain(1) };
    assert!(stand.send(FEEDER, CANDLE_FEED, push(vec![after])).is_success());
    assert_eq!(named(stand.denial(eth_usd(2, 1, &[OPEN]))), format!("CandlesUnavailable({})", NOON * 60));
    assert_eq!(stand.numbers(eth_usd(1, 1, &[OPEN])).len(), 1);
    // A pair without any candle.
    let add = addPairCall { base: "BTC".into(), quote: "USD".into(), priceDecimals: 2, volumeDecimals: 1 };
    assert!(stand.send(FEEDER, CANDLE_FEED, add.abi_encode()).is_success());
    let empty = abi::HistoricalInputQuery { base: "BTC".into(), ..eth_usd(1, 1, &[OPEN]) };
    assert_eq!(named(stand.denial(empty)), "CandlesUnavailable(0)");
}

#[test]
fn the_history_goes_two_weeks_back_and_older_minutes_are_gone() {
    let stand = Stand::with_minutes(20_165, plain);
    let all = stand.numbers(eth_usd(20_160, 1, &[CLOSE]));
    assert_eq!((all.len(), all[0], all[20_159]), (20_160, (2_016_000, 2), (100, 2)));
    let read =
        |time| stand.call(CANDLE_FEED, candleAtCall { base: "ETH".into(), quote: "USD".into(), time }.abi_encode());
    assert_eq!(read((NOON - 20_161) * 60).output, CandleFeed::NoCandle {}.abi_encode());
    let oldest = candleAtCall::abi_decode_returns(&read((NOON - 20_160) * 60).output).unwrap();
    assert_eq!(oldest.abi_encode(), plain(20_160).abi_encode());
    let latest = stand.call(CANDLE_FEED, latestCall { base: "ETH".into(), quote: "USD".into() }.abi_encode());
    assert_eq!(latestCall::abi_decode_returns(&latest.output).unwrap(), (NOON - 1) * 60);
}

#[test]
fn gas_follows_from_the_query_alone_and_is_charged_before_anything_is_read() {
    let stand = Stand::with_minutes(30, plain);
    let query = ask_candles(eth_usd(10, 3, &[OPEN, CLOSE]));
    let intrinsic: u64 = 21_000 + query.iter().map(|byte| if *byte == 0 { 4 } else { 16 }).sum::<u64>();
    let own = 20_000 + 16 * query.len() as u64 + 2_100 * 31;
    let execution = stand.call(PRICE_FEED, query.clone());
    assert_eq!(execution.gas_used, intrinsic + own);
    // A pair that is not there costs one slot.
    let unknown = ask_candles(abi::HistoricalInputQuery { base: "EUR".into(), ..eth_usd(10, 3, &[OPEN, CLOSE]) });
    let execution = stand.call(PRICE_FEED, unknown);
    assert!((own - 2_100 * 30).abs_diff(execution.gas_used - intrinsic) < 200, "{}", execution.gas_used);
    // Without the gas for all of them none is read.
    let short = stand.try_call(OTHER, PRICE_FEED, query, intrinsic + own - 1).unwrap();
    assert!(!short.is_success());
    let slots = ReadSet::of(&short.state, [Address::ZERO; 2]);
    assert_eq!(slots.keys().filter(|key| matches!(key, ReadKey::Slot(CANDLE_FEED, _))).count(), 1, "the head");
}

#[test]
fn the_candles_belong_to_what_a_transaction_has_read() {
    let stand = Stand::with_minutes(30, plain);
    let execution = stand.call(PRICE_FEED, ask_candles(eth_usd(2, 5, &[OPEN])));
    let reads = ReadSet::of(&execution.state, [Address::ZERO; 2]);
    let slots = reads.keys().filter(|key| matches!(key, ReadKey::Slot(CANDLE_FEED, _))).count();
    assert_eq!(slots, 1 + 10, "the head, and every minute");
}

#[test]
fn a_model_is_asked_the_same_question_as_with_the_numbers_written_out() {
    let mut stand = Stand::with_minutes(5, plain);
    let direct = |shape: &[u32], values: &[i128]| {
        let values = values.iter().map(|value| abi::Number { value: *value, decimals: 2 }).collect();
        let tensor = abi::MultiDimensionalNumberTensor { name: "x".into(), values, shape: shape.to_vec() };
        let input = abi::ModelInput { numbers: vec![tensor], strings: vec![] };
        let request = abi::ModelInferenceRequest { mode: 0, modelCID: "penstock/linear".into(), input };
        abi::runModelInferenceCall { request }.abi_encode()
    };
    // One row for each candle where the model takes that; one row of all numbers where it does not.
    let cases = [
        (eth_usd(3, 1, &[OPEN, CLOSE]), direct(&[3, 2], &[300, 300, 200, 200, 100, 100])),
        (eth_usd(2, 1, &[CLOSE]), direct(&[], &[200, 100])),
    ];
    for (query, written_out) in cases {
        let asked = stand.call(PRICE_FEED, ask_model("penstock/linear", query.clone()));
        let same = stand.call(INFERENCE, written_out.clone());
        assert_eq!(asked.calls.len(), 1, "{:?}", penstock_evm::name_of_revert(&asked.output));
        assert_eq!(asked.calls[0].id, same.calls[0].id);
        assert_eq!(asked.output, same.output, "the placeholder, too");
        let answer = model("linear").run(&asked.calls[0].request.inputs);
        stand.answers.insert(asked.calls[0].id, Arc::new(answer));
        let asked = stand.call(PRICE_FEED, ask_model("penstock/linear", query));
        assert_eq!(asked.output, stand.call(INFERENCE, written_out).output);
        assert!(!abi::ModelOutput::abi_decode(&asked.output).unwrap().is_simulation_result);
        let [log] = asked.logs.as_slice() else { panic!("{:?}", asked.logs) };
        assert_eq!(log.address, PRICE_FEED);
        let event = abi::HistoricalInferenceEvent::decode_log(log).unwrap();
        assert_eq!(event.inferenceID, asked.calls[0].id.to_string());
        assert_eq!(
            (event.modelID.as_str(), event.base.as_str(), event.quote.as_str()),
            ("penstock/linear", "ETH", "USD")
        );
    }
}

#[test]
fn a_question_about_prices_obeys_the_rules_of_every_other_question() {
    let mut stand = Stand::with_minutes(5, plain);
    let denied = |stand: &Stand, input: Vec<u8>| stand.call(PRICE_FEED, input).output;
    let query = eth_usd(1, 1, &[OPEN, CLOSE]);
    assert_eq!(denied(&stand, ask_model("nobody/nothing", query.clone())), Denied::UnknownModel.revert_data());
    assert_eq!(denied(&stand, ask_model("penstock/digits-cnn", query.clone())), Denied::ModelNotActive.revert_data());
    let wrong = ask_model("penstock/linear", eth_usd(3, 1, &[OPEN]));
    assert_eq!(denied(&stand, wrong), Denied::InvalidInput(InputFault::WrongShape).revert_data());
    let named = abi::runInferenceOnPriceFeedCall {
        model_id: "penstock/linear".into(),
        input_name: "y".into(),
        input: query.clone(),
    };
    let fault = Denied::InvalidInput(InputFault::MissingTensor).revert_data();
    assert_eq!(denied(&stand, named.abi_encode()), fault);
    stand.rules.limits.max_requests_per_tx = 0;
    let fault = Denied::InvalidInput(InputFault::TooManyRequests).revert_data();
    assert_eq!(denied(&stand, ask_model("penstock/linear", query.clone())), fault);
    stand.rules.limits.max_requests_per_tx = 1;
    let abort = |on_miss| {
        let tx = tx(OTHER, 0, PRICE_FEED, ask_model("penstock/linear", query.clone()), 1_000_000);
        Executor::new(&stand.rules, stand.block, stand.db.clone(), &stand.answers, on_miss).run(tx)
    };
    assert!(matches!(abort(OnMiss::Abort), Err(ExecError::Missing { .. })));
    assert_eq!(abort(OnMiss::Revert).unwrap().output, Denied::InferenceUnavailable.revert_data());
}

#[test]
fn it_takes_no_value_and_no_other_function_and_static_calls_only_for_what_logs_nothing() {
    let mut stand = Stand::with_minutes(5, plain);
    let mut value = tx(OTHER, 0, PRICE_FEED, ask_candles(eth_usd(1, 1, &[OPEN])), 1_000_000);
    value.value = U256::from(1);
    let run = Executor::new(&stand.rules, stand.block, stand.db.clone(), &stand.answers, OnMiss::Abort).run(value);
    let fault = |fault: InputFault| Denied::InvalidInput(fault).revert_data();
    assert_eq!(run.unwrap().output, fault(InputFault::ValueNotAccepted));
    for data in [vec![], vec![1, 2, 3, 4], ask_candles(eth_usd(1, 1, &[OPEN]))[..100].to_vec()] {
        assert!(!stand.call(PRICE_FEED, data).is_success());
    }
    // Copies its call data, calls, and returns or reverts with what it gets.
    let code = alloy_primitives::hex!("365f5f375f5f365f60f55afa3d5f5f3e6016573d5ffd5b3d5ff3");
    let code = revm::bytecode::Bytecode::new_raw(Bytes::copy_from_slice(&code));
    let info = AccountInfo { nonce: 1, code_hash: code.hash_slow(), code: Some(code), ..Default::default() };
    stand.db.insert_account_info(STATIC_CALLER, info);
    let query = eth_usd(1, 1, &[OPEN, CLOSE]);
    let read = stand.call(STATIC_CALLER, ask_candles(query.clone()));
    assert!(read.is_success(), "{:?} {:?}", read.status, read.output);
    assert_eq!(Vec::<abi::Number>::abi_decode(&read.output).unwrap().len(), 2);
    let asked = stand.call(STATIC_CALLER, ask_model("penstock/linear", query));
    assert_eq!((asked.is_success(), asked.output), (false, fault(InputFault::StaticCall)));
}

#[test]
fn without_a_price_feed_in_the_genesis_there_is_none() {
    let mut stand = Stand::with_minutes(5, plain);
    stand.rules.price_feed = false;
    let execution = stand.call(PRICE_FEED, ask_candles(eth_usd(1, 1, &[OPEN])));
    assert!(execution.is_success() && execution.output.is_empty(), "an account without code");
}

#[test]
fn only_the_feeder_feeds_and_may_hand_that_on() {
    let mut stand = Stand::with_pair();
    let not_feeder = CandleFeed::NotFeeder {}.abi_encode();
    let add = addPairCall { base: "BTC".into(), quote: "USD".into(), priceDecimals: 2, volumeDecimals: 1 };
    for data in [push(vec![plain(1)]), add.abi_encode(), setFeederCall { next: user(OTHER) }.abi_encode()] {
        let refused = stand.send(OTHER, CANDLE_FEED, data);
        assert_eq!((refused.is_success(), refused.output.to_vec()), (false, not_feeder.clone()));
    }
    assert!(stand.send(FEEDER, CANDLE_FEED, setFeederCall { next: user(OTHER) }.abi_encode()).is_success());
    let feeder = stand.call(CANDLE_FEED, feederCall {}.abi_encode()).output;
    assert_eq!(feederCall::abi_decode_returns(&feeder).unwrap(), user(OTHER));
    assert_eq!(stand.send(FEEDER, CANDLE_FEED, push(vec![plain(1)])).output.to_vec(), not_feeder);
    assert!(stand.send(OTHER, CANDLE_FEED, push(vec![plain(1)])).is_success());
}

#[test]
fn candles_that_cannot_be_are_refused() {
    let mut stand = Stand::with_pair();
    let good = plain(5);
    let with = |change: fn(&mut Candle)| {
        let mut candle = plain(5);
        change(&mut candle);
        push(vec![candle])
    };
    let time = |index: u64| CandleFeed::InvalidTime { index: U256::from(index) }.abi_encode();
    let numbers = CandleFeed::InvalidCandle { index: U256::ZERO }.abi_encode();
    let count = CandleFeed::InvalidCount {}.abi_encode();
    let other_pair = pushCandlesCall { base: "ETH".into(), quote: "EUR".into(), candles: vec![good.clone()] };
    let cases = [
        ("not a whole minute", with(|c| c.time += 1), time(0)),
        ("not over yet", with(|c| c.time = NOON * 60), time(0)),
        ("the same minute twice", push(vec![good.clone(), good.clone()]), time(1)),
        ("backwards in time", push(vec![plain(4), good.clone()]), time(1)),
        ("before the epoch's first minute", with(|c| c.time = 0), time(0)),
        ("a high below the open", with(|c| c.high = c.open - 1), numbers.clone()),
        ("a low above the close", with(|c| c.low = c.close + 1), numbers.clone()),
        ("a price of 45 bits", with(|c| c.high = 1 << 44), numbers.clone()),
        ("a volume of 53 bits", with(|c| c.volume = 1 << 52), numbers),
        ("none", push(vec![]), count.clone()),
        ("too many", push((1..=1_025).rev().map(plain).collect()), count),
        ("a pair that is not there", other_pair.abi_encode(), CandleFeed::UnknownPair {}.abi_encode()),
        (
            "a pair that is there",
            addPairCall { base: "ETH".into(), quote: "USD".into(), priceDecimals: 0, volumeDecimals: 0 }.abi_encode(),
            CandleFeed::PairExists {}.abi_encode(),
        ),
        (
            "a pair without a name",
            addPairCall { base: String::new(), quote: "USD".into(), priceDecimals: 0, volumeDecimals: 0 }.abi_encode(),
            CandleFeed::InvalidPair {}.abi_encode(),
        ),
    ];
    for (name, data, error) in cases {
        let refused = stand.call_as_feeder(data);
        assert_eq!((refused.is_success(), refused.output.to_vec()), (false, error), "{name}");
    }
    let extreme = Candle { open: 0, high: (1 << 44) - 1, low: 0, close: (1 << 44) - 1, volume: (1 << 52) - 1, ..good };
    assert!(stand.send(FEEDER, CANDLE_FEED, push(vec![extreme.clone()])).is_success());
    let stored = candleAtCall { base: "ETH".into(), quote: "USD".into(), time: extreme.time + 59 }.abi_encode();
    let stored = candleAtCall::abi_decode_returns(&stand.call(CANDLE_FEED, stored).output).unwrap();
    assert_eq!(stored.abi_encode(), extreme.abi_encode());
    assert_eq!(
        stand.numbers(eth_usd(1, 1, &[HIGH, LOW, OPEN, CLOSE, VOLUME])),
        [((1 << 44) - 1, 2), (0, 2), (0, 2), ((1 << 44) - 1, 2), ((1 << 52) - 1, 1)]
    );
}

impl Stand {
    /// Calls the contract as the feeder, without keeping anything.
    fn call_as_feeder(&self, data: Vec<u8>) -> Execution {
        self.try_call(FEEDER, CANDLE_FEED, data, 100_000_000).unwrap()
    }
}
