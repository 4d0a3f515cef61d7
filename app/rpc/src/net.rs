//! `net_`, `web3_` and `txpool_`.

use std::{collections::BTreeMap, sync::Arc};

use alloy_consensus::Transaction as _;
use alloy_primitives::{Address, B256, Bytes, U64, keccak256};
use alloy_rpc_types_eth::Transaction;
use jsonrpsee::{proc_macros::rpc, types::ErrorObjectOwned};
use penstock_pipe::Stage;
use serde::Serialize;

use crate::{
    convert,
    error::{RpcError, RpcResult},
    eth::Eth,
};

type Answer<T> = Result<T, ErrorObjectOwned>;

/// `txpool_status`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct PoolStatus {
    pending: U64,
    queued: U64,
}

/// Transactions by sender and nonce.
type BySender = BTreeMap<String, BTreeMap<String, Transaction>>;

/// `txpool_content`. Whatever is not ready is queued: it cannot be in the next block.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct PoolContent {
    pending: BySender,
    queued: BySender,
}

/// `txpool_inspect`: one line a transaction.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct PoolLines {
    pending: BTreeMap<String, BTreeMap<String, String>>,
    queued: BTreeMap<String, BTreeMap<String, String>>,
}

/// `txpool_contentFrom`, by nonce.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct OwnContent {
    pending: BTreeMap<String, Transaction>,
    queued: BTreeMap<String, Transaction>,
}

/// The small namespaces.
#[rpc(server)]
pub(crate) trait NetApi {
    /// The chain id as a decimal text.
    #[method(name = "net_version")]
    fn version(&self) -> Answer<String>;
    /// `true`.
    #[method(name = "net_listening")]
    fn listening(&self) -> Answer<bool>;
    /// Zero: peers are consensus' business.
    #[method(name = "net_peerCount")]
    fn peer_count(&self) -> Answer<U64>;
    /// Name and version.
    #[method(name = "web3_clientVersion")]
    fn client_version(&self) -> Answer<String>;
    /// keccak256.
    #[method(name = "web3_sha3")]
    fn sha3(&self, data: Bytes) -> Answer<B256>;
    /// How many transactions are pending (the next block can have them) and queued (all others: a gap, a low fee, or
    /// inference that is not done).
    #[method(name = "txpool_status")]
    fn pool_status(&self) -> Answer<PoolStatus>;
    /// All of them, by sender and nonce.
    #[method(name = "txpool_content", blocking)]
    fn pool_content(&self) -> Answer<PoolContent>;
    /// Those of one sender.
    #[method(name = "txpool_contentFrom", blocking)]
    fn pool_content_from(&self, address: Address) -> Answer<OwnContent>;
    /// All of them, a line each.
    #[method(name = "txpool_inspect", blocking)]
    fn pool_inspect(&self) -> Answer<PoolLines>;
}

fn is_pending(stage: Stage) -> bool {
    matches!(stage, Stage::Ready | Stage::Proposed)
}

fn content(eth: &Eth) -> RpcResult<PoolContent> {
    let mut content = PoolContent::default();
    for (tx, stage) in eth.chain.pool()?.read(penstock_pipe::Pool::all) {
        let side = if is_pending(stage) { &mut content.pending } else { &mut content.queued };
        let own = side.entry(tx.sender.to_checksum(None)).or_default();
        own.insert(tx.nonce().to_string(), convert::pending(&tx.tx, tx.sender));
    }
    Ok(content)
}

/// As geth writes them.
fn lines(side: BySender) -> BTreeMap<String, BTreeMap<String, String>> {
    let line = |tx: Transaction| {
        let to = tx.to().map_or("contract creation".to_owned(), |to| to.to_checksum(None));
        format!("{to}: {} wei + {} gas × {} wei", tx.value(), tx.gas_limit(), tx.max_fee_per_gas())
    };
    let own = |own: BTreeMap<String, Transaction>| own.into_iter().map(|(nonce, tx)| (nonce, line(tx))).collect();
    side.into_iter().map(|(sender, txs)| (sender, own(txs))).collect()
}

impl NetApiServer for Arc<Eth> {
    fn version(&self) -> Answer<String> {
        Ok(self.chain.rules().chain_id.to_string())
    }

    fn listening(&self) -> Answer<bool> {
        Ok(true)
    }

    /// Peers are consensus' business; a single process has none.
    fn peer_count(&self) -> Answer<U64> {
        Ok(U64::ZERO)
    }

    fn client_version(&self) -> Answer<String> {
        Ok(format!("penstock/v{}/{}/rust", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH))
    }

    fn sha3(&self, data: Bytes) -> Answer<B256> {
        Ok(keccak256(data))
    }

    fn pool_status(&self) -> Answer<PoolStatus> {
        let counts = self.chain.pool().map_err(RpcError::from)?.read(penstock_pipe::Pool::counts);
        let queued = counts.queued + counts.simulating + counts.inferring;
        Ok(PoolStatus { pending: U64::from(counts.ready + counts.proposed), queued: U64::from(queued) })
    }

    fn pool_content(&self) -> Answer<PoolContent> {
        Ok(content(self)?)
    }

    fn pool_content_from(&self, address: Address) -> Answer<OwnContent> {
        let PoolContent { mut pending, mut queued } = content(self)?;
        let key = address.to_checksum(None);
        Ok(OwnContent {
            pending: pending.remove(&key).unwrap_or_default(),
            queued: queued.remove(&key).unwrap_or_default(),
        })
    }

    fn pool_inspect(&self) -> Answer<PoolLines> {
        let PoolContent { pending, queued } = content(self)?;
        Ok(PoolLines { pending: lines(pending), queued: lines(queued) })
    }
}
