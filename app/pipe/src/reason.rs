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
    Underpriced,
    /// The pool is full of transactions that pay more.
    #[error("txpool is full")]
    Full,
    /// The account has too many pending transactions.
    #[error("account has too many pending transactions ({0})")]
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
    /// It was not ready in time.
    #[error("not ready within {0} blocks")]
    Deadline(u64),
    /// Its requests depend on each other more often than is allowed.
    #[error("its requests depend on each other in more than {0} waves")]
    TooManyWaves(u32),
    /// Its requests cost too much.
    #[error("its requests cost {ops} ops; at most {limit} are allowed for one transaction")]
    TooExpensive {
        /// Cost of the requests.
        ops: u64,
        /// The limit.
        limit: u64,
    },
    /// The pool was full.
    #[error("evicted from the full pool by a transaction that pays more")]
    Evicted,
}
