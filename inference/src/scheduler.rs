//! Which request runs next: a state machine without threads, clocks or locks.
//!
//! Two rules. Higher [`Priority`] first, then first come first served. And at most all lanes but one
//! run *dear* requests, so that a cheap request never waits behind dear ones.

use std::collections::{BTreeMap, HashMap};

use crate::RequestId;

/// Why a request is asked for; greater runs first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A read-only call that somebody waits for; bounded and never in the way of the chain.
    Call,
    /// A transaction of the pool.
    Transaction,
    /// A transaction whose execution asked for another input than its simulation.
    Deferred,
    /// A proposal waits for its verification.
    Verification,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// Reversed: `BTreeMap` iterates in increasing order.
    priority: core::cmp::Reverse<Priority>,
    sequence: u64,
}

#[derive(Debug)]
enum State {
    Queued { place: Place, wanted: usize },
    Running { dear: bool },
}

/// The queue and what runs.
#[derive(Debug)]
pub(crate) struct Scheduler<Job> {
    lanes: usize,
    dear_ops: u64,
    sequence: u64,
    queue: BTreeMap<Place, (RequestId, u64, Job)>,
    states: HashMap<RequestId, State>,
    running_dear: usize,
}

impl<Job> Scheduler<Job> {
    /// A scheduler for `lanes` parallel runs (at least two), where requests above `dear_ops` are dear.
    pub(crate) fn new(lanes: usize, dear_ops: u64) -> Self {
        Self {
            lanes: lanes.max(2),
            dear_ops,
            sequence: 0,
            queue: BTreeMap::new(),
            states: HashMap::new(),
            running_dear: 0,
        }
    }

    /// Queues a request, or joins the one that is queued or running already. A higher priority
    /// moves a queued one forward. Answers whether the request is new.
    pub(crate) fn submit(&mut self, id: RequestId, ops: u64, priority: Priority, job: Job) -> bool {
        let place = Place { priority: core::cmp::Reverse(priority), sequence: self.sequence };
        match self.states.get_mut(&id) {
            Some(State::Running { .. }) => false,
            Some(State::Queued { place: old, wanted }) => {
                *wanted += 1;
                if place.priority < old.priority
                    && let Some(entry) = self.queue.remove(old)
                {
                    *old = place;
                    self.sequence += 1;
                    self.queue.insert(place, entry);
                }
                false
            }
            None => {
                self.sequence += 1;
                self.states.insert(id, State::Queued { place, wanted: 1 });
                self.queue.insert(place, (id, ops, job));
                true
            }
        }
    }

    /// The request that a free lane runs now.
    pub(crate) fn next(&mut self) -> Option<(RequestId, Job)> {
        let may_run_dear = self.running_dear + 1 < self.lanes;
        let (place, dear) = self
            .queue
            .iter()
            .map(|(place, (_, ops, _))| (*place, *ops > self.dear_ops))
            .find(|(_, dear)| may_run_dear || !dear)?;
        let (id, _, job) = self.queue.remove(&place)?;
        self.running_dear += usize::from(dear);
        self.states.insert(id, State::Running { dear });
        Some((id, job))
    }

    /// A run has ended.
    pub(crate) fn finish(&mut self, id: &RequestId) {
        if let Some(State::Running { dear: true }) = self.states.remove(id) {
            self.running_dear -= 1;
        }
    }

    /// One of those who submitted a request does not want it any more. The last one takes it out
    /// of the queue; a running one runs on.
    pub(crate) fn cancel(&mut self, id: &RequestId) {
        if let Some(State::Queued { place, wanted }) = self.states.get_mut(id) {
            *wanted -= 1;
            if *wanted == 0 {
                self.queue.remove(place);
                self.states.remove(id);
            }
        }
    }

    /// Requests that wait, and requests that run.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.queue.len(), self.states.len() - self.queue.len())
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::B256;

    use super::*;

    fn id(n: u8) -> RequestId {
        RequestId(B256::repeat_byte(n))
    }

    fn order(scheduler: &mut Scheduler<()>) -> Vec<RequestId> {
        core::iter::from_fn(|| scheduler.next().map(|(id, ())| id)).collect()
    }

    #[test]
    fn cheap_requests_do_not_wait_behind_dear_ones() {
        let mut scheduler = Scheduler::new(2, 10);
        for n in 0..20 {
            scheduler.submit(id(n), 1_000, Priority::Transaction, ());
        }
        scheduler.submit(id(100), 1, Priority::Transaction, ());
        assert_eq!(order(&mut scheduler), [id(0), id(100)], "one dear request, and the cheap one beside it");
        scheduler.finish(&id(0));
        assert_eq!(order(&mut scheduler), [id(1)]);
    }

    #[test]
    fn priority_goes_before_arrival_and_equal_requests_run_once() {
        let mut scheduler = Scheduler::new(8, 10);
        assert!(scheduler.submit(id(1), 1, Priority::Call, ()));
        assert!(scheduler.submit(id(2), 1, Priority::Transaction, ()));
        assert!(scheduler.submit(id(3), 1, Priority::Transaction, ()));
        assert!(!scheduler.submit(id(1), 1, Priority::Verification, ()));
        assert_eq!(order(&mut scheduler), [id(1), id(2), id(3)]);
        assert!(!scheduler.submit(id(1), 1, Priority::Transaction, ()), "still running");
        scheduler.finish(&id(1));
        assert!(scheduler.submit(id(1), 1, Priority::Transaction, ()));
    }

    #[test]
    fn a_request_leaves_the_queue_when_the_last_one_cancels_it() {
        let mut scheduler = Scheduler::new(2, 10);
        scheduler.submit(id(1), 1, Priority::Transaction, ());
        scheduler.submit(id(1), 1, Priority::Transaction, ());
        scheduler.cancel(&id(1));
        assert_eq!(scheduler.counts(), (1, 0));
        scheduler.cancel(&id(1));
        assert_eq!(scheduler.counts(), (0, 0));
        scheduler.cancel(&id(1));
        assert!(scheduler.next().is_none());
    }
}
