//! FinalizeBlock and Commit: the kept execution, or one from the block alone; the Ethereum header; one batch.

use std::sync::Arc;

use alloy_consensus::{Header, TxEnvelope, proofs};
use alloy_primitives::{B256, Bytes, keccak256};
use alloy_rlp::Encodable;
use metrics::{counter, gauge};
use penstock_abci::messages::ValidatorUpdate;
use penstock_evm::{BlockContext, OnMiss, TASK_SENDER};
use penstock_pipe::{Included, NewHead};
use penstock_state::{Batch, keys};
use prost::Message;
use tracing::{error, info};

use crate::{
    Block, Chain, ChainError, Head,
    block_id::BlockId,
    chain::{KeptBlock, empty_header, put_block},
    execution::Executed,
    inference_proof::results_root,
    logs, validators,
    verify::{Decoded, Rejection},
};

/// A finalized block that waits for its commit.
#[derive(Debug)]
pub(crate) struct Finalized {
    batch: Batch,
    block: Arc<Block>,
    executed: Arc<Executed>,
}

/// Gas of one transaction of a finalized block; every transaction of a valid block is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TxGas {
    pub(crate) wanted: i64,
    pub(crate) used: i64,
}

/// What consensus is told of a finalized block.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Hash of the Ethereum header.
    pub(crate) app_hash: B256,
    /// One for each transaction.
    pub(crate) results: Vec<TxGas>,
    /// Validators that the block changed.
    pub(crate) validator_updates: Vec<ValidatorUpdate>,
}

impl Chain {
    /// Executes a decided block.
    ///
    /// Needs the block and the committed state, and nothing else: no model, no network.
    pub(crate) fn finalize(&self, id: &BlockId, txs: &[bytes::Bytes]) -> Result<Outcome, ChainError> {
        let head = self.head()?;
        if id.height != head.number() + 1 {
            return Err(ChainError::Consensus(format!(
                "FinalizeBlock for height {} on head {}",
                id.height,
                head.number()
            )));
        }
        // More than two thirds of the validators accepted it: it is well-formed and executable, or the chain
        // has no honest majority and must stop rather than guess.
        let not_valid = |rejection: Rejection| {
            ChainError::Consensus(format!("the decided block of height {} is not valid: {rejection}", id.height))
        };
        self.note_decided(id.height);
        let kept = self.find_kept(id.fingerprint(txs));
        let source = if kept.is_some() { "proposal" } else { "block" };
        counter!("penstock_finalized_executions_total", "from" => source).increment(1);
        let KeptBlock { decoded, executed } = match kept {
            Some(kept) => kept,
            None => {
                let decoded = self.decode_block(&head, txs).map_err(not_valid)?;
                let context = id.context(&head, decoded.header.fee_recipient);
                let executed = self.execute(context, &decoded, OnMiss::Revert)?.map_err(not_valid)?;
                KeptBlock { decoded: Arc::new(decoded), executed: Arc::new(executed) }
            }
        };
        let context = id.context(&head, decoded.header.fee_recipient);
        let applied = self.state.lock().apply(id.height, &executed.changes)?;
        let header = self.header_of(&head, &context, &decoded, &executed, applied.root);
        let hash = header.hash_slow();
        let results = tx_results(&decoded, &executed);
        let block = Arc::new(Block {
            hash,
            header,
            header_tx: Some(Arc::new(decoded.header.clone())),
            txs: decoded.txs.iter().map(|(tx, _)| tx.clone()).collect(),
            receipts: executed.receipts.clone(),
        });
        let mut batch = applied.batch;
        put_content(&mut batch, &block, &executed, txs);
        batch.put(keys::consensus(block.header.number), id.consensus.encode_to_vec());
        let validator_updates = validators::updates(&head.view, &executed.changes)?;
        *self.finalized.lock() = Some(Finalized { batch, block, executed });
        Ok(Outcome { app_hash: hash, results, validator_updates })
    }

    fn header_of(
        &self,
        head: &Head,
        block: &BlockContext,
        decoded: &Decoded,
        executed: &Executed,
        state_root: B256,
    ) -> Header {
        let txs: Vec<&TxEnvelope> = decoded.txs.iter().map(|(tx, _)| tx).collect();
        Header {
            parent_hash: head.hash,
            beneficiary: block.beneficiary,
            state_root,
            transactions_root: proofs::calculate_transaction_root(&txs),
            receipts_root: proofs::calculate_receipt_root(&executed.receipt_envelopes()),
            logs_bloom: executed.bloom(),
            number: block.number,
            gas_limit: self.rules.block_gas_limit,
            gas_used: executed.gas_used,
            timestamp: block.timestamp,
            extra_data: Bytes::copy_from_slice(results_root(&decoded.header).as_slice()),
            mix_hash: block.prevrandao,
            base_fee_per_gas: Some(block.base_fee),
            parent_beacon_block_root: Some(block.parent_hash),
            ..empty_header(&self.rules)
        }
    }

