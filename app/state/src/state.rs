//! The head of the state, and how a block changes it.

use std::{collections::BTreeMap, sync::Arc};

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_trie::{EMPTY_ROOT_HASH, Nibbles, TrieAccount};
use revm::{
    database::{BundleState, OriginalValuesKnown, states::PlainStorageChangeset},
    state::AccountInfo,
};

use crate::{
    Batch, Store, StoreError, View,
    history::{Changes, Pruner},
    keys,
    reader::{Shared, StateReader},
    records::{account_leaf, account_record, decode_account, slot_leaf, slot_record},
    trie::{Cache, Leaves, Trie, ZoneChange},
    tries::{ByAccount, Version, load_storage, read_zones, shrink_accounts},
    view::{AccountLeaves, SlotLeaves},
};

/// Local settings of the state. Nothing here is consensus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateConfig {
    /// Heights below the newest one whose state can be read; 0: all, for ever.
    pub history: u64,
    /// Heights below the newest one that can be proved.
    pub proof_window: u64,
    /// Memory of the tries beyond what they cannot do without, in bytes. Versions for proofs come on top.
    pub trie_bytes: u64,
}

impl Default for StateConfig {
    fn default() -> Self {
        Self { history: 4_096, proof_window: 128, trie_bytes: 1 << 30 }
    }
}

/// What applying a block gave.
#[derive(Debug)]
pub struct Applied {
    /// The state root after the block.
    pub root: B256,
    /// The changes of the flat state, to be committed with the block.
    pub batch: Batch,
}

/// A block that is applied and not committed.
#[derive(Debug)]
struct Pending {
    accounts: Trie,
    account_zones: Vec<ZoneChange>,
    /// Zones of the account trie that came into memory; what changed of them is in `account_zones`, too.
    fetched: Vec<Nibbles>,
    storage: ByAccount<PendingStorage>,
}

#[derive(Debug)]
struct PendingStorage {
    before: Trie,
    after: Trie,
    zones: Vec<ZoneChange>,
}

/// The state of the chain at its head.
#[derive(Debug)]
pub struct State {
    store: Arc<dyn Store>,
    config: StateConfig,
    shared: Arc<Shared>,
    cache: Cache,
    pending: Option<Pending>,
    /// Counts the updates of the tries.
    epoch: u32,
    pruner: Option<Pruner>,
}

