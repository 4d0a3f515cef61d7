//! A compiled graph: steps in order, with their constants and the lifetime of every value.

use core::fmt;

use super::{
    cx::{Cx, GRAPH_OPS, Inputs, NODE_OPS, Stop},
    rows::Rule,
    value::{Value, count},
};

/// Inputs and outputs of a node that [`NODE_OPS`] pays for, and the cost of each further one.
const WIRES: usize = 16;
const WIRE_OPS: u64 = 500;
/// Dimensions of a node's inputs that [`NODE_OPS`] pays for, and the cost of each further one.
const DIMS: usize = 32;
const DIM_OPS: u64 = 1000;
/// Values of a graph without a node that [`GRAPH_OPS`] pays for, and the cost of each further one.
const SLOTS: usize = 64;
const SLOT_OPS: u64 = 250;
/// Cost of an output of a graph beyond so many as a node may have.
const OUTPUT_OPS: u64 = 8000;
/// Bytes of the values that a trace keeps for runs; others are computed again.
const MAX_KEPT_BYTES: u64 = 128 << 20;

/// Index of a value of a program.
pub(crate) type Slot = usize;

/// What an operator gives.
pub(crate) type Outcome = Result<Vec<Value>, Stop>;

/// An operator with its attributes: it infers and computes, see [`Cx::emit`].
pub(crate) type Eval = Box<dyn Fn(&mut Cx<'_>, &Inputs<'_>) -> Outcome + Send + Sync>;

/// One node, ready to be evaluated.
pub(crate) struct Step {
    /// Index, operator and name, for people.
    pub(crate) label: String,
    /// Name of the operator.
    pub(crate) operator: String,
    pub(crate) eval: Eval,
    /// When it keeps the rows of a batch apart.
    pub(crate) rule: Rule,
    pub(crate) inputs: Vec<Option<Slot>>,
    pub(crate) outputs: Vec<Option<Slot>>,
    /// Values that nothing reads after this step.
    pub(crate) dead: Vec<Slot>,
    /// Whether it may take an input that dies, to write over it.
    pub(crate) takes: bool,
}

impl Step {
    /// Cost of its inputs and outputs, where they are many.
    fn wires(&self) -> u64 {
        let many = (self.inputs.len() + self.outputs.len()).saturating_sub(WIRES);
        (many as u64).saturating_mul(WIRE_OPS)
    }

    /// The greatest of its inputs that die here and are there once.
    fn dying(&self, slots: &[Option<Value>]) -> Option<(usize, Slot)> {
        let once = |slot: Slot| self.inputs.iter().flatten().filter(|other| **other == slot).count() == 1;
        let dies = |(index, slot): (usize, &Option<Slot>)| {
            let slot = (*slot).filter(|slot| self.dead.contains(slot) && once(*slot))?;
            matches!(slots[slot], Some(Value::Known(_))).then_some((index, slot))
        };
        let size =
            |slot: Slot| slots[slot].as_ref().and_then(|value| value.ty().ok()).map_or(0, |(_, shape)| count(shape));
        self.inputs.iter().enumerate().filter_map(dies).max_by_key(|(_, slot)| size(*slot))
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label)
    }
}

/// A graph, or a graph inside a node.
#[derive(Debug, Default)]
pub(crate) struct Program {
    /// Where the arguments go: those of the graph, then the captured values.
    pub(crate) inputs: Vec<Slot>,
    pub(crate) outputs: Vec<Slot>,
    pub(crate) steps: Vec<Step>,
    /// By slot.
    pub(crate) constants: Vec<Option<Value>>,
    /// Names of values of the graph around it that it reads.
    pub(crate) captures: Vec<String>,
}

/// A step that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    /// The step's label; empty when it was none.
    pub(crate) label: String,
    pub(crate) stop: Stop,
}

/// What is known before a run with given input shapes.
#[derive(Debug)]
pub(crate) struct Trace {
    /// The outputs, of which the types are known.
    pub(crate) outputs: Vec<Value>,
    /// By slot: values that follow from the shapes.
    pub(crate) folded: Vec<Option<Value>>,
    /// Bytes of all of it.
    pub(crate) bytes: u64,
    /// By step: its cost.
    pub(crate) ops: Vec<u64>,
}