    /// Makes the finalized block durable and tells everybody. Answers its height.
    pub(crate) fn commit_finalized(&self) -> Result<u64, ChainError> {
        let finalized = self.finalized.lock().take();
        let Finalized { batch, block, executed } =
            finalized.ok_or_else(|| ChainError::Consensus("Commit without FinalizeBlock".into()))?;
        let view = {
            let mut state = self.state.lock();
            state.commit(block.header.number, batch)?;
            state.head()
        };
        self.kept.lock().clear();
        let head = Head { header: block.header.clone(), hash: block.hash, view: view.clone() };
        let new = NewHead {
            height: head.number(),
            base_fee: head.next_base_fee(),
            included: block
                .txs
                .iter()
                .zip(&block.receipts)
                // The pool has none of those that run tasks.
                .filter(|(_, receipt)| receipt.sender != TASK_SENDER)
                .map(|(tx, receipt)| Included {
                    hash: *tx.tx_hash(),
                    sender: receipt.sender,
                    gas_used: receipt.gas_used,
                })
                .collect(),
            changes: Arc::new(executed.changes.clone()),
        };
        self.set_head(head.clone())?;
        self.pool()?.new_head(new, |address| {
            // The pool drops what it cannot pay for later; the chain itself is not touched by this.
            head.account(address).unwrap_or_else(|error| {
                error!(%error, %address, "cannot read an account for the pool");
                Default::default()
            })
        });
        let results = block.header_tx.as_ref().map_or(0, |header| header.results.len());
        info!(
            height = block.header.number,
            txs = block.txs.len(),
            inferences = results,
            gas = block.header.gas_used,
            hash = %block.hash,
            "committed"
        );
        if let Some(ahead) = self.tasks_ahead() {
            ahead.new_head();
        }
        self.recent.keep(&block);
        self.tell_subscribers(&block);
        self.snapshots.committed(&view);
        gauge!("penstock_block_height").set(block.header.number as f64);
        self.note_sizes(block.header.number);
        counter!("penstock_block_transactions_total").increment(block.txs.len() as u64);
        counter!("penstock_block_inferences_total").increment(results as u64);
        counter!("penstock_block_gas_used_total").increment(block.header.gas_used);
        Ok(block.header.number)
    }

    fn note_sizes(&self, height: u64) {
        let memory = self.reader.memory();
        gauge!("penstock_trie_bytes", "trie" => "accounts").set(memory.accounts as f64);
        gauge!("penstock_trie_bytes", "trie" => "storage").set(memory.storage as f64);
        if height.is_multiple_of(SIZES_EVERY)
            && let Ok(bytes) = self.reader.disk_bytes()
        {
            gauge!("penstock_store_bytes").set(bytes as f64);
        }
    }
}

/// Blocks between two looks at the disk.
const SIZES_EVERY: u64 = 16;

fn tx_results(decoded: &Decoded, executed: &Executed) -> Vec<TxGas> {
    use alloy_consensus::Transaction;
    let each = decoded
        .txs
        .iter()
        .zip(&executed.receipts)
        .map(|((tx, _), receipt)| TxGas { wanted: tx.gas_limit() as i64, used: receipt.gas_used as i64 });
    let mut each: Vec<TxGas> = each.collect();
    let users = each.split_off(decoded.header.tasks.len());
    // Tasks have no transactions that consensus knows; they are the header transaction's.
    let header = each.iter().fold(TxGas { wanted: 0, used: 0 }, |sum, task| TxGas {
        wanted: sum.wanted + task.wanted,
        used: sum.used + task.used,
    });
    core::iter::once(header).chain(users).collect()
}

/// The block, its receipts and its indexes.
fn put_content(batch: &mut Batch, block: &Block, executed: &Executed, txs: &[bytes::Bytes]) {
    let number = block.header.number;
    put_block(batch, &block.header, block.hash);
    let body: Vec<Bytes> = txs.iter().cloned().map(Bytes).collect();
    let mut bytes = Vec::new();
    body.encode(&mut bytes);
    batch.put(keys::body(number), bytes);
    batch.put(keys::receipts(number), alloy_rlp::encode(&block.receipts));
    for mark in logs::marks(block.receipts.iter().flat_map(|receipt| &receipt.logs)) {
        batch.put(keys::log_mark_at(&mark, number), Vec::new());
    }
    for (index, tx) in block.txs.iter().enumerate() {
        let place = [&number.to_be_bytes()[..], &(index as u32).to_be_bytes()].concat();
        batch.put(keys::transaction(*tx.tx_hash()), place);
    }
    for call in &executed.calls {
        let input_digest = keccak256(call.request.canonical_bytes());
        let record = [&number.to_be_bytes()[..], &call.request.model.0, input_digest.as_slice()].concat();
        batch.put(keys::request(call.id.0), record);
    }
}
