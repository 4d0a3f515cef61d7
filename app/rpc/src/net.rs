//! `net_`, `web3_` and `txpool_`.

use std::{collections::BTreeMap, sync::Arc};

use alloy_primitives::{B256, Bytes, U64, keccak256};
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

/// The small namespaces.
#[rpc(server)]
pub(crate) trait NetApi {
    #[method(name = "net_version")]
    fn version(&self) -> Answer<String>;
    #[method(name = "net_listening")]
    fn listening(&self) -> Answer<bool>;
    #[method(name = "net_peerCount")]
    fn peer_count(&self) -> Answer<U64>;
    #[method(name = "web3_clientVersion")]
    fn client_version(&self) -> Answer<String>;
    #[method(name = "web3_sha3")]
    fn sha3(&self, data: Bytes) -> Answer<B256>;
    #[method(name = "txpool_status")]
    fn pool_status(&self) -> Answer<PoolStatus>;
    #[method(name = "txpool_content", blocking)]
    fn pool_content(&self) -> Answer<PoolContent>;
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
        let all = self.chain.pool().map_err(RpcError::from)?.read(penstock_pipe::Pool::all);
        let pending = all.iter().filter(|(_, stage)| is_pending(*stage)).count();
        Ok(PoolStatus { pending: U64::from(pending), queued: U64::from(all.len() - pending) })
    }

    fn pool_content(&self) -> Answer<PoolContent> {
        Ok(content(self)?)
    }
}
