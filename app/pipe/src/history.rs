//! Transactions that left the pool, remembered for a while.

use std::collections::{HashMap, VecDeque};

use alloy_primitives::B256;

use crate::{Stage, TxStatus};

/// Enough for some minutes of a busy chain.
const MAX: usize = 20_000;

/// Requests and stages of all of them: some megabytes.
const MAX_DETAILS: usize = 400_000;

#[derive(Debug, Default)]
pub(crate) struct History {
    by_hash: HashMap<B256, TxStatus>,
    order: VecDeque<B256>,
    details: usize,
}

impl History {
    pub(crate) fn add(&mut self, status: TxStatus) {
        let hash = status.hash;
        self.details += details(&status);
        match self.by_hash.insert(hash, status) {
            None => self.order.push_back(hash),
            Some(old) => self.details -= details(&old),
        }
        while self.order.len() > MAX || self.details > MAX_DETAILS {
            let Some(oldest) = self.order.pop_front() else { return };
            self.details -= self.by_hash.remove(&oldest).as_ref().map_or(0, details);
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

fn details(status: &TxStatus) -> usize {
    status.requests.len() + status.stages.len()
}
