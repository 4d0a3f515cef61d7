//! DFT and STFT.
//!
//! The sums are those of the definition: `X[k] = Σ x[n] · e^(−2πi·kn/N)`, in float64 over ascending n from zero, with
//! the cosine and sine of `2π · (kn mod N) / N`, each computed in float64 from left to right. For each n, first the
//! product with the real part is added, then that with the imaginary part, if there is one. An inverse transform turns
//! the other way and divides by N at the end. Results are rounded once to the type of the signal. The cost is N · K for
//! each transform to K values, which unlike that of a fast transform is a polynomial of the length.

use crate::{
    DType,
    engine::{
        array::Array,
        cx::{Cx, Inputs, Stop},
        elements::{Element, with_floats},
        numeric::{Real, Wide},
        ops::{shapes, single},
        program::Eval,
        value::{Value, count},
    },
    onnx::Node,
};

/// Transforms that are computed side by side.
const LANES: usize = 32;

/// Cost of a multiply-add.
const PART_OPS: u64 = 4;

/// One kind of transform.
#[derive(Debug, Clone, Copy)]
struct Plan {
    length: usize,
    /// Values of the result that are wanted, from the first.
    wanted: usize,
    inverse: bool,
    /// Whether the input has imaginary parts.
    complex: bool,
    /// Whether the output has them.
    complex_output: bool,
}

impl Plan {
    /// Cost of `lanes` transforms: a multiply-add for each part.
    fn ops(&self, lanes: u64) -> u64 {
        let parts = 2 * (1 + u64::from(self.complex));
        let steps = (self.length as u64).saturating_mul(self.wanted as u64);
        // Lanes are computed together, those that are not there as well. Sines and cosines are made once.
        let lanes = lanes.saturating_add(LANES as u64 - 1);
        let tables = (self.length as u64).saturating_mul(2000);
        lanes.saturating_mul(steps).saturating_mul(parts).saturating_mul(PART_OPS).saturating_add(tables)
    }

    /// Bytes beside the output.
    fn scratch(&self) -> u64 {
        (self.length as u64).saturating_mul(16 * (1 + LANES as u64))
    }

    /// Computes `lanes` transforms: `load(lane, n)` is an element, `store(lane, k, (re, im))` takes a result.
    fn run(
        &self,
        lanes: usize,
        load: impl Fn(usize, usize) -> (f64, f64),
        mut store: impl FnMut(usize, usize, (f64, f64)),
    ) {
        let n = self.length;
        let sign = if self.inverse { -1.0 } else { 1.0 };
        let angle = |j: usize| 2.0 * core::f64::consts::PI * j as f64 / n as f64;
        let turns: Vec<(f64, f64)> = (0..n).map(|j| (Wide::cos(angle(j)), sign * Wide::sin(angle(j)))).collect();
        let mut signal: Vec<([f64; LANES], [f64; LANES])> = vec![([0.0; LANES], [0.0; LANES]); n];
        for first in (0..lanes).step_by(LANES) {
            let here = LANES.min(lanes - first);
            for (i, (re, im)) in signal.iter_mut().enumerate() {
                for (lane, (re, im)) in re.iter_mut().zip(im).enumerate().take(here) {
                    (*re, *im) = load(first + lane, i);
                }
            }
            for k in 0..self.wanted {
                let (re, im) = self.sums(&signal, &turns, k);
                for (lane, value) in re.into_iter().zip(im).enumerate().take(here) {
                    let scale = |x: f64| if self.inverse { x / n as f64 } else { x };
                    store(first + lane, k, (scale(value.0), scale(value.1)));
                }
            }
        }
    }

    fn sums(
        &self,
        signal: &[([f64; LANES], [f64; LANES])],
        turns: &[(f64, f64)],
        k: usize,
    ) -> ([f64; LANES], [f64; LANES]) {
        let (mut re, mut im) = ([0.0; LANES], [0.0; LANES]);
        let (n, mut at) = (turns.len(), 0);
        for (x, y) in signal {
            let (cos, sin) = turns.get(at).copied().unwrap_or_default();
            at += k;
            if at >= n {
                at -= n;
            }
            for ((re, im), x) in re.iter_mut().zip(&mut im).zip(x) {
                *re += x * cos;
                *im -= x * sin;
            }
            if self.complex {
                for ((re, im), y) in re.iter_mut().zip(&mut im).zip(y) {
                    *re += y * sin;
                    *im += y * cos;
                }
            }
        }
        (re, im)
    }
}

