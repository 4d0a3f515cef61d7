//! Tasks run at the top of blocks, without any user's transaction, as long as they are paid; validators reject every list
//! of tasks but those that may run; whoever has the block alone comes to the same state.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::{
    cell::RefCell,
    collections::HashMap,
    time::{Duration, Instant},
};

use alloy_consensus::Transaction as _;
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, Bytes, U256};
use alloy_sol_types::{SolCall, SolEvent, sol};
use penstock_chain::{Block, GenesisDoc, HeaderTx, SCHEDULER, ScheduledTask, StoredReceipt};
use penstock_evm::{CANDLE_FEED, TASK_SENDER};
use penstock_pipe::PoolConfig;
use revm::DatabaseRef;
use support::{FEEDER, TestBlock, TestChain, Tx, account, genesis, genesis_with};

sol! {
    function registerTask(address contractAddress, uint256 endTime, uint256 frequency) payable;
    function updateTask(address contractAddress, uint256 endTime, uint256 frequency);
    function stopTask(address contractAddress);
    function setGasLimit(address contractAddress, uint256 gasLimit);
    function prune(uint256 id);
    function deposit() payable;
    function withdraw(uint256 amount);
    function runTask(uint256 id);
    function setMode(uint8 mode);

    #[derive(Debug, PartialEq)]
    event TaskRun(uint256 indexed id, address indexed contractAddress, bool success, uint256 fee);

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
}

const COUNT: u8 = 0;
const REVERT: u8 = 1;
const USE_ALL_GAS: u8 = 2;
const RETURN_MUCH: u8 = 3;
const ASK: u8 = 4;

/// Wei of a deposit that pays for hundreds of runs.
const PLENTY: u128 = 20_000_000_000_000_000_000;
/// The default genesis' stake of a task, and tip of a run.
const STAKE: u128 = 1_000_000_000_000_000_000;
const TIP: u128 = 100_000_000_000_000;
/// Slot of PriceHistoryInference with the number of its results.
const RESULTS: u64 = 6;
const FOREVER: u64 = 1_900_000_000;

type Change = Box<dyn FnOnce(&mut HeaderTx)>;
type ChangeState = fn(&mut serde_json::Value);

/// A proposer, and accounts that know their nonces.
struct Stand {
    proposer: TestChain,
    nonces: RefCell<HashMap<u8, u64>>,
    /// Every block so far.
    blocks: RefCell<Vec<TestBlock>>,
}

impl Stand {
    fn new() -> Self {
        Self::with(PoolConfig { ripeness: 0.0, ..PoolConfig::default() })
    }

    fn with(config: PoolConfig) -> Self {
        Self { proposer: TestChain::with(config, true), nonces: RefCell::default(), blocks: RefCell::default() }
    }

    /// A transaction in a block of its own, or with the tasks that are due then.
    fn send(&self, sender: u8, tx: &Tx) -> StoredReceipt {
        self.submit(sender, tx);
        self.produce().receipts.last().unwrap().clone()
    }

    fn submit(&self, sender: u8, tx: &Tx) {
        let nonce = self.next_nonce(sender);
        self.proposer.submit(&Tx { nonce, ..tx.clone() }, sender);
    }

    fn next_nonce(&self, sender: u8) -> u64 {
        let mut nonces = self.nonces.borrow_mut();
        let nonce = nonces.entry(sender).or_default();
        *nonce += 1;
        *nonce - 1
    }

    fn call(&self, sender: u8, to: Address, data: Vec<u8>, value: u128) -> StoredReceipt {
        self.send(sender, &Tx { to, value: U256::from(value), ..Tx::call(0, data) })
    }

    fn deploy(&self, sender: u8, name: &str, arguments: &[u8]) -> Address {
        let artifact = std::fs::read(support::repository().join(format!("app/contracts/out/{name}.json"))).unwrap();
        let artifact: serde_json::Value = serde_json::from_slice(&artifact).unwrap();
        let code: Bytes = artifact["bytecode"].as_str().unwrap().parse().unwrap();
        let input = [&code[..], arguments].concat();
        let nonce = self.next_nonce(sender);
        let raw = Tx { input: input.into(), gas: 5_000_000, ..Tx::transfer(nonce) }.sign_creation(sender);
        let hash = self.proposer.chain.admit(raw).unwrap();
        self.proposer.wait_for(hash, penstock_pipe::Stage::Ready);
        assert!(self.produce().receipts.last().unwrap().success, "{name}");
        account(sender).address().create(nonce)
    }

