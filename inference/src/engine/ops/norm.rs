//! Normalisations and losses.

use super::{
    Parse, eval, is_half,
    reduce::{ROW_OPS, rows_of, rows_ops, turn_back},
    shapes, single,
};
use crate::{
    DType,
    engine::{
        array::Array,
        cx::{Cx, Inputs, Stop},
        elements::with_floats,
        kernels::reduce::{self, layer_norm_rows, log_softmax},
        numeric::{Number, Real, Wide},
        program::Eval,
        threads::pieces,
        value::{Value, count},
    },
    onnx::Node,
};

pub(super) fn find(name: &str) -> Option<Parse> {
    Some(match name {
        "BatchNormalization" => |node, _| batch_norm(node),
        "InstanceNormalization" => |node, _| instance_norm(node),
        "GroupNormalization" => |node, _| group_norm(node),
        "LayerNormalization" => |node, _| layer_norm(node),
        "RMSNormalization" => |node, _| rms_norm(node),
        "LpNormalization" => |node, _| lp_norm(node),
        "MeanVarianceNormalization" => |node, _| mean_variance_norm(node),
        "LRN" => |node, _| lrn(node),
        "NegativeLogLikelihoodLoss" => |node, _| loss(node, false),
        "SoftmaxCrossEntropyLoss" => |node, _| loss(node, true),
        _ => return None,
    })
}

/// Cost of a plane that is scaled and shifted, however small.
const PLANE_OPS: u64 = 250;
/// Cost of an element that is standardized as other fractions than float32, or together with others.
const STANDARDIZED_OPS: u64 = 20;

fn doubles(inputs: &Inputs<'_>, index: usize) -> Result<Vec<f64>, Stop> {
    let array = inputs.read(index)?;
    array.to_doubles().ok_or_else(|| Stop::unsupported(array.dtype()))
}

/// Cost of a parameter that is converted, and its bytes: one as float64 and one as it is computed with.
const PARAMETER_OPS: u64 = 60;
const PARAMETER_BYTES: u64 = 24;

/// Admits what some inputs take that are converted in a run, and tells what that costs.
fn parameters(cx: &mut Cx<'_>, inputs: &Inputs<'_>, which: &[usize]) -> Result<u64, Stop> {
    let counts = which.iter().map(|index| inputs.count(*index)).collect::<Result<Vec<_>, _>>()?;
    let all = counts.into_iter().fold(0, u64::saturating_add);
    cx.scratch(all.saturating_mul(PARAMETER_BYTES))?;
    Ok(all.saturating_mul(PARAMETER_OPS))
}

fn wide_values<T: Real>(inputs: &Inputs<'_>, index: usize) -> Result<Vec<T::Wide>, Stop> {
    // Scale and bias may have another type of fractions than the input.
    Ok(doubles(inputs, index)?.into_iter().map(<T::Wide as Wide>::from_f64).collect())
}

const TRAINING: &str = "training mode is not supported: export for inference";

/// Before operator set 7 training is the default, and `is_test` says that it is not.
pub(super) fn check_test(node: &Node<'_>) -> Result<(), String> {
    if node.opset < 7 && !node.flag("is_test", false) { Err(TRAINING.into()) } else { Ok(()) }
}

/// The statistics are computed in float32, of float64 in float64: another type for them is not supported.
fn check_stash(node: &Node<'_>) -> Result<(), String> {
    if node.int("stash_type", 1) == 1 { Ok(()) } else { Err("its stash_type must be float32".into()) }
}

