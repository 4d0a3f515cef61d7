//! The engine of this repository.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use penstock_inference::{Model, Tensor, TensorValues};

use crate::cases::{Case, Values};
use crate::timing::{Measured, measure};

pub fn bench(case: &Case, models: &Path, all_threads: bool, seconds: f64) -> Result<Measured> {
    let model = Model::load(std::fs::read(case.file(models))?)?;
    model.descriptor().map_err(Clone::clone)?;
    let inputs = case.inputs.iter().map(|input| {
        let values = match input.values.clone() {
            Values::Floats(values) => TensorValues::Float32(values),
            Values::Integers(values) => TensorValues::Int64(values),
        };
        Tensor::new(input.shape.clone(), values).context("wrong shape")
    });
    let inputs: Vec<Tensor> = inputs.collect::<Result<_>>()?;
    measure(
        seconds,
        || {
            let result = model.run_watched(&inputs, all_threads, None, None).context("cancelled")?;
            result.map_err(|failure| anyhow!("{failure:?}"))
        },
        |outputs| {
            let floats = outputs.into_iter().find_map(|tensor| match tensor.into_values() {
                TensorValues::Float32(values) => Some(values),
                _ => None,
            });
            floats.context("no float32 output")
        },
    )
}
