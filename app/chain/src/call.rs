//! Calls that commit nothing: `eth_call`, `eth_estimateGas`, `debug_traceCall`.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use penstock_evm::{
    BlockContext, CallOptions, Db, EvmContext, ExecError, Execution, Executor, Inspected, OnMiss, PrecompilePlaces,
    Results,
};
use penstock_inference::{
    ContentHash, InferenceNetwork, InferenceRequest, InferenceResult, Priority, RequestId, Urgency,
};
use penstock_state::View;
use revm::{
    Inspector,
    context::{BlockEnv, TxEnv},
    database::CacheDB,
};

use crate::Chain;

/// A state that a call may change for itself.
pub type CallDb = CacheDB<Db<View>>;

/// A call on a state.
#[derive(Debug, Clone)]
pub struct CallRequest {
    /// The state, with what the caller overrides.
    pub db: CallDb,
    /// The block whose state it is.
    pub block: BlockContext,
    /// The surroundings that the call sees.
    pub env: BlockEnv,
    /// Precompiles that the caller moved.
    pub places: PrecompilePlaces,
    /// The call as a transaction.
    pub tx: TxEnv,
}

/// Results that a caller gives for its call, in the place of the models'.
#[derive(Debug, Clone, Default)]
pub struct GivenResults {
    /// For one request.
    pub by_request: HashMap<RequestId, Arc<InferenceResult>>,
    /// For every request to a model.
    pub by_model: HashMap<ContentHash, Arc<InferenceResult>>,
}

/// Where a call finds the results of inference. What is nowhere is a placeholder.
#[derive(Debug, Clone)]
pub struct Inferences {
    /// These first.
    pub given: GivenResults,
    /// Then those that this node has, and those that it computes until then; `None`: neither.
    pub real_until: Option<Instant>,
}

/// One set of results for several runs of a call: all steps of an estimate see the same answers.
#[derive(Debug, Clone)]
pub struct CallSession {
    given: GivenResults,
    answers: HashMap<RequestId, Arc<InferenceResult>>,
}

impl Results for CallSession {
    fn get(&self, id: &RequestId) -> Option<Arc<InferenceResult>> {
        self.given.by_request.get(id).or_else(|| self.answers.get(id)).cloned()
    }

    fn answer(&self, id: &RequestId, request: &InferenceRequest, _ops: u64) -> Option<Arc<InferenceResult>> {
        let given = self.given.by_request.get(id).or_else(|| self.given.by_model.get(&request.model));
        given.or_else(|| self.answers.get(id)).cloned()
    }
}

/// The session's answers, then those that the network has.
struct Known<'a> {
    session: &'a CallSession,
    network: &'a InferenceNetwork,
}

impl Results for Known<'_> {
    fn get(&self, id: &RequestId) -> Option<Arc<InferenceResult>> {
        self.session.get(id).or_else(|| self.network.get(id).map(|answer| answer.result))
    }

    fn answer(&self, id: &RequestId, request: &InferenceRequest, ops: u64) -> Option<Arc<InferenceResult>> {
        self.session.answer(id, request, ops).or_else(|| self.network.get(id).map(|answer| answer.result))
    }
}

/// The turn of a call among others. While it waits for models it needs no core, and steps out.
pub trait Turn {
    /// The call is about to wait.
    fn step_out(&self);

    /// It goes on, as soon as it can; answers how long that took, which is not the models' time.
    fn step_in(&self) -> Duration;
}

/// Runs of a call that end with new requests.
const MAX_WAVES: usize = 16;

impl Chain {
    /// Finds the results that a call needs, wave by wave. What is not there in time is left to the placeholder.
    ///
    /// # Errors
    /// [`ExecError`].
    pub fn resolve(
        &self,
        call: &CallRequest,
        inferences: Inferences,
        turn: &dyn Turn,
    ) -> Result<CallSession, ExecError> {
        Ok(self.resolve_and_run(call, inferences, turn)?.0)
    }

    /// [`Self::resolve`] and [`Self::run_call`] in one.
    ///
    /// # Errors
    /// [`ExecError`].
    pub fn call(&self, call: &CallRequest, inferences: Inferences, turn: &dyn Turn) -> Result<Execution, ExecError> {
        match self.resolve_and_run(call, inferences, turn)? {
            (_, Some(execution)) => Ok(execution),
            (session, None) => self.run_call(call, &session),
        }
    }

    /// The results, and the execution that lacked none, if there was one.
    fn resolve_and_run(
        &self,
        call: &CallRequest,
        inferences: Inferences,
        turn: &dyn Turn,
    ) -> Result<(CallSession, Option<Execution>), ExecError> {
        let mut session = CallSession { given: inferences.given, answers: HashMap::new() };
        let Some(mut deadline) = inferences.real_until else { return Ok((session, None)) };
        for _ in 0..MAX_WAVES {
            let execution = {
                let known = Known { session: &session, network: &self.network };
                self.executor(call, &known).run(call.tx.clone())?
            };
            let found = execution.calls.iter().filter(|call| !call.missed);
            session.answers.extend(found.filter_map(|c| Some((c.id, self.network.get(&c.id)?.result))));
            if execution.calls.iter().all(|call| !call.missed) {
                return Ok((session, Some(execution)));
            }
            let missed: Vec<_> = execution.calls.into_iter().filter(|call| call.missed).collect();
            let wanted = missed.iter().filter(|c| self.network.has_model(&c.request.model));
            let urgency = Urgency::of(Priority::Call);
            let orders: Vec<_> = wanted
                .map(|call| (call.id, self.network.order(call.id, call.request.clone(), call.ops, urgency)))
                .collect();
            if orders.is_empty() {
                break;
            }
            let mut late = false;
            turn.step_out();
            for (id, order) in orders {
                match order.wait(deadline) {
                    Some(answer) => drop(session.answers.insert(id, answer.result)),
                    None => late = true,
                }
            }
            deadline += turn.step_in();
            if late {
                break;
            }
        }
        Ok((session, None))
    }

    /// Runs a call with the answers of a session, and placeholders for all else.
    ///
    /// # Errors
    /// [`ExecError`].
    pub fn run_call(&self, call: &CallRequest, session: &CallSession) -> Result<Execution, ExecError> {
        self.executor(call, session).run(call.tx.clone())
    }

    /// [`Self::run_call`] with an inspector that looks on. `report` is told the result, with the state of before at hand.
    ///
    /// # Errors
    /// [`ExecError`].
    pub fn inspect_call<I, T>(
        &self,
        call: &CallRequest,
        session: &CallSession,
        inspector: I,
        report: impl FnOnce(&mut Executor<'_, CallDb, I>, Inspected) -> T,
    ) -> Result<T, ExecError>
    where
        I: Inspector<EvmContext<CallDb>>,
    {
        let mut executor = self.executor(call, session).with_inspector(inspector);
        let inspected = executor.inspect(call.tx.clone())?;
        Ok(report(&mut executor, inspected))
    }

    fn executor<'a>(&'a self, call: &CallRequest, results: &'a dyn Results) -> Executor<'a, CallDb> {
        Executor::new(&self.rules, call.block, call.db.clone(), results, OnMiss::Placeholder)
            .with_options(CallOptions { unchecked: true })
            .with_block_env(call.env.clone())
            .with_precompiles(call.places.clone())
    }
}
