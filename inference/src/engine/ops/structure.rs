//! Shapes and layouts: reshape, transpose, concat, split, expand, and constants.

use super::{Parse, eval, shapes, single};
use crate::{
    DType,
    engine::{
        array::Array,
        cx::{Cx, Inputs, MAX_PARTS, MAX_RANK, Stop},
        elements::with_elements,
        program::Eval,
        value::{Value, count, part_bytes},
    },
    onnx::Node,
};

pub(super) fn find(name: &str) -> Option<Parse> {
    Some(match name {
        "Constant" => |node, _| constant(node),
        "ConstantOfShape" => |node, _| constant_of_shape(node),
        "Shape" => |node, _| shape(node),
        "Size" => |_, _| {
            single(|_, inputs| {
                let size = i64::try_from(inputs.count(0)?).unwrap_or(i64::MAX);
                Ok(Value::Known(Array::new(DType::Int64, vec![], vec![size])))
            })
        },
        "Reshape" => |node, _| reshape(node),
        "Flatten" => |node, _| flatten(node),
        "Squeeze" => |node, _| squeeze(node),
        "Unsqueeze" => |node, _| unsqueeze(node),
        "Transpose" => |node, _| transpose(node),
        "Concat" => |node, _| concat(node),
        "Split" => |node, _| split(node),
        "Expand" => |_, _| single(expand),
        "Tile" => |_, _| single(tile),
        "EyeLike" => |node, _| eye_like(node),
        "Range" => |_, _| single(range),
        "Trilu" => |node, _| trilu(node),
        _ => return None,
    })
}

/// The same elements under another shape.
pub(super) fn view(inputs: &Inputs<'_>, index: usize, shape: Vec<usize>) -> Result<Value, Stop> {
    let (dtype, old) = inputs.ty(index)?;
    if shape.len() > MAX_RANK {
        return Err(Stop::Limit(format!("a tensor has more than {MAX_RANK} dimensions")));
    }
    if count(old) != count(&shape) {
        return Err(Stop::invalid(format!("{old:?} cannot become {shape:?}")));
    }
    Ok(match inputs.value(index)? {
        Value::Known(array) => Value::Known(array.reshape(shape)),
        _ => Value::Unknown(dtype, shape),
    })
}

fn constant(node: &Node<'_>) -> Result<Eval, String> {
    let value = if let Some(tensor) = node.tensor("value")? {
        tensor
    } else if let Some(tensor) = node.tensor("sparse_value")? {
        tensor
    } else if node.attribute("value_float").is_some() {
        Array::new(DType::Float32, vec![], vec![node.float("value_float", 0.0)])
    } else if let Some(list) = node.floats("value_floats") {
        Array::new(DType::Float32, vec![list.len()], list)
    } else if node.attribute("value_int").is_some() {
        Array::new(DType::Int64, vec![], vec![node.int("value_int", 0)])
    } else if let Some(list) = node.ints("value_ints") {
        Array::ints(list)
    } else if node.attribute("value_string").is_some() {
        Array::text(vec![], vec![node.text("value_string", "")?])
    } else if let Some(list) = node.texts("value_strings")? {
        Array::text(vec![list.len()], list)
    } else {
        return Err("it has no value".into());
    };
    single(move |_, _| Ok(Value::Known(value.clone())))
}

/// Sizes from an input.
pub(super) fn sizes(inputs: &Inputs<'_>, index: usize) -> Result<Vec<usize>, Stop> {
    let list = inputs.ints(index)?.ok_or_else(|| Stop::invalid("its shape is missing"))?;
    list.iter().map(|i| usize::try_from(*i).map_err(|_| Stop::invalid("a size is negative"))).collect()
}

fn constant_of_shape(node: &Node<'_>) -> Result<Eval, String> {
    let value = node.tensor("value")?.unwrap_or_else(|| Array::new(DType::Float32, vec![1], vec![0.0f32]));
    if value.count() != 1 {
        return Err("its value must have one element".into());
    }
    single(move |cx, inputs| {
        let shape = sizes(inputs, 0)?;
        let ops = count(&shape);
        cx.emit_with(inputs, value.dtype(), shape, ops, |shape| {
            Ok(value.reshape(vec![1; shape.len()]).broadcast(&shape).contiguous())
        })
    })
}

