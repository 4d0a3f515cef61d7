//! Exact products of integers of eight bits, minus their zero points.

use std::{borrow::Cow, sync::Arc};

use super::{
    Body, Parse,
    linear::{PAIR_OPS, Stacks},
    quant, shapes, single,
};
use crate::{
    DType,
    engine::{
        array::Array,
        cx::{Cx, Inputs, Stop},
        kernels::{
            bytes::{ByteMatrix, Bytes},
            product::product_i32,
            quant::Finish,
        },
        program::Eval,
        value::{Value, count},
    },
    onnx::Node,
};

pub(super) fn find(name: &str) -> Option<Parse> {
    Some(match name {
        "MatMulInteger" => |node, _| matmul_integer(node),
        "QLinearMatMul" => |node, _| quant::matmul(node),
        _ => return None,
    })
}

/// The elements of an int8 or uint8 matrix, or of a stack of them, minus its zero point, as int32. The zero point is one number,
/// one for each row (`along` 0) or column (`along` 1), or has a shape that is broadcast to the matrices'.
pub(super) fn centred(array: &Array, zero: Option<&Array>, along: usize) -> Result<Vec<i32>, Stop> {
    let zeros = match zero {
        Some(zero) => zero.to_ints().ok_or_else(|| Stop::unsupported(zero.dtype()))?,
        None => vec![0],
    };
    if let [zero] = zeros.as_slice() {
        let zero = *zero as i32;
        match array.dtype() {
            DType::Int8 => return Ok(array.values::<i8>().iter().map(|x| i32::from(*x).wrapping_sub(zero)).collect()),
            DType::Uint8 => return Ok(array.values::<u8>().iter().map(|x| i32::from(*x).wrapping_sub(zero)).collect()),
            _ => {}
        }
    }
    let shape = array.shape();
    let zero = match zero {
        // One for each row.
        Some(zero) if along == 0 && zero.shape().len() == 1 => zero.reshape(vec![zero.count(), 1]),
        Some(zero) => zero.clone(),
        None => Array::ints(vec![0]),
    };
    if shapes::broadcast(&[shape, zero.shape()])? != shape {
        return Err(Stop::invalid("its zero point does not fit"));
    }
    let values = array.to_ints().ok_or_else(|| Stop::unsupported(array.dtype()))?;
    let zeros = zero.broadcast(shape).to_ints().ok_or_else(|| Stop::unsupported(zero.dtype()))?;
    Ok(values.into_iter().zip(zeros).map(|(x, zero)| (x - zero) as i32).collect())
}

/// The zero point of int8 or uint8 elements, when it is one small number.
pub(super) fn byte_zero(array: &Array, zero: Option<&Array>) -> Option<i16> {
    let zero = match zero {
        None => 0,
        Some(zero) => match zero.to_ints()?.as_slice() {
            [zero] => i16::try_from(*zero).ok()?,
            _ => return None,
        },
    };
    let bytes = matches!(array.dtype(), DType::Int8 | DType::Uint8);
    (bytes && zero.unsigned_abs() <= 1 << 12).then_some(zero)
}

/// The elements of an array of bytes, and whether they are int8.
pub(super) fn bytes_of(array: &Array) -> Option<(Cow<'_, [u8]>, bool)> {
    match array.dtype() {
        DType::Uint8 => Some((array.values::<u8>(), false)),
        DType::Int8 => Some((
            match array.values::<i8>() {
                Cow::Borrowed(values) => Cow::Borrowed(bytemuck::cast_slice(values)),
                Cow::Owned(values) => Cow::Owned(values.into_iter().map(|x| x as u8).collect()),
            },
            true,
        )),
        _ => None,
    }
}

/// A left-hand side of bytes.
pub(super) struct Left<'a> {
    bytes: Cow<'a, [u8]>,
    signed: bool,
    zero: i32,
}

impl<'a> Left<'a> {
    /// That of the inputs of these indices, the second its zero point; `None` when it has no bytes, or not one small zero point.
    pub(super) fn new(inputs: &'a Inputs<'_>, index: usize, zero: usize) -> Result<Option<Self>, Stop> {
        let array = inputs.read(index)?;
        let zero = byte_zero(array, if inputs.has(zero) { Some(inputs.read(zero)?) } else { None });
        Ok(zero.zip(bytes_of(array)).map(|(zero, (bytes, signed))| Self { bytes, signed, zero: zero.into() }))
    }

    /// As the kernels take it.
    pub(super) fn operand(&self) -> (Bytes<'_>, i32) {
        (Bytes { bytes: &self.bytes, signed: self.signed }, self.zero)
    }
}

