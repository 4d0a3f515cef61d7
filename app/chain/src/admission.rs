//! Admission: form, signature, fees, nonce and balance; microseconds, no execution.

use alloy_consensus::{Transaction, TxEnvelope, transaction::SignerRecoverable};
use alloy_eips::eip2718::Decodable2718;
use alloy_primitives::{B256, Bytes, keccak256};
use metrics::counter;
use penstock_evm::tx_env;
use penstock_pipe::{PoolTx, Rejected};
use revm::{context::result::InvalidTransaction, context_interface::Cfg, handler::validation::validate_initial_tx_gas};

use crate::{Chain, ChainError, Gossip, HeaderTx};

/// Bytes of a transaction: geth's limit (4 slots of 32 KiB).
pub const MAX_TX_BYTES: usize = 4 * 32 * 1024;

/// Why a transaction is not admitted. Texts are geth's where geth has one: clients match on them.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// No EIP-2718 transaction.
    #[error("rlp: {0}")]
    Malformed(String),
    /// Larger than [`MAX_TX_BYTES`].
    #[error("oversized data: transaction size {0}, limit {MAX_TX_BYTES}")]
    TooLarge(usize),
    /// Its type is not accepted.
    #[error("transaction type not supported")]
    Type,
    /// Without a chain id it could be replayed on any chain (EIP-155).
    #[error("only replay-protected (EIP-155) transactions allowed over RPC")]
    Unprotected,
    /// For another chain.
    #[error("invalid chain id for signer: have {have} want {want}")]
    ChainId {
        /// The transaction's.
        have: u64,
        /// This chain's.
        want: u64,
    },
    /// The signature is not valid.
    #[error("invalid sender")]
    Signature,
    /// More gas than a block has.
    #[error("exceeds block gas limit")]
    GasLimit,
    /// The tip is above the fee cap.
    #[error("max priority fee per gas higher than max fee per gas")]
    TipAboveCap,
    /// Less gas than every transaction of this form needs.
    #[error("{0}")]
    IntrinsicGas(String),
    /// The sender is a contract (EIP-3607).
    #[error("sender not an eoa")]
    SenderHasCode,
    /// The pool's word.
    #[error(transparent)]
    Pool(#[from] Rejected),
    /// The node cannot answer.
    #[error("{0}")]
    Chain(#[from] ChainError),
}

impl AdmissionError {
    /// A word for metrics.
    fn label(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::TooLarge(_) => "too_large",
            Self::Type => "type",
            Self::Unprotected => "unprotected",
            Self::ChainId { .. } => "chain_id",
            Self::Signature => "signature",
            Self::GasLimit => "gas_limit",
            Self::TipAboveCap => "tip_above_cap",
            Self::IntrinsicGas(_) => "intrinsic_gas",
            Self::SenderHasCode => "sender_has_code",
            Self::Pool(Rejected::AlreadyKnown) => "already_known",
            Self::Pool(Rejected::NonceTooLow { .. }) => "nonce_too_low",
            Self::Pool(Rejected::NonceTooHigh { .. }) => "nonce_too_high",
            Self::Pool(Rejected::InsufficientFunds { .. }) => "insufficient_funds",
            Self::Pool(Rejected::ReplacementUnderpriced) => "replacement_underpriced",
            Self::Pool(Rejected::Underpriced { .. }) => "underpriced",
            Self::Pool(Rejected::Full(_)) => "pool_full",
            Self::Pool(Rejected::SenderFull(_)) => "sender_full",
            Self::Chain(_) => "internal",
        }
    }
}

impl Chain {
    /// Admits a transaction into the pool.
    ///
    /// # Errors
    /// [`AdmissionError`]; nothing is changed.
    pub fn admit(&self, raw: Bytes) -> Result<B256, AdmissionError> {
        Ok(self.admit_as(raw, self.config.gossip != Gossip::None)?.hash())
    }

