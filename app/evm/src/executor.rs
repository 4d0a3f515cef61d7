//! Runs transactions of one block, or a call.

use alloy_eips::{eip2935::HISTORY_STORAGE_ADDRESS, eip4788::BEACON_ROOTS_ADDRESS};
use alloy_primitives::{Address, B256, Bytes, Log, address};
use penstock_inference::RequestId;
use revm::{
    Database, DatabaseCommit, ExecuteEvm, InspectEvm, Inspector, SystemCallEvm,
    context::{
        BlockEnv, CfgEnv, Context, Evm, FrameStack, Journal, TxEnv,
        result::{EVMError, ExecutionResult, HaltReason, InvalidTransaction, ResultAndState},
    },
    database_interface::bal::EvmDatabaseError,
    handler::{EthFrame, instructions::EthInstructions},
    interpreter::interpreter::EthInterpreter,
    primitives::hardfork::SpecId,
    state::EvmState,
};

use crate::{
    BlockContext, Call, CarriesMissing, OnMiss, PrecompilePlaces, Results, Rules, StateError, precompile::Precompiles,
};

/// What an inspector sees of an execution.
pub type EvmContext<DB> = Context<BlockEnv, TxEnv, CfgEnv<SpecId>, DB, Journal<DB>, ()>;

type InferenceEvm<'a, DB, I> =
    Evm<EvmContext<DB>, I, EthInstructions<EthInterpreter, EvmContext<DB>>, Precompiles<'a>, EthFrame<EthInterpreter>>;

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// It succeeded.
    Success,
    /// It reverted, with the data in [`Execution::output`].
    Revert,
    /// It failed and used all its gas; the reason is for people, never for consensus.
    Halt(String),
}

/// A transaction that ran. Nothing is committed yet.
#[derive(Debug, Clone)]
pub struct Execution {
    /// How it ended.
    pub status: Status,
    /// Gas that the sender pays for.
    pub gas_used: u64,
    /// Logs.
    pub logs: Vec<Log>,
    /// Return or revert data.
    pub output: Bytes,
    /// The contract that it created.
    pub created: Option<Address>,
    /// Every account and slot that it read or changed.
    pub state: EvmState,
    /// The requests that it made, in order.
    pub calls: Vec<Call>,
}

impl Execution {
    /// Whether it succeeded.
    pub fn is_success(&self) -> bool {
        self.status == Status::Success
    }
}

/// Why a transaction did not run. The state is as before.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ExecError {
    /// It may not be in a block at this point (nonce, balance, fee, gas).
    #[error("{0}")]
    Invalid(InvalidTransaction),
    /// A result is missing ([`OnMiss::Abort`]); the calls up to it, the missing one last.
    #[error("no result yet for inference {id}")]
    Missing {
        /// The request.
        id: RequestId,
        /// The requests made so far, the missing one last.
        calls: Vec<Call>,
    },
    /// The state cannot be read: the node cannot go on.
    #[error("{0}")]
    State(StateError),
}

/// Checks that a read-only call does not make.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallOptions {
    /// Neither nonce nor sender's code are checked (`eth_call`), and the base fee only if the call names a fee. The balance
    /// is, as in geth: without a gas price only the value has to be covered.
    pub unchecked: bool,
}

/// A transaction that ran under an inspector: revm's own result, which tracers read, and the requests.
#[derive(Debug, Clone)]
pub struct Inspected {
    /// Result and every account that it read or changed.
    pub result: ResultAndState<HaltReason>,
    /// The requests that it made, in order.
    pub calls: Vec<Call>,
}

impl From<Inspected> for Execution {
    fn from(inspected: Inspected) -> Self {
        let Inspected { result: ResultAndState { result, state }, calls } = inspected;
        let gas_used = result.tx_gas_used();
        let created = result.created_address();
        match result {
            ExecutionResult::Success { logs, output, .. } => {
                Self { status: Status::Success, gas_used, logs, output: output.into_data(), created, state, calls }
            }
            ExecutionResult::Revert { output, .. } => {
                Self { status: Status::Revert, gas_used, logs: vec![], output, created: None, state, calls }
            }
            ExecutionResult::Halt { reason, .. } => {
                let status = Status::Halt(text_of(&reason));
                Self { status, gas_used, logs: vec![], output: Bytes::new(), created: None, state, calls }
            }
        }
    }
}

/// Errors of databases that this executor can run on.
pub trait ExecutorError: CarriesMissing + core::error::Error + Send + Sync + 'static {
    /// The plain error.
    fn into_state_error(self) -> StateError;
}

