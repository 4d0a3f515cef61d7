//! Restoring a snapshot from peers that are not trusted: nothing counts before the root is checked.

use std::{collections::BTreeSet, sync::Arc};

use alloy_consensus::Header;
use alloy_primitives::{Address, B256, keccak256};
use alloy_rlp::Decodable;
use revm::primitives::KECCAK_EMPTY;

use super::{header_range, take_record};
use crate::{
    Batch, NoLeaves, Store, StoreError, TrieBuilder, keys,
    records::{account_entry, decode_account, slot_entry, slot_leaf},
    state::put_zones,
};

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
    hash: B256,
    root: B256,
    slots: TrieBuilder<'static>,
    last: Option<B256>,
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
    accounts: TrieBuilder<'static>,
    last: Option<B256>,
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
            accounts: TrieBuilder::new(&NoLeaves),
            last: None,
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
            Some(b'A') if self.part <= Part::Accounts => self.account(key, value, batch)?,
            Some(b'S') if self.part == Part::Accounts => self.slot(key, value, batch)?,
            Some(b'c') if self.part >= Part::Accounts => self.code(key, value, batch)?,
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

    fn account(&mut self, key: &[u8], value: &[u8], batch: &mut Batch) -> Result<(), RestoreError> {
        if self.part == Part::Headers {
            let last = self.parent.as_ref().filter(|(_, header)| header.number == self.height);
            if last.is_none_or(|(hash, _)| *hash != self.app_hash) {
                return Err(wrong("its last header is not the one that the app hash names"));
            }
            self.part = Part::Accounts;
        }
        self.close(batch)?;
        let (hash, address, leaf) = account_entry(key, value).map_err(|_| wrong("the record of an account"))?;
        if self.last.is_some_and(|last| hash <= last) {
            return Err(wrong(format!("account {address} is out of order")));
        }
        let account = decode_account(&leaf).map_err(|_| wrong(format!("account {address}")))?;
        self.accounts.add(hash, leaf)?;
        put_zones(batch, keys::ACCOUNT_ZONES, &self.accounts.take_zones());
        if account.code_hash != KECCAK_EMPTY {
            self.codes.insert(account.code_hash);
        }
        self.last = Some(hash);
        let slots = TrieBuilder::new(&NoLeaves);
        self.open = Some(Open { address, hash, root: account.storage_root, slots, last: None });
        Ok(())
    }

    fn slot(&mut self, key: &[u8], value: &[u8], batch: &mut Batch) -> Result<(), RestoreError> {
        let open = self.open.as_mut().ok_or_else(|| wrong("a slot without an account"))?;
        let entry = slot_entry(open.hash, key, value);
        let (hash, _, value) = entry.map_err(|_| wrong(format!("the record of a slot at {}", open.address)))?;
        if open.last.is_some_and(|last| hash <= last) {
            return Err(wrong(format!("a slot of {} is out of order", open.address)));
        }
        open.slots.add(hash, slot_leaf(value))?;
        put_zones(batch, &keys::storage_zones(open.hash), &open.slots.take_zones());
        open.last = Some(hash);
        Ok(())
    }

    fn code(&mut self, key: &[u8], value: &[u8], batch: &mut Batch) -> Result<(), RestoreError> {
        self.part = Part::Codes;
        self.close(batch)?;
        let hash = keccak256(value);
        // In order: the first of those that have not come.
        if key != keys::code(hash) || self.codes.pop_first() != Some(hash) {
            return Err(wrong(format!("code {hash} is not the one that follows")));
        }
        Ok(())
    }

    /// All slots of an account are there.
    fn close(&mut self, batch: &mut Batch) -> Result<(), RestoreError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let (slots, zones) = open.slots.finish()?;
        put_zones(batch, &keys::storage_zones(open.hash), &zones);
        if slots.root() == open.root { Ok(()) } else { Err(wrong(format!("the slots of {}", open.address))) }
    }

    /// Checks the whole, and gives the store its height: from now on it is the chain's.
    /// `chain` names the genesis.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub fn finish(mut self, chain: B256) -> Result<(), RestoreError> {
        let mut batch = Batch::default();
        self.close(&mut batch)?;
        if let Some(code) = self.codes.first() {
            return Err(wrong(format!("code {code} is missing")));
        }
        let (accounts, zones) = self.accounts.finish()?;
        put_zones(&mut batch, keys::ACCOUNT_ZONES, &zones);
        let root = accounts.root();
        let expected = self.parent.as_ref().filter(|_| self.part != Part::Headers).map(|(_, header)| header.state_root);
        if expected != Some(root) {
            return Err(wrong("its state root is not the header's"));
        }
        batch.put(keys::meta("version"), keys::LAYOUT_VERSION.to_be_bytes().to_vec());
        batch.put(keys::meta("chain"), chain.to_vec());
        batch.put(keys::meta("first"), (self.height + 1).to_be_bytes().to_vec());
        batch.put(keys::meta("history"), self.height.to_be_bytes().to_vec());
        batch.put(keys::meta("height"), self.height.to_be_bytes().to_vec());
        Ok(self.store.commit(batch)?)
    }
}
