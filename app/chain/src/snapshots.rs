//! Snapshots on the disk, for peers that join by state sync. Made on a thread of their own from a view of the state:
//! the chain goes on meanwhile.
//!
//! ```text
//!  FOLDER/1000/manifest   SHA-256 of each chunk
//!  FOLDER/1000/0, 1, …    chunks
//!  FOLDER/making          the next one; renamed when it is whole
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use metrics::{counter, gauge, histogram};
use parking_lot::Mutex;
use penstock_abci::messages::Snapshot;
use penstock_state::{StoreError, View, write_snapshot};
use prost::Message;
use sha2::{Digest, Sha256};
use tracing::{info, warn};

/// The format of `penstock_state::write_snapshot`. A node refuses other ones.
pub(crate) const FORMAT: u32 = 2;

/// Bytes of a chunk, less than one record over. CometBFT's limit is 16 MB, its advice 10 MB.
const CHUNK_BYTES: usize = 8 << 20;

/// A snapshot of which a peer fetched a part within this time is not removed: CometBFT never gives up one that it has
/// begun.
const SERVED_GRACE: Duration = Duration::from_secs(60);

/// When and where snapshots are made.
#[derive(Debug, Clone)]
pub struct SnapshotConfig {
    /// The folder; `None`: no snapshots.
    pub folder: Option<PathBuf>,
    /// One at every multiple of this height; 0: none are made. Equal on all nodes, so that a
    /// peer finds one snapshot in several places.
    pub interval: u64,
    /// How many are kept. They should be there for longer than a peer takes to find and fetch one.
    pub keep: usize,
}

impl Default for SnapshotConfig {
    fn default() -> Self {
        Self { folder: None, interval: 1_000, keep: 2 }
    }
}

/// What names a snapshot and lets every chunk be checked: `metadata` of CometBFT's `Snapshot`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Manifest {
    #[prost(uint64, tag = "1")]
    pub(crate) height: u64,
    /// SHA-256 of each chunk.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub(crate) chunks: Vec<Vec<u8>>,
    /// [`FORMAT`].
    #[prost(uint32, tag = "3")]
    pub(crate) format: u32,
}

impl Manifest {
    fn snapshot(&self) -> Snapshot {
        let metadata = self.encode_to_vec();
        Snapshot {
            height: self.height,
            format: FORMAT,
            chunks: self.chunks.len() as u32,
            hash: Sha256::digest(&metadata).to_vec().into(),
            metadata: metadata.into(),
        }
    }
}

/// Why a snapshot could not be made.
#[derive(Debug, thiserror::Error)]
enum MakeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
}

/// A snapshot on the disk.
#[derive(Debug)]
struct Kept {
    manifest: Manifest,
    /// When a part of it was given to a peer last.
    served: Option<Instant>,
}

/// Takes the oldest ones out that are too many and that nobody is fetching; of those, as many as are kept anyway
/// stay at most.
fn surplus(kept: &mut Vec<Kept>, keep: usize) -> Vec<Kept> {
    let count = kept.len();
    let mut go = Vec::new();
    let mut stay = Vec::with_capacity(count);
    for (index, old) in core::mem::take(kept).into_iter().enumerate() {
        let newer = count - 1 - index;
        let is_fetched = old.served.is_some_and(|at| at.elapsed() < SERVED_GRACE);
        let stays = newer < keep || (is_fetched && newer < 2 * keep);
        if stays { stay.push(old) } else { go.push(old) }
    }
    *kept = stay;
    go
}

/// The snapshots of a node, in order of height.
#[derive(Debug)]
pub(crate) struct Snapshots {
    config: SnapshotConfig,
    kept: Arc<Mutex<Vec<Kept>>>,
    jobs: Option<mpsc::SyncSender<View>>,
}

impl Snapshots {
    /// Finds what is on the disk, and starts the thread.
    pub(crate) fn open(config: SnapshotConfig) -> io::Result<Self> {
        let kept: Arc<Mutex<Vec<Kept>>> = Arc::default();
        let Some(folder) = config.folder.clone() else { return Ok(Self { config, kept, jobs: None }) };
        *kept.lock() = read_manifests(&folder);
        // One waits at most: each holds the state of its height in the database.
        let (jobs, queue) = mpsc::sync_channel::<View>(1);
        let (of_thread, keep) = (kept.clone(), config.keep.max(1));
        thread::Builder::new().name("snapshots".into()).spawn(move || {
            for view in queue {
                let (height, begin) = (view.height(), Instant::now());
                match make(&folder, &view) {
                    Ok(manifest) => {
                        let took = begin.elapsed();
                        histogram!("penstock_snapshot_seconds").record(took);
                        gauge!("penstock_snapshot_height").set(height as f64);
                        info!(height, chunks = manifest.chunks.len(), ?took, "snapshot made");
                        let dropped = {
                            let mut kept = of_thread.lock();
                            // Made again when a crash came before the commit was known.
                            kept.retain(|other| other.manifest.height != height);
                            kept.push(Kept { manifest, served: None });
                            surplus(&mut kept, keep)
                        };
                        for height in dropped.iter().map(|old| old.manifest.height) {
                            if let Err(error) = fs::remove_dir_all(folder.join(height.to_string())) {
                                warn!(height, %error, "an old snapshot could not be removed");
                            }
                        }
                    }
                    Err(error) => {
                        counter!("penstock_snapshot_failures_total").increment(1);
                        warn!(height, %error, "no snapshot was made");
                    }
                }
            }
        })?;
        Ok(Self { config, kept, jobs: Some(jobs) })
    }

