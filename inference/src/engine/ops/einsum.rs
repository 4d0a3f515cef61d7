//! Einsum: operands are contracted from left to right, two at a time, as stacks of matrix products.

use super::{
    Parse, is_half,
    linear::{PAIR_OPS, Stacks, multiply},
    single,
};
use crate::{
    DType,
    engine::{
        array::Array,
        cx::{Cx, Inputs, Stop},
        elements::{with_elements, with_floats, with_integers},
        kernels::{
            matmul::{Packed, laying_out},
            reduce,
        },
        layout::strides,
        numeric::{Real, cast},
        program::Eval,
        value::{Value, count},
    },
    onnx::Node,
};

pub(super) fn find(name: &str) -> Option<Parse> {
    (name == "Einsum").then_some(|node, _| einsum(node))
}

/// A label: a letter, or a dimension of the ellipsis, counted from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    Ellipsis(usize),
    Letter(char),
}

#[derive(Debug, Clone)]
struct Equation {
    inputs: Vec<String>,
    output: Option<String>,
}

fn einsum(node: &Node<'_>) -> Result<Eval, String> {
    let text: String = node.text("equation", "")?.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, output) = match text.split_once("->") {
        Some((left, output)) => (left.to_owned(), Some(output.to_owned())),
        None => (text, None),
    };
    let valid = |term: &str| {
        let rest = term.replacen("...", "", 1);
        rest.chars().all(|c| c.is_ascii_alphabetic())
    };
    let inputs: Vec<String> = left.split(',').map(str::to_owned).collect();
    if !inputs.iter().all(|term| valid(term)) || !output.as_deref().is_none_or(valid) {
        return Err("its equation is not one".into());
    }
    let equation = Equation { inputs, output };
    single(move |cx, inputs| evaluate(cx, inputs, &equation))
}

/// The labels of a term for an operand of a rank.
fn labels(term: &str, rank: usize) -> Result<Vec<Label>, Stop> {
    let letters = term.chars().filter(|c| *c != '.').count();
    let hidden = match term.contains("...") {
        true => rank.checked_sub(letters),
        false if letters == rank => Some(0),
        false => None,
    };
    let hidden = hidden.ok_or_else(|| Stop::invalid(format!("`{term}` does not fit rank {rank}")))?;
    let mut out = Vec::with_capacity(rank);
    let (before, after) = term.split_once("...").unwrap_or((term, ""));
    out.extend(before.chars().map(Label::Letter));
    out.extend((0..hidden).rev().map(Label::Ellipsis));
    out.extend(after.chars().map(Label::Letter));
    Ok(out)
}

/// Cost of a label for each label.
const LABEL_OPS: u64 = 8;
/// Each is looked at for every other one.
const MAX_OPERANDS: usize = 64;

/// Labels with their sizes.
type Sizes = Vec<(Label, usize)>;

fn size(sizes: &Sizes, label: Label) -> usize {
    sizes.iter().find(|(l, _)| *l == label).map_or(1, |(_, size)| *size)
}

