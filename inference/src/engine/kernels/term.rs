//! What a matrix product is made of: float32, pairs of small integers, or quads of bytes. `lanes.rs` says the same for registers of them.

use bytemuck::TransparentWrapper;

#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::{__m256, __m512};

#[cfg(target_arch = "x86_64")]
use super::lanes::{Lanes, Pairs256, Pairs512, Quads256, Quads512};

/// What products are added up in. Its default is zero.
pub(crate) trait Accumulator: Copy + Default + Send + Sync {
    /// With a bias.
    fn plus(self, bias: Self) -> Self;

    /// Zero if it is less, as Relu.
    fn rectified(self) -> Self;
}

impl Accumulator for f32 {
    #[inline(always)]
    fn plus(self, bias: f32) -> f32 {
        self + bias
    }

    #[inline(always)]
    fn rectified(self) -> f32 {
        if self < 0.0 { 0.0 } else { self }
    }
}

/// Wraps.
impl Accumulator for i32 {
    #[inline(always)]
    fn plus(self, bias: i32) -> i32 {
        self.wrapping_add(bias)
    }

    #[inline(always)]
    fn rectified(self) -> i32 {
        self.max(0)
    }
}

/// A term of a matrix product. Its default is zero.
pub(crate) trait Term: Copy + Default + Send + Sync {
    /// What products are added up in.
    type Sum: Accumulator;

    /// `sum + self · other`.
    fn add_product(self, other: Self, sum: Self::Sum) -> Self::Sum;

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
}

/// Four neighbours along k of a matrix of bytes, the first in the lowest bits: on the left-hand side numbers from 0 to 255,
/// on the right-hand side from −128 to 127.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, bytemuck::TransparentWrapper)]
#[repr(transparent)]
pub(crate) struct Quad(i32);

impl Quad {
    #[inline(always)]
    pub(crate) fn new(bytes: [u8; 4]) -> Self {
        Self(i32::from_le_bytes(bytes))
    }

    /// Over memory of numbers.
    pub(crate) fn over(numbers: &mut [i32]) -> &mut [Self] {
        Self::wrap_slice_mut(numbers)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn bits(self) -> i32 {
        self.0
    }
}

/// The exact sum of the four products, wrapping.
impl Term for Quad {
    type Sum = i32;
    #[cfg(target_arch = "x86_64")]
    type Avx2 = Quads256;
    #[cfg(target_arch = "x86_64")]
    type Avx512 = Quads512;

    #[inline(always)]
    fn add_product(self, other: Self, sum: i32) -> i32 {
        let pairs = self.0.to_le_bytes().into_iter().zip(other.0.to_le_bytes());
        pairs.fold(sum, |sum, (a, b)| sum.wrapping_add(i32::from(a) * i32::from(b as i8)))
    }
}
