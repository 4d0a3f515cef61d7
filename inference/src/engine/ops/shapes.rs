//! Shapes: broadcasting, axes, and loops over broadcast operands.

use crate::engine::{array::Array, cx::Stop, elements::Element, layout::strides, threads::pieces, value::count};

/// The shape that shapes broadcast to (ONNX "multidirectional broadcasting").
pub(crate) fn broadcast(shapes: &[&[usize]]) -> Result<Vec<usize>, Stop> {
    let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
    let mut out = vec![1; rank];
    for shape in shapes {
        for (slot, dim) in out[rank - shape.len()..].iter_mut().zip(*shape) {
            *slot = match (*slot, *dim) {
                (a, b) if a == b => a,
                (1, b) => b,
                (a, 1) => a,
                _ => return Err(Stop::invalid(format!("shapes {shapes:?} do not broadcast"))),
            };
        }
    }
    Ok(out)
}

/// An axis from −rank to rank − 1 as an index.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize, Stop> {
    let index = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(index)
        .ok()
        .filter(|index| *index < rank)
        .ok_or_else(|| Stop::invalid(format!("axis {axis} is out of bounds for rank {rank}")))
}

/// Axes as sorted indices, each once.
pub(crate) fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>, Stop> {
    let mut out = list.iter().map(|a| axis(*a, rank)).collect::<Result<Vec<_>, _>>()?;
    out.sort_unstable();
    if out.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Stop::invalid(format!("axes {list:?} name one twice")));
    }
    Ok(out)
}

/// Stretches that a walk over a shape, dimension by dimension, goes through, those of single elements included; saturating.
pub(crate) fn stretches(shape: &[usize]) -> u64 {
    (1..=shape.len()).map(|rank| count(&shape[..rank])).fold(0, u64::saturating_add)
}

/// Sizes before, at and behind an axis.
pub(crate) fn around(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    (shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product())
}

/// Strides of an operand under a shape that it broadcasts to.
fn broadcast_strides(operand: &[usize], shape: &[usize]) -> Vec<usize> {
    let added = shape.len() - operand.len();
    let own = strides(operand);
    (0..shape.len())
        .map(|i| match i.checked_sub(added) {
            Some(i) if operand[i] != 1 => own[i],
            _ => 0,
        })
        .collect()
}

/// [`zip`] of operands that may be written over: when one of them has the shape of the result and nobody else holds it,
/// the result takes its place, and several threads may write to it.
#[inline(always)]
pub(crate) fn zip_over<T: Element>(
    a: Array,
    b: Array,
    shape: &[usize],
    threads: usize,
    f: impl Fn(T, T) -> T + Sync,
) -> Vec<T> {
    let fits = |own: &Array, other: &Array| {
        own.shape() == shape && own.is_own() && other.count() > 0 && T::TYPES.contains(&own.dtype())
    };
    if fits(&a, &b)
        && let Some(repeat) = Repeat::of(b.shape(), shape)
    {
        let mut values = a.into_vec::<T>();
        repeat.over(&mut values, &b.values::<T>(), threads, f);
        return values;
    }
    if fits(&b, &a)
        && let Some(repeat) = Repeat::of(a.shape(), shape)
    {
        let mut values = b.into_vec::<T>();
        repeat.over(&mut values, &a.values::<T>(), threads, |x, y| f(y, x));
        return values;
    }
    zip(&a, &b, shape, f)
}

/// How the elements of an operand are repeated over a shape, in the simple cases: each `each` times, and all of them
/// again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Repeat {
    each: usize,
}

impl Repeat {
    fn of(operand: &[usize], shape: &[usize]) -> Option<Self> {
        if operand.iter().all(|dim| *dim == 1) {
            return Some(Self { each: 1 });
        }
        // Ones before, the same dimensions, ones behind.
        let padded = || std::iter::repeat_n(1, shape.len() - operand.len()).chain(operand.iter().copied());
        let first = padded().position(|dim| dim != 1).unwrap_or(0);
        let last = shape.len() - operand.iter().rev().take_while(|dim| **dim == 1).count().min(shape.len());
        let middle = first..last.max(first);
        let same = padded().zip(shape).enumerate().all(|(axis, (dim, size))| !middle.contains(&axis) || dim == *size);
        same.then(|| Self { each: shape[last.max(first)..].iter().product() })
    }

