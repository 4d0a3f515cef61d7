//! Convolution: the matrix product of the weights (rows: output channels; k: input channel, then kernel position in
//! row-major order) with the patches of the input, where padding is +0.0.
//!
//! The patches are never written out. The input plane is copied once, padded, and split by stride into phases, so that
//! the elements that one kernel position meets at neighbouring outputs are neighbours in memory; a table of offsets
//! then is all that the product needs. Outputs are computed over the padded width, and the surplus is dropped.

use super::matmul::{PANEL, matmul_taps};

/// One spatial dimension of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Axis {
    pub(crate) input: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) dilation: usize,
    /// Padding before the first element.
    pub(crate) before: usize,
    pub(crate) output: usize,
}

impl Axis {
    /// The input coordinate under kernel position `k` of output `o`, unless it lies in the padding.
    pub(crate) fn source(&self, o: usize, k: usize) -> Option<usize> {
        (o * self.stride + k * self.dilation).checked_sub(self.before).filter(|i| *i < self.input)
    }
}

/// The sizes of one convolution over one image.
#[derive(Debug, Clone)]
pub(crate) struct Geometry {
    pub(crate) groups: usize,
    pub(crate) channels: usize,
    pub(crate) outputs: usize,
    /// Spatial dimensions, outermost first.
    pub(crate) axes: Vec<Axis>,
}

impl Geometry {
    /// Kernel positions.
    pub(crate) fn kernel(&self) -> usize {
        self.axes.iter().map(|axis| axis.kernel).product()
    }

    /// Elements of one output channel.
    pub(crate) fn pixels(&self) -> usize {
        self.axes.iter().map(|axis| axis.output).product()
    }

    /// Elements of one input channel.
    pub(crate) fn input_pixels(&self) -> usize {
        self.axes.iter().map(|axis| axis.input).product()
    }

    /// Bytes that [`convolve`] needs beside its output, saturating.
    pub(crate) fn scratch(&self) -> u64 {
        let layout = Layout::new(self);
        let planes = (layout.plane as u64).saturating_mul((self.channels / self.groups.max(1)) as u64);
        let wide = (self.outputs as u64).saturating_mul(layout.columns as u64);
        planes.saturating_add(wide).saturating_mul(4)
    }
}

/// How a padded plane lies in memory: slices of the outer dimensions, each as phases of rows of the inner two.
struct Layout {
    /// Of the inner two dimensions; the outer one is 1 for a signal.
    rows: Axis,
    columns_axis: Axis,
    /// Rows and columns of one phase.
    phase: (usize, usize),
    /// Elements of one slice.
    slice: usize,
    /// Padded sizes of the outer dimensions.
    outer: Vec<usize>,
    /// Elements of one channel.
    plane: usize,
    /// Columns of the product: output rows times the width of a phase.
    columns: usize,
}

const ONE: Axis = Axis { input: 1, kernel: 1, stride: 1, dilation: 1, before: 0, output: 1 };

