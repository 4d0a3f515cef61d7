//! Results for tasks, ahead of the proposal: a thread that after each commit simulates the tasks that are due now or soon,
//! and orders what they ask for. Nothing here is consensus: a task whose results are not here is left for a later block.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use alloy_primitives::B256;
use parking_lot::{Mutex, RwLock};
use penstock_evm::{Db, ExecError, Executor, OnMiss, Rules, StateError, TASK_SENDER, tx_env};
use penstock_inference::{InferenceNetwork, Priority, RequestId, Urgency, network::Order};
use penstock_pipe::Held;
use penstock_state::View;
use revm::{DatabaseRef, database::CacheDB};
use tracing::{debug, error};

use super::{SCHEDULER, ScheduledTask, Task};
use crate::{Head, simulate::Known};

/// Tasks that are due within this are looked at already.
const AHEAD: Duration = Duration::from_secs(5);
/// How often the thread looks whether there is a new head while it waits for results.
const GLANCE: Duration = Duration::from_millis(20);

/// How long results that came wait for others, at most.
const PAUSE: Duration = Duration::from_millis(50);

/// How often it looks while it waits for nothing: a task may become due without a new head, on a chain whose blocks wait for
/// transactions.
const IDLE: Duration = Duration::from_millis(500);

/// The tasks of a state that are due at a time and paid at a base fee.
pub(crate) fn due_in(view: &View, time: u64, base_fee: u64) -> Result<Vec<Task>, StateError> {
    let view = Db(view.clone());
    Task::due(time, base_fee, &mut |slot| view.storage_ref(SCHEDULER, slot))
}

/// The thread's handle. Dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Ahead {
    wake: mpsc::Sender<()>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// What is known of the tasks that are due or will be soon.
    looked: Mutex<HashMap<u64, Looked>>,
    /// When the first of the tasks that lack nothing is due; `u64::MAX`: there is none.
    first_ready: AtomicU64,
    failures: Mutex<Failures>,
}

/// What the last simulation of a task said.
#[derive(Debug)]
struct Looked {
    next_run: u64,
    /// The results that it needs, as far as they are here.
    held: Arc<Held>,
    /// The requests that have none.
    missing: Vec<RequestId>,
}

/// How often each run failed in proposals of this node, and the height from which on it is tried again.
type Failures = HashMap<(u64, u64), (u32, u64)>;

/// Proposals that a task sits out at most after it failed again and again: 2 to the power of this.
const MAX_BACK_OFF: u32 = 6;

/// Which of the tasks that are due a proposal tries. One that could not run stands back, each time for longer, so that it
/// does not cost every proposal its time, nor hold up those behind it.
#[derive(Debug)]
pub(crate) struct Attempts<'a> {
    failures: &'a Mutex<Failures>,
    height: u64,
}

impl Attempts<'_> {
    pub(crate) fn may_try(&self, task: &Task) -> bool {
        self.failures.lock().get(&task.turn()).is_none_or(|(_, from)| *from <= self.height)
    }

    pub(crate) fn failed(&self, task: &Task) {
        let mut failures = self.failures.lock();
        let (count, from) = failures.entry(task.turn()).or_default();
        *count += 1;
        *from = self.height + (1 << (*count).min(MAX_BACK_OFF));
    }
}

/// What the thread works with.
struct Worker {
    rules: Rules,
    /// See [`penstock_pipe::PoolConfig::simulation_ops`].
    inline_ops: u64,
    head: Arc<RwLock<Option<Head>>>,
    network: Arc<InferenceNetwork>,
    /// Whether the node is up with its peers: before, its heads are of the past, and nobody asks it for a proposal. `None`:
    /// it has none.
    live: Option<Arc<AtomicBool>>,
    shared: Arc<Shared>,
    /// Requests that are under way. Dropping one takes it back.
    orders: HashMap<RequestId, Order>,
    /// Of each run: how often results were ordered for it.
    waves: HashMap<(u64, u64), u32>,
    /// The head, the second and the tasks that were looked at last.
    seen: (B256, u64, Vec<Task>),
    /// The task that is simulated first: those that had no turn last time.
    first: usize,
    /// When tasks were simulated last.
    simulated: Instant,
}

