//! The state machine: events in, actions out, no clocks, threads or IO. Admission, and what people see; what happens to
//! a transaction afterwards is in `simulating`, `asking`, `heads` and `leaving`.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use alloy_consensus::Transaction;
use alloy_primitives::{
    Address, B256, U256,
    map::{HashMap, HashSet},
};
use revm::{database::BundleState, state::EvmState};

use crate::{
    Account, Action, Allowance, DropReason, Event, PoolAges, PoolConfig, PoolCounts, PoolRules, PoolTx, Rejected,
    Stage, TxStatus, budget::Budgets, entry::Entry, history::History, leaving::Waiting, outgoing::Outgoing,
    readers::Readers,
};

#[derive(Debug, Default)]
pub(crate) struct Sender {
    pub(crate) account: Account,
    pub(crate) by_nonce: BTreeMap<u64, B256>,
    /// What all of them may cost together.
    pub(crate) cost: U256,
    /// The first nonce from the account's on that is not here.
    pub(crate) gap: u64,
    /// Transactions behind it.
    pub(crate) gapped: usize,
    /// What dropped transactions had left behind, by nonce: others were simulated on it.
    pub(crate) ghosts: BTreeMap<u64, Arc<EvmState>>,
}

/// The inference mempool.
#[derive(Debug)]
pub struct Pool {
    pub(crate) config: PoolConfig,
    pub(crate) rules: PoolRules,
    pub(crate) entries: HashMap<B256, Entry>,
    pub(crate) senders: HashMap<Address, Sender>,
    /// Who waits for a result.
    pub(crate) waiting: Waiting,
    pub(crate) readers: Readers,
    pub(crate) budgets: Budgets,
    /// By fee cap, the newest first among equals: what a full pool evicts.
    pub(crate) by_fee: BTreeSet<(u128, core::cmp::Reverse<u64>, B256)>,
    /// In the order of arrival: what its deadline drops.
    pub(crate) by_age: BTreeMap<u64, B256>,
    /// Accounts whose next transaction can be proposed.
    pub(crate) ready: HashSet<Address>,
    pub(crate) proposed: HashSet<B256>,
    /// Accounts with a transaction that could not be executed on the head.
    pub(crate) not_now: HashSet<Address>,
    /// Accounts whose budget holds requests back.
    pub(crate) held_back: HashSet<Address>,
    /// Accounts that the next head changes.
    pub(crate) changed: HashSet<Address>,
    pub(crate) history: History,
    pub(crate) outgoing: Outgoing,
    pub(crate) height: u64,
    pub(crate) base_fee: u64,
    /// Changes of the newest heads.
    pub(crate) recent: VecDeque<(u64, Arc<BundleState>)>,
    pub(crate) gapped: usize,
    pub(crate) bytes: usize,
    sequence: u64,
    pub(crate) tickets: u64,
}

impl Pool {
    /// An empty pool on a head.
    pub fn new(config: PoolConfig, rules: PoolRules, height: u64, base_fee: u64) -> Self {
        Self {
            config,
            rules,
            entries: HashMap::default(),
            senders: HashMap::default(),
            waiting: HashMap::default(),
            readers: Readers::default(),
            budgets: Budgets::default(),
            by_fee: BTreeSet::new(),
            by_age: BTreeMap::new(),
            ready: HashSet::default(),
            proposed: HashSet::default(),
            not_now: HashSet::default(),
            held_back: HashSet::default(),
            changed: HashSet::default(),
            history: History::default(),
            outgoing: Outgoing::default(),
            height,
            base_fee,
            recent: VecDeque::new(),
            gapped: 0,
            bytes: 0,
            sequence: 0,
            tickets: 0,
        }
    }

