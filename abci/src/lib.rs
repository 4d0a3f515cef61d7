//! ABCI 2.0 (the messages of CometBFT v0.38, and the two that v0.40 adds): the trait that an application
//! implements, the socket server that CometBFT connects to, and an embedded driver that makes the
//! same calls in process. Knows nothing of any particular application.
//!
//! ```text
//!  CometBFT ══ socket ══► Server ──┐
//!                                  ├──► trait Application
//!  Driver ─────────────────────────┘
//!    │ InitChain │ (PrepareProposal ──► ProcessProposal ──► FinalizeBlock ──► Commit)*
//!    │                                          │
//!    └─ block log: the decided block is durable ┘  before it is finalized, and is replayed after a crash
//! ```

mod address;
mod application;
mod block_log;
mod driver;
mod server;
pub mod wire;

pub use address::Address;
pub use application::Application;
pub use block_log::{BlockLog, LogError, LoggedBlock};
pub use driver::{Driver, DriverError, Genesis};
pub use server::{Fatal, ListenError, Server};
pub use tendermint_proto::{
    google::protobuf::Timestamp,
    v0_38::{abci as messages, crypto, types},
};

/// Bytes that CometBFT counts for a transaction of `len` bytes in a block: its protobuf field
/// (`types/tx.go`, `ComputeProtoSizeForTxs`). A proposal that exceeds `max_tx_bytes` by this count
/// panics the proposer.
pub fn proto_tx_size(len: usize) -> usize {
    1 + prost::encoding::encoded_len_varint(len as u64) + len
}
