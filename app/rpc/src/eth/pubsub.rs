//! `eth_subscribe`: `newHeads`, `logs`, `newPendingTransactions`, `syncing`.

use std::{sync::Arc, time::Duration};

use alloy_rpc_types_eth::Filter;
use jsonrpsee::{
    PendingSubscriptionSink, SubscriptionMessage, SubscriptionSink,
    core::{SubscriptionError, SubscriptionResult},
    types::ErrorObjectOwned,
};
use penstock_chain::Block;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::{Eth, pending::appeared};
use crate::{convert, error::RpcError};

/// How often a subscriber of `syncing` is told of a change: what it waits for takes minutes.
const LOOK: Duration = Duration::from_secs(1);

/// What stands after the kind: a filter for `logs`, whether whole transactions are wanted for `newPendingTransactions`.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum SubscribeParams {
    Full(bool),
    Logs(Box<Filter>),
}

pub(super) async fn subscribe(
    eth: &Arc<Eth>,
    pending: PendingSubscriptionSink,
    kind: &str,
    params: Option<SubscribeParams>,
) -> SubscriptionResult {
    match (kind, params) {
        ("newHeads", None | Some(SubscribeParams::Full(_))) => heads(eth, pending).await,
        ("logs", None) => logs(eth, pending, &Filter::default()).await,
        ("logs", Some(SubscribeParams::Logs(filter))) if super::blocks::check_size(&filter).is_err() => {
            refuse(pending, "the filter has too many addresses and topics".into()).await
        }
        ("logs", Some(SubscribeParams::Logs(filter))) => logs(eth, pending, &filter).await,
        ("newPendingTransactions", None) => transactions(eth, pending, false).await,
        ("newPendingTransactions", Some(SubscribeParams::Full(full))) => transactions(eth, pending, full).await,
        ("syncing", None) => syncing(eth, pending.accept().await?).await,
        (kind @ ("newHeads" | "logs" | "newPendingTransactions" | "syncing"), Some(_)) => {
            refuse(pending, format!("the parameters of the subscription `{kind}` have another form")).await
        }
        (other, _) => {
            let there_are = "newHeads, logs, newPendingTransactions and syncing are";
            refuse(pending, format!("subscription `{other}` is not supported ({there_are})")).await
        }
    }
}

async fn refuse(pending: PendingSubscriptionSink, reason: String) -> SubscriptionResult {
    pending.reject(ErrorObjectOwned::from(RpcError::InvalidParams(reason))).await;
    Ok(())
}

/// The next item; `None`: the subscription or the server ended. A client that reads too slowly misses items rather than
/// filling memory.
async fn next<T: Clone>(items: &mut Receiver<T>, sink: &SubscriptionSink) -> Option<T> {
    loop {
        tokio::select! {
            () = sink.closed() => return None,
            item = items.recv() => match item {
                Ok(item) => return Some(item),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            },
        }
    }
}

async fn heads(eth: &Arc<Eth>, pending: PendingSubscriptionSink) -> SubscriptionResult {
    // Before the client knows of it: what happens from then on is told. The same below.
    let mut blocks = eth.heads.subscribe();
    let sink = pending.accept().await?;
    while let Some(block) = next(&mut blocks, &sink).await {
        if sink.send(message(&convert::header(&block))?).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn logs(eth: &Arc<Eth>, pending: PendingSubscriptionSink, filter: &Filter) -> SubscriptionResult {
    let mut blocks = eth.heads.subscribe();
    let sink = pending.accept().await?;
    while let Some(block) = next(&mut blocks, &sink).await {
        for log in matching(&block, filter)? {
            if sink.send(log).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn matching(block: &Block, filter: &Filter) -> Result<Vec<SubscriptionMessage>, SubscriptionError> {
    convert::block_logs(block).filter(|log| filter.matches(&log.inner)).map(|log| message(&log)).collect()
}

async fn transactions(eth: &Arc<Eth>, pending: PendingSubscriptionSink, full: bool) -> SubscriptionResult {
    let mut happenings = match eth.happenings.subscribe(eth) {
        Ok(happenings) => happenings,
        Err(error) => {
            pending.reject(ErrorObjectOwned::from(error)).await;
            return Ok(());
        }
    };
    let sink = pending.accept().await?;
    while let Some(happening) = next(&mut happenings, &sink).await {
        let Some(hash) = appeared(&happening) else { continue };
        let told = match full {
            false => message(&hash)?,
            true => match eth.transaction(hash).await? {
                Some(tx) => message(&tx)?,
                None => continue,
            },
        };
        if sink.send(told).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn syncing(eth: &Arc<Eth>, sink: SubscriptionSink) -> SubscriptionResult {
    let mut told = None;
    loop {
        let syncing = eth.sync_status();
        if told.as_ref() != Some(&syncing) {
            if sink.send(message(&syncing)?).await.is_err() {
                return Ok(());
            }
            told = Some(syncing);
        }
        tokio::select! {
            () = sink.closed() => return Ok(()),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

fn message(item: &impl Serialize) -> Result<SubscriptionMessage, SubscriptionError> {
    Ok(SubscriptionMessage::from(serde_json::value::to_raw_value(item)?))
}