    /// Admits a transaction, of which peers are told by this node's pool or not.
    pub(crate) fn admit_as(&self, raw: Bytes, tell_peers: bool) -> Result<PoolTx, AdmissionError> {
        let admitted = self.try_admit(raw, tell_peers);
        if let Err(error) = &admitted {
            counter!("penstock_transactions_refused_total", "reason" => error.label()).increment(1);
        }
        admitted
    }

    fn try_admit(&self, raw: Bytes, tell_peers: bool) -> Result<PoolTx, AdmissionError> {
        // The hash names the signature, too: what is known is not recovered again, and in a gossip most is known.
        let hash = keccak256(&raw);
        if self.pool()?.read(|pool| pool.get(&hash).is_some()) {
            return Err(Rejected::AlreadyKnown.into());
        }
        let tx = PoolTx { tell_peers, ..self.check_form(raw)? };
        let head = self.head()?;
        let code = head.view.code_of(tx.sender).map_err(ChainError::from)?;
        if !code.is_empty() && !code.is_eip7702() {
            return Err(AdmissionError::SenderHasCode);
        }
        let sender = tx.sender;
        let account = || Ok::<_, AdmissionError>(self.head()?.account(sender).map_err(ChainError::from)?);
        self.pool()?.submit(tx.clone(), account)?;
        Ok(tx)
    }

    /// Everything that the bytes alone tell.
    fn check_form(&self, raw: Bytes) -> Result<PoolTx, AdmissionError> {
        if raw.len() > MAX_TX_BYTES {
            return Err(AdmissionError::TooLarge(raw.len()));
        }
        if HeaderTx::is_one(&raw) {
            return Err(AdmissionError::Type);
        }
        // EIP-2718: types end at 0x7f, and there are four.
        if raw.first().is_some_and(|first| *first <= 0x7f && !(1..=4).contains(first)) {
            return Err(AdmissionError::Type);
        }
        let tx = TxEnvelope::decode_2718_exact(&raw).map_err(|error| AdmissionError::Malformed(error.to_string()))?;
        if tx.is_eip4844() {
            return Err(AdmissionError::Type);
        }
        match tx.chain_id() {
            None => return Err(AdmissionError::Unprotected),
            Some(have) if have != self.rules.chain_id => {
                return Err(AdmissionError::ChainId { have, want: self.rules.chain_id });
            }
            Some(_) => {}
        }
        if tx.gas_limit() > self.rules.block_gas_limit {
            return Err(AdmissionError::GasLimit);
        }
        if tx.max_priority_fee_per_gas().is_some_and(|tip| tip > tx.max_fee_per_gas()) {
            return Err(AdmissionError::TipAboveCap);
        }
        let sender = tx.recover_signer().map_err(|_| AdmissionError::Signature)?;
        let env = tx_env(&tx, sender);
        let cfg = revm::context::CfgEnv::new_with_spec(self.rules.spec);
        if tx.is_create() && tx.input().len() > cfg.max_initcode_size() {
            return Err(AdmissionError::IntrinsicGas("max initcode size exceeded".into()));
        }
        let cap = self.rules.block_gas_limit;
        validate_initial_tx_gas(&env, self.rules.spec, false, false, cap, None).map_err(|error| match error {
            InvalidTransaction::CallGasCostMoreThanGasLimit { initial_gas: need, gas_limit } => {
                AdmissionError::IntrinsicGas(format!("intrinsic gas too low: gas {gas_limit}, minimum needed {need}"))
            }
            InvalidTransaction::GasFloorMoreThanGasLimit { gas_floor: need, gas_limit } => {
                AdmissionError::IntrinsicGas(format!(
                    "insufficient gas for floor data gas cost: gas {gas_limit}, minimum needed {need}"
                ))
            }
            other => AdmissionError::IntrinsicGas(other.to_string()),
        })?;
        Ok(PoolTx { tx, sender, raw, tell_peers: false })
    }
}
