//! How the input of a convolution lies in memory: padded planes, split by stride into phases, so that the elements that one
//! kernel position meets at neighbouring outputs are neighbours.

use super::{
    matmul::Lined,
    term::{Pair, Term},
    vectorized,
};

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
    /// Elements from the first that an output meets, padding included, to the last; saturating.
    fn padded(&self) -> usize {
        let outputs = (self.output.max(1) - 1).saturating_mul(self.stride);
        outputs.saturating_add((self.kernel - 1).saturating_mul(self.dilation)).saturating_add(1)
    }

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
        // And where each term of a sum lies.
        let taps = (self.in_group() as u64).saturating_mul(self.kernel() as u64);
        planes.saturating_add(sums).saturating_add(taps.saturating_mul(4)).saturating_mul(4)
    }

    /// Elements that the planes of one image have around those of the image, saturating. They are cleared. Along each dimension
    /// they are as many for every size that fits, so that their number is a polynomial of the sizes.
    pub(crate) fn padding(&self) -> u64 {
        let product = |sizes: &mut dyn Iterator<Item = usize>| sizes.fold(1, |p, size| (size as u64).saturating_mul(p));
        let own = product(&mut self.axes.iter().map(|axis| axis.input));
        let with = product(&mut self.axes.iter().map(|axis| {
            // Behind the last element that is met there may be others.
            let behind = axis.padded().saturating_sub(axis.before.saturating_add(axis.input));
            axis.input.saturating_add(axis.before).saturating_add(behind)
        }));
        (self.channels as u64).saturating_mul(with - own)
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
pub(super) struct Layout {
    /// Of the inner two dimensions; the outer one is 1 for a signal.
    pub(super) rows: Axis,
    pub(super) columns_axis: Axis,
    /// Rows and columns of one phase.
    pub(super) phase: (usize, usize),
    /// Elements of one slice.
    pub(super) slice: usize,
    /// Padded sizes of the outer dimensions.
    pub(super) outer: Vec<usize>,
    /// Elements of one channel.
    pub(super) plane: usize,
    /// Columns of the product: output rows times the width of a phase.
    pub(super) columns: usize,
}

pub(crate) const ONE: Axis = Axis { input: 1, kernel: 1, stride: 1, dilation: 1, before: 0, output: 1 };

impl Layout {
    pub(super) fn new(g: &Geometry) -> Self {
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
        let product = |sizes: &[usize]| sizes.iter().fold(1usize, |product, size| product.saturating_mul(*size));
        let phase = (rows.padded().div_ceil(rows.stride), columns_axis.padded().div_ceil(columns_axis.stride));
        let slice = product(&[phase.0, phase.1, rows.stride, columns_axis.stride]);
        let outer: Vec<usize> = outer.iter().map(Axis::padded).collect();
        let plane = product(&outer).saturating_mul(slice);
        Self { rows, columns_axis, phase, slice, outer, plane, columns: rows.output.saturating_mul(phase.1) }
    }

    /// Whether a channel lies in its plane as it is.
    pub(super) fn is_plain(&self, g: &Geometry) -> bool {
        let whole = |axis: &Axis, padded: usize| axis.before == 0 && padded == axis.input;
        let outer = g.axes.iter().zip(&self.outer);
        (self.rows.stride, self.columns_axis.stride) == (1, 1)
            && whole(&self.rows, self.phase.0)
            && whole(&self.columns_axis, self.phase.1)
            && outer.into_iter().all(|(axis, padded)| whole(axis, *padded))
    }

    /// Offset of padded row `y` and column `x` in a slice.
    pub(super) fn at(&self, y: usize, x: usize) -> usize {
        let (sy, sx) = (self.rows.stride, self.columns_axis.stride);
        (((y % sy) * sx + x % sx) * self.phase.0 + y / sy) * self.phase.1 + x / sx
    }

    /// The columns of a product over `rows` rows of outputs.
    pub(super) fn lined(&self, rows: usize) -> Lined {
        Lined::new(rows, self.columns_axis.output, self.phase.1)
    }

    /// Where the patches of each slice of outputs begin.
    pub(super) fn slices(&self, g: &Geometry) -> impl Iterator<Item = usize> {
        let outer = &g.axes[..self.outer.len()];
        (0..outer.iter().map(|axis| axis.output).product()).map(move |s: usize| {
            let (mut rest, mut at, mut stride) = (s, 0, 1);
            for (axis, size) in outer.iter().zip(&self.outer).rev() {
                at += rest % axis.output * axis.stride * stride;
                rest /= axis.output;
                stride *= size;
            }
            at * self.slice
        })
    }

    /// Whether [`Self::fill`] writes to all of a plane that a kernel position meets. If not, what it leaves out must be zero.
    pub(super) fn fills(&self) -> bool {
        self.outer.is_empty()
    }

    /// Puts a channel in, or two at once. `met` are the phases of rows and of columns that a kernel position meets.
    #[inline(always)]
    pub(super) fn fill<P: Pixel>(
        &self,
        g: &Geometry,
        met: &(Vec<usize>, Vec<usize>),
        (first, second): (&[P], Option<&[P]>),
        zero: i16,
        plane: &mut [P::Term],
    ) {
        let (height, width) = (self.rows.input, self.columns_axis.input);
        let (sy, sx) = (self.rows.stride, self.columns_axis.stride);
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
            for (phase_y, phase_x) in met.0.iter().flat_map(|y| met.1.iter().map(move |x| (*y, *x))) {
                let target = &mut target[self.at(phase_y, phase_x)..][..self.phase.0 * self.phase.1];
                let ((y, top), (x, left)) = (begin(&self.rows, phase_y), begin(&self.columns_axis, phase_x));
                let rows = PhaseRows {
                    count: height.saturating_sub(y).div_ceil(sy).min(self.phase.0.saturating_sub(top)),
                    apart: sy * width,
                    room: width.saturating_sub(x).div_ceil(sx).min(self.phase.1.saturating_sub(left)),
                    step: sx,
                    pitch: self.phase.1,
                };
                if rows.count == 0 || rows.room == 0 {
                    target.fill(P::Term::default());
                    continue;
                }
                let (from, to) = ((s * height + y) * width + x, (s + 1) * height * width);
                let (above, target) = target.split_at_mut(top * self.phase.1 + left);
                above.fill(P::Term::default());
                P::put_rows((&first[from..to], second.map(|second| &second[from..to])), rows, zero, target);
            }
        }
    }
}

