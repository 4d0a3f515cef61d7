//! One transaction in the pool.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use alloy_consensus::{Transaction, TxEnvelope};
use alloy_primitives::{Address, B256, Bytes, U256};
use penstock_evm::{Call, ReadSet, Results};
use penstock_inference::{InferenceResult, RequestId, network::Answer, result::memory_bytes};
use revm::state::EvmState;

use crate::{Action, RequestStatus, Stage, StageChange, TxStatus, outgoing::AGAIN_AFTER};

/// A transaction with what admission found out about it.
#[derive(Debug, Clone)]
pub struct PoolTx {
    /// The transaction.
    pub tx: TxEnvelope,
    /// Who signed it.
    pub sender: Address,
    /// Its EIP-2718 bytes.
    pub raw: Bytes,
    /// Whether peers have to hear of it from this node's pool.
    pub tell_peers: bool,
}

impl PoolTx {
    /// Its hash.
    pub fn hash(&self) -> B256 {
        *self.tx.tx_hash()
    }

    /// Its nonce.
    pub fn nonce(&self) -> u64 {
        self.tx.nonce()
    }

    /// What the sender may have to pay: gas limit × fee cap + value.
    pub fn cost(&self) -> U256 {
        U256::from(self.tx.max_fee_per_gas())
            .saturating_mul(U256::from(self.tx.gas_limit()))
            .saturating_add(self.tx.value())
    }

    /// What the proposer earns for each gas; `None` when the fee cap is below the base fee.
    pub fn effective_tip(&self, base_fee: u64) -> Option<u128> {
        self.tx.effective_tip_per_gas(base_fee)
    }

    /// Whether it pays at least 10 % more than `other`, both in fee cap and in tip (geth's and reth's rule).
    pub(crate) fn outbids(&self, other: &Self) -> bool {
        let more = |new: u128, old: u128| new >= old.saturating_add(old.div_ceil(10)) && new > old;
        let tip = |tx: &TxEnvelope| tx.max_priority_fee_per_gas().unwrap_or_else(|| tx.max_fee_per_gas());
        more(self.tx.max_fee_per_gas(), other.tx.max_fee_per_gas()) && more(tip(&self.tx), tip(&other.tx))
    }
}

/// Results that a transaction holds on to, so that no cache can lose them.
#[derive(Debug, Clone, Default)]
pub struct Held(pub HashMap<RequestId, Answer>);

impl Results for Held {
    fn get(&self, id: &RequestId) -> Option<Arc<InferenceResult>> {
        self.0.get(id).map(|answer| answer.result.clone())
    }
}

/// What the last simulation of a transaction found.
#[derive(Debug, Clone)]
pub(crate) struct Simulated {
    pub(crate) reads: ReadSet,
    /// Accounts and slots after the transaction, for the sender's next one.
    pub(crate) post: Arc<EvmState>,
    /// Cost of its requests.
    pub(crate) ops: u64,
    pub(crate) took: Duration,
    /// What this takes in memory, about.
    pub(crate) bytes: usize,
}

impl Simulated {
    pub(crate) fn new(reads: ReadSet, post: Arc<EvmState>, ops: u64, took: Duration) -> Self {
        let bytes =
            reads.memory_bytes() + post.values().map(|account| 400 + 150 * account.storage.len()).sum::<usize>();
        Self { reads, post, ops, took, bytes }
    }
}

/// How a transaction's simulation stands to the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sim {
    /// It has to run, as soon as those of the sender before it stand.
    Due,
    /// The one with this ticket runs; outcomes of others are ignored.
    Running(u64),
    /// It stands.
    Good,
    /// A block changed what it read, and its requests are so cheap that the proposal can answer new ones itself:
    /// it runs again only when a transaction behind it has to know what it leaves behind.
    Moved,
    /// The transaction cannot be executed on this head.
    NotNow,
}

