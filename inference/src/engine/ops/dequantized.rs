//! Products of dequantised numbers: MatMul, Gemm and Conv whose operands both come from DequantizeLinear. The product is that
//! of the integers, exact, and its scale comes afterwards. `compile.rs` says when; `NUMERICS.md` what the bits are.
//!
//! Inputs are the integers of the left-hand side (of Conv: the image), their scale and zero point, those of the weights, and
//! the bias.

use std::borrow::Cow;

use super::{
    Parse, conv,
    integer::{byte_zero, bytes_of, packed_bytes, turned_product},
    linear::{Stacks, finish},
    quant::column_factors,
    single,
};
use crate::{
    DType,
    engine::{
        cx::{Inputs, Stop},
        kernels::{
            bytes::{ByteMatrix, Bytes},
            quant::{Finish, finish_columns},
        },
        program::Eval,
        value::count,
    },
    onnx::Node,
};

/// The parser for an operator whose operands are dequantised.
pub(crate) fn find(name: &str) -> Option<Parse> {
    Some(match name {
        "MatMul" | "Gemm" => |node, _| product(node),
        "Conv" => |node, _| conv::dequantized(node),
        _ => return None,
    })
}

/// Float32 of integers of eight bits: what DequantizeLinear would have given.
pub(super) fn check(inputs: &Inputs<'_>) -> Result<(), Stop> {
    let bytes = |index: usize| Ok::<_, Stop>(matches!(inputs.dtype(index)?, DType::Int8 | DType::Uint8));
    if !bytes(0)? || !bytes(3)? || inputs.dtype(2)? != inputs.dtype(0)? {
        return Err(Stop::invalid("its zero point has another type than what is dequantised"));
    }
    if inputs.has(6) && inputs.dtype(6)? != DType::Float32 {
        return Err(Stop::invalid("its bias has another type than its operands"));
    }
    Ok(())
}

fn product(node: &Node<'_>) -> Result<Eval, String> {
    let gemm = node.op() == "Gemm";
    let turned = gemm && node.flag("transB", false);
    let constant = packed_bytes(node, 3, 5, turned);
    single(move |cx, inputs| {
        check(inputs)?;
        let (x, w) = (inputs.shape(0)?, inputs.shape(3)?);
        if gemm && x.len() != 2 {
            return Err(Stop::invalid("it takes matrices"));
        }
        let turned_w = || w.iter().rev().copied().collect::<Vec<_>>();
        let stacks = Stacks::new(x, &if turned { turned_w() } else { w.to_vec() })?;
        let (n, threads) = (stacks.n, cx.threads);
        let fits = |bias: &[usize]| super::shapes::broadcast(&[bias, &stacks.out]).is_ok_and(|out| out == stacks.out);
        if inputs.has(6) && !fits(inputs.shape(6)?) {
            return Err(Stop::invalid("its third input does not fit its output"));
        }
        let ops = stacks.ops().saturating_add(count(&stacks.out).saturating_mul(4));
        let scratch = ByteMatrix::scratch(stacks.rows(), stacks.k, n);
        cx.scratch((scratch as u64).saturating_mul(4))?;
        cx.emit_over(inputs, stacks.out.clone(), (ops, scratch), |out, beside| {
            let factors = column_factors(inputs, 1.0, n)?;
            let left = inputs.read(0)?;
            let bytes = byte_zero(left, Some(inputs.read(2)?)).zip(bytes_of(left));
            // A bias of one row comes with the scale.
            let row = match inputs.has(6) {
                true => Some(inputs.read(6)?).filter(|bias| bias.shape() == [n]).map(|bias| bias.values::<f32>()),
                false => Some(Cow::Borrowed(&[][..])),
            };
            if let (Some((zero, (bytes, signed))), Some(matrix), Some(bias)) = (bytes, &constant, row) {
                let finish = Finish { factors: &factors, bias: &bias, rectified: false };
                let left = (Bytes { bytes: &bytes, signed }, i32::from(zero));
                matrix.finished(left, finish, bytemuck::cast_slice_mut(beside), out, threads);
                return Ok(());
            }
            let sums = turned_product(inputs, (false, turned), &stacks, constant.as_deref(), threads)?;
            finish_columns(&sums, n, &[], Finish { factors: &factors, bias: &[], rectified: false }, out);
            finish(out, n, (1.0, 1.0), inputs, 6)
        })
    })
}
