//! Exact products of integers of eight bits, minus their zero points.

use std::sync::Arc;

use super::{Parse, linear::Stacks, quant, single};
use crate::{
    DType,
    engine::{
        array::Array,
        cx::{Inputs, Stop},
        kernels::{
            matmul::{Packed, matmul},
            product::product_i32,
            term::Pair,
        },
        program::Eval,
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

/// The elements of an int8 or uint8 matrix minus its zero point, as int32. The zero point is one number, or one for each
/// row (`along` 0) or column (`along` 1).
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
    let values = array.to_ints().ok_or_else(|| Stop::unsupported(array.dtype()))?;
    let shape = array.shape();
    let columns = shape.last().copied().unwrap_or(1).max(1);
    let rows = shape.len().checked_sub(2).map_or(1, |axis| shape[axis]).max(1);
    let pick = |i: usize| match (zeros.len(), along) {
        (1, _) => Some(zeros[0]),
        (len, 0) if len == rows => zeros.get(i / columns % rows).copied(),
        (len, 1) if len == columns => zeros.get(i % columns).copied(),
        (len, _) if len == values.len() / columns => zeros.get(i / columns).copied(),
        // One for each column of each matrix of a stack.
        (len, _) if len == values.len() / rows => zeros.get(i / (columns * rows) * columns + i % columns).copied(),
        _ => None,
    };
    (0..values.len())
        .map(|i| {
            pick(i).map(|zero| (values[i] - zero) as i32).ok_or_else(|| Stop::invalid("its zero point does not fit"))
        })
        .collect()
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

/// [`centred`] rows of `k` elements as pairs; an odd `k` is filled up with a zero. `None` when a number has more than 16
/// bits.
fn pairs_of_rows(array: &Array, zero: Option<&Array>, k: usize) -> Result<Option<Vec<Pair>>, Stop> {
    fn pairs<T: Copy>(values: &[T], k: usize, centre: impl Fn(T) -> i16) -> Vec<Pair> {
        let mut out = Vec::with_capacity(values.len() / k.max(1) * k.div_ceil(2));
        for row in values.chunks_exact(k.max(1)) {
            let (two, rest) = row.as_chunks::<2>();
            out.extend(two.iter().map(|pair| Pair::new(centre(pair[0]), centre(pair[1]))));
            out.extend(rest.iter().map(|last| Pair::new(centre(*last), 0)));
        }
        out
    }
    if let Some(zero) = byte_zero(array, zero) {
        return Ok(Some(match array.dtype() {
            DType::Int8 => pairs(&array.values::<i8>(), k, |x| i16::from(x) - zero),
            _ => pairs(&array.values::<u8>(), k, |x| i16::from(x) - zero),
        }));
    }
    let centred = centred(array, zero, 0)?;
    let narrow = centred.iter().all(|x| i16::try_from(*x).is_ok());
    Ok(narrow.then(|| pairs(&centred, k, |x| x as i16)))
}

/// A centred matrix `[k, n]` of numbers of 16 bits as pairs of rows.
fn packed_pairs(matrix: &[i32], k: usize, n: usize) -> Packed<Pair> {
    let at = |row: usize, column: usize| if row < k { matrix[row * n + column] as i16 } else { 0 };
    Packed::of(k.div_ceil(2), n, |row, column| Pair::new(at(2 * row, column), at(2 * row + 1, column)))
}

/// A constant right-hand side of integers with a constant zero point, laid out when the model is compiled.
pub(super) fn packed_integers(node: &Node<'_>, index: usize, zero_at: usize) -> Option<Arc<Packed<Pair>>> {
    let array = node.constant(index)?;
    let &[k, n] = array.shape() else { return None };
    let zero = node.constant(zero_at);
    if zero.is_none() && node.has_input(zero_at) {
        return None;
    }
    let slot = |index: usize| node.slots.get(index).copied().flatten();
    node.packs.pack_integers((slot(index)?, slot(zero_at)), k.div_ceil(2), n, || {
        let centred = centred(array, zero, 1).ok()?;
        let narrow = centred.iter().all(|x| i16::try_from(*x).is_ok());
        narrow.then(|| packed_pairs(&centred, k, n))
    })
}

/// The exact product of centred integers, as int32. `constant` is the right-hand side, if it is laid out already.
pub(super) fn integer_product(
    inputs: &Inputs<'_>,
    (a, a_zero): (usize, usize),
    (b, b_zero): (usize, usize),
    stacks: &Stacks,
    constant: Option<&Packed<Pair>>,
    threads: usize,
) -> Result<Vec<i32>, Stop> {
    let &Stacks { m, k, n, .. } = stacks;
    let zero = |index: usize| if inputs.has(index) { inputs.read(index).map(Some) } else { Ok(None) };
    let left = pairs_of_rows(inputs.read(a)?, zero(a_zero)?, k)?;
    let pairs = stacks.pairs(inputs.shape(a)?, inputs.shape(b)?);
    let mut out = vec![0; pairs.len() * m * n];
    if let (Some(left), Some(rhs)) = (&left, constant) {
        // One product for the whole stack: its rows are one after another.
        matmul(left, rhs, &mut out, threads);
        return Ok(out);
    }
    let right = centred(inputs.read(b)?, zero(b_zero)?, 1)?;
    if let (Some(left), true) = (&left, right.iter().all(|x| i16::try_from(*x).is_ok())) {
        let depth = k.div_ceil(2);
        for (i, (p, q)) in pairs.into_iter().enumerate() {
            let rhs = packed_pairs(&right[q * k * n..(q + 1) * k * n], k, n);
            matmul(&left[p * m * depth..(p + 1) * m * depth], &rhs, &mut out[i * m * n..(i + 1) * m * n], threads);
        }
        return Ok(out);
    }
    let left = centred(inputs.read(a)?, zero(a_zero)?, 0)?;
    for (i, (p, q)) in pairs.into_iter().enumerate() {
        let (left, right) = (&left[p * m * k..(p + 1) * m * k], &right[q * k * n..(q + 1) * k * n]);
        product_i32(left, right, k, n, &mut out[i * m * n..(i + 1) * m * n]);
    }
    Ok(out)
}

fn matmul_integer(node: &Node<'_>) -> Result<Eval, String> {
    let constant = packed_integers(node, 1, 3);
    single(move |cx, inputs| {
        let stacks = Stacks::new(inputs.shape(0)?, inputs.shape(1)?)?;
        let (ops, threads) = (stacks.ops(), cx.threads);
        cx.emit::<i32>(inputs, DType::Int32, stacks.out.clone(), ops, || {
            integer_product(inputs, (0, 2), (1, 3), &stacks, constant.as_deref(), threads)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::value::Value;

    #[test]
    fn pairs_give_what_the_plain_loop_gives() {
        let mut state = 11u32;
        let mut random = |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % below
        };
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
                let packed = packed_pairs(&right, k, n);
                let found = integer_product(&inputs, (0, 2), (1, 3), &stacks, Some(&packed), 1);
                assert_eq!(found.unwrap(), expected, "laid out before: round {round}");
            }
        }
    }
}
