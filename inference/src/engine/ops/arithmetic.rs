//! Element-wise operators.

use burn_backend::Shape;

use super::{NodeError, Operator, RunError, input};
use crate::{
    engine::{
        kernels::{Kernels, Unary},
        value::{TensorType, Value},
    },
    onnx::NodeView,
};

#[derive(Debug, Clone, Copy)]
enum Binary {
    Add,
    Sub,
    Mul,
    Div,
}

pub(super) fn parse_binary<B: Kernels>(op_type: &str, node: NodeView<'_>) -> Result<Box<dyn Operator<B>>, NodeError> {
    if node.input_count() != 2 {
        return Err(format!("{} inputs; two are supported", node.input_count()));
    }
    Ok(Box::new(match op_type {
        "Sub" => Binary::Sub,
        "Mul" => Binary::Mul,
        "Div" => Binary::Div,
        _ => Binary::Add,
    }))
}

impl<B: Kernels> Operator<B> for Binary {
    fn infer(&self, inputs: &[&TensorType]) -> Result<TensorType, NodeError> {
        let (a, b) = (input(inputs, 0)?, input(inputs, 1)?);
        Ok(TensorType::new(a.dtype, broadcast(a.float()?, b.float()?)?))
    }

    fn run(&self, inputs: &[&Value<B>], output: &TensorType) -> Result<Value<B>, RunError> {
        let operand = |value: &Value<B>| -> Result<_, RunError> {
            let tensor = value.float()?;
            let shape = burn_backend::TensorMetadata::shape(&tensor).to_vec();
            if shape == output.shape {
                return Ok(tensor);
            }
            let padded = [vec![1; output.shape.len() - shape.len()], shape].concat();
            let tensor = B::float_reshape(tensor, Shape::from(padded));
            Ok(B::float_expand(tensor, Shape::from(output.shape.clone())))
        };
        let (a, b) = (operand(inputs[0])?, operand(inputs[1])?);
        Ok(Value::Float(match self {
            Self::Add => B::float_add(a, b),
            Self::Sub => B::float_sub(a, b),
            Self::Mul => B::float_mul(a, b),
            Self::Div => B::float_div(a, b),
        }))
    }
}

/// ONNX's multidirectional (NumPy's) broadcasting.
pub(super) fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, NodeError> {
    let rank = a.len().max(b.len());
    let dim = |shape: &[usize], i: usize| (i + shape.len()).checked_sub(rank).map_or(1, |i| shape[i]);
    (0..rank)
        .map(|i| match (dim(a, i), dim(b, i)) {
            (x, y) if x == y => Ok(x),
            (1, y) => Ok(y),
            (x, 1) => Ok(x),
            _ => Err(format!("shapes {a:?} and {b:?} do not broadcast")),
        })
        .collect()
}

pub(super) fn parse_unary<B: Kernels>(op_type: &str, node: NodeView<'_>) -> Result<Box<dyn Operator<B>>, NodeError> {
    Ok(Box::new(match op_type {
        "Relu" => Unary::Relu,
        "LeakyRelu" => Unary::LeakyRelu(node.float("alpha", 0.01)),
        "Sigmoid" => Unary::Sigmoid,
        "Tanh" => Unary::Tanh,
        "Exp" => Unary::Exp,
        "Log" => Unary::Log,
        "Sqrt" => Unary::Sqrt,
        "Neg" => Unary::Neg,
        "Abs" => Unary::Abs,
        _ => Unary::Clip(
            node.constant_float(1, "min")?.unwrap_or_else(|| node.float("min", f32::MIN)),
            node.constant_float(2, "max")?.unwrap_or_else(|| node.float("max", f32::MAX)),
        ),
    }))
}

impl<B: Kernels> Operator<B> for Unary {
    fn infer(&self, inputs: &[&TensorType]) -> Result<TensorType, NodeError> {
        let x = input(inputs, 0)?;
        Ok(TensorType::new(x.dtype, x.float()?.to_vec()))
    }

    fn ops(&self, _: &[&TensorType], output: &TensorType) -> u64 {
        (output.count() as u64).saturating_mul((*self).ops())
    }

    fn run(&self, inputs: &[&Value<B>], _: &TensorType) -> Result<Value<B>, RunError> {
        Ok(Value::Float(B::exact_unary(inputs[0].float()?, *self)))
    }
}
