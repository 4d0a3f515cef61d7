//! Functions of fractions. float16 and bfloat16 are computed as float32 and rounded once, at the end of an operator.

use half::{bf16, f16};

use super::Number;
use crate::engine::elements::Element;

/// A type of fractions, with the type that it is computed in.
pub(crate) trait Real: Number {
    type Wide: Wide;
    fn widen(self) -> Self::Wide;
    fn narrow(wide: Self::Wide) -> Self;
}

/// A type that fractions are computed in: float32 or float64.
pub(crate) trait Wide: Number + Real<Wide = Self> {
    /// The same functions for float32 and float64.
    fn from_f64(x: f64) -> Self;
    fn to_f64(self) -> f64;
    fn exp(self) -> Self;
    fn log(self) -> Self;
    fn pow(self, exponent: Self) -> Self;
    fn sqrt(self) -> Self;
    fn sin(self) -> Self;
    fn cos(self) -> Self;
    fn tan(self) -> Self;
    fn asin(self) -> Self;
    fn acos(self) -> Self;
    fn atan(self) -> Self;
    fn sinh(self) -> Self;
    fn cosh(self) -> Self;
    fn tanh(self) -> Self;
    fn asinh(self) -> Self;
    fn acosh(self) -> Self;
    fn atanh(self) -> Self;
    fn erf(self) -> Self;
    fn expm1(self) -> Self;
    fn log1p(self) -> Self;
    fn floor(self) -> Self;
    fn ceil(self) -> Self;
    /// To the nearest integer, ties to even.
    fn round(self) -> Self;
    /// `self · a + b`, rounded once.
    fn fma(self, a: Self, b: Self) -> Self;
    fn is_infinite(self) -> bool;
}

macro_rules! wide {
    ($t:ty, $exp:expr, $tanh:expr, $erf:expr, $log:path, $pow:path, $sin:path, $cos:path, $tan:path, $asin:path, $acos:path,
     $atan:path, $sinh:path, $cosh:path, $asinh:path, $acosh:path, $atanh:path, $expm1:path, $log1p:path) => {
        impl Real for $t {
            type Wide = $t;
            #[inline(always)]
            fn widen(self) -> $t {
                self
            }
            #[inline(always)]
            fn narrow(wide: $t) -> $t {
                wide
            }
        }
        impl Wide for $t {
            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as $t
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self.into()
            }
            #[inline(always)]
            fn exp(self) -> Self {
                $exp(self)
            }
            fn log(self) -> Self {
                $log(self)
            }
            #[inline]
            fn pow(self, exponent: Self) -> Self {
                // The square is what programs mean most often: exact to half a unit, and fast.
                if exponent == 2.0 { self * self } else { $pow(self, exponent) }
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                <$t>::sqrt(self)
            }
            fn sin(self) -> Self {
                $sin(self)
            }
            fn cos(self) -> Self {
                $cos(self)
            }
            fn tan(self) -> Self {
                $tan(self)
            }
            fn asin(self) -> Self {
                $asin(self)
            }
            fn acos(self) -> Self {
                $acos(self)
            }
            fn atan(self) -> Self {
                $atan(self)
            }
            fn sinh(self) -> Self {
                $sinh(self)
            }
            fn cosh(self) -> Self {
                $cosh(self)
            }
            #[inline(always)]
            fn tanh(self) -> Self {
                $tanh(self)
            }
            fn asinh(self) -> Self {
                $asinh(self)
            }
            fn acosh(self) -> Self {
                $acosh(self)
            }
            fn atanh(self) -> Self {
                $atanh(self)
            }
            #[inline(always)]
            fn erf(self) -> Self {
                $erf(self)
            }
            fn expm1(self) -> Self {
                $expm1(self)
            }
            fn log1p(self) -> Self {
                $log1p(self)
            }
            #[inline(always)]
            fn floor(self) -> Self {
                <$t>::floor(self)
            }
            #[inline(always)]
            fn ceil(self) -> Self {
                <$t>::ceil(self)
            }
            #[inline(always)]
            fn round(self) -> Self {
                <$t>::round_ties_even(self)
            }
            #[inline(always)]
            fn fma(self, a: Self, b: Self) -> Self {
                self.mul_add(a, b)
            }
            #[inline(always)]
            fn is_infinite(self) -> bool {
                <$t>::is_infinite(self)
            }
        }
    };
}