/// For each channel x · factor + shift, with factor = scale / sqrt(variance + epsilon) and shift = bias − mean · factor,
/// by a multiplication and an addition.
fn batch_norm(node: &Node<'_>) -> Result<Eval, String> {
    let epsilon = f64::from(node.float("epsilon", 1e-5));
    // Before operator set 14 the statistics of the batch were further outputs, of training alone.
    if node.flag("training_mode", false) || (node.opset < 14 && (1..5).any(|index| node.has_output(index))) {
        return Err(TRAINING.into());
    }
    check_test(node)?;
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        let channels = shape.get(1).copied().unwrap_or(1);
        for index in 1..5 {
            if inputs.shape(index)? != [channels] {
                return Err(Stop::invalid("its statistics do not fit its channels"));
            }
        }
        let planes = count(&shape[..shape.len().min(2)]);
        let each = if is_half(dtype) { 40 } else { 2 };
        let ops = count(shape).saturating_mul(each).saturating_add(planes.saturating_mul(PLANE_OPS));
        let ops = ops.saturating_add(parameters(cx, inputs, &[1, 2, 3, 4])?);
        with_floats!(dtype, T => cx.emit::<T>(inputs, dtype, shape.to_vec(), ops, || {
            type W = <T as Real>::Wide;
            let (scale, bias) = (wide_values::<T>(inputs, 1)?, wide_values::<T>(inputs, 2)?);
            let (mean, variance) = (wide_values::<T>(inputs, 3)?, wide_values::<T>(inputs, 4)?);
            let mut values = inputs.values::<T>(0)?.into_owned();
            let size = shape.get(2..).map_or(1, |rest| rest.iter().product::<usize>()).max(1);
            for (plane, values) in values.chunks_exact_mut(size).enumerate() {
                let c = plane % channels.max(1);
                let factor = scale[c].over(variance[c].plus(<W as Wide>::from_f64(epsilon)).sqrt());
                let shift = bias[c].minus(mean[c].times(factor));
                values.iter_mut().for_each(|x| *x = T::narrow(x.widen().times(factor).plus(shift)));
            }
            Ok(values)
        }), Err(Stop::unsupported(dtype)))
    })
}

/// (x − mean) · (1 / sqrt(variance + epsilon)) of a row, with the variance as the mean of squared differences.
fn standardize<W: Wide>(row: &mut [W], epsilon: W) -> (W, W) {
    let n = W::from_f64(row.len() as f64);
    let mean = reduce::sum(row).over(n);
    let square = |x: W| x.minus(mean).times(x.minus(mean));
    let variance = reduce::fold(row, square, W::ZERO, W::plus).over(n);
    let inverse = W::ONE.over(variance.plus(epsilon).sqrt());
    row.iter_mut().for_each(|x| *x = x.minus(mean).times(inverse));
    (mean, inverse)
}

/// Standardizes rows of `n` elements, then scales and shifts: row r has the scale of `which(r)`.
fn scaled_rows<T: Real>(
    inputs: &Inputs<'_>,
    n: usize,
    epsilon: f64,
    index: impl Fn(usize) -> usize,
) -> Result<Vec<T>, Stop> {
    let mut wide: Vec<T::Wide> = inputs.values::<T>(0)?.iter().map(|x| x.widen()).collect();
    let (scale, bias) = (wide_values::<T>(inputs, 1)?, wide_values::<T>(inputs, 2)?);
    let epsilon = <T::Wide as Wide>::from_f64(epsilon);
    wide.chunks_exact_mut(n.max(1)).for_each(|row| {
        standardize(row, epsilon);
    });
    let apply = |(i, x): (usize, &T::Wide)| {
        let at = index(i);
        let (s, b) = (scale.get(at).copied(), bias.get(at).copied());
        s.zip(b).map(|(s, b)| T::narrow(x.times(s).plus(b))).ok_or_else(|| Stop::invalid("its scale does not fit"))
    };
    wide.iter().enumerate().map(apply).collect()
}

fn instance_norm(node: &Node<'_>) -> Result<Eval, String> {
    let epsilon = f64::from(node.float("epsilon", 1e-5));
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        let [_, channels, spatial @ ..] = shape else { return Err(Stop::invalid("it takes batch and channels")) };
        let n = spatial.iter().product::<usize>();
        if (1..3).any(|index| inputs.count(index).is_ok_and(|count| count != *channels as u64)) {
            return Err(Stop::invalid("its scale or bias does not fit its channels"));
        }
        let ops = count(shape).saturating_mul(STANDARDIZED_OPS);
        let ops = ops.saturating_add(count(&shape[..2]).saturating_mul(ROW_OPS));
        let ops = ops.saturating_add(parameters(cx, inputs, &[1, 2])?);
        cx.scratch(count(shape).saturating_mul(8))?;
        with_floats!(dtype, T => cx.emit::<T>(inputs, dtype, shape.to_vec(), ops, || {
            scaled_rows::<T>(inputs, n, epsilon, |i| i / n.max(1) % channels)
        }), Err(Stop::unsupported(dtype)))
    })
}

