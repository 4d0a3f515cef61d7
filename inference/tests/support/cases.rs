//! Cases in the layout of the ONNX backend tests: `model.onnx` and folders of inputs and expected outputs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use penstock_inference::{
    Argument, DType, EvaluationError, Failure, InferenceResult, Model, ModelError, Sizes, Tensor, TensorValues,
    onnx::{
        proto::{ModelProto, SequenceProto, TensorProto, TypeProto, ValueInfoProto},
        read_tensor,
    },
};
use prost::Message;

/// How far a float may be from the expected one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tolerance {
    pub(crate) relative: f64,
    pub(crate) absolute: f64,
}

/// What became of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    /// The engine said that it cannot do this, and why.
    Unsupported(String),
    /// The engine gave something else than expected.
    Wrong(String),
}

/// Folders with a `model.onnx`, sorted.
pub(crate) fn find(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        if folder.join("model.onnx").is_file() {
            found.push(folder);
            continue;
        }
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        open.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir()));
    }
    found.sort();
    found
}

fn argument(bytes: &[u8], ty: Option<&TypeProto>) -> Result<Argument, String> {
    let Some(ty) = ty else { return tensor(bytes) };
    if let Some(inner) = &ty.optional_type {
        // OptionalProto: field 1 says what there is, the value is in a field of its own type.
        let optional = OptionalProto::decode(bytes).map_err(|e| e.to_string())?;
        let _ = inner;
        return match (optional.tensor_value, optional.sequence_value) {
            (Some(t), _) => read_tensor(&t).map(Argument::Tensor),
            (_, Some(s)) => sequence(s),
            (None, None) => Ok(Argument::Nothing),
        };
    }
    if ty.sequence_type.is_some() {
        return sequence(SequenceProto::decode(bytes).map_err(|e| e.to_string())?);
    }
    tensor(bytes)
}

#[derive(Clone, PartialEq, Message)]
struct OptionalProto {
    #[prost(message, optional, tag = "3")]
    tensor_value: Option<TensorProto>,
    #[prost(message, optional, tag = "5")]
    sequence_value: Option<SequenceProto>,
}

fn tensor(bytes: &[u8]) -> Result<Argument, String> {
    read_tensor(&TensorProto::decode(bytes).map_err(|e| e.to_string())?).map(Argument::Tensor)
}

fn sequence(proto: SequenceProto) -> Result<Argument, String> {
    let list = proto.tensor_values.iter().map(|t| read_tensor(t).map(Argument::Tensor)).collect::<Result<_, _>>()?;
    Ok(Argument::Sequence(list))
}

