//! `pipe_subscribe`: the stages of transactions and the requests of this node, as they happen.

use std::{
    sync::{Arc, OnceLock},
    thread,
};

use alloy_primitives::{Address, B256, U64};
use jsonrpsee::{
    PendingSubscriptionSink, SubscriptionMessage,
    core::{SubscriptionError, SubscriptionResult},
    proc_macros::rpc,
    types::ErrorObjectOwned,
};
use penstock_pipe::{Happening, Stage, StageChange};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::{self, error::RecvError};

use crate::{
    error::{RpcError, RpcResult},
    eth::Eth,
};

/// Happenings that a slow subscriber may be behind.
const BEHIND: usize = 16_384;

/// From the pool to all subscribers; begins with the first of them.
#[derive(Debug, Default)]
pub(crate) struct Happenings {
    sender: OnceLock<broadcast::Sender<Happening>>,
}

impl Happenings {
    pub(crate) fn subscribe(&self, eth: &Eth) -> RpcResult<broadcast::Receiver<Happening>> {
        if let Some(sender) = self.sender.get() {
            return Ok(sender.subscribe());
        }
        let pool = eth.chain.pool()?;
        let sender = self.sender.get_or_init(|| {
            let (sender, _) = broadcast::channel(BEHIND);
            let (all, to_all) = (pool.listen(), sender.clone());
            // Ends with the pool. Without subscribers a happening goes nowhere, which is no error.
            let bridge = move || all.iter().for_each(|happening| drop(to_all.send(happening)));
            if let Err(error) = thread::Builder::new().name("rpc-happenings".into()).spawn(bridge) {
                tracing::error!(%error, "cannot start a thread: subscribers of pipe_subscribe hear nothing");
            }
            sender
        });
        Ok(sender.subscribe())
    }
}

/// Which transactions a subscriber wants to hear of; all that is given must hold.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TransactionFilter {
    hash: Option<B256>,
    from: Option<Address>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Transactions(TransactionFilter),
    Inferences,
}

/// A transaction at a new stage.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TransactionMessage<'a> {
    hash: B256,
    from: Address,
    stage: &'static str,
    waves: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block_number: Option<U64>,
}

/// A request that a transaction makes, or its result.
#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum InferenceMessage<'a> {
    Asked { id: String, model: Option<&'a str>, ops: u64, transaction: B256, wave: u32 },
    Answered { id: String, took_ms: f64, failure: Option<&'a str> },
}

/// What a subscriber missed because it read too slowly.
#[derive(Debug, Serialize)]
struct Missed {
    missed: u64,
}

/// The subscriptions of `pipe_`.
#[rpc(server, namespace = "pipe")]
pub(crate) trait HappeningsApi {
    /// Over WebSocket: `transactions` (with `{hash, from}` for some of them) tells of their stages, `inferences` of requests
    /// and answers, as they happen.
    #[subscription(name = "subscribe" => "subscription", unsubscribe = "unsubscribe", item = serde_json::Value)]
    async fn subscribe(&self, kind: String, filter: Option<TransactionFilter>) -> SubscriptionResult;
}

#[jsonrpsee::core::async_trait]
impl HappeningsApiServer for Arc<Eth> {
    async fn subscribe(
        &self,
        pending: PendingSubscriptionSink,
        kind: String,
        filter: Option<TransactionFilter>,
    ) -> SubscriptionResult {
        let subscribed = kind_of(&kind, filter).and_then(|kind| Ok((kind, self.happenings.subscribe(self)?)));
        let (kind, mut happenings) = match subscribed {
            Ok(subscribed) => subscribed,
            Err(error) => {
                pending.reject(ErrorObjectOwned::from(error)).await;
                return Ok(());
            }
        };
        let sink = pending.accept().await?;
        loop {
            let message = tokio::select! {
                () = sink.closed() => return Ok(()),
                happening = happenings.recv() => match happening {
                    Ok(happening) => message(self, kind, &happening)?,
                    Err(RecvError::Lagged(missed)) => Some(to_message(&Missed { missed })?),
                    Err(RecvError::Closed) => return Ok(()),
                },
            };
            if let Some(message) = message
                && sink.send(message).await.is_err()
            {
                return Ok(());
            }
        }
    }
}

fn kind_of(kind: &str, filter: Option<TransactionFilter>) -> RpcResult<Kind> {
    match (kind, filter) {
        ("transactions", filter) => Ok(Kind::Transactions(filter.unwrap_or_default())),
        ("inferences", None) => Ok(Kind::Inferences),
        ("inferences", Some(_)) => Err(RpcError::InvalidParams("`inferences` takes no filter".into())),
        ("workers", _) => Err(RpcError::InvalidParams(
            "subscription `workers` is not supported: this version runs models in its own process".into(),
        )),
        (other, _) => Err(RpcError::InvalidParams(format!(
            "subscription `{other}` is not supported (transactions and inferences are)"
        ))),
    }
}

fn message(eth: &Eth, kind: Kind, happening: &Happening) -> Result<Option<SubscriptionMessage>, SubscriptionError> {
    let message = match (kind, happening) {
        (Kind::Transactions(filter), Happening::Stage(change)) if is_wanted(filter, change) => {
            to_message(&TransactionMessage {
                hash: change.hash,
                from: change.sender,
                stage: change.stage.name(),
                waves: change.waves,
                reason: change.reason.as_deref().filter(|_| change.stage != Stage::Included),
                block_number: change.block.map(U64::from),
            })?
        }
        (Kind::Inferences, Happening::Asked { id, model, ops, hash, wave }) => {
            let model = eth.chain.rules().registry.by_hash(model).map(|model| model.id.as_str());
            let (id, ops, transaction, wave) = (id.to_string(), *ops, *hash, *wave);
            to_message(&InferenceMessage::Asked { id, model, ops, transaction, wave })?
        }
        (Kind::Inferences, Happening::Answered { id, took, failure }) => to_message(&InferenceMessage::Answered {
            id: id.to_string(),
            took_ms: took.as_secs_f64() * 1e3,
            failure: failure.as_deref(),
        })?,
        _ => return Ok(None),
    };
    Ok(Some(message))
}

fn is_wanted(filter: TransactionFilter, change: &StageChange) -> bool {
    filter.hash.is_none_or(|hash| hash == change.hash) && filter.from.is_none_or(|from| from == change.sender)
}

fn to_message(item: &impl Serialize) -> Result<SubscriptionMessage, SubscriptionError> {
    Ok(SubscriptionMessage::from(serde_json::value::to_raw_value(item)?))
}
