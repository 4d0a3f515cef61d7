//! JSON-RPC of the node under load.

use std::{
    thread,
    time::{Duration, Instant},
};

use alloy_primitives::{Address, B256, Bytes};
use anyhow::{Context, anyhow, bail};
use serde_json::{Value, json};

/// A node that does not answer within this time is down.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A client with connections of its own.
#[derive(Debug, Clone)]
pub(super) struct Client {
    url: String,
    agent: ureq::Agent,
}

impl Client {
    pub(super) fn new(url: &str) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT));
        Self { url: url.to_owned(), agent: config.build().into() }
    }

    fn post(&self, body: &Value) -> anyhow::Result<Value> {
        let mut response = self
            .agent
            .post(&self.url)
            .send_json(body)
            .with_context(|| format!("no JSON-RPC answer from {}", self.url))?;
        let reader = response.body_mut().with_config().limit(1 << 30);
        reader.read_json().with_context(|| format!("{} does not speak JSON-RPC", self.url))
    }

    pub(super) fn call(&self, method: &str, params: Value) -> anyhow::Result<Value> {
        let mut answer = self.post(&json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }))?;
        match answer.get("error") {
            Some(error) => bail!("{method}: {}", error["message"].as_str().unwrap_or_default()),
            None => Ok(answer["result"].take()),
        }
    }

    /// The answers of many calls in their order, each a result or the message of an error.
    pub(super) fn batch(&self, method: &str, params: &[Value]) -> anyhow::Result<Vec<Result<Value, String>>> {
        if params.is_empty() {
            return Ok(Vec::new());
        }
        let calls = params.iter().enumerate();
        let calls: Vec<Value> = calls
            .map(|(id, params)| json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
            .collect();
        let Value::Array(answers) = self.post(&Value::Array(calls))? else {
            bail!("{method}: the answer to a batch is no list");
        };
        let mut ordered: Vec<Result<Value, String>> = vec![Err("no answer".into()); params.len()];
        for mut answer in answers {
            let place = answer["id"].as_u64().and_then(|id| ordered.get_mut(usize::try_from(id).ok()?));
            let Some(place) = place else { continue };
            *place = match answer.get("error") {
                Some(error) => Err(error["message"].as_str().unwrap_or_default().to_owned()),
                None => Ok(answer["result"].take()),
            };
        }
        Ok(ordered)
    }

    pub(super) fn height(&self) -> anyhow::Result<u64> {
        quantity(&self.call("eth_blockNumber", json!([]))?)
    }

    /// The next nonce of each account, pending transactions counted.
    pub(super) fn nonces(&self, accounts: &[Address]) -> anyhow::Result<Vec<u64>> {
        let params: Vec<Value> = accounts.iter().map(|account| json!([account, "pending"])).collect();
        let answers = self.batch("eth_getTransactionCount", &params)?;
        answers.into_iter().map(|answer| quantity(&answer.map_err(|message| anyhow!(message))?)).collect()
    }

    /// Sends transactions and waits until all of them have succeeded.
    pub(super) fn send_and_wait(&self, txs: &[Bytes]) -> anyhow::Result<Vec<Value>> {
        let mut hashes: Vec<B256> = Vec::new();
        for some in txs.chunks(100) {
            let params: Vec<Value> = some.iter().map(|raw| json!([raw])).collect();
            for answer in self.batch("eth_sendRawTransaction", &params)? {
                let hash = answer.map_err(|message| anyhow!("a preparing transaction was refused: {message}"))?;
                hashes.push(serde_json::from_value(hash)?);
            }
        }
        let begin = Instant::now();
        let mut receipts = Vec::new();
        for hash in hashes {
            let receipt = loop {
                let receipt = self.call("eth_getTransactionReceipt", json!([hash]))?;
                if !receipt.is_null() {
                    break receipt;
                }
                if begin.elapsed() > TIMEOUT {
                    bail!("the preparing transaction {hash} has no receipt after {TIMEOUT:?}");
                }
                thread::sleep(Duration::from_millis(10));
            };
            if receipt["status"] != "0x1" {
                bail!("the preparing transaction {hash} failed");
            }
            receipts.push(receipt);
        }
        Ok(receipts)
    }
}

pub(super) fn quantity(value: &Value) -> anyhow::Result<u64> {
    let digits = value.as_str().and_then(|text| text.strip_prefix("0x"));
    let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    number.with_context(|| format!("{value} is no quantity"))
}