fn evaluate(cx: &mut Cx<'_>, inputs: &Inputs<'_>, equation: &Equation) -> Result<Value, Stop> {
    if equation.inputs.len() != inputs.len() || inputs.len() > MAX_OPERANDS {
        return Err(Stop::invalid(format!("its equation has another number of operands, or more than {MAX_OPERANDS}")));
    }
    // Each label is looked for among the others, while tracing, too.
    let labels_of = (0..inputs.len()).try_fold(0, |sum, i| inputs.shape(i).map(|shape| sum + shape.len() as u64))?;
    cx.labour(labels_of.saturating_mul(labels_of).saturating_mul(LABEL_OPS))?;
    let dtype = inputs.dtype(0)?;
    let (mut terms, mut sizes): (Vec<Vec<Label>>, Sizes) = (Vec::new(), Vec::new());
    for (i, term) in equation.inputs.iter().enumerate() {
        let (other, shape) = inputs.ty(i)?;
        if other != dtype {
            return Err(Stop::invalid("its operands have different types"));
        }
        let list = labels(term, shape.len())?;
        let twice =
            |(i, label): (usize, &Label)| list[..i].iter().zip(shape).any(|(l, dim)| l == label && *dim != shape[i]);
        if list.iter().enumerate().any(twice) {
            return Err(Stop::invalid("a label has different sizes in one operand"));
        }
        for (label, dim) in list.iter().zip(shape) {
            match sizes.iter_mut().find(|(l, _)| l == label) {
                None => sizes.push((*label, *dim)),
                Some((_, size)) if *size == *dim || *dim == 1 => {}
                Some((_, size)) if *size == 1 => *size = *dim,
                Some(_) => return Err(Stop::invalid("a label has different sizes")),
            }
        }
        terms.push(list);
    }
    let output = match &equation.output {
        Some(term) => {
            let hidden = sizes.iter().filter(|(l, _)| matches!(l, Label::Ellipsis(_))).count();
            let rank = term.chars().filter(|c| *c != '.').count() + if term.contains("...") { hidden } else { 0 };
            labels(term, rank)?
        }
        None => {
            // The ellipsis, then the letters that occur once, in alphabetical order.
            let mut list: Vec<Label> = sizes.iter().map(|(label, _)| *label).collect();
            list.retain(|label| match label {
                Label::Ellipsis(_) => true,
                letter => terms.iter().flatten().filter(|l| *l == letter).count() == 1,
            });
            list.sort_by_key(|label| match label {
                Label::Ellipsis(i) => (0, usize::MAX - i, ' '),
                Label::Letter(c) => (1, 0, *c),
            });
            list
        }
    };
    if (1..output.len()).any(|i| output[..i].contains(&output[i])) {
        return Err(Stop::invalid("its output has a label twice"));
    }
    if output.iter().any(|label| !sizes.iter().any(|(l, _)| l == label)) {
        return Err(Stop::invalid("its output has a label that no operand has"));
    }
    let out: Vec<usize> = output.iter().map(|label| size(&sizes, *label)).collect();
    let all: Vec<usize> = sizes.iter().map(|(_, size)| *size).collect();
    let (layouts, beside) = contractions(&terms, &output, &sizes);
    cx.scratch(beside)?;
    // A multiply-add of each type, and an element that is spread, turned, summed or converted.
    let each = match dtype {
        DType::Float32 | DType::Float16 | DType::BFloat16 => 1,
        DType::Float64 => 12,
        _ => 20,
    };
    let operands = (0..inputs.len()).try_fold(0u64, |sum, i| inputs.count(i).map(|n| sum.saturating_add(n)))?;
    let ops = count(&all).saturating_mul(each * inputs.len() as u64).saturating_add(layouts);
    let ops = ops.saturating_add(operands.saturating_mul(60));
    cx.emit_with(inputs, dtype, out, ops, |_| {
        let mut current: Option<(Array, Vec<Label>)> = None;
        for (i, term) in terms.iter().enumerate() {
            let operand = inputs.read(i)?;
            let operand = if is_half(dtype) { cast(operand, DType::Float32) } else { operand.clone() };
            let (array, list) = diagonal(&operand, term);
            // Sizes of one are repeated where another operand has more.
            let shape: Vec<usize> = list.iter().map(|label| size(&sizes, *label)).collect();
            let next = (array.broadcast(&shape).contiguous(), list);
            let needed = |label: &Label| output.contains(label) || terms[i + 1..].iter().flatten().any(|l| l == label);
            current = Some(match current {
                None => next,
                Some(current) => contract(current, next, &needed, &sizes)?,
            });
        }
        let (array, list) = current.ok_or("it has no operand")?;
        let (array, list) = sum_out(&array, &list, |label| output.contains(label))?;
        let order: Vec<usize> = output.iter().filter_map(|label| list.iter().position(|l| l == label)).collect();
        Ok(cast(&array.permute(&order).contiguous(), dtype))
    })
}

/// What laying the operands out costs, and the bytes of all that there is beside the output: operands spread to the sizes of
/// their labels and turned, and what they are contracted to, one after another.
fn contractions(terms: &[Vec<Label>], output: &[Label], sizes: &Sizes) -> (u64, u64) {
    let list = |labels: &mut dyn Iterator<Item = &Label>| -> Vec<usize> { labels.map(|l| size(sizes, *l)).collect() };
    let (mut layouts, mut elements, mut layout) = (0u64, 0u64, 0u64);
    let mut current: Vec<Label> = Vec::new();
    for (i, term) in terms.iter().enumerate() {
        let mut own: Vec<Label> = Vec::new();
        term.iter().for_each(|label| {
            if !own.contains(label) {
                own.push(*label);
            }
        });
        let needed = |label: &Label| output.contains(label) || terms[i + 1..].iter().flatten().any(|l| l == label);
        let shared = |label: &&Label| current.contains(label);
        let inner = list(&mut own.iter().filter(shared).filter(|label| !needed(label)));
        let stack = list(&mut own.iter().filter(shared).filter(|label| needed(label)));
        let columns = list(&mut own.iter().filter(|label| !shared(label)));
        let saturated = |sizes: &[usize]| usize::try_from(count(sizes)).unwrap_or(usize::MAX);
        let (k, n) = (saturated(&inner), saturated(&columns));
        if i > 0 {
            layouts = layouts.saturating_add(laying_out(k, n).saturating_add(PAIR_OPS).saturating_mul(count(&stack)));
            layout = layout.max(Packed::<f32>::bytes(k, n));
        }
        let spread = count(&list(&mut own.iter()));
        own.retain(|label| !current.contains(label));
        current.extend(own);
        current.retain(needed);
        elements = elements.saturating_add(spread).saturating_add(count(&list(&mut current.iter())));
    }
    (layouts, elements.saturating_mul(2 * 8).saturating_add(layout))
}

