//! Executing a block's transactions one after the other: the same code for proposal, verification and finalization.

use std::collections::HashSet;

use alloy_consensus::{ReceiptEnvelope, Transaction, TxEnvelope, TxType};
use alloy_primitives::{Address, B256, Bloom};
use penstock_evm::{
    BlockContext, Call, Db, ExecError, Execution, Executor, ExecutorError, OnMiss, Results, Rules, StateError,
    TASK_SENDER, tx_env,
};
use penstock_inference::RequestId;
use penstock_state::View;
use revm::{
    Database,
    context::result::InvalidTransaction,
    database::{BundleState, State, WrapDatabaseRef, states::bundle_state::BundleRetention},
};

use crate::{
    ScheduledTask, StoredReceipt,
    block::receipt_envelopes,
    tasks::{SCHEDULER, Task, most_tasks},
};

type BlockDb = State<WrapDatabaseRef<Db<View>>>;

/// Why a transaction cannot be at this place of a block.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum NotIncluded {
    /// Nonce, balance or fee.
    #[error("{0}")]
    Invalid(InvalidTransaction),
    /// Its type is not accepted on this chain.
    #[error("blob transactions are not supported")]
    Blob,
    /// The block has less gas left than the transaction may use.
    #[error("it does not fit the gas that is left in the block")]
    Gas,
    /// Its requests do not fit `maxBlockOps`.
    #[error("its requests do not fit maxBlockOps")]
    Ops,
    /// A result is missing.
    #[error("no result for inference {id}")]
    Missing {
        /// The request.
        id: RequestId,
        /// The requests up to it.
        calls: Vec<Call>,
    },
    /// It runs a task that may not run here.
    #[error("{0}")]
    Task(&'static str),
    /// The state cannot be read.
    #[error("{0}")]
    State(StateError),
}

/// A transaction that ran and can be committed.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) execution: Execution,
    /// Requests that no earlier transaction of the block made, each once, in order.
    pub(crate) new_calls: Vec<Call>,
}

/// A block that was executed.
#[derive(Debug, Clone)]
pub(crate) struct Executed {
    pub(crate) changes: BundleState,
    pub(crate) receipts: Vec<StoredReceipt>,
    pub(crate) types: Vec<TxType>,
    pub(crate) gas_used: u64,
    /// Every request of the block, each once, in the order of first use.
    pub(crate) calls: Vec<Call>,
}

/// A block that is being executed.
pub(crate) struct BlockRun<'a> {
    rules: &'a Rules,
    executor: Executor<'a, BlockDb>,
    receipts: Vec<StoredReceipt>,
    types: Vec<TxType>,
    gas_used: u64,
    ops: u64,
    seen: HashSet<RequestId>,
    calls: Vec<Call>,
    /// Gas of the tasks so far, and how many they are.
    task_gas_used: u64,
    tasks_run: usize,
    /// Turn of the last one.
    last_turn: Option<(u64, u64)>,
}

/// A task that ran and can be committed.
#[derive(Debug)]
pub(crate) struct RanTask {
    pub(crate) ran: Ran,
    turn: (u64, u64),
}

impl<'a> BlockRun<'a> {
    pub(crate) fn begin(
        rules: &'a Rules,
        block: BlockContext,
        view: View,
        results: &'a dyn Results,
        on_miss: OnMiss,
    ) -> Result<Self, StateError> {
        let db = State::builder().with_database(WrapDatabaseRef(Db(view))).with_bundle_update().build();
        let mut executor = Executor::new(rules, block, db, results, on_miss);
        executor.begin_block().map_err(|error| match error {
            ExecError::State(error) => error,
            other => StateError::Storage(other.to_string()),
        })?;
        Ok(Self {
            rules,
            executor,
            receipts: Vec::new(),
            types: Vec::new(),
            gas_used: 0,
            ops: 0,
            seen: HashSet::new(),
            calls: Vec::new(),
            task_gas_used: 0,
            tasks_run: 0,
            last_turn: None,
        })
    }

    /// Runs a transaction on what the earlier ones left, without committing it.
    pub(crate) fn run(&mut self, tx: &TxEnvelope, sender: Address) -> Result<Ran, NotIncluded> {
        if tx.is_eip4844() {
            return Err(NotIncluded::Blob);
        }
        if tx.gas_limit() > self.rules.block_gas_limit - self.gas_used {
            return Err(NotIncluded::Gas);
        }
        let execution = self.executor.run(tx_env(tx, sender)).map_err(|error| match error {
            ExecError::Invalid(invalid) => NotIncluded::Invalid(invalid),
            ExecError::Missing { id, calls } => NotIncluded::Missing { id, calls },
            ExecError::State(error) => NotIncluded::State(error),
        })?;
        let mut new = HashSet::new();
        let is_new = |call: &&Call| !self.seen.contains(&call.id) && new.insert(call.id);
        let new_calls: Vec<Call> = execution.calls.iter().filter(is_new).cloned().collect();
        let ops = new_calls.iter().fold(self.ops, |sum, call| sum.saturating_add(call.ops));
        if ops > self.rules.limits.max_block_ops {
            return Err(NotIncluded::Ops);
        }
        Ok(Ran { execution, new_calls })
    }

