//! How transactions leave the pool: dropped, evicted, included.

use std::{cmp::Reverse, time::Duration};

use alloy_consensus::Transaction;
use alloy_primitives::{
    B256,
    map::{HashMap, HashSet},
};
use penstock_inference::RequestId;

use crate::{Action, DropReason, Pool, Stage, entry::Entry};

/// What a dropped transaction had left behind is remembered up to this size, and so many of an account.
const MAX_GHOST_BYTES: usize = 16 << 10;
const MAX_GHOSTS: usize = 16;

impl Entry {
    /// Its place in the order of eviction.
    pub(crate) fn fee_key(&self) -> (u128, Reverse<u64>, B256) {
        (self.tx.tx.max_fee_per_gas(), Reverse(self.sequence), self.tx.hash())
    }
}

impl Pool {
    /// Drops a transaction; those behind it have a gap now.
    pub(crate) fn drop_entry(&mut self, now: Duration, hash: &B256, reason: DropReason, actions: &mut Vec<Action>) {
        let Some(address) = self.entries.get(hash).map(|entry| entry.tx.sender) else { return };
        self.retire(now, hash, reason, actions);
        self.settle(now, address, actions);
    }

    /// The same, without a look at those behind it.
    pub(crate) fn retire(&mut self, now: Duration, hash: &B256, reason: DropReason, actions: &mut Vec<Action>) {
        let Some(entry) = self.remove(now, hash, 0, actions) else { return };
        let (address, nonce) = (entry.tx.sender, entry.tx.nonce());
        let mut status = entry.status();
        (status.stage, status.reason) = (Stage::Dropped, Some(reason.to_string()));
        status.stages.push((Stage::Dropped, now.saturating_sub(entry.submitted)));
        let mut change = entry.change(Stage::Dropped, now);
        (change.reason, change.label) = (status.reason.clone(), Some(reason.label()));
        actions.push(Action::StageChanged(change));
        self.history.add(status);
        let (Some(sender), Some(last)) = (self.senders.get_mut(&address), entry.last) else { return };
        if last.bytes <= MAX_GHOST_BYTES && sender.ghosts.len() < MAX_GHOSTS {
            if sender.by_nonce.range(nonce..).next().is_some() {
                sender.ghosts.insert(nonce, last.post);
            }
            return;
        }
        // Too much to remember: whoever was simulated on it is simulated again.
        for (_, hash) in sender.by_nonce.range(nonce..) {
            if let Some(entry) = self.entries.get_mut(hash) {
                entry.base_moved();
            }
        }
    }

    /// Takes a transaction out; `gas_used` is what it paid for.
    pub(crate) fn remove(
        &mut self,
        now: Duration,
        hash: &B256,
        gas_used: u64,
        actions: &mut Vec<Action>,
    ) -> Option<Entry> {
        let mut entry = self.entries.remove(hash)?;
        release(&mut self.waiting, &mut entry, actions);
        if let Some(last) = &entry.last {
            self.readers.remove(hash, &last.reads);
        }
        self.by_fee.remove(&entry.fee_key());
        self.by_age.remove(&entry.sequence);
        self.proposed.remove(hash);
        self.bytes = self.bytes.saturating_sub(entry.bytes);
        let address = entry.tx.sender;
        self.budgets.settle(&self.config, now, address, entry.work, gas_used.saturating_mul(self.rules.ops_per_gas));
        if let Some(sender) = self.senders.get_mut(&address) {
            sender.by_nonce.remove(&entry.tx.nonce());
            sender.cost = sender.cost.saturating_sub(entry.tx.cost());
            if sender.by_nonce.is_empty() {
                self.gapped -= sender.gapped;
                self.senders.remove(&address);
                self.ready.remove(&address);
                self.not_now.remove(&address);
                self.held_back.remove(&address);
            }
        }
        Some(entry)
    }

    /// The lowest fee cap in the pool that may be evicted, and whose it is; the newest among equals.
    pub(crate) fn cheapest(&self) -> Option<(u128, B256)> {
        let evictable = self.by_fee.iter().find(|(_, _, hash)| !self.proposed.contains(hash));
        evictable.map(|(fee, _, hash)| (*fee, *hash))
    }

    /// Makes room at the cost of the cheapest transaction's sender: by the last of his transactions, which can only come
    /// after it, so that no gap is left.
    pub(crate) fn evict(&mut self, now: Duration, cheapest: &B256, actions: &mut Vec<Action>) {
        let sender = self.entries.get(cheapest).and_then(|entry| self.senders.get(&entry.tx.sender));
        let last = sender.and_then(|sender| sender.by_nonce.last_key_value()).map(|(_, hash)| *hash);
        let victim = last.filter(|hash| !self.proposed.contains(hash)).unwrap_or(*cheapest);
        self.drop_entry(now, &victim, DropReason::Evicted, actions);
    }

    pub(crate) fn evict_over_bytes(&mut self, now: Duration, actions: &mut Vec<Action>) {
        while self.bytes > self.config.max_bytes {
            let Some((_, cheapest)) = self.cheapest() else { return };
            self.evict(now, &cheapest, actions);
        }
    }
}

/// Who waits for a result.
pub(crate) type Waiting = HashMap<RequestId, HashSet<B256>>;

/// A transaction wants none of its requests any more.
pub(crate) fn release(waiting: &mut Waiting, entry: &mut Entry, actions: &mut Vec<Action>) {
    entry.held_back.clear();
    entry.withheld = false;
    let hash = entry.tx.hash();
    for id in core::mem::take(&mut entry.needed) {
        actions.push(Action::Cancel { id, hash, sender: entry.tx.sender });
        forget(waiting, &id, &hash);
    }
}

/// A transaction does not wait for a request any more.
pub(crate) fn forget(waiting: &mut Waiting, id: &RequestId, hash: &B256) {
    if let Some(hashes) = waiting.get_mut(id) {
        hashes.remove(hash);
        if hashes.is_empty() {
            waiting.remove(id);
        }
    }
}
