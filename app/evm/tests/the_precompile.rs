//! What the precompile promises to contracts and to consensus, through contracts compiled by solc.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::{collections::HashMap, sync::Arc};

use alloy_primitives::{Bytes, Log, U256};
use alloy_sol_types::{SolCall, SolEvent, SolValue};
use penstock_evm::{Denied, ExecError, Executor, INFERENCE, INFERENCE_V1, InputFault, OnMiss, Results, abi};
use penstock_inference::{Failure, InferenceResult, RequestId, Tensor, TensorValues};
use support::{PROBE, ask_input, block, model, rules, state, try_ask_input, tx};

type Answers = HashMap<RequestId, Arc<InferenceResult>>;

/// Call data of the precompile itself.
fn question(model: &str, mode: u8, tensors: Vec<abi::MultiDimensionalNumberTensor>) -> Vec<u8> {
    let input = abi::ModelInput { numbers: tensors, strings: vec![] };
    let request = abi::ModelInferenceRequest { mode, modelCID: model.into(), input };
    abi::runModelInferenceCall { request }.abi_encode()
}

fn tensor(name: &str, values: &[(i128, i128)], shape: &[u32]) -> abi::MultiDimensionalNumberTensor {
    let values = values.iter().map(|(value, decimals)| abi::Number { value: *value, decimals: *decimals }).collect();
    abi::MultiDimensionalNumberTensor { name: name.into(), values, shape: shape.to_vec() }
}

fn linear(values: &[(i128, i128)]) -> Vec<u8> {
    question("penstock/linear", 0, vec![tensor("x", values, &[])])
}

/// Runs one transaction of user 0 with a source of results.
fn run(
    input: Vec<u8>,
    to: alloy_primitives::Address,
    results: &dyn Results,
    on_miss: OnMiss,
) -> Result<penstock_evm::Execution, ExecError> {
    let rules = rules();
    Executor::new(&rules, block(), state(1), results, on_miss).run(tx(0, 0, to, input, 5_000_000))
}

/// The answers that the model gives to everything a call asks.
fn answers_of(input: Vec<u8>, to: alloy_primitives::Address) -> Answers {
    let linear = model("linear");
    let mut answers = Answers::new();
    loop {
        let execution = run(input.clone(), to, &answers, OnMiss::Placeholder).unwrap();
        let missed: Vec<_> = execution.calls.into_iter().filter(|call| call.missed).collect();
        if missed.is_empty() {
            return answers;
        }
        answers.extend(missed.into_iter().map(|call| (call.id, Arc::new(linear.run(&call.request.inputs)))));
    }
}

#[test]
fn a_missing_result_ends_the_transaction_and_no_contract_can_catch_it() {
    let rules = rules();
    let answers = Answers::new();
    let mut executor = Executor::new(&rules, block(), state(1), &answers, OnMiss::Abort);
    for (to, input) in [
        (PROBE, ask_input("penstock/linear", &[1, 2])),
        (PROBE, try_ask_input("penstock/linear", &[1, 2])),
        (INFERENCE, linear(&[(1, 0), (2, 0)])),
    ] {
        let error = executor.run(tx(0, 0, to, input, 5_000_000)).unwrap_err();
        let ExecError::Missing { id, calls } = error else { panic!("{error}") };
        assert!(calls.len() == 1 && calls[0].id == id && calls[0].missed);
    }
    // The executor goes on as if nothing had happened.
    let transfer = executor.run(tx(0, 0, support::user(9), vec![], 21_000)).unwrap();
    assert!(transfer.is_success() && transfer.gas_used == 21_000);
}

#[test]
fn gas_and_requests_are_the_same_with_the_result_and_with_the_placeholder() {
    let input = linear(&[(1, 0), (2, 0)]);
    let placeholder = run(input.clone(), INFERENCE, &Answers::new(), OnMiss::Placeholder).unwrap();
    let answered = run(input.clone(), INFERENCE, &answers_of(input, INFERENCE), OnMiss::Abort).unwrap();
    assert_eq!(placeholder.gas_used, answered.gas_used);
    assert_eq!(placeholder.calls[0].id, answered.calls[0].id);
    let is_simulation = |output: &Bytes| abi::ModelOutput::abi_decode(output).unwrap().is_simulation_result;
    assert!(is_simulation(&placeholder.output) && !is_simulation(&answered.output));
}

