//! CometBFT's mempool connection: everything feeds the one pool.
//!
//! | CometBFT | a client's transaction | a peer's | what peers are told |
//! |---|---|---|---|
//! | v0.38, `flood` | `eth_sendRawTransaction`, handed over to CometBFT's RPC | CheckTx | by CometBFT: whatever CheckTx accepts |
//! | v0.40, `app` | `eth_sendRawTransaction`; CheckTx, when it came by CometBFT's RPC | InsertTx | by ReapTxs |

use alloy_consensus::Transaction;
use alloy_primitives::Bytes;
use penstock_abci::{
    messages::{RequestCheckTx, ResponseCheckTx},
    wire::{RETRY, RequestInsertTx, RequestReapTxs, ResponseInsertTx, ResponseReapTxs},
};
use penstock_pipe::Rejected;

use crate::{AdmissionError, Chain};

/// `code` of a transaction that is not admitted.
const REFUSED: u32 = 1;

/// CheckTx of a transaction that CometBFT holds already (`CheckTxType::Recheck`).
const RECHECK: i32 = 1;

/// How peers hear of transactions: CometBFT's `mempool.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gossip {
    /// There are no peers.
    #[default]
    None,
    /// CometBFT gossips what CheckTx accepts; what comes by JSON-RPC is handed over to it.
    Flood,
    /// CometBFT asks the pool (ReapTxs) for what it gossips.
    App,
}

impl Chain {
    pub(crate) fn check(&self, request: RequestCheckTx) -> ResponseCheckTx {
        if request.r#type == RECHECK {
            return self.recheck(&request.tx);
        }
        // In a flood CometBFT itself gossips what is accepted here.
        match self.admit_as(owned(&request.tx), self.config.gossip == Gossip::App) {
            Ok(tx) => ResponseCheckTx { gas_wanted: tx.tx.gas_limit() as i64, ..Default::default() },
            Err(AdmissionError::Pool(Rejected::AlreadyKnown)) => ResponseCheckTx::default(),
            Err(error) => ResponseCheckTx { code: REFUSED, log: error.to_string(), ..Default::default() },
        }
    }

    /// The pool's verdict of long ago: nothing is executed or decoded. CometBFT rechecks all it holds after each block
    /// while it holds its mempool locked.
    fn recheck(&self, tx: &[u8]) -> ResponseCheckTx {
        let hash = alloy_primitives::keccak256(tx);
        match self.pool().ok().and_then(|pool| pool.read(|pool| pool.get(&hash))) {
            Some(tx) => ResponseCheckTx { gas_wanted: tx.tx.gas_limit() as i64, ..Default::default() },
            None => ResponseCheckTx { code: REFUSED, log: "it is not in the pool".into(), ..Default::default() },
        }
    }

    pub(crate) fn insert(&self, request: RequestInsertTx) -> ResponseInsertTx {
        let code = match self.admit_as(owned(&request.tx), true) {
            Ok(_) | Err(AdmissionError::Pool(Rejected::AlreadyKnown)) => 0,
            Err(error) if may_pass_later(&error) => RETRY,
            Err(_) => REFUSED,
        };
        ResponseInsertTx { code }
    }

    pub(crate) fn reap(&self, request: RequestReapTxs) -> ResponseReapTxs {
        let Ok(pool) = self.pool() else { return ResponseReapTxs::default() };
        let txs = pool.take_outgoing(request.max_bytes, request.max_gas);
        ResponseReapTxs { txs: txs.iter().map(|tx| tx.raw.0.clone()).collect() }
    }
}

/// A transaction in memory of its own: as a part of what was read from the socket it would keep all of that.
fn owned(tx: &[u8]) -> Bytes {
    Bytes::copy_from_slice(tx)
}

/// Whether a later state or a less busy pool may take it.
fn may_pass_later(error: &AdmissionError) -> bool {
    use Rejected::{Full, InsufficientFunds, NonceTooHigh, SenderFull, Underpriced};
    match error {
        AdmissionError::Chain(_) | AdmissionError::SenderHasCode => true,
        AdmissionError::Pool(rejected) => {
            matches!(
                rejected,
                Full(_) | Underpriced { .. } | InsufficientFunds { .. } | NonceTooHigh { .. } | SenderFull(_)
            )
        }
        _ => false,
    }
}
