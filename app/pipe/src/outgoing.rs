//! Transactions that peers have to hear of from this node, in the order in which they became executable.
//!
//! A transaction is told when it leaves `queued` for the first time: nonce gaps stay here until they close. It is
//! told again when it is still pending [`AGAIN_AFTER`] blocks later, for peers that were not connected.

use std::collections::VecDeque;

use alloy_primitives::B256;

/// Blocks until a pending transaction is told again.
pub(crate) const AGAIN_AFTER: u64 = 30;

/// Hashes of transactions that left the pool are thrown out when the queue has this many more than the pool.
const SLACK: usize = 1_000;

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    queue: VecDeque<B256>,
}

impl Outgoing {
    pub(crate) fn push(&mut self, hash: B256) {
        self.queue.push_back(hash);
    }

    pub(crate) fn pop(&mut self) -> Option<B256> {
        self.queue.pop_front()
    }

    /// Puts back what was popped and does not fit.
    pub(crate) fn push_front(&mut self, hash: B256) {
        self.queue.push_front(hash);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Keeps the queue bounded when nobody empties it.
    pub(crate) fn trim(&mut self, pooled: usize, is_pooled: impl Fn(&B256) -> bool) {
        if self.queue.len() > pooled + SLACK {
            self.queue.retain(is_pooled);
        }
    }
}
