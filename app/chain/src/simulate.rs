//! Simulation of pool transactions on the head.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    sync::Arc,
};

use alloy_primitives::{Address, B256, U256};
use parking_lot::RwLock;
use penstock_evm::{Db, ExecError, Executor, OnMiss, ReadSet, Results, Rules, StateError, tx_env};
use penstock_inference::{
    InferenceNetwork, InferenceRequest, InferenceResult, RequestId, network::Answer, thread_time,
};
use penstock_pipe::{Held, SimulateJob, Simulation, Simulator};
use penstock_state::View;
use revm::{
    DatabaseRef,
    bytecode::Bytecode,
    context::result::InvalidTransaction,
    database::CacheDB,
    state::{AccountInfo, EvmState},
};

use crate::Head;

/// Simulates on whatever the head is.
#[derive(Debug)]
pub(crate) struct HeadSimulator {
    pub(crate) rules: Rules,
    /// See [`penstock_pipe::PoolConfig::simulation_ops`].
    pub(crate) inline_ops: u64,
    pub(crate) head: Arc<RwLock<Option<Head>>>,
}

/// The results that a transaction holds, then those that the network has, then trifles that are computed here.
#[derive(Debug)]
pub(crate) struct Known<'a> {
    held: &'a Held,
    network: &'a InferenceNetwork,
    /// What may still be computed.
    inline_ops: Cell<u64>,
    /// What was found, so that the network's cache cannot lose it meanwhile.
    found: RefCell<HashMap<RequestId, Answer>>,
}

impl<'a> Known<'a> {
    /// With this much that may be computed.
    pub(crate) fn new(held: &'a Held, network: &'a InferenceNetwork, inline_ops: u64) -> Self {
        Self { held, network, inline_ops: Cell::new(inline_ops), found: RefCell::default() }
    }

    fn find(&self, id: &RequestId, compute: impl FnOnce() -> Option<Answer>) -> Option<Arc<InferenceResult>> {
        if let Some(answer) = self.had(id) {
            return Some(answer.result);
        }
        let answer = self.network.get(id).or_else(compute)?;
        self.found.borrow_mut().insert(*id, answer.clone());
        Some(answer.result)
    }

    fn compute(&self, id: &RequestId, request: &InferenceRequest, ops: u64) -> Option<Answer> {
        let left = self.inline_ops.get().checked_sub(ops)?;
        let answer = self.network.run_here(*id, request, ops)?;
        self.inline_ops.set(left);
        Some(answer)
    }

    /// The answer that a run got.
    pub(crate) fn had(&self, id: &RequestId) -> Option<Answer> {
        self.held.0.get(id).cloned().or_else(|| self.found.borrow().get(id).cloned())
    }
}

impl Results for Known<'_> {
    fn get(&self, id: &RequestId) -> Option<Arc<InferenceResult>> {
        self.find(id, || None)
    }

    fn answer(&self, id: &RequestId, request: &InferenceRequest, ops: u64) -> Option<Arc<InferenceResult>> {
        self.find(id, || self.compute(id, request, ops))
    }
}

impl Simulator for HeadSimulator {
    fn simulate(&self, job: &SimulateJob, network: &InferenceNetwork) -> Simulation {
        let Some(head) = self.head.read().clone() else {
            return Simulation::NotNow("the chain is not initialized".into());
        };
        // The next block's time is not known; the head's is near enough, and the proposal decides.
        let block = head.next_block(head.header.timestamp + 1, head.header.beneficiary);
        let known = Known::new(&job.held, network, self.inline_ops);
        let begin = thread_time();
        let db = CacheDB::new(Layered { before: &job.before, base: Db(head.view.clone()) });
        let mut executor = Executor::new(&self.rules, block, db, &known, OnMiss::Placeholder);
        match executor.run(tx_env(&job.tx.tx, job.tx.sender)) {
            Ok(execution) => {
                let answered = execution.calls.iter().filter(|call| !call.missed);
                let used = answered.filter_map(|call| Some((call.id, known.had(&call.id)?))).collect();
                Simulation::Ran {
                    height: head.number(),
                    used,
                    reads: ReadSet::of(&execution.state, [job.tx.sender, block.beneficiary]),
                    post: Arc::new(execution.state),
                    calls: execution.calls,
                    took: thread_time().saturating_sub(begin),
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

/// The head's state under what earlier transactions leave behind, the newest on top. Nothing is copied: a long chain of
/// one account's transactions costs each of them look-ups, not the states of all before it.
#[derive(Debug)]
struct Layered<'a> {
    before: &'a [Arc<EvmState>],
    base: Db<View>,
}

impl DatabaseRef for Layered<'_> {
    type Error = StateError;

    fn basic_ref(&self, address: Address) -> Result<Option<AccountInfo>, StateError> {
        match self.before.iter().rev().find_map(|layer| layer.get(&address)) {
            // EIP-161: what is empty is not there.
            Some(account) if account.is_selfdestructed() || account.is_empty() => Ok(None),
            Some(account) => Ok(Some(account.info.clone())),
            None => self.base.basic_ref(address),
        }
    }

    fn code_by_hash_ref(&self, hash: B256) -> Result<Bytecode, StateError> {
        // The head has nearly all of them: only what these transactions create is to be searched for.
        let from_head = self.base.code_by_hash_ref(hash);
        if from_head.is_ok() {
            return from_head;
        }
        let created = self.before.iter().flat_map(|layer| layer.values()).filter(|account| account.is_touched());
        let mut codes = created.filter(|account| account.info.code_hash == hash).filter_map(|a| a.info.code.clone());
        codes.next().map_or(from_head, Ok)
    }

    fn storage_ref(&self, address: Address, slot: U256) -> Result<U256, StateError> {
        for account in self.before.iter().rev().filter_map(|layer| layer.get(&address)) {
            if account.is_selfdestructed() {
                return Ok(U256::ZERO);
            }
            if let Some(slot) = account.storage.get(&slot) {
                return Ok(slot.present_value);
            }
            if account.is_created() {
                return Ok(U256::ZERO);
            }
        }
        self.base.storage_ref(address, slot)
    }

    fn block_hash_ref(&self, number: u64) -> Result<B256, StateError> {
        self.base.block_hash_ref(number)
    }
}
