//! The state machine behind ABCI: genesis, admission, proposals, finalization, commit, and reading
//! the chain. Knows nothing of sockets and RPC.
//!
//! ```text
//!  CheckTx ─────────► admission ──► pool ──► (simulation, inference)
//!  PrepareProposal ─► proposal  ──► ready transactions, executed ──► [header transaction, tx, tx, …]
//!  ProcessProposal ─► verify    ──► execute with the block's results, verify the results
//!  FinalizeBlock ───► finalize  ──► the kept execution, or execute from the block alone ──► Ethereum header
//!  Commit ──────────► commit    ──► one atomic durable batch ──► pool, subscribers
//! ```

mod admission;
mod app;
mod block;
mod call;
mod chain;
mod execution;
mod finalize;
mod genesis;
mod header_tx;
mod proposal;
mod reader;
mod simulate;
mod verify;

pub use admission::{AdmissionError, MAX_TX_BYTES};
pub use block::{Block, RecordedRequest, StoredReceipt, TxPlace};
pub use call::{CallRequest, CallSession};
pub use chain::{Chain, ChainConfig, ChainError, Head};
pub use genesis::{Genesis, GenesisDoc, GenesisError, GenesisModel};
pub use header_tx::{BlockResult, HeaderTx, HeaderTxError};
pub use verify::Rejection;
