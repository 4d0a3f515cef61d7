//! Products of dequantised numbers: MatMul, Gemm and Conv whose operands both come from DequantizeLinear. The product is that
//! of the integers, exact, and its scale comes afterwards. `compile.rs` says when; `NUMERICS.md` what the bits are.
//!
//! Inputs are the integers of the left-hand side (of Conv: the image), their scale and zero point, those of the weights, and
//! the bias.

use super::{
    Parse, conv,
    integer::{packed_bytes, turned_product},
    linear::{Stacks, finish},
    quant::column_factors,
    single,
};
use crate::{
    DType,
    engine::{
        cx::{Inputs, Stop},
        kernels::quant::scale_columns,
        program::Eval,
        value::count,
    },
    onnx::Node,
};

/// The parser for an operator whose operands are dequantised.
pub(crate) fn find(name: &str) -> Option<Parse> {
    Some(match name {
        "MatMul" => |node, _| product(node, false),
        "Gemm" => |node, _| product(node, node.flag("transB", false)),
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

fn product(node: &Node<'_>, turned: bool) -> Result<Eval, String> {
    let constant = packed_bytes(node, 3, 5, turned);
    single(move |cx, inputs| {
        check(inputs)?;
        let w = inputs.shape(3)?;
        let turned_w = || w.iter().rev().copied().collect::<Vec<_>>();
        let stacks = Stacks::new(inputs.shape(0)?, &if turned { turned_w() } else { w.to_vec() })?;
        let (n, threads) = (stacks.n, cx.threads);
        let fits = |bias: &[usize]| super::shapes::broadcast(&[bias, &stacks.out]).is_ok_and(|out| out == stacks.out);
        if inputs.has(6) && !fits(inputs.shape(6)?) {
            return Err(Stop::invalid("its third input does not fit its output"));
        }
        let ops = stacks.ops().saturating_add(count(&stacks.out).saturating_mul(4));
        cx.emit_over(inputs, stacks.out.clone(), (ops, 0), |out, _| {
            let sums = turned_product(inputs, (false, turned), &stacks, constant.as_deref(), threads)?;
            scale_columns(&sums, &column_factors(inputs, 1.0, n)?, out);
            finish(out, n, (1.0, 1.0), inputs, 6)
        })
    })
}