#[test]
fn the_answer_is_exact_and_logged_with_the_request() {
    let input = linear(&[(15, 1), (-25, 2)]); // y = 1.5 - 0.5 + 3 = 4
    let execution = run(input.clone(), INFERENCE, &answers_of(input, INFERENCE), OnMiss::Abort).unwrap();
    let output = abi::ModelOutput::abi_decode(&execution.output).unwrap();
    assert_eq!((output.numbers[0].name.as_str(), output.numbers[0].shape.as_slice()), ("y", &[1, 1][..]));
    assert_eq!((output.numbers[0].values[0].value, output.numbers[0].values[0].decimals), (4, 0));
    let log: &Log = &execution.logs[0];
    assert_eq!(log.address, INFERENCE);
    let event = abi::ModelInferenceEvent::decode_log(log).unwrap();
    assert_eq!(event.inferenceID, execution.calls[0].id.to_string());
    assert_eq!(event.request.modelCID, "penstock/linear");
    assert_eq!(event.response.numbers[0].values[0].value, 4);
}

#[test]
fn the_older_generation_answers_without_jsons() {
    let input = linear(&[(1, 0), (2, 0)]);
    let execution = run(input.clone(), INFERENCE_V1, &answers_of(input, INFERENCE_V1), OnMiss::Abort).unwrap();
    let output = abi::ModelOutputV1::abi_decode(&execution.output).unwrap();
    assert_eq!(output.numbers[0].values[0].value, 8);
}

