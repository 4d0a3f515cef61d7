//! Bringing the zones of many keys into memory at once: a block's zones are known before it changes them, and reading them
//! one after the other would be most of what a block costs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use alloy_primitives::B256;
use alloy_trie::Nibbles;

use super::{
    Leaves, Trie,
    cell::{Cell, Node},
    nibble, zones,
};
use crate::StoreError;

/// The most threads that read zones: more than cores, since each waits for the disk.
const READERS: usize = 16;

/// Zones for which another thread pays.
const ZONES_PER_READER: usize = 8;

impl Trie {
    /// Brings the zones of `keys`, which are in order, into memory, as uses of them by the update of `epoch`. Answers where
    /// those are that were not there before.
    ///
    /// # Errors
    /// When leaves cannot be read or are not those of the trie.
    pub fn fetch(&mut self, keys: &[B256], leaves: &dyn Leaves, epoch: u32) -> Result<Vec<Nibbles>, StoreError> {
        debug_assert!(keys.is_sorted(), "keys are in order");
        let Some(root) = &mut self.root else { return Ok(Vec::new()) };
        let mut away: Vec<(Nibbles, Arc<Cell>)> = Vec::new();
        for key in keys {
            let key = Nibbles::unpack(key);
            // A key of the zone before.
            if away.last().is_some_and(|(path, _)| key.starts_with(path)) {
                continue;
            }
            away.extend(away_at(root, &key));
        }
        let mut loaded = load(&away, leaves)?.into_iter();
        for (path, zone) in &away {
            if let Some(cell) = loaded.next() {
                self.loaded += zone.leaves;
                place(root, path, 0, Cell { epoch, ..cell });
            }
        }
        Ok(away.into_iter().map(|(path, _)| path).collect())
    }
}

/// The zone of a key, if it is not in memory.
fn away_at(root: &Arc<Cell>, key: &Nibbles) -> Option<(Nibbles, Arc<Cell>)> {
    let (mut at, mut depth) = (root, 0);
    loop {
        match &at.node {
            Node::Away => return Some((key.slice(..depth), at.clone())),
            Node::Leaf { .. } => return None,
            Node::Extension { path, child } => {
                if !key.slice(depth..).starts_with(path) {
                    return None;
                }
                depth += path.len();
                at = child;
            }
            Node::Branch { children } => {
                at = children[nibble(key, depth)].as_ref()?;
                depth += 1;
            }
        }
    }
}

/// The nodes of zones, in their order, read by several threads.
fn load(away: &[(Nibbles, Arc<Cell>)], leaves: &dyn Leaves) -> Result<Vec<Cell>, StoreError> {
    let readers = (away.len() / ZONES_PER_READER).clamp(1, READERS);
    let next = AtomicUsize::new(0);
    let read = || {
        let mut cells = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some((path, zone)) = away.get(index) else { return Ok::<_, StoreError>(cells) };
            cells.push((index, zones::load(zone, path, leaves)?));
        }
    };
    let mut cells = thread::scope(|scope| {
        let others: Vec<_> = (1..readers).map(|_| scope.spawn(read)).collect();
        let mut cells = read()?;
        for other in others {
            // A panic there is one here.
            cells.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok::<_, StoreError>(cells)
    })?;
    cells.sort_unstable_by_key(|(index, _)| *index);
    Ok(cells.into_iter().map(|(_, cell)| cell).collect())
}

/// Puts the nodes of a zone at its place.
fn place(at: &mut Arc<Cell>, path: &Nibbles, depth: usize, zone: Cell) {
    if depth == path.len() {
        *at = Arc::new(zone);
        return;
    }
    match &mut Arc::make_mut(at).node {
        Node::Branch { children } => {
            if let Some(child) = &mut children[nibble(path, depth)] {
                place(child, path, depth + 1, zone);
            }
        }
        Node::Extension { path: own, child } => {
            let depth = depth + own.len();
            place(child, path, depth, zone);
        }
        Node::Leaf { .. } | Node::Away => {}
    }
}
