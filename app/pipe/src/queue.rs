//! Simulations that wait for a thread: the transaction that pays most for a gas first.
//!
//! A sender has at most one here, because its next one builds on it. So the order is fair between senders who pay the
//! same, and nobody can hold up others with many transactions, however long each of them runs.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

use parking_lot::{Condvar, Mutex};

use crate::{Haste, SimulateJob};

#[derive(Debug, Default)]
pub(crate) struct Jobs {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Debug, Default)]
struct State {
    heap: BinaryHeap<Job>,
    closed: bool,
}

#[derive(Debug)]
struct Job(SimulateJob);

impl Job {
    /// Tickets grow with time: the older goes first.
    fn key(&self) -> (Reverse<Haste>, u128, Reverse<u64>) {
        (Reverse(self.0.haste), self.0.bid, Reverse(self.0.ticket))
    }
}

impl PartialEq for Job {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Job {}

impl PartialOrd for Job {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Job {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl Jobs {
    pub(crate) fn push(&self, job: SimulateJob) {
        self.state.lock().heap.push(Job(job));
        // All: the one that wakes may not be one that takes it.
        self.work.notify_all();
    }

    /// The next one of this haste or more; `None` when the queue is closed.
    pub(crate) fn pop(&self, least: Haste) -> Option<SimulateJob> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            if state.heap.peek().is_some_and(|job| job.0.haste <= least)
                && let Some(Job(job)) = state.heap.pop()
            {
                return Some(job);
            }
            self.work.wait(&mut state);
        }
    }

    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.work.notify_all();
    }
}
