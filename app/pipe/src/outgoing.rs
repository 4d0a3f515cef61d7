//! Transactions that peers have to hear of from this node, in the order in which they became executable.
//!
//! A transaction is told when it leaves `queued` for the first time: nonce gaps stay here until they close. It is
//! told again when it is still pending [`AGAIN_AFTER`] blocks later, for peers that were not connected.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use alloy_consensus::Transaction;
use alloy_primitives::B256;

use crate::{Action, Pool, PoolTx, StageChange};

/// Blocks until a pending transaction is told again.
pub(crate) const AGAIN_AFTER: u64 = 30;

/// Hashes of transactions that left the pool are thrown out when the queue has this many more than the pool.
const SLACK: usize = 1_000;

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    queue: VecDeque<B256>,
    /// What was told, by height.
    told: BTreeMap<u64, Vec<B256>>,
}

impl Outgoing {
    fn push(&mut self, hash: B256, height: u64) {
        self.queue.push_back(hash);
        self.told.entry(height).or_default().push(hash);
    }

    /// What was told at this height or before.
    fn told_until(&mut self, height: u64) -> Vec<B256> {
        let later = self.told.split_off(&(height + 1));
        core::mem::replace(&mut self.told, later).into_values().flatten().collect()
    }

    fn pop(&mut self) -> Option<B256> {
        self.queue.pop_front()
    }

    /// Puts back what was popped and does not fit.
    fn push_front(&mut self, hash: B256) {
        self.queue.push_front(hash);
    }

    fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Keeps the queue bounded when nobody empties it.
    fn trim(&mut self, pooled: usize, is_pooled: impl Fn(&B256) -> bool) {
        if self.queue.len() > pooled + SLACK {
            self.queue.retain(is_pooled);
        }
    }
}

impl Pool {
    /// Queues for peers what became executable.
    pub(crate) fn tell_peers(&mut self, actions: &[Action]) {
        for action in actions {
            if let Action::StageChanged(StageChange { hash, .. }) = action
                && let Some(entry) = self.entries.get_mut(hash)
                && entry.is_to_be_told(self.height)
            {
                (entry.told, entry.outgoing) = (Some(self.height), true);
                self.outgoing.push(*hash, self.height);
            }
        }
        self.outgoing.trim(self.entries.len(), |hash| self.entries.contains_key(hash));
    }

    /// Queues for peers what has been pending for long.
    pub(crate) fn tell_peers_again(&mut self) {
        let Some(before) = self.height.checked_sub(AGAIN_AFTER) else { return };
        for hash in self.outgoing.told_until(before) {
            if let Some(entry) = self.entries.get_mut(&hash).filter(|entry| entry.is_to_be_told(self.height)) {
                (entry.told, entry.outgoing) = (Some(self.height), true);
                self.outgoing.push(hash, self.height);
            }
        }
    }

    /// Whether [`Self::take_outgoing`] may have something.
    pub fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Transactions that peers have to hear of, up to a sum of bytes and of gas (0: no limit). Each is
    /// given once, and again when it is still pending after a while.
    pub fn take_outgoing(&mut self, max_bytes: u64, max_gas: u64) -> Vec<Arc<PoolTx>> {
        let limit = |max: u64| if max == 0 { u64::MAX } else { max };
        let (mut bytes_left, mut gas_left) = (limit(max_bytes), limit(max_gas));
        let mut taken = Vec::new();
        while let Some(hash) = self.outgoing.pop() {
            // It may have left the pool and come back since: once is enough.
            let Some(entry) = self.entries.get_mut(&hash).filter(|entry| entry.outgoing) else { continue };
            let (bytes, gas) = (entry.tx.raw.len() as u64, entry.tx.tx.gas_limit());
            let fits = bytes <= bytes_left && gas <= gas_left;
            if !fits && !taken.is_empty() {
                self.outgoing.push_front(hash);
                break;
            }
            entry.outgoing = false;
            if !fits {
                continue; // over the limits by itself it would stay for ever, and all others behind it
            }
            bytes_left -= bytes;
            gas_left -= gas;
            taken.push(entry.tx.clone());
        }
        taken
    }
}
