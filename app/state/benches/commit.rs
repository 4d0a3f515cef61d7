//! What a block costs the store, by the size of the state: a block of 2,000 changed accounts with its transactions,
//! receipts and indexes, applied and committed, on both backends.
//!
//! `cargo bench --workspace --bench commit`; `PENSTOCK_STATE_SIZES=10000,1000000,10000000` names the sizes,
//! `PENSTOCK_STATE_BACKENDS=fjall` the backends, `PENSTOCK_STATE_HISTORIES=4096,archive` how much of the past is kept,
//! `PENSTOCK_STATE_BLOCKS=100` the blocks that are measured, `PENSTOCK_STATE_HOT=20000` how many of the accounts they
//! change, `PENSTOCK_STATE_VOTES=150` the milliseconds between a proposal and its decision (without it no block was
//! proposed), `PENSTOCK_STATE_FOLDER` the disk.
//!
//! A state is filled by a process of its own, so that what is measured has only its own memory, and when the store has
//! come to rest.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a benchmark that cannot go on stops"
)]

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use alloy_primitives::{Address, B256, U256, keccak256};
use penstock_state::{Backend, Batch, Fetcher, State, StateConfig, Store, keys};
use revm::{
    database::{AccountStatus, BundleAccount, BundleState},
    state::AccountInfo,
};

/// The program's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Accounts that a block changes.
const CHANGES: u64 = 2_000;
/// Blocks before those that are measured: the tries begin cold.
const WARM_UP: u64 = 30;
/// Accounts of a block while the state is filled.
const FILL: u64 = 50_000;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn address(index: u64) -> Address {
    Address::from_slice(&keccak256(index.to_be_bytes())[..20])
}

fn block(accounts: impl Iterator<Item = u64>, nonce: u64, is_new: bool) -> BundleState {
    let mut bundle = BundleState::default();
    for index in accounts {
        let info = AccountInfo { nonce, balance: U256::from(index + nonce) << 60, ..Default::default() };
        let original_info = (!is_new).then(|| AccountInfo { nonce: nonce - 1, ..info.clone() });
        let status = if is_new { AccountStatus::InMemoryChange } else { AccountStatus::Changed };
        let account = BundleAccount { info: Some(info), original_info, storage: Default::default(), status };
        bundle.state.insert(address(index), account);
    }
    bundle
}

/// Transactions, receipts and indexes of as many transfers of a token as there are changes.
fn add_content(batch: &mut Batch, number: u64) {
    batch.put(keys::body(number), vec![number as u8; 110 * CHANGES as usize]);
    batch.put(keys::receipts(number), vec![number as u8; 180 * CHANGES as usize]);
    batch.put(keys::header(number), vec![number as u8; 600]);
    for index in 0..CHANGES {
        let hash = keccak256([number.to_be_bytes(), index.to_be_bytes()].concat());
        batch.put(keys::transaction(hash), vec![0; 12]);
        let mut mark = [0; 8];
        mark.copy_from_slice(&hash[..8]);
        batch.put(keys::log_mark_at(&mark, number), vec![]);
    }
    batch.put(keys::meta("height"), number.to_be_bytes().to_vec());
}

fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    (statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096) >> 20
}

fn fill(backend: Backend, size: u64, folder: &Path, config: StateConfig) {
    let store = backend.open(folder).unwrap();
    let mut state = State::open(store.clone(), 0, config).unwrap();
    let begin = Instant::now();
    let mut height = 0;
    for from in (0..size).step_by(FILL as usize) {
        height += 1;
        let mut batch = state.apply(height, &block(from..(from + FILL).min(size), 1, true)).unwrap().batch;
        batch.put(keys::meta("height"), height.to_be_bytes().to_vec());
        state.commit(height, batch).unwrap();
    }
    eprintln!("# {backend}: {size} accounts in {:.0} s", begin.elapsed().as_secs_f64());
}

/// Waits until the backend has done what it does beside (compaction).
fn rest(store: &dyn Store) {
    let mut before = 0;
    loop {
        let bytes = store.disk_bytes().unwrap();
        if bytes == before {
            return;
        }
        before = bytes;
        std::thread::sleep(Duration::from_secs(5));
    }
}

/// The accounts that blocks change: so many of all, 0 for any.
fn hot(size: u64) -> u64 {
    let hot = std::env::var("PENSTOCK_STATE_HOT").map_or(0, |text| text.parse().unwrap());
    if hot == 0 { size } else { size.min(hot) }
}

