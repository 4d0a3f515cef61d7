//! The state at one height.
//!
//! A value at a height below the newest one is the one that the first change after that height replaced; the store has
//! those values for as long as it keeps history. The value of now is read first, the history after it: a commit in
//! between cannot show.

use core::fmt;
use std::{collections::BTreeMap, sync::Arc};

use alloy_consensus::Header;
use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_rlp::Decodable;
use alloy_trie::{Nibbles, TrieAccount};
use revm::{
    DatabaseRef, bytecode::Bytecode, database_interface::DBErrorMarker, primitives::KECCAK_EMPTY, state::AccountInfo,
};

use crate::{
    Snapshot, Store, StoreError,
    codes::Codes,
    keys,
    records::{account_entry, decode_account, read_account, read_slot, slot_entry, slot_leaf},
    store::{Range, Visit, after},
    trie::Leaves,
};

impl DBErrorMarker for StoreError {}

/// Takes an account (hash of its address, address, value in the trie); answers whether the scan goes on.
pub type VisitAccount<'a> = dyn FnMut(B256, Address, &[u8]) -> Result<bool, StoreError> + 'a;

/// Takes a slot (hash of its number, number, value); answers whether the scan goes on.
pub type VisitSlot<'a> = dyn FnMut(B256, U256, U256) -> Result<bool, StoreError> + 'a;

/// Records that a scan of the past reads at once.
const SCAN_STEP: usize = 1_000;

/// The state after a block. Cheap to clone; unchanged by later commits.
#[derive(Clone)]
pub struct View {
    height: u64,
    snapshot: Arc<dyn Snapshot>,
    /// Whether the snapshot may know later blocks.
    past: bool,
    codes: Arc<Codes>,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("height", &self.height).field("past", &self.past).finish_non_exhaustive()
    }
}

impl View {
    /// The state that a snapshot was made of.
    pub(crate) fn newest(height: u64, snapshot: Arc<dyn Snapshot>, codes: Arc<Codes>) -> Self {
        let past = !snapshot.is_frozen();
        Self { height, snapshot, past, codes }
    }

    /// The state as of now, for whoever commits: nothing changes while it reads.
    pub(crate) fn of_committer(height: u64, snapshot: Arc<dyn Snapshot>) -> Self {
        Self { height, snapshot, past: false, codes: Arc::default() }
    }

    /// The state at a height at or before that of the snapshot.
    pub(crate) fn past(height: u64, snapshot: Arc<dyn Snapshot>, codes: Arc<Codes>) -> Self {
        Self { height, snapshot, past: true, codes }
    }

    /// The state after a block of a store that nobody writes to; without a height, the newest. `None`: it is not kept.
    ///
    /// # Errors
    /// When the store fails, or has no height.
    pub fn open(store: &dyn Store, height: Option<u64>) -> Result<Option<Self>, StoreError> {
        let snapshot = store.snapshot();
        let newest = snapshot.meta_number("height")?.ok_or_else(|| StoreError::damaged("the height"))?;
        let first = snapshot.meta_number("history")?.unwrap_or_default();
        let height = height.unwrap_or(newest);
        Ok((first..=newest).contains(&height).then(|| Self {
            height,
            snapshot,
            past: height < newest,
            codes: Arc::default(),
        }))
    }

    /// Height of the block.
    pub fn height(&self) -> u64 {
        self.height
    }

    /// The whole store at this height or a later one: blocks and indexes, too. Accounts and slots in it may be later.
    pub fn snapshot(&self) -> &dyn Snapshot {
        &*self.snapshot
    }

    /// The Ethereum header of a block.
    ///
    /// # Errors
    /// When the store fails.
    pub fn header(&self, number: u64) -> Result<Option<Header>, StoreError> {
        let Some(bytes) = self.snapshot.get(&keys::header(number))? else { return Ok(None) };
        let header = Header::decode(&mut bytes.as_slice());
        header.map(Some).map_err(|_| StoreError::damaged(format_args!("header {number}")))
    }

