//! Transfers of the chain's coin as ERC-20 logs, in the place where they happen: `eth_simulateV1`'s `traceTransfers`.

use alloy_primitives::{Address, B256, Log, LogData, U256};
use alloy_sol_types::SolValue;
use penstock_evm::EvmContext;
use revm::{
    Database, Inspector,
    bytecode::opcode,
    context::{ContextTr, JournalTr},
    interpreter::{
        CallInputs, CallOutcome, CreateInputs, CreateOutcome, Interpreter,
        interpreter::EthInterpreter,
        interpreter_types::{InputsTr, Jumps},
    },
};
use revm_inspectors::transfer::{TRANSFER_EVENT_TOPIC, TRANSFER_LOG_EMITTER};

/// Logs transfers in the journal, in their place among the logs. Unlike the inspector of `revm-inspectors` it has those of
/// self-destructed contracts, too, and none of frames that failed.
#[derive(Debug, Clone)]
pub(super) struct Transfers {
    told: bool,
    /// Of each frame that runs: how many logs there were before it.
    frames: Vec<usize>,
}

impl Transfers {
    pub(super) fn new(told: bool) -> Self {
        Self { told, frames: Vec::new() }
    }

    fn begin<DB: Database>(&mut self, context: &EvmContext<DB>) {
        self.frames.push(context.journaled_state.inner.logs.len());
    }

    /// The transfer into a frame is logged before the frame's checkpoint: its failure does not take the log back.
    fn end<DB: Database>(&mut self, context: &mut EvmContext<DB>, succeeded: bool) {
        if let Some(before) = self.frames.pop()
            && !succeeded
        {
            context.journaled_state.inner.logs.truncate(before);
        }
    }

    fn tell<DB: Database>(&self, context: &mut EvmContext<DB>, from: Address, to: Address, value: U256) {
        if !self.told || value.is_zero() {
            return;
        }
        let topic = |address: Address| B256::left_padding_from(address.as_slice());
        let data =
            LogData::new_unchecked(vec![TRANSFER_EVENT_TOPIC, topic(from), topic(to)], value.abi_encode().into());
        context.journal_mut().log(Log { address: TRANSFER_LOG_EMITTER, data });
    }
}

impl<DB: Database> Inspector<EvmContext<DB>, EthInterpreter> for Transfers {
    fn call(&mut self, context: &mut EvmContext<DB>, inputs: &mut CallInputs) -> Option<CallOutcome> {
        self.begin(context);
        if let Some(value) = inputs.transfer_value() {
            self.tell(context, inputs.transfer_from(), inputs.transfer_to(), value);
        }
        None
    }

    fn create(&mut self, context: &mut EvmContext<DB>, inputs: &mut CreateInputs) -> Option<CreateOutcome> {
        self.begin(context);
        let nonce = context.journal_mut().load_account(inputs.caller()).ok()?.data.info.nonce;
        let created = inputs.created_address(nonce);
        self.tell(context, inputs.caller(), created, inputs.value());
        None
    }

    fn call_end(&mut self, context: &mut EvmContext<DB>, _inputs: &CallInputs, outcome: &mut CallOutcome) {
        self.end(context, outcome.result.is_ok());
    }

    fn create_end(&mut self, context: &mut EvmContext<DB>, _inputs: &CreateInputs, outcome: &mut CreateOutcome) {
        self.end(context, outcome.result.is_ok());
    }

    fn step(&mut self, interpreter: &mut Interpreter<EthInterpreter>, context: &mut EvmContext<DB>) {
        if !self.told || interpreter.bytecode.opcode() != opcode::SELFDESTRUCT {
            return;
        }
        let Ok(heir) = interpreter.stack.peek(0) else { return };
        let contract = interpreter.input.target_address();
        // The account of the running code is loaded and warm: looking at it costs and changes nothing.
        let Ok(account) = context.journal_mut().load_account(contract) else { return };
        let balance = account.data.info.balance;
        self.tell(context, contract, Address::from_word(heir.into()), balance);
    }
}
