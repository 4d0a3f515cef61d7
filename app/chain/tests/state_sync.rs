//! State sync in this process: the same snapshot on every node, restored from peers that may lie.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use alloy_primitives::{B256, U256};
use penstock_abci::{
    Application,
    messages::{
        RequestApplySnapshotChunk, RequestLoadSnapshotChunk, RequestOfferSnapshot, Snapshot,
        response_apply_snapshot_chunk::Result as Applied, response_offer_snapshot::Result as Offered,
    },
};
use penstock_chain::SnapshotConfig;
use penstock_pipe::PoolConfig;
use penstock_state::{StoreError, View, write_snapshot};
use prost::Message;
use revm::DatabaseRef;
use sha2::{Digest, Sha256};
use support::{PROBE, TestBlock, TestChain, Tx};

/// `Manifest` of the chain's snapshots, as a liar would make one.
#[derive(Clone, PartialEq, Message)]
struct Manifest {
    #[prost(uint64, tag = "1")]
    height: u64,
    #[prost(bytes = "vec", repeated, tag = "2")]
    chunks: Vec<Vec<u8>>,
}

fn named(height: u64, chunks: &[Vec<u8>]) -> Snapshot {
    let chunks_named = chunks.iter().map(|chunk| Sha256::digest(chunk).to_vec()).collect();
    let metadata = Manifest { height, chunks: chunks_named }.encode_to_vec();
    let hash = Sha256::digest(&metadata).to_vec().into();
    Snapshot { height, format: 2, chunks: chunks.len() as u32, hash, metadata: metadata.into() }
}

fn empty(folder: tempfile::TempDir) -> TestChain {
    TestChain::open(folder, true, |_| {})
}

fn offer(chain: &TestChain, snapshot: Snapshot, app_hash: B256) -> Offered {
    let request = RequestOfferSnapshot { snapshot: Some(snapshot), app_hash: app_hash.to_vec().into() };
    chain.chain.offer_snapshot(request).unwrap().result.try_into().unwrap()
}

fn apply(chain: &TestChain, index: usize, chunk: &[u8]) -> Applied {
    let request =
        RequestApplySnapshotChunk { index: index as u32, chunk: chunk.to_vec().into(), sender: "peer".into() };
    chain.chain.apply_snapshot_chunk(request).unwrap().result.try_into().unwrap()
}

/// A chain with some state, and the chunks of its newest snapshot, cut small.
fn source() -> (TestChain, Vec<TestBlock>, Vec<Vec<u8>>) {
    let chain = TestChain::new();
    let mut blocks = Vec::new();
    for round in 0..6 {
        chain.submit(&Tx::ask(round, [round.into(), 1]), 0);
        chain.submit(&Tx::bump(round), 1);
        chain.submit(&Tx::transfer(round), 2);
        blocks.push(chain.produce());
    }
    let chunks = chunks_of(&chain.chain.head().unwrap().view, 700);
    assert!(chunks.len() > 5);
    (chain, blocks, chunks)
}

fn chunks_of(view: &View, bytes: usize) -> Vec<Vec<u8>> {
    let mut chunks = Vec::new();
    write_snapshot(view, bytes, |chunk| {
        chunks.push(chunk.to_vec());
        Ok::<(), StoreError>(())
    })
    .unwrap();
    chunks
}

/// Offers and applies; the last verdict.
fn restore(chain: &TestChain, height: u64, chunks: &[Vec<u8>], app_hash: B256) -> Applied {
    assert_eq!(offer(chain, named(height, chunks), app_hash), Offered::Accept);
    for (index, chunk) in chunks.iter().enumerate() {
        let verdict = apply(chain, index, chunk);
        if verdict != Applied::Accept {
            return verdict;
        }
    }
    Applied::Accept
}

