//! A plan: the types of all values for one batch size, what the run costs, and when values die.

use super::{
    kernels::Kernels,
    model::Compiled,
    ops::RunError,
    value::{TensorType, Value},
};
use crate::{ModelError, onnx::ValueId};

/// Bytes that the values of one run may take together, had none been freed.
const MAX_RUN_BYTES: usize = 1 << 31;

/// The run of a model for one batch size.
#[derive(Debug)]
pub(super) struct Plan {
    types: Vec<Option<TensorType>>,
    /// For each node the values that nothing reads after it.
    dead_after: Vec<Vec<ValueId>>,
    pub(super) ops: u64,
}

impl Plan {
    /// Infers every type for inputs of a batch size.
    pub(super) fn new<B: Kernels>(model: &Compiled<B>, batch: usize) -> Result<Self, ModelError> {
        let mut types: Vec<Option<TensorType>> = vec![None; model.value_count];
        for (id, constant) in &model.constants {
            types[*id] = Some(constant.1.clone());
        }
        for (id, spec) in &model.inputs {
            types[*id] = Some(TensorType::new(spec.dtype, spec.shape_for(batch)));
        }
        let (mut ops, mut bytes) = (0u64, 0usize);
        let mut last_use = vec![usize::MAX; model.value_count];
        for (index, step) in model.steps.iter().enumerate() {
            let error = |reason| ModelError::Node { node: step.label.clone(), reason };
            let inputs = step
                .inputs
                .iter()
                .map(|id| {
                    types[*id].as_ref().ok_or_else(|| error("it reads a value that no supported node computes".into()))
                })
                .collect::<Result<Vec<_>, _>>()?;
            let output = step.operator.infer(&inputs).map_err(error)?;
            let size = output.count().checked_mul(output.dtype.size());
            let size = size.and_then(|size| size.checked_add(step.operator.scratch(&inputs, &output)?));
            bytes = size
                .and_then(|size| bytes.checked_add(size))
                .filter(|b| *b <= MAX_RUN_BYTES)
                .ok_or_else(|| error(format!("a run of batch {batch} needs more than {MAX_RUN_BYTES} bytes")))?;
            ops = ops.saturating_add(step.operator.ops(&inputs, &output));
            step.inputs.iter().for_each(|id| last_use[*id] = index);
            types[step.output] = Some(output);
        }
        let mut dead_after = vec![Vec::new(); model.steps.len()];
        for (id, index) in last_use.into_iter().enumerate() {
            let kept = model.constants.contains_key(&id) || model.outputs.iter().any(|(output, _)| *output == id);
            if index != usize::MAX && !kept {
                dead_after[index].push(id);
            }
        }
        Ok(Self { types, dead_after, ops })
    }

    /// The type of a value, if the plan computes it.
    pub(super) fn type_of(&self, id: ValueId) -> Option<&TensorType> {
        self.types[id].as_ref()
    }

    /// Runs the steps on the inputs.
    pub(super) fn run<B: Kernels>(
        &self,
        model: &Compiled<B>,
        inputs: Vec<Value<B>>,
    ) -> Result<Vec<Value<B>>, RunError> {
        let mut values: Vec<Option<Value<B>>> = vec![None; model.value_count];
        for (id, (value, _)) in &model.constants {
            values[*id] = Some(value.clone());
        }
        for ((id, _), value) in model.inputs.iter().zip(inputs) {
            values[*id] = Some(value);
        }
        for (step, dead) in model.steps.iter().zip(&self.dead_after) {
            let output = {
                let inputs =
                    step.inputs.iter().map(|id| values[*id].as_ref().ok_or(RunError)).collect::<Result<Vec<_>, _>>()?;
                step.operator.run(&inputs, self.types[step.output].as_ref().ok_or(RunError)?)?
            };
            values[step.output] = Some(output);
            dead.iter().for_each(|id| values[*id] = None);
        }
        model.outputs.iter().map(|(id, _)| values[*id].clone().ok_or(RunError)).collect()
    }
}
