//! Reductions of rows.

use super::vectorized;
use crate::engine::numeric::{Number, Wide, exp_to_one};

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
    tree(&mut lanes, join)
}

#[inline(always)]
fn tree<A: Copy>(lanes: &mut [A; LANES], join: impl Fn(A, A) -> A) -> A {
    let mut half = LANES / 2;
    while half > 0 {
        for j in 0..half {
            lanes[j] = join(lanes[j], lanes[j + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// The sums of two rows of one length, each as [`fold`] has it: while one waits for its last addition, the other adds. `term`
/// is told of which row an element is.
#[inline(always)]
fn sum_two(rows: [&[f32]; 2], term: impl Fn(usize, f32) -> f32) -> [f32; 2] {
    let mut lanes = [[0.0f32; LANES]; 2];
    let ((first, first_rest), (second, second_rest)) = (rows[0].as_chunks::<LANES>(), rows[1].as_chunks::<LANES>());
    for chunks in first.iter().zip(second) {
        for (lane, x) in lanes[0].iter_mut().zip(chunks.0) {
            *lane += term(0, *x);
        }
        for (lane, x) in lanes[1].iter_mut().zip(chunks.1) {
            *lane += term(1, *x);
        }
    }
    for (row, rest) in [first_rest, second_rest].into_iter().enumerate() {
        for (lane, x) in lanes[row].iter_mut().zip(rest) {
            *lane += term(row, *x);
        }
    }
    let [first, second] = &mut lanes;
    [tree(first, f32::plus), tree(second, f32::plus)]
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

/// Softmax of a row: e^(x − max) of each element, divided by their sum.
#[inline(always)]
fn softmax_without<W: Wide>(max: W, row: &mut [W], exp: impl Fn(W) -> W) {
    for x in row.iter_mut() {
        *x = exp(x.minus(max));
    }
    let sum = sum(row);
    for x in row.iter_mut() {
        *x = x.over(sum);
    }
}

/// Softmax of a row.
pub(crate) fn softmax<W: Wide>(row: &mut [W]) {
    softmax_without(max(row), row, W::exp);
}

vectorized! {
    /// [`softmax`] of each row of `n` elements.
    pub(crate) fn softmax_rows(values: &mut [f32], n: usize) {
        // A loop: what `for_each` calls would be compiled for any CPU.
        for row in values.chunks_exact_mut(n.max(1)) {
            softmax_without(any_max(row), row, exp_to_one);
        }
    }
}

/// The greatest element. The sign of a zero, and what becomes of NaN, make no difference to a softmax: with a NaN its sum is
/// one, and so is everything.
#[inline(always)]
fn any_max(row: &[f32]) -> f32 {
    const MANY: usize = 4 * LANES;
    let greater = |a: f32, b: f32| if a > b { a } else { b };
    let mut many = [f32::NEG_INFINITY; MANY];
    let (chunks, rest) = row.as_chunks::<MANY>();
    for chunk in chunks {
        for (lane, x) in many.iter_mut().zip(chunk) {
            *lane = greater(*lane, *x);
        }
    }
    let (first, others) = many.split_at_mut(LANES);
    for lanes in others.chunks_exact(LANES) {
        for (lane, x) in first.iter_mut().zip(lanes) {
            *lane = greater(*lane, *x);
        }
    }
    for chunk in rest.chunks(LANES) {
        for (lane, x) in first.iter_mut().zip(chunk) {
            *lane = greater(*lane, *x);
        }
    }
    fold(first, |x| x, f32::NEG_INFINITY, greater)
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
    /// Layer normalisation of each row of `n` elements of `from`, into `to`: mean; variance as the mean of squared differences;
    /// (x − mean) · (1 / sqrt(variance + epsilon)), times the scale, plus the bias.
    pub(crate) fn layer_norm_rows(from: &[f32], to: &mut [f32], n: usize, epsilon: f32, scale: &[f32], bias: &[f32]) {
        let (n, count) = (n.max(1), n as f32);
        let square = |x: f32, mean: f32| (x - mean) * (x - mean);
        let inverse = |squares: f32| 1.0 / (squares / count + epsilon).sqrt();
        let even = from.len() / (2 * n) * (2 * n);
        for (from, to) in from[..even].chunks_exact(2 * n).zip(to[..even].chunks_exact_mut(2 * n)) {
            let (first, second) = from.split_at(n);
            let sums = sum_two([first, second], |_, x| x);
            let means = [sums[0] / count, sums[1] / count];
            let squares = sum_two([first, second], |row, x| square(x, means[row]));
            let (to_first, to_second) = to.split_at_mut(n);
            normalised(first, to_first, means[0], inverse(squares[0]), scale, bias);
            normalised(second, to_second, means[1], inverse(squares[1]), scale, bias);
        }
        for (from, to) in from[even..].chunks_exact(n).zip(to[even..].chunks_exact_mut(n)) {
            let mean = sum(from) / count;
            let squares = fold(from, |x: f32| square(x, mean), 0.0, f32::plus);
            normalised(from, to, mean, inverse(squares), scale, bias);
        }
    }
}

#[inline(always)]
fn normalised(from: &[f32], to: &mut [f32], mean: f32, inverse: f32, scale: &[f32], bias: &[f32]) {
    if bias.is_empty() {
        for ((to, x), s) in to.iter_mut().zip(from).zip(scale) {
            *to = (*x - mean) * inverse * s;
        }
    } else {
        for (((to, x), s), b) in to.iter_mut().zip(from).zip(scale).zip(bias) {
            *to = (*x - mean) * inverse * s + b;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::sample::{bits, numbers};

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
    fn rows_are_normalised_as_defined() {
        for (n, count) in [(1, 5), (7, 9), (16, 4), (40, 3), (100, 6)] {
            let (rows, scale, bias) = (numbers(n * count, 1), numbers(n, 2), numbers(n, 3));
            for bias in [&bias[..], &[]] {
                let mut normalised = vec![9.0; rows.len()];
                layer_norm_rows(&rows, &mut normalised, n, 1e-5, &scale, bias);
                for (row, normalised) in rows.chunks_exact(n).zip(normalised.chunks_exact(n)) {
                    let mean = sum(row) / n as f32;
                    let squares: Vec<f32> = row.iter().map(|x| (x - mean) * (x - mean)).collect();
                    let inverse = 1.0 / (sum(&squares) / n as f32 + 1e-5).sqrt();
                    let bias = |i: usize| bias.get(i).copied();
                    let one = |i: usize| (row[i] - mean) * inverse * scale[i];
                    let expected: Vec<f32> = (0..n).map(|i| bias(i).map_or(one(i), |bias| one(i) + bias)).collect();
                    assert_eq!(bits(normalised), bits(&expected), "{count} rows of {n}");
                }
            }
        }
    }

    #[test]
    fn softmax_rows_equal_softmax() {
        for (n, count) in [(1, 3), (7, 9), (16, 4), (20, 3), (64, 6), (150, 5), (0, 0)] {
            let mut rows: Vec<f32> = (0..n * count).map(|i| ((i * 7) % 13) as f32 - 6.0).collect();
            let mut each = rows.clone();
            softmax_rows(&mut rows, n);
            each.chunks_exact_mut(n.max(1)).for_each(softmax);
            assert_eq!(bits(&rows), bits(&each), "{count} rows of {n}");
        }
        for special in [f32::NAN, f32::INFINITY] {
            let mut row: Vec<f32> = (0..90).map(|i| i as f32).collect();
            row[70] = special;
            softmax_rows(&mut row, 90);
            assert!(row[70].is_nan() && (special == f32::INFINITY || row.iter().all(|x| x.is_nan())), "{special}");
        }
        let mut infinite = [f32::NEG_INFINITY, 0.0, 1.0];
        softmax(&mut infinite);
        assert_eq!(infinite[0], 0.0);
        assert!(max(&[1.0, f32::NAN, 2.0f32]).is_nan());
    }
}
