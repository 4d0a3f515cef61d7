//! Decimal numbers as contracts write them, and their exact conversion from and to tensors.
//!
//! In: the exact decimal `value / 10^decimals`, rounded once (half to even) to the element type.
//! Out: the exact decimal expansion, rounded half to even to 28 significant digits, without
//! trailing zeros, `decimals >= 0` (`../shared/INTERFACE.md` section 2).

use alloy_primitives::Uint;

/// Holds the digits of every float64: 2^1023, and 2^53 · 5^1074.
type Wide = Uint<2560, 40>;

/// Significant digits of a fraction that leaves as a decimal.
const DIGITS: usize = 28;

/// Accepted magnitudes of `decimals`: beyond them a number is [`OutOfRange`], whatever its value.
/// float32 spans 1e-45 to 3.4e38 and `value` 39 digits, so nothing meaningful is lost.
pub const MAX_DECIMALS: i128 = 255;

/// `value / 10^decimals`: 1.5 is (15, 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    /// The digits.
    pub value: i128,
    /// How many of them stand behind the decimal point; negative for multiples of powers of ten.
    pub decimals: i128,
}

/// A number that the target type does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the number is out of range for its type")]
pub struct OutOfRange;

impl Decimal {
    /// The nearest float32, ties to even; tiny numbers become zero (of their sign).
    ///
    /// # Errors
    /// [`OutOfRange`] when the number rounds to infinity or `|decimals|` > [`MAX_DECIMALS`].
    pub fn to_f32(self) -> Result<f32, OutOfRange> {
        // The standard library's parser is correctly rounded, on every platform.
        let number: f32 = self.text()?.parse().map_err(|_| OutOfRange)?;
        if number.is_finite() { Ok(number) } else { Err(OutOfRange) }
    }

    /// The nearest float64, ties to even; tiny numbers become zero (of their sign).
    ///
    /// # Errors
    /// [`OutOfRange`] when the number rounds to infinity or `|decimals|` > [`MAX_DECIMALS`].
    pub fn to_f64(self) -> Result<f64, OutOfRange> {
        let number: f64 = self.text()?.parse().map_err(|_| OutOfRange)?;
        if number.is_finite() { Ok(number) } else { Err(OutOfRange) }
    }

    fn text(self) -> Result<String, OutOfRange> {
        if self.decimals.unsigned_abs() > MAX_DECIMALS.unsigned_abs() {
            return Err(OutOfRange);
        }
        Ok(format!("{}e{}", self.value, -self.decimals))
    }

    /// The nearest integer, ties to even.
    ///
    /// # Errors
    /// [`OutOfRange`] when it does not fit, or `|decimals|` > [`MAX_DECIMALS`].
    pub fn to_integer(self) -> Result<i128, OutOfRange> {
        if self.decimals.unsigned_abs() > MAX_DECIMALS.unsigned_abs() {
            return Err(OutOfRange);
        }
        let power = self.decimals.unsigned_abs() as u32;
        let scale = 10i128.checked_pow(power);
        let integer = if self.decimals <= 0 {
            match scale {
                Some(scale) => self.value.checked_mul(scale).ok_or(OutOfRange)?,
                None if self.value == 0 => 0,
                None => return Err(OutOfRange),
            }
        } else {
            match scale {
                Some(scale) => divide_half_even(self.value, scale),
                None => 0, // |value| < 1.8e38 and the scale is at least 1e39: below one half
            }
        };
        Ok(integer)
    }

    /// The decimal expansion of a finite float32.
    ///
    /// # Errors
    /// [`OutOfRange`] for NaN, infinities, and magnitudes of 2^127 and more (they do not fit
    /// `int128` without negative decimals).
    pub fn from_f32(number: f32) -> Result<Self, OutOfRange> {
        Self::from_f64(number.into())
    }

