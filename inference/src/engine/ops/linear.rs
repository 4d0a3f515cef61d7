//! Matrix products.

use std::{borrow::Cow, sync::Arc};

use super::{Parse, is_half, shapes, single};
use crate::{
    DType,
    engine::{
        array::Array,
        cx::{Cx, Inputs, Stop, threads_within},
        elements::{with_floats, with_integers, with_numbers},
        kernels::{
            matmul::{PANEL, Packed, SPREAD, laying_out, matmul, matmul_strided},
            product::{product, product_f64},
        },
        layout::walk,
        numeric::{Number, Real, cast},
        program::Eval,
        threads::pieces,
        value::{Value, count},
    },
    onnx::Node,
};

pub(super) fn find(name: &str) -> Option<Parse> {
    Some(match name {
        "MatMul" => |node, _| matmul_op(node),
        "Gemm" => |node, _| gemm(node),
        "Det" => |_, _| single(det),
        _ => return None,
    })
}

/// Sizes of a product of stacks of matrices (numpy's `matmul`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stacks {
    /// Of the stacks, broadcast.
    pub(super) batch: Vec<usize>,
    pub(super) m: usize,
    pub(super) k: usize,
    pub(super) n: usize,
    /// The output's shape.
    pub(super) out: Vec<usize>,
}

impl Stacks {
    pub(super) fn new(a: &[usize], b: &[usize]) -> Result<Self, Stop> {
        let wrong = || Stop::invalid(format!("{a:?} and {b:?} cannot be multiplied"));
        let (batch_a, m, k) = match a {
            [] => return Err(wrong()),
            [k] => (&[][..], None, *k),
            [batch @ .., m, k] => (batch, Some(*m), *k),
        };
        let (batch_b, k2, n) = match b {
            [] => return Err(wrong()),
            [k] => (&[][..], *k, None),
            [batch @ .., k, n] => (batch, *k, Some(*n)),
        };
        if k != k2 {
            return Err(wrong());
        }
        let batch = shapes::broadcast(&[batch_a, batch_b])?;
        let out = batch.iter().copied().chain(m).chain(n).collect();
        Ok(Self { batch, m: m.unwrap_or(1), k, n: n.unwrap_or(1), out })
    }

    /// Rows of all matrices of the left-hand side, if the right-hand side is one matrix; saturating.
    pub(super) fn rows(&self) -> usize {
        self.batch.iter().fold(self.m, |rows, dim| rows.saturating_mul(*dim))
    }

    /// Matrices of a right-hand side of this shape that are laid out, one after another, at most: whatever sizes its dimensions
    /// have, so that this is a polynomial of them.
    pub(super) fn layouts(&self, b: &[usize]) -> u64 {
        if b.len() <= 2 { 1 } else { count(&self.batch) }
    }

    /// Multiply-adds.
    pub(super) fn ops(&self) -> u64 {
        count(&self.batch).saturating_mul(count(&[self.m, self.k, self.n]))
    }

    /// Admits what a product takes besides its operands and its output, and tells what it costs besides its multiply-adds.
    fn admit(&self, cx: &mut Cx<'_>, constant: Option<&Packed>, dtype: DType, b: &[usize]) -> Result<u64, Stop> {
        if let Some(rhs) = constant {
            return Ok(padding(rhs));
        }
        let (ops, bytes) = self.beside(dtype, b);
        cx.scratch(bytes)?;
        Ok(ops)
    }

    /// What a product of a type costs besides, and its memory beside the output, if `b` is the shape of the right-hand side.
    fn beside(&self, dtype: DType, b: &[usize]) -> (u64, u64) {
        let pairs = count(&self.batch);
        let left = count(&[self.m, self.k]).saturating_mul(pairs);
        let numbers = left.saturating_add(count(b)).saturating_add(count(&self.out).saturating_mul(2));
        let laid_out = laying_out(self.k, self.n).saturating_mul(self.layouts(b));
        let bytes = Packed::<f32>::bytes(self.k, self.n);
        let (ops, bytes) = match dtype {
            DType::Float32 => (laid_out, bytes),
            DType::Float16 | DType::BFloat16 => (
                laid_out.saturating_add(numbers.saturating_mul(CONVERT_OPS)),
                bytes.saturating_add(numbers.saturating_mul(4)),
            ),
            DType::Float64 => {
                (self.ops().saturating_mul(11).saturating_add(left.saturating_mul(60)), numbers.saturating_mul(8))
            }
            _ => (self.ops().saturating_mul(19), numbers.saturating_mul(8)),
        };
        (ops.saturating_add(pairs.saturating_mul(PAIR_OPS)), bytes)
    }

