//! Over random blocks, on both backends: roots equal those that `alloy-trie` computes from scratch, every height that is
//! kept reads as it was, and every height of the window proves as it was.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::{collections::BTreeMap, sync::Arc};

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_trie::{
    KECCAK_EMPTY, Nibbles, TrieAccount,
    proof::verify_proof,
    root::{state_root_unhashed, storage_root_unhashed},
};
use penstock_state::{Backend, State, StateConfig, StateReader, Store};
use revm::{
    DatabaseRef,
    database::{AccountStatus, BundleAccount, BundleState, states::StorageSlot},
    state::AccountInfo,
};

/// Enough of both that the tries have zones.
const ACCOUNTS: u64 = 150;
const SLOTS: u64 = 80;

type Slots = BTreeMap<U256, U256>;

/// Account and slots of every address, the slow and sure way.
#[derive(Default, Clone)]
struct Oracle(BTreeMap<Address, (AccountInfo, Slots)>);

impl Oracle {
    fn root(&self) -> B256 {
        state_root_unhashed(self.0.keys().filter_map(|address| Some((*address, self.account(address)?))))
    }

    fn account(&self, address: &Address) -> Option<TrieAccount> {
        let (info, slots) = self.0.get(address)?;
        let storage_root = storage_root_unhashed(slots.iter().map(|(key, value)| (B256::from(*key), *value)));
        Some(TrieAccount { nonce: info.nonce, balance: info.balance, storage_root, code_hash: KECCAK_EMPTY })
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
    for _ in 0..1 + random.below(20) {
        let address = Address::from_word(B256::from(U256::from(random.below(ACCOUNTS) + 1)));
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
        for _ in 0..random.below(12) {
            let key = U256::from(random.below(SLOTS));
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

/// Heights whose state is kept, and those that can be proved.
const HISTORY: u64 = 20;
const WINDOW: u64 = 10;

/// Reads and proves an account and a slot, at random, at a height whose state was `oracle`.
fn check(reader: &StateReader, height: u64, oracle: &Oracle, random: &mut Random, provable: bool) {
    let address = Address::from_word(B256::from(U256::from(random.below(ACCOUNTS) + 1)));
    let slot = U256::from(random.below(SLOTS));
    let account = oracle.account(&address);
    let value = oracle.0.get(&address).and_then(|(_, slots)| slots.get(&slot)).copied().unwrap_or_default();
    let view = reader.at(height).unwrap().expect("the height is kept");
    assert_eq!(view.account(address).unwrap(), account, "{address} at {height}");
    assert_eq!(view.storage_ref(address, slot).unwrap(), value, "{slot} of {address} at {height}");
    let proof = reader.prove(height, address, &[slot]).unwrap();
    assert_eq!(proof.is_some(), provable, "height {height}");
    let Some(proof) = proof else { return };
    assert_eq!(proof.account, account);
    let leaf = account.map(alloy_rlp::encode);
    verify_proof(oracle.root(), Nibbles::unpack(keccak256(address)), leaf, &proof.proof).unwrap();
    let proved = &proof.slots[0];
    assert_eq!(proved.value, value);
    let leaf = (!value.is_zero()).then(|| alloy_rlp::encode(value));
    let root = account.map_or(alloy_trie::EMPTY_ROOT_HASH, |account| account.storage_root);
    verify_proof(root, Nibbles::unpack(keccak256(slot.to_be_bytes::<32>())), leaf, &proved.proof).unwrap();
}

fn random_chain(backend: Backend, seed: u64, trie_bytes: u64) {
    let config = StateConfig { history: HISTORY, proof_window: WINDOW, trie_bytes };
    let mut random = Random(seed);
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = backend.open(folder.path()).unwrap();
    let mut state = State::open(store.clone(), 0, config).unwrap();
    let mut oracles = vec![Oracle::default()];
    let mut opened = 0;
    for height in 1..100 {
        let mut oracle = oracles[height as usize - 1].clone();
        // A block that is applied and not committed leaves nothing behind.
        if random.below(3) == 0 {
            state.apply(height, &block(&mut random, &mut oracle.clone())).unwrap();
        }
        let changes = block(&mut random, &mut oracle);
        let what_if = state.reader().root_with(height - 1, &changes).unwrap();
        assert_eq!(what_if, Some(oracle.root()), "{backend}, seed {seed}, height {height}: without applying it");
        let applied = state.apply(height, &changes).unwrap();
        assert_eq!(applied.root, oracle.root(), "{backend}, seed {seed}, height {height}");
        let mut batch = applied.batch;
        batch.put(penstock_state::keys::meta("height"), height.to_be_bytes().to_vec());
        state.commit(height, batch).unwrap();
        oracles.push(oracle);
        if random.below(12) == 0 {
            drop(state);
            state = State::open(store.clone(), height, config).unwrap();
            assert_eq!(state.root(), oracles[height as usize].root(), "{backend}, seed {seed}: opened at {height}");
            opened = height;
        }
        for _ in 0..6 {
            let at = height.saturating_sub(random.below(HISTORY + 1));
            let provable = at >= opened && height - at <= WINDOW;
            check(&state.reader(), at, &oracles[at as usize], &mut random, provable);
        }
    }
    // What is older goes, beside the chain.
    let reader = state.reader();
    while reader.first().unwrap() < 99 - HISTORY {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(reader.at(99 - HISTORY).unwrap().is_some());
    assert!(reader.at(98 - HISTORY).unwrap().is_none());
    let mut former = 0;
    let snapshot = store.snapshot();
    snapshot
        .scan(b"H", &mut |key, _| {
            let number = u64::from_be_bytes(*key.last_chunk().unwrap());
            assert!(number > 99 - HISTORY, "the history of block {number} is still here");
            former += 1;
            Ok(true)
        })
        .unwrap();
    assert!(former > 0);
    // The zones are those of a trie that is built anew.
    let zones = |prefix: &[u8]| {
        let mut zones = Vec::new();
        snapshot
            .scan(prefix, &mut |key, record| {
                zones.push((key.to_vec(), record.to_vec()));
                Ok(true)
            })
            .unwrap();
        zones
    };
    let kept = zones(b"y").len();
    assert!(kept > 4, "{kept} zones");
    drop(state);
    let state = State::open(store.clone(), 99, config).unwrap();
    assert_eq!(state.root(), oracles[99].root());
}

#[test]
fn every_root_every_kept_height_and_every_proof_is_that_of_the_definition() {
    for (backend, seeds) in [(Backend::Fjall, 0..4), (Backend::Sled, 4..7)] {
        for seed in seeds {
            // In turn all of the tries fits, nothing does, and some of it.
            random_chain(backend, seed, [1 << 30, 0, 60_000][seed as usize % 3]);
        }
    }
}

#[test]
fn a_contract_that_goes_and_comes_back_in_one_block_has_only_its_new_slots() {
    let folder = tempfile::tempdir().unwrap();
    let store = Backend::Fjall.open(folder.path()).unwrap();
    let mut state = State::open(store, 0, StateConfig::default()).unwrap();
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
    let applied = state.apply(1, &bundle(AccountStatus::InMemoryChange, None, &[(1, 1), (2, 2)], 1)).unwrap();
    state.commit(1, applied.batch).unwrap();
    let changes = bundle(AccountStatus::DestroyedChanged, Some(info(1)), &[(2, 5), (3, 3)], 2);
    let what_if = state.reader().root_with(1, &changes).unwrap();
    let applied = state.apply(2, &changes).unwrap();
    assert_eq!(what_if, Some(applied.root));
    let slots = Slots::from([(U256::from(2), U256::from(5)), (U256::from(3), U256::from(3))]);
    assert_eq!(applied.root, Oracle(BTreeMap::from([(address, (info(2), slots))])).root());
    state.commit(2, applied.batch).unwrap();
    let view = state.head();
    let read = [1, 2, 3].map(|key| view.storage_ref(address, U256::from(key)).unwrap().to::<u64>());
    assert_eq!(read, [0, 5, 3]);
}
