//! Convolution: the matrix product of the weights (rows: output channels; k: input channel, then kernel position in
//! row-major order) with the patches of the input, where padding is +0.0.
//!
//! The patches are never written out. The input plane is copied once, padded, and split by stride into phases, so that
//! the elements that one kernel position meets at neighbouring outputs are neighbours in memory; a table of offsets
//! then is all that the product needs.
//!
//! Of small integers two channels are one: [`Pair`]s.

use super::{
    matmul::{Lined, PANEL, Rows, matmul_taps, stripes},
    term::{Pair, Term},
};

/// Sums of one block of rows: they stay in the second-level cache.
const BLOCK: usize = 32 << 10;
/// Columns of the product that a block has at least.
const MIN_COLUMNS: usize = 8 * PANEL;

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

    /// Channels of each group.
    pub(crate) fn in_group(&self) -> usize {
        self.channels / self.groups.max(1)
    }

    /// Outputs of each group.
    pub(crate) fn out_group(&self) -> usize {
        self.outputs / self.groups.max(1)
    }

    /// Bytes that a [`Convolution`] needs beside its output, saturating. Where that is less than what a run may take, no size
    /// of its layout overflows.
    pub(crate) fn scratch(&self) -> u64 {
        let layout = Layout::new(self);
        let planes = (layout.plane as u64).saturating_mul(self.in_group() as u64);
        // The sums of a block of rows, at most, and where its columns go.
        let columns = layout.columns as u64;
        let sums = (self.outputs as u64).saturating_mul(columns).saturating_add(columns.saturating_mul(8));
        planes.saturating_add(sums).saturating_mul(4)
    }

    /// What it costs to put one image in: every row of every channel is looked at once for each phase of its columns.
    pub(crate) fn filling(&self) -> u64 {
        let phases =
            self.axes.last().map_or(1, |axis| if axis.output > 1 { axis.kernel.min(axis.stride) } else { 1 }) as u64;
        let rows: u64 = self.axes.iter().rev().skip(1).map(|axis| axis.input as u64).fold(1, u64::saturating_mul);
        (self.channels as u64).saturating_mul(rows).saturating_mul(phases)
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
        // With one output there is nothing to step over.
        let plain = |axis: Axis| Axis { stride: if axis.output > 1 { axis.stride } else { 1 }, ..axis };
        let (rows, columns_axis) = (plain(rows), plain(columns_axis));
        // Enough for every output and kernel position. Nothing here is zero, so that what is too large for a product is too
        // large for `plane`.
        let padded = |axis: &Axis| {
            let outputs = (axis.output.max(1) - 1).saturating_mul(axis.stride);
            outputs.saturating_add((axis.kernel - 1).saturating_mul(axis.dilation)).saturating_add(1)
        };
        let product = |sizes: &[usize]| sizes.iter().fold(1usize, |product, size| product.saturating_mul(*size));
        let phase = (padded(&rows).div_ceil(rows.stride), padded(&columns_axis).div_ceil(columns_axis.stride));
        let slice = product(&[phase.0, phase.1, rows.stride, columns_axis.stride]);
        let outer: Vec<usize> = outer.iter().map(padded).collect();
        let plane = product(&outer).saturating_mul(slice);
        Self { rows, columns_axis, phase, slice, outer, plane, columns: rows.output.saturating_mul(phase.1) }
    }

    /// Offset of padded row `y` and column `x` in a slice.
    fn at(&self, y: usize, x: usize) -> usize {
        let (sy, sx) = (self.rows.stride, self.columns_axis.stride);
        (((y % sy) * sx + x % sx) * self.phase.0 + y / sy) * self.phase.1 + x / sx
    }

    /// Puts a channel in, or two at once. `met` are the phases of rows and of columns that a kernel position meets.
    #[inline(always)]
    fn fill<P: Pixel>(
        &self,
        g: &Geometry,
        met: &(Vec<usize>, Vec<usize>),
        (first, second): (&[P], Option<&[P]>),
        zero: i16,
        plane: &mut [P::Term],
    ) {
        let (height, width) = (self.rows.input, self.columns_axis.input);
        let (sy, sx) = (self.rows.stride, self.columns_axis.stride);
        let (padded_height, padded_width) = (self.phase.0 * sy, self.phase.1 * sx);
        let outer = &g.axes[..self.outer.len()];
        let slices: usize = outer.iter().map(|axis| axis.input).product();
        for s in 0..slices {
            // Where the slice lies among the padded ones; one that no output meets is left out.
            let (mut rest, mut at, mut stride, mut seen) = (s, 0, 1, true);
            for (axis, size) in outer.iter().zip(&self.outer).rev() {
                let i = rest % axis.input + axis.before;
                rest /= axis.input;
                seen &= i < *size;
                at += i * stride;
                stride *= size;
            }
            if !seen {
                continue;
            }
            let target = &mut plane[at * self.slice..(at + 1) * self.slice];
            for y in 0..height {
                let row = (s * height + y) * width;
                let padded_y = y + self.rows.before;
                if padded_y >= padded_height || (sy > 1 && met.0.binary_search(&(padded_y % sy)).is_err()) {
                    continue;
                }
                if sx == 1 {
                    let room = padded_width.saturating_sub(self.columns_axis.before).min(width);
                    if room == 0 {
                        continue;
                    }
                    let at = self.at(padded_y, self.columns_axis.before);
                    let second = second.map(|second| &second[row..row + width]);
                    P::put(&first[row..row + width], second, 1, zero, &mut target[at..at + room]);
                    continue;
                }
                // The columns of each phase are neighbours.
                for phase in &met.1 {
                    let skipped = (phase + sx - self.columns_axis.before % sx) % sx;
                    let padded_x = skipped + self.columns_axis.before;
                    let room = padded_width.saturating_sub(padded_x).min(width.saturating_sub(skipped)).div_ceil(sx);
                    if room == 0 {
                        continue;
                    }
                    let at = self.at(padded_y, padded_x);
                    let (from, to) = (row + skipped.min(width), row + width);
                    let second = second.map(|second| &second[from..to]);
                    P::put(&first[from..to], second, sx, zero, &mut target[at..at + room]);
                }
            }
        }
    }
}

