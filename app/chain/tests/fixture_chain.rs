//! The chain of execution-apis' tests (`fixture_chain/`, CC0) through our store and tries: every fork from Homestead to the
//! newest, uncles, withdrawals, blobs. Every state root, transaction root and receipt root is that of geth's headers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

#[path = "fixture_chain/replay.rs"]
mod replay;

use std::{path::Path, sync::Arc};

use alloy_consensus::proofs;
use alloy_primitives::B256;
use penstock_state::{Backend, State, StateConfig, Store, keys};
use revm::database::BundleState;

use self::replay::{chain, execute, genesis_changes};

fn roots_are_equal(backend: Backend) {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixture_chain");
    let (genesis, blocks) = chain(&files);
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = backend.open(folder.path()).unwrap();
    // Nothing of the tries stays in memory that need not.
    let config = StateConfig { trie_bytes: 0, history: 0, ..StateConfig::default() };
    let mut state = State::open(store.clone(), 0, config).unwrap();
    let commit = |state: &mut State, number: u64, hash: B256, changes: &BundleState| {
        let applied = state.apply(number, changes).unwrap();
        let mut batch = applied.batch;
        batch.put(keys::block_hash(number), hash.to_vec());
        batch.put(keys::meta("height"), number.to_be_bytes().to_vec());
        state.commit(number, batch).unwrap();
        applied.root
    };
    let mut parent: Option<(u64, B256)> = None;
    let mut roots = Vec::new();
    for block in blocks {
        let header = &block.header;
        let number = header.number;
        match parent {
            None => drop(commit(&mut state, 0, header.parent_hash, &genesis_changes(&genesis))),
            Some((_, hash)) => assert_eq!(header.parent_hash, hash),
        }
        let (changes, receipts) = execute(state.head(), &genesis, &block);
        let root = commit(&mut state, number, header.hash_slow(), &changes);
        assert_eq!(root, header.state_root, "state root of block {number}");
        assert_eq!(proofs::calculate_transaction_root(&block.body.transactions), header.transactions_root);
        // Before Byzantium receipts carry a state root in the place of the status.
        if number >= genesis.config.byzantium_block.unwrap() {
            assert_eq!(proofs::calculate_receipt_root(&receipts), header.receipts_root, "receipts of block {number}");
        }
        roots.push((number, header.state_root));
        parent = Some((number, header.hash_slow()));
        if number % 9 == 0 {
            state.reload(number).unwrap();
        }
    }
    assert!(roots.len() > 40, "{} blocks", roots.len());
    println!("{backend}: {} blocks, every root is geth's", roots.len());
}

#[test]
fn the_chain_of_execution_apis_has_the_same_roots_on_both_backends() {
    for backend in Backend::ALL {
        roots_are_equal(backend);
    }
}
