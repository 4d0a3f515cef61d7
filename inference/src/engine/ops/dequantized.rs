//! Products of bytes that have a scale: MatMul, Gemm and Conv whose operands both come from DequantizeLinear, and QGemm. The
//! product is that of the integers, exact, and its scale comes afterwards. `compile.rs` says when a product is one of these;
//! `NUMERICS.md` what the bits are.
//!
//! Inputs are the integers of the left-hand side (of Conv: the image), their scale and zero point, those of the weights, and
//! the bias; of products also the scale and the zero point that they are quantised with, if they are.

use std::borrow::Cow;

use super::{
    Parse, conv,
    integer::{Left, admit, packed_bytes, turned_product},
    linear::{Stacks, finish},
    quant::{column_factors, one},
    shapes, single,
};
use crate::{
    DType,
    engine::{
        cx::{Cx, Inputs, Stop},
        kernels::{
            bytes::{ByteMatrix, Bytes},
            quant::{Byte, Finish, add_to_rows, finish_columns},
        },
        program::Eval,
        spare,
        value::{Value, count},
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
        let fits = |bias: &[usize]| shapes::broadcast(&[bias, &stacks.out]).is_ok_and(|out| out == stacks.out);
        if inputs.has(6) && !fits(inputs.shape(6)?) {
            return Err(Stop::invalid("its third input does not fit its output"));
        }
        Product { inputs, stacks: &stacks, constant: constant.as_deref(), turned: (false, turned), alpha: 1.0 }.emit(cx)
    })
}

/// QGemm of `com.microsoft`: (the exact sum + C) · (alpha · a_scale · b_scale), quantised by what it is given for that. C is of
/// int32.
pub(super) fn gemm(node: &Node<'_>) -> Result<Eval, String> {
    let alpha = node.float("alpha", 1.0);
    let turned = (node.flag("transA", false), node.flag("transB", false));
    let constant = packed_bytes(node, 3, 5, turned.1);
    single(move |cx, inputs| {
        let (&[a0, a1], &[b0, b1]) = (inputs.shape(0)?, inputs.shape(3)?) else {
            return Err(Stop::invalid("it takes matrices"));
        };
        let (a, b) = (if turned.0 { [a1, a0] } else { [a0, a1] }, if turned.1 { [b1, b0] } else { [b0, b1] });
        let stacks = Stacks::new(&a, &b)?;
        if inputs.has(6) {
            let out = shapes::broadcast(&[inputs.shape(6)?, &stacks.out])?;
            if out != stacks.out || inputs.dtype(6)? != DType::Int32 {
                return Err(Stop::invalid("its bias does not fit"));
            }
        }
        Product { inputs, stacks: &stacks, constant: constant.as_deref(), turned, alpha }.emit(cx)
    })
}

/// A product of bytes, and what becomes of it.
struct Product<'a> {
    inputs: &'a Inputs<'a>,
    stacks: &'a Stacks,
    /// The right-hand side, if it is laid out already.
    constant: Option<&'a ByteMatrix>,
    /// Operands that are transposed.
    turned: (bool, bool),
    /// A factor besides the scales.
    alpha: f32,
}

impl Product<'_> {
    fn emit(&self, cx: &mut Cx<'_>) -> Result<Value, Stop> {
        let Self { inputs, stacks, .. } = *self;
        let elements = count(&stacks.out);
        let layout = admit(cx, inputs, (0, 3), stacks, self.constant)?;
        let ops = stacks.ops().saturating_add(layout).saturating_add(elements.saturating_mul(4));
        let scratch = ByteMatrix::scratch(stacks.rows(), stacks.k, stacks.n);
        // And the sums and the product by themselves, if it is not as simple as it nearly always is.
        cx.scratch((scratch as u64).saturating_add(elements.saturating_mul(2)).saturating_mul(4))?;
        let (threads, out) = (cx.threads, stacks.out.clone());
        if !inputs.has(8) {
            return cx.emit_over(inputs, out, (ops, scratch), |out, beside| self.floats(out, beside, threads));
        }
        let ops = ops.saturating_add(elements.saturating_mul(4));
        let to = inputs.dtype(8)?;
        match to {
            DType::Int8 => {
                cx.emit::<i8>(inputs, to, out, ops, || spare::lend(scratch, |beside| self.bytes(beside, threads)))
            }
            DType::Uint8 => {
                cx.emit::<u8>(inputs, to, out, ops, || spare::lend(scratch, |beside| self.bytes(beside, threads)))
            }
            _ => Err(Stop::unsupported(to)),
        }
    }

    /// If everything is as simple as it nearly always is: the product's operands, with a bias of one row.
    fn simple<T>(
        &self,
        compute: impl FnOnce(&ByteMatrix, (Bytes<'_>, i32), Finish<'_>) -> T,
    ) -> Result<Option<T>, Stop> {
        let Self { inputs, stacks, constant: Some(matrix), turned: (false, _), alpha } = *self else { return Ok(None) };
        let Some(left) = Left::new(inputs, 0, 2)? else { return Ok(None) };
        let (mut addend, mut bias) = (Cow::Borrowed(&[][..]), Cow::Borrowed(&[][..]));
        if inputs.has(6) {
            let row = inputs.read(6)?;
            match row.dtype() {
                _ if row.shape() != [stacks.n] => return Ok(None),
                DType::Int32 => addend = row.values::<i32>(),
                _ => bias = row.values::<f32>(),
            }
        }
        let factors = column_factors(inputs, alpha, stacks.n)?;
        let finish = Finish { addend: &addend, factors: &factors, bias: &bias, rectified: false };
        Ok(Some(compute(matrix, left.operand(), finish)))
    }

    fn floats(&self, out: &mut [f32], beside: &mut [f32], threads: usize) -> Result<(), Stop> {
        if out.is_empty() {
            return Ok(());
        }
        let scratch = bytemuck::cast_slice_mut(beside);
        if self.simple(|matrix, left, finish| matrix.finished(left, finish, scratch, out, threads))?.is_some() {
            return Ok(());
        }
        let Self { inputs, stacks, .. } = *self;
        let mut sums = turned_product(inputs, self.turned, stacks, self.constant, threads)?;
        let whole = inputs.has(6) && inputs.dtype(6)? == DType::Int32;
        if whole {
            add_to_rows(&mut sums, &inputs.read(6)?.broadcast(&stacks.out).values::<i32>());
        }
        let factors = column_factors(inputs, self.alpha, stacks.n)?;
        finish_columns(&sums, stacks.n, Finish { factors: &factors, ..Finish::default() }, out);
        if whole { Ok(()) } else { finish(out, stacks.n, (1.0, 1.0), inputs, 6) }
    }

    /// Quantised by inputs 7 and 8.
    fn bytes<T: Byte>(&self, beside: &mut [f32], threads: usize) -> Result<Vec<T>, Stop> {
        if count(&self.stacks.out) == 0 {
            return Ok(vec![]);
        }
        let zero = self.inputs.read(8)?.to_ints().unwrap_or_default();
        let zero = zero.first().ok_or("its output has no zero point")?;
        let to = (one(self.inputs, 7)?, *zero as i32);
        let mut out = vec![T::default(); self.stacks.out.iter().product()];
        let scratch = bytemuck::cast_slice_mut(beside);
        let simple = self.simple(|matrix, left, finish| {
            matrix.quantized(left, finish, to, scratch, &mut out, threads);
        })?;
        if simple.is_none() {
            let mut numbers = vec![0.0; out.len()];
            self.floats(&mut numbers, beside, threads)?;
            T::quantize(&numbers, to.0, to.1, &mut out);
        }
        Ok(out)
    }
}
