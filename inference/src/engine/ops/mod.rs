//! The operators: each is parsed once, with its attributes, into a function that infers and computes.

use std::sync::Arc;

use super::{
    array::Array,
    cx::{Cx, Inputs, Stop},
    elements::with_floats,
    numeric::Real,
    program::{Eval, Program},
    value::Value,
};
use crate::{DType, onnx::Node};

/// A graph inside a node.
#[derive(Debug, Clone)]
pub(crate) struct Body {
    /// The attribute that it is.
    pub(crate) name: String,
    pub(crate) program: Arc<Program>,
    /// Index of the first captured value among the node's inputs.
    pub(crate) first: usize,
}

impl Body {
    /// Evaluates the graph on its arguments.
    pub(crate) fn run(
        &self,
        cx: &mut Cx<'_>,
        inputs: &Inputs<'_>,
        mut arguments: Vec<Value>,
    ) -> Result<Vec<Value>, Stop> {
        let expected = self.program.inputs.len() - self.program.captures.len();
        if arguments.len() != expected {
            return Err(Stop::invalid(format!(
                "its graph `{}` takes {expected} inputs, not {}",
                self.name,
                arguments.len()
            )));
        }
        for index in 0..self.program.captures.len() {
            arguments.push(inputs.value(self.first + index)?.clone());
        }
        self.program.run(cx, arguments, None).map_err(|failed| match failed.stop {
            Stop::Invalid(reason) => Stop::Invalid(format!("in `{}`, node {}: {reason}", self.name, failed.label)),
            Stop::DataDependent(reason) => {
                Stop::DataDependent(format!("in `{}`, node {}: {reason}", self.name, failed.label))
            }
            other => other,
        })
    }
}

/// How a node becomes a step.
pub(crate) type Parse = fn(&Node<'_>, &[Body]) -> Result<Eval, String>;

mod shapes;

mod attention;
mod binary;
mod cast;
mod contrib;
mod control;
mod conv;
mod conv_transpose;
pub(crate) mod dequantized;
mod einsum;
mod image;
mod index;
mod integer;
mod linear;
mod ml;
mod norm;
mod pool;
mod quant;
mod recurrent;
mod reduce;
mod sequence;
mod signal;
mod slicing;
mod structure;
mod text;
mod unary;
mod windows;

pub(crate) use integer::scaled;

fn eval(
    f: impl Fn(&mut Cx<'_>, &Inputs<'_>) -> Result<Vec<Value>, Stop> + Send + Sync + 'static,
) -> Result<Eval, String> {
    Ok(Box::new(f))
}

/// An operator with one output.
fn single(f: impl Fn(&mut Cx<'_>, &Inputs<'_>) -> Result<Value, Stop> + Send + Sync + 'static) -> Result<Eval, String> {
    Ok(Box::new(move |cx, inputs| Ok(vec![f(cx, inputs)?])))
}

/// The elements of an array of float32 or narrower, as float32.
fn floats(array: &Array) -> Result<Vec<f32>, Stop> {
    let dtype = array.dtype();
    if dtype == DType::Float64 {
        return Err(Stop::unsupported(dtype));
    }
    with_floats!(dtype, T => Ok(array.values::<T>().iter().map(|x| x.widen() as f32).collect()), Err(Stop::unsupported(dtype)))
}

/// Refuses inputs that [`floats`] does not take, before they have a price.
fn check_floats(inputs: &Inputs<'_>, which: &[usize]) -> Result<(), Stop> {
    let dtypes = which.iter().filter(|index| inputs.has(**index)).map(|index| inputs.dtype(*index));
    for dtype in dtypes.collect::<Result<Vec<_>, _>>()? {
        if !dtype.is_float() || dtype == DType::Float64 {
            return Err(Stop::unsupported(dtype));
        }
    }
    Ok(())
}

/// Refuses inputs of another type than the first one.
fn check_alike(inputs: &Inputs<'_>, which: &[usize]) -> Result<(), Stop> {
    let dtype = inputs.dtype(0)?;
    let other = |index: &&usize| inputs.dtype(**index).is_ok_and(|other| other != dtype);
    match which.iter().find(other) {
        Some(index) => Err(Stop::invalid(format!("its inputs 0 and {index} have different types"))),
        None => Ok(()),
    }
}

/// Whether elements are computed with as float32 and rounded once, at the end.
fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::Float16 | DType::BFloat16)
}

/// Whether an operator reads its inputs' elements by [`Inputs::owned`] alone, and so may get one to write over.
pub(crate) fn takes(domain: &str, name: &str, opset: i64) -> bool {
    // Before operator set 7 operands were aligned first.
    domain.is_empty()
        && opset >= 7
        && matches!(
            name,
            "Relu"
                | "LeakyRelu"
                | "Sigmoid"
                | "Tanh"
                | "Exp"
                | "Sqrt"
                | "Erf"
                | "Floor"
                | "Ceil"
                | "Round"
                | "Reciprocal"
                | "HardSigmoid"
                | "HardSwish"
                | "Gelu"
                | "Swish"
                | "Softmax"
                | "LogSoftmax"
                | "Hardmax"
                | "Add"
                | "Sub"
                | "Mul"
                | "Div"
        )
}

/// The parser of an operator, if the engine has it.
pub(crate) fn find(domain: &str, name: &str) -> Option<Parse> {
    match domain {
        "" => unary::find(name)
            .or_else(|| binary::find(name))
            .or_else(|| cast::find(name))
            .or_else(|| structure::find(name))
            .or_else(|| slicing::find(name))
            .or_else(|| index::find(name))
            .or_else(|| reduce::find(name))
            .or_else(|| linear::find(name))
            .or_else(|| integer::find(name))
            .or_else(|| quant::find(name))
            .or_else(|| conv::find(name))
            .or_else(|| pool::find(name))
            .or_else(|| norm::find(name))
            .or_else(|| control::find(name))
            .or_else(|| sequence::find(name))
            .or_else(|| recurrent::find(name))
            .or_else(|| einsum::find(name))
            .or_else(|| attention::find(name))
            .or_else(|| image::find(name))
            .or_else(|| signal::find(name))
            .or_else(|| text::find(name)),
        "ai.onnx.ml" => ml::find(name),
        "com.microsoft" => contrib::find(name),
        _ => None,
    }
}
