//! Blocks as they are stored and read.

use std::sync::Arc;

use alloy_consensus::{Header, Receipt, ReceiptEnvelope, TxEnvelope, TxType};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Log};
use alloy_rlp::{RlpDecodable, RlpEncodable};
use penstock_inference::{ContentHash, result::memory_bytes};

use crate::{BlockResult, HeaderTx};

/// What is kept of a transaction's execution; the rest of an RPC receipt follows from it.
#[derive(Debug, Clone, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct StoredReceipt {
    /// Whether it succeeded.
    pub success: bool,
    /// Gas that it used.
    pub gas_used: u64,
    /// Who signed it.
    pub sender: Address,
    /// Its logs.
    pub logs: Vec<Log>,
    /// The requests that it made, each once, in order.
    pub requests: Vec<B256>,
}

/// A committed block with everything that is known of it.
#[derive(Debug, Clone)]
pub struct Block {
    /// Ethereum header.
    pub header: Header,
    /// keccak256 of the header's RLP: CometBFT's app hash.
    pub hash: B256,
    /// Results and fee recipient. `None` for the genesis block.
    pub header_tx: Option<Arc<HeaderTx>>,
    /// Transactions that run tasks, then users'.
    pub txs: Vec<TxEnvelope>,
    /// One for each transaction.
    pub receipts: Vec<StoredReceipt>,
}

impl Block {
    /// Bytes of memory that it takes, about.
    pub(crate) fn memory(&self) -> usize {
        // Decoded lists need up to twice their encoding.
        let tx = |tx: &TxEnvelope| size_of::<TxEnvelope>() + 2 * tx.encode_2718_len();
        let log = |log: &Log| size_of::<Log>() + 32 * log.topics().len() + log.data.data.len();
        let receipt = |receipt: &StoredReceipt| {
            let logs: usize = receipt.logs.iter().map(log).sum();
            size_of::<StoredReceipt>() + logs + 32 * receipt.requests.len()
        };
        let txs: usize = self.txs.iter().map(tx).sum();
        let receipts: usize = self.receipts.iter().map(receipt).sum();
        let result = |result: &BlockResult| size_of::<BlockResult>() + memory_bytes(&result.result);
        let results: usize = self.header_tx.iter().flat_map(|header| &header.results).map(result).sum();
        size_of::<Self>() + self.header.extra_data.len() + txs + receipts + results
    }

    /// The receipts as Ethereum's receipts trie has them.
    pub fn receipt_envelopes(&self) -> Vec<ReceiptEnvelope> {
        receipt_envelopes(&self.receipts, self.txs.iter().map(TxEnvelope::tx_type))
    }
}

/// The receipts of a block as Ethereum's receipts trie has them.
pub(crate) fn receipt_envelopes(
    receipts: &[StoredReceipt],
    types: impl Iterator<Item = TxType>,
) -> Vec<ReceiptEnvelope> {
    let mut cumulative_gas_used = 0;
    let receipts = receipts.iter().zip(types).map(|(stored, tx_type)| {
        cumulative_gas_used += stored.gas_used;
        let receipt = Receipt { status: stored.success.into(), cumulative_gas_used, logs: stored.logs.clone() };
        ReceiptEnvelope::from_typed(tx_type, receipt)
    });
    receipts.collect()
}

/// Where a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TxPlace {
    /// Number of its block.
    pub block: u64,
    /// Its index among the block's transactions.
    pub index: usize,
}

/// A request that a block used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordedRequest {
    /// The last block that used it.
    pub block: u64,
    /// The model.
    pub model: ContentHash,
    /// keccak256 of the canonical request.
    pub input_digest: B256,
}
