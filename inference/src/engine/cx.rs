//! What an operator is evaluated in: tracing or running, and within which bounds.

use core::sync::atomic::{AtomicBool, Ordering};

pub(crate) use super::inputs::Inputs;
use super::{
    array::Array,
    elements::Element,
    spare,
    value::{Value, count, extent, size},
};
use crate::DType;

/// Bytes that the values of a run may take at one time.
pub(crate) const MAX_RUN_BYTES: u64 = 2 << 30;
/// Bytes of all texts that a run makes: a plan knows how many there are, not how long they are, so that they have no price.
const MAX_RUN_TEXTS: u64 = 64 << 20;
/// Bytes of all texts that the nodes of a run read.
const MAX_TEXT_READS: u64 = 32 << 20;
/// Cost of a run that a node accepts when nothing else bounds it: about half an hour of a core.
pub(crate) const MAX_RUN_OPS: u64 = 60_000_000_000_000;
/// Dimensions of a tensor: some kernels recurse over them.
pub(crate) const MAX_RANK: usize = 64;
/// What may be computed already while the types of a graph are told that is not run: see [`Allowance`].
const MAX_TELL_OPS: u64 = 1 << 16;
/// Values above this are not kept as constants of a plan.
const MAX_FOLD_BYTES: u64 = 64 << 20;
/// What a byte of a value that is computed while tracing counts for: its memory is fresh, and stays.
const FRESH_OPS: u64 = 16;
/// What an element counts for that is read while tracing.
const READ_OPS: u64 = 8;
/// Integers that a shape may depend on: two for each dimension of a tensor.
pub(crate) const MAX_INTS: usize = 2 * MAX_RANK;
/// The same where each is a part of a value.
pub(crate) const MAX_PARTS: usize = 1 << 16;

/// Cost of a run whatever it does.
pub(crate) const RUN_OPS: u64 = 16_000;
/// Cost of evaluating a graph, the main one or one inside a node.
pub(crate) const GRAPH_OPS: u64 = 2_000;
/// Cost of a node whatever it does: looking its inputs up, allocating its output. One op is one multiply-add of a large
/// matrix product, some 0.04 ns; these are calibrated against it (`cargo bench -p penstock-inference --bench cost`).
pub(crate) const NODE_OPS: u64 = 12_000;
/// Cost of a value that a sequence has, wherever the sequence goes.
const PART_OPS: u64 = 2_000;
/// Cost of each element of an output besides what the operator says: it goes to memory and back.
const ELEMENT_OPS: u64 = 6;

/// Cost from which a node is worth other threads: some 20 µs.
const SPREAD_OPS: u64 = 1 << 19;

/// What traces may do of what takes time: each of them, and all of them together while a model is loaded. Beyond the folds
/// values are left to the run; beyond the rest the trace fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    /// Steps, those of every round of a loop included.
    steps: u64,
    /// Cost of all values that are computed already.
    folds: u64,
    /// Cost of all else that is done as in a run: rounds of loops, and sequences.
    labour: u64,
    /// Bytes of texts that are read.
    texts: u64,
}

impl Allowance {
    /// Of one trace.
    const TRACE: Self = Self { steps: 1_000_000, folds: 8_000_000_000, labour: 16_000_000_000, texts: MAX_TEXT_READS };
    /// Of all traces that find a model's price.
    pub(crate) const PRICE: Self =
        Self { steps: 4_000_000, folds: 8_000_000_000, labour: 32_000_000_000, texts: 4 * MAX_TEXT_READS };
    /// Of the constants that are computed while a model is compiled.
    pub(crate) const COMPILE: Self = Self { folds: 32_000_000_000, ..Self::TRACE };

    /// What is left of it behind a trace.
    pub(crate) fn behind(self, trace: &Cx<'_>) -> Self {
        let given = trace.allowance;
        Self {
            steps: self.steps - (given.steps - trace.left.steps),
            folds: self.folds - (given.folds - trace.left.folds),
            labour: self.labour - (given.labour - trace.left.labour),
            texts: self.texts - (given.texts - trace.left.texts),
        }
    }
}

/// Why an evaluation ended without a value. The texts are for people who load a model: they never reach consensus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The operator cannot take these inputs.
    Invalid(String),
    /// While tracing: a shape depends on elements that only a run knows.
    DataDependent(String),
    /// A bound is exceeded.
    Limit(String),
    /// Nobody wants the result any more.
    Cancelled,
}

