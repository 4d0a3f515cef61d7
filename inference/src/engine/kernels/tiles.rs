//! The tiles of a matrix product: where its operands lie, and the micro-kernels.

#[cfg(target_arch = "x86_64")]
use super::lanes::Lanes;
use super::term::{Accumulator, Term};
use crate::engine::places::Places;

/// Columns of one panel: two AVX2 registers of 32-bit terms, one AVX-512 register.
pub(crate) const PANEL: usize = 16;
/// Rows of a micro-kernel's tile.
pub(super) const TILE: usize = 6;
/// Bytes of rows that are gone over for each panel: they stay in the second-level cache meanwhile.
const ROW_BYTES: usize = 192 << 10;

/// Where line `i` of a panel begins, relative to the panel.
pub(super) trait Lines: Copy {
    fn at(self, i: usize) -> usize;
    /// The greatest beginning of the first `k` lines.
    fn reach(self, k: usize) -> usize;
}

/// Lines one after another.
#[derive(Clone, Copy)]
pub(super) struct Dense;

impl Lines for Dense {
    #[inline(always)]
    fn at(self, i: usize) -> usize {
        i * PANEL
    }

    fn reach(self, k: usize) -> usize {
        k.saturating_sub(1) * PANEL
    }
}

/// Lines anywhere: the taps of a convolution.
#[derive(Clone, Copy)]
pub(super) struct Table<'a>(pub(super) &'a [usize]);

impl Lines for Table<'_> {
    #[inline(always)]
    fn at(self, i: usize) -> usize {
        self.0[i]
    }

    fn reach(self, k: usize) -> usize {
        self.0.iter().take(k).copied().max().unwrap_or(0)
    }
}

/// Where panels of the right-hand side begin, and where their columns go.
pub(super) trait Columns: Copy {
    /// Number of panels.
    fn panels(self) -> usize;
    /// Where panel `p` begins in the data.
    fn at(self, p: usize) -> usize;
    /// The greatest beginning.
    fn last(self) -> usize;
    /// Where the columns of panel `p` go in a row of the output.
    fn place(self, p: usize) -> Place;
    /// The pieces of a panel that is [`Place::Apart`]; none of another.
    fn pieces(&self, p: usize) -> &[Piece];
}

/// Where the columns of a panel go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The first `width` of them, as neighbours from `column` on.
    Together { column: usize, width: usize },
    /// To several places.
    Apart,
}

/// Some neighbours of a panel's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// The first of them in the panel.
    pub(super) lane: usize,
    pub(super) width: usize,
    /// Where it goes in a row of the output.
    pub(super) column: usize,
}

/// `n` columns one after another; `data` begins with panel `first`, and panels are `stride` apart.
#[derive(Clone, Copy)]
pub(super) struct Neighbours {
    pub(super) first: usize,
    pub(super) stride: usize,
    pub(super) n: usize,
}

impl Columns for Neighbours {
    fn panels(self) -> usize {
        self.n.div_ceil(PANEL)
    }

    #[inline(always)]
    fn at(self, p: usize) -> usize {
        (p - self.first) * self.stride
    }

    fn last(self) -> usize {
        self.panels().saturating_sub(1) * self.stride
    }

    #[inline(always)]
    fn place(self, p: usize) -> Place {
        Place::Together { column: p * PANEL, width: PANEL.min(self.n - p * PANEL) }
    }

    #[inline(always)]
    fn pieces(&self, _: usize) -> &[Piece] {
        &[]
    }
}

/// The right-hand side: panels with `k` lines each.
#[derive(Clone, Copy)]
pub(super) struct Right<'a, T, L, C> {
    pub(super) data: &'a [T],
    pub(super) columns: C,
    pub(super) lines: L,
    pub(super) k: usize,
    /// How far apart rows of the output begin.
    pub(super) apart: usize,
}

