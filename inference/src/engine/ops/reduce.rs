//! Reductions along axes, and what runs along one axis: softmax, argmax, top-k, running sums.

use std::cell::OnceCell;

use super::{Parse, eval, is_half, shapes, single};
use crate::{
    DType,
    engine::{
        array::Array,
        cx::Stop,
        elements::{Element, with_elements, with_floats, with_numbers},
        kernels::reduce::{self, log_softmax, softmax, softmax_rows, sum_rows},
        numeric::{Number, Real, Wide, cast},
        program::Eval,
        threads::pieces,
        value::{Value, count},
    },
    onnx::Node,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reduction {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
    L1,
    L2,
    LogSum,
    LogSumExp,
    SumSquare,
}

pub(super) fn find(name: &str) -> Option<Parse> {
    Some(match name {
        "ReduceSum" => |node, _| reduction(node, Reduction::Sum),
        "ReduceMean" => |node, _| reduction(node, Reduction::Mean),
        "ReduceMax" => |node, _| reduction(node, Reduction::Max),
        "ReduceMin" => |node, _| reduction(node, Reduction::Min),
        "ReduceProd" => |node, _| reduction(node, Reduction::Prod),
        "ReduceL1" => |node, _| reduction(node, Reduction::L1),
        "ReduceL2" => |node, _| reduction(node, Reduction::L2),
        "ReduceLogSum" => |node, _| reduction(node, Reduction::LogSum),
        "ReduceLogSumExp" => |node, _| reduction(node, Reduction::LogSumExp),
        "ReduceSumSquare" => |node, _| reduction(node, Reduction::SumSquare),
        "ArgMax" => |node, _| arg(node, true),
        "ArgMin" => |node, _| arg(node, false),
        "Softmax" | "LogSoftmax" | "Hardmax" => |node, _| softmax_op(node),
        "TopK" => |node, _| top_k(node),
        "CumSum" => |node, _| cumulative(node, false),
        "CumProd" => |node, _| cumulative(node, true),
        "Unique" => |node, _| unique(node),
        _ => return None,
    })
}

/// Cost of a row, however short, and of an element that is turned to lie in one.
pub(super) const ROW_OPS: u64 = 1500;
const TURNED_OPS: u64 = 40;

/// What the rows of [`rows_of`] cost besides what is computed of their elements, so many ops each.
pub(super) fn rows_ops(shape: &[usize], reduced: &[usize], each: u64) -> u64 {
    let kept: Vec<usize> = (0..shape.len()).filter(|axis| !reduced.contains(axis)).map(|axis| shape[axis]).collect();
    let in_order = reduced.iter().all(|axis| *axis >= shape.len() - reduced.len());
    let turned = if in_order { 0 } else { count(shape).saturating_mul(TURNED_OPS) };
    count(&kept).saturating_mul(each).saturating_add(turned)
}

/// The array with some axes last, row-major, so that each row is what is reduced.
pub(super) fn rows_of(array: &Array, reduced: &[usize]) -> Array {
    let rank = array.shape().len();
    let kept = (0..rank).filter(|axis| !reduced.contains(axis));
    let order: Vec<usize> = kept.chain(reduced.iter().copied()).collect();
    if order.iter().enumerate().all(|(i, axis)| i == *axis) {
        array.contiguous()
    } else {
        array.permute(&order).contiguous()
    }
}

fn reduction(node: &Node<'_>, op: Reduction) -> Result<Eval, String> {
    let attribute = node.axes("axes")?;
    let (keep, noop) = (node.flag("keepdims", true), node.flag("noop_with_empty_axes", false));
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        let list = inputs.ints(1)?.or_else(|| attribute.clone()).filter(|list| !list.is_empty());
        let axes = match list {
            Some(list) => shapes::axes(&list, shape.len())?,
            None if noop => vec![],
            None => (0..shape.len()).collect(),
        };
        let out: Vec<usize> = shape
            .iter()
            .enumerate()
            .filter(|(axis, _)| keep || !axes.contains(axis))
            .map(|(axis, dim)| if axes.contains(&axis) { 1 } else { *dim })
            .collect();
        let n: usize = axes.iter().map(|axis| shape[*axis]).product();
        let fast = dtype == DType::Float32 && matches!(op, Reduction::Sum | Reduction::Mean);
        let weight = match (op, dtype) {
            (Reduction::LogSumExp, DType::Float32) => 24,
            (Reduction::LogSumExp, _) => 400,
            _ if fast => 2,
            _ => 10,
        };
        let ops = count(shape).saturating_mul(weight);
        let ops = ops.saturating_add(rows_ops(shape, &axes, if fast { ROW_OPS / 4 } else { ROW_OPS }));
        cx.scratch(count(shape).saturating_mul(8))?;
        if dtype == DType::Bool && matches!(op, Reduction::Max | Reduction::Min) {
            return cx.emit::<u8>(inputs, dtype, out, ops, || {
                let rows = rows_of(inputs.read(0)?, &axes);
                // The least of nothing is the greatest that there is.
                Ok(reduce_rows(&rows.values::<u8>(), n, count_out(shape, &axes), |row| numbers(op, row).min(1)))
            });
        }
        cx.emit_with(inputs, dtype, out, ops, |out| {
            let rows = rows_of(inputs.read(0)?, &axes);
            let total = count_out(shape, &axes);
            if dtype == DType::Float32 && matches!(op, Reduction::Sum | Reduction::Mean) && n > 0 {
                let mut sums = Vec::with_capacity(total);
                sum_rows(&rows.values::<f32>(), n, &mut sums);
                if op == Reduction::Mean {
                    sums.iter_mut().for_each(|x| *x /= n as f32);
                }
                return Ok(Array::new(dtype, out, sums));
            }
            with_floats!(dtype, T => {
                let values = reduce_rows(&rows.values::<T>(), n, total, |row| {
                    let wide: Vec<<T as Real>::Wide> = row.iter().map(|x| x.widen()).collect();
                    T::narrow(floats(op, &wide))
                });
                Ok(Array::new(dtype, out, values))
            }, with_numbers!(dtype, T => {
                let values = reduce_rows(&rows.values::<T>(), n, total, |row| numbers(op, row));
                Ok(Array::new(dtype, out, values))
            }, Err(Stop::unsupported(dtype))))
        })
    })
}