impl Sim {
    /// Whether what it leaves behind is known well enough for the next one.
    pub(crate) fn stands(self) -> bool {
        matches!(self, Self::Good | Self::Moved)
    }
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) tx: Arc<PoolTx>,
    pub(crate) sequence: u64,
    pub(crate) submitted: Duration,
    pub(crate) submitted_height: u64,
    pub(crate) stage: Stage,
    pub(crate) stages: Vec<(Stage, Duration)>,
    pub(crate) sim: Sim,
    pub(crate) last: Option<Simulated>,
    /// What its last simulation read has changed: its questions may begin anew.
    pub(crate) moved: bool,
    /// It was a block that changed it.
    pub(crate) moved_by_head: bool,
    pub(crate) waves: u32,
    pub(crate) deferrals: u32,
    pub(crate) held: Arc<Held>,
    pub(crate) held_bytes: usize,
    /// Requests under way, whose results the next simulation waits for.
    pub(crate) needed: BTreeSet<RequestId>,
    /// Requests that the account's budget does not allow yet.
    pub(crate) held_back: Vec<Call>,
    pub(crate) requests: Vec<RequestStatus>,
    /// Requests that count to the account's budget.
    pub(crate) charged: BTreeSet<RequestId>,
    /// Their cost.
    pub(crate) work: u64,
    pub(crate) waits_for: Option<String>,
    /// Height at which it was queued for peers last.
    pub(crate) told: Option<u64>,
    /// It waits in the queue for peers.
    pub(crate) outgoing: bool,
    /// Its requests may be others once an earlier transaction of the account has its answers: dear ones wait for that.
    pub(crate) withheld: bool,
    /// It replaced one that paid less: what that has queued moves forward.
    pub(crate) pays_more: bool,
    /// What it counts against the pool's bytes.
    pub(crate) bytes: usize,
}

impl Entry {
    pub(crate) fn new(tx: Arc<PoolTx>, sequence: u64, now: Duration, height: u64) -> Self {
        Self {
            tx,
            sequence,
            submitted: now,
            submitted_height: height,
            stage: Stage::Queued,
            stages: vec![(Stage::Queued, Duration::ZERO)],
            sim: Sim::Due,
            last: None,
            moved: false,
            moved_by_head: false,
            waves: 0,
            deferrals: 0,
            held: Arc::default(),
            held_bytes: 0,
            needed: BTreeSet::new(),
            held_back: Vec::new(),
            requests: Vec::new(),
            charged: BTreeSet::new(),
            work: 0,
            waits_for: None,
            told: None,
            outgoing: false,
            withheld: false,
            pays_more: false,
            bytes: 0,
        }
    }

    /// Takes over what a replaced transaction with the same nonce asked for: most of it is wanted again, and the
    /// first simulation lets go of the rest.
    pub(crate) fn inherit(&mut self, old: &mut Self) {
        self.held = core::mem::take(&mut old.held);
        self.held_bytes = core::mem::take(&mut old.held_bytes);
        self.needed = core::mem::take(&mut old.needed);
        self.charged = core::mem::take(&mut old.charged);
        self.work = core::mem::take(&mut old.work);
        self.pays_more = true;
    }

    /// Whether what it leaves behind is not what it will leave behind: it was simulated with placeholders.
    pub(crate) fn waits(&self) -> bool {
        !self.needed.is_empty() || !self.held_back.is_empty() || self.withheld
    }

    /// Whether the proposal can be trusted to answer whatever moves in it.
    pub(crate) fn is_light(&self, light_ops: u64) -> bool {
        self.last.as_ref().is_some_and(|last| last.ops <= light_ops)
    }

    /// A block changed what its last simulation read.
    pub(crate) fn state_moved(&mut self, light_ops: u64) {
        if self.last.is_some() {
            (self.moved, self.moved_by_head) = (true, true);
        }
        if self.sim.stands() {
            self.sim = if self.is_light(light_ops) && !self.waits() { Sim::Moved } else { Sim::Due };
        }
    }

