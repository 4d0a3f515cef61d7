//! `penstock`: the program. Commands, settings and wiring; the work is in the libraries.
//!
//! | file | what |
//! |---|---|
//! | `commands/` | one file a command |
//! | `settings.rs` | `penstock.toml`, environment, flags |
//! | `home.rs`, `network.rs` | the files of a node, and of a whole network |
//! | `cometbft/` | CometBFT's keys and configuration, the process, the hand-over of transactions |
//! | `embedded.rs` | a whole chain in one process |
//! | `bench/` | the load generator |
//! | `output.rs` | lines on standard output |
//! | `metrics.rs` | the Prometheus endpoint |
//! | `bundled.rs` | the default genesis and its models, as part of the program |
//! | `models.rs` | from the models of a genesis to loaded files |

#[macro_use]
mod output;

mod bench;
mod bundled;
mod cometbft;
mod commands;
mod embedded;
mod home;
mod logs;
mod metrics;
mod models;
mod network;
mod settings;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An EVM chain on which a smart contract calls an AI model like a function.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    /// Folder of settings and data [default: ~/.penstock]
    #[arg(long, global = true, env = "PENSTOCK_HOME")]
    home: Option<PathBuf>,
    /// How log lines look; RUST_LOG says which are written (for example RUST_LOG=penstock_chain=debug)
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: logs::Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole chain in this process: consensus, models, JSON-RPC, funded accounts
    Dev(commands::dev::Dev),
    /// Write the home folder of a node: keys, settings, CometBFT's configuration, and a genesis document
    Init(commands::init::Init),
    /// Write the home folders of a network on this machine
    Testnet(commands::testnet::Testnet),
    /// Run a node: the application behind CometBFT, JSON-RPC, metrics
    Start(commands::start::Start),
    /// Generate load and measure throughput, latency and block intervals
    Bench(bench::Bench),
    /// Keep ONNX models on this machine, look at them, and run them as the chain does
    #[command(subcommand)]
    Model(commands::model::Model),
    /// Write the state of a stopped node as a genesis document
    Export(commands::export::Export),
    /// Check, copy and describe the store of a node that is stopped
    #[command(subcommand)]
    Db(commands::db::Db),
    /// Check the proof of an inference, up to a header of CometBFT
    VerifyProof(commands::verify_proof::VerifyProof),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    logs::start(cli.log_format, matches!(cli.command, Command::Bench(_)));
    let home = cli.home.or_else(default_home);
    let result = match cli.command {
        Command::Dev(dev) => commands::dev::run(dev, home.as_deref()),
        Command::Init(init) => commands::init::run(init, home.as_deref()),
        Command::Testnet(testnet) => commands::testnet::run(&testnet),
        Command::Start(start) => commands::start::run(start, home.as_deref()),
        Command::Bench(bench) => bench::run(bench, home.as_deref()),
        Command::Model(model) => commands::model::run(model, &models::folder(home.as_deref())),
        Command::Export(export) => commands::export::run(export, home.as_deref()),
        Command::Db(db) => commands::db::run(db, home.as_deref()),
        Command::VerifyProof(verify) => commands::verify_proof::run(verify),
    };
    match result {
        Ok(()) if output::complete() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("penstock: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn default_home() -> Option<PathBuf> {
    Some(PathBuf::from(std::env::var_os("HOME")?).join(".penstock"))
}