/// The types of all values of a traced program, by slot.
pub(crate) type Types = Vec<Option<Value>>;

impl Program {
    /// Computes when it is finished which values die where; and leaves out what nothing reads since products of dequantised
    /// numbers are those of their integers.
    pub(crate) fn finish(&mut self) {
        let mut read = vec![false; self.constants.len()];
        let inputs = self.steps.iter().flat_map(|step| step.inputs.iter().flatten());
        inputs.chain(&self.outputs).for_each(|slot| read[*slot] = true);
        let unread = |step: &Step| step.outputs.iter().flatten().all(|slot| !read[*slot]);
        self.steps.retain(|step| step.operator != "DequantizeLinear" || !unread(step));
        self.constants.iter_mut().zip(&read).filter(|(_, read)| !**read).for_each(|(constant, _)| *constant = None);
        let mut last = vec![None; self.constants.len()];
        for (index, step) in self.steps.iter().enumerate() {
            step.inputs.iter().flatten().for_each(|slot| last[*slot] = Some(index));
            // An output that nobody reads dies where it is born.
            step.outputs.iter().flatten().for_each(|slot| last[*slot] = Some(index));
        }
        self.outputs.iter().for_each(|slot| last[*slot] = None);
        for (slot, index) in last.into_iter().enumerate() {
            if let (Some(index), None) = (index, &self.constants[slot]) {
                self.steps[index].dead.push(slot);
            }
        }
    }

    /// Evaluates the steps on arguments in the order of [`Self::inputs`].
    pub(crate) fn run(
        &self,
        cx: &mut Cx<'_>,
        arguments: Vec<Value>,
        folded: Option<&Trace>,
    ) -> Result<Vec<Value>, Failed> {
        self.evaluate(cx, arguments, folded, &mut |_, _, _| ())
    }

    /// Evaluates the types of the steps, and what follows from shapes alone.
    pub(crate) fn trace(&self, cx: &mut Cx<'_>, arguments: Vec<Value>) -> Result<Trace, Failed> {
        let mut folded = vec![None; self.constants.len()];
        let mut ops = Vec::with_capacity(self.steps.len());
        let mut kept = 0u64;
        let outputs = self.evaluate(cx, arguments, None, &mut |step, outputs, cost| {
            ops.push(cost);
            for (slot, value) in step.outputs.iter().zip(outputs) {
                if let (Some(slot), true) = (slot, value.is_known()) {
                    let bytes = kept.saturating_add(value.bytes());
                    if bytes <= MAX_KEPT_BYTES {
                        kept = bytes;
                        folded[*slot] = Some(value.clone());
                    }
                }
            }
        })?;
        // What there is of it besides the values.
        let bytes = kept + (folded.len() * size_of::<Option<Value>>() + ops.len() * size_of::<u64>()) as u64;
        Ok(Trace { outputs, folded, bytes, ops })
    }

    /// The types of all values that are tensors.
    pub(crate) fn types(&self, cx: &mut Cx<'_>, arguments: Vec<Value>) -> Result<Types, Failed> {
        let mut types: Types = self.constants.iter().map(|value| value.as_ref().map(Value::forget)).collect();
        for (slot, value) in self.inputs.iter().zip(&arguments) {
            types[*slot] = Some(value.forget());
        }
        self.evaluate(cx, arguments, None, &mut |step, outputs, _| {
            for (slot, value) in step.outputs.iter().zip(outputs) {
                if let (Some(slot), Value::Known(_) | Value::Unknown(..)) = (slot, value) {
                    types[*slot] = Some(value.forget());
                }
            }
        })?;
        Ok(types)
    }