/// The phases of padded coordinates that a kernel position of any output meets.
fn met(axis: &Axis) -> Vec<usize> {
    // Positions that are a stride apart meet the same one.
    let mut met: Vec<usize> =
        (0..axis.kernel.min(axis.stride)).map(|k| k.wrapping_mul(axis.dilation) % axis.stride).collect();
    met.sort_unstable();
    met.dedup();
    met
}

/// What can be convolved: the elements of an image, and the terms that their products are made of.
pub(crate) trait Pixel: Copy {
    type Term: Term;
    /// Channels in one term.
    const CHANNELS: usize;
    /// Puts the terms of every `step`th element of a row of one channel, or of two, into `out`: minus the zero point.
    fn put(first: &[Self], second: Option<&[Self]>, step: usize, zero: i16, out: &mut [Self::Term]);
}

impl Pixel for f32 {
    type Term = f32;
    const CHANNELS: usize = 1;
    #[inline(always)]
    fn put(first: &[f32], _: Option<&[f32]>, step: usize, _: i16, out: &mut [f32]) {
        match step {
            1 => copy_row(&first[..out.len()], out),
            step => out.iter_mut().zip(first.iter().step_by(step)).for_each(|(out, x)| *out = *x),
        }
    }
}

/// A copy without a call: rows are short, and there are many. The last elements go together with some that went before.
#[inline(always)]
fn copy_row(from: &[f32], to: &mut [f32]) {
    const LANES: usize = 8;
    let (blocks, rest) = from.as_chunks::<LANES>();
    let (to_blocks, to_rest) = to.as_chunks_mut::<LANES>();
    if !blocks.is_empty() {
        to_blocks.iter_mut().zip(blocks).for_each(|(to, from)| *to = *from);
        if !rest.is_empty()
            && let (Some(from), Some(to)) = (from.last_chunk::<LANES>(), to.last_chunk_mut::<LANES>())
        {
            *to = *from;
        }
        return;
    }
    for (to, from) in to_rest.iter_mut().zip(rest) {
        *to = *from;
    }
}

