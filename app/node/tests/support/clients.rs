//! The scripts of `tests/clients`.
//!
//! `scripts/test` installs the clients and names the folder in `PENSTOCK_CLIENTS`; without it the tests say that they were
//! skipped.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{Rpc, repository};

/// The folder of the clients, or `None` where they are not installed.
pub fn installed() -> Option<PathBuf> {
    let clients = env::var_os("PENSTOCK_CLIENTS").map(PathBuf::from);
    if clients.is_none() {
        eprintln!("skipped: PENSTOCK_CLIENTS is not set (scripts/test sets it)");
    }
    clients
}

/// Runs a script against a node; its last line.
pub fn run(clients: &Path, script: &str, node: &Rpc) -> String {
    let program = if script.ends_with(".py") { clients.join("python/bin/python") } else { "node".into() };
    let mut command = Command::new(program);
    command.arg(repository().join("app/node/tests/clients").join(script));
    last_line(&mut command, clients, node)
}

/// Runs the program of `tests/clients/alloy` against a node.
pub fn run_alloy(clients: &Path, node: &Rpc) {
    last_line(&mut Command::new(clients.join("alloy/debug/alloy-client")), clients, node);
}

fn last_line(command: &mut Command, clients: &Path, node: &Rpc) -> String {
    let output = command
        .env("PENSTOCK_RPC", &node.url)
        .env("PENSTOCK_WS", node.websocket())
        .env("PENSTOCK_CLIENTS", clients)
        .env("PENSTOCK_CONTRACTS", repository().join("app/contracts/out"))
        .env("PENSTOCK_MODELS", repository().join("inference/models"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{command:?}:\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text.lines().last().unwrap_or_default().to_owned()
}
