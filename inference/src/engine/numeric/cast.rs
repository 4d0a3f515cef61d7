//! Conversions between element types.

use half::{bf16, f16};

use crate::{
    DType,
    engine::array::{Array, Element, with_elements},
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

macro_rules! halves {
    ($($t:ty),*) => {$(
        impl Convert for $t {
            fn exact(self) -> Exact { Exact::Single(self.to_f32()) }
            fn of(exact: Exact) -> Self {
                match exact {
                    // Integers of 24 bits are exact in float32; greater ones are beyond float16, and rounded through
                    // float64 for bfloat16.
                    Exact::Integer(x) => <$t>::from_f64(x as f64),
                    Exact::Single(x) => <$t>::from_f32(x),
                    Exact::Double(x) => <$t>::from_f64(x),
                }
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
            if let Ok(integer) = text.parse::<i128>() {
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
