//! Resampling along axes: where an output element lies in the input, and which input elements make it.
//!
//! Coordinates are float32, as ONNX Runtime and PyTorch compute them: so `x / (1/3)` is a whole number where it should
//! be. Weights are float64, rounded once to the type of the sums. An axis is resampled after the other in ascending
//! order; each sum goes over the neighbours in ascending order and starts from zero.

use super::sampling::cubic;
use crate::engine::numeric::Wide;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Nearest,
    Linear,
    Cubic,
}

/// `coordinate_transformation_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transform {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    TfHalfPixelForNn,
    TfCropAndResize,
}

/// `nearest_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rounding {
    PreferFloor,
    PreferCeil,
    Floor,
    Ceil,
    /// Before operator set 11, as ONNX Runtime has it: up where the axis shrinks, else down.
    Simple,
}

/// How the neighbours are weighed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filter {
    pub(super) mode: Mode,
    pub(super) transform: Transform,
    pub(super) rounding: Rounding,
    pub(super) antialias: bool,
    pub(super) exclude_outside: bool,
    pub(super) cubic_a: f64,
}

/// One axis of the input and what becomes of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    pub(super) input: usize,
    pub(super) output: usize,
    pub(super) scale: f32,
    /// The scale is the quotient of the sizes, not a rounded number that is given.
    pub(super) exact: bool,
    /// The length of the output before it is made whole.
    pub(super) width: f32,
    /// Start and end of the region of the input, as parts of it.
    pub(super) roi: (f32, f32),
}

impl Axis {
    /// Nothing happens along it.
    pub(super) fn is_identity(&self, transform: Transform) -> bool {
        let whole = transform != Transform::TfCropAndResize || self.roi == (0.0, 1.0);
        self.input == self.output && self.scale == 1.0 && whole
    }

    /// `x / scale`. Where the scale is a quotient no rounded one is divided by, so that halves are halves.
    fn unscale(&self, x: f32) -> f32 {
        if self.exact { x * self.input as f32 / self.output as f32 } else { x / self.scale }
    }

    /// The coordinate in the input of the output element `x`.
    fn source(&self, x: usize, transform: Transform) -> f32 {
        let (x, last) = (x as f32, self.input as f32 - 1.0);
        match transform {
            Transform::HalfPixel => self.unscale(x + 0.5) - 0.5,
            Transform::HalfPixelSymmetric => {
                let adjustment = self.output as f32 / self.width;
                let offset = self.input as f32 / 2.0 * (1.0 - adjustment);
                offset + self.unscale(x + 0.5) - 0.5
            }
            Transform::PytorchHalfPixel if self.output > 1 => self.unscale(x + 0.5) - 0.5,
            Transform::PytorchHalfPixel => 0.0,
            // The tests of the specification take the length before it is made whole.
            Transform::AlignCorners if self.width != 1.0 => x * last / (self.width - 1.0),
            Transform::AlignCorners => 0.0,
            Transform::Asymmetric => self.unscale(x),
            Transform::TfHalfPixelForNn => self.unscale(x + 0.5),
            Transform::TfCropAndResize if self.output > 1 => {
                self.roi.0 * last + x * (self.roi.1 - self.roi.0) * last / (self.output as f32 - 1.0)
            }
            Transform::TfCropAndResize => 0.5 * (self.roi.0 + self.roi.1) * last,
        }
    }

    /// By output element, whether its coordinate is outside of the input (`tf_crop_and_resize` only, else empty).
    pub(super) fn outside(&self, transform: Transform) -> Vec<bool> {
        if transform != Transform::TfCropAndResize {
            return vec![];
        }
        let last = self.input as f32 - 1.0;
        (0..self.output).map(|x| !(0.0..=last).contains(&self.source(x, transform))).collect()
    }

    /// By output element, the input element nearest to its coordinate.
    pub(super) fn nearest(&self, filter: &Filter) -> Vec<usize> {
        if self.is_identity(filter.transform) {
            return (0..self.output).collect();
        }
        let last = self.input.saturating_sub(1);
        let pick = |x| {
            // The sums with a half are exact in float64.
            let x = f64::from(self.source(x, filter.transform));
            let nearest = match filter.rounding {
                Rounding::PreferFloor => (x - 0.5).ceil(),
                Rounding::PreferCeil => (x + 0.5).floor(),
                Rounding::Floor => x.floor(),
                Rounding::Ceil => x.ceil(),
                Rounding::Simple if self.scale < 1.0 => x.ceil(),
                Rounding::Simple => x.floor(),
            };
            (nearest as usize).min(last)
        };
        (0..self.output).map(pick).collect()
    }

    /// Neighbours that an output element has. The filter is stretched where the axis shrinks, if that is asked for.
    fn taps(&self, filter: &Filter) -> usize {
        let radius = if filter.mode == Mode::Cubic { 2.0 } else { 1.0 };
        2 * (radius / self.stretch(filter)).ceil() as usize
    }