    /// The decimal expansion of a finite float64.
    ///
    /// # Errors
    /// As for [`Self::from_f32`].
    pub fn from_f64(number: f64) -> Result<Self, OutOfRange> {
        if !number.is_finite() || number.abs() >= 2f64.powi(127) {
            return Err(OutOfRange);
        }
        let (mantissa, exponent) = split(number);
        // mantissa · 2^exponent, as digits · 10^-decimals, exactly.
        let (digits, mut decimals) = if exponent >= 0 {
            (Wide::from(mantissa) << exponent as usize, 0i128)
        } else {
            let places = -exponent;
            (Wide::from(mantissa) * Wide::from(5).pow(Wide::from(places)), places as i128)
        };
        let mut digits = digits.to_string().into_bytes();
        if digits.len() > DIGITS {
            decimals -= (digits.len() - DIGITS) as i128;
            round_digits(&mut digits);
        }
        let zeros = digits.iter().rev().take_while(|d| **d == b'0').count();
        let trimmed = zeros.min(decimals.max(0) as usize).min(digits.len() - 1);
        digits.truncate(digits.len() - trimmed);
        decimals -= trimmed as i128;
        let mut value = digits.iter().fold(0i128, |value, digit| value * 10 + i128::from(digit - b'0'));
        if value == 0 {
            return Ok(Self { value: 0, decimals: 0 });
        }
        if decimals < 0 {
            let scale = 10i128.checked_pow(decimals.unsigned_abs() as u32).ok_or(OutOfRange)?;
            value = value.checked_mul(scale).ok_or(OutOfRange)?;
            decimals = 0;
        }
        let value = if number.is_sign_negative() { -value } else { value };
        Ok(Self { value, decimals })
    }

    /// An integer as a decimal.
    pub fn from_integer(number: i128) -> Self {
        Self { value: number, decimals: 0 }
    }
}

/// |number| = mantissa · 2^exponent, with an odd mantissa unless it is zero: the fewer digits, the less to do.
fn split(number: f64) -> (u64, i32) {
    let bits = number.to_bits();
    let fraction = bits & ((1 << 52) - 1);
    let (mantissa, exponent) = match ((bits >> 52) & 0x7ff) as i32 {
        0 => (fraction, -1074),
        biased => (fraction | 1 << 52, biased - 1075),
    };
    let zeros = if mantissa == 0 { 0 } else { mantissa.trailing_zeros() };
    (mantissa >> zeros, exponent + zeros as i32)
}

/// Rounds a digit string of more than [`DIGITS`] digits to [`DIGITS`], half to even. Where the carry runs
/// out of the first digit (99…9 becomes 100…0) one digit more is left, and the value is still right.
fn round_digits(digits: &mut Vec<u8>) {
    let tail = digits.split_off(DIGITS);
    let above_half = tail[0] > b'5' || (tail[0] == b'5' && tail[1..].iter().any(|d| *d != b'0'));
    let tie = tail[0] == b'5' && !above_half;
    let odd = digits[DIGITS - 1] % 2 == 1;
    if !(above_half || (tie && odd)) {
        return;
    }
    for digit in digits.iter_mut().rev() {
        if *digit < b'9' {
            *digit += 1;
            return;
        }
        *digit = b'0';
    }
    digits.insert(0, b'1');
}

