//! The pool under random orders of events: nothing is lost or doubled, nothing is stuck, and `ready` always
//! means that nothing is missing. No threads, no clocks: the test plays simulation and inference.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256};
use penstock_evm::Call;
use penstock_inference::{ContentHash, InferenceMode, InferenceRequest, RequestId, network::Answer};
use penstock_pipe::{
    Account, Action, Event, NewHead, Pool, PoolConfig, PoolTx, Rejected, SimulateJob, Simulation, Stage,
};
use proptest::prelude::*;
use revm::database::BundleState;

const BALANCE: U256 = U256::from_limbs([0, 1 << 40, 0, 0]);

fn tx(sender: u8, nonce: u64, fee: u128) -> PoolTx {
    let tx = TxEip1559 {
        chain_id: 1,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: fee,
        max_priority_fee_per_gas: fee,
        to: TxKind::Call(Address::repeat_byte(sender)),
        value: U256::from(sender),
        ..Default::default()
    };
    let tx = TxEnvelope::from(tx.into_signed(Signature::test_signature()));
    PoolTx { tx, sender: Address::repeat_byte(sender), raw: Bytes::new(), tell_peers: true }
}

/// The `index`-th question of a transaction: each is known only when the one before it is answered.
fn question(tx: &PoolTx, index: usize) -> Call {
    let mut model = tx.hash().0;
    model[0] = index as u8;
    let request = InferenceRequest { model: ContentHash(model), mode: InferenceMode::Vanilla, inputs: vec![] };
    Call { id: request.id(), request: Arc::new(request), ops: 1, missed: true, speculative: false }
}

/// Everything around the pool.
struct World {
    pool: Pool,
    jobs: Vec<SimulateJob>,
    wanted: HashMap<RequestId, usize>,
    nonces: BTreeMap<u8, u64>,
    height: u64,
    submitted: HashSet<B256>,
    left: HashMap<B256, Stage>,
    now: Duration,
}

impl World {
    fn new() -> Self {
        let config = PoolConfig { max_wait_blocks: 1_000, ..PoolConfig::default() };
        Self {
            pool: Pool::new(config, 0, 1),
            jobs: Vec::new(),
            wanted: HashMap::new(),
            nonces: BTreeMap::new(),
            height: 0,
            submitted: HashSet::new(),
            left: HashMap::new(),
            now: Duration::ZERO,
        }
    }