fn measure(backend: Backend, size: u64, folder: &Path, config: StateConfig, blocks_measured: u64) {
    let store = backend.open(folder).unwrap();
    let mut height = size.div_ceil(FILL);
    let mut state = State::open(store.clone(), height, config).unwrap();
    let fetcher = Fetcher::start(state.reader()).unwrap();
    let votes = std::env::var("PENSTOCK_STATE_VOTES").ok().map(|ms| Duration::from_millis(ms.parse().unwrap()));
    rest(&*store);
    let mut before = 0;
    let (mut random, mut applies, mut commits) = (Random(1), Vec::new(), Vec::new());
    let mut nonces = std::collections::HashMap::new();
    for number in 0..WARM_UP + blocks_measured {
        if number == WARM_UP {
            before = store.disk_bytes().unwrap();
            applies.clear();
            commits.clear();
        }
        height += 1;
        let mut bundle = BundleState::default();
        for _ in 0..CHANGES {
            // Spread over all that there are.
            let index = random.below(hot(size)) * (size / hot(size));
            let nonce = nonces.entry(index).or_insert(1_u64);
            if !bundle.state.contains_key(&address(index)) {
                *nonce += 1;
                bundle.state.extend(block(core::iter::once(index), *nonce, false).state);
            }
        }
        if let Some(votes) = votes {
            fetcher.expect(&bundle);
            std::thread::sleep(votes);
        }
        let begin = Instant::now();
        let mut batch = state.apply(height, &bundle).unwrap().batch;
        applies.push(begin.elapsed());
        add_content(&mut batch, height);
        let begin = Instant::now();
        state.commit(height, batch).unwrap();
        commits.push(begin.elapsed());
    }
    let mut blocks: Vec<_> = applies.iter().zip(&commits).map(|(apply, commit)| *apply + *commit).collect();
    let memory = resident();
    rest(&*store);
    let per_tx = store.disk_bytes().unwrap().saturating_sub(before) as f64 / (blocks_measured * CHANGES) as f64;
    let reader = state.reader();
    let timed = |work: &mut dyn FnMut(u64)| {
        let mut random = Random(2);
        let begin = Instant::now();
        for _ in 0..2_000 {
            work(random.below(size));
        }
        begin.elapsed().as_secs_f64() * 1e6 / 2_000.0
    };
    let read = timed(&mut |index| assert!(reader.head().account(address(index)).unwrap().is_some()));
    let past = reader.at(height - 20).unwrap().unwrap();
    let read_past = timed(&mut |index| assert!(past.account(address(index)).unwrap().is_some()));
    let prove = timed(&mut |index| drop(reader.prove(height, address(index), &[]).unwrap().unwrap()));
    drop((past, reader, fetcher, state));
    let begin = Instant::now();
    let state = State::open(store, height, config).unwrap();
    let started = begin.elapsed();
    assert_ne!(state.root(), B256::ZERO);
    let history = match config.history {
        0 => "archive".to_owned(),
        blocks => blocks.to_string(),
    };
    println!(
        "| {backend} | {size} | {history} | {:.0} / {:.0} | {:.0} / {:.0} | {:.0} / {:.0} | {read:.0} | {read_past:.0} | {prove:.0} | {:.2} | {memory} | {per_tx:.0} |",
        percentile(&mut applies, 50),
        percentile(&mut applies, 99),
        percentile(&mut commits, 50),
        percentile(&mut commits, 99),
        percentile(&mut blocks, 50),
        percentile(&mut blocks, 99),
        started.as_secs_f64(),
    );
}

/// Says to a process of this program what of its work to do, and where.
const STAGE: &str = "PENSTOCK_STATE_STAGE";

fn main() {
    let list = |name: &str, default: &str| -> Vec<String> {
        std::env::var(name).unwrap_or_else(|_| default.to_owned()).split(',').map(str::to_owned).collect()
    };
    // `cargo test --benches` runs this, too: not at full size.
    let full = std::env::args().any(|argument| argument == "--bench");
    let sizes = list("PENSTOCK_STATE_SIZES", if full { "10000,1000000" } else { "5000" });
    let trie_bytes = list("PENSTOCK_STATE_TRIE_BYTES", "1073741824")[0].parse().unwrap();
    let blocks = list("PENSTOCK_STATE_BLOCKS", if full { "100" } else { "10" })[0].parse().unwrap();
    let config = |history: &str| {
        // 0: for ever.
        let history: u64 = if history == "archive" { 0 } else { history.parse().unwrap() };
        let proof_window = StateConfig::default().proof_window.min(history.wrapping_sub(1));
        StateConfig { trie_bytes, history, proof_window }
    };
    if let Ok(stage) = std::env::var(STAGE) {
        let [stage, backend, size, history, folder] =
            stage.splitn(5, ' ').map(str::to_owned).collect::<Vec<_>>().try_into().unwrap();
        let (backend, size, folder) = (backend.parse().unwrap(), size.parse().unwrap(), Path::new(&folder));
        return match &*stage {
            "fill" => fill(backend, size, folder, config(&history)),
            _ => measure(backend, size, folder, config(&history), blocks),
        };
    }
    println!(
        "| backend | accounts | history | apply p50 / p99 ms | commit | both | read µs | 20 blocks ago | prove µs | start s | RSS MiB | disk bytes a change |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    for backend in list("PENSTOCK_STATE_BACKENDS", "fjall,sled") {
        for size in &sizes {
            for history in list("PENSTOCK_STATE_HISTORIES", "4096") {
                let parent =
                    std::env::var("PENSTOCK_STATE_FOLDER").map_or_else(|_| std::env::temp_dir(), PathBuf::from);
                let folder = tempfile::tempdir_in(parent).unwrap();
                for stage in ["fill", "measure"] {
                    let stage = format!("{stage} {backend} {size} {history} {}", folder.path().display());
                    let this = std::env::current_exe().unwrap();
                    let status = Command::new(this).args(std::env::args().skip(1)).env(STAGE, stage).status().unwrap();
                    assert!(status.success());
                }
            }
        }
    }
}
