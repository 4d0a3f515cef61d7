//! The methods that execute without committing, as clients call them.

use std::sync::Arc;

use alloy_eips::{BlockId, eip2930::AccessListResult};
use alloy_primitives::{Bytes, U64};
use alloy_rpc_types_eth::{BlockOverrides, TransactionRequest, simulate::SimulatedBlock, state::StateOverride};
use jsonrpsee::proc_macros::rpc;

use super::{Answer, Eth, execute::CallParams, fill::Filled, inferences::InferenceOverride, simulate::Payload};

/// Calls. All take geth's overrides of state and block after the block, and then `inferences`.
#[rpc(server, namespace = "eth")]
pub(crate) trait CallApi {
    /// Runs a call on a state, without a transaction.
    #[method(name = "call")]
    async fn call(
        &self,
        request: TransactionRequest,
        block: Option<BlockId>,
        state: Option<StateOverride>,
        block_overrides: Option<BlockOverrides>,
        inferences: Option<InferenceOverride>,
    ) -> Answer<Bytes>;
    /// The least gas with which a call succeeds, within 1.5 %.
    #[method(name = "estimateGas")]
    async fn estimate_gas(
        &self,
        request: TransactionRequest,
        block: Option<BlockId>,
        state: Option<StateOverride>,
        block_overrides: Option<BlockOverrides>,
        inferences: Option<InferenceOverride>,
    ) -> Answer<U64>;
    /// The accounts and slots that a call touches (EIP-2930), and its gas with that list.
    #[method(name = "createAccessList")]
    async fn create_access_list(
        &self,
        request: TransactionRequest,
        block: Option<BlockId>,
        state: Option<StateOverride>,
        block_overrides: Option<BlockOverrides>,
        inferences: Option<InferenceOverride>,
    ) -> Answer<AccessListResult>;
    /// Runs calls in blocks of their own on top of a block; results of inference are those that this node has.
    #[method(name = "simulateV1")]
    async fn simulate_v1(&self, payload: Payload, block: Option<BlockId>) -> Answer<Vec<SimulatedBlock>>;
    /// A transaction with nonce, gas and fees filled in, and its bytes with a zero signature.
    #[method(name = "fillTransaction")]
    async fn fill_transaction(&self, request: TransactionRequest) -> Answer<Filled>;
}

#[jsonrpsee::core::async_trait]
impl CallApiServer for Arc<Eth> {
    async fn call(
        &self,
        request: TransactionRequest,
        block: Option<BlockId>,
        state: Option<StateOverride>,
        block_overrides: Option<BlockOverrides>,
        inferences: Option<InferenceOverride>,
    ) -> Answer<Bytes> {
        let params = CallParams { request, block, state, block_overrides, inferences };
        Ok(Eth::execute_call(self.clone(), params).await?)
    }

    async fn estimate_gas(
        &self,
        request: TransactionRequest,
        block: Option<BlockId>,
        state: Option<StateOverride>,
        block_overrides: Option<BlockOverrides>,
        inferences: Option<InferenceOverride>,
    ) -> Answer<U64> {
        let params = CallParams { request, block, state, block_overrides, inferences };
        Ok(U64::from(Eth::estimate(self.clone(), params).await?))
    }

    async fn create_access_list(
        &self,
        request: TransactionRequest,
        block: Option<BlockId>,
        state: Option<StateOverride>,
        block_overrides: Option<BlockOverrides>,
        inferences: Option<InferenceOverride>,
    ) -> Answer<AccessListResult> {
        let params = CallParams { request, block, state, block_overrides, inferences };
        Ok(Eth::access_list(self.clone(), params).await?)
    }

    async fn simulate_v1(&self, payload: Payload, block: Option<BlockId>) -> Answer<Vec<SimulatedBlock>> {
        Ok(Eth::simulate(self.clone(), payload, block).await?)
    }

    async fn fill_transaction(&self, request: TransactionRequest) -> Answer<Filled> {
        Ok(Eth::fill(self.clone(), request).await?)
    }
}
