//! Convolutions.

use std::sync::Arc;

use super::{
    Parse, conv_transpose, dequantized,
    integer::{byte_zero, centred},
    quant::{self, check_single, column_factors},
    single,
    windows::Window,
};
use crate::{
    DType,
    engine::{
        array::Array,
        cx::{Cx, Inputs, MAX_RUN_BYTES, Stop, threads_within},
        elements::{Element, with_floats, with_integers},
        kernels::{
            conv::{Convolution, Requantised, Weights},
            planes::{Axis, Geometry, Pixel},
            product::{Sum, product},
            quant::{Byte, scale_row},
            term::Pair,
        },
        numeric::Real,
        program::Eval,
        spare,
        threads::pieces,
        value::count,
    },
    onnx::Node,
};

pub(super) fn find(name: &str) -> Option<Parse> {
    Some(match name {
        "Conv" => |node, _| conv(node),
        "ConvInteger" => |node, _| integer(node, false),
        "QLinearConv" => |node, _| integer(node, true),
        "ConvTranspose" => |node, _| conv_transpose::transposed(node),
        _ => return None,
    })
}

pub(super) fn groups(node: &Node<'_>) -> Result<usize, String> {
    usize::try_from(node.int("group", 1)).ok().filter(|g| *g > 0).ok_or_else(|| "its group must be positive".to_owned())
}

/// The sizes of a convolution, and the shape of its output.
fn geometry(x: &[usize], w: &[usize], window: &Window, groups: usize) -> Result<(Geometry, Vec<usize>), Stop> {
    let wrong = || Stop::invalid(format!("weights {w:?} do not fit {x:?} in {groups} groups"));
    let ([batch, channels, spatial @ ..], [outputs, in_group, kernel @ ..]) = (x, w) else { return Err(wrong()) };
    // Without channels there may be groups without end.
    if spatial.len() != kernel.len()
        || spatial.is_empty()
        || *channels == 0
        || in_group.checked_mul(groups) != Some(*channels)
        || outputs % groups != 0
        || kernel.contains(&0)
    {
        return Err(wrong());
    }
    let axes: Vec<Axis> = window.place(spatial, Some(kernel))?.into_iter().map(|placed| placed.axis).collect();
    let mut out = vec![*batch, *outputs];
    out.extend(axes.iter().map(|axis| axis.output));
    let geometry = Geometry { groups, channels: *channels, outputs: *outputs, axes };
    // Whatever computes it: no size that follows from these overflows.
    if geometry.scratch() > MAX_RUN_BYTES {
        return Err(Stop::Limit(format!("a convolution needs more than {MAX_RUN_BYTES} bytes")));
    }
    Ok((geometry, out))
}

/// Cost of an element of padding: to be cleared, where there is so much of it that it goes to memory.
const PADDING_OPS: u64 = 16;

/// Cost of a group of an image, of a channel, and of a row of one that is laid out for the kernel, however small.
const GROUP_OPS: u64 = 4000;
const CHANNEL_OPS: u64 = 2000;
const ROW_OPS: u64 = 100;
/// Cost of a multiply-add of what is no float32, and of an element of a patch: once, and for each dimension.
const PLAIN_OPS: u64 = 100;
const PATCH_OPS: u64 = 50;

/// Multiply-adds, and the padded planes that they read.
fn ops(g: &Geometry, out: &[usize]) -> u64 {
    let each = ((g.channels / g.groups) as u64).saturating_mul(g.kernel() as u64);
    // Rows of weights fill the kernel six at a time: few of them cost more each.
    let few = if g.outputs / g.groups < 4 { 3 } else { 1 };
    let batch = out.first().copied().unwrap_or(0) as u64;
    let planes = g.filling().saturating_add(g.padding().saturating_mul(PADDING_OPS));
    let planes = planes.saturating_add(overhead(g));
    count(out).saturating_mul(each).saturating_mul(few).saturating_add(batch.saturating_mul(planes))
}

