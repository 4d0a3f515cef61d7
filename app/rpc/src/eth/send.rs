//! Sending transactions: `eth_sendRawTransaction`, and the one that waits for the receipt (EIP-7966).

use std::{sync::Arc, time::Duration};

use alloy_primitives::{B256, Bytes, U64};
use alloy_rpc_types_eth::TransactionReceipt;
use jsonrpsee::proc_macros::rpc;
use penstock_pipe::Stage;
use tokio::{sync::broadcast::error::RecvError, time::Instant};

use super::{Answer, Eth};
use crate::error::{RpcError, RpcResult};

/// How often the pool is asked whether the transaction was dropped: a drop makes no block.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Sending.
#[rpc(server, namespace = "eth")]
pub(crate) trait SendApi {
    /// Admits a signed transaction into the pool.
    #[method(name = "sendRawTransaction")]
    fn send_raw_transaction(&self, raw: Bytes) -> Answer<B256>;
    /// `timeout` in milliseconds, at most what the node allows.
    #[method(name = "sendRawTransactionSync")]
    async fn send_raw_transaction_sync(&self, raw: Bytes, timeout: Option<Millis>) -> Answer<TransactionReceipt>;
}

/// Milliseconds, as a number or as hex: the specification's examples and clients differ.
#[derive(Debug, Clone, Copy, serde::Deserialize)]
#[serde(untagged)]
pub(crate) enum Millis {
    Number(u64),
    Quantity(U64),
}

#[jsonrpsee::core::async_trait]
impl SendApiServer for Arc<Eth> {
    fn send_raw_transaction(&self, raw: Bytes) -> Answer<B256> {
        Ok(self.chain.admit(raw).map_err(RpcError::from)?)
    }

    async fn send_raw_transaction_sync(&self, raw: Bytes, timeout: Option<Millis>) -> Answer<TransactionReceipt> {
        let timeout = timeout.map(|timeout| match timeout {
            Millis::Number(millis) => millis,
            Millis::Quantity(millis) => millis.to(),
        });
        Ok(Eth::send_and_wait(self, raw, timeout.map(Duration::from_millis)).await?)
    }
}

impl Eth {
    async fn send_and_wait(self: &Arc<Self>, raw: Bytes, timeout: Option<Duration>) -> RpcResult<TransactionReceipt> {
        // Before it is sent: its block may come at once.
        let mut blocks = self.heads.subscribe();
        let hash = self.chain.admit(raw)?;
        let longest = self.config.sync_send_time;
        let timeout = timeout.filter(|timeout| !timeout.is_zero()).map_or(longest, |timeout| timeout.min(longest));
        let deadline = Instant::now() + timeout;
        loop {
            let until = deadline.min(Instant::now() + LOOK_AGAIN);
            let block = match tokio::time::timeout_at(until, blocks.recv()).await {
                Ok(Ok(block)) => Some(block),
                Ok(Err(RecvError::Closed)) => return Err(RpcError::Internal("the node is stopping".into())),
                Ok(Err(RecvError::Lagged(_))) | Err(_) => None,
            };
            let is_in = |block: &Arc<penstock_chain::Block>| block.txs.iter().any(|tx| *tx.tx_hash() == hash);
            if block.is_none_or(|block| is_in(&block))
                && let Some(receipt) = self.receipt(hash).await?
            {
                return Ok(receipt);
            }
            let status = self.chain.pool()?.read(|pool| pool.status(&hash));
            if let Some(status) = status.filter(|status| status.stage == Stage::Dropped) {
                let reason = status.reason.unwrap_or_else(|| "no reason is known".into());
                return Err(RpcError::InvalidInput(format!("transaction {hash} was dropped: {reason}")));
            }
            if Instant::now() >= deadline {
                return Err(RpcError::SendTimeout { hash, timeout });
            }
        }
    }
}
