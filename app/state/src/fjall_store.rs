//! The default backend: fjall, a log-structured merge tree in pure Rust.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};

use crate::{Batch, Snapshot, Store, StoreError, store::Visit};

/// Everything is in one keyspace: a block is one batch, and a scan needs one iterator.
const KEYSPACE: &str = "penstock";

/// A store in a folder.
pub struct FjallStore {
    database: Database,
    keyspace: Keyspace,
}

impl core::fmt::Debug for FjallStore {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("FjallStore").finish_non_exhaustive()
    }
}

impl From<fjall::Error> for StoreError {
    fn from(error: fjall::Error) -> Self {
        Self::Database(error.to_string())
    }
}

impl FjallStore {
    /// Opens the store in `folder`, which is made when it is not there.
    ///
    /// # Errors
    /// When another process has it open, or it cannot be read.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let database = Database::builder(folder).open()?;
        let keyspace = database.keyspace(KEYSPACE, KeyspaceCreateOptions::default)?;
        Ok(Self { database, keyspace })
    }
}

impl Store for FjallStore {
    fn snapshot(&self) -> Arc<dyn Snapshot> {
        Arc::new(FjallSnapshot { snapshot: self.database.snapshot(), keyspace: self.keyspace.clone() })
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let mut write = self.database.batch().durability(Some(PersistMode::SyncAll));
        // All entries of a batch have one sequence number: a key may be in it only once (its last change).
        let changes: BTreeMap<Vec<u8>, Option<Vec<u8>>> = batch.changes.into_iter().collect();
        for (key, value) in changes {
            match value {
                Some(value) => write.insert(&self.keyspace, key, value),
                None => write.remove(&self.keyspace, key),
            }
        }
        Ok(write.commit()?)
    }
}

struct FjallSnapshot {
    snapshot: fjall::Snapshot,
    keyspace: Keyspace,
}

impl Snapshot for FjallSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.snapshot.get(&self.keyspace, key)?.map(|value| value.to_vec()))
    }

    fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        for entry in self.snapshot.prefix(&self.keyspace, prefix) {
            let (key, value) = entry.into_inner()?;
            if !visit(&key, &value)? {
                break;
            }
        }
        Ok(())
    }
}
