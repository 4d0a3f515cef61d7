//! Corners of the specification that the ONNX backend tests do not reach: each was once computed wrongly.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

#[path = "support/graphs.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod graphs;

use graphs::{Graph, int};
use penstock_inference::{
    Argument, Model, ModelError, Tensor, TensorValues,
    onnx::{
        proto::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, ValueInfoProto},
        write_tensor,
    },
};
use prost::Message;

fn run_of(file: Vec<u8>, inputs: Vec<Tensor>) -> TensorValues {
    let inputs = inputs.into_iter().map(Argument::Tensor).collect();
    match Model::load(file).unwrap().evaluate(inputs).unwrap().remove(0) {
        Argument::Tensor(tensor) => tensor.into_values(),
        other => panic!("{other:?}"),
    }
}

fn tensor(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::new(shape.to_vec(), TensorValues::Float32(values.to_vec())).unwrap()
}

/// What a graph makes of one row of float32.
fn run(graph: Graph, x: &[f32], output: &str) -> TensorValues {
    run_of(graph.file(&[x.len() as i64], output), vec![tensor(&[1, x.len()], x)])
}

fn floats(values: &[f32]) -> TensorValues {
    TensorValues::Float32(values.to_vec())
}

fn changed(graph: Graph, x: &[f32], output: &str, change: impl FnOnce(&mut ModelProto)) -> Result<Model, ModelError> {
    let mut model = ModelProto::decode(graph.file(&[x.len() as i64], output).as_slice()).unwrap();
    change(&mut model);
    Model::load(model.encode_to_vec())
}

#[test]
fn fractions_become_halves_by_one_rounding() {
    for (dtype, bits, tail) in [(10, 11, 40), (10, 11, 22), (16, 8, 30)] {
        let mut graph = Graph::default();
        let x = 1.0 + 2f64.powi(-bits) + 2f64.powi(-tail);
        let x = graph.constant(TensorValues::Float64(vec![x]), &[1]);
        let half = graph.node("Cast", &[&x], vec![int("to", dtype)]);
        let y = graph.node("Cast", &[&half], vec![int("to", 1)]);
        let above = 1.0 + 2f32.powi(1 - bits);
        assert_eq!(run(graph, &[0.0], &y), floats(&[above]), "{dtype}, 2^-{tail}");
    }
}