    /// A block was committed.
    pub(crate) fn committed(&self, view: &View) {
        let interval = self.config.interval;
        if interval > 0
            && view.height().is_multiple_of(interval)
            && let Some(jobs) = &self.jobs
            && jobs.try_send(view.clone()).is_err()
        {
            counter!("penstock_snapshot_failures_total").increment(1);
            warn!(height = view.height(), "no snapshot is made: those before it are not ready yet");
        }
    }

    /// Whether snapshots are made here.
    pub(crate) fn are_made(&self) -> bool {
        self.config.interval > 0 && self.jobs.is_some()
    }

    /// Height of the oldest one.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.kept.lock().first().map(|kept| kept.manifest.height)
    }

    /// Those that a peer can restore at a height of the chain: CometBFT needs the two headers after a snapshot.
    pub(crate) fn list(&self, height: u64) -> Vec<Snapshot> {
        let kept = self.kept.lock();
        kept.iter().filter(|kept| kept.manifest.height + 2 <= height).map(|kept| kept.manifest.snapshot()).collect()
    }

    /// A chunk; `None` when it is not here (any more).
    pub(crate) fn chunk(&self, height: u64, format: u32, index: u32) -> Option<Vec<u8>> {
        let folder = self.config.folder.as_ref().filter(|_| format == FORMAT)?;
        let chunk = fs::read(folder.join(height.to_string()).join(index.to_string())).ok()?;
        self.kept.lock().iter_mut().find(|kept| kept.manifest.height == height)?.served = Some(Instant::now());
        Some(chunk)
    }
}

fn read_manifests(folder: &Path) -> Vec<Kept> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<Kept> = entries
        .filter_map(|entry| {
            let bytes = fs::read(entry.path().join("manifest")).ok()?;
            let manifest = Manifest::decode(bytes.as_slice()).ok()?;
            let is_its_own = entry.file_name().to_str() == Some(&manifest.height.to_string());
            // What an older program made is of no use to anybody.
            (is_its_own && manifest.format == FORMAT).then_some(Kept { manifest, served: None })
        })
        .collect();
    found.sort_unstable_by_key(|kept| kept.manifest.height);
    found
}

/// Writes the snapshot of a view and answers what names it.
fn make(folder: &Path, view: &View) -> Result<Manifest, MakeError> {
    let making = folder.join("making");
    let io = |path: &Path| {
        let path = path.to_owned();
        move |error| MakeError::Io(path, error)
    };
    if making.exists() {
        fs::remove_dir_all(&making).map_err(io(&making))?;
    }
    fs::create_dir_all(&making).map_err(io(&making))?;
    let mut manifest = Manifest { height: view.height(), chunks: Vec::new(), format: FORMAT };
    let write = |name: &str, bytes: &[u8]| {
        let path = making.join(name);
        let result = fs::File::create(&path).and_then(|mut file| {
            io::Write::write_all(&mut file, bytes)?;
            file.sync_all()
        });
        result.map_err(io(&path))
    };
    write_snapshot(view, CHUNK_BYTES, |chunk| {
        write(&manifest.chunks.len().to_string(), chunk)?;
        manifest.chunks.push(Sha256::digest(chunk).to_vec());
        Ok::<(), MakeError>(())
    })?;
    write("manifest", &manifest.encode_to_vec())?;
    let place = folder.join(view.height().to_string());
    if place.exists() {
        fs::remove_dir_all(&place).map_err(io(&place))?;
    }
    fs::rename(&making, &place).map_err(io(&place))?;
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first_but_not_while_a_peer_fetches_them() {
        let kept = |height: u64, served: Option<Instant>| Kept {
            manifest: Manifest { height, chunks: vec![], format: FORMAT },
            served,
        };
        let fetched = Some(Instant::now());
        let mut all = vec![kept(1, None), kept(2, fetched), kept(3, None), kept(4, None)];
        let heights = |all: &[Kept]| all.iter().map(|kept| kept.manifest.height).collect::<Vec<_>>();
        assert_eq!(heights(&surplus(&mut all, 2)), [1]);
        assert_eq!(heights(&all), [2, 3, 4]);
        assert_eq!(heights(&surplus(&mut all, 5)), [0u64; 0]);
        // A peer that asks for ever does not keep one for ever.
        all.extend([kept(5, None), kept(6, None)]);
        assert_eq!(heights(&surplus(&mut all, 2)), [2, 3, 4]);
    }
}
