//! A chain's rules and a state with the test contracts, in memory.

#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on stops"
)]

use std::{path::Path, sync::Arc};

use alloy_primitives::{Address, B256, Bytes, U256, address, keccak256};
use alloy_sol_types::{SolCall, sol};
use penstock_evm::{BlockContext, GasSchedule, Limits, Policy, RegisteredModel, Registry, Rules, StateError};
use penstock_inference::Model;
use revm::{
    DatabaseRef,
    bytecode::Bytecode,
    context::TxEnv,
    database::CacheDB,
    primitives::{TxKind, hardfork::SpecId},
    state::AccountInfo,
};

pub const PROBE: Address = address!("00000000000000000000000000000000000ab001");
pub const TOKEN: Address = address!("00000000000000000000000000000000000ab002");

sol! {
    struct Number { int128 value; int128 decimals; }
    function ask(string model, string inputName, Number[] values, uint32[] shape);
    function tryAsk(string model, string inputName, Number[] values, uint32[] shape);
    function delegateAsk(bytes data);
    function valueAsk(bytes data) payable;
    function staticAsk(bytes data);
    function transfer(address to, uint256 amount);
}

/// A database whose errors are the executor's.
#[derive(Debug, Clone, Default)]
pub struct Nothing;

impl DatabaseRef for Nothing {
    type Error = StateError;

    fn basic_ref(&self, _: Address) -> Result<Option<AccountInfo>, StateError> {
        Ok(None)
    }

    fn code_by_hash_ref(&self, _: B256) -> Result<Bytecode, StateError> {
        Ok(Bytecode::default())
    }

    fn storage_ref(&self, _: Address, _: U256) -> Result<U256, StateError> {
        Ok(U256::ZERO)
    }

    fn block_hash_ref(&self, _: u64) -> Result<B256, StateError> {
        Ok(B256::ZERO)
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

pub fn model(name: &str) -> Model {
    Model::load(std::fs::read(repository().join(format!("inference/models/{name}/{name}.onnx"))).unwrap()).unwrap()
}

pub fn rules() -> Rules {
    let registered = |name: &str, active: bool| {
        let model = model(name);
        RegisteredModel {
            id: format!("penstock/{name}"),
            aliases: vec![],
            hash: model.hash(),
            policy: Policy::Replicated,
            active,
            descriptor: model.descriptor().unwrap().clone(),
        }
    };
    Rules {
        chain_id: 1,
        spec: SpecId::OSAKA,
        block_gas_limit: 1 << 40,
        gas: GasSchedule { base: 20_000, per_input_byte: 16, per_output_byte: 16, ops_per_gas: 1_000 },
        limits: Limits {
            max_request_ops: 1 << 40,
            max_block_ops: 1 << 50,
            max_requests_per_tx: 4,
            max_tx_ops: 1 << 40,
            max_waves_per_tx: 16,
            max_output_bytes: 1 << 20,
            max_header_bytes: 1 << 20,
            max_unavailable_per_block: 4,
        },
        registry: Arc::new(Registry::new(vec![registered("linear", true), registered("digits-cnn", false)]).unwrap()),
        price_feed: false,
        task_gas_per_block: 0,
    }
}

pub fn block() -> BlockContext {
    BlockContext {
        number: 1,
        timestamp: 1,
        beneficiary: Address::repeat_byte(0xfe),
        base_fee: 1,
        prevrandao: B256::ZERO,
        parent_hash: B256::ZERO,
    }
}

pub fn user(index: u64) -> Address {
    Address::from_word(keccak256(index.to_be_bytes()))
}

pub fn code(name: &str) -> Bytecode {
    let text = std::fs::read(repository().join(format!("app/contracts/out/{name}.json"))).unwrap();
    let artifact: serde_json::Value = serde_json::from_slice(&text).unwrap();
    Bytecode::new_raw(artifact["deployedBytecode"].as_str().unwrap().parse::<Bytes>().unwrap())
}

/// Funded users, the contracts, and tokens for every user.
pub fn state(users: u64) -> CacheDB<Nothing> {
    let mut db = CacheDB::new(Nothing);
    for (address, name) in [(PROBE, "Probe"), (TOKEN, "Token")] {
        let code = code(name);
        let info = AccountInfo { nonce: 1, code_hash: code.hash_slow(), code: Some(code), ..Default::default() };
        db.insert_account_info(address, info);
    }
    for index in 0..users {
        db.insert_account_info(user(index), AccountInfo { balance: U256::from(u128::MAX), ..Default::default() });
        for slot in 0..4u64 {
            // `balanceOf` is one of the first slots of Token.
            let key = keccak256([user(index).into_word().as_slice(), &U256::from(slot).to_be_bytes::<32>()].concat());
            db.insert_account_storage(TOKEN, key.into(), U256::from(1u64 << 60)).unwrap();
        }
    }
    db
}

pub fn tx(from: u64, nonce: u64, to: Address, input: Vec<u8>, gas: u64) -> TxEnv {
    TxEnv {
        caller: user(from),
        nonce,
        kind: TxKind::Call(to),
        data: input.into(),
        gas_limit: gas,
        gas_price: 2,
        chain_id: Some(1),
        ..TxEnv::default()
    }
}

pub fn ask_input(model: &str, values: &[i128]) -> Vec<u8> {
    let values = values.iter().map(|value| Number { value: *value, decimals: 0 }).collect();
    askCall { model: model.into(), inputName: "x".into(), values, shape: vec![] }.abi_encode()
}

pub fn try_ask_input(model: &str, values: &[i128]) -> Vec<u8> {
    let values = values.iter().map(|value| Number { value: *value, decimals: 0 }).collect();
    tryAskCall { model: model.into(), inputName: "x".into(), values, shape: vec![] }.abi_encode()
}
