//! The chain's data as Ethereum's JSON.

use alloy_consensus::{
    ReceiptEnvelope, ReceiptWithBloom, Transaction as _, TxEnvelope, TxType, transaction::Recovered,
};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bloom, U256};
use alloy_rpc_types_eth::{
    Block as RpcBlock, BlockTransactions, Header as RpcHeader, Log as RpcLog, Transaction, TransactionInfo,
    TransactionReceipt,
};
use penstock_chain::Block;

/// A block, with whole transactions or their hashes.
pub(crate) fn block(block: &Block, full: bool) -> RpcBlock {
    let transactions = if full {
        BlockTransactions::Full((0..block.txs.len()).filter_map(|index| transaction(block, index)).collect())
    } else {
        BlockTransactions::Hashes(block.txs.iter().map(|tx| *tx.tx_hash()).collect())
    };
    let size = alloy_consensus::Block::<TxEnvelope>::rlp_length_for(
        &block.header,
        &alloy_consensus::BlockBody {
            transactions: block.txs.clone(),
            ommers: vec![],
            withdrawals: withdrawals(block),
        },
    );
    let mut header = header(block);
    header.size = Some(U256::from(size));
    RpcBlock { header, uncles: vec![], transactions, withdrawals: withdrawals(block) }
}

/// None ever; blocks since Shanghai say so.
fn withdrawals(block: &Block) -> Option<alloy_eips::eip4895::Withdrawals> {
    block.header.withdrawals_root.map(|_| Default::default())
}

/// A header.
pub(crate) fn header(block: &Block) -> RpcHeader {
    RpcHeader { hash: block.hash, inner: block.header.clone(), total_difficulty: None, size: None }
}

/// A transaction of a block.
pub(crate) fn transaction(block: &Block, index: usize) -> Option<Transaction> {
    let (tx, receipt) = (block.txs.get(index)?, block.receipts.get(index)?);
    let info = TransactionInfo {
        hash: Some(*tx.tx_hash()),
        index: Some(index as u64),
        block_hash: Some(block.hash),
        block_number: Some(block.header.number),
        base_fee: block.header.base_fee_per_gas,
        block_timestamp: Some(block.header.timestamp),
    };
    Some(Transaction::from_transaction(Recovered::new_unchecked(tx.clone(), receipt.sender), info))
}

/// A transaction that is not in a block.
pub(crate) fn pending(tx: &TxEnvelope, sender: Address) -> Transaction {
    Transaction::from_transaction(Recovered::new_unchecked(tx.clone(), sender), TransactionInfo::default())
}

/// The receipt of a transaction of a block.
pub(crate) fn receipt(block: &Block, index: usize) -> Option<TransactionReceipt> {
    let (tx, stored) = (block.txs.get(index)?, block.receipts.get(index)?);
    let cumulative_gas_used = block.receipts[..=index].iter().map(|receipt| receipt.gas_used).sum();
    let logs = logs(block, index);
    let logs_bloom = stored.logs.iter().fold(Bloom::ZERO, |mut bloom, log| {
        bloom.accrue_log(log);
        bloom
    });
    let receipt = alloy_consensus::Receipt { status: stored.success.into(), cumulative_gas_used, logs };
    let receipt = ReceiptWithBloom { receipt, logs_bloom };
    let inner = match tx.tx_type() {
        TxType::Legacy => ReceiptEnvelope::Legacy(receipt),
        TxType::Eip2930 => ReceiptEnvelope::Eip2930(receipt),
        TxType::Eip1559 => ReceiptEnvelope::Eip1559(receipt),
        TxType::Eip4844 => ReceiptEnvelope::Eip4844(receipt),
        TxType::Eip7702 => ReceiptEnvelope::Eip7702(receipt),
    };
    Some(TransactionReceipt {
        inner,
        transaction_hash: *tx.tx_hash(),
        transaction_index: Some(index as u64),
        block_hash: Some(block.hash),
        block_number: Some(block.header.number),
        gas_used: stored.gas_used,
        effective_gas_price: tx.effective_gas_price(block.header.base_fee_per_gas),
        blob_gas_used: None,
        blob_gas_price: None,
        from: stored.sender,
        to: tx.to(),
        contract_address: tx.is_create().then(|| stored.sender.create(tx.nonce())),
    })
}

/// The logs of a transaction of a block.
pub(crate) fn logs(block: &Block, index: usize) -> Vec<RpcLog> {
    let first: usize = block.receipts[..index].iter().map(|receipt| receipt.logs.len()).sum();
    let transaction_hash: Option<B256> = block.txs.get(index).map(|tx| *tx.tx_hash());
    let stored = block.receipts.get(index).map(|receipt| receipt.logs.as_slice()).unwrap_or_default();
    stored
        .iter()
        .enumerate()
        .map(|(offset, log)| RpcLog {
            inner: log.clone(),
            block_hash: Some(block.hash),
            block_number: Some(block.header.number),
            block_timestamp: Some(block.header.timestamp),
            transaction_hash,
            transaction_index: Some(index as u64),
            log_index: Some((first + offset) as u64),
            removed: false,
        })
        .collect()
}

/// All logs of a block.
pub(crate) fn block_logs(block: &Block) -> impl Iterator<Item = RpcLog> + '_ {
    (0..block.txs.len()).flat_map(|index| logs(block, index))
}

/// The EIP-2718 bytes of a transaction.
pub(crate) fn raw(tx: &TxEnvelope) -> alloy_primitives::Bytes {
    tx.encoded_2718().into()
}
