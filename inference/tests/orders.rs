//! Whoever waits for a result gets it, whatever the cache keeps.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use penstock_inference::{
    ContentHash, InferenceMode, InferenceNetwork, InferenceRequest, ModelSource, ModelStore, NetworkConfig, Priority,
    Tensor, TensorValues, Urgency,
};

fn network(cache_bytes: usize, threads: usize, pause: Duration) -> (InferenceNetwork, ContentHash) {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/models/linear/linear.onnx");
    let hash = ContentHash::of(&std::fs::read(file).unwrap());
    let mut models = ModelStore::default();
    models.load(hash, &ModelSource::File(file.into())).unwrap();
    let config = NetworkConfig { threads, cache_bytes, dear_ops: 0 };
    let run = move |model: &penstock_inference::Model, request: &InferenceRequest| {
        std::thread::sleep(pause);
        model.run(&request.inputs)
    };
    (InferenceNetwork::start_with(models, config, Box::new(run)).unwrap(), hash)
}

fn request(model: ContentHash, n: f32) -> Arc<InferenceRequest> {
    let x = Tensor::new(vec![1, 2], TensorValues::Float32(vec![n, 1.0])).unwrap();
    Arc::new(InferenceRequest { model, mode: InferenceMode::Vanilla, inputs: vec![x] })
}

#[test]
fn a_cache_of_one_answer_loses_none_that_somebody_waits_for() {
    let (network, model) = network(1, 2, Duration::ZERO);
    let requests: Vec<_> = (0..200).map(|n| request(model, n as f32)).collect();
    let urgency = Urgency::of(Priority::Verification);
    let orders: Vec<_> =
        requests.iter().map(|request| network.order(request.id(), request.clone(), 3, urgency)).collect();
    std::thread::sleep(Duration::from_millis(50)); // all have run by now
    let deadline = Instant::now() + Duration::from_secs(20);
    for (n, order) in orders.iter().enumerate() {
        let answer = order.wait(deadline).unwrap();
        let tensors = answer.result.as_ref().as_ref().unwrap();
        assert_eq!(*tensors[0].values(), TensorValues::Float32(vec![n as f32 + 5.0]));
    }
    assert_eq!(network.status().cached, 1);
}

#[test]
fn an_order_that_is_given_up_leaves_the_queue_and_takes_nobody_elses_place() {
    let (network, model) = network(1 << 20, 1, Duration::from_millis(200));
    let urgency = Urgency::of(Priority::Call);
    let running = request(model, 0.0);
    let first = network.order(running.id(), running.clone(), 3, urgency);
    while network.status().running == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let queued = request(model, 1.0);
    let wanted = network.order(queued.id(), queued.clone(), 3, urgency);
    let given_up = network.order(queued.id(), queued.clone(), 3, urgency);
    assert!(given_up.wait(Instant::now()).is_none(), "not in time");
    drop(given_up);
    drop(network.order(running.id(), running, 3, urgency));
    assert_eq!(network.status().queued, 1, "one still wants it");
    let deadline = Instant::now() + Duration::from_secs(20);
    assert!(first.wait(deadline).is_some() && wanted.wait(deadline).is_some());
    let other = request(model, 2.0);
    let busy = network.order(queued.id(), queued, 3, urgency);
    assert!(busy.wait(deadline).is_some(), "from the cache");
    let blocking = network.order(other.id(), other.clone(), 3, urgency);
    let last = request(model, 3.0);
    drop(network.order(last.id(), last, 3, urgency));
    assert!(network.status().queued <= 1);
    assert!(blocking.wait(deadline).is_some());
    assert_eq!(network.status().done, 3, "what nobody wants is not run");
}