    /// A Ticker of an account that has a deposit, in a mode, run every `frequency` seconds.
    fn ticker(&self, owner: u8, mode: u8, frequency: u64) -> Address {
        let ticker = self.deploy(owner, "Ticker", &[]);
        assert!(self.call(owner, ticker, setModeCall { mode }.abi_encode(), 0).success);
        assert!(self.register(owner, ticker, frequency, PLENTY).success);
        ticker
    }

    fn register(&self, owner: u8, target: Address, frequency: u64, value: u128) -> StoredReceipt {
        let call = registerTaskCall {
            contractAddress: target,
            endTime: U256::from(FOREVER),
            frequency: U256::from(frequency),
        };
        self.call(owner, SCHEDULER, call.abi_encode(), value)
    }

    fn produce(&self) -> Block {
        self.blocks.borrow_mut().push(self.proposer.produce());
        self.block()
    }

    fn block(&self) -> Block {
        let chain = &self.proposer.chain;
        chain.block(chain.height().unwrap()).unwrap().unwrap().as_ref().clone()
    }

    fn slot(&self, address: Address, slot: u64) -> U256 {
        self.proposer.chain.head().unwrap().view.storage_ref(address, U256::from(slot)).unwrap()
    }

    fn runs(&self, ticker: Address) -> u64 {
        self.slot(ticker, 0).to()
    }

    fn balance(&self, address: Address) -> U256 {
        self.proposer.chain.head().unwrap().account(address).unwrap().balance
    }

    fn deposit_of(&self, owner: u8) -> U256 {
        let key = [account(owner).address().into_word().0, U256::from(6).to_be_bytes::<32>()].concat();
        let view = self.proposer.chain.head().unwrap().view;
        view.storage_ref(SCHEDULER, alloy_primitives::keccak256(key).into()).unwrap()
    }

    /// The same chain without models, from the blocks alone.
    fn replayed(&self) -> TestChain {
        let other = TestChain::with(PoolConfig::default(), false);
        for block in self.blocks.borrow().iter() {
            other.decide(block);
        }
        assert_eq!(other.chain.head().unwrap().hash, self.proposer.chain.head().unwrap().hash);
        other
    }

    /// Another validator at the same height.
    fn validator(&self) -> TestChain {
        let other = TestChain::new();
        for block in self.blocks.borrow().iter() {
            other.decide(block);
        }
        other
    }
}

fn tasks_of(block: &TestBlock) -> Vec<ScheduledTask> {
    HeaderTx::decode(&block.txs[0]).unwrap().tasks
}

fn with_header(block: &TestBlock, change: impl FnOnce(&mut HeaderTx)) -> TestBlock {
    let mut header = HeaderTx::decode(&block.txs[0]).unwrap();
    change(&mut header);
    let mut block = block.clone();
    block.txs[0] = header.encode().0;
    block
}

fn run_of(receipt: &StoredReceipt) -> TaskRun {
    let runs = receipt.logs.iter().filter(|log| log.address == SCHEDULER);
    let runs: Vec<TaskRun> = runs.filter_map(|log| TaskRun::decode_log(log).ok()).map(|log| log.data).collect();
    let [run] = <[TaskRun; 1]>::try_from(runs).unwrap();
    run
}

#[test]
fn a_task_runs_at_its_times_in_blocks_without_any_user_transaction() {
    let stand = Stand::new();
    let ticker = stand.ticker(0, COUNT, 3);
    // Blocks are a second apart: due at once, and then every third second from the registration.
    let blocks: Vec<Block> = (0..7).map(|_| stand.produce()).collect();
    let with_task: Vec<bool> = blocks.iter().map(|block| !block.txs.is_empty()).collect();
    assert_eq!(with_task, [true, false, true, false, false, true, false]);
    assert_eq!(stand.runs(ticker), 3);
    assert_eq!(stand.slot(ticker, 1), U256::from(blocks[5].header.timestamp));
    let block = &blocks[2];
    let (tx, receipt) = (&block.txs[0], &block.receipts[0]);
    assert!(receipt.success && receipt.sender == TASK_SENDER);
    assert_eq!((tx.to(), tx.nonce()), (Some(SCHEDULER), block.header.number));
    assert_eq!(tx.input()[..], runTaskCall { id: U256::from(1) }.abi_encode());
    assert_eq!(tx.max_fee_per_gas(), u128::from(block.header.base_fee_per_gas.unwrap()));
    let run = run_of(receipt);
    assert!(run.success && run.contractAddress == ticker && run.id == U256::from(1));
    assert_eq!(block.header.gas_used, receipt.gas_used);
    let chain = &stand.proposer.chain;
    let place = chain.place_of(*tx.tx_hash()).unwrap().unwrap();
    assert_eq!((place.block, place.index), (block.header.number, 0));
    assert_ne!(blocks[0].txs[0].tx_hash(), tx.tx_hash());
    stand.replayed();
}

