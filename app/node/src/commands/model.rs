//! `penstock model`: look at ONNX files, and run them as the chain does.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow, bail};
use clap::Subcommand;
use penstock_chain::GenesisModel;
use penstock_inference::{
    DType, Dim, InferenceMode, InferenceRequest, Model as Loaded, Tensor, TensorSpec, TensorValues, decimal::Decimal,
    result,
};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

/// Look at ONNX models and run them as the chain does.
#[derive(Debug, Subcommand)]
pub(crate) enum Model {
    /// Print the content id, inputs, outputs, operators and cost of a model
    Inspect {
        /// The ONNX file
        file: PathBuf,
        /// Print the entry for `app_state.models` of a genesis, under this name
        #[arg(long, value_name = "NAME")]
        genesis_entry: Option<String>,
    },
    /// Run a model on this machine: the bits that the chain gives
    ///
    /// The input is JSON: {"inputs": {"NAME": {"shape": [1, 2], "values": [1.5, 2]}}}.
    /// Numbers are taken as exact decimals and rounded once, as the chain does.
    #[command(verbatim_doc_comment)]
    Run {
        /// The ONNX file
        file: PathBuf,
        /// The input file; - for standard input
        #[arg(default_value = "-")]
        input: PathBuf,
    },
}

pub(crate) fn run(command: Model) -> anyhow::Result<()> {
    match command {
        Model::Inspect { file, genesis_entry } => inspect(&file, genesis_entry),
        Model::Run { file, input } => run_model(&file, &input),
    }
}

fn load(file: &Path) -> anyhow::Result<Loaded> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    Loaded::load(bytes).with_context(|| file.display().to_string())
}

fn inspect(file: &Path, genesis_entry: Option<String>) -> anyhow::Result<()> {
    let model = load(file)?;
    let descriptor = model.descriptor();
    if let Some(id) = genesis_entry {
        let entry = GenesisModel {
            id,
            aliases: model.cid().map(str::to_owned).into_iter().collect(),
            hash: model.hash(),
            // Absolute: right wherever the genesis document will be.
            file: Some(fs::canonicalize(file)?.display().to_string()),
            policy: penstock_evm::Policy::Replicated,
            active: true,
            inputs: descriptor.inputs.clone(),
            outputs: descriptor.outputs.clone(),
            ops: descriptor.ops,
        };
        println!("{}", serde_json::to_string_pretty(&entry)?);
        return Ok(());
    }
    println!("content hash  {}", model.hash());
    println!("IPFS CIDv0    {}", model.cid().unwrap_or("(larger than one chunk)"));
    descriptor.inputs.iter().for_each(|spec| println!("input         {}", describe(spec)));
    descriptor.outputs.iter().for_each(|spec| println!("output        {}", describe(spec)));
    println!("ops           {} + {} for each row", descriptor.ops.fixed, descriptor.ops.per_row);
    let operators: Vec<String> = model.operators().iter().map(|(name, count)| format!("{name} x{count}")).collect();
    println!("operators     {}", operators.join(", "));
    Ok(())
}