    /// The code of an account; empty when it has none.
    ///
    /// # Errors
    /// When the store fails.
    pub fn code_of(&self, address: Address) -> Result<Bytecode, StoreError> {
        match self.account(address)? {
            Some(account) => self.code_by_hash_ref(account.code_hash),
            None => Ok(Bytecode::default()),
        }
    }

    /// An account as it is in the trie.
    ///
    /// # Errors
    /// When the store fails.
    pub fn account(&self, address: Address) -> Result<Option<TrieAccount>, StoreError> {
        let Some(record) = self.record(&keys::account(address))? else { return Ok(None) };
        decode_account(read_account(&record)?.1).map(Some)
    }

    /// The record of an account or slot at this height.
    pub(crate) fn record(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let now = self.snapshot.get(key)?;
        if !self.past {
            return Ok(now);
        }
        let former = self.snapshot.first(&keys::former(key), &keys::former_at(key, self.height + 1))?;
        self.still_there()?;
        Ok(match former {
            Some((_, old)) => Some(old).filter(|old| !old.is_empty()),
            None => now,
        })
    }

    /// After reading from a store that goes on meanwhile: whether the history was still there.
    fn still_there(&self) -> Result<(), StoreError> {
        if !self.snapshot.is_frozen() && self.snapshot.meta_number("history")?.is_some_and(|first| first > self.height)
        {
            return Err(StoreError::Pruned(self.height));
        }
        Ok(())
    }

    /// Calls `visit` for the accounts or slots with keys in `from..to` at this height, in order, until it answers `false`.
    pub(crate) fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        if !self.past {
            return self.snapshot.scan_range(Range::between(from, to), visit);
        }
        let mut from = from.to_vec();
        while from.as_slice() < to {
            let mut records = BTreeMap::new();
            let mut end = to.to_vec();
            self.snapshot.scan_range(Range::between(&from, to), &mut |key, record| {
                if records.len() == SCAN_STEP {
                    end = key.to_vec();
                    return Ok(false);
                }
                records.insert(key.to_vec(), record.to_vec());
                Ok(true)
            })?;
            let mut last = Vec::new();
            let stop = keys::former(&end);
            self.snapshot.scan_range(Range::between(&keys::former(&from), &stop), &mut |key, old| {
                // A key here is longer than its prefix by the number.
                let Some((former, number)) = key.split_last_chunk::<8>() else { return Ok(true) };
                let own = &former[1..];
                if u64::from_be_bytes(*number) > self.height && own != last.as_slice() {
                    last = own.to_vec();
                    if old.is_empty() {
                        records.remove(own)
                    } else {
                        records.insert(own.to_vec(), old.to_vec())
                    };
                }
                Ok(true)
            })?;
            self.still_there()?;
            for (key, record) in &records {
                if !visit(key, record)? {
                    return Ok(());
                }
            }
            from = end;
        }
        Ok(())
    }

    /// Calls `visit` with every account, in the order of the trie's keys, until it answers `false`.
    ///
    /// # Errors
    /// When the store fails, or the first error of `visit`.
    pub fn accounts(&self, visit: &mut VisitAccount<'_>) -> Result<(), StoreError> {
        self.scan(keys::ACCOUNTS, &end_of(keys::ACCOUNTS), &mut |key, record| {
            let (hash, address, leaf) = account_entry(key, record)?;
            visit(hash, address, &leaf)
        })
    }

    /// Calls `visit` with every slot of an account (number and value), in the order of the trie's keys, until it answers
    /// `false`.
    ///
    /// # Errors
    /// When the store fails, or the first error of `visit`.
    pub fn slots(&self, address_hash: B256, visit: &mut VisitSlot<'_>) -> Result<(), StoreError> {
        let prefix = keys::slots(address_hash);
        self.scan(&prefix, &end_of(&prefix), &mut |key, record| {
            let (hash, slot, value) = slot_entry(address_hash, key, record)?;
            visit(hash, slot, value)
        })
    }
}

