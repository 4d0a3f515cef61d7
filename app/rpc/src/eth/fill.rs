//! `eth_fillTransaction`: a request with everything that it leaves out, ready to be signed.

use std::sync::Arc;

use alloy_consensus::{SignableTransaction, TypedTransaction};
use alloy_eips::{BlockId, BlockNumberOrTag, eip2718::Encodable2718};
use alloy_primitives::{Signature, TxKind, U256};
use alloy_rpc_types_eth::{FillTransaction, TransactionRequest};

use super::{Eth, execute::CallParams};
use crate::{
    error::{RpcError, RpcResult},
    limits::CallTurn,
};

/// The answer.
pub(crate) type Filled = FillTransaction<TypedTransaction>;

impl Eth {
    pub(super) async fn fill(self: Arc<Self>, request: TransactionRequest) -> RpcResult<Filled> {
        self.blocking(move |eth, turn| {
            let request = eth.filled(request, turn)?;
            let tx = request.build_typed_tx().map_err(|request| {
                drop(request);
                RpcError::InvalidParams("no type of transaction has all these fields together".into())
            })?;
            // As geth does: the signature is zero, which no sender has.
            let unsigned = Signature::new(U256::ZERO, U256::ZERO, false);
            let raw = match tx.clone() {
                TypedTransaction::Legacy(tx) => tx.into_signed(unsigned).encoded_2718(),
                TypedTransaction::Eip2930(tx) => tx.into_signed(unsigned).encoded_2718(),
                TypedTransaction::Eip1559(tx) => tx.into_signed(unsigned).encoded_2718(),
                TypedTransaction::Eip4844(tx) => tx.into_signed(unsigned).encoded_2718(),
                TypedTransaction::Eip7702(tx) => tx.into_signed(unsigned).encoded_2718(),
            };
            Ok(Filled { raw: raw.into(), tx })
        })
        .await
    }

    fn filled(&self, mut request: TransactionRequest, turn: &CallTurn) -> RpcResult<TransactionRequest> {
        let pending = Some(BlockId::Number(BlockNumberOrTag::Pending));
        let sender = request.from.unwrap_or_default();
        let chain_id = self.chain.rules().chain_id;
        if request.chain_id.is_some_and(|id| id != chain_id) {
            return Err(RpcError::InvalidInput(format!("chain id does not match: this chain is {chain_id}")));
        }
        request.chain_id = Some(chain_id);
        request.to = Some(request.to.unwrap_or(TxKind::Create));
        request.value.get_or_insert_default();
        if request.nonce.is_none() {
            request.nonce = Some(self.nonce(sender, pending)?);
        }
        if request.gas_price.is_none() {
            let tip = match request.max_priority_fee_per_gas {
                Some(tip) => tip,
                None => self.suggested_tip()?.saturating_to(),
            };
            request.max_priority_fee_per_gas = Some(tip);
            if request.max_fee_per_gas.is_none() {
                // geth's: two base fees, so that it stays includable while blocks are full.
                let base_fee = u128::from(self.chain.head()?.next_base_fee());
                request.max_fee_per_gas = Some((2 * base_fee).saturating_add(tip));
            }
        }
        if request.gas.is_none() {
            let params = CallParams { request: request.clone(), block: pending, ..CallParams::default() };
            request.gas = Some(self.estimate_now(params, turn)?);
        }
        Ok(request)
    }
}
