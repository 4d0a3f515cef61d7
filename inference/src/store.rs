//! Models on this machine: a folder of files by content, and the loaded ones within a memory budget.

use std::{
    collections::HashMap,
    fs,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{ContentHash, Model, ModelError, content, onnx};

/// Where a model's file comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// Bytes that are part of the program.
    Embedded(&'static [u8]),
    /// A file, with its external data beside it.
    File(PathBuf),
}

/// Why a model could not be loaded, added or removed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be read or written.
    #[error("{path}: {reason}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
    /// The file's bytes are not those that its hash names.
    #[error(
        "the file has content hash {found}, not {expected}: it has changed (`penstock model add` of the right one mends it)"
    )]
    WrongContent {
        /// The hash that was asked for.
        expected: ContentHash,
        /// The hash of the file.
        found: ContentHash,
    },
    /// The file is no model that the engine runs.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The folder has no such model.
    #[error("there is no model `{0}` here (`penstock model list` names them; of a hash it takes at least six digits)")]
    Unknown(String),
    /// The digits are the first ones of several hashes.
    #[error("`{0}` may be one of several models here (`penstock model list` names them): give more digits")]
    Ambiguous(String),
    /// Nothing can be called so.
    #[error("`{name}` is no name for a model: {reason}")]
    BadName {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The name is another model's.
    #[error("`{name}` is the name of {owner} already")]
    NameTaken {
        /// The name.
        name: String,
        /// Whose it is.
        owner: ContentHash,
    },
}

impl StoreError {
    fn io(path: &Path) -> impl Fn(std::io::Error) -> Self + '_ {
        |reason| Self::Io { path: path.to_owned(), reason }
    }
}

impl ModelSource {
    /// The bytes as they are.
    fn read(&self) -> Result<Bytes, StoreError> {
        match self {
            Self::Embedded(bytes) => Ok((*bytes).into()),
            Self::File(path) => Ok(fs::read(path).map_err(StoreError::io(path))?.into()),
        }
    }

    /// The same with external data pulled in.
    fn one_file(&self, bytes: Bytes) -> Result<Bytes, ModelError> {
        match self {
            Self::Embedded(_) => Ok(bytes),
            Self::File(path) => onnx::one_file(bytes, path.parent().unwrap_or(Path::new("."))),
        }
    }
}

/// Loads a model and verifies that it is the one that `expected` names.
fn load(expected: ContentHash, source: &ModelSource) -> Result<Arc<Model>, StoreError> {
    let mut bytes = source.read()?;
    let mut found = ContentHash::of(&bytes);
    if found != expected {
        // Its hash may be that of the one file that it makes with its external data. What is no model has its own.
        if let Ok(one) = source.one_file(bytes.clone()) {
            (found, bytes) = (ContentHash::of(&one), one);
        }
    }
    if found != expected {
        return Err(StoreError::WrongContent { expected, found });
    }
    Ok(Arc::new(Model::load(bytes)?))
}

/// The models that this process runs. All are loaded once at the start, which verifies them; those that were not used for
/// longest make room when they exceed the budget, and are loaded, and verified, again when they are asked for.
#[derive(Debug)]
pub struct ModelStore {
    budget: u64,
    sources: HashMap<ContentHash, ModelSource>,
    warm: Mutex<Warm>,
    /// Whether a model takes more memory than when there was last room made.
    grown: AtomicBool,
}

#[derive(Debug, Default)]
struct Warm {
    models: HashMap<ContentHash, (Arc<Model>, u64)>,
    clock: u64,
}

impl Default for ModelStore {
    fn default() -> Self {
        Self::with_budget(u64::MAX)
    }
}

impl ModelStore {
    /// A store that keeps models of so many bytes in memory, and always the one that was used last.
    pub fn with_budget(budget: u64) -> Self {
        Self { budget, sources: HashMap::new(), warm: Mutex::default(), grown: AtomicBool::new(false) }
    }

