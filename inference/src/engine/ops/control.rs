//! Control flow: graphs inside nodes. Tracing follows both branches of an `If` whose condition only a run knows, and
//! takes the dearer one; a `Loop` and a `Scan` are traced round by round.

use super::{Body, Parse, eval, sequence::sequence, shapes, structure};
use crate::{
    DType,
    engine::{
        array::Array,
        cx::{Cx, Inputs, NODE_OPS, Stop},
        program::Eval,
        value::{Value, count},
    },
    onnx::Node,
};

/// Cost of an element that a Scan copies for a round.
const COPY_OPS: u64 = 8;
/// Rounds of a loop that has no bound of its own.
const MAX_ROUNDS: i64 = 10_000_000;

pub(super) fn find(name: &str) -> Option<Parse> {
    Some(match name {
        "If" => branch,
        "Loop" => |node, bodies| rounds(node, bodies),
        "Scan" => scan,
        "SequenceMap" => sequence_map,
        _ => return None,
    })
}

fn body(bodies: &[Body], name: &str) -> Result<Body, String> {
    bodies.iter().find(|body| body.name == name).cloned().ok_or_else(|| format!("its graph `{name}` is missing"))
}

/// Counts a round of a loop: a trace goes through it, too, and each of its outputs is a value of its own.
fn begin(cx: &mut Cx<'_>, body: &Body) -> Result<(), Stop> {
    cx.labour(NODE_OPS.saturating_mul(body.program.outputs.len() as u64 + 1))
}

fn branch(node: &Node<'_>, bodies: &[Body]) -> Result<Eval, String> {
    let (yes, no) = (body(bodies, "then_branch")?, body(bodies, "else_branch")?);
    if [&yes, &no].iter().any(|branch| branch.program.outputs.len() != node.proto.output.len()) {
        return Err("its branches have other outputs than it".into());
    }
    eval(move |cx, inputs| {
        if let Value::Known(condition) = inputs.value(0)? {
            let condition = truth(condition)?;
            return if condition { yes.run(cx, inputs, vec![]) } else { no.run(cx, inputs, vec![]) };
        }
        // Which one runs is not known: the cost of the dearer one, and types that both must have.
        let before = cx.ops;
        let one = yes.run(cx, inputs, vec![])?;
        let first = cx.ops - before;
        cx.ops = before;
        let other = no.run(cx, inputs, vec![])?;
        cx.ops = cx.ops.max(before.saturating_add(first));
        let same = one.len() == other.len()
            && one.iter().zip(&other).all(|(a, b)| match (a.ty(), b.ty()) {
                (Ok(a), Ok(b)) => a == b,
                _ => false,
            });
        if !same {
            return Err(Stop::DataDependent("the types of its outputs depend on its condition".into()));
        }
        Ok(one.iter().map(Value::forget).collect())
    })
}

fn truth(array: &Array) -> Result<bool, Stop> {
    match array.values::<u8>().as_ref() {
        [one] if array.dtype() == DType::Bool => Ok(*one != 0),
        _ => Err(Stop::invalid("its condition must be one bool")),
    }
}

fn known_truth(value: &Value) -> Result<Option<bool>, Stop> {
    match value {
        Value::Known(array) => truth(array).map(Some),
        _ => Ok(None),
    }
}

