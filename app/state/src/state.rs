//! The head of the state: the trie in memory, and how a block changes it.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_rlp::Encodable;
use alloy_trie::{EMPTY_ROOT_HASH, TrieAccount};
use revm::{
    database::{BundleState, OriginalValuesKnown, states::PlainStorageChangeset},
    state::AccountInfo,
};

use crate::{Batch, Store, StoreError, Trie, View, keys};

/// Storage tries stay in memory until together they have more slots than this (some 300 MB).
const MAX_CACHED_SLOTS: usize = 1_000_000;

/// Heights whose state can be read. Clients ask for the head by its number, one block too late.
const RECENT_VIEWS: usize = 128;

/// What applying a block gave.
#[derive(Debug)]
pub struct Applied {
    /// The state root after the block.
    pub root: B256,
    /// The changes of the flat state, to be committed with the block.
    pub batch: Batch,
}

/// The state of the chain at its head.
#[derive(Debug)]
pub struct State {
    store: Arc<dyn Store>,
    accounts: Trie,
    storage: HashMap<Address, Trie>,
    /// Values before the block that was applied and not committed, to take it back.
    undo: Vec<(Address, Option<TrieAccount>)>,
    /// Accounts of the block that was applied last.
    touched: HashSet<Address>,
    views: VecDeque<View>,
}

impl State {
    /// Loads the head of a store.
    ///
    /// # Errors
    /// When the store fails or is damaged.
    pub fn open(store: Arc<dyn Store>, height: u64) -> Result<Self, StoreError> {
        let snapshot = store.snapshot();
        let mut accounts = Trie::default();
        snapshot.scan(keys::ACCOUNTS, &mut |key, value| {
            accounts.insert(keccak256(&key[keys::ACCOUNTS.len()..]), value.to_vec());
            Ok(true)
        })?;
        let views = VecDeque::from([View::new(height, snapshot)]);
        Ok(Self { store, accounts, storage: HashMap::new(), undo: Vec::new(), touched: HashSet::new(), views })
    }

    /// Where it is kept.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The state root, of the applied block if there is one.
    pub fn root(&mut self) -> B256 {
        self.accounts.root()
    }

    /// The committed head.
    pub fn head(&self) -> View {
        // `open` put one view in, and `commit` never takes the last.
        self.views.back().cloned().unwrap_or_else(|| View::new(0, self.store.snapshot()))
    }

    /// The state after a recent block.
    pub fn at(&self, height: u64) -> Option<View> {
        self.views.iter().rev().find(|view| view.height() == height).cloned()
    }

    /// Applies the changes of the block after the head. What was applied before and not committed
    /// is taken back first, so that a block can be finalized again.
    ///
    /// # Errors
    /// When the store fails; what was applied until then is taken back by the next call.
    pub fn apply(&mut self, bundle: &BundleState) -> Result<Applied, StoreError> {
        self.take_back()?;
        let head = self.head();
        let changes = bundle.to_plain_state(OriginalValuesKnown::Yes);
        let mut batch = Batch::default();
        for (hash, code) in changes.contracts {
            batch.put(keys::code(hash), code.original_bytes().to_vec());
        }
        // By address, so that every node writes the same bytes in the same order.
        let infos: BTreeMap<Address, Option<AccountInfo>> = changes.accounts.into_iter().collect();
        let slots: BTreeMap<Address, PlainStorageChangeset> =
            changes.storage.into_iter().map(|s| (s.address, s)).collect();
        let mut touched: Vec<Address> = infos.keys().chain(slots.keys()).copied().collect();
        touched.sort_unstable();
        touched.dedup();
        self.touched = touched.iter().copied().collect();
        for address in touched {
            let before = head.account(address)?;
            self.undo.push((address, before));
            let mut account = before.unwrap_or_default();
            let gone = match infos.get(&address) {
                Some(Some(info)) if !info.is_empty() => {
                    (account.nonce, account.balance, account.code_hash) = (info.nonce, info.balance, info.code_hash);
                    false
                }
                Some(_) => true,
                None => before.is_none(),
            };
            if let Some(slots) = slots.get(&address) {
                account.storage_root = self.apply_slots(&head, slots, &mut batch)?;
            }
            let (key, leaf) = (keys::account(address), keccak256(address));
            if gone {
                self.forget_slots(&head, address, &mut batch)?;
                self.storage.remove(&address);
                self.accounts.remove(leaf);
                batch.remove(key);
            } else {
                let mut bytes = Vec::with_capacity(110);
                account.encode(&mut bytes);
                self.accounts.insert(leaf, bytes.clone());
                batch.put(key, bytes);
            }
        }
        Ok(Applied { root: self.accounts.root(), batch })
    }

