//! Building a trie from leaves in order, in little memory.

use alloy_primitives::B256;

use super::{Cache, Change, Leaves, Trie, ZoneChange};
use crate::StoreError;

/// Leaves that are taken at once.
const STEP: usize = 4_096;

/// A trie that is built leaf by leaf; what is behind the last ones is not in memory.
pub struct TrieBuilder<'a> {
    trie: Trie,
    cache: Cache,
    epoch: u32,
    waiting: Vec<Change>,
    /// Where leaves that were given up are read again; no leaf is, unless they come out of order.
    leaves: &'a dyn Leaves,
    zones: Vec<ZoneChange>,
}

impl core::fmt::Debug for TrieBuilder<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("TrieBuilder").field("trie", &self.trie.len()).finish_non_exhaustive()
    }
}

impl<'a> TrieBuilder<'a> {
    /// Begins with nothing.
    pub fn new(leaves: &'a dyn Leaves) -> Self {
        let (trie, cache) = Default::default();
        Self { trie, cache, epoch: 0, waiting: Vec::new(), leaves, zones: Vec::new() }
    }

    /// Adds a leaf, behind all that were added.
    ///
    /// # Errors
    /// As [`Trie::update`].
    pub fn add(&mut self, key: B256, value: Vec<u8>) -> Result<(), StoreError> {
        self.waiting.push((key, Some(value)));
        if self.waiting.len() >= STEP { self.step() } else { Ok(()) }
    }

    fn step(&mut self) -> Result<(), StoreError> {
        self.epoch += 1;
        let updated = core::mem::take(&mut self.trie).update(&self.waiting, self.leaves, self.epoch)?;
        self.waiting.clear();
        self.trie = updated.trie;
        self.cache.note(ZoneChange::places(&updated.zones), self.epoch);
        // The last zone of the step before may have grown; all others of it are behind.
        self.cache.shrink(&mut self.trie, 0, self.epoch - 1, usize::MAX);
        self.zones.extend(updated.zones);
        Ok(())
    }

    /// Changes of zones since the last call, in order: of two of one place the later one counts.
    pub fn take_zones(&mut self) -> Vec<ZoneChange> {
        core::mem::take(&mut self.zones)
    }

    /// The whole trie; [`Self::take_zones`] is called on what is handed back beside it.
    ///
    /// # Errors
    /// As [`Trie::update`].
    pub fn finish(mut self) -> Result<(Trie, Vec<ZoneChange>), StoreError> {
        self.step()?;
        Ok((self.trie, self.zones))
    }
}
