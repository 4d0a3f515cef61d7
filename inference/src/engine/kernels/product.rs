//! Matrix products of other types than float32: the same chain over k, in the type that its numbers are computed in.

use super::vectorized;

/// What a product sums in.
pub(crate) trait Sum: Copy + Send + Sync {
    const ZERO: Self;
    /// `self + a · b`; fractions round once, integers wrap.
    fn add_product(self, a: Self, b: Self) -> Self;
}

macro_rules! sums {
    ($($t:ty: $f:expr, $zero:expr;)*) => {$(
        impl Sum for $t {
            const ZERO: Self = $zero;
            #[inline(always)]
            fn add_product(self, a: Self, b: Self) -> Self {
                let f: fn($t, $t, $t) -> $t = $f;
                f(self, a, b)
            }
        }
    )*};
}

sums! {
    f32: |s, a, b| a.mul_add(b, s), 0.0;
    f64: |s, a, b| a.mul_add(b, s), 0.0;
    i32: |s, a, b| s.wrapping_add(a.wrapping_mul(b)), 0;
    i64: |s, a, b| s.wrapping_add(a.wrapping_mul(b)), 0;
    u32: |s, a, b| s.wrapping_add(a.wrapping_mul(b)), 0;
    u64: |s, a, b| s.wrapping_add(a.wrapping_mul(b)), 0;
}

#[inline(always)]
fn rows<T: Sum>(lhs: &[T], rhs: &[T], k: usize, n: usize, out: &mut [T]) {
    if n == 0 {
        return;
    }
    for (i, row) in out.chunks_exact_mut(n).enumerate() {
        row.fill(T::ZERO);
        for (a, line) in lhs[i * k..(i + 1) * k].iter().zip(rhs.chunks_exact(n)) {
            for (sum, b) in row.iter_mut().zip(line) {
                *sum = sum.add_product(*a, *b);
            }
        }
    }
}

/// `lhs[m, k] × rhs[k, n]` to `out[m, n]`.
pub(crate) fn product<T: Sum>(lhs: &[T], rhs: &[T], k: usize, n: usize, out: &mut [T]) {
    rows(lhs, rhs, k, n, out);
}

vectorized! {
    /// [`product`] of float64.
    pub(crate) fn product_f64(lhs: &[f64], rhs: &[f64], k: usize, n: usize, out: &mut [f64]) {
        rows(lhs, rhs, k, n, out);
    }
}

vectorized! {
    /// [`product`] of int32, wrapping.
    pub(crate) fn product_i32(lhs: &[i32], rhs: &[i32], k: usize, n: usize, out: &mut [i32]) {
        rows(lhs, rhs, k, n, out);
    }
}
