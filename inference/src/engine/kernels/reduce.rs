//! Reductions of rows.

use super::vectorized;
use crate::engine::numeric::{Number, Wide};

/// Running sums of one row.
pub(crate) const LANES: usize = 16;

/// Element i into sum i mod 16, then the tree `s[j] + s[j + 8]`, + 4, + 2, + 1.
#[inline(always)]
pub(crate) fn fold<T: Copy, A: Number>(row: &[T], term: impl Fn(T) -> A, start: A, join: impl Fn(A, A) -> A) -> A {
    let mut lanes = [start; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = join(*lane, term(*x));
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = join(*lane, term(*x));
    }
    let mut half = LANES / 2;
    while half > 0 {
        for j in 0..half {
            lanes[j] = join(lanes[j], lanes[j + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// The sum of a row.
#[inline(always)]
pub(crate) fn sum<A: Number>(row: &[A]) -> A {
    fold(row, |x| x, A::ZERO, A::plus)
}

/// The greatest element; NaN wins; minus infinity of none.
#[inline(always)]
pub(crate) fn max<A: Number>(row: &[A]) -> A {
    row.iter().fold(A::LEAST, |best, x| if best.is_nan() || best >= *x { best } else { *x })
}

/// The same, lane by lane: what may differ is the sign of a zero, and which NaN it is.
#[inline(always)]
fn max_unsigned<A: Number>(row: &[A]) -> A {
    let greater = |best: A, x: A| if best.is_nan() || best >= x { best } else { x };
    fold(row, |x| x, A::LEAST, greater)
}

vectorized! {
    /// The least and the greatest element, zero being one of them; NaN is passed over. (What sign a zero has is not
    /// said.)
    pub(crate) fn range_with_zero(values: &[f32]) -> (f32, f32) {
        let mut lows = [0.0f32; LANES];
        let mut highs = [0.0f32; LANES];
        let (chunks, rest) = values.as_chunks::<LANES>();
        let mut last = [0.0f32; LANES];
        last[..rest.len()].copy_from_slice(rest);
        for chunk in chunks.iter().chain([&last]) {
            for lane in 0..LANES {
                lows[lane] = if chunk[lane] < lows[lane] { chunk[lane] } else { lows[lane] };
                highs[lane] = if chunk[lane] > highs[lane] { chunk[lane] } else { highs[lane] };
            }
        }
        let low = lows.into_iter().fold(0.0, |low, x| if x < low { x } else { low });
        let high = highs.into_iter().fold(0.0, |high, x| if x > high { x } else { high });
        (low, high)
    }
}

/// e^(x − max) of each element, and their sum. (The sign of a zero that is taken off makes no difference to an exponential.)
#[inline(always)]
fn exponentials<W: Wide>(row: &mut [W]) -> W {
    let max = max_unsigned(row);
    for x in row.iter_mut() {
        *x = x.minus(max).exp();
    }
    sum(row)
}

/// Softmax of a row: the exponentials divided by their sum.
#[inline(always)]
pub(crate) fn softmax<W: Wide>(row: &mut [W]) {
    let sum = exponentials(row);
    for x in row.iter_mut() {
        *x = x.over(sum);
    }
}

vectorized! {
    /// [`softmax`] of each row of `n` elements.
    pub(crate) fn softmax_rows(values: &mut [f32], n: usize) {
        // A loop: what `for_each` calls would be compiled for any CPU.
        for row in values.chunks_exact_mut(n.max(1)) {
            softmax(row);
        }
    }
}

/// Log-softmax of a row: x − max − log(sum of the exponentials).
pub(crate) fn log_softmax<W: Wide>(row: &mut [W]) {
    let max = max(row);
    let sum = fold(row, |x: W| x.minus(max).exp(), W::ZERO, W::plus).log();
    for x in row.iter_mut() {
        *x = x.minus(max).minus(sum);
    }
}

vectorized! {
    /// The sum of each row of `n` elements.
    pub(crate) fn sum_rows(values: &[f32], n: usize, out: &mut Vec<f32>) {
        for row in values.chunks_exact(n.max(1)) {
            out.push(sum(row));
        }
    }
}

vectorized! {
    /// Layer normalisation of each row of `n` elements: mean; variance as the mean of squared differences;
    /// (x − mean) · (1 / sqrt(variance + epsilon)), times the scale, plus the bias.
    pub(crate) fn layer_norm_rows(values: &mut [f32], n: usize, epsilon: f32, scale: &[f32], bias: &[f32]) {
        for row in values.chunks_exact_mut(n.max(1)) {
            let count = n as f32;
            let mean = sum(row) / count;
            let variance = fold(row, |x: f32| (x - mean) * (x - mean), 0.0, |a: f32, b| a + b) / count;
            let inverse = 1.0 / (variance + epsilon).sqrt();
            if bias.is_empty() {
                for (x, s) in row.iter_mut().zip(scale) {
                    *x = (*x - mean) * inverse * s;
                }
            } else {
                for ((x, s), b) in row.iter_mut().zip(scale).zip(bias) {
                    *x = (*x - mean) * inverse * s + b;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_a_sum_is_as_defined() {
        let row: Vec<f32> = (0..37).map(|i| 1.0 / (i as f32 + 1.0)).collect();
        let mut lanes = [0.0f32; 16];
        row.iter().enumerate().for_each(|(i, x)| lanes[i % 16] += x);
        for half in [8, 4, 2, 1] {
            (0..half).for_each(|j| lanes[j] += lanes[j + half]);
        }
        assert_eq!(sum(&row).to_bits(), lanes[0].to_bits());
        let mut out = Vec::new();
        sum_rows(&row, 37, &mut out);
        assert_eq!(out[0].to_bits(), lanes[0].to_bits(), "machine code for this CPU and for any");
    }

    #[test]
    fn softmax_rows_equal_softmax() {
        let mut rows: Vec<f32> = (0..60).map(|i| ((i * 7) % 13) as f32 - 6.0).collect();
        let mut each = rows.clone();
        softmax_rows(&mut rows, 20);
        each.chunks_exact_mut(20).for_each(softmax);
        assert_eq!(
            rows.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
            each.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        );
        let mut infinite = [f32::NEG_INFINITY, 0.0, 1.0];
        softmax(&mut infinite);
        assert_eq!(infinite[0], 0.0);
        assert!(max(&[1.0, f32::NAN, 2.0f32]).is_nan());
    }
}
