//! Elements by index: gather, scatter, and what depends on positions.

use super::{Parse, shapes, single, text::check_bytes};
use crate::{
    DType,
    engine::{
        array::Array,
        cx::{Cx, Inputs, Stop},
        elements::{with_elements, with_numbers},
        layout::strides,
        numeric::Number,
        program::Eval,
        value::{Value, count},
    },
    onnx::Node,
};

pub(super) fn find(name: &str) -> Option<Parse> {
    Some(match name {
        "Gather" => |node, _| gather(node),
        "GatherElements" => |node, _| gather_elements(node),
        "GatherND" => |node, _| gather_nd(node),
        "Scatter" | "ScatterElements" => |node, _| scatter_elements(node),
        "ScatterND" => |node, _| scatter_nd(node),
        "TensorScatter" => |node, _| tensor_scatter(node),
        "NonZero" => |_, _| single(non_zero),
        "Compress" => |node, _| compress(node),
        "OneHot" => |node, _| one_hot(node),
        _ => return None,
    })
}

/// Cost of an index that is read, and of a block that is copied where it says, however small.
const INDEX_OPS: u64 = 60;
const BLOCK_OPS: u64 = 40;
/// Cost of an element that is found by its own index, and of each step on the way to it.
const FOUND_OPS: u64 = 150;
const STEP_OPS: u64 = 60;
/// Bytes of memory for an index, with copies.
const INDEX_BYTES: u64 = 24;

/// What so many elements cost that are found by their own indices.
fn finding(elements: &[usize]) -> u64 {
    count(elements).saturating_mul(FOUND_OPS).saturating_add(shapes::stretches(elements).saturating_mul(STEP_OPS))
}

/// Indices of an input into a dimension, with negative ones from the end.
fn indices(inputs: &Inputs<'_>, index: usize, size: usize) -> Result<Vec<usize>, Stop> {
    let list = inputs.read(index)?.to_ints().ok_or_else(|| Stop::invalid("its indices must be integers"))?;
    list.into_iter().map(|i| position(i, size)).collect()
}

fn position(i: i64, size: usize) -> Result<usize, Stop> {
    let at = if i < 0 { i.saturating_add(size as i64) } else { i };
    usize::try_from(at)
        .ok()
        .filter(|at| *at < size)
        .ok_or_else(|| Stop::invalid(format!("index {i} is out of bounds of {size}")))
}

/// The elements of an array at offsets.
fn pick(array: &Array, shape: Vec<usize>, offsets: impl Iterator<Item = usize> + Clone) -> Result<Array, Stop> {
    let dtype = array.dtype();
    Ok(with_elements!(dtype, T => {
        let values = array.values::<T>();
        Array::new(dtype, shape, offsets.map(|at| values[at]).collect())
    }, {
        let texts = array.texts();
        check_bytes(offsets.clone().map(|at| texts[at].len()))?;
        Array::text(shape, offsets.map(|at| texts[at].clone()).collect())
    }))
}

/// The blocks of `block` elements of an array at block numbers.
fn pick_blocks(
    array: &Array,
    shape: Vec<usize>,
    block: usize,
    numbers: impl Iterator<Item = usize> + Clone,
) -> Result<Array, Stop> {
    let dtype = array.dtype();
    Ok(with_elements!(dtype, T => {
        let values = array.values::<T>();
        let mut out = Vec::with_capacity(shape.iter().product());
        numbers.for_each(|n| out.extend_from_slice(&values[n * block..(n + 1) * block]));
        Array::new(dtype, shape, out)
    }, {
        let texts = array.texts();
        check_bytes(numbers.clone().flat_map(|n| &texts[n * block..(n + 1) * block]).map(String::len))?;
        let mut out = Vec::with_capacity(shape.iter().product());
        numbers.for_each(|n| out.extend_from_slice(&texts[n * block..(n + 1) * block]));
        Array::text(shape, out)
    }))
}