    /// For each product of the stack the indices of its two matrices.
    pub(super) fn pairs(&self, a: &[usize], b: &[usize]) -> Vec<(usize, usize)> {
        let stack = |shape: &[usize]| shape[..shape.len().saturating_sub(2)].to_vec();
        let numbers = |shape: &[usize]| {
            let shape = stack(shape);
            let total: usize = shape.iter().product();
            let list = Array::new(DType::Int64, shape, (0..total as i64).collect::<Vec<_>>());
            list.broadcast(&self.batch).values::<i64>().iter().map(|i| *i as usize).collect::<Vec<_>>()
        };
        numbers(a).into_iter().zip(numbers(b)).collect()
    }
}

/// Cost of a number that is converted for a product.
const CONVERT_OPS: u64 = 20;
/// Cost of each product of a stack, however small.
pub(super) const PAIR_OPS: u64 = 3000;
/// Cost of a zero that a product reads at the end of its panels.
const PADDED_OPS: u64 = 8;

/// What a product with a constant costs for what its layout is padded with: it is read once, at least.
pub(super) fn padding(rhs: &Packed) -> u64 {
    let zeros = rhs.columns().next_multiple_of(PANEL) - rhs.columns();
    count(&[zeros, rhs.rows()]).saturating_mul(PADDED_OPS)
}

/// A constant right-hand side of float32, laid out when the model is compiled.
fn packed(node: &Node<'_>, index: usize, transposed: bool) -> Option<Arc<Packed>> {
    let array = node.constant(index)?;
    let &[rows, columns] = array.shape() else { return None };
    // Without elements there may be columns without end.
    if array.dtype() != DType::Float32 || array.count() == 0 {
        return None;
    }
    let slot = node.slots.get(index).copied().flatten()?;
    let (k, n) = if transposed { (columns, rows) } else { (rows, columns) };
    node.packs.pack(slot, transposed, k, n, || {
        let values = array.values::<f32>();
        if transposed { Packed::new(&values, k, n, 1, columns) } else { Packed::new(&values, k, n, columns, 1) }
    })
}

fn matmul_op(node: &Node<'_>) -> Result<Eval, String> {
    let constant = packed(node, 1, false);
    single(move |cx, inputs| {
        let ((dtype, a), (right, b)) = (inputs.ty(0)?, inputs.ty(1)?);
        if dtype != right {
            return Err(Stop::invalid(format!("its inputs have the types {} and {}", dtype.name(), right.name())));
        }
        let stacks = Stacks::new(a, b)?;
        let threads = cx.threads;
        let mut ops = stacks.ops();
        ops = ops.saturating_add(stacks.admit(cx, constant.as_deref(), dtype, b)?);
        let out = stacks.out.clone();
        if let Some(rhs) = &constant {
            // One product for the whole stack: its rows are one after another.
            return cx.emit_over(inputs, out, (ops, 0), |out, _| {
                matmul(&inputs.values::<f32>(0)?, rhs, out, threads);
                Ok(())
            });
        }
        cx.emit_with(inputs, dtype, out, ops, |out| {
            Ok(multiply(inputs.read(0)?, inputs.read(1)?, &stacks, threads)?.reshape(out))
        })
    })
}

/// The matrices of a stack where they lie, without a copy when the elements of their rows (or of their columns) are
/// neighbours.
struct Matrices<'a> {
    values: Cow<'a, [f32]>,
    /// Where each matrix begins.
    starts: Vec<usize>,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrices<'a> {
    fn new(array: &'a Array, rows: usize, columns: usize) -> Self {
        let Some((values, strides, start)) = array.strided::<f32>().filter(|_| array.shape().len() >= 2) else {
            let starts = (0..array.count() / (rows * columns).max(1)).map(|i| i * rows * columns).collect();
            return Self { values: array.values(), starts, row_stride: columns, column_stride: 1 };
        };
        let stack = array.shape().len() - 2;
        let mut starts = Vec::with_capacity(array.shape()[..stack].iter().product());
        walk(&array.shape()[..stack], &strides[..stack], start, &mut |at| starts.push(at));
        Self { values: Cow::Borrowed(values), starts, row_stride: strides[stack], column_stride: strides[stack + 1] }
    }

    /// The elements from the first one of a matrix.
    fn at(&self, index: usize) -> &[f32] {
        &self.values[self.starts[index]..]
    }
}

