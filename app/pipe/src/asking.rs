//! What transactions ask the inference network: waves of requests, within the budget of their account.

use std::{collections::BTreeSet, time::Duration};

use alloy_primitives::{Address, B256, map::HashSet};
use penstock_evm::Call;
use penstock_inference::{Priority, RequestId, Urgency, network::Answer};

use crate::{
    Action, Allowance, DropReason, Pool, PoolConfig, RequestStatus, Stage,
    entry::{Entry, Sim},
    leaving::forget,
};

/// A transaction with more known requests than this runs none behind placeholders: a loop on zeros could make the
/// pool run hundreds that nobody will ever ask for.
const MAX_EARLY_REQUESTS: usize = 256;

impl Allowance {
    /// When a request of a transaction runs among others.
    fn urgency(&self, config: &PoolConfig, priority: Priority, entry: &Entry, base_fee: u64) -> Urgency {
        let bid = entry.tx.effective_tip(base_fee).unwrap_or_default();
        Urgency { priority, in_debt: self.is_in_debt(config), bid, ahead: self.pending }
    }
}

impl Pool {
    /// Asks for the results that a run missed; without a miss the transaction is ready.
    pub(crate) fn ask(
        &mut self,
        now: Duration,
        hash: B256,
        calls: Vec<Call>,
        priority: Priority,
        actions: &mut Vec<Action>,
    ) {
        let config = self.config;
        let tentative = self.is_tentative(&hash);
        let Some(entry) = self.entries.get_mut(&hash) else { return };
        let missed = || calls.iter().filter(|call| call.missed);
        // A wave is a step: a run that found requests which were not known. Running again while the
        // same results are awaited is none.
        let known = |id: &RequestId| entry.requests.iter().any(|request| request.id == *id);
        let finds_new = missed().any(|call| !known(&call.id));
        let new_ops = missed().filter(|call| !known(&call.id)).fold(0u64, |sum, call| sum.saturating_add(call.ops));
        let finds_dear = new_ops > config.inline_ops;
        let by_head = core::mem::take(&mut entry.moved_by_head);
        if core::mem::take(&mut entry.moved) {
            // The state moved under it: its questions begin anew, and what it held for the old ones goes. That its own
            // account moved it is no reason to give up.
            entry.deferrals += u32::from(finds_dear && by_head);
            entry.waves = 0;
            entry.keep_only(&calls);
        }
        if finds_new && entry.waves >= self.rules.max_waves {
            return self.drop_entry(now, &hash, DropReason::TooManyWaves(self.rules.max_waves), actions);
        }
        entry.waves += u32::from(finds_new);
        let since = now.saturating_sub(entry.submitted);
        for call in &calls {
            if !entry.requests.iter().any(|request| request.id == call.id) {
                entry.requests.push(RequestStatus {
                    id: call.id,
                    model: call.request.model,
                    ops: call.ops,
                    wave: entry.waves.max(1),
                    found: since,
                    answered: (!call.missed).then_some(since),
                    took: entry.held.0.get(&call.id).map(|answer| answer.took),
                });
            }
        }
        let mut wanted: Vec<Call> = Vec::new();
        entry.withheld = false;
        for call in missed() {
            let too_many = entry.requests.len() > MAX_EARLY_REQUESTS;
            let early = (call.speculative || tentative) && (call.ops > config.speculative_ops || too_many);
            entry.withheld |= early && tentative;
            if !early && !wanted.iter().any(|other| other.id == call.id) {
                wanted.push(call.clone());
            }
        }
        // Requests of the last wave that are not wanted any more.
        let is_wanted = |id: &RequestId| wanted.iter().any(|call| call.id == *id);
        let (kept, gone): (BTreeSet<_>, BTreeSet<_>) =
            core::mem::take(&mut entry.needed).into_iter().partition(is_wanted);
        entry.needed = kept;
        for id in gone {
            actions.push(Action::Cancel { id, hash, sender: entry.tx.sender });
            forget(&mut self.waiting, &id, &hash);
        }
        if core::mem::take(&mut entry.pays_more) || priority == Priority::Deferred {
            // What is queued already moves forward: asked for again, and taken back once.
            let allowance = self.budgets.of(&config, now, &entry.tx.sender);
            let urgency = allowance.urgency(&config, priority, entry, self.base_fee);
            for call in wanted.iter().filter(|call| entry.needed.contains(&call.id)) {
                let (id, request, ops, wave) = (call.id, call.request.clone(), call.ops, entry.waves);
                actions.push(Action::Infer { id, request, ops, urgency, hash, wave });
                actions.push(Action::Cancel { id, hash, sender: entry.tx.sender });
            }
        }
        wanted.retain(|call| !entry.needed.contains(&call.id));
        entry.held_back = wanted;
        self.dispatch(now, hash, priority, actions);
    }

    /// Whether a transaction read something that an earlier one of its account wrote on a placeholder.
    fn is_tentative(&self, hash: &B256) -> bool {
        let Some(entry) = self.entries.get(hash) else { return false };
        let (Some(last), Some(sender)) = (&entry.last, self.senders.get(&entry.tx.sender)) else { return false };
        let earlier = sender.by_nonce.range(sender.account.nonce..entry.tx.nonce());
        let mut waiting = earlier.filter_map(|(_, hash)| self.entries.get(hash)).filter(|entry| entry.waits());
        waiting.any(|entry| entry.last.as_ref().is_some_and(|post| last.reads.reads_what_was_written(&post.post)))
    }