fn gather(node: &Node<'_>) -> Result<Eval, String> {
    let at = node.int("axis", 0);
    single(move |cx, inputs| {
        let ((dtype, shape), (_, index_shape)) = (inputs.ty(0)?, inputs.ty(1)?);
        let axis = shapes::axis(at, shape.len())?;
        let mut out = shape[..axis].to_vec();
        out.extend_from_slice(index_shape);
        out.extend_from_slice(&shape[axis + 1..]);
        let indexed = count(index_shape);
        cx.scratch(indexed.saturating_mul(INDEX_BYTES))?;
        let blocks = count(&shape[..axis]).saturating_mul(indexed);
        let ops = count(&out).saturating_add(indexed.saturating_add(blocks).saturating_mul(BLOCK_OPS));
        cx.emit_checked(inputs, dtype, out, ops, |out| {
            let (outer, size, inner) = shapes::around(shape, axis);
            let list = indices(inputs, 1, size)?;
            let numbers = (0..outer).flat_map(|o| list.iter().map(move |i| o * size + i));
            pick_blocks(inputs.read(0)?, out, inner, numbers)
        })
    })
}

fn gather_elements(node: &Node<'_>) -> Result<Eval, String> {
    let at = node.int("axis", 0);
    single(move |cx, inputs| {
        let ((dtype, shape), (_, out)) = (inputs.ty(0)?, inputs.ty(1)?);
        let axis = shapes::axis(at, shape.len())?;
        let fits = out.len() == shape.len() && out.iter().zip(shape).enumerate().all(|(i, (a, b))| i == axis || a <= b);
        if !fits {
            return Err(Stop::invalid("its indices do not fit its input"));
        }
        cx.scratch(count(out).saturating_mul(INDEX_BYTES))?;
        let ops = finding(out);
        cx.emit_checked(inputs, dtype, out.to_vec(), ops, |out| {
            let list = indices(inputs, 1, shape[axis])?;
            let offsets = element_offsets(&out, shape, axis, &list);
            pick(inputs.read(0)?, out, offsets.into_iter())
        })
    })
}

/// For each position of `index_shape` the offset in `shape` with the coordinate at `axis` replaced by the index there.
fn element_offsets(index_shape: &[usize], shape: &[usize], axis: usize, list: &[usize]) -> Vec<usize> {
    let mut own = strides(shape);
    let along = own[axis];
    own[axis] = 0;
    let mut offsets = Vec::with_capacity(list.len());
    crate::engine::layout::walk(index_shape, &own, 0, &mut |at| offsets.push(at));
    offsets.iter_mut().zip(list).for_each(|(offset, i)| *offset += i * along);
    offsets
}

fn gather_nd(node: &Node<'_>) -> Result<Eval, String> {
    let batch = usize::try_from(node.int("batch_dims", 0)).map_err(|_| "its batch_dims is negative".to_owned())?;
    single(move |cx, inputs| {
        let ((dtype, shape), (_, index_shape)) = (inputs.ty(0)?, inputs.ty(1)?);
        let depth = *index_shape.last().ok_or_else(|| Stop::invalid("its indices have no dimension"))?;
        if batch >= index_shape.len() || batch + depth > shape.len() || shape[..batch] != index_shape[..batch] {
            return Err(Stop::invalid("its indices do not fit its input"));
        }
        let mut out = index_shape[..index_shape.len() - 1].to_vec();
        out.extend_from_slice(&shape[batch + depth..]);
        let indexed = count(index_shape);
        cx.scratch(indexed.saturating_mul(INDEX_BYTES))?;
        let blocks = count(&index_shape[..index_shape.len() - 1]).saturating_mul(BLOCK_OPS);
        let ops = count(&out).saturating_add(blocks).saturating_add(indexed.saturating_mul(INDEX_OPS));
        cx.emit_checked(inputs, dtype, out, ops, |out| {
            let numbers = block_numbers(inputs, 1, shape, index_shape, batch, depth)?;
            let block = shape[batch + depth..].iter().product();
            pick_blocks(inputs.read(0)?, out, block, numbers.into_iter())
        })
    })
}

