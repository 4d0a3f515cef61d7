//! The types of elements, and code written once for many of them.

use burn_backend::Element as BurnElement;
use half::{bf16, f16};

use crate::DType;

/// A type of elements that the kernels compute with. A bool is a `u8` that is 0 or 1.
pub(crate) trait Element: BurnElement + bytemuck::Pod + PartialOrd + Send + Sync {
    /// The types of arrays that hold such elements.
    const TYPES: &'static [DType];
}

macro_rules! elements {
    ($($t:ty: $($dtype:ident),+;)*) => {
        $(impl Element for $t { const TYPES: &'static [DType] = &[$(DType::$dtype),+]; })*
    };
}

elements! {
    f32: Float32; f64: Float64; f16: Float16; bf16: BFloat16;
    i8: Int8; i16: Int16; i32: Int32; i64: Int64;
    u8: Uint8, Bool; u16: Uint16; u32: Uint32; u64: Uint64;
}

/// Evaluates an expression with a type alias for the elements of a dtype; strings take the second expression.
macro_rules! with_elements {
    ($dtype:expr, $t:ident => $body:expr, $text:expr) => {
        match $dtype {
            $crate::DType::Float32 => {
                type $t = f32;
                $body
            }
            $crate::DType::Float64 => {
                type $t = f64;
                $body
            }
            $crate::DType::Float16 => {
                type $t = half::f16;
                $body
            }
            $crate::DType::BFloat16 => {
                type $t = half::bf16;
                $body
            }
            $crate::DType::Int8 => {
                type $t = i8;
                $body
            }
            $crate::DType::Int16 => {
                type $t = i16;
                $body
            }
            $crate::DType::Int32 => {
                type $t = i32;
                $body
            }
            $crate::DType::Int64 => {
                type $t = i64;
                $body
            }
            $crate::DType::Uint8 | $crate::DType::Bool => {
                type $t = u8;
                $body
            }
            $crate::DType::Uint16 => {
                type $t = u16;
                $body
            }
            $crate::DType::Uint32 => {
                type $t = u32;
                $body
            }
            $crate::DType::Uint64 => {
                type $t = u64;
                $body
            }
            $crate::DType::String => $text,
        }
    };
}
pub(crate) use with_elements;

/// The same for the numbers: neither bool nor string.
macro_rules! with_numbers {
    ($dtype:expr, $t:ident => $body:expr, $other:expr) => {
        match $dtype {
            $crate::DType::Bool => $other,
            dtype => $crate::engine::elements::with_elements!(dtype, $t => $body, $other),
        }
    };
}
pub(crate) use with_numbers;

/// The same for the floating-point types.
macro_rules! with_floats {
    ($dtype:expr, $t:ident => $body:expr, $other:expr) => {
        match $dtype {
            $crate::DType::Float32 => {
                type $t = f32;
                $body
            }
            $crate::DType::Float64 => {
                type $t = f64;
                $body
            }
            $crate::DType::Float16 => {
                type $t = half::f16;
                $body
            }
            $crate::DType::BFloat16 => {
                type $t = half::bf16;
                $body
            }
            _ => $other,
        }
    };
}
pub(crate) use with_floats;

/// The same for the integers.
macro_rules! with_integers {
    ($dtype:expr, $t:ident => $body:expr, $other:expr) => {
        match $dtype {
            $crate::DType::Int8 => {
                type $t = i8;
                $body
            }
            $crate::DType::Int16 => {
                type $t = i16;
                $body
            }
            $crate::DType::Int32 => {
                type $t = i32;
                $body
            }
            $crate::DType::Int64 => {
                type $t = i64;
                $body
            }
            $crate::DType::Uint8 => {
                type $t = u8;
                $body
            }
            $crate::DType::Uint16 => {
                type $t = u16;
                $body
            }
            $crate::DType::Uint32 => {
                type $t = u32;
                $body
            }
            $crate::DType::Uint64 => {
                type $t = u64;
                $body
            }
            _ => $other,
        }
    };
}
pub(crate) use with_integers;
