//! Hands transactions that came by JSON-RPC over to CometBFT's flood mempool, which gossips them. They are in our pool
//! already: nobody waits for this, and what fails is told again by the pool some blocks later.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use metrics::counter;
use penstock_chain::Chain;
use penstock_pipe::PoolTx;
use serde_json::{Value, json};
use tracing::{debug, warn};

/// CometBFT takes no larger batch (`rpc.max_request_batch_size`), and no larger body (`rpc.max_body_bytes` is 1,000,000;
/// base64 adds a third).
const BATCH: usize = 10;
const BATCH_BYTES: usize = 600_000;

/// How often a waiting thread looks whether it has to stop.
const GLANCE: Duration = Duration::from_millis(200);

/// How long CometBFT may take for a batch, and how long to wait when it does not answer.
const TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(500);

/// Bytes that are taken from the pool at once.
const TAKE_BYTES: u64 = 1 << 20;

/// The running thread.
#[derive(Debug)]
pub(crate) struct Handover {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Handover {
    /// Starts it. `url` is that of CometBFT's RPC.
    pub(crate) fn start(chain: Arc<Chain>, url: String) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let of_thread = stop.clone();
        let thread = thread::Builder::new().name("handover".into()).spawn(move || run(&chain, &url, &of_thread))?;
        Ok(Self { stop, thread })
    }

    /// Ends it after the batch that it is in.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.join().is_err() {
            warn!("the thread that hands transactions over panicked");
        }
    }
}

/// Cuts transactions into batches that CometBFT takes.
fn batches(txs: &[Arc<PoolTx>]) -> Vec<&[Arc<PoolTx>]> {
    let (mut batches, mut rest) = (Vec::new(), txs);
    while !rest.is_empty() {
        let mut bytes = 0;
        let fit = rest.iter().take(BATCH).take_while(|tx| {
            bytes += tx.raw.len();
            bytes <= BATCH_BYTES
        });
        // One alone always fits: a transaction has 128 KiB at most.
        let (batch, others) = rest.split_at(fit.count().max(1));
        batches.push(batch);
        rest = others;
    }
    batches
}

fn run(chain: &Chain, url: &str, stop: &AtomicBool) {
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).build().into();
    let mut reachable = true;
    while !stop.load(Ordering::Relaxed) {
        let Ok(pool) = chain.pool() else {
            thread::sleep(GLANCE);
            continue;
        };
        let txs = pool.wait_outgoing(Instant::now() + GLANCE, TAKE_BYTES);
        for batch in batches(&txs) {
            let call = |(id, tx): (usize, &Arc<PoolTx>)| {
                let params = json!({ "tx": STANDARD.encode(&tx.raw) });
                json!({ "jsonrpc": "2.0", "id": id, "method": "broadcast_tx_async", "params": params })
            };
            let body: Vec<Value> = batch.iter().enumerate().map(call).collect();
            while !stop.load(Ordering::Relaxed) {
                match agent.post(url).send_json(&body) {
                    Ok(mut answer) => {
                        reachable = true;
                        counter!("penstock_handed_over_transactions_total").increment(batch.len() as u64);
                        let text = answer.body_mut().read_to_string().unwrap_or_default();
                        // A full mempool, or one that has it already: the pool tells it again while it is pending.
                        debug!(answer = text, "handed over");
                        break;
                    }
                    Err(ureq::Error::StatusCode(status)) => {
                        warn!(%url, status, "CometBFT does not take a batch of transactions for gossip: it is left out");
                        break;
                    }
                    Err(error) => {
                        if core::mem::take(&mut reachable) {
                            warn!(%url, %error, "CometBFT does not take transactions for gossip: trying again");
                        }
                        thread::sleep(PAUSE);
                    }
                }
            }
        }
    }
}