    /// Admits a transaction whose signature and form are checked. `account` is the sender's at the head.
    ///
    /// # Errors
    /// [`Rejected`]; the pool is unchanged.
    pub fn submit(&mut self, now: Duration, tx: PoolTx, account: Account) -> Result<Vec<Action>, Rejected> {
        let (hash, nonce, address) = (tx.hash(), tx.nonce(), tx.sender);
        if self.entries.contains_key(&hash) {
            return Err(Rejected::AlreadyKnown);
        }
        if nonce < account.nonce {
            return Err(Rejected::NonceTooLow { nonce, next: account.nonce });
        }
        let own = self.senders.get(&address);
        if nonce - account.nonce >= self.config.max_per_sender as u64 {
            // With all before it here it is one too many; otherwise it is too far ahead.
            return Err(match own.is_some_and(|own| own.gap == nonce) {
                true => Rejected::SenderFull(self.config.max_per_sender),
                false => Rejected::NonceTooHigh { nonce, next: account.nonce },
            });
        }
        let replaced = own.and_then(|own| own.by_nonce.get(&nonce)).copied();
        let freed = replaced.and_then(|old| self.entries.get(&old)).map(|old| old.tx.cost()).unwrap_or_default();
        let pending = own.map(|own| own.cost).unwrap_or_default().saturating_sub(freed);
        let cost = pending.saturating_add(tx.cost());
        if cost > account.balance {
            return Err(Rejected::InsufficientFunds { balance: account.balance, cost });
        }
        let mut actions = Vec::new();
        self.sequence += 1;
        let mut entry = Entry::new(Arc::new(tx), self.sequence, now, self.height);
        match replaced {
            Some(old) => self.replace(now, &old, &mut entry, &mut actions)?,
            None => self.make_room(now, &entry.tx, account.nonce, &mut actions)?,
        }
        let sender = self.senders.entry(address).or_default();
        sender.account = account;
        sender.by_nonce.insert(nonce, hash);
        sender.cost = sender.cost.saturating_add(entry.tx.cost());
        self.by_fee.insert(entry.fee_key());
        self.by_age.insert(entry.sequence, hash);
        self.entries.insert(hash, entry);
        self.weigh(&hash);
        self.settle(now, address, &mut actions);
        self.evict_over_bytes(now, &mut actions);
        self.tell_peers(&actions);
        Ok(actions)
    }

    /// The new transaction takes the place of one with its nonce, whose work it takes over.
    fn replace(
        &mut self,
        now: Duration,
        old: &B256,
        entry: &mut Entry,
        actions: &mut Vec<Action>,
    ) -> Result<(), Rejected> {
        let Some(replaced) = self.entries.get_mut(old) else { return Ok(()) };
        if !entry.tx.outbids(&replaced.tx) {
            return Err(Rejected::ReplacementUnderpriced);
        }
        entry.inherit(replaced);
        let hash = entry.tx.hash();
        for id in &entry.needed {
            let waiting = self.waiting.entry(*id).or_default();
            waiting.remove(old);
            waiting.insert(hash);
        }
        self.retire(now, old, DropReason::Replaced(hash), actions);
        Ok(())
    }

    fn make_room(
        &mut self,
        now: Duration,
        tx: &PoolTx,
        account_nonce: u64,
        actions: &mut Vec<Action>,
    ) -> Result<(), Rejected> {
        let own = self.senders.get(&tx.sender);
        if own.is_some_and(|own| own.by_nonce.len() >= self.config.max_per_sender) {
            return Err(Rejected::SenderFull(self.config.max_per_sender));
        }
        let gap = own.map_or(account_nonce, |own| own.gap.max(account_nonce));
        if tx.nonce() > gap {
            // No account has more than a sixteenth of those places.
            let own_share = own.is_some_and(|own| own.gapped >= (self.config.max_gapped / 16).max(16));
            if self.gapped >= self.config.max_gapped || own_share {
                return Err(Rejected::Full(self.gapped));
            }
        }
        if self.entries.len() >= self.config.max_txs {
            let fee_cap = tx.tx.max_fee_per_gas();
            let (least, cheapest) = self.cheapest().unwrap_or((u128::MAX, tx.hash()));
            // One that can only come after the cheapest is worth no more.
            let own_cheapest = self.entries.get(&cheapest).is_some_and(|entry| entry.tx.sender == tx.sender);
            if fee_cap <= least || own_cheapest {
                return Err(Rejected::Underpriced { fee_cap, least });
            }
            self.evict(now, &cheapest, actions);
        }
        Ok(())
    }

