//! The precompiles for inference and prices: a provider of precompiles for revm that adds three addresses to
//! Ethereum's. [`dispatch`] and [`price_feed`] decode, price and answer; this file is the boundary to revm.

mod candles;
mod dispatch;
mod layout;
mod price_feed;
mod request;
mod response;

use core::fmt;
use std::{collections::HashMap, sync::Arc};

use alloy_primitives::{Address, Bytes, Log, LogData, U256, address};
use penstock_inference::{InferenceRequest, RequestId};
use revm::{
    Database,
    context::{Cfg, ContextError, ContextTr, JournalTr},
    handler::{EthPrecompiles, PrecompileProvider, precompile_output_to_interpreter_result},
    interpreter::{CallInputs, CallScheme, InterpreterResult},
    precompile::{PrecompileHalt, PrecompileOutput},
    primitives::{AddressSet, hardfork::SpecId},
};

pub use self::{candles::CANDLE_FEED, price_feed::PRICE_FEED};

use self::dispatch::{Answered, Ending, Generation, Meter, Surroundings};
use crate::{CarriesMissing, Denied, InputFault, RegisteredModel, Results, Rules, abi};

/// The inference precompile.
pub const INFERENCE: Address = address!("00000000000000000000000000000000000000F4");

/// The inference precompile with the older output struct.
pub const INFERENCE_V1: Address = address!("00000000000000000000000000000000000001F4");

/// Cost and output bytes of a request, without asking it.
pub(crate) fn work_of(model: &RegisteredModel, input: &abi::ModelInput) -> Result<(u64, u64), Denied> {
    let prepared = request::prepare(model, input)?;
    Ok((prepared.ops, response::output_bytes(&model.descriptor.outputs, &prepared.sizes)))
}

/// What a call gets whose result the source lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMiss {
    /// Zeros in the right shape, marked `is_simulation_result`: simulation and `eth_call`.
    Placeholder,
    /// The transaction is not executed at all: proposals and their verification.
    Abort,
    /// `InferenceUnavailable()`: finalization of a decided block, which must always end.
    Revert,
}

/// A request that a transaction made.
#[derive(Debug, Clone)]
pub struct Call {
    /// Id of the request.
    pub id: RequestId,
    /// The request.
    pub request: Arc<InferenceRequest>,
    /// Its cost.
    pub ops: u64,
    /// The source did not have the result.
    pub missed: bool,
    /// Made after a placeholder was given out in the same transaction: with the real result it
    /// might not be made, or be another.
    pub speculative: bool,
}

/// Precompiles that a call finds elsewhere: at an address either the one of another address, or none any more.
pub type PrecompilePlaces = HashMap<Address, Option<Address>>;

/// Ethereum's precompiles, and those for inference and prices.
pub(crate) struct Precompiles<'a> {
    eth: EthPrecompiles,
    warm: AddressSet,
    rules: &'a Rules,
    results: &'a dyn Results,
    on_miss: OnMiss,
    /// The requests of the transaction that runs, in order. Not journaled: requests of frames
    /// that revert stay, because they were asked and must be answered in a replay, too.
    calls: Vec<Call>,
    places: PrecompilePlaces,
}

impl fmt::Debug for Precompiles<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Precompiles")
            .field("on_miss", &self.on_miss)
            .field("calls", &self.calls)
            .finish_non_exhaustive()
    }
}

impl<'a> Precompiles<'a> {
    pub(crate) fn new(rules: &'a Rules, results: &'a dyn Results, on_miss: OnMiss) -> Self {
        let eth = EthPrecompiles::new(rules.spec);
        let mut warm = eth.warm_addresses().clone();
        warm.extend([INFERENCE, INFERENCE_V1]);
        warm.extend(rules.price_feed.then_some(PRICE_FEED));
        Self { eth, warm, rules, results, on_miss, calls: Vec::new(), places: HashMap::new() }
    }

    pub(crate) fn place(&mut self, places: PrecompilePlaces) {
        self.places = places;
    }

    /// The requests since the last call of this function.
    pub(crate) fn take_calls(&mut self) -> Vec<Call> {
        core::mem::take(&mut self.calls)
    }

    /// What a call is denied for whoever makes it how; it pays the base.
    fn refuse(&self, inputs: &CallInputs, may_be_static: bool) -> Option<Answered> {
        let direct = inputs.scheme == CallScheme::Call || inputs.scheme == CallScheme::StaticCall;
        let fault = match (direct, inputs.is_static && !may_be_static, inputs.value.get().is_zero()) {
            (false, ..) => InputFault::DelegateCall,
            (_, true, _) => InputFault::StaticCall,
            (_, _, false) => InputFault::ValueNotAccepted,
            _ => return None,
        };
        let base = self.rules.gas.base;
        let ending = if base > inputs.gas_limit { Ending::OutOfGas } else { Ending::Revert(Denied::from(fault)) };
        Some(Answered { ending, gas_used: base, call: None })
    }

