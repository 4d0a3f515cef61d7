//! Small files that ask for much: memory that nobody counted, work that nobody paid for. Each was found by somebody who looked
//! for it; the process took gigabytes, was aborted, or was busy for a minute.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

#[path = "support/graphs.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod graphs;

use std::{sync::Arc, time::Instant};

use graphs::{Graph, int, ints};
use penstock_inference::{
    ContentHash, Failure, InferenceMode, InferenceNetwork, InferenceRequest, Model, ModelSource, ModelStore,
    NetworkConfig, Priority, Sizes, Tensor, TensorValues, Urgency,
    onnx::proto::{
        AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, StringStringEntryProto,
        TensorProto,
    },
};
use prost::Message;

fn changed(graph: Graph, output: &str, change: impl FnOnce(&mut ModelProto)) -> Vec<u8> {
    let mut model = ModelProto::decode(graph.file(&[2], output).as_slice()).unwrap();
    change(&mut model);
    model.encode_to_vec()
}

fn floats(values: &[f32]) -> TensorValues {
    TensorValues::Float32(values.to_vec())
}

/// Why no chain can register a model.
fn unpriced(file: Vec<u8>) -> String {
    Model::load(file).unwrap().descriptor().unwrap_err().to_string()
}

fn zeros(graph: &mut Graph, shape: &[i64]) -> String {
    let shape = graph.constant(TensorValues::Int64(shape.to_vec()), &[shape.len()]);
    graph.node("ConstantOfShape", &[&shape], vec![])
}

#[test]
fn sparse_tensors_are_counted_before_they_are_written_out() {
    let sparse = |name: &str, data_type: i32, dims: &[i64]| SparseTensorProto {
        values: Some(TensorProto { name: name.into(), data_type, dims: vec![0], ..Default::default() }),
        indices: Some(TensorProto { data_type: 7, dims: vec![0], ..Default::default() }),
        dims: dims.to_vec(),
    };
    let with = |list: Vec<SparseTensorProto>| {
        let mut graph = Graph::default();
        let y = graph.node("Relu", &["x"], vec![]);
        let file = changed(graph, &y, |model| model.graph.as_mut().unwrap().sparse_initializer = list);
        Model::load(file).map(|model| model.memory_bytes()).map_err(|error| error.to_string())
    };
    // 256 MiB together, and more; texts take 24 bytes though they are empty.
    let eight = |n: usize| (0..n).map(|i| sparse(&format!("s{i}"), 11, &[1 << 22])).collect::<Vec<_>>();
    assert!(with(eight(8)).is_ok_and(|bytes| bytes > 256 << 20));
    for list in [eight(9), vec![sparse("s", 8, &[1 << 24])], vec![sparse("s", 11, &[1 << 28])]] {
        assert!(with(list).unwrap_err().contains("too large"));
    }
    for dims in [vec![1 << 40, 0], vec![1; 65]] {
        assert!(with(vec![sparse("s", 1, &dims)]).is_err(), "{dims:?}");
    }
}

#[test]
fn names_and_lists_of_functions_are_counted_for_each_call() {
    let calls = |formal: String, list: usize, calls: usize| {
        let mut graph = Graph::default();
        let mut y = "x".to_owned();
        for _ in 0..calls {
            let list = AttributeProto { ints: vec![1; list], ..ints("l", &[]) };
            y = graph.node("F", &[&y], vec![list]);
        }
        let file = changed(graph, &y, |model| {
            let relu = NodeProto {
                op_type: "Relu".into(),
                input: vec![formal.clone()],
                output: vec!["Y".into()],
                attribute: vec![AttributeProto {
                    name: "l".into(),
                    ref_attr_name: "l".into(),
                    r#type: 7,
                    ..Default::default()
                }],
                ..Default::default()
            };
            let opset_import = model.opset_import.clone();
            let (name, input, output) = ("F".into(), vec![formal.clone()], vec!["Y".into()]);
            model.functions.push(FunctionProto {
                name,
                input,
                output,
                node: vec![relu],
                opset_import,
                ..Default::default()
            });
        });
        Model::load(file).map(|model| model.memory_bytes()).map_err(|error| error.to_string())
    };
    assert!(calls("X".into(), 10, 1000).is_ok());
    assert!(calls("X".repeat(500_000), 10, 1000).unwrap_err().contains("functions written out"));
    assert!(calls("X".into(), 5000, 1000).unwrap_err().contains("functions written out"));
    // What operators may keep of them is part of what the model takes.
    assert!(calls("X".into(), 2000, 1000).unwrap() > 1000 * 2000 * 24);
}

