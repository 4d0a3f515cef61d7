//! Operators that move elements without changing them.

use burn_backend::Slice as Range;

use super::{NodeError, Operator, RunError, axis_of, input};
use crate::{
    engine::{
        kernels::Kernels,
        value::{TensorType, Value},
    },
    onnx::NodeView,
};

/// Another shape over the same elements.
#[derive(Debug)]
enum Reshaping {
    Identity,
    Flatten(i64),
    Squeeze(Option<Vec<i64>>),
    Unsqueeze(Vec<i64>),
    /// 0 copies the input's dimension, -1 takes what is left.
    Reshape(Vec<i64>),
}

pub(super) fn parse_reshaping<B: Kernels>(
    op_type: &str,
    node: NodeView<'_>,
) -> Result<Box<dyn Operator<B>>, NodeError> {
    let axes = || Ok::<_, NodeError>(node.constant_ints(1, "axes")?.or_else(|| node.ints("axes")));
    Ok(Box::new(match op_type {
        "Identity" | "Dropout" => Reshaping::Identity,
        "Flatten" => Reshaping::Flatten(node.int("axis", 1)),
        "Squeeze" => Reshaping::Squeeze(axes()?),
        "Unsqueeze" => Reshaping::Unsqueeze(axes()?.ok_or("it has no axes")?),
        "Reshape" if node.int("allowzero", 0) == 0 => {
            Reshaping::Reshape(node.constant_ints(1, "shape")?.ok_or("it has no shape")?)
        }
        _ => return Err("this form is not supported".into()),
    }))
}

impl Reshaping {
    fn shape(&self, from: &[usize]) -> Result<Vec<usize>, NodeError> {
        match self {
            Self::Identity => Ok(from.to_vec()),
            Self::Flatten(axis) => {
                let axis = if *axis == from.len() as i64 { from.len() } else { axis_of(*axis, from.len())? };
                Ok(vec![from[..axis].iter().product(), from[axis..].iter().product()])
            }
            Self::Squeeze(axes) => {
                let axes = match axes {
                    None => (0..from.len()).filter(|a| from[*a] == 1).collect(),
                    Some(axes) => axes.iter().map(|a| axis_of(*a, from.len())).collect::<Result<Vec<_>, _>>()?,
                };
                if axes.iter().any(|a| from[*a] != 1) {
                    return Err(format!("shape {from:?} is not 1 at every axis to squeeze"));
                }
                Ok((0..from.len()).filter(|a| !axes.contains(a)).map(|a| from[a]).collect())
            }
            Self::Unsqueeze(axes) => {
                let rank = from.len() + axes.len();
                let axes = axes.iter().map(|a| axis_of(*a, rank)).collect::<Result<Vec<_>, _>>()?;
                let mut rest = from.iter().copied();
                let shape: Vec<usize> =
                    (0..rank).map(|a| if axes.contains(&a) { 1 } else { rest.next().unwrap_or(1) }).collect();
                if rest.next().is_some() { Err("its axes repeat".into()) } else { Ok(shape) }
            }
            Self::Reshape(target) => reshape(from, target),
        }
    }
}

fn reshape(from: &[usize], target: &[i64]) -> Result<Vec<usize>, NodeError> {
    let error = || format!("shape {from:?} cannot become {target:?}");
    let mut shape = Vec::with_capacity(target.len());
    let mut open = None;
    for (axis, dim) in target.iter().enumerate() {
        shape.push(match dim {
            0 => *from.get(axis).ok_or_else(error)?,
            -1 if open.is_none() => {
                open = Some(axis);
                1
            }
            dim => usize::try_from(*dim).map_err(|_| error())?,
        });
    }
    let count: usize = from.iter().product();
    let rest = shape.iter().try_fold(1usize, |p, d| p.checked_mul(*d)).ok_or_else(error)?;
    if let Some(axis) = open {
        shape[axis] = count.checked_div(rest).ok_or_else(error)?;
    }
    if shape.iter().product::<usize>() == count { Ok(shape) } else { Err(error()) }
}

impl<B: Kernels> Operator<B> for Reshaping {
    fn infer(&self, inputs: &[&TensorType]) -> Result<TensorType, NodeError> {
        let x = input(inputs, 0)?;
        Ok(TensorType::new(x.dtype, self.shape(&x.shape)?))
    }

    fn run(&self, inputs: &[&Value<B>], output: &TensorType) -> Result<Value<B>, RunError> {
        Ok(inputs[0].reshape(&output.shape))
    }
}

#[derive(Debug)]
struct Transpose(Option<Vec<usize>>);

pub(super) fn parse_transpose<B: Kernels>(node: NodeView<'_>) -> Result<Box<dyn Operator<B>>, NodeError> {
    let order = node.ints("perm").map(|perm| perm.iter().map(|a| usize::try_from(*a)).collect::<Result<Vec<_>, _>>());
    Ok(Box::new(Transpose(order.transpose().map_err(|_| "perm has a negative axis")?)))
}

impl Transpose {
    fn order(&self, rank: usize) -> Vec<usize> {
        self.0.clone().unwrap_or_else(|| (0..rank).rev().collect())
    }
}

