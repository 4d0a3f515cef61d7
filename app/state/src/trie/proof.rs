//! Merkle proofs.

use std::sync::Arc;

use alloy_primitives::{B256, Bytes};
use alloy_trie::Nibbles;

use super::{Leaves, Trie, cell::Node, nibble, zones};
use crate::StoreError;

impl Trie {
    /// The nodes on the way to a key, the root first, as `eth_getProof` gives them: RLP, without those that are part of
    /// their parents. They prove what is there, or that nothing is.
    ///
    /// # Errors
    /// When leaves cannot be read or are not those of the trie.
    pub fn prove(&self, key: B256, leaves: &dyn Leaves) -> Result<Vec<Bytes>, StoreError> {
        let key = Nibbles::unpack(key);
        let mut proof = Vec::new();
        let mut buffer = Vec::new();
        let mut depth = 0;
        let mut next = self.root.clone();
        while let Some(mut at) = next {
            if matches!(at.node, Node::Away) {
                at = Arc::new(zones::load(&at, &key.slice(..depth), leaves)?);
            }
            at.encode(&mut buffer);
            // A node of less than 32 bytes is inside of its parent; the root has none.
            if buffer.len() >= 32 || depth == 0 {
                proof.push(buffer.clone().into());
            }
            next = match &at.node {
                Node::Extension { path, child } if key.slice(depth..).starts_with(path) => {
                    depth += path.len();
                    Some(child.clone())
                }
                Node::Branch { children } => {
                    depth += 1;
                    children[nibble(&key, depth - 1)].clone()
                }
                _ => None,
            };
        }
        Ok(proof)
    }
}
