//! Models and their execution: a graph is compiled once, a plan is made for each batch size, and a
//! run only walks the plan.

pub mod kernels;
mod model;
mod ops;
mod plan;
mod value;

pub use model::Model;

/// Names of the operators that the engine runs, in alphabetical order.
pub fn supported_operators() -> &'static [&'static str] {
    &ops::NAMES
}
