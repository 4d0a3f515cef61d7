//! DeformConv.

use super::{
    narrow, same_type,
    sampling::{Taps, blend},
    wide,
};
use crate::{
    engine::{
        cx::{Cx, Inputs, Stop},
        elements::with_floats,
        numeric::{Real, Wide},
        ops::single,
        program::Eval,
        value::{Value, count},
    },
    onnx::Node,
};

#[derive(Debug)]
struct Attributes {
    kernel: Option<Vec<usize>>,
    strides: Option<Vec<usize>>,
    dilations: Option<Vec<usize>>,
    pads: Option<Vec<usize>>,
    group: usize,
    offset_group: usize,
}

/// Sizes of a convolution over the axes behind batch and channel.
#[derive(Debug)]
struct Extents {
    /// Input channels, and those of one group.
    channels: usize,
    group_channels: usize,
    /// Output channels.
    filters: usize,
    group: usize,
    offset_group: usize,
    input: Vec<usize>,
    kernel: Vec<usize>,
    output: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    /// Before the first element of each axis.
    pads: Vec<usize>,
}

pub(super) fn deform_conv(node: &Node<'_>) -> Result<Eval, String> {
    let positive = |name: &str| {
        let value = node.int(name, 1);
        usize::try_from(value).ok().filter(|n| *n > 0).ok_or_else(|| format!("its {name} is {value}"))
    };
    let attributes = Attributes {
        kernel: node.sizes("kernel_shape")?,
        strides: node.sizes("strides")?,
        dilations: node.sizes("dilations")?,
        pads: node.sizes("pads")?,
        group: positive("group")?,
        offset_group: positive("offset_group")?,
    };
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
        for input in 1..5 {
            if input < 3 || inputs.has(input) {
                same_type(inputs, input, dtype)?;
            }
        }
        let extents = self.extents(inputs)?;
        let batch = shape.first().copied().unwrap_or(0);
        let mut out = vec![batch, extents.filters];
        out.extend(&extents.output);
        let (places, kernel) = (count(&extents.output), count(&extents.kernel));
        let rank = u32::try_from(extents.input.len()).unwrap_or(u32::MAX);
        // Points are found one by one, samples taken of each channel, and summed for each filter.
        let points = (extents.offset_group as u64).saturating_mul(5000 + 400 * u64::from(rank));
        let samples = (extents.channels as u64).saturating_mul(2u64.saturating_pow(rank)).saturating_mul(120);
        let sums = (extents.group_channels as u64).saturating_mul(kernel).saturating_mul(30).saturating_add(150);
        let per_place = kernel.saturating_mul(points.saturating_add(samples)).saturating_add(2000);
        let per_place = per_place.saturating_add((extents.filters as u64).saturating_mul(sums));
        let ops = (batch as u64).saturating_mul(places).saturating_mul(per_place);
        let ops = ops.saturating_add(super::reading(inputs, dtype)?);
        // Everything as it is computed with, and the column of samples.
        let inputs_bytes = (0..5).filter(|i| inputs.has(*i)).map(|i| inputs.count(i)).sum::<Result<u64, _>>()?;
        let column = (extents.channels as u64).saturating_mul(kernel);
        cx.scratch(inputs_bytes.saturating_add(count(&out)).saturating_add(column).saturating_mul(8))?;
        let total = count(&out);
        with_floats!(dtype, T => cx.emit::<T>(inputs, dtype, out, ops, || {
            if total == 0 {
                return Ok(vec![]);
            }
            let read = |input: usize| -> Result<Vec<<T as Real>::Wide>, Stop> { Ok(wide::<T>(inputs.read(input)?)) };
            let optional = |input: usize| if inputs.has(input) { read(input).map(Some) } else { Ok(None) };
            let tensors = Tensors { x: read(0)?, weight: read(1)?, offset: read(2)?, bias: optional(3)?, mask: optional(4)? };
            Ok(narrow(extents.convolve(&tensors, batch)))
        }), Err(Stop::unsupported(dtype)))
    }

    fn extents(&self, inputs: &Inputs<'_>) -> Result<Extents, Stop> {
        let (x, weight, offset) = (inputs.shape(0)?, inputs.shape(1)?, inputs.shape(2)?);
        let error = || Stop::invalid(format!("shapes {x:?}, {weight:?} and {offset:?} do not fit"));
        let ([batch, channels, input @ ..], [filters, group_channels, kernel @ ..], [offsets, width, output @ ..]) =
            (x, weight, offset)
        else {
            return Err(error());
        };
        let rank = input.len();
        let list = |given: &Option<Vec<usize>>, default: usize| given.clone().unwrap_or_else(|| vec![default; rank]);
        let (strides, dilations) = (list(&self.strides, 1), list(&self.dilations, 1));
        let pads = self.pads.clone().unwrap_or_else(|| vec![0; 2 * rank]);
        let ranks =
            [kernel.len(), output.len(), strides.len(), dilations.len(), pads.len() / 2, pads.len().div_ceil(2)];
        if rank == 0 || ranks.iter().any(|r| *r != rank) || self.kernel.as_ref().is_some_and(|k| k != kernel) {
            return Err(error());
        }
        let grouped = group_channels.checked_mul(self.group) == Some(*channels) && filters % self.group == 0;
        let points = count(kernel).checked_mul(self.offset_group as u64);
        let deformed = points.and_then(|n| n.checked_mul(rank as u64)) == Some(*width as u64);
        if !grouped || channels % self.offset_group != 0 || !deformed || offsets != batch {
            return Err(error());
        }
        let (before, after) = pads.split_at(rank);
        for axis in 0..rank {
            let at = |list: &[usize]| list.get(axis).copied().unwrap_or(0);
            let reach = at(kernel).checked_sub(1).and_then(|k| k.checked_mul(at(&dilations)));
            let padded = at(input).checked_add(at(before)).and_then(|n| n.checked_add(at(after)));
            let free = padded.zip(reach).and_then(|(padded, reach)| padded.checked_sub(reach)?.checked_sub(1));
            let steps = free.and_then(|free| free.checked_div(at(&strides))).and_then(|n| n.checked_add(1));
            if steps != Some(at(output)) {
                return Err(error());
            }
        }
        let mut masked = vec![*batch, usize::try_from(points.unwrap_or(0)).unwrap_or(0)];
        masked.extend(output);
        if (inputs.has(4) && inputs.shape(4)? != masked) || (inputs.has(3) && inputs.shape(3)? != [*filters]) {
            return Err(error());
        }
        Ok(Extents {
            channels: *channels,
            group_channels: *group_channels,
            filters: *filters,
            group: self.group,
            offset_group: self.offset_group,
            input: input.to_vec(),
            kernel: kernel.to_vec(),
            output: output.to_vec(),
            strides,
            dilations,
            pads: before.to_vec(),
        })
    }
}

