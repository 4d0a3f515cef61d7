//! Which request runs next: a state machine without threads, clocks or locks.
//!
//! Greater [`Urgency`] first, then first come first served. Requests up to a cost are *cheap*; the others are *dear*, and
//! as many of them run at once as there are lanes. One more lane is for cheap requests alone, so that none of them
//! ever waits behind dear ones, however many those are.
//!
//! A run that nobody wants any more is to be ended; whoever asks for it again meanwhile gets a new one.

use core::cmp::{Ordering, Reverse};
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

/// When a request runs among others; greater is sooner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Urgency {
    /// Counts first, but for debtors.
    pub priority: Priority,
    /// Whoever asks let this node compute for nothing before: behind all others, whatever the priority.
    pub in_debt: bool,
    /// Wei that the asker pays for each gas. A request's gas follows its cost: this is the fee per unit of cost.
    pub bid: u128,
    /// Cost of what the same account has under way already. Among equal bids whoever has less goes first, so that a
    /// hundred requests of one account do not hold up the single one of another.
    pub ahead: u64,
}

impl Urgency {
    /// One that only its priority ranks.
    pub fn of(priority: Priority) -> Self {
        Self { priority, in_debt: false, bid: 0, ahead: 0 }
    }

    fn key(&self) -> (bool, Reverse<bool>, Priority, u128, Reverse<u64>) {
        let consensus_waits = self.priority == Priority::Verification;
        (consensus_waits, Reverse(self.in_debt), self.priority, self.bid, Reverse(self.ahead))
    }
}

impl PartialOrd for Urgency {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Urgency {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// A place in a queue; the first in order runs first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    urgency: Reverse<Urgency>,
    sequence: u64,
}

#[derive(Debug)]
enum State<Job> {
    Queued {
        place: Place,
        dear: bool,
        wanted: usize,
    },
    Running {
        dear: bool,
        /// It occupies a lane; one that runs together with another does not.
        lane: bool,
        wanted: usize,
        /// Nobody wants it: its thread was told to end it. Whoever asks again is here.
        ended: Option<Vec<(u64, Urgency, Job)>>,
    },
}

/// What became of a request that somebody took back.
#[derive(Debug, PartialEq, Eq)]
pub enum Withdrawn<Job> {
    /// Others want it still, or it is not here.
    No,
    /// It left the queue.
    Queued(Job),
    /// It runs, and nobody wants it: it is to be ended.
    Running,
}

type Queue<Job> = BTreeMap<Place, (RequestId, Job)>;

/// The queue and what runs.
#[derive(Debug)]
pub struct Scheduler<Job> {
    lanes: usize,
    dear_ops: u64,
    sequence: u64,
    cheap: Queue<Job>,
    dear: Queue<Job>,
    states: HashMap<RequestId, State<Job>>,
    running_dear: usize,
    running: usize,
}

impl<Job> Scheduler<Job> {
    /// A scheduler that runs at most `lanes` requests above `dear_ops` at once, and at most one more of any kind.
    pub fn new(lanes: usize, dear_ops: u64) -> Self {
        Self {
            lanes: lanes.max(1),
            dear_ops,
            sequence: 0,
            cheap: BTreeMap::new(),
            dear: BTreeMap::new(),
            states: HashMap::new(),
            running_dear: 0,
            running: 0,
        }
    }

    /// Runs that may be under way at once.
    pub fn slots(&self) -> usize {
        self.lanes + 1
    }

    fn queue(&mut self, dear: bool) -> &mut Queue<Job> {
        if dear { &mut self.dear } else { &mut self.cheap }
    }

    /// Queues a request, or joins the one that is queued or running already. A greater urgency
    /// moves a queued one forward. Each is to be cancelled when it is not wanted any more, unless it was answered.
    pub fn submit(&mut self, id: RequestId, ops: u64, urgency: Urgency, job: Job) {
        let place = Place { urgency: Reverse(urgency), sequence: self.sequence };
        match self.states.get_mut(&id) {
            Some(State::Running { ended: Some(again), .. }) => again.push((ops, urgency, job)),
            Some(State::Running { wanted, .. }) => *wanted += 1,
            Some(State::Queued { place: old, dear, wanted }) => {
                *wanted += 1;
                if urgency > old.urgency.0 {
                    let queue = if *dear { &mut self.dear } else { &mut self.cheap };
                    if let Some(entry) = queue.remove(old) {
                        *old = place;
                        self.sequence += 1;
                        queue.insert(place, entry);
                    }
                }
            }
            None => {
                self.sequence += 1;
                let dear = ops > self.dear_ops;
                self.states.insert(id, State::Queued { place, dear, wanted: 1 });
                self.queue(dear).insert(place, (id, job));
            }
        }
    }

