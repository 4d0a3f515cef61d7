//! The tries in memory: which versions there are, and how long.

use std::collections::{HashMap, VecDeque};

use alloy_primitives::B256;
use alloy_trie::{EMPTY_ROOT_HASH, Nibbles};

use crate::{
    Snapshot, StoreError, View, keys,
    trie::{Cache, Trie},
    view::SlotLeaves,
};

/// Memory of a leaf with its share of the nodes above, about.
const LEAF_BYTES: u64 = 400;

/// Entries of the caches that one commit looks at.
const SHRINK_STEPS: usize = 20_000;

/// Leaves in memory, and the part above the zones in the measure of leaves: a zone has some 15 of them, and takes as much
/// as one while it is away.
fn weight(trie: &Trie) -> u64 {
    trie.loaded() + trie.len() / 16
}

/// Tries by address hash.
pub(crate) type ByAccount<T> = HashMap<B256, T>;

/// The account trie after a block, and the storage tries that the block replaced.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) height: u64,
    pub(crate) accounts: Trie,
    pub(crate) before: ByAccount<Trie>,
}

/// Storage tries that were used.
#[derive(Debug, Default)]
pub(crate) struct StorageTries {
    tries: ByAccount<StorageTrie>,
    used: VecDeque<(u32, B256)>,
    /// One for each trie, and what [`weight`] says of it.
    weight: u64,
}

#[derive(Debug, Default)]
struct StorageTrie {
    trie: Trie,
    cache: Cache,
    epoch: u32,
}

impl StorageTries {
    pub(crate) fn get(&self, address_hash: &B256) -> Option<Trie> {
        self.tries.get(address_hash).map(|stored| stored.trie.clone())
    }

    /// Keeps a trie whose zones at `used` an update used.
    pub(crate) fn put(&mut self, address_hash: B256, trie: Trie, used: impl IntoIterator<Item = Nibbles>, epoch: u32) {
        if trie.is_empty() {
            self.take(&address_hash);
            return;
        }
        let stored = self.tries.entry(address_hash).or_insert_with(|| {
            self.weight += 1;
            StorageTrie::default()
        });
        self.weight = self.weight + weight(&trie) - weight(&stored.trie);
        stored.trie = trie;
        stored.cache.note(used, epoch);
        // Nothing is given up here; but what the cache knows of uses that later ones made void is.
        stored.cache.shrink(&mut stored.trie, u64::MAX, 0, 0);
        stored.epoch = epoch;
        self.used.push_back((epoch, address_hash));
    }

    fn take(&mut self, address_hash: &B256) {
        if let Some(stored) = self.tries.remove(address_hash) {
            self.weight -= 1 + weight(&stored.trie);
        }
    }

    /// Gives up what is unused for longest, until all takes no more than `bytes`. What the update of `epoch` used stays:
    /// a busy contract must not be read anew for every block.
    pub(crate) fn shrink(&mut self, bytes: u64, epoch: u32) {
        let target = bytes / LEAF_BYTES;
        for _ in 0..SHRINK_STEPS {
            if self.weight <= target || self.used.front().is_none_or(|(used, _)| *used >= epoch) {
                break;
            }
            if let Some((used, address_hash)) = self.used.pop_front()
                && self.tries.get(&address_hash).is_some_and(|stored| stored.epoch == used)
            {
                self.take(&address_hash);
            }
        }
        if self.weight > target {
            // One large contract that every block uses: its unused zones go.
            for stored in self.tries.values_mut().filter(|stored| stored.epoch == epoch) {
                let before = weight(&stored.trie);
                let target = stored.trie.loaded().saturating_sub(self.weight.saturating_sub(target));
                stored.cache.shrink(&mut stored.trie, target, epoch - 1, SHRINK_STEPS);
                self.weight -= before - weight(&stored.trie);
            }
        }
        if self.used.len() > 4 * self.tries.len().max(256) {
            self.used.retain(|(used, hash)| self.tries.get(hash).is_some_and(|stored| stored.epoch == *used));
        }
    }

    /// Memory, about.
    pub(crate) fn bytes(&self) -> u64 {
        self.weight * LEAF_BYTES
    }
}

/// Gives up zones of the account trie beyond `bytes`.
pub(crate) fn shrink_accounts(trie: &mut Trie, cache: &mut Cache, bytes: u64, epoch: u32) {
    cache.shrink(trie, bytes / LEAF_BYTES, epoch.saturating_sub(1), SHRINK_STEPS);
}

/// Memory of a trie, about.
pub(crate) fn bytes_of(trie: &Trie) -> u64 {
    weight(trie) * LEAF_BYTES
}

/// The zones in the store of a trie.
pub(crate) fn read_zones(snapshot: &dyn Snapshot, prefix: &[u8]) -> Result<Vec<(Nibbles, Vec<u8>)>, StoreError> {
    let mut zones = Vec::new();
    snapshot.scan(prefix, &mut |key, record| {
        let nibbles = &key[prefix.len()..];
        if nibbles.len() > 64 || nibbles.iter().any(|nibble| *nibble > 15) {
            return Err(StoreError::damaged("the path of a zone"));
        }
        zones.push((Nibbles::from_nibbles(nibbles), record.to_vec()));
        Ok(true)
    })?;
    Ok(zones)
}

/// The storage trie with a known root, from the store. `view` is of the newest height.
pub(crate) fn load_storage(view: &View, address_hash: B256, root: B256) -> Result<Trie, StoreError> {
    if root == EMPTY_ROOT_HASH {
        return Ok(Trie::default());
    }
    let zones = read_zones(view.snapshot(), &keys::storage_zones(address_hash))?;
    let trie = match zones.is_empty() {
        true => {
            use crate::trie::Leaves;
            Trie::from_leaves(SlotLeaves(view, address_hash).under(&Nibbles::default())?)?
        }
        false => Trie::from_zones(zones)?,
    };
    if trie.root() != root {
        return Err(StoreError::contradiction(format!(
            "the slots of the account with hash {address_hash} are not those of its storage root"
        )));
    }
    Ok(trie)
}
