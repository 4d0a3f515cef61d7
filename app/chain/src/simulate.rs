//! Simulation of pool transactions on the head.

use std::sync::Arc;

use parking_lot::RwLock;
use penstock_evm::{Db, ExecError, Executor, OnMiss, ReadSet, Results, Rules, tx_env};
use penstock_inference::{InferenceNetwork, InferenceResult, RequestId};
use penstock_pipe::{Held, SimulateJob, Simulation, Simulator};
use revm::{DatabaseCommit, context::result::InvalidTransaction, database::CacheDB};

use crate::Head;

/// Simulates on whatever the head is.
#[derive(Debug)]
pub(crate) struct HeadSimulator {
    pub(crate) rules: Rules,
    pub(crate) head: Arc<RwLock<Option<Head>>>,
}

/// The results that a transaction holds, then those that the network has.
#[derive(Debug)]
struct Known<'a> {
    held: &'a Held,
    network: &'a InferenceNetwork,
}

impl Results for Known<'_> {
    fn get(&self, id: &RequestId) -> Option<Arc<InferenceResult>> {
        self.held.get(id).or_else(|| self.network.get(id).map(|answer| answer.result))
    }
}

impl Simulator for HeadSimulator {
    fn simulate(&self, job: &SimulateJob, network: &InferenceNetwork) -> Simulation {
        let Some(head) = self.head.read().clone() else {
            return Simulation::NotNow("the chain is not initialized".into());
        };
        // The next block's time is not known; the head's is near enough, and the proposal decides.
        let block = head.next_block(head.header.timestamp + 1, head.header.beneficiary);
        let known = Known { held: &job.held, network };
        let db = CacheDB::new(Db(head.view.clone()));
        let mut executor = Executor::new(&self.rules, block, db, &known, OnMiss::Placeholder);
        for earlier in &job.before {
            executor.db_mut().commit(earlier.as_ref().clone());
        }
        match executor.run(tx_env(&job.tx.tx, job.tx.sender)) {
            Ok(execution) => {
                let answered = execution.calls.iter().filter(|call| !call.missed);
                let answer = |id: &RequestId| job.held.0.get(id).cloned().or_else(|| network.get(id));
                let used = answered.filter_map(|call| Some((call.id, answer(&call.id)?))).collect();
                Simulation::Ran {
                    height: head.number(),
                    used,
                    reads: ReadSet::of(&execution.state, [job.tx.sender, block.beneficiary]),
                    post: Arc::new(execution.state),
                    calls: execution.calls,
                }
            }
            Err(ExecError::Invalid(invalid)) if can_change(&invalid) => Simulation::NotNow(invalid.to_string()),
            Err(ExecError::Invalid(invalid)) => Simulation::Invalid(invalid.to_string()),
            Err(other) => Simulation::NotNow(other.to_string()),
        }
    }
}

/// Whether a later block may take what this one cannot.
fn can_change(invalid: &InvalidTransaction) -> bool {
    use InvalidTransaction::{
        GasPriceLessThanBasefee, LackOfFundForMaxFee, NonceTooHigh, NonceTooLow, RejectCallerWithCode,
    };
    matches!(
        invalid,
        GasPriceLessThanBasefee
            | LackOfFundForMaxFee { .. }
            | NonceTooHigh { .. }
            | NonceTooLow { .. }
            | RejectCallerWithCode
    )
}
