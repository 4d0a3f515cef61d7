//! Conversions between float32 and quantised bytes: rounded half to even, plus the zero point, saturated.

use super::{has_fused, vectorized};

/// Adding it rounds a number of small magnitude to an integer, half to even: its lowest bits are that integer.
const MAGIC: f32 = 12_582_912.0;

/// `x`, rounded half to even, plus the zero point of a byte, saturated. Without a branch, so that lanes can be vectors.
#[inline(always)]
fn saturate(x: f32, zero: i32, low: i32, high: i32) -> i32 {
    let x = if x.is_nan() { 0.0 } else { x };
    // What is farther away saturates with any zero point.
    let x = if x > 1024.0 { 1024.0 } else { x };
    let x = if x < -1024.0 { -1024.0 } else { x };
    let integer = ((x + MAGIC).to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32);
    (integer + zero).clamp(low, high)
}

/// A divisor whose quotients may be had by products: those take a quarter of the time.
#[derive(Debug, Clone, Copy)]
struct Divisor {
    value: f32,
    inverse: f32,
}

impl Divisor {
    /// If it is neither so large nor so small that a remainder of [`Self::quotient`] is no float32, nor one of those that
    /// Markstein's theorem leaves out.
    fn new(value: f32) -> Option<Self> {
        const ONES: u32 = (1 << 23) - 1;
        let fits = (1.0e-18..=1.0e18).contains(&value.abs()) && value.to_bits() & ONES != ONES;
        (fits && has_fused()).then(|| Self { value, inverse: 1.0 / value })
    }

    /// What [`saturate`] makes the same of as of `x / value`: between 2^-20 and 2048 in magnitude it is that quotient,
    /// correctly rounded. (Markstein 1990, "Computation of elementary functions on the IBM RISC System/6000 processor": a
    /// quotient with an error of less than a unit in the last place becomes correct by its exact remainder times the rounded
    /// inverse. The first product may be two units off; one more step mends that.) What is less is zero, what is more saturates.
    #[inline(always)]
    fn quotient(self, x: f32) -> f32 {
        // NaN passes; an infinity would become one.
        let within = |q: f32| q.clamp(-4096.0, 4096.0);
        let step = |q: f32| (-q).mul_add(self.value, x).mul_add(self.inverse, q);
        step(within(step(within(x * self.inverse))))
    }
}

/// A quantised byte. Zero points are those of its type.
pub(crate) trait Byte: Copy + Default + Send + Sync {
    /// Quantises: `x / scale`. By 1 it only rounds.
    fn quantize(x: &[f32], scale: f32, zero: i32, out: &mut [Self]);
    /// Scales sums back: `(sum + bias) · factor`.
    fn requantize(sums: &[i32], bias: i32, factor: f32, zero: i32, out: &mut [Self]);
    /// `(x − zero) · scale`.
    fn dequantize(x: &[Self], scale: f32, zero: i32, out: &mut [f32]);
}

macro_rules! bytes {
    ($t:ty: $quantize:ident, $requantize:ident, $dequantize:ident) => {
        vectorized! {
            fn $quantize(x: &[f32], scale: f32, zero: i32, out: &mut [$t]) {
                if scale == 1.0 {
                    for (out, x) in out.iter_mut().zip(x) {
                        *out = saturate(*x, zero, <$t>::MIN.into(), <$t>::MAX.into()) as $t;
                    }
                    return;
                }
                if let Some(scale) = Divisor::new(scale) {
                    for (out, x) in out.iter_mut().zip(x) {
                        *out = saturate(scale.quotient(*x), zero, <$t>::MIN.into(), <$t>::MAX.into()) as $t;
                    }
                    return;
                }
                for (out, x) in out.iter_mut().zip(x) {
                    *out = saturate(*x / scale, zero, <$t>::MIN.into(), <$t>::MAX.into()) as $t;
                }
            }
        }
        vectorized! {
            fn $requantize(sums: &[i32], bias: i32, factor: f32, zero: i32, out: &mut [$t]) {
                for (out, sum) in out.iter_mut().zip(sums) {
                    let x = sum.wrapping_add(bias) as f32 * factor;
                    *out = saturate(x, zero, <$t>::MIN.into(), <$t>::MAX.into()) as $t;
                }
            }
        }
        vectorized! {
            fn $dequantize(x: &[$t], scale: f32, zero: i32, out: &mut [f32]) {
                for (out, x) in out.iter_mut().zip(x) {
                    *out = (i32::from(*x) - zero) as f32 * scale;
                }
            }
        }
        impl Byte for $t {
            #[inline]
            fn quantize(x: &[f32], scale: f32, zero: i32, out: &mut [$t]) {
                $quantize(x, scale, zero, out);
            }
            #[inline]
            fn requantize(sums: &[i32], bias: i32, factor: f32, zero: i32, out: &mut [$t]) {
                $requantize(sums, bias, factor, zero, out);
            }
            #[inline]
            fn dequantize(x: &[$t], scale: f32, zero: i32, out: &mut [f32]) {
                $dequantize(x, scale, zero, out);
            }
        }
    };
}

