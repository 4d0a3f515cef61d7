//! Pooling.

use super::{
    Parse, eval, is_half, single,
    windows::{Placed, Window},
};
use crate::{
    DType,
    engine::{
        cx::{Cx, Inputs, Stop},
        elements::{with_floats, with_numbers},
        kernels::{
            planes::{Axis, ONE},
            pool::{self, Counts, greater},
            reduce,
        },
        numeric::{Number, Real, Wide},
        program::Eval,
        threads::pieces,
        value::{Value, count},
    },
    onnx::Node,
};

pub(super) fn find(name: &str) -> Option<Parse> {
    Some(match name {
        "MaxPool" => |node, _| max_pool(node),
        "AveragePool" => |node, _| average_pool(node),
        "LpPool" => |node, _| lp_pool(node),
        "GlobalMaxPool" => |_, _| global(reduce::max, reduce::max),
        "GlobalAveragePool" => |_, _| global(mean, mean),
        "GlobalLpPool" => |node, _| global_lp(node),
        "MaxUnpool" => |node, _| max_unpool(node),
        _ => return None,
    })
}

/// Outputs times kernel positions along the axes together, which tables are made of.
const MAX_POSITIONS: usize = 1 << 26;

/// Batch, channels, and the window over what is spatial.
pub(super) fn place(shape: &[usize], window: &Window) -> Result<(Vec<Placed>, Vec<usize>), Stop> {
    let [batch, channels, spatial @ ..] = shape else {
        return Err(Stop::invalid("it takes batch, channels and spatial dimensions"));
    };
    if spatial.is_empty() {
        return Err(Stop::invalid("it takes at least one spatial dimension"));
    }
    let mut placed = window.place(spatial, None)?;
    let positions = placed.iter().map(|p| p.axis.output.saturating_mul(p.axis.kernel));
    if positions.fold(0, usize::saturating_add) > MAX_POSITIONS {
        return Err(Stop::Limit("its window is too large".into()));
    }
    let mut out = vec![*batch, *channels];
    out.extend(placed.iter().map(|p| p.axis.output));
    // A signal is an image of one row.
    if placed.len() == 1 {
        placed.insert(0, Placed { axis: ONE, after: 0 });
    }
    Ok((placed, out))
}

/// Cost of a pooling. `fast`: of float32, in two dimensions, by the greatest or the mean.
pub(super) fn work(out: &[usize], placed: &[Placed], fast: bool) -> u64 {
    let kernel: u64 = placed.iter().map(|p| p.axis.kernel as u64).fold(1, u64::saturating_mul);
    let planes = count(&out[..2]);
    let strided = placed.last().is_some_and(|p| p.axis.stride > 2);
    let (element, beside) = match placed {
        [_, _] if fast => {
            let rows = count(&out[..3]);
            (if strided { 50 } else { 2 }, planes.saturating_mul(600).saturating_add(rows.saturating_mul(250)))
        }
        [_, _] => (60, planes.saturating_mul(6000)),
        _ => (150 + 250 * placed.len() as u64, planes.saturating_mul(500)),
    };
    let tables = (tables(placed) / TABLE_BYTES).saturating_mul(75);
    count(out).saturating_mul(kernel.saturating_mul(element)).saturating_add(beside).saturating_add(tables)
}

/// Bytes of an entry of [`Windows`], and of a count of elements.
const TABLE_BYTES: u64 = 16;

/// Bytes of the tables of a pooling.
pub(super) fn tables(placed: &[Placed]) -> u64 {
    let along = |p: &Placed| count(&[p.axis.output, p.axis.kernel]);
    placed.iter().map(along).fold(0, u64::saturating_add).saturating_mul(TABLE_BYTES)
}

/// The elements under a window at each of its places over a plane.
pub(super) struct Windows<'a> {
    placed: &'a [Placed],
    /// Along each axis the source of each (output, kernel position).
    tables: Vec<Vec<Option<usize>>>,
}

impl<'a> Windows<'a> {
    pub(super) fn new(placed: &'a [Placed]) -> Self {
        let along = |p: &Placed| {
            let pairs = (0..p.axis.output).flat_map(|o| (0..p.axis.kernel).map(move |k| (o, k)));
            pairs.map(|(o, k)| p.axis.source(o, k)).collect()
        };
        Self { placed, tables: placed.iter().map(along).collect() }
    }

