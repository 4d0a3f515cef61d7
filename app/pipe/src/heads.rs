//! New heads: only transactions whose values a block changed are looked at.

use std::time::Duration;

use alloy_primitives::{Address, B256, map::HashSet};
use penstock_evm::{changed_keys, happened};
use revm::{database::BundleState, state::EvmState};

use crate::{Action, DropReason, Included, NewHead, Pool, Stage, entry::Sim};

/// Heads whose changes are remembered, for simulations that ran on an older one.
const RECENT_HEADS: usize = 8;

impl Pool {
    /// These are in this node's proposal; those of an earlier one that was not decided are ready again.
    pub(crate) fn set_proposed(&mut self, now: Duration, hashes: &[B256], actions: &mut Vec<Action>) {
        let kept: HashSet<B256> = hashes.iter().copied().collect();
        for hash in core::mem::take(&mut self.proposed) {
            if let Some(entry) = self.entries.get_mut(&hash).filter(|entry| entry.stage == Stage::Proposed)
                && !kept.contains(&hash)
            {
                // One that was to give up may have asked anew meanwhile.
                let reason = entry.waits().then(|| format!("waits for {} results", entry.needed.len()));
                let stage = if entry.waits() { Stage::Inferring } else { Stage::Ready };
                actions.extend(entry.enter(stage, now, reason));
            }
        }
        for hash in hashes {
            if let Some(entry) = self.entries.get_mut(hash).filter(|entry| entry.sim.stands()) {
                actions.extend(entry.enter(Stage::Proposed, now, None));
                self.proposed.insert(*hash);
            }
        }
    }

    pub(crate) fn new_head(&mut self, now: Duration, head: NewHead, actions: &mut Vec<Action>) {
        let old_fee = core::mem::replace(&mut self.base_fee, head.base_fee);
        self.height = head.height;
        self.recent.push_back((head.height, head.changes.clone()));
        while self.recent.len() > RECENT_HEADS {
            self.recent.pop_front();
        }
        let mut touched = core::mem::take(&mut self.changed);
        for included in &head.included {
            touched.extend(self.take_included(now, included, &head, actions));
        }
        self.set_proposed(now, &[], actions);
        touched.extend(self.mark_readers(&head.changes));
        touched.extend(self.near_base_fee(old_fee));
        for address in core::mem::take(&mut self.not_now) {
            self.entries_of(&address, |entry| {
                if entry.sim == Sim::NotNow {
                    entry.sim = Sim::Due;
                }
            });
            touched.insert(address);
        }
        touched.extend(self.held_back.iter());
        self.drop_overdue(now, actions);
        for address in touched {
            self.drop_used(now, address, &head.changes, actions);
            self.drop_unpayable(now, address, actions);
            self.settle(now, address, actions);
        }
        self.tell_peers_again();
    }

    /// What time alone changes: debts are forgiven, deadlines pass.
    pub(crate) fn tick(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.drop_overdue(now, actions);
        for address in self.held_back.iter().copied().collect::<Vec<_>>() {
            self.settle(now, address, actions);
        }
    }

    /// An account that has less than all of its transactions may cost loses the last ones: admission made sure that
    /// it could pay for all, and they would hold places that others pay for.
    fn drop_unpayable(&mut self, now: Duration, address: Address, actions: &mut Vec<Action>) {
        while let Some(sender) = self.senders.get(&address).filter(|sender| sender.cost > sender.account.balance)
            && let Some((_, last)) = sender.by_nonce.last_key_value()
        {
            let (last, balance) = (*last, sender.account.balance);
            let reason = format!("insufficient funds: its account has {balance} wei left for all of its transactions");
            self.retire(now, &last, DropReason::Invalid(reason), actions);
        }
    }

    fn take_included(
        &mut self,
        now: Duration,
        included: &Included,
        head: &NewHead,
        actions: &mut Vec<Action>,
    ) -> Option<Address> {
        let Some(entry) = self.remove(now, &included.hash, included.gas_used, actions) else {
            // Another node's proposal had it although this pool had dropped it, or never saw it: it has paid all the same.
            self.history.mark_included(&included.hash, head.height);
            let paid = included.gas_used.saturating_mul(self.rules.ops_per_gas);
            self.budgets.settle(&self.config, now, included.sender, 0, paid);
            return None;
        };
        let mut status = entry.status();
        (status.stage, status.block, status.reason) = (Stage::Included, Some(head.height), None);
        status.stages.push((Stage::Included, now.saturating_sub(entry.submitted)));
        self.history.add(status);
        let mut change = entry.change(Stage::Included, now);
        (change.reason, change.block) = (None, Some(head.height));
        actions.push(Action::StageChanged(change));
        if let Some(last) = &entry.last {
            self.check_behind(entry.tx.sender, entry.tx.nonce(), &last.post, &head.changes);
        }
        Some(entry.tx.sender)
    }

