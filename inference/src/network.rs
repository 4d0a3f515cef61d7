//! The inference network of this process: a pool of threads that answers requests, and a bounded
//! cache of answers. Submitting never blocks; equal requests run once.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use metrics::histogram;
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};

use crate::{
    ContentHash, InferenceRequest, InferenceResult, Model, ModelStore, RequestId, Tensor,
    cache::Cache,
    scheduler::{Scheduler, Urgency, Withdrawn},
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
    /// Bytes of models that are kept in memory.
    pub model_bytes: u64,
    /// Cheap requests for one model that wait are run together, at most so many. 1: each by itself.
    pub batch: usize,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(2, usize::from),
            dear_ops: 100_000_000, // some milliseconds of a core
            cache_bytes: 64 << 20,
            model_bytes: 4 << 30,
            batch: 32,
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
    /// Requests that were run together with others.
    pub together: u64,
    /// Processor time that the runs took, all of them together.
    pub run_time: Duration,
    /// Models in memory.
    pub models: usize,
    /// Bytes that they take.
    pub model_bytes: u64,
}

/// Another way to run some requests: those that it answers. Answers must be those of [`Model::run`]; how long they take
/// is its own business.
pub type Run = dyn Fn(&Model, &InferenceRequest) -> Option<InferenceResult> + Send + Sync;

/// Runs below this cost have one thread even on an idle machine: sharing them out would cost more than it saves.
const PARALLEL_OPS: u64 = 20_000_000;

/// A run under way.
#[derive(Debug, Default)]
struct Control {
    cancelled: AtomicBool,
    /// Cost of what is done.
    done: AtomicU64,
    ops: u64,
}

/// A request and its cost.
type Job = (Arc<InferenceRequest>, u64);

#[derive(Debug)]
struct State {
    scheduler: Scheduler<Job>,
    cache: Cache,
    done: u64,
    together: u64,
    run_time: Duration,
    listeners: Vec<mpsc::Sender<(RequestId, Answer)>>,
    /// Runs under way.
    controls: HashMap<RequestId, Arc<Control>>,
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
        // An order that was answered is not among those that wait, and has nothing to take back: others may wait for the
        // same request by now.
        let Some(orders) = state.orders.get_mut(&self.id) else { return };
        let Some(own) = orders.iter().position(|slot| slot.ptr_eq(&Arc::downgrade(&self.slot))) else { return };
        orders.swap_remove(own);
        if orders.is_empty() {
            state.orders.remove(&self.id);
        }
        state.cancel(&self.id);
    }
}