fn shape(node: &Node<'_>) -> Result<Eval, String> {
    let (start, end) = (node.int("start", 0), node.int("end", i64::MAX));
    single(move |_, inputs| {
        let shape = inputs.shape(0)?;
        let rank = shape.len() as i64;
        let clamp = |i: i64| (if i < 0 { i.saturating_add(rank) } else { i }).clamp(0, rank) as usize;
        let (start, end) = (clamp(start), clamp(end));
        let dims = shape.get(start..end.max(start)).unwrap_or(&[]);
        Ok(Value::Known(Array::ints(dims.iter().map(|d| *d as i64).collect())))
    })
}

fn reshape(node: &Node<'_>) -> Result<Eval, String> {
    let allow_zero = node.flag("allowzero", false);
    single(move |_, inputs| {
        let old = inputs.shape(0)?;
        let wanted = inputs.ints(1)?.ok_or_else(|| Stop::invalid("its shape is missing"))?;
        let mut shape = Vec::with_capacity(wanted.len());
        let mut open = None;
        for (axis, size) in wanted.iter().enumerate() {
            shape.push(match *size {
                -1 if open.is_none() => {
                    open = Some(axis);
                    1
                }
                0 if !allow_zero => {
                    *old.get(axis).ok_or_else(|| Stop::invalid("its shape copies a dimension that is not there"))?
                }
                size => usize::try_from(size).map_err(|_| Stop::invalid(format!("its shape has the size {size}")))?,
            });
        }
        if let Some(axis) = open {
            let (all, rest) = (count(old), count(&shape));
            if rest == 0 || all % rest != 0 {
                return Err(Stop::invalid(format!("{old:?} cannot become {wanted:?}")));
            }
            shape[axis] = (all / rest) as usize;
        }
        view(inputs, 0, shape)
    })
}

fn flatten(node: &Node<'_>) -> Result<Eval, String> {
    let at = node.int("axis", 1);
    single(move |_, inputs| {
        let shape = inputs.shape(0)?;
        let rank = shape.len();
        let at = if at == rank as i64 { rank } else { shapes::axis(at, rank)? };
        view(inputs, 0, vec![shape[..at].iter().product(), shape[at..].iter().product()])
    })
}

/// Axes from an input (operator set 13), or from an attribute.
fn axes_of(inputs: &Inputs<'_>, attribute: &Option<Vec<i64>>) -> Result<Option<Vec<i64>>, Stop> {
    Ok(inputs.ints(1)?.or_else(|| attribute.clone()))
}

fn squeeze(node: &Node<'_>) -> Result<Eval, String> {
    let attribute = node.axes("axes")?;
    single(move |_, inputs| {
        let shape = inputs.shape(0)?;
        let gone = match axes_of(inputs, &attribute)? {
            Some(axes) => shapes::axes(&axes, shape.len())?,
            None => (0..shape.len()).filter(|axis| shape[*axis] == 1).collect(),
        };
        if gone.iter().any(|axis| shape[*axis] != 1) {
            return Err(Stop::invalid(format!("a dimension of {shape:?} that is squeezed is not 1")));
        }
        let kept = shape.iter().enumerate().filter(|(axis, _)| !gone.contains(axis)).map(|(_, dim)| *dim).collect();
        view(inputs, 0, kept)
    })
}

fn unsqueeze(node: &Node<'_>) -> Result<Eval, String> {
    let attribute = node.axes("axes")?;
    single(move |_, inputs| {
        let shape = inputs.shape(0)?;
        let list = axes_of(inputs, &attribute)?.ok_or_else(|| Stop::invalid("its axes are missing"))?;
        let new = shapes::axes(&list, shape.len() + list.len())?;
        let mut old = shape.iter();
        let dims = (0..shape.len() + list.len())
            .map(|axis| if new.contains(&axis) { 1 } else { old.next().copied().unwrap_or(1) })
            .collect();
        view(inputs, 0, dims)
    })
}

/// Cost of an element that is read where it does not lie.
const TRANSPOSED_OPS: u64 = 16;

