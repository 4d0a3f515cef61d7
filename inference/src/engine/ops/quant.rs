//! Quantised numbers: integers with a scale and a zero point.

use std::cell::OnceCell;

use half::{bf16, f16};

use super::{
    Parse, eval,
    integer::{Left, admit, integer_product, packed_bytes},
    is_half,
    linear::Stacks,
    shapes, single,
};
use crate::{
    DType,
    engine::{
        cx::{Cx, Inputs, Stop},
        elements::{Element, with_floats, with_integers},
        kernels::{
            bytes::ByteMatrix,
            quant::{Byte, Finish, finish_columns},
            reduce,
        },
        numeric::Real,
        program::Eval,
        spare,
        value::{Value, count},
    },
    onnx::{Node, constants::read_dtype},
};

pub(super) fn find(name: &str) -> Option<Parse> {
    Some(match name {
        "QuantizeLinear" => |node, _| quantize(node),
        "DequantizeLinear" => |node, _| dequantize(node),
        "DynamicQuantizeLinear" => |_, _| eval(dynamic_quantize),
        _ => return None,
    })
}

/// `x`, rounded half to even, plus the zero point, saturated to the type.
pub(super) fn saturate(x: f32, zero: i64, dtype: DType) -> i64 {
    let (low, high) = match dtype {
        DType::Int8 => (i64::from(i8::MIN), i64::from(i8::MAX)),
        DType::Int16 => (i64::from(i16::MIN), i64::from(i16::MAX)),
        DType::Uint16 => (0, i64::from(u16::MAX)),
        DType::Int32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        _ => (0, i64::from(u8::MAX)),
    };
    // NaN becomes zero; what is far out of range stays so.
    let rounded = x.round_ties_even();
    let integer = (rounded as i64).clamp(-(1 << 40), 1 << 40);
    (integer + zero).clamp(low, high)
}

/// Cost of a stretch of elements that share a scale: one of less than sixteen is gone through one by one.
const STRETCH_OPS: u64 = 3200;

/// Which scale belongs to each element: one for all, one for each index of an axis, or one for each block of an axis.
struct Scales {
    /// The axis, if there are several.
    axis: usize,
    /// Scales along the axis.
    along: usize,
    /// Elements of the axis that share a scale.
    block: usize,
    size: usize,
    inner: usize,
}

impl Scales {
    fn new(shape: &[usize], scale: &[usize], at: i64, block: usize) -> Result<Self, Stop> {
        let one = scale.iter().product::<usize>() == 1;
        if one && block == 0 {
            return Ok(Self { axis: 0, along: 1, block: usize::MAX, size: 1, inner: 1 });
        }
        let axis = shapes::axis(at, shape.len())?;
        let (_, size, inner) = shapes::around(shape, axis);
        if scale.len() == 1 && scale[0] == size && block == 0 {
            return Ok(Self { axis, along: 0, block: 1, size, inner });
        }
        let fits = block > 0
            && scale.len() == shape.len()
            && scale
                .iter()
                .zip(shape)
                .enumerate()
                .all(|(i, (s, d))| if i == axis { *s == d.div_ceil(block) } else { s == d });
        if !fits {
            return Err(Stop::invalid(format!("scales of shape {scale:?} do not fit {shape:?}")));
        }
        Ok(Self { axis, along: size.div_ceil(block), block, size, inner })
    }

    /// Neighbouring elements that share a scale, when the scales follow one another, again and again; `None` for few.
    fn apart(&self) -> Option<usize> {
        match (self.along, self.block) {
            (1, usize::MAX) => Some(usize::MAX),
            (0, _) if self.inner >= 16 => Some(self.inner),
            _ => None,
        }
    }

