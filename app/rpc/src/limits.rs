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
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::RpcConfig;

/// Requests between two looks for addresses that were quiet long enough to be forgotten.
const FORGET_EVERY: u32 = 4_096;

/// What a request costs, by its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cost {
    /// Some values are read.
    Light,
    /// Whole blocks or tries are read.
    Read,
    /// Code runs.
    Call,
}

fn cost_of(method: &str) -> Cost {
    match method {
        "eth_call" | "eth_estimateGas" | "eth_createAccessList" | "eth_simulateV1" | "eth_fillTransaction" => {
            Cost::Call
        }
        method if method.starts_with("debug_trace") => Cost::Call,
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
        | "pipe_getInferenceProof" => Cost::Read,
        method if method.starts_with("debug_") => Cost::Read,
        _ => Cost::Light,
    }
}

/// Expensive requests that may run at once, so that no load of them takes the cores away from consensus.
#[derive(Debug, Clone)]
pub(crate) struct Lanes {
    calls: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    patience: Duration,
}

/// A place among the running requests; light ones need none.
#[derive(Debug)]
pub(crate) struct Place {
    permit: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// Whether others wait for it.
    pub(crate) fn is_held(&self) -> bool {
        self.permit.is_some()
    }
}

impl Lanes {
    pub(crate) fn new(config: &RpcConfig) -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self { calls: semaphore(config.max_calls), reads: semaphore(config.max_reads), patience: config.queue_time }
    }

    /// A place for a request; `None`: there was none in time.
    pub(crate) async fn place(&self, method: &str) -> Option<Place> {
        let lane = match cost_of(method) {
            Cost::Light => return Some(Place { permit: None }),
            Cost::Read => &self.reads,
            Cost::Call => &self.calls,
        };
        let permit = tokio::time::timeout(self.patience, lane.clone().acquire_owned()).await.ok()?;
        Some(Place { permit: permit.ok() })
    }
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
    async fn an_expensive_request_waits_for_a_place_and_a_light_one_does_not() {
        let config = RpcConfig { max_calls: 1, ..RpcConfig::default() };
        let lanes = Lanes::new(&config);
        let first = lanes.place("eth_call").await.unwrap();
        assert!(lanes.place("debug_traceTransaction").await.is_none(), "there is one place, and it is taken");
        assert!(lanes.place("eth_chainId").await.is_some());
        assert!(lanes.place("eth_getLogs").await.is_some(), "reads have places of their own");
        drop(first);
        assert!(lanes.place("eth_call").await.is_some());
    }
}
