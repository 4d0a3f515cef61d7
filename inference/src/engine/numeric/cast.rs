//! Conversions between element types.

use core::cmp::Ordering;

use half::{bf16, f16};

use crate::{
    DType,
    engine::{
        array::Array,
        elements::{Element, with_elements},
    },
};

/// What every number converts through without a second rounding.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Exact {
    Integer(i128),
    Single(f32),
    Double(f64),
}

macro_rules! exact {
    ($($t:ty => $variant:ident),*) => {
        $(impl From<$t> for Exact { fn from(x: $t) -> Self { Self::$variant(x.into()) } })*
    };
}
exact!(u8 => Integer, u32 => Integer, u64 => Integer, i64 => Integer, i128 => Integer, f32 => Single, f64 => Double);

/// A number as another type: by the rules of `Cast`, so that nothing is out of range.
pub(crate) fn convert<T: Convert>(x: impl Into<Exact>) -> T {
    T::of(x.into())
}

/// A number as float64.
pub(crate) fn to_double<T: Convert>(x: T) -> f64 {
    f64::of(x.exact())
}

/// A type that conversions start from and end at.
pub(crate) trait Convert: Element {
    fn exact(self) -> Exact;
    fn of(exact: Exact) -> Self;
}

macro_rules! integers {
    ($($t:ty),*) => {$(
        impl Convert for $t {
            fn exact(self) -> Exact { Exact::Integer(self.into()) }
            // Integers keep their lowest bits; fractions are cut towards zero and saturate, NaN is zero.
            fn of(exact: Exact) -> Self {
                match exact {
                    Exact::Integer(x) => x as $t,
                    Exact::Single(x) => x as $t,
                    Exact::Double(x) => x as $t,
                }
            }
        }
    )*};
}
integers!(i8, i16, i32, i64, u8, u16, u32, u64);

impl Convert for f32 {
    fn exact(self) -> Exact {
        Exact::Single(self)
    }
    fn of(exact: Exact) -> Self {
        match exact {
            Exact::Integer(x) => x as f32,
            Exact::Single(x) => x,
            Exact::Double(x) => x as f32,
        }
    }
}

impl Convert for f64 {
    fn exact(self) -> Exact {
        Exact::Double(self)
    }
    fn of(exact: Exact) -> Self {
        match exact {
            Exact::Integer(x) => x as f64,
            Exact::Single(x) => x.into(),
            Exact::Double(x) => x,
        }
    }
}

/// Of the two float32 around a number the one with an odd last bit, unless one is the number: what is rounded to fewer bits after
/// that is rounded as if it were the number itself (S. Boldo, G. Melquiond: Emulation of FMA and correctly rounded sums, 2008).
/// `order` is that of its magnitude, when it is rounded to the nearest, to the number's own.
fn odd(nearest: f32, order: Ordering) -> f32 {
    match order {
        Ordering::Less => f32::from_bits(nearest.to_bits() | 1),
        Ordering::Equal => nearest,
        Ordering::Greater => f32::from_bits((nearest.to_bits() - 1) | 1),
    }
}

macro_rules! halves {
    ($($t:ty),*) => {$(
        impl Convert for $t {
            fn exact(self) -> Exact { Exact::Single(self.to_f32()) }
            fn of(exact: Exact) -> Self {
                // Not by `from_f64`, which rounds twice on some processors and not on others.
                <$t>::from_f32(match exact {
                    Exact::Integer(x) => odd(x as f32, ((x as f32).abs() as u128).cmp(&x.unsigned_abs())),
                    Exact::Single(x) => x,
                    Exact::Double(x) => match f64::from((x as f32).abs()).partial_cmp(&x.abs()) {
                        Some(order) => odd(x as f32, order),
                        None => x as f32,
                    },
                })
            }
        }
    )*};
}
halves!(f16, bf16);

/// Converts the elements of an array; the type must not be string on either side.
pub(crate) fn cast(array: &Array, to: DType) -> Array {
    let shape = array.shape().to_vec();
    if array.dtype() == to {
        return array.clone();
    }
    if to == DType::Bool {
        let values = with_elements!(array.dtype(), T => {
            array.values::<T>().iter().map(|x| u8::from(is_true(x.exact()))).collect()
        }, vec![]);
        return Array::new(to, shape, values);
    }
    with_elements!(array.dtype(), T => {
        with_elements!(to, U => {
            Array::new(to, shape, array.values::<T>().iter().map(|x| U::of(x.exact())).collect::<Vec<U>>())
        }, array.clone())
    }, array.clone())
}

fn is_true(exact: Exact) -> bool {
    match exact {
        Exact::Integer(x) => x != 0,
        Exact::Single(x) => x != 0.0,
        Exact::Double(x) => x != 0.0,
    }
}

