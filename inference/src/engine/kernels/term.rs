//! What a matrix product is made of: float32, or pairs of small integers. `lanes.rs` says the same for registers of them.

#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::{__m256, __m512};

#[cfg(target_arch = "x86_64")]
use super::lanes::{Lanes, Pairs256, Pairs512};

/// A term of a matrix product. Its default is zero.
pub(crate) trait Term: Copy + Default + Send + Sync {
    /// What products are added up in.
    type Sum: Copy + Default + Send + Sync;

    /// `sum + self · other`.
    fn add_product(self, other: Self, sum: Self::Sum) -> Self::Sum;

    /// A sum and a bias.
    fn add(sum: Self::Sum, bias: Self::Sum) -> Self::Sum;

    /// Registers of AVX2.
    #[cfg(target_arch = "x86_64")]
    type Avx2: Lanes<Self>;

    /// Registers of AVX-512.
    #[cfg(target_arch = "x86_64")]
    type Avx512: Lanes<Self>;
}

impl Term for f32 {
    type Sum = f32;
    #[cfg(target_arch = "x86_64")]
    type Avx2 = __m256;
    #[cfg(target_arch = "x86_64")]
    type Avx512 = __m512;

    #[inline(always)]
    fn add_product(self, other: f32, sum: f32) -> f32 {
        self.mul_add(other, sum)
    }

    #[inline(always)]
    fn add(sum: f32, bias: f32) -> f32 {
        sum + bias
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

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn bits(self) -> i32 {
        self.0
    }
}

/// The exact sum of both products, wrapping: what the processor does with two products at a time is the same.
impl Term for Pair {
    type Sum = i32;
    #[cfg(target_arch = "x86_64")]
    type Avx2 = Pairs256;
    #[cfg(target_arch = "x86_64")]
    type Avx512 = Pairs512;

    #[inline(always)]
    fn add_product(self, other: Self, sum: i32) -> i32 {
        let first = i32::from(self.0 as i16) * i32::from(other.0 as i16);
        let second = (self.0 >> 16) * (other.0 >> 16);
        sum.wrapping_add(first.wrapping_add(second))
    }

    #[inline(always)]
    fn add(sum: i32, bias: i32) -> i32 {
        sum.wrapping_add(bias)
    }
}
