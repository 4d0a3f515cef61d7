//! The matrix product of float32, and of small integers; and convolution, which is one.
//!
//! An element (i, j) of float32 is one chain of fused multiply-adds over k in increasing order, starting from +0.0. Lanes,
//! tiles, blocks and threads run across rows and columns, never across k, so none of them can change a bit. Integers are
//! exact whatever their order; theirs is the same.

pub(crate) use super::tiles::PANEL;
use super::{
    term::Term,
    tiles::{Columns, Dense, Left, Lines, Neighbours, Piece, Place, Right, TILE, Table, reads_anywhere, tiles},
};
use crate::engine::{
    places::Places,
    threads::{divided, part, share},
};

/// Cost of an element of float32 that is laid out in a run.
const LAID_OUT_OPS: u64 = 8;

/// What it costs to lay a `[k, n]` matrix out in a run, saturating. Zeros at the ends of panels are elements, too: as many as
/// there may be, so that this is a polynomial of the sizes.
pub(crate) fn laying_out(k: usize, n: usize) -> u64 {
    let columns = (n as u64).saturating_add(PANEL as u64 - 1);
    columns.saturating_mul(k as u64).saturating_mul(LAID_OUT_OPS)
}

/// A `[k, n]` matrix as panels of [`PANEL`] columns, each `[k, PANEL]`, padded with zeros.
#[derive(Debug)]
pub(crate) struct Packed<T = f32> {
    panels: Vec<T>,
    k: usize,
    n: usize,
}

impl<T: Term> Packed<T> {
    /// Lays out the matrix whose element (row, column) is `element(row, column)`.
    pub(crate) fn of(k: usize, n: usize, element: impl Fn(usize, usize) -> T) -> Self {
        let mut panels = vec![T::default(); n.div_ceil(PANEL) * k * PANEL];
        for (p, panel) in panels.chunks_exact_mut((k * PANEL).max(1)).enumerate() {
            let width = PANEL.min(n - p * PANEL);
            for (row, line) in panel.chunks_exact_mut(PANEL).enumerate() {
                line[..width].iter_mut().enumerate().for_each(|(lane, slot)| *slot = element(row, p * PANEL + lane));
            }
        }
        Self { panels, k, n }
    }

    /// Bytes of the layout of a `[k, n]` matrix, saturating.
    pub(crate) fn bytes(k: usize, n: usize) -> u64 {
        (n.div_ceil(PANEL) as u64).saturating_mul((PANEL * size_of::<T>()) as u64).saturating_mul(k as u64)
    }

    pub(crate) fn columns(&self) -> usize {
        self.n
    }

    pub(crate) fn rows(&self) -> usize {
        self.k
    }

    /// The lines of a panel.
    #[inline(always)]
    pub(super) fn panel(&self, p: usize) -> &[T] {
        &self.panels[p * self.k * PANEL..][..self.k * PANEL]
    }
}

impl Packed {
    /// Lays out the matrix whose element (row, column) is at `row · row_stride + column · column_stride`.
    pub(crate) fn new(matrix: &[f32], k: usize, n: usize, row_stride: usize, column_stride: usize) -> Self {
        if column_stride != 1 && row_stride == 1 {
            // A transposed one: what is read from memory in order is a column.
            let mut panels = vec![0.0; n.div_ceil(PANEL) * k * PANEL];
            for (p, panel) in panels.chunks_exact_mut((k * PANEL).max(1)).enumerate() {
                let (lines, _) = panel.as_chunks_mut::<PANEL>();
                for lane in 0..PANEL.min(n - p * PANEL) {
                    let column = &matrix[(p * PANEL + lane) * column_stride..][..k];
                    lines.iter_mut().zip(column).for_each(|(line, x)| line[lane] = *x);
                }
            }
            return Self { panels, k, n };
        }
        if column_stride != 1 {
            return Self::of(k, n, |row, column| matrix[row * row_stride + column * column_stride]);
        }
        let panel_count = n.div_ceil(PANEL);
        let mut panels = Vec::with_capacity(panel_count * k * PANEL);
        for p in 0..panel_count {
            let width = PANEL.min(n - p * PANEL);
            for row in 0..k {
                let from = row * row_stride + p * PANEL;
                match matrix[from..from + width].first_chunk::<PANEL>() {
                    Some(line) => panels.extend_from_slice(line),
                    None => {
                        panels.extend_from_slice(&matrix[from..from + width]);
                        panels.resize(panels.len() + PANEL - width, 0.0);
                    }
                }
            }
        }
        Self { panels, k, n }
    }
}

