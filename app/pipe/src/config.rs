//! Bounds of the pool.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Limits and budgets. Local to a node: nothing here is consensus.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolConfig {
    /// Transactions in the pool; a full pool evicts the cheapest.
    pub max_txs: usize,
    /// Bytes that they may take with what is known of them; more evicts the cheapest.
    pub max_bytes: usize,
    /// Transactions that wait for another nonce of their account; more are refused.
    pub max_gapped: usize,
    /// Transactions of one account, also the largest nonce gap that is held.
    pub max_per_sender: usize,
    /// Cost of inference that an account may have in the pool, or owe for transactions that did not pay for it, before
    /// any of its gas was included. Owed cost is forgiven within an hour.
    pub free_sender_ops: u64,
    /// The most that included gas can add to that.
    pub earned_sender_ops: u64,
    /// Requests behind a placeholder run early only up to this cost: they may turn out to be
    /// other requests.
    pub speculative_ops: u64,
    /// Proposals that may leave a transaction out because it asked for something else, before
    /// it is included with the call reverting.
    pub max_deferrals: u32,
    /// A transaction that is not included after this many blocks and after `max_wait` is dropped.
    pub max_wait_blocks: u64,
    /// See `max_wait_blocks`.
    #[serde(with = "humantime_serde")]
    pub max_wait: Duration,
    /// Requests up to this cost are answered inside a proposal, within `inline_ops` for all.
    pub inline_ops: u64,
    /// How long PrepareProposal may take; whatever is not executed by then waits for the next block.
    #[serde(with = "humantime_serde")]
    pub proposal_budget: Duration,
    /// A result that costs more than `inline_ops` goes into a proposal when it has been here this
    /// many times as long as it took to make: by then other validators have it, too. 0: at once.
    pub ripeness: f64,
    /// Requests whose cost together is at most this are answered inside a simulation: handing them over would take
    /// longer than running them, and a dependent one needs no simulation of its own. 0: none.
    pub simulation_ops: u64,
    /// Threads that simulate.
    pub simulation_threads: usize,
    /// No pre-execution: models run inside the proposal, one after the other, as in older systems. For `penstock bench`
    /// to compare with; no setting.
    #[serde(skip)]
    pub blocking: bool,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            max_txs: 10_000,
            max_bytes: 512 << 20,
            max_gapped: 2_500,
            max_per_sender: 256,
            free_sender_ops: 60_000_000_000, // what 60,000,000 gas buy, two seconds of a core
            earned_sender_ops: 600_000_000_000,
            speculative_ops: 10_000_000,
            max_deferrals: 8,
            max_wait_blocks: 600,
            max_wait: Duration::from_secs(600),
            inline_ops: 50_000_000,
            proposal_budget: Duration::from_millis(300),
            ripeness: 1.0,
            simulation_ops: 4_000_000, // a tenth of a millisecond
            simulation_threads: 2,
            blocking: false,
        }
    }
}

impl PoolConfig {
    /// Cost of all requests of a transaction up to which the proposal can be trusted to answer whatever moves: such a
    /// transaction is not simulated again on every new head.
    pub(crate) fn light_ops(&self) -> u64 {
        self.inline_ops / 8
    }
}

/// What the chain's genesis says to its pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolRules {
    /// Steps of requests of one transaction that depend on each other.
    pub max_waves: u32,
    /// Cost of all requests of one transaction.
    pub max_tx_ops: u64,
    /// Cost of inference that one gas buys.
    pub ops_per_gas: u64,
}