/// The first key behind all with a prefix.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    // A prefix begins with a letter, so that there is one.
    after(prefix).unwrap_or_default()
}

/// The keys with a prefix whose rest begins with a path: the first one, and the first one behind them.
fn range_of(prefix: &[u8], path: &Nibbles) -> (Vec<u8>, Vec<u8>) {
    let packed = |path: &Nibbles| {
        let nibbles = path.to_vec();
        let bytes = nibbles.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).copied().unwrap_or_default());
        prefix.iter().copied().chain(bytes).collect::<Vec<u8>>()
    };
    (packed(path), path.increment().map_or_else(|| end_of(prefix), |next| packed(&next)))
}

/// The leaves of the account trie.
#[derive(Debug)]
pub(crate) struct AccountLeaves<'a>(pub(crate) &'a View);

impl Leaves for AccountLeaves<'_> {
    fn under(&self, path: &Nibbles) -> Result<Vec<(B256, Vec<u8>)>, StoreError> {
        let (from, to) = range_of(keys::ACCOUNTS, path);
        let mut leaves = Vec::new();
        self.0.scan(&from, &to, &mut |key, record| {
            let (hash, _, leaf) = account_entry(key, record)?;
            leaves.push((hash, leaf));
            Ok(true)
        })?;
        Ok(leaves)
    }
}

/// The leaves of the storage trie of the account with an address of this hash.
#[derive(Debug)]
pub(crate) struct SlotLeaves<'a>(pub(crate) &'a View, pub(crate) B256);

impl Leaves for SlotLeaves<'_> {
    fn under(&self, path: &Nibbles) -> Result<Vec<(B256, Vec<u8>)>, StoreError> {
        let (from, to) = range_of(&keys::slots(self.1), path);
        let mut leaves = Vec::new();
        self.0.scan(&from, &to, &mut |key, record| {
            let (hash, _, value) = slot_entry(self.1, key, record)?;
            leaves.push((hash, slot_leaf(value)));
            Ok(true)
        })?;
        Ok(leaves)
    }
}

impl DatabaseRef for View {
    type Error = StoreError;

    fn basic_ref(&self, address: Address) -> Result<Option<AccountInfo>, StoreError> {
        Ok(self.account(address)?.map(|account| AccountInfo {
            balance: account.balance,
            nonce: account.nonce,
            code_hash: account.code_hash,
            ..AccountInfo::default().without_code()
        }))
    }

    fn code_by_hash_ref(&self, hash: B256) -> Result<Bytecode, StoreError> {
        if hash == KECCAK_EMPTY {
            return Ok(Bytecode::default());
        }
        if let Some(code) = self.codes.get(&hash) {
            return Ok(code);
        }
        let damaged = || StoreError::damaged(format_args!("code {hash}"));
        let code = self.snapshot.get(&keys::code(hash))?.ok_or_else(damaged)?;
        if keccak256(&code) != hash {
            return Err(damaged());
        }
        let code = Bytecode::new_raw_checked(code.into()).map_err(|_| damaged())?;
        self.codes.put(hash, code.clone());
        Ok(code)
    }

    fn storage_ref(&self, address: Address, slot: U256) -> Result<U256, StoreError> {
        let Some(record) = self.record(&keys::slot(address, slot))? else { return Ok(U256::ZERO) };
        let (number, value) = read_slot(&record)?;
        if number == slot { Ok(value) } else { Err(StoreError::damaged(format_args!("slot {slot} of {address}"))) }
    }

    fn block_hash_ref(&self, number: u64) -> Result<B256, StoreError> {
        let Some(bytes) = self.snapshot.get(&keys::block_hash(number))? else { return Ok(B256::ZERO) };
        B256::try_from(bytes.as_slice()).map_err(|_| StoreError::damaged(format_args!("hash of block {number}")))
    }
}
