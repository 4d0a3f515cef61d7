//! The state machine: events in, actions out, no clocks, threads or IO.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use alloy_consensus::Transaction;
use alloy_primitives::{Address, B256, U256};
use penstock_evm::Call;
use penstock_inference::{Priority, RequestId, network::Answer};
use revm::database::BundleState;

use crate::{
    Account, Action, Candidate, DropReason, Event, NewHead, PoolConfig, PoolCounts, PoolTx, Rejected, RequestStatus,
    SimulateJob, Simulation, Stage, TxStatus,
    entry::{Entry, Simulated},
    history::History,
    outgoing::Outgoing,
};

/// Heads whose changes are remembered, for simulations that ran on an older one.
const RECENT_HEADS: usize = 8;

/// A transaction with more known requests than this runs none behind placeholders: a loop on zeros could make the
/// pool run hundreds that nobody will ever ask for.
const MAX_EARLY_REQUESTS: usize = 256;

#[derive(Debug, Default)]
struct Sender {
    account: Account,
    by_nonce: BTreeMap<u64, B256>,
    /// What all of them may cost together.
    cost: U256,
}

/// The inference mempool.
#[derive(Debug)]
pub struct Pool {
    config: PoolConfig,
    pub(crate) entries: HashMap<B256, Entry>,
    senders: HashMap<Address, Sender>,
    /// Who waits for a result.
    waiting: HashMap<RequestId, Vec<B256>>,
    history: History,
    pub(crate) outgoing: Outgoing,
    pub(crate) height: u64,
    base_fee: u64,
    recent: VecDeque<(u64, Arc<BundleState>)>,
    sequence: u64,
    tickets: u64,
}

impl Pool {
    /// An empty pool on a head.
    pub fn new(config: PoolConfig, height: u64, base_fee: u64) -> Self {
        Self {
            config,
            entries: HashMap::new(),
            senders: HashMap::new(),
            waiting: HashMap::new(),
            history: History::default(),
            outgoing: Outgoing::default(),
            height,
            base_fee,
            recent: VecDeque::new(),
            sequence: 0,
            tickets: 0,
        }
    }

    /// Admits a transaction whose signature and form are checked. `account` is the sender's at the head.
    ///
    /// # Errors
    /// [`Rejected`]; the pool is unchanged.
    pub fn submit(&mut self, now: Duration, tx: PoolTx, account: Account) -> Result<Vec<Action>, Rejected> {
        let (hash, nonce, sender) = (tx.hash(), tx.nonce(), tx.sender);
        if self.entries.contains_key(&hash) {
            return Err(Rejected::AlreadyKnown);
        }
        if nonce < account.nonce {
            return Err(Rejected::NonceTooLow { nonce, next: account.nonce });
        }
        if nonce - account.nonce >= self.config.max_per_sender as u64 {
            return Err(Rejected::NonceTooHigh { nonce, next: account.nonce });
        }
        let own = self.senders.get(&sender);
        let replaced = own.and_then(|own| own.by_nonce.get(&nonce)).copied();
        let freed = replaced.and_then(|old| self.entries.get(&old)).map(|old| old.tx.cost()).unwrap_or_default();
        let pending = own.map(|own| own.cost).unwrap_or_default().saturating_sub(freed);
        let cost = pending.saturating_add(tx.cost());
        if cost > account.balance {
            return Err(Rejected::InsufficientFunds { balance: account.balance, cost });
        }
        let mut actions = Vec::new();
        match replaced {
            Some(old) => {
                if self.entries.get(&old).is_some_and(|old| !tx.outbids(&old.tx)) {
                    return Err(Rejected::Underpriced);
                }
                self.drop_entry(now, &old, DropReason::Replaced(hash), &mut actions);
            }
            None => {
                if own.is_some_and(|own| own.by_nonce.len() >= self.config.max_per_sender) {
                    return Err(Rejected::SenderFull(self.config.max_per_sender));
                }
                if self.entries.len() >= self.config.max_txs {
                    let cheapest = self.cheapest_below(tx.tx.max_fee_per_gas()).ok_or(Rejected::Full)?;
                    self.drop_entry(now, &cheapest, DropReason::Evicted, &mut actions);
                }
            }
        }
        let sender = self.senders.entry(sender).or_default();
        sender.account = account;
        sender.by_nonce.insert(nonce, hash);
        sender.cost = sender.cost.saturating_add(tx.cost());
        let address = tx.sender;
        self.sequence += 1;
        self.entries.insert(hash, Entry::new(Arc::new(tx), self.sequence, now, self.height));
        // It is simulated on what those before it leave behind, which must be known.
        self.simulate_stale_before(now, address, nonce, &mut actions);
        // Whatever came after a replaced one was simulated on it.
        self.simulate_from(now, address, nonce, &mut actions);
        self.tell_peers(&actions);
        Ok(actions)
    }