/// The left-hand side. Row i begins at `i · stride` and its elements are neighbours; or the rows are [`stripes`].
#[derive(Clone, Copy)]
pub(super) struct Left<'a, T: Term, const STRIPES: bool> {
    pub(super) data: &'a [T],
    pub(super) stride: usize,
    pub(super) rows: usize,
    /// What is added to the finished sums of each row; empty: nothing.
    pub(super) bias: &'a [T::Sum],
    /// Whether sums that are less than zero become zero in the end.
    pub(super) rectified: bool,
}

/// Computes the columns of some panels: from the first, up to the second.
///
/// # Safety
/// The operands have the sizes that their shapes say, and nobody else uses the output's places in these rows and columns.
pub(super) unsafe fn tiles<T: Term, L: Lines, C: Columns, const S: bool>(
    lhs: Left<'_, T, S>,
    right: Right<'_, T, L, C>,
    panels: (usize, usize),
    out: Places<'_, T::Sum>,
) {
    #[cfg(target_arch = "x86_64")]
    if super::has_avx512() {
        // SAFETY: the CPU has the features that the function is compiled for; the rest is as promised.
        return unsafe { tiles_avx512(lhs, right, panels, out) };
    } else if super::has_avx2() {
        // SAFETY: the same.
        return unsafe { tiles_avx2(lhs, right, panels, out) };
    }
    // SAFETY: as promised.
    unsafe { tiles_portable(lhs, right, panels, out) }
}

/// Whether lines that lie anywhere are as good as neighbours.
pub(super) fn reads_anywhere() -> bool {
    #[cfg(target_arch = "x86_64")]
    return super::has_avx512();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Computes the tile of some rows and as many panels at a time as there are, of the widths that are listed; answers how
/// many those were.
macro_rules! tile {
    ($micro:ident, $lhs:ident, $right:ident, $row:expr, $p:ident, $panels:ident, $out:ident, $rows:literal, [$($width:literal),*]) => {
        match $panels - $p {
            $($width.. => {
                $micro::<T, $rows, $width, L, C, S>($lhs, $right, $row, $p, $out);
                $width
            })*
            _ => {
                $micro::<T, $rows, 1, L, C, S>($lhs, $right, $row, $p, $out);
                1
            }
        }
    };
}

/// Goes over the tiles of the output: rows in blocks that stay in a cache, panels, and rows six at a time. The number of
/// panels at a time is by the number of rows: enough sums to hide the latency of each, and no more than there are registers.
macro_rules! walk_tiles {
    ($micro:ident, $lhs:ident, $right:ident, $panels:ident, $out:ident, $six:tt, $five:tt, $four:tt, $three:tt, $two:tt, $one:tt) => {{
        let (k, m) = ($right.k, $lhs.rows);
        let (begin, panels) = $panels;
        let block = (ROW_BYTES / 4 / k).max(TILE).next_multiple_of(TILE);
        for first in (0..m).step_by(block) {
            let rows = block.min(m - first);
            let full = rows / TILE * TILE;
            let rest = rows - full;
            let mut p = begin;
            while full > 0 && p < panels {
                let mut width = 1;
                for row in (first..first + full).step_by(TILE) {
                    width = tile!($micro, $lhs, $right, row, p, panels, $out, 6, $six);
                }
                p += width;
            }
            let row = first + full;
            let mut p = begin;
            while rest > 0 && p < panels {
                p += match rest {
                    1 => tile!($micro, $lhs, $right, row, p, panels, $out, 1, $one),
                    2 => tile!($micro, $lhs, $right, row, p, panels, $out, 2, $two),
                    3 => tile!($micro, $lhs, $right, row, p, panels, $out, 3, $three),
                    4 => tile!($micro, $lhs, $right, row, p, panels, $out, 4, $four),
                    _ => tile!($micro, $lhs, $right, row, p, panels, $out, 5, $five),
                };
            }
        }
    }};
}

/// Rows of a tile, at most, where there are 32 registers: with three panels sums take 27 of them.
#[cfg(target_arch = "x86_64")]
const EVEN_TILE: usize = 9;

/// Panels at a time of tiles of up to so many rows, when so many panels are left: as many sums as there are registers for, and
/// no single panel in the end.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn panels_at_a_time(rows: usize, left: usize) -> usize {
    match (rows, left) {
        (7.., 4) => 2,
        (7.., _) => left.min(3),
        (2.., _) => left.min(4),
        (_, 8..) => 8,
        (_, 4..) => 4,
        _ => left,
    }
}

