//! Transposed convolutions.

use super::{check_alike, check_floats, conv::groups, single};
use crate::{
    engine::{
        cx::{Cx, Inputs, Stop},
        elements::with_floats,
        kernels::matmul::{Packed, laying_out, matmul},
        numeric::Real,
        program::Eval,
        value::{Value, count},
    },
    onnx::Node,
};

/// Cost of a group of an image, however small.
const GROUP_OPS: u64 = 4000;
/// Cost of a product that is added where it belongs.
const SCATTER_OPS: u64 = 16;

/// Attributes of a transposed convolution.
#[derive(Debug, Clone)]
struct Transposed {
    groups: usize,
    strides: Option<Vec<usize>>,
    dilations: Option<Vec<usize>>,
    pads: Option<Vec<usize>>,
    extra: Option<Vec<usize>>,
    shape: Option<Vec<usize>>,
    kernel: Option<Vec<usize>>,
    auto: String,
}

/// Each input element times the weights, added where its window lies: in the order of kernel positions, for each of
/// them the sum over the input channels is one chain of fused multiply-adds.
pub(super) fn transposed(node: &Node<'_>) -> Result<Eval, String> {
    let attributes = Transposed {
        groups: groups(node)?,
        strides: node.sizes("strides")?,
        dilations: node.sizes("dilations")?,
        pads: node.sizes("pads")?,
        extra: node.sizes("output_padding")?,
        shape: node.sizes("output_shape")?,
        kernel: node.sizes("kernel_shape")?,
        auto: node.text("auto_pad", "NOTSET")?,
    };
    let all = [&attributes.strides, &attributes.dilations, &attributes.pads, &attributes.extra, &attributes.shape];
    if all.into_iter().flatten().flatten().any(|x| *x > 1 << 31) {
        return Err("its window is too large".into());
    }
    single(move |cx, inputs| transposed_eval(cx, inputs, &attributes))
}