macro_rules! bytes {
    ($($t:ty),*) => {$(
        impl Pixel for $t {
            type Term = Pair;
            const CHANNELS: usize = 2;
            #[inline(always)]
            fn put(first: &[$t], second: Option<&[$t]>, step: usize, zero: i16, out: &mut [Pair]) {
                let centre = |x: $t| i16::from(x).wrapping_sub(zero);
                match (second, step) {
                    (Some(second), 1) => {
                        let rows = first.iter().zip(second);
                        out.iter_mut().zip(rows).for_each(|(out, (x, y))| *out = Pair::new(centre(*x), centre(*y)));
                    }
                    (Some(second), step) => {
                        let rows = first.iter().zip(second).step_by(step);
                        out.iter_mut().zip(rows).for_each(|(out, (x, y))| *out = Pair::new(centre(*x), centre(*y)));
                    }
                    (None, step) => {
                        let row = first.iter().step_by(step);
                        out.iter_mut().zip(row).for_each(|(out, x)| *out = Pair::new(centre(*x), 0));
                    }
                }
            }
        }
    )*};
}
bytes!(i8, u8);

/// The weights of a convolution, laid out for the product: each group's rows as stripes.
#[derive(Debug)]
pub(crate) struct Weights<T>(Vec<T>);

impl Weights<f32> {
    /// Lays `[outputs, channels of a group, kernel…]` out.
    pub(crate) fn new(weights: &[f32], shape: &[usize], groups: usize) -> Self {
        let depth = shape.iter().skip(1).product();
        Self::of(weights, depth, depth * (shape[0] / groups))
    }
}

impl Weights<Pair> {
    /// The same of integers, of which two channels become one.
    pub(crate) fn pairs(weights: &[i16], shape: &[usize], groups: usize) -> Self {
        let (in_group, kernel) = (shape[1], shape.iter().skip(2).product::<usize>());
        let depth = in_group.div_ceil(2) * kernel;
        let mut pairs = Vec::with_capacity(shape[0] * depth);
        for row in weights.chunks_exact((in_group * kernel).max(1)) {
            for pair in row.chunks(2 * kernel) {
                pairs.extend((0..kernel).map(|i| Pair::new(pair[i], pair.get(kernel + i).copied().unwrap_or(0))));
            }
        }
        Self::of(&pairs, depth, depth * (shape[0] / groups))
    }
}

impl<T: Term> Weights<T> {
    fn of(rows: &[T], depth: usize, group: usize) -> Self {
        let mut out = Vec::with_capacity(rows.len());
        rows.chunks(group.max(1)).for_each(|rows| stripes(rows, depth, &mut out));
        Self(out)
    }
}

/// A convolution of images of one size, with the memory that it needs, or with some that it is lent.
pub(crate) struct Convolution<'g, P: Pixel> {
    g: &'g Geometry,
    layout: Layout,
    taps: Vec<usize>,
    columns: Lined,
    /// The phases of rows that a kernel position meets, and those of columns, in order.
    met: (Vec<usize>, Vec<usize>),
    /// The channels of a group. What is padding stays zero from one image to the next.
    planes: Planes<'g, P::Term>,
}

enum Planes<'g, T> {
    Own(Vec<T>),
    Lent(&'g mut [T]),
}

impl<T> core::ops::Deref for Planes<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::Own(planes) => planes,
            Self::Lent(planes) => planes,
        }
    }
}

impl<T> core::ops::DerefMut for Planes<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Self::Own(planes) => planes,
            Self::Lent(planes) => planes,
        }
    }
}

impl<'g, P: Pixel> Convolution<'g, P> {
    /// Of images whose outputs are computed some rows at a time: no more rows of the image than `rows`.
    fn of(g: &'g Geometry, rows: usize) -> Self {
        let planes = vec![P::Term::default(); Self::planes(g)];
        Self::in_planes(g, rows, Planes::Own(planes))
    }

