//! Operators that move elements without computing: CenterCropPad, DepthToSpace, SpaceToDepth.

use super::{shapes, sizes, zero};
use crate::{
    engine::{
        array::Array,
        cx::{Cx, Inputs, Stop},
        elements::with_elements,
        layout::strides,
        ops::single,
        program::Eval,
        value::{Value, count},
    },
    onnx::Node,
};

pub(super) fn center_crop_pad(node: &Node<'_>) -> Result<Eval, String> {
    let axes = node.axes("axes")?;
    single(move |cx, inputs| crop_pad(cx, inputs, axes.as_deref()))
}

/// The part of an axis that stays.
#[derive(Debug, Clone, Copy)]
struct Part {
    /// Where it begins in the input and in the output.
    from: usize,
    to: usize,
    length: usize,
}

fn crop_pad(cx: &mut Cx<'_>, inputs: &Inputs<'_>, axes: Option<&[i64]>) -> Result<Value, Stop> {
    let (dtype, shape) = inputs.ty(0)?;
    let sizes = sizes(inputs, 1)?;
    let axes = match axes {
        Some(list) => {
            shapes::axes(list, shape.len())?;
            list.iter().map(|axis| shapes::axis(*axis, shape.len())).collect::<Result<Vec<_>, _>>()?
        }
        None => (0..shape.len()).collect(),
    };
    if axes.len() != sizes.len() {
        return Err(format!("it has {} sizes for {} axes", sizes.len(), axes.len()).into());
    }
    let mut out = shape.to_vec();
    for (axis, size) in axes.iter().zip(sizes) {
        if let Some(dim) = out.get_mut(*axis) {
            *dim = size;
        }
    }
    // Of an odd difference the greater half is at the end.
    let middle = |(input, output): (&usize, &usize)| Part {
        from: input.saturating_sub(*output) / 2,
        to: output.saturating_sub(*input) / 2,
        length: *input.min(output),
    };
    let parts: Vec<Part> = shape.iter().zip(&out).map(middle).collect();
    let copied = shapes::stretches(&out).saturating_mul(60);
    let ops = count(&out).saturating_mul(4).saturating_add(copied);
    cx.emit_checked(inputs, dtype, out, ops, |out| {
        let array = inputs.read(0)?;
        with_elements!(dtype, T => {
            let values = place(&array.values::<T>(), shape, &out, &parts, zero::<T>());
            Ok(Array::new(dtype, out, values))
        }, {
            let texts = place(array.texts(), shape, &out, &parts, String::new());
            Ok(Array::text(out, texts))
        })
    })
}

/// The parts of the input at their places in an output that is `blank` elsewhere.
fn place<T: Clone>(data: &[T], shape: &[usize], out: &[usize], parts: &[Part], blank: T) -> Vec<T> {
    let mut values = vec![blank; count(out) as usize];
    if count(out) == 0 || data.is_empty() {
        return values;
    }
    copy(data, &mut values, &strides(shape), &strides(out), parts, (0, 0));
    values
}

fn copy<T: Clone>(data: &[T], out: &mut [T], own: &[usize], other: &[usize], parts: &[Part], at: (usize, usize)) {
    let ([part, parts @ ..], [own_step, own @ ..], [other_step, other @ ..]) = (parts, own, other) else {
        if let (Some(to), Some(from)) = (out.get_mut(at.1), data.get(at.0)) {
            to.clone_from(from);
        }
        return;
    };
    let (from, to) = (at.0 + part.from * own_step, at.1 + part.to * other_step);
    if parts.is_empty() {
        // Rows lie behind each other.
        let (source, target) = (data.get(from..from + part.length), out.get_mut(to..to + part.length));
        if let (Some(source), Some(target)) = (source, target) {
            target.clone_from_slice(source);
        }
        return;
    }
    for i in 0..part.length {
        copy(data, out, own, other, parts, (from + i * own_step, to + i * other_step));
    }
}

/// The size of a block, whose square fits a size, and whether the depth is outermost in it.
fn block(node: &Node<'_>) -> Result<(usize, bool), String> {
    let size = node.int("blocksize", 0);
    let size = u16::try_from(size).ok().filter(|n| *n > 0).ok_or_else(|| format!("its blocksize is {size}"))?;
    match node.text("mode", "DCR")?.as_str() {
        "DCR" => Ok((size.into(), true)),
        "CRD" => Ok((size.into(), false)),
        other => Err(format!("its mode is `{other}`")),
    }
}

pub(super) fn depth_to_space(node: &Node<'_>) -> Result<Eval, String> {
    let (block, depth_first) = block(node)?;
    single(move |cx, inputs| {
        let error = |shape: &[usize]| Stop::invalid(format!("it takes no input of shape {shape:?}"));
        let &[n, c, h, w] = inputs.shape(0)? else { return Err(error(inputs.shape(0)?)) };
        if c % (block * block) != 0 {
            return Err(error(inputs.shape(0)?));
        }
        let depth = c / (block * block);
        let (split, order) = if depth_first {
            ([n, block, block, depth, h, w], [0, 3, 4, 1, 5, 2])
        } else {
            ([n, depth, block, block, h, w], [0, 1, 4, 2, 5, 3])
        };
        let grown = h.checked_mul(block).zip(w.checked_mul(block));
        let (h, w) = grown.ok_or_else(|| error(&[n, c, h, w]))?;
        rearrange(cx, inputs, &split, &order, vec![n, depth, h, w])
    })
}

pub(super) fn space_to_depth(node: &Node<'_>) -> Result<Eval, String> {
    let (block, depth_first) = block(node)?;
    single(move |cx, inputs| {
        let error = |shape: &[usize]| Stop::invalid(format!("it takes no input of shape {shape:?}"));
        let &[n, c, h, w] = inputs.shape(0)? else { return Err(error(inputs.shape(0)?)) };
        if h % block != 0 || w % block != 0 {
            return Err(error(inputs.shape(0)?));
        }
        let depth = c.checked_mul(block * block).ok_or_else(|| error(&[n, c, h, w]))?;
        let split = [n, c, h / block, block, w / block, block];
        let order = if depth_first { [0, 3, 5, 1, 2, 4] } else { [0, 1, 3, 5, 2, 4] };
        rearrange(cx, inputs, &split, &order, vec![n, depth, h / block, w / block])
    })
}

/// Splits dimensions, permutes them and merges them.
fn rearrange(
    cx: &mut Cx<'_>,
    inputs: &Inputs<'_>,
    split: &[usize],
    order: &[usize],
    out: Vec<usize>,
) -> Result<Value, Stop> {
    let dtype = inputs.dtype(0)?;
    let copied = shapes::stretches(&out).saturating_mul(60);
    let ops = count(&out).saturating_mul(4).saturating_add(copied);
    cx.emit_with(inputs, dtype, out, ops, |out| {
        Ok(inputs.read(0)?.reshape(split.to_vec()).permute(order).contiguous().reshape(out))
    })
}
