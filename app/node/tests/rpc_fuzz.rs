//! Requests that no honest client sends: the node answers all of them, and goes on.
//!
//! `PENSTOCK_FUZZ=100000` asks for more than the usual number, `PENSTOCK_FUZZ_SEED` for others.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::{Value, json};
use support::{Node, Tx, account, contracts, eventually, repository};

/// Memory beyond which something is kept that should not be: the node itself with its models has some 200 MiB.
const MAX_RESIDENT_KIB: u64 = 1_500_000;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // xorshift64*.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }

    fn hex(&mut self, bytes: u64) -> String {
        (0..bytes).fold("0x".to_owned(), |text, _| format!("{text}{:02x}", self.below(256)))
    }
}

/// Values that are right somewhere, and wrong everywhere else.
fn value(random: &mut Random, known: &[Value], depth: u32) -> Value {
    match random.below(if depth == 0 { 12 } else { 15 }) {
        0 => Value::Null,
        1 => json!(random.below(2) == 0),
        2 => json!(random.next() as i64),
        3 => json!(random.next() as f64 / 3.0),
        4 => json!(format!("{:#x}", random.next() >> random.below(64))),
        5 => {
            let bytes = *random.one_of(&[0, 1, 19, 20, 21, 31, 32, 33, 100, 5_000]);
            json!(random.hex(bytes))
        }
        6 => json!(random.one_of(&[
            "latest",
            "pending",
            "earliest",
            "safe",
            "finalized",
            "",
            "0x",
            "0xg",
            "newHeads",
            "logs",
            "\u{0}"
        ])),
        7..=11 => random.one_of(known).clone(),
        12 => (0..random.below(5)).map(|_| value(random, known, depth - 1)).collect(),
        _ => {
            let keys = [
                "from",
                "to",
                "input",
                "data",
                "gas",
                "value",
                "nonce",
                "address",
                "topics",
                "fromBlock",
                "toBlock",
                "blockHash",
                "balance",
                "code",
                "state",
                "stateDiff",
                "movePrecompileToAddress",
                "number",
                "time",
                "gasLimit",
                "tracer",
                "tracerConfig",
                "stateOverrides",
                "blockOverrides",
                "blockStateCalls",
                "calls",
                "inferences",
                "mode",
                "results",
                "model",
                "output",
                "numbers",
                "timeoutMs",
                "accessList",
                "authorizationList",
                "maxFeePerGas",
                "gasPrice",
                "type",
                "onlyTopCall",
                "diffMode",
                "traceTransfers",
                "validation",
                "timeout",
                "baseFeePerGas",
                "blockHash",
            ];
            let fields = random.below(6);
            (0..fields).map(|_| ((*random.one_of(&keys)).to_owned(), value(random, known, depth - 1))).collect()
        }
    }
}

/// The methods of the reference, which a test holds to the code.
fn methods() -> Vec<String> {
    let reference = fs::read_to_string(repository().join("app/rpc/METHODS.md")).unwrap();
    let names = reference.lines().filter_map(|line| line.strip_prefix("### `")?.split('`').next());
    names.map(str::to_owned).collect()
}

#[test]
fn nothing_that_is_sent_stops_the_node_or_shows_its_insides() {
    let count: u64 = std::env::var("PENSTOCK_FUZZ").map_or(3_000, |text| text.parse().unwrap());
    let seed: u64 = std::env::var("PENSTOCK_FUZZ_SEED").map_or(1, |text| text.parse().unwrap());
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let environment = [("PENSTOCK_RPC_CALL_INFERENCE_TIME", "50ms"), ("PENSTOCK_RPC_SYNC_SEND_TIME", "50ms")];
    let mut node = Node::start_with(&["--block-time", "100ms"], &environment);
    let probe = node.deploy(&account(0), "Probe", &[]);
    let receipt =
        node.send_and_succeed(&Tx::call(0, probe, contracts::ask("penstock/linear", &[1, 2])).sign(&account(1)));
    let known = [
        json!(probe),
        json!(account(0).address()),
        json!("0x00000000000000000000000000000000000000f4"),
        receipt["transactionHash"].clone(),
        receipt["blockHash"].clone(),
        receipt["blockNumber"].clone(),
        json!("penstock/linear"),
        json!("callTracer"),
        json!("prestateTracer"),
        json!(contracts::ask("penstock/linear", &[1, 2])),
        json!(Tx::of(7).sign(&account(3))),
        json!({ "to": probe, "input": contracts::ask("penstock/linear", &[1, 2]), "from": account(2).address() }),
        json!({ "address": probe, "fromBlock": "0x0" }),
    ];
    let methods = methods();
    assert!(methods.len() > 60, "{}", methods.len());
    let mut answered = 0;
    for _ in 0..count {
        let params: Vec<Value> = (0..random.below(6)).map(|_| value(&mut random, &known, 4)).collect();
        let method = random.one_of(&methods).clone();
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let (_, answer) = node.post(&request.to_string());
        let error = answer["error"]["code"].as_i64();
        assert!(error != Some(-32603), "an internal error: {request}: {answer}");
        assert!(error.is_some() || answer.get("result").is_some(), "{request}: {answer}");
        answered += u64::from(error.is_none());
    }
    println!("{count} requests, {answered} of them answered with a result");
    assert!(answered * 20 > count, "{answered} of {count}: the requests are too wrong to try anything");

    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let many: Vec<Value> =
        (0..1_001).map(|id| json!({ "jsonrpc": "2.0", "id": id, "method": "eth_chainId", "params": [] })).collect();
    for body in [
        deep.clone(),
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"eth_call","params":{deep}}}"#),
        json!(many).to_string(),
        "[]".into(),
        "{}".into(),
        "null".into(),
        "\u{feff}{}".into(),
        format!(r#"{{"jsonrpc":"2.0","id":{{}},"method":"{}","params":[]}}"#, "x".repeat(100_000)),
        "[".into(),
        String::new(),
    ] {
        if let Ok((status, answer)) = node.try_post(&body) {
            let head: String = body.chars().take(60).collect();
            assert!(status < 500 || !answer.is_null(), "{head}: {status} {answer}");
        }
    }
    let address = node.rpc().url.trim_start_matches("http://").to_owned();
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01"[..],
        b"GET / HTTP/1.1\r\nupgrade: websocket\r\n\r\n",
        b"\0\0\0\0",
        b"POST / HTTP/9.9\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        stream.write_all(bytes).unwrap();
        // Whatever it answers, if anything.
        let _ = stream.read(&mut [0; 1_024]);
    }

    assert!(node.is_running());
    let height = node.height();
    eventually("blocks go on", || node.height() > height + 2);
    let resident = node.resident_kib();
    println!("resident: {} MiB", resident / 1_024);
    assert!(resident < MAX_RESIDENT_KIB, "{resident} KiB");
    let panics: Vec<String> = node.log_lines().into_iter().filter(|line| line.contains("panicked")).collect();
    assert!(panics.is_empty(), "{panics:?}");
}
