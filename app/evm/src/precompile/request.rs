//! From ABI values to a canonical request: names, shapes and numbers are resolved here.

use penstock_inference::{
    DType, Dim, InferenceMode, InferenceRequest, RequestId, Tensor, TensorSpec, TensorValues, decimal::Decimal,
};

use crate::{Denied, InputFault, RegisteredModel, abi};

/// A request that may be asked.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) id: RequestId,
    pub(super) request: InferenceRequest,
    pub(super) ops: u64,
    pub(super) batch: usize,
}

/// Converts the input of a call to the model's types.
pub(super) fn prepare(model: &RegisteredModel, input: &abi::ModelInput) -> Result<Prepared, Denied> {
    if !input.strings.is_empty() {
        return Err(InputFault::StringsNotSupported.into());
    }
    let specs = &model.descriptor.inputs;
    let mut batch = None;
    let mut inputs = Vec::with_capacity(specs.len());
    for spec in specs {
        let mut given = input.numbers.iter().filter(|tensor| names(tensor, spec, specs.len()));
        let tensor = given.next().ok_or(InputFault::MissingTensor)?;
        if given.next().is_some() {
            return Err(InputFault::UnknownTensor.into());
        }
        inputs.push(convert(tensor, spec, &mut batch)?);
    }
    if input.numbers.len() != specs.len() {
        return Err(InputFault::UnknownTensor.into());
    }
    let batch = batch.unwrap_or(1);
    let request = InferenceRequest { model: model.hash, mode: InferenceMode::Vanilla, inputs };
    Ok(Prepared { id: request.id(), request, ops: model.descriptor.ops.of(batch), batch })
}

/// Whether a tensor is meant for an input: by name, or by having none where only one is possible.
fn names(tensor: &abi::MultiDimensionalNumberTensor, spec: &TensorSpec, inputs: usize) -> bool {
    tensor.name == spec.name || (tensor.name.is_empty() && inputs == 1)
}

fn convert(
    tensor: &abi::MultiDimensionalNumberTensor,
    spec: &TensorSpec,
    batch: &mut Option<usize>,
) -> Result<Tensor, Denied> {
    let count = tensor.values.len();
    let mut shape: Vec<usize> = match tensor.shape.as_slice() {
        [] => vec![count],
        dims => dims.iter().map(|dim| *dim as usize).collect(),
    };
    if penstock_inference::tensor::element_count(&shape) != Some(count) {
        return Err(InputFault::ShapeMismatch.into());
    }
    if shape.len() + 1 == spec.shape.len() && matches!(spec.shape.first(), Some(Dim::Batch | Dim::Fixed(1))) {
        shape.insert(0, 1); // one row
    }
    let fits = shape.len() == spec.shape.len()
        && spec.shape.iter().zip(&shape).all(|(dim, size)| match dim {
            Dim::Fixed(fixed) => *fixed as usize == *size,
            Dim::Batch => *size > 0 && *batch.get_or_insert(*size) == *size,
        });
    if !fits {
        return Err(InputFault::WrongShape.into());
    }
    let decimals = tensor.values.iter().map(|n| Decimal { value: n.value, decimals: n.decimals });
    let out_of_range = |_| Denied::from(InputFault::NumberOutOfRange);
    let values = match spec.dtype {
        DType::Float32 => decimals.map(Decimal::to_f32).collect::<Result<_, _>>().map(TensorValues::Float32),
        DType::Int64 => decimals.map(Decimal::to_i64).collect::<Result<_, _>>().map(TensorValues::Int64),
    };
    Tensor::new(shape, values.map_err(out_of_range)?).ok_or(Denied::InvalidInput(InputFault::ShapeMismatch))
}