    /// A block decided what a transaction leaves behind: those of its sender that read something else there are due.
    fn check_behind(&mut self, address: Address, nonce: u64, post: &EvmState, changes: &BundleState) {
        let Some(sender) = self.senders.get(&address) else { return };
        let as_expected = happened(post, changes);
        for (_, hash) in sender.by_nonce.range(nonce + 1..) {
            let Some(entry) = self.entries.get_mut(hash) else { continue };
            if !entry.sim.stands() {
                // What a running simulation has read is not known yet.
                if !as_expected {
                    entry.base_moved();
                }
                continue;
            }
            if entry.last.as_ref().is_some_and(|last| !last.reads.survives_inclusion(post, changes)) {
                entry.state_moved(self.config.light_ops());
            }
        }
    }

    /// Marks whoever read what a block changed; answers their senders.
    fn mark_readers(&mut self, changes: &BundleState) -> HashSet<Address> {
        let light_ops = self.config.light_ops();
        let mut senders = HashSet::default();
        for hash in self.readers.of(changed_keys(changes)) {
            let Some(entry) = self.entries.get_mut(&hash) else { continue };
            if entry.last.as_ref().is_some_and(|last| !last.reads.survives(changes)) {
                entry.state_moved(light_ops);
                senders.insert(entry.tx.sender);
            }
        }
        senders
    }

    /// Senders of transactions that the base fee has passed, either way.
    fn near_base_fee(&self, old: u64) -> HashSet<Address> {
        let (low, high) = (u128::from(old.min(self.base_fee)), u128::from(old.max(self.base_fee)));
        let first = |fee: u128| (fee, core::cmp::Reverse(u64::MAX), B256::ZERO);
        let passed = self.by_fee.range(first(low)..first(high));
        passed.filter_map(|(_, _, hash)| Some(self.entries.get(hash)?.tx.sender)).collect()
    }

    fn drop_overdue(&mut self, now: Duration, actions: &mut Vec<Action>) {
        while let Some(hash) = self.by_age.first_key_value().map(|(_, hash)| *hash) {
            let Some(entry) = self.entries.get(&hash) else { return };
            let blocks = self.height.saturating_sub(entry.submitted_height);
            let waited = now.saturating_sub(entry.submitted);
            if blocks <= self.config.max_wait_blocks || waited <= self.config.max_wait {
                return;
            }
            let why = match entry.stage {
                Stage::Queued => "it waited for its nonce or for a lower base fee",
                Stage::Ready | Stage::Proposed => "others paid more",
                _ if !entry.held_back.is_empty() => "its account's inference budget was used up",
                _ => "its results were not there",
            };
            self.drop_entry(now, &hash, DropReason::Deadline(self.config.max_wait_blocks, why), actions);
        }
    }

    /// Drops transactions whose nonce is used.
    fn drop_used(&mut self, now: Duration, address: Address, changes: &BundleState, actions: &mut Vec<Action>) {
        let Some(sender) = self.senders.get_mut(&address) else { return };
        let next = sender.account.nonce;
        let used = sender.by_nonce.range(..next);
        let used: Vec<(u64, B256)> = used.map(|(nonce, hash)| (*nonce, *hash)).collect();
        let later = sender.ghosts.split_off(&next);
        for (nonce, post) in core::mem::replace(&mut sender.ghosts, later) {
            self.check_behind(address, nonce, &post, changes);
        }
        for (nonce, hash) in used {
            if let Some(last) = self.entries.get(&hash).and_then(|entry| entry.last.as_ref()) {
                let post = last.post.clone();
                self.check_behind(address, nonce, &post, changes);
            }
            self.retire(now, &hash, DropReason::NonceUsed, actions);
        }
    }

    fn entries_of(&mut self, address: &Address, mut each: impl FnMut(&mut crate::entry::Entry)) {
        let Some(sender) = self.senders.get(address) else { return };
        for hash in sender.by_nonce.values() {
            if let Some(entry) = self.entries.get_mut(hash) {
                each(entry);
            }
        }
    }
}
