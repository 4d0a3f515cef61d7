//! Who read what: a new head looks only at transactions whose values it changed.

use alloy_primitives::{
    B256,
    map::{HashMap, HashSet},
};
use penstock_evm::{ReadKey, ReadSet};

/// Transactions by what their last simulation read.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    by_key: HashMap<ReadKey, HashSet<B256>>,
}

impl Readers {
    pub(crate) fn add(&mut self, hash: B256, reads: &ReadSet) {
        for key in reads.keys() {
            self.by_key.entry(key).or_default().insert(hash);
        }
    }

    pub(crate) fn remove(&mut self, hash: &B256, reads: &ReadSet) {
        for key in reads.keys() {
            if let Some(readers) = self.by_key.get_mut(&key) {
                readers.remove(hash);
                if readers.is_empty() {
                    self.by_key.remove(&key);
                }
            }
        }
    }

    /// Whoever read one of these.
    pub(crate) fn of(&self, keys: impl Iterator<Item = ReadKey>) -> HashSet<B256> {
        keys.filter_map(|key| self.by_key.get(&key)).flatten().copied().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}