/// The first input coordinate of a phase, and where in the phase it lies.
fn begin(axis: &Axis, phase: usize) -> (usize, usize) {
    let skipped = (phase + axis.stride - axis.before % axis.stride) % axis.stride;
    (skipped, (skipped + axis.before) / axis.stride)
}

/// Some elements of a channel that become a phase of its plane, from the first on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PhaseRows {
    /// How many rows.
    count: usize,
    /// How far apart they begin in the channel.
    apart: usize,
    /// Elements of each.
    room: usize,
    /// How far apart those are in the channel.
    step: usize,
    /// How far apart rows begin in the plane.
    pitch: usize,
}

/// The phases of padded coordinates that a kernel position of any output meets.
pub(super) fn met(axis: &Axis) -> Vec<usize> {
    // Positions that are a stride apart meet the same one.
    let mut met: Vec<usize> =
        (0..axis.kernel.min(axis.stride)).map(|k| k.wrapping_mul(axis.dilation) % axis.stride).collect();
    met.sort_unstable();
    met.dedup();
    met
}

/// What can be convolved: the elements of an image, and the terms that their products are made of.
pub(crate) trait Pixel: Copy + Sync {
    type Term: Term;
    /// Channels in one term.
    const CHANNELS: usize;
    /// Puts the terms of rows of one channel, or of two, into `out`: minus the zero point. What is between and behind them is
    /// zero then.
    fn put_rows(channels: (&[Self], Option<&[Self]>), rows: PhaseRows, zero: i16, out: &mut [Self::Term]);
}

