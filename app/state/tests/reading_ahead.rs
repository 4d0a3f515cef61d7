//! What a proposed block changes is read while validators vote: the block itself then reads nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use alloy_primitives::{Address, B256, U256};
use penstock_state::{
    Backend, Batch, Durability, Fetcher, Range, Snapshot, State, StateConfig, Store, StoreError, Visit, keys,
};
use revm::{
    database::{AccountStatus, BundleAccount, BundleState, states::StorageSlot},
    state::AccountInfo,
};

/// A store that counts what is read.
#[derive(Debug)]
struct Counting(Arc<dyn Store>, Arc<AtomicU64>);

struct CountingSnapshot(Arc<dyn Snapshot>, Arc<AtomicU64>);

impl Store for Counting {
    fn snapshot(&self) -> Arc<dyn Snapshot> {
        Arc::new(CountingSnapshot(self.0.snapshot(), self.1.clone()))
    }

    fn write(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        self.0.write(batch, durability)
    }

    fn disk_bytes(&self) -> Result<u64, StoreError> {
        self.0.disk_bytes()
    }
}

impl Snapshot for CountingSnapshot {
    fn is_frozen(&self) -> bool {
        self.0.is_frozen()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.get(key)
    }

    fn scan_sealed(&self, range: Range<'_>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.scan_sealed(range, visit)
    }
}

fn address(index: u64) -> Address {
    Address::from_word(B256::from(U256::from(index + 1)))
}

/// Accounts and slots of the first of them, as block `number` leaves them.
fn block(accounts: impl Iterator<Item = u64>, slots: u64, number: u64) -> BundleState {
    let mut bundle = BundleState::default();
    for index in accounts {
        let before = (number > 1).then(|| AccountInfo { nonce: number - 1, ..Default::default() });
        let status = if before.is_some() { AccountStatus::Changed } else { AccountStatus::InMemoryChange };
        let mut storage = revm::primitives::HashMap::default();
        for slot in 0..if index == 0 { slots } else { 0 } {
            storage.insert(U256::from(slot), StorageSlot::new_changed(U256::from(number - 1), U256::from(number)));
        }
        let info = Some(AccountInfo { nonce: number, ..Default::default() });
        bundle.state.insert(address(index), BundleAccount { info, original_info: before, storage, status });
    }
    bundle
}

fn commit(state: &mut State, height: u64, bundle: &BundleState) -> B256 {
    let applied = state.apply(height, bundle).unwrap();
    let mut batch = applied.batch;
    batch.put(keys::meta("height"), height.to_be_bytes().to_vec());
    state.commit(height, batch).unwrap();
    applied.root
}

fn changes() -> BundleState {
    block((0..3_000).step_by(7), 150, 2)
}

/// A state with cold tries, and what counts its reads.
fn opened(folder: &std::path::Path, backend: Backend, trie_bytes: u64) -> (State, Arc<AtomicU64>) {
    let store = backend.open(folder).unwrap();
    let config = StateConfig { trie_bytes, ..Default::default() };
    let mut state = State::open(store.clone(), 0, config).unwrap();
    commit(&mut state, 1, &block(0..3_000, 2_000, 1));
    drop(state);
    let reads = Arc::new(AtomicU64::new(0));
    (State::open(Arc::new(Counting(store, reads.clone())), 1, config).unwrap(), reads)
}

#[test]
fn a_block_that_was_expected_reads_nothing() {
    for backend in Backend::ALL {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (mut state, reads) = opened(one.path(), backend, 1 << 30);
        let before = reads.load(Ordering::Relaxed);
        let root = commit(&mut state, 2, &changes());
        assert!(reads.load(Ordering::Relaxed) - before > 200, "cold zones are read, about one for each account");

        let (mut state, reads) = opened(other.path(), backend, 1 << 30);
        let fetcher = Fetcher::start(state.reader()).unwrap();
        fetcher.expect(&changes());
        drop(fetcher);
        let before = reads.load(Ordering::Relaxed);
        let applied = state.apply(2, &changes()).unwrap();
        assert_eq!(reads.load(Ordering::Relaxed), before, "{backend}: everything was there");
        assert_eq!(applied.root, root);
    }
}

#[test]
fn what_was_read_ahead_for_nothing_is_given_up_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut state, _) = opened(folder.path(), Backend::Fjall, 0);
    let empty = state.reader().memory();
    for height in 2..6 {
        let fetcher = Fetcher::start(state.reader()).unwrap();
        fetcher.expect(&changes());
        drop(fetcher);
        let full = state.reader().memory();
        assert!(full.accounts > empty.accounts && full.storage > empty.storage, "{full:?}, {empty:?}");
        commit(&mut state, height, &block(5..6, 0, height));
    }
    for height in 6..9 {
        commit(&mut state, height, &block(5..6, 0, height));
    }
    let after = state.reader().memory();
    // What the last block used stays: a zone of 32 leaves at most.
    assert!(after.accounts <= empty.accounts + 32 * 400 && after.storage == 0, "{after:?}, {empty:?}");
}
