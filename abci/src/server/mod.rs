//! The socket server that CometBFT connects to (`proxy_app`).
//!
//! ```text
//!  accept ──► one thread a connection (CometBFT opens four) ──► read ► decode ► call ► append response
//!                                                                 │                        │
//!                                                                 └── nothing left to read: write all at once
//! ```
//!
//! Responses leave in the order of the requests, because a connection is one loop. Whatever is ready is
//! written in one piece, and TCP sends it at once (NODELAY): with Nagle's algorithm and a delayed
//! acknowledgement a call takes 44 ms. Bytes that are no request are answered with an `Exception` and the
//! end of the connection. A call that fails or panics is answered the same way, and the owner of
//! the server is told to end the process: an application whose state is in doubt must not go on.

mod connection;
mod dispatch;
mod stream;

use std::{
    collections::HashMap,
    fs, io,
    os::unix::{fs::FileTypeExt, net::UnixStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tracing::{info, warn};

use self::{
    connection::Connection,
    stream::{Listener, Stream},
};
use crate::{Address, Application};

/// Bytes of a message. CometBFT's own limit is 2 GiB; its largest block has 100 MB (`types/params.go`).
const MAX_MESSAGE: usize = 256 << 20;

/// Connections at once. CometBFT opens four; tools one more.
const MAX_CONNECTIONS: usize = 32;

/// Why the application cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// A call failed.
    #[error("{method}: {error}")]
    Failed {
        /// The call.
        method: &'static str,
        /// Its error.
        error: String,
    },
    /// A call panicked.
    #[error("{method} panicked: {message}")]
    Panicked {
        /// The call.
        method: &'static str,
        /// The panic's message.
        message: String,
    },
}

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The system says so.
    #[error("cannot listen on {address}: {reason}")]
    Io {
        /// The address.
        address: Address,
        /// What the system says.
        reason: io::Error,
    },
    /// Another process answers there.
    #[error("cannot listen on {0}: another process does (is this node running already?)")]
    InUse(Address),
}

/// What the connections share.
struct Shared<A> {
    app: Arc<A>,
    /// Held by calls that change what consensus builds on.
    consensus: Mutex<()>,
    stopping: AtomicBool,
    streams: Mutex<HashMap<u64, Stream>>,
    fatal: mpsc::Sender<Fatal>,
}

/// A running server.
#[derive(Debug)]
pub struct Server<A> {
    address: Address,
    shared: Arc<Shared<A>>,
    acceptor: Option<JoinHandle<()>>,
}

impl<A> core::fmt::Debug for Shared<A> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Shared").field("stopping", &self.stopping).finish_non_exhaustive()
    }
}

impl<A> Shared<A> {
    /// Whether one more connection may be opened; those that just ended get a moment to go.
    fn has_room(&self) -> bool {
        const MOMENT: Duration = Duration::from_secs(1);
        let begin = Instant::now();
        while self.streams.lock().len() >= MAX_CONNECTIONS {
            if begin.elapsed() > MOMENT || self.stopping.load(Ordering::SeqCst) {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
        true
    }
}

impl<A: Application + 'static> Server<A> {
    /// Listens. The receiver hears why the application cannot go on; the owner has to end the process then.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn start(app: Arc<A>, address: &Address) -> Result<(Self, mpsc::Receiver<Fatal>), ListenError> {
        let error = |reason| ListenError::Io { address: address.clone(), reason };
        if let Address::Unix(path) = address {
            make_way(path).map_err(|reason| match reason.kind() {
                io::ErrorKind::AddrInUse => ListenError::InUse(address.clone()),
                _ => error(reason),
            })?;
        }
        let listener = Listener::bind(address).map_err(error)?;
        let address = listener.address().map_err(error)?;
        let (fatal, fatals) = mpsc::channel();
        let shared = Arc::new(Shared {
            app,
            consensus: Mutex::new(()),
            stopping: AtomicBool::new(false),
            streams: Mutex::default(),
            fatal,
        });
        let acceptor = {
            let shared = shared.clone();
            thread::Builder::new()
                .name("abci-accept".into())
                .spawn(move || accept(&listener, &shared))
                .map_err(error)?
        };
        info!(%address, "ABCI");
        Ok((Self { address, shared, acceptor: Some(acceptor) }, fatals))
    }
}

impl<A> Server<A> {
    /// Where it listens, with the port that the system chose.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Ends it. A call that changes what consensus builds on is waited for: a commit is never cut short.
    pub fn stop(mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let consensus = self.shared.consensus.lock();
        // A connection to itself wakes the acceptor.
        let _ = Stream::connect(&self.address);
        self.shared.streams.lock().values().for_each(Stream::hang_up);
        drop(consensus);
        if self.acceptor.take().is_some_and(|acceptor| acceptor.join().is_err()) {
            warn!("the thread that accepts ABCI connections panicked");
        }
        if let Address::Unix(path) = &self.address {
            let _ = fs::remove_file(path);
        }
    }
}

/// Removes the socket that a killed process left behind.
fn make_way(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(_) => return Ok(()),
        Ok(found) if !found.file_type().is_socket() => return Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) => {}
    }
    if UnixStream::connect(path).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    fs::remove_file(path)
}

fn accept<A: Application + 'static>(listener: &Listener, shared: &Arc<Shared<A>>) {
    let mut next = 0u64;
    loop {
        let stream = listener.accept();
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let accepted = stream.and_then(|stream| {
            let handle = stream.try_clone()?;
            if !shared.has_room() {
                warn!("an ABCI connection is refused: {MAX_CONNECTIONS} are open");
                handle.hang_up();
                return Ok(());
            }
            next += 1;
            let id = next;
            shared.streams.lock().insert(id, handle);
            let of_thread = shared.clone();
            let spawned = thread::Builder::new().name(format!("abci-{id}")).spawn(move || {
                Connection::new(stream, &of_thread).serve();
                of_thread.streams.lock().remove(&id);
            });
            if spawned.is_err() {
                shared.streams.lock().remove(&id);
            }
            spawned.map(|_| ())
        });
        if let Err(error) = accepted {
            warn!(%error, "an ABCI connection could not be opened");
            // Out of file descriptors, for example: not to spin.
            thread::sleep(Duration::from_millis(100));
        }
    }
}
