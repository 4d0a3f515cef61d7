//! Windows over the rows and columns of a plane: each output folds the elements under its window in row-major order,
//! padding left out. Goes over the outputs of a row for each kernel position, so that lanes are outputs.

use super::{conv::Axis, vectorized};
use crate::engine::numeric::Number;

/// The outputs whose element under kernel position `k` is no padding: the first one, and the one behind the last.
#[inline(always)]
fn met(axis: &Axis, k: usize) -> (usize, usize) {
    let shift = k * axis.dilation;
    let first = axis.before.saturating_sub(shift).div_ceil(axis.stride);
    let end = (axis.input + axis.before).saturating_sub(shift).div_ceil(axis.stride);
    (first.min(axis.output), end.min(axis.output))
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
    out.fill(start);
    for (y, out) in out.chunks_exact_mut(columns.output.max(1)).enumerate() {
        for ky in 0..rows.kernel {
            let Some(source) = rows.source(y, ky) else { continue };
            let row = &plane[source * columns.input..(source + 1) * columns.input];
            for kx in 0..columns.kernel {
                let (first, end) = met(columns, kx);
                if first >= end {
                    continue;
                }
                let out = &mut out[first..end];
                let row = &row[first * columns.stride + kx * columns.dilation - columns.before..];
                match columns.stride {
                    1 => out.iter_mut().zip(row).for_each(|(sum, x)| *sum = join(*sum, *x)),
                    2 => {
                        // The last one may be the last of the row.
                        let (pairs, rest) = row.as_chunks::<2>();
                        out.iter_mut().zip(pairs).for_each(|(sum, x)| *sum = join(*sum, x[0]));
                        if let (Some(sum), [x]) = (out.get_mut(pairs.len()), rest) {
                            *sum = join(*sum, *x);
                        }
                    }
                    stride => out.iter_mut().zip(row.iter().step_by(stride)).for_each(|(sum, x)| *sum = join(*sum, *x)),
                }
            }
        }
    }
}

/// Outputs that a register has.
const LANES: usize = 8;

/// [`fold`] with windows of two by two that lie side by side, as most do: an output at once.
#[inline(always)]
fn halve<T: Copy, A: Copy>(plane: &[T], columns: &Axis, start: A, join: impl Fn(A, T) -> A, out: &mut [A]) {
    let width = columns.input;
    for (out, lines) in out.chunks_exact_mut(columns.output.max(1)).zip(plane.chunks_exact((2 * width).max(1))) {
        let (upper, lower) = lines.split_at(width);
        let (upper, lower) = (upper.as_chunks::<2>().0, lower.as_chunks::<2>().0);
        let mut some = |first: usize, end: usize| {
            for ((out, a), b) in out[first..end].iter_mut().zip(&upper[first..end]).zip(&lower[first..end]) {
                *out = join(join(join(join(start, a[0]), a[1]), b[0]), b[1]);
            }
        };
        let all = columns.output;
        if all < LANES {
            some(0, all);
        } else {
            some(0, all / LANES * LANES);
            // The rest with some that are done already: one by one they would take longer than all others.
            some(all - LANES, all);
        }
    }
}

/// The greater one, the first of equal ones; NaN wins.
#[inline(always)]
pub(crate) fn greater<T: Number>(best: T, x: T) -> T {
    if best.is_nan() || best >= x { best } else { x }
}

vectorized! {
    /// The greatest element under each window; minus infinity of none.
    pub(crate) fn max(plane: &[f32], rows: &Axis, columns: &Axis, out: &mut [f32]) {
        fold(plane, rows, columns, f32::NEG_INFINITY, greater, out);
    }
}

vectorized! {
    /// The sum of the elements under each window.
    pub(crate) fn sum(plane: &[f32], rows: &Axis, columns: &Axis, out: &mut [f32]) {
        fold(plane, rows, columns, 0.0, |sum: f32, x| sum + x, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(input: usize, kernel: usize, stride: usize, dilation: usize, before: usize, after: usize) -> Axis {
        let output = (input + before + after - (kernel - 1) * dilation - 1) / stride + 1;
        Axis { input, kernel, stride, dilation, before, output }
    }

    #[test]
    fn windows_are_folded_in_order_of_the_kernel() {
        let mut state = 7u32;
        let mut random = |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % below
        };
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
            sum(&plane, &rows, &columns, &mut sums);
            for y in 0..rows.output {
                for x in 0..columns.output {
                    let (mut best, mut total) = (f32::NEG_INFINITY, 0.0f32);
                    for (ky, kx) in (0..rows.kernel).flat_map(|ky| (0..columns.kernel).map(move |kx| (ky, kx))) {
                        if let Some((sy, sx)) = rows.source(y, ky).zip(columns.source(x, kx)) {
                            best = greater(best, plane[sy * columns.input + sx]);
                            total += plane[sy * columns.input + sx];
                        }
                    }
                    let at = y * columns.output + x;
                    let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
                    assert!(same(greatest[at], best) && same(sums[at], total), "{rows:?} {columns:?} at {y},{x}");
                }
            }
        }
    }
}
