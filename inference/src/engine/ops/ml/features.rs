//! Operators that scale, fill in and rearrange features.

use super::{Parse, check_number, cost, matrix, single};
use crate::{
    DType,
    engine::{
        array::Array,
        cx::{Cx, Inputs, Stop},
        elements::{Element, with_elements},
        numeric::{Number, Wide, cast},
        program::Eval,
        value::Value,
    },
    onnx::Node,
};

pub(super) fn find(name: &str) -> Option<Parse> {
    Some(match name {
        "Scaler" => |node, _| scaler(node),
        "Normalizer" => |node, _| normalizer(node),
        "Imputer" => |node, _| imputer(node),
        "Binarizer" => |node, _| binarizer(node),
        "FeatureVectorizer" => |node, _| feature_vectorizer(node),
        "ArrayFeatureExtractor" => |_, _| single(extract),
        _ => return None,
    })
}

/// The second dimension, or the only one: what a list of numbers per feature goes along.
fn features(shape: &[usize]) -> Result<usize, Stop> {
    match shape {
        [] => Err(Stop::invalid("it does not take a scalar")),
        [only] => Ok(*only),
        [_, second, ..] => Ok(*second),
    }
}

/// `(x − offset) · scale`: in float64 for float64, else in float32; the result is float32.
fn scaler(node: &Node<'_>) -> Result<Eval, String> {
    let (offset, scale) = (node.floats("offset"), node.floats("scale"));
    let count = scale.as_ref().or(offset.as_ref()).map_or(0, Vec::len);
    let offset = offset.unwrap_or_else(|| vec![0.0; count]);
    let scale = scale.unwrap_or_else(|| vec![1.0; count]);
    if count == 0 || offset.len() != scale.len() {
        return Err(format!("it has {} offsets and {} scales", offset.len(), scale.len()));
    }
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        check_number(dtype)?;
        let width = features(shape)?;
        if count != width && count != 1 {
            return Err(Stop::invalid(format!("it scales {count} features, not {width}")));
        }
        let ops = inputs.count(0)?.saturating_mul(2);
        cx.emit::<f32>(inputs, DType::Float32, shape.to_vec(), ops, || {
            let pairs = offset.iter().zip(&scale).cycle();
            if dtype == DType::Float64 {
                let values = inputs.read(0)?.contiguous();
                let scaled =
                    |(x, (offset, scale)): (&f64, (&f32, &f32))| ((x - f64::from(*offset)) * f64::from(*scale)) as f32;
                return Ok(values.values::<f64>().iter().zip(pairs).map(scaled).collect());
            }
            let values = cast(inputs.read(0)?, DType::Float32);
            Ok(values.values::<f32>().iter().zip(pairs).map(|(x, (offset, scale))| (x - offset) * scale).collect())
        })
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Norm {
    Max,
    L1,
    L2,
}

/// Divides each row by its norm; a row whose norm is zero stays. MAX is the greatest value, not the greatest magnitude:
/// so says the formula, and so does onnxruntime.
fn normalizer(node: &Node<'_>) -> Result<Eval, String> {
    let norm = match node.text("norm", "MAX")?.as_str() {
        "MAX" => Norm::Max,
        "L1" => Norm::L1,
        "L2" => Norm::L2,
        other => return Err(format!("there is no norm `{other}`")),
    };
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        check_number(dtype)?;
        let (_, width) = matrix(inputs, 0)?;
        let ops = inputs.count(0)?.saturating_mul(10);
        cx.emit::<f32>(inputs, DType::Float32, shape.to_vec(), ops, || {
            let mut values = cast(inputs.read(0)?, DType::Float32).into_vec::<f32>();
            values.chunks_exact_mut(width.max(1)).for_each(|row| normalize(norm, row));
            Ok(values)
        })
    })
}

fn normalize(norm: Norm, row: &mut [f32]) {
    let by = match norm {
        Norm::Max => row.iter().fold(f32::MIN, |max, x| if *x > max { *x } else { max }),
        Norm::L1 => row.iter().fold(0.0, |sum, x| sum + x.abs()),
        Norm::L2 => row.iter().fold(0.0, |sum, x| sum + x * x),
    };
    if by == 0.0 {
        return;
    }
    for x in row {
        *x = match norm {
            Norm::Max | Norm::L1 => *x / by,
            Norm::L2 if *x < 0.0 => -Wide::sqrt(*x * *x / by),
            Norm::L2 => Wide::sqrt(*x * *x / by),
        };
    }
}

/// Replaces one value (NaN may be it) by a value for each feature, or by one for all.
fn imputer(node: &Node<'_>) -> Result<Eval, String> {
    let floats = node.floats("imputed_value_floats").unwrap_or_default();
    let ints = node.ints("imputed_value_int64s").unwrap_or_default();
    if floats.is_empty() == ints.is_empty() {
        return Err("it needs values that are either floats or integers".into());
    }
    let (float, int) = (node.float("replaced_value_float", 0.0), node.int("replaced_value_int64", 0));
    let narrow = |int: i64| i32::try_from(int).ok();
    let narrowed: Option<Vec<i32>> = ints.iter().map(|int| narrow(*int)).collect();
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        // Other than a Scaler's, they are those of the last dimension.
        let width = shape.last().copied().ok_or("it does not take a scalar")?;
        match dtype {
            DType::Float32 if !floats.is_empty() => impute(cx, inputs, width, Some(float), &floats),
            DType::Float64 if !floats.is_empty() => {
                let floats: Vec<f64> = floats.iter().map(|x| f64::from(*x)).collect();
                impute(cx, inputs, width, Some(f64::from(float)), &floats)
            }
            DType::Int64 if !ints.is_empty() => impute(cx, inputs, width, Some(int), &ints),
            DType::Int32 if !ints.is_empty() => {
                let ints = narrowed.as_ref().ok_or("its values are no int32")?;
                impute(cx, inputs, width, narrow(int), ints)
            }
            other => Err(Stop::unsupported(other)),
        }
    })
}

