//! In which order a proposal takes transactions.

use std::{cmp::Reverse, collections::BinaryHeap};

use alloy_primitives::Address;
use penstock_inference::RequestId;

use crate::{
    Candidate, Pool, Stage,
    entry::{Entry, Sim},
};

/// The next transaction of a sender, among those of others: the greatest effective tip first, then the oldest.
type Next = (u128, Reverse<u64>, Address, u64);

/// Where a proposal has got to in the pool: what it has not asked for costs nothing.
#[derive(Debug, Default)]
pub struct Candidates {
    heap: BinaryHeap<Next>,
}

impl Entry {
    /// Requests above a cost whose results it has.
    fn dear(&self, inline_ops: u64) -> Vec<RequestId> {
        let dear = self.requests.iter().filter(|request| request.ops > inline_ops);
        dear.map(|request| request.id).filter(|id| self.held.0.contains_key(id)).collect()
    }
}

impl Pool {
    /// The beginning of the order: greatest effective tip first, in nonce order within a sender, first come
    /// first served among equals.
    pub fn candidates(&self) -> Candidates {
        let next = |address: &Address| {
            let nonce = self.senders.get(address)?.account.nonce;
            self.place(*address, nonce)
        };
        Candidates { heap: self.ready.iter().filter_map(next).collect() }
    }

    /// The next `count` transactions.
    pub fn next_candidates(&self, candidates: &mut Candidates, count: usize) -> Vec<Candidate> {
        let mut next = Vec::new();
        while next.len() < count
            && let Some((_, _, address, nonce)) = candidates.heap.pop()
        {
            if let Some(entry) = self.at(address, nonce).filter(|entry| self.can_be_proposed(entry)) {
                next.push(Candidate {
                    tx: entry.tx.clone(),
                    held: entry.held.clone(),
                    gives_up: self.gives_up(entry),
                    took: entry.last.as_ref().map(|last| last.took).unwrap_or_default(),
                    moved: entry.sim == Sim::Moved,
                    dear: entry.dear(self.config.inline_ops),
                });
                candidates.heap.extend(self.place(address, nonce + 1));
            }
        }
        next
    }

    /// Whether the next proposal can take something.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    fn at(&self, address: Address, nonce: u64) -> Option<&Entry> {
        self.entries.get(self.senders.get(&address)?.by_nonce.get(&nonce)?)
    }

    fn place(&self, address: Address, nonce: u64) -> Option<Next> {
        let entry = self.at(address, nonce).filter(|entry| self.can_be_proposed(entry))?;
        Some((entry.tx.effective_tip(self.base_fee)?, Reverse(entry.sequence), address, nonce))
    }

    pub(crate) fn can_be_proposed(&self, entry: &Entry) -> bool {
        match entry.stage {
            Stage::Ready | Stage::Proposed => true,
            // Its question moves faster than its answers come: it is included without, pays and ends.
            Stage::Inferring => self.gives_up(entry),
            _ => false,
        }
    }

    fn gives_up(&self, entry: &Entry) -> bool {
        entry.deferrals >= self.config.max_deferrals
    }
}
