//! Functions of two elements and more, broadcast.

use core::cmp::Ordering;

use super::{Parse, is_half, shapes, single};
use crate::{
    DType,
    engine::{
        array::Array,
        cx::{Cx, Inputs, Stop},
        elements::{with_elements, with_integers, with_numbers},
        numeric::{Number, Real, Wide, cast},
        program::Eval,
        value::{Value, count},
    },
    onnx::Node,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arithmetic {
    Add,
    Sub,
    Mul,
    Div,
    Modulo,
    Remainder,
    Prelu,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fold {
    Sum,
    Mean,
    Max,
    Min,
}

pub(super) fn find(name: &str) -> Option<Parse> {
    Some(match name {
        "Add" => |node, _| arithmetic(node, Arithmetic::Add),
        "Sub" => |node, _| arithmetic(node, Arithmetic::Sub),
        "Mul" => |node, _| arithmetic(node, Arithmetic::Mul),
        "Div" => |node, _| arithmetic(node, Arithmetic::Div),
        "PRelu" => |node, _| arithmetic(node, Arithmetic::Prelu),
        "Mod" => |node, _| {
            arithmetic(node, if node.flag("fmod", false) { Arithmetic::Remainder } else { Arithmetic::Modulo })
        },
        "Pow" => |node, _| aligned(node, single(pow)),
        "Sum" => |_, _| fold(Fold::Sum),
        "Mean" => |_, _| fold(Fold::Mean),
        "Max" => |_, _| fold(Fold::Max),
        "Min" => |_, _| fold(Fold::Min),
        "Equal" => |node, _| aligned(node, compare(|order| order == Some(Ordering::Equal))),
        "Greater" => |node, _| aligned(node, compare(|order| order == Some(Ordering::Greater))),
        "Less" => |node, _| aligned(node, compare(|order| order == Some(Ordering::Less))),
        "GreaterOrEqual" => |_, _| compare(|order| matches!(order, Some(Ordering::Greater | Ordering::Equal))),
        "LessOrEqual" => |_, _| compare(|order| matches!(order, Some(Ordering::Less | Ordering::Equal))),
        "And" => |node, _| aligned(node, logic(|a, b| a & b)),
        "Or" => |node, _| aligned(node, logic(|a, b| a | b)),
        "Xor" => |node, _| aligned(node, logic(|a, b| a ^ b)),
        "BitwiseAnd" | "BitwiseOr" | "BitwiseXor" | "BitShift" => |node, _| bits(node),
        "Where" => |_, _| single(select),
        _ => return None,
    })
}

/// The common type and the broadcast shape of two inputs.
fn pair(inputs: &Inputs<'_>) -> Result<(DType, Vec<usize>), Stop> {
    let ((left, a), (right, b)) = (inputs.ty(0)?, inputs.ty(1)?);
    if left != right {
        return Err(Stop::invalid(format!("its inputs have the types {} and {}", left.name(), right.name())));
    }
    Ok((left, if a == b { a.to_vec() } else { shapes::broadcast(&[a, b])? }))
}

fn arithmetic(node: &Node<'_>, op: Arithmetic) -> Result<Eval, String> {
    // Operator set 6 aligned the second input to an axis; of its slopes there is one for each channel.
    let old_axis = match op {
        Arithmetic::Prelu if node.opset < 7 => Some(1),
        _ => node.attribute("axis").filter(|_| node.opset < 7).map(|_| node.int("axis", 0)),
    };
    single(move |cx, inputs| {
        let aligned;
        let moved;
        let inputs = match old_axis {
            Some(axis) => {
                aligned = align(inputs, axis)?;
                moved = Inputs::new(vec![inputs.get(0), Some(&aligned)]);
                &moved
            }
            None => inputs,
        };
        let (dtype, shape) = pair(inputs)?;
        let out = shape.clone();
        let weight = match op {
            Arithmetic::Add | Arithmetic::Sub | Arithmetic::Mul => 1,
            Arithmetic::Prelu => 2,
            Arithmetic::Div => 4,
            Arithmetic::Modulo | Arithmetic::Remainder => 100,
        };
        let rows = if dtype == DType::Float32 { 0 } else { rows_ops(&shape) };
        let ops = count(&shape).saturating_mul(weight).saturating_add(rows);
        let threads = cx.threads_for(&shape, ops);
        with_numbers!(dtype, T => cx.emit::<T>(inputs, dtype, shape, ops, || {
            let (a, b) = (inputs.owned(0)?, inputs.owned(1)?);
            Ok(match op {
                Arithmetic::Add => shapes::zip_over(a, b, &out, threads, T::plus),
                Arithmetic::Sub => shapes::zip_over(a, b, &out, threads, T::minus),
                Arithmetic::Mul => shapes::zip_over(a, b, &out, threads, T::times),
                Arithmetic::Div => shapes::zip_over(a, b, &out, threads, T::over),
                Arithmetic::Modulo => shapes::zip(&a, &b, &out, T::modulo),
                Arithmetic::Remainder => shapes::zip(&a, &b, &out, T::remainder),
                Arithmetic::Prelu => shapes::zip(&a, &b, &out, |x: T, slope| if x < T::ZERO { x.times(slope) } else { x }),
            })
        }), Err(Stop::unsupported(dtype)))
    })
}

/// Of operator set 6, where the second operand might be aligned to an axis, what does so is refused.
fn aligned(node: &Node<'_>, eval: Result<Eval, String>) -> Result<Eval, String> {
    match node.opset < 7 && node.attribute("axis").is_some() {
        true => Err("the axis of operator set 6 is not supported here: export with a newer one".into()),
        false => eval,
    }
}

/// The second input with dimensions of one behind it, so that it begins at an axis of the first.
fn align(inputs: &Inputs<'_>, at: i64) -> Result<Value, Stop> {
    let (a, b) = (inputs.shape(0)?, inputs.shape(1)?);
    if inputs.count(1)? == 1 {
        return Ok(inputs.value(1)?.clone());
    }
    let axis = shapes::axis(at, a.len())?;
    let mut shape = b.to_vec();
    shape.resize(a.len().saturating_sub(axis).max(b.len()), 1);
    super::structure::view(inputs, 1, shape)
}

/// The result has the type of the base; the exponent may have another one.
fn pow(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Value, Stop> {
    let ((dtype, a), (exponent, b)) = (inputs.ty(0)?, inputs.ty(1)?);
    let shape = shapes::broadcast(&[a, b])?;
    let out = shape.clone();
    // Squares are cheap; others are not, and which it is may be known to a run alone.
    let square = inputs.get(1).is_some_and(|value| match value {
        Value::Known(array) => array.count() == 1 && array.to_doubles().is_some_and(|x| x == [2.0]),
        _ => false,
    });
    let ops = count(&shape).saturating_mul(if square { 2 } else { 300 }).saturating_add(rows_ops(&shape));
    match dtype {
        DType::Float32 | DType::Float64 | DType::Float16 | DType::BFloat16 => {
            crate::engine::elements::with_floats!(dtype, T => cx.emit::<T>(inputs, dtype, shape, ops, || {
                let base = inputs.read(0)?;
                let exponents = inputs.read(1)?.to_doubles().ok_or_else(|| Stop::unsupported(exponent))?;
                let exponents = Array::new(DType::Float64, inputs.read(1)?.shape().to_vec(), exponents);
                Ok(shapes::zip(base, &exponents, &out, |x: T, y: f64| {
                    T::narrow(x.widen().pow(<<T as Real>::Wide as Wide>::from_f64(y)))
                }))
            }), Err(Stop::unsupported(dtype)))
        }
        dtype => with_integers!(dtype, T => cx.emit::<T>(inputs, dtype, shape, ops, || {
            let base = inputs.read(0)?;
            let powers = inputs.read(1)?;
            if exponent.is_float() {
                let exponents = powers.to_doubles().unwrap_or_default();
                let exponents = Array::new(DType::Float64, powers.shape().to_vec(), exponents);
                return Ok(shapes::zip(base, &exponents, &out, |x: T, y: f64| {
                    crate::engine::numeric::convert::<T>(Wide::pow(x as f64, y))
                }));
            }
            let exponents = powers.to_ints().ok_or_else(|| Stop::unsupported(exponent))?;
            let exponents = Array::new(DType::Int64, powers.shape().to_vec(), exponents);
            Ok(shapes::zip(base, &exponents, &out, |x: T, y: i64| integer_power(x, y)))
        }), Err(Stop::unsupported(dtype))),
    }
}

/// x^y, wrapping; for a negative y the quotient 1 / x^−y, cut towards zero (by zero: zero).
fn integer_power<T: Number>(x: T, y: i64) -> T {
    let mut power = y.unsigned_abs();
    let (mut result, mut base) = (T::ONE, x);
    while power > 0 {
        if power & 1 == 1 {
            result = result.times(base);
        }
        base = base.times(base);
        power >>= 1;
    }
    if y < 0 { T::ONE.over(result) } else { result }
}

/// Cost of an operand, however small.
const OPERAND_OPS: u64 = 2000;

/// From the first input to the last.
fn fold(op: Fold) -> Result<Eval, String> {
    single(move |cx, inputs| {
        let (dtype, _) = inputs.ty(0)?;
        let list = (0..inputs.len()).map(|i| inputs.shape(i)).collect::<Result<Vec<_>, _>>()?;
        if (0..inputs.len()).any(|i| inputs.dtype(i).ok() != Some(dtype)) {
            return Err(Stop::invalid("its inputs have different types"));
        }
        let shape = shapes::broadcast(&list)?;
        let out = shape.clone();
        let half = is_half(dtype) && matches!(op, Fold::Sum | Fold::Mean);
        let each = count(&shape).saturating_mul(if half { 40 } else { 4 }).saturating_add(OPERAND_OPS);
        let ops = each.saturating_mul(inputs.len() as u64);
        if half {
            cx.scratch(count(&shape).saturating_mul(16))?;
            return cx.emit_with(inputs, dtype, shape, ops, |_| {
                let operand = |index: usize| Ok::<_, Stop>(cast(inputs.read(index)?, DType::Float32));
                let mut sum = operand(0)?.broadcast(&out);
                for index in 1..inputs.len() {
                    let values = shapes::zip(&sum, &operand(index)?, &out, |x: f32, y: f32| x + y);
                    sum = Array::new(DType::Float32, out.clone(), values);
                }
                let n = if op == Fold::Mean { inputs.len() as f32 } else { 1.0 };
                let values = sum.values::<f32>().iter().map(|x| x / n).collect();
                Ok(cast(&Array::new(DType::Float32, out.clone(), values), dtype))
            });
        }
        with_numbers!(dtype, T => cx.emit::<T>(inputs, dtype, shape, ops, || {
            let mut sum = inputs.read(0)?.broadcast(&out);
            for index in 1..inputs.len() {
                let next = inputs.read(index)?;
                let values = match op {
                    Fold::Sum | Fold::Mean => shapes::zip(&sum, next, &out, T::plus),
                    Fold::Max => shapes::zip(&sum, next, &out, T::greater),
                    Fold::Min => shapes::zip(&sum, next, &out, T::lesser),
                };
                sum = Array::new(dtype, out.clone(), values);
            }
            let values = sum.into_vec::<T>();
            if op != Fold::Mean {
                return Ok(values);
            }
            let n = crate::engine::numeric::convert::<T>(inputs.len() as u32);
            Ok(values.into_iter().map(|x| x.over(n)).collect())
        }), Err(Stop::unsupported(dtype)))
    })
}

/// Cost of a row of an output, however short: operands that are not alike are gone through row by row.
const ROW_OPS: u64 = 300;

fn rows_ops(shape: &[usize]) -> u64 {
    count(&shape[..shape.len().saturating_sub(1)]).saturating_mul(ROW_OPS)
}

fn compare(test: fn(Option<Ordering>) -> bool) -> Result<Eval, String> {
    single(move |cx, inputs| {
        let (dtype, shape) = pair(inputs)?;
        let out = shape.clone();
        let ops = count(&shape).saturating_mul(20).saturating_add(rows_ops(&shape));
        if dtype == DType::String {
            cx.scratch(count(&shape).saturating_mul(16))?;
            let longest =
                |index: usize| inputs.get(index).and_then(Value::array).map_or(0, |array| array.text_bytes().1);
            // A comparison reads far more bytes in the same time than most others do.
            cx.read_texts(count(&shape).saturating_mul(longest(0).min(longest(1))) / 64)?;
        }
        cx.emit::<u8>(inputs, DType::Bool, shape, ops, || {
            let (a, b) = (inputs.read(0)?, inputs.read(1)?);
            Ok(with_elements!(dtype, T => {
                shapes::zip(a, b, &out, |x: T, y: T| u8::from(test(x.partial_cmp(&y))))
            }, {
                a.texts_over(&out).into_iter().zip(b.texts_over(&out)).map(|(x, y)| u8::from(test(x.partial_cmp(y)))).collect()
            }))
        })
    })
}

fn logic(f: fn(u8, u8) -> u8) -> Result<Eval, String> {
    single(move |cx, inputs| {
        let (dtype, shape) = pair(inputs)?;
        if dtype != DType::Bool {
            return Err(Stop::unsupported(dtype));
        }
        let out = shape.clone();
        let ops = count(&shape).saturating_add(rows_ops(&shape));
        cx.emit::<u8>(inputs, dtype, shape, ops, || Ok(shapes::zip(inputs.read(0)?, inputs.read(1)?, &out, f)))
    })
}

fn bits(node: &Node<'_>) -> Result<Eval, String> {
    let op = node.op().to_owned();
    let left = match (op.as_str(), node.text("direction", "LEFT")?.as_str()) {
        ("BitShift", "RIGHT") => false,
        ("BitShift", "LEFT") | (_, "LEFT") => true,
        (_, other) => return Err(format!("there is no direction `{other}`")),
    };
    single(move |cx, inputs| {
        let (dtype, shape) = pair(inputs)?;
        let out = shape.clone();
        let ops = count(&shape).saturating_add(rows_ops(&shape));
        with_integers!(dtype, T => cx.emit::<T>(inputs, dtype, shape, ops, || {
            let (a, b) = (inputs.read(0)?, inputs.read(1)?);
            Ok(match op.as_str() {
                "BitwiseAnd" => shapes::zip(a, b, &out, |x: T, y: T| x & y),
                "BitwiseOr" => shapes::zip(a, b, &out, |x: T, y: T| x | y),
                "BitwiseXor" => shapes::zip(a, b, &out, |x: T, y: T| x ^ y),
                // A shift by the width or more, or by less than nothing, leaves nothing but the sign.
                _ => shapes::zip(a, b, &out, |x: T, y: T| {
                    let y = u32::try_from(y).unwrap_or(u32::MAX);
                    if left { x.checked_shl(y).unwrap_or(0) } else { x.checked_shr(y).unwrap_or(if x < T::ZERO { !T::ZERO } else { 0 }) }
                }),
            })
        }), Err(Stop::unsupported(dtype)))
    })
}

fn select(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Value, Stop> {
    let (condition, (left, a), (right, b)) = (inputs.ty(0)?, inputs.ty(1)?, inputs.ty(2)?);
    if condition.0 != DType::Bool || left != right {
        return Err(Stop::invalid("it takes a bool and two inputs of one type"));
    }
    let shape = shapes::broadcast(&[condition.1, a, b])?;
    // As they are repeated.
    cx.scratch(count(&shape).saturating_mul(1 + 2 * left.size() as u64))?;
    let ops = count(&shape).saturating_mul(60);
    cx.emit_with(inputs, left, shape, ops, |shape| {
        let condition = inputs.read(0)?.broadcast(&shape);
        let (a, b) = (inputs.read(1)?, inputs.read(2)?);
        let condition = condition.values::<u8>();
        Ok(with_elements!(left, T => {
            let (a, b) = (a.broadcast(&shape), b.broadcast(&shape));
            let (a, b) = (a.values::<T>(), b.values::<T>());
            let values: Vec<T> = condition.iter().zip(a.iter().zip(b.iter())).map(|(c, (a, b))| if *c != 0 { *a } else { *b }).collect();
            Array::new(left, shape, values)
        }, {
            let picked = condition.iter().zip(a.texts_over(&shape).into_iter().zip(b.texts_over(&shape)));
            let texts = picked.map(|(c, (a, b))| if *c != 0 { a.clone() } else { b.clone() }).collect();
            Array::text(shape, texts)
        }))
    })
}