fn count_out(shape: &[usize], axes: &[usize]) -> usize {
    shape.iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, dim)| *dim).product()
}

fn reduce_rows<T: Element, U>(values: &[T], n: usize, rows: usize, f: impl Fn(&[T]) -> U) -> Vec<U> {
    (0..rows).map(|row| f(&values[row * n..(row + 1) * n])).collect()
}

fn floats<W: Wide>(op: Reduction, row: &[W]) -> W {
    match op {
        Reduction::Mean => reduce::sum(row).over(W::from_f64(row.len() as f64)),
        Reduction::L2 => reduce::fold(row, |x: W| x.times(x), W::ZERO, W::plus).sqrt(),
        Reduction::LogSum => reduce::sum(row).log(),
        Reduction::LogSumExp => {
            let max = reduce::max(row);
            // Of infinities there is no difference.
            let shift = if max.is_infinite() { W::ZERO } else { max };
            reduce::fold(row, |x: W| x.minus(shift).exp(), W::ZERO, W::plus).log().plus(shift)
        }
        op => numbers(op, row),
    }
}

fn numbers<T: Number>(op: Reduction, row: &[T]) -> T {
    let length = || crate::engine::numeric::convert::<T>(row.len() as u64);
    match op {
        Reduction::Sum => reduce::sum(row),
        Reduction::Mean => reduce::sum(row).over(length()),
        Reduction::Max => reduce::max(row),
        Reduction::Min => row.iter().fold(T::GREATEST, |best, x| if best.is_nan() || best <= *x { best } else { *x }),
        Reduction::Prod => reduce::fold(row, |x| x, T::ONE, T::times),
        Reduction::L1 => reduce::fold(row, T::magnitude, T::ZERO, T::plus),
        Reduction::SumSquare => reduce::fold(row, |x: T| x.times(x), T::ZERO, T::plus),
        // Logarithms and roots of integers: through float64, cut towards zero.
        Reduction::L2 | Reduction::LogSum | Reduction::LogSumExp => {
            let wide: Vec<f64> = row.iter().map(|x| crate::engine::numeric::to_double(*x)).collect();
            crate::engine::numeric::convert::<T>(floats(op, &wide))
        }
    }
}

