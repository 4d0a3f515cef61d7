//! A Relu becomes part of the convolution before it where nobody else reads what is between them, and only there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

#[path = "support/graphs.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod graphs;

use graphs::Graph;
use penstock_inference::{
    Model, Tensor, TensorValues,
    onnx::proto::{FunctionProto, ModelProto, NodeProto},
};
use prost::Message;

const X: [f32; 4] = [-2.0, -1.0, 1.0, 3.0];

/// A convolution that leaves everything as it is.
fn convolved(graph: &mut Graph) -> String {
    let one = graph.constant(TensorValues::Float32(vec![1.0]), &[1, 1, 1]);
    graph.node("Conv", &["x", &one], vec![])
}

fn run(file: Vec<u8>) -> Vec<f32> {
    let x = Tensor::new(vec![1, 1, 4], TensorValues::Float32(X.to_vec())).unwrap();
    match Model::load(file).unwrap().run(&[x]).unwrap()[0].values() {
        TensorValues::Float32(values) => values.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_relu_behind_a_convolution_is_a_relu() {
    let mut graph = Graph::default();
    let a = convolved(&mut graph);
    let y = graph.node("Relu", &[&a], vec![]);
    assert_eq!(run(graph.file(&[1, 4], &y)), [0.0, 0.0, 1.0, 3.0]);
}

#[test]
fn what_somebody_else_reads_stays_as_it_was() {
    let mut graph = Graph::default();
    let a = convolved(&mut graph);
    let b = graph.node("Relu", &[&a], vec![]);
    let y = graph.node("Add", &[&a, &b], vec![]);
    assert_eq!(run(graph.file(&[1, 4], &y)), [-2.0, -1.0, 2.0, 6.0]);
    // And what is an output.
    let mut graph = Graph::default();
    let a = convolved(&mut graph);
    graph.node("Relu", &[&a], vec![]);
    assert_eq!(run(graph.file(&[1, 4], &a)), X);
}

#[test]
fn a_function_of_the_file_that_is_called_relu_is_that_function() {
    let mut graph = Graph::default();
    let a = convolved(&mut graph);
    let y = graph.node("Relu", &[&a], vec![]);
    let mut model = ModelProto::decode(graph.file(&[1, 4], &y).as_slice()).unwrap();
    let double = NodeProto {
        op_type: "Add".into(),
        input: vec!["a".into(), "a".into()],
        output: vec!["b".into()],
        ..Default::default()
    };
    model.functions.push(FunctionProto {
        name: "Relu".into(),
        input: vec!["a".into()],
        output: vec!["b".into()],
        node: vec![double],
        opset_import: model.opset_import.clone(),
        ..Default::default()
    });
    assert_eq!(run(model.encode_to_vec()), [-4.0, -2.0, 2.0, 6.0]);
}
