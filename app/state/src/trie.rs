//! A Merkle Patricia trie in memory (Yellow Paper, appendix D) over keys of 32 bytes.
//!
//! Each node keeps its RLP reference until something below it changes, so that a root costs only the
//! paths that changed.

use alloy_primitives::{B256, keccak256};
use alloy_rlp::{EMPTY_STRING_CODE, Header};
use alloy_trie::{
    EMPTY_ROOT_HASH, Nibbles,
    nodes::{ExtensionNodeRef, LeafNodeRef, RlpNode},
};

/// The trie.
#[derive(Debug, Clone, Default)]
pub struct Trie {
    root: Option<Box<Cell>>,
    len: usize,
}

#[derive(Debug, Clone)]
struct Cell {
    node: Node,
    /// The node's RLP, or its hash when that is 32 bytes and more; `None` when something below changed.
    reference: Option<RlpNode>,
}

#[derive(Debug, Clone)]
enum Node {
    Leaf {
        path: Nibbles,
        value: Vec<u8>,
    },
    /// The child is a branch.
    Extension {
        path: Nibbles,
        child: Box<Cell>,
    },
    /// At least two children; no value, because all keys have one length.
    Branch {
        children: Box<[Option<Box<Cell>>; 16]>,
    },
}

impl Trie {
    /// Number of keys.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sets a key.
    pub fn insert(&mut self, key: B256, value: Vec<u8>) {
        let mut added = true;
        self.root = Some(insert(self.root.take(), Nibbles::unpack(key), value, &mut added));
        self.len += usize::from(added);
    }

    /// Removes a key, if it is there.
    pub fn remove(&mut self, key: B256) {
        if let Some(root) = self.root.take() {
            let mut removed = false;
            self.root = remove(root, Nibbles::unpack(key), &mut removed);
            self.len -= usize::from(removed);
        }
    }

    /// The root hash.
    pub fn root(&mut self) -> B256 {
        match &mut self.root {
            None => EMPTY_ROOT_HASH,
            Some(root) => {
                let reference = reference(root, &mut Vec::new());
                reference.as_hash().unwrap_or_else(|| keccak256(&reference))
            }
        }
    }
}

fn cell(node: Node) -> Box<Cell> {
    Box::new(Cell { node, reference: None })
}

fn insert(at: Option<Box<Cell>>, path: Nibbles, value: Vec<u8>, added: &mut bool) -> Box<Cell> {
    let Some(mut at) = at else {
        return cell(Node::Leaf { path, value });
    };
    at.reference = None;
    match &mut at.node {
        Node::Branch { children } => {
            let child = &mut children[nibble(&path, 0)];
            *child = Some(insert(child.take(), path.slice(1..), value, added));
            at
        }
        Node::Leaf { path: own, value: old } => {
            let shared = own.common_prefix_length(&path);
            if shared == own.len() {
                *old = value;
                *added = false;
                return at;
            }
            let mut children = Box::new([const { None }; 16]);
            children[nibble(own, shared)] =
                Some(cell(Node::Leaf { path: own.slice(shared + 1..), value: core::mem::take(old) }));
            children[nibble(&path, shared)] = Some(cell(Node::Leaf { path: path.slice(shared + 1..), value }));
            extended(&path.slice(..shared), cell(Node::Branch { children }))
        }
        Node::Extension { path: own, child } => {
            let shared = own.common_prefix_length(&path);
            if shared == own.len() {
                let below = core::mem::replace(child, cell(Node::Leaf { path: Nibbles::default(), value: vec![] }));
                *child = insert(Some(below), path.slice(shared..), value, added);
                return at;
            }
            let below = core::mem::replace(child, cell(Node::Leaf { path: Nibbles::default(), value: vec![] }));
            let mut children = Box::new([const { None }; 16]);
            children[nibble(own, shared)] = Some(extended(&own.slice(shared + 1..), below));
            children[nibble(&path, shared)] = Some(cell(Node::Leaf { path: path.slice(shared + 1..), value }));
            extended(&path.slice(..shared), cell(Node::Branch { children }))
        }
    }
}

