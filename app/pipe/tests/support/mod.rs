//! Everything around the pool, without threads and clocks: a chain of numbered slots, transactions that read and write
//! them and ask about what they read, and the blocks. The tests play simulation, inference and consensus.

#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on stops"
)]

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use alloy_consensus::{SignableTransaction, Transaction, TxEip1559, TxEnvelope};
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256, keccak256};
use penstock_evm::{Call, ReadSet};
use penstock_inference::{ContentHash, InferenceMode, InferenceRequest, RequestId, Urgency, network::Answer};
use penstock_pipe::{
    Account, Action, Candidate, Event, Included, NewHead, Pool, PoolConfig, PoolRules, PoolTx, Rejected, SimulateJob,
    Simulation, Stage,
};
use revm::{
    database::BundleState,
    state::{Account as EvmAccount, AccountInfo, EvmState, EvmStorageSlot, TransactionId},
};

pub const BALANCE: U256 = U256::from_limbs([0, 1 << 40, 0, 0]);
pub const RULES: PoolRules = PoolRules { max_waves: 16, max_tx_ops: 1 << 50, ops_per_gas: 1_000 };
pub mod day;

const CONTRACT: Address = Address::repeat_byte(0xcc);
const FEES: Address = Address::repeat_byte(0xfe);

/// What a transaction does: reads a slot, asks, and writes a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    pub reads: u8,
    /// Adds one to this slot; 255: nothing.
    pub writes: u8,
    /// Writes only when the slot's value is even.
    pub fickle: bool,
    pub questions: u8,
    /// Each question is about the answer before; else they are independent.
    pub dependent: bool,
    /// The questions are about the slot's value.
    pub volatile: bool,
    /// Cost of a question.
    pub ops: u64,
}

impl Program {
    pub const TRANSFER: Self =
        Self { reads: 0, writes: 255, fickle: false, questions: 0, dependent: false, volatile: false, ops: 0 };

    fn encode(&self) -> Bytes {
        let flags = u8::from(self.dependent) | u8::from(self.volatile) << 1 | u8::from(self.fickle) << 2;
        [&[self.reads, self.writes, self.questions, flags][..], &self.ops.to_be_bytes()].concat().into()
    }

    pub fn of(tx: &PoolTx) -> Self {
        let input = tx.tx.input();
        Self {
            reads: input[0],
            writes: input[1],
            questions: input[2],
            dependent: input[3] & 1 > 0,
            volatile: input[3] & 2 > 0,
            fickle: input[3] & 4 > 0,
            ops: u64::from_be_bytes(input[4..12].try_into().unwrap()),
        }
    }

    /// The slot that it writes when it finds a value.
    fn writes_on(&self, value: u64) -> Option<u8> {
        (self.writes != 255 && !(self.fickle && value % 2 == 1)).then_some(self.writes)
    }

    /// Gas of a run that is included.
    pub fn gas(&self) -> u64 {
        21_000 + u64::from(self.questions) * (20_000 + self.ops / RULES.ops_per_gas)
    }

    /// The question at an index, about a slot's value.
    fn question(&self, index: u8, value: u64) -> Call {
        let value = if self.volatile { value } else { 0 };
        let text = [&self.encode()[..], &[index], &value.to_be_bytes()].concat();
        let request =
            InferenceRequest { model: ContentHash(keccak256(text).0), mode: InferenceMode::Vanilla, inputs: vec![] };
        Call { id: request.id(), request: Arc::new(request), ops: self.ops, missed: true, speculative: false }
    }

    /// Runs on a slot's value: the calls that it makes.
    pub fn calls(&self, value: u64, has: impl Fn(&RequestId) -> bool) -> Vec<Call> {
        let mut calls = Vec::new();
        let mut placeholder = false;
        for index in 0..self.questions {
            // On a placeholder a dependent program asks something that nobody will ask again.
            let mut call = self.question(if placeholder && self.dependent { 100 + index } else { index }, value);
            (call.missed, call.speculative) = (!has(&call.id), placeholder);
            placeholder |= call.missed;
            calls.push(call);
        }
        calls
    }
}

pub fn sender(index: u16) -> Address {
    Address::left_padding_from(&[1, (index >> 8) as u8, index as u8])
}

