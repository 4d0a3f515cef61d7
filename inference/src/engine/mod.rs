//! Models and their execution.
//!
//! ```text
//!  file ──► compile::compile ──► Program (steps, constants folded, weights laid out)
//!                                   │ traced once for each set of input shapes:
//!                                   ▼ types, cost, memory, what follows from shapes alone
//!                                 Trace ──► describe: the cost as a formula of the dimensions
//!                                   │
//!                        inputs ──► run ──► outputs
//! ```
//!
//! An operator is one function: it finds the type and the cost of its output from the types of its inputs, and then, if
//! the inputs' elements are there, computes it ([`cx::Cx::emit`]). So inference of shapes and execution cannot disagree.

#[allow(
    clippy::useless_conversion,
    clippy::unnecessary_fallible_conversions,
    reason = "macros write the same text for every element type"
)]
pub(crate) mod array;
mod chains;
mod compile;
mod cx;
mod describe;
pub(crate) mod elements;
mod fuse;
mod inputs;
mod kernels;
mod layout;
mod model;
mod numeric;
#[allow(
    clippy::useless_conversion,
    clippy::unnecessary_cast,
    clippy::unnecessary_fallible_conversions,
    clippy::absurd_extreme_comparisons,
    clippy::unnecessary_min_or_max,
    reason = "macros write the same text for every element type"
)]
mod ops;
mod packs;
mod places;
mod program;
mod rows;
#[cfg(test)]
mod sample;
mod spare;
mod threads;
mod value;

pub(crate) use cx::MAX_INTS;
pub(crate) use numeric::convert;
pub(crate) use packs::Packs;

pub use describe::Declared;
pub use model::{Argument, EvaluationError, Model, NodeCost};