impl Pixel for f32 {
    type Term = f32;
    const CHANNELS: usize = 1;
    #[inline(always)]
    fn put_rows((first, _): (&[f32], Option<&[f32]>), rows: PhaseRows, _: i16, out: &mut [f32]) {
        copy_rows(first, rows, out);
    }
}

vectorized! {
    /// Copies rows; what is between and behind them becomes zero.
    fn copy_rows(from: &[f32], rows: PhaseRows, to: &mut [f32]) {
        let PhaseRows { count, apart, room, step, pitch } = rows;
        let (rows, behind) = to.split_at_mut(to.len().min(count * pitch));
        for x in behind {
            *x = 0.0;
        }
        for (y, to) in rows.chunks_mut(pitch).enumerate() {
            clear_end(to, pitch - room);
            let to = &mut to[..room];
            let from = &from[y * apart..];
            match (step, room) {
                (1, 16..) => copy_row::<16>(&from[..room], to),
                (1, 8..) => copy_row::<8>(&from[..room], to),
                (1, 4..) => copy_row::<4>(&from[..room], to),
                (1, _) => copy_row::<1>(&from[..room], to),
                (2, 16..) => every_second::<16>(from, to),
                (2, 8..) => every_second::<8>(from, to),
                (2, 4..) => every_second::<4>(from, to),
                _ => {
                    for (i, to) in to.iter_mut().enumerate() {
                        *to = from[i * step];
                    }
                }
            }
        }
    }
}

/// Clears the last elements of a row whose others are written to afterwards: without a call, where they are few.
#[inline(always)]
fn clear_end<T: Copy + Default>(row: &mut [T], padding: usize) {
    let count = row.len();
    match row.last_chunk_mut::<4>() {
        Some(end) if padding <= 4 => *end = [T::default(); 4],
        _ => row[count - padding.min(count)..].fill(T::default()),
    }
}

/// A copy without a call, of `N` elements at least: rows are short, and there are many. The last ones go together with some
/// that went before.
#[inline(always)]
fn copy_row<const N: usize>(from: &[f32], to: &mut [f32]) {
    for (to, from) in to.as_chunks_mut::<N>().0.iter_mut().zip(from.as_chunks::<N>().0) {
        *to = *from;
    }
    if let (Some(to), Some(from)) = (to.last_chunk_mut::<N>(), from.last_chunk::<N>()) {
        *to = *from;
    }
}

/// The same with the first element of each pair.
#[inline(always)]
fn every_second<const N: usize>(from: &[f32], to: &mut [f32]) {
    let count = to.len();
    let (pairs, _) = from.as_chunks::<2>();
    for (to, pairs) in to.as_chunks_mut::<N>().0.iter_mut().zip(pairs.as_chunks::<N>().0) {
        for (to, pair) in to.iter_mut().zip(pairs) {
            *to = pair[0];
        }
    }
    let Some(to) = to.last_chunk_mut::<N>() else { return };
    match pairs.get(count - N..).and_then(|pairs| pairs.first_chunk::<N>()) {
        Some(pairs) => {
            for (to, pair) in to.iter_mut().zip(pairs) {
                *to = pair[0];
            }
        }
        // The last one is the last of the channel.
        None => {
            for (i, to) in to.iter_mut().enumerate() {
                *to = from[(count - N + i) * 2];
            }
        }
    }
}

macro_rules! bytes {
    ($($t:ty),*) => {$(
        impl Pixel for $t {
            type Term = Pair;
            const CHANNELS: usize = 2;
            #[inline(always)]
            fn put_rows(
                (first, second): (&[$t], Option<&[$t]>),
                rows: PhaseRows,
                zero: i16,
                out: &mut [Pair],
            ) {
                let PhaseRows { count, apart, room, step, pitch } = rows;
                let centre = |x: $t| i16::from(x).wrapping_sub(zero);
                for (y, out) in out.chunks_mut(pitch).enumerate() {
                    if y >= count {
                        out.fill(Pair::default());
                        continue;
                    }
                    clear_end(out, pitch - room);
                    let out = &mut out[..room];
                    let first = &first[y * apart..];
                    match (second.map(|second| &second[y * apart..]), step) {
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
        }
    )*};
}
bytes!(i8, u8);
