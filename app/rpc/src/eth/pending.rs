//! Transactions that became pending: what `eth_newPendingTransactionFilter` and `newPendingTransactions` tell of.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
};

use alloy_primitives::B256;
use parking_lot::Mutex;
use penstock_pipe::{Happening, Stage};
use tokio::sync::broadcast::error::RecvError;

use super::Eth;
use crate::error::RpcResult;

/// Hashes that a filter may be behind: geth forgets sooner.
const KEPT: usize = 16_384;

/// The newest pending transactions, numbered; recorded from the first filter on.
#[derive(Debug, Default)]
pub(super) struct PendingHashes {
    started: OnceLock<()>,
    recent: Arc<Mutex<Recent>>,
}

#[derive(Debug, Default)]
struct Recent {
    /// Number of the first that is kept.
    first: u64,
    hashes: VecDeque<B256>,
}

impl Recent {
    fn next(&self) -> u64 {
        self.first + self.hashes.len() as u64
    }

    fn push(&mut self, hash: B256) {
        self.hashes.push_back(hash);
        if self.hashes.len() > KEPT {
            self.hashes.pop_front();
            self.first += 1;
        }
    }
}

/// The transaction that became pending by this: it can be worked on, for the first time.
pub(super) fn appeared(happening: &Happening) -> Option<B256> {
    let Happening::Stage(change) = happening else { return None };
    let waits = matches!(change.stage, Stage::Queued | Stage::Included | Stage::Dropped);
    let is_new = change.left.is_none_or(|(stage, _)| stage == Stage::Queued);
    (is_new && !waits).then_some(change.hash)
}

impl Eth {
    /// The number of the next transaction that becomes pending.
    pub(super) fn next_pending(&self) -> RpcResult<u64> {
        if self.pending.started.get().is_none() {
            let mut happenings = self.happenings.subscribe(self)?;
            let recent = self.pending.recent.clone();
            let record = async move {
                loop {
                    match happenings.recv().await {
                        Ok(happening) => {
                            if let Some(hash) = appeared(&happening) {
                                recent.lock().push(hash);
                            }
                        }
                        Err(RecvError::Lagged(_)) => {}
                        Err(RecvError::Closed) => return,
                    }
                }
            };
            if self.pending.started.set(()).is_ok() {
                tokio::spawn(record);
            }
        }
        Ok(self.pending.recent.lock().next())
    }

    /// The hashes from a number on, and the number of the next.
    pub(super) fn pending_since(&self, number: u64) -> (Vec<B256>, u64) {
        let recent = self.pending.recent.lock();
        let skip = number.saturating_sub(recent.first) as usize;
        (recent.hashes.iter().skip(skip).copied().collect(), recent.next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_far_behind_misses_the_oldest() {
        let mut recent = Recent::default();
        for index in 0..KEPT + 10 {
            recent.push(B256::with_last_byte(index as u8));
        }
        assert_eq!((recent.first, recent.hashes.len(), recent.next()), (10, KEPT, KEPT as u64 + 10));
    }
}
