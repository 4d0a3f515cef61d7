//! The header transaction: `txs[0]` of every block, with the tasks that the block runs and the results that it uses.
//!
//! A magic byte that no EIP-2718 transaction begins with, a version byte, then a protobuf message
//! in its canonical form (re-encoding gives the same bytes).

use alloy_primitives::{Address, B256, Bytes};
use penstock_inference::{InferenceResult, RequestId, result};
use prost::Message;

use crate::ScheduledTask;

/// First byte: RLP lists of legacy transactions begin at 0xc0, EIP-2718 types end at 0x7f.
pub(crate) const MAGIC: u8 = 0x9e;

const VERSION: u8 = 1;

/// The result of one request in a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockResult {
    /// The request.
    pub id: RequestId,
    /// Its output, or the code of its failure.
    pub result: InferenceResult,
}

/// What a proposer adds to the users' transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderTx {
    /// Receiver of the priority fees: the proposer's choice.
    pub fee_recipient: Address,
    /// The tasks that run before the users' transactions, in their order.
    pub tasks: Vec<ScheduledTask>,
    /// The results, in the order of their first use.
    pub results: Vec<BlockResult>,
}

/// Why bytes are no header transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderTxError {
    /// It does not begin with the magic byte.
    #[error("it is no header transaction")]
    NotOne,
    /// It is of another version.
    #[error("its version is {0}; {VERSION} is expected")]
    Version(u8),
    /// It is no protobuf message, or not in canonical form.
    #[error("its encoding is not canonical")]
    NotCanonical,
    /// A field has a wrong length or a value is not canonical.
    #[error("one of its fields is malformed")]
    BadField,
}

#[derive(Clone, PartialEq, Message)]
struct Proto {
    #[prost(bytes = "vec", tag = "1")]
    fee_recipient: Vec<u8>,
    #[prost(message, repeated, tag = "2")]
    results: Vec<ResultProto>,
    #[prost(message, repeated, tag = "3")]
    tasks: Vec<TaskProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TaskProto {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    gas: u64,
}

/// A proof (by policy) will be field 3; `replicated` needs none.
#[derive(Clone, PartialEq, Message)]
struct ResultProto {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    result: Vec<u8>,
}

/// Bytes that a message takes as a member of the header transaction.
fn member_len(message: &impl Message) -> usize {
    let body = message.encoded_len();
    1 + prost::encoding::encoded_len_varint(body as u64) + body
}

impl BlockResult {
    fn proto(&self) -> ResultProto {
        ResultProto { id: self.id.0.to_vec(), result: result::encode(&self.result) }
    }

    /// Bytes that this result adds to a header transaction.
    pub(crate) fn encoded_len(&self) -> usize {
        member_len(&self.proto())
    }
}

impl ScheduledTask {
    fn proto(&self) -> TaskProto {
        TaskProto { id: self.id, gas: self.gas }
    }

    /// Bytes that this task adds to a header transaction.
    pub(crate) fn encoded_len(&self) -> usize {
        member_len(&self.proto())
    }
}

impl HeaderTx {
    /// Whether a transaction claims to be a header transaction.
    pub fn is_one(tx: &[u8]) -> bool {
        tx.first() == Some(&MAGIC)
    }

    /// The bytes of the transaction.
    pub fn encode(&self) -> Bytes {
        let proto = Proto {
            fee_recipient: self.fee_recipient.to_vec(),
            results: self.results.iter().map(BlockResult::proto).collect(),
            tasks: self.tasks.iter().map(ScheduledTask::proto).collect(),
        };
        let mut bytes = vec![MAGIC, VERSION];
        bytes.extend_from_slice(&proto.encode_to_vec());
        bytes.into()
    }

    /// Reads what [`Self::encode`] writes, and nothing else.
    ///
    /// # Errors
    /// [`HeaderTxError`].
    pub fn decode(tx: &[u8]) -> Result<Self, HeaderTxError> {
        let (version, body) = match tx {
            [MAGIC, version, body @ ..] => (*version, body),
            _ => return Err(HeaderTxError::NotOne),
        };
        if version != VERSION {
            return Err(HeaderTxError::Version(version));
        }
        let proto = Proto::decode(body).map_err(|_| HeaderTxError::NotCanonical)?;
        if proto.encode_to_vec() != body {
            return Err(HeaderTxError::NotCanonical);
        }
        let bad = |_| HeaderTxError::BadField;
        let fee_recipient = Address::try_from(proto.fee_recipient.as_slice()).map_err(bad)?;
        let results = proto
            .results
            .iter()
            .map(|proto| {
                let id = B256::try_from(proto.id.as_slice()).map_err(bad)?;
                let result = result::decode(&proto.result).map_err(|_| HeaderTxError::BadField)?;
                Ok(BlockResult { id: RequestId(id), result })
            })
            .collect::<Result<_, _>>()?;
        let tasks = proto.tasks.iter().map(|task| ScheduledTask { id: task.id, gas: task.gas }).collect();
        Ok(Self { fee_recipient, tasks, results })
    }
}

#[cfg(test)]
mod tests {
    use penstock_inference::{Failure, Tensor, TensorValues};

    use super::*;

    fn header() -> HeaderTx {
        let tensor = Tensor::new(vec![1, 2], TensorValues::Float32(vec![1.0, -0.0])).unwrap();
        HeaderTx {
            fee_recipient: Address::repeat_byte(3),
            tasks: vec![ScheduledTask { id: 1, gas: 3_000_000 }, ScheduledTask { id: 300, gas: 0 }],
            results: vec![
                BlockResult { id: RequestId(B256::repeat_byte(1)), result: Ok(vec![tensor]) },
                BlockResult { id: RequestId(B256::repeat_byte(2)), result: Err(Failure::NonFinite) },
            ],
        }
    }

    #[test]
    fn it_round_trips_and_its_size_is_counted_exactly() {
        let bytes = header().encode();
        assert_eq!(HeaderTx::decode(&bytes), Ok(header()));
        let empty = HeaderTx { results: vec![], tasks: vec![], ..header() }.encode();
        let results: usize = header().results.iter().map(BlockResult::encoded_len).sum();
        let tasks: usize = header().tasks.iter().map(ScheduledTask::encoded_len).sum();
        assert_eq!(bytes.len(), empty.len() + results + tasks);
    }

    #[test]
    fn every_other_encoding_is_refused() {
        let bytes = header().encode().to_vec();
        for end in 0..bytes.len() {
            // Cutting whole tasks or results off leaves a canonical header of fewer.
            if let Ok(shorter) = HeaderTx::decode(&bytes[..end]) {
                assert!(shorter.tasks.len() + shorter.results.len() < 4, "cut at {end}");
            }
        }
        let mut unknown_field = bytes.clone();
        unknown_field.extend_from_slice(&[0x78, 1]);
        assert_eq!(HeaderTx::decode(&unknown_field), Err(HeaderTxError::NotCanonical));
        let mut long_varint = bytes.clone();
        long_varint[3] |= 0x80;
        long_varint.insert(4, 0);
        assert_eq!(HeaderTx::decode(&long_varint), Err(HeaderTxError::NotCanonical));
        let mut version = bytes.clone();
        version[1] = 9;
        assert_eq!(HeaderTx::decode(&version), Err(HeaderTxError::Version(9)));
        assert_eq!(HeaderTx::decode(&bytes[1..]), Err(HeaderTxError::NotOne));
        let short_address = HeaderTx::decode(&[MAGIC, VERSION, 0x0a, 1, 7]);
        assert_eq!(short_address, Err(HeaderTxError::BadField));
    }
}
