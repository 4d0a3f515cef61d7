//! Convolution: the matrix product of the weights (rows: output channels; k: input channel, then kernel position in
//! row-major order) with the patches of the input, where padding is +0.0.
//!
//! The patches are never written out. The input plane is copied once, padded, and split by stride into phases, so that
//! the elements that one kernel position meets at neighbouring outputs are neighbours in memory; a table of offsets
//! then is all that the product needs.
//!
//! Of small integers two channels are one: [`Pair`]s.

use super::{
    channels::{self, Channels, Image},
    matmul::{Lined, PANEL, Packed, Rows, matmul_taps, stripes},
    planes::{Geometry, Layout, Pixel, met},
    term::{Pair, Term},
};
use crate::engine::threads::pieces;

/// Sums of one block of rows: they stay in the second-level cache.
const BLOCK: usize = 32 << 10;
/// Terms of planes from which it pays to fill them with several threads.
const SPREAD_TERMS: usize = 1 << 15;
/// Columns of the product that a block has at least.
const MIN_COLUMNS: usize = 8 * PANEL;

/// The weights of a convolution, laid out for the product: each group's rows.
#[derive(Debug)]
pub(crate) enum Weights<T> {
    /// As [`stripes`].
    Stripes(Vec<T>),
    /// As panels whose columns are the outputs, one matrix for each group.
    Panels(Vec<Packed<T>>),
}

/// Terms of an output from which it costs little to turn sums.
const MIN_DEPTH: usize = 24;

impl Weights<f32> {
    /// Lays `[outputs, channels of a group, kernel…]` out.
    pub(crate) fn new(weights: &[f32], shape: &[usize], groups: usize) -> Self {
        let depth = shape.iter().skip(1).product();
        let out_group = shape[0] / groups;
        let full = out_group > 0 && out_group.next_multiple_of(PANEL) * 5 <= out_group * 6;
        if full && depth >= MIN_DEPTH {
            let groups = weights.chunks_exact(depth * out_group);
            return Self::Panels(groups.map(|rows| Packed::new(rows, depth, out_group, 1, depth)).collect());
        }
        Self::stripes(weights, depth, depth * out_group)
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
        Self::stripes(&pairs, depth, depth * (shape[0] / groups))
    }
}

impl<T: Term> Weights<T> {
    fn stripes(rows: &[T], depth: usize, group: usize) -> Self {
        let mut out = Vec::with_capacity(rows.len());
        rows.chunks(group.max(1)).for_each(|rows| stripes(rows, depth, &mut out));
        Self::Stripes(out)
    }
}

/// A convolution of images of one size, with the memory that it needs, or with some that it is lent.
pub(crate) struct Convolution<'g, P: Pixel> {
    g: &'g Geometry,
    layout: Layout,
    taps: Vec<usize>,
    /// Rows of the image whose outputs are computed at a time, at most.
    rows: usize,
    /// Those of so many rows, when somebody has asked for them.
    columns: Option<Lined>,
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
        let rows = rows.min(layout.rows.output);
        let met = (met(&layout.rows), met(&layout.columns_axis));
        Self { g, layout, taps, rows, columns: None, met, planes }
    }

    /// Puts the channels of a group in.
    fn fill(&mut self, image: &[P], group: usize, zero: i16, threads: usize) {
        let Self { g, layout, met, planes, .. } = self;
        let (in_group, size) = (g.in_group(), g.input_pixels());
        let channels = &image[group * in_group * size..(group + 1) * in_group * size];
        let planes = &mut planes[..in_group.div_ceil(P::CHANNELS) * layout.plane];
        let threads = if planes.len() < SPREAD_TERMS { 1 } else { threads };
        pieces(threads, planes, layout.plane, &|first, planes| {
            let first = first / layout.plane * P::CHANNELS;
            for (c, plane) in (first..).step_by(P::CHANNELS).zip(planes.chunks_exact_mut(layout.plane)) {
                let second = channels.get((c + 1) * size..(c + 2) * size).filter(|_| P::CHANNELS > 1);
                layout.fill(g, met, (&channels[c * size..(c + 1) * size], second), zero, plane);
            }
        });
    }
}