fn divide_half_even(value: i128, divisor: i128) -> i128 {
    let (quotient, remainder) = (value / divisor, value % divisor);
    let twice = remainder.unsigned_abs() * 2;
    let away = twice > divisor.unsigned_abs() || (twice == divisor.unsigned_abs() && quotient % 2 != 0);
    if away { quotient + value.signum() } else { quotient }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dec(value: i128, decimals: i128) -> Decimal {
        Decimal { value, decimals }
    }

    #[test]
    fn floats_leave_as_their_exact_expansion() {
        for (bits, value, decimals) in [
            (0x407e_167e, 3970122814178466796875, 21), // INTERFACE.md's example
            (1.5f32.to_bits(), 15, 1),
            (0.0f32.to_bits(), 0, 0),
            ((-0.0f32).to_bits(), 0, 0),
            ((-2.0f32).to_bits(), -2, 0),
            (100.0f32.to_bits(), 100, 0),
            (0.1f32.to_bits(), 100000001490116119384765625, 27),
            (f32::MIN_POSITIVE.to_bits(), 1175494350822287507968736537, 65),
            (1, 1401298464324817070923729583, 72),
            (2f32.powi(100).to_bits(), 1267650600228229401496703205000, 0),
        ] {
            assert_eq!(Decimal::from_f32(f32::from_bits(bits)), Ok(dec(value, decimals)), "{bits:#x}");
        }
        for out in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN] {
            assert_eq!(Decimal::from_f32(out), Err(OutOfRange), "{out}");
        }
    }

    #[test]
    fn decimals_come_in_rounded_once_half_to_even() {
        assert_eq!(dec(15, 1).to_f32(), Ok(1.5));
        assert_eq!(dec(-3, -2).to_f32(), Ok(-300.0));
        assert_eq!(dec(16777217, 0).to_f32(), Ok(16777216.0), "tie to even");
        assert_eq!(dec(16777219, 0).to_f32(), Ok(16777220.0), "tie to even");
        assert_eq!(dec(167772170000000001, 10).to_f32(), Ok(16777218.0), "just above the tie");
        assert_eq!(dec(1, 200).to_f32(), Ok(0.0));
        assert_eq!(dec(1, -60).to_f32(), Err(OutOfRange));
        assert_eq!(dec(0, 256).to_f32(), Err(OutOfRange));
        assert_eq!(dec(1, i128::MIN).to_f32(), Err(OutOfRange));
    }

    #[test]
    fn integers_round_half_to_even_and_stay_in_range() {
        for (decimal, expected) in [
            (dec(25, 1), Ok(2)),
            (dec(35, 1), Ok(4)),
            (dec(-25, 1), Ok(-2)),
            (dec(-26, 1), Ok(-3)),
            (dec(7, -2), Ok(700)),
            (dec(i128::MAX, 60), Ok(0)),
            (dec(0, -200), Ok(0)),
            (dec(1, -19), Err(OutOfRange)),
            (dec(i64::MAX.into(), 0), Ok(i64::MAX)),
            (dec(i64::MAX as i128 + 1, 0), Err(OutOfRange)),
        ] {
            assert_eq!(
                decimal.to_integer().and_then(|i| i64::try_from(i).map_err(|_| OutOfRange)),
                expected,
                "{decimal:?}"
            );
        }
    }

    #[test]
    fn doubles_leave_with_28_digits_and_come_back() {
        for (number, value, decimals) in [
            (0.1f64, 1000000000000000055511151231, 28),
            (1.0 / 3.0, 3333333333333333148296162562, 28),
            (5e-324, 4940656458412465441765687929, 351),
            (-2.5, -25, 1),
            (1e30, 1000000000000000019884624839000, 0),
        ] {
            assert_eq!(Decimal::from_f64(number), Ok(dec(value, decimals)), "{number:e}");
        }
        assert_eq!(Decimal::from_f64(2f64.powi(127)), Err(OutOfRange));
        let mut bits = 1u64;
        for _ in 0..5_000 {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = f64::from_bits(bits);
            if let Ok(decimal) = Decimal::from_f64(number)
                && decimal.decimals <= MAX_DECIMALS
            {
                assert_eq!(decimal.to_f64(), Ok(number), "{number:e}");
            }
        }
    }

    #[test]
    fn every_float_survives_the_way_out_and_in() {
        let mut bits = 1u32;
        for _ in 0..200_000 {
            bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let number = f32::from_bits(bits);
            if let Ok(decimal) = Decimal::from_f32(number) {
                assert!(decimal.decimals >= 0);
                assert_eq!(decimal.to_f32().map(f32::abs), Ok(number.abs()), "{number:e}");
            }
        }
    }
}
