//! Damage on the disk is told, never served: bytes of values, and bytes anywhere in a database's files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::{
    collections::BTreeMap,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use penstock_state::{Backend, Batch, Report, Store, StoreError, verify_records};

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// A store with some blocks of records; what it held after each of them.
fn fill(backend: Backend, folder: &Path, random: &mut Random) -> Vec<Records> {
    let store = backend.open(folder).unwrap();
    let mut heights = vec![Records::new()];
    for height in 1..=30_u64 {
        let mut records = heights[height as usize - 1].clone();
        let mut batch = Batch::default();
        for _ in 0..100 {
            let key = [b"A", random.below(2_000).to_be_bytes().as_slice()].concat();
            let value = vec![random.below(256) as u8; random.below(120) as usize];
            batch.put(key.clone(), value.clone());
            records.insert(key, value);
        }
        batch.put(b"mheight".to_vec(), height.to_be_bytes().to_vec());
        store.commit(batch).unwrap();
        heights.push(records);
    }
    heights
}

/// Reads everything: its height, and whether the rest is what was there at that height.
fn read_all(store: &dyn Store, heights: &[Records]) -> Result<(u64, bool), StoreError> {
    let snapshot = store.snapshot();
    let height = snapshot.meta_number("height")?.unwrap_or_default();
    let mut found = Records::new();
    for key in heights[heights.len() - 1].keys() {
        found.extend(snapshot.get(key)?.map(|value| (key.clone(), value)));
    }
    Ok((height, found == heights[height as usize]))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn a_changed_byte_of_a_value_is_an_error_where_it_is_read_and_named_by_the_check() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(1);
    let records = fill(Backend::Fjall, folder.path(), &mut random).pop().unwrap();
    let changed: Vec<Vec<u8>> = records.keys().step_by(97).cloned().collect();
    {
        // Under the store, by the database itself.
        let database = fjall::Database::builder(folder.path()).open().unwrap();
        let keyspace = database.keyspace("penstock", fjall::KeyspaceCreateOptions::default).unwrap();
        for key in &changed {
            let mut sealed = keyspace.get(key).unwrap().unwrap().to_vec();
            let place = random.below(sealed.len() as u64) as usize;
            sealed[place] ^= 1 << random.below(8);
            keyspace.insert(key.as_slice(), sealed).unwrap();
        }
        database.persist(fjall::PersistMode::SyncAll).unwrap();
    }
    let store = Backend::Fjall.open(folder.path()).unwrap();
    for key in &changed {
        let error = store.snapshot().get(key).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    }
    let scan = store.snapshot().scan(b"A", &mut |_, _| Ok(true));
    assert!(matches!(scan, Err(StoreError::Damaged { .. })));
    let mut report = Report::default();
    verify_records(&*store, &mut report, &mut |_, _| {}).unwrap();
    assert_eq!(report.problems.len(), changed.len());
    // And the height's.
    assert_eq!(report.records as usize, records.len() + 1 - changed.len());
}

#[test]
fn a_changed_byte_anywhere_in_the_files_of_a_database_never_serves_a_wrong_value() {
    for (backend, seed) in [(Backend::Fjall, 3), (Backend::Sled, 4)] {
        let whole = tempfile::tempdir().unwrap();
        let mut random = Random(seed);
        let heights = fill(backend, &whole.path().join("store"), &mut random);
        let (mut told, mut cut) = (0, 0);
        for _ in 0..30 {
            let damaged = tempfile::tempdir().unwrap();
            copy(&whole.path().join("store"), &damaged.path().join("store"));
            let files: Vec<_> =
                files(damaged.path()).into_iter().filter(|file| fs::metadata(file).unwrap().len() > 0).collect();
            let file = &files[random.below(files.len() as u64) as usize];
            let mut bytes = fs::read(file).unwrap();
            // Databases lay out room in advance: a byte where something is.
            let written = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64 + 1;
            bytes[random.below(written) as usize] ^= 1 << random.below(8);
            fs::write(file, &bytes).unwrap();
            // sled panics on some damage, while it is opened or read: nothing is served then either.
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let store = backend.open(&damaged.path().join("store"))?;
                read_all(&*store, &heights)
            }));
            match outcome {
                // The last blocks may be gone, as if they had never been: consensus has them, and brings them again.
                Ok(Ok((height, whole))) => {
                    assert!(whole, "{backend}: what was served at height {height} was never there");
                    cut += u64::from(height < 30);
                }
                Ok(Err(_)) | Err(_) => told += 1,
            }
        }
        println!("{backend}: of 30 changed bytes {told} were told, {cut} cut the last blocks off");
        assert!(told + cut > 5, "{backend}: only {told} and {cut} changed bytes were in what matters");
    }
}
