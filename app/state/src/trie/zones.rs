//! Zones: what the store has of them, how they come into memory and leave it.

use std::{collections::VecDeque, sync::Arc};

use alloy_trie::{Nibbles, nodes::RlpNode};

use super::{
    Leaves, NoLeaves, Trie,
    cell::{Cell, Kept, Node, no_children},
    edit::Editor,
};
use crate::StoreError;

/// A zone that the store has to know, or to forget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneChange {
    /// Its place.
    pub path: Nibbles,
    /// What the store keeps of it: [`Self::encoded`]. `None`: it is gone.
    pub record: Option<Vec<u8>>,
}

impl ZoneChange {
    /// Where zones are that are there after changes.
    pub fn places(changes: &[Self]) -> impl Iterator<Item = Nibbles> + '_ {
        changes.iter().filter(|zone| zone.record.is_some()).map(|zone| zone.path)
    }

    pub(super) fn gone(path: Nibbles) -> Self {
        Self { path, record: None }
    }

    pub(super) fn of(path: Nibbles, cell: &Cell) -> Self {
        // A zone has at most 32 leaves.
        let leaves = (cell.leaves as u16).to_be_bytes();
        Self { path, record: Some([&leaves[..], &cell.reference()].concat()) }
    }
}

fn decode(record: &[u8]) -> Option<Cell> {
    let (leaves, reference) = record.split_first_chunk::<2>()?;
    Some(Cell {
        node: Node::Away,
        reference: Some(RlpNode::from_raw(reference)?),
        leaves: u16::from_be_bytes(*leaves).into(),
        kept: Kept::Zone,
        epoch: 0,
    })
}

/// Makes the nodes of a zone from its leaves.
pub(super) fn load(zone: &Cell, path: &Nibbles, leaves: &dyn Leaves) -> Result<Cell, StoreError> {
    let found = leaves.under(path)?;
    let mut editor = Editor::new(&NoLeaves, zone.epoch);
    let mut slot = None;
    let number = found.len() as u64;
    let changes: Vec<_> = found.into_iter().map(|(key, value)| (key, Some(value))).collect();
    editor.change(&mut slot, &changes, path.len())?;
    let wrong = || StoreError::contradiction(format!("the leaves under {path:?} are not those of the trie"));
    let mut root = slot.ok_or_else(wrong)?;
    editor.settle(&mut root, path);
    if root.reference != zone.reference || number != zone.leaves {
        return Err(wrong());
    }
    let root = Arc::unwrap_or_clone(root);
    Ok(Cell { kept: zone.kept, epoch: zone.epoch, ..root })
}

impl Trie {
    /// The trie whose zones are `records`, in order of their paths; its root is what its zones say.
    ///
    /// # Errors
    /// When they are no zones of one trie.
    pub fn from_zones(records: Vec<(Nibbles, Vec<u8>)>) -> Result<Self, StoreError> {
        let zone = |(path, record): (Nibbles, Vec<u8>)| {
            let cell = decode(&record).ok_or_else(|| StoreError::damaged(format_args!("the zone {path:?}")))?;
            Ok((path, Some(Arc::new(cell))))
        };
        let mut zones = records.into_iter().map(zone).collect::<Result<Vec<_>, StoreError>>()?;
        if zones.is_empty() {
            return Ok(Self::default());
        }
        let mut root = upper(&mut zones, 0)?;
        // The zones are as the store has them: nothing comes out of this.
        let mut editor = Editor::new(&NoLeaves, 0);
        editor.settle(&mut root, &Nibbles::default());
        Ok(Self { root: Some(root), loaded: 0 })
    }

    /// A trie that is too small for zones, from all its leaves.
    ///
    /// # Errors
    /// None that its type could say: it is that of [`Self::update`].
    pub fn from_leaves(leaves: Vec<(alloy_primitives::B256, Vec<u8>)>) -> Result<Self, StoreError> {
        let changes: Vec<_> = leaves.into_iter().map(|(key, value)| (key, Some(value))).collect();
        Ok(Self::default().update(&changes, &NoLeaves, 0)?.trie)
    }

    /// Gives up the nodes of a zone that no update later than `epoch` changed. Answers whether it did.
    pub fn forget(&mut self, path: &Nibbles, epoch: u32) -> bool {
        let Some(root) = &mut self.root else { return false };
        if zone_at(root, path, 0).is_none_or(|zone| zone.epoch > epoch || matches!(zone.node, Node::Away)) {
            return false;
        }
        let leaves = put_away(root, path, 0);
        self.loaded = self.loaded.saturating_sub(leaves);
        true
    }
}

