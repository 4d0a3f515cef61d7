//! Nodes are computed together with the one before them where nobody else reads what is between, and only there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

#[path = "support/graphs.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod graphs;

use graphs::{Graph, int};
use penstock_inference::{
    Argument, Model, Sizes, Tensor, TensorValues,
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

/// Pseudo-random numbers.
struct Random(u32);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as usize % n
    }

    fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.below(2001) as f32 / 500.0 - 2.0).collect()
    }
}

#[test]
fn a_dynamically_quantised_product_gives_what_its_nodes_give_one_by_one() {
    let mut random = Random(9);
    let mut counted = 0;
    for round in 0..80 {
        let (m, k, n) = (1 + random.below(7), 1 + random.below(40), 1 + random.below(40));
        let w: Vec<i8> = (0..k * n).map(|_| random.below(256) as u8 as i8).collect();
        let zeros: Vec<i8> = (0..n).map(|_| random.below(5) as i8 * (round % 2) as i8).collect();
        let scales = &[vec![], vec![1], vec![n], vec![1, n], vec![2, 1, n], vec![m, 1]][round % 6];
        let biases = &[vec![n], vec![1], vec![m, n], vec![3, 1, n]][round % 4];
        let scale = random.floats(scales.iter().product());
        let bias = random.floats(biases.iter().product());
        let x = Tensor::new(vec![m, k], TensorValues::Float32(random.floats(m * k))).unwrap();
        // Bits of the end, with nodes beside the chain that read what is at some places in it.
        let run = |read: &[usize]| {
            let mut graph = Graph::default();
            let [q, q_scale, q_zero] = graph.node_of_three("DynamicQuantizeLinear", &["x"]);
            let w = graph.constant(TensorValues::Int8(w.clone()), &[k, n]);
            let zeros = graph.constant(TensorValues::Int8(zeros.clone()), &[n]);
            let scale = graph.constant(TensorValues::Float32(scale.clone()), scales);
            let bias = graph.constant(TensorValues::Float32(bias.clone()), biases);
            let scale = graph.node("Mul", &[&q_scale, &scale], vec![]);
            let sums = graph.node("MatMulInteger", &[&q, &w, &q_zero, &zeros], vec![]);
            let numbers = graph.node("Cast", &[&sums], vec![int("to", 1)]);
            let scaled = graph.node("Mul", &[&numbers, &scale], vec![]);
            let mut chain = vec![sums, numbers, scaled];
            if round % 3 > 0 {
                chain.push(graph.node("Add", &[&bias, &chain[2]], vec![]));
            }
            if round % 5 > 1 {
                chain.push(graph.node("Relu", &[chain.last().unwrap()], vec![]));
            }
            read.iter().for_each(|place| drop(graph.node("Identity", &[&chain[*place]], vec![])));
            let model = Model::load(graph.file(&[k as i64], chain.last().unwrap())).unwrap();
            let nodes = model.cost_by_operator(&Sizes::batch(m)).map(|nodes| nodes.len()).ok();
            // Not every one of them takes any number of rows, as requests do.
            let output = model.evaluate(vec![Argument::Tensor(x.clone())]).unwrap().remove(0);
            let Argument::Tensor(output) = output else { panic!("{output:?}") };
            let TensorValues::Float32(values) = output.values() else { panic!("{output:?}") };
            (output.shape().to_vec(), values.iter().map(|x| x.to_bits()).collect::<Vec<u32>>(), nodes)
        };
        let (shape, together, nodes) = run(&[]);
        for read in [&[0][..], &[1], &[2]] {
            let (other, apart, more) = run(read);
            assert_eq!((&shape, &together), (&other, &apart), "round {round}, read at {read:?}");
            // With a scale for each row of one size there is no cost for every size.
            assert_eq!(nodes.is_none(), more.is_none(), "round {round}");
            assert!(nodes.is_none_or(|nodes| Some(nodes) < more), "round {round}: {nodes:?} together, {more:?} apart");
            counted += usize::from(nodes.is_some());
        }
    }
    assert!(counted > 100, "{counted}");
}
