//! `penstock model`: the models of this machine, what they are and cost, and runs as the chain does them.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, anyhow, bail};
use clap::Subcommand;
use penstock_chain::GenesisModel;
use penstock_inference::{
    DType, Dim, InferenceMode, InferenceRequest, Model as Loaded, ModelFolder, Sizes, Tensor, TensorSpec, TensorValues,
    content, decimal::Decimal, onnx, result,
};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

/// Keep, look at and run ONNX models.
#[derive(Debug, Subcommand)]
pub(crate) enum Model {
    /// Check a model and copy it into HOME/models, where this machine's nodes find it by its hash
    ///
    /// A model whose weights are in other files (external data) is stored as one file.
    Add {
        /// The ONNX file
        file: PathBuf,
        /// Another name for it (a blob id, say); may be given several times
        #[arg(long, value_name = "NAME")]
        name: Vec<String>,
    },
    /// List the models of HOME/models
    List,
    /// Print the content ids, inputs, outputs, and the cost of a model by operator
    Inspect {
        /// An ONNX file, or a hash, CID or name of HOME/models
        model: String,
        /// Sizes of open dimensions for the cost, like batch=4,seq=128
        #[arg(long, value_name = "SIZES", value_delimiter = ',')]
        sizes: Vec<String>,
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
        /// An ONNX file, or a hash, CID or name of HOME/models
        model: String,
        /// The input file; - for standard input
        #[arg(default_value = "-")]
        input: PathBuf,
    },
    /// Remove a model from HOME/models
    Remove {
        /// Its hash, CID or name
        model: String,
    },
}

pub(crate) fn run(command: Model, folder: &ModelFolder) -> anyhow::Result<()> {
    match command {
        Model::Add { file, name } => add(folder, &file, &name),
        Model::List => list(folder),
        Model::Inspect { model, sizes, genesis_entry } => inspect(&load(folder, &model)?, &sizes, genesis_entry),
        Model::Run { model, input } => run_model(&load(folder, &model)?.model, &input),
        Model::Remove { model } => {
            println!("removed {}", folder.remove(&model)?.hash);
            Ok(())
        }
    }
}

/// A model, and the file that it was read from.
struct Found {
    model: Arc<Loaded>,
    path: PathBuf,
}

