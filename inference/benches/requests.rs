//! Requests through the scheduler: how many light ones a second, with batching and without, and what one costs beside its
//! run.
//!
//!     cargo bench -p penstock-inference --bench requests

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark that cannot go on stops")]

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use penstock_inference::{
    ContentHash, InferenceMode, InferenceNetwork, InferenceRequest, ModelSource, ModelStore, NetworkConfig, Priority,
    Sizes, Tensor, TensorValues, Urgency,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const REQUESTS: usize = 20_000;

fn main() {
    println!("{:<12} {:>6} {:>12} {:>14} {:>16}", "model", "batch", "requests/s", "µs a request", "a bare run, µs");
    for name in ["linear", "digits-mlp", "digits-cnn"] {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("models/{name}/{name}.onnx"));
        let hash = ContentHash::of(&fs::read(&path).unwrap());
        for batch in [1, 32] {
            let mut models = ModelStore::default();
            let model = models.load(hash, &ModelSource::File(path.clone())).unwrap();
            let descriptor = model.descriptor().unwrap().clone();
            let config = NetworkConfig { threads: 1, batch, cache_bytes: 1, ..NetworkConfig::default() };
            let network = InferenceNetwork::start(models, config).unwrap();
            let requests: Vec<Arc<InferenceRequest>> = (0..REQUESTS)
                .map(|n| {
                    let shape = descriptor.inputs[0].shape_for(&Sizes::batch(1));
                    let count = shape.iter().product::<usize>();
                    let values = (0..count).map(|i| (i + n) as f32 / 1000.0).collect();
                    let x = Tensor::new(shape, TensorValues::Float32(values)).unwrap();
                    Arc::new(InferenceRequest { model: hash, mode: InferenceMode::Vanilla, inputs: vec![x] })
                })
                .collect();
            let ops = descriptor.ops.of(&Sizes::batch(1));
            let ids: Vec<_> = requests.iter().map(|request| request.id()).collect();
            let start = Instant::now();
            for (id, request) in ids.iter().zip(&requests) {
                network.submit(*id, request.clone(), ops, Urgency::of(Priority::Transaction));
            }
            while network.status().done < REQUESTS as u64 {
                std::thread::sleep(Duration::from_micros(200));
            }
            let took = start.elapsed().as_secs_f64();
            let bare = Instant::now();
            for request in requests.iter().take(2_000) {
                let _ = std::hint::black_box(model.run(&request.inputs));
            }
            let bare = bare.elapsed().as_secs_f64() / 2_000.0 * 1e6;
            println!(
                "{name:<12} {batch:>6} {:>12.0} {:>14.2} {bare:>16.2}",
                REQUESTS as f64 / took,
                took / REQUESTS as f64 * 1e6
            );
        }
    }
}
