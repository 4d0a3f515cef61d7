//! What a matrix product is made of: float32, or pairs of small integers. Each says the same thing twice, for one number
//! and for a vector of them.

#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::{
    __m256, __m256i, _mm256_add_epi32, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_storeu_ps, _mm256_storeu_si256,
};

/// Terms of one AVX2 register. All terms have 32 bits.
#[cfg(target_arch = "x86_64")]
pub(crate) const LANES: usize = 8;

/// A term of a matrix product. Its default is zero.
pub(crate) trait Term: Copy + Default + Send + Sync {
    /// What products are added up in.
    type Sum: Copy + Default + Send + Sync;

    /// `sum + self · other`.
    fn add_product(self, other: Self, sum: Self::Sum) -> Self::Sum;

    /// [`LANES`] terms, or as many sums.
    #[cfg(target_arch = "x86_64")]
    type Lanes: Copy;

    /// # Safety
    /// The CPU has AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    unsafe fn zeros() -> Self::Lanes;

    /// # Safety
    /// The CPU has AVX2 and FMA; there are [`LANES`] terms.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load(from: *const Self) -> Self::Lanes;

    /// # Safety
    /// The CPU has AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    unsafe fn splat(self) -> Self::Lanes;

    /// [`Self::add_product`] of each lane.
    ///
    /// # Safety
    /// The CPU has AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    unsafe fn add_products(a: Self::Lanes, b: Self::Lanes, sums: Self::Lanes) -> Self::Lanes;

    /// # Safety
    /// The CPU has AVX2 and FMA; there are [`LANES`] places.
    #[cfg(target_arch = "x86_64")]
    unsafe fn store(to: *mut Self::Sum, sums: Self::Lanes);
}

impl Term for f32 {
    type Sum = f32;
    #[cfg(target_arch = "x86_64")]
    type Lanes = __m256;

    #[inline(always)]
    fn add_product(self, other: f32, sum: f32) -> f32 {
        self.mul_add(other, sum)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn zeros() -> __m256 {
        // SAFETY: as promised.
        unsafe { _mm256_setzero_ps() }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        // SAFETY: as promised.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn splat(self) -> __m256 {
        // SAFETY: as promised.
        unsafe { _mm256_set1_ps(self) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn add_products(a: __m256, b: __m256, sums: __m256) -> __m256 {
        // SAFETY: as promised.
        unsafe { _mm256_fmadd_ps(a, b, sums) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn store(to: *mut f32, sums: __m256) {
        // SAFETY: as promised.
        unsafe { _mm256_storeu_ps(to, sums) }
    }
}

/// Two neighbours along k of a matrix of integers of 16 bits: the lower and the upper half.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Pair(i32);

impl Pair {
    #[inline(always)]
    pub(crate) fn new(first: i16, second: i16) -> Self {
        Self(i32::from(first as u16) | i32::from(second) << 16)
    }
}

/// The exact sum of both products, wrapping: what the processor does with two products at a time is the same.
impl Term for Pair {
    type Sum = i32;
    #[cfg(target_arch = "x86_64")]
    type Lanes = __m256i;

    #[inline(always)]
    fn add_product(self, other: Self, sum: i32) -> i32 {
        let first = i32::from(self.0 as i16) * i32::from(other.0 as i16);
        let second = (self.0 >> 16) * (other.0 >> 16);
        sum.wrapping_add(first.wrapping_add(second))
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn zeros() -> __m256i {
        // SAFETY: as promised.
        unsafe { _mm256_setzero_si256() }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load(from: *const Self) -> __m256i {
        // SAFETY: as promised; a pair is an i32.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn splat(self) -> __m256i {
        // SAFETY: as promised.
        unsafe { _mm256_set1_epi32(self.0) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn add_products(a: __m256i, b: __m256i, sums: __m256i) -> __m256i {
        // SAFETY: as promised.
        unsafe { _mm256_add_epi32(sums, _mm256_madd_epi16(a, b)) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn store(to: *mut i32, sums: __m256i) {
        // SAFETY: as promised.
        unsafe { _mm256_storeu_si256(to.cast(), sums) }
    }
}
