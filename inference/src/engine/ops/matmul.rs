//! MatMul and Gemm. A constant right-hand side is laid out for the kernel once, at loading.

use std::{collections::HashMap, sync::Arc};

use burn_backend::Shape;

use super::{NodeError, Operator, RunError, arithmetic::broadcast, input};
use crate::{
    DType, TensorValues,
    engine::{
        kernels::{Kernels, matmul::Packed},
        value::{TensorType, Value},
    },
    onnx::{NodeView, ValueId},
};

/// Constant matrices laid out for the kernel, so that nodes that share one share its layout.
#[derive(Debug)]
pub(crate) struct PackedConstants<B: Kernels>(HashMap<(ValueId, bool), Arc<B::Packed>>);

impl<B: Kernels> Default for PackedConstants<B> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

/// A layout pads columns to panels: a tall, narrow constant grows by that. Larger ones are laid out for each
/// run instead, where they count against the memory of the run.
const MAX_PACKED_BYTES: usize = 1 << 30;

impl<B: Kernels> PackedConstants<B> {
    /// The layout of a node's second input, if that is a constant matrix.
    fn of(&mut self, node: NodeView<'_>, transpose: bool) -> Option<Arc<B::Packed>> {
        let (id, tensor) = node.input_id(1).zip(node.constant(1))?;
        let (&[rows, columns], TensorValues::Float32(values)) = (tensor.shape(), tensor.values()) else { return None };
        let (k, n) = if transpose { (columns, rows) } else { (rows, columns) };
        Packed::bytes(k, n).filter(|bytes| *bytes <= MAX_PACKED_BYTES)?;
        let pack = || match transpose {
            false => B::pack(values, rows, columns),
            true => B::pack(&transposed(values, rows, columns), columns, rows),
        };
        Some(self.0.entry((id, transpose)).or_insert_with(|| Arc::new(pack())).clone())
    }
}

/// `[.., m, k] × [k, n]`; higher ranks on the right are refused when the model is loaded.
#[derive(Debug)]
struct MatMul<B: Kernels> {
    packed: Option<Arc<B::Packed>>,
}

pub(super) fn parse_matmul<B: Kernels>(node: NodeView<'_>, packed: &mut PackedConstants<B>) -> Box<dyn Operator<B>> {
    Box::new(MatMul::<B> { packed: packed.of(node, false) })
}

impl<B: Kernels> Operator<B> for MatMul<B> {
    fn infer(&self, inputs: &[&TensorType]) -> Result<TensorType, NodeError> {
        let (a, b) = (input(inputs, 0)?.float()?, input(inputs, 1)?.float()?);
        match (a, b) {
            ([rows @ .., k], [inner, n]) if !rows.is_empty() && k == inner => {
                Ok(TensorType::new(DType::Float32, [rows, &[*n]].concat()))
            }
            _ => Err(format!("shapes {a:?} and {b:?} do not multiply ([.., m, k] x [k, n] is supported)")),
        }
    }

    fn ops(&self, inputs: &[&TensorType], output: &TensorType) -> u64 {
        product_ops(output, *inputs[0].shape.last().unwrap_or(&1))
    }

    fn scratch(&self, inputs: &[&TensorType], output: &TensorType) -> Option<usize> {
        let n = *output.shape.last()?;
        if self.packed.is_some() { Some(0) } else { Packed::bytes(inputs[1].count() / n.max(1), n) }
    }

    fn run(&self, inputs: &[&Value<B>], output: &TensorType) -> Result<Value<B>, RunError> {
        let n = *output.shape.last().ok_or(RunError)?;
        let rows = output.count() / n.max(1);
        let k = element_ratio::<B>(inputs[0], rows)?;
        let lhs = B::float_reshape(inputs[0].float()?, Shape::from(vec![rows, k]));
        let product = match &self.packed {
            Some(packed) => B::exact_matmul(lhs, packed),
            None => B::exact_matmul(lhs, &pack_value::<B>(inputs[1], k, n)?),
        };
        Ok(Value::Float(B::float_reshape(product, Shape::from(output.shape.clone()))))
    }
}

/// `alpha · A' × B' + beta · C`.
#[derive(Debug)]
struct Gemm<B: Kernels> {
    alpha: f32,
    beta: f32,
    transpose_a: bool,
    transpose_b: bool,
    packed: Option<Arc<B::Packed>>,
}

