//! From ABI values to a canonical request: names, shapes and numbers are resolved here.

use penstock_inference::{
    DType, Dim, InferenceMode, InferenceRequest, RequestId, Sizes, Tensor, TensorSpec, TensorValues, decimal::Decimal,
    tensor::element_count,
};

use crate::{Denied, InputFault, RegisteredModel, abi};

/// A request that may be asked.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) id: RequestId,
    pub(super) request: InferenceRequest,
    pub(super) ops: u64,
    pub(super) sizes: Sizes,
}

/// Converts the input of a call to the model's types.
pub(super) fn prepare(model: &RegisteredModel, input: &abi::ModelInput) -> Result<Prepared, Denied> {
    let specs = &model.descriptor.inputs;
    let strings = specs.iter().filter(|spec| spec.dtype == DType::String).count();
    if strings == 0 && !input.strings.is_empty() {
        return Err(InputFault::StringsNotSupported.into());
    }
    // Without a name only where one tensor of its kind is possible.
    let one = (specs.len() - strings == 1, strings == 1);
    let mut sizes = Sizes::default();
    let mut inputs = Vec::with_capacity(specs.len());
    for spec in specs {
        inputs.push(if spec.dtype == DType::String {
            let given = input.strings.iter().filter(|tensor| names(&tensor.name, spec, one.1));
            convert_strings(only(given)?, spec, &mut sizes)?
        } else {
            let given = input.numbers.iter().filter(|tensor| names(&tensor.name, spec, one.0));
            convert(only(given)?, spec, &mut sizes)?
        });
    }
    if input.numbers.len() + input.strings.len() != specs.len() {
        return Err(InputFault::UnknownTensor.into());
    }
    let request = InferenceRequest { model: model.hash, mode: InferenceMode::Vanilla, inputs };
    Ok(Prepared { id: request.id(), request, ops: model.descriptor.ops.of(&sizes), sizes })
}

/// Whether a tensor is meant for an input: by name, or by having none.
fn names(name: &str, spec: &TensorSpec, only: bool) -> bool {
    name == spec.name || (name.is_empty() && only)
}

fn only<T>(mut given: impl Iterator<Item = T>) -> Result<T, Denied> {
    let tensor = given.next().ok_or(InputFault::MissingTensor)?;
    if given.next().is_some() {
        return Err(InputFault::UnknownTensor.into());
    }
    Ok(tensor)
}

/// Whether an input takes numbers of a shape.
pub(super) fn takes(spec: &TensorSpec, shape: &[u32]) -> bool {
    spec.dtype != DType::String
        && fit(shape.iter().map(|dim| *dim as usize).collect(), spec, &mut Sizes::default()).is_ok()
}

/// A shape that fits an input; a dimension of one row is added where it is missing.
fn fit(mut shape: Vec<usize>, spec: &TensorSpec, sizes: &mut Sizes) -> Result<Vec<usize>, Denied> {
    if shape.len() + 1 == spec.shape.len() && matches!(spec.shape.first(), Some(Dim::Batch | Dim::Fixed(1))) {
        shape.insert(0, 1);
    }
    if sizes.bind_shape(&spec.shape, &shape) { Ok(shape) } else { Err(InputFault::WrongShape.into()) }
}

fn convert(tensor: &abi::MultiDimensionalNumberTensor, spec: &TensorSpec, sizes: &mut Sizes) -> Result<Tensor, Denied> {
    let count = tensor.values.len();
    let shape: Vec<usize> = match tensor.shape.as_slice() {
        [] => vec![count],
        dims => dims.iter().map(|dim| *dim as usize).collect(),
    };
    if element_count(&shape) != Some(count) {
        return Err(InputFault::ShapeMismatch.into());
    }
    let shape = fit(shape, spec, sizes)?;
    let decimals = tensor.values.iter().map(|n| Decimal { value: n.value, decimals: n.decimals });
    Tensor::from_decimals(spec.dtype, shape, decimals).map_err(|_| InputFault::NumberOutOfRange.into())
}

/// Strings come without a shape: the one dimension that is open, if any, has what is left.
fn convert_strings(tensor: &abi::StringTensor, spec: &TensorSpec, sizes: &mut Sizes) -> Result<Tensor, Denied> {
    let count = tensor.values.len();
    let fixed = spec.shape.iter().filter_map(|dim| match dim {
        Dim::Fixed(size) => Some(*size as usize),
        Dim::Batch | Dim::Named(_) => None,
    });
    let fixed: usize = fixed.product();
    let open = spec.shape.iter().filter(|dim| !matches!(dim, Dim::Fixed(_))).count();
    if open > 1 || fixed == 0 || !count.is_multiple_of(fixed) {
        return Err(InputFault::WrongShape.into());
    }
    let size = |dim: &Dim| match dim {
        Dim::Fixed(size) => *size as usize,
        Dim::Batch | Dim::Named(_) => count / fixed,
    };
    let shape = fit(spec.shape.iter().map(size).collect(), spec, sizes)?;
    Tensor::new(shape, TensorValues::String(tensor.values.clone())).ok_or(InputFault::ShapeMismatch.into())
}
