//! A question to a model, and the id that decides its answer.

use core::fmt;

use alloy_primitives::{B256, hex, keccak256};

use crate::{ContentHash, ENGINE_VERSION, Tensor};

/// Separates request ids from every other keccak hash.
const DOMAIN: &[u8] = b"penstock/request/v1";

/// Kind byte of the canonical encoding: a model that maps tensors to tensors.
const KIND_MODEL: u8 = 0;

/// How a caller wants the answer verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InferenceMode {
    /// The policy that the registry gives the model.
    Vanilla,
}

impl InferenceMode {
    fn tag(self) -> u8 {
        match self {
            Self::Vanilla => 0,
        }
    }
}

/// keccak256(domain ‖ model content hash ‖ engine version ‖ canonical request): equal ids have
/// equal output bits, everywhere, for ever (`../shared/DESIGN.md` section 4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub B256);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode_prefixed(self.0))
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One run of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InferenceRequest {
    /// The model's file.
    pub model: ContentHash,
    /// How the answer is to be verified.
    pub mode: InferenceMode,
    /// The inputs in the order of the model's graph, converted to the model's types.
    pub inputs: Vec<Tensor>,
}

impl InferenceRequest {
    /// Bytes of its inputs in memory, about.
    pub fn memory_bytes(&self) -> usize {
        self.inputs.iter().map(|input| input.byte_len() + 128).sum()
    }

    /// The canonical bytes: kind, mode, number of inputs, each input's canonical encoding.
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let size = self.inputs.iter().map(|t| 2 + 4 * t.shape().len() + t.byte_len()).sum::<usize>();
        let mut out = Vec::with_capacity(3 + size);
        out.extend_from_slice(&[KIND_MODEL, self.mode.tag(), self.inputs.len() as u8]);
        self.inputs.iter().for_each(|input| input.encode(&mut out));
        out
    }

    /// The id of this request.
    pub fn id(&self) -> RequestId {
        let mut preimage = Vec::from(DOMAIN);
        preimage.extend_from_slice(&self.model.0);
        preimage.extend_from_slice(&ENGINE_VERSION.to_le_bytes());
        preimage.extend_from_slice(&self.canonical_bytes());
        RequestId(keccak256(preimage))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TensorValues;

    fn request(values: Vec<f32>, shape: Vec<usize>) -> InferenceRequest {
        InferenceRequest {
            model: ContentHash([7; 32]),
            mode: InferenceMode::Vanilla,
            inputs: vec![Tensor::new(shape, TensorValues::Float32(values)).unwrap()],
        }
    }

    #[test]
    fn the_id_is_pinned() {
        // A change of this value is a change of the protocol: raise ENGINE_VERSION.
        assert_eq!(
            request(vec![1.0, 2.0], vec![1, 2]).id().to_string(),
            "0xc75d3b16331c56f041a6175235baa49da9894351b74690cfd8002375197d1cf3",
        );
    }

    #[test]
    fn shape_sign_of_zero_and_model_change_the_id() {
        let base = request(vec![0.0, 2.0], vec![1, 2]);
        let other_model = InferenceRequest { model: ContentHash([8; 32]), ..base.clone() };
        for other in [request(vec![0.0, 2.0], vec![2, 1]), request(vec![-0.0, 2.0], vec![1, 2]), other_model] {
            assert_ne!(base.id(), other.id());
        }
    }
}