/// Lays out the rows of `[m, k]` for [`matmul_taps`]: six rows at a time (the rest in the end), element by element, so that
/// a tile reads them one after another.
pub(crate) fn stripes<T: Term>(rows: &[T], k: usize, out: &mut Vec<T>) {
    for tile in rows.chunks((TILE * k).max(1)) {
        for i in 0..k {
            out.extend(tile[i..].iter().step_by(k));
        }
    }
}

/// `lhs[m, k] × rhs[k, n]`, written to `out[m, n]`; all row-major.
pub(crate) fn matmul<T: Term>(lhs: &[T], rhs: &Packed<T>, out: &mut [T::Sum], threads: usize) {
    matmul_strided(lhs, rhs.k, rhs, out, threads);
}

/// [`matmul`] with rows of the left-hand side that begin `stride` elements apart.
pub(crate) fn matmul_strided<T: Term>(lhs: &[T], stride: usize, rhs: &Packed<T>, out: &mut [T::Sum], threads: usize) {
    let (k, n) = (rhs.k, rhs.n);
    let rows = out.len().checked_div(n).unwrap_or(0);
    let columns = Neighbours { first: 0, stride: k * PANEL, n };
    let right = Right { data: &rhs.panels, columns, lines: Dense, k, apart: n };
    let left = Left::<T, false> { data: lhs, stride, rows, bias: &[], rectified: false };
    // SAFETY: what `product` promises is what is asked for.
    product(left, right, out, threads, |lhs, right, panels, out| unsafe { tiles(lhs, right, panels, out) });
}

/// The columns of a product by [`matmul_taps`], as panels: image rows of `width` outputs, which begin `apart` elements from
/// each other in the data. Each image row has panels of its own, whose last may be narrow; or panels go on from row to row,
/// where that makes them fewer by far, and what lies between the outputs of two rows is computed for nothing.
#[derive(Debug)]
pub(crate) struct Lined {
    panels: Vec<(usize, Place)>,
    /// Those of all panels, if they go on.
    pieces: Vec<Piece>,
    /// Where the pieces of each panel end.
    ends: Vec<usize>,
}

impl Lined {
    pub(crate) fn new(height: usize, width: usize, apart: usize) -> Self {
        let each = width.div_ceil(PANEL);
        let all = (height.saturating_sub(1) * apart + width).div_ceil(PANEL);
        if width == 0 || height * each <= all + all / 8 {
            let panels = (0..height).flat_map(|y| (0..each).map(move |q| (y, q * PANEL)));
            let panel = |(y, x): (usize, usize)| {
                let place = Place::Together { column: y * width + x, width: PANEL.min(width - x) };
                (y * apart + x, place)
            };
            return Self { panels: panels.map(panel).collect(), pieces: vec![], ends: vec![] };
        }
        let (mut pieces, mut ends) = (Vec::<Piece>::new(), Vec::with_capacity(all));
        for p in 0..all {
            let first = pieces.len();
            for lane in 0..PANEL {
                let (y, x) = ((p * PANEL + lane) / apart, (p * PANEL + lane) % apart);
                if y >= height || x >= width {
                    continue;
                }
                let column = y * width + x;
                match pieces[first..].last_mut() {
                    Some(last) if last.lane + last.width == lane => last.width += 1,
                    _ => pieces.push(Piece { lane, width: 1, column }),
                }
            }
            ends.push(pieces.len());
        }
        Self { panels: (0..all).map(|p| (p * PANEL, Place::Apart)).collect(), pieces, ends }
    }

    #[inline(always)]
    fn pieces_of(&self, p: usize) -> &[Piece] {
        match self.ends.get(p) {
            Some(end) => &self.pieces[if p == 0 { 0 } else { self.ends[p - 1] }..*end],
            None => &[],
        }
    }
}

impl Columns for &Lined {
    fn panels(self) -> usize {
        self.panels.len()
    }

