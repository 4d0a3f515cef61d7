//! The inference mempool. Knows nothing of ABCI and storage.
//!
//! ```text
//!            ┌────────────────────────── Pool (pure: events in, actions out) ─────────────────────────┐
//!  submit ──►│ queued ──► simulating ──► inferring ──► simulating ──► … ──► ready ──► proposed ──► gone │
//!            │    ▲            │ asks for results        ▲ all of the wave are there                  │
//!            └────┼────────────┼─────────────────────────┼──────────────────────────────────────────┘
//!     new head ───┘            ▼ Action::Infer           │ Event::Answered
//!                    Runner: simulation threads, inference network
//! ```
//!
//! - A transaction is simulated on the newest committed state plus the sender's own earlier pending
//!   transactions. At a missing result the simulation goes on with zeros, so that independent
//!   requests are found in one pass; when all results of a wave are there it is simulated again,
//!   until nothing is missing: *ready*.
//! - A simulation stays good on a new head while every value that it read is unchanged; a transaction that
//!   asks for nothing, with none behind it that does, is not simulated again at all. Results
//!   are named by their content and are never thrown away while a transaction wants them.
//! - The proposal's own execution decides: a ready transaction that asks for something else there
//!   is *deferred*, its new request runs with priority, and after `max_deferrals` it is included
//!   with the missing call reverting, so that it pays and ends.

mod config;
mod entry;
mod event;
mod history;
mod outgoing;
mod pool;
mod reason;
mod runner;
mod status;

pub use config::PoolConfig;
pub use entry::{Held, PoolTx};
pub use event::{Account, Action, Candidate, Event, NewHead, SimulateJob, Simulation};
pub use pool::Pool;
pub use reason::{DropReason, Rejected};
pub use runner::{PoolHandle, Simulator};
pub use status::{PoolCounts, RequestStatus, Stage, TxStatus};
