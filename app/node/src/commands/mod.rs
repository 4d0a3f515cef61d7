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
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
};
#[cfg(target_os = "linux")]
use tracing::debug;

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

/// What serves RPC and metrics. Its threads step back behind those of consensus when the cores are busy, so that no load of
/// requests slows a block; simulations and inference stand behind them.
fn serving_runtime() -> anyhow::Result<Runtime> {
    let step_back = || {
        // On Linux the nice value belongs to the thread; elsewhere it would slow the whole process.
        #[cfg(target_os = "linux")]
        if let Err(error) = rustix::process::setpriority_process(None, 3) {
            debug!(%error, "RPC threads keep normal priority");
        }
    };
    Builder::new_multi_thread().enable_all().on_thread_start(step_back).build().context("cannot start tokio")
}
