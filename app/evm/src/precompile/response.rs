//! From tensors to ABI values.

use penstock_inference::{DType, Sizes, Tensor, TensorSpec, TensorValues, decimal::Decimal};

use crate::{Denied, abi, errors::OUTPUT_NOT_REPRESENTABLE};

/// Bytes of one `Number`.
const NUMBER_BYTES: u64 = 64;
/// Bytes that a string of an output may have at most, and is charged for: how long it is only a run knows.
const STRING_BYTES: usize = 256;

/// Bytes of the outputs for the sizes of a request: what gas and `maxOutputBytes` count, known before any run.
pub(super) fn output_bytes(outputs: &[TensorSpec], sizes: &Sizes) -> u64 {
    let each = |spec: &TensorSpec| match spec.dtype {
        DType::String => NUMBER_BYTES + STRING_BYTES as u64,
        _ => NUMBER_BYTES,
    };
    let elements = |spec: &TensorSpec| spec.shape.iter().fold(1u64, |n, dim| n.saturating_mul(sizes.of(dim) as u64));
    outputs.iter().fold(0u64, |sum, spec| sum.saturating_add(elements(spec).saturating_mul(each(spec))))
}

/// The output of a call: numbers and strings, each in the order of the model's outputs.
pub(super) fn model_output(specs: &[TensorSpec], outputs: &[Tensor]) -> Result<abi::ModelOutput, Denied> {
    let (mut numbers, mut strings) = (Vec::new(), Vec::new());
    for (spec, tensor) in specs.iter().zip(outputs) {
        match tensor.values() {
            TensorValues::String(values) => {
                if values.iter().any(|text| text.len() > STRING_BYTES) {
                    return Err(Denied::OutputTooLarge);
                }
                strings.push(abi::StringTensor { name: spec.name.clone(), values: values.clone() });
            }
            _ => numbers.push(number_tensor(spec, tensor)?),
        }
    }
    Ok(abi::ModelOutput { numbers, strings, jsons: vec![], is_simulation_result: false })
}

/// Zeros and empty strings in the shape of the real output, marked as not real.
pub(super) fn placeholder(specs: &[TensorSpec], sizes: &Sizes) -> abi::ModelOutput {
    let (mut numbers, mut strings) = (Vec::new(), Vec::new());
    for spec in specs {
        let shape = spec.shape_for(sizes);
        let (count, name) = (shape.iter().product(), spec.name.clone());
        if spec.dtype == DType::String {
            strings.push(abi::StringTensor { name, values: vec![String::new(); count] });
        } else {
            numbers.push(abi::MultiDimensionalNumberTensor {
                name,
                values: vec![abi::Number { value: 0, decimals: 0 }; count],
                shape: shape.iter().map(|dim| *dim as u32).collect(),
            });
        }
    }
    abi::ModelOutput { numbers, strings, jsons: vec![], is_simulation_result: true }
}

fn number_tensor(spec: &TensorSpec, tensor: &Tensor) -> Result<abi::MultiDimensionalNumberTensor, Denied> {
    let number = |decimal: Option<Decimal>| decimal.map(|d| abi::Number { value: d.value, decimals: d.decimals });
    let values = tensor.decimals().into_iter().map(number).collect::<Option<_>>();
    let values = values.ok_or(Denied::InferenceFailed(OUTPUT_NOT_REPRESENTABLE))?;
    let shape = tensor.shape().iter().map(|dim| *dim as u32).collect();
    Ok(abi::MultiDimensionalNumberTensor { name: spec.name.clone(), values, shape })
}
