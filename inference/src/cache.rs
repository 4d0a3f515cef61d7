//! A bounded store of answers that keeps what is dearest to make again.

use std::collections::{BTreeSet, HashMap};

use crate::{RequestId, network::Answer, result::memory_bytes};

/// Answers by request, within a number of bytes. What leaves first is worth least: GreedyDual-Size (Cao and Irani,
/// "Cost-Aware WWW Proxy Caching Algorithms", 1997) with the cost of the run over the bytes of the result, so
/// that a minute of a large model outlives thousands of trifles, yet nothing that nobody asks for stays for ever.
#[derive(Debug)]
pub(crate) struct Cache {
    limit: usize,
    bytes: usize,
    /// The worth of what left last: whatever is kept or asked for from now on is worth at least this.
    floor: u128,
    sequence: u64,
    answers: HashMap<RequestId, Kept>,
    by_worth: BTreeSet<(Worth, RequestId)>,
}

/// Greater stays longer; among equals the newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Worth {
    value: u128,
    sequence: u64,
}

#[derive(Debug)]
struct Kept {
    answer: Answer,
    bytes: usize,
    /// Ops for each KiB.
    density: u128,
    worth: Worth,
}

/// What an answer takes besides its tensors.
const OVERHEAD: usize = 128;

impl Cache {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, bytes: 0, floor: 0, sequence: 0, answers: HashMap::new(), by_worth: BTreeSet::new() }
    }

    /// The answer, which is worth keeping the more for it.
    pub(crate) fn get(&mut self, id: &RequestId) -> Option<Answer> {
        let (floor, sequence) = (self.floor, self.tick());
        let kept = self.answers.get_mut(id)?;
        self.by_worth.remove(&(kept.worth, *id));
        kept.worth = Worth { value: floor + kept.density, sequence };
        self.by_worth.insert((kept.worth, *id));
        Some(kept.answer.clone())
    }

    /// Keeps an answer to a request that cost `ops`. The newest one always stays, however large.
    pub(crate) fn keep(&mut self, id: RequestId, answer: Answer, ops: u64) {
        let bytes = memory_bytes(&answer.result) + OVERHEAD;
        let density = u128::from(ops) * 1024 / bytes as u128;
        let worth = Worth { value: self.floor + density, sequence: self.tick() };
        if let Some(old) = self.answers.insert(id, Kept { answer, bytes, density, worth }) {
            self.bytes -= old.bytes;
            self.by_worth.remove(&(old.worth, id));
        }
        self.bytes += bytes;
        self.by_worth.insert((worth, id));
        while self.bytes > self.limit && self.answers.len() > 1 {
            let least = self.by_worth.iter().find(|(_, other)| *other != id).copied();
            let Some((worth, least)) = least else { return };
            self.by_worth.remove(&(worth, least));
            self.floor = self.floor.max(worth.value);
            if let Some(kept) = self.answers.remove(&least) {
                self.bytes -= kept.bytes;
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.answers.len()
    }

    fn tick(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::Arc,
        time::{Duration, Instant},
    };

    use alloy_primitives::B256;

    use super::*;

    fn id(n: u8) -> RequestId {
        RequestId(B256::repeat_byte(n))
    }

    /// Bytes of one answer of these tests.
    const SIZE: usize = 256;

    fn answer() -> Answer {
        Answer { result: Arc::new(Ok(vec![])), took: Duration::ZERO, finished: Instant::now() }
    }

    #[test]
    fn a_dear_answer_outlives_any_number_of_cheap_ones() {
        let mut cache = Cache::new(4 * SIZE);
        cache.keep(id(0), answer(), 1_000_000);
        (1..100).for_each(|n| cache.keep(id(n), answer(), 10));
        assert!(cache.get(&id(0)).is_some());
        assert_eq!(cache.len(), 4);
        assert!(cache.get(&id(1)).is_none() && cache.get(&id(99)).is_some(), "the oldest of the cheap ones left");
    }

    #[test]
    fn what_is_asked_for_stays_and_what_nobody_asks_for_leaves_in_the_end() {
        let mut cache = Cache::new(2 * SIZE);
        cache.keep(id(0), answer(), 100);
        cache.keep(id(1), answer(), 100);
        assert!(cache.get(&id(0)).is_some());
        cache.keep(id(2), answer(), 100);
        assert!(cache.get(&id(0)).is_some() && cache.get(&id(1)).is_none());
        // Each that leaves raises the floor: a dear one that is never asked for again is overtaken.
        let mut cache = Cache::new(2 * SIZE);
        cache.keep(id(0), answer(), 1_000);
        (0..200u8).for_each(|n| cache.keep(id(1 + n), answer(), 100));
        assert!(cache.get(&id(0)).is_none());
    }

    #[test]
    fn an_answer_that_is_kept_again_counts_once() {
        let mut cache = Cache::new(2 * SIZE);
        (0..10).for_each(|_| cache.keep(id(0), answer(), 1));
        cache.keep(id(1), answer(), 1);
        assert_eq!((cache.len(), cache.bytes, cache.by_worth.len()), (2, 2 * SIZE, 2));
    }
}
