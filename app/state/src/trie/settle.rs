//! After changes: references, numbers of leaves, and what the store has to know.

use std::sync::Arc;

use alloy_trie::Nibbles;

use super::{
    ZONE_LEAVES, ZoneChange,
    cell::{Cell, Kept, Node},
    edit::Editor,
};

impl Editor<'_> {
    /// Gives every changed node its reference. `path` leads to the node's slot.
    pub(super) fn settle(&mut self, at: &mut Arc<Cell>, path: &Nibbles) {
        if at.reference.is_some() {
            return;
        }
        // What was changed was made anew or copied: nobody else has it, and this copies nothing.
        let cell = Arc::make_mut(at);
        cell.epoch = self.epoch;
        match &mut cell.node {
            Node::Leaf { .. } => cell.leaves = 1,
            Node::Extension { path: own, child } => {
                self.settle(child, &path.join(own));
                cell.leaves = child.leaves;
            }
            Node::Branch { children } => {
                let mut path = *path;
                let mut leaves = 0;
                for (index, child) in children.iter_mut().enumerate() {
                    if let Some(child) = child {
                        path.push(index as u8);
                        // Changed now, or by a thread of this update.
                        self.settle(child, &path);
                        path.pop();
                        leaves += child.leaves;
                    }
                }
                cell.leaves = leaves;
                self.divide(children, leaves, &path);
            }
            Node::Away => {}
        }
        cell.reference = Some(cell.encode(&mut self.buffer));
    }

    /// What the store keeps for the slots of a changed branch: zones are rooted in the slots with at most
    /// [`ZONE_LEAVES`] leaves of branches with more.
    fn divide(&mut self, children: &mut [Option<Arc<Cell>>; 16], leaves: u64, path: &Nibbles) {
        let mut path = *path;
        for (index, child) in children.iter_mut().enumerate() {
            let Some(child) = child else { continue };
            let kept = if leaves <= ZONE_LEAVES {
                Kept::Nothing
            } else if child.leaves <= ZONE_LEAVES {
                Kept::Zone
            } else {
                Kept::Below
            };
            let changed = child.epoch == self.epoch && !matches!(child.node, Node::Away);
            path.push(index as u8);
            match (child.kept, kept) {
                (Kept::Zone, Kept::Zone) if !changed => {}
                (_, Kept::Zone) => {
                    // A use of the zone, if only of its root.
                    Arc::make_mut(child).epoch = self.epoch;
                    self.zones.push(ZoneChange::of(path, child));
                }
                (Kept::Zone, _) => self.zones.push(ZoneChange::gone(path)),
                _ => {}
            }
            path.pop();
            if child.kept != kept {
                Arc::make_mut(child).kept = kept;
            }
        }
    }
}
