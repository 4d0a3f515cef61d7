//! A proposer that lies: a proxy between CometBFT and an honest application, which changes what the application
//! proposes, and vouches for it when it is asked. Nothing of it is in the program.

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use alloy_primitives::{B256, Bytes};
use penstock_abci::{
    messages::{ResponseProcessProposal, response_process_proposal::ProposalStatus},
    wire::{Frame, Request, Response, put_frame, request, response, take_frame},
};
use penstock_chain::{BlockResult, HeaderTx, ScheduledTask};
use penstock_inference::{Failure, RequestId, Tensor, TensorValues};
use prost::{Message, bytes::BytesMut};

type Txs = Vec<prost::bytes::Bytes>;

/// A way to break a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    ForgedOutput,
    MissingResult,
    ExtraResult,
    ResultsInAnotherOrder,
    NonCanonicalEncoding,
    ProofOfAnotherPolicy,
    HeaderAbsent,
    HeaderTwice,
    HeaderNotFirst,
    TransactionThatCannotBeIncluded,
    TaskThatIsNotThere,
}

pub(crate) const LIES: [Lie; 11] = [
    Lie::ForgedOutput,
    Lie::MissingResult,
    Lie::ExtraResult,
    Lie::ResultsInAnotherOrder,
    Lie::NonCanonicalEncoding,
    Lie::ProofOfAnotherPolicy,
    Lie::HeaderAbsent,
    Lie::HeaderTwice,
    Lie::HeaderNotFirst,
    Lie::TransactionThatCannotBeIncluded,
    Lie::TaskThatIsNotThere,
];

impl Lie {
    /// The block with the lie in it; `None` when the block has nothing to lie about.
    fn tell(self, mut txs: Txs, stray: &Bytes) -> Option<Txs> {
        let mut header = HeaderTx::decode(&txs[0]).unwrap();
        let results = header.results.len();
        let mut changed = true;
        match self {
            Self::ForgedOutput if results > 0 => {
                let forged = Tensor::new(vec![1, 1], TensorValues::Float32(vec![1234.5])).unwrap();
                header.results[0].result = Ok(vec![forged]);
            }
            Self::MissingResult if results > 0 => drop(header.results.remove(0)),
            Self::ExtraResult => {
                header.results.push(BlockResult { id: RequestId(B256::repeat_byte(9)), result: Err(Failure::Engine) });
            }
            Self::TaskThatIsNotThere => header.tasks.push(ScheduledTask { id: 77, gas: 3_197_619 }),
            Self::ResultsInAnotherOrder if results > 1 => header.results.reverse(),
            Self::ForgedOutput | Self::MissingResult | Self::ResultsInAnotherOrder => return None,
            _ => changed = false,
        }
        if changed {
            txs[0] = header.encode().0;
            return Some(txs);
        }
        match self {
            // An unknown field of the message.
            Self::NonCanonicalEncoding => txs[0] = [&txs[0][..], &[0x78, 1]].concat().into(),
            // Field 3 of the first result: `replicated` has no proof.
            Self::ProofOfAnotherPolicy if results > 0 => txs[0] = with_proof(&txs[0]),
            Self::HeaderAbsent => drop(txs.remove(0)),
            Self::HeaderTwice => txs.push(txs[0].clone()),
            Self::HeaderNotFirst if txs.len() > 1 => txs.swap(0, 1),
            Self::TransactionThatCannotBeIncluded => txs.push(stray.0.clone()),
            _ => return None,
        }
        Some(txs)
    }
}

/// The header transaction whose first result has a field 3, "proof".
fn with_proof(tx: &[u8]) -> prost::bytes::Bytes {
    #[derive(Clone, PartialEq, Message)]
    struct Proto {
        #[prost(bytes = "vec", tag = "1")]
        fee_recipient: Vec<u8>,
        #[prost(message, repeated, tag = "2")]
        results: Vec<ResultProto>,
        #[prost(bytes = "vec", repeated, tag = "3")]
        tasks: Vec<Vec<u8>>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct ResultProto {
        #[prost(bytes = "vec", tag = "1")]
        id: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        result: Vec<u8>,
        #[prost(bytes = "vec", tag = "3")]
        proof: Vec<u8>,
    }
    let mut proto = Proto::decode(&tx[2..]).unwrap();
    proto.results[0].proof = vec![1; 65];
    [&tx[..2], &proto.encode_to_vec()].concat().into()
}

#[derive(Debug, Default)]
struct State {
    lie: Option<Lie>,
    told: Option<Told>,
}

/// A lie that was told.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub height: i64,
    pub txs: Txs,
}