/// Block numbers that index tuples name.
fn block_numbers(
    inputs: &Inputs<'_>,
    index: usize,
    shape: &[usize],
    index_shape: &[usize],
    batch: usize,
    depth: usize,
) -> Result<Vec<usize>, Stop> {
    let list = inputs.read(index)?.to_ints().ok_or_else(|| Stop::invalid("its indices must be integers"))?;
    let batches: usize = shape[..batch].iter().product();
    let total: usize = index_shape[..index_shape.len() - 1].iter().product();
    let per_batch = total.checked_div(batches).unwrap_or(0);
    let dims = &shape[batch..batch + depth];
    let size: usize = dims.iter().product();
    let mut numbers = Vec::with_capacity(total);
    for b in 0..batches {
        for i in 0..per_batch {
            let tuple = &list[(b * per_batch + i) * depth..][..depth];
            let mut number = 0;
            for (i, dim) in tuple.iter().zip(dims) {
                number = number * dim + position(*i, *dim)?;
            }
            numbers.push(b * size + number);
        }
    }
    Ok(numbers)
}

/// What happens to an element that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reduction {
    None,
    Add,
    Mul,
    Max,
    Min,
}

fn reduction(node: &Node<'_>) -> Result<Reduction, String> {
    Ok(match node.text("reduction", "none")?.as_str() {
        "none" => Reduction::None,
        "add" => Reduction::Add,
        "mul" => Reduction::Mul,
        "max" => Reduction::Max,
        "min" => Reduction::Min,
        other => return Err(format!("there is no reduction `{other}`")),
    })
}

/// Writes blocks of updates over blocks of an array, in the order of the updates.
fn write(array: &Array, updates: &Array, numbers: &[usize], block: usize, how: Reduction) -> Result<Array, Stop> {
    let dtype = array.dtype();
    let shape = array.shape().to_vec();
    if how == Reduction::None {
        return Ok(with_elements!(dtype, T => {
            let (mut values, updates) = (array.values::<T>().into_owned(), updates.values::<T>());
            for (i, n) in numbers.iter().enumerate() {
                values[n * block..(n + 1) * block].copy_from_slice(&updates[i * block..(i + 1) * block]);
            }
            Array::new(dtype, shape, values)
        }, {
            let (mut values, updates) = (array.texts().to_vec(), updates.texts());
            for (i, n) in numbers.iter().enumerate() {
                values[n * block..(n + 1) * block].clone_from_slice(&updates[i * block..(i + 1) * block]);
            }
            Array::text(shape, values)
        }));
    }
    with_numbers!(dtype, T => {
        let f: fn(T, T) -> T = match how {
            Reduction::Add => T::plus,
            Reduction::Mul => T::times,
            Reduction::Max => T::greater,
            Reduction::Min | Reduction::None => T::lesser,
        };
        let (mut values, updates) = (array.values::<T>().into_owned(), updates.values::<T>());
        for (i, n) in numbers.iter().enumerate() {
            for (x, y) in values[n * block..(n + 1) * block].iter_mut().zip(&updates[i * block..(i + 1) * block]) {
                *x = f(*x, *y);
            }
        }
        Ok(Array::new(dtype, shape, values))
    }, Err(Stop::unsupported(dtype)))
}

fn scatter_elements(node: &Node<'_>) -> Result<Eval, String> {
    let (at, how) = (node.int("axis", 0), reduction(node)?);
    single(move |cx, inputs| {
        let ((dtype, shape), (_, index_shape), (update_type, update_shape)) =
            (inputs.ty(0)?, inputs.ty(1)?, inputs.ty(2)?);
        let axis = shapes::axis(at, shape.len())?;
        let fits = index_shape == update_shape
            && update_type == dtype
            && index_shape.len() == shape.len()
            && index_shape.iter().zip(shape).enumerate().all(|(i, (a, b))| i == axis || a <= b);
        if !fits {
            return Err(Stop::invalid("its indices, updates and input do not fit"));
        }
        cx.scratch(count(index_shape).saturating_mul(INDEX_BYTES))?;
        let ops = count(shape).saturating_add(finding(index_shape));
        cx.emit_checked(inputs, dtype, shape.to_vec(), ops, |_| {
            let list = indices(inputs, 1, shape[axis])?;
            let offsets = element_offsets(index_shape, shape, axis, &list);
            write(inputs.read(0)?, inputs.read(2)?, &offsets, 1, how)
        })
    })
}

