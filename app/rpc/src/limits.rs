//! How much of the machine clients get: how many expensive requests at once, how many requests a second from one address.

use std::{
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use governor::{Quota, RateLimiter, clock::DefaultClock, state::keyed::HashMapStateStore};
use parking_lot::Mutex;
use penstock_chain::Turn;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::RpcConfig;

/// Requests between two looks for addresses that were quiet long enough to be forgotten.
const FORGET_EVERY: u32 = 4_096;

/// Calls that run or wait for models: each holds a thread.
const MAX_UNDER_WAY: usize = 256;

/// Whether whole blocks or tries are read. Calls ([`Turns`]) see to themselves.
fn reads_much(method: &str) -> bool {
    match method {
        "eth_getLogs"
        | "eth_getFilterLogs"
        | "eth_getFilterChanges"
        | "eth_getProof"
        | "eth_getBlockReceipts"
        | "eth_feeHistory"
        | "eth_getStorageValues"
        | "txpool_content"
        | "txpool_contentFrom"
        | "txpool_inspect"
        | "pipe_getBlockInferences"
        | "pipe_getInferenceProof" => true,
        method => method.starts_with("debug_getRaw"),
    }
}

/// Requests that read much, so many at once, so that no load of them takes the cores away from consensus.
#[derive(Debug, Clone)]
pub(crate) struct Reads {
    places: Arc<Semaphore>,
    patience: Duration,
}

/// A place among the running requests; light ones need none.
#[derive(Debug)]
pub(crate) struct Place(Option<OwnedSemaphorePermit>);

impl Place {
    /// Whether others wait for it.
    pub(crate) fn is_held(&self) -> bool {
        self.0.is_some()
    }
}

impl Reads {
    pub(crate) fn new(config: &RpcConfig) -> Self {
        Self { places: semaphore(config.max_reads), patience: config.queue_time }
    }

    /// A place for a request; `None`: there was none in time.
    pub(crate) async fn place(&self, method: &str) -> Option<Place> {
        if !reads_much(method) {
            return Some(Place(None));
        }
        acquire(&self.places, Instant::now() + self.patience).await.map(|permit| Place(Some(permit)))
    }
}

/// Turns of calls and traces: so many run code at once, more of them wait for models.
#[derive(Debug)]
pub(crate) struct Turns {
    running: Arc<Semaphore>,
    under_way: Arc<Semaphore>,
    patience: Duration,
}

/// The turn of one call. Held until the work ends, whether the client still waits for it or not.
#[derive(Debug)]
pub(crate) struct CallTurn {
    lane: Arc<Semaphore>,
    running: Mutex<Option<OwnedSemaphorePermit>>,
    _under_way: OwnedSemaphorePermit,
    runtime: Handle,
}

impl Turns {
    pub(crate) fn new(config: &RpcConfig) -> Self {
        let under_way = semaphore(MAX_UNDER_WAY.max(config.max_calls));
        Self { running: semaphore(config.max_calls), under_way, patience: config.queue_time }
    }

    /// A turn; `None`: there was none in time.
    pub(crate) async fn take(&self) -> Option<CallTurn> {
        let until = Instant::now() + self.patience;
        let under_way = acquire(&self.under_way, until).await?;
        let running = acquire(&self.running, until).await?;
        Some(CallTurn {
            lane: self.running.clone(),
            running: Mutex::new(Some(running)),
            _under_way: under_way,
            runtime: Handle::current(),
        })
    }
}

impl Turn for CallTurn {
    fn step_out(&self) {
        drop(self.running.lock().take());
    }

    /// On a thread for blocking work.
    fn step_in(&self) -> Duration {
        let begin = Instant::now();
        let permit = self.runtime.block_on(self.lane.clone().acquire_owned());
        // Nobody closes the semaphore; if somebody did, the call would run without a turn.
        *self.running.lock() = permit.ok();
        begin.elapsed()
    }
}

fn semaphore(permits: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)))
}

async fn acquire(semaphore: &Arc<Semaphore>, until: Instant) -> Option<OwnedSemaphorePermit> {
    // Without a timer where there is a place.
    if let Ok(permit) = semaphore.clone().try_acquire_owned() {
        return Some(permit);
    }
    tokio::time::timeout_at(until, semaphore.clone().acquire_owned()).await.ok()?.ok()
}

/// Requests a second of each address. Those of this machine are not counted: they are the operator's own.
#[derive(Debug)]
pub(crate) struct Rates {
    limiter: RateLimiter<IpAddr, HashMapStateStore<IpAddr>, DefaultClock>,
    asked: AtomicU32,
}

impl Rates {
    /// `None`: without a limit.
    pub(crate) fn new(per_second: u32) -> Option<Self> {
        let quota = Quota::per_second(NonZeroU32::new(per_second)?);
        Some(Self { limiter: RateLimiter::hashmap(quota), asked: AtomicU32::new(0) })
    }

    /// Whether an address may ask once more.
    pub(crate) fn admits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        if address.is_loopback() {
            return true;
        }
        if self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(FORGET_EVERY) {
            self.limiter.retain_recent();
        }
        self.limiter.check_key(&address).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_asks_too_often_waits_and_others_do_not() {
        let rates = Rates::new(10).unwrap();
        let [busy, other, own, mapped] =
            ["192.0.2.1", "192.0.2.2", "127.0.0.1", "::ffff:192.0.2.1"].map(|text| text.parse::<IpAddr>().unwrap());
        let admitted = (0..100).filter(|_| rates.admits(busy)).count();
        assert!((10..20).contains(&admitted), "{admitted}");
        assert!(!rates.admits(mapped), "the same address in its IPv6 form");
        assert!(rates.admits(other));
        assert!((0..100).all(|_| rates.admits(own)));
        assert!(Rates::new(0).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_reads_much_waits_for_a_place_and_a_light_one_does_not() {
        let reads = Reads::new(&RpcConfig { max_reads: 1, ..RpcConfig::default() });
        let first = reads.place("eth_getLogs").await.unwrap();
        assert!(reads.place("debug_getRawBlock").await.is_none(), "there is one place, and it is taken");
        assert!(reads.place("eth_chainId").await.is_some());
        assert!(reads.place("eth_call").await.is_some(), "calls have turns of their own");
        drop(first);
        assert!(reads.place("eth_getProof").await.is_some());
    }

    #[tokio::test]
    async fn a_call_that_waits_for_a_model_holds_up_no_other() {
        let config = RpcConfig { max_calls: 1, queue_time: Duration::from_millis(20), ..RpcConfig::default() };
        let turns = Turns::new(&config);
        let first = turns.take().await.unwrap();
        assert!(turns.take().await.is_none(), "it runs");
        first.step_out();
        let second = turns.take().await.unwrap();
        let first = tokio::task::spawn_blocking(move || {
            first.step_in();
            first
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!first.is_finished(), "it goes on when there is a place again");
        drop(second);
        drop(first.await.unwrap());
        assert!(turns.take().await.is_some());
    }
}
