//! Restoring a snapshot from peers that are not trusted: nothing counts before the root is checked.

use std::{collections::BTreeSet, sync::Arc};

use alloy_consensus::Header;
use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_rlp::Decodable;
use alloy_trie::{EMPTY_ROOT_HASH, TrieAccount};
use revm::primitives::KECCAK_EMPTY;

use super::{header_range, take_record};
use crate::{Batch, Store, StoreError, Trie, keys};

/// Why a snapshot is not the state that it claims to be, or cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// It is not what the app hash names.
    #[error("the snapshot is wrong: {0}")]
    Wrong(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn wrong(what: impl Into<String>) -> RestoreError {
    RestoreError::Wrong(what.into())
}

/// What the next record may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Headers,
    Accounts,
    Codes,
}

/// The account whose slots are being read.
#[derive(Debug)]
struct Open {
    address: Address,
    root: B256,
    slots: Trie,
    last_slot: Option<Vec<u8>>,
}

/// A restoration under way. Until [`Self::finish`] the store has no height: it is emptied when it is opened again.
#[derive(Debug)]
pub struct Restore {
    store: Arc<dyn Store>,
    height: u64,
    app_hash: B256,
    part: Part,
    next_header: u64,
    parent: Option<(B256, Header)>,
    accounts: Trie,
    last_address: Option<Address>,
    open: Option<Open>,
    /// Codes that accounts name and that have not come yet.
    codes: BTreeSet<B256>,
}

impl Restore {
    /// Begins with an empty store.
    ///
    /// # Errors
    /// When the store cannot be emptied.
    pub fn begin(store: Arc<dyn Store>, height: u64, app_hash: B256) -> Result<Self, StoreError> {
        crate::store::clear(&*store)?;
        Ok(Self {
            store,
            height,
            app_hash,
            part: Part::Headers,
            next_header: *header_range(height).start(),
            parent: None,
            accounts: Trie::default(),
            last_address: None,
            open: None,
            codes: BTreeSet::new(),
        })
    }

    /// Takes the next chunk.
    ///
    /// # Errors
    /// [`RestoreError`]; the restoration cannot go on.
    pub fn apply(&mut self, mut chunk: &[u8]) -> Result<(), RestoreError> {
        let mut batch = Batch::default();
        while !chunk.is_empty() {
            let (key, value) = take_record(&mut chunk).ok_or_else(|| wrong("a record is cut short"))?;
            self.record(key, value, &mut batch)?;
        }
        Ok(self.store.commit(batch)?)
    }

    fn record(&mut self, key: &[u8], value: &[u8], batch: &mut Batch) -> Result<(), RestoreError> {
        match key.first() {
            Some(b'h') if self.part == Part::Headers => self.header(key, value, batch)?,
            Some(b'a') if self.part <= Part::Accounts => self.account(key, value)?,
            Some(b's') if self.part == Part::Accounts => self.slot(key, value)?,
            Some(b'c') if self.part >= Part::Accounts => self.code(key, value)?,
            _ => return Err(wrong("a record is where it does not belong")),
        }
        batch.put(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn header(&mut self, key: &[u8], mut value: &[u8], batch: &mut Batch) -> Result<(), RestoreError> {
        let number = self.next_header;
        let header = Header::decode(&mut value).ok().filter(|_| value.is_empty());
        let header = header.ok_or_else(|| wrong(format!("header {number}")))?;
        let follows = self.parent.as_ref().is_none_or(|(hash, _)| header.parent_hash == *hash);
        if key != keys::header(number) || header.number != number || number > self.height || !follows {
            return Err(wrong(format!("header {number} is not the one that follows")));
        }
        let hash = header.hash_slow();
        batch.put(keys::block_hash(number), hash.to_vec());
        batch.put(keys::number_of(hash), number.to_be_bytes().to_vec());
        self.parent = Some((hash, header));
        self.next_header += 1;
        Ok(())
    }

    fn account(&mut self, key: &[u8], mut value: &[u8]) -> Result<(), RestoreError> {
        if self.part == Part::Headers {
            let last = self.parent.as_ref().filter(|(_, header)| header.number == self.height);
            if last.is_none_or(|(hash, _)| *hash != self.app_hash) {
                return Err(wrong("its last header is not the one that the app hash names"));
            }
            self.part = Part::Accounts;
        }
        self.close()?;
        let address = Address::try_from(&key[1..]).map_err(|_| wrong("an address"))?;
        if self.last_address.is_some_and(|last| address <= last) {
            return Err(wrong(format!("account {address} is out of order")));
        }
        let bytes = value.to_vec();
        let account = TrieAccount::decode(&mut value).map_err(|_| wrong(format!("account {address}")))?;
        self.accounts.insert(keccak256(address), bytes);
        if account.code_hash != KECCAK_EMPTY {
            self.codes.insert(account.code_hash);
        }
        self.last_address = Some(address);
        self.open = Some(Open { address, root: account.storage_root, slots: Trie::default(), last_slot: None });
        Ok(())
    }

    fn slot(&mut self, key: &[u8], value: &[u8]) -> Result<(), RestoreError> {
        let open = self.open.as_mut().ok_or_else(|| wrong("a slot without an account"))?;
        let prefix = keys::slots(open.address);
        let Some(slot) = key.strip_prefix(prefix.as_slice()).filter(|slot| slot.len() == 32) else {
            return Err(wrong(format!("a slot of another account at {}", open.address)));
        };
        let canonical = value.len() <= 32 && value.first().is_some_and(|first| *first != 0);
        if !canonical || open.last_slot.as_deref().is_some_and(|last| slot <= last) {
            return Err(wrong(format!("a slot of {} is out of order", open.address)));
        }
        open.slots.insert(keccak256(slot), alloy_rlp::encode(U256::from_be_slice(value)));
        open.last_slot = Some(slot.to_vec());
        Ok(())
    }

    fn code(&mut self, key: &[u8], value: &[u8]) -> Result<(), RestoreError> {
        self.part = Part::Codes;
        self.close()?;
        let hash = keccak256(value);
        // In order: the first of those that have not come.
        if key != keys::code(hash) || self.codes.pop_first() != Some(hash) {
            return Err(wrong(format!("code {hash} is not the one that follows")));
        }
        Ok(())
    }

    /// All slots of an account are there.
    fn close(&mut self) -> Result<(), RestoreError> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let root = if open.slots.is_empty() { EMPTY_ROOT_HASH } else { open.slots.root() };
        if root == open.root { Ok(()) } else { Err(wrong(format!("the slots of {}", open.address))) }
    }

    /// Checks the whole, and gives the store its height: from now on it is the chain's.
    /// `chain` names the genesis.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub fn finish(mut self, chain: B256) -> Result<(), RestoreError> {
        self.close()?;
        if let Some(code) = self.codes.first() {
            return Err(wrong(format!("code {code} is missing")));
        }
        let root = self.accounts.root();
        let expected = self.parent.as_ref().filter(|_| self.part != Part::Headers).map(|(_, header)| header.state_root);
        if expected != Some(root) {
            return Err(wrong("its state root is not the header's"));
        }
        let mut batch = Batch::default();
        batch.put(keys::meta("version"), keys::LAYOUT_VERSION.to_be_bytes().to_vec());
        batch.put(keys::meta("chain"), chain.to_vec());
        batch.put(keys::meta("first"), (self.height + 1).to_be_bytes().to_vec());
        batch.put(keys::meta("height"), self.height.to_be_bytes().to_vec());
        Ok(self.store.commit(batch)?)
    }
}
