//! Exact products of matrices of bytes minus their zero points.
//!
//! The bytes are multiplied as they are, four at a time ([`Quad`]), and what the zero points make of the sums is added
//! afterwards: Σ (x − p)(w − q) = Σ xw − p Σ w − q Σ x + k p q. In arithmetic modulo 2^32 that is the same number.

use super::{
    matmul::{self, Packed, matmul},
    quant::{Byte, Finish, add_to_rows, finish_columns},
    term::Quad,
    vectorized,
};

/// What makes an int8 a number from 0 to 255, and a uint8 one from −128 to 127: its highest bit is turned, and 128 added
/// to, or taken from, the zero point.
const TURN: u8 = 0x80;

/// Numbers that are finished at a time before they are quantised, unless a row has more.
const FINISHED: usize = 2048;

/// The bytes of a matrix, as uint8 or as int8.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bytes<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) signed: bool,
}

/// A right-hand side `[k, n]`, laid out.
#[derive(Debug)]
pub(crate) struct ByteMatrix {
    packed: Packed<Quad>,
    k: usize,
    /// Of each column, as laid out.
    column_sums: Vec<i32>,
    /// Of each column, as laid out; empty: all are zero.
    zeros: Vec<i32>,
}

impl ByteMatrix {
    /// Lays out the matrix whose element (row, column) is at `row · strides.0 + column · strides.1`. Zero points are one for
    /// all, or one for each column.
    pub(crate) fn new(matrix: Bytes<'_>, zeros: &[i32], k: usize, n: usize, strides: (usize, usize)) -> Self {
        let turn = if matrix.signed { 0 } else { TURN };
        let at = |row: usize, column: usize| matrix.bytes[row * strides.0 + column * strides.1] ^ turn;
        let quad = |row: usize, column: usize| {
            Quad::new([0, 1, 2, 3].map(|i| if 4 * row + i < k { at(4 * row + i, column) } else { 0 }))
        };
        // Row by row where rows lie together.
        let mut column_sums = vec![0i32; n];
        if strides.1 == 1 {
            for row in 0..k {
                let row = &matrix.bytes[row * strides.0..][..n];
                for (sum, x) in column_sums.iter_mut().zip(row) {
                    *sum = sum.wrapping_add(i32::from((x ^ turn) as i8));
                }
            }
        } else {
            for (column, sum) in column_sums.iter_mut().enumerate() {
                *sum = (0..k).fold(0, |sum, row| sum.wrapping_add(i32::from(at(row, column) as i8)));
            }
        }
        let zero = |column: usize| {
            let zero = if zeros.len() == 1 { zeros[0] } else { zeros[column] };
            zero.wrapping_sub(if matrix.signed { 0 } else { i32::from(TURN) })
        };
        let zeros: Vec<i32> = (0..n).map(zero).collect();
        let zeros = if zeros.iter().all(|zero| *zero == 0) { vec![] } else { zeros };
        Self { packed: Packed::of(k.div_ceil(4), n, quad), k, column_sums, zeros }
    }

    /// What it costs to lay a `[k, n]` matrix out in a run, saturating: twice what float32 costs, four at a time and summed.
    pub(crate) fn laying_out(k: usize, n: usize) -> u64 {
        matmul::laying_out(k, n).saturating_mul(2)
    }

    /// Bytes that it takes, saturating.
    pub(crate) fn bytes(k: usize, n: usize) -> u64 {
        Packed::<Quad>::bytes(k.div_ceil(4), n).saturating_add((n as u64).saturating_mul(8))
    }

