//! The matrix product of float32, and convolution, which is one.
//!
//! Element (i, j) is one chain of fused multiply-adds over k in increasing order, starting from +0.0. Lanes, tiles,
//! blocks and threads run across rows and columns, never across k, so none of them can change a bit.

/// Columns of one panel: two AVX2 registers of f32, one AVX-512 register.
pub(crate) const PANEL: usize = 16;
/// Bytes of rows that are gone over for each panel: they stay in the second-level cache meanwhile.
const ROW_BYTES: usize = 192 << 10;

/// A `[k, n]` matrix as panels of [`PANEL`] columns, each `[k, PANEL]`, padded with zeros.
#[derive(Debug)]
pub(crate) struct Packed {
    panels: Vec<f32>,
    k: usize,
    n: usize,
}

impl Packed {
    /// Lays out the matrix whose element (row, column) is at `row · row_stride + column · column_stride`.
    pub(crate) fn new(matrix: &[f32], k: usize, n: usize, row_stride: usize, column_stride: usize) -> Self {
        let mut panels = vec![0.0; n.div_ceil(PANEL) * k * PANEL];
        for (p, panel) in panels.chunks_exact_mut((k * PANEL).max(1)).enumerate() {
            let width = PANEL.min(n - p * PANEL);
            for (row, line) in panel.chunks_exact_mut(PANEL).enumerate() {
                let from = &matrix[row * row_stride + p * PANEL * column_stride..];
                if column_stride == 1 {
                    line[..width].copy_from_slice(&from[..width]);
                } else {
                    line[..width].iter_mut().enumerate().for_each(|(lane, slot)| *slot = from[lane * column_stride]);
                }
            }
        }
        Self { panels, k, n }
    }

    /// Bytes of the layout of a `[k, n]` matrix, saturating.
    pub(crate) fn bytes(k: usize, n: usize) -> u64 {
        (n.div_ceil(PANEL) as u64).saturating_mul((PANEL * size_of::<f32>()) as u64).saturating_mul(k as u64)
    }

    pub(crate) fn rows(&self) -> usize {
        self.k
    }

    pub(crate) fn columns(&self) -> usize {
        self.n
    }
}

/// Where line `i` of a panel begins, relative to the panel.
trait Lines: Copy {
    fn at(self, i: usize) -> usize;
    /// The greatest beginning of the first `k` lines.
    fn reach(self, k: usize) -> usize;
}

/// Lines one after another.
#[derive(Clone, Copy)]
struct Dense;

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
struct Table<'a>(&'a [usize]);

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
struct Right<'a, L> {
    data: &'a [f32],
    stride: usize,
    lines: L,
    k: usize,
    /// Columns.
    n: usize,
}

/// `lhs[m, k] × rhs[k, n]`, written to `out[m, n]`; all row-major.
pub(crate) fn matmul(lhs: &[f32], rhs: &Packed, out: &mut [f32], threads: usize) {
    let right = Right { data: &rhs.panels, stride: rhs.k * PANEL, lines: Dense, k: rhs.k, n: rhs.n };
    product(lhs, right, out, rhs.n, threads);
}

/// `lhs[m, taps] ×` the matrix whose column j has in row i the element `data[taps[i] + j]`, for j below `n`; written to
/// `out[m, n]`. `data` must reach [`PANEL`] elements beyond the last one that is used.
pub(crate) fn matmul_taps(lhs: &[f32], data: &[f32], taps: &[usize], n: usize, out: &mut [f32], threads: usize) {
    let right = Right { data, stride: PANEL, lines: Table(taps), k: taps.len(), n };
    product(lhs, right, out, n, threads);
}

fn product<L: Lines + Send + Sync>(lhs: &[f32], right: Right<'_, L>, out: &mut [f32], n: usize, threads: usize) {
    let k = right.k;
    if n == 0 || out.is_empty() {
        return;
    }
    if k == 0 {
        out.fill(0.0);
        return;
    }
    let m = out.len() / n;
    // What the micro-kernels read without looking.
    let last = (n.div_ceil(PANEL) - 1) * right.stride;
    let reach = right.lines.reach(k);
    assert!(lhs.len() >= m * k && right.data.len() >= last + reach + PANEL, "operands are smaller than their shapes");
    let work = (m as u64).saturating_mul(k as u64).saturating_mul(n as u64);
    let threads = if work > 1 << 21 { threads.min(m / 6).max(1) } else { 1 };
    if threads > 1 {
        // Each thread has rows of its own.
        let rows = m.div_ceil(threads).next_multiple_of(6);
        let parts = out.chunks_mut(rows * n).zip(lhs.chunks(rows * k));
        super::spread(parts, |(out, lhs)| tiles(lhs, right, out));
        return;
    }
    tiles(lhs, right, out);
}