wide!(
    f32,
    exp,
    tanh,
    erf,
    libm::logf,
    libm::powf,
    libm::sinf,
    libm::cosf,
    libm::tanf,
    libm::asinf,
    libm::acosf,
    libm::atanf,
    libm::sinhf,
    libm::coshf,
    libm::asinhf,
    libm::acoshf,
    libm::atanhf,
    libm::expm1f,
    libm::log1pf
);
wide!(
    f64,
    libm::exp,
    libm::tanh,
    libm::erf,
    libm::log,
    libm::pow,
    libm::sin,
    libm::cos,
    libm::tan,
    libm::asin,
    libm::acos,
    libm::atan,
    libm::sinh,
    libm::cosh,
    libm::asinh,
    libm::acosh,
    libm::atanh,
    libm::expm1,
    libm::log1p
);

macro_rules! narrow {
    ($($t:ty),*) => {$(
        impl Real for $t {
            type Wide = f32;
            #[inline(always)]
            fn widen(self) -> f32 { self.to_f32() }
            #[inline(always)]
            fn narrow(wide: f32) -> $t { <$t>::from_f32(wide) }
        }
    )*};
}
narrow!(f16, bf16);

const _: fn() = || {
    fn is_element<T: Element>() {}
    is_element::<f16>();
};

/// e^x: n = round(x / ln 2) by adding and subtracting 1.5·2^23; r = x − n·ln 2 in two steps
/// (Cody and Waite); the polynomial of Cephes' `expf` in Horner form with fused multiply-adds;
/// scaled by 2^n in two exact steps. Above 88.72284 infinity, below −87.33654 zero; NaN stays NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Clamped first, so that n is in range, and without a branch, so that lanes can be vectors.
    let y = if x > 88.722_84 { 88.722_84 } else { x };
    let (z, n) = exp_parts(if y < -87.336_54 { -87.336_54 } else { y });
    let half = n >> 1;
    let z = z * power_of_two(half) * power_of_two(n.wrapping_sub(half));
    let z = if x > 88.722_84 { f32::INFINITY } else { z };
    let z = if x < -87.336_54 { 0.0 } else { z };
    if x.is_nan() { x } else { z }
}

/// [`exp`] of what is not greater than zero: then one step is as exact as two.
#[inline(always)]
pub(crate) fn exp_to_one(x: f32) -> f32 {
    let (z, n) = exp_parts(if x < -87.336_54 { -87.336_54 } else { x });
    if x < -87.336_54 { 0.0 } else { z * power_of_two(n) }
}

/// The polynomial, and n.
#[inline(always)]
fn exp_parts(y: f32) -> (f32, i32) {
    const MAGIC: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let shifted = y.mul_add(core::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, y));
    let p = 1.987_569_1e-4f32;
    let p = p.mul_add(r, 1.398_199_9e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_5e-1);
    let p = p.mul_add(r, 5e-1);
    // The lowest bits of the shifted number are n, in two's complement.
    (p.mul_add(r * r, r) + 1.0, (shifted.to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32))
}

/// 2^n for |n| < 127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// The quotient of an odd polynomial of degree 13 and an even one of degree 6 (Eigen's `ptanh`), in Horner form with
/// fused multiply-adds; the argument is clamped to ±7.9053111 first. Below 4e-4 in magnitude x itself.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let y = if x > 7.905_311 { 7.905_311 } else { x };
    let y = if y < -7.905_311 { -7.905_311 } else { y };
    let s = y * y;
    let p = -2.760_768_5e-16f32;
    let p = p.mul_add(s, 2.000_188e-13);
    let p = p.mul_add(s, -8.604_672e-11);
    let p = p.mul_add(s, 5.122_297_3e-8);
    let p = p.mul_add(s, 1.485_722_35e-5);
    let p = p.mul_add(s, 6.372_619_4e-4);
    let p = p.mul_add(s, 4.893_524_6e-3);
    let q = 1.198_258_4e-6f32;
    let q = q.mul_add(s, 1.185_347_1e-4);
    let q = q.mul_add(s, 2.268_434_6e-3);
    let q = q.mul_add(s, 4.893_525e-3);
    let z = y * p / q;
    let z = if x.abs() < 4e-4 { x } else { z };
    if x.is_nan() { x } else { z }
}

