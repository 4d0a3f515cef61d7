//! Parts of tensors: slices, paddings, reversals.

use super::{Parse, shapes, single, structure::leaps};
use crate::{
    engine::{
        array::Array,
        cx::{Cx, Inputs, Stop},
        elements::with_elements,
        layout::strides,
        program::Eval,
        value::{Value, count},
    },
    onnx::Node,
};

pub(super) fn find(name: &str) -> Option<Parse> {
    Some(match name {
        "Slice" => |node, _| slice(node),
        "Pad" => |node, _| pad(node),
        "ReverseSequence" => |node, _| reverse_sequence(node),
        _ => return None,
    })
}

/// Start, step and number of elements of a slice, clamped as Python does.
fn bounds(start: i64, end: i64, step: i64, size: usize) -> Result<(usize, isize, usize), Stop> {
    if step == 0 {
        return Err(Stop::invalid("a step is zero"));
    }
    let size = size as i64;
    let wrap = |i: i64| if i < 0 { i.saturating_add(size) } else { i };
    let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
    let (start, end) = (wrap(start).clamp(low.max(0).min(high.max(0)), high.max(0)), wrap(end).clamp(low, high));
    let distance = if step > 0 { end - start } else { start - end };
    if distance <= 0 || size == 0 {
        return Ok((0, 1, 0));
    }
    let count = (distance as u64).div_ceil(step.unsigned_abs());
    // A step beyond the end is as good as one that ends there.
    let step = step.clamp(-size, size);
    Ok((start as usize, step as isize, count as usize))
}

fn slice(node: &Node<'_>) -> Result<Eval, String> {
    let attributes = (node.axes("starts")?, node.axes("ends")?, node.axes("axes")?);
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        let missing = || Stop::invalid("its bounds are missing");
        let (starts, ends, axes, steps) = match &attributes {
            (Some(starts), Some(ends), axes) => (starts.clone(), ends.clone(), axes.clone(), None),
            _ => (
                inputs.ints(1)?.ok_or_else(missing)?,
                inputs.ints(2)?.ok_or_else(missing)?,
                inputs.ints(3)?,
                inputs.ints(4)?,
            ),
        };
        let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
        if starts.len() != ends.len() || starts.len() != axes.len() || starts.len() != steps.len() {
            return Err(Stop::invalid("its bounds have different lengths"));
        }
        let mut out = shape.to_vec();
        let mut cuts: Vec<(usize, usize, isize, usize)> = Vec::with_capacity(axes.len());
        for (((start, end), axis), step) in starts.iter().zip(&ends).zip(&axes).zip(&steps) {
            let axis = shapes::axis(*axis, shape.len())?;
            if cuts.iter().any(|(other, ..)| *other == axis) {
                return Err(Stop::invalid("its axes name one twice"));
            }
            let (start, step, count) = bounds(*start, *end, *step, shape[axis])?;
            out[axis] = count;
            cuts.push((axis, start, step, count));
        }
        // The innermost cut says how long the stretches are; with a step they are those behind it.
        let innermost = cuts.iter().map(|(axis, _, step, _)| axis + usize::from(*step != 1)).max().unwrap_or(0);
        let ops = count(&out).saturating_add(leaps(&out, innermost));
        cx.emit_checked(inputs, dtype, out, ops, |_| {
            let mut array = inputs.read(0)?.clone();
            for (axis, start, step, count) in cuts {
                array = array.slice(axis, start, step, count);
            }
            Ok(array)
        })
    })
}

/// Cost of a row that is put together of what is there and what is put in.
const ROW_OPS: u64 = 300;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Constant,
    Reflect,
    Edge,
    Wrap,
}

/// Index of the element that a padded position takes; `None` for the constant.
fn source(mode: Mode, at: i64, size: i64) -> Option<i64> {
    if (0..size).contains(&at) {
        return Some(at);
    }
    match mode {
        Mode::Constant => None,
        Mode::Edge => Some(at.clamp(0, size - 1)),
        Mode::Wrap => Some(at.rem_euclid(size)),
        Mode::Reflect if size == 1 => Some(0),
        Mode::Reflect => {
            let period = 2 * (size - 1);
            let at = at.rem_euclid(period);
            Some(if at < size { at } else { period - at })
        }
    }
}