fn tiles<L: Lines>(lhs: &[f32], right: Right<'_, L>, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the CPU has the features that the function is compiled for; `product` has checked the sizes.
        return unsafe { tiles_fma(lhs, right, out) };
    }
    tiles_portable(lhs, right, out);
}

/// Goes over the tiles of the output: rows in blocks that stay in a cache, panels, and rows six at a time. Few rows have
/// several panels at a time instead, so that there are enough sums to hide the latency of each.
macro_rules! walk_tiles {
    ($micro:ident, $lhs:ident, $right:ident, $out:ident) => {{
        let (k, n) = ($right.k, $right.n);
        let m = $out.len() / n;
        let panels = n.div_ceil(PANEL);
        let block = (ROW_BYTES / 4 / k).max(6).next_multiple_of(6);
        for first in (0..m).step_by(block) {
            let rows = block.min(m - first);
            let full = rows / 6 * 6;
            let rest = rows - full;
            for p in 0..panels {
                for row in (first..first + full).step_by(6) {
                    $micro::<6, 1, L>($lhs, $right, row, p, $out);
                }
            }
            let row = first + full;
            let mut p = 0;
            while rest > 0 && p < panels {
                p += match (rest, panels - p) {
                    (1, 4..) => {
                        $micro::<1, 4, L>($lhs, $right, row, p, $out);
                        4
                    }
                    (2, 3..) => {
                        $micro::<2, 3, L>($lhs, $right, row, p, $out);
                        3
                    }
                    (3, 2..) => {
                        $micro::<3, 2, L>($lhs, $right, row, p, $out);
                        2
                    }
                    (1, _) => {
                        $micro::<1, 1, L>($lhs, $right, row, p, $out);
                        1
                    }
                    (2, _) => {
                        $micro::<2, 1, L>($lhs, $right, row, p, $out);
                        1
                    }
                    (3, _) => {
                        $micro::<3, 1, L>($lhs, $right, row, p, $out);
                        1
                    }
                    (4, _) => {
                        $micro::<4, 1, L>($lhs, $right, row, p, $out);
                        1
                    }
                    _ => {
                        $micro::<5, 1, L>($lhs, $right, row, p, $out);
                        1
                    }
                };
            }
        }
    }};
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn tiles_fma<L: Lines>(lhs: &[f32], right: Right<'_, L>, out: &mut [f32]) {
    // SAFETY: the caller has checked the sizes.
    unsafe { walk_tiles!(micro_fma, lhs, right, out) }
}

/// By intrinsics, although the plain loop says the same: what the compiler makes of that keeps the sums on the stack, and
/// where the stack lies to the matrices then decides over a factor of three (stores and loads 4 KiB apart wait for each
/// other).
///
/// # Safety
/// `R` rows of `lhs` from `row` and `P` panels from `p` are there, with lines that lie within the data.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn micro_fma<const R: usize, const P: usize, L: Lines>(
    lhs: &[f32],
    right: Right<'_, L>,
    row: usize,
    p: usize,
    out: &mut [f32],
) {
    use core::arch::x86_64::{_mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps};
    let (k, n) = (right.k, right.n);
    let rows: [&[f32]; R] = core::array::from_fn(|r| &lhs[(row + r) * k..(row + r + 1) * k]);
    let data = right.data.as_ptr();
    let bases: [usize; P] = core::array::from_fn(|q| (p + q) * right.stride);
    let (mut low, mut high) = ([[_mm256_setzero_ps(); P]; R], [[_mm256_setzero_ps(); P]; R]);
    for i in 0..k {
        let line = right.lines.at(i);
        // SAFETY: the caller promises that the line is there.
        let left: [_; P] = core::array::from_fn(|q| unsafe { _mm256_loadu_ps(data.add(bases[q] + line)) });
        // SAFETY: as above.
        let rest: [_; P] = core::array::from_fn(|q| unsafe { _mm256_loadu_ps(data.add(bases[q] + line + 8)) });
        for r in 0..R {
            // SAFETY: every row has `k` numbers, and `i` is less.
            let x = _mm256_set1_ps(unsafe { *rows[r].get_unchecked(i) });
            for q in 0..P {
                low[r][q] = _mm256_fmadd_ps(x, left[q], low[r][q]);
                high[r][q] = _mm256_fmadd_ps(x, rest[q], high[r][q]);
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
                    _mm256_storeu_ps(target.as_mut_ptr(), low[r][q]);
                    _mm256_storeu_ps(target.as_mut_ptr().add(8), high[r][q]);
                }
            } else {
                let mut sum = [0.0f32; PANEL];
                // SAFETY: the array has 16 places.
                unsafe {
                    _mm256_storeu_ps(sum.as_mut_ptr(), low[r][q]);
                    _mm256_storeu_ps(sum.as_mut_ptr().add(8), high[r][q]);
                }
                let width = PANEL.min(n - column);
                target[..width].copy_from_slice(&sum[..width]);
            }
        }
    }
}

