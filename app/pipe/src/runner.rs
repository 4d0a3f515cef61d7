//! Performs the actions of the pool: threads that simulate, and the inference network.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use alloy_primitives::{Address, B256};
use metrics::{counter, histogram};
use parking_lot::{Condvar, Mutex, MutexGuard};
use penstock_evm::Call;
use penstock_inference::{ContentHash, InferenceNetwork, RequestId, network::Answer};
use tracing::{debug, info, trace};

use crate::{
    Account, Action, Allowance, Candidate, Candidates, Event, Haste, NewHead, Pool, PoolAges, PoolConfig, PoolTx,
    Rejected, SimulateJob, Simulation, Stage, StageChange, queue::Jobs,
};

/// Runs a transaction on the newest committed state.
pub trait Simulator: Send + Sync + 'static {
    /// Simulates with the results of the job, of the network, and placeholders.
    fn simulate(&self, job: &SimulateJob, network: &InferenceNetwork) -> Simulation;
}

/// How often time alone is an event.
const TICK: Duration = Duration::from_secs(1);

/// What subscribers hear of.
#[derive(Debug, Clone)]
pub enum Happening {
    /// A transaction went to another stage.
    Stage(StageChange),
    /// A transaction asked for a result.
    Asked {
        /// The request.
        id: RequestId,
        /// Its model.
        model: ContentHash,
        /// Its cost.
        ops: u64,
        /// The transaction.
        hash: B256,
        /// The simulation that found it, from 1; 0 when it was answered there and then.
        wave: u32,
    },
    /// A result is there.
    Answered {
        /// The request.
        id: RequestId,
        /// How long the run took.
        took: Duration,
        /// Why the inference failed, if it did.
        failure: Option<String>,
    },
}

type Listeners = Mutex<Vec<mpsc::Sender<Happening>>>;

/// The pool in motion. Dropping the last handle ends its threads.
#[derive(Debug)]
pub struct PoolHandle {
    shared: Arc<Shared>,
}

struct Shared {
    pool: Mutex<Pool>,
    config: PoolConfig,
    /// Signalled when a transaction became ready.
    ready: Condvar,
    /// Signalled when peers have to hear of a transaction.
    outgoing: Condvar,
    network: Arc<InferenceNetwork>,
    jobs: Arc<Jobs>,
    /// Actions in the order of the events that they follow from: a cancellation must not overtake its request.
    outbox: Mutex<VecDeque<Action>>,
    /// Held by whoever performs them.
    performing: Mutex<()>,
    listeners: Listeners,
    begin: Instant,
}

impl core::fmt::Debug for Shared {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PoolHandle").finish_non_exhaustive()
    }
}