/// Scale and bias are per group up to operator set 20, then per channel.
fn group_norm(node: &Node<'_>) -> Result<Eval, String> {
    let epsilon = f64::from(node.float("epsilon", 1e-5));
    let groups =
        usize::try_from(node.int("num_groups", 0)).ok().filter(|g| *g > 0).ok_or("its num_groups must be positive")?;
    check_stash(node)?;
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        let [_, channels, spatial @ ..] = shape else { return Err(Stop::invalid("it takes batch and channels")) };
        if channels % groups != 0 {
            return Err(Stop::invalid("its channels cannot be divided into its groups"));
        }
        let plane = spatial.iter().product::<usize>();
        let n = plane * channels / groups;
        let parameters = inputs.count(1)?;
        let per_channel = parameters == *channels as u64;
        if inputs.count(2)? != parameters || !(per_channel || parameters == groups as u64) {
            return Err(Stop::invalid("its scale or bias does not fit its channels"));
        }
        let ops = count(shape).saturating_mul(STANDARDIZED_OPS);
        let ops = ops.saturating_add(count(&[shape[0], groups]).saturating_mul(ROW_OPS));
        let ops = ops.saturating_add(self::parameters(cx, inputs, &[1, 2])?);
        cx.scratch(count(shape).saturating_mul(8))?;
        with_floats!(dtype, T => cx.emit::<T>(inputs, dtype, shape.to_vec(), ops, || {
            scaled_rows::<T>(inputs, n, epsilon, |i| {
                let channel = i / plane.max(1) % channels;
                if per_channel { channel } else { channel / (channels / groups) }
            })
        }), Err(Stop::unsupported(dtype)))
    })
}

fn layer_norm(node: &Node<'_>) -> Result<Eval, String> {
    let (at, epsilon) = (node.int("axis", -1), node.float("epsilon", 1e-5));
    check_stash(node)?;
    let outputs = node.outputs();
    eval(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        let axis = shapes::axis(at, shape.len())?;
        let n: usize = shape[axis..].iter().product();
        let rows = count(&shape[..axis]);
        let simple = |index: usize| -> Result<bool, Stop> {
            if !inputs.has(index) {
                return Ok(true);
            }
            let (own, found) = inputs.ty(index)?;
            // Dimensions of one before those of the rows. (Others that happen to be one are none: sizes may be open.)
            let (before, rows) = found.split_at(found.len().saturating_sub(shape.len() - axis));
            let fits = found.len() <= shape.len() && rows == &shape[axis..] && before.iter().all(|dim| *dim == 1);
            Ok(fits && own == DType::Float32)
        };
        let fast = dtype == DType::Float32 && outputs == 1 && simple(1)? && simple(2)?;
        if fast {
            let ops = count(shape).saturating_mul(8).saturating_add(rows.saturating_mul(ROW_OPS / 4));
            let threads = cx.threads_for(shape, ops);
            return Ok(vec![cx.emit_over(inputs, shape.to_vec(), (ops, 0), |out, _| {
                let (x, scale) = (inputs.values::<f32>(0)?, inputs.values::<f32>(1)?);
                let bias = if inputs.has(2) { inputs.values::<f32>(2)? } else { Default::default() };
                pieces(threads, out, n, &|first, rows| {
                    layer_norm_rows(&x[first..][..rows.len()], rows, n, epsilon, &scale, &bias);
                });
                Ok(())
            })?]);
        }
        let ops = count(shape).saturating_mul(STANDARDIZED_OPS).saturating_add(rows.saturating_mul(ROW_OPS));
        // The elements, a scale or a bias for each, and the statistics.
        cx.scratch(count(shape).saturating_mul(16).saturating_add(rows.saturating_mul(8)))?;
        let rows: usize = shape[..axis].iter().product();
        let parameter = |index: usize| -> Result<Option<Array>, Stop> {
            if !inputs.has(index) {
                return Ok(None);
            }
            let array = inputs.read(index)?;
            let values = array.to_doubles().ok_or_else(|| Stop::unsupported(array.dtype()))?;
            let array = Array::new(DType::Float64, array.shape().to_vec(), values);
            if array.shape().len() > shape.len() || shapes::broadcast(&[array.shape(), shape])? != shape {
                return Err(Stop::invalid("its scale or bias does not fit"));
            }
            Ok(Some(array.broadcast(shape)))
        };
        with_floats!(dtype, T => {
            type W = <T as Real>::Wide;
            type Run<U> = Result<(Vec<U>, Vec<f32>, Vec<f32>), Stop>;
            let run = || -> Run<T> {
                let mut wide: Vec<W> = inputs.values::<T>(0)?.iter().map(|x| x.widen()).collect();
                let (mut means, mut inverses) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
                for row in 0..rows {
                    let (mean, inverse) = standardize(&mut wide[row * n..(row + 1) * n], <W as Wide>::from_f64(epsilon.into()));
                    means.push(mean.to_f64() as f32);
                    inverses.push(inverse.to_f64() as f32);
                }
                if let Some(scale) = parameter(1)? {
                    wide.iter_mut().zip(scale.values::<f64>().iter()).for_each(|(x, s)| *x = x.times(<W as Wide>::from_f64(*s)));
                }
                if let Some(bias) = parameter(2)? {
                    wide.iter_mut().zip(bias.values::<f64>().iter()).for_each(|(x, b)| *x = x.plus(<W as Wide>::from_f64(*b)));
                }
                Ok((wide.into_iter().map(T::narrow).collect(), means, inverses))
            };
            let mut statistics = shape.to_vec();
            statistics[axis..].iter_mut().for_each(|dim| *dim = 1);
            let mut values = vec![cx.emit::<T>(inputs, dtype, shape.to_vec(), ops, || Ok(run()?.0))?];
            if outputs > 1 {
                values.push(cx.emit::<f32>(inputs, DType::Float32, statistics.clone(), 0, || Ok(run()?.1))?);
            }
            if outputs > 2 {
                values.push(cx.emit::<f32>(inputs, DType::Float32, statistics, 0, || Ok(run()?.2))?);
            }
            Ok(values)
        }, Err(Stop::unsupported(dtype)))
    })
}