fn tiles_portable<L: Lines>(lhs: &[f32], right: Right<'_, L>, out: &mut [f32]) {
    walk_tiles!(micro, lhs, right, out);
}

#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "indices that say what the intrinsics' version says")]
fn micro<const R: usize, const P: usize, L: Lines>(
    lhs: &[f32],
    right: Right<'_, L>,
    row: usize,
    p: usize,
    out: &mut [f32],
) {
    let (k, n) = (right.k, right.n);
    let rows: [&[f32]; R] = core::array::from_fn(|r| &lhs[(row + r) * k..(row + r + 1) * k]);
    let mut sums = [[[0.0f32; PANEL]; P]; R];
    for i in 0..k {
        let line = right.lines.at(i);
        for q in 0..P {
            let at = (p + q) * right.stride + line;
            let line = &right.data[at..at + PANEL];
            for r in 0..R {
                let x = rows[r][i];
                for lane in 0..PANEL {
                    sums[r][q][lane] = x.mul_add(line[lane], sums[r][q][lane]);
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

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|x| x.to_bits()).collect()
    }

    #[test]
    fn every_element_is_one_chain_of_fused_multiply_adds_in_order_of_k() {
        let sizes = [
            (1, 1, 1),
            (1, 64, 10),
            (1, 9, 130),
            (2, 5, 60),
            (3, 5, 40),
            (6, 7, 16),
            (7, 33, 17),
            (13, 129, 50),
            (2, 0, 3),
            (40, 3000, 20),
        ];
        for (m, k, n) in sizes {
            let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
            let packed = Packed::new(&b, k, n, n, 1);
            let mut out = vec![f32::NAN; m * n];
            matmul(&a, &packed, &mut out, 1);
            let mut spread = vec![f32::NAN; m * n];
            matmul(&a, &packed, &mut spread, 3);
            assert_eq!(bits(&out), bits(&spread), "threads: {m}x{k}x{n}");
            if k > 0 {
                let mut portable = vec![f32::NAN; m * n];
                let right = Right { data: &packed.panels, stride: k * PANEL, lines: Dense, k, n };
                tiles_portable(&a, right, &mut portable);
                assert_eq!(bits(&out), bits(&portable), "machine code for this CPU, and for any: {m}x{k}x{n}");
            }
            for i in 0..m {
                for j in 0..n {
                    let expected = (0..k).fold(0.0f32, |sum, l| a[i * k + l].mul_add(b[l * n + j], sum));
                    assert_eq!(out[i * n + j].to_bits(), expected.to_bits(), "{m}x{k}x{n} at {i},{j}");
                }
            }
        }
    }

    #[test]
    fn a_transposed_matrix_is_laid_out_alike_and_taps_read_where_they_say() {
        let (k, n) = (5, 23);
        let b = numbers(k * n, 3);
        let transposed: Vec<f32> = (0..n * k).map(|i| b[i % k * n + i / k]).collect();
        assert_eq!(bits(&Packed::new(&b, k, n, n, 1).panels), bits(&Packed::new(&transposed, k, n, 1, k).panels));
        let (data, taps, a) = (numbers(200, 4), [3, 0, 17, 60], numbers(3 * 4, 5));
        let mut out = vec![0.0; 3 * 37];
        matmul_taps(&a, &data, &taps, 37, &mut out, 1);
        for i in 0..3 {
            for j in 0..37 {
                let expected = (0..4).fold(0.0f32, |sum, l| a[i * 4 + l].mul_add(data[taps[l] + j], sum));
                assert_eq!(out[i * 37 + j].to_bits(), expected.to_bits());
            }
        }
    }
}
