//! The predeployed hub of OpenGradient's SDK: answers come out as its events, denials as the precompile's errors; by legacy
//! transactions with half of a block's gas, as the SDK sends them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use alloy_consensus::{SignableTransaction, TxEnvelope, TxLegacy};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{TxKind, U256, b256, hex};
use alloy_signer::SignerSync;
use alloy_sol_types::SolValue;
use penstock_chain::{INFERENCE_HUB, StoredReceipt};
use penstock_evm::{INFERENCE, abi};
use penstock_pipe::Stage;
use support::{TestChain, account};

/// `InferenceResult(ModelOutput)`.
const INFERENCE_RESULT: alloy_primitives::B256 =
    b256!("c1396ff68bc2d8630100df29ce5561fa99078c602e8676ab72a53e37095d7168");

/// `run(string modelId, uint8 inferenceMode, ModelInput modelInput)` with two numbers.
fn run(model: &str, mode: u8, values: [i128; 2]) -> Vec<u8> {
    let values = values.map(|value| abi::Number { value, decimals: 0 }).to_vec();
    let tensor = abi::MultiDimensionalNumberTensor { name: "x".into(), values, shape: vec![1, 2] };
    let input = abi::ModelInput { numbers: vec![tensor], strings: vec![] };
    let arguments = (model.to_owned(), U256::from(mode), input).abi_encode_params();
    [&hex!("cbf09d80")[..], &arguments].concat()
}

fn send(chain: &TestChain, nonce: u64, input: Vec<u8>) -> StoredReceipt {
    let tx = TxLegacy {
        chain_id: Some(7483),
        nonce,
        gas_price: 2_000_000_000,
        gas_limit: 30_000_000,
        to: TxKind::Call(INFERENCE_HUB),
        value: U256::ZERO,
        input: input.into(),
    };
    let signature = account(0).sign_hash_sync(&tx.signature_hash()).unwrap();
    let hash = chain.chain.admit(TxEnvelope::from(tx.into_signed(signature)).encoded_2718().into()).unwrap();
    chain.wait_for(hash, Stage::Ready);
    chain.produce();
    chain.chain.block(chain.chain.height().unwrap()).unwrap().unwrap().receipts[0].clone()
}

#[test]
fn an_answer_is_in_the_hubs_event_and_the_precompiles() {
    let chain = TestChain::new();
    let receipt = send(&chain, 0, run("penstock/linear", 0, [1, 2]));
    assert!(receipt.success);
    let [precompile, hub] = receipt.logs.as_slice() else { panic!("{:?}", receipt.logs) };
    assert_eq!((precompile.address, hub.address), (INFERENCE, INFERENCE_HUB));
    assert_eq!(hub.topics(), [INFERENCE_RESULT]);
    let output = abi::ModelOutput::abi_decode(&hub.data.data).unwrap();
    let [number] = output.numbers[0].values.as_slice() else { panic!("{output:?}") };
    assert_eq!((number.value, number.decimals, output.is_simulation_result), (8, 0, false));
}

#[test]
fn what_the_precompile_denies_the_hub_denies() {
    let chain = TestChain::new();
    for (nonce, input) in [run("nobody/nothing", 0, [1, 2]), run("penstock/linear", 1, [1, 2])].into_iter().enumerate()
    {
        let receipt = send(&chain, nonce as u64, input);
        assert!(!receipt.success && receipt.logs.is_empty());
        assert!(receipt.gas_used < 200_000, "it does not take all the gas: {}", receipt.gas_used);
    }
}
