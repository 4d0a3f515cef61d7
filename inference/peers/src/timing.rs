//! Runs something many times.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// What a runtime took and answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    pub min_ns: u64,
    pub median_ns: u64,
    pub runs: usize,
    /// The first elements of the first float32 output.
    pub output: Vec<f32>,
}

/// How many elements of an output are compared.
pub const SAMPLE: usize = 64;
const WARM_UP: Duration = Duration::from_millis(300);
const MIN_RUNS: usize = 5;

pub fn measure<T>(
    seconds: f64,
    mut run: impl FnMut() -> Result<T>,
    read: impl FnOnce(T) -> Result<Vec<f32>>,
) -> Result<Measured> {
    let start = Instant::now();
    let mut last = run()?;
    while start.elapsed() < WARM_UP {
        last = run()?;
    }
    let mut output = read(last)?;
    output.truncate(SAMPLE);

    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed().as_secs_f64() < seconds || times.len() < MIN_RUNS {
        let begin = Instant::now();
        let result = run()?;
        times.push(begin.elapsed().as_nanos() as u64);
        drop(result);
    }
    times.sort_unstable();
    Ok(Measured { min_ns: times[0], median_ns: times[times.len() / 2], runs: times.len(), output })
}
