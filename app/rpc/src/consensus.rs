//! `pipe_validators` and `pipe_getBlockConsensus`: what consensus says.

use std::sync::Arc;

use alloy_eips::BlockNumberOrTag;
use alloy_primitives::{Address, Bytes};
use jsonrpsee::{proc_macros::rpc, types::ErrorObjectOwned};
use penstock_chain::ValidatorKey;
use serde::Serialize;

use crate::{
    error::{RpcError, RpcResult},
    eth::Eth,
};

type Answer<T> = Result<T, ErrorObjectOwned>;

/// A validator of the genesis.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Validator {
    #[serde(rename = "type")]
    kind: &'static str,
    public_key: Bytes,
    power: u64,
}

/// What consensus said with a block.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BlockConsensus {
    number: u64,
    /// Address of the proposer's consensus key.
    proposer: Option<Address>,
    /// Consensus time, in seconds and nanoseconds since the epoch.
    seconds: i64,
    nanos: i32,
    next_validators_hash: Bytes,
    /// Round in which the block before was decided.
    last_commit_round: i32,
    last_commit: Vec<Vote>,
    misbehavior: Vec<Misbehavior>,
}

/// What a validator signed of the block before.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Vote {
    validator: Option<Address>,
    power: i64,
    /// `commit`, `nil` or `absent`.
    vote: &'static str,
}

/// A validator that was caught.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Misbehavior {
    /// `duplicateVote` or `lightClientAttack`.
    #[serde(rename = "type")]
    kind: &'static str,
    validator: Option<Address>,
    power: i64,
    height: i64,
}

/// Penstock's methods about consensus.
#[rpc(server, namespace = "pipe")]
pub(crate) trait ConsensusApi {
    /// The validators with their public keys and powers.
    #[method(name = "validators")]
    fn validators(&self) -> Answer<Vec<Validator>>;
    /// Proposer, time, who signed the block before, misbehaviour.
    #[method(name = "getBlockConsensus")]
    fn block_consensus(&self, block: BlockNumberOrTag) -> Answer<Option<BlockConsensus>>;
}

impl ConsensusApiServer for Arc<Eth> {
    fn validators(&self) -> Answer<Vec<Validator>> {
        let of = |validator: penstock_chain::Validator| Validator {
            kind: match validator.key {
                ValidatorKey::Ed25519(_) => "ed25519",
                ValidatorKey::Secp256k1(_) => "secp256k1",
            },
            public_key: validator.key.bytes().to_vec().into(),
            power: validator.power,
        };
        Ok(self.chain.validators().map_err(RpcError::from)?.into_iter().map(of).collect())
    }

    fn block_consensus(&self, block: BlockNumberOrTag) -> Answer<Option<BlockConsensus>> {
        Ok(block_consensus(self, block)?)
    }
}

fn block_consensus(eth: &Eth, block: BlockNumberOrTag) -> RpcResult<Option<BlockConsensus>> {
    let Some(number) = eth.number(block.into())? else { return Ok(None) };
    let Some(record) = eth.chain.consensus_record(number)? else { return Ok(None) };
    let address = |bytes: &[u8]| Address::try_from(bytes).ok();
    let time = record.time.unwrap_or_default();
    let commit = record.last_commit.unwrap_or_default();
    let votes = commit.votes.iter().map(|vote| {
        let validator = vote.validator.clone().unwrap_or_default();
        Vote {
            validator: address(&validator.address),
            power: validator.power,
            // `BlockIDFlag` of CometBFT's types.proto.
            vote: match vote.block_id_flag {
                2 => "commit",
                3 => "nil",
                _ => "absent",
            },
        }
    });
    let misbehavior = record.misbehavior.iter().map(|caught| {
        let validator = caught.validator.clone().unwrap_or_default();
        Misbehavior {
            // `MisbehaviorType` of CometBFT's types.proto.
            kind: match caught.r#type {
                1 => "duplicateVote",
                2 => "lightClientAttack",
                _ => "unknown",
            },
            validator: address(&validator.address),
            power: validator.power,
            height: caught.height,
        }
    });
    Ok(Some(BlockConsensus {
        number,
        proposer: address(&record.proposer),
        seconds: time.seconds,
        nanos: time.nanos,
        next_validators_hash: record.next_validators_hash.to_vec().into(),
        last_commit_round: commit.round,
        last_commit: votes.collect(),
        misbehavior: misbehavior.collect(),
    }))
}