#[test]
fn halves_are_computed_with_as_float32_and_rounded_once() {
    // Each of the sums is beyond what a half holds, or between two of them.
    let half = |graph: &mut Graph, values: &[f32], shape: &[usize]| {
        let values = graph.constant(floats(values), shape);
        graph.node("Cast", &[&values], vec![int("to", 10)])
    };
    let wide = |graph: &mut Graph, x: &str| graph.node("Cast", &[x], vec![int("to", 1)]);
    let mut graph = Graph::default();
    let x = half(&mut graph, &[60000.0], &[1]);
    let mean = graph.node("Mean", &[&x, &x, &x], vec![]);
    let y = wide(&mut graph, &mean);
    assert_eq!(run(graph, &[0.0], &y), floats(&[60000.0]));
    let mut graph = Graph::default();
    let (a, one) = (half(&mut graph, &[2048.0, 1.0], &[1, 2]), half(&mut graph, &[1.0, 1.0], &[2, 1]));
    let c = half(&mut graph, &[1.0], &[1]);
    let product = graph.node("Gemm", &[&a, &one, &c], vec![]);
    let y = wide(&mut graph, &product);
    assert_eq!(run(graph, &[0.0], &y), floats(&[2050.0]));
    let mut graph = Graph::default();
    let x = half(&mut graph, &[2048.0, 1.0, 1.0], &[3]);
    let axis = graph.constant(TensorValues::Int64(vec![0]), &[]);
    let sums = graph.node("CumSum", &[&x, &axis], vec![]);
    let y = wide(&mut graph, &sums);
    assert_eq!(run(graph, &[0.0], &y), floats(&[2048.0, 2048.0, 2050.0]));
    let mut graph = Graph::default();
    let (a, b) = (half(&mut graph, &[300.0], &[1]), half(&mut graph, &[0.01], &[1]));
    let equation =
        AttributeProto { name: "equation".into(), s: Some("i,i,i->i".into()), r#type: 3, ..Default::default() };
    let product = graph.node("Einsum", &[&a, &a, &b], vec![equation]);
    let y = wide(&mut graph, &product);
    let TensorValues::Float32(found) = run(graph, &[0.0], &y) else { panic!() };
    assert!((found[0] - 900.0).abs() < 1.0, "{found:?}");
}

#[test]
fn what_is_inside_of_a_function_has_no_name_that_a_value_outside_may_have() {
    let function = |model: &mut ModelProto| FunctionProto {
        name: "F".into(),
        input: vec!["X".into()],
        output: vec!["Y".into()],
        node: vec![NodeProto {
            op_type: "Identity".into(),
            input: vec!["X".into()],
            output: vec!["Y".into()],
            ..Default::default()
        }],
        opset_import: model.opset_import.clone(),
        ..Default::default()
    };
    for outside in ["1 F/2/X", "2/X", "\0x/X"] {
        let mut graph = Graph::default();
        let first = graph.node("Relu", &["x"], vec![]);
        graph.node("F", &["x"], vec![]);
        let y = graph.node("Neg", &[&first], vec![]);
        let x = [-1.0, 2.0, -3.0];
        let file = changed(graph, &x, &y, |model| {
            let nodes = &mut model.graph.as_mut().unwrap().node;
            nodes[0].output[0] = outside.into();
            nodes[2].input[0] = outside.into();
            let function = function(model);
            model.functions.push(function);
        });
        if outside.contains('\0') {
            assert!(file.unwrap_err().to_string().contains("NUL"));
            continue;
        }
        let found = file.unwrap().run(&[tensor(&[1, 3], &x)]).unwrap();
        assert_eq!(found[0].values(), &floats(&[-0.0, -2.0, -0.0]), "{outside}");
    }
}

#[test]
fn functions_of_one_name_are_told_apart_by_their_overload() {
    let function = |model: &ModelProto, name: &str, overload: &str, op: &str| FunctionProto {
        name: name.into(),
        overload: overload.into(),
        input: vec!["X".into()],
        output: vec!["Y".into()],
        node: vec![NodeProto {
            op_type: op.into(),
            input: vec!["X".into()],
            output: vec!["Y".into()],
            ..Default::default()
        }],
        opset_import: model.opset_import.clone(),
        ..Default::default()
    };
    for (overload, expected) in [
        ("A", Some(&[1.0, -2.0])),
        ("B", Some(&[1.0, 2.0])),
        ("", Some(&[0.0, 2.0])),
        ("none", Some(&[0.0, 2.0])),
        ("C", None),
    ] {
        let mut graph = Graph::default();
        let y = graph.node("Relu", &["x"], vec![]);
        let model = changed(graph, &[-1.0, 2.0], &y, |model| {
            model.graph.as_mut().unwrap().node[0].overload = overload.into();
            model.functions = vec![function(model, "Relu", "A", "Neg"), function(model, "Relu", "B", "Abs")];
            if overload == "none" {
                model.functions.clear();
            }
        });
        match expected {
            Some(expected) => {
                let found = model.unwrap().run(&[tensor(&[1, 2], &[-1.0, 2.0])]).unwrap();
                assert_eq!(found[0].values(), &floats(expected), "{overload}");
            }
            None => assert!(model.unwrap_err().to_string().contains("Relu:C")),
        }
    }
}

#[test]
fn quotients_are_of_the_precision_that_is_asked_for_or_of_the_scale() {
    let quantized = |opset: i64, x: &[f32], half: bool, scale: f32, precision: Option<i64>| {
        let mut graph = Graph::default();
        let scale = graph.constant(floats(&[scale]), &[]);
        let zero = graph.constant(TensorValues::Int16(vec![0]), &[]);
        let halves = |graph: &mut Graph, x: &str| match half {
            true => graph.node("Cast", &[x], vec![int("to", 10)]),
            false => x.to_owned(),
        };
        let (x_name, scale) = (halves(&mut graph, "x"), halves(&mut graph, &scale));
        let attributes = precision.map(|precision| int("precision", precision)).into_iter().collect();
        let q = graph.node("QuantizeLinear", &[&x_name, &scale, &zero], attributes);
        let y = graph.node("Cast", &[&q], vec![int("to", 1)]);
        let model = changed(graph, x, &y, |model| model.opset_import[0].version = opset).unwrap();
        model.run(&[tensor(&[1, x.len()], x)]).unwrap().remove(0).into_values()
    };
    let x = [100.51, 1000.6, 2.2, 50.51, 0.1];
    assert_eq!(quantized(23, &x, false, 1.0, None), floats(&[101.0, 1001.0, 2.0, 51.0, 0.0]));
    assert_eq!(quantized(23, &x, false, 1.0, Some(10)), floats(&[100.0, 1000.0, 2.0, 50.0, 0.0]));
    // 1000 / 0.33325 is 3000.75…, whose neighbours in float16 are 3000 and 3002.
    assert_eq!(quantized(23, &[1000.0], true, 0.3333, None), floats(&[3000.0]));
    assert_eq!(quantized(23, &[1000.0], true, 0.3333, Some(1)), floats(&[3001.0]));
    assert_eq!(quantized(21, &[1000.0], true, 0.3333, None), floats(&[3001.0]));
}

#[test]
fn a_loop_without_a_condition_goes_on_whatever_its_body_says() {
    let value = |name: &str| ValueInfoProto { name: name.into(), ..Default::default() };
    let inside = |op: &str, inputs: &[&str], output: &str| NodeProto {
        op_type: op.into(),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.into()],
        ..Default::default()
    };
    for (condition, count) in [(false, 5.0), (true, 3.0)] {
        let mut graph = Graph::default();
        let rounds = graph.constant(TensorValues::Int64(vec![5]), &[]);
        let two = graph.constant(TensorValues::Int64(vec![2]), &[]);
        let one = graph.constant(floats(&[1.0]), &[]);
        let yes = graph.constant(TensorValues::Bool(vec![true]), &[]);
        let body = GraphProto {
            name: "body".into(),
            node: vec![inside("Less", &["i", &two], "go"), inside("Add", &["state", &one], "next")],
            input: vec![value("i"), value("c"), value("state")],
            output: vec![value("go"), value("next")],
            ..Default::default()
        };
        let attribute =
            AttributeProto { name: "body".into(), g: Some(Box::new(body)), r#type: 5, ..Default::default() };
        let y = graph.node("Loop", &[&rounds, if condition { &yes } else { "" }, "x"], vec![attribute]);
        assert_eq!(run(graph, &[0.0], &y), floats(&[count]), "{condition}");
    }
}

#[test]
fn what_asks_for_training_or_for_statistics_of_another_type_is_refused() {
    let refused = |op: &str, opset: i64, attributes: Vec<AttributeProto>| {
        let mut graph = Graph::default();
        let list = graph.constant(floats(&[1.0, 1.0]), &[2]);
        let inputs = match op {
            "BatchNormalization" => vec!["x", &list, &list, &list, &list],
            "Dropout" => vec!["x"],
            _ => vec!["x", &list],
        };
        let y = graph.node(op, &inputs, attributes);
        changed(graph, &[1.0, 2.0], &y, |model| model.opset_import[0].version = opset).err().map(|e| e.to_string())
    };
    for op in ["BatchNormalization", "Dropout"] {
        assert!(refused(op, 6, vec![]).is_some_and(|text| text.contains("training")), "{op}");
        assert_eq!(refused(op, 6, vec![int("is_test", 1)]), None, "{op}");
        assert_eq!(refused(op, 9, vec![]), None, "{op}");
    }
    for op in ["LayerNormalization", "RMSNormalization"] {
        assert!(refused(op, 23, vec![int("stash_type", 16)]).is_some_and(|text| text.contains("stash_type")), "{op}");
        assert_eq!(refused(op, 23, vec![int("stash_type", 1)]), None, "{op}");
    }
}

#[test]
fn features_to_impute_are_the_last_dimension() {
    let imputed = AttributeProto {
        name: "imputed_value_floats".into(),
        floats: vec![1.0, 2.0, 3.0, 4.0],
        r#type: 6,
        ..Default::default()
    };
    let mut graph = Graph::default();
    let shape = graph.constant(TensorValues::Int64(vec![1, 2, 4]), &[3]);
    let wide = graph.node("Reshape", &["x", &shape], vec![]);
    let y = graph.node_of("ai.onnx.ml", "Imputer", &[&wide], vec![imputed]);
    assert_eq!(
        run(graph, &[0.0, 9.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0], &y),
        floats(&[1.0, 9.0, 3.0, 4.0, 1.0, 2.0, 3.0, 9.0])
    );
}

#[test]
fn operands_that_operator_set_6_aligns_are_aligned_or_refused() {
    for op in ["Less", "Pow", "Equal"] {
        let mut graph = Graph::default();
        let b = graph.constant(floats(&[2.0]), &[1]);
        let y = graph.node(op, &["x", &b], vec![int("axis", 0), int("broadcast", 1)]);
        let loaded = changed(graph, &[1.0], &y, |model| model.opset_import[0].version = 6);
        assert!(loaded.unwrap_err().to_string().contains("operator set 6"), "{op}");
    }
}

#[test]
fn a_stack_of_matrices_has_zero_points_of_its_own() {
    let mut graph = Graph::default();
    let a = graph.constant(TensorValues::Uint8(vec![1; 6]), &[2, 1, 3]);
    let b = graph.constant(TensorValues::Uint8(vec![10; 18]), &[2, 3, 3]);
    let none = graph.constant(TensorValues::Uint8(vec![0]), &[]);
    let zeros = graph.constant(TensorValues::Uint8(vec![1, 2, 3, 4, 5, 6]), &[2, 1, 3]);
    let y = graph.node("MatMulInteger", &[&a, &b, &none, &zeros], vec![]);
    assert_eq!(run(graph, &[0.0], &y), TensorValues::Int32(vec![27, 24, 21, 18, 15, 12]));
    // Scales of a stack are refused.
    let mut graph = Graph::default();
    let a = graph.constant(TensorValues::Uint8(vec![1; 6]), &[2, 1, 3]);
    let b = graph.constant(TensorValues::Uint8(vec![10; 18]), &[2, 3, 3]);
    let (none, one) = (graph.constant(TensorValues::Uint8(vec![0]), &[]), graph.constant(floats(&[1.0]), &[]));
    let scales = graph.constant(floats(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), &[2, 1, 3]);
    let y = graph.node("QLinearMatMul", &[&a, &one, &none, &b, &scales, &none, &one, &none], vec![]);
    let model = Model::load(graph.file(&[1], &y)).unwrap();
    assert!(model.evaluate(vec![Argument::Tensor(tensor(&[1, 1], &[0.0]))]).is_err());
}

#[test]
fn a_layer_norm_scales_rows_where_its_scale_has_rows() {
    let x = [1.0, 2.0, 9.0, 4.0, 5.0, 9.0, 7.0, 8.0, 9.0];
    let normed = |scale: &[f32], shape: &[usize]| -> Vec<f32> {
        let mut graph = Graph::default();
        let three = graph.constant(TensorValues::Int64(vec![3, 3]), &[2]);
        let rows = graph.node("Reshape", &["x", &three], vec![]);
        let scale = graph.constant(floats(scale), shape);
        let y = graph.node("LayerNormalization", &[&rows, &scale], vec![]);
        match run(graph, &x, &y) {
            TensorValues::Float32(values) => values,
            other => panic!("{other:?}"),
        }
    };
    let plain = normed(&[1.0; 3], &[3]);
    let by_column: Vec<f32> = plain.iter().enumerate().map(|(i, x)| x * (i % 3 + 1) as f32).collect();
    let by_row: Vec<f32> = plain.iter().enumerate().map(|(i, x)| x * (i / 3 + 1) as f32).collect();
    let scale = [1.0, 2.0, 3.0];
    assert_eq!(normed(&scale, &[3]), by_column);
    assert_eq!(normed(&scale, &[1, 3]), by_column);
    assert_eq!(normed(&scale, &[3, 1]), by_row);
}

#[test]
fn what_only_training_gives_is_refused() {
    let mut graph = Graph::default();
    let one = graph.constant(floats(&[1.0]), &[1]);
    let y = graph.node("BatchNormalization", &["x", &one, &one, &one, &one], vec![]);
    let loaded = changed(graph, &[1.0], &y, |model| {
        model.opset_import[0].version = 9;
        model.graph.as_mut().unwrap().node[0].output.extend(["mean".to_owned(), "variance".to_owned()]);
    });
    assert!(loaded.unwrap_err().to_string().contains("training"));
}

#[test]
fn a_sparse_constant_that_is_listed_among_the_inputs_is_none() {
    let mut graph = Graph::default();
    let y = graph.node("Sub", &["x", "s"], vec![]);
    let mut model = ModelProto::decode(graph.file_of(&["s", "x"], &[3], &y).as_slice()).unwrap();
    let ten = Tensor::new(vec![1], TensorValues::Float32(vec![10.0])).unwrap();
    let first = Tensor::new(vec![1], TensorValues::Int64(vec![0])).unwrap();
    let sparse = SparseTensorProto {
        values: Some(write_tensor("s", &ten)),
        indices: Some(write_tensor("", &first)),
        dims: vec![3],
    };
    model.graph.as_mut().unwrap().sparse_initializer.push(sparse);
    let found = run_of(model.encode_to_vec(), vec![tensor(&[1, 3], &[1.0, 2.0, 3.0])]);
    assert_eq!(found, floats(&[-9.0, 2.0, 3.0]));
}

#[test]
fn attributes_of_another_type_are_refused() {
    let float = AttributeProto { name: "axis".into(), f: Some(1.0), r#type: 1, ..Default::default() };
    for (op, attribute) in [("LeakyRelu", int("alpha", 2)), ("Softmax", float)] {
        let mut graph = Graph::default();
        let y = graph.node(op, &["x"], vec![attribute]);
        assert!(Model::load(graph.file(&[1], &y)).unwrap_err().to_string().contains("type"), "{op}");
    }
}

#[test]
fn what_is_no_number_comes_last_among_distinct_values() {
    let mut graph = Graph::default();
    let x = graph.constant(floats(&[3.0, f32::NAN, 2.0, 1.0, f32::NAN]), &[5]);
    let y = graph.node("Unique", &[&x], vec![]);
    let TensorValues::Float32(found) = run(graph, &[0.0], &y) else { panic!() };
    assert_eq!(found[..3], [1.0, 2.0, 3.0]);
    assert!(found.len() == 4 && found[3].is_nan(), "{found:?}");
}

#[test]
fn the_least_bool_of_none_is_true() {
    let mut graph = Graph::default();
    let none = graph.constant(TensorValues::Bool(vec![]), &[0]);
    let least = graph.node("ReduceMin", &[&none], vec![int("keepdims", 0)]);
    let y = graph.node("Cast", &[&least], vec![int("to", 6)]);
    assert_eq!(run(graph, &[0.0], &y), TensorValues::Int32(vec![1]));
}

#[test]
fn indices_of_a_one_hot_vector_are_whole_and_minus_zero_is_read_as_such() {
    let mut graph = Graph::default();
    let (depth, values) =
        (graph.constant(TensorValues::Int64(vec![3]), &[]), graph.constant(floats(&[0.0, 1.0]), &[2]));
    let y = graph.node("OneHot", &["x", &depth, &values], vec![]);
    assert_eq!(run(graph, &[-0.5], &y), floats(&[1.0, 0.0, 0.0]));
    let mut graph = Graph::default();
    let zero = graph.constant(TensorValues::String(vec!["-0".into()]), &[1]);
    let zero = graph.node("Cast", &[&zero], vec![int("to", 1)]);
    let y = graph.node("Reciprocal", &[&zero], vec![]);
    assert_eq!(run(graph, &[0.0], &y), floats(&[f32::NEG_INFINITY]));
}

#[test]
fn whatever_the_number_of_rows_a_choice_has_one_price() {
    // With one row all operands have the shape of the result; with more they are repeated.
    let mut graph = Graph::default();
    let mask = graph.constant(TensorValues::Bool(vec![true, false, true]), &[1, 3]);
    let zero = graph.constant(floats(&[0.0]), &[1, 1]);
    let y = graph.node("Where", &[&mask, "x", &zero], vec![]);
    let model = Model::load(graph.file(&[3], &y)).unwrap();
    assert!(model.descriptor().is_ok(), "{:?}", model.descriptor());
    for rows in [1, 2, 50] {
        assert!(model.run(&[tensor(&[rows, 3], &vec![1.0; 3 * rows])]).is_ok(), "{rows}");
    }
}

#[test]
fn a_label_has_one_size_in_an_operand_and_one_place_in_the_output() {
    for (equation, shape) in [("ii->i", [1, 3]), ("ij->ii", [3, 3])] {
        let mut graph = Graph::default();
        let x = graph.constant(floats(&[1.0; 9][..shape[0] * shape[1]]), &shape);
        let equation =
            AttributeProto { name: "equation".into(), s: Some(equation.into()), r#type: 3, ..Default::default() };
        let y = graph.node("Einsum", &[&x], vec![equation]);
        let model = Model::load(graph.file(&[1], &y)).unwrap();
        let error = model.evaluate(vec![Argument::Tensor(tensor(&[1, 1], &[0.0]))]).unwrap_err();
        assert!(error.to_string().contains("label"), "{error}");
    }
}