/// Reads numbers from texts; `None` where one is no number.
pub(crate) fn cast_text(array: &Array, to: DType) -> Option<Array> {
    let shape = array.shape().to_vec();
    let texts = array.texts();
    with_elements!(to, T => {
        let parse = |text: &String| -> Option<T> {
            let text = text.trim();
            // A zero may have a sign where there are fractions.
            if let (false, Ok(integer)) = (to.is_float(), text.parse::<i128>()) {
                return Some(T::of(Exact::Integer(integer)));
            }
            // The standard library's parser is correctly rounded, on every platform.
            let exact = match to {
                DType::Float32 => Exact::Single(text.parse().ok()?),
                _ => Exact::Double(text.parse().ok()?),
            };
            Some(T::of(exact))
        };
        let values = texts.iter().map(parse).collect::<Option<Vec<T>>>()?;
        let values = if to == DType::Bool { return None } else { values };
        Some(Array::new(to, shape, values))
    }, Some(array.clone()))
}

/// Writes numbers as texts: the shortest decimal that reads back as the same number, in the notation of `repr`.
pub(crate) fn to_text(array: &Array) -> Vec<String> {
    match array.dtype() {
        DType::Bool => array.values::<u8>().iter().map(|x| if *x == 0 { "0" } else { "1" }.to_owned()).collect(),
        dtype => with_elements!(dtype, T => array.values::<T>().iter().map(|x| number_text(x.exact())).collect(), {
            array.texts().to_vec()
        }),
    }
}

fn number_text(exact: Exact) -> String {
    match exact {
        Exact::Integer(x) => x.to_string(),
        Exact::Single(x) if x.is_finite() => float_text(&format!("{x:e}")),
        Exact::Double(x) if x.is_finite() => float_text(&format!("{x:e}")),
        Exact::Single(x) => special_text(x.into()),
        Exact::Double(x) => special_text(x),
    }
}

fn special_text(x: f64) -> String {
    if x.is_nan() {
        "NaN".to_owned()
    } else if x > 0.0 {
        "INF".to_owned()
    } else {
        "-INF".to_owned()
    }
}

/// `d.ddde±x` as Python writes it: plain from 1e-4 to 1e16, else with an exponent of two digits or more.
fn float_text(scientific: &str) -> String {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, digits) = mantissa.strip_prefix('-').map_or(("", mantissa), |digits| ("-", digits));
    let digits: String = digits.chars().filter(char::is_ascii_digit).collect();
    if !(-4..16).contains(&exponent) {
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let direction = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{first}{point}{rest}e{direction}{:02}", exponent.abs());
    }
    if exponent < 0 {
        let zeros = "0".repeat((-exponent - 1) as usize);
        return format!("{sign}0.{zeros}{digits}");
    }
    let whole = exponent as usize + 1;
    if digits.len() <= whole {
        format!("{sign}{digits}{}.0", "0".repeat(whole - digits.len()))
    } else {
        let (integer, fraction) = digits.split_at(whole);
        format!("{sign}{integer}.{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_the_nearest_whatever_the_processor() {
        // Ties that are broken far behind the bits of a float32: rounded twice, they go the other way.
        let just_above = |bits: i32, tail: i32| 1.0 + 2f64.powi(-bits) + 2f64.powi(-tail);
        assert_eq!(convert::<f16>(just_above(11, 40)).to_bits(), 0x3c01);
        assert_eq!(convert::<f16>(just_above(11, 22)).to_bits(), 0x3c01);
        assert_eq!(convert::<f16>(1.0 + 2f64.powi(-11)).to_bits(), 0x3c00);
        assert_eq!(convert::<bf16>(just_above(8, 30)).to_bits(), 0x3f81);
        assert_eq!(convert::<bf16>((1i128 << 60) + (1 << 52) + 1), bf16::from_bits(0x5d81));
        assert_eq!(convert::<bf16>((1i128 << 60) + (1 << 52)), bf16::from_bits(0x5d80));
        assert_eq!((convert::<f16>(1e300), convert::<f16>(-1e-300)), (f16::INFINITY, f16::NEG_ZERO));
        assert_eq!(convert::<f16>(65519.999), f16::MAX);
        assert!(convert::<f16>(f64::NAN).is_nan());
    }

    #[test]
    fn no_half_is_nearer_than_the_one_that_is_chosen() {
        let mut random = crate::engine::sample::random(17);
        for _ in 0..20_000 {
            let half = f16::from_bits(random(0x7bff) as u16);
            let (low, high) = (half.to_f64(), f16::from_bits(half.to_bits() + 1).to_f64());
            let middle = low + (high - low) / 2.0;
            let nudge = (high - low) * 2f64.powi(-(random(40) as i32));
            for x in
                [middle, middle + nudge / 2.0, middle - nudge / 2.0, low + nudge, f64::from_bits(middle.to_bits() + 1)]
            {
                let found = convert::<f16>(x);
                if !(low..=high).contains(&x) || !high.is_finite() {
                    continue;
                }
                let even = if half.to_bits().is_multiple_of(2) { low } else { high };
                let expected = match (x - low).partial_cmp(&(high - x)) {
                    Some(Ordering::Less) => low,
                    Some(Ordering::Greater) => high,
                    _ => even,
                };
                assert_eq!(found.to_f64(), expected, "{x:e}");
                assert_eq!(convert::<f16>(-x).to_f64(), -expected, "{x:e}");
            }
        }
    }
}
