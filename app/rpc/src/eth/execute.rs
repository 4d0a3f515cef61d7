//! `eth_call` and `eth_estimateGas`, with real results of inference where they come in time.

use std::{cell::Cell, sync::Arc};

use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::{Bytes, TxKind, U256};
use alloy_rpc_types_eth::{BlockOverrides, TransactionRequest, state::StateOverride};
use penstock_chain::{CallRequest, CallSession, context_of};
use penstock_evm::{Db, ExecError, Execution, Status};
use revm::{
    context::{BlockEnv, TxEnv, either::Either, result::InvalidTransaction},
    database::CacheDB,
    primitives::KECCAK_EMPTY,
};

use super::{Eth, inferences::InferenceOverride, overrides};
use crate::{
    error::{RpcError, RpcResult, output_of, reverted},
    limits::CallTurn,
};

/// The search of an estimate ends when the bounds are this near (geth's `estimateGasErrorRatio`).
const ERROR_RATIO: f64 = 0.015;

/// Gas of a transaction that does nothing but pay somebody.
const TRANSFER_GAS: u64 = 21_000;

/// Added to an estimate that rests on a placeholder: the real numbers may write where zeros do not.
const PLACEHOLDER_MARGIN_PERCENT: u64 = 25;

/// A call with everything that its caller chose.
#[derive(Debug, Clone, Default)]
pub(crate) struct CallParams {
    pub(crate) request: TransactionRequest,
    pub(crate) block: Option<BlockId>,
    pub(crate) state: Option<StateOverride>,
    pub(crate) block_overrides: Option<BlockOverrides>,
    pub(crate) inferences: Option<InferenceOverride>,
}

impl Eth {
    pub(super) async fn execute_call(self: Arc<Self>, params: CallParams) -> RpcResult<Bytes> {
        self.blocking(move |eth, turn| {
            let inferences = eth.inferences(params.inferences.clone())?;
            let call = eth.call_request(params)?;
            output_of(eth.chain.call(&call, inferences, turn)?)
        })
        .await
    }

    pub(super) async fn estimate(self: Arc<Self>, params: CallParams) -> RpcResult<u64> {
        self.blocking(move |eth, turn| eth.estimate_now(params, turn)).await
    }

    /// [`Self::estimate`], on this thread.
    pub(super) fn estimate_now(&self, params: CallParams, turn: &CallTurn) -> RpcResult<u64> {
        let inferences = self.inferences(params.inferences.clone())?;
        let mut call = self.call_request(params)?;
        call.tx.gas_limit = self.affordable_gas(&mut call)?;
        // One set of answers for the whole search.
        let session = self.chain.resolve(&call, inferences, turn)?;
        if self.is_plain_transfer(&mut call, &session)? {
            return Ok(TRANSFER_GAS);
        }
        self.search(call, &session)
    }

    /// A call and the results that it needs.
    pub(crate) fn prepare(&self, params: CallParams, turn: &CallTurn) -> RpcResult<(CallRequest, CallSession)> {
        let inferences = self.inferences(params.inferences.clone())?;
        let call = self.call_request(params)?;
        let session = self.chain.resolve(&call, inferences, turn)?;
        Ok((call, session))
    }