    /// For each output position of a plane, in row-major order, the elements in order of the kernel.
    pub(super) fn each(&self, mut each: impl FnMut(&mut dyn Iterator<Item = usize>, usize)) {
        let Self { placed, tables } = self;
        let outputs: usize = placed.iter().map(|p| p.axis.output).product();
        let kernel: usize = placed.iter().map(|p| p.axis.kernel).product();
        if let [rows, columns] = placed {
            // Two dimensions, as nearly always, without divisions.
            let width = columns.axis.input;
            for y in 0..rows.axis.output {
                let ys = &tables[0][y * rows.axis.kernel..(y + 1) * rows.axis.kernel];
                for x in 0..columns.axis.output {
                    let xs = &tables[1][x * columns.axis.kernel..(x + 1) * columns.axis.kernel];
                    let mut elements =
                        ys.iter().flatten().flat_map(|y| xs.iter().flatten().map(move |x| y * width + x));
                    each(&mut elements, y * columns.axis.output + x);
                }
            }
            return;
        }
        for o in 0..outputs {
            let mut elements = (0..kernel).filter_map(|position| {
                let (mut o, mut position, mut at, mut stride) = (o, position, 0, 1);
                for (p, table) in placed.iter().zip(tables).rev() {
                    at += table[o % p.axis.output * p.axis.kernel + position % p.axis.kernel]? * stride;
                    stride *= p.axis.input;
                    o /= p.axis.output;
                    position /= p.axis.kernel;
                }
                Some(at)
            });
            each(&mut elements, o);
        }
    }
}

fn max_pool(node: &Node<'_>) -> Result<Eval, String> {
    let window = Window::new(node)?;
    let with_indices = node.has_output(1);
    let column_major = node.flag("storage_order", false);
    eval(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        let (placed, out) = place(shape, &window)?;
        let fast = dtype == DType::Float32 && !with_indices;
        let ops = work(&out, &placed, fast).saturating_mul(if with_indices { 2 } else { 1 });
        cx.scratch(tables(&placed))?;
        let planes: usize = shape[..2].iter().product();
        let size: usize = shape[2..].iter().product();
        if let ([rows, columns], DType::Float32, false) = (placed.as_slice(), dtype, with_indices) {
            let (rows, columns) = (&rows.axis, &columns.axis);
            let threads = cx.threads_for(&out, ops);
            let pooled = cx.emit_over(inputs, out.clone(), (ops, 0), |result, _| {
                let values = inputs.values::<f32>(0)?;
                each_plane(threads, &values, result, rows, columns, |plane, out| pool::max(plane, rows, columns, out));
                Ok(())
            })?;
            return Ok(vec![pooled]);
        }
        with_numbers!(dtype, T => {
            let mut outputs = vec![cx.emit::<T>(inputs, dtype, out.clone(), ops, || {
                let values = inputs.values::<T>(0)?;
                if let [rows, columns] = placed.as_slice() {
                    let (rows, columns) = (&rows.axis, &columns.axis);
                    let mut result = vec![T::LEAST; out.iter().product()];
                    let planes = planes_of(&values, &mut result, rows, columns);
                    planes.for_each(|(plane, out)| pool::fold(plane, rows, columns, T::LEAST, greater, out));
                    return Ok(result);
                }
                let mut result = Vec::with_capacity(out.iter().product());
                let windows = Windows::new(&placed);
                for plane in 0..planes {
                    let plane = &values[plane * size..(plane + 1) * size];
                    windows.each(|elements, _| {
                        let best = elements.map(|at| plane[at]).fold(T::LEAST, greater);
                        result.push(best);
                    });
                }
                Ok(result)
            })?];
            if with_indices {
                outputs.push(cx.emit::<i64>(inputs, DType::Int64, out.clone(), 0, || {
                    let values = inputs.values::<T>(0)?;
                    let mut result = Vec::with_capacity(out.iter().product());
                    let windows = Windows::new(&placed);
                    for number in 0..planes {
                        let plane = &values[number * size..(number + 1) * size];
                        windows.each(|elements, _| {
                            let mut best: Option<usize> = None;
                            for at in elements {
                                if best.is_none_or(|b| plane[at] > plane[b] || (plane[at].is_nan() && !plane[b].is_nan())) {
                                    best = Some(at);
                                }
                            }
                            let at = best.map_or(0, |at| if column_major { turned(at, &shape[2..]) } else { at });
                            result.push((number * size + at) as i64);
                        });
                    }
                    Ok(result)
                })?);
            }
            Ok(outputs)
        }, Err(Stop::unsupported(dtype)))
    })
}

