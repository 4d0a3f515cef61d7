//! geth's tracers over committed blocks and calls.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use alloy_eips::BlockId;
use alloy_primitives::B256;
use alloy_rpc_types_eth::TransactionRequest;
use alloy_rpc_types_trace::geth::{
    GethDebugTracerType, GethDebugTracingCallOptions, GethDebugTracingOptions, GethTrace, TraceResult,
};
use penstock_chain::{Block, CallDb, ChainError, Replayed};
use penstock_evm::{ExecError, Executor, Inspected};
use revm::context::TxEnv;
use revm_inspectors::tracing::{DebugInspector, DebugInspectorError, TransactionContext};

use super::{TraceCallOptions, bounds::Bounds};
use crate::{
    error::{RpcError, RpcResult},
    eth::{CallParams, Eth},
};

type Tracer = (Bounds, DebugInspector);

/// A trace that failed; from here on a store's error is known as such.
#[derive(Debug)]
enum Failed {
    Chain(ChainError),
    Rpc(RpcError),
}

impl From<ChainError> for Failed {
    fn from(error: ChainError) -> Self {
        Self::Chain(error)
    }
}

pub(super) async fn transaction(eth: Arc<Eth>, hash: B256, options: GethDebugTracingOptions) -> RpcResult<GethTrace> {
    eth.blocking(move |eth, _| {
        let place = eth.chain.place_of(hash)?;
        let place = place.ok_or_else(|| RpcError::InvalidInput("transaction not found".into()))?;
        let block = eth.chain.block(place.block)?.ok_or(RpcError::UnknownBlock)?;
        let mut traces = traces(eth, &block, (place.index, place.index), options)?;
        match traces.pop() {
            Some(TraceResult::Success { result, .. }) => Ok(result),
            _ => Err(RpcError::Internal("the transaction is not in its block".into())),
        }
    })
    .await
}

pub(super) async fn block(eth: Arc<Eth>, id: BlockId, options: GethDebugTracingOptions) -> RpcResult<Vec<TraceResult>> {
    eth.blocking(move |eth, _| {
        let block = eth.block(id)?.ok_or_else(|| super::not_found(id))?;
        if block.header.number == 0 {
            return Err(RpcError::InvalidInput("genesis is not traceable".into()));
        }
        traces(eth, &block, (0, usize::MAX), options)
    })
    .await
}

fn traces(
    eth: &Eth,
    block: &Block,
    (first, last): (usize, usize),
    options: GethDebugTracingOptions,
) -> RpcResult<Vec<TraceResult>> {
    let (tracer, end) = tracer(eth, options)?;
    let mut traces = Vec::new();
    let visit = |replayed: Replayed<'_, '_, Tracer>| {
        let Replayed { index, tx, inspected, executor } = replayed;
        let tx_hash = block.txs.get(index).map(|tx| *tx.tx_hash());
        let context = TransactionContext { block_hash: Some(block.hash), tx_hash, tx_index: Some(index) };
        let result = report(executor, &tx, inspected, Some(context)).map_err(Failed::Rpc)?;
        traces.push(TraceResult::Success { result, tx_hash });
        Ok::<_, Failed>(())
    };
    match eth.chain.replay(block, (first, last), tracer, visit) {
        Ok(()) => Ok(traces),
        Err(Failed::Rpc(error)) => Err(error),
        Err(Failed::Chain(error)) => Err(end.reason(eth).unwrap_or_else(|| error.into())),
    }
}

pub(super) async fn call(
    eth: Arc<Eth>,
    request: TransactionRequest,
    block: Option<BlockId>,
    options: TraceCallOptions,
) -> RpcResult<GethTrace> {
    eth.blocking(move |eth, turn| {
        let TraceCallOptions { geth, inferences } = options;
        let GethDebugTracingCallOptions { tracing_options, state_overrides, block_overrides, tx_index } = geth;
        if tx_index.is_some() {
            return Err(RpcError::InvalidParams("txIndex is not supported: the state is that after the block".into()));
        }
        let params = CallParams { request, block, state: state_overrides, block_overrides, inferences };
        let (call, session) = eth.prepare(params, turn)?;
        let (tracer, end) = tracer(eth, tracing_options)?;
        let traced = eth
            .chain
            .inspect_call(&call, &session, tracer, |executor, inspected| report(executor, &call.tx, &inspected, None));
        match traced {
            Ok(trace) => trace,
            Err(error @ ExecError::State(_)) => Err(end.reason(eth).unwrap_or_else(|| error.into())),
            Err(error) => Err(error.into()),
        }
    })
    .await
}

/// Why a trace may have ended early.
struct End {
    until: Instant,
    too_large: Arc<AtomicBool>,
}

impl End {
    fn reason(&self, eth: &Eth) -> Option<RpcError> {
        if self.too_large.load(Ordering::Relaxed) {
            let hint = "trace less at once, without memory and stack, or with callTracer";
            return Some(RpcError::InvalidInput(format!("the trace is too large: {hint}")));
        }
        (Instant::now() >= self.until).then_some(RpcError::Timeout(eth.config.trace_time))
    }
}

/// Bytes that a tracer may record for each byte that an answer may have: what it records is larger than its JSON at most by
/// this.
const RECORDED: usize = 4;

fn tracer(eth: &Eth, options: GethDebugTracingOptions) -> RpcResult<(Tracer, End)> {
    if let Some(GethDebugTracerType::JsTracer(code)) = &options.tracer
        && !code.is_empty()
    {
        return Err(RpcError::InvalidParams(format!(
            "tracer `{}` is not supported: there are callTracer, prestateTracer, 4byteTracer, flatCallTracer, muxTracer, \
             noopTracer, erc7562Tracer and the default one; JavaScript tracers are not run",
            code.chars().take(40).collect::<String>()
        )));
    }
    let longest = eth.config.trace_time;
    let asked = options.timeout.as_deref().map(humantime_of).transpose()?;
    let deadline = Instant::now() + asked.map_or(longest, |asked| asked.min(longest));
    let bytes = RECORDED * eth.config.max_response_bytes as usize;
    let bounds = Bounds::new(deadline, bytes, &options);
    let inspector = DebugInspector::new(options).map_err(|error| RpcError::InvalidParams(error.to_string()))?;
    let end = End { until: deadline, too_large: bounds.too_large() };
    Ok(((bounds, inspector), end))
}

/// `5s`, `300ms`: Go's durations, of which these are the ones in use.
fn humantime_of(text: &str) -> RpcResult<std::time::Duration> {
    humantime::parse_duration(text).map_err(|error| RpcError::InvalidParams(format!("timeout `{text}`: {error}")))
}

/// What the tracer saw. The next transaction finds it empty.
fn report(
    executor: &mut Executor<'_, CallDb, Tracer>,
    tx: &TxEnv,
    inspected: &Inspected,
    context: Option<TransactionContext>,
) -> RpcResult<GethTrace> {
    let ((_, inspector), block, db) = executor.parts_mut();
    let internal = |error: &dyn core::fmt::Display| RpcError::Internal(error.to_string());
    let trace = inspector.get_result(context, tx, block, &inspected.result, db).map_err(|error| internal(&error))?;
    inspector.fuse().map_err(|error: DebugInspectorError| internal(&error))?;
    Ok(trace)
}
