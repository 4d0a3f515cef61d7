//! The price-feed precompile: candles of the chain's state as numbers, or as the input of a model.

use alloy_primitives::{Address, U256, address};
use alloy_sol_types::{SolCall, SolEvent, SolValue};

use super::{
    Call,
    candles::{CAPACITY, Candle, Pair, head_slot},
    dispatch::{Ending, Meter, Surroundings, ask},
    request::takes,
};
use crate::{InputFault, abi};

/// The price-feed precompile.
pub const PRICE_FEED: Address = address!("00000000000000000000000000000000000000F5");

/// Gas of a slot that is read: the EVM's price for one that the transaction has not touched before (EIP-2929), whether it
/// has or not. So the gas of a query follows from the query alone, and is charged before anything is read.
const SLOT_GAS: u64 = 2_100;

/// Numbers that can be asked for of one candle.
const MAX_TYPES: usize = 5;

/// Whether a call is for a function that logs nothing.
pub(super) fn is_read_only(data: &[u8]) -> bool {
    data.starts_with(&abi::queryHistoricalCandlesCall::SELECTOR)
}

/// Answers a call. `read` reads a slot of the feed's contract; `None`: the storage failed.
pub(super) fn run(
    data: &[u8],
    around: Surroundings<'_>,
    read: &mut dyn FnMut(U256) -> Option<U256>,
    meter: &mut Meter,
    call: &mut Option<Call>,
) -> Result<Ending, Ending> {
    // First of all, so that whatever follows is paid for. Of the few dynamic members none contains another: what a decoder
    // makes of the data is never much more than the data, wherever their offsets point.
    meter.charge(around.rules.gas.entry(data.len() as u64))?;
    let (selector, arguments) = data.split_first_chunk::<4>().ok_or(InputFault::UnknownFunction)?;
    match *selector {
        abi::queryHistoricalCandlesCall::SELECTOR => {
            let abi::queryHistoricalCandlesCall { input } =
                abi::queryHistoricalCandlesCall::abi_decode_raw_validate(arguments)
                    .map_err(|_| InputFault::Malformed)?;
            let numbers = query(&input, read, meter)?;
            Ok(Ending::Return { output: numbers.abi_encode().into(), event: None })
        }
        abi::runInferenceOnPriceFeedCall::SELECTOR => {
            let abi::runInferenceOnPriceFeedCall { model_id, input_name, input } =
                abi::runInferenceOnPriceFeedCall::abi_decode_raw_validate(arguments)
                    .map_err(|_| InputFault::Malformed)?;
            let values = query(&input, read, meter)?;
            let shape = shape_for(&model_id, &input_name, &input, around);
            let numbers = vec![abi::MultiDimensionalNumberTensor { name: input_name, values, shape }];
            let (id, response) = ask(&model_id, &abi::ModelInput { numbers, strings: vec![] }, around, meter, call)?;
            let event = abi::HistoricalInferenceEvent {
                inferenceID: id.to_string(),
                modelID: model_id,
                base: input.base,
                quote: input.quote,
            };
            let event = Some((abi::HistoricalInferenceEvent::SIGNATURE_HASH, event.encode_data().into()));
            Ok(Ending::Return { output: response.abi_encode().into(), event })
        }
        _ => Err(InputFault::UnknownFunction.into()),
    }
}

/// The numbers that a query asks for, candle by candle.
fn query(
    input: &abi::HistoricalInputQuery,
    read: &mut dyn FnMut(U256) -> Option<U256>,
    meter: &mut Meter,
) -> Result<Vec<abi::Number>, Ending> {
    let (count, duration) = (u64::from(input.total_candles), u64::from(input.candle_duration_in_mins));
    if count == 0 || duration == 0 || input.candle_types.is_empty() {
        return Err(InputFault::EmptyQuery.into());
    }
    // Two u32: the product is below 2^64.
    let minutes = count * duration;
    if minutes > CAPACITY || input.candle_types.len() > MAX_TYPES {
        return Err(InputFault::QueryTooLarge.into());
    }
    if input.order > 1 || input.candle_types.iter().any(|kind| *kind > 4) {
        return Err(InputFault::Malformed.into());
    }
    meter.charge(SLOT_GAS)?;
    let slot = head_slot(&input.base, &input.quote);
    let pair = Pair::read(slot, read(slot).ok_or(Ending::Storage)?)?;
    meter.charge(SLOT_GAS * minutes)?;
    let first = pair.first_minute(count, duration)?;
    let mut candles = Vec::with_capacity(count as usize);
    for start in (first..first + minutes).step_by(duration as usize) {
        let mut candle: Option<Candle> = None;
        for minute in start..start + duration {
            let packed = read(pair.minute_slot(minute)).ok_or(Ending::Storage)?;
            let next = Candle::read(minute, packed)?;
            candle = Some(candle.map_or(next, |candle| candle.and(next)));
        }
        candles.extend(candle);
    }
    if input.order == 1 {
        candles.reverse();
    }
    let numbers = |candle: Candle| input.candle_types.iter().map(move |kind| number(&pair, &candle, *kind));
    Ok(candles.into_iter().flat_map(numbers).collect())
}

/// One number of a candle, by `CandleType`.
fn number(pair: &Pair, candle: &Candle, kind: u8) -> abi::Number {
    let price = |value: u64| (i128::from(value), pair.price_decimals);
    let (value, decimals) = match kind {
        0 => price(candle.high),
        1 => price(candle.low),
        2 => price(candle.open),
        3 => price(candle.close),
        // At most 20,160 · 2^52.
        _ => (candle.volume as i128, pair.volume_decimals),
    };
    abi::Number { value, decimals: decimals.into() }
}

/// One row for each candle, where the model's input takes that; else one row of all numbers.
fn shape_for(model: &str, name: &str, query: &abi::HistoricalInputQuery, around: Surroundings<'_>) -> Vec<u32> {
    // At most five.
    let rows = vec![query.total_candles, query.candle_types.len() as u32];
    let model = around.rules.registry.by_name(model);
    let inputs = model.map(|model| model.descriptor.inputs.as_slice()).unwrap_or_default();
    let input = inputs.iter().find(|spec| spec.name == name || (name.is_empty() && inputs.len() == 1));
    if input.is_some_and(|spec| !takes(spec, &rows)) { vec![] } else { rows }
}