/// The product of stacks of any type of numbers; the result is flat.
pub(super) fn multiply(a: &Array, b: &Array, stacks: &Stacks, threads: usize) -> Result<Array, Stop> {
    let &Stacks { m, k, n, .. } = stacks;
    let dtype = a.dtype();
    if count(&stacks.out) == 0 {
        // However many matrices without elements there are.
        return with_numbers!(dtype, T => Ok(Array::new(dtype, vec![0], Vec::<T>::new())), Err(Stop::unsupported(dtype)));
    }
    let pairs = stacks.pairs(a.shape(), b.shape());
    let total = pairs.len() * m * n;
    macro_rules! each {
        ($t:ty, $values:expr, $kernel:expr) => {{
            let (left, right): (Vec<$t>, Vec<$t>) = $values;
            let mut out = vec![Default::default(); total];
            for (i, (p, q)) in pairs.iter().enumerate() {
                $kernel(
                    &left[p * m * k..(p + 1) * m * k],
                    &right[q * k * n..(q + 1) * k * n],
                    k,
                    n,
                    &mut out[i * m * n..(i + 1) * m * n],
                );
            }
            out
        }};
    }
    match dtype {
        DType::Float32 => {
            let dense;
            let mut left = Matrices::new(a, m, k);
            if left.column_stride != 1 {
                dense = a.contiguous();
                left = Matrices::new(&dense, m, k);
            }
            let right = Matrices::new(b, k, n);
            let mut out = vec![0.0f32; total];
            if k == 0 || total == 0 {
                return Ok(Array::new(dtype, vec![total], out));
            }
            let pack = |q: usize| Packed::new(right.at(q), k, n, right.row_stride, right.column_stride);
            let one = pairs.iter().all(|(_, q)| *q == pairs[0].1).then(|| pack(pairs[0].1));
            // Threads lay matrices out for themselves, if there are several.
            let laid_out = if one.is_some() { 0 } else { Packed::<f32>::bytes(k, n) };
            let apart = if stacks.ops() < SPREAD { 1 } else { threads_within(threads, laid_out) };
            // A thread for each of many, or several for each of few.
            let each = (threads / pairs.len()).max(1);
            pieces(apart, &mut out, m * n, &|first, out| {
                let mut last: Option<(usize, Packed)> = None;
                for ((p, q), out) in pairs[first / (m * n)..].iter().zip(out.chunks_exact_mut(m * n)) {
                    if one.is_none() && last.as_ref().is_none_or(|(number, _)| number != q) {
                        // Never two at a time.
                        drop(last.take());
                        last = Some((*q, pack(*q)));
                    }
                    if let Some(rhs) = one.as_ref().or(last.as_ref().map(|(_, rhs)| rhs)) {
                        matmul_strided(left.at(*p), left.row_stride, rhs, out, each);
                    }
                }
            });
            Ok(Array::new(dtype, vec![total], out))
        }
        DType::Float64 => {
            let out = each!(f64, (a.values().into_owned(), b.values().into_owned()), product_f64);
            Ok(Array::new(dtype, vec![total], out))
        }
        dtype => with_floats!(dtype, T => {
            // Halves are summed as float32 and rounded once.
            let wide = |array: &Array| {
                let values = array.values::<T>().iter().map(|x| x.widen() as f32).collect();
                Array::new(DType::Float32, array.shape().to_vec(), values)
            };
            let out: Vec<f32> = multiply(&wide(a), &wide(b), stacks, threads)?.into_vec();
            Ok(Array::new(dtype, vec![total], out.into_iter().map(|x| T::narrow(x.into())).collect::<Vec<T>>()))
        }, with_integers!(dtype, T => {
            let wide = |array: &Array| array.values::<T>().iter().map(|x| *x as i64).collect::<Vec<i64>>();
            let out = each!(i64, (wide(a), wide(b)), product::<i64>);
            Ok(Array::new(dtype, vec![total], out.into_iter().map(|x: i64| x as T).collect::<Vec<T>>()))
        }, Err(Stop::unsupported(dtype)))),
    }
}

