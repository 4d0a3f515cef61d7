//! `penstock db verify` finds every record that is changed, or gone, under a right checksum.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::collections::BTreeMap;

use alloy_primitives::Address;
use penstock_state::{Backend, Batch, Report, Store, verify_records, verify_state};
use support::{TestChain, Tx};

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
    let store = {
        let begin = std::time::Instant::now();
        // The threads of the chain let go of the store one after the other.
        loop {
            match Backend::Fjall.open(folder.path()) {
                Ok(store) => break store,
                Err(error) => assert!(begin.elapsed().as_secs() < 20, "{error}"),
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    };
    let clean = check(&*store);
    assert!(clean.is_clean(), "{clean:?}");
    assert!(clean.accounts > 10 && clean.slots > 3 && clean.heights == 41 && clean.blocks == 42, "{clean:?}");

    let mut by_letter: BTreeMap<u8, Vec<(Vec<u8>, Vec<u8>)>> = BTreeMap::new();
    let snapshot = store.snapshot();
    snapshot
        .scan_from(&[], &mut |key, value| {
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
