//! ABCI calls over unix sockets and TCP, as CometBFT makes them: a request and a Flush, and a wait for both answers.
//! Prints one table. The application does nothing: this is the price of the socket.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a benchmark that cannot go on stops")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use penstock_abci::{messages::RequestProcessProposal, wire::request::Value as Req};
use prost::bytes::Bytes;
use support::{Client, check_tx, echo, frame, start};

const CALLS: usize = 10_000;

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    sorted[(sorted.len() - 1) * percent / 100].as_secs_f64() * 1e6
}

/// Times of synchronous calls, sorted.
fn calls(client: &mut Client, request: &Req, count: usize) -> Vec<Duration> {
    let bytes = [frame(request.clone()), frame(Req::Flush(Default::default()))].concat();
    let mut times: Vec<Duration> = (0..count)
        .map(|_| {
            let begin = Instant::now();
            client.write(&bytes);
            client.read().unwrap();
            client.read().unwrap();
            begin.elapsed()
        })
        .collect();
    times.sort_unstable();
    times
}

fn main() {
    println!("{:<6} {:<34} {:>12} {:>12}", "", "call and flush", "p50", "p99");
    for (name, tcp) in [("unix", false), ("tcp", true)] {
        let running = start(tcp);
        let mut client = Client::connect(&running.address);
        calls(&mut client, &echo("warm"), CALLS / 10);
        for (what, request) in [("Echo", echo("hello")), ("CheckTx, 300 bytes", check_tx(vec![0; 300]))] {
            let times = calls(&mut client, &request, CALLS);
            println!("{name:<6} {what:<34} {:>9.1} µs {:>9.1} µs", percentile(&times, 50), percentile(&times, 99));
        }
        for megabytes in [1, 20] {
            let txs = vec![Bytes::from(vec![7; 1 << 10]); megabytes << 10];
            let request = Req::ProcessProposal(RequestProcessProposal { txs, ..Default::default() });
            let times = calls(&mut client, &request, 20);
            let what = format!("ProcessProposal, {megabytes} MiB (2 ms of it sleep)");
            println!("{name:<6} {what:<34} {:>9.1} µs {:>9.1} µs", percentile(&times, 50), percentile(&times, 99));
        }
        let pipelined: Vec<u8> = (0..256).flat_map(|_| frame(check_tx(vec![0; 300]))).collect();
        let begin = Instant::now();
        for _ in 0..100 {
            client.write(&pipelined);
            (0..256).for_each(|_| drop(client.read().unwrap()));
        }
        let rate = 25_600.0 / begin.elapsed().as_secs_f64();
        println!("{name:<6} {:<34} {rate:>9.0} /s", "CheckTx, 256 in flight");
    }
}
