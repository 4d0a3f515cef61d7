//! The inference network of this process: a pool of threads that answers requests, and a bounded
//! cache of answers. Submitting never blocks; equal requests run once.

use std::{
    collections::HashMap,
    sync::{Arc, Weak, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use metrics::histogram;
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};

use crate::{
    ContentHash, Failure, InferenceRequest, InferenceResult, Model, ModelStore, RequestId,
    cache::Cache,
    scheduler::{Scheduler, Urgency},
};

/// Size of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkConfig {
    /// Requests that run at once. One thread more is started, for cheap requests alone.
    pub threads: usize,
    /// Requests above this cost are dear: however many there are, cheap ones do not wait for them.
    pub dear_ops: u64,
    /// Bytes of results that are kept for those who ask later.
    pub cache_bytes: usize,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(2, usize::from),
            dear_ops: 100_000_000, // some milliseconds of a core
            cache_bytes: 64 << 20,
        }
    }
}

/// An answer and how long it took to make.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The answer.
    pub result: Arc<InferenceResult>,
    /// Time that the run took on this machine.
    pub took: Duration,
    /// When the run ended.
    pub finished: Instant,
}

/// Numbers for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetworkStatus {
    /// Requests that wait for a thread.
    pub queued: usize,
    /// Requests that run.
    pub running: usize,
    /// Requests answered since the start.
    pub done: u64,
    /// Answers in the cache.
    pub cached: usize,
    /// Requests that run at once.
    pub threads: usize,
    /// Processor time that the runs took, all of them together.
    pub run_time: Duration,
}

/// How a request is run. Answers must be those of [`Model::run`]; how long they take is its own business.
pub type Run = dyn Fn(&Model, &InferenceRequest) -> InferenceResult + Send + Sync;

/// A request and its cost.
type Job = (Arc<InferenceRequest>, u64);

#[derive(Debug)]
struct State {
    scheduler: Scheduler<Job>,
    cache: Cache,
    done: u64,
    run_time: Duration,
    listeners: Vec<mpsc::Sender<(RequestId, Answer)>>,
    /// Orders that are not answered.
    orders: HashMap<RequestId, Vec<Weak<Slot>>>,
    stopping: bool,
}

/// Where an order's answer is put, so that no cache can lose it.
#[derive(Debug, Default)]
struct Slot {
    answer: Mutex<Option<Answer>>,
}

/// A request that somebody waits for. Dropping it takes the request back.
#[derive(Debug)]
pub struct Order {
    id: RequestId,
    slot: Arc<Slot>,
    /// It counts in the queue.
    counts: bool,
    network: Arc<Shared>,
}

impl Order {
    /// The answer, waiting for it until `deadline`.
    pub fn wait(&self, deadline: Instant) -> Option<Answer> {
        let mut state = self.network.state.lock();
        loop {
            if let Some(answer) = self.slot.answer.lock().clone() {
                return Some(answer);
            }
            if state.stopping || self.network.answered.wait_until(&mut state, deadline).timed_out() {
                return self.slot.answer.lock().clone();
            }
        }
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        let mut state = self.network.state.lock();
        if let Some(orders) = state.orders.get_mut(&self.id) {
            orders.retain(|slot| slot.strong_count() > 0 && !slot.ptr_eq(&Arc::downgrade(&self.slot)));
            if orders.is_empty() {
                state.orders.remove(&self.id);
            }
            if self.counts {
                state.scheduler.cancel(&self.id);
            }
        }
    }
}

struct Shared {
    models: ModelStore,
    config: NetworkConfig,
    run: Box<Run>,
    state: Mutex<State>,
    /// A request was queued, or the network stops.
    work: Condvar,
    /// An answer arrived.
    answered: Condvar,
}

impl core::fmt::Debug for Shared {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The handle; dropping it stops the threads after the runs that they are in.
#[derive(Debug)]
pub struct InferenceNetwork {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl InferenceNetwork {
    /// Starts the threads. They run below normal priority, so that consensus comes first on a busy
    /// machine.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn start(models: ModelStore, config: NetworkConfig) -> std::io::Result<Self> {
        Self::start_with(models, config, Box::new(|model, request| model.run(&request.inputs)))
    }

    /// The same with another way to run requests: on other machines, or as a benchmark needs it.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn start_with(models: ModelStore, config: NetworkConfig, run: Box<Run>) -> std::io::Result<Self> {
        let scheduler = Scheduler::new(config.threads, config.dear_ops);
        let lanes = scheduler.slots();
        let shared = Arc::new(Shared {
            models,
            config,
            run,
            state: Mutex::new(State {
                scheduler,
                cache: Cache::new(config.cache_bytes),
                done: 0,
                run_time: Duration::ZERO,
                listeners: Vec::new(),
                orders: HashMap::new(),
                stopping: false,
            }),
            work: Condvar::new(),
            answered: Condvar::new(),
        });
        let threads = (0..lanes)
            .map(|lane| {
                let shared = shared.clone();
                std::thread::Builder::new().name(format!("inference-{lane}")).spawn(move || shared.serve())
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { shared, threads })
    }

    /// Whether this machine has the model's file.
    pub fn has_model(&self, model: &ContentHash) -> bool {
        self.shared.models.get(model).is_some()
    }

    /// The models of this machine.
    pub fn models(&self) -> &ModelStore {
        &self.shared.models
    }

