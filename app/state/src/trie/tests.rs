use std::collections::BTreeMap;

use alloy_primitives::U256;
use alloy_trie::{
    HashBuilder,
    proof::{ProofRetainer, verify_proof},
};
use proptest::prelude::*;

use super::*;

type Map = BTreeMap<B256, Vec<u8>>;

impl Leaves for Map {
    fn under(&self, path: &Nibbles) -> Result<Vec<(B256, Vec<u8>)>, StoreError> {
        let below = self.iter().filter(|(key, _)| Nibbles::unpack(key).starts_with(path));
        Ok(below.map(|(key, value)| (*key, value.clone())).collect())
    }
}

fn oracle(map: &Map) -> B256 {
    let mut builder = HashBuilder::default();
    for (key, value) in map {
        builder.add_leaf(Nibbles::unpack(key), value);
    }
    builder.root()
}

/// The nodes that `HashBuilder` has on the way to a key.
fn oracle_proof(map: &Map, key: B256) -> Vec<alloy_primitives::Bytes> {
    let mut builder = HashBuilder::default().with_proof_retainer(ProofRetainer::new(vec![Nibbles::unpack(key)]));
    for (key, value) in map {
        builder.add_leaf(Nibbles::unpack(key), value);
    }
    if map.is_empty() {
        // geth's, too, has no node then.
        return vec![];
    }
    builder.root();
    let nodes = builder.take_proof_nodes().into_nodes_sorted().into_iter().map(|(_, node)| node);
    // A node of less than 32 bytes is part of the one above it; geth's proofs have it there alone.
    nodes.enumerate().filter(|(index, node)| *index == 0 || node.len() >= 32).map(|(_, node)| node).collect()
}

/// The zones that a set of keys has, by the definition alone: the largest subtries with at most [`ZONE_LEAVES`] leaves, of
/// a trie with more, at the slots of branches.
fn zones_by_definition(map: &Map) -> Vec<Nibbles> {
    fn divide(keys: &[Nibbles], depth: usize, zones: &mut Vec<Nibbles>) {
        if keys.len() as u64 <= ZONE_LEAVES {
            return;
        }
        let common = keys[0].common_prefix_length(&keys[keys.len() - 1]);
        assert!(common >= depth);
        for index in 0..16 {
            let below: Vec<_> = keys.iter().filter(|key| key.get_unchecked(common) == index).copied().collect();
            if below.is_empty() {
                continue;
            }
            if below.len() as u64 <= ZONE_LEAVES {
                zones.push(below[0].slice(..=common));
            } else {
                divide(&below, common + 1, zones);
            }
        }
    }
    let keys: Vec<_> = map.keys().map(Nibbles::unpack).collect();
    let mut zones = Vec::new();
    divide(&keys, 0, &mut zones);
    zones
}

/// Keys that share prefixes of many lengths, some of them nearly to the end.
fn key(n: u16) -> B256 {
    let mut key = B256::ZERO;
    let mixed = u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    key[..8].copy_from_slice(&(mixed & 0x3f00_f00f_0000_00ff).to_be_bytes());
    key[31] = n as u8;
    key
}

#[derive(Debug, Clone)]
enum Step {
    /// Sets (`Some`: a value of this length) or removes keys.
    Change(BTreeMap<u16, Option<u8>>),
    /// Sets this many keys from this one on: enough of them to be set by several threads.
    Many(u16, u16),
    /// Removes this many keys.
    Few(u16, u16),
    /// Removes all keys and sets this many from this one on, in one update: places are emptied and filled again.
    Replace(u16, u16),
    /// Puts zones away.
    Forget(u16),
    /// Starts again from the records.
    Open,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let change = prop::collection::btree_map(0..900u16, prop::option::weighted(0.6, 1..60u8), 1..40);
    let step = prop_oneof![
        6 => change.prop_map(Step::Change),
        1 => (0..900u16, 1..600u16).prop_map(|(from, n)| Step::Many(from, n)),
        1 => (0..900u16, 1..800u16).prop_map(|(from, n)| Step::Few(from, n)),
        2 => (0..900u16, 0..600u16).prop_map(|(from, n)| Step::Replace(from, n)),
        2 => (0..300u16).prop_map(Step::Forget),
        1 => Just(Step::Open),
    ];
    prop::collection::vec(step, 1..14)
}

/// The trie, what the store would have, and the truth.
#[derive(Default)]
struct Subject {
    trie: Trie,
    cache: Cache,
    epoch: u32,
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    map: Map,
}

