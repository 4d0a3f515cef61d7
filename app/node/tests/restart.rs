//! A node that is stopped or killed at any moment comes back with everything that was committed, and
//! another one follows its blocks without a single model.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::{path::Path, sync::Arc, thread, time::Duration};

use alloy_primitives::{Address, B256, U256};
use penstock_abci::{
    Application, BlockLog,
    messages::{
        RequestFinalizeBlock, RequestInitChain, RequestProcessProposal, response_process_proposal::ProposalStatus,
    },
};
use penstock_chain::{Chain, ChainConfig, GenesisDoc};
use penstock_inference::{InferenceNetwork, ModelStore, NetworkConfig};
use penstock_state::Backend;
use serde_json::{Value, json};
use support::{Node, Tx, account, contracts};

fn block(node: &Node, height: u64) -> Value {
    node.call("eth_getBlockByNumber", json!([format!("{height:#x}"), false]))
}

/// Sends a mix of transfers and questions without waiting.
fn load(node: &Node, probe: Address, sender: usize, count: u64) -> Vec<B256> {
    let signer = account(sender);
    let first = node.nonce(signer.address());
    (first..first + count)
        .map(|nonce| {
            let tx = match nonce % 2 {
                0 => Tx::call(nonce, probe, contracts::ask("penstock/linear", &[nonce as i128, sender as i128])),
                _ => Tx { to: Address::repeat_byte(9).into(), value: U256::from(1), ..Tx::of(nonce) },
            };
            node.send(&Tx { gas: 1_000_000, ..tx }.sign(&signer))
        })
        .collect()
}

/// Kills on each backend; `PENSTOCK_KILLS=200` makes it long.
fn kills() -> u64 {
    std::env::var("PENSTOCK_KILLS").map_or(8, |text| text.parse().unwrap())
}

#[test]
fn a_clean_stop_and_kills_lose_no_committed_block_on_fjall() {
    stops_and_kills("fjall");
}

#[test]
fn a_clean_stop_and_kills_lose_no_committed_block_on_sled() {
    stops_and_kills("sled");
}

fn stops_and_kills(backend: &str) {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().to_str().unwrap();
    let arguments = ["--block-time", "30ms", "--data", path];
    let environment = [("PENSTOCK_STATE_BACKEND", backend)];
    let mut node = Node::start_with(&arguments, &environment);
    let probe = node.deploy(&account(0), "Probe", &[]);

    for round in 0..=kills() {
        load(&node, probe, 1, 20);
        thread::sleep(Duration::from_millis(13 * (round % 12)));
        let height = node.height();
        let before = block(&node, height);
        if round == 0 {
            assert!(node.stop().success(), "SIGTERM is a clean stop");
        } else {
            node.kill();
        }
        node = Node::start_with(&arguments, &environment);
        assert!(node.height() >= height, "round {round}: {} after {height}", node.height());
        assert_eq!(block(&node, height), before, "round {round}");
        let hash = load(&node, probe, 2, 1)[0];
        assert_eq!(node.receipt(hash)["status"], "0x1", "the chain goes on");
    }
    let heights = node.height();
    assert!(node.stop().success());
    follow_without_models(data.path(), heights, backend.parse().unwrap());
}

/// Feeds the committed blocks to a second application that has no model, and compares app hashes
/// (each block's `parentHash` is the app hash of the block before it).
fn follow_without_models(data: &Path, heights: u64, backend: Backend) {
    let genesis = GenesisDoc::parse(&std::fs::read(support::repository().join("genesis.json")).unwrap()).unwrap();
    let mut log = BlockLog::open(&data.join("blocks.log")).unwrap();
    assert!(log.height() >= heights);
    let fresh = tempfile::tempdir().unwrap();
    let network = InferenceNetwork::start(ModelStore::default(), NetworkConfig::default()).unwrap();
    let open = |folder: &Path, network: Arc<InferenceNetwork>| {
        let store = backend.open(folder).unwrap();
        Chain::open(store, genesis.genesis.clone(), &genesis.app_state, network, ChainConfig::default()).unwrap()
    };
    let network = Arc::new(network);
    let follower = open(&fresh.path().join("state"), network.clone());
    let original = open(&data.join("state"), network);
    let time = genesis.time.duration_since(std::time::UNIX_EPOCH).unwrap();
    let time = penstock_abci::Timestamp { seconds: time.as_secs() as i64, nanos: 0 };
    let init =
        RequestInitChain { time: Some(time), app_state_bytes: genesis.app_state.clone().0, ..Default::default() };
    follower.init_chain(init).unwrap();
    let mut inferences = 0;
    for height in 1..=original.height().unwrap() {
        let block = log.read(height).unwrap();
        let request = RequestFinalizeBlock {
            txs: block.txs,
            height: block.height,
            time: block.time,
            proposer_address: block.proposer_address.into(),
            ..Default::default()
        };
        // A node without the models cannot vouch for results, and does not.
        let proposal = RequestProcessProposal {
            txs: request.txs.clone(),
            height: request.height,
            time: request.time,
            proposer_address: request.proposer_address.clone(),
            ..Default::default()
        };
        let has_results = !original.block(height).unwrap().unwrap().header_tx.as_ref().unwrap().results.is_empty();
        let status = follower.process_proposal(proposal).unwrap().status;
        assert_eq!(status == ProposalStatus::Reject as i32, has_results, "height {height}");
        inferences += usize::from(has_results);
        let app_hash = follower.finalize_block(request).unwrap().app_hash;
        follower.commit().unwrap();
        assert_eq!(app_hash, original.header(height).unwrap().unwrap().1.as_slice(), "height {height}");
    }
    assert!(inferences > 5, "only {inferences} blocks had inferences");
}
