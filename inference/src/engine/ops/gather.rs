//! Gather along one axis. An index out of bounds fails the run.

use burn_backend::TensorMetadata;

use super::{NodeError, Operator, RunError, axis_of, input};
use crate::{
    DType, Tensor, TensorValues,
    engine::{
        kernels::Kernels,
        value::{TensorType, Value},
    },
    onnx::NodeView,
};

#[derive(Debug)]
struct Gather {
    axis: i64,
}

pub(super) fn parse<B: Kernels>(node: NodeView<'_>) -> Result<Box<dyn Operator<B>>, NodeError> {
    Ok(Box::new(Gather { axis: node.int("axis", 0) }))
}

impl<B: Kernels> Operator<B> for Gather {
    fn infer(&self, inputs: &[&TensorType]) -> Result<TensorType, NodeError> {
        let (data, indices) = (input(inputs, 0)?, input(inputs, 1)?);
        if indices.dtype != DType::Int64 {
            return Err("its indices must be int64".into());
        }
        let axis = axis_of(self.axis, data.shape.len())?;
        let shape = [&data.shape[..axis], &indices.shape, &data.shape[axis + 1..]].concat();
        Ok(TensorType::new(data.dtype, shape))
    }

    fn run(&self, inputs: &[&Value<B>], output: &TensorType) -> Result<Value<B>, RunError> {
        let shape = match inputs[0] {
            Value::Float(t) => t.shape().to_vec(),
            Value::Int(t) => t.shape().to_vec(),
        };
        let axis = axis_of(self.axis, shape.len()).map_err(|_| RunError)?;
        let Value::Int(indices) = inputs[1] else { return Err(RunError) };
        let TensorValues::Int64(indices) = B::int_to_host(indices.clone()) else { return Err(RunError) };
        let size = shape[axis] as i64;
        let indices: Vec<i64> = indices.into_iter().map(|i| if i < 0 { i + size } else { i }).collect();
        if indices.iter().any(|i| !(0..size).contains(i)) {
            return Err(RunError);
        }
        let indices = Tensor::new(vec![indices.len()], TensorValues::Int64(indices)).ok_or(RunError)?;
        let indices = B::int_from_host(&indices).ok_or(RunError)?;
        let selected: Value<B> = match inputs[0] {
            Value::Float(t) => Value::Float(B::float_select(t.clone(), axis, indices)),
            Value::Int(t) => Value::Int(B::int_select(t.clone(), axis, indices)),
        };
        Ok(selected.reshape(&output.shape))
    }
}
