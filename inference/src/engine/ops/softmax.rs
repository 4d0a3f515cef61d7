//! Softmax: along one axis from operator set 13 on, over all axes from `axis` on before it.

use burn_backend::Shape;

use super::{NodeError, Operator, RunError, axis_of, input};
use crate::{
    DType,
    engine::{
        kernels::Kernels,
        value::{TensorType, Value},
    },
    onnx::NodeView,
};

#[derive(Debug)]
struct Softmax {
    axis: i64,
    flattens: bool,
}

pub(super) fn parse<B: Kernels>(node: NodeView<'_>) -> Result<Box<dyn Operator<B>>, NodeError> {
    let flattens = node.opset < 13;
    Ok(Box::new(Softmax { axis: node.int("axis", if flattens { 1 } else { -1 }), flattens }))
}

impl<B: Kernels> Operator<B> for Softmax {
    fn infer(&self, inputs: &[&TensorType]) -> Result<TensorType, NodeError> {
        let shape = input(inputs, 0)?.float()?;
        axis_of(self.axis, shape.len())?;
        Ok(TensorType::new(DType::Float32, shape.to_vec()))
    }

    fn ops(&self, _: &[&TensorType], output: &TensorType) -> u64 {
        (output.count() as u64).saturating_mul(20)
    }

    fn run(&self, inputs: &[&Value<B>], output: &TensorType) -> Result<Value<B>, RunError> {
        let shape = &output.shape;
        let axis = axis_of(self.axis, shape.len()).map_err(|_| RunError)?;
        let last = shape.len() - 1;
        let n: usize = if self.flattens { shape[axis..].iter().product() } else { shape[axis] };
        let swapped: Vec<usize> = (0..shape.len())
            .map(|a| {
                if a == axis {
                    last
                } else if a == last {
                    axis
                } else {
                    a
                }
            })
            .collect();
        let swaps = !self.flattens && axis != last;
        let moved = if swaps { inputs[0].permute(&swapped) } else { inputs[0].clone() };
        let rows = B::float_reshape(moved.float()?, Shape::from(vec![output.count() / n.max(1), n]));
        let result = Value::<B>::Float(B::exact_softmax(rows));
        if !swaps {
            return Ok(result.reshape(shape));
        }
        let moved_shape: Vec<usize> = swapped.iter().map(|a| shape[*a]).collect();
        Ok(result.reshape(&moved_shape).permute(&swapped))
    }
}
