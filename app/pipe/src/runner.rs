//! Performs the actions of the pool: threads that simulate, and the inference network.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread,
    time::Instant,
};

use alloy_primitives::{Address, B256};
use parking_lot::{Condvar, Mutex, MutexGuard};
use penstock_inference::InferenceNetwork;
use tracing::{debug, info, trace};

use crate::{
    Account, Action, Candidate, Event, NewHead, Pool, PoolConfig, PoolTx, Rejected, SimulateJob, Simulation, Stage,
};

/// Runs a transaction on the newest committed state.
pub trait Simulator: Send + Sync + 'static {
    /// Simulates with the results of the job, of the network, and placeholders.
    fn simulate(&self, job: &SimulateJob, network: &InferenceNetwork) -> Simulation;
}

/// Subscribers to stage changes.
type Listeners = Mutex<Vec<mpsc::Sender<(B256, Stage)>>>;

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
    jobs: Mutex<Option<mpsc::Sender<SimulateJob>>>,
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
        let (jobs, queue) = mpsc::channel::<SimulateJob>();
        let answers = network.listen();
        let shared = Arc::new(Shared {
            pool: Mutex::new(pool),
            config,
            ready: Condvar::new(),
            outgoing: Condvar::new(),
            network,
            jobs: Mutex::new(Some(jobs)),
            listeners: Mutex::default(),
            begin: Instant::now(),
        });
        let queue = Arc::new(Mutex::new(queue));
        for lane in 0..config.simulation_threads.max(1) {
            // Weak: the threads must not keep the pool alive.
            let (queue, weak, simulator) = (queue.clone(), Arc::downgrade(&shared), simulator.clone());
            thread::Builder::new().name(format!("simulation-{lane}")).spawn(move || {
                loop {
                    let job = queue.lock().recv();
                    let (Ok(job), Some(shared)) = (job, weak.upgrade()) else { return };
                    // A bug must cost one transaction, not the thread.
                    let simulate = AssertUnwindSafe(|| simulator.simulate(&job, &shared.network));
                    let outcome =
                        catch_unwind(simulate).unwrap_or_else(|_| Simulation::Invalid("internal error".into()));
                    trace!(hash = %job.tx.hash(), "simulated");
                    shared.step(Event::Simulated { hash: job.tx.hash(), ticket: job.ticket, outcome });
                }
            })?;
        }
        let weak = Arc::downgrade(&shared);
        thread::Builder::new().name("pool-answers".into()).spawn(move || {
            while let Ok((id, answer)) = answers.recv() {
                let Some(shared) = weak.upgrade() else { return };
                shared.step(Event::Answered { id, answer });
            }
        })?;
        Ok(Self { shared })
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
        let mut pool = self.shared.pool.lock();
        for address in pool.senders() {
            // All others are as they were.
            if head.changes.state.contains_key(&address) {
                pool.set_account(address, account(address));
            }
        }
        let actions = pool.step(self.shared.begin.elapsed(), Event::NewHead(head));
        self.shared.perform(pool, actions);
    }

    /// What this node proposes, and what its proposal had to leave out.
    pub fn step(&self, event: Event) {
        self.shared.step(event);
    }

    /// See [`Pool::candidates`].
    pub fn candidates(&self) -> Vec<Candidate> {
        self.shared.pool.lock().candidates()
    }

    /// Looks at the pool.
    pub fn read<R>(&self, look: impl FnOnce(&Pool) -> R) -> R {
        look(&self.shared.pool.lock())
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

    /// Stage changes from now on.
    pub fn listen(&self) -> mpsc::Receiver<(B256, Stage)> {
        let (sender, receiver) = mpsc::channel();
        self.shared.listeners.lock().push(sender);
        receiver
    }
}

impl Drop for PoolHandle {
    fn drop(&mut self) {
        self.shared.jobs.lock().take();
    }
}

impl Shared {
    fn step(&self, event: Event) {
        let mut pool = self.pool.lock();
        let actions = pool.step(self.begin.elapsed(), event);
        self.perform(pool, actions);
    }

    /// Performs actions after the pool is unlocked: the network may answer at once.
    fn perform(&self, pool: MutexGuard<'_, Pool>, actions: Vec<Action>) {
        if pool.has_outgoing() {
            self.outgoing.notify_one();
        }
        drop(pool);
        let mut ready = false;
        for action in actions {
            match action {
                Action::Simulate(job) => {
                    // A closed queue: the pool is going away.
                    let _ = self.jobs.lock().as_ref().map(|jobs| jobs.send(job));
                }
                Action::Infer { id, request, ops, priority } => {
                    debug!(%id, ops, "inference wanted");
                    self.network.submit(id, request, ops, priority);
                }
                Action::Cancel(id) => self.network.cancel(&id),
                Action::StageChanged { hash, stage } => {
                    trace!(%hash, stage = stage.name(), "stage");
                    ready |= stage == Stage::Ready;
                    if stage == Stage::Dropped {
                        let status = self.pool.lock().status(&hash);
                        let reason = status.and_then(|status| status.reason).unwrap_or_default();
                        info!(%hash, reason, "transaction dropped");
                    }
                    self.listeners.lock().retain(|listener| listener.send((hash, stage)).is_ok());
                }
            }
        }
        if ready {
            self.ready.notify_all();
        }
    }
}
