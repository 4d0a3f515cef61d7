//! Transactions, receipts and logs.

use std::sync::Arc;

use alloy_eips::BlockId;
use alloy_primitives::{B256, Bytes};
use alloy_rpc_types_eth::{Filter, FilterBlockOption, Log, Transaction, TransactionReceipt};
use penstock_chain::{Block, LogQuery};

use super::Eth;
use crate::{
    convert,
    error::{RpcError, RpcResult},
};

impl Eth {
    /// A block; one that is not at hand is read and decoded beside the threads that serve.
    pub(crate) async fn load(self: &Arc<Self>, number: u64) -> RpcResult<Option<Arc<Block>>> {
        if let Some(block) = self.chain.block_at_hand(number) {
            return Ok(Some(block));
        }
        let eth = self.clone();
        let read = tokio::task::spawn_blocking(move || eth.chain.block(number)).await;
        Ok(read.map_err(|error| RpcError::Internal(error.to_string()))??)
    }

    /// The same by number, tag or hash.
    pub(super) async fn load_by_id(self: &Arc<Self>, id: BlockId) -> RpcResult<Option<Arc<Block>>> {
        match self.number(id)? {
            Some(number) => self.load(number).await,
            None => Ok(None),
        }
    }

    /// A transaction, committed or in the pool.
    pub(super) async fn transaction(self: &Arc<Self>, hash: B256) -> RpcResult<Option<Transaction>> {
        // The pool first: a transaction may move from there to a block while this looks.
        let pooled = self.chain.pool()?.read(|pool| pool.get(&hash));
        if let Some(place) = self.chain.place_of(hash)? {
            let block = self.load(place.block).await?;
            return Ok(block.and_then(|block| convert::transaction(&block, place.index)));
        }
        Ok(pooled.map(|tx| convert::pending(&tx.tx, tx.sender)))
    }

    pub(crate) async fn raw_transaction(self: &Arc<Self>, hash: B256) -> RpcResult<Option<Bytes>> {
        Ok(self.transaction(hash).await?.map(|tx| convert::raw(tx.inner.inner())))
    }

    pub(super) async fn receipt(self: &Arc<Self>, hash: B256) -> RpcResult<Option<TransactionReceipt>> {
        let Some(place) = self.chain.place_of(hash)? else { return Ok(None) };
        let block = self.load(place.block).await?;
        Ok(block.and_then(|block| convert::receipt(&block, place.index)))
    }

    /// The logs that a filter selects, in order.
    pub(super) fn find_logs(&self, filter: &Filter) -> RpcResult<Vec<Log>> {
        let head = self.chain.head()?.number();
        let (from, to) = match filter.block_option {
            FilterBlockOption::AtBlockHash(hash) => {
                let number = self.chain.number_of(hash)?;
                let number = number.ok_or_else(|| RpcError::InvalidInput("unknown block".into()))?;
                (number, number)
            }
            FilterBlockOption::Range { from_block, to_block } => {
                let number = |tag: Option<_>| self.number_of_tag(tag.unwrap_or_default(), head);
                if [from_block, to_block].map(number).into_iter().any(|number| number > head) {
                    return Err(RpcError::InvalidParams("block range extends beyond current head block".into()));
                }
                (number(from_block), number(to_block).min(head))
            }
        };
        if from > to {
            return Err(RpcError::InvalidParams("invalid block range params".into()));
        }
        self.logs_between(filter, from, to)
    }

    /// The logs of blocks `from..=to` that a filter selects.
    pub(super) fn logs_between(&self, filter: &Filter, from: u64, to: u64) -> RpcResult<Vec<Log>> {
        let limit = self.config.max_log_blocks;
        if to.saturating_sub(from) >= limit {
            return Err(RpcError::InvalidInput(format!("block range is too wide: at most {limit} blocks")));
        }
        // A node that joined by state sync has no blocks before that: it must not answer as if they had no logs.
        let first = self.chain.first_block()?;
        if from < first && from <= to {
            return Err(RpcError::PrunedBlock(first));
        }
        let query = log_query(filter)?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        let blocks = self.chain.blocks_with_logs(&query, from, to)?;
        let blocks = blocks.ok_or_else(|| {
            RpcError::InvalidInput("too many logs match a part of the filter: ask for fewer blocks".into())
        })?;
        for number in blocks {
            let Some(block) = self.chain.block(number)? else { break };
            let before = found.len();
            found.extend(convert::block_logs(&block).filter(|log| filter.matches(&log.inner)));
            bytes += found[before..].iter().map(|log: &Log| LOG_BYTES + 2 * log.inner.data.data.len()).sum::<usize>();
            if bytes > self.config.max_response_bytes as usize {
                return Err(RpcError::InvalidInput("the logs are larger than an answer may be: ask for less".into()));
            }
            if found.len() > self.config.max_logs {
                let limit = self.config.max_logs;
                return Err(RpcError::InvalidInput(format!("query returned more than {limit} results")));
            }
        }
        Ok(found)
    }
}

/// A log without its data, as JSON, about.
const LOG_BYTES: usize = 600;

/// Addresses and topics of one filter, at most: each is a scan of the index.
const MAX_ALTERNATIVES: usize = 1_000;

/// Whether a filter has no more alternatives than are looked for.
pub(super) fn check_size(filter: &Filter) -> RpcResult<()> {
    log_query(filter).map(drop)
}

fn log_query(filter: &Filter) -> RpcResult<LogQuery> {
    let topics = filter.topics.each_ref().map(|topics| topics.iter().copied().collect::<Vec<_>>());
    let addresses: Vec<_> = filter.address.iter().copied().collect();
    if addresses.len() + topics.iter().map(Vec::len).sum::<usize>() > MAX_ALTERNATIVES {
        return Err(RpcError::InvalidInput(format!("a filter has at most {MAX_ALTERNATIVES} addresses and topics")));
    }
    Ok(LogQuery { addresses, topics })
}
