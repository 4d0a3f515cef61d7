//! Products of dequantised numbers become products of the integers when a program is compiled. That changes bits, and so it
//! is part of the engine's definition: `NUMERICS.md`, section 2.

use std::collections::HashMap;

use super::{array::Array, program::Slot, value::Value};
use crate::{
    DType,
    onnx::{Node, proto::NodeProto},
};

/// Terms of a sum that cannot leave int32: 2^15 · 255 · 255 < 2^31.
const MAX_TERMS: usize = 1 << 15;
/// `TensorProto.FLOAT`.
const FLOAT: i64 = 1;

/// What a DequantizeLinear to float32 reads. Its scale and zero point are constants.
#[derive(Debug, Clone)]
pub(crate) struct Dequantized {
    integers: Slot,
    scale: Slot,
    zero: Option<Slot>,
    axis: i64,
}

impl Dequantized {
    /// `None` for another node, and for one that is not as simple.
    pub(crate) fn of(node: &Node<'_>) -> Option<Self> {
        if node.op() != "DequantizeLinear"
            || node.int("block_size", 0) != 0
            || !matches!(node.int("output_dtype", 0), 0 | FLOAT)
            || node.constant(1)?.dtype() != DType::Float32
        {
            return None;
        }
        let slot = |index: usize| node.slots.get(index).copied().flatten();
        let zero = slot(2);
        if zero.is_some() {
            let zeros = node.constant(2)?;
            if !is_bytes(zeros) || zeros.count() != node.constant(1)?.count() {
                return None;
            }
        }
        Some(Self { integers: slot(0)?, scale: slot(1)?, zero, axis: node.int("axis", 1) })
    }
}

fn is_bytes(array: &Array) -> bool {
    matches!(array.dtype(), DType::Int8 | DType::Uint8)
}

/// The node and the inputs of [`super::ops::dequantized`] that a node is rewritten to, if it is: a product of what two
/// nodes dequantised, the left one by one scale, the right one a constant, by one scale or one for each output. `quantize`
/// are the scale and the zero point that the product is quantised with, if it is.
pub(crate) fn fuse(
    node: &Node<'_>,
    dequantized: &HashMap<Slot, Dequantized>,
    quantize: Option<(Slot, Slot)>,
    constants: &[Option<Value>],
) -> Option<(NodeProto, Vec<Option<Slot>>)> {
    let constant = |slot: Slot| match constants.get(slot)?.as_ref()? {
        Value::Known(array) => Some(array),
        _ => None,
    };
    let operand = |index: usize| dequantized.get(node.slots.get(index)?.as_ref()?);
    let (left, right) = (operand(0)?, operand(1)?);
    let weights = constant(right.integers)?;
    let shape = weights.shape();
    // The axis of the outputs, and the terms of a sum.
    let (axis, terms) = match (node.op(), shape) {
        ("MatMul", [k, _]) => (1, *k),
        ("Gemm", [rows, columns]) => {
            let plain = node.float("alpha", 1.0) == 1.0 && (node.float("beta", 1.0) == 1.0 || !node.has_input(2));
            if !plain || node.flag("transA", false) {
                return None;
            }
            if node.flag("transB", false) { (0, *columns) } else { (1, *rows) }
        }
        ("Conv", [_, in_group, kernel @ ..]) if !kernel.is_empty() => {
            (0, kernel.iter().fold(*in_group, |terms, size| terms.saturating_mul(*size)))
        }
        _ => return None,
    };
    let right_axis = if right.axis < 0 { right.axis + shape.len() as i64 } else { right.axis };
    let one_each = |scales: usize| scales == 1 || (scales == shape[axis] && right_axis == axis as i64);
    let fits = is_bytes(weights)
        && terms <= MAX_TERMS
        && constant(left.scale)?.count() == 1
        && one_each(constant(right.scale)?.count())
        && right.zero.is_none_or(|zero| constant(zero).is_some_and(|zero| zero.dtype() == weights.dtype()));
    // Without a zero point the type of the left-hand side is not known yet.
    if !fits || left.zero.is_none() {
        return None;
    }
    let mut inputs =
        vec![Some(left.integers), Some(left.scale), left.zero, Some(right.integers), Some(right.scale), right.zero];
    inputs.extend(node.slots.get(2).copied());
    if let Some((scale, zero)) = quantize {
        inputs.resize(7, None);
        inputs.extend([Some(scale), Some(zero)]);
    }
    let name = |slot: &Option<Slot>| slot.map_or_else(String::new, |slot| slot.to_string());
    let proto = NodeProto { input: inputs.iter().map(name).collect(), ..node.proto.clone() };
    Some((proto, inputs))
}