impl ExecutorError for StateError {
    fn into_state_error(self) -> StateError {
        self
    }
}

impl ExecutorError for EvmDatabaseError<StateError> {
    fn into_state_error(self) -> StateError {
        match self {
            Self::Database(error) => error,
            Self::Bal(error) => StateError::Storage(error.to_string()),
        }
    }
}

/// The sender of the transactions that run scheduled tasks. Nobody has a key to it.
pub const TASK_SENDER: Address = address!("fffffffffffffffffffffffffffffffffffffff9");

/// Runs transactions one after the other; `I` looks on ([`Self::inspect`]).
pub struct Executor<'a, DB: Database, I = ()> {
    evm: InferenceEvm<'a, DB, I>,
    block: BlockContext,
    options: CallOptions,
}

impl<DB: Database, I> core::fmt::Debug for Executor<'_, DB, I> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Executor").field("block", &self.block).finish_non_exhaustive()
    }
}

impl<'a, DB> Executor<'a, DB>
where
    DB: Database<Error: ExecutorError> + DatabaseCommit,
{
    /// An executor for one block.
    pub fn new(rules: &'a Rules, block: BlockContext, db: DB, results: &'a dyn Results, on_miss: OnMiss) -> Self {
        let mut ctx: EvmContext<DB> = Context::new(db, rules.spec);
        ctx.cfg.chain_id = rules.chain_id;
        // EIP-7825's cap is raised to the block's limit: model-calling contracts send 30,000,000.
        ctx.cfg.tx_gas_limit_cap = Some(rules.block_gas_limit);
        ctx.block = block.env(rules.block_gas_limit);
        let evm = Evm {
            ctx,
            inspector: (),
            instruction: EthInstructions::new_mainnet_with_spec(rules.spec),
            precompiles: Precompiles::new(rules, results, on_miss),
            // Frames are 32 KiB each: deeper ones are made when they are needed, and kept.
            frame_stack: FrameStack::new_prealloc(1),
        };
        Self { evm, block, options: CallOptions::default() }
    }

    /// The same, looked on by an inspector.
    pub fn with_inspector<I>(self, inspector: I) -> Executor<'a, DB, I> {
        Executor { evm: self.evm.with_inspector(inspector), block: self.block, options: self.options }
    }
}

