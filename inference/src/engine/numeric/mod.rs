//! Arithmetic of single elements, defined bit for bit. See `NUMERICS.md` for the text.

mod cast;
mod functions;
mod number;

pub(crate) use cast::{Convert, cast, cast_text, convert, to_double, to_text};
pub(crate) use functions::{Real, Wide, exp_to_one};
pub(crate) use number::Number;