    /// Asks for as much of what is held back as the account's budget allows, and says what the transaction waits for.
    fn dispatch(&mut self, now: Duration, hash: B256, priority: Priority, actions: &mut Vec<Action>) {
        let Some(entry) = self.entries.get_mut(&hash) else { return };
        let address = entry.tx.sender;
        let is_next = self.senders.get(&address).is_some_and(|sender| sender.account.nonce == entry.tx.nonce());
        let mut held_back = core::mem::take(&mut entry.held_back).into_iter();
        for call in held_back.by_ref() {
            let allowance = self.budgets.of(&self.config, now, &address);
            let in_debt = allowance.is_in_debt(&self.config);
            let under_way = allowance.pending.saturating_add(allowance.debt);
            // The next one can be included, and so pay: it may go on, within what a transaction may cost at all.
            let may_go_on = is_next && !in_debt && entry.work.saturating_add(call.ops) <= self.rules.max_tx_ops;
            let allowed = under_way.saturating_add(call.ops) <= allowance.limit || may_go_on;
            if !entry.charged.contains(&call.id) {
                if !allowed {
                    entry.held_back.push(call);
                    break;
                }
                entry.charged.insert(call.id);
                entry.work = entry.work.saturating_add(call.ops);
                self.budgets.charge(address, call.ops);
            }
            entry.needed.insert(call.id);
            self.waiting.entry(call.id).or_default().insert(hash);
            let urgency = allowance.urgency(&self.config, priority, entry, self.base_fee);
            let (id, request, ops, wave) = (call.id, call.request, call.ops, entry.waves);
            actions.push(Action::Infer { id, request, ops, urgency, hash, wave });
        }
        entry.held_back.extend(held_back);
        let (stage, reason) = if !entry.held_back.is_empty() {
            let allowance = self.budgets.of(&self.config, now, &address);
            self.held_back.insert(address);
            let reason = format!(
                "waits for its account's inference budget: {} ops are pending and {} not paid for, of {}",
                allowance.pending, allowance.debt, allowance.limit
            );
            (Stage::Inferring, Some(reason))
        } else if !entry.needed.is_empty() {
            (Stage::Inferring, Some(format!("waits for {} results", entry.needed.len())))
        } else if entry.withheld {
            (Stage::Inferring, Some("waits for the answers of the sender's transaction before it".to_owned()))
        } else {
            (Stage::Ready, None)
        };
        actions.extend(entry.enter(stage, now, reason));
        self.weigh(&hash);
    }

    /// Tries again with requests that the budget of their account did not allow, in nonce order.
    pub(crate) fn ask_what_was_held_back(&mut self, now: Duration, address: Address, actions: &mut Vec<Action>) {
        if !self.held_back.remove(&address) {
            return;
        }
        let Some(sender) = self.senders.get(&address) else { return };
        let own: Vec<B256> = sender.by_nonce.values().copied().collect();
        for hash in own {
            match self.entries.get(&hash).filter(|entry| !entry.held_back.is_empty()) {
                Some(entry) if entry.sim == Sim::Good => self.dispatch(now, hash, Priority::Transaction, actions),
                // Its simulation is under way, and asks anew.
                Some(_) => drop(self.held_back.insert(address)),
                None => {}
            }
        }
    }

    pub(crate) fn answered(&mut self, now: Duration, id: RequestId, answer: &Answer, actions: &mut Vec<Action>) {
        let mut complete: HashSet<Address> = HashSet::default();
        for hash in self.waiting.remove(&id).unwrap_or_default() {
            let Some(entry) = self.entries.get_mut(&hash) else { continue };
            entry.hold(id, answer.clone(), now);
            entry.needed.remove(&id);
            let (address, missing) = (entry.tx.sender, entry.needed.len());
            if entry.stage == Stage::Inferring && entry.held_back.is_empty() && !entry.withheld {
                entry.waits_for = Some(format!("waits for {missing} results"));
                if missing == 0 {
                    entry.sim = Sim::Due;
                    complete.insert(address);
                }
            }
            self.weigh(&hash);
        }
        for address in complete {
            self.settle(now, address, actions);
        }
    }

    /// A request was cancelled before it ran: it costs its account nothing.
    pub(crate) fn not_run(&mut self, hash: B256, sender: Address, id: RequestId, ops: u64) {
        match self.entries.get_mut(&hash) {
            Some(entry) => {
                if entry.charged.remove(&id) {
                    entry.work = entry.work.saturating_sub(ops);
                    self.budgets.give_back(sender, ops);
                }
            }
            None => self.budgets.forgive(sender, ops),
        }
    }

    pub(crate) fn deferred(&mut self, now: Duration, hash: B256, calls: Vec<Call>, actions: &mut Vec<Action>) {
        let Some(entry) = self.entries.get_mut(&hash) else { return };
        let address = entry.tx.sender;
        entry.deferrals += 1;
        if entry.sim.stands() {
            // What it asks for on the newest state is known, as far as it got.
            (entry.sim, entry.moved, entry.moved_by_head, entry.waves) = (Sim::Good, false, false, 0);
            self.proposed.remove(&hash);
            self.ask(now, hash, calls, Priority::Deferred, actions);
        }
        self.settle(now, address, actions);
    }
}
