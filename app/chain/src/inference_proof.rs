//! Proof of an inference: a path from a result to the header of the block that used it.
//!
//! ```text
//!  result ─┐
//!          ├─ Merkle Patricia trie, as of transactions ─► extra_data of the Ethereum header ─► its keccak256 is the app
//!  result ─┘                                                       hash in CometBFT's header of the next height
//! ```

use alloy_consensus::Header;
use alloy_primitives::{B256, Bytes, keccak256};
use alloy_rlp::{Decodable, Encodable};
use alloy_trie::{
    HashBuilder, Nibbles,
    proof::{ProofRetainer, verify_proof},
    root::ordered_trie_root_with_encoder,
};
use penstock_inference::{InferenceResult, RequestId, result};
use serde::{Deserialize, Serialize};

use crate::{BlockResult, Chain, ChainError, HeaderTx};

/// What a block says of a request, and the way from there to the block's hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InferenceProof {
    /// The request's id: the hash of model, engine version, and inputs.
    pub id: B256,
    /// Place among the block's results.
    pub index: u64,
    /// The canonical bytes of the result.
    pub result: Bytes,
    /// Nodes of the trie of results, the root first.
    pub proof: Vec<Bytes>,
    /// RLP of the block's Ethereum header.
    pub header: Bytes,
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// No header.
    #[error("the header is not the RLP of an Ethereum header")]
    Header,
    /// A header without results.
    #[error("the header's extra_data is not the root of results")]
    Root,
    /// The path does not lead from the result to the header.
    #[error("the Merkle path does not lead from this result to the header")]
    Path,
    /// The result is of a form that no block has.
    #[error("the result is not in canonical form")]
    Result,
}

/// What a proof proves, provided that the block is one of the chain.
#[derive(Debug, Clone, PartialEq)]
pub struct ProvedInference {
    /// The request.
    pub id: RequestId,
    /// Its result.
    pub result: InferenceResult,
    /// The block that used it.
    pub header: Header,
    /// The block's hash: the app hash in CometBFT's header of the next height.
    pub block_hash: B256,
}

impl InferenceProof {
    /// Checks the path from the result to the block's hash. Whether that hash is the chain's is for a light client
    /// to say: it is `app_hash` in CometBFT's header of the next height.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn verify(&self) -> Result<ProvedInference, ProofError> {
        let mut bytes = self.header.as_ref();
        let header = Header::decode(&mut bytes).ok().filter(|_| bytes.is_empty()).ok_or(ProofError::Header)?;
        // Block 0's names the genesis there.
        let root = B256::try_from(header.extra_data.as_ref()).ok().filter(|_| header.number > 0);
        let root = root.ok_or(ProofError::Root)?;
        let value = [self.id.as_slice(), &self.result].concat();
        verify_proof(root, key_of(self.index), Some(value), &self.proof).map_err(|_| ProofError::Path)?;
        let result = result::decode(&self.result).map_err(|_| ProofError::Result)?;
        Ok(ProvedInference { id: RequestId(self.id), result, header, block_hash: keccak256(&self.header) })
    }
}

/// A result's value in the trie.
fn put_value(result: &BlockResult, out: &mut dyn alloy_rlp::BufMut) {
    out.put_slice(result.id.0.as_slice());
    out.put_slice(&result::encode(&result.result));
}

/// A result's key in the trie.
fn key_of(index: u64) -> Nibbles {
    Nibbles::unpack(alloy_rlp::encode(index))
}

/// Root of the results of a block, in the header's `extra_data`: the ordered Merkle Patricia trie (as of
/// transactions) over each request id followed by the canonical bytes of its result.
pub(crate) fn results_root(header: &HeaderTx) -> B256 {
    ordered_trie_root_with_encoder(&header.results, |result: &BlockResult, out| put_value(result, out))
}

