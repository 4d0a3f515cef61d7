//! Errors as clients expect them: geth's codes and wording.

use alloy_primitives::{B256, Bytes, hex};
use jsonrpsee::types::ErrorObjectOwned;
use penstock_chain::{AdmissionError, ChainError};
use penstock_evm::{ExecError, Execution, Status, name_of_revert};
use penstock_state::StoreError;
use revm::context::result::InvalidTransaction;

/// Execution reverted; `data` is the revert data.
const REVERTED: i32 = 3;
/// The transaction was accepted, and is in no block yet (EIP-7966).
const SEND_TIMEOUT: i32 = 4;
/// The state or block is too old (EIP-4444's code).
const PRUNED: i32 = 4444;
/// A bad transaction or call.
const INVALID_INPUT: i32 = -32000;
/// Too many requests (EIP-1474).
pub(crate) const LIMIT_EXCEEDED: i32 = -32005;
/// Parameters of a wrong form.
const INVALID_PARAMS: i32 = -32602;
/// The node's own fault.
const INTERNAL: i32 = -32603;

/// A failed request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RpcError {
    #[error("{0}")]
    InvalidParams(String),
    #[error("{0}")]
    InvalidInput(String),
    #[error("header not found")]
    UnknownBlock,
    #[error("pruned history unavailable: the state after block {0} is not kept")]
    Pruned(u64),
    #[error("pruned history unavailable: the first block here is {0}")]
    PrunedBlock(u64),
    #[error(
        "block {0} cannot be proved any more: proofs are kept for the newest blocks ([state] proof_window) since the start"
    )]
    NoProof(u64),
    #[error("{message}")]
    Reverted { message: String, data: Bytes },
    /// With a code that a specification gives.
    #[error("{message}")]
    Coded { code: i32, message: String },
    #[error("execution aborted (timeout = {0:?})")]
    Timeout(std::time::Duration),
    #[error("The transaction was added to the mempool but wasn't processed in {timeout:?}.")]
    SendTimeout { hash: B256, timeout: std::time::Duration },
    #[error("too many requests of this kind are running: ask again")]
    Busy,
    #[error("internal error: {0}")]
    Internal(String),
}

pub(crate) type RpcResult<T> = Result<T, RpcError>;

impl From<RpcError> for ErrorObjectOwned {
    fn from(error: RpcError) -> Self {
        let message = error.to_string();
        match error {
            RpcError::InvalidParams(_) => Self::owned(INVALID_PARAMS, message, None::<()>),
            RpcError::InvalidInput(_) | RpcError::UnknownBlock | RpcError::Timeout(_) => {
                Self::owned(INVALID_INPUT, message, None::<()>)
            }
            RpcError::SendTimeout { hash, .. } => Self::owned(SEND_TIMEOUT, message, Some(hash)),
            RpcError::Coded { code, .. } => Self::owned(code, message, None::<()>),
            RpcError::Pruned(_) | RpcError::PrunedBlock(_) | RpcError::NoProof(_) => {
                Self::owned(PRUNED, message, None::<()>)
            }
            RpcError::Reverted { data, .. } => Self::owned(REVERTED, message, Some(data)),
            RpcError::Busy => Self::owned(LIMIT_EXCEEDED, message, None::<()>),
            RpcError::Internal(_) => Self::owned(INTERNAL, message, None::<()>),
        }
    }
}

impl From<ChainError> for RpcError {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::Store(error) => error.into(),
            other => Self::Internal(other.to_string()),
        }
    }
}

impl From<StoreError> for RpcError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Pruned(number) => Self::Pruned(number),
            other => Self::Internal(other.to_string()),
        }
    }
}

impl From<AdmissionError> for RpcError {
    fn from(error: AdmissionError) -> Self {
        match error {
            AdmissionError::Chain(error) => error.into(),
            other => Self::InvalidInput(other.to_string()),
        }
    }
}

impl From<ExecError> for RpcError {
    fn from(error: ExecError) -> Self {
        match error {
            ExecError::Invalid(invalid) => Self::InvalidInput(words_of(&invalid)),
            other => Self::Internal(other.to_string()),
        }
    }
}

/// Why a transaction may not run, in geth's words: clients match on them.
pub(crate) fn words_of(invalid: &InvalidTransaction) -> String {
    match invalid {
        InvalidTransaction::LackOfFundForMaxFee { fee, balance } => {
            format!("insufficient funds for gas * price + value: have {balance} want {fee}")
        }
        InvalidTransaction::NonceTooLow { tx, state } => format!("nonce too low: next nonce {state}, tx nonce {tx}"),
        InvalidTransaction::NonceTooHigh { tx, state } => format!("nonce too high: next nonce {state}, tx nonce {tx}"),
        InvalidTransaction::CallGasCostMoreThanGasLimit { initial_gas, gas_limit } => {
            format!("intrinsic gas too low: have {gas_limit}, want {initial_gas}")
        }
        InvalidTransaction::GasFloorMoreThanGasLimit { gas_floor, gas_limit } => {
            format!("insufficient gas for floor data gas cost: have {gas_limit}, want {gas_floor}")
        }
        InvalidTransaction::GasPriceLessThanBasefee => "max fee per gas less than block base fee".into(),
        InvalidTransaction::PriorityFeeGreaterThanMaxFee => {
            "max priority fee per gas higher than max fee per gas".into()
        }
        InvalidTransaction::RejectCallerWithCode => "sender not an eoa".into(),
        InvalidTransaction::CreateInitCodeSizeLimit => "max initcode size exceeded".into(),
        other => other.to_string(),
    }
}

/// The output of a successful call, or why it failed.
pub(crate) fn output_of(execution: Execution) -> RpcResult<Bytes> {
    match execution.status {
        Status::Success => Ok(execution.output),
        Status::Revert => Err(reverted(execution.output)),
        Status::Halt(reason) => Err(RpcError::InvalidInput(reason)),
    }
}

pub(crate) fn reverted(data: Bytes) -> RpcError {
    if let Some(name) = name_of_revert(&data) {
        return RpcError::Reverted { message: format!("execution reverted: {name}"), data };
    }
    let message = match alloy_sol_types::decode_revert_reason(&data) {
        Some(reason) if !data.is_empty() => format!("execution reverted: {}", plain(&reason)),
        _ if data.len() >= 4 => format!("execution reverted: custom error {}", hex::encode_prefixed(&data[..4])),
        _ => "execution reverted".to_owned(),
    };
    RpcError::Reverted { message, data }
}

/// geth prints the reason alone.
fn plain(reason: &str) -> &str {
    reason.strip_prefix("revert: ").unwrap_or(reason)
}
