//! Clients that others wrote get the same answers from our server: tendermint-abci's, and CometBFT's own (`abci-cli`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::{path::Path, process::Command};

use penstock_abci::{
    Address,
    messages::{RequestCheckTx, RequestEcho, RequestFinalizeBlock, RequestInfo},
};
use prost::bytes::Bytes;
use support::start;
use tendermint_abci::ClientBuilder;

#[test]
fn tendermint_abci() {
    let running = start(true);
    let Address::Tcp(address) = running.address else { panic!("a TCP address") };
    let mut client = ClientBuilder::default().connect(address).unwrap();
    assert_eq!(client.echo(RequestEcho { message: "hello".into() }).unwrap().message, "hello");
    assert_eq!(client.info(RequestInfo::default()).unwrap().last_block_height, 7);
    let checked = client.check_tx(RequestCheckTx { tx: Bytes::from_static(&[5, 6]), r#type: 0 }).unwrap();
    assert_eq!((checked.code, checked.data.last()), (5, Some(&2)));
    let txs = vec![Bytes::from(vec![1; 20 << 10]); 1_000];
    let finalized = client.finalize_block(RequestFinalizeBlock { txs, ..Default::default() }).unwrap();
    assert_eq!(finalized.tx_results.len(), 1_000);
    client.commit().unwrap();
    client.flush().unwrap();
}

#[test]
fn abci_cli_of_cometbft() {
    let Ok(folder) = std::env::var("PENSTOCK_COMETBFT") else {
        eprintln!("skipped: PENSTOCK_COMETBFT is not set (scripts/test sets it)");
        return;
    };
    let program = Path::new(&folder).join("v0.38.25/abci-cli");
    for tcp in [false, true] {
        let running = start(tcp);
        let run = |arguments: &[&str]| {
            let address = running.address.to_string();
            let output = Command::new(&program).args(["--address", &address]).args(arguments).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{arguments:?}: {text} {}", String::from_utf8_lossy(&output.stderr));
            text
        };
        assert!(run(&["echo", "hello"]).contains("hello"));
        assert!(run(&["info"]).contains("toy"));
        assert!(run(&["check_tx", "0x0506"]).contains("-> code: 5"));
        assert!(run(&["process_proposal", "0x01"]).contains("ACCEPT"));
        assert!(run(&["commit"]).contains("-> code: OK"));
        assert!(run(&["query", "0x78"]).contains("-> code: 3"));
    }
}