/// What becomes of exact sums, column by column.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Finish<'a> {
    /// Before all else plus so much, wrapping; empty: nothing.
    pub(crate) addend: &'a [i32],
    /// Times so much in float32: one for all, or one for each.
    pub(crate) factors: &'a [f32],
    /// Plus so much; empty: nothing.
    pub(crate) bias: &'a [f32],
    /// Then zero if it is less.
    pub(crate) rectified: bool,
}

vectorized! {
    /// Rows of sums in float32 and finished.
    pub(crate) fn finish_columns(sums: &[i32], n: usize, finish: Finish<'_>, out: &mut [f32]) {
        let Finish { addend, factors, bias, rectified } = finish;
        for (out, sums) in out.chunks_exact_mut(n.max(1)).zip(sums.chunks_exact(n.max(1))) {
            match (addend, factors) {
                ([], [factor]) => {
                    for (out, sum) in out.iter_mut().zip(sums) {
                        *out = *sum as f32 * factor;
                    }
                }
                ([], _) => {
                    for ((out, sum), factor) in out.iter_mut().zip(sums).zip(factors) {
                        *out = *sum as f32 * factor;
                    }
                }
                (_, [factor]) => {
                    for ((out, sum), x) in out.iter_mut().zip(sums).zip(addend) {
                        *out = sum.wrapping_add(*x) as f32 * factor;
                    }
                }
                _ => {
                    for (((out, sum), x), factor) in out.iter_mut().zip(sums).zip(addend).zip(factors) {
                        *out = sum.wrapping_add(*x) as f32 * factor;
                    }
                }
            }
            // A row is in the nearest cache still.
            for (out, bias) in out.iter_mut().zip(bias) {
                *out += bias;
            }
            if rectified {
                for out in out.iter_mut() {
                    *out = if *out < 0.0 { 0.0 } else { *out };
                }
            }
        }
    }
}

vectorized! {
    /// Sums in float32, times a factor, plus a bias if there is one.
    pub(crate) fn scale_row(sums: &[i32], factor: f32, bias: Option<f32>, out: &mut [f32]) {
        match bias {
            Some(bias) => {
                for (out, sum) in out.iter_mut().zip(sums) {
                    *out = *sum as f32 * factor + bias;
                }
            }
            None => {
                for (out, sum) in out.iter_mut().zip(sums) {
                    *out = *sum as f32 * factor;
                }
            }
        }
    }
}

vectorized! {
    /// Adds a row to each row, wrapping.
    pub(crate) fn add_to_rows(sums: &mut [i32], row: &[i32]) {
        for sums in sums.chunks_exact_mut(row.len().max(1)) {
            for (sum, x) in sums.iter_mut().zip(row) {
                *sum = sum.wrapping_add(*x);
            }
        }
    }
}

