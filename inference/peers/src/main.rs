//! Times tract and candle on ONNX files with their test inputs, and Burn on models of the same sizes.

mod burn;

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use candle_onnx::onnx::TensorProto;
use prost::Message;
use tract_onnx::prelude::*;

/// How long each case runs.
const TIME: Duration = Duration::from_secs(1);

struct Input {
    shape: Vec<usize>,
    values: Values,
}

enum Values {
    Floats(Vec<f32>),
    Integers(Vec<i64>),
}

fn read(path: &Path) -> Result<Input> {
    let tensor = TensorProto::decode(fs::read(path)?.as_slice())?;
    let shape = tensor.dims.iter().map(|dim| *dim as usize).collect();
    let raw = &tensor.raw_data;
    let values = match tensor.data_type {
        1 if raw.is_empty() => Values::Floats(tensor.float_data),
        1 => Values::Floats(raw.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()),
        7 if raw.is_empty() => Values::Integers(tensor.int64_data),
        7 => Values::Integers(raw.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()),
        other => bail!("element type {other}"),
    };
    Ok(Input { shape, values })
}

/// The least time of a run, in microseconds.
fn time(mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    run()?;
    let (end, mut least) = (Instant::now() + TIME, f64::INFINITY);
    while Instant::now() < end {
        let begin = Instant::now();
        run()?;
        least = least.min(begin.elapsed().as_secs_f64() * 1e6);
    }
    Ok(least)
}

fn tract(file: &Path, inputs: &[Input]) -> Result<f64> {
    let mut model = tract_onnx::onnx().with_ignore_output_shapes(true).model_for_path(file)?;
    let mut values: TVec<TValue> = tvec![];
    for (index, input) in inputs.iter().enumerate() {
        let tensor = match &input.values {
            Values::Floats(values) => Tensor::from_shape(&input.shape, values)?,
            Values::Integers(values) => Tensor::from_shape(&input.shape, values)?,
        };
        model.set_input_fact(index, InferenceFact::dt_shape(tensor.datum_type(), &input.shape))?;
        values.push(tensor.into_tvalue());
    }
    let mut state = model.into_optimized()?.into_runnable()?.spawn()?;
    time(|| {
        state.run(values.clone())?;
        Ok(())
    })
}

fn candle(file: &Path, inputs: &[Input]) -> Result<f64> {
    use candle_core::{Device, Tensor};
    let model = candle_onnx::read_file(file)?;
    let graph = model.graph.as_ref().context("no graph")?;
    let weights: Vec<&str> = graph.initializer.iter().map(|weight| weight.name.as_str()).collect();
    let names = graph.input.iter().filter(|input| !weights.contains(&input.name.as_str()));
    let mut values = HashMap::new();
    for (name, input) in names.zip(inputs) {
        let tensor = match &input.values {
            Values::Floats(values) => Tensor::from_slice(values, input.shape.as_slice(), &Device::Cpu)?,
            Values::Integers(values) => Tensor::from_slice(values, input.shape.as_slice(), &Device::Cpu)?,
        };
        values.insert(name.name.clone(), tensor);
    }
    time(|| {
        candle_onnx::simple_eval(&model, values.clone())?;
        Ok(())
    })
}

fn main() -> Result<()> {
    // candle's products run on rayon: one thread, as the others.
    if std::env::var_os("RAYON_NUM_THREADS").is_none() {
        bail!("set RAYON_NUM_THREADS=1");
    }
    let Some(folder) = std::env::args().nth(1).map(PathBuf::from) else { return burn::all() };
    let mut cases: Vec<_> = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    cases.sort();
    println!("| case, first input | tract µs | candle µs |\n|---|---|---|");
    let text = |result: Result<f64>| match result {
        Ok(micros) => format!("{micros:.1}"),
        Err(error) => format!("fails: {:.60}", error.to_string().replace('\n', " ")),
    };
    for case in cases {
        let (file, name) = (case.join("model.onnx"), case.file_name().context("a name")?.to_string_lossy().into_owned());
        let mut seen = Vec::new();
        for set in 0.. {
            let data = case.join(format!("test_data_set_{set}"));
            if !data.is_dir() {
                break;
            }
            let mut inputs = Vec::new();
            while let path = data.join(format!("input_{}.pb", inputs.len()))
                && path.exists()
            {
                inputs.push(read(&path)?);
            }
            let shape = inputs.first().map(|input| input.shape.clone()).unwrap_or_default();
            if seen.contains(&shape) {
                continue;
            }
            println!("| {name} {shape:?} | {} | {} |", text(tract(&file, &inputs)), text(candle(&file, &inputs)));
            seen.push(shape);
        }
    }
    Ok(())
}
