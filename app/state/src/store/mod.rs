//! The boundary to the embedded database: atomic, durable batches; reads by key and in order.
//!
//! ```text
//!  Batch ──► Backend::write  (value ‖ CRC-32 of key and value)
//!  get, scan ◄── Backend     (checked; a value that is not what was written is an error, never an answer)
//! ```

mod fjall;
mod range;
mod sled;

use core::{fmt, str::FromStr};
use std::{path::Path, sync::Arc};

use crate::keys;

use fjall::FjallStore;
pub use range::Range;
pub(crate) use range::after;
use sled::SledStore;

/// The storage failed, or holds what cannot be read. The node cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database says so.
    #[error("database: {0}")]
    Database(String),
    /// The state of this height is not kept any more.
    #[error("the state at height {0} is not kept any more")]
    Pruned(u64),
    /// The store is one of another program.
    #[error("the store has layout {found}, and this program has {newest}: {what}", newest = keys::LAYOUT_VERSION)]
    Layout {
        /// The layout that it has.
        found: u32,
        /// What to do.
        what: &'static str,
    },
    /// A value is not what was written under its key.
    #[error("the store is damaged: {what} (`penstock db verify` looks at everything)")]
    Damaged {
        /// Which value, and what is wrong.
        what: String,
    },
}

impl StoreError {
    /// A value that cannot be decoded.
    pub fn damaged(what: impl fmt::Display) -> Self {
        Self::Damaged { what: format!("{what} is unreadable") }
    }

    /// Values that contradict each other.
    pub fn contradiction(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }
}

/// Changes that become visible and durable together.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
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

    /// Number of changes.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether there is no change.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.changes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum()
    }

    /// The last change of each key, in order of the keys, with what is written in place of each value.
    fn sealed(mut self) -> impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)> {
        // Stable: of two changes of one key the later one stays behind the earlier one, and is kept.
        self.changes.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut changes = self.changes.into_iter().peekable();
        core::iter::from_fn(move || {
            let (mut key, mut value) = changes.next()?;
            while let Some(later) = changes.next_if(|(next, _)| *next == key) {
                (key, value) = later;
            }
            let sealed = value.map(|value| seal(&key, value));
            Some((key, sealed))
        })
    }
}

/// How sure a batch is when [`Store::commit`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It survives a power cut.
    Synced,
    /// Nothing of it, or all of it, may be gone after a power cut, together with what was committed later in this way.
    Relaxed,
}

/// An ordered key-value store with atomic batches.
pub trait Store: Send + Sync + fmt::Debug {
    /// What was committed last.
    fn snapshot(&self) -> Arc<dyn Snapshot>;

    /// Writes a batch: all of it or nothing.
    ///
    /// # Errors
    /// When the database fails; then nothing or all of the batch may be there after a restart.
    fn write(&self, batch: Batch, durability: Durability) -> Result<(), StoreError>;

    /// Bytes on the disk.
    ///
    /// # Errors
    /// When the database fails.
    fn disk_bytes(&self) -> Result<u64, StoreError>;

    /// Makes a batch durable; when this returns it survives a power cut.
    ///
    /// # Errors
    /// As [`Self::write`].
    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.write(batch, Durability::Synced)
    }
}

/// A key and its value.
pub(crate) type Record = (Vec<u8>, Vec<u8>);

/// Takes a key and its value; answers whether the scan goes on.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<bool, StoreError> + 'a;

/// A view of a [`Store`].
pub trait Snapshot: Send + Sync {
    /// Whether later commits do not change it. If they do, whatever is read may be as of any later commit, but never
    /// as of the middle of one.
    fn is_frozen(&self) -> bool;

    /// The value of a key.
    ///
    /// # Errors
    /// When the database fails, or the value is not what was written.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Calls `visit` for every key in a range, in order, until it answers `false`.
    ///
    /// # Errors
    /// When the database fails, a value is not what was written, or the first error of `visit`.
    fn scan_range(&self, range: Range<'_>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.scan_sealed(range, &mut |key, sealed| visit(key, unseal(key, sealed)?))
    }

    /// As [`Self::scan_range`], with values as they are on the disk, checksum and all, and unchecked.
    ///
    /// # Errors
    /// When the database fails, or the first error of `visit`.
    fn scan_sealed(&self, range: Range<'_>, visit: &mut Visit<'_>) -> Result<(), StoreError>;
}

impl dyn Snapshot + '_ {
    /// Calls `visit` for every key that begins with `prefix`, in order, until it answers `false`.
    ///
    /// # Errors
    /// As [`Snapshot::scan_range`].
    pub fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.scan_range(Range::of(prefix), visit)
    }

    /// The first key from `from` on that begins with `prefix`, and its value.
    ///
    /// # Errors
    /// As [`Snapshot::scan_range`].
    pub fn first(&self, prefix: &[u8], from: &[u8]) -> Result<Option<Record>, StoreError> {
        let mut found = None;
        self.scan_range(Range::rest(prefix, from), &mut |key, value| {
            found = Some((key.to_vec(), value.to_vec()));
            Ok(false)
        })?;
        Ok(found)
    }

    /// A number of the metadata.
    ///
    /// # Errors
    /// When the database fails or the value is no number.
    pub fn meta_number(&self, name: &str) -> Result<Option<u64>, StoreError> {
        let Some(bytes) = self.get(&keys::meta(name))? else { return Ok(None) };
        let bytes = bytes.try_into().map_err(|_| StoreError::damaged(format_args!("the metadata `{name}`")))?;
        Ok(Some(u64::from_be_bytes(bytes)))
    }
}

/// The version record of a store of layout 1.
const LAYOUT_1: &[u8] = &1_u32.to_be_bytes();

