//! Cast between float32 and int64. To integers: towards zero, saturating, NaN becomes 0.

use burn_backend::{FloatDType, IntDType};

use super::{NodeError, Operator, RunError, input};
use crate::{
    DType,
    engine::{
        kernels::Kernels,
        value::{TensorType, Value},
    },
    onnx::NodeView,
};

#[derive(Debug)]
struct Cast(DType);

pub(super) fn parse<B: Kernels>(node: NodeView<'_>) -> Result<Box<dyn Operator<B>>, NodeError> {
    match node.int("to", 0) {
        1 => Ok(Box::new(Cast(DType::Float32))),
        7 => Ok(Box::new(Cast(DType::Int64))),
        other => Err(format!("target type {other} is not supported (float32 and int64 are)")),
    }
}

impl<B: Kernels> Operator<B> for Cast {
    fn infer(&self, inputs: &[&TensorType]) -> Result<TensorType, NodeError> {
        Ok(TensorType::new(self.0, input(inputs, 0)?.shape.clone()))
    }

    fn run(&self, inputs: &[&Value<B>], _: &TensorType) -> Result<Value<B>, RunError> {
        Ok(match (inputs[0], self.0) {
            (Value::Float(t), DType::Int64) => Value::Int(B::float_into_int(t.clone(), IntDType::I64)),
            (Value::Int(t), DType::Float32) => Value::Float(B::int_into_float(t.clone(), FloatDType::F32)),
            (same, _) => same.clone(),
        })
    }
}
