//! Headers, blocks and receipts as Ethereum encodes them.

use alloy_consensus::{BlockBody, EMPTY_OMMER_ROOT_HASH, TxEnvelope, proofs};
use alloy_eips::{BlockId, eip2718::Encodable2718};
use alloy_primitives::Bytes;
use penstock_chain::Block;

use crate::{
    error::{RpcError, RpcResult},
    eth::Eth,
};

fn found(eth: &Eth, id: BlockId) -> RpcResult<std::sync::Arc<Block>> {
    eth.block(id)?.ok_or_else(|| super::not_found(id))
}

pub(super) fn header(eth: &Eth, id: BlockId) -> RpcResult<Bytes> {
    Ok(alloy_rlp::encode(&found(eth, id)?.header).into())
}

pub(super) fn block(eth: &Eth, id: BlockId) -> RpcResult<Bytes> {
    let block = found(eth, id)?;
    let withdrawals = block.header.withdrawals_root.map(|_| Default::default());
    let body = BlockBody::<TxEnvelope> { transactions: block.txs.clone(), ommers: vec![], withdrawals };
    if EMPTY_OMMER_ROOT_HASH != block.header.ommers_hash
        || body.calculate_withdrawals_root() != block.header.withdrawals_root
        || proofs::calculate_transaction_root(&body.transactions) != block.header.transactions_root
    {
        return Err(RpcError::Internal(format!("the body of block {} is not its header's", block.header.number)));
    }
    Ok(alloy_rlp::encode(alloy_consensus::Block { header: block.header.clone(), body }).into())
}

pub(super) fn receipts(eth: &Eth, id: BlockId) -> RpcResult<Vec<Bytes>> {
    let receipts = found(eth, id)?.receipt_envelopes();
    Ok(receipts.iter().map(|receipt| receipt.encoded_2718().into()).collect())
}