    /// Cost of the elements, so much each if they are many with one scale. `fast`: of float32 and bytes.
    fn ops(&self, shape: &[usize], fast: bool, ops: u64) -> u64 {
        let (each, stretch) = match (fast, self.along, self.block) {
            (true, 1, usize::MAX) => (ops, 0),
            // Whether its stretches are long or short: this is a polynomial of the sizes.
            (true, 0, _) => (ops, STRETCH_OPS),
            (_, 1, usize::MAX) => (60, 0),
            (_, 0, _) => (200, 0),
            _ => (500, 0),
        };
        let stretches = count(&shape[..self.axis]).saturating_mul(self.size as u64);
        count(shape).saturating_mul(each).saturating_add(stretches.saturating_mul(stretch))
    }

    /// Index of the scale of an element.
    fn of(&self, index: usize) -> usize {
        match (self.along, self.block) {
            (1, usize::MAX) => 0,
            (0, _) => index / self.inner % self.size,
            (along, block) => {
                let (outer, rest) = (index / (self.size * self.inner), index % (self.size * self.inner));
                (outer * along + rest / self.inner / block) * self.inner + rest % self.inner
            }
        }
    }
}

fn quantize(node: &Node<'_>) -> Result<Eval, String> {
    let at = node.int("axis", 1);
    let block = usize::try_from(node.int("block_size", 0)).map_err(|_| "its block_size is negative".to_owned())?;
    let given = match node.int("output_dtype", 0) {
        0 => None,
        number => Some(read_dtype(number as i32)?),
    };
    let precision = match node.int("precision", 0) {
        0 => None,
        number => match i32::try_from(number).ok().and_then(|number| read_dtype(number).ok()) {
            Some(dtype @ (DType::Float32 | DType::Float16 | DType::BFloat16)) => Some(dtype),
            _ => return Err("its precision must be float32, float16 or bfloat16".into()),
        },
    };
    // Before operator set 23 it is not said: in float32, as onnxruntime has it.
    let of_scale = node.opset >= 23;
    single(move |cx, inputs| {
        let (from, shape) = inputs.ty(0)?;
        let precision = match precision {
            Some(precision) => precision,
            None if of_scale => inputs.dtype(1)?,
            None => DType::Float32,
        };
        let to = if inputs.has(2) { inputs.dtype(2)? } else { given.unwrap_or(DType::Uint8) };
        let scales = Scales::new(shape, inputs.shape(1)?, at, block)?;
        let bytes = from == DType::Float32 && !is_half(precision) && matches!(to, DType::Int8 | DType::Uint8);
        let fast = bytes && scales.apart().is_some();
        let ops = scales.ops(shape, bytes, 8);
        if !fast {
            cx.scratch(count(shape).saturating_mul(8))?;
        }
        if !matches!(to, DType::Int8 | DType::Uint8 | DType::Int16 | DType::Uint16) {
            return Err(Stop::unsupported(to));
        }
        if from != DType::Int32 && !from.is_float() {
            return Err(Stop::unsupported(from));
        }
        check_scale(inputs)?;
        if fast {
            return match to {
                DType::Int8 => cx.emit::<i8>(inputs, to, shape.to_vec(), ops, || quantize_bytes(inputs, &scales)),
                _ => cx.emit::<u8>(inputs, to, shape.to_vec(), ops, || quantize_bytes(inputs, &scales)),
            };
        }
        with_integers!(to, T => cx.emit::<T>(inputs, to, shape.to_vec(), ops, || {
            let x = inputs.read(0)?.to_doubles().unwrap_or_default();
            let scale = inputs.read(1)?.to_doubles().unwrap_or_default();
            let zero = if inputs.has(2) { inputs.read(2)?.to_ints().unwrap_or_default() } else { vec![0; scale.len()] };
            if zero.len() != scale.len() {
                return Err(Stop::invalid("its zero points do not fit its scales"));
            }
            // The quotient of halves, rounded to float32 and then to theirs, is the one rounded once: they have 11 bits at most.
            let half = |x: f32| match precision {
                DType::Float16 => f16::narrow(x).widen(),
                DType::BFloat16 => bf16::narrow(x).widen(),
                _ => x,
            };
            Ok(x.iter().enumerate().map(|(i, x)| {
                let which = scales.of(i);
                saturate(half(half(*x as f32) / half(scale[which] as f32)), zero[which], to) as T
            }).collect())
        }), Err(Stop::unsupported(to)))
    })
}

