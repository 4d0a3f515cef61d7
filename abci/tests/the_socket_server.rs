//! The server over its sockets: frames however they come, order, size, garbage, failures of the application.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::{sync::atomic::Ordering, thread, time::Duration};

use penstock_abci::{
    Address, Fatal, ListenError, Server,
    messages::{RequestFinalizeBlock, RequestInfo, RequestPrepareProposal, RequestProcessProposal},
    wire::{RequestInsertTx, RequestReapTxs, request::Value as Req, response::Value as Res},
};
use prost::bytes::Bytes;
use support::{Client, Toy, check_tx, echo, frame, start};

fn echoed(response: Option<Res>) -> String {
    match response {
        Some(Res::Echo(echo)) => echo.message,
        other => panic!("{other:?} is no echo"),
    }
}

fn is_exception(response: Option<&Res>, with: &str) -> bool {
    matches!(response, Some(Res::Exception(exception)) if exception.error.contains(with))
}

#[test]
fn requests_split_at_every_byte_and_merged_ones_are_answered_in_order() {
    for tcp in [false, true] {
        let running = start(tcp);
        let mut client = Client::connect(&running.address);
        let both = [frame(echo("first")), frame(echo(&"second".repeat(50)))].concat();
        for cut in 0..=both.len() {
            client.write(&both[..cut]);
            if cut % 16 == 0 {
                thread::sleep(Duration::from_millis(1)); // so that it arrives in two pieces
            }
            client.write(&both[cut..]);
            assert_eq!(echoed(client.read()), "first");
            assert_eq!(echoed(client.read()), "second".repeat(50));
        }
    }
}

#[test]
fn a_response_does_not_wait_for_the_rest_of_the_next_request() {
    let running = start(false);
    let mut client = Client::connect(&running.address);
    let second = frame(echo("second"));
    client.write(&[frame(echo("first")), second[..3].to_vec()].concat());
    assert_eq!(echoed(client.read()), "first");
    client.write(&second[3..]);
    assert_eq!(echoed(client.read()), "second");
}

#[test]
fn pipelined_requests_are_answered_in_order_with_the_flush_last() {
    for tcp in [false, true] {
        let running = start(tcp);
        let mut client = Client::connect(&running.address);
        let mut bytes: Vec<u8> = (0..256u16).flat_map(|i| frame(check_tx(vec![i as u8; 300]))).collect();
        bytes.extend(frame(Req::Flush(Default::default())));
        client.write(&bytes);
        for i in 0..256u32 {
            let Some(Res::CheckTx(response)) = client.read() else { panic!("no CheckTx response") };
            assert_eq!(response.code, i);
        }
        assert_eq!(client.read(), Some(Res::Flush(Default::default())));
    }
}

#[test]
fn a_block_of_twenty_megabytes_goes_through() {
    for tcp in [false, true] {
        let running = start(tcp);
        let mut client = Client::connect(&running.address);
        let txs: Vec<Bytes> = (0..200u8).map(|i| vec![i; 100 << 10].into()).collect();
        let prepared =
            client.call(Req::PrepareProposal(RequestPrepareProposal { txs: txs.clone(), ..Default::default() }));
        assert!(matches!(prepared, Res::PrepareProposal(response) if response.txs == txs));
        let finalized = client.call(Req::FinalizeBlock(RequestFinalizeBlock { txs, ..Default::default() }));
        assert!(matches!(finalized, Res::FinalizeBlock(response) if response.tx_results.len() == 200));
    }
}

#[test]
fn garbage_is_answered_with_an_exception_and_the_end_of_that_connection_only() {
    let running = start(false);
    let mut good = Client::connect(&running.address);
    let cases: [(&str, Vec<u8>, &str); 6] = [
        ("a length without end", vec![0xff; 20], "no varint"),
        ("more than is accepted", vec![0xff, 0xff, 0xff, 0xff, 0x0f], "at most"),
        ("no protobuf", vec![3, 0xff, 0xff, 0xff], "no ABCI request"),
        ("a request of the future", vec![4, 0xfa, 0x01, 0x01, 0x00], "not known"),
        ("an empty request", vec![0], "not known"),
        ("a request that v0.37 had", vec![3, 0x3a, 0x01, 0x00], "not known"),
    ];
    for (name, bytes, expected) in cases {
        let mut client = Client::connect(&running.address);
        client.write(&[frame(echo("before")), bytes, frame(echo("after"))].concat());
        assert_eq!(echoed(client.read()), "before", "{name}");
        let answer = client.read();
        assert!(is_exception(answer.as_ref(), expected), "{name}: {answer:?}");
        assert_eq!(client.read(), None, "{name}");
        assert_eq!(echoed(Some(good.call(echo("x")))), "x", "{name}");
    }
    // Random bytes: any answer but a hang or the end of the server.
    let mut seed = 7u64;
    for _ in 0..200 {
        let bytes: Vec<u8> = (0..64)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (seed >> 56) as u8
            })
            .collect();
        Client::connect(&running.address).write(&bytes);
    }
    assert_eq!(echoed(Some(good.call(echo("still here")))), "still here");
    assert!(running.fatal.try_recv().is_err());
}