impl Ahead {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives none.
    pub(crate) fn start(
        rules: Rules,
        inline_ops: u64,
        head: Arc<RwLock<Option<Head>>>,
        network: Arc<InferenceNetwork>,
        live: Option<Arc<AtomicBool>>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            looked: Mutex::default(),
            first_ready: AtomicU64::new(u64::MAX),
            failures: Mutex::default(),
        });
        let (wake, woken) = mpsc::channel();
        let mut worker = Worker {
            rules,
            inline_ops,
            head,
            network,
            live,
            shared: shared.clone(),
            orders: HashMap::new(),
            waves: HashMap::new(),
            seen: Default::default(),
            first: 0,
            simulated: Instant::now(),
        };
        thread::Builder::new().name("tasks".into()).spawn(move || {
            step_back();
            worker.serve(&woken);
        })?;
        Ok(Self { wake, shared })
    }

    /// There is a new head.
    pub(crate) fn new_head(&self) {
        // Nobody listens only while the chain is being closed.
        let _ = self.wake.send(());
    }

    /// The results that a task needs, as far as they are here.
    pub(crate) fn held(&self, task: u64) -> Arc<Held> {
        self.shared.looked.lock().get(&task).map(|looked| looked.held.clone()).unwrap_or_default()
    }

    /// Which of the tasks that are due the proposal of a height tries.
    pub(crate) fn attempts(&self, due: &[Task], height: u64) -> Attempts<'_> {
        let turns: HashSet<_> = due.iter().map(Task::turn).collect();
        self.shared.failures.lock().retain(|turn, _| turns.contains(turn));
        Attempts { failures: &self.shared.failures, height }
    }

    /// Whether a task is due at a time, in seconds since the epoch, that lacks nothing.
    pub(crate) fn is_ready(&self, time: u64) -> bool {
        self.shared.first_ready.load(Ordering::Relaxed) <= time
    }
}

/// The thread stands where simulations stand: before inference and behind consensus. On Linux the nice value belongs to the
/// thread; elsewhere nothing is changed, because it would slow the whole process.
fn step_back() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, 5) {
        debug!(%error, "the thread of tasks keeps normal priority");
    }
}

/// Seconds since the epoch.
fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