impl PoolHandle {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn start(
        pool: Pool,
        config: PoolConfig,
        network: Arc<InferenceNetwork>,
        simulator: Arc<dyn Simulator>,
    ) -> std::io::Result<Self> {
        let jobs = Arc::new(Jobs::default());
        let answers = network.listen();
        let shared = Arc::new(Shared {
            pool: Mutex::new(pool),
            config,
            ready: Condvar::new(),
            outgoing: Condvar::new(),
            network,
            jobs: jobs.clone(),
            outbox: Mutex::default(),
            performing: Mutex::new(()),
            listeners: Listeners::default(),
            begin: Instant::now(),
        });
        let handle = Self { shared: shared.clone() };
        for lane in 0..config.simulation_threads.max(1) {
            // Weak: the threads must not keep the pool alive.
            let (jobs, weak, simulator) = (jobs.clone(), Arc::downgrade(&shared), simulator.clone());
            thread::Builder::new().name(format!("simulation-{lane}")).spawn(move || {
                // The first thread is for those who get on by it; the others share the cores with inference.
                let (least, nice) = match lane {
                    0 if config.simulation_threads > 1 => (Haste::Refresh, 5),
                    0 => (Haste::Background, 5),
                    _ => (Haste::Background, 10),
                };
                lower_priority(nice);
                while let Some(job) = jobs.pop(least) {
                    let Some(shared) = weak.upgrade() else { return };
                    let hash = job.tx.hash();
                    if !shared.pool.lock().wants(&hash, job.ticket) {
                        continue; // it left the pool, or has to run on something else
                    }
                    // A bug must cost one transaction, not the thread.
                    let simulate = AssertUnwindSafe(|| simulator.simulate(&job, &shared.network));
                    let outcome =
                        catch_unwind(simulate).unwrap_or_else(|_| Simulation::Invalid("internal error".into()));
                    trace!(%hash, "simulated");
                    if let Simulation::Ran { took, calls, used, .. } = &outcome {
                        histogram!("penstock_simulation_seconds").record(*took);
                        shared.tell_of_trifles(&job, calls, used);
                    }
                    shared.step(Event::Simulated { hash, ticket: job.ticket, outcome });
                }
            })?;
        }
        let weak = Arc::downgrade(&shared);
        thread::Builder::new().name("pool-answers".into()).spawn(move || {
            loop {
                let next = answers.recv_timeout(TICK);
                let Some(shared) = weak.upgrade() else { return };
                let (id, answer) = match next {
                    Ok(next) => next,
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        shared.step(Event::Tick);
                        continue;
                    }
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                };
                shared.tell(|| answered(id, &answer));
                shared.step(Event::Answered { id, answer });
            }
        })?;
        Ok(handle)
    }

    /// The configuration.
    pub fn config(&self) -> &PoolConfig {
        &self.shared.config
    }

    /// Admits a transaction. `account` reads the sender's account at the head: while the pool is locked, so
    /// that it is never older than what the pool has seen.
    ///
    /// # Errors
    /// [`Rejected`], or the error of `account`.
    pub fn submit<E: From<Rejected>>(&self, tx: PoolTx, account: impl FnOnce() -> Result<Account, E>) -> Result<(), E> {
        let mut pool = self.shared.pool.lock();
        let actions = pool.submit(self.shared.begin.elapsed(), tx, account()?)?;
        self.shared.perform(pool, actions);
        Ok(())
    }

    /// A block was committed; `account` reads the accounts at the new head.
    pub fn new_head(&self, head: NewHead, account: impl Fn(Address) -> Account) {
        let begin = Instant::now();
        let mut pool = self.shared.pool.lock();
        // All other accounts are as they were.
        for address in head.changes.state.keys().filter(|address| pool.has_sender(address)).copied().collect::<Vec<_>>()
        {
            pool.set_account(address, account(address));
        }
        let actions = pool.step(self.shared.begin.elapsed(), Event::NewHead(head));
        histogram!("penstock_pool_new_head_seconds").record(begin.elapsed());
        self.shared.perform(pool, actions);
    }

    /// What this node proposes, and what its proposal had to leave out.
    pub fn step(&self, event: Event) {
        self.shared.step(event);
    }

    /// See [`Pool::candidates`].
    pub fn candidates(&self) -> Candidates {
        self.shared.pool.lock().candidates()
    }

    /// See [`Pool::next_candidates`].
    pub fn next_candidates(&self, candidates: &mut Candidates, count: usize) -> Vec<Candidate> {
        self.shared.pool.lock().next_candidates(candidates, count)
    }

    /// Looks at the pool.
    pub fn read<R>(&self, look: impl FnOnce(&Pool) -> R) -> R {
        look(&self.shared.pool.lock())
    }

    /// See [`Pool::allowance`].
    pub fn allowance(&self, address: &Address) -> Allowance {
        self.shared.pool.lock().allowance(self.shared.begin.elapsed(), address)
    }

    /// See [`Pool::ages`].
    pub fn ages(&self) -> PoolAges {
        self.shared.pool.lock().ages(self.shared.begin.elapsed())
    }

    /// Waits until a transaction is ready, or until `deadline`. Answers whether one is.
    pub fn wait_ready(&self, deadline: Instant) -> bool {
        let mut pool = self.shared.pool.lock();
        while !pool.has_ready() {
            if self.shared.ready.wait_until(&mut pool, deadline).timed_out() {
                return pool.has_ready();
            }
        }
        true
    }

    /// See [`Pool::take_outgoing`].
    pub fn take_outgoing(&self, max_bytes: u64, max_gas: u64) -> Vec<Arc<PoolTx>> {
        self.shared.pool.lock().take_outgoing(max_bytes, max_gas)
    }

    /// The same, waiting until there is something or until `deadline`.
    pub fn wait_outgoing(&self, deadline: Instant, max_bytes: u64) -> Vec<Arc<PoolTx>> {
        let mut pool = self.shared.pool.lock();
        while !pool.has_outgoing() {
            if self.shared.outgoing.wait_until(&mut pool, deadline).timed_out() {
                break;
            }
        }
        pool.take_outgoing(max_bytes, 0)
    }

    /// What happens from now on. A listener that is not read fills memory.
    pub fn listen(&self) -> mpsc::Receiver<Happening> {
        let (sender, receiver) = mpsc::channel();
        self.shared.listeners.lock().push(sender);
        receiver
    }
}

