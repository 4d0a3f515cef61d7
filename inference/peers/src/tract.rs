//! tract, reading the ONNX file, with the shapes of the inputs fixed before it optimises.

use std::path::Path;

use anyhow::{Context, Result};
use tract_linalg::multithread::{Executor, set_default_executor};
use tract_onnx::prelude::*;

use crate::cases::{Case, Values};
use crate::timing::{Measured, measure};

pub fn bench(case: &Case, models: &Path, all_threads: bool, seconds: f64) -> Result<Measured> {
    if all_threads {
        set_default_executor(Executor::multithread(std::thread::available_parallelism()?.get()));
    }
    let mut model = tract_onnx::onnx().with_ignore_output_shapes(true).model_for_path(case.file(models))?;
    let mut inputs: TVec<TValue> = tvec![];
    for (i, input) in case.inputs.iter().enumerate() {
        let tensor = match &input.values {
            Values::Floats(values) => Tensor::from_shape(&input.shape, values)?,
            Values::Integers(values) => Tensor::from_shape(&input.shape, values)?,
        };
        model.set_input_fact(i, InferenceFact::dt_shape(tensor.datum_type(), &input.shape))?;
        inputs.push(tensor.into_tvalue());
    }
    let mut state = model.into_optimized()?.into_runnable()?.spawn()?;
    measure(seconds, || Ok(state.run(inputs.clone())?), |outputs| {
        let floats = outputs.iter().find(|tensor| tensor.datum_type() == f32::datum_type());
        let view = floats.context("no float32 output")?.to_plain_array_view::<f32>()?;
        Ok(view.iter().copied().collect())
    })
}
