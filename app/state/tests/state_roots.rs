//! State roots over random blocks equal those that `alloy-trie` computes from scratch.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::{collections::BTreeMap, sync::Arc};

use alloy_primitives::{Address, B256, U256};
use alloy_trie::{
    KECCAK_EMPTY, TrieAccount,
    root::{state_root_unhashed, storage_root_unhashed},
};
use penstock_state::{FjallStore, State, Store};
use revm::{
    DatabaseRef,
    database::{AccountStatus, BundleAccount, BundleState, states::StorageSlot},
    state::AccountInfo,
};

type Slots = BTreeMap<U256, U256>;

/// Account and slots of every address, the slow and sure way.
#[derive(Default, Clone)]
struct Oracle(BTreeMap<Address, (AccountInfo, Slots)>);

impl Oracle {
    fn root(&self) -> B256 {
        state_root_unhashed(self.0.iter().map(|(address, (info, slots))| {
            let storage_root = storage_root_unhashed(slots.iter().map(|(key, value)| (B256::from(*key), *value)));
            let account =
                TrieAccount { nonce: info.nonce, balance: info.balance, storage_root, code_hash: KECCAK_EMPTY };
            (*address, account)
        }))
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Random changes of a block: new accounts, balances, slots set and zeroed, accounts that go.
fn block(random: &mut Random, oracle: &mut Oracle) -> BundleState {
    let mut bundle = BundleState::default();
    for _ in 0..1 + random.below(12) {
        let address = Address::from_word(B256::from(U256::from(random.below(40) + 1)));
        if bundle.state.contains_key(&address) {
            continue;
        }
        let before = oracle.0.get(&address).cloned();
        let original_info = before.as_ref().map(|(info, _)| info.clone());
        if before.is_some() && random.below(6) == 0 {
            let status = AccountStatus::Destroyed;
            bundle
                .state
                .insert(address, BundleAccount { info: None, original_info, storage: Default::default(), status });
            oracle.0.remove(&address);
            continue;
        }
        let (mut info, original) = before.unwrap_or_default();
        let mut slots = original.clone();
        info.nonce += 1 + random.below(3);
        info.balance = U256::from(random.below(1 << 40));
        let mut storage = revm::primitives::HashMap::default();
        for _ in 0..random.below(6) {
            let key = U256::from(random.below(20));
            // The value before the block, also when the slot is written twice.
            let old = original.get(&key).copied().unwrap_or_default();
            let new = if random.below(3) == 0 { U256::ZERO } else { U256::from(random.below(u64::MAX) + 1) };
            storage.insert(key, StorageSlot::new_changed(old, new));
            if new.is_zero() {
                slots.remove(&key)
            } else {
                slots.insert(key, new)
            };
        }
        let status = if original_info.is_some() { AccountStatus::Changed } else { AccountStatus::InMemoryChange };
        bundle.state.insert(address, BundleAccount { info: Some(info.clone()), original_info, storage, status });
        oracle.0.insert(address, (info, slots));
    }
    bundle
}

#[test]
fn every_root_equals_the_one_from_scratch_after_restarts_and_blocks_taken_back() {
    for seed in 0..6 {
        let mut random = Random(seed);
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(FjallStore::open(folder.path()).unwrap());
        let mut state = State::open(store.clone(), 0).unwrap();
        let mut oracle = Oracle::default();
        for height in 1..60 {
            // A block that is applied and not committed leaves nothing behind.
            if random.below(3) == 0 {
                state.apply(&block(&mut random, &mut oracle.clone())).unwrap();
            }
            let changes = block(&mut random, &mut oracle);
            let applied = state.apply(&changes).unwrap();
            assert_eq!(applied.root, oracle.root(), "seed {seed} height {height}");
            state.commit(height, applied.batch).unwrap();
            if random.below(10) == 0 {
                state = State::open(store.clone(), height).unwrap();
                assert_eq!(state.root(), oracle.root(), "seed {seed}: opened again at height {height}");
            }
        }
        let view = state.head();
        for (address, (info, slots)) in &oracle.0 {
            assert_eq!(view.basic_ref(*address).unwrap().unwrap().balance, info.balance);
            for key in (0..20).map(U256::from) {
                assert_eq!(view.storage_ref(*address, key).unwrap(), slots.get(&key).copied().unwrap_or_default());
            }
        }
    }
}

#[test]
fn a_contract_that_goes_and_comes_back_in_one_block_has_only_its_new_slots() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = State::open(Arc::new(FjallStore::open(folder.path()).unwrap()), 0).unwrap();
    let address = Address::repeat_byte(1);
    let info = |nonce| AccountInfo { nonce, ..Default::default() };
    let bundle = |status, original: Option<AccountInfo>, slots: &[(u64, u64)], nonce| {
        let storage =
            slots.iter().map(|(k, v)| (U256::from(*k), StorageSlot::new_changed(U256::ZERO, U256::from(*v)))).collect();
        let mut bundle = BundleState::default();
        bundle
            .state
            .insert(address, BundleAccount { info: Some(info(nonce)), original_info: original, storage, status });
        bundle
    };
    let applied = state.apply(&bundle(AccountStatus::InMemoryChange, None, &[(1, 1), (2, 2)], 1)).unwrap();
    state.commit(1, applied.batch).unwrap();
    let changes = bundle(AccountStatus::DestroyedChanged, Some(info(1)), &[(2, 5), (3, 3)], 2);
    let applied = state.apply(&changes).unwrap();
    let slots = Slots::from([(U256::from(2), U256::from(5)), (U256::from(3), U256::from(3))]);
    assert_eq!(applied.root, Oracle(BTreeMap::from([(address, (info(2), slots))])).root());
    state.commit(2, applied.batch).unwrap();
    let view = state.head();
    let read = [1, 2, 3].map(|key| view.storage_ref(address, U256::from(key)).unwrap().to::<u64>());
    assert_eq!(read, [0, 5, 3]);
}