#[test]
fn a_task_with_inference_runs_without_any_user_transaction_and_is_replayed_without_any_model() {
    // Nothing is answered inside simulations and proposals: the results are there before, or the task is not.
    let stand = Stand::with(PoolConfig { inline_ops: 0, simulation_ops: 0, ripeness: 0.0, ..PoolConfig::default() });
    let ticker = stand.ticker(0, ASK, 2);
    let begin = Instant::now();
    while stand.runs(ticker) < 3 {
        assert!(begin.elapsed() < Duration::from_secs(30), "{} runs", stand.runs(ticker));
        let time = stand.proposer.chain.head().unwrap().header.timestamp + 1;
        let soon = Instant::now() + Duration::from_millis(300);
        while !stand.proposer.chain.has_ready_task(time) && Instant::now() < soon {
            std::thread::sleep(Duration::from_millis(2));
        }
        // One proposal: another of the same height would have cheap results alone.
        let proposed = stand.proposer.propose();
        assert!(stand.validator().accepts(&proposed), "it has the models and computes itself");
        stand.proposer.decide(&proposed);
        stand.blocks.borrow_mut().push(proposed);
        let block = stand.block();
        if let [receipt] = block.receipts.as_slice() {
            assert!(run_of(receipt).success);
            let header = block.header_tx.unwrap();
            assert_eq!((header.results.len(), receipt.requests.len()), (1, 1));
            assert!(header.results[0].result.is_ok());
        }
    }
    stand.replayed();
}

