//! Old values by height, and how they go.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tracing::warn;

use crate::{Batch, Store, StoreError, beside::Beside, keys, store::Durability};

/// The changes of one block to accounts and slots, with what was there before.
#[derive(Debug)]
pub(crate) struct Changes {
    number: u64,
    pub(crate) batch: Batch,
    changed: Vec<u8>,
}

impl Changes {
    /// Of block `number`. Before the genesis block there is nothing to remember.
    pub(crate) fn new(number: u64) -> Self {
        Self { number, batch: Batch::default(), changed: Vec::new() }
    }

    /// A record changes.
    pub(crate) fn set(&mut self, key: Vec<u8>, before: Option<Vec<u8>>, after: Option<Vec<u8>>) {
        if self.number > 0 {
            // Keys have 33 or 65 bytes.
            self.changed.push(key.len() as u8);
            self.changed.extend_from_slice(&key);
            self.batch.put(keys::former_at(&key, self.number), before.unwrap_or_default());
        }
        match after {
            Some(record) => self.batch.put(key, record),
            None => self.batch.remove(key),
        }
    }

    pub(crate) fn finish(mut self) -> Batch {
        if !self.changed.is_empty() {
            self.batch.put(keys::changed(self.number), self.changed);
        }
        self.batch
    }
}

/// The keys in a block's list.
pub(crate) fn changed_keys(list: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut rest = list;
    core::iter::from_fn(move || {
        let (length, tail) = rest.split_first()?;
        let part = tail.split_at_checked((*length).into());
        rest = part.map_or(&[], |(_, after)| after);
        Some(part.map(|(key, _)| key))
    })
}

/// Takes old history away, block by block, on a thread of its own: no commit waits for it.
#[derive(Debug)]
pub(crate) struct Pruner {
    stop: Arc<AtomicBool>,
    heights: Beside<u64>,
}

impl Pruner {
    /// Keeps the state of the last `keep` heights.
    pub(crate) fn start(store: Arc<dyn Store>, keep: u64) -> Result<Self, StoreError> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let work = move |height: u64| {
            // What fails is tried again after the next block.
            if let Err(error) = prune(&*store, height.saturating_sub(keep), &stopped) {
                warn!(%error, "old history could not be taken away");
            }
        };
        Ok(Self { stop, heights: Beside::start("history", work)? })
    }

    /// A block is committed.
    pub(crate) fn committed(&self, height: u64) {
        self.heights.give(height);
    }
}

impl Drop for Pruner {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Blocks behind from which on the thread rests between two of them: what a long history leaves when it is shortened must
/// not take the disk away from the chain.
const FAR_BEHIND: u64 = 64;

/// Takes away what is needed for heights below `first` only, one block at a time.
pub(crate) fn prune(store: &dyn Store, first: u64, stop: &AtomicBool) -> Result<(), StoreError> {
    let mut next = store.snapshot().meta_number("history")?.unwrap_or_default();
    while next < first && !stop.load(Ordering::Relaxed) {
        let mut batch = Batch::default();
        let number = next + 1;
        // A new one each time: an old one would keep what is removed on the disk.
        let snapshot = store.snapshot();
        if let Some(list) = snapshot.get(&keys::changed(number))? {
            for key in changed_keys(&list) {
                let key = key.ok_or_else(|| StoreError::damaged(format_args!("the changes of block {number}")))?;
                batch.remove(keys::former_at(key, number));
            }
            batch.remove(keys::changed(number));
        }
        batch.put(keys::meta("history"), number.to_be_bytes().to_vec());
        store.write(batch, Durability::Relaxed)?;
        next = number;
        if first - next > FAR_BEHIND {
            thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}
