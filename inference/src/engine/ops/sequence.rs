//! Sequences and optionals.

use std::sync::Arc;

use super::{Parse, shapes, single, structure};
use crate::{
    DType,
    engine::{
        array::Array,
        cx::{Inputs, MAX_PARTS, NODE_OPS, Stop},
        program::Eval,
        value::{Value, count, part_bytes},
    },
    onnx::Node,
};

pub(super) fn find(name: &str) -> Option<Parse> {
    Some(match name {
        "SequenceEmpty" => |_, _| single(|_, _| sequence(vec![])),
        "SequenceConstruct" => |_, _| {
            single(|_, inputs| sequence((0..inputs.len()).map(|i| inputs.value(i).cloned()).collect::<Result<_, _>>()?))
        },
        "SequenceLength" => |_, _| {
            single(|_, inputs| Ok(Value::Known(Array::new(DType::Int64, vec![], vec![list(inputs)?.len() as i64]))))
        },
        "SequenceAt" => |_, _| {
            single(|_, inputs| {
                let list = list(inputs)?;
                Ok(list[position(inputs.int(1)?, list.len(), list.len())?].clone())
            })
        },
        "SequenceErase" => |_, _| {
            single(|_, inputs| {
                let mut values = list(inputs)?.to_vec();
                let at = match inputs.int(1)? {
                    None => values.len().checked_sub(1).ok_or("the sequence is empty")?,
                    at => position(at, values.len(), values.len())?,
                };
                values.remove(at);
                sequence(values)
            })
        },
        "SequenceInsert" => |_, _| {
            single(|_, inputs| {
                let mut values = list(inputs)?.to_vec();
                let at = match inputs.int(2)? {
                    None => values.len(),
                    at => position(at, values.len(), values.len() + 1)?,
                };
                values.insert(at, inputs.value(1)?.clone());
                sequence(values)
            })
        },
        "SplitToSequence" => |node, _| split(node),
        "ConcatFromSequence" => |node, _| concat(node),
        "Optional" => |_, _| single(|_, inputs| Ok(inputs.get(0).cloned().unwrap_or(Value::Nothing))),
        "OptionalHasElement" => |_, _| {
            single(|_, inputs| {
                let there = inputs.get(0).is_some_and(|value| !matches!(value, Value::Nothing));
                Ok(Value::Known(Array::new(DType::Bool, vec![], vec![u8::from(there)])))
            })
        },
        "OptionalGetElement" => |_, _| {
            single(|_, inputs| match inputs.value(0)? {
                Value::Nothing => Err(Stop::invalid("there is no element")),
                value => Ok(value.clone()),
            })
        },
        _ => return None,
    })
}

/// A sequence of tensors: sequences inside could have parts without end.
pub(super) fn sequence(values: Vec<Value>) -> Result<Value, Stop> {
    if values.iter().any(|value| matches!(value, Value::Sequence(_))) {
        return Err(Stop::invalid("a sequence inside a sequence is not supported"));
    }
    Ok(Value::Sequence(Arc::new(values)))
}

fn list<'v>(inputs: &Inputs<'v>) -> Result<&'v [Value], Stop> {
    match inputs.value(0)? {
        Value::Sequence(values) => Ok(values),
        _ => Err(Stop::invalid("it takes a sequence")),
    }
}

/// A position below `end`; negative ones count from the length.
fn position(at: Option<i64>, length: usize, end: usize) -> Result<usize, Stop> {
    let at = at.ok_or_else(|| Stop::invalid("its position is missing"))?;
    let index = if at < 0 { at.saturating_add(length as i64) } else { at };
    usize::try_from(index)
        .ok()
        .filter(|i| *i < end)
        .ok_or_else(|| Stop::invalid(format!("position {at} is out of bounds")))
}

fn split(node: &Node<'_>) -> Result<Eval, String> {
    let (at, keep) = (node.int("axis", 0), node.flag("keepdims", true));
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        let axis = shapes::axis(at, shape.len())?;
        let size = shape[axis];
        // Counted before there is a list of them.
        let given = inputs.ints_within(1, MAX_PARTS)?;
        let number = match &given {
            Some(list) if inputs.shape(1)?.is_empty() => {
                list.first().map_or(0, |each| size / (*each).max(1) as usize + 1)
            }
            Some(list) => list.len(),
            None => size,
        } as u64;
        cx.labour(number.saturating_mul(NODE_OPS))?;
        cx.scratch(number.saturating_mul(part_bytes(shape.len())))?;
        let (parts, squeeze) = match given {
            // One number is the size of each part.
            Some(list) if inputs.shape(1)?.is_empty() => {
                let each = list.first().and_then(|n| usize::try_from(*n).ok()).filter(|n| *n > 0);
                let each = each.ok_or_else(|| Stop::invalid("its parts must have a positive size"))?;
                ((0..size.div_ceil(each)).map(|i| each.min(size - i * each)).collect(), false)
            }
            Some(list) => (structure::part_sizes(size, Some(list), 0)?, false),
            None => (vec![1; size], !keep),
        };
        let mut start = 0;
        let mut values = Vec::with_capacity(parts.len());
        for part in parts {
            let mut out = shape.to_vec();
            out[axis] = part;
            if squeeze {
                out.remove(axis);
            }
            let (from, ops) = (start, count(&out).saturating_add(structure::leaps(shape, axis)));
            values.push(cx.emit_checked(inputs, dtype, out, ops, |out| {
                Ok(inputs.read(0)?.slice(axis, from, 1, part).contiguous().reshape(out))
            })?);
            start += part;
        }
        sequence(values)
    })
}

fn concat(node: &Node<'_>) -> Result<Eval, String> {
    let (at, new) = (node.int("axis", 0), node.flag("new_axis", false));
    single(move |cx, inputs| {
        let values = list(inputs)?;
        let types = values.iter().map(Value::ty).collect::<Result<Vec<_>, _>>()?;
        let mut wide = Vec::with_capacity(types.len());
        for (dtype, shape) in &types {
            let mut shape = shape.to_vec();
            if new {
                let axis = shapes::axis(at, shape.len() + 1)?;
                shape.insert(axis, 1);
            }
            wide.push((*dtype, shape));
        }
        let views: Vec<(DType, &[usize])> = wide.iter().map(|(dtype, shape)| (*dtype, shape.as_slice())).collect();
        let (dtype, out, axis) = structure::joined_type(&views, at)?;
        cx.labour((values.len() as u64).saturating_mul(NODE_OPS))?;
        let texts = values.iter().filter_map(Value::array).map(|array| array.text_bytes().0);
        cx.check_texts(texts.fold(0, u64::saturating_add))?;
        let ops = count(&out).saturating_add(structure::pieces(&out, axis, values.len()));
        cx.emit_checked(inputs, dtype, out, ops, |out| {
            let arrays = values.iter().zip(&wide).map(|(value, (_, shape))| match value {
                Value::Known(array) => Ok(array.contiguous().reshape(shape.clone())),
                _ => Err(Stop::invalid("an element is no tensor")),
            });
            Ok(structure::join(&arrays.collect::<Result<Vec<_>, _>>()?, axis, out))
        })
    })
}
