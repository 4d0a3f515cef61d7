//! `eth_subscribe`: `newHeads` and `logs`.

use std::sync::Arc;

use alloy_rpc_types_eth::Filter;
use jsonrpsee::{
    PendingSubscriptionSink, SubscriptionMessage,
    core::{SubscriptionError, SubscriptionResult},
    types::ErrorObjectOwned,
};
use penstock_chain::Block;
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;

use super::Eth;
use crate::{convert, error::RpcError};

enum Kind {
    Heads,
    Logs(Box<Filter>),
}

pub(super) async fn subscribe(
    eth: &Arc<Eth>,
    pending: PendingSubscriptionSink,
    kind: &str,
    filter: Option<Filter>,
) -> SubscriptionResult {
    let kind = match kind {
        "newHeads" => Kind::Heads,
        "logs" => Kind::Logs(Box::new(filter.unwrap_or_default())),
        other => {
            let error =
                RpcError::InvalidParams(format!("subscription `{other}` is not supported (newHeads and logs are)"));
            pending.reject(ErrorObjectOwned::from(error)).await;
            return Ok(());
        }
    };
    let mut blocks = eth.heads.subscribe();
    let sink = pending.accept().await?;
    loop {
        let block = tokio::select! {
            () = sink.closed() => return Ok(()),
            block = blocks.recv() => match block {
                Ok(block) => block,
                // A client that reads too slowly misses blocks rather than filling memory.
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return Ok(()),
            },
        };
        for message in messages(&kind, &block)? {
            if sink.send(message).await.is_err() {
                return Ok(());
            }
        }
    }
}

fn messages(kind: &Kind, block: &Block) -> Result<Vec<SubscriptionMessage>, SubscriptionError> {
    match kind {
        Kind::Heads => Ok(vec![message(&convert::header(block))?]),
        Kind::Logs(filter) => {
            convert::block_logs(block).filter(|log| filter.matches(&log.inner)).map(|log| message(&log)).collect()
        }
    }
}

fn message(item: &impl Serialize) -> Result<SubscriptionMessage, SubscriptionError> {
    Ok(SubscriptionMessage::from(serde_json::value::to_raw_value(item)?))
}
