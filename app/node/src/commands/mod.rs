//! One file a command.

pub(crate) mod db;
pub(crate) mod dev;
pub(crate) mod export;
pub(crate) mod init;
pub(crate) mod model;
pub(crate) mod start;
pub(crate) mod testnet;
pub(crate) mod verify_proof;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT and SIGTERM, from when this is made: made before the addresses are announced, so that whoever knows them can
/// already end the process cleanly.
struct StopSignal {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignal {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// The name of the signal that came.
    async fn received(mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
