//! One connection's flow: it is read as fast as its requests are answered and its answers are taken, no faster; and it ends
//! when nothing has moved for some time.
//!
//! A WebSocket client may send requests without end and read no answer. Here the unanswered ones stay in its own buffers,
//! as TCP means it. (HTTP/1 is one request after the other anyway. Of HTTP/2 only the requests under way are bounded: its
//! answers wait for a window that the client opens by what is read.)

use std::{
    future::Future,
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep},
};

/// Bytes of answers that may wait for a WebSocket client to take them, before its next requests wait, too.
const MAX_WAITING: usize = 4 << 20;

/// What is known of a connection.
#[derive(Debug)]
pub(crate) struct Flow {
    /// Requests that are not answered yet.
    under_way: AtomicUsize,
    /// So many may be.
    most: usize,
    /// Bytes of answers that are not written yet, about.
    waiting: AtomicUsize,
    /// It has become a WebSocket.
    is_upgraded: AtomicBool,
    /// The client does not take what is written.
    is_stuck: AtomicBool,
    /// Waits until it may read on.
    reader: Mutex<Option<Waker>>,
    since: Instant,
    /// Milliseconds from then to when something moved: bytes came or went, a request ended.
    moved: AtomicU64,
    /// How long nothing may move.
    idle_time: Duration,
}

/// A request that is not answered yet.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Flow>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, SeqCst);
        self.0.moves();
        self.0.read_on();
    }
}

impl Flow {
    pub(crate) fn new(most: usize, idle_time: Duration) -> Arc<Self> {
        Arc::new(Self {
            under_way: AtomicUsize::new(0),
            most: most.max(1),
            waiting: AtomicUsize::new(0),
            is_upgraded: AtomicBool::new(false),
            is_stuck: AtomicBool::new(false),
            reader: Mutex::default(),
            since: Instant::now(),
            moved: AtomicU64::new(0),
            idle_time,
        })
    }

    /// A request begins.
    pub(crate) fn begin(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, SeqCst);
        UnderWay(self.clone())
    }

    /// There is an answer of so many bytes.
    pub(crate) fn answers(&self, bytes: usize) {
        self.waiting.fetch_add(bytes, SeqCst);
    }

    fn moves(&self) {
        self.moved.store(self.since.elapsed().as_millis() as u64, SeqCst);
    }

    /// When it will have been idle for too long if nothing moves until then.
    fn ends(&self) -> Instant {
        // While a request runs, that is what the client waits for.
        let last = match self.under_way.load(SeqCst) {
            0 => self.since + Duration::from_millis(self.moved.load(SeqCst)),
            _ => Instant::now(),
        };
        last + self.idle_time
    }

    fn is_full(&self) -> bool {
        let waits = self.is_upgraded.load(SeqCst) && self.waiting.load(SeqCst) > MAX_WAITING;
        waits || self.is_stuck.load(SeqCst) || self.under_way.load(SeqCst) >= self.most
    }

    fn read_on(&self) {
        if !self.is_full()
            && let Some(reader) = self.reader.lock().take()
        {
            reader.wake();
        }
    }

    fn wrote(&self, bytes: usize) {
        self.moves();
        // What is no answer counts, too: at worst it reads on a little early.
        let less = |waiting: usize| Some(waiting.saturating_sub(bytes));
        // The closure always gives a value.
        let _ = self.waiting.fetch_update(SeqCst, SeqCst, less);
        self.is_stuck.store(false, SeqCst);
        self.read_on();
    }
}

/// A connection that is read as its [`Flow`] allows.
#[derive(Debug)]
pub(crate) struct Paced {
    stream: TcpStream,
    flow: Arc<Flow>,
    /// Wakes the reader when the connection may have been idle for too long.
    reading: Pin<Box<Sleep>>,
    /// The same for the writer; only while it waits.
    writing: Option<Pin<Box<Sleep>>>,
    /// The last read gave something. What was read has to begin before the next read: else a full buffer of the system
    /// would be read at one go, however many requests it has.
    has_read: bool,
    /// Its place among the connections of the server.
    _place: OwnedSemaphorePermit,
}

impl Paced {
    pub(crate) fn new(stream: TcpStream, flow: Arc<Flow>, place: OwnedSemaphorePermit) -> Self {
        let reading = Box::pin(tokio::time::sleep_until(flow.ends()));
        Self { stream, flow, reading, writing: None, has_read: false, _place: place }
    }

    fn poll_more(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if core::mem::take(&mut self.has_read) && self.flow.is_upgraded.load(SeqCst) {
            // Behind the tasks that the last messages have begun.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.flow.is_full() {
            *self.flow.reader.lock() = Some(context.waker().clone());
            // It may have ended before the waker was there.
            if self.flow.is_full() {
                return Poll::Pending;
            }
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.has_read = true;
            self.flow.moves();
        }
        Poll::Ready(Ok(()))
    }