fn transpose(node: &Node<'_>) -> Result<Eval, String> {
    let perm = node.axes("perm")?;
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        let rank = shape.len();
        let axes: Vec<usize> = match &perm {
            Some(perm) => perm.iter().map(|a| shapes::axis(*a, rank)).collect::<Result<_, _>>()?,
            None => (0..rank).rev().collect(),
        };
        let mut sorted = axes.clone();
        sorted.sort_unstable();
        if sorted != (0..rank).collect::<Vec<_>>() {
            return Err(Stop::invalid(format!("{perm:?} is no permutation of {rank} axes")));
        }
        let out = axes.iter().map(|axis| shape[*axis]).collect();
        // Whoever reads it copies it.
        let ops = inputs.count(0)?.saturating_mul(TRANSPOSED_OPS);
        cx.emit_checked(inputs, dtype, out, ops, |_| Ok(inputs.read(0)?.permute(&axes)))
    })
}

/// Joins arrays of one type along an axis; the shapes must fit.
pub(super) fn join(arrays: &[Array], axis: usize, shape: Vec<usize>) -> Array {
    let (outer, _, inner) = shapes::around(&shape, axis);
    let Some(first) = arrays.first() else { return Array::text(vec![0], vec![]) };
    let dtype = first.dtype();
    with_elements!(dtype, T => {
        let parts = arrays.iter().map(|a| (a.shape()[axis] * inner, a.values::<T>()));
        let parts: Vec<_> = parts.filter(|(block, _)| *block > 0).collect();
        let mut out = Vec::<T>::with_capacity(shape.iter().product());
        for o in 0..outer {
            parts.iter().for_each(|(block, values)| out.extend_from_slice(&values[o * block..(o + 1) * block]));
        }
        Array::new(dtype, shape, out)
    }, {
        let mut out = Vec::with_capacity(shape.iter().product());
        for o in 0..outer {
            for a in arrays.iter().filter(|a| a.count() > 0) {
                let block = a.shape()[axis] * inner;
                out.extend_from_slice(&a.texts()[o * block..(o + 1) * block]);
            }
        }
        Array::text(shape, out)
    })
}

/// Cost of a stretch of a part, however short.
const PIECE_OPS: u64 = 60;

/// Cost of a leap to the next stretch of a view, for whoever reads it: it may be far from the one before it.
const LEAP_OPS: u64 = 300;

/// What the leaps cost when a part of a shape along an axis is read.
pub(super) fn leaps(shape: &[usize], axis: usize) -> u64 {
    count(&shape[..axis]).saturating_mul(LEAP_OPS)
}

/// What the stretches cost that a value of a shape is put together from.
pub(super) fn pieces(shape: &[usize], axis: usize, parts: usize) -> u64 {
    count(&shape[..axis]).saturating_mul(parts as u64).saturating_mul(PIECE_OPS)
}

/// The type of the concatenation of values along an axis.
pub(super) fn joined_type(types: &[(DType, &[usize])], at: i64) -> Result<(DType, Vec<usize>, usize), Stop> {
    let Some((dtype, first)) = types.first() else { return Err(Stop::invalid("there is nothing to join")) };
    let axis = shapes::axis(at, first.len())?;
    let mut shape = first.to_vec();
    shape[axis] = 0;
    for (d, s) in types {
        let fits = d == dtype
            && s.len() == first.len()
            && s.iter().zip(*first).enumerate().all(|(i, (a, b))| i == axis || a == b);
        if !fits {
            return Err(Stop::invalid(format!("{first:?} and {s:?} cannot be joined along axis {at}")));
        }
        shape[axis] = shape[axis].saturating_add(s[axis]);
    }
    Ok((*dtype, shape, axis))
}

fn concat(node: &Node<'_>) -> Result<Eval, String> {
    let at = node.int("axis", 1);
    single(move |cx, inputs| {
        let types = (0..inputs.len()).map(|i| inputs.ty(i)).collect::<Result<Vec<_>, _>>()?;
        let (dtype, shape, axis) = joined_type(&types, at)?;
        let ops = count(&shape).saturating_add(pieces(&shape, axis, types.len()));
        cx.scratch((types.len() as u64).saturating_mul(part_bytes(shape.len())))?;
        cx.emit_checked(inputs, dtype, shape, ops, |shape| {
            let arrays = (0..inputs.len()).map(|i| inputs.read(i).cloned()).collect::<Result<Vec<_>, _>>()?;
            Ok(join(&arrays, axis, shape))
        })
    })
}