/// Zero points of the columns of a matrix of bytes: one for all, or one for each.
fn column_zeros(zero: Option<&Array>, n: usize) -> Option<Vec<i32>> {
    let zeros = match zero {
        None => vec![0],
        Some(zero) => zero.to_ints()?.into_iter().map(|zero| i32::try_from(zero).ok()).collect::<Option<_>>()?,
    };
    (zeros.len() == 1 || zeros.len() == n).then_some(zeros)
}

/// A constant right-hand side of bytes with constant zero points, laid out when the model is compiled.
pub(super) fn packed_bytes(node: &Node<'_>, index: usize, zero_at: usize, turned: bool) -> Option<Arc<ByteMatrix>> {
    let array = node.constant(index)?;
    let &[rows, columns] = array.shape() else { return None };
    let zero = node.constant(zero_at);
    // Without elements there may be columns without end.
    if (zero.is_none() && node.has_input(zero_at)) || array.count() == 0 {
        return None;
    }
    let slot = |index: usize| node.slots.get(index).copied().flatten();
    let (k, n, strides) = if turned { (columns, rows, (1, columns)) } else { (rows, columns, (columns, 1)) };
    let zeros = column_zeros(zero, n)?;
    node.packs.pack_bytes((slot(index)?, slot(zero_at), turned), k, n, || {
        let (bytes, signed) = bytes_of(array)?;
        Some(ByteMatrix::new(Bytes { bytes: &bytes, signed }, &zeros, k, n, strides))
    })
}

/// The exact product of centred integers, as int32. `constant` is the right-hand side, if it is laid out already.
pub(super) fn integer_product(
    inputs: &Inputs<'_>,
    (a, a_zero): (usize, usize),
    (b, b_zero): (usize, usize),
    stacks: &Stacks,
    constant: Option<&ByteMatrix>,
    threads: usize,
) -> Result<Vec<i32>, Stop> {
    let &Stacks { m, k, n, .. } = stacks;
    let zero = |index: usize| if inputs.has(index) { inputs.read(index).map(Some) } else { Ok(None) };
    let left = Left::new(inputs, a, a_zero)?;
    if count(&stacks.out) == 0 {
        return Ok(vec![]);
    }
    let mut out = vec![0; count(&stacks.batch) as usize * m * n];
    if let (Some(left), Some(matrix)) = (&left, constant) {
        // One product for the whole stack: its rows are one after another.
        matrix.product(left.operand(), &mut out, threads);
        return Ok(out);
    }
    let pairs = stacks.pairs(inputs.shape(a)?, inputs.shape(b)?);
    let (right, right_zero) = (inputs.read(b)?, zero(b_zero)?);
    let zeros = column_zeros(right_zero, n).filter(|zeros| zeros.len() == 1 || right.shape().len() == 2);
    if let (Some(left), Some((right, signed)), Some(zeros)) = (&left, bytes_of(right), zeros) {
        let (left, zero) = left.operand();
        let mut last: Option<(usize, ByteMatrix)> = None;
        for (i, (p, q)) in pairs.into_iter().enumerate() {
            let matrix = match last.take() {
                Some((number, matrix)) if number == q => matrix,
                _ => {
                    let right = Bytes { bytes: &right[q * k * n..(q + 1) * k * n], signed };
                    ByteMatrix::new(right, &zeros, k, n, (n, 1))
                }
            };
            let left = Bytes { bytes: &left.bytes[p * m * k..(p + 1) * m * k], ..left };
            matrix.product((left, zero), &mut out[i * m * n..(i + 1) * m * n], threads);
            last = Some((q, matrix));
        }
        return Ok(out);
    }
    let (left, right) = (centred(inputs.read(a)?, zero(a_zero)?, 0)?, centred(right, right_zero, 1)?);
    for (i, (p, q)) in pairs.into_iter().enumerate() {
        let (left, right) = (&left[p * m * k..(p + 1) * m * k], &right[q * k * n..(q + 1) * k * n]);
        product_i32(left, right, k, n, &mut out[i * m * n..(i + 1) * m * n]);
    }
    Ok(out)
}

/// Bytes of memory for each element of an operand, at most.
const CENTRED_BYTES: u64 = 20;

/// Cost of an element whose zero point is its own, and of a multiply-add of int32.
const CENTRED_OPS: u64 = 150;
const WIDE_OPS: u64 = 20;