impl Stop {
    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Self::Invalid(reason.into())
    }

    pub(crate) fn unsupported(dtype: DType) -> Self {
        Self::Invalid(format!("it does not take {} here", dtype.name()))
    }
}

impl From<String> for Stop {
    fn from(reason: String) -> Self {
        Self::Invalid(reason)
    }
}

impl From<&str> for Stop {
    fn from(reason: &str) -> Self {
        Self::Invalid(reason.to_owned())
    }
}

/// The state of one evaluation.
#[derive(Debug)]
pub(crate) struct Cx<'a> {
    tracing: bool,
    /// What a trace might do at its beginning, and what is left of it.
    allowance: Allowance,
    left: Allowance,
    /// Whether an output of this step is left to the run.
    refused: bool,
    /// Greatest cost.
    limit: u64,
    /// Bytes of texts that may still be made.
    texts_left: u64,
    /// Bytes of texts that may still be read.
    text_reads_left: u64,
    /// Cost so far.
    pub(crate) ops: u64,
    /// Bytes of the values that are alive.
    pub(crate) bytes: u64,
    /// The greatest value that `bytes` had.
    pub(crate) peak: u64,
    /// Threads that work may be spread over.
    pub(crate) threads: usize,
    cancelled: Option<&'a AtomicBool>,
    /// Nodes done, for whoever watches.
    progress: Option<&'a core::sync::atomic::AtomicU64>,
}

impl<'a> Cx<'a> {
    /// Infers types and cost; computes only what follows from constants.
    pub(crate) fn tracing() -> Self {
        Self::tracing_within(Allowance::TRACE)
    }

    /// [`Self::tracing`], where others that share an allowance went before.
    pub(crate) fn tracing_within(within: Allowance) -> Self {
        let most = Allowance::TRACE;
        let left = Allowance {
            steps: within.steps.min(most.steps),
            folds: within.folds.min(most.folds),
            labour: within.labour.min(most.labour),
            texts: within.texts.min(most.texts),
        };
        Self { tracing: true, allowance: left, left, ..Self::running(1, None, None) }
    }

    /// Computes constants while a model is compiled.
    pub(crate) fn compiling() -> Self {
        let left = Allowance::COMPILE;
        Self { tracing: true, allowance: left, left, ..Self::running(1, None, None) }
    }

    /// Computes.
    pub(crate) fn running(
        threads: usize,
        cancelled: Option<&'a AtomicBool>,
        progress: Option<&'a core::sync::atomic::AtomicU64>,
    ) -> Self {
        Self {
            tracing: false,
            allowance: Allowance::TRACE,
            left: Allowance::TRACE,
            refused: false,
            limit: MAX_RUN_OPS,
            texts_left: MAX_RUN_TEXTS,
            text_reads_left: MAX_TEXT_READS,
            ops: 0,
            bytes: 0,
            peak: 0,
            threads,
            cancelled,
            progress,
        }
    }

    /// Threads that the computation of an output may be spread over, whose operator costs so many ops: one, if others would
    /// hardly help.
    pub(crate) fn threads_for(&self, shape: &[usize], ops: u64) -> usize {
        if ops.saturating_add(count(shape).saturating_mul(ELEMENT_OPS)) < SPREAD_OPS { 1 } else { self.threads }
    }

    pub(crate) fn is_tracing(&self) -> bool {
        self.tracing
    }

    /// For less cost than so far.
    pub(crate) fn within(self, limit: u64) -> Self {
        Self { limit: limit.min(MAX_RUN_OPS), ..self }
    }

    /// Called between nodes.
    pub(crate) fn checkpoint(&mut self) -> Result<(), Stop> {
        self.refused = false;
        if self.tracing {
            let left = self.left.steps.checked_sub(1);
            self.left.steps = left.ok_or_else(|| {
                Stop::Limit(format!("its loops make a run of more than {} steps", self.allowance.steps))
            })?;
        }
        if let Some(progress) = self.progress {
            progress.store(self.ops, Ordering::Relaxed);
        }
        match self.cancelled {
            Some(cancelled) if cancelled.load(Ordering::Relaxed) => Err(Stop::Cancelled),
            _ => Ok(()),
        }
    }

    /// Adds cost.
    pub(crate) fn charge(&mut self, ops: u64) -> Result<(), Stop> {
        self.ops = self.ops.saturating_add(ops);
        if self.ops > self.limit {
            return Err(Stop::Limit(format!("a run costs more than {} ops", self.limit)));
        }
        Ok(())
    }

