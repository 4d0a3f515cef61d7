//! Times the engine and other runtimes on the same models and inputs, and prints tables. See README.md.

#[cfg(feature = "burn")]
mod burn;
#[cfg(feature = "candle")]
mod candle;
mod cases;
#[cfg(feature = "ours")]
mod ours;
mod table;
mod timing;
#[cfg(feature = "tract")]
mod tract;
#[cfg(any(feature = "candle", feature = "burn"))]
mod weights;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use cases::Case;
use clap::{Parser, ValueEnum};
use table::{Row, print_notes, print_table};
use timing::Measured;

/// Times the engine and other runtimes on the same models and inputs.
#[derive(Parser)]
struct Arguments {
    /// The folder that inference/conformance/real_exports.py wrote to.
    models: PathBuf,
    /// A Python that has onnxruntime: runs bench_onnxruntime.py too.
    #[arg(long)]
    python: Option<PathBuf>,
    /// Only the models whose name has it.
    #[arg(long, default_value = "")]
    only: String,
    /// Only these.
    #[arg(long, value_delimiter = ',')]
    runtimes: Option<Vec<Runtime>>,
    /// Seconds that each is run for, in each round.
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// How often to go over a row: the best of a noisy machine.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Measures one thing in this process and prints JSON: what the others are started for.
    #[arg(long, hide = true, num_args = 3, value_names = ["RUNTIME", "THREADS", "CASE"])]
    worker: Option<Vec<String>>,
}

/// In the order of the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Runtime {
    Ours,
    Onnxruntime,
    Tract,
    Candle,
    Burn,
}

impl Runtime {
    fn built(self) -> bool {
        match self {
            Self::Ours => cfg!(feature = "ours"),
            Self::Onnxruntime => true,
            Self::Tract => cfg!(feature = "tract"),
            Self::Candle => cfg!(feature = "candle"),
            Self::Burn => cfg!(feature = "burn"),
        }
    }

    /// Whether it runs nothing but what was written for it by hand.
    fn by_hand(self) -> bool {
        matches!(self, Self::Candle | Self::Burn)
    }

    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// How many threads a run may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    One,
    All,
}

impl Threads {
    fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::All => "all",
        }
    }

    fn count(self) -> Result<usize> {
        Ok(if self == Self::One { 1 } else { std::thread::available_parallelism()?.get() })
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let cases = Case::all()?;
    if let Some([runtime, threads, case]) = arguments.worker.as_deref() {
        let runtime = Runtime::from_str(runtime, true).map_err(|error| anyhow!(error))?;
        let case = &cases[case.parse::<usize>()?];
        let measured = bench(runtime, case, &arguments.models, threads == "all", arguments.seconds)?;
        println!("{}", serde_json::to_string(&measured)?);
        return Ok(());
    }

    let wanted = arguments.runtimes.clone().unwrap_or_else(|| Runtime::value_variants().to_vec());
    let runtimes: Vec<Runtime> = wanted
        .into_iter()
        .filter(|runtime| runtime.built() && (*runtime != Runtime::Onnxruntime || arguments.python.is_some()))
        .collect();
    let mut tables = [(Threads::One, Vec::new()), (Threads::All, Vec::new())];
    for (i, case) in cases.iter().enumerate().filter(|(_, case)| case.model.contains(&arguments.only)) {
        for (threads, rows) in &mut tables {
            let mut row = Row::new(case);
            for _ in 0..arguments.rounds {
                for runtime in &runtimes {
                    eprintln!("{} {} on {}, {} thread(s)", case.model, case.batch, runtime.name(), threads.name());
                    row.add(*runtime, start(&arguments, *runtime, *threads, i, case));
                }
            }
            rows.push(row);
        }
    }
    for (threads, rows) in &tables {
        println!("\nThreads: {} ({})\n", threads.name(), threads.count()?);
        print_table(&runtimes, rows);
    }
    print_notes(&tables);
    Ok(())
}

/// Measures in a process of its own, where nothing else has threads or memory.
fn start(arguments: &Arguments, runtime: Runtime, threads: Threads, index: usize, case: &Case) -> Result<Measured> {
    if runtime.by_hand() && !case.by_hand() {
        bail!("not written by hand");
    }
    let count = threads.count()?.to_string();
    let mut command = match (&arguments.python, runtime) {
        (Some(python), Runtime::Onnxruntime) => {
            let mut command = Command::new(python);
            command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/bench_onnxruntime.py"));
            command.args(["--worker", threads.name(), &index.to_string()]);
            command
        }
        _ => {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["--worker", &runtime.name(), threads.name(), &index.to_string()]);
            command.env("RAYON_NUM_THREADS", &count).env("CANDLE_NUM_THREADS", &count);
            command
        }
    };
    command.args(["--seconds", &arguments.seconds.to_string()]).arg(&arguments.models);
    let output = command.output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("{}", text.trim().split_whitespace().collect::<Vec<_>>().join(" "));
    }
    serde_json::from_slice(&output.stdout).context("what the worker printed")
}

#[allow(unused_variables, reason = "without some of the features")]
fn bench(runtime: Runtime, case: &Case, models: &Path, all_threads: bool, seconds: f64) -> Result<Measured> {
    match runtime {
        #[cfg(feature = "ours")]
        Runtime::Ours => ours::bench(case, models, all_threads, seconds),
        #[cfg(feature = "tract")]
        Runtime::Tract => tract::bench(case, models, all_threads, seconds),
        #[cfg(feature = "candle")]
        Runtime::Candle => candle::bench(case, models, seconds),
        #[cfg(feature = "burn")]
        Runtime::Burn => burn::bench(case, models, seconds),
        #[allow(unreachable_patterns, reason = "with all of the features")]
        _ => bail!("not built in"),
    }
}
