//! `penstock model run`.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::Path,
};

use anyhow::{Context, anyhow, bail};
use penstock_inference::{
    Argument, DType, Declared, Failure, InferenceMode, InferenceRequest, Model, ModelDescriptor, Sizes, Tensor,
    TensorSpec, TensorValues, decimal::Decimal, result,
};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

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

pub(super) fn run(model: &Model, input: &Path) -> anyhow::Result<()> {
    let input = read(input)?;
    let names: Vec<&str> = model.inputs().iter().map(|declared| declared.name.as_str()).collect();
    if let Some(name) = input.inputs.keys().find(|name| !names.contains(&name.as_str())) {
        bail!("the model has no input `{name}` (it has {})", names.join(", "));
    }
    let answer = match model.descriptor() {
        Ok(descriptor) => as_a_chain(model, descriptor, &input)?,
        Err(error) => {
            eprintln!("penstock: no chain can register this model: {error}");
            freely(model, &input)?
        }
    };
    say!("{}", serde_json::to_string_pretty(&answer)?);
    Ok(())
}

fn read(input: &Path) -> anyhow::Result<Input> {
    let text = if input.as_os_str() == "-" {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        text
    } else {
        fs::read_to_string(input).with_context(|| format!("cannot read {}", input.display()))?
    };
    serde_json::from_str(&text).context(
        "the input is not like {\"inputs\": {\"NAME\": {\"shape\": [1, 2], \"values\": [1.5, 2]}}}, with values in a \
         flat list, without NaN and infinities",
    )
}

fn as_a_chain(model: &Model, descriptor: &ModelDescriptor, input: &Input) -> anyhow::Result<serde_json::Value> {
    let mut sizes = Sizes::default();
    let inputs = descriptor.inputs.iter().map(|spec| tensor(spec, input, &mut sizes));
    let inputs = inputs.collect::<anyhow::Result<Vec<_>>>()?;
    let request = InferenceRequest { model: model.hash(), mode: InferenceMode::Vanilla, inputs };
    let result = model.run(&request.inputs);
    let digest = result::digest(&result);
    let outputs = result.map_err(|failure| {
        // The chain knows no more than the code; whoever sits here wants the reason.
        let arguments = || request.inputs.iter().cloned().map(Argument::Tensor).collect();
        let again = || model.evaluate_within(arguments(), descriptor.ops.of(&sizes)).err();
        let reason = if failure == Failure::Engine { again() } else { None };
        let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        anyhow!("{failure} (code {}){reason}", failure.code())
    })?;
    let mut named = serde_json::Map::new();
    for (spec, tensor) in descriptor.outputs.iter().zip(&outputs) {
        let numbers = if tensor.dtype() == DType::String { vec![] } else { tensor.decimals() };
        if let Some(index) = numbers.iter().position(Option::is_none) {
            eprintln!(
                "penstock: output `{}`, value {index} is 2^127 or more, which no contract can have: a call on a chain \
                 reverts with InferenceFailed(4)",
                spec.name
            );
        }
        named.insert(spec.name.clone(), output(tensor));
    }
    Ok(json!({ "requestId": request.id().to_string(), "outputDigest": digest, "outputs": named }))
}

/// A run of a model that has no price, as no chain does it.
fn freely(model: &Model, input: &Input) -> anyhow::Result<serde_json::Value> {
    let mut sizes = Sizes::default();
    let arguments = model.inputs().iter().map(|declared| {
        let Declared { name, dtype: Some(dtype), dims } = declared else {
            bail!("input `{}` is a sequence or an optional: it cannot be given here", declared.name);
        };
        let spec = |shape| TensorSpec { name: name.clone(), dtype: *dtype, shape };
        match dims {
            Some(dims) => tensor(&spec(dims.clone()), input, &mut sizes),
            None => {
                // Any shape will do.
                let given = input.inputs.get(name).map(|given| given.shape.as_slice()).unwrap_or_default();
                let fixed = given.iter().map(|size| u32::try_from(*size).map(penstock_inference::Dim::Fixed));
                tensor(&spec(fixed.collect::<Result<_, _>>()?), input, &mut sizes)
            }
        }
    });
    let arguments: anyhow::Result<Vec<_>> = arguments.map(|tensor| tensor.map(Argument::Tensor)).collect();
    let outputs = model.evaluate(arguments?)?;
    let named = model.outputs().iter().zip(&outputs);
    let named: serde_json::Map<_, _> =
        named.map(|(declared, value)| (declared.name.clone(), argument(value))).collect();
    Ok(json!({ "outputs": named }))
}

fn tensor(spec: &TensorSpec, input: &Input, sizes: &mut Sizes) -> anyhow::Result<Tensor> {
    let name = &spec.name;
    let given = input.inputs.get(name).with_context(|| format!("the input `{name}` is missing"))?;
    if !sizes.bind_shape(&spec.shape, &given.shape) {
        bail!(
            "input `{name}` has shape {:?}; {spec} is expected, where a name stands for one size of at least 1 throughout",
            given.shape
        );
    }
    let count = given.shape.iter().try_fold(1usize, |count, size| count.checked_mul(*size));
    if count != Some(given.values.len()) {
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
        parse_decimal(value.get()).with_context(|| {
            format!("{}: `{}` is no number (of at most 38 digits; neither null, NaN nor infinite)", at(i), value.get())
        })
    });
    let numbers = numbers.collect::<anyhow::Result<Vec<_>>>()?;
    let fits = |number: &Decimal| Tensor::from_decimals(spec.dtype, vec![1], [*number].into_iter()).is_ok();
    Tensor::from_decimals(spec.dtype, given.shape.clone(), numbers.iter().copied()).map_err(|error| {
        match numbers.iter().position(|number| !fits(number)) {
            Some(i) => {
                anyhow!("{}: {} is out of range for {}, or too fine", at(i), given.values[i].get(), spec.dtype.name())
            }
            None => anyhow!("input `{name}`: {error}"),
        }
    })
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
    Some(Decimal { value, decimals: i128::from(fraction.len() as i64) - i128::from(exponent) })
}

/// A value of a run: a tensor, a list of them, or null.
fn argument(value: &Argument) -> serde_json::Value {
    match value {
        Argument::Tensor(tensor) => output(tensor),
        Argument::Sequence(list) => list.iter().map(argument).collect(),
        Argument::Nothing => serde_json::Value::Null,
    }
}

/// The elements as JSON has them, and the decimals that a contract sees.
pub(in crate::commands) fn output(tensor: &Tensor) -> serde_json::Value {
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
}
