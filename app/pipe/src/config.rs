//! Bounds of the pool. Local to a node: nothing here is consensus.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Limits and budgets.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolConfig {
    /// Transactions in the pool; a full pool evicts the cheapest.
    pub max_txs: usize,
    /// Transactions of one account, also the largest nonce gap that is held.
    pub max_per_sender: usize,
    /// Simulations of one transaction that may end with new requests.
    pub max_waves: u32,
    /// Cost of all requests of one transaction.
    pub max_tx_ops: u64,
    /// Requests behind a placeholder run early only up to this cost: they may turn out to be
    /// other requests.
    pub speculative_ops: u64,
    /// Proposals that may leave a transaction out because it asked for something else, before
    /// it is included with the call reverting.
    pub max_deferrals: u32,
    /// Blocks after which a transaction that is not included is dropped.
    pub max_wait_blocks: u64,
    /// Requests up to this cost are answered inside a proposal, within `inline_ops` for all.
    pub inline_ops: u64,
    /// How long PrepareProposal may take; whatever is not executed by then waits for the next block.
    #[serde(with = "humantime_serde")]
    pub proposal_budget: Duration,
    /// A result that costs more than `inline_ops` goes into a proposal when it has been here this
    /// many times as long as it took to make: by then other validators have it, too. 0: at once.
    pub ripeness: f64,
    /// Threads that simulate.
    pub simulation_threads: usize,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            max_txs: 10_000,
            max_per_sender: 256,
            max_waves: 16,
            max_tx_ops: 200_000_000_000,
            speculative_ops: 10_000_000,
            max_deferrals: 8,
            max_wait_blocks: 600,
            inline_ops: 50_000_000,
            proposal_budget: Duration::from_millis(300),
            ripeness: 1.0,
            simulation_threads: 2,
        }
    }
}