    /// Runs the transaction of a task on what the earlier ones left, without committing it. Whether it is due and paid is
    /// for the contract to say; the turn, and the gas of all of them, are the block's business.
    pub(crate) fn run_task(&mut self, task: &ScheduledTask, tx: &TxEnvelope) -> Result<RanTask, NotIncluded> {
        // Also where each uses less than a run's overhead: the number is bounded before anything is executed.
        if self.tasks_run >= most_tasks(self.rules.task_gas_per_block) {
            return Err(NotIncluded::Task("the block has as many tasks as it may have"));
        }
        if task.gas > self.rules.task_gas_per_block.saturating_sub(self.task_gas_used) {
            return Err(NotIncluded::Task("it does not fit the gas that is left for tasks"));
        }
        let registered = self.task(task.id).map_err(|error| NotIncluded::State(error.into_state_error()))?;
        let registered = registered.ok_or(NotIncluded::Task("there is no such task"))?;
        if task.gas != registered.run_gas() {
            return Err(NotIncluded::Task("it has other gas than its owner says"));
        }
        let turn = registered.turn();
        if self.last_turn.is_some_and(|last| turn <= last) {
            return Err(NotIncluded::Task("it is not its turn"));
        }
        let ran = self.run(tx, TASK_SENDER)?;
        if ran.execution.is_success() {
            Ok(RanTask { ran, turn })
        } else {
            Err(NotIncluded::Task("it is not due or not paid"))
        }
    }

    /// A task as the transactions so far left it.
    fn task(&mut self, id: u64) -> Result<Option<Task>, <BlockDb as Database>::Error> {
        let db = self.executor.db_mut();
        // revm's database has slots only of accounts that it has loaded.
        db.basic(SCHEDULER)?;
        Task::read(id, &mut |slot| db.storage(SCHEDULER, slot))
    }

    /// Makes a task part of the block.
    pub(crate) fn commit_task(&mut self, tx: &TxEnvelope, RanTask { ran, turn }: RanTask) {
        self.task_gas_used += ran.execution.gas_used;
        self.tasks_run += 1;
        self.last_turn = Some(turn);
        self.commit(tx, TASK_SENDER, ran);
    }

    /// Makes a transaction part of the block.
    pub(crate) fn commit(&mut self, tx: &TxEnvelope, sender: Address, ran: Ran) {
        let Ran { execution, new_calls } = ran;
        let mut seen = HashSet::new();
        let requests: Vec<B256> =
            execution.calls.iter().filter(|call| seen.insert(call.id)).map(|call| call.id.0).collect();
        self.gas_used += execution.gas_used;
        self.ops = new_calls.iter().fold(self.ops, |sum, call| sum.saturating_add(call.ops));
        self.seen.extend(new_calls.iter().map(|call| call.id));
        self.calls.extend(new_calls);
        self.types.push(tx.tx_type());
        let (success, gas_used) = (execution.is_success(), execution.gas_used);
        self.receipts.push(StoredReceipt { success, gas_used, sender, logs: execution.logs, requests });
        self.executor.commit(execution.state);
    }

    /// Gas that is left in the block.
    pub(crate) fn gas_left(&self) -> u64 {
        self.rules.block_gas_limit - self.gas_used
    }

    pub(crate) fn finish(self) -> Executed {
        let Self { executor, receipts, types, gas_used, calls, .. } = self;
        let mut db = executor.into_db();
        db.merge_transitions(BundleRetention::PlainState);
        Executed { changes: db.take_bundle(), receipts, types, gas_used, calls }
    }
}

impl Executed {
    /// The receipts as Ethereum's receipts trie has them.
    pub(crate) fn receipt_envelopes(&self) -> Vec<ReceiptEnvelope> {
        receipt_envelopes(&self.receipts, self.types.iter().copied())
    }

    /// The bloom of all logs.
    pub(crate) fn bloom(&self) -> Bloom {
        self.receipts.iter().flat_map(|receipt| &receipt.logs).fold(Bloom::ZERO, |mut bloom, log| {
            bloom.accrue_log(log);
            bloom
        })
    }
}