    /// Adds cost of work that is done while tracing, too.
    pub(crate) fn labour(&mut self, ops: u64) -> Result<(), Stop> {
        if self.tracing {
            let left = self.left.labour.checked_sub(ops);
            self.left.labour = left.ok_or_else(|| Stop::Limit("its loops and sequences take too long".into()))?;
        }
        self.charge(ops)
    }

    /// Counts a value that is kept; [`Self::release`] takes its bytes off again.
    pub(crate) fn hold(&mut self, value: &Value) -> Result<(), Stop> {
        match value {
            Value::Sequence(parts) => {
                self.labour((parts.len() as u64).saturating_mul(PART_OPS))?;
                parts.iter().try_for_each(Self::check_type)?;
            }
            one => Self::check_type(one)?,
        }
        self.occupy(value.bytes())
    }

    /// Adds bytes that are alive; [`Self::release`] takes them off again.
    pub(crate) fn occupy(&mut self, bytes: u64) -> Result<(), Stop> {
        self.bytes = self.bytes.saturating_add(bytes);
        self.peak = self.peak.max(self.bytes);
        if self.bytes > MAX_RUN_BYTES {
            return Err(Stop::Limit(format!("a run needs more than {MAX_RUN_BYTES} bytes")));
        }
        Ok(())
    }

    /// What tells the types of a graph that is not run, in a trace and in a run alike: within what is left, and charged for by
    /// [`Self::told`] as if it ran.
    pub(crate) fn telling(&self) -> Self {
        Self {
            tracing: true,
            left: Allowance { folds: self.left.folds.min(MAX_TELL_OPS), ..self.left },
            limit: self.limit.saturating_sub(self.ops),
            ops: 0,
            threads: 1,
            progress: None,
            ..*self
        }
    }

    /// Takes over what telling has cost.
    pub(crate) fn told(&mut self, telling: &Self) -> Result<(), Stop> {
        if self.tracing {
            let folds = self.left.folds.saturating_sub(MAX_TELL_OPS);
            self.left = Allowance { folds, ..telling.left };
        }
        self.texts_left = telling.texts_left;
        self.text_reads_left = telling.text_reads_left;
        self.peak = self.peak.max(telling.peak);
        self.charge(telling.ops)
    }

    /// Bytes that a kernel needs beside its output while it runs. What each further thread needs is not counted: whether a run
    /// fails must not depend on their number. [`threads_within`] bounds it.
    pub(crate) fn scratch(&mut self, bytes: u64) -> Result<(), Stop> {
        self.occupy(bytes)?;
        self.release(bytes);
        Ok(())
    }

