//! What goes over an ABCI socket: CometBFT's `Request` and `Response`, each behind its length as a varint.
//!
//! The messages are those of v0.38; the envelopes are our own, because v0.40 adds `InsertTx` and
//! `ReapTxs` to them (`proto/tendermint/abci/types.proto`), which a v0.38 peer never sends.

use prost::{
    Message,
    bytes::{Buf, Bytes, BytesMut},
};
use tendermint_proto::v0_38::abci as v0_38;

/// A transaction from a peer (v0.40, `mempool.type = "app"`).
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RequestInsertTx {
    /// Its bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub tx: Bytes,
}

/// Asks for transactions to be gossiped (v0.40, `mempool.type = "app"`).
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct RequestReapTxs {
    /// Bytes of all of them; 0 is no limit.
    #[prost(uint64, tag = "1")]
    pub max_bytes: u64,
    /// Gas of all of them; 0 is no limit.
    #[prost(uint64, tag = "2")]
    pub max_gas: u64,
}

/// The verdict on a transaction from a peer.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ResponseInsertTx {
    /// 0: taken; 1 to 31,999: refused and remembered; from [`RETRY`] on: to be offered again later.
    #[prost(uint32, tag = "1")]
    pub code: u32,
}

/// The first `code` of [`ResponseInsertTx`] that means "not now" (`abci/types/types.go`, `CodeTypeRetry`).
pub const RETRY: u32 = 32_000;

/// Transactions to be gossiped.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ResponseReapTxs {
    /// Their bytes.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub txs: Vec<Bytes>,
}

/// The envelope of a request.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// `None` for a request that this version does not know.
    #[prost(oneof = "request::Value", tags = "1, 2, 3, 5, 6, 8, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22")]
    pub value: Option<request::Value>,
}

/// Nested types of [`Request`].
pub mod request {
    use super::{RequestInsertTx, RequestReapTxs, v0_38};

    /// The request in an envelope.
    #[allow(missing_docs, reason = "named after the messages")]
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Value {
        #[prost(message, tag = "1")]
        Echo(v0_38::RequestEcho),
        #[prost(message, tag = "2")]
        Flush(v0_38::RequestFlush),
        #[prost(message, tag = "3")]
        Info(v0_38::RequestInfo),
        #[prost(message, tag = "5")]
        InitChain(v0_38::RequestInitChain),
        #[prost(message, tag = "6")]
        Query(v0_38::RequestQuery),
        #[prost(message, tag = "8")]
        CheckTx(v0_38::RequestCheckTx),
        #[prost(message, tag = "11")]
        Commit(v0_38::RequestCommit),
        #[prost(message, tag = "12")]
        ListSnapshots(v0_38::RequestListSnapshots),
        #[prost(message, tag = "13")]
        OfferSnapshot(v0_38::RequestOfferSnapshot),
        #[prost(message, tag = "14")]
        LoadSnapshotChunk(v0_38::RequestLoadSnapshotChunk),
        #[prost(message, tag = "15")]
        ApplySnapshotChunk(v0_38::RequestApplySnapshotChunk),
        #[prost(message, tag = "16")]
        PrepareProposal(v0_38::RequestPrepareProposal),
        #[prost(message, tag = "17")]
        ProcessProposal(v0_38::RequestProcessProposal),
        #[prost(message, tag = "18")]
        ExtendVote(v0_38::RequestExtendVote),
        #[prost(message, tag = "19")]
        VerifyVoteExtension(v0_38::RequestVerifyVoteExtension),
        #[prost(message, tag = "20")]
        FinalizeBlock(v0_38::RequestFinalizeBlock),
        #[prost(message, tag = "21")]
        InsertTx(RequestInsertTx),
        #[prost(message, tag = "22")]
        ReapTxs(RequestReapTxs),
    }
}

/// The envelope of a response.
#[derive(Clone, PartialEq, Message)]
pub struct Response {
    /// The response.
    #[prost(oneof = "response::Value", tags = "1, 2, 3, 4, 6, 7, 9, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23")]
    pub value: Option<response::Value>,
}

/// Nested types of [`Response`].
pub mod response {
    use super::{ResponseInsertTx, ResponseReapTxs, v0_38};

    /// The response in an envelope.
    #[allow(missing_docs, reason = "named after the messages")]
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Value {
        #[prost(message, tag = "1")]
        Exception(v0_38::ResponseException),
        #[prost(message, tag = "2")]
        Echo(v0_38::ResponseEcho),
        #[prost(message, tag = "3")]
        Flush(v0_38::ResponseFlush),
        #[prost(message, tag = "4")]
        Info(v0_38::ResponseInfo),
        #[prost(message, tag = "6")]
        InitChain(v0_38::ResponseInitChain),
        #[prost(message, tag = "7")]
        Query(v0_38::ResponseQuery),
        #[prost(message, tag = "9")]
        CheckTx(v0_38::ResponseCheckTx),
        #[prost(message, tag = "12")]
        Commit(v0_38::ResponseCommit),
        #[prost(message, tag = "13")]
        ListSnapshots(v0_38::ResponseListSnapshots),
        #[prost(message, tag = "14")]
        OfferSnapshot(v0_38::ResponseOfferSnapshot),
        #[prost(message, tag = "15")]
        LoadSnapshotChunk(v0_38::ResponseLoadSnapshotChunk),
        #[prost(message, tag = "16")]
        ApplySnapshotChunk(v0_38::ResponseApplySnapshotChunk),
        #[prost(message, tag = "17")]
        PrepareProposal(v0_38::ResponsePrepareProposal),
        #[prost(message, tag = "18")]
        ProcessProposal(v0_38::ResponseProcessProposal),
        #[prost(message, tag = "19")]
        ExtendVote(v0_38::ResponseExtendVote),
        #[prost(message, tag = "20")]
        VerifyVoteExtension(v0_38::ResponseVerifyVoteExtension),
        #[prost(message, tag = "21")]
        FinalizeBlock(v0_38::ResponseFinalizeBlock),
        #[prost(message, tag = "22")]
        InsertTx(ResponseInsertTx),
        #[prost(message, tag = "23")]
        ReapTxs(ResponseReapTxs),
    }
}

