//! The inference mempool. Knows nothing of ABCI and storage.
//!
//! ```text
//!                                  a block or an earlier transaction changed what it read
//!                                 ┌──────────────────────┬────────────────────────────┐
//!            nonce and fee fit    ▼   finds requests     │ (not if light)             │
//!  submit ─► QUEUED ───────► SIMULATING ───────────► INFERRING                        │
//!              ▲ ▲             │  ▲ │                     │                           │
//!              │ └─ not now ───┘  │ │ nothing missing     │ every result of the wave  │
//!              │                  └─┼─────────────────────┘                           │
//!              │                    ▼       in our proposal                           │
//!              ├────────────────► READY ◄──────────────────► PROPOSED ────────────────┤
//!              │                    │  │      not decided        │                    │
//!     a gap before it,              │  └─ DEFERRED: asks for something else ─► INFERRING, with priority
//!     base fee above its cap        ▼                            ▼
//!                               INCLUDED ◄──────── in a block ───┘
//!
//!  from everywhere: DROPPED (replaced, nonce used, evicted, deadline, too many waves, cannot be executed)
//! ```
//!
//! - [`Pool`] is a pure state machine: [`Event`]s in, [`Action`]s out, time as an argument. [`PoolHandle`] performs the
//!   actions: simulation threads, the inference network.
//! - A transaction is simulated on the newest committed state plus the sender's own earlier pending
//!   transactions. At a missing result the simulation goes on with zeros, so that independent
//!   requests are found in one pass; when all results of a wave are there it is simulated again,
//!   until nothing is missing: *ready*. What a path on zeros does besides asking (revert, loop, run out of gas) counts for
//!   nothing.
//! - A simulation stays good while every value that it read is unchanged, be it by a block or by the sender's earlier
//!   transactions. An index of what was read finds the others. One whose requests are *light* (the proposal can answer
//!   them within its budget) is not simulated again for a block at all, unless a transaction behind it builds on it.
//! - Results are named by their content and are never thrown away while a transaction wants them; a replacement takes
//!   over those of the replaced one.
//! - The proposal's own execution decides: a ready transaction that asks for something dear there
//!   is *deferred*, its new request runs with priority, and after `max_deferrals` it is included
//!   with the missing call reverting, so that it pays and ends.
//! - When demand exceeds capacity, whoever pays more for each gas is simulated, inferred and included first; among equals
//!   the account with less under way. What an account may make this node compute without paying is bounded.

mod asking;
mod budget;
mod config;
mod entry;
mod event;
mod heads;
mod history;
mod leaving;
mod order;
mod outgoing;
mod pool;
mod queue;
mod readers;
mod reason;
mod runner;
mod simulating;
mod status;

pub use budget::Allowance;
pub use config::{PoolConfig, PoolRules};
pub use entry::{Held, PoolTx};
pub use event::{Account, Action, Candidate, Event, Haste, Included, NewHead, SimulateJob, Simulation, StageChange};
pub use order::Candidates;
pub use pool::Pool;
pub use reason::{DropReason, Rejected};
pub use runner::{Happening, PoolHandle, Simulator};
pub use status::{PoolAges, PoolCounts, RequestStatus, Stage, TxStatus};