/// A scale that is no fraction, a text say, has no numbers.
fn check_scale(inputs: &Inputs<'_>) -> Result<(), Stop> {
    let dtype = inputs.dtype(1)?;
    if dtype.is_float() { Ok(()) } else { Err(Stop::unsupported(dtype)) }
}

/// Scales as float32 with their zero points.
fn parameters(inputs: &Inputs<'_>) -> Result<(Vec<f32>, Vec<i32>), Stop> {
    let scale: Vec<f32> =
        inputs.read(1)?.to_doubles().unwrap_or_default().into_iter().map(|scale| scale as f32).collect();
    let zero = if inputs.has(2) { inputs.read(2)?.to_ints().unwrap_or_default() } else { vec![0; scale.len()] };
    if zero.len() != scale.len() {
        return Err(Stop::invalid("its zero points do not fit its scales"));
    }
    Ok((scale, zero.into_iter().map(|zero| zero as i32).collect()))
}

/// [`quantize`] of float32 to bytes.
fn quantize_bytes<T: Byte>(inputs: &Inputs<'_>, scales: &Scales) -> Result<Vec<T>, Stop> {
    let x = inputs.values::<f32>(0)?;
    let (scale, zero) = parameters(inputs)?;
    let mut out = vec![T::default(); x.len()];
    let row = scales.apart().unwrap_or(1).min(x.len()).max(1);
    for (i, (x, out)) in x.chunks(row).zip(out.chunks_mut(row)).enumerate() {
        T::quantize(x, scale[i % scale.len()], zero[i % zero.len()], out);
    }
    Ok(out)
}

/// [`dequantize`] of bytes to float32.
fn dequantize_bytes<T: Byte + Element>(inputs: &Inputs<'_>, scales: &Scales) -> Result<Vec<f32>, Stop> {
    let x = inputs.values::<T>(0)?;
    let (scale, zero) = parameters(inputs)?;
    let mut out = vec![0.0; x.len()];
    let row = scales.apart().unwrap_or(1).min(x.len()).max(1);
    for (i, (x, out)) in x.chunks(row).zip(out.chunks_mut(row)).enumerate() {
        T::dequantize(x, scale[i % scale.len()], zero[i % zero.len()], out);
    }
    Ok(out)
}

fn dequantize(node: &Node<'_>) -> Result<Eval, String> {
    let at = node.int("axis", 1);
    let block = usize::try_from(node.int("block_size", 0)).map_err(|_| "its block_size is negative".to_owned())?;
    let given = match node.int("output_dtype", 0) {
        0 => None,
        number => Some(read_dtype(number as i32)?),
    };
    single(move |cx, inputs| {
        let (_, shape) = inputs.ty(0)?;
        check_scale(inputs)?;
        let to = given.map_or_else(|| inputs.dtype(1), Ok)?;
        let scales = Scales::new(shape, inputs.shape(1)?, at, block)?;
        // Zero points are of the input's type, so that the difference fits.
        let from = inputs.dtype(0)?;
        let alike = !inputs.has(2) || inputs.dtype(2)? == from;
        let bytes = matches!(from, DType::Int8 | DType::Uint8);
        let bytes = bytes && to == DType::Float32 && alike;
        let fast = bytes && scales.apart().is_some();
        let ops = scales.ops(shape, bytes, 4);
        if !fast {
            cx.scratch(count(shape).saturating_mul(8))?;
        }
        if fast {
            match from {
                DType::Int8 => {
                    return cx.emit(inputs, to, shape.to_vec(), ops, || dequantize_bytes::<i8>(inputs, &scales));
                }
                DType::Uint8 => {
                    return cx.emit(inputs, to, shape.to_vec(), ops, || dequantize_bytes::<u8>(inputs, &scales));
                }
                _ => {}
            }
        }
        with_floats!(to, T => cx.emit::<T>(inputs, to, shape.to_vec(), ops, || {
            let array = inputs.read(0)?;
            let x = array.to_ints().ok_or_else(|| Stop::unsupported(array.dtype()))?;
            let scale = inputs.read(1)?.to_doubles().unwrap_or_default();
            let zero = if inputs.has(2) { inputs.read(2)?.to_ints().unwrap_or_default() } else { vec![0; scale.len()] };
            if zero.len() != scale.len() {
                return Err(Stop::invalid("its zero points do not fit its scales"));
            }
            Ok(x.iter().enumerate().map(|(i, x)| {
                let which = scales.of(i);
                // The difference is exact; the product is rounded to float32, then to the type.
                T::narrow(((x - zero[which]) as f32 * scale[which] as f32).into())
            }).collect())
        }), Err(Stop::unsupported(to)))
    })
}

