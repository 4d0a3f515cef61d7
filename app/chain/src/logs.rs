//! The index of logs: for each block, the marks of its logs' addresses and topics; for each mark, the numbers of the
//! blocks that have it, in order. A query for a contract's events reads those numbers, and then only blocks that have
//! such logs (or, in one of some 2^60 cases, others with the same marks), however many there are in between.

use std::collections::BTreeSet;

use alloy_primitives::{Address, B256, Log, keccak256};
use penstock_state::{Range, StoreError, keys};

use crate::{Chain, ChainError};

type Mark = [u8; 8];

/// Candidates that are few enough to be read without looking at the other criteria.
const FEW: usize = 16;

/// Entries of the index that one query reads at most: about a second.
const MAX_ENTRIES: usize = 1_000_000;

/// Which logs are asked for. Between the parts of one criterion stands "or", between criteria "and"; an empty criterion
/// allows everything.
#[derive(Debug, Clone, Default)]
pub struct LogQuery {
    /// Contracts.
    pub addresses: Vec<Address>,
    /// Topics, by position.
    pub topics: [Vec<B256>; 4],
}

fn mark(kind: u8, value: &[u8]) -> Mark {
    let hash = keccak256([&[kind], value].concat());
    let mut mark = [0; 8];
    mark.copy_from_slice(&hash[..8]);
    mark
}

fn of_address(address: &Address) -> Mark {
    mark(b'a', address.as_slice())
}

fn of_topic(position: usize, topic: &B256) -> Mark {
    // A log has at most four.
    mark(position as u8, topic.as_slice())
}

/// Of every block with a log.
fn of_any() -> Mark {
    mark(b'*', &[])
}

/// The marks of logs.
pub(crate) fn marks<'a>(logs: impl Iterator<Item = &'a Log>) -> BTreeSet<Mark> {
    let mut marks = BTreeSet::new();
    for log in logs {
        marks.insert(of_any());
        marks.insert(of_address(&log.address));
        marks.extend(log.topics().iter().enumerate().map(|(position, topic)| of_topic(position, topic)));
    }
    marks
}

impl Chain {
    /// The blocks in `from..=to` that may have logs of a query, in order: all that do, and few others. `None`: finding them
    /// takes more than is read for one query.
    ///
    /// # Errors
    /// When the store fails.
    pub fn blocks_with_logs(&self, query: &LogQuery, from: u64, to: u64) -> Result<Option<Vec<u64>>, ChainError> {
        let addresses: Vec<_> = query.addresses.iter().map(of_address).collect();
        let topics = query.topics.iter().enumerate();
        let topics = topics.map(|(position, topics)| topics.iter().map(|topic| of_topic(position, topic)).collect());
        let mut criteria: Vec<Vec<Mark>> = core::iter::once(addresses).chain(topics).collect();
        criteria.retain(|marks| !marks.is_empty());
        if criteria.is_empty() {
            criteria.push(vec![of_any()]);
        }
        let mut blocks: Option<BTreeSet<u64>> = None;
        let mut left = MAX_ENTRIES;
        for marks in criteria {
            let mut found = BTreeSet::new();
            for mark in marks {
                self.blocks_with_mark(&mark, from, to, &mut left, &mut found)?;
                if left == 0 {
                    return Ok(None);
                }
            }
            let both = match blocks {
                Some(before) => before.intersection(&found).copied().collect(),
                None => found,
            };
            let enough = both.len() <= FEW;
            blocks = Some(both);
            if enough {
                break;
            }
        }
        Ok(Some(blocks.unwrap_or_default().into_iter().collect()))
    }

    fn blocks_with_mark(
        &self,
        mark: &Mark,
        from: u64,
        to: u64,
        left: &mut usize,
        found: &mut BTreeSet<u64>,
    ) -> Result<(), ChainError> {
        let prefix = keys::log_mark(mark);
        let head = self.head()?;
        head.view.snapshot().scan_range(Range::rest(&prefix, &keys::log_mark_at(mark, from)), &mut |key, _| {
            let number = &key[prefix.len()..];
            let number =
                number.try_into().map(u64::from_be_bytes).map_err(|_| StoreError::damaged("an index of logs"))?;
            if number <= to {
                found.insert(number);
            }
            *left = left.saturating_sub(1);
            Ok(number < to && *left > 0)
        })?;
        Ok(())
    }
}