fn remove(mut at: Box<Cell>, path: Nibbles, removed: &mut bool) -> Option<Box<Cell>> {
    match at.node {
        Node::Leaf { path: own, .. } if own == path => {
            *removed = true;
            None
        }
        Node::Leaf { .. } => Some(at),
        Node::Extension { path: own, child } if path.starts_with(&own) => {
            let reference = at.reference.take();
            let child = remove(child, path.slice(own.len()..), removed)?;
            if !*removed {
                return Some(Box::new(Cell { node: Node::Extension { path: own, child }, reference }));
            }
            Some(extended(&own, child))
        }
        Node::Extension { .. } => Some(at),
        Node::Branch { ref mut children } => {
            let index = nibble(&path, 0);
            let Some(child) = children[index].take() else { return Some(at) };
            children[index] = remove(child, path.slice(1..), removed);
            if !*removed {
                return Some(at);
            }
            at.reference = None;
            let mut left = (0..16).filter(|i| children[*i].is_some());
            let (only, more) = (left.next()?, left.next());
            if more.is_some() {
                return Some(at);
            }
            let child = children[only].take()?;
            Some(extended(&Nibbles::from_nibbles([only as u8]), child))
        }
    }
}

/// `prefix` in front of a node: joined with the path that the node has, if it has one.
fn extended(prefix: &Nibbles, mut below: Box<Cell>) -> Box<Cell> {
    if prefix.is_empty() {
        return below;
    }
    match &mut below.node {
        Node::Leaf { path, .. } | Node::Extension { path, .. } => {
            *path = prefix.join(path);
            below.reference = None;
            below
        }
        Node::Branch { .. } => cell(Node::Extension { path: *prefix, child: below }),
    }
}

fn nibble(path: &Nibbles, index: usize) -> usize {
    path.get_unchecked(index).into()
}

fn reference(at: &mut Cell, buffer: &mut Vec<u8>) -> RlpNode {
    if let Some(reference) = &at.reference {
        return reference.clone();
    }
    let fresh = match &mut at.node {
        Node::Leaf { path, value } => {
            buffer.clear();
            LeafNodeRef::new(path, value).rlp(buffer)
        }
        Node::Extension { path, child } => {
            let child = reference(child, buffer);
            buffer.clear();
            ExtensionNodeRef::new(path, &child).rlp(buffer)
        }
        Node::Branch { children } => {
            let children: [Option<RlpNode>; 16] =
                core::array::from_fn(|i| children[i].as_mut().map(|child| reference(child, buffer)));
            buffer.clear();
            let payload_length = 1 + children.iter().map(|c| c.as_ref().map_or(1, |c| c.len())).sum::<usize>();
            Header { list: true, payload_length }.encode(buffer);
            for child in &children {
                match child {
                    Some(child) => buffer.extend_from_slice(child),
                    None => buffer.push(EMPTY_STRING_CODE),
                }
            }
            buffer.push(EMPTY_STRING_CODE); // no value
            RlpNode::from_rlp(buffer)
        }
    };
    at.reference = Some(fresh.clone());
    fresh
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use alloy_trie::HashBuilder;

    use super::*;

    fn oracle(map: &BTreeMap<B256, Vec<u8>>) -> B256 {
        let mut builder = HashBuilder::default();
        for (key, value) in map {
            builder.add_leaf(Nibbles::unpack(key), value);
        }
        builder.root()
    }

    /// Keys that share prefixes of many lengths.
    fn key(n: u64) -> B256 {
        let mut key = B256::ZERO;
        key[..8].copy_from_slice(&(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) & 0xf0f0_000f_0000_00ff).to_be_bytes());
        key[31] = n as u8;
        key
    }

    #[test]
    fn roots_equal_those_of_hash_builder_over_random_inserts_and_removals() {
        for seed in 0..20u64 {
            let mut state = seed + 1;
            let mut next = |bound: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % bound
            };
            let (mut trie, mut map) = (Trie::default(), BTreeMap::new());
            for step in 0..400 {
                let key = key(next(120));
                if next(3) == 0 {
                    trie.remove(key);
                    map.remove(&key);
                } else {
                    let value = vec![next(255) as u8 + 1; 1 + next(60) as usize];
                    trie.insert(key, value.clone());
                    map.insert(key, value);
                }
                assert_eq!(trie.len(), map.len(), "seed {seed} step {step}");
                if step % 7 == 0 {
                    assert_eq!(trie.root(), oracle(&map), "seed {seed} step {step}");
                }
            }
            for key in map.keys() {
                trie.remove(*key);
            }
            assert_eq!(trie.root(), EMPTY_ROOT_HASH, "seed {seed}");
            assert!(trie.is_empty());
        }
    }
}