fn transposed_eval(cx: &mut Cx<'_>, inputs: &Inputs<'_>, t: &Transposed) -> Result<Value, Stop> {
    let ((dtype, x), (_, w)) = (inputs.ty(0)?, inputs.ty(1)?);
    check_floats(inputs, &[0])?;
    check_alike(inputs, &[1, 2])?;
    let wrong = || Stop::invalid(format!("weights {w:?} do not fit {x:?} in {} groups", t.groups));
    let ([batch, channels, spatial @ ..], [w_channels, out_group, kernel @ ..]) = (x, w) else { return Err(wrong()) };
    let rank = spatial.len();
    let grouped = *channels > 0 && channels % t.groups == 0;
    if kernel.len() != rank || rank == 0 || channels != w_channels || !grouped || kernel.contains(&0) {
        return Err(wrong());
    }
    if t.kernel.as_ref().is_some_and(|k| k != kernel) {
        return Err(Stop::invalid("its kernel_shape is not that of its weights"));
    }
    let (ones, zeros) = (vec![1; rank], vec![0; rank]);
    let (strides, dilations) = (t.strides.as_ref().unwrap_or(&ones), t.dilations.as_ref().unwrap_or(&ones));
    let extra = t.extra.as_ref().unwrap_or(&zeros);
    let none = vec![0; 2 * rank];
    let pads = t.pads.as_ref().unwrap_or(&none);
    if strides.len() != rank
        || dilations.len() != rank
        || extra.len() != rank
        || pads.len() != 2 * rank
        || strides.contains(&0)
    {
        return Err(Stop::invalid("its window has other dimensions than its input"));
    }
    let mut before = vec![0; rank];
    let mut out = vec![*batch, out_group * t.groups];
    for i in 0..rank {
        let full = strides[i] * spatial[i].saturating_sub(1) + extra[i] + (kernel[i] - 1) * dilations[i] + 1;
        let same = t.auto.starts_with("SAME");
        // An output shape may come with or without batch and channels.
        let wanted = t.shape.as_ref().and_then(|s| s.get(s.len().checked_sub(rank)? + i)).copied();
        let size = match wanted {
            Some(size) => size,
            None if same => spatial[i] * strides[i],
            None => {
                full.checked_sub(pads[i] + pads[i + rank]).ok_or_else(|| Stop::invalid("its pads leave nothing"))?
            }
        };
        before[i] = if wanted.is_some() || same {
            let total = full.saturating_sub(size);
            if t.auto == "SAME_UPPER" { total / 2 } else { total - total / 2 }
        } else {
            pads[i]
        };
        out.push(size);
    }
    let (kernels, in_pixels) = (kernel.iter().product::<usize>(), spatial.iter().product::<usize>());
    let (in_group, outputs) = (channels / t.groups, out_group * t.groups);
    if inputs.has(2) && inputs.shape(2)? != [outputs] {
        return Err(Stop::invalid("its bias does not fit its weights"));
    }
    let macs = count(x).saturating_mul((out_group * kernels) as u64);
    // The products of a group, its pixels laid out, and where each goes; operands and sums as float32.
    let product = count(&[out_group * kernels, in_pixels]).saturating_add(count(&[in_group, in_pixels]));
    let operands = count(x).saturating_add(count(w)).saturating_add(count(&out));
    let places = count(&[kernels, in_pixels]).saturating_mul(16);
    cx.scratch(product.saturating_add(operands).saturating_mul(4).saturating_add(places))?;
    // For each image its pixels and the weights are laid out, and once where each goes.
    let layouts =
        laying_out(in_group, in_pixels).saturating_mul(t.groups as u64).saturating_add(count(w).saturating_mul(8));
    let places = count(&[kernels, in_pixels]).saturating_mul(64 * rank as u64);
    let beside = layouts.saturating_mul(*batch as u64).saturating_add(places);
    let scattered = count(&[*batch, outputs * kernels, in_pixels]).saturating_mul(SCATTER_OPS);
    let ops = macs.saturating_mul(2).saturating_add(count(&out)).saturating_add(beside).saturating_add(scattered);
    let ops = ops.saturating_add(count(&[*batch, t.groups]).saturating_mul(GROUP_OPS));
    with_floats!(dtype, T => cx.emit::<T>(inputs, dtype, out.clone(), ops, || {
        let wide = |index: usize| -> Result<Vec<f32>, Stop> {
            Ok(inputs.values::<T>(index)?.iter().map(|x| x.widen() as f32).collect())
        };
        let (x, w) = (wide(0)?, wide(1)?);
        let bias = if inputs.has(2) { wide(2)? } else { vec![0.0; outputs] };
        let out_pixels: usize = out[2..].iter().product();
        let mut sums = vec![0.0f32; batch * outputs * out_pixels];
        // Where each input element meets each kernel position.
        let table: Vec<Option<usize>> = (0..kernels)
            .flat_map(|position| (0..in_pixels).map(move |pixel| (position, pixel)))
            .map(|(mut position, mut pixel)| {
                let (mut at, mut stride) = (0, 1);
                for i in (0..rank).rev() {
                    let place = pixel % spatial[i] * strides[i] + position % kernel[i] * dilations[i];
                    at += place.checked_sub(before[i]).filter(|p| *p < out[2 + i])? * stride;
                    stride *= out[2 + i];
                    pixel /= spatial[i];
                    position /= kernel[i];
                }
                Some(at)
            })
            .collect();
        let rows = out_group * kernels;
        let mut product = vec![0.0f32; rows * in_pixels];
        for image in 0..*batch {
            for group in 0..t.groups {
                let pixels = &x[(image * channels + group * in_group) * in_pixels..][..in_group * in_pixels];
                let rhs = Packed::new(pixels, in_group, in_pixels, in_pixels, 1);
                // The weights [in, out · kernel] turned to [out · kernel, in].
                let weights = &w[group * in_group * rows..(group + 1) * in_group * rows];
                let lhs: Vec<f32> = (0..rows * in_group).map(|i| weights[i % in_group * rows + i / in_group]).collect();
                matmul(&lhs, &rhs, &mut product, 1);
                for o in 0..*out_group {
                    let plane = (image * outputs + group * out_group + o) * out_pixels;
                    for position in 0..kernels {
                        let line = &product[(o * kernels + position) * in_pixels..][..in_pixels];
                        let places = &table[position * in_pixels..(position + 1) * in_pixels];
                        for (value, place) in line.iter().zip(places) {
                            if let Some(at) = place {
                                sums[plane + at] += value;
                            }
                        }
                    }
                }
            }
        }
        Ok(sums.into_iter().enumerate().map(|(i, sum)| {
            T::narrow((sum + bias[i / out_pixels.max(1) % outputs]).into())
        }).collect())
    }), Err(Stop::unsupported(dtype)))
}