    #[inline(always)]
    fn at(self, p: usize) -> usize {
        self.panels[p].0
    }

    fn last(self) -> usize {
        self.panels.last().map_or(0, |(at, _)| *at)
    }

    #[inline(always)]
    fn place(self, p: usize) -> Place {
        self.panels[p].1
    }

    #[inline(always)]
    fn pieces(&self, p: usize) -> &[Piece] {
        self.pieces_of(p)
    }
}

/// The left-hand side of [`matmul_taps`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a, T: Term> {
    /// As [`stripes`].
    pub(crate) stripes: &'a [T],
    /// How many.
    pub(crate) count: usize,
    /// Added to the finished sums of each; empty: nothing is.
    pub(crate) bias: &'a [T::Sum],
    /// Whether sums that are less than zero become zero in the end.
    pub(crate) rectified: bool,
}

/// Rows of `taps` elements times the matrix whose column that begins at `j` has in row i the element `data[taps[i] + j]`.
/// Rows of `out` begin `apart` elements from each other. `data` must reach [`PANEL`] elements beyond the last one that is
/// used.
pub(crate) fn matmul_taps<T: Term>(
    rows: Rows<'_, T>,
    data: &[T],
    taps: &[usize],
    columns: &Lined,
    (out, apart): (&mut [T::Sum], usize),
    threads: usize,
) {
    let k = taps.len();
    let Rows { stripes, count, bias, rectified } = rows;
    let left = Left::<T, true> { data: stripes, stride: k, rows: count, bias, rectified };
    let right = Right { data, columns, lines: Table(taps), k, apart };
    // SAFETY: what `product` promises is what is asked for.
    product(left, right, out, threads, |lhs, right, panels, out| unsafe {
        if lhs.rows < GATHERED_ROWS || reads_anywhere() {
            tiles(lhs, right, panels, out);
        } else {
            gathered(lhs, right, panels, out);
        }
    });
}

/// Multiply-adds of a product that is worth other threads.
pub(crate) const SPREAD: u64 = 1 << 21;
/// Calls `tiles` for all of the output: for some rows and panels at a time, whose operands have the sizes that their shapes
/// say, and whose places in the output nobody else uses meanwhile.
fn product<T: Term, L: Lines + Send + Sync, C: Columns + Send + Sync, const S: bool>(
    lhs: Left<'_, T, S>,
    right: Right<'_, T, L, C>,
    out: &mut [T::Sum],
    threads: usize,
    tiles: impl Fn(Left<'_, T, S>, Right<'_, T, L, C>, (usize, usize), Places<'_, T::Sum>) + Sync,
) {
    let (k, m, panels) = (right.k, lhs.rows, right.columns.panels());
    if m == 0 || panels == 0 {
        return;
    }
    if k == 0 {
        // Nobody calls with a bias and without terms.
        out.fill(T::Sum::default());
        return;
    }
    // What the micro-kernels read without looking.
    let (last, reach) = (right.columns.last(), right.lines.reach(k));
    let left = (m - 1).checked_mul(lhs.stride).and_then(|begin| begin.checked_add(k));
    let behind = last.checked_add(reach).and_then(|begin| begin.checked_add(PANEL));
    let enough = left.is_some_and(|len| lhs.data.len() >= len) && behind.is_some_and(|len| right.data.len() >= len);
    assert!(enough, "operands are smaller than their shapes");
    let out = Places::new(out);
    let work = (m as u64).saturating_mul(k as u64).saturating_mul((panels * PANEL) as u64);
    if threads <= 1 || work <= SPREAD {
        return tiles(lhs, right, (0, panels), out);
    }
    // Of the larger operand a thread reads some parts alone.
    let (tall, wide) = (m.div_ceil(TILE), panels.div_ceil(WIDE));
    let (rows, columns) = if m > panels * PANEL {
        divided(threads, tall, wide)
    } else {
        let (columns, rows) = divided(threads, wide, tall);
        (rows, columns)
    };
    share(threads, rows * columns, &|i| {
        let (from, to) = part(i / columns, rows, tall);
        let (first, to) = (from * TILE, m.min(to * TILE));
        let bias = lhs.bias.get(first..).unwrap_or_default();
        let lhs = Left::<T, S> { data: &lhs.data[first * lhs.stride..], rows: to - first, bias, ..lhs };
        let (from, to) = part(i % columns, columns, wide);
        tiles(lhs, right, (from * WIDE, panels.min(to * WIDE)), out.from(first * right.apart));
    });
}

/// Panels that the micro-kernels take at a time, at most.
const WIDE: usize = 4;

/// Rows from which it pays to gather a panel's lines first: unaligned loads cost more than a copy. Not where a line is used
/// for as many sums as with AVX-512 ([`reads_anywhere`]).
const GATHERED_ROWS: usize = 8 * TILE;
/// Bytes of rows that are gone over for each gathered panel.
const GATHERED_BYTES: usize = 512 << 10;

/// Panels of [`Lined`] columns whose lines were gathered: `first` is the one that they begin with.
#[derive(Clone, Copy)]
struct Gathered<'a> {
    columns: &'a Lined,
    first: usize,
    stride: usize,
}