#[derive(Debug)]
struct Tensors<W> {
    x: Vec<W>,
    weight: Vec<W>,
    offset: Vec<W>,
    bias: Option<Vec<W>>,
    mask: Option<Vec<W>>,
}

impl Extents {
    /// Each output is `bias + Σ weight · sample`, added in the order of (channel of the group, kernel element); a sample
    /// is the linear interpolation at its place, with zeros around the input, times its mask.
    fn convolve<W: Wide>(&self, tensors: &Tensors<W>, batch: usize) -> Vec<W> {
        let product = |list: &[usize]| count(list) as usize;
        let (plane, kernel, places) = (product(&self.input), product(&self.kernel), product(&self.output));
        let rank = self.input.len();
        let mut out = vec![W::ZERO; batch.saturating_mul(self.filters).saturating_mul(places)];
        let mut column: Vec<W> = Vec::with_capacity(self.channels * kernel);
        for image in 0..batch {
            let x = tensors.x.get(image * self.channels * plane..).unwrap_or_default();
            let offsets = tensors.offset.get(image * self.offset_group * kernel * rank * places..).unwrap_or_default();
            let masks =
                tensors.mask.as_ref().map(|m| m.get(image * self.offset_group * kernel * places..).unwrap_or_default());
            let outputs = out.get_mut(image * self.filters * places..).unwrap_or_default();
            for place in 0..places {
                column.clear();
                let output = unravel(place, &self.output);
                for group in 0..self.offset_group {
                    let samples: Vec<(Vec<Taps<W>>, W)> = (0..kernel)
                        .map(|element| {
                            let row = group * kernel + element;
                            let offset = |axis| offsets.get((row * rank + axis) * places + place);
                            let mask = masks.and_then(|m| m.get(row * places + place)).copied();
                            (self.taps(&output, element, offset), mask.unwrap_or(W::ONE))
                        })
                        .collect();
                    let channels = self.channels / self.offset_group;
                    for channel in group * channels..(group + 1) * channels {
                        let data = x.get(channel * plane..(channel + 1) * plane).unwrap_or_default();
                        column
                            .extend(samples.iter().map(|(taps, mask)| blend(data, &self.input, taps, 0).times(*mask)));
                    }
                }
                self.filter(tensors, &column, kernel, outputs.iter_mut().skip(place).step_by(places));
            }
        }
        out
    }

    /// The neighbours of the sample for a kernel element at an output place.
    fn taps<'o, W: Wide>(
        &self,
        output: &[usize],
        element: usize,
        offset: impl Fn(usize) -> Option<&'o W>,
    ) -> Vec<Taps<W>> {
        let within = unravel(element, &self.kernel);
        let steps = output.iter().zip(&self.strides).zip(within.iter().zip(&self.dilations)).zip(&self.pads);
        let places = steps.map(|(((o, stride), (k, dilation)), pad)| (o * stride + k * dilation) as f64 - *pad as f64);
        let moved = places.enumerate().map(|(axis, place)| {
            let offset = offset(axis).copied().unwrap_or(W::ZERO);
            W::from_f64(place).plus(offset).to_f64()
        });
        moved.zip(&self.input).map(|(place, length)| Taps::linear(place, *length)).collect()
    }

    fn filter<'w, W: Wide>(
        &self,
        tensors: &Tensors<W>,
        column: &[W],
        kernel: usize,
        outputs: impl Iterator<Item = &'w mut W>,
    ) {
        let row = self.group_channels * kernel;
        let per_group = (self.filters / self.group).max(1);
        let weights = tensors.weight.chunks_exact(row.max(1));
        for ((index, output), weights) in outputs.take(self.filters).enumerate().zip(weights) {
            let samples = column.get(index / per_group * row..).unwrap_or_default();
            let bias = tensors.bias.as_ref().and_then(|bias| bias.get(index)).copied().unwrap_or(W::ZERO);
            *output = weights.iter().zip(samples).fold(bias, |sum, (w, x)| sum.plus(w.times(*x)));
        }
    }
}

/// The index along each axis of a row-major position.
fn unravel(mut position: usize, shape: &[usize]) -> Vec<usize> {
    let mut index: Vec<usize> = shape
        .iter()
        .rev()
        .map(|dim| {
            let i = position % (*dim).max(1);
            position /= (*dim).max(1);
            i
        })
        .collect();
    index.reverse();
    index
}