    /// `left[m, k]`, row-major, minus its zero point, times this one minus its own, written to `out[m, n]`.
    pub(crate) fn product(&self, (left, zero): (Bytes<'_>, i32), out: &mut [i32], threads: usize) {
        let mut quads = vec![0; quads_of(left.bytes.len(), self.k)];
        let offsets = self.sums(left, zero, &mut quads, out, threads);
        add_to_rows(out, &offsets);
    }

    /// [`Self::product`] with what becomes of it. `scratch` has room for [`Self::scratch`].
    pub(crate) fn finished(
        &self,
        (left, zero): (Bytes<'_>, i32),
        finish: Finish<'_>,
        scratch: &mut [i32],
        out: &mut [f32],
        threads: usize,
    ) {
        let (sums, quads) = scratch.split_at_mut(out.len());
        let addend = added(self.sums(left, zero, quads, sums, threads), finish.addend);
        finish_columns(sums, self.packed.columns(), Finish { addend: &addend, ..finish }, out);
    }

    /// [`Self::finished`], and quantised by a scale and a zero point of its type. `scratch` has room for [`Self::scratch`].
    pub(crate) fn quantized<T: Byte>(
        &self,
        (left, zero): (Bytes<'_>, i32),
        finish: Finish<'_>,
        (scale, to): (f32, i32),
        scratch: &mut [i32],
        out: &mut [T],
        threads: usize,
    ) {
        let n = self.packed.columns();
        let (sums, quads) = scratch.split_at_mut(out.len());
        let addend = added(self.sums(left, zero, quads, sums, threads), finish.addend);
        let finish = Finish { addend: &addend, ..finish };
        // What is between them stays in the nearest cache.
        let mut numbers = vec![0.0; (FINISHED / n.max(1)).max(1) * n];
        let some = numbers.len().max(1);
        for (sums, out) in sums.chunks(some).zip(out.chunks_mut(some)) {
            let numbers = &mut numbers[..sums.len()];
            finish_columns(sums, n, finish, numbers);
            T::quantize(numbers, scale, to, out);
        }
    }

    /// Numbers of 32 bits that [`Self::finished`] needs for a left-hand side of `[m, k]` and a right-hand side of `[k, n]`,
    /// saturating.
    pub(crate) fn scratch(m: usize, k: usize, n: usize) -> usize {
        m.saturating_mul(n.saturating_add(k.div_ceil(4)))
    }

    /// The product but for a row that has yet to be added to each; empty: there is none.
    fn sums(&self, left: Bytes<'_>, zero: i32, scratch: &mut [i32], out: &mut [i32], threads: usize) -> Vec<i32> {
        let (k, n) = (self.k, self.packed.columns());
        let turn = if left.signed { TURN } else { 0 };
        let zero = zero.wrapping_add(i32::from(turn));
        let quads = &mut Quad::over(scratch)[..quads_of(left.bytes.len(), k)];
        lay_out(left.bytes, k, turn, quads);
        matmul(quads, &self.packed, out, threads);
        if n == 0 {
            return vec![];
        }
        if !self.zeros.is_empty() {
            for (row, out) in left.bytes.chunks_exact(k.max(1)).zip(out.chunks_exact_mut(n)) {
                let sum = row.iter().fold(0i32, |sum, x| sum.wrapping_add(i32::from(*x ^ turn)));
                // With the row's share of k · p · q.
                let sum = sum.wrapping_sub((k as i32).wrapping_mul(zero));
                out.iter_mut().zip(&self.zeros).for_each(|(out, q)| *out = out.wrapping_sub(q.wrapping_mul(sum)));
            }
        }
        if zero == 0 {
            return vec![];
        }
        self.column_sums.iter().map(|sum| sum.wrapping_mul(zero).wrapping_neg()).collect()
    }
}

/// The sum of two rows, wrapping, of which either may be empty.
fn added(mut row: Vec<i32>, other: &[i32]) -> Vec<i32> {
    if row.is_empty() {
        return other.to_vec();
    }
    row.iter_mut().zip(other).for_each(|(x, y)| *x = x.wrapping_add(*y));
    row
}

/// Quads that rows of `k` bytes become.
fn quads_of(bytes: usize, k: usize) -> usize {
    bytes.checked_div(k).unwrap_or(0) * k.div_ceil(4)
}

/// Rows of `k` bytes as quads, each filled up with zeros.
fn lay_out(bytes: &[u8], k: usize, turn: u8, out: &mut [Quad]) {
    if k.is_multiple_of(4) {
        return turned_quads(bytes, turn, out);
    }
    for (row, out) in bytes.chunks_exact(k).zip(out.chunks_exact_mut(k.div_ceil(4))) {
        let (whole, rest) = row.as_chunks::<4>();
        turned_quads(whole.as_flattened(), turn, out);
        // The right-hand side has zeros there.
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        if let Some(out) = out.last_mut() {
            *out = Quad::new(last.map(|x| x ^ turn));
        }
    }
}

vectorized! {
    fn turned_quads(bytes: &[u8], turn: u8, out: &mut [Quad]) {
        for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *out = Quad::new([bytes[0] ^ turn, bytes[1] ^ turn, bytes[2] ^ turn, bytes[3] ^ turn]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_the_exact_sum_of_centred_products() {
        let mut random = crate::engine::sample::random(7);
        for round in 0..400 {
            let (m, k, n) = (random(14), random(41), 1 + random(70));
            let mut bytes = |count: usize| (0..count).map(|_| random(256) as u8).collect::<Vec<u8>>();
            let (a, b) = (bytes(m * k), bytes(k * n));
            let (a_signed, b_signed) = (round % 2 == 0, round % 3 == 0);
            let number = |x: u8, signed: bool| if signed { i64::from(x as i8) } else { i64::from(x) };
            let a_zero = [0, -128, 128, 255, 3][round % 5];
            let zeros: Vec<i32> = match round % 4 {
                0 => vec![0],
                1 => vec![128],
                2 => vec![-5],
                _ => (0..n).map(|_| random(256) as i32 - 100).collect(),
            };
            let turned = round % 7 < 3;
            let strides = if turned { (1, k) } else { (n, 1) };
            let matrix = ByteMatrix::new(Bytes { bytes: &b, signed: b_signed }, &zeros, k, n, strides);
            let mut out = vec![77; m * n];
            matrix.product((Bytes { bytes: &a, signed: a_signed }, a_zero), &mut out, 1 + round % 2);
            for (i, found) in out.iter().enumerate() {
                let (row, column) = (i / n, i % n);
                let zero = i64::from(zeros[if zeros.len() == 1 { 0 } else { column }]);
                let term = |l: usize| {
                    let w = number(b[l * strides.0 + column * strides.1], b_signed);
                    (number(a[row * k + l], a_signed) - i64::from(a_zero)) * (w - zero)
                };
                assert_eq!(i64::from(*found), (0..k).map(term).sum::<i64>(), "round {round}: {m}x{k}x{n} at {i}");
            }
        }
    }
}