fn describe(spec: &TensorSpec) -> String {
    let dims = spec.shape.iter().map(|dim| match dim {
        Dim::Batch => "batch".to_owned(),
        Dim::Fixed(size) => size.to_string(),
    });
    format!("{} {}[{}]", spec.name, spec.dtype.name(), dims.collect::<Vec<_>>().join(", "))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    inputs: BTreeMap<String, InputTensor>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InputTensor {
    shape: Vec<usize>,
    values: Vec<Box<RawValue>>,
}

fn run_model(file: &Path, input: &Path) -> anyhow::Result<()> {
    let model = load(file)?;
    let text = if input.as_os_str() == "-" {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        text
    } else {
        fs::read_to_string(input).with_context(|| format!("cannot read {}", input.display()))?
    };
    let input: Input = serde_json::from_str(&text).context("the input")?;
    let specs = &model.descriptor().inputs;
    if let Some(name) = input.inputs.keys().find(|name| !specs.iter().any(|spec| spec.name == **name)) {
        let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        bail!("the model has no input `{name}` (it has {})", names.join(", "));
    }
    let inputs = specs.iter().map(|spec| tensor(spec, &input)).collect::<anyhow::Result<Vec<_>>>()?;
    let request = InferenceRequest { model: model.hash(), mode: InferenceMode::Vanilla, inputs };
    let result = model.run(&request.inputs);
    let digest = result::digest(&result);
    let outputs = result.map_err(|failure| anyhow!("{failure} (code {})", failure.code()))?;
    let outputs: serde_json::Map<_, _> = model
        .descriptor()
        .outputs
        .iter()
        .zip(&outputs)
        .map(|(spec, tensor)| (spec.name.clone(), output(tensor)))
        .collect();
    let answer = json!({ "requestId": request.id().to_string(), "outputDigest": digest, "outputs": outputs });
    println!("{}", serde_json::to_string_pretty(&answer)?);
    Ok(())
}

fn tensor(spec: &TensorSpec, input: &Input) -> anyhow::Result<Tensor> {
    let name = &spec.name;
    let given = input.inputs.get(name).with_context(|| format!("the input `{name}` is missing"))?;
    let numbers = given.values.iter().enumerate().map(|(index, value)| {
        parse_decimal(value.get())
            .with_context(|| format!("input `{name}`, value {index}: `{}` is no number", value.get()))
    });
    let numbers = numbers.collect::<anyhow::Result<Vec<_>>>()?;
    let convert = || -> Result<TensorValues, _> {
        match spec.dtype {
            DType::Float32 => Ok(TensorValues::Float32(numbers.iter().map(|n| n.to_f32()).collect::<Result<_, _>>()?)),
            DType::Int64 => Ok(TensorValues::Int64(numbers.iter().map(|n| n.to_i64()).collect::<Result<_, _>>()?)),
        }
    };
    let values =
        convert().map_err(|error: penstock_inference::decimal::OutOfRange| anyhow!("input `{name}`: {error}"))?;
    let batch = given.shape.first().copied().unwrap_or(1);
    if given.shape != spec.shape_for(batch) {
        bail!("input `{name}` has shape {:?}; {} is expected", given.shape, describe(spec));
    }
    Tensor::new(given.shape.clone(), values)
        .with_context(|| format!("input `{name}`: shape {:?} does not fit {} values", given.shape, numbers.len()))
}

/// A JSON number as the exact decimal that it is.
fn parse_decimal(text: &str) -> Option<Decimal> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let value = format!("{whole}{fraction}").parse().ok()?;
    Some(Decimal { value, decimals: i128::from(fraction.len() as i64 - exponent) })
}

fn output(tensor: &Tensor) -> serde_json::Value {
    let (values, decimals): (serde_json::Value, Vec<Option<Decimal>>) = match tensor.values() {
        TensorValues::Float32(values) => (json!(values), values.iter().map(|x| Decimal::from_f32(*x).ok()).collect()),
        TensorValues::Int64(values) => (json!(values), values.iter().map(|x| Some(Decimal::from_i64(*x))).collect()),
    };
    let numbers: Vec<_> = decimals.iter().map(|d| d.map(|d| [d.value.to_string(), d.decimals.to_string()])).collect();
    json!({ "type": tensor.dtype().name(), "shape": tensor.shape(), "values": values, "numbers": numbers })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_numbers_are_taken_as_exact_decimals() {
        let decimal = |value, decimals| Some(Decimal { value, decimals });
        assert_eq!(parse_decimal("1.50"), decimal(150, 2));
        assert_eq!(parse_decimal("-0.5e-3"), decimal(-5, 4));
        assert_eq!(parse_decimal("2E3"), decimal(2, -3));
        assert_eq!(parse_decimal("\"1\""), None);
        assert_eq!(parse_decimal("null"), None);
    }
}