#[test]
fn parameters_that_are_converted_have_bytes_and_a_price() {
    let normed = |channels: i64| {
        let mut graph = Graph::default();
        let image = zeros(&mut graph, &[1, channels, 0]);
        let (list, one) = (zeros(&mut graph, &[channels]), graph.constant(TensorValues::Int64(vec![-1]), &[1]));
        let row = graph.node("Reshape", &["x", &one], vec![]);
        let first = graph.node("ReduceMax", &[&row], vec![int("keepdims", 1)]);
        let list = graph.node("Add", &[&list, &first], vec![]);
        let normed = graph.node("BatchNormalization", &[&image, &list, &list, &list, &list], vec![]);
        let sum = graph.node("ReduceSum", &[&normed], vec![int("keepdims", 0)]);
        let y = graph.node("Add", &["x", &sum], vec![]);
        graph.file(&[2], &y)
    };
    assert!(unpriced(normed(1 << 26)).contains("bytes"));
    let price = |channels: i64| Model::load(normed(channels)).unwrap().descriptor().unwrap().ops.of(&Sizes::batch(1));
    assert!(price(1 << 20) - price(1 << 10) > 4 * 60 * ((1 << 20) - (1 << 10)));
}

#[test]
fn what_has_no_elements_is_not_computed() {
    // All of the right side would be turned and converted.
    let mut graph = Graph::default();
    let (none, many) = (zeros(&mut graph, &[0, 3000]), zeros(&mut graph, &[3000, 3000]));
    let wide = |graph: &mut Graph, x: &str| graph.node("Cast", &[x], vec![int("to", 11)]);
    let (none, many) = (wide(&mut graph, &none), wide(&mut graph, &many));
    let product = graph.node("Gemm", &[&none, &many], vec![int("transB", 1)]);
    let sum = graph.node("ReduceSum", &[&product], vec![int("keepdims", 0)]);
    let sum = graph.node("Cast", &[&sum], vec![int("to", 1)]);
    let y = graph.node("Add", &["x", &sum], vec![]);
    let model = Model::load(graph.file(&[2], &y)).unwrap();
    let x = Tensor::new(vec![1, 2], floats(&[1.0, 2.0])).unwrap();
    assert_eq!(model.run(&[x]).unwrap()[0].values(), &floats(&[1.0, 2.0]));
}

#[test]
fn lists_and_branches_that_do_not_fit_are_refused_before_they_are_gone_through() {
    let mut graph = Graph::default();
    let parts = graph.constant(TensorValues::Int64(vec![1; 60_000]), &[60_000]);
    let y = graph.node("Split", &["x", &parts], vec![int("axis", 1)]);
    let text = unpriced(graph.file(&[2], &y));
    assert!(text.contains("60000 parts") && text.len() < 200, "{text}");
    let mut graph = Graph::default();
    let scales = zeros(&mut graph, &[100_000]);
    let y = graph.node("Resize", &["x", "", &scales], vec![]);
    assert!(unpriced(graph.file(&[2], &y)).contains("100000 scales"));
    let mut graph = Graph::default();
    let condition = graph.constant(TensorValues::Bool(vec![true]), &[]);
    let inner = |outputs: usize| GraphProto {
        name: "inner".into(),
        node: (0..outputs)
            .map(|i| NodeProto {
                op_type: "Identity".into(),
                input: vec!["x".into()],
                output: vec![format!("o{i}")],
                ..Default::default()
            })
            .collect(),
        output: (0..outputs)
            .map(|i| penstock_inference::onnx::proto::ValueInfoProto { name: format!("o{i}"), ..Default::default() })
            .collect(),
        ..Default::default()
    };
    let branch = |name: &str, outputs: usize| AttributeProto {
        name: name.into(),
        g: Some(Box::new(inner(outputs))),
        r#type: 5,
        ..Default::default()
    };
    let y = graph.node("If", &[&condition], vec![branch("then_branch", 2), branch("else_branch", 1)]);
    let error = Model::load(graph.file(&[2], &y)).unwrap_err().to_string();
    assert!(error.contains("branches have other outputs"), "{error}");
}