    /// Loads a model and verifies that it is the one that `expected` names.
    ///
    /// # Errors
    /// [`StoreError`]; the store is unchanged.
    pub fn load(&mut self, expected: ContentHash, source: &ModelSource) -> Result<Arc<Model>, StoreError> {
        if let Some(model) = self.warm(&expected) {
            return Ok(model);
        }
        let model = load(expected, source)?;
        self.sources.insert(expected, source.clone());
        self.keep(expected, &model);
        Ok(model)
    }

    /// Whether the model can be had.
    pub fn has(&self, hash: &ContentHash) -> bool {
        self.sources.contains_key(hash)
    }

    /// The model if it is in memory: for those who must not wait for a disk.
    pub fn warm(&self, hash: &ContentHash) -> Option<Arc<Model>> {
        let mut warm = self.warm.lock();
        warm.clock += 1;
        let clock = warm.clock;
        let (model, used) = warm.models.get_mut(hash)?;
        *used = clock;
        Some(model.clone())
    }

    /// The model, read from its file again if it is not in memory. `None` if this machine has it not, or not any more.
    pub fn get(&self, hash: &ContentHash) -> Option<Arc<Model>> {
        if let Some(model) = self.warm(hash) {
            return Some(model);
        }
        match load(*hash, self.sources.get(hash)?) {
            Ok(model) => {
                self.keep(*hash, &model);
                Some(model)
            }
            Err(error) => {
                tracing::error!(model = %hash, %error, "a model that was here at the start cannot be read any more");
                None
            }
        }
    }

    fn keep(&self, hash: ContentHash, model: &Arc<Model>) {
        let mut warm = self.warm.lock();
        warm.clock += 1;
        let clock = warm.clock;
        warm.models.insert(hash, (model.clone(), clock));
        let gone = warm.shrink(self.budget);
        // Nobody waits for the lock while memory is given back.
        drop(warm);
        gone.give_back();
    }

    /// Remembers that a model has grown, by what it keeps of the shapes that it was run with, until [`Self::make_room`].
    pub(crate) fn note_growth(&self, model: &Model) {
        if model.has_grown() {
            self.grown.store(true, Ordering::Relaxed);
        }
    }

    /// Lets models go for those that have grown.
    pub(crate) fn make_room(&self) {
        if self.grown.load(Ordering::Relaxed) && self.grown.swap(false, Ordering::Relaxed) {
            let gone = self.warm.lock().shrink(self.budget);
            gone.give_back();
        }
    }

    /// Models in memory, and the bytes that they take.
    pub fn in_memory(&self) -> (usize, u64) {
        let warm = self.warm.lock();
        (warm.models.len(), warm.bytes())
    }
}

/// What is no longer kept.
#[derive(Debug, Default)]
struct Gone {
    models: Vec<Arc<Model>>,
    /// The model that stays, but not what it keeps beside itself.
    plans_of: Option<Arc<Model>>,
}

impl Gone {
    /// Which may take long: not under a lock.
    fn give_back(self) {
        drop(self.models);
        if let Some(model) = self.plans_of {
            model.forget_plans();
        }
    }
}

impl Warm {
    /// Takes models away until the others fit, and of the last one what it keeps beside itself.
    fn shrink(&mut self, budget: u64) -> Gone {
        let mut gone = Gone::default();
        while self.bytes() > budget {
            let oldest = self.models.iter().min_by_key(|(_, (_, used))| *used);
            let Some((hash, model)) = oldest.map(|(hash, (model, _))| (*hash, model.clone())) else { break };
            if self.models.len() == 1 {
                gone.plans_of = Some(model);
                break;
            }
            self.models.remove(&hash);
            gone.models.push(model);
        }
        gone
    }

    fn bytes(&self) -> u64 {
        self.models.values().map(|(model, _)| model.memory_bytes()).fold(0, u64::saturating_add)
    }
}

/// What the folder remembers of a model, beside its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredModel {
    /// SHA-256 of the file.
    pub hash: ContentHash,
    /// Bytes of the file.
    pub bytes: u64,
    /// IPFS CIDs, names that were given (a base64url blob id, say), and the name of the file that it came from.
    pub names: Vec<String>,
}

