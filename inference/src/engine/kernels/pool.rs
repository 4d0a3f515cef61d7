//! Windows over the rows and columns of a plane: each output folds the elements under its window in row-major order,
//! padding left out. Lanes are outputs of a row.

use super::{planes::Axis, vectorized};
use crate::engine::numeric::Number;

/// The outputs whose windows lie within the input: the first one, and the one behind the last.
#[inline(always)]
fn whole(axis: &Axis) -> (usize, usize) {
    let first = axis.before.div_ceil(axis.stride).min(axis.output);
    // The last window that ends within it.
    let last = (axis.input + axis.before).checked_sub((axis.kernel - 1) * axis.dilation + 1).map(|at| at / axis.stride);
    (first, last.map_or(0, |last| (last + 1).min(axis.output)).max(first))
}

/// Folds the elements under the window of each output, from `start`, into `out`.
#[inline(always)]
pub(crate) fn fold<T: Copy, A: Copy>(
    plane: &[T],
    rows: &Axis,
    columns: &Axis,
    start: A,
    join: impl Fn(A, T) -> A,
    out: &mut [A],
) {
    let halved = |axis: &Axis| {
        axis.kernel == 2 && axis.stride == 2 && axis.dilation == 1 && axis.before == 0 && 2 * axis.output <= axis.input
    };
    if halved(rows) && halved(columns) {
        return halve(plane, columns, start, join, out);
    }
    let (first, end) = whole(columns);
    for (y, out) in out.chunks_exact_mut(columns.output.max(1)).enumerate() {
        let lines = Lines { plane, rows, columns, y };
        for x in (0..first).chain(end..columns.output) {
            out[x] = lines.one(x, start, &join);
        }
        match end - first {
            16.. => lines.some::<_, 16>(first, start, &join, &mut out[first..end]),
            8.. => lines.some::<_, 8>(first, start, &join, &mut out[first..end]),
            4.. => lines.some::<_, 4>(first, start, &join, &mut out[first..end]),
            _ => lines.some::<_, 1>(first, start, &join, &mut out[first..end]),
        }
    }
}

/// The windows of a row of outputs.
struct Lines<'a, T> {
    plane: &'a [T],
    rows: &'a Axis,
    columns: &'a Axis,
    y: usize,
}

impl<T: Copy> Lines<'_, T> {
    /// The window of output `x`, some of which may be padding.
    #[inline(always)]
    fn one<A: Copy>(&self, x: usize, start: A, join: &impl Fn(A, T) -> A) -> A {
        let mut result = start;
        for ky in 0..self.rows.kernel {
            let Some(source) = self.rows.source(self.y, ky) else { continue };
            for kx in 0..self.columns.kernel {
                if let Some(x) = self.columns.source(x, kx) {
                    result = join(result, self.plane[source * self.columns.input + x]);
                }
            }
        }
        result
    }

    /// The windows of outputs from `first` on, whose columns are no padding, `N` at a time at least: those of a register.
    #[inline(always)]
    fn some<A: Copy, const N: usize>(&self, first: usize, start: A, join: &impl Fn(A, T) -> A, out: &mut [A]) {
        let count = out.len();
        let (blocks, rest) = out.as_chunks_mut::<N>();
        for (i, out) in blocks.iter_mut().enumerate() {
            *out = self.block::<A, N>(first + i * N, start, join);
        }
        // The rest with some that are done already.
        if !rest.is_empty()
            && let Some(out) = out.last_chunk_mut::<N>()
        {
            *out = self.block::<A, N>(first + count - N, start, join);
        }
    }

    #[inline(always)]
    fn block<A: Copy, const N: usize>(&self, first: usize, start: A, join: &impl Fn(A, T) -> A) -> [A; N] {
        let mut result = [start; N];
        let stride = self.columns.stride;
        for ky in 0..self.rows.kernel {
            let Some(source) = self.rows.source(self.y, ky) else { continue };
            let begin = source * self.columns.input + first * stride - self.columns.before;
            for kx in 0..self.columns.kernel {
                let row = &self.plane[begin + kx * self.columns.dilation..];
                // Of a pair the second one is not used: at the end of the plane there may be none.
                match (stride, row.first_chunk::<N>(), row.as_chunks::<2>().0.first_chunk::<N>()) {
                    (1, Some(row), _) => {
                        for (result, x) in result.iter_mut().zip(row) {
                            *result = join(*result, *x);
                        }
                    }
                    (2, _, Some(pairs)) => {
                        for (result, pair) in result.iter_mut().zip(pairs) {
                            *result = join(*result, pair[0]);
                        }
                    }
                    _ => {
                        for (lane, result) in result.iter_mut().enumerate() {
                            *result = join(*result, row[lane * stride]);
                        }
                    }
                }
            }
        }
        result
    }
}

/// [`fold`] with windows of two by two that lie side by side, as most do: an output at once.
#[inline(always)]
fn halve<T: Copy, A: Copy>(plane: &[T], columns: &Axis, start: A, join: impl Fn(A, T) -> A, out: &mut [A]) {
    // A loop, and not a closure for each: that would not become part of what is compiled for a CPU's features.
    for (out, lines) in out.chunks_exact_mut(columns.output.max(1)).zip(plane.chunks_exact((2 * columns.input).max(1)))
    {
        let lines = lines.split_at(columns.input);
        match columns.output {
            8.. => halve_row::<_, _, 8>(lines, start, &join, out),
            4.. => halve_row::<_, _, 4>(lines, start, &join, out),
            _ => halve_row::<_, _, 1>(lines, start, &join, out),
        }
    }
}

