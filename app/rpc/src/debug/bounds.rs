//! Ends a trace that takes too long or grows too large.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use alloy_rpc_types_trace::geth::{GethDebugBuiltInTracerType, GethDebugTracerType, GethDebugTracingOptions};
use penstock_evm::EvmContext;
use revm::{
    Database, Inspector,
    context::{ContextError, ContextTr},
    interpreter::{CallInputs, CallOutcome, CreateInputs, CreateOutcome, Interpreter, interpreter::EthInterpreter},
    primitives::Log,
};

/// Instructions between two looks at the clock.
const STEPS: u32 = 1_024;

/// Memory of a recorded instruction besides its stack and memory, about.
const STEP_BYTES: usize = 600;

/// Memory of a recorded call or log besides its data, about.
const CALL_BYTES: usize = 1_000;

/// An inspector that ends the execution at a point in time, or when what a tracer records has grown beyond a size: with an
/// error that no contract sees. It stands before the tracer, and counts all transactions of a trace.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    until: Instant,
    bytes_left: usize,
    /// Whether the tracer records every instruction, and of each the memory.
    steps_are_kept: bool,
    memory_is_kept: bool,
    steps: u32,
    too_large: Arc<AtomicBool>,
}

impl Bounds {
    pub(super) fn new(until: Instant, bytes: usize, options: &GethDebugTracingOptions) -> Self {
        let steps_are_kept = match &options.tracer {
            None => true,
            Some(GethDebugTracerType::BuiltInTracer(tracer)) => *tracer == GethDebugBuiltInTracerType::Erc7562Tracer,
            Some(GethDebugTracerType::JsTracer(name)) => name.is_empty(),
        };
        Self {
            until,
            bytes_left: bytes,
            steps_are_kept,
            memory_is_kept: steps_are_kept && options.config.is_memory_enabled(),
            steps: 0,
            too_large: Arc::default(),
        }
    }

    /// Whether the size was why an execution ended; for whoever has not the inspector any more.
    pub(super) fn too_large(&self) -> Arc<AtomicBool> {
        self.too_large.clone()
    }

    fn take<DB: Database>(&mut self, bytes: usize, context: &mut EvmContext<DB>) -> bool {
        match self.bytes_left.checked_sub(bytes) {
            Some(left) => {
                self.bytes_left = left;
                true
            }
            None => {
                self.bytes_left = 0;
                self.too_large.store(true, Ordering::Relaxed);
                *context.error() = Err(ContextError::Custom("trace too large".into()));
                false
            }
        }
    }
}

impl<DB: Database> Inspector<EvmContext<DB>, EthInterpreter> for Bounds {
    fn step(&mut self, interpreter: &mut Interpreter<EthInterpreter>, context: &mut EvmContext<DB>) {
        self.steps += 1;
        if self.steps.is_multiple_of(STEPS) && Instant::now() >= self.until {
            *context.error() = Err(ContextError::Custom("execution timeout".into()));
            interpreter.halt_fatal();
            return;
        }
        let mut bytes = 0;
        if self.steps_are_kept {
            bytes += STEP_BYTES + 32 * interpreter.stack.len();
        }
        if self.memory_is_kept {
            bytes += interpreter.memory.len();
        }
        if !self.take(bytes, context) {
            interpreter.halt_fatal();
        }
    }

    fn log(&mut self, context: &mut EvmContext<DB>, log: Log) {
        // The next instruction ends the execution.
        self.take(CALL_BYTES + log.data.data.len(), context);
    }

    fn call(&mut self, context: &mut EvmContext<DB>, inputs: &mut CallInputs) -> Option<CallOutcome> {
        self.take(CALL_BYTES + inputs.input.len(), context);
        None
    }

    fn call_end(&mut self, context: &mut EvmContext<DB>, _inputs: &CallInputs, outcome: &mut CallOutcome) {
        self.take(outcome.result.output.len(), context);
    }

    fn create(&mut self, context: &mut EvmContext<DB>, inputs: &mut CreateInputs) -> Option<CreateOutcome> {
        self.take(CALL_BYTES + inputs.init_code().len(), context);
        None
    }

    fn create_end(&mut self, context: &mut EvmContext<DB>, _inputs: &CreateInputs, outcome: &mut CreateOutcome) {
        self.take(outcome.result.output.len(), context);
    }
}
