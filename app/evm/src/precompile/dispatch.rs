//! Routes a call by its selector and answers it: no EVM types, so that every rule is plain to test.

use std::sync::Arc;

use alloy_primitives::{B256, Bytes};
use alloy_sol_types::{SolCall, SolEvent, SolValue};
use penstock_inference::{InferenceRequest, RequestId};

use super::{
    Call, OnMiss,
    layout::check_model_request,
    request::{Prepared, prepare},
    response::{model_output, output_bytes, placeholder},
};
use crate::{Denied, InputFault, Results, Rules, abi};

/// Which of the two contract generations is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Generation {
    V1,
    V2,
}

/// How a call ends.
#[derive(Debug)]
pub(super) enum Ending {
    /// Returns data and logs an event (topic, data), if there is one.
    Return { output: Bytes, event: Option<(B256, Bytes)> },
    /// Reverts with a custom error.
    Revert(Denied),
    /// The gas does not suffice.
    OutOfGas,
    /// The result is missing and the execution has to stop ([`OnMiss::Abort`]).
    Missing(RequestId),
    /// The state could not be read.
    Storage,
}

/// What a call did.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) ending: Ending,
    pub(super) gas_used: u64,
    /// The request that was asked, if the call got that far.
    pub(super) call: Option<Call>,
}

/// The surroundings of a call.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) rules: &'a Rules,
    pub(super) results: &'a dyn Results,
    pub(super) on_miss: OnMiss,
    /// Requests that this transaction made before.
    pub(super) calls_before: usize,
    /// What they cost.
    pub(super) ops_before: u64,
    /// A placeholder was given out before in this transaction.
    pub(super) speculative: bool,
}

/// Gas that a call has spent, against its limit.
#[derive(Debug)]
pub(super) struct Meter {
    used: u64,
    limit: u64,
}

impl Meter {
    /// Runs a call with the gas that it has.
    pub(super) fn run(
        limit: u64,
        run: impl FnOnce(&mut Self, &mut Option<Call>) -> Result<Ending, Ending>,
    ) -> Answered {
        let mut meter = Self { used: 0, limit };
        let mut call = None;
        let ending = run(&mut meter, &mut call).unwrap_or_else(|ending| ending);
        Answered { ending, gas_used: meter.used.min(limit), call }
    }

    pub(super) fn charge(&mut self, gas: u64) -> Result<(), Ending> {
        self.used = self.used.saturating_add(gas);
        if self.used > self.limit { Err(Ending::OutOfGas) } else { Ok(()) }
    }
}

/// Answers a call.
pub(super) fn answer(data: &[u8], gas_limit: u64, generation: Generation, around: Surroundings<'_>) -> Answered {
    Meter::run(gas_limit, |meter, call| run(data, generation, around, meter, call))
}

impl From<Denied> for Ending {
    fn from(denied: Denied) -> Self {
        Self::Revert(denied)
    }
}

impl From<InputFault> for Ending {
    fn from(fault: InputFault) -> Self {
        Self::Revert(fault.into())
    }
}

fn run(
    data: &[u8],
    generation: Generation,
    around: Surroundings<'_>,
    meter: &mut Meter,
    call: &mut Option<Call>,
) -> Result<Ending, Ending> {
    let gas = &around.rules.gas;
    // First of all, so that whatever follows is paid for.
    meter.charge(gas.entry(data.len() as u64))?;
    let (selector, arguments) = data.split_first_chunk::<4>().ok_or(InputFault::UnknownFunction)?;
    match *selector {
        abi::runModelInferenceCall::SELECTOR => run_model(arguments, generation, around, meter, call),
        abi::runLLMCompletionCall::SELECTOR | abi::runLLMInferenceCall::SELECTOR | abi::runLLMChatCall::SELECTOR => {
            Err(Denied::ModeNotSupported(mode_of(arguments)?).into())
        }
        _ => Err(InputFault::UnknownFunction.into()),
    }
}

