//! From one store to another: from layout 1 to the newest, and from one backend to another.

use std::path::Path;

use alloy_primitives::{Address, B256, U256};

use crate::{
    Batch, NoLeaves, Snapshot, Store, StoreError, TrieBuilder, View, keys,
    records::{account_leaf, account_record, decode_account, slot_leaf, slot_record},
    state::put_zones,
    store::{Backend, Durability, Range},
    verify::Tell,
};

/// Records that are written at once.
const STEP: usize = 10_000;

/// Adds what layout 1 did not have of a block: number, stored receipts, where it goes.
pub type AddIndexes<'a> = dyn FnMut(u64, &[u8], &mut Batch) -> Result<(), StoreError> + 'a;

/// Copies the store in `from` to an empty one. The version is written last: until then the new store is nobody's.
///
/// # Errors
/// When a database fails, the old store is damaged, or of a layout that this program does not know.
pub fn migrate(from: &Path, to: &dyn Store, add: &mut AddIndexes<'_>, tell: &mut Tell<'_>) -> Result<u64, StoreError> {
    let backend = Backend::of(from).ok_or_else(|| StoreError::Database(format!("{} is no store", from.display())))?;
    let old = backend.open(from)?;
    let snapshot = old.snapshot();
    let version = snapshot.get(&keys::meta("version"))?.and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
    let mut writer = Writer { to, batch: Batch::default(), records: 0, tell };
    match version {
        Some(1) => from_layout_1(&*snapshot, &mut writer, add)?,
        Some(keys::LAYOUT_VERSION) => snapshot.scan_range(Range::from(&[]), &mut |key, value| {
            if key != keys::meta("version") {
                writer.put(key.to_vec(), value.to_vec())?;
            }
            Ok(true)
        })?,
        Some(other) => return Err(StoreError::Database(format!("layout {other} is not known to this program"))),
        None => return Err(StoreError::Database("the old store is empty".into())),
    }
    let records = writer.records;
    let mut last = core::mem::take(&mut writer.batch);
    last.put(keys::meta("version"), keys::LAYOUT_VERSION.to_be_bytes().to_vec());
    to.commit(last)?;
    Ok(records)
}

struct Writer<'a, 'b> {
    to: &'a dyn Store,
    batch: Batch,
    records: u64,
    tell: &'a mut Tell<'b>,
}

impl Writer<'_, '_> {
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
        self.batch.put(key, value);
        self.records += 1;
        if self.batch.len() >= STEP {
            (self.tell)("records", self.records);
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        // All of it is synced at the end.
        self.to.write(core::mem::take(&mut self.batch), Durability::Relaxed)
    }
}

/// Layout 1: accounts under `a` address, slots under `s` address slot, no checksums, no zones, no history, no index of
/// logs.
fn from_layout_1(old: &dyn Snapshot, writer: &mut Writer<'_, '_>, add: &mut AddIndexes<'_>) -> Result<(), StoreError> {
    let mut failed = None;
    old.scan_sealed(Range::from(&[]), &mut |key, value| {
        let result = match key.first() {
            Some(b'a') => Address::try_from(&key[1..])
                .map_err(|_| StoreError::damaged("the key of an account"))
                .and_then(|address| {
                    decode_account(value)?;
                    writer.put(keys::account(address), account_record(address, value))
                }),
            Some(b's') if key.len() == 53 && !value.is_empty() && value.len() <= 32 => {
                let (address, slot) = (Address::from_slice(&key[1..21]), U256::from_be_slice(&key[21..]));
                writer.put(keys::slot(address, slot), slot_record(slot, U256::from_be_slice(value)))
            }
            Some(b's') => Err(StoreError::damaged("a slot")),
            Some(b'r') => {
                let number = key[1..].try_into().map(u64::from_be_bytes);
                let number = number.map_err(|_| StoreError::damaged("the key of receipts"));
                number.and_then(|number| {
                    add(number, value, &mut writer.batch)?;
                    writer.put(key.to_vec(), value.to_vec())
                })
            }
            Some(b'm') if key == keys::meta("version") => Ok(()),
            _ => writer.put(key.to_vec(), value.to_vec()),
        };
        failed = result.err();
        Ok(failed.is_none())
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    writer.flush()?;
    let height = writer.to.snapshot().meta_number("height")?.ok_or_else(|| StoreError::damaged("the height"))?;
    let root = rebuild_zones(writer.to, height, writer.tell)?;
    let view = View::of_committer(height, writer.to.snapshot());
    if view.header(height)?.map(|header| header.state_root) != Some(root) {
        return Err(StoreError::contradiction("the old store's state is not that of its header"));
    }
    // Nothing older than now can be read.
    writer.put(keys::meta("history"), height.to_be_bytes().to_vec())
}

/// Writes the zones of all tries, from accounts and slots. Answers the state root.
fn rebuild_zones(store: &dyn Store, height: u64, tell: &mut Tell<'_>) -> Result<B256, StoreError> {
    let view = View::of_committer(height, store.snapshot());
    let mut batch = Batch::default();
    let mut accounts = TrieBuilder::new(&NoLeaves);
    let mut done = 0;
    view.accounts(&mut |hash, address, leaf| {
        let account = decode_account(leaf)?;
        let mut slots = TrieBuilder::new(&NoLeaves);
        let prefix = keys::storage_zones(hash);
        view.slots(hash, &mut |slot, _, value| {
            slots.add(slot, slot_leaf(value))?;
            put_zones(&mut batch, &prefix, &slots.take_zones());
            Ok(true)
        })?;
        let (slots, zones) = slots.finish()?;
        put_zones(&mut batch, &prefix, &zones);
        if slots.root() != account.storage_root {
            return Err(StoreError::contradiction(format!("the slots of account {address} are not those of its root")));
        }
        accounts.add(hash, account_leaf(&account))?;
        put_zones(&mut batch, keys::ACCOUNT_ZONES, &accounts.take_zones());
        done += 1;
        if batch.len() >= STEP {
            tell("accounts", done);
            store.write(core::mem::take(&mut batch), Durability::Relaxed)?;
        }
        Ok(true)
    })?;
    let (accounts, zones) = accounts.finish()?;
    put_zones(&mut batch, keys::ACCOUNT_ZONES, &zones);
    store.write(batch, Durability::Relaxed)?;
    Ok(accounts.root())
}