    fn surroundings(&self) -> Surroundings<'_> {
        Surroundings {
            rules: self.rules,
            results: self.results,
            on_miss: self.on_miss,
            calls_before: self.calls.len(),
            ops_before: self.calls.iter().fold(0, |sum, call| sum.saturating_add(call.ops)),
            speculative: self.calls.iter().any(|call| call.missed),
        }
    }

    fn answer(&self, data: &[u8], inputs: &CallInputs, generation: Generation) -> Answered {
        self.refuse(inputs, false)
            .unwrap_or_else(|| dispatch::answer(data, inputs.gas_limit, generation, self.surroundings()))
    }

    /// `read` reads a slot of the feed's contract.
    fn answer_prices(&self, data: &[u8], inputs: &CallInputs, read: &mut dyn FnMut(U256) -> Option<U256>) -> Answered {
        self.refuse(inputs, price_feed::is_read_only(data)).unwrap_or_else(|| {
            Meter::run(inputs.gas_limit, |meter, call| price_feed::run(data, self.surroundings(), read, meter, call))
        })
    }
}

impl<CTX> PrecompileProvider<CTX> for Precompiles<'_>
where
    CTX: ContextTr<Cfg: Cfg<Spec = SpecId>, Db: Database<Error: CarriesMissing>>,
{
    type Output = InterpreterResult;

    fn set_spec(&mut self, spec: SpecId) -> bool {
        // The rules fix the fork for the life of this value.
        debug_assert_eq!(spec, self.eth.spec);
        false
    }

    fn run(&mut self, ctx: &mut CTX, inputs: &CallInputs) -> Result<Option<InterpreterResult>, String> {
        let place = match self.places.get(&inputs.bytecode_address) {
            None => inputs.bytecode_address,
            Some(None) => return Ok(None),
            Some(Some(original)) => *original,
        };
        let is_ours = match place {
            INFERENCE | INFERENCE_V1 => true,
            PRICE_FEED => self.rules.price_feed,
            _ => false,
        };
        if !is_ours && place != inputs.bytecode_address {
            return self.eth.run(ctx, &CallInputs { bytecode_address: place, ..inputs.clone() });
        }
        if !is_ours {
            return self.eth.run(ctx, inputs);
        }
        let data: Bytes = inputs.input.bytes(ctx);
        // Taken out of the closure that reads slots, whose callers know nothing of databases.
        let mut failed = None;
        let Answered { ending, gas_used, call } = match place {
            PRICE_FEED => self.answer_prices(&data, inputs, &mut |slot| {
                // Through the journal: what is read belongs to the transaction's read set. It reads slots of accounts only
                // that are loaded.
                let journal = ctx.journal_mut();
                let loaded = journal.load_account(CANDLE_FEED).map(drop);
                let loaded = loaded.and_then(|()| journal.sload(CANDLE_FEED, slot));
                loaded.map(|slot| slot.data).map_err(|error| failed = Some(error)).ok()
            }),
            INFERENCE_V1 => self.answer(&data, inputs, Generation::V1),
            _ => self.answer(&data, inputs, Generation::V2),
        };
        self.calls.extend(call);
        let output = match ending {
            Ending::Return { output, event } => {
                if let Some((topic, event)) = event {
                    let data = LogData::new_unchecked(vec![topic], event);
                    ctx.journal_mut().log(Log { address: inputs.bytecode_address, data });
                }
                PrecompileOutput::new(gas_used, output, inputs.reservoir)
            }
            Ending::Revert(denied) => PrecompileOutput::revert(gas_used, denied.revert_data(), inputs.reservoir),
            Ending::OutOfGas => PrecompileOutput::halt(PrecompileHalt::OutOfGas, inputs.reservoir),
            Ending::Missing(id) => {
                // revm takes this error out of the context before any more code runs, so that no
                // contract can observe or catch it.
                *ctx.error() = Err(ContextError::Db(CarriesMissing::missing(id)));
                PrecompileOutput::halt(PrecompileHalt::other_static("inference result missing"), inputs.reservoir)
            }
            Ending::Storage => {
                if let Some(error) = failed {
                    *ctx.error() = Err(ContextError::Db(error));
                }
                PrecompileOutput::halt(PrecompileHalt::other_static("state unreadable"), inputs.reservoir)
            }
        };
        Ok(Some(precompile_output_to_interpreter_result(output, inputs.gas_limit)))
    }

    fn warm_addresses(&self) -> &AddressSet {
        &self.warm
    }
}
