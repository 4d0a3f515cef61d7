//! Where a call's results of inference come from, as its caller chooses: the models', zeros, or given ones.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use alloy_primitives::B256;
use penstock_chain::{GivenResults, Inferences};
use penstock_evm::{RegisteredModel, Registry};
use penstock_inference::{
    DType, Failure, InferenceResult, RequestId, Sizes, Tensor, TensorSpec, TensorValues, decimal::Decimal,
};
use serde::Deserialize;
use serde_json::Number;

use super::Eth;
use crate::error::{RpcError, RpcResult};

/// Results that one call may give.
const MAX_GIVEN: usize = 1_000;

/// The extra object of `eth_call`, `eth_estimateGas`, `eth_createAccessList` and `debug_traceCall`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct InferenceOverride {
    /// What is not given: `real`, run by this node within a time, or `placeholder`, zeros of the right shape.
    mode: Mode,
    /// How long to wait for real results, in milliseconds; at most what the node allows.
    timeout_ms: Option<u64>,
    /// Results in the place of the models'.
    results: Vec<Given>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Mode {
    #[default]
    Real,
    Placeholder,
}

/// A result for one request or for all requests to a model.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Given {
    /// Id, alias or content hash of the model.
    model: String,
    /// Only for this request of it.
    request: Option<B256>,
    /// The outputs, in the model's order.
    output: Option<Vec<GivenTensor>>,
    /// Or the code with which the inference fails.
    failure: Option<u16>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenTensor {
    /// Row-major; without it that of a request with one row.
    shape: Option<Vec<usize>>,
    #[serde(default)]
    numbers: Vec<GivenNumber>,
    #[serde(default)]
    strings: Vec<String>,
}

/// `1.5`, `"1.5"`, or `["15", "1"]` as `pipe_getInference` answers it.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum GivenNumber {
    Number(Number),
    Text(String),
    Pair([String; 2]),
}

impl Eth {
    pub(super) fn inferences(&self, chosen: Option<InferenceOverride>) -> RpcResult<Inferences> {
        let InferenceOverride { mode, timeout_ms, results } = chosen.unwrap_or_default();
        if results.len() > MAX_GIVEN {
            return Err(RpcError::InvalidParams(format!("inferences.results has at most {MAX_GIVEN} entries")));
        }
        if mode == Mode::Placeholder && timeout_ms.is_some() {
            return Err(RpcError::InvalidParams("inferences.timeoutMs is for the mode `real`".into()));
        }
        let longest = self.config.call_inference_time;
        let wait = timeout_ms.map_or(longest, |millis| Duration::from_millis(millis).min(longest));
        let mut given = GivenResults::default();
        for (index, entry) in results.into_iter().enumerate() {
            let named = |why: String| RpcError::InvalidParams(format!("inferences.results[{index}]: {why}"));
            let (model, result) = result_of(&self.chain.rules().registry, &entry).map_err(named)?;
            // As many bytes as an inference may have: a number counts as 64.
            let count = result.iter().flatten().map(|tensor| tensor.shape().iter().product::<usize>()).sum::<usize>();
            if count as u64 * 64 > self.chain.rules().limits.max_output_bytes {
                return Err(named("it is larger than maxOutputBytes of the genesis".into()));
            }
            let result = Arc::new(result);
            match entry.request {
                Some(id) => drop(given.by_request.insert(RequestId(id), result)),
                None => drop(given.by_model.insert(model.hash, result)),
            }
        }
        Ok(Inferences { given, real_until: (mode == Mode::Real).then(|| Instant::now() + wait) })
    }
}

fn result_of<'a>(registry: &'a Registry, given: &Given) -> Result<(&'a RegisteredModel, InferenceResult), String> {
    let model = registry.by_name(&given.model).ok_or_else(|| format!("unknown model `{}`", given.model))?;
    let result = match (&given.output, given.failure) {
        (Some(tensors), None) => {
            let specs = &model.descriptor.outputs;
            if tensors.len() != specs.len() {
                return Err(format!("the model has {} outputs, {} are given", specs.len(), tensors.len()));
            }
            let pairs = specs.iter().zip(tensors);
            Ok(pairs.map(|(spec, tensor)| tensor_of(spec, tensor)).collect::<Result<Vec<_>, _>>()?)
        }
        (None, Some(code)) => Err(Failure::ALL
            .into_iter()
            .find(|failure| failure.code() == code)
            .ok_or_else(|| format!("no failure has the code {code}"))?),
        _ => return Err("either `output` or `failure` is needed".into()),
    };
    Ok((model, result))
}

fn tensor_of(spec: &TensorSpec, given: &GivenTensor) -> Result<Tensor, String> {
    let shape = given.shape.clone().unwrap_or_else(|| spec.shape_for(&Sizes::batch(1)));
    if !Sizes::default().bind_shape(&spec.shape, &shape) {
        return Err(format!("the shape {shape:?} does not fit the output {spec}"));
    }
    let misfit = |what: &str| format!("{what} for the output {spec} do not fit its type and the shape {shape:?}");
    if spec.dtype == DType::String {
        let values = TensorValues::String(given.strings.clone());
        return Tensor::new(shape.clone(), values)
            .filter(|_| given.numbers.is_empty())
            .ok_or_else(|| misfit("strings"));
    }
    let numbers: Vec<Decimal> = given.numbers.iter().map(decimal_of).collect::<Result<_, _>>()?;
    match Tensor::from_decimals(spec.dtype, shape.clone(), numbers.into_iter()) {
        Ok(tensor) if given.strings.is_empty() => Ok(tensor),
        _ => Err(misfit("numbers")),
    }
}

fn decimal_of(given: &GivenNumber) -> Result<Decimal, String> {
    let whole = |text: &str| text.parse::<i128>().map_err(|_| format!("`{text}` is no integer of 128 bits"));
    match given {
        GivenNumber::Number(number) => parse_decimal(&number.to_string()),
        GivenNumber::Text(text) => parse_decimal(text),
        GivenNumber::Pair([value, decimals]) => Ok(Decimal { value: whole(value)?, decimals: whole(decimals)? }),
    }
}

/// `-1.5e3` and the like, exactly.
fn parse_decimal(text: &str) -> Result<Decimal, String> {
    let wrong = || format!("`{text}` is no decimal number of at most 38 digits");
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| wrong())?),
        None => (text, 0),
    };
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let value = format!("{integer}{fraction}").parse().map_err(|_| wrong())?;
    Ok(Decimal { value, decimals: fraction.len() as i128 - i128::from(exponent) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_numbers_are_read_exactly() {
        let decimal = |text: &str| parse_decimal(text).map(|decimal| (decimal.value, decimal.decimals));
        assert_eq!(decimal("1.5"), Ok((15, 1)));
        assert_eq!(decimal("-0.25"), Ok((-25, 2)));
        assert_eq!(decimal("1e-7"), Ok((1, 7)));
        assert_eq!(decimal("12.5E3"), Ok((125, -2)));
        for wrong in ["", "1.-5", "nan", "1e", "0x10", "1.5.5", "99999999999999999999999999999999999999999"] {
            assert!(parse_decimal(wrong).is_err(), "{wrong}");
        }
    }
}
