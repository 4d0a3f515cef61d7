//! Threads that stay, and help with the parts of a kernel's work.
//!
//! Whoever has work begins with its parts at once; helpers that are idle join in, and what none of them has begun is done by
//! whoever asked. So a machine that is short of threads is slower and nothing else, and who does a part is of no consequence:
//! each part writes to places of its own.
//!
//! A helper looks for the next work for a moment before it sleeps, since nodes follow each other within microseconds. (A
//! thread started for each node takes 35 to 60 µs to begin; rayon's pool 10 to 90 µs for a caller that is not one of its
//! threads, since it gives the whole work away and sleeps meanwhile.)

use core::{
    any::Any,
    hint,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::OnceLock,
    thread::{self, Thread},
};

use parking_lot::Mutex;

use super::{places::Places, spare};

/// Looks at a place before a thread sleeps: 50 to 150 µs, the pauses of CPUs being what they are.
const LOOKS: u32 = 2_000;

/// How long a helper that sleeps keeps its memory.
const KEEPING: Duration = Duration::from_secs(1);

/// A helper looks for work.
const AWAKE: usize = 0;
/// It sleeps, and must be woken.
const ASLEEP: usize = 1;
/// It works. Everything else is the address of a [`Work`] that it is to begin with.
const BUSY: usize = 2;

/// Parts of a work for each thread: what one is late with, another one begins.
const PARTS: usize = 4;

/// Into how many parts two dimensions are divided, of so many units: the first, unless it has too few.
pub(super) fn divided(threads: usize, first: usize, second: usize) -> (usize, usize) {
    let parts = first.min(threads * PARTS).max(1);
    (parts, threads.div_ceil(parts).clamp(1, second.max(1)))
}

/// The units of part `i` of so many: from the first, up to the second.
pub(super) fn part(i: usize, parts: usize, units: usize) -> (usize, usize) {
    (units * i / parts, units * (i + 1) / parts)
}

/// Calls `work` with pieces of an output, of whole units of `unit` places each, and with the number of each one's first
/// place: here, and on up to `threads - 1` other threads.
pub(super) fn pieces<T: Send>(threads: usize, out: &mut [T], unit: usize, work: &(dyn Fn(usize, &mut [T]) + Sync)) {
    if threads <= 1 || unit == 0 {
        return work(0, out);
    }
    let each = out.len().div_ceil(unit).div_ceil(threads * PARTS).max(1) * unit;
    let (count, out) = (out.len(), Places::new(out));
    share(threads, count.div_ceil(each), &|i| {
        let first = i * each;
        // SAFETY: nobody else has these, since they are cut here.
        work(first, unsafe { out.some(first..count.min(first + each)) });
    });
}

/// Calls `work` with each part: here, and on up to `threads - 1` other threads.
pub(super) fn spread<T: Send>(threads: usize, parts: impl Iterator<Item = T>, work: impl Fn(T) + Sync) {
    if threads <= 1 {
        return parts.for_each(work);
    }
    let parts: Vec<Mutex<Option<T>>> = parts.map(|part| Mutex::new(Some(part))).collect();
    share(threads, parts.len(), &|i| {
        let part = parts[i].lock().take();
        part.map(&work);
    });
}

/// Calls `work` with each number below `count`: here, and on up to `threads - 1` other threads.
pub(super) fn share(threads: usize, count: usize, work: &(dyn Fn(usize) + Sync)) {
    let most = threads.min(count).saturating_sub(1);
    if most == 0 {
        return (0..count).for_each(work);
    }
    // SAFETY: this function returns, or unwinds, when no helper has the work any more, and none gets it afterwards.
    let parts = unsafe { core::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(work) };
    let work = Work {
        parts,
        count,
        next: AtomicUsize::new(0),
        helping: AtomicUsize::new(0),
        panic: Mutex::new(None),
        owner: thread::current(),
    };
    let asked: Vec<&Helper> = helpers().iter().copied().filter(|helper| helper.ask(&work)).take(most).collect();
    work.take_part();
    asked.into_iter().for_each(|helper| helper.excuse(&work));
    work.wait();
    if let Some(panic) = work.panic.into_inner() {
        resume_unwind(panic);
    }
}

/// Parts that several threads do.
struct Work {
    parts: &'static (dyn Fn(usize) + Sync),
    count: usize,
    /// The first part that nobody has begun.
    next: AtomicUsize,
    /// Helpers that were asked and have not been excused, or are not through.
    helping: AtomicUsize,
    /// Of one of the threads.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    owner: Thread,
}

impl Work {
    /// Does parts until all are begun.
    fn take_part(&self) {
        let parts = || {
            loop {
                let part = self.next.fetch_add(1, Ordering::Relaxed);
                if part >= self.count {
                    return;
                }
                (self.parts)(part);
            }
        };
        // Whoever asked must wait for the others whatever happens; then it panics with what is kept here.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(parts)) {
            self.next.store(self.count, Ordering::Relaxed);
            *self.panic.lock() = Some(panic);
        }
    }

    /// Until no helper has it.
    fn wait(&self) {
        let mut looks = 0;
        while self.helping.load(Ordering::Acquire) > 0 {
            if looks < LOOKS {
                looks += 1;
                hint::spin_loop();
            } else {
                thread::park();
            }
        }
    }
}

