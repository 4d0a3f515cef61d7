//! What goes into the pool and what comes out of it.

use std::sync::Arc;

use alloy_primitives::{B256, U256};
use penstock_evm::{Call, ReadSet};
use penstock_inference::{InferenceRequest, Priority, RequestId, network::Answer};
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
    /// Hashes of its transactions.
    pub included: Vec<B256>,
    /// What it changed.
    pub changes: Arc<BundleState>,
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
        /// Its priority.
        priority: Priority,
    },
    /// One transaction less wants this request.
    Cancel(RequestId),
    /// Tell subscribers.
    StageChanged {
        /// The transaction.
        hash: B256,
        /// Its new stage.
        stage: Stage,
    },
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
}
