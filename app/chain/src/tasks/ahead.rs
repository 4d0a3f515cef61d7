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
    /// The results that each task needs on the newest head, as far as they are here.
    held: Mutex<HashMap<u64, Arc<Held>>>,
    /// When the first of the tasks that lack nothing is due; `u64::MAX`: there is none.
    first_ready: AtomicU64,
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
    /// The head and the tasks that were looked at last.
    seen: (B256, Vec<Task>),
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
        let shared = Arc::new(Shared { held: Mutex::default(), first_ready: AtomicU64::new(u64::MAX) });
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
        };
        thread::Builder::new().name("tasks".into()).spawn(move || worker.serve(&woken))?;
        Ok(Self { wake, shared })
    }

    /// There is a new head.
    pub(crate) fn new_head(&self) {
        // Without the thread tasks are left to cheap answers; it has said why it ended.
        let _ = self.wake.send(());
    }

    /// The results that a task needs, as far as they are here.
    pub(crate) fn held(&self, task: u64) -> Arc<Held> {
        self.shared.held.lock().get(&task).cloned().unwrap_or_default()
    }

    /// Whether a task is due at a time, in seconds since the epoch, that lacks nothing.
    pub(crate) fn is_ready(&self, time: u64) -> bool {
        self.shared.first_ready.load(Ordering::Relaxed) <= time
    }
}

/// Seconds since the epoch.
fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

impl Worker {
    fn serve(&mut self, woken: &mpsc::Receiver<()>) {
        // A task that becomes due without a new head: nothing else would wake the thread on a chain whose blocks wait for
        // transactions.
        const IDLE: Duration = Duration::from_millis(500);
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
                return;
            }
        }
    }

    /// Simulates what is due now or soon, and orders what is missing.
    fn look(&mut self, head: &Head) -> Result<(), StateError> {
        let time = now().as_secs().max(head.header.timestamp);
        let mut due = Vec::new();
        for time in [time, time + AHEAD.as_secs()] {
            let more = due_in(&head.view, time, head.next_base_fee())?;
            due.extend(more.into_iter().filter(|task| !due.contains(task)).collect::<Vec<_>>());
        }
        let seen = (head.hash, due);
        let arrived = self.orders.values().any(|order| order.wait(Instant::now()).is_some());
        if seen == self.seen && !arrived {
            return Ok(());
        }
        let due = &seen.1;
        let (mut held, mut wanted, mut first_ready) = (HashMap::new(), HashSet::new(), u64::MAX);
        // Hardly any task uses all its gas; but more than two blocks may run are of no use yet.
        let mut gas_left = 2 * self.rules.task_gas_per_block;
        for task in due {
            let Some(left) = gas_left.checked_sub(task.run_gas()) else { break };
            gas_left = left;
            let Some((results, missing)) = self.simulate(head, task)? else { continue };
            if missing.is_empty() {
                first_ready = first_ready.min(task.next_run);
            }
            wanted.extend(missing);
            held.insert(task.id, Arc::new(results));
        }
        self.waves.retain(|(id, next_run), _| due.iter().any(|task| (task.id, task.next_run) == (*id, *next_run)));
        self.orders.retain(|id, _| wanted.contains(id));
        *self.shared.held.lock() = held;
        self.shared.first_ready.store(first_ready, Ordering::Relaxed);
        self.seen = seen;
        Ok(())
    }

    /// Runs a task on a head: the results that it used, and the requests that have none yet, which are ordered. `None`: no
    /// block on this head could run it.
    fn simulate(&mut self, head: &Head, task: &Task) -> Result<Option<(Held, Vec<RequestId>)>, StateError> {
        let mut known = self.shared.held.lock().get(&task.id).map(|held| held.as_ref().clone()).unwrap_or_default();
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
        let new: Vec<_> = wanted.clone().filter(|call| !self.orders.contains_key(&call.id)).cloned().collect();
        let waves = self.waves.entry((task.id, task.next_run)).or_default();
        if !new.is_empty() && *waves < self.rules.limits.max_waves_per_tx {
            *waves += 1;
            for call in new {
                let order = self.network.order(call.id, call.request, call.ops, Urgency::of(Priority::Transaction));
                self.orders.insert(call.id, order);
            }
        }
        Ok(Some((Held(used), missed.iter().map(|call| call.id).collect())))
    }
}
