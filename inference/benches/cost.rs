//! Time against cost: nanoseconds for each op, for every real export with a static cost (`scripts/conformance` makes
//! them). Ops are meant to be proportional to time within a factor of two. Machine-wide figures vary; ratios are what counts.
//!
//!     PENSTOCK_ONNX_CASES=$PWD/target/conformance cargo bench --workspace --bench cost [NAME]
//!
//! One thread, or as many as `PENSTOCK_THREADS` says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark that cannot go on stops")]

#[path = "../tests/support/cases.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod cases;

use std::{
    env, fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use penstock_inference::{Argument, Model, Sizes, Tensor};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let Some(folder) = env::var_os("PENSTOCK_ONNX_CASES").map(PathBuf::from) else {
        eprintln!("PENSTOCK_ONNX_CASES is not set");
        return;
    };
    let only = env::args().skip(1).find(|argument| !argument.starts_with("--")).unwrap_or_default();
    let threads = env::var("PENSTOCK_THREADS").map_or(1, |threads| threads.parse().expect("a number of threads"));
    println!("{:<60} {:>14} {:>12} {:>8}", "model, first input", "ops", "µs", "ns/op");
    let mut ratios = Vec::new();
    for case in cases::find(&folder.join("real")) {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        if !name.contains(&only) {
            continue;
        }
        let Ok(model) = Model::load_in(fs::read(case.join("model.onnx")).unwrap(), &case) else { continue };
        let Ok(descriptor) = model.descriptor() else { continue };
        let mut seen = Vec::new();
        for set in 0.. {
            let Ok(inputs) = cases::inputs(&case, set) else { break };
            let inputs = inputs.into_iter().map(|argument| match argument {
                Argument::Tensor(tensor) => Some(tensor),
                _ => None,
            });
            let Some(inputs) = inputs.collect::<Option<Vec<Tensor>>>() else { break };
            let mut sizes = Sizes::default();
            let fits = descriptor.inputs.iter().zip(&inputs).all(|(spec, t)| sizes.bind_shape(&spec.shape, t.shape()));
            let shapes: Vec<_> = inputs.iter().map(|tensor| tensor.shape().to_vec()).collect();
            if !fits || inputs.is_empty() || seen.contains(&shapes) {
                continue;
            }
            let ops = descriptor.ops.of(&sizes);
            let mut best = Duration::MAX;
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(400) {
                let start = Instant::now();
                let _ = std::hint::black_box(model.run_watched(&inputs, threads, None, None));
                best = best.min(start.elapsed());
            }
            let ratio = best.as_nanos() as f64 / ops as f64;
            ratios.push(ratio);
            let label = format!("{name} {:?}", shapes[0]);
            println!("{label:<60} {ops:>14} {:>12.1} {ratio:>8.3}", best.as_nanos() as f64 / 1e3);
            seen.push(shapes);
        }
    }
    ratios.sort_by(f64::total_cmp);
    let at = |share: f64| ratios.get((ratios.len() as f64 * share) as usize).copied().unwrap_or_default();
    println!(
        "{} models: 5 % below {:.3}, median {:.3}, 5 % above {:.3} ns/op",
        ratios.len(),
        at(0.05),
        at(0.5),
        at(0.95)
    );
}
