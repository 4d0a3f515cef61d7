//! A node's JSON-RPC, as tests use it.

use std::{
    thread,
    time::{Duration, Instant},
};

use alloy_primitives::{Address, B256, Bytes, TxKind};
use alloy_signer_local::PrivateKeySigner;
use serde_json::{Value, json};

use super::{Tx, contracts, quantity};

/// A node that does not answer within this time is down.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Where a node answers.
#[derive(Debug, Clone)]
pub struct Rpc {
    pub url: String,
}

impl Rpc {
    pub fn websocket(&self) -> String {
        self.url.replace("http", "ws")
    }

    /// The whole JSON-RPC answer.
    pub fn answer(&self, method: &str, params: Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        self.post(&body.to_string()).1
    }

    /// The result of a call that must succeed.
    pub fn call(&self, method: &str, params: Value) -> Value {
        let answer = self.answer(method, params.clone());
        assert!(answer.get("error").is_none(), "{method} {params}: {answer}");
        answer["result"].clone()
    }

    /// Status and body of a request of any form.
    pub fn post(&self, body: &str) -> (u16, Value) {
        self.try_post(body).unwrap()
    }

    /// The same, where the server may hang up in the middle of the request.
    pub fn try_post(&self, body: &str) -> Result<(u16, Value), ureq::Error> {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT));
        let agent: ureq::Agent = config.build().into();
        let mut response = agent.post(&self.url).header("content-type", "application/json").send(body)?;
        let text = response.body_mut().read_to_string()?;
        Ok((response.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// The result of a call, or `None` when the node is down or answers with an error.
    pub fn try_call(&self, method: &str, params: Value) -> Option<Value> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer = self.try_post(&body.to_string()).ok()?.1;
        answer.get("result").cloned()
    }

    pub fn try_height(&self) -> Option<u64> {
        self.try_call("eth_blockNumber", json!([])).as_ref().map(quantity)
    }

    pub fn height(&self) -> u64 {
        quantity(&self.call("eth_blockNumber", json!([])))
    }

    pub fn send(&self, tx: &Bytes) -> B256 {
        self.call("eth_sendRawTransaction", json!([tx])).as_str().unwrap().parse().unwrap()
    }

    /// The receipt, waiting for it.
    pub fn receipt(&self, hash: B256) -> Value {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(180) {
            let receipt = self.call("eth_getTransactionReceipt", json!([hash]));
            if !receipt.is_null() {
                return receipt;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("no receipt of {hash}: {}", self.call("pipe_getTransaction", json!([hash])));
    }

    /// Sends, waits, and checks that it succeeded.
    pub fn send_and_succeed(&self, tx: &Bytes) -> Value {
        let receipt = self.receipt(self.send(tx));
        assert_eq!(receipt["status"], "0x1", "{receipt}");
        receipt
    }

    pub fn nonce(&self, address: Address) -> u64 {
        quantity(&self.call("eth_getTransactionCount", json!([address, "pending"])))
    }

    /// Deploys a contract of `app/contracts` and answers its address.
    pub fn deploy(&self, signer: &PrivateKeySigner, name: &str, arguments: &[u8]) -> Address {
        let code = [contracts::bytecode(name).as_ref(), arguments].concat();
        let tx = Tx { to: TxKind::Create, input: code.into(), gas: 5_000_000, ..Tx::of(self.nonce(signer.address())) };
        let receipt = self.send_and_succeed(&tx.sign(signer));
        receipt["contractAddress"].as_str().unwrap().parse().unwrap()
    }
}