    /// Lets something happen.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Simulated { hash, ticket, outcome } => self.simulated(now, hash, ticket, outcome, &mut actions),
            Event::Answered { id, answer } => self.answered(now, id, &answer, &mut actions),
            Event::NewHead(head) => self.new_head(now, head, &mut actions),
            Event::Proposed(hashes) => self.proposed(now, &hashes, &mut actions),
            Event::Unfit { hash, reason } => self.drop_entry(now, &hash, DropReason::Invalid(reason), &mut actions),
            Event::Deferred { hash, calls } => self.deferred(now, hash, calls, &mut actions),
        }
        self.tell_peers(&actions);
        actions
    }

    /// Ready transactions: greatest effective tip first, in nonce order within a sender, first come
    /// first served among equals.
    pub fn candidates(&self) -> Vec<Candidate> {
        let ready = |sender: &Sender, nonce: u64| {
            let hash = sender.by_nonce.get(&nonce)?;
            let entry = self.entries.get(hash)?;
            let tip = entry.tx.effective_tip(self.base_fee)?;
            self.can_be_proposed(entry).then_some((tip, Reverse(entry.sequence), *hash))
        };
        let heads = self.senders.iter().filter_map(|(address, sender)| {
            let (tip, sequence, hash) = ready(sender, sender.account.nonce)?;
            Some((tip, sequence, hash, *address, sender.account.nonce))
        });
        let mut heap: BinaryHeap<_> = heads.collect();
        let mut candidates = Vec::new();
        while let Some((_, _, hash, address, nonce)) = heap.pop() {
            if let Some(entry) = self.entries.get(&hash) {
                let (tx, held, gives_up) = (entry.tx.clone(), entry.held.clone(), self.gives_up(entry));
                candidates.push(Candidate { tx, held, gives_up });
            }
            if let Some((tip, sequence, hash)) = self.senders.get(&address).and_then(|s| ready(s, nonce + 1)) {
                heap.push((tip, sequence, hash, address, nonce + 1));
            }
        }
        candidates
    }

    /// Whether the next proposal can take a transaction.
    pub fn has_ready(&self) -> bool {
        self.entries.values().any(|entry| {
            let is_next = |sender: &Sender| sender.account.nonce == entry.tx.nonce();
            self.can_be_proposed(entry) && self.senders.get(&entry.tx.sender).is_some_and(is_next)
        })
    }

    fn can_be_proposed(&self, entry: &Entry) -> bool {
        match entry.stage {
            Stage::Ready | Stage::Proposed => true,
            // Its question moves faster than its answers come: it is included without, pays and ends.
            Stage::Inferring => self.gives_up(entry),
            _ => false,
        }
    }

    fn gives_up(&self, entry: &Entry) -> bool {
        entry.deferrals >= self.config.max_deferrals
    }

    /// A transaction in the pool.
    pub fn get(&self, hash: &B256) -> Option<Arc<PoolTx>> {
        self.entries.get(hash).map(|entry| entry.tx.clone())
    }

    /// All transactions, with their stages.
    pub fn all(&self) -> Vec<(Arc<PoolTx>, Stage)> {
        self.entries.values().map(|entry| (entry.tx.clone(), entry.stage)).collect()
    }

    /// A transaction in the pool, or one that left it not long ago.
    pub fn status(&self, hash: &B256) -> Option<TxStatus> {
        self.entries.get(hash).map(Entry::status).or_else(|| self.history.get(hash).cloned())
    }

    /// The nonce after the account's contiguous pending transactions.
    pub fn pending_nonce(&self, address: &Address, account_nonce: u64) -> u64 {
        let by_nonce = self.senders.get(address).map(|sender| &sender.by_nonce);
        (account_nonce..).find(|nonce| by_nonce.is_none_or(|own| !own.contains_key(nonce))).unwrap_or(account_nonce)
    }

    /// Transactions by stage.
    pub fn counts(&self) -> PoolCounts {
        let mut counts = PoolCounts::default();
        for entry in self.entries.values() {
            *match entry.stage {
                Stage::Queued => &mut counts.queued,
                Stage::Simulating => &mut counts.simulating,
                Stage::Inferring => &mut counts.inferring,
                Stage::Proposed => &mut counts.proposed,
                _ => &mut counts.ready,
            } += 1;
        }
        counts
    }

    /// The senders of the pool: their accounts are refreshed at a new head.
    pub fn senders(&self) -> Vec<Address> {
        self.senders.keys().copied().collect()
    }

    /// Sets the account of a sender, as it is at the head that the next event brings.
    pub fn set_account(&mut self, address: Address, account: Account) {
        if let Some(sender) = self.senders.get_mut(&address) {
            sender.account = account;
        }
    }

    // === simulation

    /// Simulates the sender's first transaction at or after a nonce, if it can be executed; those behind it
    /// follow when its outcome is there.
    fn simulate_from(&mut self, now: Duration, address: Address, nonce: u64, actions: &mut Vec<Action>) {
        let Some(sender) = self.senders.get(&address) else { return };
        let Some((&nonce, &hash)) = sender.by_nonce.range(nonce..).next() else { return };
        if nonce < sender.account.nonce {
            return; // used meanwhile: the next head drops it
        }
        let earlier = sender.account.nonce..nonce;
        let missing = earlier.clone().find(|earlier| !sender.by_nonce.contains_key(earlier));
        let mut gap = missing.map(|missing| (missing, false));
        let mut before = Vec::new();
        for (&earlier, earlier_hash) in sender.by_nonce.range(earlier) {
            let entry = self.entries.get(earlier_hash);
            match entry.and_then(|entry| entry.simulated.as_ref()) {
                Some(simulated) => before.push(simulated.post.clone()),
                None => {
                    gap = gap.or(Some((earlier, entry.is_some_and(|entry| entry.stage != Stage::Queued))));
                    break;
                }
            }
        }
        let base_fee = self.base_fee;
        let Some(entry) = self.entries.get_mut(&hash) else { return };
        let (stage, why) = match gap {
            Some((_, true)) => {
                (Stage::Simulating, Some("waits for the simulation of the sender's transaction before it".to_owned()))
            }
            Some((missing, false)) => (Stage::Queued, Some(format!("waits for nonce {missing}"))),
            None if entry.tx.effective_tip(base_fee).is_none() => {
                (Stage::Queued, Some(format!("its fee cap is below the base fee of {base_fee} wei")))
            }
            None => (Stage::Simulating, None),
        };
        entry.waits_for = why;
        if stage == Stage::Simulating && entry.waits_for.is_none() {
            self.tickets += 1;
            (entry.ticket, entry.in_flight) = (self.tickets, true);
            let job = SimulateJob { tx: entry.tx.clone(), ticket: entry.ticket, before, held: entry.held.clone() };
            actions.push(Action::Simulate(job));
        }
        if entry.enter(stage, now) {
            actions.push(Action::StageChanged { hash, stage });
        }
        if stage == Stage::Queued {
            // What was found on it does not hold any more; those behind it wait, too.
            entry.simulated = None;
            entry.in_flight = false;
            self.simulate_from(now, address, nonce + 1, actions);
        }
    }

    /// Simulates those before a nonce again that were not when the state moved.
    fn simulate_stale_before(&mut self, now: Duration, address: Address, nonce: u64, actions: &mut Vec<Action>) {
        let Some(sender) = self.senders.get(&address) else { return };
        let before: Vec<(u64, B256)> = sender.by_nonce.range(..nonce).map(|(nonce, hash)| (*nonce, *hash)).collect();
        let mut first = None;
        for (nonce, hash) in before {
            if let Some(entry) = self.entries.get_mut(&hash).filter(|entry| entry.stale) {
                (entry.stale, entry.simulated) = (false, None);
                first = first.or(Some(nonce));
            }
        }
        if let Some(first) = first {
            self.simulate_from(now, address, first, actions);
        }
    }

    fn simulated(&mut self, now: Duration, hash: B256, ticket: u64, outcome: Simulation, actions: &mut Vec<Action>) {
        let Some(entry) = self.entries.get_mut(&hash).filter(|entry| entry.in_flight && entry.ticket == ticket) else {
            return;
        };
        entry.in_flight = false;
        let (address, nonce) = (entry.tx.sender, entry.tx.nonce());
        match outcome {
            Simulation::Invalid(why) => self.drop_entry(now, &hash, DropReason::Invalid(why), actions),
            Simulation::NotNow(why) => {
                entry.waits_for = Some(why);
                entry.simulated = None;
                if entry.enter(Stage::Queued, now) {
                    actions.push(Action::StageChanged { hash, stage: Stage::Queued });
                }
                self.simulate_from(now, address, nonce + 1, actions);
            }
            Simulation::Ran { height, calls, used, reads, post } => {
                // It may have run on an older head: still good if nothing that it read has changed since.
                let oldest = self.recent.front().map_or(self.height + 1, |(height, _)| *height);
                let known = height >= self.height || height + 1 >= oldest;
                let current =
                    self.recent.iter().filter(|(h, _)| *h > height).all(|(_, changes)| reads.survives(changes));
                if !(known && current) {
                    self.simulate_from(now, address, nonce, actions);
                    return;
                }
                let changed = entry.simulated.as_ref().is_none_or(|old| *old.post != *post);
                (entry.simulated, entry.stale) = (Some(Simulated { reads, post }), false);
                used.into_iter().for_each(|(id, answer)| entry.hold(id, answer, now));
                self.ask(now, hash, calls, Priority::Transaction, actions);
                if changed {
                    self.simulate_from(now, address, nonce + 1, actions);
                }
            }
        }
    }

    // === inference

    /// Asks for the results that a run missed; without a miss the transaction is ready.
    fn ask(&mut self, now: Duration, hash: B256, calls: Vec<Call>, priority: Priority, actions: &mut Vec<Action>) {
        let config = self.config;
        let Some(entry) = self.entries.get_mut(&hash) else { return };
        let missed: Vec<Call> = calls.iter().filter(|call| call.missed).cloned().collect();
        let total = calls.iter().fold(0u64, |sum, call| sum.saturating_add(call.ops));
        if total > config.max_tx_ops {
            let reason = DropReason::TooExpensive { ops: total, limit: config.max_tx_ops };
            return self.drop_entry(now, &hash, reason, actions);
        }
        // A wave is a step: a run that found requests which were not known. Running again while the
        // same results are awaited is none.
        let known = |id: &RequestId| entry.requests.iter().any(|request| request.id == *id);
        let finds_new = missed.iter().any(|call| !known(&call.id));
        let finds_dear = missed.iter().any(|call| !known(&call.id) && call.ops > config.inline_ops);
        if core::mem::take(&mut entry.moved) {
            // The state moved under it: its questions begin anew, and what it held for the old ones goes.
            entry.deferrals += u32::from(finds_dear);
            entry.waves = 0;
            entry.keep_only(&calls);
        }
        if finds_new && entry.waves >= config.max_waves {
            return self.drop_entry(now, &hash, DropReason::TooManyWaves(config.max_waves), actions);
        }
        entry.waves += u32::from(finds_new);
        let wave = entry.waves;
        for call in &calls {
            if !entry.requests.iter().any(|request| request.id == call.id) {
                let answered = (!call.missed).then(|| now.saturating_sub(entry.submitted));
                entry.requests.push(RequestStatus {
                    id: call.id,
                    model: call.request.model,
                    ops: call.ops,
                    wave: wave.max(1),
                    found: now.saturating_sub(entry.submitted),
                    answered,
                    took: entry.held.0.get(&call.id).map(|answer| answer.took),
                });
            }
        }
        let mut wanted = Vec::new();
        for call in missed {
            let too_many = entry.requests.len() > MAX_EARLY_REQUESTS;
            let early = call.speculative && (call.ops > config.speculative_ops || too_many);
            if early || wanted.iter().any(|other: &Call| other.id == call.id) {
                continue;
            }
            wanted.push(call);
        }
        // Requests of the last wave that are not wanted any more.
        let old = core::mem::take(&mut entry.needed);
        entry.needed = wanted.iter().map(|call| call.id).collect();
        for id in old.difference(&entry.needed) {
            actions.push(Action::Cancel(*id));
            forget(&mut self.waiting, id, &hash);
        }
        for call in wanted.into_iter().filter(|call| !old.contains(&call.id)) {
            self.waiting.entry(call.id).or_default().push(hash);
            actions.push(Action::Infer { id: call.id, request: call.request, ops: call.ops, priority });
        }
        let stage = if entry.needed.is_empty() { Stage::Ready } else { Stage::Inferring };
        entry.waits_for = (!entry.needed.is_empty()).then(|| format!("waits for {} results", entry.needed.len()));
        if entry.enter(stage, now) {
            actions.push(Action::StageChanged { hash, stage });
        }
    }

    fn answered(&mut self, now: Duration, id: RequestId, answer: &Answer, actions: &mut Vec<Action>) {
        for hash in self.waiting.remove(&id).unwrap_or_default() {
            let Some(entry) = self.entries.get_mut(&hash) else { continue };
            entry.hold(id, answer.clone(), now);
            entry.needed.remove(&id);
            if entry.stage != Stage::Inferring {
                continue;
            }
            entry.waits_for = Some(format!("waits for {} results", entry.needed.len()));
            if entry.needed.is_empty() {
                let (address, nonce) = (entry.tx.sender, entry.tx.nonce());
                self.simulate_from(now, address, nonce, actions);
            }
        }
    }

    fn deferred(&mut self, now: Duration, hash: B256, calls: Vec<Call>, actions: &mut Vec<Action>) {
        let Some(entry) = self.entries.get_mut(&hash) else { return };
        entry.deferrals += 1;
        self.ask(now, hash, calls, Priority::Deferred, actions);
    }

    // === blocks

    fn proposed(&mut self, now: Duration, hashes: &[B256], actions: &mut Vec<Action>) {
        self.withdraw_proposed(now, hashes, actions);
        for hash in hashes {
            if let Some(entry) = self.entries.get_mut(hash)
                && entry.enter(Stage::Proposed, now)
            {
                actions.push(Action::StageChanged { hash: *hash, stage: Stage::Proposed });
            }
        }
    }

    /// A proposal that was not decided: its transactions, but for `kept`, are ready again.
    fn withdraw_proposed(&mut self, now: Duration, kept: &[B256], actions: &mut Vec<Action>) {
        let kept: HashSet<&B256> = kept.iter().collect();
        for (hash, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.stage == Stage::Proposed) {
            if !kept.contains(hash) && entry.enter(Stage::Ready, now) {
                actions.push(Action::StageChanged { hash: *hash, stage: Stage::Ready });
            }
        }
    }

    fn new_head(&mut self, now: Duration, head: NewHead, actions: &mut Vec<Action>) {
        self.height = head.height;
        self.base_fee = head.base_fee;
        self.recent.push_back((head.height, head.changes.clone()));
        while self.recent.len() > RECENT_HEADS {
            self.recent.pop_front();
        }
        for hash in &head.included {
            if let Some(entry) = self.remove(hash, actions) {
                let mut status = entry.status();
                (status.stage, status.block, status.reason) = (Stage::Included, Some(head.height), None);
                status.stages.push((Stage::Included, now.saturating_sub(entry.submitted)));
                self.history.add(status);
                actions.push(Action::StageChanged { hash: *hash, stage: Stage::Included });
            } else {
                // Another node's proposal had it although this pool had dropped it.
                self.history.mark_included(hash, head.height);
            }
        }
        self.withdraw_proposed(now, &[], actions);
        let senders: Vec<Address> = self.senders.keys().copied().collect();
        for address in senders {
            self.refresh_sender(now, address, &head.changes, actions);
        }
        self.tell_peers_again();
    }

    /// Brings a sender's transactions to the new head: drops what cannot come any more, and simulates
    /// the first one whose simulation does not hold (those behind it follow when it has changed).
    fn refresh_sender(&mut self, now: Duration, address: Address, changes: &BundleState, actions: &mut Vec<Action>) {
        let Some(sender) = self.senders.get(&address) else { return };
        let Account { nonce: next, balance } = sender.account;
        let own: Vec<(u64, B256)> = sender.by_nonce.iter().map(|(nonce, hash)| (*nonce, *hash)).collect();
        // The last one that asks for results: those behind it, and all of a sender who asks nothing, need no
        // simulation on the new head. What they do there is the proposal's business, and costs no model.
        let asks = |hash: &B256| self.entries.get(hash).is_some_and(|entry| !entry.requests.is_empty());
        let last_that_asks = own.iter().rev().find(|(_, hash)| asks(hash)).map(|(nonce, _)| *nonce);
        for (nonce, hash) in own {
            let Some(entry) = self.entries.get(&hash) else { continue };
            if nonce < next {
                self.drop_entry(now, &hash, DropReason::NonceUsed, actions);
                continue;
            }
            if self.height.saturating_sub(entry.submitted_height) > self.config.max_wait_blocks {
                self.drop_entry(now, &hash, DropReason::Deadline(self.config.max_wait_blocks), actions);
                continue;
            }
            let payable = entry.tx.effective_tip(self.base_fee).is_some();
            let asks_nothing = last_that_asks.is_none_or(|last| nonce > last) && entry.tx.cost() <= balance;
            let survives = entry.simulated.as_ref().is_some_and(|simulated| simulated.reads.survives(changes));
            let good = match (&entry.simulated, entry.stage) {
                (Some(_), Stage::Ready | Stage::Proposed) if asks_nothing && payable => {
                    if !survives && let Some(entry) = self.entries.get_mut(&hash) {
                        entry.stale = true;
                    }
                    continue;
                }
                (Some(_), _) => payable && survives && !entry.stale,
                // Under way: judged when it ends.
                (None, Stage::Simulating) => payable && entry.in_flight,
                (None, _) => false,
            };
            let under_way = entry.in_flight && payable; // judged when it ends
            if !good && !under_way {
                if let Some(entry) = self.entries.get_mut(&hash) {
                    entry.moved = entry.simulated.is_some();
                }
                self.simulate_from(now, address, nonce, actions);
            }
        }
    }

    // === leaving

    fn drop_entry(&mut self, now: Duration, hash: &B256, reason: DropReason, actions: &mut Vec<Action>) {
        let Some(entry) = self.remove(hash, actions) else { return };
        let mut status = entry.status();
        (status.stage, status.reason) = (Stage::Dropped, Some(reason.to_string()));
        status.stages.push((Stage::Dropped, now.saturating_sub(entry.submitted)));
        self.history.add(status);
        actions.push(Action::StageChanged { hash: *hash, stage: Stage::Dropped });
        // Those behind it have a gap now (a replacement closes it again).
        self.simulate_from(now, entry.tx.sender, entry.tx.nonce() + 1, actions);
    }

    fn remove(&mut self, hash: &B256, actions: &mut Vec<Action>) -> Option<Entry> {
        let entry = self.entries.remove(hash)?;
        for id in &entry.needed {
            actions.push(Action::Cancel(*id));
            forget(&mut self.waiting, id, hash);
        }
        if let Some(sender) = self.senders.get_mut(&entry.tx.sender) {
            sender.by_nonce.remove(&entry.tx.nonce());
            sender.cost = sender.cost.saturating_sub(entry.tx.cost());
            if sender.by_nonce.is_empty() {
                self.senders.remove(&entry.tx.sender);
            }
        }
        Some(entry)
    }

    /// The transaction with the lowest fee cap, if that is below `max_fee`; the newest among equals.
    fn cheapest_below(&self, max_fee: u128) -> Option<B256> {
        let evictable = self.entries.values().filter(|entry| entry.stage != Stage::Proposed);
        let cheapest = evictable.min_by_key(|entry| (entry.tx.tx.max_fee_per_gas(), Reverse(entry.sequence)))?;
        (cheapest.tx.tx.max_fee_per_gas() < max_fee).then(|| cheapest.tx.hash())
    }
}

fn forget(waiting: &mut HashMap<RequestId, Vec<B256>>, id: &RequestId, hash: &B256) {
    if let Some(hashes) = waiting.get_mut(id) {
        hashes.retain(|other| other != hash);
        if hashes.is_empty() {
            waiting.remove(id);
        }
    }
}