pub fn tx(from: u16, nonce: u64, fee: u128, program: Program) -> PoolTx {
    let tx = TxEip1559 {
        chain_id: 1,
        nonce,
        gas_limit: program.gas(),
        max_fee_per_gas: fee,
        max_priority_fee_per_gas: fee,
        to: TxKind::Call(sender(from)), // makes the hashes of different senders differ
        input: program.encode(),
        ..Default::default()
    };
    let tx = TxEnvelope::from(tx.into_signed(Signature::test_signature()));
    PoolTx { tx, sender: sender(from), raw: Bytes::new(), tell_peers: true }
}

/// What goes to the inference network.
#[derive(Debug, Clone)]
pub enum Wish {
    Ask { id: RequestId, ops: u64, urgency: Urgency, hash: B256 },
    Cancel { id: RequestId, hash: B256, sender: Address },
}

pub struct World {
    pub pool: Pool,
    /// Simulations under way, with the head that they run on.
    pub jobs: Vec<(SimulateJob, u64, HashMap<u8, u64>)>,
    pub wishes: Vec<Wish>,
    /// How many want each request that is not answered.
    pub wanted: BTreeMap<RequestId, usize>,
    pub slots: HashMap<u8, u64>,
    pub nonces: HashMap<Address, u64>,
    pub balances: HashMap<Address, U256>,
    /// Accounts that changed since the last block.
    pub dirty: HashSet<Address>,
    pub height: u64,
    pub base_fee: u64,
    pub submitted: HashSet<B256>,
    pub left: HashMap<B256, Stage>,
    /// Those that were included and not taken from here.
    pub just_included: Vec<B256>,
    pub now: Duration,
    pub simulations: usize,
}

impl World {
    pub fn new(config: PoolConfig) -> Self {
        Self {
            pool: Pool::new(config, RULES, 0, 1),
            jobs: Vec::new(),
            wishes: Vec::new(),
            wanted: BTreeMap::new(),
            slots: HashMap::new(),
            nonces: HashMap::new(),
            balances: HashMap::new(),
            dirty: HashSet::new(),
            height: 0,
            base_fee: 1,
            submitted: HashSet::new(),
            left: HashMap::new(),
            just_included: Vec::new(),
            now: Duration::ZERO,
            simulations: 0,
        }
    }

    pub fn nonce(&self, address: Address) -> u64 {
        self.nonces.get(&address).copied().unwrap_or_default()
    }