impl Columns for Gathered<'_> {
    fn panels(self) -> usize {
        self.columns.panels()
    }

    #[inline(always)]
    fn at(self, p: usize) -> usize {
        (p - self.first) * self.stride
    }

    fn last(self) -> usize {
        self.columns.panels().saturating_sub(1) * self.stride
    }

    #[inline(always)]
    fn place(self, p: usize) -> Place {
        self.columns.place(p)
    }

    #[inline(always)]
    fn pieces(&self, p: usize) -> &[Piece] {
        self.columns.pieces_of(p)
    }
}

/// [`tiles`] of many rows with lines anywhere: some panels at a time, gathered.
///
/// # Safety
/// As [`tiles`].
unsafe fn gathered<T: Term>(
    lhs: Left<'_, T, true>,
    right: Right<'_, T, Table<'_>, &Lined>,
    (begin, end): (usize, usize),
    out: Places<'_, T::Sum>,
) {
    let k = right.k;
    let block = (GATHERED_BYTES / 4 / k).max(GATHERED_ROWS).next_multiple_of(TILE);
    let mut gathered = vec![T::default(); WIDE.min(end - begin) * k * PANEL];
    for first_row in (0..lhs.rows).step_by(block) {
        let rows = block.min(lhs.rows - first_row);
        let data = &lhs.data[first_row * k..][..rows * k];
        let lhs = Left { data, rows, bias: lhs.bias.get(first_row..).unwrap_or_default(), ..lhs };
        let out = out.from(first_row * right.apart);
        for first in (begin..end).step_by(WIDE) {
            let count = (end - first).min(WIDE);
            for (p, panel) in gathered.chunks_exact_mut(k * PANEL).take(count).enumerate() {
                let begin = right.columns.at(first + p);
                for (line, at) in panel.as_chunks_mut::<PANEL>().0.iter_mut().zip(right.lines.0) {
                    line.copy_from_slice(&right.data[begin + at..][..PANEL]);
                }
            }
            let columns = Gathered { columns: right.columns, first, stride: k * PANEL };
            let right = Right { data: &gathered, columns, lines: Dense, k, apart: right.apart };
            // SAFETY: as promised.
            unsafe { tiles(lhs, right, (first, first + count), out) }
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "x86_64")]
    use super::super::{has_avx2, tiles::tiles_avx2};
    use super::{
        super::{
            term::{Pair, Quad},
            tiles::tiles_portable,
        },
        *,
    };
    use crate::engine::sample::{bits, numbers};

    /// What the machine code for any CPU gives, and that for AVX2, which a CPU with AVX-512 does not choose.
    fn otherwise<T: Term, L: Lines, C: Columns, const S: bool>(
        lhs: Left<'_, T, S>,
        right: Right<'_, T, L, C>,
    ) -> Vec<Vec<T::Sum>> {
        let panels = (0, right.columns.panels());
        let mut outs = vec![vec![T::Sum::default(); lhs.rows * right.apart]; 2];
        // SAFETY: the caller's operands are of the right sizes.
        unsafe { tiles_portable(lhs, right, panels, Places::new(&mut outs[0])) };
        #[cfg(target_arch = "x86_64")]
        if has_avx2() {
            // SAFETY: the CPU has the features, and the caller's operands are of the right sizes.
            unsafe { tiles_avx2(lhs, right, panels, Places::new(&mut outs[1])) };
            return outs;
        }
        outs.truncate(1);
        outs
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
            (1, 20, 200),
            (2, 11, 100),
            (6, 9, 130),
            (11, 8, 105),
            (2, 0, 3),
            (40, 3000, 20),
            (13, 300, 70),
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
                let columns = Neighbours { first: 0, stride: k * PANEL, n };
                let right = Right { data: &packed.panels, columns, lines: Dense, k, apart: n };
                for other in
                    otherwise(Left::<_, false> { data: &a, stride: k, rows: m, bias: &[], rectified: false }, right)
                {
                    assert_eq!(bits(&out), bits(&other), "machine code for this CPU, and for others: {m}x{k}x{n}");
                }
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
    fn pairs_of_integers_give_the_exact_sum_wrapping() {
        for (m, k, n) in
            [(1, 1, 1), (1, 5, 170), (7, 33, 17), (13, 20, 50), (6, 0, 4), (3, 8, 37), (6, 4, 100), (7, 1100, 70)]
        {
            let small = |count, seed| -> Vec<i16> { numbers(count, seed).iter().map(|x| (x * 255.9) as i16).collect() };
            let (mut a, mut b) = (small(m * k, 1), small(k * n, 2));
            // The greatest there are, too.
            a.iter_mut().chain(&mut b).step_by(7).for_each(|x| *x = i16::MIN);
            let half = k.div_ceil(2);
            let at = |list: &[i16], i: usize| list.get(i).copied().unwrap_or(0);
            let rows: Vec<Pair> = a
                .chunks(k.max(1))
                .flat_map(|row| (0..half).map(|i| Pair::new(row[2 * i], at(row, 2 * i + 1))))
                .collect();
            let line = |i: usize, j: usize| if i < k { b[i * n + j] } else { 0 };
            let packed = Packed::of(half, n, |i, j| Pair::new(line(2 * i, j), line(2 * i + 1, j)));
            let mut out = vec![7; m * n];
            matmul(&rows, &packed, &mut out, 1);
            let columns = Neighbours { first: 0, stride: half * PANEL, n };
            let right = Right { data: &packed.panels, columns, lines: Dense, k: half, apart: n };
            if k > 0 {
                for other in otherwise(
                    Left::<_, false> { data: &rows, stride: half, rows: m, bias: &[], rectified: false },
                    right,
                ) {
                    assert_eq!(out, other, "machine code for this CPU, and for others: {m}x{k}x{n}");
                }
            }
            for (at, sum) in out.iter().enumerate() {
                let (i, j) = (at / n, at % n);
                let product = |l: usize| i32::from(a[i * k + l]).wrapping_mul(i32::from(b[l * n + j]));
                assert_eq!(*sum, (0..k).fold(0i32, |sum, l| sum.wrapping_add(product(l))), "{m}x{k}x{n} at {i},{j}");
            }
        }
    }

    #[test]
    fn quads_of_bytes_give_the_exact_sum() {
        for (m, quads, n) in [(1, 1, 1), (1, 5, 170), (7, 33, 17), (13, 20, 50), (6, 4, 100), (7, 300, 70)] {
            let bytes = |count: usize, seed| -> Vec<[u8; 4]> {
                let bytes: Vec<u8> = numbers(4 * count, seed).iter().map(|x| (x * 127.9 + 128.0) as u8).collect();
                // The greatest there are, too: their products do not fit 16 bits.
                let great = |(i, x): (usize, &u8)| if i % 3 == 0 { 255 } else { *x };
                bytes.iter().enumerate().map(great).collect::<Vec<u8>>().as_chunks().0.to_vec()
            };
            let (a, mut b) = (bytes(m * quads, 1), bytes(quads * n, 2));
            b.iter_mut().for_each(|quad| quad[0] = 0x80);
            let rows: Vec<Quad> = a.iter().map(|bytes| Quad::new(*bytes)).collect();
            let packed = Packed::of(quads, n, |i, j| Quad::new(b[i * n + j]));
            let mut out = vec![7; m * n];
            matmul(&rows, &packed, &mut out, 1);
            let columns = Neighbours { first: 0, stride: quads * PANEL, n };
            let right = Right { data: &packed.panels, columns, lines: Dense, k: quads, apart: n };
            for other in
                otherwise(Left::<_, false> { data: &rows, stride: quads, rows: m, bias: &[], rectified: false }, right)
            {
                assert_eq!(out, other, "machine code for this CPU, and for others: {m}x{quads}x{n}");
            }
            for (at, sum) in out.iter().enumerate() {
                let (i, j) = (at / n, at % n);
                let product = |l: usize| {
                    let pairs = a[i * quads + l].into_iter().zip(b[l * n + j]);
                    pairs.map(|(x, w)| i32::from(x) * i32::from(w as i8)).sum::<i32>()
                };
                assert_eq!(*sum, (0..quads).map(product).sum::<i32>(), "{m}x{quads}x{n} at {i},{j}");
            }
        }
    }

    #[test]
    fn rows_may_lie_apart() {
        let (m, k, n, stride) = (14, 9, 21, 30);
        let (a, b) = (numbers((m - 1) * stride + k, 6), numbers(k * n, 7));
        let dense: Vec<f32> = (0..m).flat_map(|i| a[i * stride..][..k].to_vec()).collect();
        let packed = Packed::new(&b, k, n, n, 1);
        let (mut out, mut expected) = (vec![0.0; m * n], vec![0.0; m * n]);
        matmul_strided(&a, stride, &packed, &mut out, 2);
        matmul(&dense, &packed, &mut expected, 1);
        assert_eq!(bits(&out), bits(&expected));
    }

    #[test]
    fn a_transposed_matrix_is_laid_out_alike_and_taps_read_where_they_say() {
        let (k, n) = (5, 23);
        let b = numbers(k * n, 3);
        let transposed: Vec<f32> = (0..n * k).map(|i| b[i % k * n + i / k]).collect();
        assert_eq!(bits(&Packed::new(&b, k, n, n, 1).panels), bits(&Packed::new(&transposed, k, n, 1, k).panels));
        let few = vec![3, 0, 17, 60];
        let many: Vec<usize> = (0..600).map(|i| i * 37 % 101).collect();
        // Image rows of their own panels, and such that share them.
        let images = [(1, 70, 70), (3, 30, 31), (5, 7, 9), (2, 16, 20)];
        let sizes = [1, 2, 3, 6, 11, 24, 77].into_iter().flat_map(|m| [(m, &few), (m, &many)]);
        for ((m, taps), (height, width, apart)) in sizes.flat_map(|size| images.map(|image| (size, image))) {
            let (data, k, n) = (numbers(300, 4), taps.len(), height * width);
            let (a, bias) = (numbers(m * k, 5), numbers(m, 6));
            // What lies between the rows of the output stays as it was.
            let stride = n + 3;
            let mut out = vec![7.0; m * stride];
            let mut rows = vec![];
            stripes(&a, k, &mut rows);
            let columns = Lined::new(height, width, apart);
            let left = Rows { stripes: &rows, count: m, bias: &bias, rectified: m % 2 == 0 };
            matmul_taps(left, &data, taps, &columns, (&mut out, stride), 1);
            let (left, right) = (
                Left { data: &rows, stride: k, rows: m, bias: &bias, rectified: m % 2 == 0 },
                Right { data: &data, columns: &columns, lines: Table(taps), k, apart: stride },
            );
            let mut others = otherwise(left, right);
            others.push(vec![0.0; m * stride]);
            // SAFETY: the operands are of the right sizes.
            unsafe { gathered(left, right, (0, columns.panels()), Places::new(others.last_mut().unwrap())) };
            for i in 0..m {
                for j in 0..n {
                    let at = j / width * apart + j % width;
                    let sum = (0..k).fold(0.0f32, |sum, l| a[i * k + l].mul_add(data[taps[l] + at], sum)) + bias[i];
                    let sum = if m % 2 == 0 && sum < 0.0 { 0.0 } else { sum };
                    assert_eq!(out[i * stride + j].to_bits(), sum.to_bits(), "{height}x{width}, {m} rows");
                    for other in &others {
                        assert_eq!(other[i * stride + j].to_bits(), sum.to_bits(), "{height}x{width}, {m} rows");
                    }
                }
                assert_eq!(out[i * stride + n..][..3], [7.0; 3]);
            }
        }
    }
}