impl State {
    /// Loads the head of a store.
    ///
    /// # Errors
    /// When the store fails or is damaged.
    pub fn open(store: Arc<dyn Store>, height: u64, config: StateConfig) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared::new(store.clone(), height));
        let pruner = match config.history {
            0 => None,
            keep => Some(Pruner::start(store.clone(), keep.max(config.proof_window))?),
        };
        let mut state = Self { store, config, shared, cache: Cache::default(), pending: None, epoch: 0, pruner };
        state.reload(height)?;
        Ok(state)
    }

    /// Loads the head again, after something else filled the store.
    ///
    /// # Errors
    /// When the store fails or is damaged.
    pub fn reload(&mut self, height: u64) -> Result<(), StoreError> {
        let view = View::of_committer(height, self.store.snapshot());
        let zones = read_zones(view.snapshot(), keys::ACCOUNT_ZONES)?;
        let accounts = match zones.is_empty() {
            true => Trie::from_leaves(AccountLeaves(&view).under(&Nibbles::default())?)?,
            false => Trie::from_zones(zones)?,
        };
        self.pending = None;
        self.cache = Cache::default();
        self.shared.restart(View::newest(height, self.store.snapshot(), self.shared.codes.clone()), accounts);
        Ok(())
    }

    /// Where it is kept.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Reads what is committed, from any thread.
    pub fn reader(&self) -> StateReader {
        StateReader::new(self.shared.clone())
    }

    /// The state root, of the applied block if there is one.
    pub fn root(&self) -> B256 {
        self.pending.as_ref().map_or_else(|| self.shared.accounts().root(), |pending| pending.accounts.root())
    }

    /// The committed head.
    pub fn head(&self) -> View {
        self.shared.head()
    }

    /// Applies the changes of block `number` to the head. What was applied before and not committed is taken back, so
    /// that a block can be finalized again.
    ///
    /// # Errors
    /// When the store fails or is damaged.
    pub fn apply(&mut self, number: u64, bundle: &BundleState) -> Result<Applied, StoreError> {
        self.pending = None;
        // Also after one that is taken back: no node of that may be taken for one of this update.
        self.epoch += 1;
        let view = View::of_committer(self.shared.head().height(), self.store.snapshot());
        let plain = bundle.to_plain_state(OriginalValuesKnown::Yes);
        let mut changes = Changes::new(number);
        for (hash, code) in plain.contracts {
            changes.batch.put(keys::code(hash), code.original_bytes().to_vec());
        }
        // In the order of the trie's keys, so that every node writes the same bytes in the same order.
        let mut touched: BTreeMap<B256, Touched> = BTreeMap::new();
        for (address, info) in plain.accounts {
            touched.entry(keccak256(address)).or_insert_with(|| Touched::new(address)).info = Some(info);
        }
        for slots in plain.storage {
            let address = slots.address;
            touched.entry(keccak256(address)).or_insert_with(|| Touched::new(address)).slots = Some(slots);
        }
        let mut accounts = self.shared.accounts();
        let hashes: Vec<B256> = touched.keys().copied().collect();
        let fetched = accounts.fetch(&hashes, &AccountLeaves(&view), self.epoch)?;
        let mut leaves = Vec::with_capacity(touched.len());
        let mut storage = ByAccount::default();
        for (hash, touched) in touched {
            let before = match accounts.get(hash) {
                Some(leaf) => leaf.map(decode_account).transpose()?,
                // Not with the zones in memory.
                None => view.account(touched.address)?,
            };
            let account = touched.account(before);
            let mut after = account;
            if touched.slots.is_some() || (account.is_none() && before.is_some()) {
                let root = before.map_or(EMPTY_ROOT_HASH, |account| account.storage_root);
                let update = self.apply_slots(&view, bundle, hash, root, &touched, account.is_none(), &mut changes)?;
                if let Some(account) = &mut after {
                    account.storage_root = update.after.root();
                }
                storage.insert(hash, update);
            }
            let after = after.as_ref().map(account_leaf);
            let record = |leaf: &Vec<u8>| account_record(touched.address, leaf);
            let before = before.map(|account| account_leaf(&account));
            if before != after {
                changes.set(keys::account(touched.address), before.as_ref().map(record), after.as_ref().map(record));
                leaves.push((hash, after));
            }
        }
        let accounts = accounts.update(&leaves, &AccountLeaves(&view), self.epoch)?;
        put_zones(&mut changes.batch, keys::ACCOUNT_ZONES, &accounts.zones);
        let root = accounts.trie.root();
        self.pending = Some(Pending { accounts: accounts.trie, account_zones: accounts.zones, fetched, storage });
        Ok(Applied { root, batch: changes.finish() })
    }

    #[allow(clippy::too_many_arguments, reason = "one caller; a struct of these would have no other use")]
    fn apply_slots(
        &self,
        view: &View,
        bundle: &BundleState,
        hash: B256,
        root: B256,
        touched: &Touched,
        gone: bool,
        changes: &mut Changes,
    ) -> Result<PendingStorage, StoreError> {
        let address = touched.address;
        let before = match self.shared.storage(&hash).filter(|trie| trie.root() == root) {
            Some(trie) => trie,
            None => load_storage(view, hash, root)?,
        };
        let zones_prefix = keys::storage_zones(hash);
        let wiped = gone || touched.slots.as_ref().is_some_and(|slots| slots.wipe_storage);
        let base = if wiped { Trie::default() } else { before.clone() };
        // New value of each slot, by hash; and what it was.
        let mut slots: BTreeMap<B256, (U256, Option<U256>, Option<U256>)> = BTreeMap::new();
        if wiped {
            view.slots(hash, &mut |key, slot, value| {
                slots.insert(key, (slot, Some(value), None));
                Ok(true)
            })?;
            for (path, _) in read_zones(view.snapshot(), &zones_prefix)? {
                changes.batch.remove(keys::zone(&zones_prefix, &path));
            }
        }
        let originals = bundle.state.get(&address).map(|account| &account.storage);
        for (slot, value) in touched.slots.iter().filter(|_| !gone).flat_map(|slots| &slots.storage) {
            let key = keccak256(slot.to_be_bytes::<32>());
            let original = originals.and_then(|slots| slots.get(slot)).map(|slot| slot.previous_or_original_value);
            let entry = slots.entry(key).or_insert((*slot, original.filter(|value| !value.is_zero()), None));
            entry.2 = Some(*value).filter(|value| !value.is_zero());
        }
        let mut leaves = Vec::with_capacity(slots.len());
        for (key, (slot, old, new)) in slots {
            if old != new {
                let record = |value| slot_record(slot, value);
                changes.set(keys::slot(address, slot), old.map(record), new.map(record));
            }
            // A trie that begins anew has none of the old leaves: all that stay are set, and none is removed.
            let is_news = if wiped { new.is_some() } else { old != new };
            if is_news {
                leaves.push((key, new.map(slot_leaf)));
            }
        }
        let updated = base.update(&leaves, &SlotLeaves(view, hash), self.epoch)?;
        put_zones(&mut changes.batch, &zones_prefix, &updated.zones);
        Ok(PendingStorage { before, after: updated.trie, zones: updated.zones })
    }

    /// Commits the applied block: `batch` is the one of [`Self::apply`] and whatever belongs to the block.
    ///
    /// # Errors
    /// When the store fails; the node must stop.
    pub fn commit(&mut self, height: u64, batch: Batch) -> Result<(), StoreError> {
        let Some(mut pending) = self.pending.take() else {
            return Err(StoreError::Database("a commit without a block".into()));
        };
        self.store.commit(batch)?;
        let view = View::newest(height, self.store.snapshot(), self.shared.codes.clone());
        // In the order of their uses.
        let (fetched, epoch) = self.shared.take_fetched();
        self.cache.note(fetched, epoch);
        self.cache.note(pending.fetched, self.epoch);
        self.cache.note(ZoneChange::places(&pending.account_zones), self.epoch);
        shrink_accounts(&mut pending.accounts, &mut self.cache, self.config.trie_bytes / 2, self.epoch);
        self.shared.advance(|committed| {
            committed.epoch = self.epoch;
            let mut before = ByAccount::default();
            for (hash, storage) in pending.storage {
                committed.storage.put(hash, storage.after, ZoneChange::places(&storage.zones), self.epoch);
                before.insert(hash, storage.before);
            }
            committed.storage.shrink(self.config.trie_bytes / 2, self.epoch);
            // Block 0 takes the place of the empty state.
            while committed.versions.back().is_some_and(|version| version.height >= height) {
                committed.versions.pop_back();
            }
            committed.versions.push_back(Version { height, accounts: pending.accounts, before });
            while committed.versions.len() as u64 > self.config.proof_window + 1 {
                committed.versions.pop_front();
            }
            committed.head = view;
        });
        if let Some(pruner) = &self.pruner {
            pruner.committed(height);
        }
        Ok(())
    }
}

