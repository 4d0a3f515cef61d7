//! Setting and removing leaves.

use std::{sync::Arc, thread};

use alloy_trie::Nibbles;

use super::{
    Change, Leaves, ZoneChange,
    cell::{Cell, Kept, Node, no_children},
    nibble,
};
use crate::StoreError;

/// A node in a slot; `None`: the slot is empty.
type Slot = Option<Arc<Cell>>;

/// Changes below a slot of the root, by the slot's number.
type Part<'s, 'c> = (usize, &'s mut Slot, &'c [Change]);

/// One update under way.
pub(super) struct Editor<'a> {
    pub(super) leaves: &'a dyn Leaves,
    pub(super) epoch: u32,
    /// Change of the number of leaves in memory.
    pub(super) loaded: i64,
    pub(super) zones: Vec<ZoneChange>,
    pub(super) buffer: Vec<u8>,
}

impl<'a> Editor<'a> {
    pub(super) fn new(leaves: &'a dyn Leaves, epoch: u32) -> Self {
        Self { leaves, epoch, loaded: 0, zones: Vec::new(), buffer: Vec::new() }
    }

    /// Makes changes below the node of a slot that is `depth` nibbles deep.
    pub(super) fn change(&mut self, slot: &mut Slot, changes: &[Change], depth: usize) -> Result<(), StoreError> {
        for (key, value) in changes {
            let key = Nibbles::unpack(key);
            match value {
                Some(value) => {
                    let old = slot.take();
                    *slot = Some(self.insert(old, &key, depth, value)?);
                }
                None => {
                    if let Some(old) = slot.take() {
                        *slot = self.remove(old, &key, depth)?.0;
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes changes below the branch that is the root, by several threads; the branch may be left with less than two
    /// children ([`Self::mended`]).
    pub(super) fn change_below(&mut self, children: &mut [Slot; 16], changes: &[Change]) -> Result<(), StoreError> {
        let workers = thread::available_parallelism().map_or(1, |n| n.get()).min(16);
        let mut rest = changes;
        let mut parts: Vec<Vec<Part<'_, '_>>> = (0..workers).map(|_| Vec::new()).collect();
        for (index, slot) in children.iter_mut().enumerate() {
            let (own, later) = rest.split_at(rest.partition_point(|(key, _)| usize::from(key[0] >> 4) <= index));
            rest = later;
            if !own.is_empty() {
                parts[index % workers].push((index, slot, own));
            }
        }
        let (leaves, epoch) = (self.leaves, self.epoch);
        let work = |part: Vec<Part<'_, '_>>| {
            let mut editor = Editor::new(leaves, epoch);
            for (index, slot, changes) in part {
                let path = Nibbles::from_nibbles([index as u8]);
                let kept = slot.as_ref().map_or(Kept::Nothing, |cell| cell.kept);
                editor.change(slot, changes, 1)?;
                // Emptied, and perhaps filled again: what is there now is not the zone that the store has.
                if slot.as_ref().is_none_or(|cell| cell.kept != kept) {
                    editor.vacated(kept, &path);
                }
                if let Some(cell) = slot {
                    editor.settle(cell, &path);
                }
            }
            Ok::<_, StoreError>((editor.loaded, editor.zones))
        };
        let results: Vec<Result<(i64, Vec<ZoneChange>), StoreError>> = thread::scope(|scope| {
            let mut parts = parts.into_iter();
            let mine = parts.next();
            let work = &work;
            let others: Vec<_> = parts.map(|part| scope.spawn(move || work(part))).collect();
            let mut results: Vec<_> = mine.map(work).into_iter().collect();
            for other in others {
                // A panic there is one here.
                results.push(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            results
        });
        for result in results {
            let (loaded, zones) = result?;
            self.loaded += loaded;
            self.zones.extend(zones);
        }
        Ok(())
    }

    fn insert(&mut self, at: Slot, key: &Nibbles, depth: usize, value: &[u8]) -> Result<Arc<Cell>, StoreError> {
        let Some(mut at) = at else {
            self.loaded += 1;
            return Ok(Cell::leaf(key.slice(depth..), value.into()));
        };
        let cell = self.present(&mut at, key, depth)?;
        let kept = cell.kept;
        match &mut cell.node {
            Node::Branch { children } => {
                let child = &mut children[nibble(key, depth)];
                *child = Some(self.insert(child.take(), key, depth + 1, value)?);
                cell.reference = None;
            }
            Node::Leaf { path, value: old } if path.len() == key.len() - depth && key.slice(depth..) == *path => {
                *old = value.into();
                cell.reference = None;
            }
            Node::Leaf { path, value: old } => {
                let shared = path.common_prefix_length(&key.slice(depth..));
                let mut children = no_children();
                children[nibble(path, shared)] = Some(Cell::leaf(path.slice(shared + 1..), core::mem::take(old)));
                let new = Cell::leaf(key.slice(depth + shared + 1..), value.into());
                children[nibble(key, depth + shared)] = Some(new);
                self.loaded += 1;
                let branch = Cell::new(Node::Branch { children });
                return Ok(Arc::new(Cell { kept, ..with_prefix(&path.slice(..shared), branch) }));
            }
            Node::Extension { path, child } => {
                let shared = path.common_prefix_length(&key.slice(depth..));
                if shared == path.len() {
                    let below = Some(child.clone());
                    *child = Cell::leaf(Nibbles::default(), Box::default());
                    *child = self.insert(below, key, depth + shared, value)?;
                    cell.reference = None;
                } else {
                    let below = Cell { kept: Kept::Nothing, ..Cell::clone(child) };
                    let mut children = no_children();
                    children[nibble(path, shared)] = Some(Arc::new(with_prefix(&path.slice(shared + 1..), below)));
                    let new = Cell::leaf(key.slice(depth + shared + 1..), value.into());
                    children[nibble(key, depth + shared)] = Some(new);
                    self.loaded += 1;
                    let branch = Cell::new(Node::Branch { children });
                    return Ok(Arc::new(Cell { kept, ..with_prefix(&path.slice(..shared), branch) }));
                }
            }
            // `present` leaves none.
            Node::Away => {}
        }
        Ok(at)
    }

    /// Also answers whether the key was there.
    fn remove(&mut self, mut at: Arc<Cell>, key: &Nibbles, depth: usize) -> Result<(Slot, bool), StoreError> {
        let cell = self.present(&mut at, key, depth)?;
        let kept = cell.kept;
        match &mut cell.node {
            Node::Leaf { path, .. } if key.slice(depth..) == *path => {
                self.loaded -= 1;
                Ok((None, true))
            }
            Node::Extension { path, child } if key.slice(depth..).starts_with(path) => {
                let path = *path;
                let below = core::mem::replace(child, Cell::leaf(Nibbles::default(), Box::default()));
                let (below, removed) = self.remove(below, key, depth + path.len())?;
                let Some(below) = below else { return Ok((None, removed)) };
                if !removed {
                    *child = below;
                    return Ok((Some(at), false));
                }
                Ok((Some(Arc::new(Cell { kept, ..with_prefix(&path, Arc::unwrap_or_clone(below)) })), true))
            }
            Node::Branch { children } => {
                let index = nibble(key, depth);
                let Some(child) = children[index].take() else { return Ok((Some(at), false)) };
                let was = child.kept;
                let (left, removed) = self.remove(child, key, depth + 1)?;
                let vacated = left.is_none();
                children[index] = left;
                if !removed {
                    return Ok((Some(at), false));
                }
                cell.reference = None;
                if vacated {
                    self.vacated(was, &key.slice(..=depth));
                }
                Ok((self.mended(Some(at), &key.slice(..depth))?, true))
            }
            Node::Leaf { .. } | Node::Extension { .. } | Node::Away => Ok((Some(at), false)),
        }
    }

    /// A branch with one child becomes that child, with the child's nibble in front; one without any is gone. `path`
    /// leads to the slot of the branch.
    pub(super) fn mended(&mut self, at: Slot, path: &Nibbles) -> Result<Slot, StoreError> {
        let Some(mut at) = at else { return Ok(None) };
        let Node::Branch { children } = &at.node else { return Ok(Some(at)) };
        let mut left = (0..16).filter(|i| children[*i].is_some());
        let (only, more) = (left.next(), left.next());
        if more.is_some() {
            return Ok(Some(at));
        }
        let cell = Arc::make_mut(&mut at);
        let (Some(only), Node::Branch { children }) = (only, &mut cell.node) else { return Ok(None) };
        let Some(mut child) = children[only].take() else { return Ok(None) };
        let own = path.join(&Nibbles::from_nibbles([only as u8]));
        // Its place is another one now.
        self.vacated(child.kept, &own);
        let below = self.present(&mut child, &own, own.len())?.clone();
        let joined = with_prefix(&Nibbles::from_nibbles([only as u8]), Cell { kept: Kept::Nothing, ..below });
        Ok(Some(Arc::new(Cell { kept: cell.kept, ..joined })))
    }

    /// A place is empty now.
    pub(super) fn vacated(&mut self, kept: Kept, path: &Nibbles) {
        if kept == Kept::Zone {
            self.zones.push(ZoneChange::gone(*path));
        }
    }

    /// A node to be changed, with its zone in memory.
    fn present<'c>(&mut self, at: &'c mut Arc<Cell>, key: &Nibbles, depth: usize) -> Result<&'c mut Cell, StoreError> {
        if matches!(at.node, Node::Away) {
            let zone = super::zones::load(at, &key.slice(..depth), self.leaves)?;
            self.loaded += zone.leaves as i64;
            *at = Arc::new(zone);
        }
        Ok(Arc::make_mut(at))
    }
}

/// A node that is not away, with `prefix` in front: joined with the path that the node has, if it has one.
fn with_prefix(prefix: &Nibbles, mut below: Cell) -> Cell {
    if prefix.is_empty() {
        return below;
    }
    match &mut below.node {
        Node::Leaf { path, .. } | Node::Extension { path, .. } => {
            *path = prefix.join(path);
            below.reference = None;
            below
        }
        Node::Branch { .. } | Node::Away => Cell::new(Node::Extension { path: *prefix, child: Arc::new(below) }),
    }
}
