//! One transaction in the pool.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use alloy_consensus::{Transaction, TxEnvelope};
use alloy_primitives::{Address, B256, Bytes, U256};
use penstock_evm::{Call, ReadSet, Results};
use penstock_inference::{InferenceResult, RequestId, network::Answer};
use revm::state::EvmState;

use crate::{RequestStatus, Stage, TxStatus, outgoing::AGAIN_AFTER};

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

/// The last simulation of a transaction.
#[derive(Debug, Clone)]
pub(crate) struct Simulated {
    pub(crate) reads: ReadSet,
    /// Accounts and slots after the transaction, for the sender's next one.
    pub(crate) post: Arc<EvmState>,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) tx: Arc<PoolTx>,
    pub(crate) sequence: u64,
    pub(crate) submitted: Duration,
    pub(crate) submitted_height: u64,
    pub(crate) stage: Stage,
    pub(crate) stages: Vec<(Stage, Duration)>,
    pub(crate) simulated: Option<Simulated>,
    /// Names the simulation that is under way; the outcome of an older one is ignored.
    pub(crate) ticket: u64,
    pub(crate) in_flight: bool,
    /// A new head changed what the last simulation read.
    pub(crate) moved: bool,
    /// The same, of one that asks for nothing and was not simulated again: what it leaves behind is not known.
    pub(crate) stale: bool,
    pub(crate) waves: u32,
    pub(crate) deferrals: u32,
    pub(crate) held: Arc<Held>,
    /// Requests whose results the next simulation waits for.
    pub(crate) needed: BTreeSet<RequestId>,
    pub(crate) requests: Vec<RequestStatus>,
    pub(crate) waits_for: Option<String>,
    /// Height at which it was queued for peers last.
    pub(crate) told: Option<u64>,
    /// It waits in the queue for peers.
    pub(crate) outgoing: bool,
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
            simulated: None,
            ticket: 0,
            in_flight: false,
            moved: false,
            stale: false,
            waves: 0,
            deferrals: 0,
            held: Arc::default(),
            needed: BTreeSet::new(),
            requests: Vec::new(),
            waits_for: None,
            told: None,
            outgoing: false,
        }
    }

    /// Whether peers should hear of it (again): it is executable, as far as is known.
    pub(crate) fn is_to_be_told(&self, height: u64) -> bool {
        let due = self.told.is_none_or(|told| height >= told + AGAIN_AFTER);
        self.tx.tell_peers && !self.outgoing && self.stage != Stage::Queued && due
    }

    pub(crate) fn enter(&mut self, stage: Stage, now: Duration) -> bool {
        if self.stage == stage {
            return false;
        }
        self.stage = stage;
        // A transaction on a hot contract may be simulated for ever: keep the beginning and the end.
        const MAX_STAGES: usize = 64;
        if self.stages.len() == MAX_STAGES {
            self.stages.remove(MAX_STAGES / 2);
        }
        self.stages.push((stage, now.saturating_sub(self.submitted)));
        true
    }

    pub(crate) fn hold(&mut self, id: RequestId, answer: Answer, now: Duration) {
        let since = now.saturating_sub(self.submitted);
        if let Some(request) = self.requests.iter_mut().find(|request| request.id == id)
            && request.answered.is_none()
        {
            request.answered = Some(since);
            request.took = Some(answer.took);
        }
        Arc::make_mut(&mut self.held).0.insert(id, answer);
    }

    /// Forgets results and requests that a run did not ask for.
    pub(crate) fn keep_only(&mut self, calls: &[Call]) {
        let asked = |id: &RequestId| calls.iter().any(|call| call.id == *id);
        Arc::make_mut(&mut self.held).0.retain(|id, _| asked(id));
        self.requests.retain(|request| asked(&request.id));
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