    /// Commits a block: `batch` is the one of [`Self::apply`] and whatever belongs to the block.
    ///
    /// # Errors
    /// When the store fails; the node must stop.
    pub fn commit(&mut self, height: u64, batch: Batch) -> Result<(), StoreError> {
        self.store.commit(batch)?;
        self.undo.clear();
        self.views.push_back(View::new(height, self.store.snapshot()));
        while self.views.len() > RECENT_VIEWS {
            self.views.pop_front();
        }
        if self.storage.values().map(Trie::len).sum::<usize>() > MAX_CACHED_SLOTS {
            // What the last block touched stays: a busy contract must not be read anew for every block.
            self.storage.retain(|address, _| self.touched.contains(address));
        }
        Ok(())
    }

    fn take_back(&mut self) -> Result<(), StoreError> {
        for (address, before) in core::mem::take(&mut self.undo) {
            self.storage.remove(&address);
            match before {
                None => self.accounts.remove(keccak256(address)),
                Some(account) => {
                    let mut bytes = Vec::new();
                    account.encode(&mut bytes);
                    self.accounts.insert(keccak256(address), bytes);
                }
            }
        }
        Ok(())
    }

    fn apply_slots(
        &mut self,
        head: &View,
        changes: &PlainStorageChangeset,
        batch: &mut Batch,
    ) -> Result<B256, StoreError> {
        let address = changes.address;
        if changes.wipe_storage {
            self.forget_slots(head, address, batch)?;
        }
        let trie = match self.storage.entry(address) {
            std::collections::hash_map::Entry::Occupied(trie) => trie.into_mut(),
            std::collections::hash_map::Entry::Vacant(empty) => empty.insert(load_slots(head, address)?),
        };
        let mut slots = changes.storage.clone();
        slots.sort_unstable_by_key(|(slot, _)| *slot);
        for (slot, value) in slots {
            let leaf = keccak256(slot.to_be_bytes::<32>());
            if value.is_zero() {
                trie.remove(leaf);
                batch.remove(keys::slot(address, slot));
            } else {
                trie.insert(leaf, alloy_rlp::encode(value));
                batch.put(keys::slot(address, slot), value.to_be_bytes_trimmed_vec());
            }
        }
        Ok(trie.root())
    }

    /// Removes all slots that the head has for an account.
    fn forget_slots(&mut self, head: &View, address: Address, batch: &mut Batch) -> Result<(), StoreError> {
        self.storage.insert(address, Trie::default());
        head.snapshot().scan(&keys::slots(address), &mut |key, _| {
            batch.remove(key.to_vec());
            Ok(true)
        })
    }
}

/// The storage trie of an account, from its flat slots.
fn load_slots(head: &View, address: Address) -> Result<Trie, StoreError> {
    let mut trie = Trie::default();
    let prefix = keys::slots(address);
    if head.account(address)?.is_none_or(|account| account.storage_root == EMPTY_ROOT_HASH) {
        return Ok(trie);
    }
    head.snapshot().scan(&prefix, &mut |key, value| {
        trie.insert(keccak256(&key[prefix.len()..]), alloy_rlp::encode(U256::from_be_slice(value)));
        Ok(true)
    })?;
    Ok(trie)
}