/// [`planes_of`], several at a time.
fn each_plane<T: Sync, A: Send>(
    threads: usize,
    values: &[T],
    out: &mut [A],
    rows: &Axis,
    columns: &Axis,
    work: impl Fn(&[T], &mut [A]) + Sync,
) {
    let (size, pixels) = (rows.input * columns.input, rows.output * columns.output);
    pieces(threads, out, pixels, &|first, out| {
        let first = first.checked_div(pixels).unwrap_or(0) * size;
        planes_of(&values[first..], out, rows, columns).for_each(|(plane, out)| work(plane, out));
    });
}

/// Planes of the input, each with its plane of the output.
pub(super) fn planes_of<'a, T, A>(
    values: &'a [T],
    out: &'a mut [A],
    rows: &Axis,
    columns: &Axis,
) -> impl Iterator<Item = (&'a [T], &'a mut [A])> {
    let (size, pixels) = (rows.input * columns.input, rows.output * columns.output);
    let planes = out.len().checked_div(pixels).unwrap_or(0);
    (0..planes).map(move |i| &values[i * size..(i + 1) * size]).zip(out.chunks_exact_mut(pixels.max(1)))
}

/// A row-major position as a column-major one.
fn turned(mut at: usize, shape: &[usize]) -> usize {
    let mut strides = vec![1; shape.len()];
    for i in 1..shape.len() {
        strides[i] = strides[i - 1] * shape[i - 1];
    }
    let mut out = 0;
    for (size, stride) in shape.iter().zip(&strides).rev() {
        out += at % size * stride;
        at /= size;
    }
    out
}

/// The sum of a window in order of the kernel, divided by its count; with `count_include_pad` the padding counts as
/// zeros, as far as it belongs to the input.
fn average_pool(node: &Node<'_>) -> Result<Eval, String> {
    let window = Window::new(node)?;
    let include = node.flag("count_include_pad", false);
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        let (placed, out) = place(shape, &window)?;
        let ops = work(&out, &placed, dtype == DType::Float32);
        // However large its planes are, there may be none.
        if count(&out) > 0 {
            let pixels = placed.iter().map(|p| p.axis.output as u64).fold(1, u64::saturating_mul);
            cx.scratch(tables(&placed).saturating_add(pixels.saturating_mul(12)))?;
        }
        let planes: usize = shape[..2].iter().product();
        let size: usize = shape[2..].iter().product();
        if let ([rows, columns], DType::Float32) = (placed.as_slice(), dtype) {
            let (rows, columns) = (&rows.axis, &columns.axis);
            let threads = cx.threads_for(&out, ops);
            return cx.emit_over(inputs, out.clone(), (ops, 0), |result, _| {
                if result.is_empty() {
                    // However large its planes are.
                    return Ok(());
                }
                let values = inputs.values::<f32>(0)?;
                let counts = if include { padded_counts(&placed) } else { inner_counts(&placed) };
                let counts = Counts::new(counts.into_iter().map(|count| count as f64 as f32).collect());
                each_plane(threads, &values, result, rows, columns, |plane, out| {
                    pool::mean(plane, rows, columns, &counts, out);
                });
                Ok(())
            });
        }
        with_floats!(dtype, T => cx.emit::<T>(inputs, dtype, out.clone(), ops, || {
            let values = inputs.values::<T>(0)?;
            if count(&out) == 0 {
                return Ok(vec![]);
            }
            let counts = if include { padded_counts(&placed) } else { vec![] };
            let mut result = Vec::with_capacity(out.iter().product());
            let windows = Windows::new(&placed);
            for plane in 0..planes {
                let plane = &values[plane * size..(plane + 1) * size];
                windows.each(|elements, position| {
                    let zero = <<T as Real>::Wide as Number>::ZERO;
                    let (sum, count) = elements.fold((zero, 0usize), |(sum, n), at| (sum.plus(plane[at].widen()), n + 1));
                    let count = if include { counts[position] } else { count.max(1) };
                    result.push(T::narrow(sum.over(<<T as Real>::Wide as Wide>::from_f64(count as f64))));
                });
            }
            Ok(result)
        }), Err(Stop::unsupported(dtype)))
    })
}

