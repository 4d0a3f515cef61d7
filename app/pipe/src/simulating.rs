//! When transactions are simulated: a sender's one after the other, each on what those before it leave behind.

use std::{sync::Arc, time::Duration};

use alloy_primitives::{Address, B256};
use penstock_inference::Priority;
use revm::state::EvmState;

use crate::{
    Action, DropReason, Haste, Pool, SimulateJob, Simulation, Stage,
    entry::{Entry, Sim, Simulated},
    leaving::{Waiting, release},
};

impl Pool {
    /// Brings a sender's transactions to where they can be: whatever has a gap before it, or pays too little, waits;
    /// whatever has to be simulated and stands on known ground is; whatever stands is ready. Does nothing that is done already.
    pub(crate) fn settle(&mut self, now: Duration, address: Address, actions: &mut Vec<Action>) {
        let Some(sender) = self.senders.get(&address) else { return };
        let account = sender.account;
        let own: Vec<(u64, B256)> =
            sender.by_nonce.range(account.nonce..).map(|(nonce, hash)| (*nonce, *hash)).collect();
        let light_ops = self.config.light_ops();
        // Up to the last one that is not light, and those whose requests are not known yet, all have to stand exactly.
        let is_light = |hash: &B256| self.entries.get(hash).is_none_or(|entry| entry.is_light(light_ops));
        let exact_until = own.iter().rev().find(|(_, hash)| !is_light(hash)).map(|(nonce, _)| *nonce);
        let (mut next, mut gapped) = (account.nonce, 0);
        let mut blocked: Option<u64> = None;
        let (mut unsettled, mut waits_before) = (false, false);
        let mut before: Vec<Arc<EvmState>> = Vec::new();
        for (nonce, hash) in own {
            let Some(entry) = self.entries.get_mut(&hash) else { continue };
            if blocked.is_none() && nonce != next {
                blocked = Some(next);
            }
            gapped += usize::from(nonce != next);
            next += u64::from(nonce == next);
            if let Some(missing) = blocked {
                park(&mut self.waiting, entry, now, format!("waits for nonce {missing}"), actions);
                continue;
            }
            if self.config.blocking {
                entry.sim = Sim::Good;
                actions.extend(entry.enter(Stage::Ready, now, None));
                continue;
            }
            if entry.tx.effective_tip(self.base_fee).is_none() {
                let reason = format!("its fee cap is below the base fee of {} wei", self.base_fee);
                park(&mut self.waiting, entry, now, reason, actions);
                blocked = Some(nonce);
                continue;
            }
            match entry.sim {
                Sim::NotNow => {
                    blocked = Some(nonce);
                    continue;
                }
                Sim::Moved if exact_until.is_some_and(|last| nonce <= last) => entry.sim = Sim::Due,
                Sim::Good | Sim::Moved if entry.stage == Stage::Queued => {
                    actions.extend(entry.enter(Stage::Ready, now, None));
                }
                _ => {}
            }
            // Those before it have their answers: what it asks for is certain now.
            if entry.withheld && !waits_before && !unsettled && entry.sim.stands() {
                entry.sim = Sim::Due;
            }
            if entry.sim == Sim::Due {
                let mut haste = Haste::Progress;
                let mut why = Some("waits for the simulation of the sender's transaction before it".to_owned());
                if !unsettled {
                    why = None;
                    self.tickets += 1;
                    entry.sim = Sim::Running(self.tickets);
                    haste = match entry.stage {
                        // A block moved it while it waits; what its own account makes certain is no such thing.
                        Stage::Inferring
                            if entry.moved_by_head && (!entry.needed.is_empty() || !entry.held_back.is_empty()) =>
                        {
                            Haste::Background
                        }
                        Stage::Ready | Stage::Proposed => Haste::Refresh,
                        _ => Haste::Progress,
                    };
                    actions.push(Action::Simulate(SimulateJob {
                        tx: entry.tx.clone(),
                        ticket: self.tickets,
                        before: before.clone(),
                        held: entry.held.clone(),
                        bid: entry.tx.effective_tip(self.base_fee).unwrap_or_default(),
                        haste,
                    }));
                }
                if haste != Haste::Background {
                    actions.extend(entry.enter(Stage::Simulating, now, why));
                }
            }
            unsettled |= !entry.sim.stands();
            waits_before |= entry.waits();
            before.extend(entry.last.as_ref().map(|last| last.post.clone()));
        }
        if let Some(sender) = self.senders.get_mut(&address) {
            (self.gapped, sender.gap) = (self.gapped + gapped - sender.gapped, next);
            sender.gapped = gapped;
        }
        self.ask_what_was_held_back(now, address, actions);
        self.note_ready(address);
    }

