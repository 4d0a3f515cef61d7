//! The default backend: fjall, a log-structured merge tree in pure Rust.

use core::fmt;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};

use super::{Batch, Durability, Range, Snapshot, Store, StoreError, Visit, failed_write, unseal};

/// Everything is in one keyspace: a block is one batch, and a scan needs one iterator.
const KEYSPACE: &str = "penstock";

/// Memory for blocks of files that were read, in bytes. fjall's own 32 MiB do not hold the indexes of ten million accounts.
const BLOCK_CACHE: u64 = 256 << 20;

/// Threads that write memory out and merge files. Of more than one, fjall 3.1's first spins until the others have merged,
/// which takes a core from the chain. One cannot help itself: if the disk is full while writers wait for it, they wait until
/// the program is ended, which loses nothing.
const WORKERS: usize = 1;

/// A store in a folder.
pub(super) struct FjallStore {
    database: Database,
    keyspace: Keyspace,
    folder: PathBuf,
}

impl fmt::Debug for FjallStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
    pub(super) fn open(folder: &Path) -> Result<Self, StoreError> {
        let database = Database::builder(folder).cache_size(BLOCK_CACHE).worker_threads(WORKERS).open()?;
        let keyspace = database.keyspace(KEYSPACE, KeyspaceCreateOptions::default)?;
        Ok(Self { database, keyspace, folder: folder.to_owned() })
    }
}

impl Store for FjallStore {
    fn snapshot(&self) -> Arc<dyn Snapshot> {
        Arc::new(FjallSnapshot { snapshot: self.database.snapshot(), keyspace: self.keyspace.clone() })
    }

    fn write(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        let mode = match durability {
            Durability::Synced => PersistMode::SyncAll,
            Durability::Relaxed => PersistMode::Buffer,
        };
        let mut write = self.database.batch().durability(Some(mode));
        // All entries of a batch have one sequence number: a key may be in it only once.
        for (key, value) in batch.sealed() {
            match value {
                Some(value) => write.insert(&self.keyspace, key, value),
                None => write.remove(&self.keyspace, key),
            }
        }
        write.commit().map_err(|error| failed_write(&self.folder, error.into()))
    }

    fn disk_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.database.disk_space()?)
    }
}

struct FjallSnapshot {
    snapshot: fjall::Snapshot,
    keyspace: Keyspace,
}

impl Snapshot for FjallSnapshot {
    fn is_frozen(&self) -> bool {
        true
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let sealed = self.snapshot.get(&self.keyspace, key)?;
        sealed.map(|sealed| unseal(key, &sealed).map(<[u8]>::to_vec)).transpose()
    }

    fn scan_sealed(&self, range: Range<'_>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        // fjall panics at a range whose end is before its beginning.
        if range.is_empty() {
            return Ok(());
        }
        let entries = match &range.to {
            Some(to) => self.snapshot.range(&self.keyspace, range.from..to),
            None => self.snapshot.range(&self.keyspace, range.from..),
        };
        for entry in entries {
            let (key, sealed) = entry.into_inner()?;
            if !visit(&key, &sealed)? {
                break;
            }
        }
        Ok(())
    }
}
