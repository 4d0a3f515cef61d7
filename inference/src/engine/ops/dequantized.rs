//! Products of dequantised numbers: MatMul, Gemm and Conv whose operands both come from DequantizeLinear. The product is that
//! of the integers, exact, and its scale comes afterwards. `compile.rs` says when; `NUMERICS.md` what the bits are.
//!
//! Inputs are the integers of the left-hand side (of Conv: the image), their scale and zero point, those of the weights, and
//! the bias; of MatMul and Gemm also the scale and the zero point that the product is quantised with, if it is.

use std::borrow::Cow;

use super::{
    Parse, conv,
    integer::{byte_zero, bytes_of, packed_bytes, turned_product},
    linear::{Stacks, finish},
    quant::{column_factors, one},
    single,
};
use crate::{
    DType,
    engine::{
        cx::{Inputs, Stop},
        kernels::{
            bytes::{ByteMatrix, Bytes},
            quant::{Byte, Finish, finish_columns},
        },
        program::Eval,
        spare,
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
        // And the sums and the product by themselves, if it is not as simple as it nearly always is.
        cx.scratch((scratch as u64).saturating_add(count(&stacks.out).saturating_mul(2)).saturating_mul(4))?;
        let run = Run { inputs, stacks: &stacks, constant: constant.as_deref(), turned, threads };
        if !inputs.has(8) {
            return cx.emit_over(inputs, stacks.out.clone(), (ops, scratch), |out, beside| run.floats(out, beside));
        }
        let ops = ops.saturating_add(count(&stacks.out).saturating_mul(4));
        let (to, out) = (inputs.dtype(8)?, stacks.out.clone());
        match to {
            DType::Int8 => cx.emit::<i8>(inputs, to, out, ops, || spare::lend(scratch, |beside| run.bytes(beside))),
            DType::Uint8 => cx.emit::<u8>(inputs, to, out, ops, || spare::lend(scratch, |beside| run.bytes(beside))),
            _ => Err(Stop::unsupported(to)),
        }
    })
}

/// One product.
struct Run<'a> {
    inputs: &'a Inputs<'a>,
    stacks: &'a Stacks,
    constant: Option<&'a ByteMatrix>,
    turned: bool,
    threads: usize,
}

impl Run<'_> {
    /// If everything is as simple as it nearly always is: the product's operands, with a bias of one row.
    fn simple<T>(
        &self,
        compute: impl FnOnce(&ByteMatrix, (Bytes<'_>, i32), Finish<'_>) -> T,
    ) -> Result<Option<T>, Stop> {
        let (inputs, n) = (self.inputs, self.stacks.n);
        let left = inputs.read(0)?;
        let bytes = byte_zero(left, Some(inputs.read(2)?)).zip(bytes_of(left));
        let bias = match inputs.has(6) {
            true => Some(inputs.read(6)?).filter(|bias| bias.shape() == [n]).map(|bias| bias.values::<f32>()),
            false => Some(Cow::Borrowed(&[][..])),
        };
        let (Some((zero, (bytes, signed))), Some(matrix), Some(bias)) = (bytes, self.constant, bias) else {
            return Ok(None);
        };
        let factors = column_factors(inputs, 1.0, n)?;
        let finish = Finish { factors: &factors, bias: &bias, rectified: false };
        Ok(Some(compute(matrix, (Bytes { bytes: &bytes, signed }, i32::from(zero)), finish)))
    }

    fn floats(&self, out: &mut [f32], beside: &mut [f32]) -> Result<(), Stop> {
        if out.is_empty() {
            return Ok(());
        }
        let scratch = bytemuck::cast_slice_mut(beside);
        let simple = self.simple(|matrix, left, finish| matrix.finished(left, finish, scratch, out, self.threads))?;
        if simple.is_some() {
            return Ok(());
        }
        let n = self.stacks.n;
        let sums = turned_product(self.inputs, (false, self.turned), self.stacks, self.constant, self.threads)?;
        let factors = column_factors(self.inputs, 1.0, n)?;
        finish_columns(&sums, n, &[], Finish { factors: &factors, bias: &[], rectified: false }, out);
        finish(out, n, (1.0, 1.0), self.inputs, 6)
    }

    /// Quantised by inputs 7 and 8.
    fn bytes<T: Byte>(&self, beside: &mut [f32]) -> Result<Vec<T>, Stop> {
        if count(&self.stacks.out) == 0 {
            return Ok(vec![]);
        }
        let zero = self.inputs.read(8)?.to_ints().unwrap_or_default();
        let zero = zero.first().map_or(0, |zero| *zero as i32);
        let to = (one(self.inputs, 7)?, zero);
        let mut out = vec![T::default(); self.stacks.out.iter().product()];
        let scratch = bytemuck::cast_slice_mut(beside);
        let simple = self.simple(|matrix, left, finish| {
            matrix.quantized(left, finish, to, scratch, &mut out, self.threads);
        })?;
        if simple.is_none() {
            let mut numbers = vec![0.0; out.len()];
            self.floats(&mut numbers, beside)?;
            T::quantize(&numbers, to.0, to.1, &mut out);
        }
        Ok(out)
    }
}
