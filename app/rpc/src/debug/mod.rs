//! `debug_`: traces and raw bytes.

mod bounds;
mod raw;
mod trace;

use std::sync::Arc;

use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::Bytes;
use alloy_rpc_types_eth::TransactionRequest;
use alloy_rpc_types_trace::geth::{GethDebugTracingCallOptions, GethDebugTracingOptions, GethTrace, TraceResult};
use jsonrpsee::{proc_macros::rpc, types::ErrorObjectOwned};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    error::RpcError,
    eth::{Eth, InferenceOverride, StrictHash},
};

type Answer<T> = Result<T, ErrorObjectOwned>;

/// geth's words.
fn not_found(id: BlockId) -> RpcError {
    RpcError::InvalidInput(match id {
        BlockId::Hash(hash) => format!("block {} not found", hash.block_hash),
        BlockId::Number(tag) => format!("block #{tag} not found"),
    })
}

/// The options of `debug_traceCall`: geth's, and where results of inference come from.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct TraceCallOptions {
    #[serde(flatten)]
    geth: GethDebugTracingCallOptions,
    #[serde(default)]
    inferences: Option<InferenceOverride>,
}

/// Traces rest on the results that a block recorded: they need no model. A block's raw form is that of its Ethereum block.
#[rpc(server, namespace = "debug")]
pub(crate) trait DebugApi {
    /// What a transaction did: geth's tracers (callTracer, prestateTracer, 4byteTracer, flatCallTracer, muxTracer,
    /// noopTracer, erc7562Tracer), struct logs without one.
    #[method(name = "traceTransaction")]
    async fn trace_transaction(&self, hash: StrictHash, options: Option<GethDebugTracingOptions>) -> Answer<GethTrace>;
    /// The same of all transactions of a block.
    #[method(name = "traceBlockByNumber")]
    async fn trace_block_by_number(
        &self,
        number: BlockNumberOrTag,
        options: Option<GethDebugTracingOptions>,
    ) -> Answer<Vec<TraceResult>>;
    /// The same of all transactions of a block.
    #[method(name = "traceBlockByHash")]
    async fn trace_block_by_hash(
        &self,
        hash: StrictHash,
        options: Option<GethDebugTracingOptions>,
    ) -> Answer<Vec<TraceResult>>;
    /// The same of a call on the state after a block.
    #[method(name = "traceCall")]
    async fn trace_call(
        &self,
        request: TransactionRequest,
        block: Option<BlockId>,
        options: Option<TraceCallOptions>,
    ) -> Answer<GethTrace>;
    /// Always empty: a block that is not valid is never committed.
    #[method(name = "getBadBlocks")]
    fn bad_blocks(&self) -> Answer<Vec<Value>>;
    /// RLP of a header.
    #[method(name = "getRawHeader", blocking)]
    fn raw_header(&self, block: BlockId) -> Answer<Bytes>;
    /// RLP of a block.
    #[method(name = "getRawBlock", blocking)]
    fn raw_block(&self, block: BlockId) -> Answer<Bytes>;
    /// EIP-2718 bytes of a block's receipts.
    #[method(name = "getRawReceipts", blocking)]
    fn raw_receipts(&self, block: BlockId) -> Answer<Vec<Bytes>>;
    /// EIP-2718 bytes of a transaction.
    #[method(name = "getRawTransaction")]
    async fn raw_transaction(&self, hash: StrictHash) -> Answer<Option<Bytes>>;
}

#[jsonrpsee::core::async_trait]
impl DebugApiServer for Arc<Eth> {
    async fn trace_transaction(&self, hash: StrictHash, options: Option<GethDebugTracingOptions>) -> Answer<GethTrace> {
        Ok(trace::transaction(self.clone(), hash.0, options.unwrap_or_default()).await?)
    }

    async fn trace_block_by_number(
        &self,
        number: BlockNumberOrTag,
        options: Option<GethDebugTracingOptions>,
    ) -> Answer<Vec<TraceResult>> {
        Ok(trace::block(self.clone(), number.into(), options.unwrap_or_default()).await?)
    }

    async fn trace_block_by_hash(
        &self,
        hash: StrictHash,
        options: Option<GethDebugTracingOptions>,
    ) -> Answer<Vec<TraceResult>> {
        Ok(trace::block(self.clone(), hash.0.into(), options.unwrap_or_default()).await?)
    }

    async fn trace_call(
        &self,
        request: TransactionRequest,
        block: Option<BlockId>,
        options: Option<TraceCallOptions>,
    ) -> Answer<GethTrace> {
        Ok(trace::call(self.clone(), request, block, options.unwrap_or_default()).await?)
    }

    fn bad_blocks(&self) -> Answer<Vec<Value>> {
        Ok(vec![])
    }

    fn raw_header(&self, block: BlockId) -> Answer<Bytes> {
        Ok(raw::header(self, block)?)
    }

    fn raw_block(&self, block: BlockId) -> Answer<Bytes> {
        Ok(raw::block(self, block)?)
    }

    fn raw_receipts(&self, block: BlockId) -> Answer<Vec<Bytes>> {
        Ok(raw::receipts(self, block)?)
    }

    async fn raw_transaction(&self, hash: StrictHash) -> Answer<Option<Bytes>> {
        Ok(Eth::raw_transaction(self, hash.0).await?)
    }
}
