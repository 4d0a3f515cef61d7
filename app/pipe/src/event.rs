//! What goes into the pool and what comes out of it.

use std::{sync::Arc, time::Duration};

use alloy_primitives::{Address, B256, U256};
use penstock_evm::{Call, ReadSet};
use penstock_inference::{InferenceRequest, RequestId, Urgency, network::Answer};
use revm::{database::BundleState, state::EvmState};

use crate::{Held, PoolTx, Stage};

/// Nonce and balance of an account at the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Account {
    /// Next nonce.
    pub nonce: u64,
    /// Balance in wei.
    pub balance: U256,
}

/// How much a simulation is waited for; lesser goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Haste {
    /// The transaction gets on by it: it is new, or has its results.
    Progress,
    /// What it read has changed, and it was ready.
    Refresh,
    /// The same while it waits for results: it will be simulated again in any case when they are there. Thousands that
    /// share a contract would take all cores, at each block that touches it.
    Background,
}

/// A simulation to be made.
#[derive(Debug, Clone)]
pub struct SimulateJob {
    /// The transaction.
    pub tx: Arc<PoolTx>,
    /// Comes back with the outcome.
    pub ticket: u64,
    /// What the sender's earlier pending transactions leave behind, in nonce order.
    pub before: Vec<Arc<EvmState>>,
    /// Results that the transaction has.
    pub held: Arc<Held>,
    /// Wei that it pays for each gas beyond the base fee: the dearest is simulated first.
    pub bid: u128,
    /// Counts before that.
    pub haste: Haste,
}

/// The outcome of a simulation.
#[derive(Debug, Clone)]
pub enum Simulation {
    /// It ran.
    Ran {
        /// Height of the state that it ran on.
        height: u64,
        /// Requests in order, with those that had no result marked.
        calls: Vec<Call>,
        /// Results that it used.
        used: Vec<(RequestId, Answer)>,
        /// What it read.
        reads: ReadSet,
        /// What it leaves behind.
        post: Arc<EvmState>,
        /// Processor time that it took on this machine.
        took: Duration,
    },
    /// It can never be executed.
    Invalid(String),
    /// It cannot be executed now (fee, nonce).
    NotNow(String),
}

/// A new head.
#[derive(Debug, Clone)]
pub struct NewHead {
    /// Its height.
    pub height: u64,
    /// Base fee of the block after it.
    pub base_fee: u64,
    /// Its transactions.
    pub included: Vec<Included>,
    /// What it changed.
    pub changes: Arc<BundleState>,
}

/// A transaction of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Included {
    /// Its hash.
    pub hash: B256,
    /// Who signed it.
    pub sender: Address,
    /// Gas that it paid for.
    pub gas_used: u64,
}

/// What happens to the pool.
#[derive(Debug, Clone)]
pub enum Event {
    /// A simulation ended.
    Simulated {
        /// The transaction.
        hash: B256,
        /// Of the job.
        ticket: u64,
        /// The outcome.
        outcome: Simulation,
    },
    /// A result arrived.
    Answered {
        /// Its request.
        id: RequestId,
        /// The result.
        answer: Answer,
    },
    /// A block was committed.
    NewHead(NewHead),
    /// These are in this node's proposal.
    Proposed(Vec<B256>),
    /// A transaction does not fit even an empty block.
    Unfit {
        /// The transaction.
        hash: B256,
        /// What it exceeds.
        reason: String,
    },
    /// Time has passed.
    Tick,
    /// A request was cancelled before it ran.
    NotRun {
        /// The request.
        id: RequestId,
        /// Its cost.
        ops: u64,
        /// The transaction that wanted it last.
        hash: B256,
        /// Whose it is.
        sender: Address,
    },
    /// A proposal left a transaction out because it asked for results that are not here.
    Deferred {
        /// The transaction.
        hash: B256,
        /// Its requests, the missing ones marked.
        calls: Vec<Call>,
    },
}

/// What the runner has to do.
#[derive(Debug, Clone)]
pub enum Action {
    /// Simulate, and answer with [`Event::Simulated`].
    Simulate(SimulateJob),
    /// Run inference, and answer with [`Event::Answered`].
    Infer {
        /// Id of the request.
        id: RequestId,
        /// The request.
        request: Arc<InferenceRequest>,
        /// Its cost.
        ops: u64,
        /// When it runs among others.
        urgency: Urgency,
        /// The transaction.
        hash: B256,
        /// The simulation that found it, from 1.
        wave: u32,
    },
    /// One transaction less wants this request. When it is taken out of the queue, answer with [`Event::NotRun`].
    Cancel {
        /// The request.
        id: RequestId,
        /// The transaction.
        hash: B256,
        /// Whose it is.
        sender: Address,
    },
    /// Tell subscribers.
    StageChanged(StageChange),
}

/// A transaction went from one stage to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageChange {
    /// The transaction.
    pub hash: B256,
    /// Who signed it.
    pub sender: Address,
    /// Its new stage.
    pub stage: Stage,
    /// Why it waits, or was dropped.
    pub reason: Option<String>,
    /// A word for [`Self::reason`] of a dropped one.
    pub label: Option<&'static str>,
    /// The block that has it.
    pub block: Option<u64>,
    /// The stage that it was in, and for how long.
    pub left: Option<(Stage, Duration)>,
    /// Simulations that found new requests.
    pub waves: u32,
}

/// A transaction that the next proposal can take.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The transaction.
    pub tx: Arc<PoolTx>,
    /// Its results.
    pub held: Arc<Held>,
    /// It was deferred too often: missing results become "unavailable".
    pub gives_up: bool,
    /// Processor time that its last simulation took.
    pub took: Duration,
    /// A block changed what its last simulation read: it may ask for something else now.
    pub moved: bool,
    /// Requests above `inline_ops` whose results it has: other validators must have them, too.
    pub dear: Vec<RequestId>,
}
