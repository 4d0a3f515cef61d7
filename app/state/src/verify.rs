//! Checks everything in a store that can be checked without knowing transactions: checksums, the state against its root,
//! codes, zones, and the history, height by height, against the roots in the headers.

use std::collections::BTreeMap;

use alloy_primitives::{B256, keccak256};
use alloy_trie::Nibbles;
use revm::primitives::KECCAK_EMPTY;

use crate::{
    Cache, NoLeaves, Store, StoreError, Trie, TrieBuilder, View, ZoneChange,
    history::changed_keys,
    keys,
    records::{account_entry, account_leaf, decode_account, slot_entry, slot_leaf},
    store::{Range, name_of, unseal},
    tries::{ByAccount, load_storage, read_zones},
    view::{AccountLeaves, SlotLeaves},
};

/// Problems that are told; a store that is wrong everywhere need not be told line by line.
const MAX_PROBLEMS: usize = 100;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong; empty: nothing.
    pub problems: Vec<String>,
    /// Problems beyond those that are listed.
    pub more: u64,
    /// Records with right checksums.
    pub records: u64,
    /// Accounts of the newest state.
    pub accounts: u64,
    /// Slots of the newest state.
    pub slots: u64,
    /// Heights below the newest one whose state was made again from the history.
    pub heights: u64,
    /// Blocks that were checked.
    pub blocks: u64,
}

impl Report {
    /// Notes a problem.
    pub fn problem(&mut self, what: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(what.into());
        } else {
            self.more += 1;
        }
    }

    /// Notes a problem unless something is as it should be.
    pub fn check(&mut self, is_right: bool, what: impl FnOnce() -> String) {
        if !is_right {
            self.problem(what());
        }
    }

    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }
}

/// What a check is busy with; for somebody who waits.
pub type Tell<'a> = dyn FnMut(&str, u64) + 'a;

/// Leaves of the account trie that are in memory while the history is checked.
const MAX_LEAVES: u64 = 1_000_000;

/// Records between two words to whoever waits.
const TELL_EVERY: u64 = 100_000;

/// Checks the checksum of every record.
///
/// # Errors
/// When the database fails.
pub fn verify_records(store: &dyn Store, report: &mut Report, tell: &mut Tell<'_>) -> Result<(), StoreError> {
    store.snapshot().scan_sealed(Range::from(&[]), &mut |key, sealed| {
        match unseal(key, sealed) {
            Ok(_) => report.records += 1,
            Err(_) => report.problem(format!("the value of key {} is not what was written", name_of(key))),
        }
        if report.records.is_multiple_of(TELL_EVERY) {
            tell("records", report.records);
        }
        Ok(true)
    })
}

/// Checks the newest state, and the history below it. Records must have their checksums.
///
/// # Errors
/// When the database fails. What is wrong is in the report.
pub fn verify_state(store: &dyn Store, report: &mut Report, tell: &mut Tell<'_>) -> Result<(), StoreError> {
    let snapshot = store.snapshot();
    let Some(height) = snapshot.meta_number("height")? else {
        report.problem("there is no height: the store is empty, or what state sync left unfinished");
        return Ok(());
    };
    let view = View::of_committer(height, snapshot);
    let Some(header) = view.header(height)? else {
        report.problem(format!("the header of block {height} is missing"));
        return Ok(());
    };
    let root = newest(&view, report, tell)?;
    report.check(root == header.state_root, || {
        format!("the state has root {root}, the header of block {height} has {}", header.state_root)
    });
    // The history is checked by going back from a state that is right.
    if report.is_clean() {
        history(store, &view, report, tell)?;
    }
    Ok(())
}

