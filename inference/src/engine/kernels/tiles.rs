//! The tiles of a matrix product: where its operands lie, and the micro-kernels.

#[cfg(target_arch = "x86_64")]
use super::term::LANES;
use super::term::Term;

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

/// The right-hand side: `panels` panels, panel p beginning at `p · stride` of `data`, with `k` lines each.
#[derive(Clone, Copy)]
pub(super) struct Right<'a, T, L> {
    pub(super) data: &'a [T],
    pub(super) stride: usize,
    pub(super) lines: L,
    pub(super) k: usize,
    /// Columns.
    pub(super) n: usize,
}

/// The left-hand side. Row i begins at `i · stride` and its elements are neighbours; or the rows are [`stripes`].
#[derive(Clone, Copy)]
pub(super) struct Left<'a, T, const STRIPES: bool> {
    pub(super) data: &'a [T],
    pub(super) stride: usize,
}

pub(super) fn all_tiles<T: Term, L: Lines, const S: bool>(
    lhs: Left<'_, T, S>,
    right: Right<'_, T, L>,
    out: &mut [T::Sum],
) {
    tiles(lhs, right, (0, right.n.div_ceil(PANEL)), out);
}

/// Computes the columns of some panels: from the first, up to the second.
pub(super) fn tiles<T: Term, L: Lines, const S: bool>(
    lhs: Left<'_, T, S>,
    right: Right<'_, T, L>,
    panels: (usize, usize),
    out: &mut [T::Sum],
) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the CPU has the features that the function is compiled for; `product` has checked the sizes.
        return unsafe { tiles_fma(lhs, right, panels, out) };
    }
    tiles_portable(lhs, right, panels, out);
}