/// The `mode` of a request: the first member of the one struct that every function takes.
fn mode_of(arguments: &[u8]) -> Result<u8, InputFault> {
    let word = |at: usize| arguments.get(at..)?.first_chunk::<32>();
    let small = |word: &[u8; 32]| word[..30].iter().all(|b| *b == 0).then(|| u16::from_be_bytes([word[30], word[31]]));
    let offset = word(0).and_then(small).ok_or(InputFault::Malformed)?;
    let mode = word(offset.into()).and_then(small).ok_or(InputFault::Malformed)?;
    u8::try_from(mode).map_err(|_| InputFault::Malformed)
}

fn run_model(
    arguments: &[u8],
    generation: Generation,
    around: Surroundings<'_>,
    meter: &mut Meter,
    call: &mut Option<Call>,
) -> Result<Ending, Ending> {
    check_model_request(arguments)?;
    let abi::runModelInferenceCall { request } =
        abi::runModelInferenceCall::abi_decode_raw_validate(arguments).map_err(|_| InputFault::Malformed)?;
    match request.mode {
        0 => {}
        1 | 2 => return Err(Denied::ModeNotSupported(request.mode).into()),
        _ => return Err(InputFault::Malformed.into()),
    }
    let (id, response) = ask(&request.modelCID, &request.input, around, meter, call)?;
    let output = match generation {
        Generation::V2 => response.abi_encode(),
        Generation::V1 => abi::ModelOutputV1 {
            numbers: response.numbers.clone(),
            strings: response.strings.clone(),
            is_simulation_result: response.is_simulation_result,
        }
        .abi_encode(),
    };
    let event = abi::ModelInferenceEvent { inferenceID: id.to_string(), request, response }.encode_data();
    let event = Some((abi::ModelInferenceEvent::SIGNATURE_HASH, event.into()));
    Ok(Ending::Return { output: output.into(), event })
}

/// Asks a model, whichever function it is asked by: limits, gas, request id, result.
pub(super) fn ask(
    model: &str,
    input: &abi::ModelInput,
    around: Surroundings<'_>,
    meter: &mut Meter,
    call: &mut Option<Call>,
) -> Result<(RequestId, abi::ModelOutput), Ending> {
    let rules = around.rules;
    let model = rules.registry.by_name(model).ok_or(Denied::UnknownModel)?;
    if !model.active {
        return Err(Denied::ModelNotActive.into());
    }
    let Prepared { id, request: question, ops, sizes } = prepare(model, input)?;
    let outputs = &model.descriptor.outputs;
    let bytes_out = output_bytes(outputs, &sizes);
    if bytes_out > rules.limits.max_output_bytes {
        return Err(Denied::OutputTooLarge.into());
    }
    if ops > rules.limits.max_request_ops || around.ops_before.saturating_add(ops) > rules.limits.max_tx_ops {
        return Err(InputFault::TooExpensive.into());
    }
    if around.calls_before >= rules.limits.max_requests_per_tx as usize {
        return Err(InputFault::TooManyRequests.into());
    }
    meter.charge(rules.gas.work(ops, bytes_out))?;

    let result = around.results.answer(&id, &question, ops);
    let question: Arc<InferenceRequest> = Arc::new(question);
    *call = Some(Call { id, request: question, ops, missed: result.is_none(), speculative: around.speculative });
    let response = match (result.as_deref(), around.on_miss) {
        (Some(Ok(tensors)), _) => model_output(outputs, tensors)?,
        (Some(Err(failure)), _) => return Err(Denied::from(*failure).into()),
        (None, OnMiss::Placeholder) => placeholder(outputs, &sizes),
        (None, OnMiss::Abort) => return Err(Ending::Missing(id)),
        (None, OnMiss::Revert) => return Err(Denied::InferenceUnavailable.into()),
    };
    Ok((id, response))
}
