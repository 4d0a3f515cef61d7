//! Values between elements: weighted sums over a few neighbours along each axis.

use crate::engine::numeric::{Real, Wide};

/// The neighbours of a point along one axis with their weights; a neighbour that is `None` is a zero outside.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taps<W> {
    index: [Option<usize>; 4],
    weight: [W; 4],
    len: usize,
}

impl<W: Wide> Taps<W> {
    /// From weights in float64, which are rounded once to the type that is computed in.
    pub(super) fn new<const N: usize>(neighbours: [(Option<usize>, f64); N]) -> Self {
        const { assert!(N <= 4) };
        let mut taps = Self { index: [None; 4], weight: [W::ZERO; 4], len: N };
        for ((index, weight), (i, w)) in taps.index.iter_mut().zip(&mut taps.weight).zip(neighbours) {
            (*index, *weight) = (i, W::from_f64(w));
        }
        taps
    }

    /// The two neighbours of `x` in an axis of `length`, which is surrounded by zeros.
    pub(super) fn linear(x: f64, length: usize) -> Self {
        let x = if x.is_finite() { x } else { FAR };
        let (floor, fraction) = (x.floor(), x - x.floor());
        Self::new([(inside(floor, length), 1.0 - fraction), (inside(floor + 1.0, length), fraction)])
    }

    fn iter(&self) -> impl Iterator<Item = (usize, W)> {
        self.index.iter().zip(&self.weight).take(self.len).filter_map(|(index, weight)| Some(((*index)?, *weight)))
    }
}

/// A coordinate that is outside of every axis: what is no finite number counts as this.
pub(super) const FAR: f64 = -1e12;

/// A whole number as an index, if it is one of an axis.
pub(super) fn inside(i: f64, length: usize) -> Option<usize> {
    (i >= 0.0 && i < length as f64).then_some(i as usize)
}

/// The sum over the neighbours along the first axis, in ascending order, of weight · value, where the values are such
/// sums along the other axes: `0 + w₀·v₀ + w₁·v₁ + …`. Neighbours outside are left out.
pub(super) fn blend<T: Real>(data: &[T], shape: &[usize], taps: &[Taps<T::Wide>], at: usize) -> T::Wide {
    use crate::engine::numeric::Number;
    match (taps, shape) {
        ([first, taps @ ..], [length, shape @ ..]) => first.iter().fold(T::Wide::ZERO, |sum, (index, weight)| {
            sum.plus(weight.times(blend(data, shape, taps, at * length + index)))
        }),
        _ => data.get(at).map_or(T::Wide::ZERO, |x| x.widen()),
    }
}

/// The weight at a distance `x ≥ 0` of cubic convolution with the coefficient `a` (Keys 1981, equation 4).
pub(super) fn cubic(x: f64, a: f64) -> f64 {
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}