/// To uint8 with the scale (max(x, 0) − min(x, 0)) / 255.
fn dynamic_quantize(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Vec<Value>, Stop> {
    let (dtype, shape) = inputs.ty(0)?;
    if dtype != DType::Float32 {
        return Err(Stop::unsupported(dtype));
    }
    let ops = count(shape).saturating_mul(10);
    let found = OnceCell::new();
    let parameters = || -> Result<(f32, u8), Stop> {
        if let Some(found) = found.get() {
            return Ok(*found);
        }
        let (low, high) = reduce::range_with_zero(&inputs.values::<f32>(0)?);
        let scale = (high - low) / 255.0;
        let zero = if scale == 0.0 { 0 } else { saturate(-low / scale, 0, DType::Uint8) as u8 };
        Ok(*found.get_or_init(|| (scale, zero)))
    };
    let values = cx.emit::<u8>(inputs, DType::Uint8, shape.to_vec(), ops, || {
        let (scale, zero) = parameters()?;
        let x = inputs.values::<f32>(0)?;
        let mut out = vec![zero; x.len()];
        if scale != 0.0 {
            u8::quantize(&x, scale, zero.into(), &mut out);
        }
        Ok(out)
    })?;
    let scale = cx.emit::<f32>(inputs, DType::Float32, vec![], 0, || Ok(vec![parameters()?.0]))?;
    let zero = cx.emit::<u8>(inputs, DType::Uint8, vec![], 0, || Ok(vec![parameters()?.1]))?;
    Ok(vec![values, scale, zero])
}

/// (sum · a_scale · b_scale / y_scale), the factors multiplied first, in float32.
pub(super) fn matmul(node: &Node<'_>) -> Result<Eval, String> {
    let constant = packed_bytes(node, 3, 5, false);
    single(move |cx, inputs| {
        let stacks = Stacks::new(inputs.shape(0)?, inputs.shape(3)?)?;
        let to = inputs.dtype(7)?;
        check_parameters(inputs, &[1, 6, 7], stacks.m, false)?;
        check_parameters(inputs, &[4], stacks.n, true)?;
        let elements = count(&stacks.out);
        let layout = admit(cx, inputs, (0, 3), &stacks, constant.as_deref())?;
        let ops = stacks.ops().saturating_add(layout).saturating_add(elements.saturating_mul(8));
        // And the sums and the product by themselves, if it is not as simple as it nearly always is.
        let scratch = ByteMatrix::scratch(stacks.rows(), stacks.k, stacks.n) as u64;
        cx.scratch(scratch.saturating_add(elements.saturating_mul(2)).saturating_mul(4))?;
        let (out, threads) = (stacks.out.clone(), cx.threads);
        let run = QuantisedProduct { inputs, stacks: &stacks, constant: constant.as_deref(), to, threads };
        match to {
            DType::Uint8 => cx.emit::<u8>(inputs, to, out, ops, || run.bytes()),
            DType::Int8 => cx.emit::<i8>(inputs, to, out, ops, || run.bytes()),
            _ => with_integers!(to, T => cx.emit::<T>(inputs, to, out, ops, || run.integers(|x| x as T)),
                Err(Stop::unsupported(to))),
        }
    })
}

/// Refuses scales and zero points other than one for all, or one for each row (or column) of every matrix of a stack.
fn check_parameters(inputs: &Inputs<'_>, which: &[usize], size: usize, columns: bool) -> Result<(), Stop> {
    for index in which {
        let shape = inputs.shape(*index)?;
        let fits = match shape {
            shape if count(shape) == 1 => true,
            [one] => *one == size,
            [outer @ .., rows, 1] if !columns => *rows == size && count(outer) == 1,
            [outer @ .., 1, width] if columns => *width == size && count(outer) == 1,
            _ => false,
        };
        if !fits {
            return Err(Stop::invalid(format!("its input {index} is not one number, or one for each of {size}")));
        }
    }
    Ok(())
}

/// A scale or zero point that all elements share.
pub(super) fn one(inputs: &Inputs<'_>, index: usize) -> Result<f32, Stop> {
    check_single(inputs, &[index])?;
    match scale_list(inputs, index)?.as_slice() {
        [x] => Ok(*x as f32),
        _ => Err(Stop::invalid(format!("its input {index} must be one number"))),
    }
}

/// Refuses inputs, if they are there, that are not one number.
pub(super) fn check_single(inputs: &Inputs<'_>, which: &[usize]) -> Result<(), Stop> {
    for index in which.iter().filter(|index| inputs.has(**index)) {
        if inputs.count(*index)? != 1 {
            return Err(Stop::invalid(format!("its input {index} must be one number")));
        }
    }
    Ok(())
}

/// alpha · a_scale · b_scale for each column: the scales are inputs 1 and 4, the latter one for all or one for each.
pub(super) fn column_factors(inputs: &Inputs<'_>, alpha: f32, n: usize) -> Result<Vec<f32>, Stop> {
    let first = alpha * one(inputs, 1)?;
    if !matches!(inputs.count(4)?, count if count == 1 || count == n as u64) {
        return Err(Stop::invalid("its scales do not fit"));
    }
    match scale_list(inputs, 4)?.as_slice() {
        [scale] => Ok(vec![first * *scale as f32; n]),
        list if list.len() == n => Ok(list.iter().map(|scale| first * *scale as f32).collect()),
        _ => Err(Stop::invalid("its scales do not fit")),
    }
}

fn scale_list(inputs: &Inputs<'_>, index: usize) -> Result<Vec<f64>, Stop> {
    Ok(inputs.read(index)?.to_doubles().unwrap_or_default())
}

/// QLinearMatMul.
struct QuantisedProduct<'a> {
    inputs: &'a Inputs<'a>,
    stacks: &'a Stacks,
    /// The right-hand side, if it is laid out already.
    constant: Option<&'a ByteMatrix>,
    to: DType,
    threads: usize,
}