/// x · (1 / sqrt(mean of squares + epsilon)), times the scale.
fn rms_norm(node: &Node<'_>) -> Result<Eval, String> {
    let (at, epsilon) = (node.int("axis", -1), node.float("epsilon", 1e-5));
    check_stash(node)?;
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        let axis = shapes::axis(at, shape.len())?;
        let n: usize = shape[axis..].iter().product();
        if shapes::broadcast(&[inputs.shape(1)?, shape])? != shape {
            return Err(Stop::invalid("its scale does not fit"));
        }
        let ops = count(shape).saturating_mul(STANDARDIZED_OPS);
        let ops = ops.saturating_add(count(&shape[..axis]).saturating_mul(ROW_OPS));
        cx.scratch(count(shape).saturating_mul(16))?;
        with_floats!(dtype, T => cx.emit::<T>(inputs, dtype, shape.to_vec(), ops, || {
            type W = <T as Real>::Wide;
            let mut wide: Vec<W> = inputs.values::<T>(0)?.iter().map(|x| x.widen()).collect();
            for row in wide.chunks_exact_mut(n.max(1)) {
                let squares = reduce::fold(row, |x: W| x.times(x), <W as Number>::ZERO, <W as Number>::plus);
                let mean = squares.over(<W as Wide>::from_f64(n as f64));
                let inverse = <W as Number>::ONE.over(mean.plus(<W as Wide>::from_f64(epsilon.into())).sqrt());
                row.iter_mut().for_each(|x| *x = x.times(inverse));
            }
            let scale = inputs.read(1)?;
            let scale = Array::new(DType::Float64, scale.shape().to_vec(), doubles(inputs, 1)?).broadcast(shape);
            let scale = scale.values::<f64>();
            Ok(wide.iter().zip(scale.iter()).map(|(x, s)| T::narrow(x.times(<W as Wide>::from_f64(*s)))).collect())
        }), Err(Stop::unsupported(dtype)))
    })
}

fn lp_norm(node: &Node<'_>) -> Result<Eval, String> {
    let (at, p) = (node.int("axis", -1), node.int("p", 2));
    if p != 1 && p != 2 {
        return Err("its p must be 1 or 2".into());
    }
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        if !dtype.is_float() {
            return Err(Stop::unsupported(dtype));
        }
        let axis = shapes::axis(at, shape.len())?;
        let ops = count(shape).saturating_mul(STANDARDIZED_OPS).saturating_add(rows_ops(shape, &[axis], ROW_OPS));
        cx.scratch(count(shape).saturating_mul(16))?;
        cx.emit_with(inputs, dtype, shape.to_vec(), ops, |_| {
            let rows = rows_of(inputs.read(0)?, &[axis]);
            with_floats!(dtype, T => {
                type W = <T as Real>::Wide;
                let mut wide: Vec<W> = rows.values::<T>().iter().map(|x| x.widen()).collect();
                for row in wide.chunks_exact_mut(shape[axis].max(1)) {
                    let norm = match p {
                        1 => reduce::fold(row, <W as Number>::magnitude, <W as Number>::ZERO, <W as Number>::plus),
                        _ => reduce::fold(row, |x: W| x.times(x), <W as Number>::ZERO, <W as Number>::plus).sqrt(),
                    };
                    // Of nothing but zeros there is no direction.
                    row.iter_mut().for_each(|x| *x = if norm == <W as Number>::ZERO { norm } else { x.over(norm) });
                }
                let values = wide.into_iter().map(T::narrow).collect::<Vec<T>>();
                Ok(turn_back(&Array::new(dtype, rows.shape().to_vec(), values), &[axis], shape.len()))
            }, Err(Stop::unsupported(dtype)))
        })
    })
}