/// A row of `N` outputs at least, `N` at a time: those of a register.
#[inline(always)]
fn halve_row<T: Copy, A: Copy, const N: usize>(
    (upper, lower): (&[T], &[T]),
    start: A,
    join: &impl Fn(A, T) -> A,
    out: &mut [A],
) {
    let (upper, lower) = (upper.as_chunks::<2>().0, lower.as_chunks::<2>().0);
    let some = |out: &mut [A; N], upper: &[[T; 2]; N], lower: &[[T; 2]; N]| {
        for ((out, a), b) in out.iter_mut().zip(upper).zip(lower) {
            *out = join(join(join(join(start, a[0]), a[1]), b[0]), b[1]);
        }
    };
    let all = out.len();
    let blocks = out.as_chunks_mut::<N>().0.iter_mut().zip(upper.as_chunks::<N>().0).zip(lower.as_chunks::<N>().0);
    for ((out, upper), lower) in blocks {
        some(out, upper, lower);
    }
    if all.is_multiple_of(N) {
        return;
    }
    // The rest with some that are done already: one by one they would take longer than all others.
    let (upper, lower) = (upper[..all].last_chunk::<N>(), lower[..all].last_chunk::<N>());
    if let (Some(out), Some(upper), Some(lower)) = (out.last_chunk_mut::<N>(), upper, lower) {
        some(out, upper, lower);
    }
}

/// The greater one, the first of equal ones; NaN wins.
#[inline(always)]
pub(crate) fn greater<T: Number>(best: T, x: T) -> T {
    if best < x || x.is_nan() { x } else { best }
}

/// The number of elements of each window.
#[derive(Debug)]
pub(crate) enum Counts {
    Divisors(Vec<f32>),
    /// Their inverses, if all of them are powers of two: a product with those is the quotient to the bit, and faster.
    Factors(Vec<f32>),
}

impl Counts {
    pub(crate) fn new(counts: Vec<f32>) -> Self {
        // Of a normal number the mantissa is zero; counts are integers.
        match counts.iter().all(|count| *count >= 1.0 && count.to_bits().trailing_zeros() >= 23) {
            true => Self::Factors(counts.into_iter().map(f32::recip).collect()),
            false => Self::Divisors(counts),
        }
    }
}

vectorized! {
    /// The greatest element under each window; minus infinity of none.
    pub(crate) fn max(plane: &[f32], rows: &Axis, columns: &Axis, out: &mut [f32]) {
        fold(plane, rows, columns, f32::NEG_INFINITY, greater, out);
    }
}

vectorized! {
    /// The sum of the elements under each window over its count.
    pub(crate) fn mean(plane: &[f32], rows: &Axis, columns: &Axis, counts: &Counts, out: &mut [f32]) {
        fold(plane, rows, columns, 0.0, |sum: f32, x| sum + x, out);
        match counts {
            Counts::Divisors(counts) => {
                for (sum, count) in out.iter_mut().zip(counts) {
                    *sum /= count;
                }
            }
            Counts::Factors(factors) => {
                for (sum, factor) in out.iter_mut().zip(factors) {
                    *sum *= factor;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::sample::axis;

    #[test]
    fn windows_are_folded_in_order_of_the_kernel() {
        let mut random = crate::engine::sample::random(7);
        for _ in 0..400 {
            let mut one = || {
                let (kernel, stride, dilation) = (1 + random(4), 1 + random(4), 1 + random(3));
                let least = (kernel - 1) * dilation + 1;
                axis(least + random(24), kernel, stride, dilation, random(least + 2), random(least + 2))
            };
            let (mut rows, mut columns) = (one(), one());
            if random(4) == 0 {
                rows = axis(2 + random(20), 2, 2, 1, 0, random(2));
                columns = axis(2 + random(40), 2, 2, 1, 0, random(2));
            }
            let special = [f32::NAN, 0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, 1e-40];
            let element = |random: &mut dyn FnMut(usize) -> usize| match random(40) {
                i @ 0..6 => special[i],
                _ => random(1000) as f32 / 37.0 - 13.0,
            };
            let plane: Vec<f32> = (0..rows.input * columns.input).map(|_| element(&mut random)).collect();
            let (mut greatest, mut sums) =
                (vec![9.0; rows.output * columns.output], vec![9.0; rows.output * columns.output]);
            max(&plane, &rows, &columns, &mut greatest);
            let counts: Vec<f32> = (0..sums.len()).map(|at| (1 + at % 3) as f32).collect();
            // Powers of two now and then.
            let counts: Vec<f32> =
                if random(2) == 0 { counts.iter().map(|n| (*n * 1.5).floor().exp2()).collect() } else { counts };
            mean(&plane, &rows, &columns, &Counts::new(counts.clone()), &mut sums);
            for y in 0..rows.output {
                for x in 0..columns.output {
                    let (mut best, mut total) = (f32::NEG_INFINITY, 0.0f32);
                    for (ky, kx) in (0..rows.kernel).flat_map(|ky| (0..columns.kernel).map(move |kx| (ky, kx))) {
                        if let Some((sy, sx)) = rows.source(y, ky).zip(columns.source(x, kx)) {
                            let x = plane[sy * columns.input + sx];
                            best = if best.is_nan() || best >= x { best } else { x };
                            total += x;
                        }
                    }
                    let at = y * columns.output + x;
                    let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
                    assert!(
                        same(greatest[at], best) && same(sums[at], total / counts[at]),
                        "{rows:?} {columns:?} at {y},{x}"
                    );
                }
            }
        }
    }
}