/// alpha · A'B' + beta · C: the product, times alpha unless that is 1, plus C (times beta unless that is 1).
fn gemm(node: &Node<'_>) -> Result<Eval, String> {
    let (alpha, beta) = (node.float("alpha", 1.0), node.float("beta", 1.0));
    let (turn_a, turn_b) = (node.flag("transA", false), node.flag("transB", false));
    let constant = packed(node, 1, turn_b);
    single(move |cx, inputs| {
        let ((dtype, a), (right, b)) = (inputs.ty(0)?, inputs.ty(1)?);
        let (&[a0, a1], &[b0, b1]) = (a, b) else { return Err(Stop::invalid("it takes matrices")) };
        let ((m, k), (k2, n)) = (if turn_a { (a1, a0) } else { (a0, a1) }, if turn_b { (b1, b0) } else { (b0, b1) });
        if k != k2 || dtype != right {
            return Err(Stop::invalid(format!("{a:?} and {b:?} cannot be multiplied")));
        }
        let out = vec![m, n];
        if inputs.has(2) && (inputs.dtype(2)? != dtype || shapes::broadcast(&[inputs.shape(2)?, &out])? != out) {
            return Err(Stop::invalid("its third input does not fit its output"));
        }
        let threads = cx.threads;
        let stacks = Stacks { batch: vec![], m, k, n, out: out.clone() };
        let mut ops = stacks.ops().saturating_add(count(&out));
        ops = ops.saturating_add(stacks.admit(cx, constant.as_deref(), dtype, b)?);
        if let Some(rhs) = &constant {
            return cx.emit_over(inputs, out, (ops, 0), |out, _| {
                let left = inputs.read(0)?;
                let turned = if turn_a { left.permute(&[1, 0]).contiguous() } else { left.clone() };
                matmul(&turned.values::<f32>(), rhs, out, threads);
                finish(out, n, (alpha, beta), inputs, 2)
            });
        }
        cx.emit_with(inputs, dtype, out, ops, |out| {
            let turned = |index: usize, turn: bool| -> Result<Array, Stop> {
                let array = inputs.read(index)?;
                Ok(if turn { array.permute(&[1, 0]).contiguous() } else { array.clone() })
            };
            if is_half(dtype) {
                let single = |array: &Array| cast(array, DType::Float32);
                let (left, right) = (single(&turned(0, turn_a)?), single(&turned(1, turn_b)?));
                let mut product = multiply(&left, &right, &stacks, threads)?.into_vec();
                let third = if inputs.has(2) { Some(Value::Known(single(inputs.read(2)?))) } else { None };
                finish(&mut product, n, (alpha, beta), &Inputs::new(vec![third.as_ref()]), 0)?;
                return Ok(cast(&Array::new(DType::Float32, out, product), dtype));
            }
            let product = multiply(&turned(0, turn_a)?, &turned(1, turn_b)?, &stacks, threads)?;
            if dtype == DType::Float32 {
                let mut product = product.into_vec();
                finish(&mut product, n, (alpha, beta), inputs, 2)?;
                return Ok(Array::new(dtype, out, product));
            }
            let product = product.reshape(out.clone());
            with_numbers!(dtype, T => {
                let scale = |array: &Array, factor: f32| -> Vec<T> {
                    let by = crate::engine::numeric::convert::<T>(factor);
                    array.values::<T>().iter().map(|x| if factor == 1.0 { *x } else { x.times(by) }).collect()
                };
                let scaled = Array::new(dtype, out.clone(), scale(&product, alpha));
                if !inputs.has(2) {
                    return Ok(scaled);
                }
                let c = inputs.read(2)?;
                let c = Array::new(dtype, c.shape().to_vec(), scale(c, beta));
                Ok(Array::new(dtype, out.clone(), shapes::zip(&scaled, &c, &out, T::plus)))
            }, Err(Stop::unsupported(dtype)))
        })
    })
}

/// The end of a float32 Gemm, whose third operand is at an index.
pub(super) fn finish(
    product: &mut [f32],
    n: usize,
    (alpha, beta): (f32, f32),
    inputs: &Inputs<'_>,
    index: usize,
) -> Result<(), Stop> {
    if alpha != 1.0 {
        product.iter_mut().for_each(|x| *x *= alpha);
    }
    if !inputs.has(index) || n == 0 {
        return Ok(());
    }
    let c = inputs.read(index)?;
    let mut values = c.values::<f32>();
    if beta != 1.0 {
        values.to_mut().iter_mut().for_each(|x| *x *= beta);
    }
    let row = c.shape().last() == Some(&n) && values.len() == n;
    if row {
        for line in product.chunks_exact_mut(n) {
            line.iter_mut().zip(values.iter()).for_each(|(x, c)| *x += c);
        }
        return Ok(());
    }
    let shape = [product.len() / n, n];
    let c = Array::new(DType::Float32, c.shape().to_vec(), values.into_owned()).broadcast(&shape);
    product.iter_mut().zip(c.values::<f32>().iter()).for_each(|(x, c)| *x += c);
    Ok(())
}

