//! ONNX operators: one file a family, one table of names.
//!
//! An operator is parsed once ([`parse`]); its attributes and constant inputs become fields, so
//! that at run time only tensors are left. Semantics follow the ONNX operator specification for
//! operator sets 7 to 23.

mod arithmetic;
mod cast;
mod conv;
mod gather;
mod matmul;
mod reduce;
mod shape;
mod softmax;

use core::fmt;

pub(crate) use matmul::PackedConstants;

use super::{
    kernels::Kernels,
    value::{TensorType, Value},
};
use crate::onnx::NodeView;

/// Why a node cannot be compiled; becomes [`crate::ModelError::Node`].
pub(crate) type NodeError = String;

/// The engine could not run a node on these values: a fixed failure, without words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunError;

/// One node of a plan.
pub(crate) trait Operator<B: Kernels>: Send + Sync + fmt::Debug {
    /// Output types for input types. Every shape error is found here, when a plan is made.
    fn infer(&self, inputs: &[&TensorType]) -> Result<TensorType, NodeError>;

    /// Cost of a run in ops; by default one for each output element.
    fn ops(&self, _inputs: &[&TensorType], output: &TensorType) -> u64 {
        output.count() as u64
    }

    /// Bytes that a run needs beside its inputs and its output.
    fn scratch(&self, _inputs: &[&TensorType], _output: &TensorType) -> Option<usize> {
        Some(0)
    }

    /// The output for inputs of the types that were given to [`Self::infer`].
    fn run(&self, inputs: &[&Value<B>], output: &TensorType) -> Result<Value<B>, RunError>;
}

/// Whether an operator of the default domain is in the table.
pub(crate) fn is_supported(op_type: &str) -> bool {
    NAMES.contains(&op_type)
}

/// The supported operators, in alphabetical order.
pub(crate) const NAMES: [&str; 38] = [
    "Abs",
    "Add",
    "ArgMax",
    "AveragePool",
    "Cast",
    "Clip",
    "Concat",
    "Conv",
    "Div",
    "Dropout",
    "Exp",
    "Flatten",
    "Gather",
    "Gemm",
    "GlobalAveragePool",
    "Identity",
    "LeakyRelu",
    "Log",
    "MatMul",
    "MaxPool",
    "Mul",
    "Neg",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceSum",
    "Relu",
    "Reshape",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Tanh",
    "Transpose",
    "Unsqueeze",
];

/// The operator of a node whose name [`is_supported`].
pub(crate) fn parse<B: Kernels>(
    op_type: &str,
    node: NodeView<'_>,
    packed: &mut PackedConstants<B>,
) -> Result<Box<dyn Operator<B>>, NodeError> {
    match op_type {
        "Add" | "Sub" | "Mul" | "Div" | "Sum" => arithmetic::parse_binary(op_type, node),
        "Relu" | "LeakyRelu" | "Sigmoid" | "Tanh" | "Exp" | "Log" | "Sqrt" | "Neg" | "Abs" | "Clip" => {
            arithmetic::parse_unary(op_type, node)
        }
        "MatMul" => Ok(matmul::parse_matmul(node, packed)),
        "Gemm" => Ok(matmul::parse_gemm(node, packed)),
        "Conv" => conv::parse_conv(node),
        "MaxPool" | "AveragePool" => conv::parse_pool(op_type, node),
        "GlobalAveragePool" => Ok(reduce::global_average_pool()),
        "ReduceSum" | "ReduceMean" | "ReduceMax" | "ReduceMin" => reduce::parse(op_type, node),
        "ArgMax" => reduce::parse_argmax(node),
        "Softmax" => softmax::parse(node),
        "Cast" => cast::parse(node),
        "Gather" => gather::parse(node),
        "Concat" => shape::parse_concat(node),
        "Slice" => shape::parse_slice(node),
        "Transpose" => shape::parse_transpose(node),
        _ => shape::parse_reshaping(op_type, node),
    }
}

/// Resolves a possibly negative axis.
fn axis_of(axis: i64, rank: usize) -> Result<usize, NodeError> {
    let resolved = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(resolved)
        .ok()
        .filter(|a| *a < rank)
        .ok_or_else(|| format!("axis {axis} does not exist in {rank} dimensions"))
}

/// The input of an operator that needs it.
fn input<'a>(inputs: &[&'a TensorType], index: usize) -> Result<&'a TensorType, NodeError> {
    inputs.get(index).copied().ok_or_else(|| format!("input {index} is missing"))
}