#[test]
fn boxes_without_classes_and_labels_of_einsum_are_paid_for() {
    let boxes = |nodes: usize| {
        let mut graph = Graph::default();
        let (boxes, scores) = (zeros(&mut graph, &[1, 500_000, 4]), zeros(&mut graph, &[1, 0, 500_000]));
        let most = graph.constant(TensorValues::Int64(vec![1]), &[1]);
        for _ in 0..nodes {
            graph.node("NonMaxSuppression", &[&boxes, &scores, &most], vec![]);
        }
        let y = graph.node("Relu", &["x"], vec![]);
        Model::load(graph.file(&[2], &y)).unwrap()
    };
    // Those that are not done once for all are paid for in every run.
    assert!(boxes(1000).descriptor().unwrap().ops.fixed > 300 * 30_000_000);
    let product = |rank: usize| {
        let mut graph = Graph::default();
        let ones = vec![1i64; rank];
        let first = graph.node("ReduceMax", &["x"], vec![int("keepdims", 0)]);
        let operand = zeros(&mut graph, &ones);
        let operand = graph.node("Add", &[&operand, &first], vec![]);
        let letters: String = ('a'..='z').chain('A'..='Z').take(rank).collect();
        let equation = AttributeProto {
            name: "equation".into(),
            s: Some(format!("{letters},{letters}->{letters}").into()),
            r#type: 3,
            ..Default::default()
        };
        let product = graph.node("Einsum", &[&operand, &operand], vec![equation]);
        let flat = graph.constant(TensorValues::Int64(vec![1]), &[1]);
        let sum = graph.node("Reshape", &[&product, &flat], vec![]);
        let y = graph.node("Add", &["x", &sum], vec![]);
        Model::load(graph.file(&[2], &y)).unwrap().descriptor().unwrap().ops.of(&Sizes::batch(1))
    };
    assert!(product(50) > product(5) + 50_000, "{} {}", product(50), product(5));
}

#[test]
fn types_that_no_run_takes_have_no_price() {
    for (op, dtype, text) in
        [("LogSoftmax", 7, "int64"), ("LpNormalization", 6, "int32"), ("ConvTranspose", 11, "float64")]
    {
        let mut graph = Graph::default();
        let x = graph.node("Cast", &["x"], vec![int("to", dtype)]);
        let shape = graph.constant(TensorValues::Int64(vec![1, 1, -1]), &[3]);
        let x = graph.node("Reshape", &[&x, &shape], vec![]);
        let w = graph.constant(TensorValues::Float64(vec![1.0]), &[1, 1, 1]);
        let inputs = if op == "ConvTranspose" { vec![x.as_str(), &w] } else { vec![x.as_str()] };
        let y = graph.node(op, &inputs, vec![]);
        let file = ModelProto::decode(graph.file(&[2], &y).as_slice()).unwrap();
        let text_of = unpriced(file.encode_to_vec());
        assert!(text_of.contains(text), "{op}: {text_of}");
    }
}

#[test]
fn texts_are_read_within_bounds_while_a_model_is_loaded() {
    let file = |nodes: usize| {
        let mut graph = Graph::default();
        let text = graph.constant(TensorValues::String(vec!["A".repeat(300_000)]), &[1]);
        for _ in 0..nodes {
            graph.node("StringSplit", &[&text], vec![]);
            if let [.., last] = graph.nodes_mut().as_mut_slice() {
                last.output.push(format!("{}n", last.output[0]));
            }
        }
        let y = graph.node("Relu", &["x"], vec![]);
        graph.file(&[2], &y)
    };
    assert!(Model::load(file(2)).unwrap().descriptor().is_ok());
    assert!(unpriced(file(2000)).contains("texts"));
    // What every run would read has no price either, if that is more than one may.
    let table = |bytes: usize| {
        let mut graph = Graph::default();
        let text = graph.constant(TensorValues::String(vec!["A".repeat(bytes / 2), "B".repeat(bytes / 2)]), &[2]);
        let at = graph.node("Cast", &["x"], vec![int("to", 7)]);
        let picked = graph.node("Gather", &[&text, &at], vec![]);
        let y = graph.node("Cast", &[&picked], vec![int("to", 1)]);
        Model::load(graph.file(&[2], &y)).unwrap().descriptor().is_ok()
    };
    assert!(table(30 << 20) && !table(40 << 20));
}

