//! Reading what is committed, while the chain goes on.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_trie::{EMPTY_ROOT_HASH, Nibbles, TrieAccount};
use parking_lot::RwLock;
use revm::DatabaseRef;

use crate::{
    Store, StoreError, View,
    codes::Codes,
    records::decode_account,
    trie::Trie,
    tries::{StorageTries, Version, bytes_of, load_storage},
    view::{AccountLeaves, SlotLeaves},
};

/// What the state and its readers share.
#[derive(Debug)]
pub(crate) struct Shared {
    store: Arc<dyn Store>,
    committed: RwLock<Committed>,
    pub(crate) codes: Arc<Codes>,
}

#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) head: View,
    /// The newest last; never empty.
    pub(crate) versions: VecDeque<Version>,
    pub(crate) storage: StorageTries,
    /// The update that the newest version is of.
    pub(crate) epoch: u32,
    /// Zones of the newest account trie that were fetched, and that the cache does not know of.
    pub(crate) fetched: Vec<Nibbles>,
}

impl Committed {
    fn at(head: View, accounts: Trie) -> Self {
        let version = Version { height: head.height(), accounts, before: Default::default() };
        Self {
            head,
            versions: VecDeque::from([version]),
            storage: StorageTries::default(),
            epoch: 0,
            fetched: Vec::new(),
        }
    }
}

impl Shared {
    pub(crate) fn new(store: Arc<dyn Store>, height: u64) -> Self {
        let codes = Arc::<Codes>::default();
        let head = View::newest(height, store.snapshot(), codes.clone());
        Self { store, committed: RwLock::new(Committed::at(head, Trie::default())), codes }
    }

    pub(crate) fn restart(&self, head: View, accounts: Trie) {
        *self.committed.write() = Committed::at(head, accounts);
    }

    pub(crate) fn advance(&self, change: impl FnOnce(&mut Committed)) {
        change(&mut self.committed.write());
    }

    pub(crate) fn head(&self) -> View {
        self.committed.read().head.clone()
    }

    /// Zones that were fetched, and the update that their use counts for.
    pub(crate) fn take_fetched(&self) -> (Vec<Nibbles>, u32) {
        let mut committed = self.committed.write();
        (core::mem::take(&mut committed.fetched), committed.epoch)
    }

    /// The newest account trie.
    pub(crate) fn accounts(&self) -> Trie {
        self.committed.read().versions.back().map(|version| version.accounts.clone()).unwrap_or_default()
    }

    /// A storage trie of the newest height, if it is in memory.
    pub(crate) fn storage(&self, address_hash: &B256) -> Option<Trie> {
        self.committed.read().storage.get(address_hash)
    }

    /// Brings zones into the newest tries: those of accounts, and of their slots; all in order of their hashes. Reads
    /// without holding anybody up. What a commit in between made old is thrown away.
    pub(crate) fn fetch(&self, touched: &BTreeMap<B256, Vec<B256>>) -> Result<(), StoreError> {
        // Together: a commit in between would pair tries with records of before it.
        let (view, epoch, mut accounts) = {
            let committed = self.committed.read();
            let newest = committed.versions.back();
            (committed.head.clone(), committed.epoch, newest.map(|v| v.accounts.clone()).unwrap_or_default())
        };
        match self.fetch_into(&view, epoch, &mut accounts, touched) {
            // Of a store whose views are not frozen some records may be newer than the rest.
            Err(_) if self.committed.read().epoch != epoch => Ok(()),
            done => done,
        }
    }

    fn fetch_into(
        &self,
        view: &View,
        epoch: u32,
        accounts: &mut Trie,
        touched: &BTreeMap<B256, Vec<B256>>,
    ) -> Result<(), StoreError> {
        let root = accounts.root();
        let keys: Vec<B256> = touched.keys().copied().collect();
        let fetched = accounts.fetch(&keys, &AccountLeaves(view), epoch)?;
        let mut storage = Vec::new();
        for (hash, slots) in touched.iter().filter(|(_, slots)| !slots.is_empty()) {
            let account = accounts.get(*hash).flatten().map(decode_account).transpose()?;
            let Some(root) = account.map(|account| account.storage_root) else { continue };
            let mut trie = match self.storage(hash).filter(|trie| trie.root() == root) {
                Some(trie) => trie,
                None => load_storage(view, *hash, root)?,
            };
            let fetched = trie.fetch(slots, &SlotLeaves(view, *hash), epoch)?;
            storage.push((*hash, trie, fetched));
        }
        let mut committed = self.committed.write();
        if committed.epoch != epoch {
            return Ok(());
        }
        if let Some(newest) = committed.versions.back_mut().filter(|version| version.accounts.root() == root) {
            newest.accounts = accounts.clone();
            committed.fetched.extend(fetched);
            for (hash, trie, fetched) in storage {
                committed.storage.put(hash, trie, fetched, epoch);
            }
        }
        Ok(())
    }
}

/// What the tries take in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrieMemory {
    /// Bytes of the account trie's leaves and their nodes, about.
    pub accounts: u64,
    /// Bytes of the storage tries, about.
    pub storage: u64,
}