/// The longest name that a model may be given.
const MAX_NAME_BYTES: usize = 256;
/// How the names of files end that are being written.
const PARTIAL: &str = "partial";

/// A folder of models by content: `<sha256>.onnx`, with a `<sha256>.json` of names beside it.
#[derive(Debug, Clone)]
pub struct ModelFolder(PathBuf);

impl ModelFolder {
    /// The folder, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    fn file(&self, hash: &ContentHash) -> PathBuf {
        self.0.join(format!("{}.onnx", &hash.to_string()[2..]))
    }

    fn record(&self, hash: &ContentHash) -> PathBuf {
        self.0.join(format!("{}.json", &hash.to_string()[2..]))
    }

    /// Holds back whoever else adds and removes, other processes too, until it is dropped; and clears what one that was killed
    /// has left.
    fn lock(&self) -> Result<fs::File, StoreError> {
        fs::create_dir_all(&self.0).map_err(StoreError::io(&self.0))?;
        let path = self.0.join(".lock");
        let file = fs::OpenOptions::new().create(true).append(true).open(&path).map_err(StoreError::io(&path))?;
        file.lock().map_err(StoreError::io(&path))?;
        for entry in fs::read_dir(&self.0).map_err(StoreError::io(&self.0))?.flatten() {
            if entry.path().extension().is_some_and(|extension| extension == PARTIAL) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(file)
    }

    /// The file of a model, if it is here. Whoever loads it verifies its content.
    pub fn path(&self, hash: &ContentHash) -> Option<PathBuf> {
        Some(self.file(hash)).filter(|path| path.is_file())
    }

    /// Adds a model as one file, after checking that the engine runs it. Adding it again adds names.
    ///
    /// # Errors
    /// [`StoreError`]; the folder is unchanged.
    pub fn add(&self, path: &Path, names: &[String]) -> Result<(StoredModel, Model), StoreError> {
        let source = ModelSource::File(path.to_owned());
        let bytes = source.one_file(source.read()?)?;
        let model = Model::load(bytes.clone())?;
        let hash = model.hash();
        names.iter().try_for_each(|name| check_name(name))?;
        let _lock = self.lock()?;
        let known = self.list()?;
        let mut stored = known.iter().find(|stored| stored.hash == hash).cloned().unwrap_or_else(|| StoredModel {
            hash,
            bytes: bytes.len() as u64,
            names: vec![content::cid_v0(&bytes), content::cid_v1(&bytes)],
        });
        for name in names {
            if let Some(other) = known.iter().find(|other| other.hash != hash && other.names.contains(name)) {
                return Err(StoreError::NameTaken { name: name.clone(), owner: other.hash });
            }
            if !stored.names.contains(name) {
                stored.names.push(name.clone());
            }
        }
        // Whole or not at all, whenever the machine stops: the record comes last and is what counts.
        write_whole(&self.file(&hash), &bytes)?;
        let record = serde_json::to_vec_pretty(&stored).unwrap_or_default();
        write_whole(&self.record(&hash), &record)?;
        Ok((stored, model))
    }

    /// The models, by hash.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the folder cannot be read.
    pub fn list(&self) -> Result<Vec<StoredModel>, StoreError> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(vec![]),
            Err(error) => return Err(StoreError::io(&self.0)(error)),
        };
        let mut models = Vec::new();
        for entry in entries {
            let path = entry.map_err(StoreError::io(&self.0))?.path();
            if path.extension().is_none_or(|extension| extension != "json") || path.is_dir() {
                continue;
            }
            let text = match fs::read(&path) {
                // Removed in the meantime.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                text => text.map_err(StoreError::io(&path))?,
            };
            match serde_json::from_slice::<StoredModel>(&text) {
                Ok(stored) => models.push(stored),
                Err(error) => tracing::warn!(
                    path = %path.display(), %error,
                    "not a record of a model: `penstock model add` of its file writes it anew"
                ),
            }
        }
        models.sort_by_key(|stored| stored.hash);
        Ok(models)
    }

    /// The model of a name: its hash (with or without 0x, or six or more of its first digits), a CID, or a name that was given.
    /// What follows from the content comes before what somebody has called it.
    ///
    /// # Errors
    /// [`StoreError`] when there is none, or the digits are those of several.
    pub fn find(&self, name: &str) -> Result<StoredModel, StoreError> {
        let models = self.list()?;
        let digits = name.strip_prefix("0x").unwrap_or(name).to_lowercase();
        let cid = name.strip_prefix("ipfs://").unwrap_or(name);
        let whole = models.iter().find(|stored| stored.hash.to_string()[2..] == digits);
        let whole = whole.or_else(|| models.iter().find(|stored| stored.cids().iter().any(|own| own == cid)));
        if let Some(stored) = whole.or_else(|| models.iter().find(|stored| stored.names.iter().any(|n| n == name))) {
            return Ok(stored.clone());
        }
        let mut found =
            models.iter().filter(|stored| digits.len() >= 6 && stored.hash.to_string()[2..].starts_with(&digits));
        match (found.next(), found.next()) {
            (Some(stored), None) => Ok(stored.clone()),
            (Some(_), Some(_)) => Err(StoreError::Ambiguous(name.to_owned())),
            _ => Err(StoreError::Unknown(name.to_owned())),
        }
    }

    /// Loads a model of the folder and verifies its content.
    ///
    /// # Errors
    /// [`StoreError`] when it is not there, or not what it was.
    pub fn load(&self, name: &str) -> Result<Arc<Model>, StoreError> {
        let stored = self.find(name)?;
        load(stored.hash, &ModelSource::File(self.file(&stored.hash)))
    }

    /// Removes a model.
    ///
    /// # Errors
    /// [`StoreError`] when it is not there or cannot be removed.
    pub fn remove(&self, name: &str) -> Result<StoredModel, StoreError> {
        let _lock = self.lock()?;
        let stored = self.find(name)?;
        // The record is what counts.
        for path in [self.record(&stored.hash), self.file(&stored.hash)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(StoreError::io(&path)(error)),
                _ => (),
            }
        }
        Ok(stored)
    }
}

