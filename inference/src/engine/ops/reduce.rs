//! Reductions over axes: the reduced axes are moved to the end, in their order, and each row of
//! what remains becomes one element.

use burn_backend::Shape;

use super::{NodeError, Operator, RunError, axis_of, input};
use crate::{
    DType,
    engine::{
        kernels::{Kernels, Reduction},
        value::{TensorType, Value},
    },
    onnx::NodeView,
};

#[derive(Debug)]
enum Axes {
    /// Every axis.
    All,
    /// All but the first two (batch and channels).
    Spatial,
    These(Vec<i64>),
}

impl Axes {
    fn resolve(&self, rank: usize) -> Result<Vec<usize>, NodeError> {
        match self {
            Self::All => Ok((0..rank).collect()),
            Self::Spatial if rank > 2 => Ok((2..rank).collect()),
            Self::Spatial => Err(format!("an input of {rank} dimensions has no spatial one")),
            Self::These(axes) => {
                let mut axes = axes.iter().map(|a| axis_of(*a, rank)).collect::<Result<Vec<_>, _>>()?;
                axes.sort_unstable();
                axes.dedup();
                Ok(axes)
            }
        }
    }
}

#[derive(Debug)]
struct Reduce {
    reduction: Reduction,
    axes: Axes,
    keep_dims: bool,
}

pub(super) fn global_average_pool<B: Kernels>() -> Box<dyn Operator<B>> {
    Box::new(Reduce { reduction: Reduction::Mean, axes: Axes::Spatial, keep_dims: true })
}

pub(super) fn parse<B: Kernels>(op_type: &str, node: NodeView<'_>) -> Result<Box<dyn Operator<B>>, NodeError> {
    let reduction = match op_type {
        "ReduceSum" => Reduction::Sum,
        "ReduceMean" => Reduction::Mean,
        "ReduceMax" => Reduction::Max,
        _ => Reduction::Min,
    };
    let axes = match node.constant_ints(1, "axes")?.or_else(|| node.ints("axes")) {
        Some(axes) if !axes.is_empty() => Axes::These(axes),
        _ if node.int("noop_with_empty_axes", 0) != 0 => return Err("noop_with_empty_axes is not supported".into()),
        _ => Axes::All,
    };
    Ok(Box::new(Reduce { reduction, axes, keep_dims: node.int("keepdims", 1) != 0 }))
}

/// Shape of a reduction's output.
fn reduced_shape(shape: &[usize], axes: &[usize], keep_dims: bool) -> Result<Vec<usize>, NodeError> {
    if axes.iter().any(|a| shape[*a] == 0) {
        return Err(format!("an axis of shape {shape:?} to be reduced is empty"));
    }
    let kept = |(axis, size): (usize, &usize)| match axes.contains(&axis) {
        false => Some(*size),
        true => keep_dims.then_some(1),
    };
    Ok(shape.iter().enumerate().filter_map(kept).collect())
}

/// The input as `[rows, n]`, one row for each output element.
fn rows<B: Kernels>(value: &Value<B>, axes: &[usize]) -> Result<burn_backend::tensor::FloatTensor<B>, RunError> {
    let shape = burn_backend::TensorMetadata::shape(&value.float()?).to_vec();
    let order: Vec<usize> = (0..shape.len()).filter(|a| !axes.contains(a)).chain(axes.iter().copied()).collect();
    let n: usize = axes.iter().map(|a| shape[*a]).product();
    let count: usize = shape.iter().product();
    let moved = if order.is_sorted() { value.clone() } else { value.permute(&order) };
    Ok(B::float_reshape(moved.float()?, Shape::from(vec![count / n.max(1), n])))
}

impl<B: Kernels> Operator<B> for Reduce {
    fn infer(&self, inputs: &[&TensorType]) -> Result<TensorType, NodeError> {
        let shape = input(inputs, 0)?.float()?;
        let axes = self.axes.resolve(shape.len())?;
        Ok(TensorType::new(DType::Float32, reduced_shape(shape, &axes, self.keep_dims)?))
    }

    fn ops(&self, inputs: &[&TensorType], _: &TensorType) -> u64 {
        inputs[0].count() as u64
    }

    fn run(&self, inputs: &[&Value<B>], output: &TensorType) -> Result<Value<B>, RunError> {
        let rank = burn_backend::TensorMetadata::shape(&inputs[0].float()?).to_vec().len();
        let axes = self.axes.resolve(rank).map_err(|_| RunError)?;
        let reduced = B::exact_reduce(rows(inputs[0], &axes)?, self.reduction);
        Ok(Value::<B>::Float(reduced).reshape(&output.shape))
    }
}

#[derive(Debug)]
struct ArgMax {
    axis: i64,
    keep_dims: bool,
}

pub(super) fn parse_argmax<B: Kernels>(node: NodeView<'_>) -> Result<Box<dyn Operator<B>>, NodeError> {
    if node.int("select_last_index", 0) != 0 {
        return Err("select_last_index is not supported".into());
    }
    Ok(Box::new(ArgMax { axis: node.int("axis", 0), keep_dims: node.int("keepdims", 1) != 0 }))
}

impl<B: Kernels> Operator<B> for ArgMax {
    fn infer(&self, inputs: &[&TensorType]) -> Result<TensorType, NodeError> {
        let shape = input(inputs, 0)?.float()?;
        let axis = axis_of(self.axis, shape.len())?;
        Ok(TensorType::new(DType::Int64, reduced_shape(shape, &[axis], self.keep_dims)?))
    }

    fn ops(&self, inputs: &[&TensorType], _: &TensorType) -> u64 {
        inputs[0].count() as u64
    }

    fn run(&self, inputs: &[&Value<B>], output: &TensorType) -> Result<Value<B>, RunError> {
        let rank = burn_backend::TensorMetadata::shape(&inputs[0].float()?).to_vec().len();
        let axis = axis_of(self.axis, rank).map_err(|_| RunError)?;
        Ok(Value::<B>::Int(B::exact_argmax(rows(inputs[0], &[axis])?)).reshape(&output.shape))
    }
}
