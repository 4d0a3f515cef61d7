//! The arithmetic that all numbers have: integers wrap, fractions round to nearest, ties to even.

use half::{bf16, f16};

use super::Convert;

/// A number.
pub(crate) trait Number: Convert {
    const ZERO: Self;
    const ONE: Self;
    /// The least value: minus infinity where there is one.
    const LEAST: Self;
    /// The greatest value: infinity where there is one.
    const GREATEST: Self;

    fn plus(self, other: Self) -> Self;
    fn minus(self, other: Self) -> Self;
    fn times(self, other: Self) -> Self;
    /// Integers: towards zero; by zero it is zero.
    fn over(self, other: Self) -> Self;
    /// The remainder with the sign of `other` (Python's `%`); by zero it is zero for integers, NaN for fractions.
    fn modulo(self, other: Self) -> Self;
    /// The remainder with the sign of `self` (C's `fmod`); by zero it is zero for integers, NaN for fractions.
    fn remainder(self, other: Self) -> Self;
    fn negated(self) -> Self;
    fn magnitude(self) -> Self;
    fn is_nan(self) -> bool;

    /// −1, 0 or 1; NaN stays.
    fn sign(self) -> Self {
        if self > Self::ZERO {
            Self::ONE
        } else if self < Self::ZERO {
            Self::ZERO.minus(Self::ONE)
        } else {
            self
        }
    }

    /// The greater one, the first of equal ones; NaN if one is NaN.
    fn greater(self, other: Self) -> Self {
        if self.is_nan() || self >= other { self } else { other }
    }

    /// The lesser one, the first of equal ones; NaN if one is NaN.
    fn lesser(self, other: Self) -> Self {
        if self.is_nan() || self <= other { self } else { other }
    }
}

macro_rules! integers {
    ($($t:ty: $abs:expr;)*) => {$(
        impl Number for $t {
            const ZERO: Self = 0;
            const ONE: Self = 1;
            const LEAST: Self = <$t>::MIN;
            const GREATEST: Self = <$t>::MAX;
            #[inline(always)]
            fn plus(self, other: Self) -> Self { self.wrapping_add(other) }
            #[inline(always)]
            fn minus(self, other: Self) -> Self { self.wrapping_sub(other) }
            #[inline(always)]
            fn times(self, other: Self) -> Self { self.wrapping_mul(other) }
            #[inline(always)]
            fn over(self, other: Self) -> Self { if other == 0 { 0 } else { self.wrapping_div(other) } }
            fn modulo(self, other: Self) -> Self {
                let rest = self.remainder(other);
                #[allow(unused_comparisons, reason = "the same text for unsigned types")]
                let apart = rest != 0 && (rest < 0) != (other < 0);
                if apart { rest.wrapping_add(other) } else { rest }
            }
            fn remainder(self, other: Self) -> Self { if other == 0 { 0 } else { self.wrapping_rem(other) } }
            #[inline(always)]
            fn negated(self) -> Self { self.wrapping_neg() }
            #[inline(always)]
            fn magnitude(self) -> Self { let abs: fn($t) -> $t = $abs; abs(self) }
            #[inline(always)]
            fn is_nan(self) -> bool { false }
        }
    )*};
}

integers! {
    i8: i8::wrapping_abs; i16: i16::wrapping_abs; i32: i32::wrapping_abs; i64: i64::wrapping_abs;
    u8: |x| x; u16: |x| x; u32: |x| x; u64: |x| x;
}

macro_rules! floats {
    ($($t:ty, $zero:expr, $one:expr, $wide:ty, $widen:expr, $narrow:expr, $fmod:path;)*) => {$(
        impl Number for $t {
            const ZERO: Self = $zero;
            const ONE: Self = $one;
            const LEAST: Self = <$t>::NEG_INFINITY;
            const GREATEST: Self = <$t>::INFINITY;
            #[inline(always)]
            fn plus(self, other: Self) -> Self { self + other }
            #[inline(always)]
            fn minus(self, other: Self) -> Self { self - other }
            #[inline(always)]
            fn times(self, other: Self) -> Self { self * other }
            #[inline(always)]
            fn over(self, other: Self) -> Self { self / other }
            fn modulo(self, other: Self) -> Self {
                let widen: fn($t) -> $wide = $widen;
                let narrow: fn($wide) -> $t = $narrow;
                let (a, b) = (widen(self), widen(other));
                let rest = $fmod(a, b);
                if rest != 0.0 && (rest < 0.0) != (b < 0.0) { narrow(rest + b) } else { narrow(rest) }
            }
            fn remainder(self, other: Self) -> Self {
                let widen: fn($t) -> $wide = $widen;
                let narrow: fn($wide) -> $t = $narrow;
                narrow($fmod(widen(self), widen(other)))
            }
            #[inline(always)]
            fn negated(self) -> Self { -self }
            #[inline(always)]
            fn magnitude(self) -> Self {
                let widen: fn($t) -> $wide = $widen;
                let narrow: fn($wide) -> $t = $narrow;
                narrow(widen(self).abs())
            }
            #[inline(always)]
            fn is_nan(self) -> bool { self != self }
        }
    )*};
}

floats! {
    f32, 0.0, 1.0, f32, |x| x, |x| x, libm::fmodf;
    f64, 0.0, 1.0, f64, |x| x, |x| x, libm::fmod;
    f16, f16::ZERO, f16::ONE, f32, f16::to_f32, f16::from_f32, libm::fmodf;
    bf16, bf16::ZERO, bf16::ONE, f32, bf16::to_f32, bf16::from_f32, libm::fmodf;
}