impl QuantisedProduct<'_> {
    /// To bytes; at once, when there is one scale and zero point for all rows.
    fn bytes<T: Byte + TryFrom<i64>>(&self) -> Result<Vec<T>, Stop> {
        let (inputs, n) = (self.inputs, self.stacks.n);
        let (a, b, y) = (scale_list(inputs, 1)?, scale_list(inputs, 4)?, scale_list(inputs, 6)?);
        let zero = inputs.read(7)?.to_ints().unwrap_or_default();
        if let (&[a], &[y], &[zero]) = (a.as_slice(), y.as_slice(), zero.as_slice())
            && (b.len() == 1 || b.len() == n)
        {
            let factors: Vec<f32> = b.iter().map(|b| a as f32 * *b as f32 / y as f32).collect();
            let finish = Finish { factors: &factors, ..Finish::default() };
            let to = (1.0, zero as i32);
            let mut out = vec![T::default(); self.stacks.out.iter().product()];
            if let (Some(matrix), Some(left)) = (self.constant, Left::new(inputs, 0, 2)?) {
                spare::lend(ByteMatrix::scratch(self.stacks.rows(), self.stacks.k, n), |scratch| {
                    let scratch = bytemuck::cast_slice_mut(scratch);
                    matrix.quantized(left.operand(), finish, to, scratch, &mut out, self.threads);
                });
                return Ok(out);
            }
            let sums = integer_product(inputs, (0, 2), (3, 5), self.stacks, self.constant, self.threads)?;
            let mut numbers = vec![0.0; sums.len()];
            finish_columns(&sums, n, finish, &mut numbers);
            T::quantize(&numbers, to.0, to.1, &mut out);
            return Ok(out);
        }
        // It is saturated to the type.
        self.integers(|x| T::try_from(x).unwrap_or_default())
    }

    fn integers<T>(&self, narrow: impl Fn(i64) -> T) -> Result<Vec<T>, Stop> {
        let Self { inputs, stacks, to, .. } = *self;
        let sums = integer_product(inputs, (0, 2), (3, 5), stacks, self.constant, self.threads)?;
        let (a, b, y) = (scale_list(inputs, 1)?, scale_list(inputs, 4)?, scale_list(inputs, 6)?);
        let zero = inputs.read(7)?.to_ints().unwrap_or_default();
        let &Stacks { m, n, .. } = stacks;
        let row = |list: &[f64], i: usize| pick(list, i / n.max(1), m);
        let column = |list: &[f64], i: usize| pick(list, i % n.max(1), n);
        let one = |(i, sum): (usize, &i32)| {
            let factor = row(&a, i)? as f32 * column(&b, i)? as f32 / row(&y, i)? as f32;
            let zero = if zero.len() == 1 { zero[0] } else { zero.get(i / n.max(1) % m.max(1)).copied().unwrap_or(0) };
            Ok(narrow(saturate(*sum as f32 * factor, zero, to)))
        };
        sums.iter().enumerate().map(one).collect()
    }
}

