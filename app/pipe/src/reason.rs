//! Why a transaction is refused or dropped. The wording is geth's where geth has one: clients match on it.

use alloy_primitives::{B256, U256};

/// Why a transaction is not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It is in the pool.
    #[error("already known")]
    AlreadyKnown,
    /// Its nonce is used.
    #[error("nonce too low: next nonce {next}, tx nonce {nonce}")]
    NonceTooLow {
        /// Nonce of the transaction.
        nonce: u64,
        /// Next nonce of the account.
        next: u64,
    },
    /// Its nonce is too far ahead to be held.
    #[error("nonce too high: next nonce {next}, tx nonce {nonce}")]
    NonceTooHigh {
        /// Nonce of the transaction.
        nonce: u64,
        /// Next nonce of the account.
        next: u64,
    },
    /// The account cannot pay for all of its pending transactions.
    #[error("insufficient funds for gas * price + value: balance {balance}, tx cost {cost}, overshot {}", .cost.saturating_sub(*.balance))]
    InsufficientFunds {
        /// Balance of the account.
        balance: U256,
        /// Cost of all pending transactions and this one.
        cost: U256,
    },
    /// It takes the nonce of a pending one without paying 10 % more.
    #[error("replacement transaction underpriced")]
    ReplacementUnderpriced,
    /// The pool is full of transactions that pay more.
    #[error("transaction underpriced: gas fee cap {fee_cap}, the full pool asks for more than {least}")]
    Underpriced {
        /// Its fee cap.
        fee_cap: u128,
        /// The lowest fee cap in the pool.
        least: u128,
    },
    /// Too many transactions wait for a nonce that is not there.
    #[error("txpool is full: {0} transactions wait for a nonce before theirs")]
    Full(usize),
    /// The account has too many pending transactions.
    #[error("account limit exceeded: {0} pending transactions")]
    SenderFull(usize),
}

/// Why a transaction left the pool without being included.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DropReason {
    /// Another one with its nonce paid more.
    #[error("replaced by {0}")]
    Replaced(B256),
    /// Another one with its nonce was included.
    #[error("its nonce was used by another transaction")]
    NonceUsed,
    /// It cannot be executed.
    #[error("it cannot be executed: {0}")]
    Invalid(String),
    /// It was not included in time.
    #[error("not included within {0} blocks ({1})")]
    Deadline(u64, &'static str),
    /// Its requests depend on each other more often than is allowed.
    #[error("its requests depend on each other in more than {0} waves")]
    TooManyWaves(u32),
    /// The pool was full.
    #[error("evicted from the full pool by transactions that pay more")]
    Evicted,
}

impl DropReason {
    /// A word for metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Replaced(_) => "replaced",
            Self::NonceUsed => "nonce_used",
            Self::Invalid(_) => "invalid",
            Self::Deadline(..) => "deadline",
            Self::TooManyWaves(_) => "too_many_waves",
            Self::Evicted => "evicted",
        }
    }
}