/// What the groups, the channels and their rows cost. Of more than two dimensions the outer ones are gone through one by one.
fn overhead(g: &Geometry) -> u64 {
    let (outer, inner) = g.axes.split_at(g.axes.len().saturating_sub(2));
    let outputs: u64 = outer.iter().map(|axis| axis.output as u64).fold(g.groups as u64, u64::saturating_mul);
    let inputs: u64 = outer.iter().map(|axis| axis.input as u64).fold(g.channels as u64, u64::saturating_mul);
    let rows = if let [rows, columns] = inner { (rows.input as u64).saturating_mul(columns.stride as u64) } else { 1 };
    let channel = rows.saturating_mul(ROW_OPS).saturating_add(CHANNEL_OPS);
    outputs.saturating_mul(GROUP_OPS).saturating_add(inputs.saturating_mul(channel))
}

/// What a convolution costs of other types than float32, besides [`ops`].
fn plain_ops(g: &Geometry, out: &[usize]) -> u64 {
    let macs = count(out).saturating_mul((g.in_group() as u64).saturating_mul(g.kernel() as u64));
    let patch = PATCH_OPS.saturating_mul(2 * g.axes.len() as u64 + g.in_group() as u64 * g.groups as u64);
    let patches = count(&[g.kernel(), g.pixels()]).saturating_mul(patch);
    let batch = out.first().copied().unwrap_or(0) as u64;
    macs.saturating_mul(PLAIN_OPS).saturating_add(patches.saturating_mul(batch))
}

/// Constant weights of float32, laid out when the model is compiled.
fn weights(node: &Node<'_>, groups: usize) -> Option<Arc<Weights<f32>>> {
    let array = node.constant(1).filter(|array| array.dtype() == DType::Float32)?;
    let shape = array.shape();
    if shape.len() < 3 || shape[0] % groups != 0 {
        return None;
    }
    let slot = node.slots.get(1).copied().flatten()?;
    node.packs.weights((slot, groups), shape, || Weights::new(&array.values(), shape, groups))
}

/// Admits what weights take that are laid out in a run, and tells what that costs.
fn layout(cx: &mut Cx<'_>, w: &[usize]) -> Result<u64, Stop> {
    // Of integers there are those minus their zero points, those of 16 bits, pairs of them, and pairs in order.
    cx.scratch(count(w).saturating_mul(16))?;
    Ok(count(w).saturating_mul(16))
}

fn conv(node: &Node<'_>) -> Result<Eval, String> {
    let (window, groups) = (Window::new(node)?, groups(node)?);
    let constant = weights(node, groups);
    let rectified = node.rectified;
    single(move |cx, inputs| {
        let ((dtype, x), (right, w)) = (inputs.ty(0)?, inputs.ty(1)?);
        if dtype != right {
            return Err(Stop::invalid("its input and weights have different types"));
        }
        let (g, out) = geometry(x, w, &window, groups)?;
        if inputs.has(2) && inputs.shape(2)? != [g.outputs] {
            return Err(Stop::invalid("its bias does not fit its weights"));
        }
        let layout = if constant.is_none() { layout(cx, w)? } else { 0 };
        let ops = ops(&g, &out).saturating_add(count(&out)).saturating_add(count(x)).saturating_add(layout);
        if dtype == DType::Float32 {
            cx.scratch(g.scratch())?;
            let threads = cx.threads_for(&out, ops);
            return cx.emit_over(inputs, out, (ops, 0), |out, _| {
                if out.is_empty() {
                    return Ok(());
                }
                let x = inputs.values::<f32>(0)?;
                let weights = match &constant {
                    Some(weights) => weights.clone(),
                    None => Arc::new(Weights::new(&inputs.values::<f32>(1)?, w, groups)),
                };
                let bias = if inputs.has(2) { inputs.values::<f32>(2)? } else { Default::default() };
                images(&x, &g, threads, out, |images, threads| {
                    spare::lend(Convolution::<f32>::planes(&g), |planes| {
                        let mut convolution = Convolution::with(&g, planes);
                        for (image, out) in images {
                            convolution.run(image, &weights, (&bias, rectified), out, threads);
                        }
                    });
                });
                Ok(())
            });
        }
        let ops = ops.saturating_add(plain_ops(&g, &out));
        cx.scratch(plain_bytes(&g).saturating_add(count(x).saturating_add(count(w)).saturating_mul(8)))?;
        with_floats!(dtype, T => cx.emit::<T>(inputs, dtype, out, ops, || {
            let wide = |index: usize| -> Result<Vec<<T as Real>::Wide>, Stop> {
                Ok(inputs.values::<T>(index)?.iter().map(|x| x.widen()).collect())
            };
            let bias = if inputs.has(2) { wide(2)? } else { vec![] };
            let mut sums = plain(&wide(0)?, &wide(1)?, &g, x[0])?;
            if !bias.is_empty() {
                let pixels = g.pixels().max(1);
                sums.iter_mut().enumerate().for_each(|(i, sum)| *sum += bias[i / pixels % g.outputs]);
            }
            let floor = |x: T| if rectified && x < T::ZERO { T::ZERO } else { x };
            Ok(sums.into_iter().map(T::narrow).map(floor).collect())
        }), Err(Stop::unsupported(dtype)))
    })
}

