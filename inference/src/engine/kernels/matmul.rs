//! The matrix product. See the [module above](super) for the definition of its bits.

/// Columns of one panel: two AVX2 registers of f32, one AVX-512 register.
pub(crate) const PANEL: usize = 16;

/// Rows of the micro-kernel: 6 × 2 accumulators, 2 columns and 1 broadcast fill AVX2's 16 registers.
const ROWS: usize = 6;

/// A `[k, n]` matrix as panels of [`PANEL`] columns, each `[k, PANEL]`, padded with zeros.
#[derive(Debug)]
pub(crate) struct Packed {
    panels: Vec<f32>,
    k: usize,
    n: usize,
}

impl Packed {
    /// Lays out a row-major `[k, n]` matrix.
    pub(crate) fn new(matrix: &[f32], k: usize, n: usize) -> Self {
        Self::from_fn(k, n, |row, column| matrix[row * n + column])
    }

    /// Lays out the matrix of the elements `f(row, column)`.
    pub(crate) fn from_fn(k: usize, n: usize, f: impl Fn(usize, usize) -> f32) -> Self {
        let mut panels = vec![0.0; n.div_ceil(PANEL) * k * PANEL];
        for (p, panel) in panels.chunks_exact_mut((k * PANEL).max(1)).enumerate() {
            for (row, line) in panel.chunks_exact_mut(PANEL).enumerate() {
                for (lane, slot) in line.iter_mut().take(n - p * PANEL).enumerate() {
                    *slot = f(row, p * PANEL + lane);
                }
            }
        }
        Self { panels, k, n }
    }

    /// Bytes of the layout of a `[k, n]` matrix; `None` on overflow.
    pub(crate) fn bytes(k: usize, n: usize) -> Option<usize> {
        n.div_ceil(PANEL).checked_mul(PANEL)?.checked_mul(k)?.checked_mul(size_of::<f32>())
    }

    /// Columns.
    pub(crate) fn columns(&self) -> usize {
        self.n
    }
}

/// `lhs[m, k] × rhs[k, n]`, written to `out[m, n]`; all row-major.
pub(crate) fn matmul(lhs: &[f32], rhs: &Packed, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the CPU has the features that the function is compiled for.
        return unsafe { matmul_fma(lhs, rhs, out) };
    }
    matmul_portable(lhs, rhs, out);
}

/// Goes over the tiles of the output with a micro-kernel for each number of rows.
macro_rules! tiles {
    ($micro:ident, $lhs:ident, $rhs:ident, $out:ident) => {{
        let Packed { panels, k, n } = $rhs;
        let (k, n) = (*k, *n);
        if n == 0 {
            return;
        }
        let m = $out.len() / n;
        for row in (0..m).step_by(ROWS) {
            for p in 0..n.div_ceil(PANEL) {
                let panel = &panels[p * k * PANEL..(p + 1) * k * PANEL];
                let a = &$lhs[row * k..];
                let c = &mut $out[row * n + p * PANEL..];
                let width = PANEL.min(n - p * PANEL);
                match m - row {
                    1 => $micro::<1>(a, panel, k, c, n, width),
                    2 => $micro::<2>(a, panel, k, c, n, width),
                    3 => $micro::<3>(a, panel, k, c, n, width),
                    4 => $micro::<4>(a, panel, k, c, n, width),
                    5 => $micro::<5>(a, panel, k, c, n, width),
                    _ => $micro::<ROWS>(a, panel, k, c, n, width),
                }
            }
        }
    }};
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn matmul_fma(lhs: &[f32], rhs: &Packed, out: &mut [f32]) {
    tiles!(micro_fma, lhs, rhs, out);
}

/// By intrinsics, although the plain loop says the same: what the compiler makes of that keeps the sums on the stack, and
/// where the stack lies to the matrices then decides over a factor of three (stores and loads 4 KiB apart wait for each
/// other).
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn micro_fma<const R: usize>(a: &[f32], panel: &[f32], k: usize, c: &mut [f32], n: usize, width: usize) {
    use core::arch::x86_64::{_mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps};
    let rows: [&[f32]; R] = core::array::from_fn(|r| &a[r * k..(r + 1) * k]);
    let (lines, _) = panel.as_chunks::<PANEL>();
    let (mut low, mut high) = ([_mm256_setzero_ps(); R], [_mm256_setzero_ps(); R]);
    for (i, line) in lines[..k].iter().enumerate() {
        // SAFETY: a line has 16 numbers.
        let (left, right) = unsafe { (_mm256_loadu_ps(line.as_ptr()), _mm256_loadu_ps(line.as_ptr().add(8))) };
        for r in 0..R {
            // SAFETY: every row has `k` numbers, and `i` is less.
            let x = _mm256_set1_ps(unsafe { *rows[r].get_unchecked(i) });
            low[r] = _mm256_fmadd_ps(x, left, low[r]);
            high[r] = _mm256_fmadd_ps(x, right, high[r]);
        }
    }
    for r in 0..R {
        let mut sum = [0.0f32; PANEL];
        // SAFETY: the array has 16 numbers.
        unsafe {
            _mm256_storeu_ps(sum.as_mut_ptr(), low[r]);
            _mm256_storeu_ps(sum.as_mut_ptr().add(8), high[r]);
        }
        c[r * n..r * n + width].copy_from_slice(&sum[..width]);
    }
}

fn matmul_portable(lhs: &[f32], rhs: &Packed, out: &mut [f32]) {
    tiles!(micro, lhs, rhs, out);
}

#[inline(always)]
fn micro<const R: usize>(a: &[f32], panel: &[f32], k: usize, c: &mut [f32], n: usize, width: usize) {
    let rows: [&[f32]; R] = core::array::from_fn(|r| &a[r * k..(r + 1) * k]);
    let mut sums = [[0.0f32; PANEL]; R];
    let (lines, _) = panel.as_chunks::<PANEL>();
    for (i, line) in lines.iter().enumerate().take(k) {
        for r in 0..R {
            let x = rows[r][i];
            for lane in 0..PANEL {
                sums[r][lane] = x.mul_add(line[lane], sums[r][lane]);
            }
        }
    }
    for (r, sum) in sums.iter().enumerate() {
        c[r * n..r * n + width].copy_from_slice(&sum[..width]);
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

    #[test]
    fn every_element_is_one_chain_of_fused_multiply_adds_in_order_of_k() {
        for (m, k, n) in [(1, 1, 1), (1, 64, 10), (6, 7, 16), (7, 33, 17), (13, 129, 50), (2, 0, 3)] {
            let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
            let packed = Packed::new(&b, k, n);
            let (mut out, mut portable) = (vec![f32::NAN; m * n], vec![f32::NAN; m * n]);
            matmul(&a, &packed, &mut out);
            matmul_portable(&a, &packed, &mut portable);
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&out), bits(&portable), "machine code for this CPU, and for any: {m}x{k}x{n}");
            for i in 0..m {
                for j in 0..n {
                    let expected = (0..k).fold(0.0f32, |sum, l| a[i * k + l].mul_add(b[l * n + j], sum));
                    assert_eq!(out[i * n + j].to_bits(), expected.to_bits(), "{m}x{k}x{n} at {i},{j}");
                }
            }
        }
    }
}