    /// An earlier transaction of the sender leaves something else behind than what it was simulated on.
    pub(crate) fn base_moved(&mut self) {
        if self.sim != Sim::NotNow {
            self.moved |= self.last.is_some();
            self.sim = Sim::Due;
        }
    }

    /// Whether peers should hear of it (again): it is executable, as far as is known.
    pub(crate) fn is_to_be_told(&self, height: u64) -> bool {
        let due = self.told.is_none_or(|told| height >= told + AGAIN_AFTER);
        self.tx.tell_peers && !self.outgoing && self.stage != Stage::Queued && due
    }

    /// Goes to a stage, if it is not there, and says why it waits there.
    pub(crate) fn enter(&mut self, stage: Stage, now: Duration, reason: Option<String>) -> Option<Action> {
        self.waits_for = reason;
        if self.stage == stage {
            return None;
        }
        let change = self.change(stage, now);
        self.stage = stage;
        // A transaction on a hot contract may be simulated for ever: keep the beginning and the end.
        const MAX_STAGES: usize = 64;
        if self.stages.len() == MAX_STAGES {
            self.stages.remove(MAX_STAGES / 2);
        }
        self.stages.push((stage, now.saturating_sub(self.submitted)));
        Some(Action::StageChanged(change))
    }

    /// What subscribers are told when it goes to a stage.
    pub(crate) fn change(&self, stage: Stage, now: Duration) -> StageChange {
        let since = self.stages.last().map_or(Duration::ZERO, |(_, at)| *at);
        StageChange {
            hash: self.tx.hash(),
            sender: self.tx.sender,
            stage,
            reason: self.waits_for.clone(),
            label: None,
            block: None,
            left: Some((self.stage, now.saturating_sub(self.submitted).saturating_sub(since))),
            waves: self.waves,
        }
    }

    pub(crate) fn hold(&mut self, id: RequestId, answer: Answer, now: Duration) {
        let since = now.saturating_sub(self.submitted);
        if let Some(request) = self.requests.iter_mut().find(|request| request.id == id)
            && request.answered.is_none()
        {
            request.answered = Some(since);
            request.took = Some(answer.took);
        }
        let bytes = memory_bytes(&answer.result);
        if Arc::make_mut(&mut self.held).0.insert(id, answer).is_none() {
            self.held_bytes += bytes;
        }
    }

    /// Forgets results and requests that a run did not ask for.
    pub(crate) fn keep_only(&mut self, calls: &[Call]) {
        let asked = |id: &RequestId| calls.iter().any(|call| call.id == *id);
        let held = Arc::make_mut(&mut self.held);
        held.0.retain(|id, _| asked(id));
        self.held_bytes = held.0.values().map(|answer| memory_bytes(&answer.result)).sum();
        self.requests.retain(|request| asked(&request.id));
    }

    /// Bytes of memory, about: the transaction twice (its bytes, and decoded), what it has, and what is known of it.
    pub(crate) fn memory_bytes(&self) -> usize {
        const FIXED: usize = 1_500;
        let simulated = self.last.as_ref().map_or(0, |last| last.bytes);
        let requests = 250 * self.requests.len() + 50 * self.charged.len();
        let held_back: usize = self.held_back.iter().map(|call| 200 + call.request.memory_bytes()).sum();
        FIXED + 2 * self.tx.raw.len() + self.held_bytes + simulated + requests + held_back
    }

    pub(crate) fn status(&self) -> TxStatus {
        TxStatus {
            hash: self.tx.hash(),
            sender: self.tx.sender,
            nonce: self.tx.nonce(),
            stage: self.stage,
            waves: self.waves,
            deferrals: self.deferrals,
            requests: self.requests.clone(),
            reason: self.waits_for.clone(),
            block: None,
            stages: self.stages.clone(),
        }
    }
}