    fn nonce(&self, sender: u8) -> u64 {
        self.nonces.get(&sender).copied().unwrap_or_default()
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Simulate(job) => self.jobs.push(job),
                Action::Infer { id, .. } => *self.wanted.entry(id).or_default() += 1,
                Action::Cancel(id) => {
                    if let Some(count) = self.wanted.get_mut(&id) {
                        *count -= 1;
                        if *count == 0 {
                            self.wanted.remove(&id);
                        }
                    }
                }
                Action::StageChanged { hash, stage: stage @ (Stage::Included | Stage::Dropped) } => {
                    assert!(self.left.insert(hash, stage).is_none(), "{hash} left twice");
                }
                Action::StageChanged { .. } => {}
            }
        }
    }

    fn step(&mut self, event: Event) {
        self.now += Duration::from_millis(1);
        let actions = self.pool.step(self.now, event);
        self.perform(actions);
    }

    fn submit(&mut self, tx: PoolTx) {
        let (hash, sender) = (tx.hash(), tx.sender[0]);
        let account = Account { nonce: self.nonce(sender), balance: BALANCE };
        match self.pool.submit(self.now, tx, account) {
            Ok(actions) => {
                self.submitted.insert(hash);
                self.left.remove(&hash); // it may come back after it was dropped
                self.perform(actions);
            }
            Err(Rejected::AlreadyKnown | Rejected::Underpriced | Rejected::NonceTooLow { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }

    /// Ends a simulation: a transaction asks `nonce % 3` questions, one after the other.
    fn simulate(&mut self, index: usize) {
        let job = self.jobs.remove(index % self.jobs.len());
        let mut calls = Vec::new();
        for index in 0..(job.tx.nonce() % 3) as usize {
            let mut call = question(&job.tx, index);
            call.missed = !job.held.0.contains_key(&call.id);
            let missed = call.missed;
            calls.push(call);
            if missed {
                break;
            }
        }
        let outcome = Simulation::Ran {
            height: self.height,
            calls,
            used: vec![],
            reads: Default::default(),
            post: Default::default(),
        };
        self.step(Event::Simulated { hash: job.tx.hash(), ticket: job.ticket, outcome });
    }

    fn answer(&mut self, index: usize) {
        let mut ids: Vec<RequestId> = self.wanted.keys().copied().collect();
        ids.sort_unstable();
        let id = ids[index % ids.len()];
        self.wanted.remove(&id);
        let answer = Answer { result: Arc::new(Ok(vec![])), took: Duration::ZERO, finished: Instant::now() };
        self.step(Event::Answered { id, answer });
    }

    /// A block with the first `count` candidates; `jump` moves a sender's nonce on by other means.
    fn block(&mut self, count: usize, jump: Option<(u8, u64)>) {
        let candidates = self.pool.candidates();
        for candidate in &candidates {
            for index in 0..(candidate.tx.nonce() % 3) as usize {
                let id = question(&candidate.tx, index).id;
                assert!(candidate.held.0.contains_key(&id), "ready without the answer to question {index}");
            }
        }
        let included: Vec<_> = candidates.into_iter().take(count).map(|candidate| candidate.tx).collect();
        self.step(Event::Proposed(included.iter().map(|tx| tx.hash()).collect()));
        for tx in &included {
            let nonce = self.nonces.entry(tx.sender[0]).or_default();
            assert_eq!(*nonce, tx.nonce(), "candidates are in nonce order");
            *nonce += 1;
        }
        if let Some((sender, by)) = jump {
            *self.nonces.entry(sender).or_default() += by;
        }
        for address in self.pool.senders() {
            self.pool.set_account(address, Account { nonce: self.nonce(address[0]), balance: BALANCE });
        }
        self.height += 1;
        self.step(Event::NewHead(NewHead {
            height: self.height,
            base_fee: 1,
            included: included.iter().map(|tx| tx.hash()).collect(),
            changes: Arc::new(BundleState::default()),
        }));
    }

    /// Lets everything that can happen happen.
    fn settle(&mut self) {
        while !self.jobs.is_empty() || !self.wanted.is_empty() {
            while !self.jobs.is_empty() {
                self.simulate(0);
            }
            if !self.wanted.is_empty() {
                self.answer(0);
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Happening {
    Submit { sender: u8, nonce: u64, fee: u128 },
    Simulate(usize),
    Answer(usize),
    Block(usize),
    Jump { sender: u8, by: u64 },
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (1u8..5, 0u64..8, 1u128..6).prop_map(|(sender, ahead, fee)| Happening::Submit { sender, nonce: ahead, fee: fee * 1_000 }),
        6 => any::<usize>().prop_map(Happening::Simulate),
        4 => any::<usize>().prop_map(Happening::Answer),
        2 => (0usize..6).prop_map(Happening::Block),
        1 => (1u8..5, 1u64..4).prop_map(|(sender, by)| Happening::Jump { sender, by }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_no_transaction_is_lost_doubled_or_stuck(story in proptest::collection::vec(happening(), 1..120)) {
        let mut world = World::new();
        for happening in story {
            match happening {
                Happening::Submit { sender, nonce, fee } => world.submit(tx(sender, world.nonce(sender) + nonce, fee)),
                Happening::Simulate(index) if !world.jobs.is_empty() => world.simulate(index),
                Happening::Answer(index) if !world.wanted.is_empty() => world.answer(index),
                Happening::Block(count) => world.block(count, None),
                Happening::Jump { sender, by } => world.block(0, Some((sender, by))),
                _ => {}
            }
        }
        world.settle();
        // Whatever has no gap before it goes in; the rest waits for its gap, and is told so.
        for _ in 0..200 {
            world.block(usize::MAX, None);
            world.settle();
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
    }
}

#[test]
fn an_account_whose_nonce_jumps_over_its_pending_transactions_loses_them_and_nothing_else() {
    let mut world = World::new();
    world.nonces.insert(1, 6);
    world.submit(tx(1, 6, 1_000));
    world.submit(tx(1, 7, 1_000));
    world.submit(tx(2, 0, 1_000));
    world.block(0, Some((1, 2)));
    world.settle();
    assert_eq!(world.pool.all().len(), 1);
    world.block(1, None);
    assert!(world.pool.all().is_empty());
}

#[test]
fn peers_hear_of_a_transaction_when_it_becomes_executable_and_again_when_it_stays_pending() {
    let mut world = World::new();
    let told = |world: &mut World| world.pool.take_outgoing(0, 0).iter().map(|tx| tx.nonce()).collect::<Vec<_>>();
    world.submit(tx(1, 2, 1_000));
    world.submit(tx(1, 1, 1_000));
    assert_eq!(told(&mut world), [0u64; 0], "nonce 0 is missing");
    world.submit(tx(1, 0, 1_000));
    world.settle();
    assert_eq!(told(&mut world), [0, 1, 2], "the gap is closed");
    assert!(!world.pool.has_outgoing(), "each once");
    for _ in 0..29 {
        world.block(0, None);
    }
    assert_eq!(told(&mut world), [0u64; 0]);
    world.block(0, None);
    let mut again = told(&mut world);
    again.sort_unstable();
    assert_eq!(again, [0, 1, 2], "a peer may have been away");
}

#[test]
fn what_peers_are_told_stays_within_bytes_and_gas_and_skips_nothing() {
    let mut world = World::new();
    for sender in 1..5 {
        let raw = Bytes::from(vec![0; 100]);
        world.submit(PoolTx { raw, ..tx(sender, 0, 1_000) });
    }
    world.submit(PoolTx { tell_peers: false, ..tx(5, 0, 1_000) });
    assert_eq!(world.pool.take_outgoing(250, 0).len(), 2);
    assert_eq!(world.pool.take_outgoing(0, 21_000).len(), 1);
    assert_eq!(world.pool.take_outgoing(0, 0).len(), 1);
    assert!(world.pool.take_outgoing(0, 0).is_empty());
}
