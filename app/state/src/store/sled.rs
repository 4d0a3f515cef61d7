//! The other backend: sled 0.34. One tree, one batch a block.
//!
//! Its `flush` writes with `sync_file_range`, which leaves the length and the extents of the file to the system: after
//! a power cut all acknowledged batches were gone in 25 of 25 cuts. The `fsync` of its file that [`SledStore`] adds
//! mends that and costs nothing measurable (facts/evm.md, section 3.2).

use core::fmt;
use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use sled::{Config, Db, Mode, Tree};

use super::{Batch, Durability, Range, Snapshot, Store, StoreError, Visit, failed_write, unseal};

/// sled keeps pages in memory without regard to this bound, but for the part that it can: it is kept small.
const CACHE_BYTES: u64 = 64 << 20;

/// A store in a folder.
pub(super) struct SledStore {
    database: Db,
    tree: Tree,
    /// sled's own file, for the `fsync` that it leaves out.
    file: File,
    folder: PathBuf,
}

impl fmt::Debug for SledStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SledStore").finish_non_exhaustive()
    }
}

impl From<sled::Error> for StoreError {
    fn from(error: sled::Error) -> Self {
        Self::Database(error.to_string())
    }
}

impl SledStore {
    /// Opens the store in `folder`, which is made when it is not there.
    ///
    /// # Errors
    /// When another process has it open, or it cannot be read.
    pub(super) fn open(folder: &Path) -> Result<Self, StoreError> {
        let io = |what: &Path, error: std::io::Error| StoreError::Database(format!("{}: {error}", what.display()));
        // Who writes decides when it is written: no thread of sled's does it in between.
        let config =
            Config::new().path(folder).mode(Mode::HighThroughput).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        let database = config.open()?;
        let tree = database.open_tree("penstock")?;
        database.flush()?;
        let path = folder.join("db");
        let file = File::open(&path).map_err(|error| io(&path, error))?;
        file.sync_all().map_err(|error| io(&path, error))?;
        // The names of the files, too, and the folder's own.
        for folder in [Some(folder), folder.parent()].into_iter().flatten() {
            let synced = File::open(folder).and_then(|folder| folder.sync_all());
            synced.map_err(|error| io(folder, error))?;
        }
        Ok(Self { database, tree, file, folder: folder.to_owned() })
    }
}

impl Store for SledStore {
    fn snapshot(&self) -> Arc<dyn Snapshot> {
        Arc::new(SledSnapshot { tree: self.tree.clone() })
    }

    fn write(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        let mut write = sled::Batch::default();
        for (key, value) in batch.sealed() {
            match value {
                Some(value) => write.insert(key, value),
                None => write.remove(key),
            }
        }
        let written = self.tree.apply_batch(write).and_then(|()| {
            if durability == Durability::Synced {
                self.database.flush()?;
                self.file.sync_all()?;
            }
            Ok(())
        });
        written.map_err(|error| failed_write(&self.folder, error.into()))
    }

    fn disk_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.database.size_on_disk()?)
    }
}

/// sled has no snapshots of the past: this is whatever was committed last.
struct SledSnapshot {
    tree: Tree,
}

impl Snapshot for SledSnapshot {
    fn is_frozen(&self) -> bool {
        false
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let sealed = self.tree.get(key)?;
        sealed.map(|sealed| unseal(key, &sealed).map(<[u8]>::to_vec)).transpose()
    }

    fn scan_sealed(&self, range: Range<'_>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        if range.is_empty() {
            return Ok(());
        }
        let entries = match range.to {
            Some(to) => self.tree.range(range.from..to.as_slice()),
            None => self.tree.range(range.from..),
        };
        for entry in entries {
            let (key, sealed) = entry?;
            if !visit(&key, &sealed)? {
                break;
            }
        }
        Ok(())
    }
}