fn arg(node: &Node<'_>, greatest: bool) -> Result<Eval, String> {
    let (at, keep, last) = (node.int("axis", 0), node.flag("keepdims", true), node.flag("select_last_index", false));
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        let axis = shapes::axis(at, shape.len())?;
        let mut out = shape.to_vec();
        if keep {
            out[axis] = 1;
        } else {
            out.remove(axis);
        }
        if shape[axis] == 0 {
            return Err(Stop::invalid("there is no element to choose from"));
        }
        let ops = count(shape).saturating_mul(40).saturating_add(rows_ops(shape, &[axis], ROW_OPS / 4));
        with_numbers!(dtype, T => cx.emit::<i64>(inputs, DType::Int64, out, ops, || {
            let rows = rows_of(inputs.read(0)?, &[axis]);
            // NaN counts as greater, or less, than every number.
            let better = |x: T, best: T| {
                if x.is_nan() || best.is_nan() {
                    return x.is_nan() && (last || !best.is_nan());
                }
                let beyond = if greatest { x > best } else { x < best };
                beyond || (last && x == best)
            };
            Ok(reduce_rows(&rows.values::<T>(), shape[axis], count_out(shape, &[axis]), |row| {
                (1..row.len()).fold(0usize, |best, i| if better(row[i], row[best]) { i } else { best }) as i64
            }))
        }), Err(Stop::unsupported(dtype)))
    })
}

/// Up to operator set 12 the input is a matrix of all axes before and all axes from `axis`; then it is along the axis.
fn softmax_op(node: &Node<'_>) -> Result<Eval, String> {
    let old = node.opset < 13;
    let at = node.int("axis", if old { 1 } else { -1 });
    let op = node.op().to_owned();
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        let rank = shape.len();
        let axis = if rank == 0 { 0 } else { shapes::axis(at, rank)? };
        let reduced: Vec<usize> = if old { (axis..rank).collect() } else { (axis..(axis + 1).min(rank)).collect() };
        let weight = match (op.as_str(), dtype) {
            ("Softmax", DType::Float32) => 30,
            ("Hardmax", _) => 300,
            _ => 600,
        };
        if !dtype.is_float() {
            return Err(Stop::unsupported(dtype));
        }
        let ops = count(shape).saturating_mul(weight).saturating_add(rows_ops(shape, &reduced, ROW_OPS / 2));
        cx.scratch(count(shape).saturating_mul(8))?;
        let threads = cx.threads_for(shape, ops);
        cx.emit_with(inputs, dtype, shape.to_vec(), ops, |shape| {
            let array = inputs.owned(0)?;
            let in_order = reduced.last().is_none_or(|axis| axis + 1 == rank);
            let values = if in_order { array } else { rows_of(&array, &reduced) };
            let n: usize = reduced.iter().map(|axis| shape[*axis]).product();
            let turned = values.shape().to_vec();
            let result = if dtype == DType::Float32 && op == "Softmax" {
                let mut values = if values.is_own() { values.into_vec() } else { values.values::<f32>().into_owned() };
                pieces(threads, &mut values, n, &|_, rows| softmax_rows(rows, n));
                Array::new(dtype, turned, values)
            } else {
                with_floats!(dtype, T => {
                    let mut wide: Vec<<T as Real>::Wide> = values.values::<T>().iter().map(|x| x.widen()).collect();
                    for row in wide.chunks_exact_mut(n.max(1)) {
                        match op.as_str() {
                            "Softmax" => softmax(row),
                            "LogSoftmax" => log_softmax(row),
                            _ => hardmax(row),
                        }
                    }
                    Array::new(dtype, turned, wide.into_iter().map(T::narrow).collect::<Vec<T>>())
                }, return Err(Stop::unsupported(dtype)))
            };
            Ok(turn_back(&result, &reduced, rank))
        })
    })
}

/// Undoes the order of axes of [`rows_of`].
pub(super) fn turn_back(array: &Array, reduced: &[usize], rank: usize) -> Array {
    let order: Vec<usize> = (0..rank).filter(|axis| !reduced.contains(axis)).chain(reduced.iter().copied()).collect();
    let mut inverse = vec![0; rank];
    order.iter().enumerate().for_each(|(i, axis)| inverse[*axis] = i);
    if inverse.iter().enumerate().all(|(i, axis)| i == *axis) {
        array.clone()
    } else {
        array.permute(&inverse).contiguous()
    }
}

fn hardmax<W: Wide>(row: &mut [W]) {
    let best = (1..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best });
    row.iter_mut().enumerate().for_each(|(i, x)| *x = if i == best { W::ONE } else { W::ZERO });
}