bytes!(u8: quantize_u8, requantize_u8, dequantize_u8);
bytes!(i8: quantize_i8, requantize_i8, dequantize_i8);

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, word for word.
    fn defined(x: f32, zero: i64, low: i64, high: i64) -> i64 {
        let rounded = x.round_ties_even();
        ((rounded as i64).clamp(-(1 << 40), 1 << 40) + zero).clamp(low, high)
    }

    fn numbers() -> Vec<f32> {
        let mut list: Vec<f32> = (-3000..3000).map(|i| i as f32 / 4.0).collect();
        list.extend((-3000..3000).map(|i| i as f32 * 0.137));
        list.extend([
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            -0.0,
            1e30,
            -1e30,
            0.499_999_97,
            -0.5,
            1.5,
            2.5,
            1e-40,
        ]);
        list
    }

    #[test]
    fn quotients_by_products_are_those_of_a_division() {
        let mut random = crate::engine::sample::random(9);
        let mut bits = |mask: u32| ((random(1 << 16) << 16 | random(1 << 16)) as u32) & mask;
        let (mut tried, mut exact) = (0, 0);
        for round in 0..4000 {
            // Scales of every size, some of them next to a power of two.
            let mantissa = if round % 4 == 0 { bits(3).wrapping_sub(2) & 0x7f_ffff } else { bits(0x7f_ffff) };
            let scale = f32::from_bits((67 + bits(127) % 120) << 23 | mantissa);
            let Some(divisor) = Divisor::new(scale) else { continue };
            for _ in 0..200 {
                // Anything; and what is near the middle between two integers, where rounding turns.
                let near = (bits(1023) as f32 - 511.5) * scale;
                let near = f32::from_bits(near.to_bits().wrapping_add(bits(7)).wrapping_sub(3));
                for x in [f32::from_bits(bits(u32::MAX)), near, (bits(0xff_ffff) as f32 / 8192.0 - 1024.0) * scale] {
                    let (ours, quotient) = (divisor.quotient(x), x / scale);
                    assert_eq!(saturate(ours, 3, -128, 127), saturate(quotient, 3, -128, 127), "{x:e} / {scale:e}");
                    tried += 1;
                    if (1e-6..2048.0).contains(&quotient.abs()) {
                        exact += 1;
                        assert_eq!(ours.to_bits(), quotient.to_bits(), "{x:e} / {scale:e}");
                    }
                }
            }
        }
        assert!(!has_fused() || (tried > 1_000_000 && exact > 900_000), "{exact} of {tried}");
        for x in [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE, 1e-45, f32::NAN] {
            for scale in [1.0e-18f32, 3.1, -0.7, 9.9e17] {
                let quotient = Divisor::new(scale).map_or(x / scale, |scale| scale.quotient(x));
                assert_eq!(saturate(quotient, 0, -128, 127), saturate(x / scale, 0, -128, 127), "{x:e} / {scale:e}");
            }
        }
    }

    #[test]
    fn bytes_are_rounded_and_saturated_as_defined() {
        let numbers = numbers();
        for (scale, zero) in [(1.0f32, 0u8), (0.37, 128), (1e-38, 255), (0.0, 3), (-2.5, 7)] {
            let (mut bytes, mut signed) = (vec![0u8; numbers.len()], vec![0i8; numbers.len()]);
            u8::quantize(&numbers, scale, zero.into(), &mut bytes);
            let lower = (zero as i8).into();
            i8::quantize(&numbers, scale, lower, &mut signed);
            for ((x, byte), signed) in numbers.iter().zip(bytes).zip(signed) {
                assert_eq!(i64::from(byte), defined(x / scale, zero.into(), 0, 255), "{x} / {scale}");
                assert_eq!(i64::from(signed), defined(x / scale, lower.into(), -128, 127), "{x} / {scale}");
            }
        }
    }

    #[test]
    fn sums_are_scaled_back_as_defined() {
        let sums: Vec<i32> =
            (-500..500).map(|i: i32| i.wrapping_mul(123_457)).chain([i32::MIN, i32::MAX, 0, 1]).collect();
        let factors: Vec<f32> = (0..sums.len() / 4).map(|i| (i as f32 - 100.0) * 1e-7).collect();
        let (mut out, mut columns) = (vec![0u8; sums.len()], vec![0i8; sums.len()]);
        u8::requantize(&sums, 77, 3.1e-6, 10, &mut out);
        let mut numbers = vec![0.0; sums.len()];
        finish_columns(&sums, factors.len(), Finish { factors: &factors, ..Finish::default() }, &mut numbers);
        i8::quantize(&numbers, 1.0, -3, &mut columns);
        for (i, sum) in sums.iter().enumerate() {
            assert_eq!(i64::from(out[i]), defined(sum.wrapping_add(77) as f32 * 3.1e-6, 10, 0, 255));
            let x = *sum as f32 * factors[i % factors.len()];
            assert_eq!(i64::from(columns[i]), defined(x, -3, -128, 127));
        }
    }

    #[test]
    fn bytes_are_widened_as_defined() {
        let bytes: Vec<i8> = (-128..=127).collect();
        let mut out = vec![0.0; bytes.len()];
        i8::dequantize(&bytes, 0.031, -17, &mut out);
        for (x, out) in bytes.iter().zip(out) {
            assert_eq!(out.to_bits(), ((i64::from(*x) + 17) as f32 * 0.031).to_bits());
        }
    }
}