fn scatter_nd(node: &Node<'_>) -> Result<Eval, String> {
    let how = reduction(node)?;
    single(move |cx, inputs| {
        let ((dtype, shape), (_, index_shape), (update_type, update_shape)) =
            (inputs.ty(0)?, inputs.ty(1)?, inputs.ty(2)?);
        let depth = *index_shape.last().ok_or_else(|| Stop::invalid("its indices have no dimension"))?;
        let fits = depth <= shape.len() && update_type == dtype && {
            let mut expected = index_shape[..index_shape.len() - 1].to_vec();
            expected.extend_from_slice(&shape[depth..]);
            expected == update_shape
        };
        if !fits {
            return Err(Stop::invalid("its indices, updates and input do not fit"));
        }
        let indexed = count(index_shape);
        cx.scratch(indexed.saturating_mul(INDEX_BYTES))?;
        let blocks = count(&index_shape[..index_shape.len() - 1]).saturating_mul(BLOCK_OPS);
        let ops = count(shape).saturating_add(count(update_shape)).saturating_add(blocks);
        let ops = ops.saturating_add(indexed.saturating_mul(INDEX_OPS));
        cx.emit_checked(inputs, dtype, shape.to_vec(), ops, |_| {
            let numbers = block_numbers(inputs, 1, shape, index_shape, 0, depth)?;
            write(inputs.read(0)?, inputs.read(2)?, &numbers, shape[depth..].iter().product(), how)
        })
    })
}

/// Writes a stretch of a cache, beginning at an index for each row of the batch.
fn tensor_scatter(node: &Node<'_>) -> Result<Eval, String> {
    let at = node.int("axis", -2);
    let circular = match node.text("mode", "linear")?.as_str() {
        "linear" => false,
        "circular" => true,
        other => return Err(format!("there is no mode `{other}`")),
    };
    single(move |cx, inputs| {
        let ((dtype, shape), (update_type, update)) = (inputs.ty(0)?, inputs.ty(1)?);
        let axis = shapes::axis(at, shape.len())?;
        let fits = update_type == dtype
            && axis > 0
            && update.len() == shape.len()
            && update.iter().zip(shape).enumerate().all(|(i, (a, b))| if i == axis { a <= b } else { a == b });
        if !fits {
            return Err(Stop::invalid("its update does not fit its input"));
        }
        let blocks = count(&update[..=axis]);
        cx.scratch(blocks.saturating_mul(INDEX_BYTES))?;
        let ops = count(shape).saturating_add(count(update)).saturating_add(blocks.saturating_mul(BLOCK_OPS));
        cx.emit_checked(inputs, dtype, shape.to_vec(), ops, |_| {
            let batch = shape[0];
            let starts = match inputs.has(2) {
                true => inputs.read(2)?.to_ints().ok_or("its indices must be integers")?,
                false => vec![0; batch],
            };
            if starts.len() != batch {
                return Err(Stop::invalid("it needs an index for each row"));
            }
            let (outer, size, block) = shapes::around(shape, axis);
            let mut numbers = Vec::new();
            for o in 0..outer {
                let start = position(starts[o * batch / outer.max(1)], size.max(1))?;
                for i in 0..update[axis] {
                    let i = start + i;
                    let i = if circular { i % size } else { i };
                    if i >= size {
                        return Err(Stop::invalid("its update ends beyond its input"));
                    }
                    numbers.push(o * size + i);
                }
            }
            write(inputs.read(0)?, inputs.read(1)?, &numbers, block, Reduction::None)
        })
    })
}