/// (x − mean) / (sqrt(mean of squares − square of mean) + 1e-9), as the function of the specification has it.
fn mean_variance_norm(node: &Node<'_>) -> Result<Eval, String> {
    let axes = node.axes("axes")?.unwrap_or_else(|| vec![0, 2, 3]);
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        if !dtype.is_float() {
            return Err(Stop::unsupported(dtype));
        }
        let reduced = shapes::axes(&axes, shape.len())?;
        let n: usize = reduced.iter().map(|axis| shape[*axis]).product();
        let ops = count(shape).saturating_mul(STANDARDIZED_OPS).saturating_add(rows_ops(shape, &reduced, ROW_OPS));
        cx.scratch(count(shape).saturating_mul(16))?;
        cx.emit_with(inputs, dtype, shape.to_vec(), ops, |_| {
            let rows = rows_of(inputs.read(0)?, &reduced);
            with_floats!(dtype, T => {
                type W = <T as Real>::Wide;
                let count = <W as Wide>::from_f64(n as f64);
                let mut wide: Vec<W> = rows.values::<T>().iter().map(|x| x.widen()).collect();
                for row in wide.chunks_exact_mut(n.max(1)) {
                    let mean = reduce::sum(row).over(count);
                    let squares = reduce::fold(row, |x: W| x.times(x), <W as Number>::ZERO, <W as Number>::plus).over(count);
                    let deviation = squares.minus(mean.times(mean)).sqrt().plus(<W as Wide>::from_f64(1e-9));
                    row.iter_mut().for_each(|x| *x = x.minus(mean).over(deviation));
                }
                let values = wide.into_iter().map(T::narrow).collect::<Vec<T>>();
                Ok(turn_back(&Array::new(dtype, rows.shape().to_vec(), values), &reduced, shape.len()))
            }, Err(Stop::unsupported(dtype)))
        })
    })
}

/// x / (bias + alpha / size · sum of squares of neighbouring channels)^beta.
fn lrn(node: &Node<'_>) -> Result<Eval, String> {
    let (alpha, beta, bias) = (node.float("alpha", 1e-4), node.float("beta", 0.75), node.float("bias", 1.0));
    let size = usize::try_from(node.int("size", 0)).ok().filter(|s| *s > 0).ok_or("its size must be positive")?;
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        if shape.len() < 2 {
            return Err(Stop::invalid("it takes batch and channels"));
        }
        let (outer, channels, inner) = shapes::around(shape, 1);
        // A neighbour is read from another plane.
        let ops = count(shape).saturating_mul((size.min(channels) as u64).saturating_mul(60).saturating_add(300));
        cx.scratch(count(shape).saturating_mul(8))?;
        with_floats!(dtype, T => cx.emit::<T>(inputs, dtype, shape.to_vec(), ops, || {
            type W = <T as Real>::Wide;
            let of = |x: f64| <W as Wide>::from_f64(x);
            let values: Vec<W> = inputs.values::<T>(0)?.iter().map(|x| x.widen()).collect();
            let (before, after) = ((size - 1) / 2, size - 1 - (size - 1) / 2);
            let factor = of(f64::from(alpha)).over(of(size as f64));
            let mut out = Vec::with_capacity(values.len());
            for o in 0..outer {
                for c in 0..channels {
                    for i in 0..inner {
                        let near = c.saturating_sub(before)..=(c.saturating_add(after)).min(channels - 1);
                        let squares = near.fold(<W as Number>::ZERO, |sum, c| {
                            let x = values[(o * channels + c) * inner + i];
                            sum.plus(x.times(x))
                        });
                        let scale = of(f64::from(bias)).plus(factor.times(squares)).pow(of(f64::from(beta)));
                        out.push(T::narrow(values[(o * channels + c) * inner + i].over(scale)));
                    }
                }
            }
            Ok(out)
        }), Err(Stop::unsupported(dtype)))
    })
}

