//! Numbers for unit tests: the same in every run.

use super::kernels::planes::Axis;

/// A linear congruential generator (Numerical Recipes).
fn next(state: &mut u32) -> u32 {
    *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    *state >> 8
}

/// A source of numbers below a bound.
pub(crate) fn random(seed: u32) -> impl FnMut(usize) -> usize {
    let mut state = seed;
    move |below| next(&mut state) as usize % below
}

/// Fractions from −1 to 1.
pub(crate) fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    (0..count).map(|_| next(&mut state) as f32 / (1 << 23) as f32 - 1.0).collect()
}

pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// A dimension of a window that fits into its padded input as often as it goes.
pub(crate) fn axis(input: usize, kernel: usize, stride: usize, dilation: usize, before: usize, after: usize) -> Axis {
    let output = (input + before + after - (kernel - 1) * dilation - 1) / stride + 1;
    Axis { input, kernel, stride, dilation, before, output }
}
