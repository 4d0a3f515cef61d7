//! Quantised numbers: integers with a scale and a zero point.

use super::{
    Parse, eval,
    linear::{Stacks, integer_product},
    shapes, single,
};
use crate::{
    DType,
    engine::{
        array::{with_floats, with_integers},
        cx::{Cx, Inputs, Stop},
        kernels::reduce,
        numeric::Real,
        program::Eval,
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

/// Which scale belongs to each element: one for all, one for each index of an axis, or one for each block of an axis.
struct Scales {
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
            return Ok(Self { along: 1, block: usize::MAX, size: 1, inner: 1 });
        }
        let axis = shapes::axis(at, shape.len())?;
        let (_, size, inner) = shapes::around(shape, axis);
        if scale.len() == 1 && scale[0] == size && block == 0 {
            return Ok(Self { along: 0, block: 1, size, inner });
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
        Ok(Self { along: size.div_ceil(block), block, size, inner })
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
    single(move |cx, inputs| {
        let (from, shape) = inputs.ty(0)?;
        let to = if inputs.has(2) { inputs.dtype(2)? } else { given.unwrap_or(DType::Uint8) };
        let scales = Scales::new(shape, inputs.shape(1)?, at, block)?;
        let ops = count(shape).saturating_mul(8);
        if !matches!(to, DType::Int8 | DType::Uint8 | DType::Int16 | DType::Uint16) {
            return Err(Stop::unsupported(to));
        }
        if from != DType::Int32 && !from.is_float() {
            return Err(Stop::unsupported(from));
        }
        with_integers!(to, T => cx.emit::<T>(inputs, to, shape.to_vec(), ops, || {
            let x = inputs.read(0)?.to_doubles().unwrap_or_default();
            let scale = inputs.read(1)?.to_doubles().unwrap_or_default();
            let zero = if inputs.has(2) { inputs.read(2)?.to_ints().unwrap_or_default() } else { vec![0; scale.len()] };
            if zero.len() != scale.len() {
                return Err(Stop::invalid("its zero points do not fit its scales"));
            }
            // Divided in float32, whatever the input's type.
            Ok(x.iter().enumerate().map(|(i, x)| {
                let which = scales.of(i);
                saturate(*x as f32 / scale[which] as f32, zero[which], to) as T
            }).collect())
        }), Err(Stop::unsupported(to)))
    })
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
        let to = given.map_or_else(|| inputs.dtype(1), Ok)?;
        let scales = Scales::new(shape, inputs.shape(1)?, at, block)?;
        let ops = count(shape).saturating_mul(4);
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
    let parameters = || -> Result<(f32, u8), Stop> {
        let values = inputs.values::<f32>(0)?;
        // A comparison, because the sign of zero that `f32::max` gives is not defined.
        let high = reduce::max(&values);
        let high = if high > 0.0 { high } else { 0.0 };
        let low = values.iter().fold(0.0f32, |low, x| if *x < low { *x } else { low });
        let scale = (high - low) / 255.0;
        let zero = if scale == 0.0 { 0 } else { saturate(-low / scale, 0, DType::Uint8) as u8 };
        Ok((scale, zero))
    };
    let values = cx.emit::<u8>(inputs, DType::Uint8, shape.to_vec(), ops, || {
        let (scale, zero) = parameters()?;
        let x = inputs.read(0)?;
        let quantize =
            |x: &f32| if scale == 0.0 { zero } else { saturate(*x / scale, zero.into(), DType::Uint8) as u8 };
        Ok(x.values::<f32>().iter().map(quantize).collect())
    })?;
    let scale = cx.emit::<f32>(inputs, DType::Float32, vec![], 0, || Ok(vec![parameters()?.0]))?;
    let zero = cx.emit::<u8>(inputs, DType::Uint8, vec![], 0, || Ok(vec![parameters()?.1]))?;
    Ok(vec![values, scale, zero])
}

/// (sum · a_scale · b_scale / y_scale), the factors multiplied first, in float32.
pub(super) fn matmul(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Value, Stop> {
    let stacks = Stacks::new(inputs.shape(0)?, inputs.shape(3)?)?;
    let to = inputs.dtype(7)?;
    let ops = stacks.ops().saturating_add(count(&stacks.out).saturating_mul(8));
    with_integers!(to, T => cx.emit::<T>(inputs, to, stacks.out.clone(), ops, || {
        let sums = integer_product(inputs, (0, 2), (3, 5), &stacks)?;
        let scale = |index: usize| inputs.read(index).map(|array| array.to_doubles().unwrap_or_default());
        let (a, b, y) = (scale(1)?, scale(4)?, scale(6)?);
        let zero = inputs.read(7)?.to_ints().unwrap_or_default();
        let &Stacks { m, n, .. } = &stacks;
        let row = |list: &[f64], i: usize| pick(list, i / n.max(1), m);
        let column = |list: &[f64], i: usize| pick(list, i % n.max(1), n);
        sums.iter().enumerate().map(|(i, sum)| {
            let factor = row(&a, i)? as f32 * column(&b, i)? as f32 / row(&y, i)? as f32;
            let zero = if zero.len() == 1 { zero[0] } else { zero.get(i / n.max(1) % m.max(1)).copied().unwrap_or(0) };
            Ok(saturate(*sum as f32 * factor, zero, to) as T)
        }).collect()
    }), Err(Stop::unsupported(to)))
}

fn pick(list: &[f64], index: usize, size: usize) -> Result<f64, Stop> {
    match list {
        [one] => Ok(*one),
        list => list.get(index % size.max(1)).copied().ok_or_else(|| Stop::invalid("its scales do not fit")),
    }
}