impl Subject {
    fn change(&mut self, changes: BTreeMap<B256, Option<Vec<u8>>>) {
        let changes: Vec<_> = changes.into_iter().collect();
        self.epoch += 1;
        // An update that is given up leaves nothing behind.
        let given_up = self.trie.clone().update(&changes[..changes.len() / 2], &self.map, self.epoch).unwrap();
        self.epoch += 1;
        drop(given_up);
        let updated = self.trie.clone().update(&changes, &self.map, self.epoch).unwrap();
        self.trie = updated.trie;
        self.cache.note(ZoneChange::places(&updated.zones), self.epoch);
        for zone in updated.zones {
            match zone.record {
                Some(record) => self.records.insert(zone.path.to_vec(), record),
                None => self.records.remove(&zone.path.to_vec()),
            };
        }
        for (key, value) in changes {
            match value {
                Some(value) => self.map.insert(key, value),
                None => self.map.remove(&key),
            };
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Change(keys) => self.change(
                keys.into_iter()
                    .map(|(n, length)| (key(n), length.map(|length| vec![n as u8 | 1; length.into()])))
                    .collect(),
            ),
            Step::Many(from, n) => self.change((from..from + n).map(|n| (key(n), Some(vec![9; 40]))).collect()),
            Step::Few(from, n) => self.change((from..from + n).map(|n| (key(n), None)).collect()),
            Step::Replace(from, n) => {
                let mut changes: BTreeMap<_, _> = self.map.keys().map(|key| (*key, None)).collect();
                changes.extend((from..from + n).map(|n| (key(n), Some(vec![5; 33]))));
                self.change(changes);
            }
            Step::Forget(target) => self.cache.shrink(&mut self.trie, target.into(), self.epoch, usize::MAX),
            Step::Open if self.records.is_empty() => {
                self.trie = Trie::from_leaves(self.map.clone().into_iter().collect()).unwrap();
            }
            Step::Open => {
                let records = self.records.iter().map(|(path, record)| (Nibbles::from_nibbles(path), record.clone()));
                self.trie = Trie::from_zones(records.collect()).unwrap();
                assert_eq!(self.trie.loaded(), 0);
            }
        }
    }

    fn check(&self) {
        assert_eq!(self.trie.root(), oracle(&self.map));
        assert_eq!(self.trie.len(), self.map.len() as u64);
        let zones: Vec<_> = self.records.keys().map(Nibbles::from_nibbles).collect();
        assert_eq!(zones, zones_by_definition(&self.map));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn roots_zones_and_proofs_are_those_of_the_definition_whatever_is_in_memory(steps in steps(), probe in 0..900u16) {
        let mut subject = Subject::default();
        let mut versions = Vec::new();
        for step in steps {
            subject.step(step);
            subject.check();
            let key = key(probe);
            let proof = subject.trie.prove(key, &subject.map).unwrap();
            prop_assert_eq!(&proof, &oracle_proof(&subject.map, key));
            let value = subject.map.get(&key).cloned();
            if let Some(known) = subject.trie.get(key) {
                prop_assert_eq!(known, value.as_deref());
            }
            verify_proof(subject.trie.root(), Nibbles::unpack(key), value, &proof).unwrap();
            versions.push((subject.trie.clone(), subject.map.clone()));
        }
        // Every version is still what it was.
        for (trie, map) in versions {
            prop_assert_eq!(trie.root(), oracle(&map));
            prop_assert_eq!(trie.prove(key(probe), &map).unwrap(), oracle_proof(&map, key(probe)));
        }
    }

    #[test]
    fn a_trie_that_is_built_in_order_has_the_same_root_and_zones(keys in prop::collection::btree_set(any::<u16>(), 0..9_000)) {
        let map: Map = keys.into_iter().map(|n| (keccak256(n.to_be_bytes()), vec![n as u8; 33])).collect();
        let mut builder = TrieBuilder::new(&NoLeaves);
        for (key, value) in &map {
            builder.add(*key, value.clone()).unwrap();
        }
        let (trie, zones) = builder.finish().unwrap();
        prop_assert_eq!(trie.root(), oracle(&map));
        let mut records = BTreeMap::new();
        for zone in zones {
            match zone.record {
                Some(record) => records.insert(zone.path.to_vec(), record),
                None => records.remove(&zone.path.to_vec()),
            };
        }
        let places: Vec<_> = records.keys().map(Nibbles::from_nibbles).collect();
        prop_assert_eq!(places, zones_by_definition(&map));
        prop_assert!(trie.loaded() <= 2 * 4_096 + 32);
    }
}

#[test]
fn leaves_that_are_not_those_of_the_trie_are_found_when_their_zone_is_needed() {
    let mut subject = Subject::default();
    subject.step(Step::Many(0, 600));
    subject.step(Step::Forget(0));
    let (changed, _) = subject.map.iter().nth(77).map(|(key, value)| (*key, value.clone())).unwrap();
    subject.map.insert(changed, vec![1]);
    let error = subject.trie.prove(changed, &subject.map).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    let error = subject.trie.clone().update(&[(changed, None)], &subject.map, 99).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

/// A key whose first nibble is given.
fn under(nibble: u8, n: u16) -> B256 {
    let mut key = keccak256(n.to_be_bytes());
    key[0] = nibble << 4 | key[0] >> 4;
    key
}

#[test]
fn a_place_of_the_root_that_is_emptied_and_filled_again_by_several_threads_has_its_new_zones() {
    // As many keys under nibble 5 after the update as before it, more than a zone has, and none of it.
    for (before, after) in [(3, 3), (3, 60), (1, 1)] {
        for others in [600, 0] {
            let mut subject = Subject::default();
            let mut changes: BTreeMap<_, _> = (0..500).map(|n| (under(n as u8 % 5, n), Some(vec![1; 33]))).collect();
            // The old keys are in front of the new ones: they go first.
            let old = |n: u16| B256::with_last_byte(n as u8) | B256::from(U256::from(5) << 252);
            changes.extend((0..before).map(|n| (old(n), Some(vec![2; 33]))));
            subject.change(changes);
            subject.check();
            let mut changes: BTreeMap<_, _> = subject.map.keys().map(|key| (*key, None)).collect();
            changes.extend((0..others).map(|n| (under(n as u8 % 5, n), Some(vec![3; 33]))));
            changes.extend((0..after).map(|n| (under(5, 1_000 + n), Some(vec![4; 33]))));
            assert!(changes.len() >= PARALLEL_CHANGES);
            subject.change(changes);
            subject.check();
            subject.step(Step::Open);
            subject.check();
        }
    }
}