/// By Gaussian elimination with the greatest pivot of each column, in float64; the first of equal ones.
fn det(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Value, Stop> {
    let (dtype, shape) = inputs.ty(0)?;
    let [batch @ .., rows, columns] = shape else { return Err(Stop::invalid("it takes matrices")) };
    if rows != columns {
        return Err(Stop::invalid("it takes square matrices"));
    }
    let n = *rows;
    let ops = count(shape).saturating_mul(n as u64).saturating_mul(6);
    let ops = ops.saturating_add(count(batch).saturating_mul(1500));
    cx.scratch(count(shape).saturating_mul(8))?;
    with_floats!(dtype, T => cx.emit::<T>(inputs, dtype, batch.to_vec(), ops, || {
        let values = inputs.read(0)?.to_doubles().unwrap_or_default();
        let total: usize = batch.iter().product();
        Ok((0..total).map(|i| {
            let mut m = values[i * n * n..(i + 1) * n * n].to_vec();
            crate::engine::numeric::convert::<T>(determinant(&mut m, n))
        }).collect())
    }), Err(Stop::unsupported(dtype)))
}

fn determinant(m: &mut [f64], n: usize) -> f64 {
    let mut det = 1.0;
    for c in 0..n {
        let pivot = (c + 1..n).fold(c, |best, r| if m[r * n + c].abs() > m[best * n + c].abs() { r } else { best });
        if m[pivot * n + c] == 0.0 {
            return 0.0;
        }
        if pivot != c {
            (0..n).for_each(|j| m.swap(pivot * n + j, c * n + j));
            det = -det;
        }
        det *= m[c * n + c];
        for r in c + 1..n {
            let factor = m[r * n + c] / m[c * n + c];
            for j in c..n {
                m[r * n + j] -= factor * m[c * n + j];
            }
        }
    }
    det
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_are_multiplied_where_they_lie_to_the_same_bits() {
        let mut random = crate::engine::sample::random(5);
        for round in 0..200 {
            let (b, h, m, k, n) = (1 + random(3), 1 + random(3), 1 + random(9), 1 + random(20), 1 + random(40));
            let mut array = |shape: Vec<usize>| {
                let values: Vec<f32> = (0..shape.iter().product()).map(|_| random(2000) as f32 / 77.0 - 13.0).collect();
                Array::new(DType::Float32, shape, values)
            };
            let left = match round % 3 {
                0 => array(vec![b, m, h, k]).permute(&[0, 2, 1, 3]),
                1 => array(vec![k, m, b, h]).permute(&[2, 3, 1, 0]),
                _ => array(vec![h, m, k + 2]).slice(2, 1, 1, k).broadcast(&[b, h, m, k]),
            };
            let right = match round % 4 {
                0 => array(vec![b, n, h, k]).permute(&[0, 2, 3, 1]),
                1 => array(vec![b, k, h, n]).permute(&[0, 2, 1, 3]),
                2 => array(vec![k, 1]).broadcast(&[k, n]),
                _ => array(vec![1, h, n, k]).permute(&[0, 1, 3, 2]),
            };
            let stacks = Stacks::new(left.shape(), right.shape()).unwrap();
            let lying = multiply(&left, &right, &stacks, 1).unwrap();
            let dense =
                |array: &Array| Array::new(DType::Float32, array.shape().to_vec(), array.values::<f32>().into_owned());
            let (left, right) = (dense(&left), dense(&right));
            let copied = multiply(&left, &right, &stacks, 2).unwrap();
            let bits = |array: &Array| array.values::<f32>().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&lying), bits(&copied), "round {round}");
            // And that is the chain of the definition.
            let (a, b) = (left.values::<f32>(), right.values::<f32>());
            for (i, (p, q)) in stacks.pairs(left.shape(), right.shape()).into_iter().enumerate() {
                let last = m * n - 1;
                let chain =
                    (0..k).fold(0.0f32, |sum, l| a[(p * m + m - 1) * k + l].mul_add(b[(q * k + l) * n + n - 1], sum));
                assert_eq!(bits(&copied)[i * m * n + last], chain.to_bits());
            }
        }
    }
}