/// The k greatest or least elements; of equal ones the first. NaN is greater than every number.
fn top_k(node: &Node<'_>) -> Result<Eval, String> {
    let (at, largest) = (node.int("axis", -1), node.flag("largest", true));
    let attribute = node.attribute("k").map(|_| node.int("k", 0));
    eval(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        let axis = shapes::axis(at, shape.len())?;
        let k = match attribute {
            Some(k) => k,
            None => inputs.int(1)?.ok_or_else(|| Stop::invalid("its k is missing"))?,
        };
        let size = shape[axis];
        let k = usize::try_from(k)
            .ok()
            .filter(|k| *k <= size)
            .ok_or_else(|| Stop::invalid(format!("k is {k} of {size}")))?;
        let mut out = shape.to_vec();
        out[axis] = k;
        // Most are only compared; those that are picked are sorted, and a fixed 16 stands for the logarithm.
        let ops = count(shape).saturating_mul(100).saturating_add(count(&out).saturating_mul(16 * 30));
        let ops = ops.saturating_add(rows_ops(shape, &[axis], ROW_OPS));
        cx.scratch(count(shape).saturating_mul(16).saturating_add(count(&out).saturating_mul(16)))?;
        let found = OnceCell::new();
        let order = || -> Result<&(Array, Vec<usize>), Stop> {
            if let Some(found) = found.get() {
                return Ok(found);
            }
            let rows = rows_of(inputs.read(0)?, &[axis]);
            let mut picked = Vec::new();
            with_numbers!(dtype, T => {
                for row in rows.values::<T>().chunks_exact(size.max(1)) {
                    let mut list: Vec<usize> = (0..size).collect();
                    // No two are equal.
                    let order = |a: &usize, b: &usize| {
                        let ascending = compare(row[*a], row[*b]);
                        (if largest { ascending.reverse() } else { ascending }).then(a.cmp(b))
                    };
                    if k > 0 && k < size {
                        list.select_nth_unstable_by(k - 1, order);
                    }
                    list.truncate(k);
                    list.sort_unstable_by(order);
                    picked.append(&mut list);
                }
            }, return Err(Stop::unsupported(dtype)));
            Ok(found.get_or_init(|| (rows, picked)))
        };
        let turned: Vec<usize> = {
            let mut turned: Vec<usize> = (0..shape.len()).filter(|a| *a != axis).map(|a| shape[a]).collect();
            turned.push(k);
            turned
        };
        let rank = shape.len();
        let values = cx.emit_with(inputs, dtype, out.clone(), ops, |_| {
            let (rows, picked) = order()?;
            Ok(with_elements!(dtype, T => {
                let source = rows.values::<T>();
                let values = picked.iter().enumerate().map(|(i, at)| source[i / k.max(1) * size + at]).collect::<Vec<T>>();
                turn_back(&Array::new(dtype, turned.clone(), values), &[axis], rank)
            }, rows.clone()))
        })?;
        let indices = cx.emit_with(inputs, DType::Int64, out, 0, |_| {
            let (_, picked) = order()?;
            let array = Array::new(DType::Int64, turned.clone(), picked.iter().map(|i| *i as i64).collect::<Vec<_>>());
            Ok(turn_back(&array, &[axis], rank))
        })?;
        Ok(vec![values, indices])
    })
}

fn compare<T: Number>(a: T, b: T) -> core::cmp::Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

fn cumulative(node: &Node<'_>, product: bool) -> Result<Eval, String> {
    let (exclusive, reverse) = (node.flag("exclusive", false), node.flag("reverse", false));
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        let at = inputs.int(1)?.ok_or_else(|| Stop::invalid("its axis is missing"))?;
        let axis = shapes::axis(at, shape.len())?;
        // Along the last axis it goes from neighbour to neighbour.
        let ops = count(shape).saturating_mul(if axis + 1 == shape.len() { 20 } else { 250 });
        cx.scratch(if is_half(dtype) { count(shape).saturating_mul(8) } else { 0 })?;
        with_numbers!(dtype, T => cx.emit::<T>(inputs, dtype, shape.to_vec(), ops, || {
            let around = shapes::around(shape, axis);
            if is_half(dtype) {
                // As float32, and each rounded once.
                let mut values = cast(inputs.read(0)?, DType::Float32).into_vec::<f32>();
                accumulate(&mut values, around, (product, exclusive, reverse));
                return Ok(cast(&Array::new(DType::Float32, shape.to_vec(), values), dtype).into_vec());
            }
            let mut values = inputs.values::<T>(0)?.into_owned();
            accumulate(&mut values, around, (product, exclusive, reverse));
            Ok(values)
        }), Err(Stop::unsupported(dtype)))
    })
}