    /// Terms that the planes of a group take.
    pub(crate) fn planes(g: &Geometry) -> usize {
        let layout = Layout::new(g);
        // The product reads whole panels beyond the last column.
        g.in_group().div_ceil(P::CHANNELS) * layout.plane + layout.columns + 2 * PANEL
    }

    fn in_planes(g: &'g Geometry, rows: usize, planes: Planes<'g, P::Term>) -> Self {
        let layout = Layout::new(g);
        // Offset of each kernel position from the patch of output 0.
        let kernel = g.kernel();
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
        let terms = g.in_group().div_ceil(P::CHANNELS);
        let taps = (0..terms).flat_map(|c| positions.iter().map(move |at| c * layout.plane + at)).collect();
        let columns = Lined::new(rows.min(layout.rows.output), layout.columns_axis.output, layout.phase.1);
        let met = (met(&layout.rows), met(&layout.columns_axis));
        Self { g, layout, taps, columns, met, planes }
    }

    /// Puts the channels of a group in.
    fn fill(&mut self, image: &[P], group: usize, zero: i16) {
        let (in_group, size) = (self.g.in_group(), self.g.input_pixels());
        let channels = &image[group * in_group * size..(group + 1) * in_group * size];
        for c in (0..in_group).step_by(P::CHANNELS) {
            let plane = &mut self.planes[c / P::CHANNELS * self.layout.plane..][..self.layout.plane];
            let first = &channels[c * size..(c + 1) * size];
            let second = channels.get((c + 1) * size..(c + 2) * size).filter(|_| P::CHANNELS > 1);
            self.layout.fill(self.g, &self.met, (first, second), zero, plane);
        }
    }

    /// Where the patches of each slice of outputs begin.
    fn slices(&self) -> impl Iterator<Item = usize> + '_ {
        let outer = &self.g.axes[..self.layout.outer.len()];
        (0..outer.iter().map(|axis| axis.output).product()).map(move |s: usize| {
            let (mut rest, mut at, mut stride) = (s, 0, 1);
            for (axis, size) in outer.iter().zip(&self.layout.outer).rev() {
                at += rest % axis.output * axis.stride * stride;
                rest /= axis.output;
                stride *= size;
            }
            at * self.layout.slice
        })
    }
}

impl<'g> Convolution<'g, f32> {
    pub(crate) fn new(g: &'g Geometry) -> Self {
        Self::of(g, usize::MAX)
    }

    /// With memory for [`Self::planes`], whatever is in it.
    pub(crate) fn with(g: &'g Geometry, planes: &'g mut [f32]) -> Self {
        planes.fill(0.0);
        Self::in_planes(g, usize::MAX, Planes::Lent(planes))
    }

    /// Convolves one image `[channels, …]` with its weights, and adds to the finished sums of each output its bias, if
    /// `bias` is not empty; makes what is less than zero zero, if it is `rectified`. Writes `[outputs, …]`.
    pub(crate) fn run(
        &mut self,
        image: &[f32],
        weights: &Weights<f32>,
        (bias, rectified): (&[f32], bool),
        out: &mut [f32],
        threads: usize,
    ) {
        let (g, depth) = (self.g, self.taps.len());
        let (out_group, pixels) = (g.out_group(), g.pixels());
        if pixels == 0 || out_group == 0 {
            return;
        }
        if depth == 0 {
            let value = |o: usize| bias.get(o).copied().unwrap_or(0.0);
            let value = |o: usize| if rectified && value(o) < 0.0 { 0.0 } else { value(o) };
            out.chunks_exact_mut(pixels).enumerate().for_each(|(o, out)| out.fill(value(o)));
            return;
        }
        let slice = self.layout.rows.output * self.layout.columns_axis.output;
        for group in 0..g.groups {
            self.fill(image, group, 0);
            let rows = Rows {
                stripes: &weights.0[group * out_group * depth..(group + 1) * out_group * depth],
                count: out_group,
                bias: bias.get(group * out_group..(group + 1) * out_group).unwrap_or_default(),
                rectified,
            };
            let out = &mut out[group * out_group * pixels..(group + 1) * out_group * pixels];
            for (s, at) in self.slices().enumerate() {
                let out = (&mut out[s * slice..], pixels);
                matmul_taps(rows, &self.planes[at..], &self.taps, &self.columns, out, threads);
            }
        }
    }
}