#[test]
fn external_data_is_a_file_of_the_right_length() {
    let folder = tempfile::tempdir().unwrap();
    let with = |location: &str, length: Option<&str>, dims: &[i64]| {
        let entry = |key: &str, value: &str| StringStringEntryProto { key: key.into(), value: value.into() };
        let mut graph = Graph::default();
        let y = graph.node("Add", &["x", "w"], vec![]);
        let file = changed(graph, &y, |model| {
            model.graph.as_mut().unwrap().initializer.push(TensorProto {
                name: "w".into(),
                dims: dims.to_vec(),
                data_type: 1,
                data_location: Some(1),
                external_data: core::iter::once(entry("location", location))
                    .chain(length.map(|length| entry("length", length)))
                    .collect(),
                ..Default::default()
            });
        });
        Model::load_in(file, folder.path()).map(|_| ()).map_err(|error| error.to_string())
    };
    // A sparse file of gigabytes, and a pipe that nobody writes to.
    std::fs::File::create(folder.path().join("great")).unwrap().set_len(3 << 30).unwrap();
    std::fs::write(folder.path().join("small"), 1.5f32.to_le_bytes()).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, folder.path().join("pipe"), rustix::fs::Mode::RUSR).unwrap();
    // Without a length it is that of the shape.
    for length in [None, Some("4")] {
        assert_eq!(with("small", length, &[1]), Ok(()));
        assert_eq!(with("great", length, &[1]), Ok(()));
    }
    assert!(with("great", Some("3221225472"), &[1]).unwrap_err().contains("does not fit"));
    assert!(with("small", Some("4"), &[2]).unwrap_err().contains("does not fit"));
    assert!(with("small", None, &[2]).unwrap_err().contains("ends before"));
    assert!(with("pipe", None, &[1]).unwrap_err().contains("not a file"));
}

#[test]
fn what_is_kept_of_shapes_is_part_of_a_model_and_makes_room() {
    // Four million zeros for each number of rows.
    let file = |seed: f32| {
        let mut graph = Graph::default();
        let rows = graph.node("Shape", &["x"], vec![int("end", 1)]);
        let many = graph.constant(TensorValues::Int64(vec![4 << 20]), &[1]);
        let shape = graph.node("Concat", &[&rows, &many], vec![int("axis", 0)]);
        let zeros = graph.node("ConstantOfShape", &[&shape], vec![]);
        let first = graph.constant(TensorValues::Int64(vec![0]), &[1]);
        let column = graph.node("Gather", &[&zeros, &first], vec![int("axis", 1)]);
        let seed = graph.constant(floats(&[seed]), &[1]);
        let sum = graph.node("Add", &[&column, &seed], vec![]);
        let y = graph.node("Add", &["x", &sum], vec![]);
        graph.file(&[2], &y)
    };
    let folder = tempfile::tempdir().unwrap();
    let mut models = ModelStore::with_budget(40 << 20);
    let hashes: Vec<ContentHash> = (0..3)
        .map(|n| {
            let (file, path) = (file(n as f32), folder.path().join(format!("{n}.onnx")));
            std::fs::write(&path, &file).unwrap();
            models.load(ContentHash::of(&file), &ModelSource::File(path)).unwrap().hash()
        })
        .collect();
    assert_eq!(models.in_memory().0, 3);
    let network = InferenceNetwork::start(models, NetworkConfig { threads: 1, ..NetworkConfig::default() }).unwrap();
    for model in &hashes {
        for rows in [1, 2] {
            let x = Tensor::new(vec![rows, 2], floats(&vec![1.0; rows * 2])).unwrap();
            let request = Arc::new(InferenceRequest { model: *model, mode: InferenceMode::Vanilla, inputs: vec![x] });
            let urgency = Urgency::of(Priority::Transaction);
            let order = network.order(request.id(), request, 1_000, urgency);
            let answer = order.wait(Instant::now() + std::time::Duration::from_secs(60)).unwrap();
            assert_ne!(*answer.result, Err(Failure::Engine));
        }
        let (_, bytes) = network.models().in_memory();
        assert!(bytes <= 40 << 20, "{bytes}");
    }
    assert!(network.models().in_memory().0 < 3, "the others made room");
}
