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
use penstock_state::{Backend, Fetcher, State, StateConfig, StateReader, Store};
use proptest::{collection::vec, prelude::*};
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

/// What happens to one account in a block.
#[derive(Debug, Clone)]
enum Change {
    /// It goes, if it was there.
    Remove,
    Write {
        nonces: u64,
        balance: u64,
        slots: Vec<(u64, u64)>,
    },
}

/// By the number of the account; what comes second to one account in a block is left out.
type Changes = Vec<(u64, Change)>;

/// Reads and proves an account and a slot some blocks back.
#[derive(Debug, Clone)]
struct Look {
    back: u64,
    account: u64,
    slot: u64,
}

#[derive(Debug, Clone)]
struct Step {
    /// A block that is applied and not committed before it.
    abandoned: Option<Changes>,
    /// Whether the blocks are read ahead, and whether that is waited for.
    expected: Option<bool>,
    changes: Changes,
    /// Whether the state is opened anew after it.
    reopens: bool,
    looks: Vec<Look>,
}

fn changes() -> impl Strategy<Value = Changes> {
    let value = prop_oneof![1 => Just(0), 2 => 1..u64::MAX];
    let slots = vec((0..SLOTS, value), 0..12);
    let write = (1..4_u64, 0..1_u64 << 40, slots);
    let write = write.prop_map(|(nonces, balance, slots)| Change::Write { nonces, balance, slots });
    vec((0..ACCOUNTS, prop_oneof![1 => Just(Change::Remove), 5 => write]), 1..20)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let look = (0..=HISTORY, 0..ACCOUNTS, 0..SLOTS).prop_map(|(back, account, slot)| Look { back, account, slot });
    let abandoned = proptest::option::weighted(0.3, changes());
    let expected = proptest::option::of(proptest::bool::ANY);
    let step = (abandoned, expected, changes(), proptest::bool::weighted(0.08), vec(look, 6));
    let step = step.prop_map(|(abandoned, expected, changes, reopens, looks)| Step {
        abandoned,
        expected,
        changes,
        reopens,
        looks,
    });
    vec(step, 1..100)
}

fn address(account: u64) -> Address {
    Address::from_word(B256::from(U256::from(account + 1)))
}