/// An account, some of its slots, and the nodes that prove them (EIP-1186).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountProof {
    /// The account; `None`: the proof is one of absence.
    pub account: Option<TrieAccount>,
    /// Nodes of the account trie, the root first.
    pub proof: Vec<Bytes>,
    /// The slots that were asked for.
    pub slots: Vec<SlotProof>,
}

/// A slot and the nodes that prove it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotProof {
    /// Its number.
    pub slot: U256,
    /// Its value; zero: the proof is one of absence.
    pub value: U256,
    /// Nodes of the storage trie, the root first.
    pub proof: Vec<Bytes>,
}

/// Commits that may come in the middle of one proof before it is given up.
const COMMITS_BETWEEN: usize = 3;

/// Reads what is committed. Never waits for a block that is being applied.
#[derive(Debug, Clone)]
pub struct StateReader {
    pub(crate) shared: Arc<Shared>,
}

impl StateReader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The state at the newest height.
    pub fn head(&self) -> View {
        self.shared.head()
    }

    /// The first height whose state can be read.
    ///
    /// # Errors
    /// When the store fails.
    pub fn first(&self) -> Result<u64, StoreError> {
        Ok(self.shared.store.snapshot().meta_number("history")?.unwrap_or_default())
    }

    /// The state after a block; `None`: there is no such block yet, or its state is not kept.
    ///
    /// # Errors
    /// When the store fails.
    pub fn at(&self, height: u64) -> Result<Option<View>, StoreError> {
        let head = self.head();
        if height == head.height() {
            return Ok(Some(head));
        }
        let snapshot = self.shared.store.snapshot();
        let first = snapshot.meta_number("history")?.unwrap_or_default();
        Ok((first..=head.height()).contains(&height).then(|| View::past(height, snapshot, self.shared.codes.clone())))
    }

    /// Proves an account and some of its slots after a block; `None`: that height cannot be proved (any more).
    ///
    /// # Errors
    /// When the store fails or is damaged.
    pub fn prove(&self, height: u64, address: Address, slots: &[U256]) -> Result<Option<AccountProof>, StoreError> {
        let mut result = self.prove_once(height, address, slots);
        for _ in 0..COMMITS_BETWEEN {
            // In a store without snapshots a commit in the middle looks like damage.
            if !matches!(result, Err(StoreError::Damaged { .. })) || self.head().snapshot().is_frozen() {
                break;
            }
            result = self.prove_once(height, address, slots);
        }
        result
    }

    fn prove_once(&self, height: u64, address: Address, slots: &[U256]) -> Result<Option<AccountProof>, StoreError> {
        let hash = keccak256(address);
        let Some(view) = self.at(height)? else { return Ok(None) };
        let Some((accounts, storage)) = self.version(height, &hash) else { return Ok(None) };
        let account = view.account(address)?;
        let proof = accounts.prove(hash, &AccountLeaves(&view))?;
        let root = account.map_or(EMPTY_ROOT_HASH, |account| account.storage_root);
        let storage = match storage.filter(|trie| trie.root() == root) {
            Some(trie) => trie,
            // No block since has touched it: it is the one of the newest height.
            None => load_storage(&view, hash, root)?,
        };
        let slots = slots.iter().map(|slot| {
            let key = keccak256(slot.to_be_bytes::<32>());
            let proof = storage.prove(key, &SlotLeaves(&view, hash))?;
            Ok(SlotProof { slot: *slot, value: view.storage_ref(address, *slot)?, proof })
        });
        let slots = slots.collect::<Result<_, StoreError>>()?;
        Ok(Some(AccountProof { account, proof, slots }))
    }

    /// The first height that can be proved.
    pub fn first_proof(&self) -> u64 {
        let committed = self.shared.committed.read();
        committed.versions.front().map_or(0, |version| version.height)
    }

    /// The account trie after a block, if it is kept.
    pub(crate) fn accounts_at(&self, height: u64) -> Option<Trie> {
        let committed = self.shared.committed.read();
        committed.versions.iter().find(|version| version.height == height).map(|version| version.accounts.clone())
    }

    /// The storage trie of an account after a block, if it is in memory.
    pub(crate) fn storage_at(&self, height: u64, address_hash: &B256) -> Option<Trie> {
        self.version(height, address_hash)?.1
    }

    /// The account trie after a block, and the storage trie of an account, if that is in memory.
    fn version(&self, height: u64, address_hash: &B256) -> Option<(Trie, Option<Trie>)> {
        let committed = self.shared.committed.read();
        let index = committed.versions.iter().position(|version| version.height == height)?;
        // The first block after it that touched the account has the trie from before.
        let replaced =
            committed.versions.range(index + 1..).find_map(|version| version.before.get(address_hash).cloned());
        let storage = replaced.or_else(|| committed.storage.get(address_hash));
        Some((committed.versions.get(index)?.accounts.clone(), storage))
    }

    /// What the tries take in memory.
    pub fn memory(&self) -> TrieMemory {
        let committed = self.shared.committed.read();
        let accounts = committed.versions.back().map_or(0, |version| bytes_of(&version.accounts));
        TrieMemory { accounts, storage: committed.storage.bytes() }
    }

    /// Bytes on the disk.
    ///
    /// # Errors
    /// When the database fails.
    pub fn disk_bytes(&self) -> Result<u64, StoreError> {
        self.shared.store.disk_bytes()
    }
}