    /// The request that a free lane runs now.
    pub fn start_next(&mut self) -> Option<(RequestId, Job)> {
        if self.running >= self.slots() {
            return None;
        }
        let first = |queue: &Queue<Job>| queue.first_key_value().map(|(place, _)| *place);
        let dear = first(&self.dear).filter(|_| self.running_dear < self.lanes);
        // The last lane is for cheap ones: whoever is first in the other queue has lanes of its own.
        let dear = match (first(&self.cheap), dear) {
            (None, None) => return None,
            (Some(cheap), Some(dear)) => dear < cheap,
            (_, dear) => dear.is_some(),
        };
        let (_, (id, job)) = self.queue(dear).pop_first()?;
        self.running += 1;
        self.running_dear += usize::from(dear);
        self.begin(id, dear, true);
        Some((id, job))
    }

    fn begin(&mut self, id: RequestId, dear: bool, lane: bool) {
        let wanted = match self.states.get(&id) {
            Some(State::Queued { wanted, .. }) => *wanted,
            _ => 1,
        };
        self.states.insert(id, State::Running { dear, lane, wanted, ended: None });
    }

    /// Cheap requests that wait and may run together with one that starts, without a lane of their own: at most `most`,
    /// in their order, as long as `fits` says so. They are looked for among those that would run soon.
    pub fn start_together(&mut self, most: usize, mut fits: impl FnMut(&Job) -> bool) -> Vec<(RequestId, Job)> {
        let near = most.saturating_mul(4);
        let places: Vec<Place> = self
            .cheap
            .iter()
            .take(near)
            .filter(|(_, (_, job))| fits(job))
            .map(|(place, _)| *place)
            .take(most)
            .collect();
        let mut jobs = Vec::with_capacity(places.len());
        for place in places {
            if let Some((id, job)) = self.cheap.remove(&place) {
                self.begin(id, false, false);
                jobs.push((id, job));
            }
        }
        jobs
    }

    /// A run has ended, with an answer or because nobody wanted it any more. Whoever asked again for one that was to be
    /// ended is queued. Answers whether anybody waited for it.
    pub fn finish(&mut self, id: &RequestId) -> bool {
        let Some(State::Running { dear, lane, .. }) = self.states.get(id) else { return false };
        if *lane {
            self.running -= 1;
            self.running_dear -= usize::from(*dear);
        }
        let Some(State::Running { ended: Some(again), .. }) = self.states.remove(id) else { return true };
        for (ops, urgency, job) in again {
            self.submit(*id, ops, urgency, job);
        }
        false
    }

    /// Whether a request is queued or runs.
    pub fn has(&self, id: &RequestId) -> bool {
        self.states.contains_key(id)
    }

    /// One of those who submitted a request does not want it any more. The last one takes it out of the queue, or has it
    /// ended.
    pub fn cancel(&mut self, id: &RequestId) -> Withdrawn<Job> {
        match self.states.get_mut(id) {
            Some(State::Queued { wanted, .. }) => {
                *wanted -= 1;
                if *wanted > 0 {
                    return Withdrawn::No;
                }
                self.withdraw(id).map_or(Withdrawn::No, Withdrawn::Queued)
            }
            Some(State::Running { ended: Some(again), .. }) => {
                again.pop();
                Withdrawn::No
            }
            Some(State::Running { wanted, ended, .. }) => {
                *wanted = wanted.saturating_sub(1);
                if *wanted > 0 {
                    return Withdrawn::No;
                }
                *ended = Some(vec![]);
                Withdrawn::Running
            }
            None => Withdrawn::No,
        }
    }

    /// Whether nothing waits and at most one runs: the machine has nothing else to do.
    pub fn is_idle(&self) -> bool {
        self.running <= 1 && self.cheap.is_empty() && self.dear.is_empty()
    }

