//! Log lines, on standard error.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// What is logged without RUST_LOG: the fjall database tells of its own housekeeping at `info`.
const DEFAULT: &str = "info,fjall=warn,lsm_tree=warn";

/// The same of a program that shows something else: its progress.
const QUIET: &str = "warn";

/// Starts logging; from now on `tracing` events are written.
pub(crate) fn start(format: Format, quiet: bool) {
    let default = if quiet { QUIET } else { DEFAULT };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        Format::Text => subscriber.with_ansi(io::stderr().is_terminal()).init(),
        Format::Json => subscriber.json().init(),
    }
}