/// Sizes of parts: given, or equal (the last one smaller).
pub(super) fn part_sizes(size: usize, given: Option<Vec<i64>>, parts: usize) -> Result<Vec<usize>, Stop> {
    if let Some(given) = given {
        let sizes = given.iter().map(|i| usize::try_from(*i).ok()).collect::<Option<Vec<_>>>();
        return sizes
            .filter(|sizes| sizes.iter().try_fold(0usize, |a, b| a.checked_add(*b)) == Some(size))
            .ok_or_else(|| Stop::invalid(format!("its {} parts are not {size} together", given.len())));
    }
    if parts == 0 {
        return Err(Stop::invalid("it splits into no parts"));
    }
    let each = size.div_ceil(parts);
    let sizes: Vec<usize> = (0..parts).map(|i| each.min(size.saturating_sub(i * each))).collect();
    Ok(sizes)
}

fn split(node: &Node<'_>) -> Result<Eval, String> {
    let (at, attribute, outputs) = (node.int("axis", 0), node.ints("split"), node.outputs());
    let parts = match node.attribute("num_outputs") {
        Some(_) => usize::try_from(node.int("num_outputs", 0))
            .ok()
            .filter(|n| *n == outputs)
            .ok_or("it has not `num_outputs` outputs")?,
        None => outputs,
    };
    if let Some(list) = attribute.as_ref().filter(|list| list.len() != outputs) {
        return Err(format!("it has {outputs} outputs for {} parts", list.len()));
    }
    eval(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        let axis = shapes::axis(at, shape.len())?;
        if inputs.has(1) && inputs.count(1)? != outputs as u64 {
            return Err(Stop::invalid(format!("it has {outputs} outputs for {} parts", inputs.count(1)?)));
        }
        let given = inputs.ints_within(1, MAX_PARTS)?.or_else(|| attribute.clone());
        let sizes = part_sizes(shape[axis], given, parts)?;
        if sizes.len() != outputs {
            return Err(Stop::invalid(format!("it has {outputs} outputs for {} parts", sizes.len())));
        }
        let mut start = 0;
        let mut values = Vec::with_capacity(outputs);
        for size in sizes {
            let mut part = shape.to_vec();
            part[axis] = size;
            let (from, ops) = (start, count(&part).saturating_add(leaps(shape, axis)));
            values.push(cx.emit_checked(inputs, dtype, part, ops, |_| Ok(inputs.read(0)?.slice(axis, from, 1, size)))?);
            start += size;
        }
        Ok(values)
    })
}

fn expand(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Value, Stop> {
    let (dtype, old) = inputs.ty(0)?;
    let wanted = sizes(inputs, 1)?;
    let shape = shapes::broadcast(&[old, &wanted])?;
    let ops = count(&shape);
    cx.emit_with(inputs, dtype, shape, ops, |shape| Ok(inputs.read(0)?.broadcast(&shape).contiguous()))
}

fn tile(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Value, Stop> {
    let (dtype, old) = inputs.ty(0)?;
    let repeats = sizes(inputs, 1)?;
    if repeats.len() != old.len() {
        return Err(Stop::invalid("it needs one repeat for each dimension"));
    }
    let shape = old.iter().zip(&repeats).map(|(a, b)| a.checked_mul(*b)).collect::<Option<Vec<_>>>();
    let shape = shape.ok_or_else(|| Stop::Limit("its output is too large".into()))?;
    let ops = count(&shape);
    cx.emit_with(inputs, dtype, shape, ops, |shape| {
        // Each dimension as (repeats, size): the repeats are broadcast, then both become one.
        let array = inputs.read(0)?;
        let split: Vec<usize> = old.iter().flat_map(|dim| [1, *dim]).collect();
        let wide: Vec<usize> = old.iter().zip(&repeats).flat_map(|(dim, n)| [*n, *dim]).collect();
        Ok(array.contiguous().reshape(split).broadcast(&wide).contiguous().reshape(shape))
    })
}

fn eye_like(node: &Node<'_>) -> Result<Eval, String> {
    let k = node.int("k", 0);
    let given = node.attribute("dtype").map(|a| a.i.unwrap_or(0));
    let given = given.map(|number| crate::onnx::constants::read_dtype(number as i32)).transpose()?;
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        let dtype = given.unwrap_or(dtype);
        let [rows, columns] = *shape else { return Err(Stop::invalid("it takes a matrix")) };
        let ops = count(shape).saturating_mul(60);
        with_elements!(dtype, T => cx.emit::<T>(inputs, dtype, shape.to_vec(), ops, || {
            let one = |i: usize, j: usize| crate::engine::numeric::convert::<T>(u8::from(j as i64 == (i as i64).saturating_add(k)));
            Ok((0..rows).flat_map(|i| (0..columns).map(move |j| one(i, j))).collect())
        }), Err(Stop::unsupported(dtype)))
    })
}