/// Builds all tries anew. Answers the state root.
fn newest(view: &View, report: &mut Report, tell: &mut Tell<'_>) -> Result<B256, StoreError> {
    let mut accounts = TrieBuilder::new(&NoLeaves);
    let mut zones = Zones::default();
    let mut storage_zones = 0;
    let snapshot = view.snapshot();
    snapshot.scan(keys::ACCOUNTS, &mut |key, record| {
        let (hash, address, leaf) = match account_entry(key, record) {
            Ok(entry) => entry,
            Err(error) => {
                report.problem(error.to_string());
                return Ok(true);
            }
        };
        let Ok(account) = decode_account(&leaf) else {
            report.problem(format!("account {address} is unreadable"));
            return Ok(true);
        };
        let mut slots = TrieBuilder::new(&NoLeaves);
        let mut own = Zones::default();
        snapshot.scan(&keys::slots(hash), &mut |key, record| {
            match slot_entry(hash, key, record) {
                Ok((slot, _, value)) => {
                    slots.add(slot, slot_leaf(value))?;
                    own.take(slots.take_zones());
                    report.slots += 1;
                }
                Err(error) => report.problem(format!("{error}, of account {address}")),
            }
            Ok(true)
        })?;
        let (slots, last) = slots.finish()?;
        own.take(last);
        let root = slots.root();
        report.check(root == account.storage_root, || {
            format!("the slots of account {address} have root {root}, the account has {}", account.storage_root)
        });
        storage_zones += own.check(view, &keys::storage_zones(hash), report)?;
        if account.code_hash != KECCAK_EMPTY {
            let code = snapshot.get(&keys::code(account.code_hash))?;
            report.check(code.is_some_and(|code| keccak256(code) == account.code_hash), || {
                format!("the code of account {address} is missing or another one")
            });
        }
        accounts.add(hash, leaf)?;
        zones.take(accounts.take_zones());
        report.accounts += 1;
        if report.accounts.is_multiple_of(TELL_EVERY) {
            tell("accounts", report.accounts);
        }
        Ok(true)
    })?;
    let (accounts, last) = accounts.finish()?;
    zones.take(last);
    zones.check(view, keys::ACCOUNT_ZONES, report)?;
    let count = |prefix: &[u8]| {
        let mut number = 0;
        snapshot.scan(prefix, &mut |_, _| {
            number += 1;
            Ok(true)
        })?;
        Ok::<u64, StoreError>(number)
    };
    let slots = count(keys::SLOTS)?;
    report.check(slots == report.slots, || format!("{slots} slots are there, the accounts have fewer"));
    let zones = count(b"z")?;
    report.check(zones == storage_zones, || {
        format!("{zones} zones of slots are there, the accounts have {storage_zones}")
    });
    Ok(accounts.root())
}

/// The zones that a trie has.
#[derive(Debug, Default)]
struct Zones(BTreeMap<Vec<u8>, Vec<u8>>);

impl Zones {
    fn take(&mut self, changes: Vec<crate::ZoneChange>) {
        for zone in changes {
            match zone.record {
                Some(record) => self.0.insert(zone.path.to_vec(), record),
                None => self.0.remove(&zone.path.to_vec()),
            };
        }
    }

    /// Compares them with those of the store. Answers how many there are.
    fn check(&self, view: &View, prefix: &[u8], report: &mut Report) -> Result<u64, StoreError> {
        let found = read_zones(view.snapshot(), prefix)?;
        let same = found.len() == self.0.len()
            && found.iter().zip(&self.0).all(|((path, record), own)| (&path.to_vec(), record) == own);
        report.check(same, || format!("the zones under {} are not those of the leaves", name_of(prefix)));
        Ok(self.0.len() as u64)
    }
}