struct Helper {
    state: AtomicUsize,
    /// Its thread.
    thread: OnceLock<Thread>,
}

impl Helper {
    /// Whether it is going to take part, unless it is excused.
    fn ask(&self, work: &Work) -> bool {
        let address = core::ptr::from_ref(work).expose_provenance();
        // Before it can be through.
        work.helping.fetch_add(1, Ordering::Relaxed);
        for idle in [AWAKE, ASLEEP] {
            if self.state.compare_exchange(idle, address, Ordering::Release, Ordering::Relaxed).is_ok() {
                if idle == ASLEEP
                    && let Some(thread) = self.thread.get()
                {
                    thread.unpark();
                }
                return true;
            }
        }
        work.helping.fetch_sub(1, Ordering::Relaxed);
        false
    }

    /// Takes back what it has not begun with.
    fn excuse(&self, work: &Work) {
        let address = core::ptr::from_ref(work).expose_provenance();
        if self.state.compare_exchange(address, AWAKE, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            work.helping.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// What its thread does.
    fn run(&self) {
        let mut looks = 0;
        loop {
            match self.state.load(Ordering::Relaxed) {
                AWAKE if looks < LOOKS => {
                    looks += 1;
                    hint::spin_loop();
                }
                AWAKE => {
                    let _ = self.state.compare_exchange(AWAKE, ASLEEP, Ordering::Relaxed, Ordering::Relaxed);
                }
                ASLEEP => {
                    // What it keeps for the next work would be kept for ever by one that nobody needs any more.
                    thread::park_timeout(KEEPING);
                    if self.state.load(Ordering::Relaxed) == ASLEEP {
                        spare::clear();
                        thread::park();
                    }
                    looks = 0;
                }
                address => {
                    // Another thread may have taken it back.
                    if self.state.compare_exchange(address, BUSY, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                        self.help(address);
                    }
                    looks = 0;
                }
            }
        }
    }

    fn help(&self, address: usize) {
        // SAFETY: whoever asked keeps the work where it is until `helping` says that this helper is through.
        let work = unsafe { &*core::ptr::with_exposed_provenance::<Work>(address) };
        work.take_part();
        let owner = work.owner.clone();
        // Idle first: the owner may have more to do at once. Then the work is not touched any more.
        self.state.store(AWAKE, Ordering::Relaxed);
        work.helping.fetch_sub(1, Ordering::Release);
        owner.unpark();
    }
}

/// One for each core but that of whoever asks, started when the first work is spread. Fewer, if the system gives no more.
fn helpers() -> &'static [&'static Helper] {
    static HELPERS: OnceLock<Vec<&'static Helper>> = OnceLock::new();
    HELPERS.get_or_init(|| {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let start = |i: usize| {
            // As long as the process, as their threads.
            let helper: &'static Helper =
                Box::leak(Box::new(Helper { state: AtomicUsize::new(AWAKE), thread: OnceLock::new() }));
            let thread = thread::Builder::new().name(format!("helper-{i}")).spawn(|| helper.run()).ok()?;
            helper.thread.get_or_init(|| thread.thread().clone());
            Some(helper)
        };
        (1..cores).map_while(start).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::AtomicU64;

    #[test]
    fn every_part_is_done_once_however_many_threads_there_are() {
        for threads in [0, 1, 2, 3, 64] {
            for count in [0, 1, 2, 3, 100] {
                let mut done = vec![0u32; count];
                spread(threads, done.iter_mut().enumerate(), |(i, done)| *done += i as u32 + 1);
                assert!(done.iter().enumerate().all(|(i, done)| *done == i as u32 + 1), "{threads} threads, {count}");
            }
        }
    }

    #[test]
    fn many_callers_share_the_helpers_also_from_within_a_part() {
        let sum = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..500 {
                        share(3, 5, &|i| {
                            share(2, 3, &|j| {
                                sum.fetch_add((i * 3 + j) as u64, Ordering::Relaxed);
                            });
                            if round % 100 == 0 {
                                // Now and then helpers fall asleep, and owners.
                                thread::sleep(core::time::Duration::from_millis(1));
                            }
                        });
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 4 * 500 * (0..15).sum::<u64>());
    }

    #[test]
    fn a_panic_reaches_whoever_asked_and_the_helpers_go_on() {
        for _ in 0..50 {
            for bad in 0..4 {
                let part = |i: usize| assert_ne!(i, bad, "part {i}");
                let caught = catch_unwind(|| share(4, 4, &part));
                let text = *caught.expect_err("a part panics").downcast::<String>().expect("a text");
                assert!(text.contains(&format!("part {bad}")), "{text}");
            }
            spread(4, 0..4, |_| {});
        }
    }
}
