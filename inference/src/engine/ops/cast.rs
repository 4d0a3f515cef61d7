//! Conversions of types.

use super::{Parse, is_half, single};
use crate::{
    DType,
    engine::{
        array::Array,
        cx::{Cx, Inputs, Stop},
        numeric::{cast, cast_text, to_text},
        value::Value,
    },
    onnx::constants::read_dtype,
};

pub(super) fn find(name: &str) -> Option<Parse> {
    Some(match name {
        "Cast" => |node, _| {
            let to = i32::try_from(node.int("to", 0)).map_err(|_| "its type is out of range".to_owned())?;
            let to = read_dtype(to)?;
            single(move |cx, inputs| convert(cx, inputs, to))
        },
        "CastLike" => |_, _| {
            single(|cx, inputs| {
                let to = inputs.dtype(1)?;
                convert(cx, inputs, to)
            })
        },
        "BitCast" => |node, _| {
            let to = i32::try_from(node.int("to", 0)).map_err(|_| "its type is out of range".to_owned())?;
            let to = read_dtype(to)?;
            single(move |cx, inputs| bit_cast(cx, inputs, to))
        },
        _ => return None,
    })
}

/// Bytes that take as long to read as one of a text that is read as a number.
const NUMBER_READS: u64 = 8;

pub(super) fn convert(cx: &mut Cx<'_>, inputs: &Inputs<'_>, to: DType) -> Result<Value, Stop> {
    let (from, shape) = inputs.ty(0)?;
    let weight = if from == to {
        0
    } else if from == DType::String || to == DType::String {
        2500
    } else if is_half(from) || is_half(to) {
        24
    } else {
        2
    };
    if let (DType::String, Some(array)) = (from, inputs.get(0).and_then(Value::array)) {
        cx.read_texts(array.text_bytes().0.saturating_mul(NUMBER_READS))?;
    }
    let ops = inputs.count(0)?.saturating_mul(weight);
    cx.emit_with(inputs, to, shape.to_vec(), ops, |shape| {
        let array = inputs.read(0)?;
        match (from, to) {
            (from, to) if from == to => Ok(array.clone()),
            (DType::String, _) => {
                cast_text(array, to).ok_or_else(|| Stop::invalid(format!("a text is no {}", to.name())))
            }
            (_, DType::String) => Ok(Array::text(shape, to_text(array))),
            _ => Ok(cast(array, to)),
        }
    })
}

fn bit_cast(cx: &mut Cx<'_>, inputs: &Inputs<'_>, to: DType) -> Result<Value, Stop> {
    let (from, shape) = inputs.ty(0)?;
    if from.size() != to.size() || from == DType::String || to == DType::String {
        return Err(Stop::invalid("it takes types of one size"));
    }
    let elements = inputs.count(0)?;
    // As bytes, and once more before and after that.
    cx.scratch(elements.saturating_mul(3 * to.size() as u64))?;
    cx.emit_with(inputs, to, shape.to_vec(), elements.saturating_mul(20), |shape| {
        let host = inputs.read(0)?.to_host().ok_or("its input cannot be read")?;
        let values = crate::TensorValues::from_le_bytes(to, &host.values().bytes()).ok_or("a byte is no bool")?;
        crate::Tensor::new(shape, values).map(Array::from_host).ok_or_else(|| "it changes the size".into())
    })
}