fn impute<T: Number>(
    cx: &mut Cx<'_>,
    inputs: &Inputs<'_>,
    width: usize,
    replaced: Option<T>,
    by: &[T],
) -> Result<Value, Stop> {
    let (dtype, shape) = inputs.ty(0)?;
    if by.len() != 1 && by.len() != width {
        return Err(Stop::invalid(format!("it has {} values for {width} features", by.len())));
    }
    let is_replaced = |x: T| replaced.is_some_and(|replaced| x == replaced || (x.is_nan() && replaced.is_nan()));
    cx.emit::<T>(inputs, dtype, shape.to_vec(), inputs.count(0)?.saturating_mul(2), || {
        let values = inputs.read(0)?.contiguous();
        let values = values.values::<T>();
        Ok(values.iter().zip(by.iter().cycle()).map(|(x, by)| if is_replaced(*x) { *by } else { *x }).collect())
    })
}

/// 1 above the threshold, else 0.
fn binarizer(node: &Node<'_>) -> Result<Eval, String> {
    let threshold = f64::from(node.float("threshold", 0.0));
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        check_number(dtype)?;
        cx.emit_with(inputs, dtype, shape.to_vec(), inputs.count(0)?.saturating_mul(4), |shape| {
            let doubles = inputs.read(0)?.to_doubles().unwrap_or_default();
            let ones = doubles.into_iter().map(|x| u8::from(x > threshold)).collect();
            Ok(cast(&Array::new(DType::Uint8, shape, ones), dtype))
        })
    })
}

/// Puts the features of all inputs side by side; each input is cut or filled with zeros to its width.
fn feature_vectorizer(node: &Node<'_>) -> Result<Eval, String> {
    let widths = node.sizes("inputdimensions")?.ok_or("it needs inputdimensions")?;
    let total = widths.iter().try_fold(0usize, |sum, width| sum.checked_add(*width)).ok_or("it is too wide")?;
    single(move |cx, inputs| {
        if inputs.len() != widths.len() {
            return Err(Stop::invalid(format!("it has {} inputs, not {}", inputs.len(), widths.len())));
        }
        let mut given = Vec::with_capacity(widths.len());
        let (rows, _) = matrix(inputs, 0)?;
        for index in 0..widths.len() {
            check_number(inputs.dtype(index)?)?;
            let (own, width) = matrix(inputs, index)?;
            if own != rows {
                return Err(Stop::invalid("its inputs have different numbers of rows"));
            }
            given.push(width);
        }
        // Whole inputs are rounded to float32, whatever is taken of them.
        let all = (0..inputs.len()).try_fold(0u64, |sum, i| inputs.count(i).map(|n| sum.saturating_add(n)))?;
        cx.scratch(all.saturating_mul(4))?;
        let ops = cost(&[rows, total]).saturating_add(all.saturating_mul(30));
        cx.emit::<f32>(inputs, DType::Float32, vec![rows, total], ops, || {
            let mut out = vec![0.0; rows * total];
            let mut start = 0;
            for (index, (width, given)) in widths.iter().zip(&given).enumerate() {
                let values = super::singles(inputs, index)?;
                let values = values.values::<f32>();
                let copied = *width.min(given);
                for (row, values) in out.chunks_exact_mut(total.max(1)).zip(values.chunks_exact((*given).max(1))) {
                    row[start..start + copied].copy_from_slice(&values[..copied]);
                }
                start += width;
            }
            Ok(out)
        })
    })
}

/// Picks positions along the last axis; from a vector it makes one row.
fn extract(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Value, Stop> {
    let (dtype, shape) = inputs.ty(0)?;
    let Some((width, outer)) = shape.split_last() else { return Err(Stop::invalid("it does not take a scalar")) };
    if inputs.dtype(1)? != DType::Int64 {
        return Err(Stop::unsupported(inputs.dtype(1)?));
    }
    let count = usize::try_from(inputs.count(1)?).map_err(|_| Stop::invalid("it picks too much"))?;
    if count == 0 {
        return Err(Stop::invalid("it picks nothing"));
    }
    let mut picked = if outer.is_empty() { vec![1] } else { outer.to_vec() };
    picked.push(count);
    let ops = cost(&picked).saturating_mul(2);
    let width = *width;
    cx.emit_with(inputs, dtype, picked, ops, |shape| {
        let position = |index: &i64| usize::try_from(*index).ok().filter(|index| *index < width);
        let indices = inputs.values::<i64>(1)?.iter().map(position).collect::<Option<Vec<_>>>();
        let indices = indices.ok_or_else(|| Stop::invalid(format!("it picks beyond the {width} features")))?;
        let array = inputs.read(0)?.contiguous();
        if dtype == DType::String {
            let picked = || array.texts().chunks_exact(width).flat_map(|row| indices.iter().map(|at| &row[*at]));
            super::check_bytes(picked().map(String::len))?;
            return Ok(Array::text(shape, picked().cloned().collect()));
        }
        Ok(with_elements!(dtype, T => Array::new(dtype, shape, pick::<T>(&array, width, &indices)), array))
    })
}

fn pick<T: Element>(array: &Array, width: usize, indices: &[usize]) -> Vec<T> {
    array.values::<T>().chunks_exact(width).flat_map(|row| indices.iter().map(|at| row[*at])).collect()
}