impl Drop for PoolHandle {
    fn drop(&mut self) {
        self.shared.jobs.close();
    }
}

impl Shared {
    fn step(&self, event: Event) {
        let mut pool = self.pool.lock();
        let actions = pool.step(self.begin.elapsed(), event);
        self.perform(pool, actions);
    }

    /// Performs actions, in their order, after the pool is unlocked.
    fn perform(&self, pool: MutexGuard<'_, Pool>, actions: Vec<Action>) {
        if pool.has_outgoing() {
            self.outgoing.notify_one();
        }
        let ready = pool.has_ready();
        self.outbox.lock().extend(actions);
        drop(pool);
        self.perform_outbox();
        if ready {
            self.ready.notify_all();
        }
    }

    /// Performs what is in the outbox, unless another thread is at it: that one sees what is put there meanwhile.
    fn perform_outbox(&self) {
        let mut not_run = Vec::new();
        while !self.outbox.lock().is_empty()
            && let Some(performing) = self.performing.try_lock()
        {
            while let Some(action) = self.next_action() {
                match action {
                    Action::Simulate(job) => self.jobs.push(job),
                    Action::Infer { id, request, ops, urgency, hash, wave } => {
                        debug!(%id, ops, %hash, wave, "inference wanted");
                        self.tell(|| Happening::Asked { id, model: request.model, ops, hash, wave });
                        self.network.submit(id, request, ops, urgency);
                    }
                    Action::Cancel { id, hash, sender } => {
                        if let Some(ops) = self.network.cancel(&id) {
                            not_run.push(Event::NotRun { id, ops, hash, sender });
                        }
                    }
                    Action::StageChanged(change) => self.stage_changed(change),
                }
            }
            drop(performing);
        }
        if !not_run.is_empty() {
            let mut pool = self.pool.lock();
            for event in not_run {
                // Changes budgets alone: nothing follows from it.
                pool.step(self.begin.elapsed(), event);
            }
        }
    }

    fn next_action(&self) -> Option<Action> {
        self.outbox.lock().pop_front()
    }

    fn stage_changed(&self, change: StageChange) {
        let stage = change.stage;
        trace!(hash = %change.hash, stage = stage.name(), "stage");
        if let Some((left, after)) = change.left {
            histogram!("penstock_transaction_stage_seconds", "stage" => left.name()).record(after);
        }
        if stage == Stage::Included {
            histogram!("penstock_transaction_waves").record(f64::from(change.waves));
        }
        if stage == Stage::Dropped {
            counter!("penstock_transactions_dropped_total", "reason" => change.label.unwrap_or_default()).increment(1);
            info!(hash = %change.hash, reason = change.reason.as_deref().unwrap_or_default(), "transaction dropped");
        }
        self.tell(|| Happening::Stage(change));
    }

    /// What was answered inside a simulation, or was known already.
    fn tell_of_trifles(&self, job: &SimulateJob, calls: &[Call], used: &[(RequestId, Answer)]) {
        for (id, answer) in used.iter().filter(|(id, _)| !job.held.0.contains_key(id)) {
            let Some(call) = calls.iter().find(|call| call.id == *id) else { continue };
            let (id, model, ops, hash) = (*id, call.request.model, call.ops, job.tx.hash());
            self.tell(|| Happening::Asked { id, model, ops, hash, wave: 0 });
            self.tell(|| answered(id, answer));
        }
    }

    fn tell(&self, happening: impl FnOnce() -> Happening) {
        let mut listeners = self.listeners.lock();
        if !listeners.is_empty() {
            let happening = happening();
            listeners.retain(|listener| listener.send(happening.clone()).is_ok());
        }
    }
}

fn answered(id: RequestId, answer: &Answer) -> Happening {
    let failure = answer.result.as_ref().as_ref().err().map(ToString::to_string);
    Happening::Answered { id, took: answer.took, failure }
}

/// Simulations go before inference and behind consensus when the cores are busy. On Linux the nice value belongs to the
/// thread; elsewhere nothing is changed, because it would slow the whole process.
fn lower_priority(nice: i32) {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, nice) {
        debug!(%error, "simulation threads keep normal priority");
    }
}