/// Bytes that are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is longer than a varint can be.
    #[error("the length of a message is no varint")]
    Length,
    /// More bytes than are accepted.
    #[error("a message of {length} bytes; at most {limit} are accepted")]
    TooLarge {
        /// Bytes that the length announces.
        length: u64,
        /// The limit.
        limit: usize,
    },
}

/// What the beginning of a buffer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A whole frame, which was taken out of the buffer.
    Whole(Bytes),
    /// The beginning of one, which has at least this many bytes more.
    Needs(usize),
}

/// A varint of 64 bits has no more bytes.
const MAX_VARINT: usize = 10;

/// Takes the next frame out of a buffer. The frame shares the buffer's memory.
///
/// # Errors
/// [`FrameError`]: nothing that follows in this stream can be read.
pub fn take_frame(buffer: &mut BytesMut, limit: usize) -> Result<Frame, FrameError> {
    let mut head = &buffer[..buffer.len().min(MAX_VARINT)];
    let available = head.len();
    if !head.iter().any(|byte| *byte < 0x80) {
        return if available == MAX_VARINT { Err(FrameError::Length) } else { Ok(Frame::Needs(1)) };
    }
    let length = prost::encoding::decode_varint(&mut head).map_err(|_| FrameError::Length)?;
    let prefix = available - head.len();
    let body = usize::try_from(length).ok().filter(|body| *body <= limit);
    let body = body.ok_or(FrameError::TooLarge { length, limit })?;
    let missing = (prefix + body).saturating_sub(buffer.len());
    if missing > 0 {
        return Ok(Frame::Needs(missing));
    }
    buffer.advance(prefix);
    Ok(Frame::Whole(buffer.split_to(body).freeze()))
}

/// Appends a message as a frame.
pub fn put_frame(message: &impl Message, out: &mut BytesMut) {
    let length = message.encoded_len();
    out.reserve(length + MAX_VARINT);
    // `BytesMut` grows: encoding into it cannot run out of room, which is all that can fail.
    let _ = message.encode_length_delimited(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo(text: &str) -> Request {
        Request { value: Some(request::Value::Echo(v0_38::RequestEcho { message: text.into() })) }
    }

    #[test]
    fn frames_are_found_however_they_are_cut() {
        let mut stream = BytesMut::new();
        let messages = [echo(""), echo("a"), echo(&"b".repeat(200)), echo(&"c".repeat(40_000))];
        messages.iter().for_each(|message| put_frame(message, &mut stream));
        for step in [1, 2, 3, 127, 128, 4096, 100_000] {
            let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
            for part in stream.chunks(step) {
                buffer.extend_from_slice(part);
                while let Frame::Whole(frame) = take_frame(&mut buffer, 1 << 20).unwrap() {
                    found.push(Request::decode(frame).unwrap());
                }
            }
            assert_eq!(found, messages, "step {step}");
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn a_length_over_the_limit_or_without_end_is_an_error_before_anything_is_allocated() {
        let mut buffer = BytesMut::from(&[0xff, 0xff, 0xff, 0xff, 0x0f][..]);
        assert_eq!(take_frame(&mut buffer, 100), Err(FrameError::TooLarge { length: 0xffff_ffff, limit: 100 }));
        let mut buffer = BytesMut::from(&[0xff; 10][..]);
        assert_eq!(take_frame(&mut buffer, 100), Err(FrameError::Length));
        let mut buffer = BytesMut::from(&[0xff; 9][..]);
        assert_eq!(take_frame(&mut buffer, 100), Ok(Frame::Needs(1)));
        let mut buffer = BytesMut::from(&[5, 1, 2][..]);
        assert_eq!(take_frame(&mut buffer, 100), Ok(Frame::Needs(3)));
    }

    #[test]
    fn the_envelopes_are_those_of_v0_38_for_every_message_that_it_has() {
        let theirs = v0_38::Request { value: Some(v0_38::request::Value::Info(Default::default())) };
        let ours = Request::decode(theirs.encode_to_vec().as_slice()).unwrap();
        assert_eq!(ours.value, Some(request::Value::Info(Default::default())));
        let ours = Response { value: Some(response::Value::Commit(v0_38::ResponseCommit { retain_height: 7 })) };
        let theirs = v0_38::Response::decode(ours.encode_to_vec().as_slice()).unwrap();
        assert_eq!(theirs.value, Some(v0_38::response::Value::Commit(v0_38::ResponseCommit { retain_height: 7 })));
    }
}
