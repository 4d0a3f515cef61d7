//! Registers of the terms of a matrix product, for each kind of x86-64 processor that has machine code of its own.
//!
//! | | AVX2 | AVX-512 |
//! |---|---|---|
//! | features | `avx2`, `fma` | `avx512f`, `avx512bw`, `avx512vnni` |
//! | float32 | fused multiply-add of 8 | of 16 |
//! | pairs of integers | products of two added, then added to the sum | both at once |

use core::arch::x86_64::{
    __m256, __m256i, __m512, __m512i, _mm256_add_epi32, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256,
    _mm256_madd_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_storeu_ps,
    _mm256_storeu_si256, _mm512_dpwssd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_storeu_ps, _mm512_storeu_si512,
};

use super::term::{Pair, Term};

/// A register of terms, or of as many sums. All terms have 32 bits.
///
/// # Safety
/// Of every function: the CPU has the features of the register's kind.
pub(crate) trait Lanes<T: Term>: Copy {
    /// Terms of one register.
    const COUNT: usize;

    /// # Safety
    /// As of the trait.
    unsafe fn zeros() -> Self;

    /// # Safety
    /// As of the trait; there are [`Self::COUNT`] terms.
    unsafe fn load(from: *const T) -> Self;

    /// # Safety
    /// As of the trait.
    unsafe fn splat(term: T) -> Self;

    /// [`Term::add_product`] of each lane.
    ///
    /// # Safety
    /// As of the trait.
    unsafe fn add_products(a: Self, b: Self, sums: Self) -> Self;

    /// # Safety
    /// As of the trait; there are [`Self::COUNT`] places.
    unsafe fn store(to: *mut T::Sum, sums: Self);
}

impl Lanes<f32> for __m256 {
    const COUNT: usize = 8;

    #[inline(always)]
    unsafe fn zeros() -> Self {
        // SAFETY: as promised.
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as promised.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn splat(term: f32) -> Self {
        // SAFETY: as promised.
        unsafe { _mm256_set1_ps(term) }
    }

    #[inline(always)]
    unsafe fn add_products(a: Self, b: Self, sums: Self) -> Self {
        // SAFETY: as promised.
        unsafe { _mm256_fmadd_ps(a, b, sums) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, sums: Self) {
        // SAFETY: as promised.
        unsafe { _mm256_storeu_ps(to, sums) }
    }
}

impl Lanes<f32> for __m512 {
    const COUNT: usize = 16;

    #[inline(always)]
    unsafe fn zeros() -> Self {
        // SAFETY: as promised.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as promised.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn splat(term: f32) -> Self {
        // SAFETY: as promised.
        unsafe { _mm512_set1_ps(term) }
    }

    #[inline(always)]
    unsafe fn add_products(a: Self, b: Self, sums: Self) -> Self {
        // SAFETY: as promised.
        unsafe { _mm512_fmadd_ps(a, b, sums) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, sums: Self) {
        // SAFETY: as promised.
        unsafe { _mm512_storeu_ps(to, sums) }
    }
}

/// Of AVX2.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pairs256(__m256i);

impl Lanes<Pair> for Pairs256 {
    const COUNT: usize = 8;

    #[inline(always)]
    unsafe fn zeros() -> Self {
        // SAFETY: as promised.
        unsafe { Self(_mm256_setzero_si256()) }
    }

    #[inline(always)]
    unsafe fn load(from: *const Pair) -> Self {
        // SAFETY: as promised; a pair is an i32.
        unsafe { Self(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn splat(term: Pair) -> Self {
        // SAFETY: as promised.
        unsafe { Self(_mm256_set1_epi32(term.bits())) }
    }

    #[inline(always)]
    unsafe fn add_products(a: Self, b: Self, sums: Self) -> Self {
        // SAFETY: as promised.
        unsafe { Self(_mm256_add_epi32(sums.0, _mm256_madd_epi16(a.0, b.0))) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut i32, sums: Self) {
        // SAFETY: as promised.
        unsafe { _mm256_storeu_si256(to.cast(), sums.0) }
    }
}

/// Of AVX-512.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pairs512(__m512i);

impl Lanes<Pair> for Pairs512 {
    const COUNT: usize = 16;

    #[inline(always)]
    unsafe fn zeros() -> Self {
        // SAFETY: as promised.
        unsafe { Self(_mm512_setzero_si512()) }
    }

    #[inline(always)]
    unsafe fn load(from: *const Pair) -> Self {
        // SAFETY: as promised; a pair is an i32.
        unsafe { Self(_mm512_loadu_si512(from.cast())) }
    }

    #[inline(always)]
    unsafe fn splat(term: Pair) -> Self {
        // SAFETY: as promised.
        unsafe { Self(_mm512_set1_epi32(term.bits())) }
    }

    #[inline(always)]
    unsafe fn add_products(a: Self, b: Self, sums: Self) -> Self {
        // SAFETY: as promised.
        unsafe { Self(_mm512_dpwssd_epi32(sums.0, a.0, b.0)) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut i32, sums: Self) {
        // SAFETY: as promised.
        unsafe { _mm512_storeu_si512(to.cast(), sums.0) }
    }
}