fn range(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Value, Stop> {
    let dtype = inputs.dtype(0)?;
    let (start, limit, delta) = (inputs.array(0)?, inputs.array(1)?, inputs.array(2)?);
    if [start, limit, delta].iter().any(|array| array.count() != 1) {
        return Err(Stop::invalid("its bounds and its step must be one number each"));
    }
    if dtype.is_float() {
        let one =
            |array: &Array| array.to_doubles().and_then(|v| v.first().copied()).ok_or_else(|| Stop::unsupported(dtype));
        let (start, limit, delta) = (one(start)?, one(limit)?, one(delta)?);
        let length = ((limit - start) / delta).ceil().max(0.0);
        if length.is_nan() || length >= 1e9 {
            return Err(Stop::Limit("its range is too long".into()));
        }
        let ops = length as u64;
        return crate::engine::elements::with_floats!(dtype, T => cx.emit::<T>(inputs, dtype, vec![length as usize], ops, || {
            // Element i is start + i · delta, computed in float64 and rounded once.
            Ok((0..length as u64).map(|i| crate::engine::numeric::convert::<T>((i as f64).mul_add(delta, start))).collect())
        }), Err(Stop::unsupported(dtype)));
    }
    let one = |array: &Array| array.to_ints().and_then(|v| v.first().copied()).ok_or_else(|| Stop::unsupported(dtype));
    let (start, limit, delta) = (i128::from(one(start)?), i128::from(one(limit)?), i128::from(one(delta)?));
    if delta == 0 {
        return Err(Stop::invalid("its step is zero"));
    }
    let distance = (limit - start) * delta.signum();
    let length = if distance <= 0 { 0 } else { (distance + delta.abs() - 1) / delta.abs() };
    let length = usize::try_from(length)
        .ok()
        .filter(|n| *n < 1 << 30)
        .ok_or_else(|| Stop::Limit("its range is too long".into()))?;
    crate::engine::elements::with_integers!(dtype, T => cx.emit::<T>(inputs, dtype, vec![length], length as u64, || {
        Ok((0..length as i128).map(|i| (start + i * delta) as T).collect())
    }), Err(Stop::unsupported(dtype)))
}

/// The upper or lower triangle of matrices; the rest is zero.
fn trilu(node: &Node<'_>) -> Result<Eval, String> {
    let upper = node.flag("upper", true);
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        let k = inputs.int(1)?.unwrap_or(0);
        let [.., rows, columns] = *shape else { return Err(Stop::invalid("it takes matrices")) };
        let ops = count(shape);
        with_elements!(dtype, T => cx.emit::<T>(inputs, dtype, shape.to_vec(), ops, || {
            let mut values = inputs.values::<T>(0)?.into_owned();
            let zero = crate::engine::numeric::convert::<T>(0u8);
            for matrix in values.chunks_exact_mut((rows * columns).max(1)) {
                for (i, row) in matrix.chunks_exact_mut(columns.max(1)).enumerate() {
                    for (j, x) in row.iter_mut().enumerate() {
                        let above = j as i64 >= (i as i64).saturating_add(k);
                        let below = j as i64 <= (i as i64).saturating_add(k);
                        if !(if upper { above } else { below }) {
                            *x = zero;
                        }
                    }
                }
            }
            Ok(values)
        }), Err(Stop::unsupported(dtype)))
    })
}
