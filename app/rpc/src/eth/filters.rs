//! Filters that a client polls: `eth_newFilter`, `eth_newBlockFilter`, `eth_newPendingTransactionFilter`.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use alloy_primitives::U256;
use alloy_rpc_types_eth::{Filter, Log};
use parking_lot::Mutex;
use serde_json::Value;

use super::Eth;
use crate::{
    convert,
    doors::random_id,
    error::{RpcError, RpcResult},
};

/// A filter that nobody polled for this long is gone: geth's 5 minutes.
const LIFETIME: Duration = Duration::from_secs(300);

/// Filters of all clients together.
const MAX: usize = 10_000;

/// What a filter tells of.
#[derive(Debug, Clone)]
pub(super) enum FilterKind {
    /// Logs of new blocks.
    Logs(Box<Filter>),
    /// Hashes of new blocks.
    Blocks,
    /// Transactions that became pending: whole ones, or their hashes.
    Pending { full: bool },
}

#[derive(Debug)]
struct Installed {
    kind: FilterKind,
    /// First block, or pending transaction, that the next poll answers.
    next: u64,
    polled: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Filters {
    installed: Mutex<HashMap<U256, Installed>>,
}

impl Filters {
    pub(super) fn remove(&self, id: U256) -> bool {
        self.installed.lock().remove(&id).is_some()
    }
}

fn not_found() -> RpcError {
    RpcError::InvalidInput("filter not found".into())
}

impl Eth {
    pub(super) fn install_filter(&self, kind: FilterKind) -> RpcResult<U256> {
        if let FilterKind::Logs(filter) = &kind
            && filter.block_option.is_block_hash()
        {
            return Err(RpcError::InvalidParams("a filter for one block is no subscription: use eth_getLogs".into()));
        }
        if let FilterKind::Logs(filter) = &kind {
            super::blocks::check_size(filter)?;
        }
        let next = match kind {
            FilterKind::Logs(_) | FilterKind::Blocks => self.chain.head()?.number() + 1,
            FilterKind::Pending { .. } => self.next_pending()?,
        };
        let mut installed = self.filters.installed.lock();
        installed.retain(|_, filter| filter.polled.elapsed() < LIFETIME);
        if installed.len() >= MAX {
            return Err(RpcError::InvalidInput("too many filters are installed".into()));
        }
        // Not to be guessed: whoever knows it polls in the place of its owner.
        let id = U256::from(random_id());
        installed.insert(id, Installed { kind, next, polled: Instant::now() });
        Ok(id)
    }

    /// What is new since the last poll.
    pub(super) fn poll_filter(&self, id: U256) -> RpcResult<Value> {
        let head = self.chain.head()?.number();
        let (kind, from) = {
            let mut guard = self.filters.installed.lock();
            let installed = guard.get_mut(&id).ok_or_else(not_found)?;
            installed.polled = Instant::now();
            (installed.kind.clone(), installed.next)
        };
        let mut next = head + 1;
        let answer = match kind {
            FilterKind::Logs(filter) => {
                // Only what is new, and within the blocks that the filter names.
                let from = filter.get_from_block().map_or(from, |first| first.max(from));
                let to = filter.get_to_block().map_or(head, |last| last.min(head));
                let (logs, after) = if from > to { (vec![], head + 1) } else { self.some_logs(&filter, from, to)? };
                next = if after > to { head + 1 } else { after };
                serde_json::to_value(logs)
            }
            FilterKind::Blocks => {
                let mut hashes = Vec::new();
                for number in from..=head {
                    hashes.extend(self.chain.header(number)?.map(|(_, hash)| hash));
                }
                serde_json::to_value(hashes)
            }
            FilterKind::Pending { full } => {
                let (hashes, after) = self.pending_since(from);
                next = after;
                if full {
                    // What left the pool meanwhile is not pending any more.
                    let pool = self.chain.pool()?;
                    let txs = hashes.iter().filter_map(|hash| pool.read(|pool| pool.get(hash)));
                    serde_json::to_value(txs.map(|tx| convert::pending(&tx.tx, tx.sender)).collect::<Vec<_>>())
                } else {
                    serde_json::to_value(hashes)
                }
            }
        };
        let answer = answer.map_err(|error| RpcError::Internal(error.to_string()))?;
        if let Some(installed) = self.filters.installed.lock().get_mut(&id) {
            installed.next = installed.next.max(next);
        }
        Ok(answer)
    }

    /// The logs of as many blocks as one answer may have, and the block after them: a filter that was not polled for long is
    /// told in parts.
    fn some_logs(&self, filter: &Filter, from: u64, to: u64) -> RpcResult<(Vec<Log>, u64)> {
        let mut to = to.min(from.saturating_add(self.config.max_log_blocks - 1));
        loop {
            match self.logs_between(filter, from, to) {
                Ok(logs) => return Ok((logs, to + 1)),
                Err(RpcError::InvalidInput(_)) if to > from => to = from + (to - from) / 2,
                Err(error) => return Err(error),
            }
        }
    }

    /// Everything that a log filter selects.
    pub(super) fn all_of_filter(&self, id: U256) -> RpcResult<Vec<Log>> {
        let filter = {
            let mut guard = self.filters.installed.lock();
            let installed = guard.get_mut(&id).ok_or_else(not_found)?;
            installed.polled = Instant::now();
            match &installed.kind {
                FilterKind::Logs(filter) => filter.clone(),
                FilterKind::Blocks | FilterKind::Pending { .. } => return Err(not_found()),
            }
        };
        self.find_logs(&filter)
    }
}