    pub fn account(&self, address: Address) -> Account {
        Account { nonce: self.nonce(address), balance: self.balances.get(&address).copied().unwrap_or(BALANCE) }
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Simulate(job) => self.jobs.push((job, self.height, self.slots.clone())),
                Action::Infer { id, ops, urgency, hash, .. } => {
                    *self.wanted.entry(id).or_default() += 1;
                    self.wishes.push(Wish::Ask { id, ops, urgency, hash });
                }
                Action::Cancel { id, hash, sender } => {
                    if let Some(count) = self.wanted.get_mut(&id) {
                        *count -= 1;
                        if *count == 0 {
                            self.wanted.remove(&id);
                        }
                    }
                    self.wishes.push(Wish::Cancel { id, hash, sender });
                }
                Action::StageChanged(change) => {
                    if matches!(change.stage, Stage::Included | Stage::Dropped) {
                        if change.stage == Stage::Included {
                            self.just_included.push(change.hash);
                        }
                        let before = self.left.insert(change.hash, change.stage);
                        assert!(before.is_none(), "{} left twice", change.hash);
                    }
                }
            }
        }
    }

    pub fn step(&mut self, event: Event) {
        let actions = self.pool.step(self.now, event);
        self.perform(actions);
    }

    pub fn submit(&mut self, tx: PoolTx) -> Result<B256, Rejected> {
        let (hash, account) = (tx.hash(), self.account(tx.sender));
        let actions = self.pool.submit(self.now, tx, account)?;
        self.submitted.insert(hash);
        self.left.remove(&hash); // it may come back after it was dropped
        self.perform(actions);
        Ok(hash)
    }

    /// A slot as a transaction finds it behind others.
    fn slot(slots: &HashMap<u8, u64>, before: &[Arc<EvmState>], slot: u8) -> u64 {
        let key = U256::from(slot);
        let written = before.iter().rev().find_map(|post| post.get(&CONTRACT)?.storage.get(&key));
        written.map_or_else(|| slots.get(&slot).copied().unwrap_or_default(), |slot| slot.present_value.to::<u64>())
    }

    /// What a transaction leaves behind.
    fn post(slots: &HashMap<u8, u64>, before: &[Arc<EvmState>], tx: &PoolTx) -> EvmState {
        let program = Program::of(tx);
        let value = Self::slot(slots, before, program.reads);
        let mut contract = EvmAccount::from(AccountInfo { nonce: 1, ..Default::default() });
        let mut touch = |slot: u8, add: u64| {
            let was = Self::slot(slots, before, slot);
            let slot_now = EvmStorageSlot::new_changed(U256::from(was), U256::from(was + add), TransactionId::ZERO);
            contract.storage.insert(U256::from(slot), slot_now);
        };
        if program.questions > 0 || program.writes != 255 {
            touch(program.reads, 0);
        }
        if let Some(slot) = program.writes_on(value) {
            touch(slot, 1);
        }
        let own = EvmAccount::from(AccountInfo { nonce: tx.nonce() + 1, ..Default::default() });
        EvmState::from_iter([(CONTRACT, contract), (tx.sender, own)])
    }

    fn outcome(job: &SimulateJob, height: u64, slots: &HashMap<u8, u64>) -> Simulation {
        let program = Program::of(&job.tx);
        let value = Self::slot(slots, &job.before, program.reads);
        let calls = program.calls(value, |id| job.held.0.contains_key(id));
        let post = Self::post(slots, &job.before, &job.tx);
        Simulation::Ran {
            height,
            calls,
            used: vec![],
            reads: ReadSet::of(&post, [job.tx.sender, FEES]),
            post: Arc::new(post),
            took: Duration::ZERO,
        }
    }

    /// Ends a simulation.
    pub fn simulate(&mut self, index: usize) {
        let index = index % self.jobs.len();
        let (job, height, slots) = self.jobs.remove(index);
        self.simulations += 1;
        let outcome = Self::outcome(&job, height, &slots);
        self.step(Event::Simulated { hash: job.tx.hash(), ticket: job.ticket, outcome });
    }

    pub fn answer(&mut self, id: RequestId) {
        self.wanted.remove(&id);
        let answer = Answer { result: Arc::new(Ok(vec![])), took: Duration::ZERO, finished: Instant::now() };
        self.step(Event::Answered { id, answer });
    }

    pub fn answer_nth(&mut self, index: usize) {
        let id = *self.wanted.keys().nth(index % self.wanted.len()).unwrap();
        self.answer(id);
    }

    pub fn candidates(&self) -> Vec<Candidate> {
        self.pool.next_candidates(&mut self.pool.candidates(), usize::MAX / 2)
    }

    /// A block as the chain makes it: ready transactions in order, executed one after the other; what asks for something
    /// else now is answered inline if it is cheap, and deferred otherwise. Answers how many it has.
    pub fn block(&mut self, max: usize) -> usize {
        self.block_with(max, None, self.base_fee)
    }

    /// `jump` moves a sender's nonce on by other means.
    pub fn block_with(&mut self, max: usize, jump: Option<(Address, u64)>, base_fee: u64) -> usize {
        let inline_ops = PoolConfig::default().inline_ops;
        let before = self.slots.clone();
        let (mut included, mut deferred, mut blocked) = (Vec::new(), Vec::new(), HashSet::new());
        for candidate in self.candidates() {
            let (tx, program) = (&candidate.tx, Program::of(&candidate.tx));
            if included.len() >= max || blocked.contains(&tx.sender) {
                blocked.insert(tx.sender);
                continue;
            }
            let value = self.slots.get(&program.reads).copied().unwrap_or_default();
            let calls = program.calls(value, |id| candidate.held.0.contains_key(id));
            if calls.iter().any(|call| call.missed && call.ops > inline_ops) && !candidate.gives_up {
                blocked.insert(tx.sender);
                deferred.push((tx.hash(), calls));
                continue;
            }
            let nonce = self.nonces.entry(tx.sender).or_default();
            assert_eq!(*nonce, tx.nonce(), "candidates are in nonce order");
            *nonce += 1;
            self.dirty.insert(tx.sender);
            if let Some(slot) = program.writes_on(value) {
                *self.slots.entry(slot).or_default() += 1;
            }
            included.push(Included { hash: tx.hash(), sender: tx.sender, gas_used: program.gas() });
        }
        self.step(Event::Proposed(included.iter().map(|tx| tx.hash).collect()));
        for (hash, calls) in deferred {
            self.step(Event::Deferred { hash, calls });
        }
        if let Some((address, by)) = jump {
            *self.nonces.entry(address).or_default() += by;
            self.dirty.insert(address);
        }
        for address in core::mem::take(&mut self.dirty) {
            self.pool.set_account(address, self.account(address));
        }
        let (count, changes) = (included.len(), self.changes(&before));
        self.height += 1;
        self.base_fee = base_fee;
        self.step(Event::NewHead(NewHead { height: self.height, base_fee, included, changes: Arc::new(changes) }));
        count
    }

    /// An empty block of another account's doing, which left one slot as it is now.
    pub fn head_with_changed(&mut self, slot: Option<u8>) {
        let mut before = self.slots.clone();
        if let Some(slot) = slot {
            *before.entry(slot).or_default() -= 1;
        }
        let changes = Arc::new(self.changes(&before));
        self.height += 1;
        let base_fee = self.base_fee;
        self.step(Event::NewHead(NewHead { height: self.height, base_fee, included: vec![], changes }));
    }

    fn changes(&self, before: &HashMap<u8, u64>) -> BundleState {
        let info = || AccountInfo { nonce: 1, ..Default::default() };
        let was = |slot: &u8| before.get(slot).copied().unwrap_or_default();
        let changed = self.slots.iter().filter(|(slot, value)| was(slot) != **value);
        let slots = changed.map(|(slot, now)| (U256::from(*slot), (U256::from(was(slot)), U256::from(*now))));
        BundleState::builder(0..=0)
            .state_original_account_info(CONTRACT, info())
            .state_present_account_info(CONTRACT, info())
            .state_storage(CONTRACT, slots.collect())
            .build()
    }

    /// Lets everything that can happen without a block happen.
    pub fn settle(&mut self) {
        while !self.jobs.is_empty() || !self.wanted.is_empty() {
            while !self.jobs.is_empty() {
                self.simulate(0);
            }
            if !self.wanted.is_empty() {
                self.answer_nth(0);
            }
        }
        self.wishes.clear();
    }

    /// `ready` means that an execution on the head, behind the sender's own earlier ones, finds every result, or that
    /// the proposal can answer it.
    pub fn check_ready(&self, inline_ops: u64) {
        assert_eq!(self.wanted.values().sum::<usize>(), self.pool.requests_under_way(), "each cancelled when unwanted");
        let mut by_sender: HashMap<Address, BTreeMap<u64, (Arc<PoolTx>, Stage)>> = HashMap::new();
        for (tx, stage) in self.pool.all() {
            by_sender.entry(tx.sender).or_default().insert(tx.nonce(), (tx, stage));
        }
        let held: HashMap<B256, Candidate> = self.candidates().into_iter().map(|c| (c.tx.hash(), c)).collect();
        for (address, own) in by_sender {
            let mut before = Vec::new();
            for (expected, (nonce, (tx, stage))) in (self.nonce(address)..).zip(own) {
                if nonce != expected || !matches!(stage, Stage::Ready | Stage::Proposed) {
                    break;
                }
                let candidate = held.get(&tx.hash()).expect("a ready transaction is a candidate");
                let program = Program::of(&tx);
                let calls = program
                    .calls(Self::slot(&self.slots, &before, program.reads), |id| candidate.held.0.contains_key(id));
                for call in calls.iter().filter(|call| call.missed) {
                    let light = u64::from(program.questions) * program.ops <= inline_ops / 8;
                    assert!(light, "nonce {nonce} of {address} is ready without an answer");
                    assert!(call.ops <= inline_ops);
                }
                before.push(Arc::new(Self::post(&self.slots, &before, &tx)));
            }
        }
    }
}
