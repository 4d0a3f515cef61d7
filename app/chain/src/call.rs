//! Calls that commit nothing: `eth_call`, `eth_estimateGas`.

use std::{collections::HashMap, sync::Arc, time::Instant};

use penstock_evm::{BlockContext, CallOptions, Db, ExecError, Execution, Executor, OnMiss, Results};
use penstock_inference::{InferenceNetwork, InferenceResult, Priority, RequestId, Urgency};
use penstock_state::View;
use revm::{context::TxEnv, database::CacheDB};

use crate::Chain;

/// A call on a state.
#[derive(Debug, Clone)]
pub struct CallRequest {
    /// The state.
    pub view: View,
    /// The block that it runs in.
    pub block: BlockContext,
    /// The call as a transaction.
    pub tx: TxEnv,
}

/// One set of results for several runs of a call: all steps of an estimate see the same answers.
#[derive(Debug, Clone, Default)]
pub struct CallSession {
    answers: HashMap<RequestId, Arc<InferenceResult>>,
}

/// The session's answers, then those that the network has.
struct Known<'a> {
    session: &'a CallSession,
    network: &'a InferenceNetwork,
}

impl Results for Known<'_> {
    fn get(&self, id: &RequestId) -> Option<Arc<InferenceResult>> {
        Results::get(&self.session.answers, id).or_else(|| self.network.get(id).map(|answer| answer.result))
    }
}

/// Runs of a call that end with new requests.
const MAX_WAVES: usize = 16;

impl Chain {
    /// Finds the results that a call needs, wave by wave, until `deadline`. What is not there by then is
    /// answered by the placeholder.
    ///
    /// # Errors
    /// [`ExecError`].
    pub fn resolve(&self, call: &CallRequest, deadline: Instant) -> Result<CallSession, ExecError> {
        let mut session = CallSession::default();
        for _ in 0..MAX_WAVES {
            let execution = {
                let known = Known { session: &session, network: &self.network };
                self.run_with(call, &known)?
            };
            let (missed, found): (Vec<_>, Vec<_>) = execution.calls.into_iter().partition(|call| call.missed);
            session.answers.extend(found.iter().filter_map(|c| Some((c.id, self.network.get(&c.id)?.result))));
            if missed.is_empty() {
                break;
            }
            let wanted = missed.iter().filter(|c| self.network.has_model(&c.request.model));
            let urgency = Urgency::of(Priority::Call);
            let orders: Vec<_> = wanted
                .map(|call| (call.id, self.network.order(call.id, call.request.clone(), call.ops, urgency)))
                .collect();
            let mut late = orders.is_empty();
            for (id, order) in orders {
                match order.wait(deadline) {
                    Some(answer) => drop(session.answers.insert(id, answer.result)),
                    None => late = true,
                }
            }
            if late {
                break;
            }
        }
        Ok(session)
    }

    /// Runs a call with the answers of a session, and placeholders for all else.
    ///
    /// # Errors
    /// [`ExecError`].
    pub fn run_call(&self, call: &CallRequest, session: &CallSession) -> Result<Execution, ExecError> {
        self.run_with(call, &session.answers)
    }

    fn run_with(&self, call: &CallRequest, results: &dyn Results) -> Result<Execution, ExecError> {
        let db = CacheDB::new(Db(call.view.clone()));
        let options = CallOptions { unchecked: true };
        Executor::new(&self.rules, call.block, db, results, OnMiss::Placeholder)
            .with_options(options)
            .run(call.tx.clone())
    }
}
