//! Deterministic inference: models known by their content, requests known by their id, and a pool
//! of threads that answers them. Knows nothing of blocks, transactions or the EVM.
//!
//! ```text
//!  ONNX file ──► Model (compiled once, traced for each set of shapes) ──► tensors
//!                  │
//!                  └► ModelDescriptor (inputs, outputs, cost: what a chain must know)
//!
//!  InferenceRequest ──► RequestId ──► network::InferenceNetwork ──► InferenceResult
//!                                        (scheduler + threads + bounded result cache)
//! ```
//!
//! Equal request ids have equal result bytes, on every machine: see `NUMERICS.md` for how,
//! and [`ENGINE_VERSION`] for what changes them.

mod cache;
pub mod content;
pub mod decimal;
pub mod descriptor;
mod engine;
pub mod network;
pub mod onnx;
pub mod request;
pub mod result;
mod scheduler;
pub mod store;
pub mod synthetic;
pub mod tensor;

pub use content::ContentHash;
pub use descriptor::{Dim, ModelDescriptor, OpsCost, OpsTerm, Sizes, TensorSpec};
pub use engine::{Argument, Declared, EvaluationError, Model, NodeCost};
pub use network::{InferenceNetwork, NetworkConfig, NetworkStatus, thread_time};
pub use onnx::ModelError;
pub use request::{InferenceMode, InferenceRequest, RequestId};
pub use result::{Failure, InferenceResult};
pub use scheduler::{Priority, Scheduler, Urgency, Withdrawn};
pub use store::{ModelFolder, ModelSource, ModelStore, StoreError, StoredModel};
pub use tensor::{DType, Tensor, TensorValues};

/// The version of the arithmetic. It is part of every [`RequestId`]: a change to the order of
/// operations of any kernel, to a conversion or to the result encoding increases it.
pub const ENGINE_VERSION: u32 = 5;
