//! Sends a load and watches what becomes of it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use alloy_primitives::{B256, Bytes};
use anyhow::Context;
use parking_lot::Mutex;
use penstock_chain::Block;
use serde_json::{Value, json};

use super::{
    client::{Client, quantity},
    load::Kind,
};

/// A signed transaction of the load.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) kind: Kind,
    pub(super) hash: B256,
    pub(super) raw: Bytes,
    /// When it is sent, from the beginning on; those of one account in nonce order.
    pub(super) at: Duration,
    /// Transactions of one lane are sent one after the other.
    pub(super) lane: usize,
}

/// Connections that send side by side.
pub(super) const LANES: usize = 2;

/// A block that was seen.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) number: u64,
    pub(super) at: Instant,
    pub(super) txs: Vec<B256>,
}

/// How blocks are seen: told by the node in this process, or asked for.
pub(super) enum Watch {
    Told(mpsc::Receiver<Arc<Block>>),
    Asked,
}

/// What became of a load.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Time from the sending of each transaction to its block, by kind.
    pub(super) latencies: HashMap<Kind, Vec<Duration>>,
    /// Transactions by kind.
    pub(super) sent: HashMap<Kind, usize>,
    /// Those that were included and reverted or failed.
    pub(super) failed: usize,
    /// Those that the node refused, and the first reason.
    pub(super) refused: usize,
    pub(super) refusal: Option<String>,
    /// Those that were not included in time.
    pub(super) missing: usize,
    /// From the first one sent to the last one included.
    pub(super) took: Duration,
    /// Times between blocks meanwhile.
    pub(super) intervals: Vec<Duration>,
    /// Transactions in the fullest block.
    pub(super) fullest: usize,
    pub(super) blocks: usize,
    /// Proposals that left a transaction out for a new request.
    pub(super) deferrals: u64,
    /// Processor time of model runs over the time that the cores had (as many as requests run at once).
    pub(super) efficiency: Option<f64>,
    /// Answers a second to what is read meanwhile.
    pub(super) reads: Option<f64>,
}

impl Outcome {
    /// Takes in what became of another load.
    pub(super) fn add(&mut self, other: Self) {
        for (kind, times) in other.latencies {
            self.latencies.entry(kind).or_default().extend(times);
        }
        for (kind, count) in other.sent {
            *self.sent.entry(kind).or_default() += count;
        }
        self.failed += other.failed;
        self.refused += other.refused;
        self.refusal = self.refusal.take().or(other.refusal);
        self.missing += other.missing;
        self.took += other.took;
        self.intervals.extend(other.intervals);
        self.fullest = self.fullest.max(other.fullest);
        self.blocks += other.blocks;
        self.deferrals += other.deferrals;
    }
}

/// Collects blocks until it is stopped.
struct Watcher {
    stop: Arc<AtomicBool>,
    seen: mpsc::Receiver<Seen>,
}