/// Elements of a signal with their parts last.
#[derive(Debug, Clone, Copy)]
struct Parts<'d, T> {
    data: &'d [T],
    complex: bool,
}

impl<T: Real> Parts<'_, T> {
    fn at(&self, element: usize) -> (f64, f64) {
        let part = |index: usize| self.data.get(index).map_or(0.0, |x| x.widen().to_f64());
        if self.complex { (part(2 * element), part(2 * element + 1)) } else { (part(element), 0.0) }
    }
}

fn is_complex(last: usize) -> Result<bool, Stop> {
    match last {
        1 => Ok(false),
        2 => Ok(true),
        other => Err(format!("its last dimension is {other}: real signals have 1 there, complex ones 2").into()),
    }
}

/// A positive number that an input says.
fn positive(inputs: &Inputs<'_>, index: usize) -> Result<Option<usize>, Stop> {
    let Some(value) = inputs.int(index)? else { return Ok(None) };
    match u32::try_from(value) {
        Ok(n) if n > 0 => Ok(Some(n as usize)),
        _ => Err(format!("its input {index} is {value}").into()),
    }
}

pub(super) fn dft(node: &Node<'_>) -> Result<Eval, String> {
    let (inverse, onesided) = (node.flag("inverse", false), node.flag("onesided", false));
    // An input since operator set 20.
    let attribute = (node.opset < 20).then(|| node.int("axis", 1));
    single(move |cx, inputs| {
        let axis = match attribute {
            Some(axis) => axis,
            None => inputs.int(2)?.unwrap_or(-2),
        };
        transform(cx, inputs, axis, inverse, onesided)
    })
}

fn transform(cx: &mut Cx<'_>, inputs: &Inputs<'_>, axis: i64, inverse: bool, onesided: bool) -> Result<Value, Stop> {
    let (dtype, shape) = inputs.ty(0)?;
    let axis = shapes::axis(axis, shape.len())?;
    let (Some(given), Some((last, signal))) = (shape.get(axis).copied(), shape.split_last()) else {
        return Err("it takes no scalar".into());
    };
    let complex = is_complex(*last)?;
    if axis == signal.len() {
        return Err("its axis is that of the parts of the numbers".into());
    }
    if onesided && inverse != complex {
        return Err("one side of a spectrum is complex, and its signal real".into());
    }
    let default = if onesided && inverse { 2 * given.saturating_sub(1) } else { given };
    let length = positive(inputs, 1)?.unwrap_or(default);
    if length == 0 || length > u32::MAX as usize {
        return Err(format!("a transform of length {length}").into());
    }
    let half = length / 2 + 1;
    let plan = Plan {
        length,
        wanted: if onesided && !inverse { half } else { length },
        inverse,
        complex,
        complex_output: !(onesided && inverse),
    };
    let mut out = signal.to_vec();
    if let Some(dim) = out.get_mut(axis) {
        *dim = plan.wanted;
    }
    out.push(1 + usize::from(plan.complex_output));
    let inner = count(shape.get(axis + 1..signal.len()).unwrap_or_default());
    let lanes = count(shape.get(..axis).unwrap_or_default()).saturating_mul(inner);
    let total = count(&out);
    cx.scratch(plan.scratch())?;
    with_floats!(dtype, T => cx.emit::<T>(inputs, dtype, out, plan.ops(lanes), || {
        if total == 0 {
            return Ok(vec![]);
        }
        let data = inputs.values::<T>(0)?;
        let (parts, inner) = (Parts { data: &data, complex }, inner as usize);
        let element = |lane: usize, n: usize| parts.at((lane / inner * given + n) * inner + lane % inner);
        let load = |lane: usize, n: usize| match n {
            // The other side of a spectrum is its mirror image; its first and middle values are real.
            n if onesided && inverse && n >= half && length - n < given => {
                let (re, im) = element(lane, length - n);
                (re, -im)
            }
            n if n >= given || (onesided && inverse && n >= half) => (0.0, 0.0),
            n if onesided && inverse && (n == 0 || 2 * n == length) => (element(lane, n).0, 0.0),
            n => element(lane, n),
        };
        let place = |lane: usize, k: usize| (lane / inner * plan.wanted + k) * inner + lane % inner;
        Ok(collect(&plan, lanes as usize, total as usize, load, place))
    }), Err(Stop::unsupported(dtype)))
}

