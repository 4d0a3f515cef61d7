//! `penstock db verify` finds every record that is changed, or gone, under a right checksum; `db migrate` rewrites old stores.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::collections::BTreeMap;

use alloy_primitives::Address;
use penstock_chain::{Chain, ChainConfig};
use penstock_inference::{InferenceNetwork, ModelStore, NetworkConfig};
use penstock_state::{Backend, Batch, Range, Report, Store, View, verify_records, verify_state};
use support::{TestChain, Tx};

type Record = (Vec<u8>, Vec<u8>);

fn check(store: &dyn Store) -> Report {
    let mut report = Report::default();
    let mut tell = |_: &str, _: u64| {};
    verify_records(store, &mut report, &mut tell).unwrap();
    // A damaged record may also end the check.
    for step in [verify_state, penstock_chain::verify_blocks] {
        if let Err(error) = step(store, &mut report, &mut tell) {
            report.problem(error.to_string());
        }
    }
    report
}

/// The store of a chain that has just stopped: its threads let go of it one after the other.
fn open(folder: &std::path::Path) -> std::sync::Arc<dyn Store> {
    let begin = std::time::Instant::now();
    loop {
        match Backend::Fjall.open(folder) {
            Ok(store) => return store,
            Err(error) => assert!(begin.elapsed().as_secs() < 20, "{error}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// A stopped chain with something under every letter.
fn chain() -> tempfile::TempDir {
    let chain = TestChain::new();
    chain.deploy("Probe", 5);
    for nonce in 0..40 {
        chain.submit(&Tx { to: Address::repeat_byte(100 + nonce as u8), ..Tx::transfer(nonce) }, 1);
        chain.submit(&Tx::ask(nonce, [nonce as i128, 2]), 2);
        chain.submit(&Tx::bump(nonce), 3);
        chain.produce();
    }
    chain.close()
}

#[test]
fn a_record_that_is_changed_or_gone_is_found_whatever_its_kind() {
    let folder = chain();
    let store = open(folder.path());
    let clean = check(&*store);
    assert!(clean.is_clean(), "{clean:?}");
    assert!(clean.accounts > 10 && clean.slots > 3 && clean.heights == 41 && clean.blocks == 42, "{clean:?}");

    let mut by_letter: BTreeMap<u8, Vec<Record>> = BTreeMap::new();
    let snapshot = store.snapshot();
    snapshot
        .scan_range(Range::from(&[]), &mut |key, value| {
            by_letter.entry(key[0]).or_default().push((key.to_vec(), value.to_vec()));
            Ok(true)
        })
        .unwrap();
    let letters: String = by_letter.keys().map(|letter| char::from(*letter)).collect();
    assert_eq!(letters, "AHSbchklmnpqrtvyz", "a kind of record that this test does not know");
    // What consensus said with a block is under no root of ours.
    for (letter, records) in by_letter.into_iter().filter(|(letter, _)| !b"mv".contains(letter)) {
        let letter = char::from(letter);
        // The first, the last, and some in between.
        for (key, value) in records.iter().step_by(records.len().div_ceil(4)).chain(records.last()) {
            let mut changes = vec![None];
            if let Some(last) = value.last() {
                // Of a request's record only the number of the block is under the header.
                let changed = if letter == 'q' {
                    vec![0; value.len()]
                } else {
                    [&value[..value.len() - 1], &[last ^ 1]].concat()
                };
                changes.push(Some(changed));
            }
            for change in changes {
                let mut batch = Batch::default();
                match &change {
                    Some(changed) => batch.put(key.clone(), changed.clone()),
                    None => batch.remove(key.clone()),
                }
                store.commit(batch).unwrap();
                let report = check(&*store);
                assert!(!report.is_clean(), "{letter}: {key:?} {}", if change.is_some() { "changed" } else { "gone" });
                let mut batch = Batch::default();
                batch.put(key.clone(), value.clone());
                store.commit(batch).unwrap();
            }
        }
    }
    assert!(check(&*store).is_clean());
}

/// A store of layout 1, as the program before wrote it, from one of the newest layout.
fn write_layout_1(from: &dyn Store, folder: &std::path::Path) {
    let database = fjall::Database::builder(folder).open().unwrap();
    let keyspace = database.keyspace("penstock", fjall::KeyspaceCreateOptions::default).unwrap();
    let view = View::open(from, None).unwrap().unwrap();
    let put = |key: Vec<u8>, value: &[u8]| keyspace.insert(key, value).unwrap();
    view.accounts(&mut |hash, address, leaf| {
        put([b"a", address.as_slice()].concat(), leaf);
        view.slots(hash, &mut |_, slot, value| {
            put([b"s", address.as_slice(), &slot.to_be_bytes::<32>()].concat(), &value.to_be_bytes_trimmed_vec());
            Ok(true)
        })?;
        Ok(true)
    })
    .unwrap();
    from.snapshot()
        .scan_range(Range::from(&[]), &mut |key, value| {
            match key {
                b"mversion" => put(key.to_vec(), &1_u32.to_be_bytes()),
                b"mhistory" => {}
                _ if b"ASyzHpl".contains(&key[0]) => {}
                _ => put(key.to_vec(), value),
            }
            Ok(true)
        })
        .unwrap();
    database.persist(fjall::PersistMode::SyncAll).unwrap();
}

#[test]
fn a_store_of_layout_1_is_refused_by_its_name_and_migrated() {
    let folder = chain();
    let newest = open(folder.path());
    let old = tempfile::tempdir().unwrap();
    write_layout_1(&*newest, &old.path().join("state"));

    let (genesis, app_state) = support::genesis();
    let network = InferenceNetwork::start(ModelStore::default(), NetworkConfig::default()).unwrap();
    let network = std::sync::Arc::new(network);
    let open_chain = |folder: &std::path::Path| {
        Chain::open(open(folder), genesis.clone(), &app_state, network.clone(), ChainConfig::default())
    };
    let refused = open_chain(&old.path().join("state")).unwrap_err().to_string();
    assert!(refused.contains("layout 1") && refused.contains("db migrate"), "{refused}");

    for backend in Backend::ALL {
        let new = old.path().join(backend.to_string());
        let store = backend.open(&new).unwrap();
        let mut tell = |_: &str, _: u64| {};
        penstock_state::migrate(&old.path().join("state"), &*store, &mut penstock_chain::index_logs, &mut tell)
            .unwrap();
        let report = check(&*store);
        assert!(report.is_clean() && report.heights == 0 && report.blocks == 42, "{report:?}");
        drop(store);
        let store = backend.open(&new).unwrap();
        let chain = Chain::open(store, genesis.clone(), &app_state, network.clone(), ChainConfig::default()).unwrap();
        assert_eq!(chain.height(), Some(41));
    }
}