impl Watcher {
    fn start(client: Client, watch: Watch, first: u64) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (to, seen) = mpsc::channel();
        let stopped = stop.clone();
        thread::Builder::new().name("bench-blocks".into()).spawn(move || match watch {
            Watch::Told(blocks) => {
                while !stopped.load(Ordering::Relaxed) {
                    let block = match blocks.recv_timeout(Duration::from_millis(500)) {
                        Ok(block) => block,
                        Err(mpsc::RecvTimeoutError::Timeout) => continue,
                        Err(mpsc::RecvTimeoutError::Disconnected) => return,
                    };
                    let txs = block.txs.iter().map(|tx| *tx.tx_hash()).collect();
                    if to.send(Seen { number: block.header.number, at: Instant::now(), txs }).is_err() {
                        return;
                    }
                }
            }
            Watch::Asked => ask_for_blocks(&client, first, &stopped, &to),
        })?;
        Ok(Self { stop, seen })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn ask_for_blocks(client: &Client, first: u64, stop: &AtomicBool, to: &mpsc::Sender<Seen>) {
    /// A good compromise between the exactness of times and the load of asking.
    const EVERY: Duration = Duration::from_millis(2);
    let mut next = first;
    while !stop.load(Ordering::Relaxed) {
        let height = client.height().unwrap_or_default();
        let at = Instant::now();
        while next <= height {
            let Ok(block) = client.call("eth_getBlockByNumber", json!([format!("{next:#x}"), false])) else { break };
            let txs = serde_json::from_value(block["transactions"].clone()).unwrap_or_default();
            if to.send(Seen { number: next, at, txs }).is_err() {
                return;
            }
            next += 1;
        }
        thread::sleep(EVERY);
    }
}

/// Watches blocks of a chain that nobody uses.
pub(super) fn idle(client: &Client, watch: Watch, time: Duration) -> anyhow::Result<Outcome> {
    let watcher = Watcher::start(client.clone(), watch, client.height()? + 1)?;
    thread::sleep(time);
    let seen: Vec<Seen> = watcher.seen.try_iter().collect();
    let (intervals, blocks) = (intervals(&seen), seen.len());
    Ok(Outcome { intervals, blocks, ..Outcome::default() })
}

/// Connections of [`reads`].
const READERS: usize = 32;

/// Watches the blocks of a chain that is asked for calls that use all gas that they may, traces of them, logs and proofs, on
/// [`READERS`] connections without a pause.
pub(super) fn reads(client: &Client, watch: Watch, time: Duration) -> anyhow::Result<Outcome> {
    let watcher = Watcher::start(client.clone(), watch, client.height()? + 1)?;
    // Jumps back until the gas is gone.
    let code = json!({ "0x00000000000000000000000000000000000c0de0": { "code": "0x5b600056" } });
    let call = json!({ "to": "0x00000000000000000000000000000000000c0de0" });
    let requests = [
        ("eth_call", json!([call, "latest", code])),
        ("debug_traceCall", json!([call, "latest", { "stateOverrides": code, "tracer": "callTracer" }])),
        ("eth_getLogs", json!([{ "fromBlock": "0x0" }])),
        ("eth_getProof", json!(["0x00000000000000000000000000000000000000f4", [], "latest"])),
    ];
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for reader in 0..READERS {
            let (client, requests, stop, answered) = (client.clone(), &requests, &stop, &answered);
            scope.spawn(move || {
                for (method, params) in requests.iter().cycle().skip(reader) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    // A call ends without gas, which is an answer, too; one that finds no place in time is not counted.
                    let counts = match client.call(method, params.clone()) {
                        Ok(_) => true,
                        Err(error) => error.to_string().contains("out of gas"),
                    };
                    answered.fetch_add(usize::from(counts), Ordering::Relaxed);
                }
            });
        }
        thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
    });
    let seen: Vec<Seen> = watcher.seen.try_iter().collect();
    let (intervals, blocks) = (intervals(&seen), seen.len());
    let reads = Some(answered.into_inner() as f64 / time.as_secs_f64());
    Ok(Outcome { intervals, blocks, reads, ..Outcome::default() })
}

fn intervals(seen: &[Seen]) -> Vec<Duration> {
    seen.windows(2).map(|pair| pair[1].at - pair[0].at).collect()
}

