//! Ends an execution that takes too long.

use std::time::Instant;

use penstock_evm::EvmContext;
use revm::{
    Database, Inspector,
    context::{ContextError, ContextTr},
    interpreter::{Interpreter, interpreter::EthInterpreter},
};

/// Instructions between two looks at the clock.
const STEPS: u32 = 1_024;

/// An inspector that ends the execution at a point in time, with an error that no contract sees.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    at: Instant,
    steps: u32,
}

impl Deadline {
    pub(super) fn at(at: Instant) -> Self {
        Self { at, steps: 0 }
    }
}

impl<DB: Database> Inspector<EvmContext<DB>, EthInterpreter> for Deadline {
    fn step(&mut self, interpreter: &mut Interpreter<EthInterpreter>, context: &mut EvmContext<DB>) {
        self.steps += 1;
        if self.steps.is_multiple_of(STEPS) && Instant::now() >= self.at {
            *context.error() = Err(ContextError::Custom("execution timeout".into()));
            interpreter.halt_fatal();
        }
    }
}