/// A convolution of quantised images, whose sums become something else before they leave the cache.
pub(crate) struct Requantised<'g, P: Pixel> {
    convolution: Convolution<'g, P>,
    /// The columns of the last block of rows, which may have fewer.
    last: Lined,
    sums: Vec<i32>,
    /// Rows of the image whose sums are computed at a time.
    rows: usize,
}

impl<'g, P: Pixel<Term = Pair>> Requantised<'g, P> {
    pub(crate) fn new(g: &'g Geometry) -> Self {
        let (height, width) = match g.axes.as_slice() {
            [.., rows, columns] => (rows.output, columns.output),
            [columns] => (1, columns.output),
            [] => (1, 1),
        };
        let columns = (BLOCK / g.out_group().max(1)).max(MIN_COLUMNS);
        let rows = (columns / width.max(1)).clamp(1, height.max(1));
        let convolution = Convolution::of(g, rows);
        let rest = (height % rows + rows * usize::from(height.is_multiple_of(rows))).min(height);
        let last = Lined::new(rest, width, convolution.layout.phase.1);
        Self { convolution, last, sums: vec![0; g.out_group() * rows * width], rows }
    }

    /// Convolves one image `[channels, …]`, of which `zero` is the zero point, with its weights. Writes
    /// `[outputs, …]`: `finish` gets the number of an output, some of its sums, and the place for what becomes of them.
    pub(crate) fn run<O>(
        &mut self,
        image: &[P],
        zero: i16,
        weights: &Weights<Pair>,
        out: &mut [O],
        threads: usize,
        finish: impl Fn(usize, &[i32], &mut [O]),
    ) {
        let (g, depth) = (self.convolution.g, self.convolution.taps.len());
        let (out_group, pixels) = (g.out_group(), g.pixels());
        if pixels == 0 || out_group == 0 {
            return;
        }
        let (height, width) = (self.convolution.layout.rows.output, self.convolution.layout.columns_axis.output);
        for group in 0..g.groups {
            self.convolution.fill(image, group, zero);
            let stripes = &weights.0[group * out_group * depth..(group + 1) * out_group * depth];
            let rows = Rows { stripes, count: out_group, bias: &[], rectified: false };
            for (s, at) in self.convolution.slices().enumerate() {
                for y in (0..height).step_by(self.rows) {
                    let lines = self.rows.min(height - y);
                    let data = &self.convolution.planes[at + y * self.convolution.layout.phase.1..];
                    let columns = if y + lines < height { &self.convolution.columns } else { &self.last };
                    let sums = &mut self.sums[..out_group * lines * width];
                    matmul_taps(rows, data, &self.convolution.taps, columns, (sums, lines * width), threads);
                    for (o, sums) in self.sums.chunks_exact(lines * width).take(out_group).enumerate() {
                        let o = group * out_group + o;
                        finish(o, sums, &mut out[o * pixels + (s * height + y) * width..][..lines * width]);
                    }
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

    fn cases() -> Vec<(usize, usize, usize, Vec<Axis>)> {
        vec![
            (1, 1, 8, vec![axis(28, 3, 1, 1, 1, 1), axis(28, 3, 1, 1, 1, 1)]),
            (1, 3, 7, vec![axis(17, 7, 2, 1, 3, 3), axis(19, 7, 2, 1, 3, 3)]),
            (4, 4, 4, vec![axis(9, 3, 1, 1, 1, 1), axis(9, 3, 1, 1, 1, 1)]),
            (2, 4, 6, vec![axis(12, 3, 3, 2, 2, 0), axis(11, 2, 2, 3, 0, 4)]),
            (1, 5, 3, vec![axis(40, 5, 1, 2, 4, 0)]),
            (1, 2, 3, vec![axis(5, 2, 2, 1, 1, 1), axis(7, 3, 2, 1, 0, 1), axis(8, 3, 1, 1, 1, 1)]),
            (1, 16, 5, vec![axis(6, 1, 1, 1, 0, 0), axis(5, 1, 1, 1, 0, 0)]),
            (1, 2, 2, vec![axis(6, 1, 2, 1, 0, 0), axis(5, 1, 2, 1, 0, 0)]),
            (1, 8, 70, vec![axis(40, 3, 1, 1, 1, 1), axis(40, 3, 1, 1, 1, 1)]),
            (2, 6, 4, vec![axis(30, 3, 1, 1, 0, 0), axis(1, 1, 1, 1, 0, 0)]),
            (1, 2, 3, vec![axis(4, 1, 9, 1, 5, 0), axis(6, 2, 20, 3, 8, 1)]),
            (1, 1, 2, vec![axis(4, 3, 2, 1, 7, 9), axis(3, 1, 1, 1, 4, 4)]),
            (1, 3, 7, vec![axis(9, 5, 3, 2, 4, 4), axis(21, 4, 3, 1, 2, 2)]),
        ]
    }

    #[test]
    fn integers_give_the_exact_sums() {
        for (groups, channels, outputs, axes) in cases() {
            let g = Geometry { groups, channels, outputs, axes };
            let image: Vec<u8> =
                numbers(channels * g.input_pixels(), 1).iter().map(|x| (x * 127.0 + 128.0) as u8).collect();
            let weights: Vec<i16> =
                numbers(outputs * g.in_group() * g.kernel(), 2).iter().map(|x| (x * 255.0) as i16).collect();
            let zero = 131;
            let mut out = vec![0i32; outputs * g.pixels()];
            let packed = Weights::pairs(&weights, &[outputs, g.in_group(), g.kernel()], groups);
            Requantised::<u8>::new(&g)
                .run(&image, zero, &packed, &mut out, 1, |_, sums, out| out.copy_from_slice(sums));
            // All of it is exact in float32, so that the definition there is the definition here.
            let image: Vec<f32> = image.iter().map(|x| f32::from(*x) - f32::from(zero)).collect();
            let weights: Vec<f32> = weights.iter().map(|x| f32::from(*x)).collect();
            assert!(out.iter().zip(defined(&image, &weights, &g)).all(|(a, b)| *a as f32 == b), "{g:?}");
        }
    }

    #[test]
    fn every_geometry_gives_the_bits_of_the_definition() {
        for (groups, channels, outputs, axes) in cases() {
            let g = Geometry { groups, channels, outputs, axes };
            let image = numbers(channels * g.input_pixels(), 1);
            let plain = numbers(outputs * channels / groups * g.kernel(), 2);
            let mut out = vec![f32::NAN; outputs * g.pixels()];
            // In memory that something else was in.
            let mut planes = numbers(Convolution::<f32>::planes(&g), 5);
            let mut convolution = Convolution::with(&g, &mut planes);
            let bias = numbers(outputs, 4);
            // Another image first: nothing of it may stay.
            let shape = [outputs, g.in_group(), g.kernel()];
            let weights = Weights::new(&plain, &shape, groups);
            convolution.run(&numbers(image.len(), 3), &weights, (&[], false), &mut out, 1);
            convolution.run(&image, &weights, (&[], false), &mut out, 1);
            let expected = defined(&image, &plain, &g);
            assert!(out.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()), "{g:?}");
            convolution.run(&image, &weights, (&bias, false), &mut out, 1);
            let expected: Vec<f32> =
                expected.iter().enumerate().map(|(i, sum)| sum + bias[i / g.pixels().max(1)]).collect();
            assert!(out.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()), "{g:?} with a bias");
            convolution.run(&image, &weights, (&bias, true), &mut out, 1);
            let rectified = expected.iter().map(|x| if *x < 0.0 { 0.0 } else { *x });
            assert!(out.iter().zip(rectified).all(|(a, b)| a.to_bits() == b.to_bits()), "{g:?} rectified");
        }
    }
}