    /// Lets something happen.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Simulated { hash, ticket, outcome } => self.simulated(now, hash, ticket, outcome, &mut actions),
            Event::Answered { id, answer } => self.answered(now, id, &answer, &mut actions),
            Event::NewHead(head) => self.new_head(now, head, &mut actions),
            Event::Proposed(hashes) => self.set_proposed(now, &hashes, &mut actions),
            Event::Unfit { hash, reason } => self.drop_entry(now, &hash, DropReason::Invalid(reason), &mut actions),
            Event::Tick => self.tick(now, &mut actions),
            Event::NotRun { id, ops, hash, sender } => self.not_run(hash, sender, id, ops),
            Event::Deferred { hash, calls } => self.deferred(now, hash, calls, &mut actions),
        }
        self.evict_over_bytes(now, &mut actions);
        self.tell_peers(&actions);
        actions
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
        self.senders.get(address).map_or(account_nonce, |sender| sender.gap.max(account_nonce))
    }

    /// What an account has under way, and what it may.
    pub fn allowance(&self, now: Duration, address: &Address) -> Allowance {
        self.budgets.of(&self.config, now, address)
    }

    /// Transactions by stage.
    pub fn counts(&self) -> PoolCounts {
        let mut counts = PoolCounts { bytes: self.bytes, ..PoolCounts::default() };
        for entry in self.entries.values() {
            *match entry.stage {
                Stage::Queued => &mut counts.queued,
                Stage::Simulating => &mut counts.simulating,
                Stage::Inferring => &mut counts.inferring,
                Stage::Proposed => &mut counts.proposed,
                _ => &mut counts.ready,
            } += 1;
            counts.held_back += usize::from(!entry.held_back.is_empty());
        }
        counts
    }

    /// Requests that transactions wait for, each counted for each of them.
    pub fn requests_under_way(&self) -> usize {
        self.entries.values().map(|entry| entry.needed.len()).sum()
    }

    /// How long the oldest transaction of each stage has been in the pool, and how many wait for each wave.
    pub fn ages(&self, now: Duration) -> PoolAges {
        let mut ages = PoolAges::default();
        for entry in self.entries.values() {
            let oldest = ages.oldest.entry(entry.stage).or_default();
            *oldest = (*oldest).max(now.saturating_sub(entry.submitted));
            if entry.stage == Stage::Inferring {
                *ages.waves.entry(entry.waves).or_default() += 1;
            }
        }
        ages
    }

    /// Whether the simulation of a ticket is still wanted.
    pub fn wants(&self, hash: &B256, ticket: u64) -> bool {
        self.entries.get(hash).is_some_and(|entry| entry.sim == crate::entry::Sim::Running(ticket))
    }

    /// Whether an account has transactions here.
    pub fn has_sender(&self, address: &Address) -> bool {
        self.senders.contains_key(address)
    }

    /// Sets the account of a sender, as it is at the head that the next event brings.
    pub fn set_account(&mut self, address: Address, account: Account) {
        if let Some(sender) = self.senders.get_mut(&address) {
            sender.account = account;
            self.changed.insert(address);
        }
    }

    /// Whether nothing is remembered of transactions that left. For tests.
    #[doc(hidden)]
    pub fn is_clean(&self) -> bool {
        let indexes = [self.by_fee.len(), self.by_age.len(), self.ready.len(), self.proposed.len(), self.waiting.len()];
        self.entries.is_empty()
            && self.senders.is_empty()
            && self.readers.is_empty()
            && indexes == [0; 5]
            && (self.gapped, self.bytes) == (0, 0)
    }

    /// Counts anew what a transaction takes.
    pub(crate) fn weigh(&mut self, hash: &B256) {
        if let Some(entry) = self.entries.get_mut(hash) {
            let bytes = entry.memory_bytes();
            self.bytes = (self.bytes + bytes).saturating_sub(entry.bytes);
            entry.bytes = bytes;
        }
    }
}