/// Goes over the tiles of the output: rows in blocks that stay in a cache, panels, and rows six at a time. Few rows have
/// several panels at a time instead, so that there are enough sums to hide the latency of each.
macro_rules! walk_tiles {
    ($micro:ident, $lhs:ident, $right:ident, $panels:ident, $out:ident) => {{
        let (k, n) = ($right.k, $right.n);
        let m = $out.len() / n;
        let (begin, panels) = $panels;
        let block = (ROW_BYTES / 4 / k).max(TILE).next_multiple_of(TILE);
        for first in (0..m).step_by(block) {
            let rows = block.min(m - first);
            let full = rows / TILE * TILE;
            let rest = rows - full;
            for p in begin..panels {
                for row in (first..first + full).step_by(TILE) {
                    $micro::<T, 6, 1, L, S>($lhs, $right, row, p, $out);
                }
            }
            let row = first + full;
            let mut p = begin;
            while rest > 0 && p < panels {
                p += match (rest, panels - p) {
                    (1, 4..) => {
                        $micro::<T, 1, 4, L, S>($lhs, $right, row, p, $out);
                        4
                    }
                    (2, 3..) => {
                        $micro::<T, 2, 3, L, S>($lhs, $right, row, p, $out);
                        3
                    }
                    (3, 2..) => {
                        $micro::<T, 3, 2, L, S>($lhs, $right, row, p, $out);
                        2
                    }
                    (1, _) => {
                        $micro::<T, 1, 1, L, S>($lhs, $right, row, p, $out);
                        1
                    }
                    (2, _) => {
                        $micro::<T, 2, 1, L, S>($lhs, $right, row, p, $out);
                        1
                    }
                    (3, _) => {
                        $micro::<T, 3, 1, L, S>($lhs, $right, row, p, $out);
                        1
                    }
                    (4, _) => {
                        $micro::<T, 4, 1, L, S>($lhs, $right, row, p, $out);
                        1
                    }
                    _ => {
                        $micro::<T, 5, 1, L, S>($lhs, $right, row, p, $out);
                        1
                    }
                };
            }
        }
    }};
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn tiles_fma<T: Term, L: Lines, const S: bool>(
    lhs: Left<'_, T, S>,
    right: Right<'_, T, L>,
    panels: (usize, usize),
    out: &mut [T::Sum],
) {
    // SAFETY: the caller has checked the sizes.
    unsafe { walk_tiles!(micro_fma, lhs, right, panels, out) }
}

/// By intrinsics, although the plain loop says the same: what the compiler makes of that keeps the sums on the stack, and
/// where the stack lies to the matrices then decides over a factor of three (stores and loads 4 KiB apart wait for each
/// other).
///
/// # Safety
/// `R` rows of `lhs` from `row` and `P` panels from `p` are there, with lines that lie within the data.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn micro_fma<T: Term, const R: usize, const P: usize, L: Lines, const S: bool>(
    lhs: Left<'_, T, S>,
    right: Right<'_, T, L>,
    row: usize,
    p: usize,
    out: &mut [T::Sum],
) {
    let n = right.n;
    // Loops rather than `from_fn`: what that calls is not compiled for these features, and would not become part of this.
    let mut rows: [&[T]; R] = [&[]; R];
    for (r, place) in rows.iter_mut().enumerate() {
        *place =
            if S { &lhs.data[row * right.k..][..R * right.k] } else { &lhs.data[(row + r) * lhs.stride..][..right.k] };
    }
    let mut panels = [right.data.as_ptr(); P];
    for (q, panel) in panels.iter_mut().enumerate() {
        // SAFETY: the caller promises that the panel is there.
        *panel = unsafe { panel.add((p + q) * right.stride) };
    }
    // SAFETY: the CPU has the features of this function.
    let zero = unsafe { T::zeros() };
    let (mut low, mut high) = ([[zero; P]; R], [[zero; P]; R]);
    for i in 0..right.k {
        let line = right.lines.at(i);
        let (mut left, mut rest) = ([zero; P], [zero; P]);
        for q in 0..P {
            // SAFETY: the caller promises that the line is there.
            unsafe {
                left[q] = T::load(panels[q].add(line));
                rest[q] = T::load(panels[q].add(line + LANES));
            }
        }
        for r in 0..R {
            // SAFETY: every row has `k` numbers (all `R` have `R · k`), and `i` is less; the CPU has the features.
            unsafe {
                let x = T::splat(*rows[r].get_unchecked(if S { i * R + r } else { i }));
                for q in 0..P {
                    low[r][q] = T::add_products(x, left[q], low[r][q]);
                    high[r][q] = T::add_products(x, rest[q], high[r][q]);
                }
            }
        }
    }
    for r in 0..R {
        for q in 0..P {
            let column = (p + q) * PANEL;
            let target = &mut out[(row + r) * n + column..];
            if n - column >= PANEL && target.len() >= PANEL {
                // SAFETY: there are 16 places.
                unsafe {
                    T::store(target.as_mut_ptr(), low[r][q]);
                    T::store(target.as_mut_ptr().add(LANES), high[r][q]);
                }
            } else {
                let mut sum = [T::Sum::default(); PANEL];
                // SAFETY: the array has 16 places.
                unsafe {
                    T::store(sum.as_mut_ptr(), low[r][q]);
                    T::store(sum.as_mut_ptr().add(LANES), high[r][q]);
                }
                let width = PANEL.min(n - column);
                target[..width].copy_from_slice(&sum[..width]);
            }
        }
    }
}

pub(super) fn tiles_portable<T: Term, L: Lines, const S: bool>(
    lhs: Left<'_, T, S>,
    right: Right<'_, T, L>,
    panels: (usize, usize),
    out: &mut [T::Sum],
) {
    walk_tiles!(micro, lhs, right, panels, out);
}

#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "indices that say what the intrinsics' version says")]
fn micro<T: Term, const R: usize, const P: usize, L: Lines, const S: bool>(
    lhs: Left<'_, T, S>,
    right: Right<'_, T, L>,
    row: usize,
    p: usize,
    out: &mut [T::Sum],
) {
    let n = right.n;
    let rows: [&[T]; R] = core::array::from_fn(|r| match S {
        true => &lhs.data[row * right.k..][..R * right.k],
        false => &lhs.data[(row + r) * lhs.stride..][..right.k],
    });
    let mut sums = [[[T::Sum::default(); PANEL]; P]; R];
    for i in 0..right.k {
        let line = right.lines.at(i);
        for q in 0..P {
            let at = (p + q) * right.stride + line;
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
            let column = (p + q) * PANEL;
            let width = PANEL.min(n - column);
            out[(row + r) * n + column..][..width].copy_from_slice(&sums[r][q][..width]);
        }
    }
}
