//! Recurrent networks: RNN, GRU and LSTM.
//!
//! Before the activation of a gate: the product of the input with its weights, plus the product of the state with its
//! weights, plus (the input's bias plus the state's bias), plus the peephole's product; each in this order, in float32.

use std::sync::Arc;

use super::{Parse, check_floats, eval, floats, unary::activation};
use crate::{
    engine::{
        array::Array,
        cx::{Cx, Inputs, Stop},
        elements::with_floats,
        kernels::{
            matmul::{PANEL, Packed, laying_out, matmul},
            unary::{Unary, apply},
        },
        numeric::Real,
        program::Eval,
        value::{Value, count},
    },
    onnx::Node,
};

pub(super) fn find(name: &str) -> Option<Parse> {
    Some(match name {
        "RNN" => |node, _| recurrent(node, Cell::Rnn),
        "GRU" => |node, _| recurrent(node, Cell::Gru),
        "LSTM" => |node, _| recurrent(node, Cell::Lstm),
        _ => return None,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    Rnn,
    Gru,
    Lstm,
}

impl Cell {
    fn gates(self) -> usize {
        match self {
            Self::Rnn => 1,
            Self::Gru => 3,
            Self::Lstm => 4,
        }
    }

    /// Activations of one direction.
    fn activations(self) -> &'static [&'static str] {
        match self {
            Self::Rnn => &["Tanh"],
            Self::Gru => &["Sigmoid", "Tanh"],
            Self::Lstm => &["Sigmoid", "Tanh", "Tanh"],
        }
    }
}

#[derive(Debug, Clone)]
struct Attributes {
    cell: Cell,
    hidden: usize,
    /// For each direction whether it runs backwards.
    directions: Vec<bool>,
    activations: Vec<Unary>,
    clip: Option<f32>,
    /// Batch first.
    batch_first: bool,
    linear_before_reset: bool,
    input_forget: bool,
}

/// Weights of one direction, laid out.
#[derive(Debug)]
struct Weights {
    input: Packed,
    state: Packed,
}

fn recurrent(node: &Node<'_>, cell: Cell) -> Result<Eval, String> {
    let directions = match node.text("direction", "forward")?.as_str() {
        "forward" => vec![false],
        "reverse" => vec![true],
        "bidirectional" => vec![false, true],
        other => return Err(format!("there is no direction `{other}`")),
    };
    let names = node
        .texts("activations")?
        .unwrap_or_else(|| directions.iter().flat_map(|_| cell.activations()).map(|name| (*name).to_owned()).collect());
    if names.len() != directions.len() * cell.activations().len() {
        return Err("its activations do not fit its directions".into());
    }
    let (mut alphas, mut betas) = (
        node.floats("activation_alpha").unwrap_or_default().into_iter(),
        node.floats("activation_beta").unwrap_or_default().into_iter(),
    );
    let mut activations = Vec::new();
    for name in &names {
        let takes_alpha =
            ["Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu"].contains(&name.as_str());
        let takes_beta = ["Affine", "ScaledTanh", "HardSigmoid"].contains(&name.as_str());
        let alpha = if takes_alpha { alphas.next() } else { None };
        let beta = if takes_beta { betas.next() } else { None };
        activations.push(activation(name, alpha, beta).ok_or_else(|| format!("there is no activation `{name}`"))?);
    }
    let hidden = usize::try_from(node.int("hidden_size", 0)).ok().filter(|n| *n > 0 && *n < 1 << 24);
    let attributes = Attributes {
        cell,
        hidden: hidden.ok_or("its hidden_size is out of range")?,
        directions,
        activations,
        clip: node.attribute("clip").map(|_| node.float("clip", 0.0)),
        batch_first: node.flag("layout", false),
        linear_before_reset: node.flag("linear_before_reset", false),
        input_forget: node.flag("input_forget", false),
    };
    let constant = match (node.constant(1), node.constant(2)) {
        (Some(w), Some(r)) if node.packs.reserve(laid_out_bytes(w, r)) => lay_out(w, r, &attributes).ok().map(Arc::new),
        _ => None,
    };
    eval(move |cx, inputs| run(cx, inputs, &attributes, constant.as_deref()))
}

/// Cost of a step of one sequence for each gate, and once more, however few numbers they have.
const CELL_OPS: u64 = 1500;

/// Bytes of weights as they are laid out, and of their copies meanwhile.
fn laid_out_bytes(w: &Array, r: &Array) -> u64 {
    let bytes = |array: &Array| match array.shape() {
        &[d, gates, inputs] => Packed::<f32>::bytes(inputs, gates).saturating_mul(d as u64),
        _ => 0,
    };
    let copies = count(w.shape()).saturating_add(count(r.shape())).saturating_mul(4);
    bytes(w).saturating_add(bytes(r)).saturating_add(copies)
}

fn lay_out(w: &Array, r: &Array, a: &Attributes) -> Result<Vec<Weights>, Stop> {
    let (gates, count) = (a.cell.gates() * a.hidden, a.directions.len());
    let (&[d, g, input], &[d2, g2, h]) = (w.shape(), r.shape()) else {
        return Err(Stop::invalid("its weights must have three dimensions"));
    };
    if d != count || d2 != count || g != gates || g2 != gates || h != a.hidden {
        return Err(Stop::invalid("its weights do not fit its hidden_size and direction"));
    }
    let (w, r) = (floats(w)?, floats(r)?);
    Ok((0..count)
        .map(|d| Weights {
            input: Packed::new(&w[d * gates * input..(d + 1) * gates * input], input, gates, 1, input),
            state: Packed::new(&r[d * gates * h..(d + 1) * gates * h], h, gates, 1, h),
        })
        .collect())
}

fn run(
    cx: &mut Cx<'_>,
    inputs: &Inputs<'_>,
    a: &Attributes,
    constant: Option<&Vec<Weights>>,
) -> Result<Vec<Value>, Stop> {
    let (dtype, shape) = inputs.ty(0)?;
    check_floats(inputs, &[0, 1, 2, 3, 5, 6, 7])?;
    let &[first, second, input] = shape else { return Err(Stop::invalid("it takes sequence, batch and features")) };
    let (steps, batch) = if a.batch_first { (second, first) } else { (first, second) };
    let (hidden, count_d, gates) = (a.hidden, a.directions.len(), a.cell.gates() * a.hidden);
    if inputs.shape(1)? != [count_d, gates, input] || inputs.shape(2)? != [count_d, gates, hidden] {
        return Err(Stop::invalid("its weights do not fit its input, hidden_size and direction"));
    }
    let expect = |index: usize, shape: &[usize]| -> Result<(), Stop> {
        match inputs.has(index) && inputs.shape(index)? != shape {
            true => Err(Stop::invalid(format!("its input {index} must have the shape {shape:?}"))),
            false => Ok(()),
        }
    };
    let state = if a.batch_first { [batch, count_d, hidden] } else { [count_d, batch, hidden] };
    expect(3, &[count_d, 2 * gates])?;
    expect(4, &[batch])?;
    expect(5, &state)?;
    if a.cell == Cell::Lstm {
        expect(6, &state)?;
        expect(7, &[count_d, 3 * hidden])?;
    }
    // The products' panels are full.
    let each = count(&[count_d, gates.next_multiple_of(PANEL), input + hidden]);
    let each = each.saturating_add(count(&[count_d, gates, 24]));
    let mut ops = count(&[steps, batch]).saturating_mul(each);
    let sequence =
        if a.batch_first { vec![batch, steps, count_d, hidden] } else { vec![steps, count_d, batch, hidden] };
    // The sums of the gates; the input and the outputs as float32, and turned.
    let mut beside = count(&[steps, batch, gates]).saturating_mul(8);
    beside = beside.saturating_add(count(&[steps, batch, input]).saturating_mul(8));
    beside = beside.saturating_add(count(&sequence).saturating_mul(12));
    ops = ops.saturating_add(count(&[steps, batch, count_d, a.cell.gates() + 1]).saturating_mul(CELL_OPS));
    if constant.is_none() {
        let layouts = laying_out(input, gates).saturating_add(laying_out(hidden, gates));
        // They lie transposed, which takes longer.
        ops = ops.saturating_add(layouts.saturating_mul(4 * count_d as u64));
        // In float32, and laid out.
        beside = beside.saturating_add(inputs.count(1)?.saturating_add(inputs.count(2)?).saturating_mul(12));
    }
    cx.scratch(beside)?;
    let mut results = None;
    let mut compute = |which: usize| -> Result<Vec<f32>, Stop> {
        if results.is_none() {
            results = Some(sequences(inputs, a, constant, (steps, batch, input))?);
        }
        Ok(results.as_ref().map(|r: &[Vec<f32>; 3]| r[which].clone()).unwrap_or_default())
    };
    let mut values = Vec::new();
    let outputs = if a.cell == Cell::Lstm { 3 } else { 2 };
    for which in 0..outputs {
        let shape = if which == 0 { sequence.clone() } else { state.to_vec() };
        let ops = if which == 0 { ops } else { 0 };
        values.push(with_floats!(dtype, T => cx.emit::<T>(inputs, dtype, shape, ops, || {
            Ok(compute(which)?.into_iter().map(|x| T::narrow(x.into())).collect())
        }), Err(Stop::unsupported(dtype)))?);
    }
    Ok(values)
}

/// All outputs, the last states, and the last cells.
fn sequences(
    inputs: &Inputs<'_>,
    a: &Attributes,
    constant: Option<&Vec<Weights>>,
    (steps, batch, input): (usize, usize, usize),
) -> Result<[Vec<f32>; 3], Stop> {
    let (hidden, gates, directions) = (a.hidden, a.cell.gates() * a.hidden, a.directions.len());
    let made;
    let weights = match constant {
        Some(weights) => weights,
        None => {
            made = lay_out(inputs.read(1)?, inputs.read(2)?, a)?;
            &made
        }
    };
    let mut x = floats(inputs.read(0)?)?;
    if a.batch_first {
        x = (0..steps * batch * input)
            .map(|i| x[((i / input % batch) * steps + i / input / batch) * input + i % input])
            .collect();
    }
    let optional = |index: usize, size: usize| match inputs.has(index) {
        true => floats(inputs.read(index)?),
        false => Ok(vec![0.0; size]),
    };
    let bias = optional(3, directions * 2 * gates)?;
    let turn = |values: Vec<f32>| -> Vec<f32> {
        if !a.batch_first {
            return values;
        }
        // [batch, direction, hidden] to [direction, batch, hidden].
        let at = |i: usize| (i / hidden % batch * directions + i / hidden / batch) * hidden + i % hidden;
        (0..values.len()).map(|i| values[at(i)]).collect()
    };
    let mut h = turn(optional(5, directions * batch * hidden)?);
    let mut c = turn(if a.cell == Cell::Lstm {
        optional(6, directions * batch * hidden)?
    } else {
        vec![0.0; directions * batch * hidden]
    });
    let peepholes = if a.cell == Cell::Lstm && inputs.has(7) { Some(floats(inputs.read(7)?)?) } else { None };
    let lengths = match inputs.has(4) {
        true => inputs.read(4)?.to_ints().ok_or("its lengths must be integers")?,
        false => vec![steps as i64; batch],
    };
    let lengths = lengths.iter().map(|n| usize::try_from(*n).ok().filter(|n| *n <= steps)).collect::<Option<Vec<_>>>();
    let lengths = lengths.ok_or("a length is out of range")?;
    let mut y = vec![0.0f32; steps * directions * batch * hidden];
    let mut all = vec![0.0f32; steps * batch * gates];
    let mut recurrent = vec![0.0f32; batch * gates];
    for d in 0..directions {
        matmul(&x, &weights[d].input, &mut all, 1);
        let direction = Direction {
            a,
            activations: &a.activations[d * a.cell.activations().len()..],
            bias: &bias[d * 2 * gates..(d + 1) * 2 * gates],
            peepholes: peepholes.as_ref().map(|p| &p[d * 3 * hidden..(d + 1) * 3 * hidden]),
            state: &weights[d].state,
        };
        let h = &mut h[d * batch * hidden..(d + 1) * batch * hidden];
        let c = &mut c[d * batch * hidden..(d + 1) * batch * hidden];
        for step in 0..steps {
            matmul(h, direction.state, &mut recurrent, 1);
            for b in 0..batch {
                if step >= lengths[b] {
                    continue;
                }
                // Backwards from the end of each sequence.
                let t = if a.directions[d] { lengths[b] - 1 - step } else { step };
                let row = &mut h[b * hidden..(b + 1) * hidden];
                let cell = &mut c[b * hidden..(b + 1) * hidden];
                let from_input = &all[(t * batch + b) * gates..][..gates];
                direction.step(from_input, &recurrent[b * gates..(b + 1) * gates], row, cell);
                let at = match a.batch_first {
                    true => (b * steps + t) * directions + d,
                    false => (t * directions + d) * batch + b,
                };
                y[at * hidden..(at + 1) * hidden].copy_from_slice(row);
            }
        }
    }
    let back = |values: Vec<f32>| -> Vec<f32> {
        if !a.batch_first {
            return values;
        }
        let at = |i: usize| (i / hidden % directions * batch + i / hidden / directions) * hidden + i % hidden;
        (0..values.len()).map(|i| values[at(i)]).collect()
    };
    Ok([y, back(h), back(c)])
}

/// What does not change from step to step.
struct Direction<'w> {
    a: &'w Attributes,
    activations: &'w [Unary],
    /// Of the input, then of the state.
    bias: &'w [f32],
    peepholes: Option<&'w [f32]>,
    state: &'w Packed,
}