/// The nodes on the way to a result.
fn path_to(header: &HeaderTx, index: u64) -> Vec<Bytes> {
    let mut leaves: Vec<(Nibbles, Vec<u8>)> = Vec::with_capacity(header.results.len());
    for (index, result) in (0_u64..).zip(&header.results) {
        let mut value = Vec::new();
        put_value(result, &mut value);
        leaves.push((key_of(index), value));
    }
    leaves.sort_unstable_by_key(|(key, _)| *key);
    let mut builder = HashBuilder::default().with_proof_retainer(ProofRetainer::new(vec![key_of(index)]));
    for (key, value) in leaves {
        builder.add_leaf(key, &value);
    }
    builder.root();
    builder.take_proof_nodes().into_nodes_sorted().into_iter().map(|(_, node)| node).collect()
}

impl Chain {
    /// Proves what a block says of a request; `None`: the block is not here, or did not use it.
    ///
    /// # Errors
    /// When the store fails.
    pub fn prove_inference(&self, id: RequestId, number: u64) -> Result<Option<InferenceProof>, ChainError> {
        let Some(block) = self.block(number)? else { return Ok(None) };
        let Some(header_tx) = &block.header_tx else { return Ok(None) };
        let Some(index) = header_tx.results.iter().position(|result| result.id == id) else { return Ok(None) };
        let mut header = Vec::new();
        block.header.encode(&mut header);
        Ok(Some(InferenceProof {
            id: id.0,
            index: index as u64,
            result: result::encode(&header_tx.results[index].result).into(),
            proof: path_to(header_tx, index as u64),
            header: header.into(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use penstock_inference::{Failure, Tensor, TensorValues};

    use super::*;

    fn block(results: usize) -> (HeaderTx, Header) {
        let result = |index: usize| BlockResult {
            id: RequestId(keccak256(index.to_be_bytes())),
            result: match index % 5 {
                4 => Err(Failure::Unavailable),
                _ => Ok(vec![Tensor::new(vec![1], TensorValues::Float32(vec![index as f32])).unwrap()]),
            },
        };
        let results = (0..results).map(result).collect();
        let header = HeaderTx { fee_recipient: Default::default(), tasks: vec![], results };
        let extra_data = Bytes::copy_from_slice(results_root(&header).as_slice());
        (header, Header { number: 9, extra_data, ..Header::default() })
    }

    #[test]
    fn every_result_of_a_block_is_proved_and_nothing_else() {
        for results in [1, 2, 3, 17, 130, 300] {
            let (header_tx, header) = block(results);
            for index in 0..results {
                let proof = InferenceProof {
                    id: header_tx.results[index].id.0,
                    index: index as u64,
                    result: result::encode(&header_tx.results[index].result).into(),
                    proof: path_to(&header_tx, index as u64),
                    header: alloy_rlp::encode(&header).into(),
                };
                let proved = proof.verify().unwrap();
                assert_eq!(
                    (proved.id, &proved.result),
                    (header_tx.results[index].id, &header_tx.results[index].result)
                );
                assert_eq!(proved.block_hash, header.hash_slow());
                let wrong = [
                    InferenceProof { id: B256::repeat_byte(1), ..proof.clone() },
                    InferenceProof { index: proof.index + 1, ..proof.clone() },
                    InferenceProof { result: [&proof.result[..], &[0]].concat().into(), ..proof.clone() },
                    InferenceProof { proof: vec![], ..proof.clone() },
                ];
                for wrong in wrong {
                    assert_eq!(wrong.verify(), Err(ProofError::Path));
                }
                let mut other = header.clone();
                other.extra_data = Bytes::from(vec![0; 32]);
                let other = InferenceProof { header: alloy_rlp::encode(&other).into(), ..proof.clone() };
                assert_eq!(other.verify(), Err(ProofError::Path));
                let cut = InferenceProof { header: proof.header.slice(1..), ..proof };
                assert_eq!(cut.verify(), Err(ProofError::Header));
            }
        }
    }
}
