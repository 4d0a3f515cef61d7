//! Transactions that left the pool, remembered for a while.

use std::collections::{HashMap, VecDeque};

use alloy_primitives::B256;

use crate::{Stage, TxStatus};

/// Enough for some minutes of a busy chain.
const MAX: usize = 20_000;

#[derive(Debug, Default)]
pub(crate) struct History {
    by_hash: HashMap<B256, TxStatus>,
    order: VecDeque<B256>,
}

impl History {
    pub(crate) fn add(&mut self, status: TxStatus) {
        let hash = status.hash;
        if self.by_hash.insert(hash, status).is_none() {
            self.order.push_back(hash);
        }
        if self.order.len() > MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_hash.remove(&oldest);
        }
    }

    /// Corrects the end of a transaction that left the pool before a block had it.
    pub(crate) fn mark_included(&mut self, hash: &B256, block: u64) {
        if let Some(status) = self.by_hash.get_mut(hash) {
            (status.stage, status.block, status.reason) = (Stage::Included, Some(block), None);
        }
    }

    pub(crate) fn get(&self, hash: &B256) -> Option<&TxStatus> {
        self.by_hash.get(hash)
    }
}