/// Takes the diagonal where a label occurs twice.
fn diagonal(array: &Array, term: &[Label]) -> (Array, Vec<Label>) {
    let mut list: Vec<Label> = Vec::new();
    let own = strides(array.shape());
    let mut steps: Vec<usize> = Vec::new();
    let mut shape: Vec<usize> = Vec::new();
    for (axis, label) in term.iter().enumerate() {
        match list.iter().position(|l| l == label) {
            Some(at) => steps[at] += own[axis],
            None => {
                list.push(*label);
                steps.push(own[axis]);
                shape.push(array.shape()[axis]);
            }
        }
    }
    if list.len() == term.len() {
        return (array.clone(), list);
    }
    let mut offsets = Vec::with_capacity(shape.iter().product());
    crate::engine::layout::walk(&shape, &steps, 0, &mut |at| offsets.push(at));
    let dtype = array.dtype();
    let picked = with_elements!(dtype, T => {
        let values = array.values::<T>();
        Array::new(dtype, shape, offsets.into_iter().map(|at| values[at]).collect::<Vec<T>>())
    }, array.clone());
    (picked, list)
}

/// Sums over the labels that are not kept.
fn sum_out(array: &Array, list: &[Label], keep: impl Fn(&Label) -> bool) -> Result<(Array, Vec<Label>), Stop> {
    let gone: Vec<usize> = (0..list.len()).filter(|i| !keep(&list[*i])).collect();
    if gone.is_empty() {
        return Ok((array.clone(), list.to_vec()));
    }
    let kept: Vec<Label> = list.iter().copied().filter(|label| keep(label)).collect();
    let rows = super::reduce::rows_of(array, &gone);
    let shape: Vec<usize> = (0..list.len()).filter(|i| !gone.contains(i)).map(|i| array.shape()[i]).collect();
    let n: usize = gone.iter().map(|i| array.shape()[*i]).product();
    let dtype = array.dtype();
    let total: usize = shape.iter().product();
    let sums = with_floats!(dtype, T => {
        let wide: Vec<<T as Real>::Wide> = rows.values::<T>().iter().map(|x| x.widen()).collect();
        Array::new(dtype, shape, (0..total).map(|i| T::narrow(reduce::sum(&wide[i * n..(i + 1) * n]))).collect::<Vec<T>>())
    }, with_integers!(dtype, T => {
        let values = rows.values::<T>();
        Array::new(dtype, shape, (0..total).map(|i| reduce::sum(&values[i * n..(i + 1) * n])).collect::<Vec<T>>())
    }, return Err(Stop::unsupported(dtype))));
    Ok((sums, kept))
}

fn contract(
    (a, a_labels): (Array, Vec<Label>),
    (b, b_labels): (Array, Vec<Label>),
    needed: &dyn Fn(&Label) -> bool,
    sizes: &Sizes,
) -> Result<(Array, Vec<Label>), Stop> {
    // What only one operand has and nobody needs is summed first.
    let (a, a_labels) = sum_out(&a, &a_labels, |l| needed(l) || b_labels.contains(l))?;
    let (b, b_labels) = sum_out(&b, &b_labels, |l| needed(l) || a_labels.contains(l))?;
    let pick =
        |list: &[Label], test: &dyn Fn(&Label) -> bool| list.iter().copied().filter(|l| test(l)).collect::<Vec<_>>();
    let batch = pick(&a_labels, &|l| b_labels.contains(l) && needed(l));
    let inner = pick(&a_labels, &|l| b_labels.contains(l) && !needed(l));
    let rows = pick(&a_labels, &|l| !b_labels.contains(l));
    let columns = pick(&b_labels, &|l| !a_labels.contains(l));
    let order = |list: &[Label], groups: [&[Label]; 3]| -> Vec<usize> {
        groups.into_iter().flatten().filter_map(|label| list.iter().position(|l| l == label)).collect()
    };
    let product = |list: &[Label]| list.iter().map(|label| size(sizes, *label)).product::<usize>();
    let (stack, m, k, n) = (product(&batch), product(&rows), product(&inner), product(&columns));
    let a = a.permute(&order(&a_labels, [&batch, &rows, &inner])).contiguous().reshape(vec![stack, m, k]);
    let b = b.permute(&order(&b_labels, [&batch, &inner, &columns])).contiguous().reshape(vec![stack, k, n]);
    let stacks = Stacks { batch: vec![stack], m, k, n, out: vec![stack, m, n] };
    let list: Vec<Label> = batch.into_iter().chain(rows).chain(columns).collect();
    let shape = list.iter().map(|label| size(sizes, *label)).collect();
    Ok((multiply(&a, &b, &stacks, 1)?.reshape(shape), list))
}