/// Admits what an [`integer_product`] takes besides its operands, and tells what it costs besides its multiply-adds.
pub(super) fn admit(
    cx: &mut Cx<'_>,
    inputs: &Inputs<'_>,
    (a, b): (usize, usize),
    stacks: &Stacks,
    constant: Option<&ByteMatrix>,
) -> Result<u64, Stop> {
    // Operands in quads; or as int32, with integers of eight bytes meanwhile, where zero points are not as simple as they nearly
    // always are.
    let left = inputs.count(a)?.saturating_mul(CENTRED_BYTES);
    let one = |index: usize| Ok::<_, Stop>(!inputs.has(index) || inputs.count(index)? == 1);
    let b_zero = if b == 1 { 3 } else { 5 };
    let columns = || Ok::<_, Stop>(inputs.shape(b)?.len() == 2 && inputs.shape(b_zero)?.len() <= 1);
    let simple = one(2)? && (one(b_zero)? || columns()?);
    if constant.is_some() && simple {
        cx.scratch(left)?;
        return Ok(0);
    }
    let right = ByteMatrix::bytes(stacks.k, stacks.n).saturating_add(inputs.count(b)?.saturating_mul(CENTRED_BYTES));
    cx.scratch(left.saturating_add(right))?;
    let layouts = ByteMatrix::laying_out(stacks.k, stacks.n).saturating_mul(stacks.layouts(inputs.shape(b)?));
    let pairs = count(&stacks.batch).saturating_mul(2 * PAIR_OPS);
    let centred = if simple {
        0
    } else {
        let operands = inputs.count(a)?.saturating_add(inputs.count(b)?).saturating_mul(CENTRED_OPS);
        operands.saturating_add(stacks.ops().saturating_mul(WIDE_OPS))
    };
    Ok(layouts.saturating_add(pairs).saturating_add(centred))
}

/// [`integer_product`] of the matrices at inputs 0 and 3, with zero points at 2 and 5, each turned or not.
pub(super) fn turned_product(
    inputs: &Inputs<'_>,
    (turn_a, turn_b): (bool, bool),
    stacks: &Stacks,
    constant: Option<&ByteMatrix>,
    threads: usize,
) -> Result<Vec<i32>, Stop> {
    let turned = |index: usize, turn: bool| -> Result<Value, Stop> {
        let array = inputs.read(index)?;
        Ok(Value::Known(if turn { array.permute(&[1, 0]).contiguous() } else { array.clone() }))
    };
    let a = turned(0, turn_a)?;
    // What is laid out already is not read, if the left-hand side is as simple as it nearly always is.
    let constant = match Left::new(&Inputs::new(vec![Some(&a), inputs.get(2)]), 0, 1)? {
        Some(_) => constant,
        None => None,
    };
    let b = turned(3, turn_b && constant.is_none())?;
    let operands = Inputs::new(vec![Some(&a), inputs.get(2), Some(&b), inputs.get(5)]);
    integer_product(&operands, (0, 1), (2, 3), stacks, constant, threads)
}

fn matmul_integer(node: &Node<'_>) -> Result<Eval, String> {
    let constant = packed_bytes(node, 1, 3, false);
    single(move |cx, inputs| {
        let stacks = Stacks::new(inputs.shape(0)?, inputs.shape(1)?)?;
        let ops = stacks.ops().saturating_add(admit(cx, inputs, (0, 1), &stacks, constant.as_deref())?);
        let threads = cx.threads;
        cx.emit::<i32>(inputs, DType::Int32, stacks.out.clone(), ops, || {
            integer_product(inputs, (0, 2), (1, 3), &stacks, constant.as_deref(), threads)
        })
    })
}

