//! A small application, and a client that sends bytes as they are.

#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on stops"
)]

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use penstock_abci::{
    Address, Application, Fatal, Server,
    messages::{
        RequestApplySnapshotChunk, RequestCheckTx, RequestEcho, RequestFinalizeBlock, RequestInfo, RequestInitChain,
        RequestLoadSnapshotChunk, RequestOfferSnapshot, RequestPrepareProposal, RequestProcessProposal, RequestQuery,
        ResponseApplySnapshotChunk, ResponseCheckTx, ResponseCommit, ResponseFinalizeBlock, ResponseInfo,
        ResponseInitChain, ResponseListSnapshots, ResponseLoadSnapshotChunk, ResponseOfferSnapshot,
        ResponsePrepareProposal, ResponseProcessProposal, ResponseQuery,
    },
    wire::{
        Frame, Request, RequestInsertTx, RequestReapTxs, Response, ResponseInsertTx, ResponseReapTxs, put_frame,
        request::Value as Req, response::Value as Res, take_frame,
    },
};
use prost::{
    Message,
    bytes::{Bytes, BytesMut},
};

/// Remembers how many calls of consensus were in it at once.
#[derive(Debug, Default)]
pub struct Toy {
    inside: AtomicU64,
    pub most_inside: AtomicU64,
}

#[derive(Debug, thiserror::Error)]
#[error("the disk is full")]
pub struct DiskFull;

impl Toy {
    fn consensus<T>(&self, call: impl FnOnce() -> T) -> T {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_inside.fetch_max(inside, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(2));
        let result = call();
        self.inside.fetch_sub(1, Ordering::SeqCst);
        result
    }
}

impl Application for Toy {
    type Error = DiskFull;

    fn info(&self, _: RequestInfo) -> Result<ResponseInfo, DiskFull> {
        Ok(ResponseInfo { data: "toy".into(), last_block_height: 7, ..Default::default() })
    }

    fn init_chain(&self, _: RequestInitChain) -> Result<ResponseInitChain, DiskFull> {
        panic!("no chain for you")
    }

    /// The code is the transaction's first byte, the data its length.
    fn check_tx(&self, request: RequestCheckTx) -> ResponseCheckTx {
        let data = (request.tx.len() as u64).to_be_bytes().to_vec().into();
        ResponseCheckTx { code: request.tx.first().copied().unwrap_or_default().into(), data, ..Default::default() }
    }

    fn insert_tx(&self, request: RequestInsertTx) -> ResponseInsertTx {
        ResponseInsertTx { code: request.tx.len() as u32 }
    }

    fn reap_txs(&self, request: RequestReapTxs) -> ResponseReapTxs {
        ResponseReapTxs { txs: vec![Bytes::from(vec![1; request.max_bytes as usize])] }
    }

    fn query(&self, _: RequestQuery) -> ResponseQuery {
        ResponseQuery { code: 3, ..Default::default() }
    }

    fn list_snapshots(&self) -> ResponseListSnapshots {
        ResponseListSnapshots::default()
    }

    fn load_snapshot_chunk(&self, _: RequestLoadSnapshotChunk) -> ResponseLoadSnapshotChunk {
        ResponseLoadSnapshotChunk::default()
    }

    fn offer_snapshot(&self, _: RequestOfferSnapshot) -> Result<ResponseOfferSnapshot, DiskFull> {
        Ok(ResponseOfferSnapshot { result: 3 })
    }

    fn apply_snapshot_chunk(&self, _: RequestApplySnapshotChunk) -> Result<ResponseApplySnapshotChunk, DiskFull> {
        Err(DiskFull)
    }

    fn prepare_proposal(&self, request: RequestPrepareProposal) -> Result<ResponsePrepareProposal, DiskFull> {
        Ok(self.consensus(|| ResponsePrepareProposal { txs: request.txs }))
    }

    fn process_proposal(&self, request: RequestProcessProposal) -> Result<ResponseProcessProposal, DiskFull> {
        Ok(self.consensus(|| ResponseProcessProposal { status: 1 + i32::from(request.txs.is_empty()) }))
    }

    fn finalize_block(&self, request: RequestFinalizeBlock) -> Result<ResponseFinalizeBlock, DiskFull> {
        let tx_results = request.txs.iter().map(|_| Default::default()).collect();
        Ok(self.consensus(|| ResponseFinalizeBlock { tx_results, ..Default::default() }))
    }

    fn commit(&self) -> Result<ResponseCommit, DiskFull> {
        Ok(self.consensus(ResponseCommit::default))
    }
}

/// A server of the toy on a unix socket or a free TCP port.
pub struct Running {
    pub server: Option<Server<Toy>>,
    pub app: Arc<Toy>,
    pub fatal: mpsc::Receiver<Fatal>,
    pub address: Address,
    _folder: tempfile::TempDir,
}

pub fn start(tcp: bool) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let address = match tcp {
        true => "tcp://127.0.0.1:0".parse().unwrap(),
        false => Address::Unix(folder.path().join("abci.sock")),
    };
    let app = Arc::new(Toy::default());
    let (server, fatal) = Server::start(app.clone(), &address).unwrap();
    Running { address: server.address().clone(), server: Some(server), app, fatal, _folder: folder }
}

trait Socket: Read + Write + Send {}
impl<T: Read + Write + Send> Socket for T {}

/// A connection.
pub struct Client {
    socket: Box<dyn Socket>,
    input: BytesMut,
}

impl Client {
    pub fn connect(address: &Address) -> Self {
        let timeout = Some(Duration::from_secs(60));
        let socket: Box<dyn Socket> = match address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).unwrap();
                stream.set_read_timeout(timeout).unwrap();
                Box::new(stream)
            }
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).unwrap();
                stream.set_nodelay(true).unwrap();
                stream.set_read_timeout(timeout).unwrap();
                Box::new(stream)
            }
        };
        Self { socket, input: BytesMut::new() }
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// The next response; `None` at the end of the stream.
    pub fn read(&mut self) -> Option<Res> {
        loop {
            if let Frame::Whole(frame) = take_frame(&mut self.input, 64 << 20).unwrap() {
                return Some(Response::decode(frame).unwrap().value.unwrap());
            }
            let mut chunk = vec![0; 64 << 10];
            match self.socket.read(&mut chunk) {
                Ok(0) => return None,
                Ok(count) => self.input.extend_from_slice(&chunk[..count]),
                // The server hung up with bytes of ours unread.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub fn call(&mut self, request: Req) -> Res {
        self.write(&frame(request));
        self.read().expect("an answer")
    }
}

pub fn frame(request: Req) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    put_frame(&Request { value: Some(request) }, &mut bytes);
    bytes.to_vec()
}

pub fn echo(text: &str) -> Req {
    Req::Echo(RequestEcho { message: text.into() })
}

pub fn check_tx(tx: Vec<u8>) -> Req {
    Req::CheckTx(RequestCheckTx { tx: tx.into(), r#type: 0 })
}