fn pad(node: &Node<'_>) -> Result<Eval, String> {
    let mode = match node.text("mode", "constant")?.as_str() {
        "constant" => Mode::Constant,
        "reflect" => Mode::Reflect,
        "edge" => Mode::Edge,
        "wrap" => Mode::Wrap,
        other => return Err(format!("there is no mode `{other}`")),
    };
    let (attribute, old_value) = (node.axes("pads")?, node.float("value", 0.0));
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        let rank = shape.len();
        let pads = match &attribute {
            Some(pads) => pads.clone(),
            None => inputs.ints(1)?.ok_or_else(|| Stop::invalid("its pads are missing"))?,
        };
        let axes = match inputs.ints(3)? {
            Some(axes) => axes.iter().map(|a| shapes::axis(*a, rank)).collect::<Result<Vec<_>, _>>()?,
            None => (0..rank).collect(),
        };
        if pads.len() != 2 * axes.len() {
            return Err(Stop::invalid("it needs two pads for each axis"));
        }
        let (mut before, mut out) = (vec![0i64; rank], shape.to_vec());
        for (i, axis) in axes.iter().enumerate() {
            let (low, high) = (pads[i], pads[i + axes.len()]);
            before[*axis] = low;
            let size = (shape[*axis] as i64).checked_add(low).and_then(|n| n.checked_add(high));
            out[*axis] = size
                .and_then(|n| usize::try_from(n).ok())
                .ok_or_else(|| Stop::invalid("its pads leave a negative size"))?;
            if mode != Mode::Constant && shape[*axis] == 0 && out[*axis] > 0 {
                return Err(Stop::invalid("there is nothing to pad with"));
            }
        }
        if inputs.has(2) && attribute.is_none() && inputs.count(2)? > 1 {
            return Err(Stop::invalid("its value must be one"));
        }
        // Where each position of each axis is, and runs of the last one.
        let positions = out.iter().fold(0u64, |sum, size| sum.saturating_add(*size as u64));
        cx.scratch(positions.saturating_mul(40))?;
        let rows = shapes::stretches(&out[..out.len().saturating_sub(1)]).saturating_mul(ROW_OPS);
        let ops = count(&out).saturating_add(rows).saturating_add(positions.saturating_mul(40));
        let fold = out.clone();
        cx.emit_with(inputs, dtype, out, ops, |out| {
            let array = inputs.read(0)?;
            if count(&out) == 0 {
                return Ok(array.none(out));
            }
            let own = strides(shape);
            // For each axis the offset that each output position takes.
            let table: Vec<Vec<Option<usize>>> = (0..rank)
                .map(|axis| {
                    (0..fold[axis] as i64)
                        .map(|i| source(mode, i - before[axis], shape[axis] as i64).map(|at| at as usize * own[axis]))
                        .collect()
                })
                .collect();
            Ok(with_elements!(dtype, T => {
                let fill: T = match (inputs.has(2), attribute.is_some()) {
                    (true, false) => inputs.values::<T>(2)?.first().copied().ok_or("its value has another type")?,
                    _ => crate::engine::numeric::convert::<T>(old_value),
                };
                let values = array.values::<T>();
                let mut result = Vec::with_capacity(out.iter().product());
                // Row by row: runs of elements, and of what is put in.
                let (row, outer) = table.split_last().map_or((&[Some(0)][..], &[][..]), |(row, outer)| (row, outer));
                let runs = runs(row);
                gather(outer, Some(0), &mut |at| {
                    for (first, length) in &runs {
                        match at.zip(*first).map(|(at, first)| at + first) {
                            Some(from) => result.extend_from_slice(&values[from..from + length]),
                            None => result.resize(result.len() + length, fill),
                        }
                    }
                });
                Array::new(dtype, out, result)
            }, {
                let fill = if inputs.has(2) { inputs.read(2)?.texts().first().cloned() } else { None }.unwrap_or_default();
                let mut result = Vec::with_capacity(out.iter().product());
                gather(&table, Some(0), &mut |at| result.push(at.map_or_else(|| fill.clone(), |at| array.texts()[at].clone())));
                Array::text(out, result)
            }))
        })
    })
}

fn gather(table: &[Vec<Option<usize>>], at: Option<usize>, f: &mut impl FnMut(Option<usize>)) {
    match table.split_first() {
        None => f(at),
        Some((axis, rest)) => {
            axis.iter().for_each(|offset| gather(rest, at.zip(*offset).map(|(at, offset)| at + offset), f));
        }
    }
}

