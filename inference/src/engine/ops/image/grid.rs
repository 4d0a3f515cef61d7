//! GridSample and AffineGrid.

use super::{
    narrow,
    sampling::{FAR, Taps, blend, cubic, inside},
    sizes, zero,
};
use crate::{
    DType,
    engine::{
        array::Array,
        cx::{Cx, Inputs, Stop},
        elements::{Element, with_elements, with_floats},
        numeric::{Number, Real, Wide, cast},
        ops::single,
        program::Eval,
        value::{Value, count},
    },
    onnx::Node,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Nearest,
    Linear,
    Cubic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Padding {
    Zeros,
    Border,
    Reflection,
}

#[derive(Debug, Clone, Copy)]
struct Sampler {
    mode: Mode,
    padding: Padding,
    align_corners: bool,
}

pub(super) fn grid_sample(node: &Node<'_>) -> Result<Eval, String> {
    let mode = match node.text("mode", "linear")?.as_str() {
        "linear" | "bilinear" => Mode::Linear,
        "nearest" => Mode::Nearest,
        "cubic" | "bicubic" => Mode::Cubic,
        other => return Err(format!("its mode is `{other}`")),
    };
    let padding = match node.text("padding_mode", "zeros")?.as_str() {
        "zeros" => Padding::Zeros,
        "border" => Padding::Border,
        "reflection" => Padding::Reflection,
        other => return Err(format!("its padding_mode is `{other}`")),
    };
    let sampler = Sampler { mode, padding, align_corners: node.flag("align_corners", false) };
    single(move |cx, inputs| sampler.eval(cx, inputs))
}

/// Sizes of a sampling: those of X, and of what is made of it.
#[derive(Debug)]
struct Extents {
    channels: usize,
    /// The axes that are sampled.
    dims: Vec<usize>,
    /// Points for each element of the batch.
    points: usize,
}

impl Extents {
    /// Elements of a channel.
    fn plane(&self) -> usize {
        count(&self.dims) as usize
    }
}

impl Sampler {
    fn eval(&self, cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Value, Stop> {
        let ((dtype, shape), (grid_type, grid)) = (inputs.ty(0)?, inputs.ty(1)?);
        let ([batch, channels, dims @ ..], [grids, points @ .., last]) = (shape, grid) else {
            return Err(format!("it takes no shapes {shape:?} and {grid:?}").into());
        };
        if grids != batch || dims.is_empty() || dims.len() != points.len() || *last != dims.len() || dims.contains(&0) {
            return Err(format!("a grid of shape {grid:?} does not fit an input of shape {shape:?}").into());
        }
        if !grid_type.is_float() || dtype == DType::String {
            return Err(Stop::unsupported(if dtype == DType::String { dtype } else { grid_type }));
        }
        let mut out = vec![*batch, *channels];
        out.extend(points);
        let taps = match self.mode {
            Mode::Nearest => 1u64,
            Mode::Linear => 2,
            Mode::Cubic => 4,
        };
        let rank = u32::try_from(dims.len()).unwrap_or(u32::MAX);
        let places = count(grid).saturating_mul(150 + 80 * taps);
        let points_ops = count(points).saturating_mul(*batch as u64).saturating_mul(1500);
        let ops = count(&out).saturating_mul(taps.saturating_pow(rank)).saturating_mul(100);
        let ops = ops.saturating_add(places).saturating_add(points_ops).saturating_add(super::reading(inputs, dtype)?);
        // Coordinates, and integers as float64 with their results.
        let bytes = count(shape).saturating_add(count(&out)).saturating_add(count(grid)).saturating_mul(8);
        cx.scratch(bytes)?;
        let extents = Extents { channels: *channels, dims: dims.to_vec(), points: count(points) as usize };
        if self.mode == Mode::Nearest {
            return with_elements!(dtype, T => cx.emit::<T>(inputs, dtype, out, ops, || {
                let places = self.coordinates(inputs.read(1)?, dims);
                Ok(self.pick(&inputs.values::<T>(0)?, &places, &extents))
            }), Err(Stop::unsupported(dtype)));
        }
        with_floats!(dtype, T => cx.emit::<T>(inputs, dtype, out, ops, || {
            let places = self.coordinates(inputs.read(1)?, dims);
            Ok(narrow(self.interpolate::<T>(&inputs.values::<T>(0)?, &places, &extents)))
        }), if dtype == DType::Bool {
            Err(Stop::unsupported(dtype))
        } else {
            // Integers: computed in float64 and cut at the end.
            cx.emit_with(inputs, dtype, out, ops, |out| {
                let places = self.coordinates(inputs.read(1)?, dims);
                let values = inputs.read(0)?.to_doubles().ok_or_else(|| Stop::unsupported(dtype))?;
                let values = self.interpolate::<f64>(&values, &places, &extents);
                Ok(cast(&Array::new(DType::Float64, out, values), dtype))
            })
        })
    }

    /// The points in units of elements, each as its coordinates from the first axis to the last: the grid has them in
    /// the opposite order. The scaling is computed in the type of the grid (in float32 for float16), everything after
    /// it in float64.
    fn coordinates(&self, grid: &Array, dims: &[usize]) -> Vec<f64> {
        with_floats!(grid.dtype(), T => {
            let values = grid.values::<T>();
            let points = values.chunks_exact(dims.len().max(1));
            points.flat_map(|point| dims.iter().zip(point.iter().rev()).map(|(n, x)| self.place(x.widen(), *n))).collect()
        }, vec![])
    }

    fn place<W: Wide>(&self, x: W, length: usize) -> f64 {
        let (one, two) = (W::ONE, W::from_f64(2.0));
        let x = if self.align_corners {
            x.plus(one).over(two).times(W::from_f64(length as f64 - 1.0))
        } else {
            x.plus(one).times(W::from_f64(length as f64)).minus(one).over(two)
        };
        let x = if self.mode == Mode::Nearest { x.round() } else { x };
        self.pad(x.to_f64(), length)
    }

    /// Moves a coordinate into the input, unless zeros are around it. What is no finite number is far outside.
    fn pad(&self, x: f64, length: usize) -> f64 {
        let last = length as f64 - 1.0;
        match self.padding {
            Padding::Zeros if !x.is_finite() => FAR,
            Padding::Zeros => x,
            _ if !x.is_finite() => 0.0,
            // Cubic interpolation goes on beyond the last elements, with neighbours that are all those at the border.
            Padding::Border if self.mode == Mode::Cubic => x,
            Padding::Border => x.clamp(0.0, last.max(0.0)),
            Padding::Reflection => self.reflect(x, last),
        }
    }

    /// Reflects at the borders until the coordinate is between them.
    fn reflect(&self, x: f64, last: f64) -> f64 {
        let (low, high) = if self.align_corners { (0.0, last) } else { (-0.5, last + 0.5) };
        let range = high - low;
        if range <= 0.0 {
            return low;
        }
        let beyond = if x < low {
            low - x
        } else if x > high {
            x - high
        } else {
            return x;
        };
        let times = (beyond / range).trunc();
        let rest = beyond - times * range;
        // Back at the border that was crossed after an even number of reflections.
        let from_low = (x < low) == (times % 2.0 == 0.0);
        if from_low { low + rest } else { high - rest }.clamp(low, high)
    }

    /// A neighbour, which may be outside.
    fn neighbour(&self, i: f64, length: usize) -> Option<usize> {
        let last = length as f64 - 1.0;
        match self.padding {
            Padding::Zeros => inside(i, length),
            Padding::Border => inside(i.clamp(0.0, last.max(0.0)), length),
            Padding::Reflection => inside(self.reflect(i, last).trunc().clamp(0.0, last.max(0.0)), length),
        }
    }

    fn taps<W: Wide>(&self, x: f64, length: usize) -> Taps<W> {
        const A: f64 = -0.75;
        let (floor, t) = (x.floor(), x - x.floor());
        let at = |offset: f64| self.neighbour(floor + offset, length);
        match self.mode {
            Mode::Cubic => Taps::new([
                (at(-1.0), cubic(1.0 + t, A)),
                (at(0.0), cubic(t, A)),
                (at(1.0), cubic(1.0 - t, A)),
                (at(2.0), cubic(2.0 - t, A)),
            ]),
            _ => Taps::new([(at(0.0), 1.0 - t), (at(1.0), t)]),
        }
    }

    fn interpolate<T: Real>(&self, data: &[T], places: &[f64], extents: &Extents) -> Vec<T::Wide> {
        let (channels, rank, plane) = (extents.channels, extents.dims.len(), extents.plane());
        let mut out = vec![T::Wide::ZERO; places.len() / rank.max(1) * channels];
        let images = data.chunks_exact(channels.saturating_mul(plane).max(1));
        let outputs = out.chunks_exact_mut(channels.saturating_mul(extents.points).max(1));
        let grids = places.chunks_exact(extents.points.saturating_mul(rank).max(1));
        for ((image, output), grid) in images.zip(outputs).zip(grids) {
            for (index, point) in grid.chunks_exact(rank.max(1)).enumerate() {
                let taps: Vec<Taps<T::Wide>> =
                    point.iter().zip(&extents.dims).map(|(x, n)| self.taps(*x, *n)).collect();
                let sums = output.iter_mut().skip(index).step_by(extents.points.max(1));
                for (channel, sum) in image.chunks_exact(plane.max(1)).zip(sums) {
                    *sum = blend(channel, &extents.dims, &taps, 0);
                }
            }
        }
        out
    }

    fn pick<T: Element>(&self, data: &[T], places: &[f64], extents: &Extents) -> Vec<T> {
        let (channels, rank, plane) = (extents.channels, extents.dims.len(), extents.plane());
        let mut out = vec![zero::<T>(); places.len() / rank.max(1) * channels];
        let images = data.chunks_exact(channels.saturating_mul(plane).max(1));
        let outputs = out.chunks_exact_mut(channels.saturating_mul(extents.points).max(1));
        let grids = places.chunks_exact(extents.points.saturating_mul(rank).max(1));
        for ((image, output), grid) in images.zip(outputs).zip(grids) {
            for (index, point) in grid.chunks_exact(rank.max(1)).enumerate() {
                let axes = point.iter().zip(&extents.dims);
                let mut found = axes.map(|(x, n)| Some((self.neighbour(*x, *n)?, *n)));
                let at = found.try_fold(0, |at, found| found.map(|(i, n)| at * n + i));
                let Some(at) = at else { continue };
                let slots = output.iter_mut().skip(index).step_by(extents.points.max(1));
                for (channel, slot) in image.chunks_exact(plane.max(1)).zip(slots) {
                    *slot = channel.get(at).copied().unwrap_or(zero());
                }
            }
        }
        out
    }
}

pub(super) fn affine_grid(node: &Node<'_>) -> Result<Eval, String> {
    let align_corners = node.flag("align_corners", false);
    single(move |cx, inputs| {
        let (dtype, theta) = inputs.ty(0)?;
        let sizes = sizes(inputs, 1)?;
        let [batch, _, dims @ ..] = sizes.as_slice() else { return Err("its size has too few elements".into()) };
        let rank = dims.len();
        if !(2..=3).contains(&rank) || theta != [*batch, rank, rank + 1] {
            return Err(format!("theta of shape {theta:?} does not fit the size {sizes:?}").into());
        }
        let mut out = vec![*batch];
        out.extend(dims);
        out.push(rank);
        let ops = count(&out).saturating_mul(200);
        cx.scratch(count(&out).saturating_mul(4))?;
        let places = count(&out);
        with_floats!(dtype, T => cx.emit::<T>(inputs, dtype, out, ops, || {
            if places == 0 {
                return Ok(vec![]);
            }
            let axes: Vec<Vec<_>> = dims.iter().map(|n| (0..*n).map(|i| position(i, *n, align_corners)).collect()).collect();
            let mut values = Vec::with_capacity(places as usize);
            for theta in inputs.values::<T>(0)?.chunks_exact(rank * (rank + 1)) {
                transform(theta, &axes, &mut Vec::with_capacity(rank), &mut values);
            }
            Ok(values)
        }), Err(Stop::unsupported(dtype)))
    })
}

/// The position of element `i` of `n` between −1 and 1, computed in float64 and rounded once; the middle if it is alone
/// and corners are aligned.
fn position<W: Wide>(i: usize, n: usize, align_corners: bool) -> W {
    let (i, n) = (i as f64, n as f64);
    W::from_f64(match align_corners {
        true if n == 1.0 => 0.0,
        true => 2.0 * i / (n - 1.0) - 1.0,
        false => (2.0 * i + 1.0) / n - 1.0,
    })
}

/// `θ · (x, y, …, 1)` for all positions: products are added from left to right. `fixed` are the coordinates of the outer
/// axes, outermost first; x is the innermost one.
fn transform<T: Real>(theta: &[T], axes: &[Vec<T::Wide>], fixed: &mut Vec<T::Wide>, out: &mut Vec<T>) {
    if let [axis, axes @ ..] = axes {
        for x in axis {
            fixed.push(*x);
            transform(theta, axes, fixed, out);
            fixed.pop();
        }
        return;
    }
    let position = || fixed.iter().rev().copied().chain([T::Wide::ONE]);
    for row in theta.chunks_exact(fixed.len() + 1) {
        let terms = row.iter().zip(position()).map(|(t, x)| t.widen().times(x));
        out.push(T::narrow(terms.reduce(Number::plus).unwrap_or(T::Wide::ZERO)));
    }
}