    /// Notes whether a sender's next transaction can be proposed.
    pub(crate) fn note_ready(&mut self, address: Address) {
        let next = self.senders.get(&address).and_then(|sender| sender.by_nonce.get(&sender.account.nonce));
        if next.and_then(|hash| self.entries.get(hash)).is_some_and(|entry| self.can_be_proposed(entry)) {
            self.ready.insert(address);
        } else {
            self.ready.remove(&address);
        }
    }

    pub(crate) fn simulated(
        &mut self,
        now: Duration,
        hash: B256,
        ticket: u64,
        outcome: Simulation,
        actions: &mut Vec<Action>,
    ) {
        let Some(entry) = self.entries.get_mut(&hash).filter(|entry| entry.sim == Sim::Running(ticket)) else { return };
        let address = entry.tx.sender;
        match outcome {
            Simulation::Invalid(why) => self.drop_entry(now, &hash, DropReason::Invalid(why), actions),
            Simulation::NotNow(why) => {
                park(&mut self.waiting, entry, now, why, actions);
                entry.sim = Sim::NotNow;
                self.not_now.insert(address);
                self.settle(now, address, actions);
            }
            Simulation::Ran { height, calls, used, reads, post, took } => {
                // It may have run on an older head: still good if nothing that it read has changed since.
                let oldest = self.recent.front().map_or(self.height + 1, |(height, _)| *height);
                let known = height >= self.height || height + 1 >= oldest;
                let current =
                    self.recent.iter().filter(|(h, _)| *h > height).all(|(_, changes)| reads.survives(changes));
                if !(known && current) {
                    entry.sim = Sim::Due;
                    return self.settle(now, address, actions);
                }
                let ops = calls.iter().fold(0u64, |sum, call| sum.saturating_add(call.ops));
                entry.sim = Sim::Good;
                used.into_iter().for_each(|(id, answer)| entry.hold(id, answer, now));
                // A result that came meanwhile: it is known now, and so is what follows from it.
                let came = calls.iter().any(|call| call.missed && entry.held.0.contains_key(&call.id));
                self.set_last(&hash, Simulated::new(reads, post, ops, took));
                if came {
                    if let Some(entry) = self.entries.get_mut(&hash) {
                        entry.sim = Sim::Due;
                    }
                    return self.settle(now, address, actions);
                }
                self.ask(now, hash, calls, Priority::Transaction, actions);
                self.weigh(&hash);
                self.settle(now, address, actions);
            }
        }
    }

    /// What a transaction leaves behind is known anew: whoever of its sender read something of it that is different
    /// now is simulated again, and nobody else.
    fn set_last(&mut self, hash: &B256, new: Simulated) {
        let Some(entry) = self.entries.get_mut(hash) else { return };
        let (address, nonce) = (entry.tx.sender, entry.tx.nonce());
        if entry.last.as_ref().is_none_or(|old| old.reads != new.reads) {
            if let Some(old) = &entry.last {
                self.readers.remove(hash, &old.reads);
            }
            self.readers.add(*hash, &new.reads);
        }
        let post = new.post.clone();
        let old = entry.last.replace(new);
        let Some(sender) = self.senders.get_mut(&address) else { return };
        let ghost = sender.ghosts.remove(&nonce);
        let old = old.map(|old| old.post).or(ghost);
        if old.as_ref().is_some_and(|old| **old == *post) {
            return;
        }
        for (_, hash) in sender.by_nonce.range(nonce + 1..) {
            let Some(entry) = self.entries.get_mut(hash) else { continue };
            let survives = |last: &Simulated| last.reads.survives_change_before(old.as_deref(), &post);
            let stands = entry.sim.stands() && entry.last.as_ref().is_some_and(survives);
            if !stands {
                entry.base_moved();
            }
        }
    }
}

/// A transaction cannot be executed now: what it waits for is not wanted until it can.
fn park(waiting: &mut Waiting, entry: &mut Entry, now: Duration, reason: String, actions: &mut Vec<Action>) {
    if entry.waits() || matches!(entry.sim, Sim::Running(_)) {
        entry.sim = Sim::Due;
    }
    release(waiting, entry, actions);
    actions.extend(entry.enter(Stage::Queued, now, Some(reason)));
}