/// The changes as the executor gives them, made in the oracle, too.
fn block(changes: &Changes, oracle: &mut Oracle) -> BundleState {
    let mut bundle = BundleState::default();
    for (account, change) in changes {
        let address = address(*account);
        if bundle.state.contains_key(&address) {
            continue;
        }
        let before = oracle.0.get(&address).cloned();
        let original_info = before.as_ref().map(|(info, _)| info.clone());
        let Change::Write { nonces, balance, slots: written } = change else {
            if before.is_some() {
                let status = AccountStatus::Destroyed;
                let account = BundleAccount { info: None, original_info, storage: Default::default(), status };
                bundle.state.insert(address, account);
                oracle.0.remove(&address);
            }
            continue;
        };
        let (mut info, original) = before.unwrap_or_default();
        let mut slots = original.clone();
        info.nonce += nonces;
        info.balance = U256::from(*balance);
        let mut storage = revm::primitives::HashMap::default();
        for (key, value) in written {
            let (key, new) = (U256::from(*key), U256::from(*value));
            // The value before the block, also when the slot is written twice.
            let old = original.get(&key).copied().unwrap_or_default();
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

/// Looks at a height whose state was `oracle`.
fn check(reader: &StateReader, height: u64, oracle: &Oracle, look: &Look, provable: bool) {
    let (address, slot) = (address(look.account), U256::from(look.slot));
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

fn run(backend: Backend, trie_bytes: u64, steps: &[Step]) {
    let config = StateConfig { history: HISTORY, proof_window: WINDOW, trie_bytes };
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = backend.open(folder.path()).unwrap();
    let mut state = State::open(store.clone(), 0, config).unwrap();
    let mut fetcher = Fetcher::start(state.reader()).unwrap();
    let mut oracles = vec![Oracle::default()];
    let (mut opened, mut height) = (0, 0);
    for (index, step) in steps.iter().enumerate() {
        height += 1;
        let mut oracle = oracles[height as usize - 1].clone();
        // A block that is applied and not committed leaves nothing behind.
        if let Some(abandoned) = &step.abandoned {
            let abandoned = block(abandoned, &mut oracle.clone());
            if step.expected.is_some() {
                fetcher.expect(&abandoned);
            }
            state.apply(height, &abandoned).unwrap();
        }
        let changes = block(&step.changes, &mut oracle);
        if let Some(waits) = step.expected {
            fetcher.expect(&changes);
            if waits {
                // It ends when it is done.
                drop(fetcher);
                fetcher = Fetcher::start(state.reader()).unwrap();
            }
        }
        let what_if = state.reader().root_with(height - 1, &changes).unwrap();
        assert_eq!(what_if, Some(oracle.root()), "{backend}, height {height}: without applying it");
        let applied = state.apply(height, &changes).unwrap();
        assert_eq!(applied.root, oracle.root(), "{backend}, height {height}");
        let mut batch = applied.batch;
        batch.put(penstock_state::keys::meta("height"), height.to_be_bytes().to_vec());
        state.commit(height, batch).unwrap();
        oracles.push(oracle);
        // Not after the last one: old history goes with the next block then, and there is none.
        if step.reopens && index + 1 < steps.len() {
            drop((state, fetcher));
            state = State::open(store.clone(), height, config).unwrap();
            fetcher = Fetcher::start(state.reader()).unwrap();
            assert_eq!(state.root(), oracles[height as usize].root(), "{backend}: opened at {height}");
            opened = height;
        }
        for look in &step.looks {
            let at = height.saturating_sub(look.back);
            let provable = at >= opened && height - at <= WINDOW;
            check(&state.reader(), at, &oracles[at as usize], look, provable);
        }
    }
    // What is older goes, beside the chain.
    let reader = state.reader();
    let first = height.saturating_sub(HISTORY);
    while reader.first().unwrap() < first {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(reader.at(first).unwrap().is_some());
    assert!(first == 0 || reader.at(first - 1).unwrap().is_none());
    store
        .snapshot()
        .scan(b"H", &mut |key, _| {
            let number = u64::from_be_bytes(*key.last_chunk().unwrap());
            assert!(number > first, "the history of block {number} is still here");
            Ok(true)
        })
        .unwrap();
    drop((reader, state));
    let state = State::open(store, height, config).unwrap();
    assert_eq!(state.root(), oracles[height as usize].root());
}

/// All of the tries fits, nothing does, and some of it.
fn trie_bytes() -> impl Strategy<Value = u64> {
    prop_oneof![Just(1 << 30), Just(0), Just(60_000)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, ..ProptestConfig::default() })]

    #[test]
    fn every_root_every_kept_height_and_every_proof_is_that_of_the_definition(
        backend in prop_oneof![2 => Just(Backend::Fjall), 1 => Just(Backend::Sled)],
        trie_bytes in trie_bytes(),
        steps in steps(),
    ) {
        run(backend, trie_bytes, &steps);
    }
}

#[test]
fn a_trie_of_some_size_is_kept_in_zones() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Backend::Fjall.open(folder.path()).unwrap();
    let mut state = State::open(store.clone(), 0, StateConfig::default()).unwrap();
    let slots: Vec<_> = (0..SLOTS).map(|slot| (slot, slot + 1)).collect();
    let write = Change::Write { nonces: 1, balance: 1, slots };
    let changes = (0..ACCOUNTS).map(|account| (account, write.clone())).collect();
    let applied = state.apply(1, &block(&changes, &mut Oracle::default())).unwrap();
    state.commit(1, applied.batch).unwrap();
    let mut zones = 0;
    let count = &mut |_: &[u8], _: &[u8]| {
        zones += 1;
        Ok(true)
    };
    store.snapshot().scan(b"y", count).unwrap();
    assert!(zones > 4, "{zones} zones");
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