impl StoredModel {
    /// The CIDs of the content, which come first among the names.
    fn cids(&self) -> &[String] {
        &self.names[..self.names.len().min(2)]
    }
}

/// Refuses a name that nobody could type, would break a list, or could be taken for a hash.
fn check_name(name: &str) -> Result<(), StoreError> {
    let digits = name.strip_prefix("0x").unwrap_or(name);
    let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.len() > MAX_NAME_BYTES {
        "it is longer than 256 bytes"
    } else if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        "it has a space or a control character"
    } else if hex && (name.starts_with("0x") || digits.len() == 64) {
        "it would be taken for a hash"
    } else {
        return Ok(());
    };
    Err(StoreError::BadName { name: name.escape_default().to_string(), reason })
}

/// Writes a file under another name first, to disk, and then gives it its name.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let partial = path.with_extension(PARTIAL);
    let write = || -> std::io::Result<()> {
        let mut file = fs::File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&partial);
        StoreError::io(path)(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic;

    #[test]
    fn a_folder_adds_finds_verifies_and_removes() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("some.onnx");
        fs::write(&source, synthetic::wide_mlp(1, 1)).unwrap();
        let models = ModelFolder::new(folder.path().join("models"));
        assert_eq!(models.list().unwrap(), []);
        let (stored, model) = models.add(&source, &["a-name".to_owned()]).unwrap();
        let (again, _) = models.add(&source, &["another".to_owned()]).unwrap();
        assert_eq!(again.names.len(), stored.names.len() + 1);
        let hash = model.hash().to_string();
        for name in [hash.as_str(), &hash[2..], &hash[..12], "a-name", "another", &again.names[0], &again.names[1]] {
            assert_eq!(models.find(name).unwrap(), again, "{name}");
            assert_eq!(models.load(name).unwrap().hash(), model.hash());
        }
        assert!(matches!(models.find("0x"), Err(StoreError::Unknown(_))));
        let other = folder.path().join("other.onnx");
        fs::write(&other, synthetic::wide_mlp(2, 1)).unwrap();
        assert!(matches!(models.add(&other, &["a-name".to_owned()]), Err(StoreError::NameTaken { .. })));
        // What follows from the content comes before what somebody has called it.
        let (own, cid) = (models.find("a-name").unwrap().hash.to_string(), again.names[0].clone());
        for bad in ["", "two words", "new\nline", "0x27a8", &own, &own[2..], &"n".repeat(300)] {
            assert!(matches!(models.add(&other, &[bad.to_owned()]), Err(StoreError::BadName { .. })), "{bad:?}");
        }
        models.remove("a-name").unwrap();
        let called_like_it = models.add(&other, std::slice::from_ref(&cid)).unwrap().0;
        assert_eq!(models.find(&cid).unwrap(), called_like_it);
        let again = models.add(&source, &["a-name".to_owned()]).unwrap().0;
        assert_eq!(models.find(&format!("ipfs://{cid}")).unwrap(), again);
        models.remove(&called_like_it.hash.to_string()).unwrap();
        // One byte that changed is noticed.
        let path = models.path(&model.hash()).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[100] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(matches!(models.load("a-name"), Err(StoreError::WrongContent { .. })));
        // Its file gone, too; and what a process that was killed has left.
        fs::remove_file(&path).unwrap();
        let left = path.with_extension(PARTIAL);
        fs::write(&left, b"half").unwrap();
        models.remove("a-name").unwrap();
        assert!(!left.exists());
        fs::create_dir(folder.path().join("models/folder.json")).unwrap();
        assert_eq!(models.list().unwrap(), []);
        assert!(matches!(models.remove("a-name"), Err(StoreError::Unknown(_))));
    }

    #[test]
    fn who_add_at_the_same_time_lose_no_names() {
        let folder = tempfile::tempdir().unwrap();
        let models = ModelFolder::new(folder.path().join("models"));
        let source = |rows: u32| {
            let path = folder.path().join(format!("{rows}.onnx"));
            fs::write(&path, synthetic::wide_mlp(rows, 1)).unwrap();
            path
        };
        let same: Vec<PathBuf> = (0..6).map(|_| source(1)).collect();
        let others: Vec<PathBuf> = (2..6).map(source).collect();
        std::thread::scope(|scope| {
            for (index, path) in same.iter().enumerate() {
                let models = &models;
                scope.spawn(move || models.add(path, &[format!("n{index}")]).unwrap());
            }
        });
        let stored = models.list().unwrap();
        assert!((0..6).all(|index| stored[0].names.contains(&format!("n{index}"))), "{stored:?}");
        let taken = std::thread::scope(|scope| {
            let threads: Vec<_> = others
                .iter()
                .map(|path| {
                    let models = &models;
                    scope.spawn(move || models.add(path, &["same".to_owned()]).is_ok())
                })
                .collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).filter(|added| *added).count()
        });
        assert_eq!(taken, 1, "a name is one model's");
    }

    #[test]
    fn models_beyond_the_budget_leave_and_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut hashes = Vec::new();
        let mut store = ModelStore::with_budget(15 << 20);
        for rows in 1..=3 {
            let bytes = synthetic::wide_mlp(rows, 1);
            let path = folder.path().join(format!("{rows}.onnx"));
            fs::write(&path, &bytes).unwrap();
            hashes.push(ContentHash::of(&bytes));
            store.load(hashes[rows as usize - 1], &ModelSource::File(path)).unwrap();
        }
        assert!(store.in_memory().0 < 3, "{:?}", store.in_memory());
        assert!(store.warm(&hashes[0]).is_none() && store.warm(&hashes[2]).is_some());
        assert!(store.get(&hashes[0]).is_some() && store.warm(&hashes[0]).is_some());
        // Its file is gone: what is in memory stays, what is not is missed.
        (1..=3).for_each(|rows| fs::remove_file(folder.path().join(format!("{rows}.onnx"))).unwrap());
        assert!(store.get(&hashes[0]).is_some());
        assert!(hashes.iter().filter(|hash| store.get(hash).is_none()).count() >= 1);
    }
}