/// [`walk_tiles`] of rows that may be taken in any number: tiles are as high as each other, within one row. What kernels there
/// are is listed.
#[cfg(target_arch = "x86_64")]
macro_rules! walk_even_tiles {
    ($micro:ident, $lhs:ident, $right:ident, $panels:ident, $out:ident, $([$rows:literal: [$($width:literal),*]]),*) => {{
        let (begin, end) = $panels;
        let block = (ROW_BYTES / 4 / $right.k).max(EVEN_TILE).next_multiple_of(EVEN_TILE);
        for first in (0..$lhs.rows).step_by(block) {
            let count = block.min($lhs.rows - first);
            let tiles = count.div_ceil(EVEN_TILE);
            let (least, higher) = (count / tiles, count % tiles);
            let mut p = begin;
            while p < end {
                let width = panels_at_a_time(least + usize::from(higher > 0), end - p);
                let mut row = first;
                for tile in 0..tiles {
                    let rows = least + usize::from(tile < higher);
                    match (rows, width) {
                        $($(($rows, $width) => $micro::<T, $rows, $width, L, C, S>($lhs, $right, row, p, $out),)*)*
                        // `panels_at_a_time` asks for nothing else.
                        _ => unreachable!("no kernel of {rows} rows and {width} panels"),
                    }
                    row += rows;
                }
                p += width;
            }
        }
    }};
}

