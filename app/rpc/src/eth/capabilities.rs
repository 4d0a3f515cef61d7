//! `eth_capabilities`: what of the past this node can answer for.

use alloy_primitives::{B256, U64};
use serde::Serialize;

use super::Eth;
use crate::error::RpcResult;

/// The answer.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Capabilities {
    head: HeadOf,
    state: Kept,
    tx: Kept,
    logs: Kept,
    receipts: Kept,
    blocks: Kept,
    stateproofs: Kept,
}

#[derive(Debug, Clone, Serialize)]
struct HeadOf {
    number: U64,
    hash: B256,
}

/// From which block on something is here.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    disabled: bool,
    oldest_block: U64,
    #[serde(skip_serializing_if = "Option::is_none")]
    delete_strategy: Option<Window>,
}

/// Only the newest blocks are kept.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase", tag = "type", rename = "window")]
struct Window {
    retention_blocks: U64,
}

impl Eth {
    pub(super) fn capabilities(&self) -> RpcResult<Capabilities> {
        let head = self.chain.head()?;
        let window = |blocks: u64| (blocks > 0).then(|| Window { retention_blocks: U64::from(blocks) });
        let kept = |oldest: u64, blocks: u64| Kept {
            disabled: false,
            oldest_block: U64::from(oldest),
            delete_strategy: window(blocks),
        };
        let blocks = kept(self.chain.first_block()?, 0);
        let state = self.chain.state_config();
        Ok(Capabilities {
            head: HeadOf { number: U64::from(head.number()), hash: head.hash },
            state: kept(self.chain.first_state()?, state.history),
            tx: blocks.clone(),
            logs: blocks.clone(),
            receipts: blocks.clone(),
            blocks,
            stateproofs: kept(self.chain.first_proof(), state.proof_window),
        })
    }
}