/// What a block does to an account.
#[derive(Debug)]
pub(crate) struct Touched {
    pub(crate) address: Address,
    /// The new nonce, balance and code; the inner `None`: the account is gone.
    pub(crate) info: Option<Option<AccountInfo>>,
    pub(crate) slots: Option<PlainStorageChangeset>,
}

impl Touched {
    pub(crate) fn new(address: Address) -> Self {
        Self { address, info: None, slots: None }
    }

    /// The account after the block, with the storage root of before.
    pub(crate) fn account(&self, before: Option<TrieAccount>) -> Option<TrieAccount> {
        match &self.info {
            // Also an empty one: whether there are such accounts is for the rules to say (EIP-161).
            Some(Some(info)) => {
                let (nonce, balance, code_hash) = (info.nonce, info.balance, info.code_hash);
                Some(TrieAccount { nonce, balance, code_hash, ..before.unwrap_or_default() })
            }
            Some(None) => None,
            None => before,
        }
    }
}

pub(crate) fn put_zones(batch: &mut Batch, prefix: &[u8], zones: &[ZoneChange]) {
    for zone in zones {
        let key = keys::zone(prefix, &zone.path);
        match &zone.record {
            Some(record) => batch.put(key, record.clone()),
            None => batch.remove(key),
        }
    }
}
