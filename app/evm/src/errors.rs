//! Failed calls: custom errors of fixed bytes.
//!
//! This is the one place where the codes are listed; they are part of consensus and never
//! renumbered.

use alloy_primitives::Bytes;
use alloy_sol_types::SolError;
use penstock_inference::Failure;

use crate::abi;

/// The code of `InvalidInput(uint16)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputFault {
    /// The call data is no ABI encoding of the function's arguments.
    Malformed = 1,
    /// The function does not exist.
    UnknownFunction = 2,
    /// The model takes no string tensors.
    StringsNotSupported = 3,
    /// A tensor's name is not an input of the model, or is there twice.
    UnknownTensor = 4,
    /// An input of the model is missing.
    MissingTensor = 5,
    /// The product of a shape is not the number of values.
    ShapeMismatch = 6,
    /// A shape does not fit the model's input, or batch sizes differ.
    WrongShape = 7,
    /// A number does not fit the input's type.
    NumberOutOfRange = 8,
    /// The request costs more than `maxRequestOps`, or with those before it more than `maxTxOps`.
    TooExpensive = 9,
    /// The transaction makes more than `maxRequestsPerTx` requests.
    TooManyRequests = 10,
    /// The precompile takes no value.
    ValueNotAccepted = 11,
    /// Called by DELEGATECALL or CALLCODE.
    DelegateCall = 12,
    /// Called by STATICCALL: the function logs an event.
    StaticCall = 13,
    /// A query for no candles, of no minutes, or for no numbers of them.
    EmptyQuery = 14,
    /// A query for more minutes than the feed keeps, or for a candle's numbers more than once over.
    QueryTooLarge = 15,
}

/// A number of the output has no representation as `Number` (2^127 and more): the code of
/// `InferenceFailed(uint16)` beside those of [`Failure`].
pub(crate) const OUTPUT_NOT_REPRESENTABLE: u16 = 4;

/// Why a call is denied; becomes the revert data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// The registry has no model of this name.
    UnknownModel,
    /// The model is not active.
    ModelNotActive,
    /// The request is wrong.
    InvalidInput(InputFault),
    /// The mode (or the function) is not built.
    ModeNotSupported(u8),
    /// The model failed on this input, with a code.
    InferenceFailed(u16),
    /// Nobody had the result in time.
    InferenceUnavailable,
    /// The output is larger than `maxOutputBytes`.
    OutputTooLarge,
    /// The price feed has no such pair.
    UnknownPair,
    /// The price feed lacks the minute that begins at this time, in seconds since the epoch.
    CandlesUnavailable(u64),
}

impl Denied {
    /// The ABI encoding of the custom error.
    pub fn revert_data(self) -> Bytes {
        match self {
            Self::UnknownModel => abi::UnknownModel {}.abi_encode(),
            Self::ModelNotActive => abi::ModelNotActive {}.abi_encode(),
            Self::InvalidInput(fault) => abi::InvalidInput { code: fault as u16 }.abi_encode(),
            Self::ModeNotSupported(mode) => abi::ModeNotSupported { mode }.abi_encode(),
            Self::InferenceFailed(code) => abi::InferenceFailed { code }.abi_encode(),
            Self::InferenceUnavailable => abi::InferenceUnavailable {}.abi_encode(),
            Self::OutputTooLarge => abi::OutputTooLarge {}.abi_encode(),
            Self::UnknownPair => abi::UnknownPair {}.abi_encode(),
            Self::CandlesUnavailable(time) => abi::CandlesUnavailable { time }.abi_encode(),
        }
        .into()
    }
}

/// The precompiles' custom error in revert data, as Solidity writes it: `InvalidInput(6)`.
pub fn name_of_revert(data: &[u8]) -> Option<String> {
    let (selector, argument) = data.split_first_chunk::<4>()?;
    let (name, takes_code) = match *selector {
        abi::UnknownModel::SELECTOR => ("UnknownModel", false),
        abi::ModelNotActive::SELECTOR => ("ModelNotActive", false),
        abi::InvalidInput::SELECTOR => ("InvalidInput", true),
        abi::ModeNotSupported::SELECTOR => ("ModeNotSupported", true),
        abi::InferenceFailed::SELECTOR => ("InferenceFailed", true),
        abi::InferenceUnavailable::SELECTOR => ("InferenceUnavailable", false),
        abi::OutputTooLarge::SELECTOR => ("OutputTooLarge", false),
        abi::UnknownPair::SELECTOR => ("UnknownPair", false),
        abi::CandlesUnavailable::SELECTOR => ("CandlesUnavailable", true),
        _ => return None,
    };
    match (takes_code, argument) {
        (false, []) => Some(format!("{name}()")),
        (true, argument) if argument.len() == 32 => {
            // All of them are u64 at most.
            let number = argument.last_chunk().map(|last| u64::from_be_bytes(*last))?;
            Some(format!("{name}({number})"))
        }
        _ => None,
    }
}

impl From<Failure> for Denied {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unavailable => Self::InferenceUnavailable,
            other => Self::InferenceFailed(other.code()),
        }
    }
}

impl From<InputFault> for Denied {
    fn from(fault: InputFault) -> Self {
        Self::InvalidInput(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revert_data_is_named_as_solidity_writes_it() {
        for (denied, name) in [
            (Denied::UnknownModel, "UnknownModel()"),
            (Denied::InvalidInput(InputFault::ShapeMismatch), "InvalidInput(6)"),
            (Denied::ModeNotSupported(2), "ModeNotSupported(2)"),
            (Denied::InferenceUnavailable, "InferenceUnavailable()"),
            (Denied::UnknownPair, "UnknownPair()"),
            (Denied::CandlesUnavailable(1_800_000_000), "CandlesUnavailable(1800000000)"),
        ] {
            assert_eq!(name_of_revert(&denied.revert_data()).as_deref(), Some(name));
        }
        assert_eq!(name_of_revert(&[]), None);
        assert_eq!(name_of_revert(&[1, 2, 3, 4]), None);
        assert_eq!(name_of_revert(&Denied::InvalidInput(InputFault::Malformed).revert_data()[..5]), None);
    }
}