/// The upper part above zones that have `depth` nibbles in common.
fn upper(zones: &mut [(Nibbles, Option<Arc<Cell>>)], depth: usize) -> Result<Arc<Cell>, StoreError> {
    let wrong = |path: &Nibbles| StoreError::contradiction(format!("the zone {path:?} is where none can be"));
    if let [(path, zone)] = zones {
        return match zone.take() {
            Some(zone) if path.len() == depth => Ok(zone),
            _ => Err(wrong(path)),
        };
    }
    let (Some((first, _)), Some((last, _))) = (zones.first(), zones.last()) else {
        return Err(StoreError::contradiction("zones are missing"));
    };
    let (first, common) = (*first, first.common_prefix_length(last));
    if common < depth || zones.iter().any(|(path, _)| path.len() <= common) {
        return Err(wrong(&first));
    }
    let mut children = no_children();
    let mut rest = zones;
    while let Some((path, _)) = rest.first() {
        let index = path.get_unchecked(common);
        let (own, later) = rest.split_at_mut(rest.partition_point(|(path, _)| path.get_unchecked(common) <= index));
        let mut child = upper(own, common + 1)?;
        if child.kept != Kept::Zone {
            Arc::make_mut(&mut child).kept = Kept::Below;
        }
        children[usize::from(index)] = Some(child);
        rest = later;
    }
    let branch = Cell::new(Node::Branch { children });
    Ok(Arc::new(match common - depth {
        0 => branch,
        _ => Cell::new(Node::Extension { path: first.slice(depth..common), child: Arc::new(branch) }),
    }))
}

/// The zone that is rooted at a place.
fn zone_at<'c>(at: &'c Arc<Cell>, path: &Nibbles, depth: usize) -> Option<&'c Arc<Cell>> {
    if depth == path.len() {
        return Some(at).filter(|cell| cell.kept == Kept::Zone);
    }
    match &at.node {
        Node::Branch { children } => {
            zone_at(children[usize::from(path.get_unchecked(depth))].as_ref()?, path, depth + 1)
        }
        Node::Extension { path: own, child } if path.slice(depth..).starts_with(own) => {
            zone_at(child, path, depth + own.len())
        }
        _ => None,
    }
}

/// Leaves below a node that are in memory.
fn in_memory(cell: &Cell) -> u64 {
    match &cell.node {
        Node::Leaf { .. } => 1,
        Node::Extension { child, .. } => in_memory(child),
        Node::Branch { children } => children.iter().flatten().map(|child| in_memory(child)).sum(),
        Node::Away => 0,
    }
}

/// Puts a zone that is there away. Answers how many of its leaves were in memory.
fn put_away(at: &mut Arc<Cell>, path: &Nibbles, depth: usize) -> u64 {
    let cell = Arc::make_mut(at);
    if depth == path.len() {
        let leaves = in_memory(cell);
        cell.node = Node::Away;
        return leaves;
    }
    match &mut cell.node {
        Node::Branch { children } => children[usize::from(path.get_unchecked(depth))]
            .as_mut()
            .map_or(0, |child| put_away(child, path, depth + 1)),
        Node::Extension { path: own, child } => {
            let depth = depth + own.len();
            put_away(child, path, depth)
        }
        _ => 0,
    }
}

/// Which zones of a trie are in memory, the longest unused first.
#[derive(Debug, Default)]
pub struct Cache {
    used: VecDeque<(u32, Nibbles)>,
}

impl Cache {
    /// An update used the zones at these places.
    pub fn note(&mut self, used: impl IntoIterator<Item = Nibbles>, epoch: u32) {
        self.used.extend(used.into_iter().map(|path| (epoch, path)));
    }

    /// Gives up zones, those that are unused for longest first, until at most `target` leaves are in memory; at most
    /// `steps` entries are looked at, and nothing that an update after `before` changed is given up.
    pub fn shrink(&mut self, trie: &mut Trie, target: u64, before: u32, steps: usize) {
        for _ in 0..steps {
            let due = self.used.front().is_some_and(|(epoch, _)| *epoch <= before);
            if trie.loaded() <= target || !due {
                break;
            }
            if let Some((epoch, path)) = self.used.pop_front() {
                trie.forget(&path, epoch);
            }
        }
        // Every use made an entry, and only the last one of a zone counts.
        let most = 4 * usize::try_from(trie.loaded()).unwrap_or(usize::MAX).max(256);
        if self.used.len() > most {
            let root = trie.root.clone();
            self.used.retain(|(epoch, path)| {
                root.as_ref().and_then(|root| zone_at(root, path, 0)).is_some_and(|zone| zone.epoch == *epoch)
            });
        }
    }
}
