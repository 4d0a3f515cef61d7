//! One connection's flow: it is read as fast as its requests are answered and its answers are taken, no faster.
//!
//! A WebSocket client may send requests without end and read no answer. Here the unanswered ones stay in its own buffers,
//! as TCP means it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::Instant,
};

/// What is known of a connection.
#[derive(Debug)]
pub(crate) struct Flow {
    /// Requests that are not answered yet.
    under_way: AtomicUsize,
    /// So many may be.
    most: usize,
    /// The client does not take what is written.
    is_stuck: AtomicBool,
    /// Waits until it may read on.
    reader: Mutex<Option<Waker>>,
    since: Instant,
    /// Milliseconds from then to the last byte that came.
    last_read: AtomicU64,
}

/// A request that is not answered yet.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Flow>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, SeqCst);
        self.0.read_on();
    }
}

impl Flow {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            under_way: AtomicUsize::new(0),
            most: most.max(1),
            is_stuck: AtomicBool::new(false),
            reader: Mutex::default(),
            since: Instant::now(),
            last_read: AtomicU64::new(0),
        })
    }

    /// A request begins.
    pub(crate) fn begin(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, SeqCst);
        UnderWay(self.clone())
    }

    /// Ends when nothing came and nothing was to be answered for some time.
    pub(crate) async fn idle(&self, time: Duration) {
        loop {
            let last = self.since + Duration::from_millis(self.last_read.load(SeqCst));
            if self.under_way.load(SeqCst) > 0 {
                tokio::time::sleep(time).await;
            } else if last.elapsed() >= time {
                return;
            } else {
                tokio::time::sleep_until(last + time).await;
            }
        }
    }

    fn is_full(&self) -> bool {
        self.is_stuck.load(SeqCst) || self.under_way.load(SeqCst) >= self.most
    }

    fn read_on(&self) {
        if !self.is_full()
            && let Some(reader) = self.reader.lock().take()
        {
            reader.wake();
        }
    }

    fn wrote<T>(&self, written: &Poll<io::Result<T>>) {
        let is_stuck = written.is_pending();
        if self.is_stuck.swap(is_stuck, SeqCst) && !is_stuck {
            self.read_on();
        }
    }
}

/// A connection that is read as its [`Flow`] allows.
#[derive(Debug)]
pub(crate) struct Paced {
    stream: TcpStream,
    flow: Arc<Flow>,
    /// Its place among the connections of the server.
    _place: OwnedSemaphorePermit,
}

impl Paced {
    pub(crate) fn new(stream: TcpStream, flow: Arc<Flow>, place: OwnedSemaphorePermit) -> Self {
        Self { stream, flow, _place: place }
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.flow.is_full() {
            *self.flow.reader.lock() = Some(context.waker().clone());
            // It may have ended before the waker was there.
            if self.flow.is_full() {
                return Poll::Pending;
            }
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.flow.last_read.store(self.flow.since.elapsed().as_millis() as u64, SeqCst);
        }
        read
    }
}

impl AsyncWrite for Paced {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.flow.wrote(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.flow.wrote(&written);
        written
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
    const LONG: Duration = Duration::from_secs(10);

    async fn connected(most: usize) -> (TcpStream, Paced, Arc<Flow>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let flow = Flow::new(most);
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        (client, Paced::new(stream, flow.clone(), place), flow)
    }

    #[tokio::test]
    async fn nothing_is_read_while_as_many_requests_are_under_way_as_may_be() {
        let (mut client, mut server, flow) = connected(2).await;
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
    async fn nothing_is_read_from_a_client_that_takes_no_answers() {
        let (mut client, server, _) = connected(2).await;
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

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_when_nothing_comes_and_nothing_is_under_way() {
        let flow = Flow::new(2);
        let request = flow.begin();
        assert!(timeout(LONG, flow.idle(Duration::from_secs(1))).await.is_err());
        drop(request);
        assert!(timeout(LONG, flow.idle(Duration::from_secs(1))).await.is_ok());
    }
}