/// # Safety
/// As [`tiles`], on a CPU that has the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn tiles_avx2<T: Term, L: Lines, C: Columns, const S: bool>(
    lhs: Left<'_, T, S>,
    right: Right<'_, T, L, C>,
    panels: (usize, usize),
    out: Places<'_, T::Sum>,
) {
    // SAFETY: as promised.
    unsafe { walk_tiles!(micro_avx2, lhs, right, panels, out, [], [], [], [2], [3], [4]) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn tiles_avx512<T: Term, L: Lines, C: Columns, const S: bool>(
    lhs: Left<'_, T, S>,
    right: Right<'_, T, L, C>,
    panels: (usize, usize),
    out: Places<'_, T::Sum>,
) {
    // SAFETY: as promised.
    unsafe {
        if S {
            walk_tiles!(micro_avx512, lhs, right, panels, out, [4, 2], [4, 2], [4, 2], [4, 2], [4, 2], [8, 4, 2]);
        } else {
            walk_even_tiles!(
                micro_avx512,
                lhs,
                right,
                panels,
                out,
                [9: [3, 2, 1]],
                [8: [3, 2, 1]],
                [7: [3, 2, 1]],
                [6: [4, 3, 2, 1]],
                [5: [4, 3, 2, 1]],
                [4: [4, 3, 2, 1]],
                [3: [4, 3, 2, 1]],
                [2: [4, 3, 2, 1]],
                [1: [8, 4, 3, 2, 1]]
            );
        }
    }
}

/// A micro-kernel by intrinsics, although the plain loop says the same: what the compiler makes of that keeps the sums on
/// the stack, and where the stack lies to the matrices then decides over a factor of three (stores and loads 4 KiB apart
/// wait for each other).
///
/// A macro rather than a generic function: only what is compiled for its features becomes part of it.
macro_rules! micro_by_lanes {
    ($(#[$meta:meta])* $name:ident, $features:literal, $lanes:ident) => {
        $(#[$meta])*
        ///
        /// # Safety
        /// The CPU has the features. `R` rows of `lhs` from `row` and `P` panels from `p` are there, with lines that lie
        /// within the data. Nobody else uses the output's places in these rows and columns.
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $features)]
        unsafe fn $name<T: Term, const R: usize, const P: usize, L: Lines, C: Columns, const S: bool>(
            lhs: Left<'_, T, S>,
            right: Right<'_, T, L, C>,
            row: usize,
            p: usize,
            out: Places<'_, T::Sum>,
        ) {
            // Registers of a line of a panel: one or two.
            let parts = PANEL / T::$lanes::COUNT;
            // Loops rather than `from_fn`: what that calls is not compiled for these features, and would not become part of
            // this.
            let mut rows: [&[T]; R] = [&[]; R];
            for (r, place) in rows.iter_mut().enumerate() {
                *place = match S {
                    true => &lhs.data[row * right.k..][..R * right.k],
                    false => &lhs.data[(row + r) * lhs.stride..][..right.k],
                };
            }
            let mut panels = [right.data.as_ptr(); P];
            for (q, panel) in panels.iter_mut().enumerate() {
                // SAFETY: the caller promises that the panel is there.
                *panel = unsafe { panel.add(right.columns.at(p + q)) };
            }
            // SAFETY: the CPU has the features of this function.
            let zero = unsafe { T::$lanes::zeros() };
            let mut sums = [[[zero; 2]; P]; R];
            for i in 0..right.k {
                let line = right.lines.at(i);
                let mut lines = [[zero; 2]; P];
                for q in 0..P {
                    for part in 0..parts {
                        // SAFETY: the caller promises that the line is there.
                        lines[q][part] = unsafe { T::$lanes::load(panels[q].add(line + part * T::$lanes::COUNT)) };
                    }
                }
                for r in 0..R {
                    // SAFETY: every row has `k` numbers (all `R` have `R · k`), and `i` is less; the CPU has the features.
                    unsafe {
                        let x = T::$lanes::splat(*rows[r].get_unchecked(if S { i * R + r } else { i }));
                        for q in 0..P {
                            for part in 0..parts {
                                sums[r][q][part] = T::$lanes::add_products(x, lines[q][part], sums[r][q][part]);
                            }
                        }
                    }
                }
            }
            for r in 0..R {
                if let Some(bias) = lhs.bias.get(row + r) {
                    for q in 0..P {
                        for part in 0..parts {
                            // SAFETY: the CPU has the features.
                            sums[r][q][part] = unsafe { T::$lanes::add_to_all(sums[r][q][part], *bias) };
                        }
                    }
                }
            }
            if lhs.rectified {
                for r in 0..R {
                    for q in 0..P {
                        for part in 0..parts {
                            // SAFETY: the CPU has the features.
                            sums[r][q][part] = unsafe { T::$lanes::rectify(sums[r][q][part]) };
                        }
                    }
                }
            }
            // Where each panel's sums go: their first row, how far apart rows are, and the width. Found before they are stored,
            // so that storing is short enough to be unrolled: sums that a loop picks by a number are on the stack.
            let mut apart = [[[T::Sum::default(); PANEL]; P]; R];
            let (scratch, all) = (apart.as_mut_ptr().cast::<T::Sum>(), out.start());
            let mut targets = [(scratch, 0, 0); P];
            for (q, target) in targets.iter_mut().enumerate() {
                *target = match right.columns.place(p + q) {
                    Place::Together { column, width } => {
                        let last = (row + R - 1) * right.apart + column;
                        assert!(width <= PANEL && last + width <= out.count(), "the output is smaller than its shape");
                        // SAFETY: the last row has its places, and so do those before it.
                        (unsafe { all.add(row * right.apart + column) }, right.apart, width)
                    }
                    // SAFETY: there are `P` panels.
                    Place::Apart => (unsafe { scratch.add(q * PANEL) }, P * PANEL, PANEL),
                };
            }
            for r in 0..R {
                for q in 0..P {
                    let (target, stride, width) = targets[q];
                    for part in 0..parts {
                        let lanes = part * T::$lanes::COUNT;
                        // SAFETY: each row has `width` places from there on, which is 16 at most.
                        unsafe {
                            let to = target.add(r * stride + lanes);
                            if width >= lanes + T::$lanes::COUNT {
                                T::$lanes::store(to, sums[r][q][part]);
                            } else if width > lanes {
                                T::$lanes::store_first(to, width - lanes, sums[r][q][part]);
                            }
                        }
                    }
                }
            }
            for q in 0..P {
                let pieces = right.columns.pieces(p + q);
                if !pieces.is_empty() {
                    for (r, sums) in apart.iter().enumerate() {
                        // SAFETY: as promised.
                        unsafe { put_pieces(pieces, &sums[q], out.from((row + r) * right.apart)) }
                    }
                }
            }
        }
    };
}

/// Puts the pieces of a panel into a row of the output.
///
/// # Safety
/// Nobody else uses the places that they go to.
#[inline(always)]
unsafe fn put_pieces<S: Copy>(pieces: &[Piece], sums: &[S; PANEL], row: Places<'_, S>) {
    for Piece { lane, width, column } in pieces {
        let from = &sums[*lane..][..*width];
        // SAFETY: as promised.
        let places = unsafe { row.some(*column..column + width) };
        places.iter_mut().zip(from).for_each(|(to, sum)| *to = *sum);
    }
}

micro_by_lanes! {
    /// For AVX2.
    micro_avx2, "avx2,fma", Avx2
}

micro_by_lanes! {
    /// For AVX-512.
    micro_avx512, "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma", Avx512
}

/// # Safety
/// As [`tiles`].
pub(super) unsafe fn tiles_portable<T: Term, L: Lines, C: Columns, const S: bool>(
    lhs: Left<'_, T, S>,
    right: Right<'_, T, L, C>,
    panels: (usize, usize),
    out: Places<'_, T::Sum>,
) {
    // SAFETY: as promised.
    unsafe { walk_tiles!(micro, lhs, right, panels, out, [], [], [], [2], [3], [4]) }
}

/// # Safety
/// Nobody else uses the output's places in these rows and columns.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "indices that say what the intrinsics' version says")]
unsafe fn micro<T: Term, const R: usize, const P: usize, L: Lines, C: Columns, const S: bool>(
    lhs: Left<'_, T, S>,
    right: Right<'_, T, L, C>,
    row: usize,
    p: usize,
    out: Places<'_, T::Sum>,
) {
    let rows: [&[T]; R] = core::array::from_fn(|r| match S {
        true => &lhs.data[row * right.k..][..R * right.k],
        false => &lhs.data[(row + r) * lhs.stride..][..right.k],
    });
    let mut sums = [[[T::Sum::default(); PANEL]; P]; R];
    for i in 0..right.k {
        let line = right.lines.at(i);
        for q in 0..P {
            let at = right.columns.at(p + q) + line;
            let line = &right.data[at..at + PANEL];
            for r in 0..R {
                let x = rows[r][if S { i * R + r } else { i }];
                for lane in 0..PANEL {
                    sums[r][q][lane] = x.add_product(line[lane], sums[r][q][lane]);
                }
            }
        }
    }
    for r in 0..R {
        for q in 0..P {
            if let Some(bias) = lhs.bias.get(row + r) {
                sums[r][q].iter_mut().for_each(|sum| *sum = sum.plus(*bias));
            }
            if lhs.rectified {
                sums[r][q].iter_mut().for_each(|sum| *sum = sum.rectified());
            }
            let out = out.from((row + r) * right.apart);
            // SAFETY: as promised.
            unsafe {
                match right.columns.place(p + q) {
                    Place::Together { column, width } => {
                        out.some(column..column + width).copy_from_slice(&sums[r][q][..width]);
                    }
                    Place::Apart => put_pieces(right.columns.pieces(p + q), &sums[r][q], out),
                }
            }
        }
    }
}