fn pick(list: &[f64], index: usize, size: usize) -> Result<f64, Stop> {
    match list {
        [one] => Ok(*one),
        list => list.get(index % size.max(1)).copied().ok_or_else(|| Stop::invalid("its scales do not fit")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::array::Array;

    #[test]
    fn bytes_give_what_each_element_by_itself_gives() {
        let mut random = crate::engine::sample::random(9);
        for round in 0..100 {
            let shape = vec![1 + random(3), 1 + random(4), 1 + random(50)];
            let number = |random: &mut dyn FnMut(usize) -> usize| match random(30) {
                0 => f32::NAN,
                1 => f32::NEG_INFINITY,
                _ => random(4000) as f32 / 9.0 - 222.0,
            };
            let x: Vec<f32> = (0..shape.iter().product()).map(|_| number(&mut random)).collect();
            let sizes = if round % 2 == 0 { vec![] } else { vec![shape[1]] };
            let count = sizes.iter().product::<usize>();
            let scale: Vec<f32> = (0..count).map(|_| random(100) as f32 / 50.0 + 0.01).collect();
            let zero: Vec<u8> = (0..count).map(|_| random(256) as u8).collect();
            let values = [
                Array::new(DType::Float32, shape.clone(), x.clone()),
                Array::new(DType::Float32, sizes.clone(), scale.clone()),
                Array::new(DType::Uint8, sizes.clone(), zero.clone()),
            ]
            .map(Value::Known);
            let inputs = Inputs::new(values.iter().map(Some).collect());
            let scales = Scales::new(&shape, &sizes, 1, 0).unwrap();
            if scales.apart().is_none() {
                continue;
            }
            let bytes = quantize_bytes::<u8>(&inputs, &scales).unwrap();
            for (i, x) in x.iter().enumerate() {
                let which = scales.of(i);
                assert_eq!(i64::from(bytes[i]), saturate(x / scale[which], zero[which].into(), DType::Uint8));
            }
            let quantised = Value::Known(Array::new(DType::Uint8, shape.clone(), bytes.clone()));
            let inputs = Inputs::new(vec![Some(&quantised), Some(&values[1]), Some(&values[2])]);
            let floats = dequantize_bytes::<u8>(&inputs, &scales).unwrap();
            for (i, x) in bytes.iter().enumerate() {
                let which = scales.of(i);
                let expected = (i64::from(*x) - i64::from(zero[which])) as f32 * scale[which];
                assert_eq!(floats[i].to_bits(), expected.to_bits());
            }
        }
    }
}
