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

/// Waits for SIGINT or SIGTERM.
async fn stop_signal() -> anyhow::Result<&'static str> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => interrupt.map(|()| "SIGINT").context("cannot listen for signals"),
        _ = terminate.recv() => Ok("SIGTERM"),
    }
}