    /// A request was answered elsewhere: it does not have to run, and one that runs is to be ended. Answers whether anybody
    /// waited for it.
    pub fn answered(&mut self, id: &RequestId) -> bool {
        if let Some(State::Running { ended, .. }) = self.states.get_mut(id) {
            return ended.replace(vec![]).is_none_or(|again| !again.is_empty());
        }
        self.withdraw(id).is_some()
    }

    /// Takes a request out of the queue.
    fn withdraw(&mut self, id: &RequestId) -> Option<Job> {
        let Some(State::Queued { place, dear, .. }) = self.states.get(id) else { return None };
        let (place, dear) = (*place, *dear);
        self.states.remove(id);
        self.queue(dear).remove(&place).map(|(_, job)| job)
    }

    /// Requests that wait, and requests that run.
    pub fn counts(&self) -> (usize, usize) {
        (self.cheap.len() + self.dear.len(), self.running)
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::B256;

    use super::*;

    const TRANSACTION: Urgency = Urgency { priority: Priority::Transaction, in_debt: false, bid: 0, ahead: 0 };

    fn id(n: u8) -> RequestId {
        RequestId(B256::repeat_byte(n))
    }

    fn order<Job>(scheduler: &mut Scheduler<Job>) -> Vec<RequestId> {
        core::iter::from_fn(|| scheduler.start_next().map(|(id, _)| id)).collect()
    }

    #[test]
    fn dear_requests_have_all_lanes_and_cheap_ones_never_wait_behind_them() {
        let mut scheduler = Scheduler::new(2, 10);
        for n in 0..20 {
            scheduler.submit(id(n), 1_000, Urgency { bid: 5, ..TRANSACTION }, ());
        }
        assert_eq!(order(&mut scheduler), [id(0), id(1)]);
        scheduler.submit(id(100), 1, TRANSACTION, ());
        scheduler.submit(id(101), 1, TRANSACTION, ());
        assert_eq!(order(&mut scheduler), [id(100)], "beside the dear ones, though it bids less");
        scheduler.finish(&id(0));
        assert_eq!(order(&mut scheduler), [id(2)], "the lane is for whoever bids more");
        scheduler.finish(&id(100));
        assert_eq!(order(&mut scheduler), [id(101)]);
    }

    #[test]
    fn priority_goes_before_arrival_and_equal_requests_run_once() {
        let mut scheduler = Scheduler::new(8, 10);
        scheduler.submit(id(1), 1, Urgency::of(Priority::Call), ());
        scheduler.submit(id(2), 1, TRANSACTION, ());
        scheduler.submit(id(3), 1, TRANSACTION, ());
        scheduler.submit(id(1), 1, Urgency::of(Priority::Verification), ());
        assert_eq!(order(&mut scheduler), [id(1), id(2), id(3)]);
        scheduler.submit(id(1), 1, TRANSACTION, ());
        assert_eq!(order(&mut scheduler), [], "still running");
        scheduler.finish(&id(1));
        scheduler.submit(id(1), 1, TRANSACTION, ());
        assert_eq!(order(&mut scheduler), [id(1)]);
    }

    #[test]
    fn a_run_that_the_last_one_cancels_is_ended_and_asked_for_again_it_runs_again() {
        let mut scheduler = Scheduler::new(1, 10);
        scheduler.submit(id(1), 100, TRANSACTION, ());
        assert_eq!(order(&mut scheduler), [id(1)]);
        scheduler.submit(id(1), 100, TRANSACTION, ());
        assert_eq!(scheduler.cancel(&id(1)), Withdrawn::No, "the other one wants it");
        assert_eq!(scheduler.cancel(&id(1)), Withdrawn::Running);
        scheduler.submit(id(1), 100, TRANSACTION, ());
        scheduler.submit(id(1), 100, TRANSACTION, ());
        assert_eq!(scheduler.cancel(&id(1)), Withdrawn::No);
        assert!(scheduler.start_next().is_none(), "its lane is not free yet");
        scheduler.finish(&id(1));
        assert_eq!(order(&mut scheduler), [id(1)]);
        assert_eq!(scheduler.cancel(&id(1)), Withdrawn::Running, "one of the two was taken back");
        scheduler.finish(&id(1));
        assert!(scheduler.states.is_empty() && scheduler.is_idle());
    }

    #[test]
    fn what_is_answered_elsewhere_is_told_once_and_its_run_is_to_be_ended() {
        let mut scheduler = Scheduler::new(1, 10);
        scheduler.submit(id(1), 100, TRANSACTION, ());
        assert!(scheduler.answered(&id(1)) && !scheduler.has(&id(1)), "it leaves the queue");
        scheduler.submit(id(1), 100, TRANSACTION, ());
        assert_eq!(order(&mut scheduler), [id(1)]);
        assert!(scheduler.answered(&id(1)), "somebody waited");
        assert!(!scheduler.answered(&id(1)) && !scheduler.finish(&id(1)), "nobody does any more");
        scheduler.submit(id(1), 100, TRANSACTION, ());
        assert_eq!(order(&mut scheduler), [id(1)]);
        assert!(scheduler.answered(&id(1)));
        scheduler.submit(id(1), 100, TRANSACTION, ());
        assert!(
            !scheduler.finish(&id(1)) && scheduler.has(&id(1)),
            "whoever came behind the answer has a run of its own"
        );
        assert_eq!(order(&mut scheduler), [id(1)]);
        assert!(scheduler.finish(&id(1)) && scheduler.is_idle());
    }

    #[test]
    fn what_runs_together_takes_one_lane() {
        let mut scheduler = Scheduler::new(1, 10);
        for n in 0..10 {
            scheduler.submit(id(n), 1, TRANSACTION, n);
        }
        let (first, _) = scheduler.start_next().unwrap();
        assert_eq!(first, id(0));
        let together = scheduler.start_together(3, |n| n % 2 == 0);
        assert_eq!(together.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [2, 4, 6]);
        assert_eq!(scheduler.start_next().unwrap().1, 1, "the second lane");
        assert!(scheduler.start_next().is_none());
        for n in [0, 2, 4, 6] {
            scheduler.finish(&id(n));
        }
        assert_eq!(scheduler.counts(), (5, 1));
        assert_eq!(scheduler.start_next().unwrap().1, 3);
    }

    #[test]
    fn who_pays_more_for_a_gas_goes_first_then_who_has_less_under_way_and_debtors_last() {
        let mut scheduler = Scheduler::new(8, 10);
        scheduler.submit(id(1), 1, Urgency { bid: 1_000, in_debt: true, ..TRANSACTION }, ());
        scheduler.submit(id(2), 1, Urgency { bid: 1, ahead: 500, ..TRANSACTION }, ());
        scheduler.submit(id(3), 1, Urgency { bid: 1, ahead: 0, ..TRANSACTION }, ());
        scheduler.submit(id(4), 1, Urgency { bid: 7, ahead: 900, ..TRANSACTION }, ());
        scheduler.submit(id(5), 1, Urgency::of(Priority::Deferred), ());
        scheduler.submit(id(6), 1, Urgency { in_debt: true, ..Urgency::of(Priority::Deferred) }, ());
        assert_eq!(order(&mut scheduler), [id(5), id(4), id(3), id(2), id(6), id(1)]);
    }

    #[test]
    fn a_request_leaves_the_queue_when_the_last_one_cancels_it() {
        let mut scheduler = Scheduler::new(2, 10);
        scheduler.submit(id(1), 1, TRANSACTION, ());
        scheduler.submit(id(1), 1, TRANSACTION, ());
        assert_eq!(scheduler.cancel(&id(1)), Withdrawn::No);
        assert_eq!(scheduler.counts(), (1, 0));
        assert_eq!(scheduler.cancel(&id(1)), Withdrawn::Queued(()));
        assert_eq!(scheduler.counts(), (0, 0));
        assert_eq!(scheduler.cancel(&id(1)), Withdrawn::No);
        assert!(scheduler.start_next().is_none());
        // Answered elsewhere: nobody has to run it.
        scheduler.submit(id(2), 1, TRANSACTION, ());
        assert!(scheduler.answered(&id(2)) && !scheduler.answered(&id(2)));
        assert!(scheduler.start_next().is_none());
    }
}