/// Bytes of the checksum behind each value.
const SUM: usize = 4;

fn sum(key: &[u8], value: &[u8]) -> [u8; SUM] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(value);
    hasher.finalize().to_be_bytes()
}

/// What is written under a key.
fn seal(key: &[u8], mut value: Vec<u8>) -> Vec<u8> {
    let sum = sum(key, &value);
    value.extend_from_slice(&sum);
    value
}

/// The value of what was read under a key.
pub(crate) fn unseal<'a>(key: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], StoreError> {
    // Layout 1 had no checksums. Its version has to be read, so that it can be refused by its name.
    if sealed == LAYOUT_1 && key == keys::meta("version") {
        return Ok(sealed);
    }
    let (value, found) = sealed.split_last_chunk::<SUM>().ok_or_else(|| damaged_key(key))?;
    if *found == sum(key, value) { Ok(value) } else { Err(damaged_key(key)) }
}

fn damaged_key(key: &[u8]) -> StoreError {
    StoreError::contradiction(format!("the value of key {} is not what was written", name_of(key)))
}

/// A key as text: its letter, then hexadecimal.
pub(crate) fn name_of(key: &[u8]) -> String {
    match key.split_first() {
        Some((b'm', name)) => format!("m{}", String::from_utf8_lossy(name)),
        Some((letter, rest)) => format!("{}{}", char::from(*letter), alloy_primitives::hex::encode(rest)),
        None => "(empty)".into(),
    }
}

/// Answers whether a store has something, which then has the layout that this program knows.
///
/// # Errors
/// [`StoreError::Layout`], or when the database fails.
pub fn check_layout(store: &dyn Store) -> Result<bool, StoreError> {
    match store.snapshot().get(&keys::meta("version"))? {
        None => Ok(false),
        Some(version) if version == keys::LAYOUT_VERSION.to_be_bytes() => Ok(true),
        Some(version) => {
            let found = version.try_into().map_or(0, u32::from_be_bytes);
            let what = if found < keys::LAYOUT_VERSION {
                "`penstock db migrate` rewrites it"
            } else {
                "use the program that wrote it"
            };
            Err(StoreError::Layout { found, what })
        }
    }
}

/// Room below which a failure is most likely one of room. fjall makes files of 64 MiB in advance.
const LITTLE_ROOM: u64 = 128 << 20;

/// A failed write, with what most likely made it fail: databases say of a full disk whatever they noticed first.
fn failed_write(folder: &Path, error: StoreError) -> StoreError {
    let room = rustix::fs::statvfs(folder).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    match (error, room) {
        (StoreError::Database(what), Ok(room)) if room < LITTLE_ROOM => StoreError::Database(format!(
            "{what}: there are {} MiB left on the disk of {}; give it room and start again, nothing that was committed is lost",
            room >> 20,
            folder.display()
        )),
        (error, _) => error,
    }
}

/// Keys that [`clear`] removes at once.
const CLEAR_STEP: usize = 10_000;

/// Removes everything, in bounded steps, the metadata first: a crash in between leaves a part that is nobody's, which is
/// removed when the store is opened.
///
/// # Errors
/// When the database fails.
pub fn clear(store: &dyn Store) -> Result<(), StoreError> {
    clear_prefix(store, &keys::meta(""))?;
    clear_prefix(store, &[])
}

/// Removes all keys with a prefix, in bounded steps.
///
/// # Errors
/// When the database fails.
pub(crate) fn clear_prefix(store: &dyn Store, prefix: &[u8]) -> Result<(), StoreError> {
    // From where the step before ended: what is removed still lies there for a while.
    let mut from = prefix.to_vec();
    loop {
        let mut batch = Batch::default();
        let mut last = from.clone();
        // Also what is damaged, or has no checksum, goes.
        store.snapshot().scan_sealed(Range::rest(prefix, &from), &mut |key, _| {
            batch.remove(key.to_vec());
            last = key.to_vec();
            Ok(batch.len() < CLEAR_STEP)
        })?;
        if batch.is_empty() {
            return Ok(());
        }
        store.commit(batch)?;
        from = last;
    }
}

/// The databases that a store can be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// A log-structured merge tree. Commits fast, and reads a snapshot of any commit.
    #[default]
    Fjall,
    /// sled 0.34.
    Sled,
}

impl Backend {
    /// Every backend.
    pub const ALL: [Self; 2] = [Self::Fjall, Self::Sled];

    /// Opens the store in `folder`, which is made when it is not there.
    ///
    /// # Errors
    /// When another process has it open, it belongs to another backend, or it cannot be read.
    pub fn open(self, folder: &Path) -> Result<Arc<dyn Store>, StoreError> {
        if let Some(other) = Self::of(folder).filter(|other| *other != self) {
            return Err(StoreError::Database(format!(
                "{} is a store of {other}: set [state] backend = \"{other}\", or take another folder",
                folder.display()
            )));
        }
        Ok(match self {
            Self::Fjall => Arc::new(FjallStore::open(folder)?),
            Self::Sled => Arc::new(SledStore::open(folder)?),
        })
    }

    /// The backend of the store in a folder; `None` when there is none.
    pub fn of(folder: &Path) -> Option<Self> {
        // The files that each of them makes first.
        if folder.join("keyspaces").exists() {
            Some(Self::Fjall)
        } else if folder.join("conf").exists() || folder.join("db").exists() {
            Some(Self::Sled)
        } else {
            None
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Fjall => "fjall",
            Self::Sled => "sled",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|backend| backend.name() == text);
        named.ok_or_else(|| format!("`{text}` is no backend: fjall or sled"))
    }
}
