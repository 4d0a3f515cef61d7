//! The state machine behind ABCI: genesis, admission, proposals, finalization, commit, and reading
//! the chain. Knows nothing of sockets and RPC.
//!
//! ```text
//!  CheckTx, InsertTx ► mempool ──► admission ──► pool ──► (simulation, inference)
//!  PrepareProposal ─► proposal  ──► due tasks, ready transactions, executed ──► [header transaction, tx, tx, …]
//!  ProcessProposal ─► verify    ──► execute with the block's results, verify the results
//!  FinalizeBlock ───► finalize  ──► the kept execution, or execute from the block alone ──► Ethereum header
//!  Commit ──────────► commit    ──► one atomic durable batch ──► pool, subscribers, snapshots
//! ```

mod admission;
mod app;
mod block;
mod block_id;
mod call;
mod chain;
mod consensus_params;
mod execution;
mod export;
mod finalize;
mod genesis;
mod header_tx;
mod inference_proof;
mod logs;
mod mempool;
mod predeploys;
mod proposal;
mod reader;
mod recent;
mod replay;
mod simulate;
mod snapshots;
mod state_sync;
mod tasks;
mod validators;
mod verify;
mod verify_store;

pub use admission::{AdmissionError, MAX_TX_BYTES};
pub use block::{Block, RecordedRequest, StoredReceipt, TxPlace};
pub use block_id::ConsensusRecord;
pub use call::{CallDb, CallRequest, CallSession, GivenResults, Inferences, Turn};
pub use chain::{Chain, ChainConfig, ChainError, Head};
pub use export::{ExportError, Exported, export};
pub use genesis::{Genesis, GenesisDoc, GenesisError, GenesisModel};
pub use header_tx::{BlockResult, HeaderTx, HeaderTxError};
pub use inference_proof::{InferenceProof, ProofError, ProvedInference};
pub use logs::LogQuery;
pub use mempool::Gossip;
pub use predeploys::{INFERENCE_HUB, PriceFeedConfig, SchedulerConfig};
pub use replay::{Replayed, context_of};
pub use snapshots::SnapshotConfig;
pub use tasks::{SCHEDULER, ScheduledTask};
pub use validators::{VALIDATORS, Validator, ValidatorKey};
pub use verify::Rejection;
pub use verify_store::{index_logs, verify_blocks};