fn rounds(node: &Node<'_>, bodies: &[Body]) -> Result<Eval, String> {
    let body = body(bodies, "body")?;
    let formal = node.proto.input.len();
    eval(move |cx, inputs| {
        let carried = formal.saturating_sub(2);
        let limit = match inputs.int(0)? {
            Some(limit) => limit,
            None => MAX_ROUNDS,
        };
        if limit > MAX_ROUNDS {
            return Err(Stop::Limit(format!("a loop of {limit} rounds; at most {MAX_ROUNDS} are allowed")));
        }
        let mut go = match inputs.get(1) {
            Some(value) => known_truth(value)?,
            None => Some(true),
        };
        // Without a condition at the beginning, what the body says of it counts for nothing.
        let conditional = inputs.get(1).is_some();
        if !conditional && !inputs.has(0) {
            return Err(Stop::Limit("a loop with neither a count nor a condition never ends".into()));
        }
        if go.is_none() {
            return Err(Stop::DataDependent("whether its loop begins depends on the input's elements".into()));
        }
        let mut state = (0..carried).map(|i| inputs.value(i + 2).cloned()).collect::<Result<Vec<_>, _>>()?;
        let mut collected: Vec<Vec<Value>> = Vec::new();
        let mut round = 0;
        while round < limit && go == Some(true) {
            let number = Value::Known(Array::new(DType::Int64, vec![], vec![round]));
            let condition = Value::Known(Array::new(DType::Bool, vec![], vec![1u8]));
            let mut arguments = vec![number, condition];
            arguments.append(&mut state);
            begin(cx, &body)?;
            let mut outputs = body.run(cx, inputs, arguments)?;
            if outputs.len() < carried + 1 {
                return Err(Stop::invalid("its body has too few outputs"));
            }
            let scanned = outputs.split_off(carried + 1);
            state = outputs.split_off(1);
            if conditional {
                go = known_truth(&outputs[0])?;
            }
            collected.resize(scanned.len(), vec![]);
            for (list, value) in collected.iter_mut().zip(scanned) {
                cx.occupy(value.bytes_as_part())?;
                list.push(value);
            }
            round += 1;
            if go.is_none() && round < limit {
                if !collected.is_empty() {
                    return Err(Stop::DataDependent(
                        "the number of its loop's rounds depends on the input's elements".into(),
                    ));
                }
                // It may end now or go on: every round is counted, and the state keeps its type.
                go = Some(true);
                let types = |values: &[Value]| {
                    values.iter().map(|v| v.ty().map(|(d, s)| (d, s.to_vec()))).collect::<Result<Vec<_>, _>>()
                };
                let before = (0..carried).map(|i| inputs.value(i + 2).cloned()).collect::<Result<Vec<_>, _>>()?;
                if types(&before)? != types(&state)? {
                    return Err(Stop::DataDependent("the types of its state depend on the number of rounds".into()));
                }
                state = state.iter().map(Value::forget).collect();
            }
        }
        let mut outputs = state;
        for list in collected {
            let bytes = list.iter().map(Value::bytes_as_part).fold(0, u64::saturating_add);
            outputs.push(stack(cx, &list, 0)?);
            cx.release(bytes);
        }
        if round == 0 && body.program.outputs.len() > carried + 1 {
            // A loop that never runs has empty outputs, whose types its body tells.
            let types = Value::Unknown(DType::Int64, vec![]);
            let mut arguments = vec![types, Value::Unknown(DType::Bool, vec![])];
            arguments.extend(outputs.iter().map(Value::forget));
            let mut telling = cx.telling();
            let told = body.run(&mut telling, inputs, arguments);
            cx.told(&telling)?;
            for value in told?.into_iter().skip(carried + 1) {
                let (dtype, shape) = value.ty()?;
                let shape = core::iter::once(0).chain(shape.iter().copied()).collect();
                outputs.push(Value::Known(Array::empty(dtype, shape)));
            }
        }
        Ok(outputs)
    })
}

/// Values of one type along a new axis.
fn stack(cx: &mut Cx<'_>, list: &[Value], axis: usize) -> Result<Value, Stop> {
    let Some(first) = list.first() else {
        return Ok(Value::Known(Array::new(DType::Float32, vec![0], Vec::<f32>::new())));
    };
    let (dtype, shape) = first.ty()?;
    let mut part = shape.to_vec();
    if axis > part.len() {
        return Err(Stop::invalid("an axis of its outputs is out of bounds"));
    }
    part.insert(axis, 1);
    let mut out = part.clone();
    out[axis] = list.len();
    for value in list {
        if value.ty()? != (dtype, shape) {
            return Err(Stop::invalid("the rounds of its loop give different types"));
        }
    }
    let inputs = Inputs::new(list.iter().map(Some).collect());
    let ops = count(&out);
    cx.emit_checked(&inputs, dtype, out, ops, |out| {
        let arrays = (0..list.len())
            .map(|i| Ok(inputs.read(i)?.contiguous().reshape(part.clone())))
            .collect::<Result<Vec<_>, Stop>>()?;
        Ok(structure::join(&arrays, axis, out))
    })
}