/// A product whose sums become float32, times a scale (input 4), plus a bias (input 5), and perhaps zero where they are less:
/// what MatMulInteger, Cast, Mul, Add and Relu give, one after another. `chains.rs` says when.
pub(crate) fn scaled(node: &Node<'_>, _: &[Body]) -> Result<Eval, String> {
    let constant = packed_bytes(node, 1, 3, false);
    let rectified = node.rectified;
    single(move |cx, inputs| {
        let stacks = Stacks::new(inputs.shape(0)?, inputs.shape(1)?)?;
        let (&Stacks { n, .. }, threads) = (&stacks, cx.threads);
        let scale = inputs.shape(4)?;
        let bias = if inputs.has(5) { Some(inputs.shape(5)?) } else { None };
        if inputs.dtype(4)? != DType::Float32 || (bias.is_some() && inputs.dtype(5)? != DType::Float32) {
            return Err(Stop::invalid("its scale or its bias is not of float32, as its sums are"));
        }
        let scaled = shapes::broadcast(&[&stacks.out, scale])?;
        let out = shapes::broadcast(&[&scaled, bias.unwrap_or_default()])?;
        let layout = admit(cx, inputs, (0, 1), &stacks, constant.as_deref())?;
        let ops = stacks.ops().saturating_add(layout).saturating_add(count(&out).saturating_mul(4));
        // Of a row there is one number for each column, or one for all.
        let row = |shape: &[usize]| shape == [n] || shape.iter().all(|dim| *dim == 1);
        let plain = out == stacks.out && row(scale) && bias.is_none_or(row);
        let scratch = if plain && constant.is_some() { ByteMatrix::scratch(stacks.rows(), stacks.k, n) } else { 0 };
        // Step by step there are the sums, as integers and as fractions, and what becomes of them.
        let steps = count(&stacks.out).saturating_mul(2).saturating_add(count(&scaled)).saturating_add(count(&out));
        cx.scratch(steps.saturating_add(scratch as u64).saturating_mul(4))?;
        cx.emit_over(inputs, out.clone(), (ops, scratch), |result, beside| {
            if result.is_empty() {
                return Ok(());
            }
            let scale = inputs.read(4)?;
            let addend = if inputs.has(5) { Some(inputs.read(5)?) } else { None };
            if let (Some(left), Some(matrix), true) = (Left::new(inputs, 0, 2)?, &constant, plain) {
                let factors = scale.values::<f32>();
                let bias = match addend.map(|bias| bias.values::<f32>()) {
                    Some(bias) if bias.len() == 1 => Cow::Owned(vec![bias[0]; n]),
                    Some(bias) => bias,
                    None => Cow::Borrowed(&[][..]),
                };
                let finish = Finish { addend: &[], factors: &factors, bias: &bias, rectified };
                matrix.finished(left.operand(), finish, bytemuck::cast_slice_mut(beside), result, threads);
                return Ok(());
            }
            let sums = integer_product(inputs, (0, 2), (1, 3), &stacks, constant.as_deref(), threads)?;
            let sums = Array::new(DType::Float32, stacks.out.clone(), sums.into_iter().map(|x| x as f32).collect());
            let mut values = shapes::zip(&sums, scale, &scaled, |x: f32, y: f32| x * y);
            if let Some(bias) = addend {
                let sums = Array::new(DType::Float32, scaled.clone(), values);
                values = shapes::zip(&sums, bias, &out, |x: f32, y: f32| x + y);
            }
            let floor = |x: f32| if rectified && x < 0.0 { 0.0 } else { x };
            result.iter_mut().zip(values).for_each(|(out, x)| *out = floor(x));
            Ok(())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_give_what_the_plain_loop_gives() {
        let mut random = crate::engine::sample::random(11);
        for round in 0..300 {
            let (batch, m, k, n) = (1 + random(3), 1 + random(9), random(40), 1 + random(40));
            let mut bytes = |shape: Vec<usize>, signed: bool| {
                let count = shape.iter().product();
                let values: Vec<u8> = (0..count).map(|_| random(256) as u8).collect();
                match signed {
                    true => Array::new(DType::Int8, shape, values.into_iter().map(|x| x as i8).collect::<Vec<_>>()),
                    false => Array::new(DType::Uint8, shape, values),
                }
            };
            let (a_signed, b_signed) = (round % 2 == 0, round % 3 == 0);
            let a = bytes(vec![batch, m, k], a_signed);
            let b = bytes(if round % 5 == 0 { vec![batch, k, n] } else { vec![k, n] }, b_signed);
            // None, one for all, or one for each row or column.
            let a_zero = [None, Some(vec![]), Some(vec![m])][round % 3].clone().map(|shape| bytes(shape, a_signed));
            let b_zero = [None, Some(vec![]), Some(vec![n])][round / 3 % 3].clone().map(|shape| bytes(shape, b_signed));
            let stacks = Stacks::new(a.shape(), b.shape()).unwrap();
            let values = [Some(&a), Some(&b), a_zero.as_ref(), b_zero.as_ref()].map(|x| x.cloned().map(Value::Known));
            let inputs = Inputs::new(values.iter().map(Option::as_ref).collect());
            let found = integer_product(&inputs, (0, 2), (1, 3), &stacks, None, 2);
            let (left, right) = (centred(&a, a_zero.as_ref(), 0), centred(&b, b_zero.as_ref(), 1));
            let (Ok(left), Ok(right)) = (left, right) else {
                assert!(found.is_err());
                continue;
            };
            let mut expected = vec![0; batch * m * n];
            for (i, (p, q)) in stacks.pairs(a.shape(), b.shape()).into_iter().enumerate() {
                let (left, right) = (&left[p * m * k..(p + 1) * m * k], &right[q * k * n..(q + 1) * k * n]);
                product_i32(left, right, k, n, &mut expected[i * m * n..(i + 1) * m * n]);
            }
            assert_eq!(found.unwrap(), expected, "round {round}");
            if b.shape().len() == 2 {
                let (bytes, signed) = bytes_of(&b).unwrap();
                let zeros = column_zeros(b_zero.as_ref(), n).unwrap();
                let packed = ByteMatrix::new(Bytes { bytes: &bytes, signed }, &zeros, k, n, (n, 1));
                let found = integer_product(&inputs, (0, 2), (1, 3), &stacks, Some(&packed), 1);
                assert_eq!(found.unwrap(), expected, "laid out before: round {round}");
            }
        }
    }
}
