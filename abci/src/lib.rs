//! ABCI 2.0 (CometBFT v0.38's messages): the trait that an application implements, and an embedded
//! driver that calls it as CometBFT does. Knows nothing of any particular application.
//!
//! ```text
//!  Driver ──► InitChain │ (PrepareProposal ──► ProcessProposal ──► FinalizeBlock ──► Commit)*
//!    │                                              │
//!    └─ block log: the decided block is durable ────┘  before it is finalized, and is replayed after a crash
//! ```

mod application;
mod block_log;
mod driver;

pub use application::Application;
pub use block_log::{BlockLog, LogError, LoggedBlock};
pub use driver::{Driver, DriverError, Genesis};
pub use tendermint_proto::{google::protobuf::Timestamp, v0_38::abci as messages};

/// Bytes that CometBFT counts for a transaction of `len` bytes in a block: its protobuf field
/// (`types/tx.go`, `ComputeProtoSizeForTxs`). A proposal that exceeds `max_tx_bytes` by this count
/// panics the proposer.
pub fn proto_tx_size(len: usize) -> usize {
    1 + prost::encoding::encoded_len_varint(len as u64) + len
}