/// For each output the elements of its window that lie in the padded input.
pub(super) fn padded_counts(placed: &[Placed]) -> Vec<usize> {
    let along: Vec<Vec<usize>> = placed
        .iter()
        .map(|p| {
            let padded = p.axis.input + p.axis.before + p.after;
            let inside =
                |o: usize| (0..p.axis.kernel).filter(|k| o * p.axis.stride + k * p.axis.dilation < padded).count();
            (0..p.axis.output).map(inside).collect()
        })
        .collect();
    along.iter().fold(vec![1], |counts, axis| counts.iter().flat_map(|c| axis.iter().map(move |n| c * n)).collect())
}

/// For each output the elements of its window that are no padding, at least one.
pub(super) fn inner_counts(placed: &[Placed]) -> Vec<usize> {
    let along = placed.iter().map(|p| {
        let inside = |o: usize| (0..p.axis.kernel).filter(|k| p.axis.source(o, *k).is_some()).count();
        (0..p.axis.output).map(inside).collect::<Vec<usize>>()
    });
    let counts =
        along.fold(vec![1], |counts, axis| counts.iter().flat_map(|c| axis.iter().map(move |n| c * n)).collect());
    counts.into_iter().map(|count: usize| count.max(1)).collect()
}

/// The p-norm of a window.
fn lp_pool(node: &Node<'_>) -> Result<Eval, String> {
    let window = Window::new(node)?;
    let p = node.int("p", 2);
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        let (placed, out) = place(shape, &window)?;
        // Powers are taken by the exponential function and the logarithm.
        let power = match (p, dtype) {
            (1 | 2, _) => 4,
            (_, DType::Float64) => 1500,
            _ => 300,
        };
        let kernel: u64 = placed.iter().map(|p| p.axis.kernel as u64).fold(1, u64::saturating_mul);
        let powers = count(&out).saturating_mul(kernel.saturating_mul(power));
        let ops = work(&out, &placed, false).saturating_add(powers);
        cx.scratch(tables(&placed))?;
        let planes: usize = shape[..2].iter().product();
        let size: usize = shape[2..].iter().product();
        with_floats!(dtype, T => cx.emit::<T>(inputs, dtype, out.clone(), ops, || {
            let values = inputs.values::<T>(0)?;
            let mut result = Vec::with_capacity(out.iter().product());
            let windows = Windows::new(&placed);
            for plane in 0..planes {
                let plane = &values[plane * size..(plane + 1) * size];
                windows.each(|elements, _| result.push(T::narrow(norm(elements.map(|at| plane[at].widen()), p))));
            }
            Ok(result)
        }), Err(Stop::unsupported(dtype)))
    })
}

fn norm<W: Wide>(elements: impl Iterator<Item = W>, p: i64) -> W {
    let power = W::from_f64(p as f64);
    match p {
        1 => elements.fold(W::ZERO, |sum, x| sum.plus(x.magnitude())),
        2 => elements.fold(W::ZERO, |sum, x| sum.plus(x.times(x))).sqrt(),
        _ => elements.fold(W::ZERO, |sum, x| sum.plus(x.magnitude().pow(power))).pow(W::ONE.over(power)),
    }
}

fn mean<W: Wide>(row: &[W]) -> W {
    reduce::sum(row).over(W::from_f64(row.len() as f64))
}

fn global(single_row: fn(&[f32]) -> f32, double_row: fn(&[f64]) -> f64) -> Result<Eval, String> {
    single(move |cx, inputs| global_rows(cx, inputs, 2, single_row, double_row))
}

