//! The boundary to the embedded database.

use std::sync::Arc;

/// The storage failed, or holds what cannot be read. The node cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database says so.
    #[error("database: {0}")]
    Database(String),
    /// A value is not what was written under its key.
    #[error("the store is damaged: {what} is unreadable")]
    Damaged {
        /// Which value.
        what: String,
    },
}

impl StoreError {
    /// A value that cannot be decoded.
    pub fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }
}

/// Changes that become visible and durable together.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub(crate) changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Batch {
    /// Sets a key.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.changes.push((key, Some(value)));
    }

    /// Removes a key.
    pub fn remove(&mut self, key: Vec<u8>) {
        self.changes.push((key, None));
    }
}

/// An ordered key-value store with atomic, durable batches.
pub trait Store: Send + Sync + core::fmt::Debug {
    /// What was committed last, unchanged by later commits.
    fn snapshot(&self) -> Arc<dyn Snapshot>;

    /// Makes a batch durable; when this returns it survives a power cut.
    ///
    /// # Errors
    /// When the database fails; then nothing or all of the batch may be there after a restart.
    fn commit(&self, batch: Batch) -> Result<(), StoreError>;
}

/// Takes a key and its value; answers whether the scan goes on.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<bool, StoreError> + 'a;

/// A consistent view of a [`Store`].
pub trait Snapshot: Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    /// When the database fails.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Calls `visit` for every key that begins with `prefix`, in order, until it answers `false`.
    ///
    /// # Errors
    /// When the database fails, or the first error of `visit`.
    fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError>;
}

/// Keys that [`clear`] removes at once.
const CLEAR_STEP: usize = 10_000;

/// Removes everything, in bounded steps, the metadata first: a crash in between leaves a part that is nobody's, which is
/// removed when the store is opened.
///
/// # Errors
/// When the database fails.
pub fn clear(store: &dyn Store) -> Result<(), StoreError> {
    clear_prefix(store, &crate::keys::meta(""))?;
    clear_prefix(store, &[])
}

fn clear_prefix(store: &dyn Store, prefix: &[u8]) -> Result<(), StoreError> {
    loop {
        let mut batch = Batch::default();
        store.snapshot().scan(prefix, &mut |key, _| {
            batch.remove(key.to_vec());
            Ok(batch.changes.len() < CLEAR_STEP)
        })?;
        if batch.changes.is_empty() {
            return Ok(());
        }
        store.commit(batch)?;
    }
}
