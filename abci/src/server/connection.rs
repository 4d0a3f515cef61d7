//! One connection: requests in, responses out, in order.

use std::{
    any::Any,
    io::{self, Read, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering,
    time::Instant,
};

use metrics::{counter, histogram};
use prost::{Message, bytes::BytesMut};
use tracing::{debug, error, warn};

use super::{Fatal, MAX_MESSAGE, Shared, dispatch, stream::Stream};
use crate::{
    Application,
    wire::{Frame, Request, Response, put_frame, request, response, take_frame},
};

/// Bytes that one read asks for, at least and at most.
const READ: (usize, usize) = (16 << 10, 1 << 20);

/// Responses are written when they have this many bytes, though more requests wait.
const WRITE: usize = 256 << 10;

pub(super) struct Connection<'a, A> {
    stream: Stream,
    shared: &'a Shared<A>,
    input: BytesMut,
    output: BytesMut,
}

/// Whether the connection goes on.
enum Next {
    Read,
    End,
}

impl<'a, A: Application> Connection<'a, A> {
    pub(super) fn new(stream: Stream, shared: &'a Shared<A>) -> Self {
        Self { stream, shared, input: BytesMut::new(), output: BytesMut::new() }
    }

    /// Serves until the peer hangs up, the stream is unreadable, or the server stops.
    pub(super) fn serve(mut self) {
        debug!("ABCI connection opened");
        let ended = loop {
            match self.turn() {
                Ok(Next::Read) => {}
                Ok(Next::End) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let flushed = self.write();
        self.stream.hang_up();
        match ended.and(flushed) {
            Ok(()) => debug!("ABCI connection closed"),
            Err(error) => debug!(%error, "ABCI connection lost"),
        }
    }

    /// Handles the next request, or reads what it lacks.
    fn turn(&mut self) -> io::Result<Next> {
        match take_frame(&mut self.input, MAX_MESSAGE) {
            Ok(Frame::Needs(missing)) => self.read(missing),
            Ok(Frame::Whole(frame)) => match Request::decode(frame) {
                Ok(Request { value: Some(request) }) => self.handle(request),
                Ok(Request { value: None }) => Ok(self.refuse("this request is not known here")),
                Err(error) => Ok(self.refuse(&format!("this is no ABCI request: {error}"))),
            },
            Err(error) => Ok(self.refuse(&error.to_string())),
        }
    }

    fn read(&mut self, missing: usize) -> io::Result<Next> {
        // Before waiting: the peer may wait for these responses.
        self.write()?;
        let filled = self.input.len();
        // Room grows with what has arrived, not with what a length announces.
        let room = missing.min(filled.max(READ.0)).clamp(READ.0, READ.1);
        self.input.resize(filled + room, 0);
        let read = loop {
            match self.stream.read(&mut self.input[filled..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.input.truncate(filled + *read.as_ref().unwrap_or(&0));
        match read? {
            0 if filled > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            0 => Ok(Next::End),
            _ => Ok(Next::Read),
        }
    }

    fn write(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        let written = self.stream.write_all(&self.output);
        self.output.clear();
        written
    }

    fn answer(&mut self, response: response::Value) -> io::Result<()> {
        put_frame(&Response { value: Some(response) }, &mut self.output);
        if self.output.len() >= WRITE { self.write() } else { Ok(()) }
    }

    /// Answers bytes that are no request; what follows them cannot be trusted.
    fn refuse(&mut self, why: &str) -> Next {
        warn!(why, "an ABCI connection is closed");
        counter!("penstock_abci_refused_total").increment(1);
        put_frame(&Response { value: Some(dispatch::exception(why)) }, &mut self.output);
        Next::End
    }

    fn handle(&mut self, request: request::Value) -> io::Result<Next> {
        let method = dispatch::name(&request);
        let consensus = dispatch::is_consensus(&request).then(|| self.shared.consensus.lock());
        if self.shared.stopping.load(Ordering::SeqCst) {
            return Ok(Next::End);
        }
        let begin = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| dispatch::call(&*self.shared.app, request)));
        histogram!("penstock_abci_call_seconds", "method" => method).record(begin.elapsed());
        let fatal = match result {
            Ok(Ok(response)) => {
                drop(consensus);
                let refused = matches!(response, response::Value::Exception(_));
                self.answer(response)?;
                return Ok(if refused { Next::End } else { Next::Read });
            }
            Ok(Err(error)) => Fatal::Failed { method, error: error.to_string() },
            Err(panic) => Fatal::Panicked { method, message: message_of(&*panic) },
        };
        // No other call may see what this one left behind.
        self.shared.stopping.store(true, Ordering::SeqCst);
        drop(consensus);
        error!(error = %fatal, "the application cannot go on");
        self.answer(dispatch::exception(fatal.to_string()))?;
        self.write()?;
        // The owner may be on its way out already.
        let _ = self.shared.fatal.send(fatal);
        Ok(Next::End)
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "(no message)".into())
}