#[test]
fn a_restored_node_is_where_the_others_are_and_goes_on_with_them() {
    let (source, _, chunks) = source();
    let head = source.chain.head().unwrap();
    let joiner = empty(tempfile::tempdir().unwrap());
    assert_eq!(joiner.chain.info(Default::default()).unwrap().last_block_height, 0);
    assert_eq!(restore(&joiner, head.number(), &chunks, head.hash), Applied::Accept);
    let info = joiner.chain.info(Default::default()).unwrap();
    assert_eq!((info.last_block_height as u64, &info.last_block_app_hash[..]), (head.number(), head.hash.as_slice()));
    // What BLOCKHASH reaches, and the state.
    let view = joiner.chain.head().unwrap().view;
    for number in 0..=head.number() {
        assert_eq!(view.block_hash_ref(number).unwrap(), head.view.block_hash_ref(number).unwrap());
    }
    let counter = U256::from(7);
    assert_eq!(view.storage_ref(PROBE, counter).unwrap(), U256::from(6));
    assert_eq!(chunks_of(&view, 700), chunks, "the snapshot of a restored node is the same");
    drop(view); // it holds the store open
    assert_eq!(joiner.chain.first_block().unwrap(), head.number() + 1);
    assert!(joiner.chain.block(3).unwrap().is_none(), "blocks before the snapshot are not here");
    // It judges, executes, and survives a restart.
    source.submit(&Tx::ask(6, [6, 1]), 0);
    let block = source.produce();
    assert!(joiner.accepts(&block));
    assert_eq!(joiner.decide(&block), source.chain.head().unwrap().hash);
    let reopened = empty(joiner.close());
    assert_eq!(reopened.chain.head().unwrap().hash, source.chain.head().unwrap().hash);
    assert_eq!(offer(&reopened, named(1, &chunks), head.hash), Offered::Reject, "it is further already");
}

#[test]
fn a_snapshot_that_is_not_what_the_app_hash_names_is_rejected_wherever_the_lie_is() {
    let (source, _, chunks) = source();
    let head = source.chain.head().unwrap();
    let whole = chunks.concat();
    let joiner = empty(tempfile::tempdir().unwrap());
    let tried = |bytes: &[u8], hash: B256| restore(&joiner, head.number(), &[bytes.to_vec()], hash);

    assert_eq!(tried(&whole, B256::repeat_byte(1)), Applied::RejectSnapshot, "another app hash");
    let records = records(&whole);
    let kind = |index: usize| records[index][4];
    let first = |wanted: u8| (0..records.len()).find(|index| kind(*index) == wanted).unwrap();
    for wanted in [b'h', b'A', b'S', b'c'] {
        let index = first(wanted);
        let kind = char::from(wanted);
        let mut without = records.clone();
        without.remove(index);
        assert_eq!(tried(&without.concat(), head.hash), Applied::RejectSnapshot, "a record `{kind}` less");
        let mut twice = records.clone();
        twice.insert(index, records[index].clone());
        assert_eq!(tried(&twice.concat(), head.hash), Applied::RejectSnapshot, "a record `{kind}` twice");
        let mut changed = records.clone();
        *changed[index].last_mut().unwrap() ^= 1;
        assert_eq!(tried(&changed.concat(), head.hash), Applied::RejectSnapshot, "a changed record `{kind}`");
        let mut moved = records.clone();
        let record = moved.remove(index);
        moved.push(record);
        if index + 1 < records.len() {
            assert_eq!(tried(&moved.concat(), head.hash), Applied::RejectSnapshot, "a moved record `{kind}`");
        }
    }
    for end in [0, 3, 7, whole.len() / 2, whole.len() - 1] {
        assert_eq!(tried(&whole[..end], head.hash), Applied::RejectSnapshot, "cut at {end}");
    }
    let unknown = [&whole[..], &[0, 0, 0, 1, b'z', 0, 0, 0, 0]].concat();
    assert_eq!(tried(&unknown, head.hash), Applied::RejectSnapshot, "a record of another kind");

    // After all of that the right one is taken.
    assert_eq!(restore(&joiner, head.number(), &chunks, head.hash), Applied::Accept);
    assert_eq!(joiner.chain.head().unwrap().hash, head.hash);
}