struct Shared {
    models: ModelStore,
    config: NetworkConfig,
    run: Option<Box<Run>>,
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
        Self::start_with(models, config, None)
    }

    /// The same with another way to run some requests: on other machines, or as a benchmark needs it.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn start_with(models: ModelStore, config: NetworkConfig, run: Option<Box<Run>>) -> std::io::Result<Self> {
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
                together: 0,
                run_time: Duration::ZERO,
                listeners: Vec::new(),
                controls: HashMap::new(),
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
        self.shared.models.has(model)
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
        if let Some(answer) = state.cache.get(&id) {
            *slot.answer.lock() = Some(answer);
        } else if self.has_model(&request.model) {
            state.orders.entry(id).or_default().push(Arc::downgrade(&slot));
            state.scheduler.submit(id, ops, urgency, (request, ops));
            self.shared.work.notify_all();
        }
        drop(state);
        Order { id, slot, network: self.shared.clone() }
    }

    /// Takes back one [`Self::submit`] that was not answered. With the last one the request leaves the queue, or its run
    /// is ended at the next node. Answers the cost of what left the queue, and so is not run.
    pub fn cancel(&self, id: &RequestId) -> Option<u64> {
        self.shared.state.lock().cancel(id)
    }

    /// How much of a run under way is done, from 0 to 1.
    pub fn progress(&self, id: &RequestId) -> Option<f64> {
        let control = self.shared.state.lock().controls.get(id)?.clone();
        Some((control.done.load(Ordering::Relaxed) as f64 / control.ops.max(1) as f64).min(1.0))
    }

    /// Runs a request in the caller's thread: for trifles, which are done sooner than handed over. Its answer is kept, and
    /// told to those who asked for it. `None` without the model in memory: the caller does not wait for a disk.
    pub fn run_here(&self, id: RequestId, request: &InferenceRequest, ops: u64) -> Option<Answer> {
        let model = self.models().warm(&request.model)?;
        let begin = Instant::now();
        let other = self.shared.run.as_ref().and_then(|run| run(&model, request));
        let result = Arc::new(other.unwrap_or_else(|| model.run(&request.inputs)));
        // Making room may take long, and whoever calls this may be consensus: the next run in a thread of ours does it.
        self.models().note_growth(&model);
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
        if let Some(control) = state.controls.get(&id) {
            control.cancelled.store(true, Ordering::Relaxed);
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
        let (models, model_bytes) = self.shared.models.in_memory();
        let state = self.shared.state.lock();
        let (queued, running) = state.scheduler.counts();
        let threads = state.scheduler.slots() - 1;
        NetworkStatus {
            queued,
            running,
            done: state.done,
            together: state.together,
            cached: state.cache.len(),
            threads,
            run_time: state.run_time,
            models,
            model_bytes,
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
            let (jobs, control, idle) = {
                let mut state = self.state.lock();
                let first = loop {
                    if state.stopping {
                        return;
                    }
                    if let Some(next) = state.scheduler.start_next() {
                        break next;
                    }
                    self.work.wait(&mut state);
                };
                let control = Arc::new(Control { ops: first.1.1, ..Control::default() });
                state.controls.insert(first.0, control.clone());
                let jobs = self.with_others(first, &mut state.scheduler);
                (jobs, control, state.scheduler.is_idle())
            };
            let (start, begin) = (Instant::now(), thread_time());
            let results = self.run(&jobs, &control, idle);
            let finished = Instant::now();
            let took = (finished - start) / jobs.len().max(1) as u32;
            let mut state = self.state.lock();
            state.run_time += thread_time().saturating_sub(begin);
            state.together += if jobs.len() > 1 { jobs.len() as u64 } else { 0 };
            for ((id, (_, ops)), result) in jobs.into_iter().zip(results) {
                state.controls.remove(&id);
                // A run that was ended has no answer. Whoever asked again meanwhile is queued again.
                if let Some(result) = result {
                    histogram!("penstock_inference_run_seconds").record(took);
                    let answer = Answer { result: Arc::new(result), took, finished };
                    let waited = state.scheduler.finish(&id);
                    // Whoever asked again for a run that was to end, and came to its end nevertheless, has the answer.
                    let again = state.scheduler.answered(&id);
                    state.keep(id, answer.clone(), ops);
                    if waited || again {
                        state.tell(id, &answer);
                    }
                } else {
                    state.scheduler.finish(&id);
                    // Without its model's file there is no answer. An order that stayed could take back what others ask for.
                    if !state.scheduler.has(&id) {
                        state.orders.remove(&id);
                    }
                }
            }
            drop(state);
            self.answered.notify_all();
            // A dear run that ended may have freed its place for another thread's.
            self.work.notify_all();
        }
    }

    /// A request that starts, with those that wait for the same model and can run together with it: nobody waits for
    /// others to come, so that a batch delays nothing.
    fn with_others(&self, first: (RequestId, Job), scheduler: &mut Scheduler<Job>) -> Vec<(RequestId, Job)> {
        let (request, ops) = first.1.clone();
        let mut jobs = vec![first];
        if self.config.batch <= 1 || ops > self.config.dear_ops {
            return jobs;
        }
        let Some(model) = self.models.warm(&request.model).filter(|model| model.batches()) else { return jobs };
        // Together no dearer than a cheap request may be, and with rows of the same shape.
        let mut left = self.config.dear_ops.saturating_sub(ops);
        let rows = |request: &InferenceRequest| -> Vec<Vec<usize>> {
            request.inputs.iter().map(|tensor| tensor.shape().get(1..).unwrap_or_default().to_vec()).collect()
        };
        let shape = rows(&request);
        jobs.extend(scheduler.start_together(self.config.batch - 1, |(other, ops)| {
            let fits = other.model == model.hash() && *ops <= left && rows(other) == shape;
            if fits {
                left -= ops;
            }
            fits
        }));
        jobs
    }

    /// The answers; `None` for a run that was ended.
    fn run(&self, jobs: &[(RequestId, Job)], control: &Control, idle: bool) -> Vec<Option<InferenceResult>> {
        let Some((_, (request, _))) = jobs.first() else { return vec![] };
        let Some(model) = self.models.get(&request.model) else {
            // `submit` refuses requests without a model; one whose file has gone meanwhile cannot be answered.
            return vec![None; jobs.len()];
        };
        let results = self.run_with(&model, jobs, control, idle);
        self.models.note_growth(&model);
        self.models.make_room();
        results
    }

    fn run_with(
        &self,
        model: &Model,
        jobs: &[(RequestId, Job)],
        control: &Control,
        idle: bool,
    ) -> Vec<Option<InferenceResult>> {
        let Some((_, (request, ops))) = jobs.first() else { return vec![] };
        // Whoever has another way answers first; a batch is only of what nobody answers otherwise.
        let others: Vec<Option<InferenceResult>> =
            jobs.iter().map(|(_, (request, _))| self.run.as_ref().and_then(|run| run(model, request))).collect();
        if others.iter().any(Option::is_some) {
            let all = others.into_iter().zip(jobs);
            return all.map(|(other, (_, (request, _)))| other.or_else(|| Some(model.run(&request.inputs)))).collect();
        }
        if jobs.len() > 1 {
            let inputs: Vec<&[Tensor]> = jobs.iter().map(|(_, (request, _))| request.inputs.as_slice()).collect();
            if let Some(results) = model.run_batch(&inputs, 1) {
                return results.into_iter().map(Some).collect();
            }
            return jobs.iter().map(|(_, (request, _))| Some(model.run(&request.inputs))).collect();
        }
        // All of the machine for one run that is worth it, when there is nothing else to do.
        let threads = if idle && *ops > PARALLEL_OPS { self.config.threads } else { 1 };
        vec![model.run_watched(&request.inputs, threads, Some(&control.cancelled), Some(&control.done))]
    }
}

impl State {
    fn cancel(&mut self, id: &RequestId) -> Option<u64> {
        match self.scheduler.cancel(id) {
            Withdrawn::No => None,
            Withdrawn::Queued((_, ops)) => Some(ops),
            Withdrawn::Running => {
                if let Some(control) = self.controls.get(id) {
                    control.cancelled.store(true, Ordering::Relaxed);
                }
                None
            }
        }
    }

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