/// What a path or a name of the folder means; a file that exists comes first.
fn load(folder: &ModelFolder, model: &str) -> anyhow::Result<Found> {
    let path = Path::new(model);
    if path.exists() {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let loaded = Loaded::load_in(bytes, parent(path)).with_context(|| path.display().to_string())?;
        return Ok(Found { model: Arc::new(loaded), path: path.to_owned() });
    }
    let loaded = folder.load(model).with_context(|| format!("no file `{model}`, and in HOME/models"))?;
    let path = folder.path(&loaded.hash()).context("its file has gone")?;
    Ok(Found { model: loaded, path })
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn add(folder: &ModelFolder, file: &Path, names: &[String]) -> anyhow::Result<()> {
    let (stored, model) = folder.add(file, names).with_context(|| file.display().to_string())?;
    println!("{}  {} bytes", stored.hash, stored.bytes);
    stored.names.iter().for_each(|name| println!("  {name}"));
    match model.descriptor() {
        Ok(descriptor) => println!("ops: {}", descriptor.ops),
        Err(error) => println!("It runs here, but no chain can register it: {error}"),
    }
    Ok(())
}

fn list(folder: &ModelFolder) -> anyhow::Result<()> {
    let models = folder.list()?;
    if models.is_empty() {
        println!("No models here yet: `penstock model add FILE.onnx` adds one.");
    }
    for stored in models {
        println!("{}  {:>12} bytes  {}", stored.hash, stored.bytes, stored.names.join("  "));
    }
    Ok(())
}

fn inspect(found: &Found, sizes: &[String], genesis_entry: Option<String>) -> anyhow::Result<()> {
    let model = &found.model;
    // The CIDs are those of the model as one file.
    let file = onnx::one_file(fs::read(&found.path)?.into(), parent(&found.path))?;
    if let Some(id) = genesis_entry {
        let descriptor = model.descriptor().map_err(Clone::clone)?;
        let entry = GenesisModel {
            id,
            aliases: vec![content::cid_v0(&file)],
            hash: model.hash(),
            // Absolute: right wherever the genesis document will be.
            file: Some(fs::canonicalize(&found.path)?.display().to_string()),
            policy: penstock_evm::Policy::Replicated,
            active: true,
            inputs: descriptor.inputs.clone(),
            outputs: descriptor.outputs.clone(),
            ops: descriptor.ops.clone(),
        };
        println!("{}", serde_json::to_string_pretty(&entry)?);
        return Ok(());
    }
    println!("content hash  {}", model.hash());
    println!("IPFS CIDv0    {}", content::cid_v0(&file));
    println!("IPFS CIDv1    {}", content::cid_v1(&file));
    let descriptor = match model.descriptor() {
        Ok(descriptor) => descriptor,
        Err(error) => {
            println!("inputs        {}", model.inputs().collect::<Vec<_>>().join(", "));
            println!("outputs       {}", model.outputs().collect::<Vec<_>>().join(", "));
            println!("It runs here, but no chain can register it: {error}");
            return Ok(());
        }
    };
    descriptor.inputs.iter().for_each(|spec| println!("input         {spec}"));
    descriptor.outputs.iter().for_each(|spec| println!("output        {spec}"));
    println!("ops           {}", descriptor.ops);
    let sizes = parse_sizes(sizes, descriptor.inputs.iter().flat_map(|spec| &spec.shape))?;
    let total = descriptor.ops.of(&sizes);
    println!("of this size  {total} ops, at most {} bytes of values at a time", model.peak_bytes(&sizes)?);
    for cost in model.cost_by_operator(&sizes)? {
        let share = 100.0 * cost.ops as f64 / total.max(1) as f64;
        println!("  {:<24} x{:<5} {:>16} ops {share:>6.1} %", cost.operator, cost.nodes, cost.ops);
    }
    Ok(())
}

/// `batch=4` and the like; dimensions that are not named are 1.
fn parse_sizes<'a>(texts: &[String], dims: impl Iterator<Item = &'a Dim>) -> anyhow::Result<Sizes> {
    let dims: Vec<&Dim> = dims.collect();
    let mut sizes = Sizes::default();
    for text in texts {
        let (name, size) = text.split_once('=').with_context(|| format!("`{text}` is not like batch=4"))?;
        let size = size.parse().with_context(|| format!("`{size}` is no size"))?;
        let dim = dims.iter().find(|dim| !matches!(dim, Dim::Fixed(_)) && dim.to_string() == name);
        let dim = dim.with_context(|| format!("no input has an open dimension `{name}`"))?;
        if !sizes.bind(dim, size) {
            bail!("`{name}` must be at least 1, and given once");
        }
    }
    Ok(sizes)
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

fn run_model(model: &Loaded, input: &Path) -> anyhow::Result<()> {
    let text = if input.as_os_str() == "-" {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        text
    } else {
        fs::read_to_string(input).with_context(|| format!("cannot read {}", input.display()))?
    };
    let input: Input = serde_json::from_str(&text).context("the input")?;
    let descriptor = model.descriptor().map_err(Clone::clone)?;
    let specs = &descriptor.inputs;
    if let Some(name) = input.inputs.keys().find(|name| !specs.iter().any(|spec| spec.name == **name)) {
        let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        bail!("the model has no input `{name}` (it has {})", names.join(", "));
    }
    let mut sizes = Sizes::default();
    let inputs = specs.iter().map(|spec| tensor(spec, &input, &mut sizes)).collect::<anyhow::Result<Vec<_>>>()?;
    let request = InferenceRequest { model: model.hash(), mode: InferenceMode::Vanilla, inputs };
    let result = model.run(&request.inputs);
    let digest = result::digest(&result);
    let outputs = result.map_err(|failure| anyhow!("{failure} (code {})", failure.code()))?;
    let outputs: serde_json::Map<_, _> =
        descriptor.outputs.iter().zip(&outputs).map(|(spec, tensor)| (spec.name.clone(), output(tensor))).collect();
    let answer = json!({ "requestId": request.id().to_string(), "outputDigest": digest, "outputs": outputs });
    println!("{}", serde_json::to_string_pretty(&answer)?);
    Ok(())
}

fn tensor(spec: &TensorSpec, input: &Input, sizes: &mut Sizes) -> anyhow::Result<Tensor> {
    let name = &spec.name;
    let given = input.inputs.get(name).with_context(|| format!("the input `{name}` is missing"))?;
    if !sizes.bind_shape(&spec.shape, &given.shape) {
        bail!("input `{name}` has shape {:?}; {spec} is expected", given.shape);
    }
    if given.values.len() != given.shape.iter().product::<usize>() {
        bail!("input `{name}`: shape {:?} does not fit {} values", given.shape, given.values.len());
    }
    let at = |index: usize| format!("input `{name}`, value {index}");
    if spec.dtype == DType::String {
        let texts = given.values.iter().enumerate().map(|(i, value)| {
            serde_json::from_str::<String>(value.get())
                .with_context(|| format!("{}: `{}` is no text", at(i), value.get()))
        });
        let values = TensorValues::String(texts.collect::<anyhow::Result<_>>()?);
        return Tensor::new(given.shape.clone(), values).with_context(|| format!("input `{name}`"));
    }
    let numbers = given.values.iter().enumerate().map(|(i, value)| {
        parse_decimal(value.get()).with_context(|| format!("{}: `{}` is no number", at(i), value.get()))
    });
    let numbers = numbers.collect::<anyhow::Result<Vec<_>>>()?;
    Tensor::from_decimals(spec.dtype, given.shape.clone(), numbers.into_iter())
        .map_err(|error| anyhow!("input `{name}`: {error}"))
}

/// A JSON number as the exact decimal that it is; true and false are 1 and 0.
fn parse_decimal(text: &str) -> Option<Decimal> {
    if let "true" | "false" = text {
        return Some(Decimal { value: (text == "true").into(), decimals: 0 });
    }
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let value = format!("{whole}{fraction}").parse().ok()?;
    Some(Decimal { value, decimals: i128::from(fraction.len() as i64 - exponent) })
}

/// The elements as JSON has them, and the decimals that a contract sees.
pub(super) fn output(tensor: &Tensor) -> serde_json::Value {
    let values = match tensor.values() {
        TensorValues::Float32(values) => json!(values),
        TensorValues::Float64(values) => json!(values),
        TensorValues::Float16(values) => json!(values.iter().map(|x| x.to_f32()).collect::<Vec<_>>()),
        TensorValues::BFloat16(values) => json!(values.iter().map(|x| x.to_f32()).collect::<Vec<_>>()),
        TensorValues::Int8(values) => json!(values),
        TensorValues::Int16(values) => json!(values),
        TensorValues::Int32(values) => json!(values),
        TensorValues::Int64(values) => json!(values),
        TensorValues::Uint8(values) => json!(values),
        TensorValues::Uint16(values) => json!(values),
        TensorValues::Uint32(values) => json!(values),
        TensorValues::Uint64(values) => json!(values),
        TensorValues::Bool(values) => json!(values),
        TensorValues::String(values) => json!(values),
    };
    let decimals = tensor.decimals();
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
        assert_eq!(parse_decimal("true"), decimal(1, 0));
        assert_eq!(parse_decimal("\"1\""), None);
        assert_eq!(parse_decimal("null"), None);
    }

    #[test]
    fn sizes_are_of_open_dimensions() {
        let dims = [Dim::Batch, Dim::Fixed(3), Dim::Named("seq".into())];
        let parse =
            |texts: &[&str]| parse_sizes(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>(), dims.iter());
        let sizes = parse(&["batch=4", "seq=128"]).unwrap();
        assert_eq!((sizes.rows(), sizes.of(&dims[2])), (4, 128));
        for bad in ["batch", "batch=x", "3=3", "other=1", "seq=0"] {
            assert!(parse(&[bad]).is_err(), "{bad}");
        }
    }
}
