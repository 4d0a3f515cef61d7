//! Connections: one that takes no answers, more of them than there is room for, and silent ones.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use support::{Node, eventually};

const REQUESTS: usize = 2_000;

/// Bytes of the answer to each: of all of them more than a node may have in memory.
const LEAST_ANSWER: usize = 100_000;

fn connect(node: &Node) -> TcpStream {
    let stream = TcpStream::connect(node.rpc().url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// A text message of a client (RFC 6455), masked with zeros.
fn frame(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    let mut frame = vec![0x81];
    match length {
        ..126 => frame.push(0x80 | length as u8),
        _ => {
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(text.bytes());
    frame
}

/// The next text message of the server.
fn message(reader: &mut impl Read) -> String {
    loop {
        let mut head = [0; 2];
        reader.read_exact(&mut head).unwrap();
        let length = match head[1] {
            126 => {
                let mut bytes = [0; 2];
                reader.read_exact(&mut bytes).unwrap();
                u16::from_be_bytes(bytes).into()
            }
            127 => {
                let mut bytes = [0; 8];
                reader.read_exact(&mut bytes).unwrap();
                u64::from_be_bytes(bytes)
            }
            short => u64::from(short),
        };
        let mut payload = vec![0; length as usize];
        reader.read_exact(&mut payload).unwrap();
        // Pings are between them.
        if head[0] & 0x0f == 1 {
            return String::from_utf8(payload).unwrap();
        }
    }
}

#[test]
fn a_websocket_whose_answers_nobody_takes_costs_no_memory_and_gets_all_of_them_later() {
    let node = Node::start(&[]);
    let params = json!(["0x00000000000000000000000000000000000000f9", "latest"]);
    let code = node.call("eth_getCode", params.clone()).as_str().unwrap().len();
    let copies = LEAST_ANSWER.div_ceil(code);
    let before = node.resident_kib();
    let mut stream = connect(&node);
    stream
        .write_all(
            b"GET / HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
              sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.contains("101"), "{line}");
    while line.trim() != "" {
        line.clear();
        reader.read_line(&mut line).unwrap();
    }
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    let asking = thread::spawn(move || {
        for id in 0..REQUESTS {
            count.store(id, Ordering::Relaxed);
            let one = json!({ "jsonrpc": "2.0", "id": id, "method": "eth_getCode", "params": params });
            let batch = Value::Array(vec![one; copies]);
            stream.write_all(&frame(&batch.to_string())).unwrap();
        }
        stream
    });
    // Until nothing more is taken, or all was.
    let mut before_that = usize::MAX;
    while sent.load(Ordering::Relaxed) != before_that {
        before_that = sent.load(Ordering::Relaxed);
        thread::sleep(Duration::from_secs(1));
    }
    let grown = node.resident_kib().saturating_sub(before);
    let unbounded = REQUESTS * LEAST_ANSWER / 1_024;
    assert!(grown < unbounded as u64 / 2, "{grown} KiB");
    assert_eq!(node.call("eth_chainId", json!([])), "0x1d3b", "others are served");
    let mut answered = vec![false; REQUESTS];
    for _ in 0..REQUESTS {
        let answers: Value = serde_json::from_str(&message(&mut reader)).unwrap();
        let id = answers[0]["id"].as_u64().unwrap() as usize;
        assert!(answers[0].get("result").is_some() && !answered[id], "{id}");
        answered[id] = true;
    }
    drop(asking.join().unwrap());
}

#[test]
fn a_connection_for_which_there_is_no_room_is_told_so_and_silent_ones_make_room() {
    let node = Node::start_with(&[], &[("PENSTOCK_RPC_MAX_CONNECTIONS", "4"), ("PENSTOCK_RPC_IDLE_TIME", "10s")]);
    let silent: Vec<TcpStream> = (0..4).map(|_| connect(&node)).collect();
    let answer_of = |mut stream: TcpStream| {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer).unwrap_or_default()
    };
    // The server accepts them in their order.
    assert!(answer_of(connect(&node)).starts_with("HTTP/1.1 503 "), "a fifth one");
    // Those wait ten seconds for something to move.
    eventually("there is room again", || {
        node.rpc().try_post(r#"{"id":1,"jsonrpc":"2.0","method":"eth_chainId"}"#).is_ok_and(|(status, _)| status == 200)
    });
    for mut stream in silent {
        let ended = stream.read(&mut [0]);
        let is_closed = match &ended {
            Ok(count) => *count == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        };
        assert!(is_closed, "{ended:?}");
    }
}