/// Cuts a stream into its records.
fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let length = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let key = length(0);
        let end = 8 + key + length(4 + key);
        records.push(bytes[..end].to_vec());
        bytes = &bytes[end..];
    }
    records
}

#[test]
fn a_chunk_that_is_not_the_snapshots_is_fetched_again_from_somebody_else() {
    let (source, _, chunks) = source();
    let head = source.chain.head().unwrap();
    let joiner = empty(tempfile::tempdir().unwrap());
    let snapshot = named(head.number(), &chunks);
    for broken in [
        Snapshot { format: 1, ..snapshot.clone() },
        Snapshot { chunks: 1, ..snapshot.clone() },
        Snapshot { height: 3, ..snapshot.clone() },
        Snapshot { metadata: vec![1, 2, 3].into(), ..snapshot.clone() },
    ] {
        assert_ne!(offer(&joiner, broken, head.hash), Offered::Accept);
    }
    assert_eq!(apply(&joiner, 0, &chunks[0]), Applied::Abort, "nothing was accepted");
    assert_eq!(offer(&joiner, snapshot, head.hash), Offered::Accept);
    assert_eq!(apply(&joiner, 0, &chunks[0]), Applied::Accept);
    let request = RequestApplySnapshotChunk { index: 1, chunk: vec![0; 9].into(), sender: "liar".into() };
    let retry = joiner.chain.apply_snapshot_chunk(request).unwrap();
    assert_eq!(retry.result, Applied::Retry as i32);
    assert_eq!((retry.refetch_chunks, retry.reject_senders), (vec![1], vec!["liar".to_owned()]));
    for (index, chunk) in chunks.iter().enumerate().skip(1) {
        assert_eq!(apply(&joiner, index, chunk), Applied::Accept);
    }
    assert_eq!(joiner.chain.head().unwrap().hash, head.hash);
}

/// A restoration that lacks its last chunk.
fn interrupted() -> (TestChain, Vec<TestBlock>, TestChain) {
    let (source, blocks, chunks) = source();
    let head = source.chain.head().unwrap();
    let joiner = empty(tempfile::tempdir().unwrap());
    assert_eq!(offer(&joiner, named(head.number(), &chunks), head.hash), Offered::Accept);
    for (index, chunk) in chunks.iter().enumerate().take(chunks.len() - 1) {
        assert_eq!(apply(&joiner, index, chunk), Applied::Accept);
    }
    (source, blocks, joiner)
}

#[test]
fn a_crash_in_the_middle_of_a_restoration_leaves_a_node_that_can_begin_anew() {
    let (source, blocks, joiner) = interrupted();
    let head = source.chain.head().unwrap();
    // By block sync, with nothing left of the snapshot.
    let joiner = empty(joiner.close());
    assert_eq!(joiner.chain.height(), None);
    joiner.init();
    for block in &blocks {
        joiner.decide(block);
    }
    assert_eq!(joiner.chain.head().unwrap().hash, head.hash);
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries.map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap())).collect()
}