#[test]
fn a_task_whose_results_are_not_here_holds_up_nobody() {
    let stand = Stand::with(PoolConfig {
        inline_ops: 0,
        simulation_ops: 0,
        ripeness: 1e12, // never
        ..PoolConfig::default()
    });
    let ticker = stand.ticker(0, ASK, 1);
    for _ in 0..3 {
        let to = Address::repeat_byte(9);
        assert!(stand.send(1, &Tx { to, ..Tx::transfer(0) }).success);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(stand.runs(ticker), 0);
    // Other tasks go on.
    let other = stand.ticker(2, COUNT, 1);
    stand.produce();
    assert_eq!((stand.runs(ticker), stand.runs(other)), (0, 1));
}

#[test]
fn a_workflow_about_prices_runs_by_itself_on_the_candles_of_its_time() {
    let stand = Stand::new();
    let noon = 1_800_000_000;
    let candle = |minute: u64| Candle {
        time: noon - 60 * (40 - minute),
        open: 100 + minute,
        high: 110 + minute,
        low: 90 + minute,
        close: 101 + minute,
        volume: 5,
    };
    let (base, quote) = (String::from("ETH"), String::from("USD"));
    let add = addPairCall { base: base.clone(), quote: quote.clone(), priceDecimals: 2, volumeDecimals: 0 };
    assert!(stand.call(FEEDER, CANDLE_FEED, add.abi_encode(), 0).success);
    let push = pushCandlesCall { base: base.clone(), quote: quote.clone(), candles: (0..40).map(candle).collect() };
    assert!(stand.call(FEEDER, CANDLE_FEED, push.abi_encode(), 0).success);
    assert!(!stand.call(0, CANDLE_FEED, push.abi_encode(), 0).success, "an account that is not the feeder");
    let query = |count| Query {
        base: base.clone(),
        quote: quote.clone(),
        total_candles: count,
        candle_duration_in_mins: 3,
        order: 0,
        candle_types: vec![2, 0, 1, 3],
    };
    let workflow = |count| {
        let arguments =
            constructCall { model: "penstock/volatility".into(), inputName: "candles".into(), query: query(count) };
        stand.deploy(0, "PriceHistoryInference", &arguments.abi_encode()[4..])
    };
    let (good, too_long) = (workflow(10), workflow(20));
    assert!(stand.register(0, good, 2, PLENTY).success);
    assert!(stand.register(0, too_long, 2, 0).success);
    let block = stand.produce();
    let ran = |block: &Block| -> Vec<(Address, bool)> {
        block.receipts.iter().map(run_of).map(|run| (run.contractAddress, run.success)).collect()
    };
    // The one that was registered first has run already, beside the registration of the other: that one waits longer.
    assert_eq!(ran(&block), [(too_long, false), (good, true)]);
    assert_eq!(block.receipts[1].logs[0].address, penstock_evm::PRICE_FEED);
    let (question, results) = (block.receipts[1].requests.clone(), stand.slot(good, RESULTS));
    assert_eq!(question.len(), 1);
    assert_eq!(ran(&stand.produce()), [(too_long, false)]);
    let block = stand.produce();
    assert_eq!(ran(&block), [(good, true)]);
    assert_eq!(block.receipts[0].requests, question, "there are no new candles");
    assert_eq!(stand.slot(good, RESULTS), results + U256::from(1), "it keeps every answer");
    let other = stand.replayed();
    assert_eq!(
        other.chain.head().unwrap().view.storage_ref(good, U256::from(RESULTS)).unwrap(),
        stand.slot(good, RESULTS)
    );
}

#[test]
fn a_run_is_charged_to_the_deposit_whatever_becomes_of_it() {
    for mode in [COUNT, REVERT, USE_ALL_GAS, RETURN_MUCH] {
        let stand = Stand::new();
        let ticker = stand.ticker(0, mode, 1);
        assert_eq!(stand.deposit_of(0), U256::from(PLENTY - STAKE));
        // The first run of a chain pays for a new slot, which it cannot see.
        stand.produce();
        let beneficiary = Address::repeat_byte(0xfe);
        let before = (stand.deposit_of(0), stand.balance(beneficiary), stand.slot(SCHEDULER, 7));
        let block = stand.produce();
        let [receipt] = block.receipts.as_slice() else { panic!("{mode}") };
        let run = run_of(receipt);
        assert_eq!((receipt.success, run.success), (true, mode == COUNT), "{mode}");
        assert_eq!(before.0 - stand.deposit_of(0), run.fee + U256::from(TIP), "{mode}");
        assert_eq!(stand.balance(beneficiary) - before.1, U256::from(TIP), "{mode}");
        assert_eq!(stand.slot(SCHEDULER, 7) - before.2, run.fee, "{mode}");
        let owed = U256::from(STAKE) + stand.deposit_of(0) + stand.slot(SCHEDULER, 7);
        assert_eq!(stand.balance(SCHEDULER), owed, "{mode}: every wei is accounted for");
        // What is charged is what was used, to within what the contract cannot see.
        let used = U256::from(receipt.gas_used) * U256::from(block.header.base_fee_per_gas.unwrap());
        let (less, more) = (used * U256::from(97) / U256::from(100), used * U256::from(105) / U256::from(100));
        assert!((less..more).contains(&run.fee), "{mode}: {} for {used}", run.fee);
        assert!(mode != USE_ALL_GAS || receipt.gas_used > 3_000_000);
        // It is scheduled again like any other.
        assert_eq!(stand.produce().receipts.len(), 1, "{mode}");
        assert_eq!(stand.runs(ticker), if mode == COUNT { 3 } else { 0 });
        stand.replayed();
    }
}

#[test]
fn a_task_that_is_not_paid_is_skipped_until_it_is() {
    let stand = Stand::new();
    let ticker = stand.ticker(0, COUNT, 1);
    stand.produce();
    assert_eq!(stand.runs(ticker), 1);
    let all = stand.deposit_of(0);
    // In this block it runs once more, before the withdrawal.
    let refused = stand.call(0, SCHEDULER, withdrawCall { amount: all }.abi_encode(), 0);
    assert!(!refused.success, "a run has taken something of it");
    let left = stand.deposit_of(0) - U256::from(1_000_000_000_000_000_u64);
    assert!(stand.call(0, SCHEDULER, withdrawCall { amount: left }.abi_encode(), 0).success);
    let runs = stand.runs(ticker);
    let blocks: Vec<TestBlock> = (0..3).map(|_| stand.proposer.propose()).collect();
    assert!(blocks.iter().all(|block| tasks_of(block).is_empty()));
    let gas = 3_000_000 + 3_000_000 / 63 + 150_000;
    let forced = with_header(&blocks[0], |header| header.tasks.push(ScheduledTask { id: 1, gas }));
    assert!(!stand.validator().accepts(&forced), "whatever the proposer says");
    assert!(stand.call(0, SCHEDULER, depositCall {}.abi_encode(), PLENTY).success);
    stand.produce();
    assert_eq!(stand.runs(ticker), runs + 1);
    stand.replayed();
}

#[test]
fn tasks_stay_within_their_gas_and_whatever_waits_longest_comes_first() {
    let stand = Stand::new();
    // Each uses three millions; five are fifteen, and the overhead comes on top.
    let tickers: Vec<Address> = (0..5).map(|_| stand.deploy(0, "Ticker", &[])).collect();
    for ticker in &tickers {
        assert!(stand.call(0, *ticker, setModeCall { mode: USE_ALL_GAS }.abi_encode(), 0).success);
        assert!(stand.register(0, *ticker, 1_000, PLENTY).success);
    }
    // Those that were registered first have run meanwhile. All of them anew, due at once.
    let update = |frequency: u64| {
        for ticker in &tickers {
            let call = updateTaskCall {
                contractAddress: *ticker,
                endTime: U256::from(FOREVER),
                frequency: U256::from(frequency),
            };
            stand.submit(0, &Tx { to: SCHEDULER, ..Tx::call(0, call.abi_encode()) });
        }
        stand.produce()
    };
    let at = update(2).header.timestamp;
    stand.produce();
    let block = stand.proposer.propose();
    assert_eq!(block.seconds as u64, at + 2);
    let tasks = tasks_of(&block);
    assert_eq!(tasks.iter().map(|task| task.id).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let validator = stand.validator();
    assert!(validator.accepts(&block));
    let fifth = ScheduledTask { id: 5, ..tasks[0] };
    let cases: [(&str, Change); 9] = [
        ("over the gas of tasks", Box::new(move |header| header.tasks.push(fifth))),
        ("twice", Box::new(|header| header.tasks[3] = header.tasks[0])),
        ("in another order", Box::new(|header| header.tasks.swap(0, 1))),
        ("a task that is not there", Box::new(|header| header.tasks[0].id = 77)),
        ("less gas than its owner says", Box::new(|header| header.tasks[0].gas -= 1)),
        ("more gas than its owner says", Box::new(|header| header.tasks[0].gas += 1)),
        ("gas beyond any block's", Box::new(|header| header.tasks[0].gas = u64::MAX)),
        ("no task of that number for ever", Box::new(|header| header.tasks[0].id = u64::MAX)),
        (
            "more than any block can run",
            Box::new(|header| header.tasks = (1..=101).map(|id| ScheduledTask { id, gas: 150_000 }).collect()),
        ),
    ];
    for (name, change) in cases {
        assert!(!validator.accepts(&with_header(&block, change)), "{name}");
    }
    let fewer = with_header(&block, |header| header.tasks.truncate(2));
    assert!(validator.accepts(&fewer), "a proposer may leave tasks for later");
    stand.produce();
    // The fifth waits longest now; a task that has just run is not due.
    let next = stand.proposer.propose();
    assert_eq!(tasks_of(&next).iter().map(|task| task.id).collect::<Vec<_>>(), [5]);
    let not_due = with_header(&next, |header| header.tasks.push(tasks[0]));
    assert!(!stand.validator().accepts(&not_due));
    stand.replayed();
}

#[test]
fn a_block_has_no_more_tasks_than_validators_accept_however_little_each_uses() {
    let (genesis, app_state) = genesis_with(|state| state["scheduler"]["gasPerBlock"] = 1_000_000.into());
    let open = || {
        let chain = TestChain::of_genesis(genesis.clone(), &app_state, true, PoolConfig::default());
        chain.init_with(app_state.clone());
        chain
    };
    let stand = Stand { proposer: open(), nonces: RefCell::default(), blocks: RefCell::default() };
    // A million of gas is that of six overheads; a run that fails at once uses a third of one.
    for _ in 0..9 {
        let ticker = stand.deploy(0, "Ticker", &[]);
        assert!(stand.register(0, ticker, 1_000, PLENTY / 9).success);
        let limit = setGasLimitCall { contractAddress: ticker, gasLimit: U256::from(1) };
        assert!(stand.call(0, SCHEDULER, limit.abi_encode(), 0).success);
        let update = updateTaskCall { contractAddress: ticker, endTime: U256::from(FOREVER), frequency: U256::from(1) };
        assert!(stand.call(0, SCHEDULER, update.abi_encode(), 0).success);
    }
    let most = (0..4).map(|_| {
        let block = stand.proposer.propose();
        let follower = open();
        stand.blocks.borrow().iter().for_each(|block| {
            follower.decide(block);
        });
        assert!(follower.accepts(&block), "{} tasks", tasks_of(&block).len());
        stand.proposer.decide(&block);
        let count = tasks_of(&block).len();
        stand.blocks.borrow_mut().push(block);
        count
    });
    assert_eq!(most.max(), Some(6));
}

#[test]
fn a_task_whose_results_never_come_pays_after_a_while_and_holds_up_nobody_until_then() {
    let config = PoolConfig { inline_ops: 0, simulation_ops: 0, ..PoolConfig::default() };
    // The proposer lacks the model.
    let proposer = TestChain::with(config, false);
    let stand = Stand { proposer, nonces: RefCell::default(), blocks: RefCell::default() };
    stand.ticker(0, ASK, 1_000);
    let other = stand.ticker(2, COUNT, 1);
    let deposit = stand.deposit_of(0);
    let begin = stand.block().header.timestamp;
    let failed = loop {
        let block = stand.produce();
        let of_zero = block.receipts.iter().find(|receipt| run_of(receipt).id == U256::from(1));
        if let Some(receipt) = of_zero {
            break (block.clone(), run_of(receipt));
        }
        assert_eq!(stand.deposit_of(0), deposit, "nothing is charged for what is in no block");
        assert!(block.header.timestamp < begin + 300, "it waits for ever");
    };
    let (block, run) = failed;
    assert!(!run.success && stand.deposit_of(0) < deposit);
    assert!(block.header.timestamp >= begin + 100, "results have some time to come");
    assert_eq!(block.header_tx.unwrap().results[0].result, Err(penstock_inference::Failure::Unavailable));
    assert!(stand.runs(other) > 90, "{} runs of the other one", stand.runs(other));
    stand.replayed();
}

#[test]
fn nobody_but_the_chain_runs_a_task() {
    let stand = Stand::new();
    let ticker = stand.ticker(0, COUNT, 100);
    stand.produce();
    assert_eq!(stand.runs(ticker), 1);
    assert!(!stand.call(0, SCHEDULER, runTaskCall { id: U256::from(1) }.abi_encode(), 0).success);
    // The very bytes of a run that may be next.
    let gas = 3_000_000 + 3_000_000 / 63 + 150_000;
    let head = stand.proposer.chain.head().unwrap();
    let raw = ScheduledTask { id: 1, gas }.transaction(head.number() + 1, head.next_base_fee()).encoded_2718();
    assert!(stand.proposer.chain.admit(raw.clone().into()).is_err());
    let mut block = stand.proposer.propose();
    block.txs.push(raw.into());
    assert!(!stand.validator().accepts(&block), "a transaction without a signature");
}

#[test]
fn a_chain_without_a_scheduler_has_no_tasks() {
    let (genesis, app_state) = genesis_with(|state| drop(state.as_object_mut().unwrap().remove("scheduler")));
    let chain = TestChain::of_genesis(genesis, &app_state, true, PoolConfig::default());
    chain.init_with(app_state);
    let block = chain.propose();
    assert!(chain.accepts(&block));
    let task = ScheduledTask { id: 1, gas: 150_000 };
    assert!(!chain.accepts(&with_header(&block, |header| header.tasks.push(task))));
    assert!(chain.chain.head().unwrap().view.account(SCHEDULER).unwrap().is_none());
}

#[test]
fn owners_stop_change_and_fund_their_tasks_and_nobody_elses() {
    let stand = Stand::new();
    let ticker = stand.ticker(0, COUNT, 1);
    stand.produce();
    let call = |sender: u8, data: Vec<u8>| stand.call(sender, SCHEDULER, data, 0).success;
    let stop = || stopTaskCall { contractAddress: ticker }.abi_encode();
    let update = |end: u64, frequency: u64| {
        updateTaskCall { contractAddress: ticker, endTime: U256::from(end), frequency: U256::from(frequency) }
            .abi_encode()
    };
    let gas = |limit: u64| setGasLimitCall { contractAddress: ticker, gasLimit: U256::from(limit) }.abi_encode();
    assert!(!call(1, stop()) && !call(1, update(FOREVER, 5)) && !call(1, gas(1_000_000)));
    assert!(!call(0, update(5, 5)) && !call(0, update(FOREVER, 0)) && !call(0, gas(0)) && !call(0, gas(15_000_000)));
    assert!(!call(1, pruneCall { id: U256::from(1) }.abi_encode()), "it is paid and not over");
    assert!(!stand.register(0, ticker, 1, 0).success, "it is registered");
    assert!(!stand.register(1, ticker, 1, 0).success, "without a stake");
    assert!(stand.register(1, ticker, 1_000, PLENTY).success, "another account pays for runs of its own");
    assert!(!stand.register(0, account(3).address(), 1, 0).success, "no contract");
    assert!(call(0, gas(1_000_000)));
    let tasks = tasks_of(&stand.proposer.propose());
    assert!(tasks.contains(&ScheduledTask { id: 1, gas: 1_000_000 + 1_000_000 / 63 + 150_000 }), "{tasks:?}");
    let before = stand.deposit_of(0);
    // It runs once more at the top of the block that stops it.
    assert!(call(0, stop()));
    assert!(stand.deposit_of(0) > before && stand.deposit_of(0) < before + U256::from(STAKE));
    let runs = stand.runs(ticker);
    (0..3).for_each(|_| drop(stand.produce()));
    assert_eq!(stand.runs(ticker), runs);
    // What is over can be pruned by anybody: here by its end.
    let soon = stand.block().header.timestamp + 4;
    let other = stand.deploy(0, "Ticker", &[]);
    let register =
        registerTaskCall { contractAddress: other, endTime: U256::from(soon), frequency: U256::from(1) }.abi_encode();
    assert!(call(0, register));
    while stand.block().header.timestamp < soon {
        stand.produce();
    }
    let runs = stand.runs(other);
    stand.produce();
    assert!(runs > 0 && stand.runs(other) == runs, "not after its end");
    assert!(call(5, pruneCall { id: U256::from(3) }.abi_encode()));
    stand.replayed();
}

#[test]
fn a_wrong_section_of_the_genesis_is_refused_with_its_path() {
    let (_, app_state) = genesis();
    let refused = |change: fn(&mut serde_json::Value)| {
        let mut state: serde_json::Value = serde_json::from_slice(&app_state).unwrap();
        change(&mut state);
        let document = serde_json::json!({
            "chain_id": "x", "genesis_time": "2026-11-01T00:00:00Z", "app_state": state,
        });
        GenesisDoc::parse(document.to_string().as_bytes()).unwrap_err().path
    };
    use serde_json::json;
    let cases: [(ChangeState, &str); 9] = [
        (|state| state["priceFeed"]["feeder"] = json!("0x12"), "app_state.priceFeed.feeder"),
        (|state| state["priceFeed"] = json!({}), "app_state.priceFeed"),
        (|state| state["priceFeed"]["feeders"] = json!([]), "app_state.priceFeed.feeders"),
        (|state| state["inferenceHub"] = json!("yes"), "app_state.inferenceHub"),
        (|state| state["scheduler"]["gasPerBlock"] = json!(40_000_000), "app_state.scheduler.gasPerBlock"),
        (|state| state["scheduler"]["gasPerBlock"] = json!(10_000), "app_state.scheduler.gasPerBlock"),
        (|state| state["scheduler"]["tip"] = json!("0x10000000000000000"), "app_state.scheduler.tip"),
        (
            |state| {
                let code = json!({ "balance": "0x0", "nonce": "0x1", "code": "0x60" });
                state["alloc"]["0x00000000000000000000000000000000000000F8"] = code;
            },
            "app_state.alloc.0x00000000000000000000000000000000000000f8",
        ),
        (|state| state["scheduler"]["keeper"] = json!(true), "app_state.scheduler.keeper"),
    ];
    for (change, path) in cases {
        assert_eq!(refused(change), path);
    }
}
