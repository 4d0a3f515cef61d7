//! CometBFT as a child process: started again when it ends, its log passed on, stopped with this process.

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};
use metrics::counter;
use penstock_abci::Address;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;
use tracing::{debug, error, info, warn};

use super::Version;
use crate::home::Home;

/// A child that lives shorter than this failed to start.
const SHORT_LIFE: Duration = Duration::from_secs(10);

/// Failed starts in a row that end the supervision. The child of a killed process may hold its files for
/// some seconds more.
const MAX_FAILURES: u32 = 10;

/// The wait before a start, doubled with each failure, up to the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// How long a child has to stop after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);

/// How often the child is looked at.
const GLANCE: Duration = Duration::from_millis(50);

/// The version of a CometBFT program.
///
/// # Errors
/// When it is none, or not supported.
pub(crate) fn version_of(program: &Path) -> anyhow::Result<Version> {
    let ask = || {
        let output = Command::new(program).arg("version").output();
        output.with_context(|| format!("cannot run {} (scripts/install-cometbft installs one)", program.display()))
    };
    let mut output = ask()?;
    if output.status.signal().is_some() {
        // Somebody who kills CometBFT hits this process, too.
        output = ask()?;
    }
    if !output.status.success() {
        bail!("`{} version` failed: {}", program.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8_lossy(&output.stdout).parse().map_err(|why: String| anyhow!("{}: {why}", program.display()))
}

/// The supervision.
#[derive(Debug)]
pub(crate) struct Supervisor {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Supervisor {
    /// Starts CometBFT on a home folder. The receiver hears when it cannot be kept running.
    pub(crate) fn start(
        program: PathBuf,
        home: &Home,
        abci: &Address,
    ) -> std::io::Result<(Self, oneshot::Receiver<anyhow::Error>)> {
        let stop = Arc::new(AtomicBool::new(false));
        let (failed, failure) = oneshot::channel();
        let arguments = vec![
            "start".to_owned(),
            "--home".to_owned(),
            home.root().display().to_string(),
            "--proxy_app".to_owned(),
            abci.to_string(),
        ];
        let of_thread = stop.clone();
        let thread = thread::Builder::new().name("cometbft".into()).spawn(move || {
            if let Err(error) = supervise(&program, &arguments, &of_thread) {
                error!(error = format!("{error:#}"), "CometBFT cannot be kept running");
                // The receiver is gone when the process is stopping anyway.
                let _ = failed.send(error);
            }
        })?;
        Ok((Self { stop, thread }, failure))
    }

    /// Stops CometBFT and waits for its end.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        if self.thread.join().is_err() {
            warn!("the thread that supervises CometBFT panicked");
        }
    }
}

fn supervise(program: &Path, arguments: &[String], stop: &AtomicBool) -> anyhow::Result<()> {
    let mut failures = 0;
    loop {
        let begin = Instant::now();
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        end_with_this_process(&mut command);
        let mut child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
        info!(pid = child.id(), "CometBFT started");
        let logs = [child.stdout.take().map(pass_on), child.stderr.take().map(pass_on)];
        let status = loop {
            if stop.load(Ordering::SeqCst) {
                let stopped = terminate(&mut child);
                logs.into_iter().flatten().for_each(|log| drop(log.join()));
                return stopped;
            }
            if let Some(status) = child.try_wait().context("cannot wait for CometBFT")? {
                break status;
            }
            thread::sleep(GLANCE);
        };
        logs.into_iter().flatten().for_each(|log| drop(log.join()));
        counter!("penstock_cometbft_restarts_total").increment(1);
        failures = if begin.elapsed() < SHORT_LIFE { failures + 1 } else { 1 };
        if failures >= MAX_FAILURES {
            bail!(
                "CometBFT ended {failures} times within {SHORT_LIFE:?} of its start, with {status}; its log says why"
            );
        }
        warn!(%status, failures, "CometBFT ended: it is started again");
        let pause = (PAUSE.0 * 2u32.saturating_pow(failures - 1)).min(PAUSE.1);
        let until = Instant::now() + pause;
        while Instant::now() < until {
            if stop.load(Ordering::SeqCst) {
                return Ok(());
            }
            thread::sleep(GLANCE);
        }
    }
}

/// A CometBFT whose application was killed must not live on: before its first connection it would wait for another
/// application for ever, with its database locked. Where the system has no such signal, one that was connected ends by
/// itself.
fn end_with_this_process(command: &mut Command) {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::process::CommandExt;

        let this = Some(rustix::process::getpid());
        let ask = move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
            // It may have died before the signal was asked for.
            if rustix::process::getppid() == this { Ok(()) } else { Err(rustix::io::Errno::SRCH.into()) }
        };
        // SAFETY: between fork and exec only system calls are made, prctl(2) and getppid(2), which are async-signal-safe;
        // nothing is allocated. The thread that forks, whose end sends the signal, lives as long as the supervision.
        #[expect(unsafe_code, reason = "std has no safe way to do something between fork and exec")]
        unsafe {
            command.pre_exec(ask);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command;
}

/// SIGTERM, and SIGKILL after the time of grace.
fn terminate(child: &mut Child) -> anyhow::Result<()> {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw)
        && let Err(error) = kill_process(pid, Signal::TERM)
    {
        debug!(%error, "CometBFT is gone already");
    }
    let until = Instant::now() + GRACE;
    while Instant::now() < until {
        if child.try_wait().context("cannot wait for CometBFT")?.is_some() {
            info!("CometBFT stopped");
            return Ok(());
        }
        thread::sleep(GLANCE);
    }
    warn!("CometBFT does not stop: it is killed");
    child.kill().and_then(|()| child.wait()).context("cannot stop CometBFT")?;
    Ok(())
}

/// Passes a child's lines on to our log.
fn pass_on(output: impl Read + Send + 'static) -> JoinHandle<()> {
    thread::spawn(move || {
        let (mut output, mut bytes) = (BufReader::new(output), Vec::new());
        while output.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
            let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            bytes.clear();
            // CometBFT's plain format begins with the level: I[2026-…] message.
            match line.split_once('[') {
                Some(("E", rest)) => error!(target: "cometbft", "[{rest}"),
                Some(("D", rest)) => debug!(target: "cometbft", "[{rest}"),
                Some(("I", rest)) => info!(target: "cometbft", "[{rest}"),
                _ => info!(target: "cometbft", "{line}"),
            }
        }
    })
}
