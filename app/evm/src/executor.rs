//! Runs transactions of one block, or a call.

use alloy_eips::{eip2935::HISTORY_STORAGE_ADDRESS, eip4788::BEACON_ROOTS_ADDRESS};
use alloy_primitives::{Address, Bytes, Log};
use penstock_inference::RequestId;
use revm::{
    Database, DatabaseCommit, ExecuteEvm, SystemCallEvm,
    context::{
        BlockEnv, CfgEnv, Context, Evm, FrameStack, Journal, TxEnv,
        result::{EVMError, ExecutionResult, InvalidTransaction, ResultAndState},
    },
    database_interface::bal::EvmDatabaseError,
    handler::{EthFrame, instructions::EthInstructions},
    interpreter::interpreter::EthInterpreter,
    primitives::hardfork::SpecId,
    state::EvmState,
};

use crate::{BlockContext, Call, CarriesMissing, OnMiss, Results, Rules, StateError, precompile::Precompiles};

type Ctx<DB> = Context<BlockEnv, TxEnv, CfgEnv<SpecId>, DB, Journal<DB>, ()>;
type InferenceEvm<'a, DB> =
    Evm<Ctx<DB>, (), EthInstructions<EthInterpreter, Ctx<DB>>, Precompiles<'a>, EthFrame<EthInterpreter>>;

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
    /// Neither nonce, base fee nor sender's code are checked (`eth_call`). The balance is, as in geth:
    /// without a gas price only the value has to be covered.
    pub unchecked: bool,
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

/// Runs transactions one after the other.
pub struct Executor<'a, DB: Database> {
    evm: InferenceEvm<'a, DB>,
    block: BlockContext,
}

impl<DB: Database> core::fmt::Debug for Executor<'_, DB> {
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
        let mut ctx: Ctx<DB> = Context::new(db, rules.spec);
        ctx.cfg.set_spec_and_mainnet_gas_params(rules.spec);
        ctx.cfg.chain_id = rules.chain_id;
        // EIP-7825's cap is raised to the block's limit: model-calling contracts send 30,000,000.
        ctx.cfg.tx_gas_limit_cap = Some(rules.block_gas_limit);
        ctx.block = block.env(rules.block_gas_limit);
        let evm = Evm {
            ctx,
            inspector: (),
            instruction: EthInstructions::new_mainnet_with_spec(rules.spec),
            precompiles: Precompiles::new(rules, results, on_miss),
            frame_stack: FrameStack::new_prealloc(8),
        };
        Self { evm, block }
    }

    /// The same, with checks left out.
    #[must_use]
    pub fn with_options(mut self, options: CallOptions) -> Self {
        let cfg = &mut self.evm.ctx.cfg;
        cfg.disable_nonce_check = options.unchecked;
        cfg.disable_base_fee = options.unchecked;
        cfg.disable_eip3607 = options.unchecked;
        self
    }

    /// The system calls at the top of a block: EIP-4788 (here with the parent's Ethereum header hash in
    /// the place of a beacon root, which this chain has none of) and EIP-2935.
    ///
    /// # Errors
    /// [`ExecError::State`].
    pub fn begin_block(&mut self) -> Result<(), ExecError> {
        for contract in [BEACON_ROOTS_ADDRESS, HISTORY_STORAGE_ADDRESS] {
            let data = Bytes::copy_from_slice(self.block.parent_hash.as_slice());
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
        let result = self.evm.transact(tx);
        let calls = self.evm.precompiles.take_calls();
        let ResultAndState { result, state } = result.map_err(|error| match into_exec_error(error) {
            ExecError::State(StateError::Missing(id)) => ExecError::Missing { id, calls: calls.clone() },
            other => other,
        })?;
        let gas_used = result.tx_gas_used();
        let created = result.created_address();
        Ok(match result {
            ExecutionResult::Success { logs, output, .. } => {
                Execution { status: Status::Success, gas_used, logs, output: output.into_data(), created, state, calls }
            }
            ExecutionResult::Revert { output, .. } => {
                Execution { status: Status::Revert, gas_used, logs: vec![], output, created: None, state, calls }
            }
            ExecutionResult::Halt { reason, .. } => {
                let status = Status::Halt(format!("{reason:?}"));
                Execution { status, gas_used, logs: vec![], output: Bytes::new(), created: None, state, calls }
            }
        })
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