impl<'a, DB, I> Executor<'a, DB, I>
where
    DB: Database<Error: ExecutorError> + DatabaseCommit,
{
    /// The same, with checks left out.
    #[must_use]
    pub fn with_options(mut self, options: CallOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets the checks for a transaction. One that runs a task has no signature: its nonce is the height, and its price is
    /// charged to the deposit of the task's owner, by the contract that it calls.
    fn prepare(&mut self, tx: TxEnv) -> TxEnv {
        let is_task = tx.caller == TASK_SENDER;
        let cfg = &mut self.evm.ctx.cfg;
        cfg.disable_nonce_check = self.options.unchecked || is_task;
        // As geth has it: a call that names a fee has to name one that suffices.
        let pays_nothing = tx.gas_price == 0 && tx.gas_priority_fee.unwrap_or_default() == 0;
        cfg.disable_base_fee = is_task || (self.options.unchecked && pays_nothing);
        cfg.disable_eip3607 = self.options.unchecked;
        TxEnv { gas_price: if is_task { 0 } else { tx.gas_price }, ..tx }
    }

    /// The same in other surroundings than its block's: calls may choose theirs. One transaction may use all the gas of
    /// such a block.
    #[must_use]
    pub fn with_block_env(mut self, env: BlockEnv) -> Self {
        self.evm.ctx.cfg.tx_gas_limit_cap = Some(env.gas_limit);
        self.evm.ctx.block = env;
        self
    }

    /// The same with precompiles at other addresses.
    #[must_use]
    pub fn with_precompiles(mut self, places: PrecompilePlaces) -> Self {
        self.evm.precompiles.place(places);
        self
    }

    /// The system calls at the top of a block: EIP-4788 (here with the parent's Ethereum header hash in
    /// the place of a beacon root, which this chain has none of) and EIP-2935.
    ///
    /// # Errors
    /// [`ExecError::State`].
    pub fn begin_block(&mut self) -> Result<(), ExecError> {
        self.begin_block_with(self.block.parent_hash)
    }

    /// [`Self::begin_block`] with another root in the place of the parent's hash: simulated blocks choose theirs.
    ///
    /// # Errors
    /// [`ExecError::State`].
    pub fn begin_block_with(&mut self, beacon_root: B256) -> Result<(), ExecError> {
        for (contract, hash) in [(BEACON_ROOTS_ADDRESS, beacon_root), (HISTORY_STORAGE_ADDRESS, self.block.parent_hash)]
        {
            let data = Bytes::copy_from_slice(hash.as_slice());
            let ResultAndState { state, .. } = self.evm.system_call(contract, data).map_err(into_exec_error)?;
            self.db_mut().commit(state);
        }
        Ok(())
    }

    /// Runs a transaction on the state so far, without committing it.
    ///
    /// # Errors
    /// [`ExecError`]; the executor can go on with another transaction.
    pub fn run(&mut self, tx: TxEnv) -> Result<Execution, ExecError> {
        self.evm.precompiles.take_calls();
        let tx = self.prepare(tx);
        let result = self.evm.transact(tx);
        self.ended(result).map(Execution::from)
    }

    /// The requests of a run, with its result or its error.
    fn ended(
        &mut self,
        result: Result<ResultAndState<HaltReason>, EVMError<DB::Error>>,
    ) -> Result<Inspected, ExecError> {
        let calls = self.evm.precompiles.take_calls();
        match result.map_err(into_exec_error) {
            Ok(result) => Ok(Inspected { result, calls }),
            Err(ExecError::State(StateError::Missing(id))) => Err(ExecError::Missing { id, calls }),
            Err(error) => Err(error),
        }
    }

    /// Makes the changes of a run part of the state.
    pub fn commit(&mut self, state: EvmState) {
        self.db_mut().commit(state);
    }

    /// The database.
    pub fn db_mut(&mut self) -> &mut DB {
        &mut self.evm.ctx.journaled_state.database
    }

    /// The database, at the end of the block.
    pub fn into_db(self) -> DB {
        self.evm.ctx.journaled_state.database
    }

    /// The surroundings of its transactions.
    pub fn block_env(&self) -> &BlockEnv {
        &self.evm.ctx.block
    }
}

impl<DB, I> Executor<'_, DB, I>
where
    DB: Database<Error: ExecutorError> + DatabaseCommit,
    I: Inspector<EvmContext<DB>>,
{
    /// [`Self::run`], with an inspector that looks on.
    ///
    /// # Errors
    /// [`ExecError`]; the executor can go on with another transaction.
    pub fn inspect(&mut self, tx: TxEnv) -> Result<Inspected, ExecError> {
        self.evm.precompiles.take_calls();
        let tx = self.prepare(tx);
        let result = self.evm.inspect_tx(tx);
        self.ended(result)
    }

    /// The inspector, the surroundings and the database: what a tracer's report needs together.
    pub fn parts_mut(&mut self) -> (&mut I, &BlockEnv, &mut DB) {
        (&mut self.evm.inspector, &self.evm.ctx.block, &mut self.evm.ctx.journaled_state.database)
    }
}

/// geth's words, which clients match on; for people, never for consensus.
fn text_of(reason: &HaltReason) -> String {
    let text = match reason {
        HaltReason::OutOfGas(_) => "out of gas",
        HaltReason::OpcodeNotFound | HaltReason::NotActivated => "invalid opcode",
        HaltReason::InvalidFEOpcode => "invalid opcode: INVALID",
        HaltReason::InvalidJump => "invalid jump destination",
        HaltReason::StackUnderflow => "stack underflow",
        HaltReason::StackOverflow => "stack limit reached 1024 (1023)",
        HaltReason::OutOfOffset => "return data out of bounds",
        HaltReason::CreateCollision => "contract address collision",
        HaltReason::NonceOverflow => "nonce uint64 overflow",
        HaltReason::CreateContractSizeLimit => "max code size exceeded",
        HaltReason::CreateContractStartingWithEF => "invalid code: must not begin with 0xef",
        HaltReason::CreateInitCodeSizeLimit => "max initcode size exceeded",
        HaltReason::StateChangeDuringStaticCall | HaltReason::CallNotAllowedInsideStatic => "write protection",
        HaltReason::OutOfFunds => "insufficient balance for transfer",
        HaltReason::CallTooDeep => "max call depth exceeded",
        other => return other.to_string(),
    };
    text.to_owned()
}

fn into_exec_error<E: ExecutorError>(error: EVMError<E>) -> ExecError {
    match error {
        EVMError::Transaction(invalid) => ExecError::Invalid(invalid),
        EVMError::Database(error) => ExecError::State(error.into_state_error()),
        EVMError::Header(error) => ExecError::State(StateError::Storage(error.to_string())),
        EVMError::Custom(error) => ExecError::State(StateError::Storage(error)),
        EVMError::CustomAny(error) => ExecError::State(StateError::Storage(error.to_string())),
    }
}