/// Sends a load, with at most `window` transactions pending, and waits until it is included or `patience` has passed since
/// something was. `progress` hears how many are sent and included.
pub(super) fn drive(
    client: &Client,
    watch: Watch,
    load: &[Planned],
    window: usize,
    patience: Duration,
    mut progress: impl FnMut(usize, usize),
) -> anyhow::Result<Outcome> {
    let before = client.call("pipe_status", json!([]))?;
    let watcher = Watcher::start(client.clone(), watch, client.height()? + 1)?;
    let begin = Instant::now();
    let shared = Sending {
        sent: Mutex::new(HashMap::with_capacity(load.len())),
        included: AtomicUsize::new(0),
        refused: Mutex::new((0, None)),
        given_up: AtomicBool::new(false),
    };
    let mut outcome = Outcome::default();
    load.iter().for_each(|tx| *outcome.sent.entry(tx.kind).or_default() += 1);
    let kinds: HashMap<B256, Kind> = load.iter().map(|tx| (tx.hash, tx.kind)).collect();
    let mut blocks: Vec<Seen> = Vec::new();
    let mut included: HashMap<B256, Instant> = HashMap::with_capacity(load.len());
    thread::scope(|scope| -> anyhow::Result<()> {
        for lane in 0..LANES {
            let own: Vec<&Planned> = load.iter().filter(|tx| tx.lane == lane).collect();
            let (client, shared) = (client.clone(), &shared);
            thread::Builder::new().name(format!("bench-send-{lane}")).spawn_scoped(scope, move || {
                if let Err(error) = shared.send(&client, &own, window, begin) {
                    shared.given_up.store(true, Ordering::Relaxed);
                    shared.refused.lock().1.get_or_insert(format!("{error:#}"));
                }
            })?;
        }
        let mut last = Instant::now();
        while included.len() + shared.refused.lock().0 < load.len() {
            match watcher.seen.recv_timeout(Duration::from_millis(200)) {
                Ok(block) => {
                    let mut own = 0;
                    for hash in block.txs.iter().filter(|hash| kinds.contains_key(*hash)) {
                        own += usize::from(included.insert(*hash, block.at).is_none());
                    }
                    if own > 0 {
                        last = Instant::now();
                    }
                    outcome.fullest = outcome.fullest.max(own);
                    shared.included.store(included.len(), Ordering::Relaxed);
                    blocks.push(block);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
            progress(shared.sent.lock().len(), included.len());
            if last.elapsed() > patience || shared.given_up.load(Ordering::Relaxed) {
                break;
            }
        }
        shared.given_up.store(true, Ordering::Relaxed);
        Ok(())
    })?;
    let after = client.call("pipe_status", json!([]))?;
    let sent = shared.sent.into_inner();
    let end = included.values().max().copied().unwrap_or_else(Instant::now);
    outcome.took = end - begin;
    for (hash, at) in &included {
        let (Some(kind), Some(sent)) = (kinds.get(hash), sent.get(hash)) else { continue };
        outcome.latencies.entry(*kind).or_default().push(at.saturating_duration_since(*sent));
    }
    (outcome.refused, outcome.refusal) = shared.refused.into_inner();
    outcome.missing = load.len().saturating_sub(included.len() + outcome.refused);
    blocks.retain(|block| block.at <= end);
    (outcome.intervals, outcome.blocks) = (intervals(&blocks), blocks.len());
    outcome.efficiency = efficiency(&before, &after, outcome.took);
    outcome.failed = failed(client, &blocks, &kinds)?;
    outcome.deferrals = deferrals(client, load)?;
    Ok(outcome)
}

/// What the senders share.
struct Sending {
    sent: Mutex<HashMap<B256, Instant>>,
    included: AtomicUsize,
    /// How many, and the first reason.
    refused: Mutex<(usize, Option<String>)>,
    given_up: AtomicBool,
}

impl Sending {
    fn send(&self, client: &Client, load: &[&Planned], window: usize, begin: Instant) -> anyhow::Result<()> {
        /// Transactions of one request.
        const BATCH: usize = 50;
        let mut next = 0;
        while next < load.len() && !self.given_up.load(Ordering::Relaxed) {
            let pending = self.sent.lock().len().saturating_sub(self.included.load(Ordering::Relaxed));
            let room = window.saturating_sub(pending).min(BATCH);
            let due = load[next..].iter().take(room).take_while(|tx| begin.elapsed() >= tx.at).count();
            if due == 0 {
                thread::sleep(Duration::from_millis(1));
                continue;
            }
            let now = &load[next..next + due];
            let at = Instant::now();
            self.sent.lock().extend(now.iter().map(|tx| (tx.hash, at)));
            let params: Vec<Value> = now.iter().map(|tx| json!([tx.raw])).collect();
            for answer in client.batch("eth_sendRawTransaction", &params)? {
                if let Err(message) = answer {
                    let mut refused = self.refused.lock();
                    refused.0 += 1;
                    refused.1.get_or_insert(message);
                }
            }
            next += due;
        }
        Ok(())
    }
}

fn efficiency(before: &Value, after: &Value, took: Duration) -> Option<f64> {
    let run = |status: &Value| status["requests"]["runSeconds"].as_f64();
    let threads = after["workers"].as_f64()?;
    let used = run(after)? - run(before)?;
    (used > 0.0).then(|| used / (threads * took.as_secs_f64()))
}

/// Included transactions of the load that did not succeed.
fn failed(client: &Client, blocks: &[Seen], kinds: &HashMap<B256, Kind>) -> anyhow::Result<usize> {
    let with_own = blocks.iter().filter(|block| block.txs.iter().any(|hash| kinds.contains_key(hash)));
    let mut failed = 0;
    for block in with_own {
        let receipts = client.call("eth_getBlockReceipts", json!([format!("{:#x}", block.number)]))?;
        let receipts = receipts.as_array().context("receipts of a block")?;
        let own = |receipt: &Value| {
            let hash = receipt["transactionHash"].as_str().and_then(|hash| hash.parse::<B256>().ok());
            hash.is_some_and(|hash| kinds.contains_key(&hash))
        };
        failed += receipts.iter().filter(|receipt| own(receipt) && receipt["status"] != "0x1").count();
    }
    Ok(failed)
}

fn deferrals(client: &Client, load: &[Planned]) -> anyhow::Result<u64> {
    let params: Vec<Value> = load.iter().filter(|tx| tx.kind.asks()).map(|tx| json!([tx.hash])).collect();
    let mut deferrals = 0;
    for some in params.chunks(500) {
        let statuses = client.batch("pipe_getTransaction", some)?;
        deferrals += statuses.iter().flatten().filter_map(|status| status["deferrals"].as_u64()).sum::<u64>();
    }
    Ok(deferrals)
}

/// EIP-155 id of the chain.
pub(super) fn chain_id(client: &Client) -> anyhow::Result<u64> {
    quantity(&client.call("eth_chainId", json!([]))?)
}