impl Worker {
    fn serve(&mut self, woken: &mpsc::Receiver<()>) {
        loop {
            let waits = if self.orders.is_empty() { IDLE } else { GLANCE };
            match woken.recv_timeout(waits) {
                Ok(()) => while woken.try_recv().is_ok() {},
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
            if self.live.as_ref().is_some_and(|live| !live.load(Ordering::Relaxed)) {
                continue;
            }
            let Some(head) = self.head.read().clone() else { continue };
            if let Err(error) = self.look(&head) {
                error!(%error, "the tasks that are due cannot be read");
            }
        }
    }

    /// Simulates what is due now or soon, and orders what is missing.
    fn look(&mut self, head: &Head) -> Result<(), StateError> {
        let time = now().as_secs().max(head.header.timestamp);
        let arrived = self.orders.values().any(|order| order.wait(Instant::now()).is_some());
        let is_same = (head.hash, time) == (self.seen.0, self.seen.1);
        // Those that had no turn have one after a pause: there may be a thousand of them. One whose results came may be
        // among them.
        let is_rest = self.first > 0 && self.simulated.elapsed() >= IDLE;
        let arrived = arrived && self.simulated.elapsed() >= PAUSE;
        if is_same && !arrived && !is_rest {
            return Ok(());
        }
        let mut due = Vec::new();
        for time in [time, time + AHEAD.as_secs()] {
            let more = due_in(&head.view, time, head.next_base_fee())?;
            due.extend(more.into_iter().filter(|task| !due.contains(task)).collect::<Vec<_>>());
        }
        let is_news = arrived || head.hash != self.seen.0 || due != self.seen.2;
        if is_news || is_rest {
            self.simulate_some(head, &due)?;
        }
        self.waves.retain(|(id, next_run), _| due.iter().any(|task| (task.id, task.next_run) == (*id, *next_run)));
        self.seen = (head.hash, time, due);
        Ok(())
    }

    /// Simulates as many of the tasks as two blocks may run: more are of no use yet, and hardly any uses all its gas. The
    /// others have their turn next time.
    fn simulate_some(&mut self, head: &Head, due: &[Task]) -> Result<(), StateError> {
        self.simulated = Instant::now();
        let mut gas_left = 2 * self.rules.task_gas_per_block;
        let begin = self.first.min(due.len());
        self.first = 0;
        for (index, task) in due.iter().enumerate().cycle().skip(begin).take(due.len()) {
            if task.run_gas() > self.rules.task_gas_per_block {
                // Only a genesis can have it: it fits no block.
                continue;
            }
            let Some(left) = gas_left.checked_sub(task.run_gas()) else {
                self.first = index;
                break;
            };
            gas_left = left;
            let looked = self.simulate(head, task)?;
            let mut all = self.shared.looked.lock();
            match looked {
                Some(looked) => drop(all.insert(task.id, looked)),
                None => drop(all.remove(&task.id)),
            }
        }
        let mut all = self.shared.looked.lock();
        all.retain(|id, looked| due.iter().any(|task| (task.id, task.next_run) == (*id, looked.next_run)));
        let ready = all.values().filter(|looked| looked.missing.is_empty()).map(|looked| looked.next_run);
        self.shared.first_ready.store(ready.min().unwrap_or(u64::MAX), Ordering::Relaxed);
        let wanted: HashSet<RequestId> = all.values().flat_map(|looked| looked.missing.iter().copied()).collect();
        self.orders.retain(|id, _| wanted.contains(id));
        Ok(())
    }

    /// Runs a task on a head: the results that it used, and the requests that have none yet, which are ordered. `None`: no
    /// block on this head could run it.
    fn simulate(&mut self, head: &Head, task: &Task) -> Result<Option<Looked>, StateError> {
        let held = self.shared.looked.lock().get(&task.id).map(|looked| looked.held.clone());
        let mut known = held.map(|held| held.as_ref().clone()).unwrap_or_default();
        let arrived = self.orders.iter().filter_map(|(id, order)| Some((*id, order.wait(Instant::now())?)));
        known.0.extend(arrived);
        let results = Known::new(&known, &self.network, self.inline_ops);
        let time = task.next_run.max(head.header.timestamp + 1);
        let block = head.next_block(time, head.header.beneficiary);
        let tx = ScheduledTask::from(task).transaction(block.number, block.base_fee);
        let db = CacheDB::new(Db(head.view.clone()));
        let mut executor = Executor::new(&self.rules, block, db, &results, OnMiss::Placeholder);
        let execution = match executor.run(tx_env(&tx, TASK_SENDER)) {
            Ok(execution) if execution.is_success() => execution,
            Ok(execution) => {
                debug!(task = task.id, status = ?execution.status, "a task cannot run");
                return Ok(None);
            }
            Err(ExecError::State(error)) => return Err(error),
            Err(error) => {
                debug!(task = task.id, %error, "a task cannot run");
                return Ok(None);
            }
        };
        let (missed, answered): (Vec<_>, Vec<_>) = execution.calls.into_iter().partition(|call| call.missed);
        let used = answered.iter().filter_map(|call| Some((call.id, results.had(&call.id)?))).collect();
        // What is asked behind a placeholder might not be asked with the real result, unless it costs nothing to speak of.
        let wanted = missed.iter().filter(|call| !call.speculative || call.ops <= self.inline_ops);
        // What this machine cannot run would be under way for ever.
        let wanted = wanted.filter(|call| self.network.has_model(&call.request.model));
        let new: Vec<_> = wanted.clone().filter(|call| !self.orders.contains_key(&call.id)).cloned().collect();
        let waves = self.waves.entry((task.id, task.next_run)).or_default();
        if !new.is_empty() && *waves < self.rules.limits.max_waves_per_tx {
            *waves += 1;
            for call in new {
                let order = self.network.order(call.id, call.request, call.ops, Urgency::of(Priority::Transaction));
                self.orders.insert(call.id, order);
            }
        }
        let missing = missed.iter().map(|call| call.id).collect();
        Ok(Some(Looked { next_run: task.next_run, held: Arc::new(Held(used)), missing }))
    }
}