/// Goes back from the newest state, block by block, and compares each root with the header's.
fn history(store: &dyn Store, view: &View, report: &mut Report, tell: &mut Tell<'_>) -> Result<(), StoreError> {
    let snapshot = store.snapshot();
    let first = snapshot.meta_number("history")?.unwrap_or_default();
    let zones = read_zones(view.snapshot(), keys::ACCOUNT_ZONES)?;
    let mut accounts = match zones.is_empty() {
        true => {
            use crate::Leaves;
            Trie::from_leaves(AccountLeaves(view).under(&Nibbles::default())?)?
        }
        false => Trie::from_zones(zones)?,
    };
    let mut cache = Cache::default();
    let mut storage = ByAccount::<Trie>::default();
    let mut former = 0;
    let mut epoch = 1;
    for number in (first + 1..=view.height()).rev() {
        let after = View::past(number, store.snapshot(), Default::default());
        let list = snapshot.get(&keys::changed(number))?.unwrap_or_default();
        let mut leaves = BTreeMap::new();
        let mut slots: BTreeMap<B256, BTreeMap<B256, Option<Vec<u8>>>> = BTreeMap::new();
        for key in changed_keys(&list) {
            let Some(key) = key else {
                report.problem(format!("the list of what block {number} changed is cut short"));
                return Ok(());
            };
            let Some(old) = snapshot.get(&keys::former_at(key, number))? else {
                report.problem(format!("the value of {} before block {number} is missing", name_of(key)));
                return Ok(());
            };
            former += 1;
            let old = Some(old).filter(|old| !old.is_empty());
            match key.strip_prefix(keys::SLOTS).and_then(|rest| rest.split_first_chunk::<32>()) {
                Some((account, slot)) => {
                    let account = B256::from(*account);
                    let slot = B256::try_from(slot).map_err(|_| StoreError::damaged("the key of a slot"))?;
                    let leaf = old.map(|old| slot_entry(account, key, &old)).transpose()?;
                    slots.entry(account).or_default().insert(slot, leaf.map(|(_, _, value)| slot_leaf(value)));
                }
                None => {
                    let hash = key.strip_prefix(keys::ACCOUNTS).and_then(|hash| B256::try_from(hash).ok());
                    let hash = hash.ok_or_else(|| StoreError::damaged("the key of an account"))?;
                    let leaf = old.map(|old| account_entry(key, &old)).transpose()?;
                    leaves.insert(hash, leaf.map(|(_, _, leaf)| leaf));
                }
            }
        }
        for (account, slots) in slots {
            let trie = match storage.get(&account) {
                Some(trie) => trie.clone(),
                None => {
                    // No later block touched its slots: they are those of the newest state.
                    let now = view.snapshot().get(&[keys::ACCOUNTS, account.as_slice()].concat())?;
                    let now = now.map(|record| decode_account(record.get(20..).unwrap_or_default())).transpose()?;
                    load_storage(view, account, now.unwrap_or_default().storage_root)?
                }
            };
            epoch += 1;
            let slots: Vec<_> = slots.into_iter().collect();
            let before = trie.clone().update(&slots, &SlotLeaves(&after, account), epoch)?.trie;
            if let Some(Some(leaf)) = leaves.get(&account) {
                let mut old = decode_account(leaf)?;
                let named = old.storage_root;
                old.storage_root = before.root();
                // From the slots, not from the record: a root that does not fit shows in the state root, too.
                report.check(named == old.storage_root, || {
                    format!(
                        "the slots of the account with hash {account} before block {number} are not those of its root"
                    )
                });
                leaves.insert(account, Some(account_leaf(&old)));
            }
            storage.insert(account, before);
        }
        epoch += 1;
        let leaves: Vec<_> = leaves.into_iter().collect();
        let updated = accounts.clone().update(&leaves, &AccountLeaves(&after), epoch)?;
        accounts = updated.trie;
        cache.note(ZoneChange::places(&updated.zones), epoch);
        // A zone that is given up is read again at the height where it is needed.
        cache.shrink(&mut accounts, MAX_LEAVES, epoch - 1, usize::MAX);
        let Some(header) = view.header(number - 1)? else {
            report.problem(format!("the header of block {} is missing", number - 1));
            return Ok(());
        };
        if accounts.root() != header.state_root {
            report
                .problem(format!("the history of block {number} does not lead to the state root of the block before"));
            return Ok(());
        }
        report.heights += 1;
        if report.heights.is_multiple_of(256) {
            tell("heights of history", report.heights);
        }
    }
    let mut found = 0;
    snapshot.scan(&keys::former(&[]), &mut |_, _| {
        found += 1;
        Ok(true)
    })?;
    report.check(found == former, || format!("{found} old values are there, the blocks name {former}"));
    Ok(())
}