#[test]
fn a_connection_that_ends_in_the_middle_of_a_request_harms_nobody() {
    let running = start(false);
    for _ in 0..100 {
        Client::connect(&running.address).write(&frame(echo("never whole"))[..5]);
    }
    assert_eq!(echoed(Some(Client::connect(&running.address).call(echo("x")))), "x");
}

#[test]
fn four_connections_are_served_side_by_side_and_consensus_calls_one_at_a_time() {
    let running = start(false);
    thread::scope(|scope| {
        for connection in 0..4 {
            let address = running.address.clone();
            scope.spawn(move || {
                let mut client = Client::connect(&address);
                for i in 0..50u8 {
                    if connection % 2 == 0 {
                        let txs = vec![Bytes::from(vec![i])];
                        let request = RequestProcessProposal { txs, ..Default::default() };
                        assert!(matches!(client.call(Req::ProcessProposal(request)), Res::ProcessProposal(_)));
                    } else {
                        assert!(matches!(client.call(check_tx(vec![i])), Res::CheckTx(r) if r.code == i.into()));
                    }
                }
            });
        }
    });
    assert_eq!(running.app.most_inside.load(Ordering::SeqCst), 1);
}

#[test]
fn the_two_requests_of_v0_40_are_answered() {
    let running = start(false);
    let mut client = Client::connect(&running.address);
    let inserted = client.call(Req::InsertTx(RequestInsertTx { tx: vec![0; 9].into() }));
    assert!(matches!(inserted, Res::InsertTx(response) if response.code == 9));
    let reaped = client.call(Req::ReapTxs(RequestReapTxs { max_bytes: 5, max_gas: 0 }));
    assert!(matches!(reaped, Res::ReapTxs(response) if response.txs == [vec![1; 5]]));
}

#[test]
fn a_cometbft_of_another_line_and_vote_extensions_are_refused() {
    let running = start(false);
    let info = |version: &str| Req::Info(RequestInfo { version: version.into(), ..Default::default() });
    let mut client = Client::connect(&running.address);
    assert!(matches!(client.call(info("0.38.25")), Res::Info(response) if response.last_block_height == 7));
    assert!(is_exception(Some(&client.call(info("1.0.1"))), "not supported"));
    let mut client = Client::connect(&running.address);
    assert!(is_exception(Some(&client.call(Req::ExtendVote(Default::default()))), "vote extensions"));
    assert!(running.fatal.try_recv().is_err(), "the application itself is well");
}

#[test]
fn a_panic_and_an_error_of_the_application_are_told_to_both_sides_and_nothing_runs_after_them() {
    for (request, method, text) in [
        (Req::InitChain(Default::default()), "init_chain", "no chain for you"),
        (Req::ApplySnapshotChunk(Default::default()), "apply_snapshot_chunk", "the disk is full"),
    ] {
        let running = start(false);
        let mut other = Client::connect(&running.address);
        assert_eq!(echoed(Some(other.call(echo("x")))), "x");
        let mut client = Client::connect(&running.address);
        assert!(is_exception(Some(&client.call(request)), text));
        assert_eq!(client.read(), None);
        let fatal = running.fatal.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(fatal.to_string().contains(text), "{fatal}");
        assert_eq!(matches!(fatal, Fatal::Panicked { method: m, .. } if m == method), text.starts_with("no"));
        // A call after it is not made: the state is in doubt.
        other.write(&frame(Req::Commit(Default::default())));
        assert_eq!(other.read(), None);
    }
}

#[test]
fn the_socket_of_a_killed_process_is_taken_over_and_that_of_a_living_one_is_not() {
    let mut running = start(false);
    let Address::Unix(path) = running.address.clone() else { panic!("a unix socket") };
    assert!(matches!(Server::start(running.app.clone(), &running.address), Err(ListenError::InUse(_))));
    running.server.take().unwrap().stop();
    assert!(!path.exists(), "a clean stop removes it");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap()); // leaves the file behind, as kill -9 does
    let (server, _fatal) = Server::<Toy>::start(running.app.clone(), &running.address).unwrap();
    assert_eq!(echoed(Some(Client::connect(&running.address).call(echo("x")))), "x");
    server.stop();
    std::fs::write(&path, "a file of somebody").unwrap();
    assert!(matches!(Server::start(running.app.clone(), &running.address), Err(ListenError::Io { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"a file of somebody");
}

#[test]
fn a_stop_ends_connections_that_wait() {
    let mut running = start(true);
    let mut client = Client::connect(&running.address);
    assert_eq!(echoed(Some(client.call(echo("x")))), "x");
    running.server.take().unwrap().stop();
    assert_eq!(client.read(), None);
}