fn scan(node: &Node<'_>, bodies: &[Body]) -> Result<Eval, String> {
    let body = body(bodies, "body")?;
    if node.opset < 9 {
        return Err("operator set 8's Scan is not supported: export with a newer one".into());
    }
    let formal = node.proto.input.len();
    let scanned = usize::try_from(node.int("num_scan_inputs", 0))
        .ok()
        .filter(|n| *n > 0 && *n <= formal)
        .ok_or("its num_scan_inputs does not fit")?;
    let carried = formal - scanned;
    let list = |name: &str| node.ints(name).unwrap_or_default();
    let (in_axes, out_axes) = (list("scan_input_axes"), list("scan_output_axes"));
    let (backwards_in, backwards_out) = (list("scan_input_directions"), list("scan_output_directions"));
    eval(move |cx, inputs| {
        let mut state = (0..carried).map(|i| inputs.value(i).cloned()).collect::<Result<Vec<_>, _>>()?;
        let mut axes = Vec::with_capacity(scanned);
        let mut length = None;
        for i in 0..scanned {
            let shape = inputs.shape(carried + i)?;
            let axis = shapes::axis(in_axes.get(i).copied().unwrap_or(0), shape.len())?;
            if *length.get_or_insert(shape[axis]) != shape[axis] {
                return Err(Stop::invalid("its scanned inputs have different lengths"));
            }
            axes.push(axis);
        }
        let length = length.unwrap_or(0);
        let mut collected: Vec<Vec<Value>> = Vec::new();
        for round in 0..length {
            let mut arguments = core::mem::take(&mut state);
            for (i, axis) in axes.iter().enumerate() {
                let back = backwards_in.get(i) == Some(&1);
                let at = if back { length - 1 - round } else { round };
                arguments.push(element(cx, inputs.value(carried + i)?, *axis, at)?);
            }
            begin(cx, &body)?;
            let mut outputs = body.run(cx, inputs, arguments)?;
            if outputs.len() < carried {
                return Err(Stop::invalid("its body has too few outputs"));
            }
            let values = outputs.split_off(carried);
            state = outputs;
            collected.resize(values.len(), vec![]);
            for (list, value) in collected.iter_mut().zip(values) {
                cx.occupy(value.bytes_as_part())?;
                list.push(value);
            }
        }
        let mut outputs = state;
        for (i, mut list) in collected.into_iter().enumerate() {
            if backwards_out.get(i) == Some(&1) {
                list.reverse();
            }
            let rank = list.first().map_or(Ok(0), |value| value.ty().map(|(_, shape)| shape.len()))?;
            let axis = shapes::axis(out_axes.get(i).copied().unwrap_or(0), rank + 1)?;
            let bytes = list.iter().map(Value::bytes_as_part).fold(0, u64::saturating_add);
            outputs.push(stack(cx, &list, axis)?);
            cx.release(bytes);
        }
        if outputs.len() < body.program.outputs.len() {
            return Err(Stop::invalid("it scans nothing"));
        }
        Ok(outputs)
    })
}

/// The slice of a value at an index of an axis, without the axis.
fn element(cx: &mut Cx<'_>, value: &Value, axis: usize, at: usize) -> Result<Value, Stop> {
    let (dtype, shape) = value.ty()?;
    let mut out = shape.to_vec();
    out.remove(axis);
    // It is copied, in a trace, too, if there is something to copy: with all that lies between its elements, unless they are
    // neighbours.
    let ops = count(&out).saturating_mul(if axis == 0 { COPY_OPS } else { 20 * COPY_OPS });
    if value.is_known() {
        cx.labour(ops)?;
    } else {
        cx.charge(ops)?;
    }
    Ok(match value {
        Value::Known(array) => Value::Known(array.slice(axis, at, 1, 1).contiguous().reshape(out)),
        _ => Value::Unknown(dtype, out),
    })
}

/// Evaluates a graph for each element of a sequence.
fn sequence_map(node: &Node<'_>, bodies: &[Body]) -> Result<Eval, String> {
    let body = body(bodies, "body")?;
    let (formal, outputs) = (node.proto.input.len(), node.outputs());
    eval(move |cx, inputs| {
        let Value::Sequence(first) = inputs.value(0)? else { return Err(Stop::invalid("it takes a sequence")) };
        let mut lists: Vec<Vec<Value>> = vec![vec![]; outputs];
        for i in 0..first.len() {
            let mut arguments = Vec::with_capacity(formal);
            for index in 0..formal {
                arguments.push(match inputs.value(index)? {
                    Value::Sequence(list) => {
                        list.get(i).cloned().ok_or_else(|| Stop::invalid("its sequences have different lengths"))?
                    }
                    other => other.clone(),
                });
            }
            begin(cx, &body)?;
            let values = body.run(cx, inputs, arguments)?;
            for (list, value) in lists.iter_mut().zip(values) {
                cx.occupy(value.bytes_as_part())?;
                list.push(value);
            }
        }
        let lists: Vec<Value> = lists.into_iter().map(sequence).collect::<Result<_, _>>()?;
        cx.release(lists.iter().map(Value::bytes).fold(0, u64::saturating_add));
        Ok(lists)
    })
}