impl Direction<'_> {
    fn clip(&self, values: &mut [f32]) {
        if let Some(limit) = self.a.clip {
            apply(Unary::Clip(-limit, limit), values);
        }
    }

    /// The sums before the activation of a gate.
    fn gate(&self, gate: usize, x: &[f32], h: &[f32]) -> Vec<f32> {
        let (n, gates) = (self.a.hidden, x.len());
        let range = gate * n..(gate + 1) * n;
        let bias = self.bias[range.clone()].iter().zip(&self.bias[gates + gate * n..gates + (gate + 1) * n]);
        x[range.clone()].iter().zip(&h[range]).zip(bias).map(|((x, h), (wb, rb))| x + h + (wb + rb)).collect()
    }

    fn activate(&self, which: usize, values: &mut [f32]) {
        self.clip(values);
        apply(self.activations[which], values);
    }

    /// One step of one row; the state and the cell are replaced.
    fn step(&self, x: &[f32], recurrent: &[f32], h: &mut [f32], c: &mut [f32]) {
        let n = self.a.hidden;
        match self.a.cell {
            Cell::Rnn => {
                let mut values = self.gate(0, x, recurrent);
                self.activate(0, &mut values);
                h.copy_from_slice(&values);
            }
            Cell::Gru => {
                let mut z = self.gate(0, x, recurrent);
                let mut r = self.gate(1, x, recurrent);
                self.activate(0, &mut z);
                self.activate(0, &mut r);
                let gates = x.len();
                let (wb, rb) = (&self.bias[2 * n..3 * n], &self.bias[gates + 2 * n..gates + 3 * n]);
                let mut candidate: Vec<f32> = if self.a.linear_before_reset {
                    (0..n).map(|i| x[2 * n + i] + r[i] * (recurrent[2 * n + i] + rb[i]) + wb[i]).collect()
                } else {
                    let reset: Vec<f32> = r.iter().zip(h.iter()).map(|(r, h)| r * h).collect();
                    let mut product = vec![0.0; gates];
                    matmul(&reset, self.state, &mut product, 1);
                    (0..n).map(|i| x[2 * n + i] + product[2 * n + i] + (rb[i] + wb[i])).collect()
                };
                self.activate(1, &mut candidate);
                for i in 0..n {
                    h[i] = (1.0 - z[i]) * candidate[i] + z[i] * h[i];
                }
            }
            // Gates in the order input, output, forget, cell.
            Cell::Lstm => {
                let peep = |values: &mut [f32], part: usize, c: &[f32]| {
                    if let Some(p) = self.peepholes {
                        values.iter_mut().zip(&p[part * n..(part + 1) * n]).zip(c).for_each(|((x, p), c)| *x += p * c);
                    }
                };
                let mut input = self.gate(0, x, recurrent);
                peep(&mut input, 0, c);
                self.activate(0, &mut input);
                let forget = if self.a.input_forget {
                    input.iter().map(|i| 1.0 - i).collect()
                } else {
                    let mut forget = self.gate(2, x, recurrent);
                    peep(&mut forget, 2, c);
                    self.activate(0, &mut forget);
                    forget
                };
                let mut candidate = self.gate(3, x, recurrent);
                self.activate(1, &mut candidate);
                for i in 0..n {
                    c[i] = forget[i] * c[i] + input[i] * candidate[i];
                }
                let mut output = self.gate(1, x, recurrent);
                peep(&mut output, 1, c);
                self.activate(0, &mut output);
                let mut cell = c.to_vec();
                apply(self.activations[2], &mut cell);
                for i in 0..n {
                    h[i] = output[i] * cell[i];
                }
            }
        }
    }
}