/// The quotient of an odd polynomial of degree 13 and an even one of degree 8 (Eigen's and XLA's `erf`), in Horner
/// form with fused multiply-adds; the argument is clamped to ±4, the result to ±1.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let y = if x > 4.0 { 4.0 } else { x };
    let y = if y < -4.0 { -4.0 } else { y };
    let s = y * y;
    let p = -2.726_142_3e-10f32;
    let p = p.mul_add(s, 2.770_681_4e-8);
    let p = p.mul_add(s, -2.101_024e-6);
    let p = p.mul_add(s, -5.692_506_4e-5);
    let p = p.mul_add(s, -7.349_906_3e-4);
    let p = p.mul_add(s, -2.954_6e-3);
    let p = p.mul_add(s, -1.609_603_2e-2);
    let q = -1.456_607_2e-5f32;
    let q = q.mul_add(s, -2.133_740_6e-4);
    let q = q.mul_add(s, -1.682_827e-3);
    let q = q.mul_add(s, -7.373_329e-3);
    let q = q.mul_add(s, -1.426_473_9e-2);
    let z = y * p / q;
    let z = if z > 1.0 { 1.0 } else { z };
    let z = if z < -1.0 { -1.0 } else { z };
    if x.is_nan() { x } else { z }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The greatest distance to the exact function in units in the last place.
    fn worst(from: i32, to: i32, scale: f32, ours: fn(f32) -> f32, exact: fn(f64) -> f64) -> u32 {
        (from..to)
            .map(|i| {
                let x = i as f32 / scale;
                ours(x).to_bits().abs_diff((exact(x.into()) as f32).to_bits())
            })
            .max()
            .unwrap()
    }

    #[test]
    fn functions_are_within_a_few_units_in_the_last_place() {
        let found = [
            worst(-87_000, 88_700, 1000.0, exp, libm::exp),
            worst(-100_000, 100_000, 10_000.0, tanh, libm::tanh),
            worst(1, 100_000, 10_000.0, erf, libm::erf),
        ];
        assert!(found[0] <= 2 && found[1] <= 8 && found[2] <= 8, "{found:?}");
        assert_eq!((exp(0.0), exp(-100.0), exp(100.0)), (1.0, 0.0, f32::INFINITY));
        assert_eq!((exp(f32::NEG_INFINITY), exp(f32::INFINITY)), (0.0, f32::INFINITY));
        // The quotients stay below one.
        assert_eq!((tanh(50.0), tanh(f32::NEG_INFINITY)), (0.999_999_8, -0.999_999_8));
        assert_eq!((erf(50.0), erf(f32::NEG_INFINITY), erf(0.0)), (0.999_999_9, -0.999_999_9, 0.0));
        assert!([exp, tanh, erf].into_iter().all(|f| f(f32::NAN).is_nan()));
    }

    #[test]
    fn the_exponential_to_one_has_the_same_bits() {
        // Every hundredth number, and all where it ends.
        let all = (0..=f32::NEG_INFINITY.to_bits() - (1 << 31)).step_by(101);
        for bits in all.chain(87.3f32.to_bits()..87.4f32.to_bits()) {
            let x = -f32::from_bits(bits);
            assert_eq!(exp_to_one(x).to_bits(), exp(x).to_bits(), "{x}");
        }
        assert_eq!((exp_to_one(0.0), exp_to_one(f32::NEG_INFINITY)), (1.0, 0.0));
        assert!(exp_to_one(f32::NAN).is_nan() && exp_to_one(-f32::NAN).is_nan());
    }

    #[test]
    fn functions_are_pinned() {
        // Equal on every machine; a change of these bits is a change of ENGINE_VERSION.
        let pins = [exp, tanh, erf, libm::logf, libm::sinf].map(|f: fn(f32) -> f32| {
            (-8000..8000).fold(0u64, |h, i| {
                let y = f(i as f32 / 97.0);
                h.wrapping_mul(31).wrapping_add(if y.is_nan() { 7 } else { y.to_bits().into() })
            })
        });
        assert_eq!(pins[0], 10_576_489_477_687_531_499);
        println!("{pins:?}");
    }
}
