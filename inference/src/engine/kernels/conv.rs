//! Convolution and pooling over two spatial dimensions. See the [module above](super) for their bits.

use super::matmul::{Packed, matmul};

/// Windows over height and width. Pads are (top, left, bottom, right).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) kernel: [usize; 2],
    pub(crate) strides: [usize; 2],
    pub(crate) dilations: [usize; 2],
    pub(crate) pads: [usize; 4],
}

impl Window {
    /// Output size along one axis; `None` when the window does not fit.
    pub(crate) fn output(&self, axis: usize, input: usize) -> Option<usize> {
        let padded = input.checked_add(self.pads[axis])?.checked_add(self.pads[axis + 2])?;
        let extent = self.dilations[axis].checked_mul(self.kernel[axis].checked_sub(1)?)?.checked_add(1)?;
        Some(padded.checked_sub(extent)? / self.strides[axis] + 1)
    }

    /// The input coordinate under kernel position `k` of output `o`, unless it lies in the padding.
    fn input(&self, axis: usize, o: usize, k: usize, size: usize) -> Option<usize> {
        (o * self.strides[axis] + k * self.dilations[axis]).checked_sub(self.pads[axis]).filter(|i| *i < size)
    }
}

/// The sizes of one convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConvGeometry {
    pub(crate) window: Window,
    pub(crate) groups: usize,
    /// Batch, channels, height, width.
    pub(crate) input: [usize; 4],
    /// Batch, channels, height, width.
    pub(crate) output: [usize; 4],
}

/// Convolution as the matrix product of the kernel with the patches.
pub(crate) fn conv2d(input: &[f32], kernel: &[f32], bias: Option<&[f32]>, g: &ConvGeometry) -> Vec<f32> {
    let [batch, channels, height, width] = g.input;
    let [_, out_channels, out_height, out_width] = g.output;
    let [kh, kw] = g.window.kernel;
    let (in_group, out_group) = (channels / g.groups, out_channels / g.groups);
    let (k, pixels) = (in_group * kh * kw, out_height * out_width);
    let mut out = vec![0.0; batch * out_channels * pixels];
    for image in 0..batch {
        for group in 0..g.groups {
            let patch = |row: usize, pixel: usize| {
                let (c, ky, kx) = (row / (kh * kw), row / kw % kh, row % kw);
                let y = g.window.input(0, pixel / out_width, ky, height);
                let x = g.window.input(1, pixel % out_width, kx, width);
                match (y, x) {
                    (Some(y), Some(x)) => input[((image * channels + group * in_group + c) * height + y) * width + x],
                    _ => 0.0,
                }
            };
            let patches = Packed::from_fn(k, pixels, patch);
            let first = image * out_channels + group * out_group;
            let rows = &kernel[group * out_group * k..(group + 1) * out_group * k];
            matmul(rows, &patches, &mut out[first * pixels..(first + out_group) * pixels]);
        }
    }
    if let (Some(bias), 1..) = (bias, pixels) {
        for (plane, values) in out.chunks_exact_mut(pixels).enumerate() {
            values.iter_mut().for_each(|x| *x += bias[plane % out_channels]);
        }
    }
    out
}

/// What a window becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PoolKind {
    /// The greatest element; padding does not count.
    Max,
    /// The mean; `include_pad`: padding counts as zeros.
    Average { include_pad: bool },
}

/// The sizes of one pooling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pool {
    pub(crate) kind: PoolKind,
    pub(crate) window: Window,
    /// Batch, channels, height, width.
    pub(crate) input: [usize; 4],
    /// Batch, channels, height, width.
    pub(crate) output: [usize; 4],
}

/// Pooling; the sum of a window runs in order of kernel row, kernel column.
pub(crate) fn pool2d(input: &[f32], p: &Pool) -> Vec<f32> {
    let [batch, channels, height, width] = p.input;
    let [_, _, out_height, out_width] = p.output;
    let [kh, kw] = p.window.kernel;
    let mut out = Vec::with_capacity(batch * channels * out_height * out_width);
    for plane in 0..batch * channels {
        for y in 0..out_height {
            for x in 0..out_width {
                let window = (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))).filter_map(|(ky, kx)| {
                    let (y, x) = (p.window.input(0, y, ky, height)?, p.window.input(1, x, kx, width)?);
                    Some(input[(plane * height + y) * width + x])
                });
                out.push(match p.kind {
                    PoolKind::Max => {
                        window.fold(f32::NEG_INFINITY, |best, x| if best.is_nan() || best >= x { best } else { x })
                    }
                    PoolKind::Average { include_pad } => {
                        let (sum, count) = window.fold((0.0f32, 0), |(sum, count), x| (sum + x, count + 1));
                        sum / if include_pad { kh * kw } else { count } as f32
                    }
                });
            }
        }
    }
    out
}