/// The inputs of a data set of a case.
pub(crate) fn inputs(case: &Path, set: usize) -> Result<Vec<Argument>, String> {
    let file = fs::read(case.join("model.onnx")).map_err(|e| e.to_string())?;
    let graph = ModelProto::decode(file.as_slice()).map_err(|e| e.to_string())?.graph.unwrap_or_default();
    let given = graph.input.iter().filter(|i| !graph.initializer.iter().any(|t| t.name == i.name));
    let read = |(index, info): (usize, &ValueInfoProto)| {
        let bytes = fs::read(case.join(format!("test_data_set_{set}/input_{index}.pb"))).map_err(|e| e.to_string())?;
        argument(&bytes, info.r#type.as_ref())
    };
    given.enumerate().map(read).collect()
}

/// Runs all data sets of a case. `evaluated` gets the outputs of each.
pub(crate) fn run(case: &Path, tolerance: Tolerance, evaluated: &mut dyn FnMut(&[Argument])) -> Verdict {
    let file = fs::read(case.join("model.onnx")).unwrap();
    let proto = ModelProto::decode(file.as_slice()).unwrap();
    let graph = proto.graph.unwrap();
    let model = match Model::load_in(file, case) {
        Ok(model) => model,
        Err(ModelError::Graph(text)) if text.contains("the engine failed") => return Verdict::Wrong(text),
        Err(error) => return Verdict::Unsupported(error.to_string()),
    };
    let constants: Vec<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let given: Vec<_> = graph.input.iter().filter(|i| !constants.contains(&i.name.as_str())).collect();
    for set in 0.. {
        let folder = case.join(format!("test_data_set_{set}"));
        if !folder.is_dir() {
            break;
        }
        let read = |kind: &str, index: usize, ty: Option<&TypeProto>| {
            let bytes = fs::read(folder.join(format!("{kind}_{index}.pb"))).map_err(|e| e.to_string())?;
            argument(&bytes, ty)
        };
        let inputs: Result<Vec<_>, String> =
            given.iter().enumerate().map(|(i, info)| read("input", i, info.r#type.as_ref())).collect();
        let expected: Result<Vec<_>, String> =
            graph.output.iter().enumerate().map(|(i, info)| read("output", i, info.r#type.as_ref())).collect();
        let (inputs, expected) = match (inputs, expected) {
            (Ok(inputs), Ok(expected)) => (inputs, expected),
            (Err(reason), _) | (_, Err(reason)) => return Verdict::Unsupported(format!("data: {reason}")),
        };
        let registered = as_registered(&model, &inputs);
        let outputs = match model.evaluate(inputs) {
            Ok(outputs) => outputs,
            Err(EvaluationError::Failed(error)) => return Verdict::Unsupported(format!("when run: {error}")),
            Err(EvaluationError::Panicked(text)) => return Verdict::Wrong(format!("panic: {text}")),
        };
        let wanted: Option<Vec<&Tensor>> = outputs.iter().map(tensor_of).collect();
        match (registered, wanted) {
            // What is no number is a failure there, and text of maps is read otherwise.
            (Some(Err(Failure::NonFinite)), _) | (None, _) => {}
            (Some(Ok(found)), Some(wanted)) if found.iter().eq(wanted.iter().copied()) => {}
            (Some(found), _) => {
                return Verdict::Wrong(format!("set {set}: as a registered model it gives {found:.300?}"));
            }
        }
        evaluated(&outputs);
        for (index, (ours, theirs)) in outputs.iter().zip(&expected).enumerate() {
            if let Err(reason) = compare(ours, theirs, tolerance) {
                return Verdict::Wrong(format!("set {set}, output {index}: {reason}"));
            }
        }
    }
    Verdict::Passed
}

/// What a registered model gives for these arguments, if it could be registered and they fit.
fn as_registered(model: &Model, inputs: &[Argument]) -> Option<InferenceResult> {
    let descriptor = model.descriptor().ok()?;
    let tensors: Vec<Tensor> = inputs.iter().map(|input| tensor_of(input).cloned()).collect::<Option<_>>()?;
    let mut sizes = Sizes::default();
    let mut pairs = descriptor.inputs.iter().zip(&tensors);
    let fits =
        pairs.all(|(spec, tensor)| spec.dtype == tensor.dtype() && sizes.bind_shape(&spec.shape, tensor.shape()));
    fits.then(|| model.run(&tensors))
}

fn tensor_of(argument: &Argument) -> Option<&Tensor> {
    match argument {
        Argument::Tensor(tensor) => Some(tensor),
        _ => None,
    }
}

fn compare(ours: &Argument, theirs: &Argument, tolerance: Tolerance) -> Result<(), String> {
    match (ours, theirs) {
        (Argument::Tensor(a), Argument::Tensor(b)) => compare_tensors(a, b, tolerance),
        (Argument::Sequence(a), Argument::Sequence(b)) if a.len() == b.len() => {
            a.iter().zip(b).try_for_each(|(a, b)| compare(a, b, tolerance))
        }
        (Argument::Nothing, Argument::Nothing) => Ok(()),
        // Maps of class to probability (ZipMap): JSON texts in this engine, which are not compared with them.
        (Argument::Tensor(a), Argument::Sequence(b)) if b.is_empty() && a.dtype() == DType::String => Ok(()),
        (a, b) => Err(format!("{a:?} instead of {b:?}").chars().take(300).collect()),
    }
}

fn compare_tensors(ours: &Tensor, theirs: &Tensor, tolerance: Tolerance) -> Result<(), String> {
    if (ours.dtype(), ours.shape()) != (theirs.dtype(), theirs.shape()) {
        return Err(format!(
            "{}{:?} instead of {}{:?}",
            ours.dtype().name(),
            ours.shape(),
            theirs.dtype().name(),
            theirs.shape()
        ));
    }
    let Some((a, b)) = floats(ours.values()).zip(floats(theirs.values())) else {
        let same = ours.values() == theirs.values();
        return if same { Ok(()) } else { Err(format!("{ours:?} instead of {theirs:?}").chars().take(600).collect()) };
    };
    for (index, (x, y)) in a.iter().zip(&b).enumerate() {
        let close = (x - y).abs() <= tolerance.absolute + tolerance.relative * y.abs();
        if !(close || x == y || (x.is_nan() && y.is_nan())) {
            return Err(format!("element {index} of {:?} is {x}, not {y}", ours.shape()));
        }
    }
    Ok(())
}

/// The elements of a tensor of floats.
fn floats(values: &TensorValues) -> Option<Vec<f64>> {
    Some(match values {
        TensorValues::Float32(v) => v.iter().map(|x| f64::from(*x)).collect(),
        TensorValues::Float64(v) => v.clone(),
        TensorValues::Float16(v) => v.iter().map(|x| x.to_f64()).collect(),
        TensorValues::BFloat16(v) => v.iter().map(|x| x.to_f64()).collect(),
        _ => return None,
    })
}
