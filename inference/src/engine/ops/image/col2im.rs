//! Col2Im: overlapping blocks summed into an image.

use super::{sizes, wide};
use crate::{
    engine::{
        cx::{Cx, Inputs, Stop},
        elements::{with_floats, with_integers},
        numeric::Number,
        ops::single,
        program::Eval,
        value::{Value, count},
    },
    onnx::Node,
};

#[derive(Debug)]
struct Attributes {
    strides: Option<Vec<usize>>,
    dilations: Option<Vec<usize>>,
    pads: Option<Vec<usize>>,
}

/// One axis of the image.
#[derive(Debug, Clone, Copy)]
struct Axis {
    image: usize,
    block: usize,
    /// How many blocks begin along it.
    blocks: usize,
    stride: usize,
    dilation: usize,
    pad: usize,
}

pub(super) fn col2im(node: &Node<'_>) -> Result<Eval, String> {
    let attributes =
        Attributes { strides: node.sizes("strides")?, dilations: node.sizes("dilations")?, pads: node.sizes("pads")? };
    for list in [&attributes.strides, &attributes.dilations] {
        if list.iter().flatten().any(|n| *n == 0) {
            return Err("its strides and dilations must be positive".to_owned());
        }
    }
    single(move |cx, inputs| attributes.eval(cx, inputs))
}

impl Attributes {
    fn eval(&self, cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Value, Stop> {
        let (dtype, shape) = inputs.ty(0)?;
        let &[batch, rows, columns] = shape else { return Err(format!("it takes no input of shape {shape:?}").into()) };
        let (image, block) = (sizes(inputs, 1)?, sizes(inputs, 2)?);
        let axes = self.axes(&image, &block)?;
        let blocks = axes.iter().fold(1u64, |n, axis| n.saturating_mul(axis.blocks as u64));
        let elements = usize::try_from(count(&block)).unwrap_or(usize::MAX);
        if blocks != columns as u64 || elements == 0 || rows % elements != 0 {
            return Err(format!("columns {shape:?} are no blocks {block:?} of images {image:?}").into());
        }
        let mut out = vec![batch, rows / elements];
        out.extend(&image);
        let (planes, plane) = (batch.saturating_mul(rows / elements), count(&image));
        let each = 75 * (axes.len() as u64 + 1);
        let ops = count(shape).saturating_mul(each).saturating_add(count(&out));
        // The input and the image as they are computed with.
        cx.scratch(count(shape).saturating_add(count(&out)).saturating_mul(8))?;
        let total = count(&out);
        with_floats!(dtype, T => cx.emit::<T>(inputs, dtype, out, ops, || {
            let data = wide::<T>(inputs.read(0)?);
            Ok(super::narrow(if total == 0 { vec![] } else { sum(&data, planes, plane as usize, &axes) }))
        }), with_integers!(dtype, T => cx.emit::<T>(inputs, dtype, out, ops, || {
            let data = inputs.values::<T>(0)?;
            Ok(if total == 0 { vec![] } else { sum(&data, planes, plane as usize, &axes) })
        }), Err(Stop::unsupported(dtype))))
    }

    fn axes(&self, image: &[usize], block: &[usize]) -> Result<Vec<Axis>, Stop> {
        let error =
            || Stop::invalid(format!("there are no blocks {block:?} in images {image:?} as its attributes say"));
        let rank = image.len();
        let list = |given: &Option<Vec<usize>>| given.clone().unwrap_or_else(|| vec![1; rank]);
        let (strides, dilations) = (list(&self.strides), list(&self.dilations));
        let pads = self.pads.clone().unwrap_or_else(|| vec![0; 2 * rank]);
        if block.len() != rank || strides.len() != rank || dilations.len() != rank || pads.len() != 2 * rank {
            return Err(error());
        }
        let (before, after) = pads.split_at(rank);
        let sizes = image.iter().zip(block);
        let steps = strides.iter().zip(&dilations);
        let pads = before.iter().zip(after);
        let axes = sizes.zip(steps).zip(pads).map(|(((image, block), (stride, dilation)), (pad, after))| {
            let padded = image.checked_add(*pad)?.checked_add(*after)?;
            let reach = block.checked_sub(1)?.checked_mul(*dilation)?.checked_add(1)?;
            let blocks = padded.checked_sub(reach)?.checked_div(*stride)?.checked_add(1)?;
            Some(Axis { image: *image, block: *block, blocks, stride: *stride, dilation: *dilation, pad: *pad })
        });
        axes.collect::<Option<_>>().ok_or_else(error)
    }
}

/// Every image element is the sum of its occurrences in the order of the elements of a block, which start from zero.
fn sum<N: Number>(data: &[N], planes: usize, plane: usize, axes: &[Axis]) -> Vec<N> {
    let mut out = vec![N::ZERO; planes.saturating_mul(plane)];
    let blocks: usize = axes.iter().map(|axis| axis.blocks).product();
    let mut rows = data.chunks_exact(blocks.max(1));
    for image in out.chunks_exact_mut(plane.max(1)) {
        let mut within = vec![0; axes.len()];
        loop {
            scatter(rows.next().unwrap_or_default(), image, axes, &within, 0, 0);
            // The next element of a block.
            let next = axes.iter().zip(&mut within).rev().any(|(axis, i)| {
                *i = if *i + 1 < axis.block { *i + 1 } else { 0 };
                *i != 0
            });
            if !next {
                break;
            }
        }
    }
    out
}

/// Adds one element of all blocks to the image.
fn scatter<N: Number>(row: &[N], image: &mut [N], axes: &[Axis], within: &[usize], column: usize, at: usize) {
    let ([axis, axes @ ..], [element, within @ ..]) = (axes, within) else {
        if let (Some(sum), Some(value)) = (image.get_mut(at), row.get(column)) {
            *sum = sum.plus(*value);
        }
        return;
    };
    for block in 0..axis.blocks {
        let place = (block * axis.stride + element * axis.dilation).checked_sub(axis.pad);
        if let Some(place) = place.filter(|place| *place < axis.image) {
            scatter(row, image, axes, within, column * axis.blocks + block, at * axis.image + place);
        }
    }
}