pub(super) fn parse_gemm<B: Kernels>(node: NodeView<'_>, packed: &mut PackedConstants<B>) -> Box<dyn Operator<B>> {
    let transpose_b = node.int("transB", 0) != 0;
    Box::new(Gemm::<B> {
        alpha: node.float("alpha", 1.0),
        beta: node.float("beta", 1.0),
        transpose_a: node.int("transA", 0) != 0,
        transpose_b,
        packed: packed.of(node, transpose_b),
    })
}

impl<B: Kernels> Operator<B> for Gemm<B> {
    fn infer(&self, inputs: &[&TensorType]) -> Result<TensorType, NodeError> {
        let (a, b) = (input(inputs, 0)?.float()?, input(inputs, 1)?.float()?);
        let (&[a0, a1], &[b0, b1]) = (a, b) else {
            return Err(format!("shapes {a:?} and {b:?} are not matrices"));
        };
        let (m, k) = if self.transpose_a { (a1, a0) } else { (a0, a1) };
        let (inner, n) = if self.transpose_b { (b1, b0) } else { (b0, b1) };
        if k != inner {
            return Err(format!("shapes {a:?} and {b:?} do not multiply"));
        }
        if let Some(c) = inputs.get(2)
            && broadcast(c.float()?, &[m, n])? != [m, n]
        {
            return Err(format!("the bias of shape {:?} does not broadcast to [{m}, {n}]", c.shape));
        }
        Ok(TensorType::new(DType::Float32, vec![m, n]))
    }

    fn ops(&self, inputs: &[&TensorType], output: &TensorType) -> u64 {
        let k = inputs[0].count() / output.shape[0].max(1);
        product_ops(output, k).saturating_add(output.count() as u64)
    }

    fn scratch(&self, inputs: &[&TensorType], output: &TensorType) -> Option<usize> {
        let n = *output.shape.last()?;
        if self.packed.is_some() { Some(0) } else { Packed::bytes(inputs[1].count() / n.max(1), n) }
    }

    fn run(&self, inputs: &[&Value<B>], output: &TensorType) -> Result<Value<B>, RunError> {
        let &[m, n] = output.shape.as_slice() else { return Err(RunError) };
        let k = element_ratio::<B>(inputs[0], m)?;
        let lhs = if self.transpose_a { inputs[0].permute(&[1, 0]) } else { inputs[0].clone() }.float()?;
        let mut out = match &self.packed {
            Some(packed) => B::exact_matmul(lhs, packed),
            None => {
                let rhs = if self.transpose_b { inputs[1].permute(&[1, 0]) } else { inputs[1].clone() };
                B::exact_matmul(lhs, &pack_value::<B>(&rhs, k, n)?)
            }
        };
        let scalar = |x: f32| burn_backend::Scalar::Float(x.into());
        if self.alpha != 1.0 {
            out = B::float_mul_scalar(out, scalar(self.alpha));
        }
        if let Some(c) = inputs.get(2) {
            let mut c = c.float()?;
            let shape = burn_backend::TensorMetadata::shape(&c).to_vec();
            let padded = [vec![1; 2 - shape.len()], shape].concat();
            c = B::float_expand(B::float_reshape(c, Shape::from(padded)), Shape::from(output.shape.clone()));
            if self.beta != 1.0 {
                c = B::float_mul_scalar(c, scalar(self.beta));
            }
            out = B::float_add(out, c);
        }
        Ok(Value::Float(out))
    }
}

fn product_ops(output: &TensorType, k: usize) -> u64 {
    (output.count() as u64).saturating_mul(k as u64)
}

fn element_ratio<B: Kernels>(value: &Value<B>, rows: usize) -> Result<usize, RunError> {
    let shape = burn_backend::TensorMetadata::shape(&value.float()?).to_vec();
    Ok(shape.iter().product::<usize>() / rows.max(1))
}

fn pack_value<B: Kernels>(value: &Value<B>, k: usize, n: usize) -> Result<B::Packed, RunError> {
    match B::float_to_host(value.float()?) {
        TensorValues::Float32(matrix) => Ok(B::pack(&matrix, k, n)),
        TensorValues::Int64(_) => Err(RunError),
    }
}

fn transposed(matrix: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..rows * columns).map(|i| matrix[(i % rows) * columns + i / rows]).collect()
}