    /// Asks for a result. Listeners hear of the answer, also when it was in the cache already.
    /// A request for a model that this machine lacks is not answered.
    pub fn submit(&self, id: RequestId, request: Arc<InferenceRequest>, ops: u64, urgency: Urgency) {
        if !self.has_model(&request.model) {
            return;
        }
        let mut state = self.shared.state.lock();
        if let Some(answer) = state.cache.get(&id) {
            state.tell(id, &answer);
            return;
        }
        state.scheduler.submit(id, ops, urgency, (request, ops));
        // All: the one that wakes may be barred from a dear request while another is not.
        self.shared.work.notify_all();
    }

    /// Asks for a result that somebody waits for. Without an answer in time it is as if it had not been asked for; a
    /// request for a model that this machine lacks is not answered.
    pub fn order(&self, id: RequestId, request: Arc<InferenceRequest>, ops: u64, urgency: Urgency) -> Order {
        let slot = Arc::<Slot>::default();
        let mut state = self.shared.state.lock();
        let mut counts = false;
        if let Some(answer) = state.cache.get(&id) {
            *slot.answer.lock() = Some(answer);
        } else if self.has_model(&request.model) {
            state.orders.entry(id).or_default().push(Arc::downgrade(&slot));
            counts = state.scheduler.submit(id, ops, urgency, (request, ops));
            self.shared.work.notify_all();
        }
        drop(state);
        Order { id, slot, counts, network: self.shared.clone() }
    }

    /// Takes back one [`Self::submit`]; the request leaves the queue with the last one. Answers the cost of what left
    /// it, and so is not run.
    pub fn cancel(&self, id: &RequestId) -> Option<u64> {
        self.shared.state.lock().scheduler.cancel(id).map(|(_, ops)| ops)
    }

    /// Runs a request in the caller's thread: for trifles, which are done sooner than handed over. Its answer is kept, and
    /// told to those who asked for it. `None` without the model.
    pub fn run_here(&self, id: RequestId, request: &InferenceRequest, ops: u64) -> Option<Answer> {
        let model = self.models().get(&request.model)?;
        let begin = Instant::now();
        let result = Arc::new((self.shared.run)(model, request));
        let finished = Instant::now();
        let answer = Answer { result, took: finished - begin, finished };
        self.remember(id, &answer, ops);
        Some(answer)
    }

    fn remember(&self, id: RequestId, answer: &Answer, ops: u64) {
        histogram!("penstock_inference_run_seconds").record(answer.took);
        let mut state = self.shared.state.lock();
        state.run_time += answer.took;
        state.keep(id, answer.clone(), ops);
        if state.scheduler.answered(&id) {
            state.tell(id, answer);
            self.shared.answered.notify_all();
        }
    }

    /// The answer, if it is there.
    pub fn get(&self, id: &RequestId) -> Option<Answer> {
        self.shared.state.lock().cache.get(id)
    }

    /// Every answer from now on.
    pub fn listen(&self) -> mpsc::Receiver<(RequestId, Answer)> {
        let (sender, receiver) = mpsc::channel();
        self.shared.state.lock().listeners.push(sender);
        receiver
    }

    /// Numbers for people.
    pub fn status(&self) -> NetworkStatus {
        let state = self.shared.state.lock();
        let (queued, running) = state.scheduler.counts();
        let threads = state.scheduler.slots() - 1;
        NetworkStatus {
            queued,
            running,
            done: state.done,
            cached: state.cache.len(),
            threads,
            run_time: state.run_time,
        }
    }
}

impl Drop for InferenceNetwork {
    fn drop(&mut self) {
        self.shared.state.lock().stopping = true;
        self.shared.work.notify_all();
        self.shared.answered.notify_all();
        for thread in self.threads.drain(..) {
            // A model that runs for minutes must not hold up a shutdown; the process ends it.
            if thread.is_finished() && thread.join().is_err() {
                tracing::error!("an inference thread panicked");
            }
        }
    }
}

impl Shared {
    fn serve(&self) {
        lower_priority();
        loop {
            let (id, (request, ops)) = {
                let mut state = self.state.lock();
                loop {
                    if state.stopping {
                        return;
                    }
                    if let Some(next) = state.scheduler.start_next() {
                        break next;
                    }
                    self.work.wait(&mut state);
                }
            };
            let (start, begin) = (Instant::now(), thread_time());
            let result = match self.models.get(&request.model) {
                Some(model) => (self.run)(model, &request),
                None => Err(Failure::Engine), // `submit` refuses requests without a model
            };
            let finished = Instant::now();
            histogram!("penstock_inference_run_seconds").record(finished - start);
            let answer = Answer { result: Arc::new(result), took: finished - start, finished };
            let mut state = self.state.lock();
            state.scheduler.finish(&id);
            state.run_time += thread_time().saturating_sub(begin);
            state.keep(id, answer.clone(), ops);
            state.tell(id, &answer);
            self.answered.notify_all();
            // A dear run that ended may have freed its place for another thread's.
            self.work.notify_all();
        }
    }
}

impl State {
    fn keep(&mut self, id: RequestId, answer: Answer, ops: u64) {
        self.done += 1;
        for slot in self.orders.remove(&id).unwrap_or_default() {
            if let Some(slot) = slot.upgrade() {
                *slot.answer.lock() = Some(answer.clone());
            }
        }
        self.cache.keep(id, answer, ops);
    }

    fn tell(&mut self, id: RequestId, answer: &Answer) {
        self.listeners.retain(|listener| listener.send((id, answer.clone())).is_ok());
    }
}

/// Processor time of this thread: what others do meanwhile does not count.
pub fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Lets threads of consensus go first. On Linux the nice value belongs to the thread; elsewhere
/// nothing is changed, because it would slow the whole process.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, 10) {
        tracing::debug!(%error, "inference threads keep normal priority");
    }
}
