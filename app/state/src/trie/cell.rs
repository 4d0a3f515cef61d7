//! Nodes in memory.

use std::sync::Arc;

use alloy_rlp::{EMPTY_STRING_CODE, Header};
use alloy_trie::{
    Nibbles,
    nodes::{ExtensionNodeRef, LeafNodeRef, RlpNode},
};

/// A node with what is known of it.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    pub(super) node: Node,
    /// The node's RLP, or its hash when that is 32 bytes and more; `None` when something below changed.
    pub(super) reference: Option<RlpNode>,
    /// Leaves below, as of the last settling.
    pub(super) leaves: u64,
    /// What the store has for this place.
    pub(super) kept: Kept,
    /// Update that changed something below last.
    pub(super) epoch: u32,
}

/// What the store has for a place of the trie, which is a slot of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// Nothing: it is inside of a zone, or new.
    Nothing,
    /// The zone that is rooted here.
    Zone,
    /// Zones below.
    Below,
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    Leaf {
        path: Nibbles,
        value: Box<[u8]>,
    },
    /// The child is a branch.
    Extension {
        path: Nibbles,
        child: Arc<Cell>,
    },
    /// At least two children; no value, because all keys have one length.
    Branch {
        children: Box<[Option<Arc<Cell>>; 16]>,
    },
    /// A zone whose nodes are not in memory.
    Away,
}

pub(super) fn no_children() -> Box<[Option<Arc<Cell>>; 16]> {
    Box::new([const { None }; 16])
}

impl Cell {
    /// A changed node.
    pub(super) fn new(node: Node) -> Self {
        Self { node, reference: None, leaves: 0, kept: Kept::Nothing, epoch: 0 }
    }

    pub(super) fn leaf(path: Nibbles, value: Box<[u8]>) -> Arc<Self> {
        Arc::new(Self::new(Node::Leaf { path, value }))
    }

    pub(super) fn as_branch_mut(&mut self) -> Option<&mut [Option<Arc<Self>>; 16]> {
        // Whoever asks changes something below.
        match &mut self.node {
            Node::Branch { children } => {
                self.reference = None;
                Some(children)
            }
            _ => None,
        }
    }

    /// The reference. Only what is being changed has none: an empty one stands for it.
    pub(super) fn reference(&self) -> RlpNode {
        self.reference.clone().unwrap_or_default()
    }

    /// Writes the node's RLP. The children have their references.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> RlpNode {
        out.clear();
        match &self.node {
            Node::Leaf { path, value } => LeafNodeRef::new(path, value).rlp(out),
            Node::Extension { path, child } => ExtensionNodeRef::new(path, &child.reference()).rlp(out),
            Node::Branch { children } => {
                let length = |child: &Option<Arc<Self>>| {
                    child.as_ref().and_then(|child| child.reference.as_ref()).map_or(1, |reference| reference.len())
                };
                let payload_length = 1 + children.iter().map(length).sum::<usize>();
                Header { list: true, payload_length }.encode(out);
                for child in children.iter() {
                    match child.as_ref().and_then(|child| child.reference.as_ref()) {
                        Some(reference) => out.extend_from_slice(reference),
                        None => out.push(EMPTY_STRING_CODE),
                    }
                }
                out.push(EMPTY_STRING_CODE); // no value
                RlpNode::from_rlp(out)
            }
            Node::Away => self.reference(),
        }
    }
}