#[test]
fn snapshots_are_made_beside_the_chain_with_the_same_bytes_on_all_nodes_and_the_oldest_go() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let nodes = folders.each_ref().map(|folder| {
        let snapshots = SnapshotConfig { folder: Some(folder.path().to_owned()), interval: 3, keep: 2 };
        let pool = PoolConfig { ripeness: 0.0, ..PoolConfig::default() };
        let chain = TestChain::configured(|config| (config.pool, config.snapshots) = (pool, snapshots));
        chain.init();
        chain
    });
    for round in 0..11 {
        nodes[0].submit(&Tx::ask(round, [round.into(), 1]), 0);
        let block = nodes[0].produce();
        nodes[1].decide(&block);
    }
    let begin = Instant::now();
    let heights = |node: &TestChain| {
        let listed = node.chain.list_snapshots().snapshots;
        listed.into_iter().map(|snapshot| snapshot.height).collect::<Vec<_>>()
    };
    while nodes.iter().any(|node| heights(node) != [6, 9]) {
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", nodes.each_ref().map(heights));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(nodes[0].chain.list_snapshots(), nodes[1].chain.list_snapshots());
    for height in ["6", "9"] {
        assert_eq!(files(&folders[0].path().join(height)), files(&folders[1].path().join(height)));
    }
    assert!(!folders[0].path().join("3").exists());
    // What a peer is given restores the state.
    let snapshot = nodes[0].chain.list_snapshots().snapshots[1].clone();
    let app_hash = nodes[0].chain.header(9).unwrap().unwrap().1;
    let joiner = empty(tempfile::tempdir().unwrap());
    assert_eq!(offer(&joiner, snapshot, app_hash), Offered::Accept);
    let load = |chunk: u32| {
        let request = RequestLoadSnapshotChunk { height: 9, format: 2, chunk };
        nodes[1].chain.load_snapshot_chunk(request).chunk
    };
    assert_eq!(apply(&joiner, 0, &load(0)), Applied::Accept);
    assert_eq!(joiner.chain.head().unwrap().hash, app_hash);
    assert!(load(1).is_empty(), "there is one chunk");
}

#[test]
fn a_restoration_that_consensus_gives_up_leaves_nothing_for_the_genesis() {
    let (source, blocks, joiner) = interrupted();
    let head = source.chain.head().unwrap();
    // The same process: only CometBFT was started again, without state sync.
    joiner.init();
    assert_eq!(joiner.chain.head().unwrap().view.storage_ref(PROBE, U256::from(7)).unwrap(), U256::ZERO);
    for block in &blocks {
        joiner.decide(block);
    }
    assert_eq!(joiner.chain.head().unwrap().hash, head.hash);
}

#[test]
fn a_crash_between_the_restoration_and_consensus_costs_nothing() {
    let (source, _, chunks) = source();
    let head = source.chain.head().unwrap();
    let joiner = empty(tempfile::tempdir().unwrap());
    assert_eq!(restore(&joiner, head.number(), &chunks, head.hash), Applied::Accept);
    // CometBFT does not know of it, and offers it again.
    let joiner = empty(joiner.close());
    assert_eq!(restore(&joiner, head.number(), &chunks, head.hash), Applied::Accept);
    assert_eq!(joiner.chain.head().unwrap().hash, head.hash);
    // An older one would lead back; a newer one begins anew, in a new process.
    assert_eq!(offer(&joiner, named(head.number() - 1, &chunks), head.hash), Offered::Reject);
    source.produce();
    let head = source.chain.head().unwrap();
    let chunks = chunks_of(&head.view, 700);
    let snapshot = Some(named(head.number(), &chunks));
    let request = RequestOfferSnapshot { snapshot, app_hash: head.hash.to_vec().into() };
    let error = joiner.chain.offer_snapshot(request).unwrap_err().to_string();
    assert!(error.contains("the next start"), "{error}");
    let joiner = empty(joiner.close());
    assert_eq!(restore(&joiner, head.number(), &chunks, head.hash), Applied::Accept);
    assert_eq!(joiner.chain.head().unwrap().hash, head.hash);
}

#[test]
fn whoever_gives_a_false_snapshot_is_not_asked_again() {
    let (source, _, chunks) = source();
    let head = source.chain.head().unwrap();
    let joiner = empty(tempfile::tempdir().unwrap());
    assert_eq!(offer(&joiner, named(head.number(), &chunks), B256::repeat_byte(7)), Offered::Accept);
    let give = |index: usize, sender: &str| {
        let chunk = chunks[index].clone().into();
        let request = RequestApplySnapshotChunk { index: index as u32, chunk, sender: sender.into() };
        joiner.chain.apply_snapshot_chunk(request).unwrap()
    };
    let verdicts: Vec<_> = (0..chunks.len()).map(|i| give(i, ["a", "b"][i % 2])).collect();
    let rejected = verdicts.iter().find(|verdict| verdict.result == Applied::RejectSnapshot as i32).unwrap();
    assert!(rejected.reject_senders.contains(&"a".to_owned()), "{rejected:?}");
}