/// Neighbours among offsets: the first of them (`None`: of what has no offset), and how many.
fn runs(row: &[Option<usize>]) -> Vec<(Option<usize>, usize)> {
    let mut runs: Vec<(Option<usize>, usize)> = Vec::new();
    for offset in row {
        match runs.last_mut() {
            Some((first, length)) if *offset == first.map(|first| first + *length) => *length += 1,
            _ => runs.push((*offset, 1)),
        }
    }
    runs
}

fn reverse_sequence(node: &Node<'_>) -> Result<Eval, String> {
    let (batch, time) = (node.int("batch_axis", 1), node.int("time_axis", 0));
    single(move |cx: &mut Cx<'_>, inputs: &Inputs<'_>| -> Result<Value, Stop> {
        let (dtype, shape) = inputs.ty(0)?;
        let (batch, time) = (shapes::axis(batch, shape.len())?, shapes::axis(time, shape.len())?);
        if batch == time || batch > 1 || time > 1 {
            return Err(Stop::invalid("its axes must be 0 and 1"));
        }
        let ops = count(shape).saturating_add(count(&shape[..2]).saturating_mul(400));
        cx.emit_checked(inputs, dtype, shape.to_vec(), ops, |out| {
            let lengths = inputs.read(1)?.to_ints().ok_or("its lengths must be integers")?;
            let valid = |n: &i64| usize::try_from(*n).ok().filter(|n| *n <= shape[time]);
            let lengths = lengths.iter().map(valid).collect::<Option<Vec<_>>>();
            let lengths = lengths.filter(|l| l.len() == shape[batch]).ok_or("a length is out of range")?;
            let inner: usize = shape[2..].iter().product();
            let array = inputs.read(0)?;
            let from = |i: usize, j: usize| {
                let (b, t) = if batch == 0 { (i, j) } else { (j, i) };
                let t = if t < lengths[b] { lengths[b] - 1 - t } else { t };
                if batch == 0 { b * shape[1] + t } else { t * shape[1] + b }
            };
            let blocks = (0..shape[0]).flat_map(|i| (0..shape[1]).map(move |j| (i, j)));
            Ok(with_elements!(dtype, T => {
                let values = array.values::<T>();
                let mut result = Vec::with_capacity(values.len());
                blocks.for_each(|(i, j)| result.extend_from_slice(&values[from(i, j) * inner..][..inner]));
                Array::new(dtype, out, result)
            }, {
                let mut result = Vec::new();
                blocks.for_each(|(i, j)| result.extend_from_slice(&array.texts()[from(i, j) * inner..][..inner]));
                Array::text(out, result)
            }))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_python() {
        // range(size)[start:end:step]
        for (start, end, step, size, expected) in [
            (0, 10, 1, 4, (0, 1, 4)),
            (-1, -5, -1, 4, (3, -1, 4)),
            (i64::MAX, i64::MIN, -2, 5, (4, -2, 3)),
            (2, 1, 1, 4, (0, 1, 0)),
            (1, i64::MAX, i64::MAX, 4, (1, 4, 1)),
            (0, -1, -1, 4, (0, 1, 0)),
            (7, 9, 1, 4, (0, 1, 0)),
            (0, 1, 1, 0, (0, 1, 0)),
        ] {
            assert_eq!(bounds(start, end, step, size), Ok(expected), "{start}:{end}:{step} of {size}");
        }
        assert!(bounds(0, 1, 0, 4).is_err());
    }

    #[test]
    fn neighbours_are_one_run() {
        let row = [None, None, Some(4), Some(5), Some(6), Some(6), Some(5), None];
        let expected = [(None, 2), (Some(4), 3), (Some(6), 1), (Some(5), 1), (None, 1)];
        assert_eq!(runs(&row), expected);
    }

    #[test]
    fn paddings_mirror_and_wrap() {
        let row = |mode| (-4..7).map(|i| source(mode, i, 3)).map(|x| x.map_or(-1, |x| x)).collect::<Vec<_>>();
        assert_eq!(row(Mode::Reflect), [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]);
        assert_eq!(row(Mode::Wrap), [2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(row(Mode::Edge), [0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2]);
    }
}
