//! The compiled contracts of `app/contracts`, and the functions that tests call.

use alloy_primitives::{Bytes, U256};
use alloy_sol_types::{SolCall, SolConstructor, sol};

sol! {
    #[derive(Debug, PartialEq)]
    struct Number { int128 value; int128 decimals; }

    function ask(string model, string inputName, Number[] values, uint32[] shape);
    function tryAsk(string model, string inputName, Number[] values, uint32[] shape);
    function bump();
    function askVolatile(string model);
    function counter() returns (uint256);
    function counterAsked() returns (uint256);
    function firstNumber() returns (int128 value, int128 decimals);
    function simulated() returns (bool);
    function lastOk() returns (bool);
    function lastError() returns (bytes);
    function swap(bool aForB, uint256 amountIn);
    function fund(uint256 a, uint256 b);
    function lastFeeBps() returns (uint256);
    function iterate(int128 x, uint256 depth);
    function setValidator(bytes32 ed25519Key, uint64 power);
    function setMode(uint8 mode);
    function registerTask(address contractAddress, uint256 endTime, uint256 frequency);

    contract DynamicFeePool {
        constructor(string model, uint256 reserveA, uint256 reserveB);
    }
}

pub fn bytecode(name: &str) -> Bytes {
    let path = super::repository().join(format!("app/contracts/out/{name}.json"));
    let artifact: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    artifact["bytecode"].as_str().unwrap().parse().unwrap()
}

/// `Probe.ask(model, "", values, [])` with whole numbers.
pub fn ask(model: &str, values: &[i128]) -> Bytes {
    let values = values.iter().map(|value| Number { value: *value, decimals: 0 }).collect();
    askCall { model: model.into(), inputName: String::new(), values, shape: vec![] }.abi_encode().into()
}

pub fn ask_volatile(model: &str) -> Bytes {
    askVolatileCall { model: model.into() }.abi_encode().into()
}

pub fn pool_arguments(a: u64, b: u64) -> Vec<u8> {
    let constructor = DynamicFeePool::constructorCall {
        model: "penstock/volatility".into(),
        reserveA: U256::from(a),
        reserveB: U256::from(b),
    };
    constructor.abi_encode()
}
