//! Whoever waits for a result gets it, whatever the cache keeps.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use penstock_inference::{
    ContentHash, InferenceMode, InferenceNetwork, InferenceRequest, Model, ModelSource, ModelStore, NetworkConfig,
    Priority, Tensor, TensorValues, Urgency, synthetic,
};

fn network(cache_bytes: usize, threads: usize, pause: Duration) -> (InferenceNetwork, ContentHash) {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/models/linear/linear.onnx");
    let hash = ContentHash::of(&std::fs::read(file).unwrap());
    let mut models = ModelStore::default();
    models.load(hash, &ModelSource::File(file.into())).unwrap();
    let config = NetworkConfig { threads, cache_bytes, dear_ops: 0, ..NetworkConfig::default() };
    let run = move |_: &Model, _: &InferenceRequest| {
        std::thread::sleep(pause);
        None
    };
    (InferenceNetwork::start_with(models, config, Some(Box::new(run))).unwrap(), hash)
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

#[test]
fn an_order_that_was_answered_takes_nobody_elses_request_back() {
    let (network, model) = network(1, 1, Duration::from_millis(100));
    let urgency = Urgency::of(Priority::Call);
    let order = |n: f32| {
        let request = request(model, n);
        network.order(request.id(), request, 3, urgency)
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    let answered = order(0.0);
    // The cache has room for one answer.
    assert!(answered.wait(deadline).is_some() && order(1.0).wait(deadline).is_some());
    let lanes = [order(2.0), order(3.0)];
    until(|| network.status().queued == 0);
    let again = order(0.0);
    drop(answered);
    assert!(again.wait(deadline).is_some());
    drop(lanes);
}

/// Waits until something is so.
fn until(mut test: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !test() {
        assert!(Instant::now() < deadline, "it never was so");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_run_that_nobody_wants_any_more_ends_at_the_next_node_and_runs_again_when_asked_for() {
    // Minutes of a core in thousands of nodes.
    let file = synthetic::wide_mlp(256, 20_000);
    let hash = ContentHash::of(&file);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.onnx");
    std::fs::write(&path, file).unwrap();
    let mut models = ModelStore::default();
    models.load(hash, &ModelSource::File(path)).unwrap();
    let network = InferenceNetwork::start(models, NetworkConfig { threads: 1, ..NetworkConfig::default() }).unwrap();
    let x = Tensor::new(vec![1, 4], TensorValues::Float32(vec![1.0; 4])).unwrap();
    let request = Arc::new(InferenceRequest { model: hash, mode: InferenceMode::Vanilla, inputs: vec![x] });
    let (id, ops, urgency) = (request.id(), 5_000_000_000_000, Urgency::of(Priority::Transaction));
    let first = network.order(id, request.clone(), ops, urgency);
    until(|| network.progress(&id).is_some_and(|done| done > 0.0));
    let second = network.order(id, request.clone(), ops, urgency);
    drop(first);
    assert_eq!(network.status().running, 1, "the second one wants it");
    drop(second);
    until(|| network.status().running == 0);
    assert_eq!((network.status().done, network.progress(&id)), (0, None));
    let again = network.order(id, request, ops, urgency);
    until(|| network.status().running == 1);
    drop(again);
    until(|| network.status().running == 0);
}

#[test]
fn requests_that_wait_for_one_model_run_together_and_each_gets_its_own_bits() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/models/digits-mlp/digits-mlp.onnx");
    let hash = ContentHash::of(&std::fs::read(file).unwrap());
    let mut models = ModelStore::default();
    let model = models.load(hash, &ModelSource::File(file.into())).unwrap();
    assert!(model.batches());
    let gate = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let closed = gate.clone();
    // The lanes are held by requests of two rows until all others wait.
    let run = move |_: &Model, request: &InferenceRequest| {
        while request.inputs[0].shape()[0] == 2 && !closed.load(std::sync::atomic::Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        None
    };
    let config = NetworkConfig { threads: 1, ..NetworkConfig::default() };
    let network = InferenceNetwork::start_with(models, config, Some(Box::new(run))).unwrap();
    let spec = model.descriptor().unwrap().inputs[0].clone();
    let request = |rows: usize, n: usize| {
        let shape = spec.shape_for(&penstock_inference::Sizes::batch(rows));
        let values = (0..shape.iter().product()).map(|i: usize| ((i * 7 + n * 13) % 1009) as f32 / 60.0).collect();
        let x = Tensor::new(shape, TensorValues::Float32(values)).unwrap();
        Arc::new(InferenceRequest { model: hash, mode: InferenceMode::Vanilla, inputs: vec![x] })
    };
    let urgency = Urgency::of(Priority::Transaction);
    let order = |request: &Arc<InferenceRequest>| network.order(request.id(), request.clone(), 7_000, urgency);
    let blockers = [request(2, 1), request(2, 2)];
    let mut held = Vec::new();
    for (n, blocker) in blockers.iter().enumerate() {
        held.push(order(blocker));
        // One after the other: together they would take one lane.
        until(|| network.status().running == n + 1);
    }
    let requests: Vec<_> = (0..100).map(|n| request(1 + 2 * (n % 2), n)).collect();
    let orders: Vec<_> = requests.iter().map(&order).collect();
    gate.store(true, std::sync::atomic::Ordering::Relaxed);
    let deadline = Instant::now() + Duration::from_secs(60);
    for (request, order) in requests.iter().zip(&orders).chain(blockers.iter().zip(&held)) {
        let answer = order.wait(deadline).unwrap();
        assert_eq!(*answer.result, model.run(&request.inputs));
    }
    let status = network.status();
    assert_eq!(status.done, 102);
    assert!(status.together >= 90, "{status:?}");
}

#[test]
fn an_order_without_an_answer_takes_nothing_back_that_others_ask_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut models = ModelStore::with_budget(1);
    let paths: Vec<_> = (1..3).map(|rows| folder.path().join(format!("{rows}.onnx"))).collect();
    let hashes: Vec<_> = (1..3)
        .zip(&paths)
        .map(|(rows, path)| {
            let file = synthetic::wide_mlp(rows, 1);
            std::fs::write(path, &file).unwrap();
            models.load(ContentHash::of(&file), &ModelSource::File(path.clone())).unwrap().hash()
        })
        .collect();
    let x = Tensor::new(vec![1, 4], TensorValues::Float32(vec![1.0; 4])).unwrap();
    let request = |model| Arc::new(InferenceRequest { model, mode: InferenceMode::Vanilla, inputs: vec![x.clone()] });
    let gate = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (closed, second) = (gate.clone(), hashes[1]);
    let run = move |_: &Model, request: &InferenceRequest| {
        while request.model == second && !closed.load(std::sync::atomic::Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        None
    };
    let config = NetworkConfig { threads: 1, dear_ops: 0, ..NetworkConfig::default() };
    let network = InferenceNetwork::start_with(models, config, Some(Box::new(run))).unwrap();
    let urgency = Urgency::of(Priority::Transaction);
    // The first model made room for the second, and its file has gone for a moment.
    let away = folder.path().join("away");
    std::fs::rename(&paths[0], &away).unwrap();
    let (first, blocker) = (request(hashes[0]), request(hashes[1]));
    let order = network.order(first.id(), first.clone(), 1, urgency);
    assert!(order.wait(Instant::now() + Duration::from_millis(200)).is_none());
    until(|| network.status().running == 0 && network.status().queued == 0);
    std::fs::rename(&away, &paths[0]).unwrap();
    network.submit(blocker.id(), blocker, 1, urgency);
    until(|| network.status().running == 1);
    let heard = network.listen();
    network.submit(first.id(), first.clone(), 1, urgency);
    drop(order);
    assert_eq!(network.status().queued, 1, "somebody else's");
    gate.store(true, std::sync::atomic::Ordering::Relaxed);
    let ids: Vec<_> = (0..2).map(|_| heard.recv_timeout(Duration::from_secs(60)).unwrap().0).collect();
    assert!(ids.contains(&first.id()));
}