    #[inline(always)]
    fn over<T: Element>(self, values: &mut [T], other: &[T], threads: usize, f: impl Fn(T, T) -> T + Sync) {
        if let [y] = other {
            return pieces(threads, values, 1, &|_, values| values.iter_mut().for_each(|x| *x = f(*x, *y)));
        }
        if other.len() == values.len() {
            return pieces(threads, values, 1, &|first, values| {
                values.iter_mut().zip(&other[first..]).for_each(|(x, y)| *x = f(*x, *y));
            });
        }
        if self.each == 1 {
            return pieces(threads, values, other.len(), &|_, values| {
                for values in values.chunks_exact_mut(other.len().max(1)) {
                    values.iter_mut().zip(other).for_each(|(x, y)| *x = f(*x, *y));
                }
            });
        }
        let each = self.each.max(1);
        pieces(threads, values, each, &|first, values| {
            let others = other.iter().cycle().skip(first / each % other.len().max(1));
            for (values, y) in values.chunks_exact_mut(each).zip(others) {
                values.iter_mut().for_each(|x| *x = f(*x, *y));
            }
        });
    }
}

/// Calls `f(a, b)` for each element of `shape`, to which both operands broadcast, in row-major order.
#[inline(always)]
pub(crate) fn zip<A: Element, B: Element, T>(a: &Array, b: &Array, shape: &[usize], f: impl Fn(A, B) -> T) -> Vec<T> {
    let (left, right) = (a.values::<A>(), b.values::<B>());
    let count = shape.iter().product();
    let mut out = Vec::with_capacity(count);
    if count == 0 {
        return out;
    }
    if a.shape() == b.shape() {
        out.extend(left.iter().zip(right.iter()).map(|(x, y)| f(*x, *y)));
        return out;
    }
    if right.len() == 1 {
        let y = right[0];
        out.extend(left.iter().map(|x| f(*x, y)));
        return out;
    }
    if left.len() == 1 {
        let x = left[0];
        out.extend(right.iter().map(|y| f(x, *y)));
        return out;
    }
    // Neighbouring dimensions that both operands walk alike are one.
    let (sa, sb) = (broadcast_strides(a.shape(), shape), broadcast_strides(b.shape(), shape));
    let mut dims: Vec<(usize, usize, usize)> = Vec::with_capacity(shape.len());
    for axis in 0..shape.len() {
        let dim = (shape[axis], sa[axis], sb[axis]);
        if dim.0 == 1 {
            continue;
        }
        match dims.last_mut() {
            Some(last) if last.1 == dim.1 * dim.0 && last.2 == dim.2 * dim.0 => *last = (last.0 * dim.0, dim.1, dim.2),
            _ => dims.push(dim),
        }
    }
    let (inner, step_a, step_b) = dims.pop().unwrap_or((1, 0, 0));
    let mut index = vec![0usize; dims.len()];
    let (mut at_a, mut at_b) = (0, 0);
    loop {
        match (step_a, step_b) {
            (1, 1) => {
                let pairs = left[at_a..at_a + inner].iter().zip(&right[at_b..at_b + inner]);
                out.extend(pairs.map(|(x, y)| f(*x, *y)));
            }
            (1, 0) => {
                let y = right[at_b];
                out.extend(left[at_a..at_a + inner].iter().map(|x| f(*x, y)));
            }
            (0, 1) => {
                let x = left[at_a];
                out.extend(right[at_b..at_b + inner].iter().map(|y| f(x, *y)));
            }
            _ => out.extend((0..inner).map(|i| f(left[at_a + i * step_a], right[at_b + i * step_b]))),
        }
        // The next position of the outer dimensions.
        let mut axis = dims.len();
        loop {
            let Some(next) = axis.checked_sub(1) else { return out };
            axis = next;
            let (size, stride_a, stride_b) = dims[axis];
            index[axis] += 1;
            at_a += stride_a;
            at_b += stride_b;
            if index[axis] < size {
                break;
            }
            at_a -= stride_a * size;
            at_b -= stride_b * size;
            index[axis] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    #[test]
    fn writing_over_an_operand_gives_what_a_new_array_gives() {
        let mut random = crate::engine::sample::random(3);
        for round in 0..2000 {
            let shape: Vec<usize> = (0..1 + random(4)).map(|_| 1 + random(4)).collect();
            let mut operand = |whole: bool| {
                let skipped = if whole { 0 } else { random(shape.len() + 1) };
                let narrow = |dim: &usize| if !whole && random(3) == 0 { 1 } else { *dim };
                let shape: Vec<usize> = shape[skipped..].iter().map(narrow).collect();
                let values: Vec<f32> = (0..shape.iter().product()).map(|_| random(900) as f32 / 7.0 - 60.0).collect();
                Array::new(DType::Float32, shape, values)
            };
            let (a, b) = (operand(round % 3 != 0), operand(round % 3 != 1));
            let out = broadcast(&[a.shape(), b.shape()]).unwrap();
            let minus = |x: f32, y: f32| x - y;
            let expected: Vec<f32> = zip(&a, &b, &out, minus);
            // Held by somebody else first, then not.
            let (held_a, held_b) = (a.clone(), b.clone());
            let threads = round % 4;
            assert_eq!(zip_over(a, b, &out, threads, minus), expected, "round {round}");
            assert_eq!(zip_over(held_a, held_b, &out, threads, minus), expected, "round {round}: {out:?}");
        }
    }
}