#[test]
fn encodings_of_one_question_are_one_request() {
    let encodings = [
        question("penstock/linear", 0, vec![tensor("x", &[(1, 0), (2, 0)], &[])]),
        question("penstock/linear", 0, vec![tensor("", &[(1, 0), (2, 0)], &[2])]),
        question("penstock/linear", 0, vec![tensor("x", &[(10, 1), (2000, 3)], &[1, 2])]),
        question(&model("linear").hash().to_string(), 0, vec![tensor("x", &[(1, 0), (2, 0)], &[])]),
    ];
    let ids = encodings.map(|input| run(input, INFERENCE, &Answers::new(), OnMiss::Placeholder).unwrap().calls[0].id);
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[test]
fn every_denial_has_its_bytes() {
    let two = &[(1, 0), (2, 0)][..];
    let ask = |tensors| question("penstock/linear", 0, tensors);
    let fault = Denied::InvalidInput;
    let mut malformed = linear(two);
    malformed.truncate(100);
    let mut dirty_mode = linear(two);
    dirty_mode[4 + 32 + 30] = 1; // mode 256: out of uint8
    let mut with_string = abi::runModelInferenceCall::abi_decode(&linear(two)).unwrap();
    with_string.request.input.strings.push(abi::StringTensor { name: "s".into(), values: vec![] });
    let completion = abi::runLLMCompletionCall {
        request: abi::LLMCompletionRequest {
            mode: 1,
            modelCID: "x".into(),
            prompt: "hi".into(),
            max_tokens: 1,
            stop_sequence: vec![],
            temperature: 0,
        },
    };
    let cases = [
        (question("nobody/nothing", 0, vec![]), Denied::UnknownModel),
        (question("penstock/digits-cnn", 0, vec![]), Denied::ModelNotActive),
        (question("penstock/linear", 1, vec![tensor("x", two, &[])]), Denied::ModeNotSupported(1)),
        (question("penstock/linear", 2, vec![tensor("x", two, &[])]), Denied::ModeNotSupported(2)),
        (question("penstock/linear", 3, vec![tensor("x", two, &[])]), fault(InputFault::Malformed)),
        (completion.abi_encode(), Denied::ModeNotSupported(1)),
        (vec![], fault(InputFault::UnknownFunction)),
        (vec![1, 2, 3, 4], fault(InputFault::UnknownFunction)),
        (malformed, fault(InputFault::Malformed)),
        (dirty_mode, fault(InputFault::Malformed)),
        (with_string.abi_encode(), fault(InputFault::StringsNotSupported)),
        (ask(vec![]), fault(InputFault::MissingTensor)),
        (ask(vec![tensor("z", two, &[])]), fault(InputFault::MissingTensor)),
        (ask(vec![tensor("x", two, &[]), tensor("x", two, &[])]), fault(InputFault::UnknownTensor)),
        (ask(vec![tensor("x", two, &[]), tensor("z", two, &[])]), fault(InputFault::UnknownTensor)),
        (ask(vec![tensor("x", two, &[3])]), fault(InputFault::ShapeMismatch)),
        (ask(vec![tensor("x", two, &[u32::MAX, u32::MAX, u32::MAX])]), fault(InputFault::ShapeMismatch)),
        (ask(vec![tensor("x", two, &[2, 1])]), fault(InputFault::WrongShape)),
        (ask(vec![tensor("x", &two[..1], &[])]), fault(InputFault::WrongShape)),
        (ask(vec![tensor("x", &[], &[0, 2])]), fault(InputFault::WrongShape)),
        (ask(vec![tensor("x", &[(1, 0), (1, -60)], &[])]), fault(InputFault::NumberOutOfRange)),
        (ask(vec![tensor("x", &[(1, 0), (1, i128::MAX)], &[])]), fault(InputFault::NumberOutOfRange)),
    ];
    for (input, denied) in cases {
        let execution = run(input, INFERENCE, &Answers::new(), OnMiss::Placeholder).unwrap();
        assert_eq!(execution.output, denied.revert_data(), "{denied:?}: {}", execution.output);
        assert!(!execution.is_success() && execution.calls.is_empty());
    }
    assert_eq!(Denied::InvalidInput(InputFault::WrongShape).revert_data().len(), 36);
}

#[test]
fn failures_of_models_and_missing_results_of_decided_blocks_revert_with_their_codes() {
    let input = linear(&[(1, 0), (2, 0)]);
    let id = run(input.clone(), INFERENCE, &Answers::new(), OnMiss::Placeholder).unwrap().calls[0].id;
    let huge = Tensor::new(vec![1, 1], TensorValues::Float32(vec![f32::MAX])).unwrap();
    for (result, denied) in [
        (Err(Failure::NonFinite), Denied::InferenceFailed(1)),
        (Err(Failure::Engine), Denied::InferenceFailed(2)),
        (Ok(vec![huge]), Denied::InferenceFailed(4)),
        (Err(Failure::Unavailable), Denied::InferenceUnavailable),
    ] {
        let answers = Answers::from([(id, Arc::new(result))]);
        let execution = run(input.clone(), INFERENCE, &answers, OnMiss::Abort).unwrap();
        assert_eq!(execution.output, denied.revert_data(), "{denied:?}");
    }
    let execution = run(input, INFERENCE, &Answers::new(), OnMiss::Revert).unwrap();
    assert_eq!(execution.output, Denied::InferenceUnavailable.revert_data());
}

#[test]
fn indirect_calls_and_value_are_refused() {
    let data: Bytes = linear(&[(1, 0), (2, 0)]).into();
    for (input, value) in [
        (support::delegateAskCall { data: data.clone() }.abi_encode(), 0u64),
        (support::staticAskCall { data: data.clone() }.abi_encode(), 0),
        (support::valueAskCall { data }.abi_encode(), 7),
    ] {
        let rules = rules();
        let answers = Answers::new();
        let mut executor = Executor::new(&rules, block(), state(1), &answers, OnMiss::Placeholder);
        let mut tx = tx(0, 0, PROBE, input, 5_000_000);
        tx.value = U256::from(value);
        let execution = executor.run(tx).unwrap();
        assert!(execution.is_success(), "{execution:?}");
        assert!(execution.calls.is_empty() && execution.logs.is_empty(), "nothing was asked");
        let kept = execution.state.get(&INFERENCE).is_none_or(|account| account.info.balance.is_zero());
        assert!(kept, "no value stays at the precompile");
    }
}

#[test]
fn a_transaction_makes_a_bounded_number_of_requests_and_pays_before_it_is_answered() {
    let rules = rules();
    let answers = Answers::new();
    let mut executor = Executor::new(&rules, block(), state(1), &answers, OnMiss::Placeholder);
    let data = linear(&[(1, 0), (2, 0)]);
    // Enough for the intrinsic gas, not for the call.
    let execution = executor.run(tx(0, 0, INFERENCE, data, 45_000)).unwrap();
    assert!(!execution.is_success() && execution.gas_used == 45_000 && execution.calls.is_empty());
    let quote =
        rules.quote(rules.registry.by_name("penstock/linear").unwrap(), "penstock/linear", &[vec![1, 2]]).unwrap();
    let named = question("penstock/linear", 0, vec![tensor("x", &[(1, 0), (2, 0)], &[1, 2])]);
    let execution = executor.run(tx(0, 0, INFERENCE, named.clone(), 5_000_000)).unwrap();
    let intrinsic = 21_000 + named.iter().map(|byte| if *byte == 0 { 4 } else { 16 }).sum::<u64>();
    assert_eq!(execution.gas_used, intrinsic + quote.gas, "pipe_quote is exact");
}
