//! What consensus says of a block: its name, its surroundings, and the record of it.

use alloy_primitives::{Address, B256};
use penstock_abci::{
    Timestamp,
    messages::{
        CommitInfo, ExtendedCommitInfo, Misbehavior, RequestFinalizeBlock, RequestPrepareProposal,
        RequestProcessProposal, VoteInfo,
    },
};
use penstock_evm::BlockContext;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::Head;

/// What consensus says of a block to be built, judged or executed, besides its transactions. Equal in all
/// three calls for one block. Kept with the block.
#[derive(Clone, PartialEq, Message)]
pub struct ConsensusRecord {
    /// Consensus time: the weighted median of the votes for the block before.
    #[prost(message, optional, tag = "1")]
    pub time: Option<Timestamp>,
    /// Address of the proposer's consensus key.
    #[prost(bytes = "bytes", tag = "2")]
    pub proposer: bytes::Bytes,
    /// Hash of the validators of the next height.
    #[prost(bytes = "bytes", tag = "3")]
    pub next_validators_hash: bytes::Bytes,
    /// Round in which the block before was decided, and who signed it.
    #[prost(message, optional, tag = "4")]
    pub last_commit: Option<CommitInfo>,
    /// Validators that were caught signing two blocks.
    #[prost(message, repeated, tag = "5")]
    pub misbehavior: Vec<Misbehavior>,
}

/// A block to be built, judged or executed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BlockId {
    pub(crate) height: u64,
    pub(crate) consensus: ConsensusRecord,
}

impl BlockId {
    /// Names a block completely: an execution that is kept under it is the block's.
    pub(crate) fn fingerprint(&self, txs: &[bytes::Bytes]) -> B256 {
        // Not keccak: this stays in the process, and SHA-256 has instructions of its own on most CPUs.
        let mut digest = Sha256::new();
        let mut add = |bytes: &[u8]| {
            digest.update((bytes.len() as u64).to_be_bytes());
            digest.update(bytes);
        };
        add(&self.height.to_be_bytes());
        add(&self.consensus.encode_to_vec());
        txs.iter().for_each(|tx| add(tx));
        B256::from_slice(&digest.finalize())
    }

    /// The surroundings of this block's transactions, on a head.
    pub(crate) fn context(&self, head: &Head, fee_recipient: Address) -> BlockContext {
        let seconds = self.consensus.time.map_or(0, |time| time.seconds.max(0) as u64);
        head.next_block(seconds, fee_recipient)
    }
}

impl BlockId {
    fn new(height: i64, consensus: ConsensusRecord) -> Self {
        Self { height: height.max(0) as u64, consensus }
    }
}

impl From<&RequestPrepareProposal> for BlockId {
    fn from(request: &RequestPrepareProposal) -> Self {
        let last_commit = request.local_last_commit.as_ref().map(without_extensions);
        Self::new(
            request.height,
            ConsensusRecord {
                time: request.time,
                proposer: request.proposer_address.clone(),
                next_validators_hash: request.next_validators_hash.clone(),
                last_commit,
                misbehavior: request.misbehavior.clone(),
            },
        )
    }
}

/// ProcessProposal and FinalizeBlock say the same, but for the name of one field.
macro_rules! from_request {
    ($request:ty, $last_commit:ident) => {
        impl From<&$request> for BlockId {
            fn from(request: &$request) -> Self {
                Self::new(
                    request.height,
                    ConsensusRecord {
                        time: request.time,
                        proposer: request.proposer_address.clone(),
                        next_validators_hash: request.next_validators_hash.clone(),
                        last_commit: request.$last_commit.clone(),
                        misbehavior: request.misbehavior.clone(),
                    },
                )
            }
        }
    };
}

from_request!(RequestProcessProposal, proposed_last_commit);
from_request!(RequestFinalizeBlock, decided_last_commit);

/// The commit as the block will have it. Vote extensions are not used: InitChain refuses them.
fn without_extensions(extended: &ExtendedCommitInfo) -> CommitInfo {
    let vote = |vote: &penstock_abci::messages::ExtendedVoteInfo| VoteInfo {
        validator: vote.validator.clone(),
        block_id_flag: vote.block_id_flag,
    };
    CommitInfo { round: extended.round, votes: extended.votes.iter().map(vote).collect() }
}