/// Each image by itself, in lists: `run` gets one, and how many threads are for it.
fn images<P: Sync, O: Send>(
    x: &[P],
    g: &Geometry,
    threads: usize,
    out: &mut [O],
    run: impl Fn(&mut dyn Iterator<Item = (&[P], &mut [O])>, usize) + Sync,
) {
    let (size, each) = (g.channels * g.input_pixels(), g.outputs * g.pixels());
    // Without outputs there is nothing to do.
    let batch = out.len().checked_div(each).unwrap_or(0);
    // A thread for each of many images, or several for each of few.
    let alone = threads.checked_div(batch).unwrap_or(0).max(1);
    pieces(threads_within(threads, g.scratch()), out, each, &|first, out| {
        let first = first.checked_div(each).unwrap_or(0);
        let images = (first..).zip(out.chunks_exact_mut(each.max(1)));
        run(&mut images.map(|(i, out)| (&x[i * size..(i + 1) * size], out)), alone);
    });
}

/// [`images`] of bytes with a zero point; see [`Requantised::run`].
fn sums_of_images<P: Pixel<Term = Pair> + Sync, O: Send>(
    x: &[P],
    zero: i16,
    weights: &Weights<Pair>,
    g: &Geometry,
    threads: usize,
    out: &mut [O],
    finish: impl Fn(usize, &[i32], &mut [O]) + Sync,
) {
    images(x, g, threads, out, |images, threads| {
        let mut convolution = Requantised::new(g);
        images.for_each(|(image, out)| convolution.run(image, zero, weights, out, threads, &finish));
    });
}

/// Bytes of the table of [`plain`], and of its patches, at most.
fn plain_bytes(g: &Geometry) -> u64 {
    let each = size_of::<Option<usize>>() + g.in_group() * size_of::<f64>();
    count(&[g.kernel(), g.pixels(), each])
}

/// The same for other types: patches are written out, the product is the plain one.
fn plain<T: Sum>(x: &[T], w: &[T], g: &Geometry, batch: usize) -> Result<Vec<T>, Stop> {
    let (size, pixels, kernel) = (g.input_pixels(), g.pixels(), g.kernel());
    let (in_group, out_group) = (g.channels / g.groups, g.outputs / g.groups);
    let k = in_group * kernel;
    // For each kernel position and output the element that is met.
    let table: Vec<Option<usize>> = (0..kernel)
        .flat_map(|position| (0..pixels).map(move |pixel| (position, pixel)))
        .map(|(mut position, mut pixel)| {
            let (mut at, mut stride) = (0, 1);
            for axis in g.axes.iter().rev() {
                at += axis.source(pixel % axis.output, position % axis.kernel)? * stride;
                stride *= axis.input;
                pixel /= axis.output;
                position /= axis.kernel;
            }
            Some(at)
        })
        .collect();
    let mut out = vec![T::ZERO; batch * g.outputs * pixels];
    let mut patches = vec![T::ZERO; k * pixels];
    for image in 0..batch {
        for group in 0..g.groups {
            for c in 0..in_group {
                let channel = &x[(image * g.channels + group * in_group + c) * size..][..size];
                let lines = &mut patches[c * kernel * pixels..(c + 1) * kernel * pixels];
                lines.iter_mut().zip(&table).for_each(|(slot, at)| *slot = at.map_or(T::ZERO, |at| channel[at]));
            }
            let rows = &w[group * out_group * k..(group + 1) * out_group * k];
            let first = (image * g.outputs + group * out_group) * pixels;
            product(rows, &patches, k, pixels, &mut out[first..first + out_group * pixels]);
        }
    }
    Ok(out)
}