/// The proxy.
#[derive(Debug, Clone)]
pub(crate) struct Liar(Arc<Mutex<State>>);

impl Liar {
    /// Listens for CometBFT at `front`, in front of the application at `back`. `stray` is a transaction that cannot be
    /// included.
    pub(crate) fn start(front: &Path, back: &Path, stray: Bytes) -> Self {
        let liar = Self(Arc::default());
        let listener = UnixListener::bind(front).unwrap();
        let (of_thread, back) = (liar.clone(), back.to_owned());
        thread::spawn(move || {
            for comet in listener.incoming().map_while(Result::ok) {
                let app = loop {
                    match UnixStream::connect(&back) {
                        Ok(app) => break app,
                        Err(_) => thread::sleep(std::time::Duration::from_millis(50)),
                    }
                };
                let (liar, stray) = (of_thread.clone(), stray.clone());
                thread::spawn(move || liar.serve(comet, app, &stray));
            }
        });
        liar
    }

    /// The lie to be told at the next occasion.
    pub(crate) fn plan(&self, lie: Lie) {
        *self.0.lock().unwrap() = State { lie: Some(lie), told: None };
    }

    /// The planned lie, once it was told.
    pub(crate) fn told(&self) -> Option<Told> {
        self.0.lock().unwrap().told.clone()
    }

    /// One request, one response: CometBFT's consensus connection works like that, and the others may.
    fn serve(&self, mut comet: UnixStream, mut app: UnixStream, stray: &Bytes) {
        let (mut from_comet, mut from_app) = (BytesMut::new(), BytesMut::new());
        while let Some(frame) = read(&mut comet, &mut from_comet) {
            let request = Request::decode(frame).unwrap();
            if let Some(response) = self.vouch(&request) {
                if send(&mut comet, &response).is_none() {
                    return;
                }
                continue;
            }
            let height = match &request.value {
                Some(request::Value::PrepareProposal(prepare)) => Some(prepare.height),
                _ => None,
            };
            if send(&mut app, &request).is_none() {
                return;
            }
            let Some(frame) = read(&mut app, &mut from_app) else { return };
            let mut response = Response::decode(frame).unwrap();
            if let (Some(height), Some(response::Value::PrepareProposal(proposal))) = (height, &mut response.value) {
                let mut state = self.0.lock().unwrap();
                if let Some(lie) = state.lie
                    && let Some(txs) = lie.tell(proposal.txs.clone(), stray)
                {
                    proposal.txs = txs.clone();
                    *state = State { lie: None, told: Some(Told { height, txs }) };
                }
            }
            if send(&mut comet, &response).is_none() {
                return;
            }
        }
    }

    /// The liar accepts its own lie.
    fn vouch(&self, request: &Request) -> Option<Response> {
        let Some(request::Value::ProcessProposal(process)) = &request.value else { return None };
        let is_own = self.told().is_some_and(|told| told.txs == process.txs && told.height == process.height);
        let accept = ResponseProcessProposal { status: ProposalStatus::Accept.into() };
        is_own.then_some(Response { value: Some(response::Value::ProcessProposal(accept)) })
    }
}

fn read(stream: &mut UnixStream, buffer: &mut BytesMut) -> Option<prost::bytes::Bytes> {
    loop {
        match take_frame(buffer, 64 << 20).unwrap() {
            Frame::Whole(frame) => return Some(frame),
            Frame::Needs(_) => {
                let mut chunk = [0; 16 << 10];
                let count = stream.read(&mut chunk).ok().filter(|count| *count > 0)?;
                buffer.extend_from_slice(&chunk[..count]);
            }
        }
    }
}

fn send(stream: &mut UnixStream, message: &impl Message) -> Option<()> {
    let mut bytes = BytesMut::new();
    put_frame(message, &mut bytes);
    stream.write_all(&bytes).ok()
}
