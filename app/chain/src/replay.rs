//! Committed blocks, executed again with the results that they recorded: traces need no model.

use std::{collections::HashMap, sync::Arc};

use alloy_consensus::Header;
use penstock_evm::{BlockContext, Db, EvmContext, Executor, Inspected, OnMiss, tx_env};
use penstock_inference::{InferenceResult, RequestId};
use revm::{Inspector, context::TxEnv, database::CacheDB};

use crate::{Block, Chain, ChainError, call::CallDb};

/// A transaction of a block that ran again. The state at hand is the one before it.
#[derive(Debug)]
pub struct Replayed<'r, 'a, I> {
    /// Its place in the block.
    pub index: usize,
    /// The transaction, as it ran.
    pub tx: TxEnv,
    /// What came of it.
    pub inspected: &'r Inspected,
    /// What executed it.
    pub executor: &'r mut Executor<'a, CallDb, I>,
}

/// The surroundings that a block's transactions had.
pub fn context_of(header: &Header) -> BlockContext {
    BlockContext {
        number: header.number,
        timestamp: header.timestamp,
        beneficiary: header.beneficiary,
        base_fee: header.base_fee_per_gas.unwrap_or_default(),
        prevrandao: header.mix_hash,
        parent_hash: header.parent_hash,
    }
}

impl Chain {
    /// Executes a committed block up to its transaction `last`, and tells `visit` of all from `first`.
    ///
    /// # Errors
    /// `E` of `visit`; [`ChainError`]: the state before the block is not kept ([`penstock_state::StoreError::Pruned`]), or
    /// the store fails.
    pub fn replay<I, E>(
        &self,
        block: &Block,
        (first, last): (usize, usize),
        inspector: I,
        mut visit: impl FnMut(Replayed<'_, '_, I>) -> Result<(), E>,
    ) -> Result<(), E>
    where
        I: Inspector<EvmContext<CallDb>>,
        E: From<ChainError>,
    {
        let number = block.header.number;
        let parent = number.checked_sub(1).ok_or_else(|| failed("the genesis block has no transactions"))?;
        let pruned = || ChainError::Store(penstock_state::StoreError::Pruned(parent));
        let view = self.view_at(parent)?.ok_or_else(pruned)?;
        let results: HashMap<RequestId, Arc<InferenceResult>> = block
            .header_tx
            .iter()
            .flat_map(|header| &header.results)
            .map(|result| (result.id, Arc::new(result.result.clone())))
            .collect();
        let context = context_of(&block.header);
        let mut executor = Executor::new(&self.rules, context, CacheDB::new(Db(view)), &results, OnMiss::Revert)
            .with_block_env(context.env(block.header.gas_limit))
            .with_inspector(inspector);
        executor.begin_block().map_err(failed)?;
        for (index, (tx, receipt)) in block.txs.iter().zip(&block.receipts).enumerate().take(last.saturating_add(1)) {
            let tx = tx_env(tx, receipt.sender);
            if index < first {
                let execution = executor.run(tx).map_err(failed)?;
                executor.commit(execution.state);
                continue;
            }
            let inspected = executor.inspect(tx.clone()).map_err(failed)?;
            visit(Replayed { index, tx, inspected: &inspected, executor: &mut executor })?;
            executor.commit(inspected.result.state);
        }
        Ok(())
    }
}

fn failed(error: impl core::fmt::Display) -> ChainError {
    ChainError::Consensus(format!("a committed block cannot be executed again: {error}"))
}