    fn stretch(&self, filter: &Filter) -> f64 {
        if filter.antialias { f64::from(self.scale).min(1.0) } else { 1.0 }
    }

    /// Multiply-adds along the axis for each row of it: about the elements under all filters.
    pub(super) fn ops(&self, filter: &Filter) -> u64 {
        let radius = if filter.mode == Mode::Cubic { 2 } else { 1 };
        let longer = if filter.antialias && self.scale < 1.0 { self.input } else { self.output };
        (longer as u64).saturating_mul(2 * radius)
    }

    /// The neighbours of every output element and their weights. Elements outside are those at the edge.
    pub(super) fn weights<W: Wide>(&self, filter: &Filter) -> Weights<W> {
        let taps = self.taps(filter);
        let last = self.input as i64 - 1;
        let stretch = self.stretch(filter);
        let mut out = Weights { taps, index: vec![], weight: vec![] };
        let mut row = vec![0.0f64; taps];
        for x in 0..self.output {
            let x = f64::from(self.source(x, filter.transform));
            // A region with such bounds lies outside anyway.
            let x = if x.is_finite() { x.clamp(-1e15, 1e15) } else { 0.0 };
            let first = x.floor() as i64 - (taps / 2) as i64 + 1;
            let place = |tap: usize| first + tap as i64;
            for (tap, weight) in row.iter_mut().enumerate() {
                let distance = ((place(tap) as f64 - x) * stretch).abs();
                let excluded = filter.exclude_outside && !(0..=last).contains(&place(tap));
                *weight = match filter.mode {
                    _ if excluded => 0.0,
                    Mode::Cubic => cubic(distance, filter.cubic_a),
                    _ => (1.0 - distance).max(0.0),
                };
            }
            let sum: f64 = row.iter().fold(0.0, |sum, weight| sum + weight);
            let scaled = (filter.antialias || filter.exclude_outside) && sum != 0.0;
            let divisor = if scaled { sum } else { 1.0 };
            out.weight.extend(row.iter().map(|weight| W::from_f64(weight / divisor)));
            out.index.extend((0..taps).map(|tap| place(tap).clamp(0, last.max(0)) as usize));
        }
        out
    }
}

/// For each output element of an axis `taps` input elements and their weights.
#[derive(Debug)]
pub(super) struct Weights<W> {
    taps: usize,
    index: Vec<usize>,
    weight: Vec<W>,
}

impl<W: Wide> Weights<W> {
    /// Resamples `data`, of the shape (outer, `length`, inner).
    pub(super) fn apply(&self, data: &[W], length: usize, inner: usize) -> Vec<W> {
        let rows = self.index.chunks_exact(self.taps.max(1)).zip(self.weight.chunks_exact(self.taps.max(1)));
        let mut out = Vec::new();
        if length == 0 || inner == 0 {
            return out;
        }
        out.reserve(data.len() / length * rows.len());
        for block in data.chunks_exact(length * inner) {
            for (indices, weights) in rows.clone() {
                let taps = indices.iter().zip(weights);
                if inner == 1 {
                    let value = |i: &usize| block.get(*i).copied().unwrap_or(W::ZERO);
                    out.push(taps.fold(W::ZERO, |sum, (i, w)| sum.plus(w.times(value(i)))));
                    continue;
                }
                let start = out.len();
                out.resize(start + inner, W::ZERO);
                let row = out.get_mut(start..).unwrap_or_default();
                for (i, w) in taps {
                    let source = block.get(i * inner..).unwrap_or_default();
                    row.iter_mut().zip(source).for_each(|(sum, value)| *sum = sum.plus(w.times(*value)));
                }
            }
        }
        out
    }
}

/// The elements at the product of indices along every axis.
pub(super) fn gather<T: Clone>(data: &[T], shape: &[usize], indices: &[Vec<usize>]) -> Vec<T> {
    fn walk<T: Clone>(data: &[T], shape: &[usize], indices: &[Vec<usize>], at: usize, out: &mut Vec<T>) {
        match (shape, indices) {
            ([length, shape @ ..], [picked, indices @ ..]) => {
                picked.iter().for_each(|i| walk(data, shape, indices, at * length + i, out));
            }
            _ => out.extend(data.get(at).cloned()),
        }
    }
    let mut out = Vec::with_capacity(indices.iter().map(Vec::len).product());
    walk(data, shape, indices, 0, &mut out);
    out
}

/// Writes `value` wherever an axis is outside.
pub(super) fn fill<T: Clone>(out: &mut [T], shape: &[usize], outside: &[Vec<bool>], value: &T) {
    for (axis, outside) in outside.iter().enumerate() {
        let inner: usize = shape.iter().skip(axis + 1).product();
        if inner == 0 || outside.iter().all(|outside| !outside) {
            continue;
        }
        for (row, _) in out.chunks_mut(inner).zip(outside.iter().cycle()).filter(|(_, outside)| **outside) {
            row.fill(value.clone());
        }
    }
}