impl Layout {
    fn new(g: &Geometry) -> Self {
        let (outer, inner) = g.axes.split_at(g.axes.len().saturating_sub(2));
        let (rows, columns_axis) = match inner {
            [rows, columns] => (*rows, *columns),
            [columns] => (ONE, *columns),
            _ => (ONE, ONE),
        };
        // Enough for every output and kernel position.
        let padded = |axis: &Axis| (axis.output.max(1) - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1;
        let phase = (padded(&rows).div_ceil(rows.stride), padded(&columns_axis).div_ceil(columns_axis.stride));
        let slice = phase.0 * phase.1 * rows.stride * columns_axis.stride;
        let outer: Vec<usize> = outer.iter().map(padded).collect();
        let plane = outer.iter().product::<usize>() * slice;
        Self { rows, columns_axis, phase, slice, outer, plane, columns: rows.output * phase.1 }
    }

    /// Offset of padded row `y` and column `x` in a slice.
    fn at(&self, y: usize, x: usize) -> usize {
        let (sy, sx) = (self.rows.stride, self.columns_axis.stride);
        (((y % sy) * sx + x % sx) * self.phase.0 + y / sy) * self.phase.1 + x / sx
    }

    /// Copies a channel in.
    fn fill(&self, g: &Geometry, channel: &[f32], plane: &mut [f32]) {
        let (height, width) = (self.rows.input, self.columns_axis.input);
        let (sy, sx) = (self.rows.stride, self.columns_axis.stride);
        let (padded_height, padded_width) = (self.phase.0 * sy, self.phase.1 * sx);
        let outer = &g.axes[..self.outer.len()];
        let slices: usize = outer.iter().map(|axis| axis.input).product();
        for s in 0..slices {
            // Where the slice lies among the padded ones; one that no output meets is left out.
            let (mut rest, mut at, mut stride, mut met) = (s, 0, 1, true);
            for (axis, size) in outer.iter().zip(&self.outer).rev() {
                let i = rest % axis.input + axis.before;
                rest /= axis.input;
                met &= i < *size;
                at += i * stride;
                stride *= size;
            }
            if !met {
                continue;
            }
            let target = &mut plane[at * self.slice..(at + 1) * self.slice];
            for y in 0..height {
                let row = &channel[(s * height + y) * width..][..width];
                let padded_y = y + self.rows.before;
                if padded_y >= padded_height {
                    continue;
                }
                let before = self.columns_axis.before;
                if sx == 1 {
                    let count = width.min(padded_width.saturating_sub(before));
                    let at = self.at(padded_y, before);
                    target[at..at + count].copy_from_slice(&row[..count]);
                } else {
                    for (x, value) in row.iter().enumerate().take(padded_width.saturating_sub(before)) {
                        target[self.at(padded_y, x + before)] = *value;
                    }
                }
            }
        }
    }
}

/// Convolves one image `[channels, …]` with the weights `[outputs, channels / groups, kernel…]`; writes `[outputs, …]`.
pub(crate) fn convolve(image: &[f32], weights: &[f32], g: &Geometry, out: &mut [f32], threads: usize) {
    let layout = Layout::new(g);
    let (in_group, out_group) = (g.channels / g.groups, g.outputs / g.groups);
    let (pixels, input_pixels, kernel) = (g.pixels(), g.input_pixels(), g.kernel());
    let k = in_group * kernel;
    if pixels == 0 || out_group == 0 {
        return;
    }
    // Offset of each kernel position from the patch of output 0.
    let mut positions = Vec::with_capacity(kernel);
    for index in 0..kernel {
        let (mut rest, mut taps) = (index, Vec::with_capacity(g.axes.len()));
        for axis in g.axes.iter().rev() {
            taps.push(rest % axis.kernel * axis.dilation);
            rest /= axis.kernel;
        }
        let (x, y) = (taps.first().copied().unwrap_or(0), if g.axes.len() > 1 { taps[1] } else { 0 });
        let (mut at, mut stride) = (0, 1);
        for (tap, size) in taps.iter().skip(2).zip(layout.outer.iter().rev()) {
            at += tap * stride;
            stride *= size;
        }
        positions.push(at * layout.slice + layout.at(y, x));
    }
    let taps: Vec<usize> = (0..in_group).flat_map(|c| positions.iter().map(move |at| c * layout.plane + at)).collect();
    // The product reads whole panels beyond the last column.
    let mut planes = vec![0.0f32; in_group * layout.plane + layout.columns + 2 * PANEL];
    let compact = layout.phase.1 == layout.columns_axis.output;
    let mut wide = vec![0.0f32; if compact { 0 } else { out_group * layout.columns }];
    let outer = &g.axes[..layout.outer.len()];
    let slices: usize = outer.iter().map(|axis| axis.output).product();
    let slice_pixels = layout.rows.output * layout.columns_axis.output;
    for group in 0..g.groups {
        planes[..in_group * layout.plane].fill(0.0);
        for c in 0..in_group {
            let channel = &image[(group * in_group + c) * input_pixels..][..input_pixels];
            layout.fill(g, channel, &mut planes[c * layout.plane..(c + 1) * layout.plane]);
        }
        let rows = &weights[group * out_group * k..(group + 1) * out_group * k];
        let target = &mut out[group * out_group * pixels..(group + 1) * out_group * pixels];
        for s in 0..slices {
            let (mut rest, mut at, mut stride) = (s, 0, 1);
            for (axis, size) in outer.iter().zip(&layout.outer).rev() {
                at += rest % axis.output * axis.stride * stride;
                rest /= axis.output;
                stride *= size;
            }
            let data = &planes[at * layout.slice..];
            if compact && slices == 1 {
                matmul_taps(rows, data, &taps, layout.columns, target, threads);
                continue;
            }
            if compact {
                wide.resize(out_group * layout.columns, 0.0);
            }
            matmul_taps(rows, data, &taps, layout.columns, &mut wide, threads);
            for (o, plane) in wide.chunks_exact(layout.columns).enumerate() {
                for (y, row) in plane.chunks_exact(layout.phase.1).enumerate() {
                    let width = layout.columns_axis.output;
                    let at = o * pixels + s * slice_pixels + y * width;
                    target[at..at + width].copy_from_slice(&row[..width]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    fn axis(input: usize, kernel: usize, stride: usize, dilation: usize, before: usize, after: usize) -> Axis {
        let output = (input + before + after - (kernel - 1) * dilation - 1) / stride + 1;
        Axis { input, kernel, stride, dilation, before, output }
    }

    /// The definition, word for word.
    fn defined(image: &[f32], weights: &[f32], g: &Geometry) -> Vec<f32> {
        let (in_group, out_group, kernel, pixels) =
            (g.channels / g.groups, g.outputs / g.groups, g.kernel(), g.pixels());
        let mut out = Vec::new();
        for o in 0..g.outputs {
            for pixel in 0..pixels {
                let mut sum = 0.0f32;
                for c in 0..in_group {
                    for position in 0..kernel {
                        let (mut p, mut q, mut at, mut stride) = (pixel, position, Some(0), 1);
                        for axis in g.axes.iter().rev() {
                            let source = axis.source(p % axis.output, q % axis.kernel);
                            at = at.zip(source).map(|(at, i)| at + i * stride);
                            stride *= axis.input;
                            p /= axis.output;
                            q /= axis.kernel;
                        }
                        let channel = o / out_group * in_group + c;
                        let x = at.map_or(0.0, |at| image[channel * g.input_pixels() + at]);
                        sum = weights[(o * in_group + c) * kernel + position].mul_add(x, sum);
                    }
                }
                out.push(sum);
            }
        }
        out
    }

    #[test]
    fn every_geometry_gives_the_bits_of_the_definition() {
        let cases = [
            (1, 1, 8, vec![axis(28, 3, 1, 1, 1, 1), axis(28, 3, 1, 1, 1, 1)]),
            (1, 3, 7, vec![axis(17, 7, 2, 1, 3, 3), axis(19, 7, 2, 1, 3, 3)]),
            (4, 4, 4, vec![axis(9, 3, 1, 1, 1, 1), axis(9, 3, 1, 1, 1, 1)]),
            (2, 4, 6, vec![axis(12, 3, 3, 2, 2, 0), axis(11, 2, 2, 3, 0, 4)]),
            (1, 5, 3, vec![axis(40, 5, 1, 2, 4, 0)]),
            (1, 2, 3, vec![axis(5, 2, 2, 1, 1, 1), axis(7, 3, 2, 1, 0, 1), axis(8, 3, 1, 1, 1, 1)]),
            (1, 16, 5, vec![axis(6, 1, 1, 1, 0, 0), axis(5, 1, 1, 1, 0, 0)]),
            (1, 2, 2, vec![axis(6, 1, 2, 1, 0, 0), axis(5, 1, 2, 1, 0, 0)]),
        ];
        for (groups, channels, outputs, axes) in cases {
            let g = Geometry { groups, channels, outputs, axes };
            let image = numbers(channels * g.input_pixels(), 1);
            let weights = numbers(outputs * channels / groups * g.kernel(), 2);
            let mut out = vec![f32::NAN; outputs * g.pixels()];
            convolve(&image, &weights, &g, &mut out, 1);
            let expected = defined(&image, &weights, &g);
            assert!(out.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()), "{g:?}");
        }
    }
}
