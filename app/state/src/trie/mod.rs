//! A Merkle Patricia trie (Yellow Paper, appendix D) over keys of 32 bytes: a value, of which every version may be kept.
//!
//! ```text
//!            upper part: in memory from the start
//!        ┌──────────── branch ───────────┐
//!      branch                          branch
//!     ┌──┴───┐                     ┌─────┼─────┐
//!   ╔═╧═╗  ╔═╧═╗                 ╔═╧═╗ ╔═╧═╗ ╔═╧═╗   zones: at most 32 leaves each. A zone that was not used is
//!   ║   ║  ║   ║                 ║   ║ ║   ║ ║   ║   only its reference; its nodes are made again from its leaves,
//!   ╚═══╝  ╚═══╝                 ╚═══╝ ╚═══╝ ╚═══╝   which are one range of the flat state
//! ```
//!
//! The store has the reference of every zone (`keys`): a start reads those, not the leaves, and a block writes one of
//! them for a leaf that it changes. What is in memory beyond the upper part is a cache: [`Trie::forget`] gives it up
//! zone by zone.
//!
//! Nodes are shared between versions and never change: a block's trie is a new root over the old nodes. Every node knows
//! its own RLP reference, so that a root costs only the paths that changed.

mod build;
mod cell;
mod edit;
mod fetch;
mod proof;
mod settle;
mod zones;

use std::sync::Arc;

use alloy_primitives::{B256, keccak256};
use alloy_trie::{EMPTY_ROOT_HASH, Nibbles};

pub use build::TrieBuilder;
pub use zones::{Cache, ZoneChange};

use crate::StoreError;
use cell::{Cell, Node};
use edit::Editor;

/// The most leaves of a zone. Few enough that making a zone again is cheap (some 15 leaves, on average), and many enough
/// that ten million accounts have less than a million zones.
const ZONE_LEAVES: u64 = 32;

/// Changes from here on are made by several threads.
const PARALLEL_CHANGES: usize = 400;

/// A key and its new value; `None`: the leaf goes.
pub type Change = (B256, Option<Vec<u8>>);

/// The leaves of a trie, as of the version that is read.
pub trait Leaves: Sync {
    /// Key and value of all leaves whose keys begin with `path`, in order of the keys.
    ///
    /// # Errors
    /// When they cannot be read.
    fn under(&self, path: &Nibbles) -> Result<Vec<(B256, Vec<u8>)>, StoreError>;
}

/// No leaf: of a trie that is in memory as a whole.
#[derive(Debug, Clone, Copy)]
pub struct NoLeaves;

impl Leaves for NoLeaves {
    fn under(&self, _: &Nibbles) -> Result<Vec<(B256, Vec<u8>)>, StoreError> {
        Ok(Vec::new())
    }
}

/// One version of a trie. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Trie {
    root: Option<Arc<Cell>>,
    /// Leaves in memory.
    loaded: u64,
}

/// What became of a trie, and what the store has to know of it.
#[derive(Debug)]
pub struct Updated {
    /// The new version.
    pub trie: Trie,
    /// Changed zones.
    pub zones: Vec<ZoneChange>,
}

impl Trie {
    /// Number of leaves.
    pub fn len(&self) -> u64 {
        self.root.as_ref().map_or(0, |root| root.leaves)
    }

    /// Whether there is no leaf.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Leaves whose nodes are in memory.
    pub fn loaded(&self) -> u64 {
        self.loaded
    }

    /// The root hash.
    pub fn root(&self) -> B256 {
        self.root.as_ref().map_or(EMPTY_ROOT_HASH, |root| {
            let reference = root.reference();
            reference.as_hash().unwrap_or_else(|| keccak256(&reference))
        })
    }

    /// The value of a key, if that is known without reading leaves: the inner `None` says that there is none.
    pub fn get(&self, key: B256) -> Option<Option<&[u8]>> {
        let key = Nibbles::unpack(key);
        let Some(mut at) = self.root.as_ref() else { return Some(None) };
        let mut depth = 0;
        loop {
            match &at.node {
                Node::Leaf { path, value } => return Some((key.slice(depth..) == *path).then_some(&**value)),
                Node::Extension { path, child } if key.slice(depth..).starts_with(path) => {
                    depth += path.len();
                    at = child;
                }
                Node::Extension { .. } => return Some(None),
                Node::Branch { children } => match &children[nibble(&key, depth)] {
                    Some(child) => {
                        depth += 1;
                        at = child;
                    }
                    None => return Some(None),
                },
                Node::Away => return None,
            }
        }
    }

    /// This version with `changes`, in order of their keys, each key once: `None` removes a leaf. `epoch` counts the
    /// updates of all tries of one cache.
    ///
    /// # Errors
    /// When leaves cannot be read or are not those of the trie.
    pub fn update(self, changes: &[Change], leaves: &dyn Leaves, epoch: u32) -> Result<Updated, StoreError> {
        debug_assert!(changes.is_sorted_by(|(a, _), (b, _)| a < b), "changes are in order, each key once");
        let mut root = self.root;
        let mut editor = Editor::new(leaves, epoch);
        if changes.len() >= PARALLEL_CHANGES
            && let Some(branch) = root.as_mut().and_then(|root| Arc::make_mut(root).as_branch_mut())
        {
            editor.change_below(branch, changes)?;
        } else {
            editor.change(&mut root, changes, 0)?;
        }
        root = editor.mended(root, &Nibbles::default())?;
        if let Some(root) = &mut root {
            editor.settle(root, &Nibbles::default());
        }
        let loaded = self.loaded.saturating_add_signed(editor.loaded);
        Ok(Updated { trie: Self { root, loaded }, zones: editor.zones })
    }
}

/// A key's nibble.
fn nibble(path: &Nibbles, index: usize) -> usize {
    path.get_unchecked(index).into()
}

#[cfg(test)]
mod tests;