/// The weights of an integer convolution minus their zero points (one for each output, or one for all), as int32.
fn centred_weights(w: &Array, zero: Option<&Array>) -> Result<Vec<i32>, Stop> {
    // As a matrix of one row for each output.
    let outputs = w.shape().first().copied().unwrap_or(0);
    let row = w.shape().iter().skip(1).product();
    centred(&w.contiguous().reshape(vec![outputs, row]), zero, 0)
}

/// The same laid out; `None` when a number has more than 16 bits.
fn integer_weights(w: &Array, zero: Option<&Array>, groups: usize) -> Option<Weights<Pair>> {
    let centred = centred_weights(w, zero).ok()?;
    let narrow = centred.into_iter().map(|x| i16::try_from(x).ok()).collect::<Option<Vec<i16>>>()?;
    Some(Weights::pairs(&narrow, w.shape(), groups))
}

/// Constant weights with a constant zero point, laid out when the model is compiled.
fn constant_weights(node: &Node<'_>, groups: usize, at: usize, zero_at: usize) -> Option<Arc<Weights<Pair>>> {
    let array = node.constant(at)?;
    let zero = node.constant(zero_at);
    if array.shape().len() < 3 || array.shape()[0] % groups != 0 || (zero.is_none() && node.has_input(zero_at)) {
        return None;
    }
    let slot = |index: usize| node.slots.get(index).copied().flatten();
    node.packs
        .integer_weights((slot(at)?, groups, slot(zero_at)), array.shape(), || integer_weights(array, zero, groups))
}

/// The zero point of an image of bytes, and weights of 16 bits.
type Narrow = (i16, Arc<Weights<Pair>>);

