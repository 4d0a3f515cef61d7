//! Where the elements of a view lie, and how they are put in order.

use super::elements::Element;

/// Row-major strides, in elements.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (0..shape.len().saturating_sub(1)).rev() {
        strides[axis] = strides[axis + 1] * shape[axis + 1];
    }
    strides
}

/// Elements of a strided array, of which there are some, row-major.
pub(super) fn lay_out<T: Element>(values: &[T], shape: &[usize], strides: &[usize], start: usize) -> Vec<T> {
    // Dimensions of one, and those that lie within the one before them as if they were one, are left out.
    let mut dims: Vec<(usize, usize)> = Vec::with_capacity(shape.len());
    for (size, stride) in shape.iter().zip(strides).filter(|(size, _)| **size != 1) {
        match dims.last_mut() {
            Some((outer, outer_stride)) if *outer_stride == size * stride => {
                (*outer, *outer_stride) = (*outer * size, *stride);
            }
            _ => dims.push((*size, *stride)),
        }
    }
    let mut out = vec![T::zeroed(); shape.iter().product()];
    match dims.as_slice() {
        [] => out[0] = values[start],
        [outer @ .., rows, columns] => {
            let block = rows.0 * columns.0;
            let mut blocks = out.chunks_exact_mut(block);
            let (shape, strides): (Vec<usize>, Vec<usize>) = outer.iter().copied().unzip();
            walk(&shape, &strides, start, &mut |at| {
                if let Some(out) = blocks.next() {
                    lay_out_matrix(values, *rows, *columns, at, out);
                }
            });
        }
        [column] => lay_out_matrix(values, (1, 0), *column, start, &mut out),
    }
    out
}

/// A matrix of rows and columns, each with their number and their stride, tile by tile: one side of it is read in leaps.
fn lay_out_matrix<T: Element>(
    values: &[T],
    (rows, row_stride): (usize, usize),
    (columns, column_stride): (usize, usize),
    start: usize,
    out: &mut [T],
) {
    const TILE: usize = 32;
    if column_stride == 1 {
        for (row, out) in out.chunks_exact_mut(columns).enumerate() {
            out.copy_from_slice(&values[start + row * row_stride..][..columns]);
        }
        return;
    }
    for first in (0..rows).step_by(TILE) {
        for left in (0..columns).step_by(TILE) {
            for row in first..(first + TILE).min(rows) {
                let from = start + row * row_stride;
                let tile = left..(left + TILE).min(columns);
                for (column, out) in tile.clone().zip(&mut out[row * columns..][tile]) {
                    *out = values[from + column * column_stride];
                }
            }
        }
    }
}

/// Calls `f` with the offset of each element of `shape`, in row-major order.
pub(crate) fn walk(shape: &[usize], strides: &[usize], offset: usize, f: &mut impl FnMut(usize)) {
    match (shape, strides) {
        ([size, shape @ ..], [stride, strides @ ..]) => {
            (0..*size).for_each(|i| walk(shape, strides, offset + i * stride, f));
        }
        _ => f(offset),
    }
}