fn global_rows(
    cx: &mut Cx<'_>,
    inputs: &Inputs<'_>,
    weight: u64,
    single_row: impl Fn(&[f32]) -> f32,
    double_row: impl Fn(&[f64]) -> f64,
) -> Result<Value, Stop> {
    let (dtype, shape) = inputs.ty(0)?;
    if shape.len() < 2 {
        return Err(Stop::invalid("it takes batch, channels and spatial dimensions"));
    }
    let (planes, size) = (shape[..2].iter().product::<usize>(), shape[2..].iter().product::<usize>());
    let out: Vec<usize> = shape.iter().enumerate().map(|(i, dim)| if i < 2 { *dim } else { 1 }).collect();
    let converted = if is_half(dtype) { 60 } else { 4 };
    let ops = count(shape).saturating_mul(weight + converted).saturating_add(count(&shape[..2]).saturating_mul(600));
    if dtype == DType::Float64 {
        return cx.emit::<f64>(inputs, dtype, out, ops, || {
            let values = inputs.values::<f64>(0)?;
            Ok((0..planes).map(|i| double_row(&values[i * size..(i + 1) * size])).collect())
        });
    }
    with_floats!(dtype, T => cx.emit::<T>(inputs, dtype, out, ops, || {
        let values: Vec<f32> = inputs.values::<T>(0)?.iter().map(|x| x.widen() as f32).collect();
        Ok((0..planes).map(|i| T::narrow(single_row(&values[i * size..(i + 1) * size]).into())).collect())
    }), Err(Stop::unsupported(dtype)))
}

fn global_lp(node: &Node<'_>) -> Result<Eval, String> {
    let p = node.int("p", 2);
    single(move |cx, inputs| {
        let weight = match (p, inputs.dtype(0)?) {
            (1 | 2, _) => 8,
            (_, DType::Float64) => 1500,
            _ => 300,
        };
        global_rows(cx, inputs, weight, |row| norm(row.iter().copied(), p), |row| norm(row.iter().copied(), p))
    })
}

/// Puts each element where its index says in a tensor of zeros.
fn max_unpool(node: &Node<'_>) -> Result<Eval, String> {
    let kernel = node.sizes("kernel_shape")?.ok_or("its kernel_shape is missing")?;
    let (strides, pads) = (node.sizes("strides")?, node.sizes("pads")?);
    if kernel.iter().chain(strides.iter().flatten()).chain(pads.iter().flatten()).any(|x| *x > 1 << 31) {
        return Err("its window is too large".into());
    }
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        let rank = kernel.len();
        let (ones, zeros) = (vec![1; rank], vec![0; 2 * rank]);
        let (strides, pads) = (strides.as_ref().unwrap_or(&ones), pads.as_ref().unwrap_or(&zeros));
        if shape.len() != rank + 2 || strides.len() != rank || pads.len() != 2 * rank {
            return Err(Stop::invalid("its window has other dimensions than its input"));
        }
        if inputs.shape(1)? != shape {
            return Err(Stop::invalid("its indices do not fit its input"));
        }
        let mut natural = shape[..2].to_vec();
        for i in 0..rank {
            let size = (shape[i + 2].max(1) - 1) * strides[i] + kernel[i];
            natural.push(
                size.checked_sub(pads[i] + pads[i + rank]).ok_or_else(|| Stop::invalid("its pads leave nothing"))?,
            );
        }
        let out = match inputs.has(2) {
            true => super::structure::sizes(inputs, 2)?,
            false => natural.clone(),
        };
        if out.len() != natural.len() {
            return Err(Stop::invalid("its output shape has another rank"));
        }
        let ops = count(&out).saturating_add(count(shape).saturating_mul(100 + 150 * rank as u64));
        cx.scratch(count(shape).saturating_mul(8))?;
        with_numbers!(dtype, T => cx.emit::<T>(inputs, dtype, out.clone(), ops, || {
            let values = inputs.values::<T>(0)?;
            let indices = inputs.read(1)?.to_ints().ok_or("its indices must be integers")?;
            let mut result = vec![T::ZERO; out.iter().product()];
            let own = crate::engine::layout::strides(&out);
            for (x, at) in values.iter().zip(indices) {
                // The index counts in the natural shape.
                let mut rest = usize::try_from(at).map_err(|_| "an index is negative")?;
                let mut place = 0;
                for (axis, size) in natural.iter().enumerate().rev() {
                    place += rest % (*size).max(1) * own[axis];
                    rest /= (*size).max(1);
                }
                *result.get_mut(place).ok_or("an index is out of bounds")? = *x;
            }
            Ok(result)
        }), Err(Stop::unsupported(dtype)))
    })
}