    fn evaluate(
        &self,
        cx: &mut Cx<'_>,
        arguments: Vec<Value>,
        folded: Option<&Trace>,
        watch: &mut dyn FnMut(&Step, &[Value], u64),
    ) -> Result<Vec<Value>, Failed> {
        let before = cx.bytes;
        let bare = |stop| Failed { label: String::new(), stop };
        // Rounds of a loop are steps, too: its graph may have none.
        cx.checkpoint().map_err(bare)?;
        cx.charge(GRAPH_OPS).map_err(bare)?;
        let many = self.constants.len().saturating_sub(SLOTS + 8 * self.steps.len());
        let many = many + self.inputs.len().saturating_sub(WIRES);
        let outputs = self.outputs.len().saturating_sub(WIRES) as u64;
        let slots = (many as u64).saturating_mul(SLOT_OPS);
        cx.labour(slots.saturating_add(outputs.saturating_mul(OUTPUT_OPS))).map_err(bare)?;
        // Not by cloning one: that copies it whole, and most of it is nothing.
        let mut slots: Vec<Option<Value>> = self.constants.iter().map(|_| None).collect();
        for (slot, value) in self.inputs.iter().zip(arguments) {
            cx.hold(&value).map_err(bare)?;
            slots[*slot] = Some(value);
        }
        for step in &self.steps {
            let known =
                |slot: &Option<Slot>| slot.is_none_or(|slot| folded.is_some_and(|trace| trace.folded[slot].is_some()));
            // What follows from the shapes is there already.
            if !step.outputs.iter().all(known) {
                let failed = |stop| Failed { label: step.label.clone(), stop };
                cx.checkpoint().map_err(failed)?;
                let at = cx.ops;
                cx.charge(NODE_OPS).map_err(failed)?;
                cx.labour(step.wires()).map_err(failed)?;
                let taken = if step.takes && !cx.is_tracing() { step.dying(&slots) } else { None };
                let taken = taken.and_then(|(index, slot)| Some((index, slot, slots[slot].take()?)));
                // Its type stays where it was.
                let dying = match taken {
                    Some((index, slot, Value::Known(array))) => {
                        slots[slot] = Some(Value::Unknown(array.dtype(), array.shape().to_vec()));
                        Some((index, array))
                    }
                    _ => None,
                };
                let outputs = {
                    let find = |slot: &Option<Slot>| {
                        let slot = (*slot)?;
                        let planned = || folded.and_then(|trace| trace.folded[slot].as_ref());
                        slots[slot].as_ref().or_else(planned).or(self.constants[slot].as_ref())
                    };
                    let inputs = Inputs::with_dying(step.inputs.iter().map(find).collect(), dying);
                    if step.inputs.iter().zip(inputs.values_of()).any(|(slot, value)| slot.is_some() && value.is_none())
                    {
                        return Err(failed(Stop::invalid("it reads a value that no node computes")));
                    }
                    let dims = inputs.values_of().iter().flatten().map(|value| value.rank()).sum::<usize>();
                    cx.labour((dims.saturating_sub(DIMS) as u64).saturating_mul(DIM_OPS)).map_err(failed)?;
                    let texts = inputs.values_of().iter().flatten().filter_map(|value| value.array());
                    let read = texts.map(|array| array.text_bytes().0).fold(0, u64::saturating_add);
                    let read = if inputs.known() { cx.read_texts(read) } else { cx.expect_texts(read) };
                    read.map_err(failed)?;
                    (step.eval)(cx, &inputs).map_err(failed)?
                };
                watch(step, &outputs, cx.ops - at);
                for (slot, value) in step.outputs.iter().zip(outputs) {
                    if let Some(slot) = slot {
                        cx.hold(&value).map_err(failed)?;
                        slots[*slot] = Some(value);
                    }
                }
            }
            for slot in &step.dead {
                if let Some(value) = slots[*slot].take() {
                    cx.release(value.bytes());
                    Cx::reuse(value);
                }
            }
        }
        let planned = |slot: Slot| folded.and_then(|trace| trace.folded[slot].clone());
        let missing = || bare(Stop::invalid("an output is computed by no node"));
        let outputs = self
            .outputs
            .iter()
            .map(|slot| {
                slots[*slot]
                    .clone()
                    .or_else(|| planned(*slot))
                    .or_else(|| self.constants[*slot].clone())
                    .ok_or_else(missing)
            })
            .collect();
        cx.release(cx.bytes - before);
        outputs
    }
}