    /// What to say of a write.
    fn written(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                self.writing = None;
                self.flow.wrote(bytes);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                self.flow.is_stuck.store(true, SeqCst);
                let idle_time = self.flow.idle_time;
                let waits = self.writing.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle_time)));
                if waits.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Err(silent()));
                }
            }
        }
        written
    }
}

fn silent() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, "nothing has moved for [rpc] idle_time")
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.poll_more(context, buffer);
        while read.is_pending() && self.reading.as_mut().poll(context).is_ready() {
            let ends = self.flow.ends();
            if ends <= Instant::now() {
                return Poll::Ready(Err(silent()));
            }
            self.reading.as_mut().reset(ends);
        }
        read
    }
}

/// How the answer begins with which a connection becomes a WebSocket.
const UPGRADED: &[u8] = b"HTTP/1.1 101";

impl AsyncWrite for Paced {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.starts_with(UPGRADED) {
            self.flow.is_upgraded.store(true, SeqCst);
        }
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if parts.iter().any(|part| part.starts_with(UPGRADED)) {
            self.flow.is_upgraded.store(true, SeqCst);
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        sync::Semaphore,
        time::timeout,
    };

    use super::*;

    const SOON: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(20);

    async fn connected(most: usize, idle_time: Duration) -> (TcpStream, Paced, Arc<Flow>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let flow = Flow::new(most, idle_time);
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        (client, Paced::new(stream, flow.clone(), place), flow)
    }

    #[tokio::test]
    async fn nothing_is_read_while_as_many_requests_are_under_way_as_may_be() {
        let (mut client, mut server, flow) = connected(2, LONG).await;
        client.write_all(b"1").await.unwrap();
        let mut byte = [0];
        let first = flow.begin();
        timeout(LONG, server.read_exact(&mut byte)).await.unwrap().unwrap();
        let second = flow.begin();
        client.write_all(b"2").await.unwrap();
        assert!(timeout(SOON, server.read_exact(&mut byte)).await.is_err(), "two are under way");
        let reading = tokio::spawn(async move { server.read_exact(&mut byte).await.map(|_| byte) });
        tokio::time::sleep(SOON).await;
        drop(first);
        assert_eq!(timeout(LONG, reading).await.unwrap().unwrap().unwrap(), *b"2");
        drop(second);
    }

    #[tokio::test]
    async fn nothing_is_read_while_a_websocket_has_more_answers_than_it_takes() {
        let (mut client, mut server, flow) = connected(2, LONG).await;
        flow.answers(MAX_WAITING + 100);
        client.write_all(b"1").await.unwrap();
        let mut byte = [0];
        timeout(LONG, server.read_exact(&mut byte)).await.unwrap().unwrap();
        server.write_all(b"HTTP/1.1 101 Switching Protocols").await.unwrap();
        client.write_all(b"2").await.unwrap();
        assert!(timeout(SOON, server.read_exact(&mut byte)).await.is_err(), "it is a WebSocket now");
        server.write_all(&[0; 100]).await.unwrap();
        timeout(LONG, server.read_exact(&mut byte)).await.unwrap().unwrap();
        assert_eq!(byte, *b"2");
    }

    #[tokio::test]
    async fn nothing_is_read_from_a_client_that_takes_no_answers() {
        let (mut client, server, _) = connected(2, LONG).await;
        let (mut reader, mut writer) = tokio::io::split(server);
        let writing = tokio::spawn(async move { writer.write_all(&vec![7; 64 << 20]).await });
        tokio::time::sleep(SOON).await;
        client.write_all(b"1").await.unwrap();
        let mut byte = [0];
        assert!(timeout(SOON, reader.read_exact(&mut byte)).await.is_err(), "it takes nothing");
        let reading = tokio::spawn(async move { reader.read_exact(&mut byte).await.map(|_| byte) });
        let mut taken = vec![0; 64 << 20];
        timeout(LONG, client.read_exact(&mut taken)).await.unwrap().unwrap();
        assert_eq!(timeout(LONG, reading).await.unwrap().unwrap().unwrap(), *b"1");
        writing.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_connection_on_which_nothing_moves_ends_and_not_while_a_request_runs() {
        let (_client, mut server, flow) = connected(2, SOON).await;
        let request = flow.begin();
        let mut byte = [0];
        assert!(timeout(4 * SOON, server.read_exact(&mut byte)).await.is_err(), "a request runs");
        drop(request);
        let ended = timeout(LONG, server.read_exact(&mut byte)).await.unwrap();
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_for_too_long_is_let_go() {
        let (_client, mut server, _) = connected(2, SOON).await;
        let ended = timeout(LONG, server.write_all(&vec![7; 64 << 20])).await.unwrap();
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::TimedOut);
    }
}
