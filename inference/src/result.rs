//! The answer to a request: output tensors, or a failure with a fixed code.

use alloy_primitives::{B256, keccak256};

use crate::{Tensor, tensor::take};

/// Why a request has no output. The codes are part of consensus: never renumbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Failure {
    /// An output element is NaN or infinite: no decimal stands for it.
    #[error("the model's output is not finite")]
    NonFinite,
    /// The engine could not run the model on this input (an index out of bounds in a Gather, say).
    #[error("the model cannot be run on this input")]
    Engine,
    /// Nobody had the result when a proposer had to include the transaction
    /// (`max_deferrals`): the call reverts with `InferenceUnavailable()`.
    #[error("the result was not available in time")]
    Unavailable,
}

impl Failure {
    /// All failures, in the order of their codes.
    pub const ALL: [Self; 3] = [Self::NonFinite, Self::Engine, Self::Unavailable];

    /// The code that a contract sees in `InferenceFailed(uint16)`.
    pub fn code(self) -> u16 {
        match self {
            Self::NonFinite => 1,
            Self::Engine => 2,
            Self::Unavailable => 3,
        }
    }

    fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|failure| failure.code() == code)
    }
}

/// The outputs in the order of the model's graph, or why there are none.
pub type InferenceResult = Result<Vec<Tensor>, Failure>;

/// Why bytes are not a canonical result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the canonical encoding of a result")]
pub struct BadResult;

/// The canonical bytes of a result: 0, count, tensors; or 1, failure code (u16 little-endian).
pub fn encode(result: &InferenceResult) -> Vec<u8> {
    match result {
        Ok(outputs) => {
            let mut out = vec![0, outputs.len() as u8];
            outputs.iter().for_each(|output| output.encode(&mut out));
            out
        }
        Err(failure) => {
            let [low, high] = failure.code().to_le_bytes();
            vec![1, low, high]
        }
    }
}

/// Reads what [`encode`] writes, and nothing else.
///
/// # Errors
/// [`BadResult`] for any other bytes, trailing ones included.
pub fn decode(mut bytes: &[u8]) -> Result<InferenceResult, BadResult> {
    let input = &mut bytes;
    let [tag] = take(input).map_err(|_| BadResult)?;
    let result = match tag {
        0 => {
            let [count] = take(input).map_err(|_| BadResult)?;
            (0..count).map(|_| Tensor::decode(input)).collect::<Result<Vec<_>, _>>().map(Ok).map_err(|_| BadResult)?
        }
        1 => {
            let code = u16::from_le_bytes(take(input).map_err(|_| BadResult)?);
            Err(Failure::from_code(code).ok_or(BadResult)?)
        }
        _ => return Err(BadResult),
    };
    if input.is_empty() { Ok(result) } else { Err(BadResult) }
}

/// keccak256 of the canonical bytes.
pub fn digest(result: &InferenceResult) -> B256 {
    keccak256(encode(result))
}

/// Approximate bytes that a result takes in memory.
pub fn memory_bytes(result: &InferenceResult) -> usize {
    const OVERHEAD: usize = 128;
    match result {
        Ok(outputs) => outputs.iter().map(|t| t.byte_len() + OVERHEAD).sum::<usize>() + OVERHEAD,
        Err(_) => OVERHEAD,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TensorValues;

    #[test]
    fn results_round_trip_and_other_bytes_are_refused() {
        let tensor = Tensor::new(vec![2], TensorValues::Int64(vec![-1, i64::MAX])).unwrap();
        let mut results: Vec<InferenceResult> = Failure::ALL.into_iter().map(Err).collect();
        results.extend([Ok(vec![]), Ok(vec![tensor.clone(), tensor])]);
        for result in results {
            let bytes = encode(&result);
            assert_eq!(decode(&bytes), Ok(result));
            let longer = [bytes.as_slice(), &[0]].concat();
            assert_eq!(decode(&longer), Err(BadResult));
            for end in 0..bytes.len() {
                assert_eq!(decode(&bytes[..end]), Err(BadResult));
            }
        }
        assert_eq!(decode(&[1, 99, 0]), Err(BadResult), "unknown code");
        assert_eq!(decode(&[2]), Err(BadResult), "unknown tag");
    }
}
