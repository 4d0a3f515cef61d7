//! A clock, arrivals, simulation threads and an inference network, all simulated: hours of a chain in seconds.

use core::cmp::Reverse;
use std::{
    collections::{BinaryHeap, HashMap, HashSet},
    time::Duration,
};

use alloy_primitives::B256;
use penstock_inference::{RequestId, Scheduler, Withdrawn};
use penstock_pipe::{Event, PoolConfig, PoolTx, Rejected};

use super::{Wish, World};

/// Cost that a simulated core works off in a second.
pub const OPS_PER_SECOND: u64 = 16_000_000_000;

/// A generator of numbers that a seed decides.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit.max(1)
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Something that happens at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Simulated(u64),
    Inferred(RequestId),
    Block,
}

pub struct Day {
    pub world: World,
    pub scheduler: Scheduler<u64>,
    /// Time that the simulated cores worked.
    pub worked: Duration,
    /// When each transaction was submitted, and when it was included.
    pub sent: HashMap<B256, Duration>,
    pub included: HashMap<B256, Duration>,
    pub blocks: usize,
    block_time: Duration,
    block_size: usize,
    sequence: u64,
    agenda: BinaryHeap<Reverse<(Duration, u64, What)>>,
    known: HashSet<RequestId>,
    /// Runs that nobody wants any more: they end without an answer.
    ended: HashSet<RequestId>,
    /// Simulations that are on the agenda, or were.
    tickets: HashSet<u64>,
    dice: Dice,
}

impl Day {
    pub fn new(config: PoolConfig, seed: u64, cores: usize, block_time: Duration, block_size: usize) -> Self {
        let mut day = Self {
            world: World::new(config),
            scheduler: Scheduler::new(cores, 100_000_000),
            worked: Duration::ZERO,
            sent: HashMap::new(),
            included: HashMap::new(),
            blocks: 0,
            block_time,
            block_size,
            sequence: 0,
            agenda: BinaryHeap::new(),
            known: HashSet::new(),
            ended: HashSet::new(),
            tickets: HashSet::new(),
            dice: Dice::new(seed),
        };
        day.at(block_time, What::Block);
        day
    }

    fn at(&mut self, time: Duration, what: What) {
        self.sequence += 1;
        self.agenda.push(Reverse((time, self.sequence, what)));
    }

    pub fn submit(&mut self, tx: PoolTx) -> Result<B256, Rejected> {
        let hash = self.world.submit(tx)?;
        self.sent.insert(hash, self.world.now);
        self.follow_up();
        Ok(hash)
    }

    /// What the pool wants is done later.
    fn follow_up(&mut self) {
        let now = self.world.now;
        let tickets: Vec<u64> = self.world.jobs.iter().map(|(job, ..)| job.ticket).collect();
        for ticket in tickets {
            if self.tickets.insert(ticket) {
                let time = Duration::from_micros(100 + self.dice.below(4_000));
                self.at(now + time, What::Simulated(ticket));
            }
        }
        for wish in core::mem::take(&mut self.world.wishes) {
            match wish {
                Wish::Ask { id, .. } if self.known.contains(&id) => self.at(now, What::Inferred(id)),
                Wish::Ask { id, ops, urgency, .. } => self.scheduler.submit(id, ops, urgency, ops),
                Wish::Cancel { id, hash, sender } => match self.scheduler.cancel(&id) {
                    Withdrawn::Queued(ops) => self.world.step(Event::NotRun { id, ops, hash, sender }),
                    Withdrawn::Running => drop(self.ended.insert(id)),
                    Withdrawn::No => {}
                },
            }
        }
        while let Some((id, ops)) = self.scheduler.start_next() {
            let time = Duration::from_secs_f64(ops as f64 / OPS_PER_SECOND as f64);
            self.worked += time;
            self.at(now + time, What::Inferred(id));
        }
    }

    /// Lets time pass until `until`.
    pub fn run_until(&mut self, until: Duration) {
        while let Some(Reverse((time, _, _))) = self.agenda.peek()
            && *time <= until
            && let Some(Reverse((time, _, what))) = self.agenda.pop()
        {
            self.world.now = time;
            match what {
                What::Simulated(ticket) => {
                    if let Some(index) = self.world.jobs.iter().position(|(job, ..)| job.ticket == ticket) {
                        self.world.simulate(index);
                    }
                }
                What::Inferred(id) => {
                    self.scheduler.finish(&id);
                    // Here a run that is ended takes its time nevertheless.
                    if !self.ended.remove(&id) {
                        self.known.insert(id);
                        self.world.answer(id);
                    }
                }
                What::Block => {
                    self.world.block(self.block_size);
                    self.blocks += 1;
                    let included = self.world.just_included.drain(..).map(|hash| (hash, time));
                    self.included.extend(included);
                    self.at(time + self.block_time, What::Block);
                }
            }
            self.follow_up();
        }
        self.world.now = until;
    }

    /// Times from submission to block of those transactions that were included, sorted.
    pub fn latencies<'a>(&self, hashes: impl IntoIterator<Item = &'a B256>) -> Vec<Duration> {
        let latency = |hash: &B256| Some(self.included.get(hash)?.saturating_sub(*self.sent.get(hash)?));
        let mut latencies: Vec<Duration> = hashes.into_iter().filter_map(latency).collect();
        latencies.sort_unstable();
        latencies
    }
}