    /// Runs EVM work on a blocking thread, when it is its turn.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: Arc<Self>,
        work: impl FnOnce(&Self, &CallTurn) -> RpcResult<T> + Send + 'static,
    ) -> RpcResult<T> {
        let turn = self.turns.take().await.ok_or(RpcError::Busy)?;
        let ran = tokio::task::spawn_blocking(move || {
            step_back();
            work(&self, &turn)
        });
        ran.await.map_err(|error| RpcError::Internal(error.to_string()))?
    }

    fn call_request(&self, params: CallParams) -> RpcResult<CallRequest> {
        let CallParams { request, block, state, block_overrides, .. } = params;
        let (view, block, gas_limit) = if block == Some(BlockId::Number(BlockNumberOrTag::Pending)) {
            let head = self.chain.head()?;
            let block = head.next_block(head.header.timestamp + 1, head.header.beneficiary);
            (head.view, block, head.header.gas_limit)
        } else {
            let view = self.view(block)?;
            let (header, _) = self.chain.header(view.height())?.ok_or(RpcError::UnknownBlock)?;
            (view, context_of(&header), header.gas_limit)
        };
        let mut call = CallRequest {
            db: CacheDB::new(Db(view)),
            block,
            env: block.env(gas_limit),
            places: Default::default(),
            tx: TxEnv::default(),
        };
        let base_fee_is_chosen = block_overrides.as_ref().is_some_and(|block| block.base_fee.is_some());
        overrides::apply(&mut call, self.chain.rules(), state, block_overrides)?;
        call.tx = self.tx_env(&request, &mut call.db, &call.env)?;
        if call.tx.gas_price == 0 && !base_fee_is_chosen {
            // As geth has it: a call that pays nothing sees no base fee, which it could not pay.
            call.env.basefee = 0;
        }
        Ok(call)
    }

    /// Gas that one call may have.
    pub(super) fn max_call_gas(&self) -> u64 {
        match self.config.max_call_gas {
            0 => self.chain.rules().block_gas_limit,
            most => most,
        }
    }

    /// A request as revm's transaction, with what it leaves out filled in.
    pub(crate) fn tx_env(
        &self,
        request: &TransactionRequest,
        db: &mut impl revm::Database<Error: core::fmt::Display>,
        env: &BlockEnv,
    ) -> RpcResult<TxEnv> {
        let rules = self.chain.rules();
        if request.chain_id.is_some_and(|id| id != rules.chain_id) {
            return Err(RpcError::InvalidInput(format!("chain id does not match: this chain is {}", rules.chain_id)));
        }
        // A fee for blobs without blobs is no blob transaction: geth takes no notice of it, either.
        if request.blob_versioned_hashes.is_some() {
            return Err(RpcError::InvalidParams("blob transactions are not supported".into()));
        }
        let has_eip1559_fees = request.max_fee_per_gas.is_some() || request.max_priority_fee_per_gas.is_some();
        if request.gas_price.is_some() && has_eip1559_fees {
            return Err(RpcError::InvalidParams(
                "both gasPrice and (maxFeePerGas or maxPriorityFeePerGas) specified".into(),
            ));
        }
        if let (Some(input), Some(data)) = (&request.input.input, &request.input.data)
            && input != data
        {
            return Err(RpcError::InvalidParams("both \"data\" and \"input\" are set and not equal".into()));
        }
        let caller = request.from.unwrap_or_default();
        let nonce = match request.nonce {
            Some(nonce) => nonce,
            None => account_of(db, caller)?.nonce,
        };
        let authorizations: Vec<_> = request.authorization_list.iter().flatten().cloned().map(Either::Left).collect();
        let tx_type = match (&request.authorization_list, &request.access_list) {
            (Some(_), _) => 4,
            _ if has_eip1559_fees => 2,
            (_, Some(_)) => 1,
            _ => 0,
        };
        // Whatever block the call is in, it gets no more gas than a real block has.
        let most = self.max_call_gas().min(env.gas_limit);
        Ok(TxEnv {
            tx_type,
            caller,
            gas_limit: request.gas.unwrap_or(most).min(most),
            gas_price: request.max_fee_per_gas.or(request.gas_price).unwrap_or_default(),
            kind: request.to.unwrap_or(TxKind::Create),
            value: request.value.unwrap_or_default(),
            data: request.input.input().cloned().unwrap_or_default(),
            nonce,
            chain_id: Some(rules.chain_id),
            access_list: request.access_list.clone().unwrap_or_default(),
            // As geth has it: a tip without a cap is above the cap.
            gas_priority_fee: has_eip1559_fees.then(|| request.max_priority_fee_per_gas.unwrap_or_default()),
            blob_hashes: vec![],
            max_fee_per_blob_gas: 0,
            authorization_list: authorizations,
        })
    }

    /// The gas limit of a call, lowered to what its sender can pay for.
    fn affordable_gas(&self, call: &mut CallRequest) -> RpcResult<u64> {
        let tx = &call.tx;
        let balance = account_of(&mut call.db, tx.caller)?.balance;
        let Some(left) = balance.checked_sub(tx.value) else {
            return Err(RpcError::InvalidInput("insufficient funds for transfer".into()));
        };
        if tx.gas_price == 0 {
            return Ok(tx.gas_limit);
        }
        let affordable = left / U256::from(tx.gas_price);
        Ok(affordable.min(U256::from(tx.gas_limit)).to::<u64>())
    }

    /// A transfer to an account without code, for which the search would end a little too high.
    fn is_plain_transfer(&self, call: &mut CallRequest, session: &CallSession) -> RpcResult<bool> {
        let TxKind::Call(to) = call.tx.kind else { return Ok(false) };
        if !call.tx.data.is_empty() || account_of(&mut call.db, to)?.code_hash != KECCAK_EMPTY {
            return Ok(false);
        }
        let gas = core::mem::replace(&mut call.tx.gas_limit, TRANSFER_GAS);
        let ran = self.chain.run_call(call, session);
        call.tx.gas_limit = gas;
        Ok(ran.is_ok_and(|execution| execution.is_success()))
    }

    /// geth's search: the least gas with which the call succeeds, within [`ERROR_RATIO`].
    fn search(&self, mut call: CallRequest, session: &CallSession) -> RpcResult<u64> {
        let allowance = call.tx.gas_limit;
        let mut with = |gas: u64| -> RpcResult<Option<Execution>> {
            call.tx.gas_limit = gas;
            match self.chain.run_call(&call, session) {
                Ok(execution) => Ok(Some(execution)),
                // Too little for the intrinsic cost.
                Err(ExecError::Invalid(
                    InvalidTransaction::CallGasCostMoreThanGasLimit { .. }
                    | InvalidTransaction::GasFloorMoreThanGasLimit { .. },
                )) => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        let too_little = || RpcError::InvalidInput(format!("gas required exceeds allowance ({allowance})"));
        let full = with(allowance)?.ok_or_else(too_little)?;
        match full.status {
            Status::Success => {}
            Status::Revert => return Err(reverted(full.output)),
            Status::Halt(reason) if reason == "out of gas" => return Err(too_little()),
            Status::Halt(reason) => return Err(RpcError::InvalidInput(reason)),
        }
        let placeholder = full.calls.iter().any(|call| call.missed);
        let succeeds = |execution: Option<Execution>| execution.is_some_and(|execution| execution.is_success());
        let (mut low, mut high) = (full.gas_used - 1, allowance);
        // What is spent in the deepest call is a 64th less than what is there (EIP-150), plus a stipend.
        let optimistic = ((full.gas_used + 2_300).saturating_mul(64) / 63 + 1).min(high);
        if succeeds(with(optimistic)?) {
            high = optimistic;
        } else {
            low = optimistic;
        }
        // Refunds are paid at the end: what was used may be less than what was needed on the way.
        while low + 1 < high && (high - low) as f64 / high as f64 >= ERROR_RATIO {
            let middle = (low + (high - low) / 2).min(low.saturating_mul(2).max(low + 1));
            if succeeds(with(middle)?) {
                high = middle;
            } else {
                low = middle;
            }
        }
        let margin = if placeholder { high / 100 * PLACEHOLDER_MARGIN_PERCENT } else { 0 };
        Ok(high.saturating_add(margin).min(allowance))
    }
}

/// Calls are the longest that RPC does: they stand where inference stands, behind consensus. On Linux the nice value belongs
/// to the thread, which keeps it: those of the pool for blocking work all come to it in time. Elsewhere nothing is changed.
fn step_back() {
    #[cfg(target_os = "linux")]
    {
        thread_local!(static STEPPED_BACK: Cell<bool> = const { Cell::new(false) });
        if STEPPED_BACK.replace(true) {
            return;
        }
        if let Err(error) = rustix::process::setpriority_process(None, 10) {
            tracing::debug!(%error, "threads of calls keep normal priority");
        }
    }
}

fn account_of(
    db: &mut impl revm::Database<Error: core::fmt::Display>,
    address: alloy_primitives::Address,
) -> RpcResult<revm::state::AccountInfo> {
    let account = db.basic(address).map_err(|error| RpcError::Internal(error.to_string()))?;
    Ok(account.unwrap_or_default())
}