impl<'g> Convolution<'g, f32> {
    /// With memory for [`Self::planes`], whatever is in it.
    pub(crate) fn with(g: &'g Geometry, planes: &'g mut [f32]) -> Self {
        let mut convolution = Self::in_planes(g, usize::MAX, Planes::Lent(planes));
        if !convolution.layout.fills() {
            convolution.planes.fill(0.0);
        }
        convolution
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
            // With panels planes are read to the end and no further, and may be those of the image.
            let plain = matches!(weights, Weights::Panels(_)) && self.layout.is_plain(g);
            if !plain {
                self.fill(image, group, 0, threads);
            }
            let bias = bias.get(group * out_group..(group + 1) * out_group).unwrap_or_default();
            let out = &mut out[group * out_group * pixels..(group + 1) * out_group * pixels];
            match weights {
                Weights::Panels(groups) => {
                    let channels = Channels { weights: &groups[group], bias, rectified };
                    let (height, width) = (self.layout.rows.output, self.layout.columns_axis.output);
                    let in_group = g.in_group() * g.input_pixels();
                    let planes = if plain { &image[group * in_group..][..in_group] } else { &self.planes[..] };
                    for (s, at) in self.layout.slices(self.g).enumerate() {
                        let (data, pitch) = (&planes[at..], self.layout.phase.1);
                        let image = Image { data, taps: &self.taps, height, width, pitch };
                        channels::convolve(channels, image, (&mut out[s * slice..], pixels), threads);
                    }
                }
                Weights::Stripes(stripes) => {
                    let stripes = &stripes[group * out_group * depth..(group + 1) * out_group * depth];
                    let rows = Rows { stripes, count: out_group, bias, rectified };
                    let columns = self.columns.get_or_insert_with(|| self.layout.lined(self.rows));
                    for (s, at) in self.layout.slices(self.g).enumerate() {
                        let out = (&mut out[s * slice..], pixels);
                        matmul_taps(rows, &self.planes[at..], &self.taps, columns, out, threads);
                    }
                }
            }
        }
    }
}

/// A convolution of quantised images, whose sums become something else before they leave the cache.
pub(crate) struct Requantised<'g, P: Pixel> {
    convolution: Convolution<'g, P>,
    /// The columns of a block of rows.
    columns: Lined,
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
        let (columns, last) = (convolution.layout.lined(rows), convolution.layout.lined(rest));
        Self { convolution, columns, last, sums: vec![0; g.out_group() * rows * width], rows }
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
        // Integers are always laid out so.
        let Weights::Stripes(stripes) = weights else { return };
        for group in 0..g.groups {
            self.convolution.fill(image, group, zero, threads);
            let stripes = &stripes[group * out_group * depth..(group + 1) * out_group * depth];
            let rows = Rows { stripes, count: out_group, bias: &[], rectified: false };
            for (s, at) in self.convolution.layout.slices(g).enumerate() {
                for y in (0..height).step_by(self.rows) {
                    let lines = self.rows.min(height - y);
                    let data = &self.convolution.planes[at + y * self.convolution.layout.phase.1..];
                    let columns = if y + lines < height { &self.columns } else { &self.last };
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
    use super::{super::planes::Axis, *};
    use crate::engine::sample::{axis, numbers};

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
            (1, 3, 0, vec![axis(5, 3, 1, 1, 1, 1), axis(5, 3, 1, 1, 1, 1)]),
            // With lanes over the outputs.
            (2, 8, 32, vec![axis(13, 3, 2, 1, 1, 1), axis(33, 3, 1, 2, 2, 2)]),
            (1, 3, 46, vec![axis(4, 3, 1, 1, 1, 1), axis(5, 2, 2, 1, 0, 0), axis(6, 3, 1, 1, 1, 1)]),
            (1, 30, 16, vec![axis(7, 1, 1, 1, 0, 0), axis(5, 1, 1, 1, 0, 0)]),
            (1, 30, 31, vec![axis(9, 1, 2, 1, 0, 0), axis(3, 1, 2, 1, 0, 0)]),
            (1, 12, 64, vec![axis(100, 3, 1, 4, 8, 0)]),
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