/// Sums of centred integers, exact in int32; for `QLinearConv` scaled back.
fn integer(node: &Node<'_>, scaled: bool) -> Result<Eval, String> {
    let (window, groups) = (Window::new(node)?, groups(node)?);
    let (w_at, x_zero, w_zero) = if scaled { (3, 2, 5) } else { (1, 2, 3) };
    let constant = constant_weights(node, groups, w_at, w_zero);
    single(move |cx, inputs| {
        let (g, out) = geometry(inputs.shape(0)?, inputs.shape(w_at)?, &window, groups)?;
        check_single(inputs, if scaled { &[1, 2, 6, 7] } else { &[2] })?;
        for index in if scaled { &[4, 5][..] } else { &[3] } {
            if inputs.has(*index) && !matches!(inputs.count(*index)?, n if n == 1 || n == g.outputs as u64) {
                return Err(Stop::invalid(format!("its input {index} is not one number, or one for each output")));
            }
        }
        let to = if scaled { inputs.dtype(7)? } else { DType::Int32 };
        let layout = if constant.is_none() { layout(cx, inputs.shape(w_at)?)? } else { 0 };
        let ops = ops(&g, &out).saturating_add(count(&out).saturating_mul(8)).saturating_add(layout);
        let (threads, total) = (cx.threads_for(&out, ops), count(&out) as usize);
        cx.scratch(g.scratch())?;
        for index in [0, x_zero, w_at, w_zero] {
            if inputs.has(index) && !matches!(inputs.dtype(index)?, DType::Int8 | DType::Uint8) {
                return Err(Stop::unsupported(inputs.dtype(index)?));
            }
        }
        let zero = |index: usize| if inputs.has(index) { inputs.read(index).map(Some) } else { Ok(None) };
        let narrow = || -> Result<Narrow, Stop> {
            let wide = || Stop::invalid("its zero points do not fit");
            let x_zero = byte_zero(inputs.read(0)?, zero(x_zero)?).ok_or_else(wide)?;
            let weights = match &constant {
                Some(weights) => weights.clone(),
                None => Arc::new(integer_weights(inputs.read(w_at)?, zero(w_zero)?, groups).ok_or_else(wide)?),
            };
            Ok((x_zero, weights))
        };
        let sums = || -> Result<Vec<i32>, Stop> {
            if total == 0 {
                return Ok(vec![]);
            }
            let (zero, weights) = narrow()?;
            let copy = |_: usize, sums: &[i32], out: &mut [i32]| out.copy_from_slice(sums);
            let mut out = vec![0; total];
            let array = inputs.read(0)?;
            match array.dtype() {
                DType::Int8 => sums_of_images(&array.values::<i8>(), zero, &weights, &g, threads, &mut out, copy),
                _ => sums_of_images(&array.values::<u8>(), zero, &weights, &g, threads, &mut out, copy),
            }
            Ok(out)
        };
        if !scaled {
            return cx.emit::<i32>(inputs, to, out, ops, sums);
        }
        let scales = || Requantized::new(inputs, &g);
        match to {
            DType::Uint8 => {
                cx.emit::<u8>(inputs, to, out, ops, || scales()?.bytes(inputs, narrow()?, &g, (total, threads)))
            }
            DType::Int8 => {
                cx.emit::<i8>(inputs, to, out, ops, || scales()?.bytes(inputs, narrow()?, &g, (total, threads)))
            }
            _ => with_integers!(to, T => cx.emit::<T>(inputs, to, out, ops, || {
                Ok(scales()?.plain(&sums()?, &g, to).map(|x| x as T).collect())
            }), Err(Stop::unsupported(to))),
        }
    })
}

/// A convolution of dequantised images and weights: see `dequantized.rs`.
pub(super) fn dequantized(node: &Node<'_>) -> Result<Eval, String> {
    let (window, groups) = (Window::new(node)?, groups(node)?);
    let constant = constant_weights(node, groups, 3, 5);
    single(move |cx, inputs| {
        dequantized::check(inputs)?;
        let (g, out) = geometry(inputs.shape(0)?, inputs.shape(3)?, &window, groups)?;
        if inputs.has(6) && inputs.shape(6)? != [g.outputs] {
            return Err(Stop::invalid("its bias does not fit its weights"));
        }
        check_single(inputs, &[1, 2])?;
        let layout = if constant.is_none() { layout(cx, inputs.shape(3)?)? } else { 0 };
        let ops = ops(&g, &out).saturating_add(count(&out).saturating_mul(4)).saturating_add(layout);
        let threads = cx.threads_for(&out, ops);
        cx.scratch(g.scratch())?;
        cx.emit_over(inputs, out, (ops, 0), |out, _| {
            if out.is_empty() {
                return Ok(());
            }
            let wide = || Stop::invalid("its zero points do not fit");
            let x = inputs.read(0)?;
            let zero = byte_zero(x, Some(inputs.read(2)?)).ok_or_else(wide)?;
            let weights = match &constant {
                Some(weights) => weights.clone(),
                None => {
                    let zeros = if inputs.has(5) { Some(inputs.read(5)?) } else { None };
                    Arc::new(integer_weights(inputs.read(3)?, zeros, groups).ok_or_else(wide)?)
                }
            };
            let factors = column_factors(inputs, 1.0, g.outputs)?;
            let bias = if inputs.has(6) { inputs.values::<f32>(6)? } else { Default::default() };
            let finish = |o: usize, sums: &[i32], out: &mut [f32]| {
                scale_row(sums, factors[o], bias.get(o).copied(), out);
            };
            match x.dtype() {
                DType::Int8 => sums_of_images(&x.values::<i8>(), zero, &weights, &g, threads, out, finish),
                _ => sums_of_images(&x.values::<u8>(), zero, &weights, &g, threads, out, finish),
            }
            Ok(())
        })
    })
}

