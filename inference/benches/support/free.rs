//! Kernels whose sums are in whatever order is fastest on the CPU: what `exactness.rs` compares with.

use core::arch::x86_64::{__m256, __m512, _mm256_fmadd_ps, _mm256_set1_ps, _mm512_fmadd_ps, _mm512_set1_ps};
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

/// Running sums of a row: four registers of AVX-512, eight of AVX2, so that none waits for another.
const LANES: usize = 64;

#[derive(Clone, Copy)]
pub(crate) struct Kernels {
    avx512: bool,
}

impl Kernels {
    pub(crate) fn of_this_cpu() -> Option<Self> {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        avx2.then(|| Self { avx512: is_x86_feature_detected!("avx512f") })
    }

    /// The time of so many multiply-adds in registers.
    pub(crate) fn multiply_adds(self, count: usize) -> Duration {
        let begin = Instant::now();
        // SAFETY: the CPU has the features.
        unsafe {
            if self.avx512 {
                black_box(products_avx512(count / (REGISTERS * 16)));
            } else {
                black_box(products_avx2(count / (REGISTERS * 8)));
            }
        }
        begin.elapsed()
    }

    /// The time of the softmax of rows of `n` elements.
    pub(crate) fn softmax(self, rows: &mut [f32], n: usize) -> Duration {
        let begin = Instant::now();
        // SAFETY: the CPU has the features.
        unsafe { if self.avx512 { softmax_avx512(rows, n) } else { softmax_avx2(rows, n) } }
        let took = begin.elapsed();
        black_box(rows);
        took
    }

    /// The time of the layer normalisation of rows of `n` elements.
    pub(crate) fn layer_norm(self, rows: &[f32], to: &mut [f32], n: usize, scale: &[f32], bias: &[f32]) -> Duration {
        let begin = Instant::now();
        // SAFETY: the CPU has the features.
        unsafe {
            if self.avx512 {
                layer_norm_avx512(rows, to, n, scale, bias);
            } else {
                layer_norm_avx2(rows, to, n, scale, bias);
            }
        }
        let took = begin.elapsed();
        black_box(to);
        took
    }
}

/// Sums that hide the latency of each other.
const REGISTERS: usize = 12;

#[target_feature(enable = "avx512f")]
fn products_avx512(rounds: usize) -> [__m512; REGISTERS] {
    let (a, b) = (_mm512_set1_ps(black_box(0.5)), _mm512_set1_ps(black_box(0.25)));
    let mut sums = [_mm512_set1_ps(black_box(1.0)); REGISTERS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, a, b);
        }
    }
    sums
}

#[target_feature(enable = "avx2,fma")]
fn products_avx2(rounds: usize) -> [__m256; REGISTERS] {
    let (a, b) = (_mm256_set1_ps(black_box(0.5)), _mm256_set1_ps(black_box(0.25)));
    let mut sums = [_mm256_set1_ps(black_box(1.0)); REGISTERS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(*sum, a, b);
        }
    }
    sums
}

macro_rules! kernels {
    ($features:literal, $softmax:ident, $layer_norm:ident) => {
        #[target_feature(enable = $features)]
        fn $softmax(rows: &mut [f32], n: usize) {
            for row in rows.chunks_exact_mut(n) {
                softmax(row);
            }
        }

        #[target_feature(enable = $features)]
        fn $layer_norm(rows: &[f32], to: &mut [f32], n: usize, scale: &[f32], bias: &[f32]) {
            for (row, to) in rows.chunks_exact(n).zip(to.chunks_exact_mut(n)) {
                layer_norm(row, to, scale, bias);
            }
        }
    };
}
kernels!("avx2,fma", softmax_avx2, layer_norm_avx2);
kernels!("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma", softmax_avx512, layer_norm_avx512);

#[inline(always)]
fn fold(row: &[f32], start: f32, join: impl Fn(f32, f32) -> f32, term: impl Fn(f32) -> f32) -> f32 {
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

#[inline(always)]
fn softmax(row: &mut [f32]) {
    let max = fold(row, f32::NEG_INFINITY, |a, b| if a > b { a } else { b }, |x| x);
    for x in row.iter_mut() {
        *x = exp(*x - max);
    }
    let sum = fold(row, 0.0, |a, b| a + b, |x| x);
    for x in row.iter_mut() {
        *x /= sum;
    }
}

/// Cephes' `expf`, for numbers from −87 to 0.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = x.mul_add(core::f32::consts::LOG2_E, SHIFT);
    let n = shifted - SHIFT;
    let r = n.mul_add(2.121_944_4e-4, n.mul_add(-0.693_359_4, x));
    let mut p = 1.987_569_1e-4f32;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1] {
        p = p.mul_add(r, c);
    }
    let result = p.mul_add(r * r, r + 1.0);
    f32::from_bits(result.to_bits().wrapping_add(shifted.to_bits() << 23))
}

#[inline(always)]
fn layer_norm(row: &[f32], to: &mut [f32], scale: &[f32], bias: &[f32]) {
    let count = row.len() as f32;
    let mean = fold(row, 0.0, |a, b| a + b, |x| x) / count;
    let variance = fold(row, 0.0, |a, b| a + b, |x| (x - mean) * (x - mean)) / count;
    let inverse = 1.0 / (variance + 1e-5).sqrt();
    for (((to, x), s), b) in to.iter_mut().zip(row).zip(scale).zip(bias) {
        *to = ((*x - mean) * inverse).mul_add(*s, *b);
    }
}