    pub(crate) fn release(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Keeps the memory of a value that nobody reads any more.
    pub(crate) fn reuse(value: Value) {
        if let Value::Known(array) = value
            && array.dtype() == DType::Float32
            && spare::FLOATS.contains(&array.count())
            && array.is_own()
        {
            spare::keep(array.into_vec());
        }
    }

    /// The output of an operator: its type and cost are known before anything is computed or allocated. While tracing
    /// the elements are computed only if the inputs are known and it is cheap.
    pub(crate) fn emit<T: Element>(
        &mut self,
        inputs: &Inputs<'_>,
        dtype: DType,
        shape: Vec<usize>,
        ops: u64,
        compute: impl FnOnce() -> Result<Vec<T>, Stop>,
    ) -> Result<Value, Stop> {
        self.emit_with(inputs, dtype, shape, ops, |shape| Ok(Array::new(dtype, shape, compute()?)))
    }

    /// [`Self::emit`] of float32, where the computation gets the output's elements to write over, all of them, and so many
    /// more to work with: what is in either is of some other value.
    pub(crate) fn emit_over(
        &mut self,
        inputs: &Inputs<'_>,
        shape: Vec<usize>,
        (ops, beside): (u64, usize),
        compute: impl FnOnce(&mut [f32], &mut [f32]) -> Result<(), Stop>,
    ) -> Result<Value, Stop> {
        if !self.admit(inputs, DType::Float32, &shape, ops)? {
            return Ok(Value::Unknown(DType::Float32, shape));
        }
        if count(&shape) == 0 {
            return Ok(Value::Known(Array::empty(DType::Float32, shape)));
        }
        // What is admitted can be counted.
        let mut out = spare::buffer(shape.iter().product());
        spare::lend(beside, |scratch| compute(&mut out, scratch))?;
        Ok(Value::Known(Array::new(DType::Float32, shape, out)))
    }

    /// [`Self::emit`] for texts, of which the computation makes no more than it may.
    pub(crate) fn emit_texts(
        &mut self,
        inputs: &Inputs<'_>,
        shape: Vec<usize>,
        ops: u64,
        compute: impl FnOnce() -> Result<Vec<String>, Stop>,
    ) -> Result<Value, Stop> {
        if !self.admit(inputs, DType::String, &shape, ops)? {
            return Ok(Value::Unknown(DType::String, shape));
        }
        if count(&shape) == 0 {
            return Ok(Value::Known(Array::empty(DType::String, shape)));
        }
        let array = Array::text(shape, compute()?);
        self.write_texts(array.text_bytes().0)?;
        Ok(Value::Known(array))
    }

    /// [`Self::emit`] of an array that shares the input's elements or is made otherwise.
    pub(crate) fn emit_with(
        &mut self,
        inputs: &Inputs<'_>,
        dtype: DType,
        shape: Vec<usize>,
        ops: u64,
        compute: impl FnOnce(Vec<usize>) -> Result<Array, Stop>,
    ) -> Result<Value, Stop> {
        if dtype == DType::String && inputs.known() {
            // Any may be the longest: known before they are copied.
            let arrays = inputs.values_of().iter().flatten().filter_map(|value| value.array());
            let longest = arrays.map(|array| array.text_bytes().1).max().unwrap_or(0);
            self.check_texts(count(&shape).saturating_mul(longest))?;
        }
        self.emit_checked(inputs, dtype, shape, ops, compute)
    }

    /// [`Self::emit_with`] where each text of the inputs is taken once at most, or the computation counts those that it takes
    /// before it copies them.
    pub(crate) fn emit_checked(
        &mut self,
        inputs: &Inputs<'_>,
        dtype: DType,
        shape: Vec<usize>,
        ops: u64,
        compute: impl FnOnce(Vec<usize>) -> Result<Array, Stop>,
    ) -> Result<Value, Stop> {
        if !self.admit(inputs, dtype, &shape, ops)? {
            return Ok(Value::Unknown(dtype, shape));
        }
        // Whatever there is to convert and to lay out, nothing comes of it.
        if count(&shape) == 0 {
            return Ok(Value::Known(Array::empty(dtype, shape)));
        }
        let array = compute(shape)?;
        self.write_texts(array.text_bytes().0)?;
        Ok(Value::Known(array))
    }

    /// Counts bytes of texts that are made.
    pub(crate) fn write_texts(&mut self, bytes: u64) -> Result<(), Stop> {
        self.check_texts(bytes)?;
        self.texts_left -= bytes;
        Ok(())
    }

    /// An error when so many bytes of texts could not be made.
    pub(crate) fn check_texts(&self, bytes: u64) -> Result<(), Stop> {
        if bytes > self.texts_left {
            return Err(Stop::Limit(format!("a run makes more than {MAX_RUN_TEXTS} bytes of texts")));
        }
        Ok(())
    }

    /// Counts bytes of texts that are read: how many there are is not known before the run, and so has no price.
    pub(crate) fn read_texts(&mut self, bytes: u64) -> Result<(), Stop> {
        if self.tracing {
            let left = self.left.texts.checked_sub(bytes);
            self.left.texts = left.ok_or_else(|| Stop::Limit("it reads too many constant texts".into()))?;
        }
        self.expect_texts(bytes)
    }

    /// The same of texts that a run reads, and a trace does not: something else is not there yet.
    pub(crate) fn expect_texts(&mut self, bytes: u64) -> Result<(), Stop> {
        let left = self.text_reads_left.checked_sub(bytes);
        self.text_reads_left =
            left.ok_or_else(|| Stop::Limit(format!("a run reads more than {MAX_TEXT_READS} bytes of texts")))?;
        Ok(())
    }

    /// An output that is not computed now, although its inputs may be known, at the cost that [`Self::emit`] counts.
    pub(crate) fn omit(&mut self, dtype: DType, shape: Vec<usize>, ops: u64) -> Result<Value, Stop> {
        self.charge_for(&shape, ops)?;
        Ok(Value::Unknown(dtype, shape))
    }

    fn charge_for(&mut self, shape: &[usize], ops: u64) -> Result<u64, Stop> {
        let ops = ops.saturating_add(extent(shape).saturating_mul(ELEMENT_OPS));
        self.charge(ops)?;
        Ok(ops)
    }

    fn check_type(value: &Value) -> Result<(), Stop> {
        match value {
            Value::Known(array) => Self::check_shape(array.shape()),
            Value::Unknown(_, shape) => Self::check_shape(shape),
            Value::Sequence(_) | Value::Nothing => Ok(()),
        }
    }

    /// An error when a tensor has too many dimensions, or has no elements and dimensions that one with elements could not have.
    fn check_shape(shape: &[usize]) -> Result<(), Stop> {
        if shape.len() > MAX_RANK {
            return Err(Stop::Limit(format!("a tensor has more than {MAX_RANK} dimensions")));
        }
        if extent(shape) > MAX_RUN_BYTES {
            return Err(Stop::Limit(format!("a tensor's dimensions are larger than {MAX_RUN_BYTES} elements")));
        }
        Ok(())
    }

    /// Whether an output of this type and cost is to be computed now. An error when it is beyond a bound.
    fn admit(&mut self, inputs: &Inputs<'_>, dtype: DType, shape: &[usize], ops: u64) -> Result<bool, Stop> {
        let bytes = size(dtype, shape);
        // Checked here, counted by whoever keeps the value.
        if self.bytes.saturating_add(bytes) > MAX_RUN_BYTES {
            return Err(Stop::Limit(format!("a run needs more than {MAX_RUN_BYTES} bytes")));
        }
        Self::check_shape(shape)?;
        let ops = self.charge_for(shape, ops)?;
        if self.tracing {
            let ops = ops.saturating_add(bytes.saturating_mul(FRESH_OPS));
            if !inputs.known() {
                return Ok(false);
            }
            // Some inputs may be converted, whole, whatever the output is.
            let read = inputs.values_of().iter().flatten().filter_map(|value| value.array());
            let read = read.map(|array| count(array.shape())).fold(0, u64::saturating_add);
            let ops = ops.saturating_add(read.saturating_mul(READ_OPS));
            // The first output of a node pays for what is computed for the others, too.
            self.refused |= ops > self.left.folds || bytes > MAX_FOLD_BYTES;
            if self.refused {
                return Ok(false);
            }
            self.left.folds -= ops;
        }
        Ok(true)
    }
}

/// As many of some threads as may have so many bytes each.
pub(crate) fn threads_within(threads: usize, each: u64) -> usize {
    threads.min(usize::try_from(MAX_RUN_BYTES / each.max(1)).unwrap_or(usize::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_of_one_model_share_what_they_may_do() {
        let known = Value::Known(Array::ints(vec![1]));
        let (mut left, mut folds, mut steps) = (Allowance::PRICE, 0, 0);
        for _ in 0..100 {
            let mut cx = Cx::tracing_within(left);
            let value = cx
                .emit(&Inputs::new(vec![Some(&known)]), DType::Float32, vec![4 << 20], 0, || Ok(vec![0.0f32; 4 << 20]));
            folds += u64::from(value.unwrap().is_known());
            steps += (0..300_000).take_while(|_| cx.checkpoint().is_ok()).count() as u64;
            left = left.behind(&cx);
        }
        let each = (4 << 20) * (ELEMENT_OPS + 4 * FRESH_OPS);
        assert_eq!((folds, steps), (Allowance::PRICE.folds / each, Allowance::PRICE.steps));
        // Beyond all of them, each has a bound of its own.
        let mut cx = Cx::tracing_within(Allowance::PRICE);
        assert_eq!((0..5_000_000).take_while(|_| cx.checkpoint().is_ok()).count() as u64, Allowance::TRACE.steps);
    }

    #[test]
    fn a_second_output_is_not_computed_where_the_first_was_not() {
        let known = Value::Known(Array::ints(vec![1]));
        let inputs = Inputs::new(vec![Some(&known)]);
        let mut cx = Cx::tracing();
        let mut known = |ops: u64| cx.emit(&inputs, DType::Int64, vec![1], ops, || Ok(vec![1i64])).unwrap().is_known();
        assert_eq!((known(u64::MAX / 1_000_000), known(0)), (false, false));
        cx.checkpoint().unwrap();
        assert!(cx.emit(&inputs, DType::Int64, vec![1], 0, || Ok(vec![1i64])).unwrap().is_known(), "of another node");
    }

    #[test]
    fn threads_take_no_more_memory_together_than_a_run_may() {
        let cx = Cx::running(16, None, None);
        assert_eq!((cx.threads_for(&[10], 5), cx.threads_for(&[1 << 20], 5)), (1, 16), "too little to do, and enough");
        let each = [0, 1, 1 << 27, 1 << 28, MAX_RUN_BYTES, u64::MAX];
        assert_eq!(each.map(|each| threads_within(16, each)), [16, 16, 16, 8, 1, 1]);
    }
}