/// Runs transforms and puts the result `k` of a lane at the position that `place` says.
fn collect<T: Element + Real>(
    plan: &Plan,
    lanes: usize,
    total: usize,
    load: impl Fn(usize, usize) -> (f64, f64),
    place: impl Fn(usize, usize) -> usize,
) -> Vec<T> {
    let narrow = |x: f64| T::narrow(<T::Wide as Wide>::from_f64(x));
    let mut out = vec![narrow(0.0); total];
    let parts = 1 + usize::from(plan.complex_output);
    plan.run(lanes, load, |lane, k, (re, im)| {
        let start = place(lane, k) * parts;
        let slots = out.get_mut(start..start + parts).unwrap_or_default();
        slots.iter_mut().zip([re, im]).for_each(|(slot, x)| *slot = narrow(x));
    });
    out
}

pub(super) fn stft(node: &Node<'_>) -> Result<Eval, String> {
    let onesided = node.flag("onesided", true);
    single(move |cx, inputs| short_time(cx, inputs, onesided))
}

/// Transforms frames of a signal, each times the window (in float64).
fn short_time(cx: &mut Cx<'_>, inputs: &Inputs<'_>, onesided: bool) -> Result<Value, Stop> {
    let (dtype, shape) = inputs.ty(0)?;
    let &[batch, samples, last] = shape else { return Err(format!("it takes no signal of shape {shape:?}").into()) };
    let complex = is_complex(last)?;
    if complex && onesided {
        return Err("the spectrum of a complex signal has two sides".into());
    }
    let window = if inputs.has(2) { Some(inputs.ty(2)?) } else { None };
    let windowed = match window {
        Some((ty, &[n])) if ty == dtype => Some(n),
        None => None,
        Some(_) => return Err("its window is no vector of the signal's type".into()),
    };
    let step = positive(inputs, 1)?.ok_or("it has no frame_step")?;
    let length = positive(inputs, 3)?.or(windowed).unwrap_or(samples);
    if length == 0 || length > samples || windowed.is_some_and(|n| n != length) || samples > u32::MAX as usize {
        return Err(format!("frames of {length} of {samples} samples under a window of {windowed:?}").into());
    }
    let frames = (samples - length) / step + 1;
    let wanted = if onesided { length / 2 + 1 } else { length };
    let plan = Plan { length, wanted, inverse: false, complex, complex_output: true };
    let out = vec![batch, frames, wanted, 2];
    let (lanes, total) = ((batch as u64).saturating_mul(frames as u64), count(&out));
    cx.scratch(plan.scratch().saturating_add((length as u64).saturating_mul(8)))?;
    with_floats!(dtype, T => cx.emit::<T>(inputs, dtype, out, plan.ops(lanes), || {
        if total == 0 {
            return Ok(vec![]);
        }
        let data = inputs.values::<T>(0)?;
        let parts = Parts { data: &data, complex };
        let window = if inputs.has(2) { doubles(inputs.read(2)?) } else { vec![1.0; length] };
        let load = |lane: usize, n: usize| {
            let (re, im) = parts.at(lane / frames * samples + lane % frames * step + n);
            let weight = window.get(n).copied().unwrap_or(0.0);
            (re * weight, im * weight)
        };
        Ok(collect(&plan, lanes as usize, total as usize, load, |lane, k| lane * wanted + k))
    }), Err(Stop::unsupported(dtype)))
}

fn doubles(array: &Array) -> Vec<f64> {
    debug_assert!(array.dtype() != DType::String);
    array.to_doubles().unwrap_or_default()
}