/// Positions of the elements that are not zero, or not empty: wherever a trace knows them they are found in it, too.
fn truths(cx: &mut Cx<'_>, array: &Array) -> Result<Vec<usize>, Stop> {
    let elements = count(array.shape());
    cx.labour(elements.saturating_mul(FOUND_OPS))?;
    cx.scratch(elements.saturating_mul(INDEX_BYTES))?;
    let truths: Vec<bool> = array.to_doubles().map_or_else(
        || array.texts().iter().map(|text| !text.is_empty()).collect(),
        |values| values.into_iter().map(|x| x != 0.0).collect(),
    );
    Ok(truths.into_iter().enumerate().filter(|(_, x)| *x).map(|(i, _)| i).collect())
}

fn non_zero(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Value, Stop> {
    let array = inputs.array(0)?;
    let shape = array.shape().to_vec();
    let found = truths(cx, array)?;
    let rank = shape.len();
    let own = strides(&shape);
    let ops = count(&[rank, found.len()]).saturating_mul(FOUND_OPS);
    cx.emit::<i64>(inputs, DType::Int64, vec![rank, found.len()], ops, || {
        let coordinate = |axis: usize, at: &usize| (at / own[axis] % shape[axis].max(1)) as i64;
        Ok((0..rank).flat_map(|axis| found.iter().map(move |at| coordinate(axis, at))).collect())
    })
}

fn compress(node: &Node<'_>) -> Result<Eval, String> {
    let at = node.attribute("axis").map(|_| node.int("axis", 0));
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        let kept = truths(cx, inputs.array(1)?)?;
        let (flat, axis) = match at {
            Some(at) => (shape.to_vec(), shapes::axis(at, shape.len())?),
            None => (vec![shape.iter().product()], 0),
        };
        if kept.last().is_some_and(|last| *last >= flat[axis]) {
            return Err(Stop::invalid("its condition is longer than its input"));
        }
        let mut out = flat.clone();
        out[axis] = kept.len();
        let blocks = count(&flat[..axis]).saturating_mul(kept.len() as u64);
        let ops = count(&out).saturating_add(blocks.saturating_mul(BLOCK_OPS));
        cx.emit_checked(inputs, dtype, out, ops, |out| {
            let (outer, size, inner) = shapes::around(&flat, axis);
            let numbers = (0..outer).flat_map(|o| kept.iter().map(move |i| o * size + i));
            pick_blocks(inputs.read(0)?, out, inner, numbers)
        })
    })
}

fn one_hot(node: &Node<'_>) -> Result<Eval, String> {
    let at = node.int("axis", -1);
    single(move |cx, inputs| {
        let (shape, dtype) = (inputs.shape(0)?, inputs.dtype(2)?);
        let depth = inputs.array(1)?;
        if depth.count() != 1 || inputs.count(2)? != 2 {
            return Err(Stop::invalid("it needs a depth and two values"));
        }
        let depth = depth.to_doubles().and_then(|v| v.first().copied()).unwrap_or(-1.0);
        if !(0.0..1e9).contains(&depth) {
            return Err(Stop::invalid("its depth is out of range"));
        }
        let depth = depth as usize;
        let axis = shapes::axis(at, shape.len() + 1)?;
        let mut out = shape.to_vec();
        out.insert(axis, depth);
        cx.scratch(count(&out).saturating_add(count(shape).saturating_mul(8)))?;
        let ops = count(&out).saturating_mul(4).saturating_add(count(shape).saturating_mul(INDEX_OPS));
        cx.emit_checked(inputs, dtype, out, ops, |out| {
            let list = inputs.read(0)?.to_doubles().ok_or("its indices must be numbers")?;
            let (outer, _, inner) = shapes::around(&out, axis);
            // Element 1 of the values is "on", element 0 "off".
            let mut which = vec![0u8; outer * depth * inner];
            for (n, i) in list.into_iter().enumerate() {
                let i = i.trunc();
                let i = if i < 0.0 { i + depth as f64 } else { i };
                if i >= 0.0 && i < depth as f64 {
                    which[(n / inner.max(1) * depth + i as usize) * inner + n % inner.max(1)] = 1;
                }
            }
            pick(inputs.read(2)?, out, which.into_iter().map(usize::from))
        })
    })
}
