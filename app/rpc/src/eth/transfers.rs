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

/// Logs transfers in the journal, so that those of reverted frames go with them. Unlike the inspector of `revm-inspectors`
/// it has those of self-destructed contracts, too.
#[derive(Debug, Clone, Copy)]
pub(super) struct Transfers {
    pub(super) told: bool,
}

impl Transfers {
    fn tell<DB: Database>(self, context: &mut EvmContext<DB>, from: Address, to: Address, value: U256) {
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
        if let Some(value) = inputs.transfer_value() {
            self.tell(context, inputs.transfer_from(), inputs.transfer_to(), value);
        }
        None
    }

    fn create(&mut self, context: &mut EvmContext<DB>, inputs: &mut CreateInputs) -> Option<CreateOutcome> {
        let nonce = context.journal_mut().load_account(inputs.caller()).ok()?.data.info.nonce;
        let created = inputs.created_address(nonce);
        self.tell(context, inputs.caller(), created, inputs.value());
        None
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
