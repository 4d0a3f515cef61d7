//! The EVM of Penstock: revm with the inference and the price-feed precompile, run against a state and a source of
//! results. Knows nothing of where either comes from.
//!
//! ```text
//!             ┌───────────── Executor ─────────────┐
//!  state ───► │ revm ──► 0xF4, 0xF5 ──► dispatch ► │ ──► outcome, state changes, calls made
//!             │                      │   ▲         │
//!             └──────────────────────┼───┼─────────┘
//!                            request ▼   │ result
//!                                trait Results
//! ```
//!
//! Simulation, proposal, verification, finalization and `eth_call` differ only in the source of
//! results and in what happens when one is missing ([`OnMiss`]).

pub mod abi;
mod env;
mod errors;
mod executor;
mod precompile;
mod read_set;
mod registry;
mod results;
mod rules;

pub use env::{BlockContext, Db, tx_env};
pub use errors::{Denied, InputFault, name_of_revert};
pub use executor::{
    CallOptions, EvmContext, ExecError, Execution, Executor, ExecutorError, Inspected, Status, TASK_SENDER,
};
pub use precompile::{CANDLE_FEED, Call, INFERENCE, INFERENCE_V1, OnMiss, PRICE_FEED, PrecompilePlaces};
pub use read_set::{ReadKey, ReadSet, changed_keys, happened};
pub use registry::{Policy, RegisteredModel, Registry, RegistryError};
pub use results::Results;
pub use rules::{GasSchedule, Limits, Quote, Rules};

use penstock_inference::RequestId;
use revm::database_interface::{DBErrorMarker, bal::EvmDatabaseError};

/// What reading state can fail with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// A call asked for a result that the source lacks ([`OnMiss::Abort`]). No contract can see or
    /// catch this: it ends the transaction before any more code runs.
    #[error("no result yet for inference {0}")]
    Missing(RequestId),
    /// The storage failed: the node cannot go on.
    #[error("storage: {0}")]
    Storage(String),
}

impl DBErrorMarker for StateError {}

/// Database errors that can carry a missing result; revm's `State` wraps ours in its own.
pub trait CarriesMissing {
    /// The error that says that a result is missing.
    fn missing(id: RequestId) -> Self;
}

impl CarriesMissing for StateError {
    fn missing(id: RequestId) -> Self {
        Self::Missing(id)
    }
}

impl CarriesMissing for EvmDatabaseError<StateError> {
    fn missing(id: RequestId) -> Self {
        Self::Database(StateError::Missing(id))
    }
}