/// Running sums, or products, along an axis of so many elements before, at and behind it.
fn accumulate<T: Number>(
    values: &mut [T],
    (outer, size, inner): (usize, usize, usize),
    (product, exclusive, reverse): (bool, bool, bool),
) {
    for o in 0..outer {
        for i in 0..inner {
            let mut sum = if product { T::ONE } else { T::ZERO };
            for step in 0..size {
                let at = (o * size + if reverse { size - 1 - step } else { step }) * inner + i;
                let x = values[at];
                let next = if product { sum.times(x) } else { sum.plus(x) };
                values[at] = if exclusive { sum } else { next };
                sum = next;
            }
        }
    }
}

/// Distinct slices along an axis, or distinct elements: values, first positions, inverse and counts.
fn unique(node: &Node<'_>) -> Result<Eval, String> {
    let (sorted, at) = (node.flag("sorted", true), node.attribute("axis").map(|_| node.int("axis", 0)));
    eval(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        let axis = at.map(|at| shapes::axis(at, shape.len())).transpose()?;
        let array = inputs.array(0)?;
        // A slice has a layout of its own, however small it is.
        let number = axis.map_or_else(|| count(shape), |axis| shape[axis] as u64);
        cx.scratch(count(shape).saturating_mul(dtype.size() as u64).saturating_add(number.saturating_mul(512)))?;
        // And is compared with some others.
        let depth = u64::from(number.max(1).ilog2()) + 1;
        cx.labour(
            number.saturating_mul(10_000 + 1_500 * depth).saturating_add(count(shape).saturating_mul(64 * depth)),
        )?;
        let slices: Vec<Array> = match axis {
            Some(axis) => (0..shape[axis]).map(|i| array.slice(axis, i, 1, 1).contiguous()).collect(),
            None => {
                let flat = array.contiguous().reshape(vec![array.count()]);
                (0..array.count()).map(|i| flat.slice(0, i, 1, 1).contiguous()).collect()
            }
        };
        let order = |a: &Array, b: &Array| -> core::cmp::Ordering {
            with_elements!(dtype, T => {
                let (a, b) = (a.values::<T>(), b.values::<T>());
                // What is no number is not even comparable to itself: it comes last, all of it together.
                let nan = |x: &T| x.partial_cmp(x).is_none();
                let order = |(x, y): (&T, &T)| x.partial_cmp(y).unwrap_or_else(|| nan(x).cmp(&nan(y)));
                a.iter().zip(b.iter()).map(order).find(|o| o.is_ne()).unwrap_or(core::cmp::Ordering::Equal)
            }, a.texts().cmp(b.texts()))
        };
        let mut by_value: Vec<usize> = (0..slices.len()).collect();
        by_value.sort_by(|a, b| order(&slices[*a], &slices[*b]).then(a.cmp(b)));
        // Groups of equal slices, each by its first member.
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for i in by_value {
            match groups.last_mut() {
                Some(group) if order(&slices[group[0]], &slices[i]).is_eq() => group.push(i),
                _ => groups.push(vec![i]),
            }
        }
        if !sorted {
            groups.sort_by_key(|group| group[0]);
        }
        let mut inverse = vec![0i64; slices.len()];
        groups.iter().enumerate().for_each(|(n, group)| group.iter().for_each(|i| inverse[*i] = n as i64));
        let firsts: Vec<Array> = groups.iter().map(|group| slices[group[0]].clone()).collect();
        let mut out = axis.map_or_else(|| vec![0], |_| shape.to_vec());
        out[axis.unwrap_or(0)] = groups.len();
        let ops = count(&out);
        let values = cx.emit_with(inputs, dtype, out, ops, |out| {
            if firsts.is_empty() {
                return Ok(array.contiguous().reshape(out));
            }
            Ok(super::structure::join(&firsts, axis.unwrap_or(0), out))
        })?;
        let ints = |list: Vec<i64>| Value::Known(Array::ints(list));
        Ok(vec![
            values,
            ints(groups.iter().map(|group| group[0] as i64).collect()),
            ints(inverse),
            ints(groups.iter().map(|group| group.len() as i64).collect()),
        ])
    })
}
