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

/// The nodes that a run evaluates; `None` when not every number of rows has a cost.
fn nodes(model: &Model, rows: usize) -> Option<usize> {
    model.cost_by_operator(&Sizes::batch(rows)).map(|list| list.iter().map(|operator| operator.nodes).sum()).ok()
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
            let nodes = nodes(&model, m);
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
            // Cast and Mul by themselves, and the reader; or the reader at least.
            let least = if read[0] < 2 { 3 } else { 1 };
            assert!(
                nodes.is_none_or(|nodes| Some(nodes + least) <= more),
                "round {round}: {nodes:?} together, {more:?} apart"
            );
            counted += usize::from(nodes.is_some());
        }
    }
    assert!(counted > 100, "{counted}");
}

#[test]
fn two_dynamically_quantised_products_may_meet() {
    let mut random = Random(33);
    let x = Tensor::new(vec![2, 9], TensorValues::Float32(random.floats(18))).unwrap();
    let weights: Vec<Vec<i8>> = (0..2).map(|_| (0..45).map(|_| random.below(256) as u8 as i8).collect()).collect();
    for op in ["Add", "Mul"] {
        let run = |read: bool| {
            let mut graph = Graph::default();
            let [q, scale, zero] = graph.node_of_three("DynamicQuantizeLinear", &["x"]);
            let [left, right] = [0, 1].map(|number| {
                let w = graph.constant(TensorValues::Int8(weights[number].clone()), &[9, 5]);
                let sums = graph.node("MatMulInteger", &[&q, &w, &zero], vec![]);
                if read {
                    graph.node("Identity", &[&sums], vec![]);
                }
                let numbers = graph.node("Cast", &[&sums], vec![int("to", 1)]);
                if op == "Mul" { numbers } else { graph.node("Mul", &[&numbers, &scale], vec![]) }
            });
            let y = graph.node(op, &[&left, &right], vec![]);
            Model::load(graph.file(&[9], &y)).unwrap().evaluate(vec![Argument::Tensor(x.clone())]).unwrap()
        };
        assert_eq!(run(false), run(true), "{op}");
    }
}

#[test]
fn a_product_of_dequantised_numbers_is_quantised_to_what_its_nodes_give_one_by_one() {
    let mut random = Random(21);
    for round in 0..60 {
        let (m, k, n) = (1 + random.below(9), 1 + random.below(40), 1 + random.below(300));
        let w: Vec<i8> = (0..k * n).map(|_| random.below(256) as u8 as i8).collect();
        let bias = random.floats(if round % 3 == 0 { m * n } else { n });
        let x = Tensor::new(vec![m, k], TensorValues::Float32(random.floats(m * k))).unwrap();
        let run = |read: bool| {
            let mut graph = Graph::default();
            let one = |graph: &mut Graph, scale: f32, zero: u8| {
                let zero = match round % 2 {
                    0 => TensorValues::Int8(vec![zero as i8]),
                    _ => TensorValues::Uint8(vec![zero]),
                };
                (graph.constant(TensorValues::Float32(vec![scale]), &[]), graph.constant(zero, &[]))
            };
            let (x_scale, x_zero) = one(&mut graph, 0.02, 7);
            let q = graph.node("QuantizeLinear", &["x", &x_scale, &x_zero], vec![]);
            let left = graph.node("DequantizeLinear", &[&q, &x_scale, &x_zero], vec![]);
            let w = graph.constant(TensorValues::Int8(w.clone()), &[k, n]);
            let w_scale = graph.constant(TensorValues::Float32(vec![0.01]), &[]);
            let right = graph.node("DequantizeLinear", &[&w, &w_scale], vec![]);
            let shape = if round % 3 == 0 { vec![m, n] } else { vec![n] };
            let bias = graph.constant(TensorValues::Float32(bias.clone()), &shape);
            let y = match round % 4 {
                0 => graph.node("MatMul", &[&left, &right], vec![]),
                _ => graph.node("Gemm", &[&left, &right, &bias], vec![]),
            };
            let (y_scale, y_zero) = one(&mut graph, 0.05, 100);
            let q = graph.node("QuantizeLinear", &[&y, &y_scale, &y_zero], vec![]);
            let out = graph.node("DequantizeLinear", &[&q, &y_scale, &y_zero], vec![]);
            if read {
                graph.node("Identity", &[&y], vec![]);
            }
            let model = Model::load(graph.file(&[k as i64], &out)).unwrap();
            let nodes = nodes(&model, m);
            let output = model.evaluate(vec![Argument::Tensor(x.clone())]).unwrap().remove(0);
            let Argument::Tensor(output) = output else { panic!("{output:?}") };
            let TensorValues::Float32(values) = output.values() else { panic!("{output:?}") };
            (values.iter().map(|x| x.to_bits()).collect::<Vec<u32>>(), nodes)
        };
        let ((together, nodes), (apart, more)) = (run(false), run(true));
        assert_eq!(together, apart, "round {round}: {m} x {k} x {n}");
        // A QuantizeLinear less, and the reader.
        assert_eq!(nodes.map(|nodes| nodes + 2), more, "round {round}");
    }
}