impl<B: Kernels> Operator<B> for Transpose {
    fn infer(&self, inputs: &[&TensorType]) -> Result<TensorType, NodeError> {
        let x = input(inputs, 0)?;
        let order = self.order(x.shape.len());
        let mut sorted = order.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..x.shape.len()) {
            return Err(format!("perm {order:?} does not fit shape {:?}", x.shape));
        }
        Ok(TensorType::new(x.dtype, order.iter().map(|a| x.shape[*a]).collect()))
    }

    fn run(&self, inputs: &[&Value<B>], output: &TensorType) -> Result<Value<B>, RunError> {
        Ok(inputs[0].permute(&self.order(output.shape.len())))
    }
}

#[derive(Debug)]
struct Concat(i64);

pub(super) fn parse_concat<B: Kernels>(node: NodeView<'_>) -> Result<Box<dyn Operator<B>>, NodeError> {
    Ok(Box::new(Concat(node.int("axis", 0))))
}

impl<B: Kernels> Operator<B> for Concat {
    fn infer(&self, inputs: &[&TensorType]) -> Result<TensorType, NodeError> {
        let first = input(inputs, 0)?;
        let axis = axis_of(self.0, first.shape.len())?;
        let mut shape = first.shape.clone();
        for other in &inputs[1..] {
            let fits = other.dtype == first.dtype
                && other.shape.len() == shape.len()
                && (0..shape.len()).all(|a| a == axis || other.shape[a] == shape[a]);
            if !fits {
                return Err(format!(
                    "inputs of shapes {:?} and {:?} do not join along axis {axis}",
                    first.shape, other.shape
                ));
            }
            shape[axis] += other.shape[axis];
        }
        Ok(TensorType::new(first.dtype, shape))
    }

    fn run(&self, inputs: &[&Value<B>], output: &TensorType) -> Result<Value<B>, RunError> {
        let axis = axis_of(self.0, output.shape.len()).map_err(|_| RunError)?;
        let mut floats = Vec::new();
        let mut ints = Vec::new();
        for value in inputs {
            match value {
                Value::Float(t) => floats.push(t.clone()),
                Value::Int(t) => ints.push(t.clone()),
            }
        }
        Ok(if ints.is_empty() { Value::Float(B::float_cat(floats, axis)) } else { Value::Int(B::int_cat(ints, axis)) })
    }
}

/// A range with a positive step along some axes.
#[derive(Debug)]
struct Slice {
    starts: Vec<i64>,
    ends: Vec<i64>,
    axes: Vec<i64>,
    steps: Vec<i64>,
}

pub(super) fn parse_slice<B: Kernels>(node: NodeView<'_>) -> Result<Box<dyn Operator<B>>, NodeError> {
    let read = |index, name: &str| Ok::<_, NodeError>(node.constant_ints(index, name)?.or_else(|| node.ints(name)));
    let starts = read(1, "starts")?.ok_or("it has no starts")?;
    let ends = read(2, "ends")?.ok_or("it has no ends")?;
    let axes = read(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = read(4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
    if [&ends, &axes, &steps].iter().any(|list| list.len() != starts.len()) {
        return Err("starts, ends, axes and steps differ in length".into());
    }
    if steps.iter().any(|step| *step < 1) {
        return Err("a step below 1 is not supported".into());
    }
    Ok(Box::new(Slice { starts, ends, axes, steps }))
}

impl Slice {
    /// Start, end and step along every axis of `shape`.
    fn ranges(&self, shape: &[usize]) -> Result<Vec<(usize, usize, usize)>, NodeError> {
        let mut ranges: Vec<_> = shape.iter().map(|size| (0, *size, 1)).collect();
        for (i, axis) in self.axes.iter().enumerate() {
            let axis = axis_of(*axis, shape.len())?;
            let size = shape[axis] as i64;
            let bound = |x: i64| (if x < 0 { x.saturating_add(size) } else { x }).clamp(0, size);
            let (start, end) = (bound(self.starts[i]), bound(self.ends[i]));
            if start >= end {
                return Err(format!("it takes nothing of axis {axis} of shape {shape:?}"));
            }
            let step = self.steps[i].min(size.max(1));
            ranges[axis] = (start as usize, end as usize, step as usize);
        }
        Ok(ranges)
    }
}

impl<B: Kernels> Operator<B> for Slice {
    fn infer(&self, inputs: &[&TensorType]) -> Result<TensorType, NodeError> {
        let x = input(inputs, 0)?;
        let shape = self.ranges(&x.shape)?.iter().map(|(start, end, step)| (end - start).div_ceil(*step)).collect();
        Ok(TensorType::new(x.dtype, shape))
    }

    fn run(&self, inputs: &[&Value<B>], _: &TensorType) -> Result<Value<B>, RunError> {
        let ranges = |shape: &[usize]| -> Result<Vec<Range>, RunError> {
            let ranges = self.ranges(shape).map_err(|_| RunError)?;
            Ok(ranges.iter().map(|(s, e, step)| Range::new(*s as isize, Some(*e as isize), *step as isize)).collect())
        };
        Ok(match inputs[0] {
            Value::Float(t) => {
                let shape = burn_backend::TensorMetadata::shape(t).to_vec();
                Value::Float(B::float_slice(t.clone(), &ranges(&shape)?))
            }
            Value::Int(t) => {
                let shape = burn_backend::TensorMetadata::shape(t).to_vec();
                Value::Int(B::int_slice(t.clone(), &ranges(&shape)?))
            }
        })
    }
}
