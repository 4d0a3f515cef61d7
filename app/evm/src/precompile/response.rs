//! From tensors to ABI values.

use penstock_inference::{Tensor, TensorSpec, TensorValues, decimal::Decimal};

use crate::{Denied, abi, errors::OUTPUT_NOT_REPRESENTABLE};

/// Bytes of one `Number`.
const NUMBER_BYTES: u64 = 64;

/// Bytes of the outputs for a batch: what gas and `maxOutputBytes` count, known before any run.
pub(super) fn output_bytes(outputs: &[TensorSpec], batch: usize) -> u64 {
    let numbers = |spec: &TensorSpec| spec.shape.iter().fold(1u64, |n, dim| n.saturating_mul(dim.size(batch) as u64));
    outputs.iter().fold(0u64, |sum, spec| sum.saturating_add(numbers(spec).saturating_mul(NUMBER_BYTES)))
}

/// The output of a call.
pub(super) fn model_output(specs: &[TensorSpec], outputs: &[Tensor]) -> Result<abi::ModelOutput, Denied> {
    let numbers =
        specs.iter().zip(outputs).map(|(spec, tensor)| number_tensor(spec, tensor)).collect::<Result<_, _>>()?;
    Ok(abi::ModelOutput { numbers, strings: vec![], jsons: vec![], is_simulation_result: false })
}

/// Zeros in the shape of the real output, marked as not real.
pub(super) fn placeholder(specs: &[TensorSpec], batch: usize) -> abi::ModelOutput {
    let numbers = specs
        .iter()
        .map(|spec| {
            let shape = spec.shape_for(batch);
            let count = shape.iter().product();
            abi::MultiDimensionalNumberTensor {
                name: spec.name.clone(),
                values: vec![abi::Number { value: 0, decimals: 0 }; count],
                shape: shape.iter().map(|dim| *dim as u32).collect(),
            }
        })
        .collect();
    abi::ModelOutput { numbers, strings: vec![], jsons: vec![], is_simulation_result: true }
}

fn number_tensor(spec: &TensorSpec, tensor: &Tensor) -> Result<abi::MultiDimensionalNumberTensor, Denied> {
    let number = |decimal: Decimal| abi::Number { value: decimal.value, decimals: decimal.decimals };
    let values = match tensor.values() {
        TensorValues::Float32(values) => values
            .iter()
            .map(|x| Decimal::from_f32(*x).map(number))
            .collect::<Result<_, _>>()
            .map_err(|_| Denied::InferenceFailed(OUTPUT_NOT_REPRESENTABLE))?,
        TensorValues::Int64(values) => values.iter().map(|x| number(Decimal::from_i64(*x))).collect(),
    };
    let shape = tensor.shape().iter().map(|dim| *dim as u32).collect();
    Ok(abi::MultiDimensionalNumberTensor { name: spec.name.clone(), values, shape })
}