/// How the sums of a `QLinearConv` become its output.
struct Requantized {
    /// By output: x_scale · w_scale / y_scale.
    factors: Vec<f32>,
    bias: Vec<i32>,
    zero: i64,
}

impl Requantized {
    fn new(inputs: &Inputs<'_>, g: &Geometry) -> Result<Self, Stop> {
        let list = |index: usize| inputs.read(index).map(|array| array.to_doubles().unwrap_or_default());
        let (x_scale, w_scale, y_scale) = (list(1)?, list(4)?, list(6)?);
        let one = |list: &[f64]| list.first().copied().ok_or_else(|| Stop::invalid("a scale is missing"));
        let (x_scale, y_scale) = (one(&x_scale)? as f32, one(&y_scale)? as f32);
        if w_scale.len() != 1 && w_scale.len() != g.outputs {
            return Err(Stop::invalid("its scales do not fit its weights"));
        }
        let zero = inputs.read(7)?.to_ints().unwrap_or_default().first().copied().unwrap_or(0);
        let bias = if inputs.has(8) { inputs.read(8)?.to_ints().unwrap_or_default() } else { vec![0; g.outputs] };
        if bias.len() != g.outputs {
            return Err(Stop::invalid("its bias does not fit its weights"));
        }
        let factor = |o: usize| x_scale * w_scale[if w_scale.len() == 1 { 0 } else { o }] as f32 / y_scale;
        Ok(Self {
            factors: (0..g.outputs).map(factor).collect(),
            bias: bias.into_iter().map(|x| x as i32).collect(),
            zero,
        })
    }

    fn bytes<T: Byte + Element>(
        &self,
        inputs: &Inputs<'_>,
        (x_zero, weights): Narrow,
        g: &Geometry,
        (total, threads): (usize, usize),
    ) -> Result<Vec<T>, Stop> {
        if total == 0 {
            return Ok(vec![]);
        }
        let zero = self.zero as i32;
        let finish = |o: usize, sums: &[i32], out: &mut [T]| {
            T::requantize(sums, self.bias[o], self.factors[o], zero, out);
        };
        let array = inputs.read(0)?;
        let mut out = vec![T::default(); total];
        match array.dtype() {
            DType::Int8 => sums_of_images(&array.values::<i8>(), x_zero, &weights, g, threads, &mut out, finish),
            _ => sums_of_images(&array.values::<u8>(), x_zero, &weights, g, threads, &mut out, finish),
        }
        Ok(out)
    }

    fn plain(&self, sums: &[i32], g: &Geometry, to: DType) -> impl Iterator<Item = i64> {
        let pixels = g.pixels().max(1);
        sums.iter().enumerate().map(move |(i, sum)| {
            let o = i / pixels % g.outputs;
            quant::saturate(sum.wrapping_add(self.bias[o]) as f32 * self.factors[o], self.zero, to)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_paid_for() {
        let axis =
            |input, dilation, pads: usize, output| Axis { input, kernel: 3, stride: 1, dilation, before: pads, output };
        let geometry = |axis: Axis| Geometry { groups: 1, channels: 5, outputs: 8, axes: vec![axis, axis] };
        let plain = |g: &Geometry, out: &[usize]| count(out) * 5 * 9 + (g.filling() + overhead(g)) * out[0] as u64;
        // Nothing but the image, all of it or not; a border of one; and three kernel rows a thousand apart.
        for (axis, padding) in [
            (axis(28, 1, 0, 26), 0),
            (axis(28, 1, 0, 20), 0),
            (axis(28, 1, 1, 28), 30 * 30 - 28 * 28),
            (axis(1, 1 << 10, 1 << 10, 1), (2049 * 2049) - 1),
        ] {
            let (g, out) = (geometry(axis), [7, 8, axis.output, axis.output]);
            assert_eq!(ops(&g, &out) - plain(&g, &out), 7 * 5 * padding * PADDING_OPS, "{axis:?}");
        }
    }
}
