//! What people see of a transaction.

use std::{collections::BTreeMap, time::Duration};

use alloy_primitives::{Address, B256};
use penstock_inference::{ContentHash, RequestId};

/// Where a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Its nonce is not the next one, or its fee is below the base fee.
    Queued,
    /// It is being simulated, or waits for the sender's transaction before it.
    Simulating,
    /// It waits for results.
    Inferring,
    /// The next proposal can take it.
    Ready,
    /// It is in this node's proposal.
    Proposed,
    /// It is in a block.
    Included,
    /// It left the pool without being included.
    Dropped,
}

impl Stage {
    /// The name in `pipe_getTransaction`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Simulating => "simulating",
            Self::Inferring => "inferring",
            Self::Ready => "ready",
            Self::Proposed => "proposed",
            Self::Included => "included",
            Self::Dropped => "dropped",
        }
    }
}

/// One request of a transaction. Times count from the submission of the transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestStatus {
    /// Its id.
    pub id: RequestId,
    /// The model.
    pub model: ContentHash,
    /// Its cost.
    pub ops: u64,
    /// The simulation that found it, from 1.
    pub wave: u32,
    /// When it was found.
    pub found: Duration,
    /// When its result was there.
    pub answered: Option<Duration>,
    /// How long the run took on this machine, when it ran here.
    pub took: Option<Duration>,
}

/// A transaction as `pipe_getTransaction` tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct TxStatus {
    /// Its hash.
    pub hash: B256,
    /// Its sender.
    pub sender: Address,
    /// Its nonce.
    pub nonce: u64,
    /// Where it is.
    pub stage: Stage,
    /// Simulations that found new requests.
    pub waves: u32,
    /// Proposals that left it out.
    pub deferrals: u32,
    /// Its requests, in the order in which they were found.
    pub requests: Vec<RequestStatus>,
    /// Why it waits, or was dropped.
    pub reason: Option<String>,
    /// The block that has it.
    pub block: Option<u64>,
    /// How long each stage began after the submission, in order.
    pub stages: Vec<(Stage, Duration)>,
}

/// Transactions by stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolCounts {
    /// See [`Stage::Queued`].
    pub queued: usize,
    /// See [`Stage::Simulating`].
    pub simulating: usize,
    /// See [`Stage::Inferring`].
    pub inferring: usize,
    /// See [`Stage::Ready`].
    pub ready: usize,
    /// See [`Stage::Proposed`].
    pub proposed: usize,
    /// Those of them that have requests which the budget of their account does not allow yet.
    pub held_back: usize,
    /// Bytes that all of them take, about.
    pub bytes: usize,
}

/// How long transactions have been waiting.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PoolAges {
    /// Time since the submission of the oldest transaction of each stage.
    pub oldest: BTreeMap<Stage, Duration>,
    /// Transactions that wait for results, by wave.
    pub waves: BTreeMap<u32, usize>,
}