/// The negative log-likelihood of classes, weighted; `cross_entropy`: of the log-softmax of the input.
fn loss(node: &Node<'_>, cross_entropy: bool) -> Result<Eval, String> {
    let reduction = node.text("reduction", "mean")?;
    if !["none", "sum", "mean"].contains(&reduction.as_str()) {
        return Err(format!("there is no reduction `{reduction}`"));
    }
    let ignored = node.attribute("ignore_index").map(|_| node.int("ignore_index", 0));
    let with_logs = node.has_output(1);
    eval(move |cx: &mut Cx<'_>, inputs: &Inputs<'_>| -> Result<Vec<Value>, Stop> {
        let ((dtype, shape), (_, labels)) = (inputs.ty(0)?, inputs.ty(1)?);
        if shape.len() < 2 || labels.len() + 1 != shape.len() || shape[0] != labels[0] || shape[2..] != labels[1..] {
            return Err(Stop::invalid("its labels do not fit its input"));
        }
        let (outer, classes, inner) = shapes::around(shape, 1);
        let weights = if inputs.has(2) { parameters(cx, inputs, &[2])? } else { 0 };
        if inputs.has(2) && inputs.shape(2)? != [classes] {
            return Err(Stop::invalid("its weights do not fit its classes"));
        }
        let (element, label) = if cross_entropy { (60, 3000) } else { (2, 1500) };
        let ops = count(shape).saturating_mul(element).saturating_add(count(labels).saturating_mul(label));
        let ops = ops.saturating_add(weights);
        cx.scratch(count(shape).saturating_mul(24).saturating_add(count(labels).saturating_mul(16)))?;
        let out = if reduction == "none" { labels.to_vec() } else { vec![] };
        with_floats!(dtype, T => {
            type W = <T as Real>::Wide;
            let logs = || -> Result<Vec<W>, Stop> {
                let values: Vec<W> = inputs.values::<T>(0)?.iter().map(|x| x.widen()).collect();
                if !cross_entropy {
                    return Ok(values);
                }
                let mut result = values.clone();
                for o in 0..outer {
                    for i in 0..inner {
                        let at = |c: usize| (o * classes + c) * inner + i;
                        let mut row: Vec<W> = (0..classes).map(|c| values[at(c)]).collect();
                        log_softmax(&mut row);
                        row.into_iter().enumerate().for_each(|(c, x)| result[at(c)] = x);
                    }
                }
                Ok(result)
            };
            let mut values = vec![cx.emit::<T>(inputs, dtype, out, ops, || {
                let logs = logs()?;
                let list = inputs.read(1)?.to_ints().ok_or("its labels must be integers")?;
                let weights: Option<Vec<W>> = if inputs.has(2) { Some(wide_values::<T>(inputs, 2)?) } else { None };
                let (mut losses, mut total) = (Vec::with_capacity(list.len()), <W as Number>::ZERO);
                for (n, label) in list.iter().enumerate() {
                    let (o, i) = (n / inner.max(1), n % inner.max(1));
                    if Some(*label) == ignored {
                        losses.push(<W as Number>::ZERO);
                        continue;
                    }
                    let label = if *label < 0 { label + classes as i64 } else { *label };
                    let c = usize::try_from(label).ok().filter(|c| *c < classes).ok_or("a label is out of bounds")?;
                    let weight = match &weights {
                        Some(weights) => *weights.get(c).ok_or("its weights do not fit its classes")?,
                        None => <W as Number>::ONE,
                    };
                    total = total.plus(weight);
                    losses.push(logs[(o * classes + c) * inner + i].negated().times(weight));
                }
                Ok(match reduction.as_str() {
                    "none" => losses.into_iter().map(T::narrow).collect(),
                    "sum" => vec![T::narrow(reduce::sum(&losses))],
                    _ => vec![T::narrow(reduce::sum(&losses).over(total))],
                })
            })?];
            if with_logs {
                values.push(cx.emit::<T>(inputs, dtype, shape.to_vec(), 0, || Ok(logs()?.into_iter().map(T::narrow).collect()))?);
            }
            Ok(values)
        }, Err(Stop::unsupported(dtype)))
    })
}
