//! Files that are no usable model get an error that names the place, and never a panic.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::{fs, path::PathBuf};

use penstock_inference::{
    Argument, Failure, Model, ModelError, Sizes, Tensor, TensorValues,
    onnx::{
        proto::{
            AttributeProto, DimensionProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
            StringStringEntryProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
        },
        write_tensor,
    },
};
use prost::Message;

fn file(name: &str) -> Vec<u8> {
    fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("models/{name}/{name}.onnx"))).unwrap()
}

/// The digits-mlp model after a change.
fn changed(change: impl FnOnce(&mut ModelProto)) -> Result<Model, ModelError> {
    let mut model = ModelProto::decode(file("digits-mlp").as_slice()).unwrap();
    change(&mut model);
    Model::load(model.encode_to_vec())
}

#[test]
fn other_files_are_not_onnx() {
    for bytes in [&b""[..], b"hello", &[0xff; 64], b"\x08\x08"] {
        assert!(matches!(Model::load(bytes.to_vec()), Err(ModelError::NotOnnx(_))), "{bytes:?}");
    }
}

#[test]
fn every_truncation_is_an_error() {
    for name in ["linear", "digits-mlp"] {
        let bytes = file(name);
        for end in (0..bytes.len()).step_by(if name == "linear" { 1 } else { 97 }) {
            assert!(Model::load(bytes[..end].to_vec()).is_err(), "{name} cut at {end}");
        }
    }
}

#[test]
fn flipped_bytes_never_panic() {
    let bytes = file("linear");
    for position in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = bytes.clone();
            bytes[position] ^= flip;
            if let Ok(model) = Model::load(bytes) {
                let Ok(descriptor) = model.descriptor() else { continue };
                let inputs: Option<Vec<_>> = descriptor
                    .inputs
                    .iter()
                    .map(|spec| Tensor::zeros(spec.dtype, spec.shape_for(&Sizes::batch(1))))
                    .collect();
                let _ = model.run(&inputs.unwrap());
            }
        }
    }
}

#[test]
fn all_unsupported_operators_are_named_at_once() {
    let error = changed(|model| {
        let nodes = &mut model.graph.as_mut().unwrap().node;
        nodes[1].op_type = "Frobnicate".into();
        nodes[2].op_type = "ImageDecoder".into();
        nodes[3].domain = "ai.onnx.ml".into();
    })
    .unwrap_err();
    let text = error.to_string();
    for name in ["Frobnicate", "ImageDecoder", "ai.onnx.ml."] {
        assert!(text.contains(name), "{text}");
    }
}

#[test]
fn errors_name_the_node_or_the_value() {
    type Change = Box<dyn FnOnce(&mut ModelProto)>;
    let cases: [(Change, &str); 6] = [
        (Box::new(|m| m.graph.as_mut().unwrap().initializer[0].dims[0] += 1), "initializer"),
        (Box::new(|m| m.graph.as_mut().unwrap().initializer[0].data_type = 14), "complex64"),
        (Box::new(|m| m.graph.as_mut().unwrap().node.remove(0).output.clear()), "node 0"),
        (Box::new(|m| m.opset_import[0].version = 99), "operator set 99"),
        (
            Box::new(|m| {
                let gemm = m.graph.as_mut().unwrap().node.iter_mut().rfind(|n| n.op_type == "Gemm").unwrap();
                gemm.attribute.retain(|a| a.name != "transB");
                gemm.attribute.push(AttributeProto { name: "transB".into(), i: Some(0), ..Default::default() });
            }),
            "Gemm",
        ),
        (
            Box::new(|m| {
                let input = &mut m.graph.as_mut().unwrap().input[0];
                let shape = input.r#type.as_mut().unwrap().tensor_type.as_mut().unwrap().shape.as_mut().unwrap();
                shape.dim[1].dim_value = Some(-3);
            }),
            "input `image`",
        ),
    ];
    for (change, place) in cases {
        // What is wrong with a shape shows when the model is priced.
        let text = match changed(change) {
            Ok(model) => model.descriptor().unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        assert!(text.contains(place), "{text:?} does not name {place:?}");
    }
}

/// A node with one output.
fn node(op: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: op.into(),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.into()],
        attribute,
        ..Default::default()
    }
}

fn ints(name: &str, values: &[i64]) -> TensorProto {
    write_tensor(name, &Tensor::new(vec![values.len()], TensorValues::Int64(values.to_vec())).unwrap())
}

/// A value whose type is a float32 scalar.
fn value(name: &str) -> ValueInfoProto {
    let tensor = TensorTypeProto { elem_type: 1, shape: Some(TensorShapeProto { dim: vec![] }) };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type: Some(tensor), ..Default::default() }) }
}

/// A file with the input `x`, a float32 scalar, and the output `y`.
fn file_of(node: Vec<NodeProto>, initializer: Vec<TensorProto>) -> Vec<u8> {
    let graph = GraphProto {
        name: "g".into(),
        node,
        initializer,
        input: vec![value("x")],
        output: vec![value("y")],
        ..Default::default()
    };
    ModelProto {
        ir_version: Some(8),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 21 }],
        functions: vec![],
    }
    .encode_to_vec()
}

fn graph_attribute(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto { name: name.into(), g: Some(Box::new(graph)), r#type: 5, ..Default::default() }
}

/// What goes wrong with a file, when it is loaded, priced or run.
fn fault(file: Vec<u8>) -> String {
    let model = match Model::load(file) {
        Ok(model) => model,
        Err(error) => return error.to_string(),
    };
    let x = Tensor::new(vec![], TensorValues::Float32(vec![1.0])).unwrap();
    let run = model.evaluate(vec![Argument::Tensor(x)]).unwrap_err().to_string();
    format!("{}; {run}", model.descriptor().unwrap_err())
}

#[test]
fn sizes_ranks_and_rounds_are_bounded_before_anything_is_allocated() {
    let terabyte = file_of(
        vec![node("ConstantOfShape", &["s"], "big", vec![]), node("Add", &["x", "big"], "y", vec![])],
        vec![ints("s", &[1 << 20, 1 << 20])],
    );
    assert!(fault(terabyte).contains("bytes"));
    let repeated = file_of(
        vec![node("Unsqueeze", &["x", "a"], "u", vec![]), node("Tile", &["u", "n"], "y", vec![])],
        vec![ints("a", &[0]), ints("n", &[i64::MAX])],
    );
    assert!(fault(repeated).contains("bytes"));
    for (axes, what) in [(100, "dimensions"), (200, "128 integers")] {
        let many = ints("a", &(0..axes).collect::<Vec<_>>());
        assert!(fault(file_of(vec![node("Unsqueeze", &["x", "a"], "y", vec![])], vec![many])).contains(what));
    }
    // Where it is an attribute, which a loop would read again and again, it is refused at once.
    let many = attribute("axes", &[0; 200]);
    let loaded = Model::load(file_of(vec![node("ReduceSumSquare", &["x"], "y", vec![many])], vec![]));
    assert!(loaded.unwrap_err().to_string().contains("128 integers"));
    let mut huge = ints("big", &[1]);
    huge.dims = vec![1 << 40, 1 << 20];
    assert!(fault(file_of(vec![node("Identity", &["x"], "y", vec![])], vec![huge])).contains("elements"));
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i: Some(value), r#type: 2, ..Default::default() }
}

fn attribute(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), ints: values.to_vec(), r#type: 7, ..Default::default() }
}

/// A file whose input is shaped to an image, which goes through one operator.
fn windowed(op: &str, image: &[i64], weights: Option<&[usize]>, attributes: Vec<AttributeProto>) -> Vec<u8> {
    let mut constants = vec![ints("image", image)];
    let mut inputs = vec!["shaped"];
    if let Some(shape) = weights {
        let count = shape.iter().product();
        let values = match op {
            "ConvInteger" => TensorValues::Uint8(vec![1; count]),
            _ => TensorValues::Float32(vec![1.0; count]),
        };
        constants.push(write_tensor("w", &Tensor::new(shape.to_vec(), values).unwrap()));
        inputs.push("w");
    }
    let to = int("to", 2);
    let mut nodes = vec![node("Expand", &["x", "image"], "expanded", vec![])];
    nodes.push(match op {
        "ConvInteger" => node("Cast", &["expanded"], "shaped", vec![to]),
        _ => node("Identity", &["expanded"], "shaped", vec![]),
    });
    nodes.push(node(op, &inputs, "y", attributes));
    file_of(nodes, constants)
}

#[test]
fn windows_whose_sizes_overflow_or_take_too_much_are_refused() {
    const GREAT: i64 = (1 << 31) - 1;
    // Padded sizes whose product is 2^64.
    let wrapped = vec![
        attribute("strides", &[8, 1 << 31, 1 << 31]),
        attribute("dilations", &[3, GREAT, GREAT]),
        attribute("pads", &[4, GREAT, GREAT, 0, 0, 0]),
    ];
    assert!(fault(windowed("Conv", &[1, 1, 1, 1, 1], Some(&[1, 1, 2, 2, 2]), wrapped)).contains("bytes"));
    // Two outputs a long way from each other.
    let apart = || vec![attribute("strides", &[1 << 20, 1 << 20]), attribute("pads", &[0, 0, 1 << 20, 1 << 20])];
    for op in ["Conv", "ConvInteger"] {
        assert!(fault(windowed(op, &[1, 1, 1, 1], Some(&[1, 1, 1, 1]), apart())).contains("bytes"), "{op}");
    }
    // A window over padding alone.
    let wide = || vec![attribute("kernel_shape", &[1 << 30]), attribute("pads", &[1 << 29, 1 << 29])];
    for op in ["MaxPool", "AveragePool", "LpPool"] {
        assert!(fault(windowed(op, &[1, 1, 1], None, wide())).contains("too large"), "{op}");
    }
}

#[test]
fn what_the_fuzzer_found_is_refused_or_runs() {
    // A scale that is a text; it was looked up among no numbers.
    let texts = write_tensor("s", &Tensor::new(vec![], TensorValues::String(vec!["1".into()])).unwrap());
    let to = AttributeProto { name: "output_dtype".into(), i: Some(2), r#type: 2, ..Default::default() };
    assert!(fault(file_of(vec![node("QuantizeLinear", &["x", "s"], "y", vec![to])], vec![texts])).contains("string"));
    // Statistics over no elements.
    let axis = AttributeProto { name: "axis".into(), i: Some(0), r#type: 2, ..Default::default() };
    let mut norm = node("LayerNormalization", &["none", "w"], "y", vec![axis]);
    norm.output.push("mean".into());
    let w = write_tensor("w", &Tensor::new(vec![5], TensorValues::Float32(vec![1.0; 5])).unwrap());
    let file = file_of(vec![node("Expand", &["x", "shape"], "none", vec![]), norm], vec![ints("shape", &[0, 5]), w]);
    let x = Tensor::new(vec![], TensorValues::Float32(vec![3.0])).unwrap();
    let y = Model::load(file).unwrap().evaluate(vec![Argument::Tensor(x)]).unwrap();
    assert!(matches!(&y[0], Argument::Tensor(y) if y.shape() == [0, 5]));
}

#[test]
fn tensors_without_elements_have_dimensions_that_others_could_have() {
    // A product of nothing with columns without end, of which a number each would be asked for.
    let empty =
        |dims: &[i64]| TensorProto { name: "b".into(), dims: dims.to_vec(), data_type: 2, ..Default::default() };
    let a = TensorProto { name: "a".into(), ..empty(&[0, 0]) };
    let product = || vec![node("MatMulInteger", &["a", "b"], "y", vec![])];
    assert!(fault(file_of(product(), vec![a.clone(), empty(&[0, 1 << 60])])).contains("elements"));
    let y = Model::load(file_of(product(), vec![a, empty(&[0, 1 << 20])])).unwrap();
    let x = || Argument::Tensor(Tensor::new(vec![], TensorValues::Float32(vec![3.0])).unwrap());
    assert!(matches!(&y.evaluate(vec![x()]).unwrap()[0], Argument::Tensor(y) if y.shape() == [0, 1 << 20]));
    // The same as the input of a request, and as what a node makes of another.
    let file =
        || file_of(vec![node("Expand", &["x", "shape"], "y", vec![])], vec![ints("shape", &[0, 1 << 20, 1 << 20])]);
    assert!(Model::load(file()).unwrap().evaluate(vec![x()]).is_err());
    let model = Model::load(file_of(vec![node("Abs", &["x"], "y", vec![])], vec![])).unwrap();
    let none = Tensor::new(vec![0, 1 << 40], TensorValues::Float32(vec![])).unwrap();
    assert!(model.evaluate(vec![Argument::Tensor(none)]).is_err());
    // A convolution without outputs.
    let model = Model::load(windowed("Conv", &[1, 3, 5, 5], Some(&[0, 3, 3, 3]), vec![])).unwrap();
    let y = model.evaluate(vec![x()]).unwrap();
    assert!(matches!(&y[0], Argument::Tensor(y) if y.shape() == [1, 0, 3, 3]), "{y:?}");
    // The means of no planes, each of which would have as many windows as elements.
    for (op, count_pads) in [("AveragePool", false), ("AveragePool", true), ("MaxPool", false)] {
        let mut attributes = vec![attribute("kernel_shape", &[1, 1])];
        if count_pads {
            attributes.push(AttributeProto {
                name: "count_include_pad".into(),
                i: Some(1),
                r#type: 2,
                ..Default::default()
            });
        }
        let y = Model::load(windowed(op, &[0, 1, 46_000, 46_000], None, attributes.clone())).unwrap();
        let y = y.evaluate(vec![x()]).unwrap();
        assert!(matches!(&y[0], Argument::Tensor(y) if y.shape() == [0, 1, 46_000, 46_000]), "{op}: {y:?}");
        // Nor of planes without elements.
        attributes[0] = attribute("kernel_shape", &[1, 1, 1]);
        let same =
            AttributeProto { name: "auto_pad".into(), s: Some("SAME_UPPER".into()), r#type: 3, ..Default::default() };
        attributes.push(same);
        let y = Model::load(windowed(op, &[1, 1, 46_000, 46_000, 0], None, attributes)).unwrap();
        let y = y.evaluate(vec![x()]).unwrap();
        assert!(matches!(&y[0], Argument::Tensor(y) if y.shape() == [1, 1, 46_000, 46_000, 0]), "{op}: {y:?}");
    }
}

#[test]
fn a_run_does_no_more_than_its_price_pays_for() {
    // What lies behind the sizes that a price is checked at (13 the greatest) is multiplied; nothing is, at those.
    let dim = |size: i64| DimensionProto { dim_value: Some(size), dim_param: None };
    let open = DimensionProto { dim_value: None, dim_param: Some("length".into()) };
    let shaped = |name: &str, dim: Vec<DimensionProto>| {
        let tensor = TensorTypeProto { elem_type: 1, shape: Some(TensorShapeProto { dim }) };
        ValueInfoProto {
            name: name.into(),
            r#type: Some(TypeProto { tensor_type: Some(tensor), ..Default::default() }),
        }
    };
    let w = write_tensor("w", &Tensor::new(vec![64, 64], TensorValues::Float32(vec![1.0; 64 * 64])).unwrap());
    let keep = int("keepdims", 0);
    let graph = GraphProto {
        name: "g".into(),
        node: vec![
            node("Slice", &["x", "start", "end", "axis"], "behind", vec![]),
            node("MatMul", &["behind", "w"], "product", vec![]),
            node("ReduceSum", &["product", "axis"], "y", vec![keep]),
        ],
        initializer: vec![ints("start", &[13]), ints("end", &[i64::MAX]), ints("axis", &[1]), w],
        input: vec![shaped("x", vec![dim(1), open, dim(64)])],
        output: vec![shaped("y", vec![dim(1), dim(64)])],
        ..Default::default()
    };
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 21 }];
    let file = ModelProto { ir_version: Some(8), graph: Some(graph), opset_import, functions: vec![] };
    let model = Model::load(file.encode_to_vec()).unwrap();
    let run = |length: usize| {
        let x = Tensor::new(vec![1, length, 64], TensorValues::Float32(vec![1.0; length * 64])).unwrap();
        (model.run(std::slice::from_ref(&x)), model.evaluate(vec![Argument::Tensor(x)]))
    };
    assert!(model.descriptor().is_ok());
    for length in [1, 5, 13] {
        assert_eq!(run(length).0.unwrap()[0].values(), &TensorValues::Float32(vec![0.0; 64]), "{length}");
    }
    for length in [14, 20, 500] {
        let (registered, freely) = run(length);
        assert_eq!(registered, Err(Failure::Engine), "{length}");
        let sum = TensorValues::Float32(vec![64.0 * (length - 13) as f32; 64]);
        assert!(matches!(&freely.unwrap()[0], Argument::Tensor(y) if *y.values() == sum), "{length}");
    }
}

#[test]
fn a_loop_that_never_runs_costs_what_telling_its_types_may_take() {
    // Its scanned output is a product of captured values, whose type is asked for although there are no rounds.
    let typed = |name: &str, elem_type: i32| {
        let tensor = TensorTypeProto { elem_type, shape: Some(TensorShapeProto { dim: vec![] }) };
        ValueInfoProto {
            name: name.into(),
            r#type: Some(TypeProto { tensor_type: Some(tensor), ..Default::default() }),
        }
    };
    let body = GraphProto {
        name: "body".into(),
        node: vec![
            node("Identity", &["go"], "go_on", vec![]),
            node("Identity", &["state"], "next", vec![]),
            node("MatMul", &["big", "big"], "scanned", vec![]),
        ],
        input: vec![typed("round", 7), typed("go", 9), typed("state", 1)],
        output: vec![typed("go_on", 9), typed("next", 1), typed("scanned", 1)],
        ..Default::default()
    };
    let mut looped = node("Loop", &["none", "", "x"], "y", vec![graph_attribute("body", body)]);
    looped.output.push("list".into());
    let none = write_tensor("none", &Tensor::new(vec![], TensorValues::Int64(vec![0])).unwrap());
    let nodes = vec![node("Expand", &["x", "sizes"], "big", vec![]), looped];
    let model = Model::load(file_of(nodes, vec![ints("sizes", &[1900, 1900]), none])).unwrap();
    let cost = model.cost_by_operator(&Sizes::default()).unwrap();
    let looped = cost.iter().find(|node| node.operator == "Loop").unwrap();
    assert!(looped.ops > 1900 * 1900 * 1900, "{cost:?}");
    let x = Tensor::new(vec![], TensorValues::Float32(vec![3.0])).unwrap();
    assert_eq!(model.run(std::slice::from_ref(&x)).unwrap(), vec![x]);
}

#[test]
fn sequences_hold_no_sequences_and_what_follows_from_shapes_is_kept_within_bounds() {
    // Fourteen times twice as many parts, and then again and again.
    let names: Vec<String> = (0..1014).map(|i| format!("s{i}")).collect();
    let nested = (0..1014).map(|i| match i {
        0 => node("SequenceConstruct", &["x", "x"], "s0", vec![]),
        1..14 => node("SequenceConstruct", &[&names[i - 1], &names[i - 1]], &names[i], vec![]),
        _ => node("Optional", &[&names[i - 1]], &names[i], vec![]),
    });
    let file = file_of(nested.chain([node("Relu", &["x"], "y", vec![])]).collect(), vec![]);
    assert!(fault(file).contains("inside a sequence"));
    // Four times 64 MiB that are known before a run: not all are kept, and those that are not are computed again.
    let big = |i: usize| format!("b{i}");
    let mut nodes = vec![
        node("Shape", &["x"], "rank", vec![]),
        node("ReduceProd", &["rank"], "one", vec![int("keepdims", 0)]),
        node("Expand", &["one", "sizes"], "b0", vec![]),
    ];
    nodes.extend((1..4).map(|i| node("Add", &[&big(i - 1), "one"], &big(i), vec![])));
    nodes.push(node("ReduceMax", &["b3"], "most", vec![int("keepdims", 0)]));
    nodes.push(node("Cast", &["most"], "number", vec![int("to", 1)]));
    nodes.push(node("Add", &["x", "number"], "y", vec![]));
    let model = Model::load(file_of(nodes, vec![ints("sizes", &[8 << 20])])).unwrap();
    let x = Tensor::new(vec![], TensorValues::Float32(vec![3.0])).unwrap();
    assert_eq!(model.run(&[x]).unwrap()[0].values(), &TensorValues::Float32(vec![7.0]));
}

#[test]
fn a_small_file_takes_no_gigabytes_when_it_is_loaded() {
    // Twenty constants of 64 MiB, a few bytes of the file each.
    let names: Vec<String> = (0..20).map(|i| format!("c{i}")).collect();
    let mut nodes: Vec<NodeProto> =
        names.iter().map(|name| node("ConstantOfShape", &["shape"], name, vec![])).collect();
    let inputs: Vec<&str> = names.iter().map(String::as_str).collect();
    nodes.push(node("Sum", &inputs, "sum", vec![]));
    nodes.push(node("ReduceMax", &["sum"], "most", vec![int("keepdims", 0)]));
    nodes.push(node("Add", &["x", "most"], "y", vec![]));
    let model = Model::load(file_of(nodes, vec![ints("shape", &[16 << 20])])).unwrap();
    assert!(model.descriptor().is_ok(), "{:?}", model.descriptor());
    let mebibytes = model.memory_bytes() >> 20;
    assert!((256..=384).contains(&mebibytes), "{mebibytes}");
}

#[test]
fn what_takes_far_more_memory_than_its_file_is_refused_before_it_is_read() {
    // Attributes of nothing: two bytes each, and hundreds in memory.
    let message = |field: u8, content: &[u8]| -> Vec<u8> {
        let mut bytes = vec![field << 3 | 2];
        prost::encoding::encode_varint(content.len() as u64, &mut bytes);
        bytes.extend_from_slice(content);
        bytes
    };
    let many = message(1, &message(5, &[]).repeat(1_000_000));
    let file = [vec![1 << 3, 8], message(7, &many)].concat();
    assert!(Model::load(file).unwrap_err().to_string().contains("messages"));
    // A list of a million integers for each of many nodes of a function.
    let list = || AttributeProto { ref_attr_name: "list".into(), ..attribute("value_ints", &[]) };
    let nodes = (0..300).map(|i| node("Constant", &[], &format!("c{i}"), vec![list()]));
    let function = FunctionProto {
        name: "F".into(),
        attribute: vec!["list".into()],
        output: vec!["c0".into()],
        node: nodes.collect(),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 21 }],
        ..Default::default()
    };
    let call = node("F", &[], "y", vec![attribute("list", &[1; 1_000_000])]);
    let mut model = ModelProto::decode(file_of(vec![call], vec![]).as_slice()).unwrap();
    model.functions.push(function);
    assert!(Model::load(model.encode_to_vec()).unwrap_err().to_string().contains("written out"));
    // Nor is a long name of an attribute written out without end.
    let relu = NodeProto { name: "n".repeat(1 << 20), ..node("Relu", &["a"], "b", vec![]) };
    let function = FunctionProto {
        name: "F".into(),
        input: vec!["a".into()],
        output: vec!["b".into()],
        node: vec![relu],
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 21 }],
        ..Default::default()
    };
    let names: Vec<String> = (0..2000).map(|i| format!("v{i}")).chain(["y".into()]).collect();
    let calls = (0..2000).map(|i| node("F", &[if i == 0 { "x" } else { &names[i] }], &names[i + 1], vec![]));
    let mut model = ModelProto::decode(file_of(calls.collect(), vec![]).as_slice()).unwrap();
    model.functions.push(function);
    assert!(Model::load(model.encode_to_vec()).unwrap_err().to_string().contains("written out"));
    // A long text, again and again.
    let text = write_tensor("t", &Tensor::new(vec![1], TensorValues::String(vec!["x".repeat(1 << 20)])).unwrap());
    let copied = vec![
        node("Gather", &["t", "zeros"], "copies", vec![]),
        node("Size", &["copies"], "number", vec![]),
        node("Cast", &["number"], "y", vec![int("to", 1)]),
    ];
    let model = Model::load(file_of(copied, vec![text.clone(), ints("zeros", &[0; 20_000])])).unwrap();
    let x = || vec![Argument::Tensor(Tensor::new(vec![], TensorValues::Float32(vec![1.0])).unwrap())];
    assert!(model.evaluate(x()).unwrap_err().to_string().contains("texts"));
    // Compared with many it is not copied at all.
    let others = Tensor::new(vec![20_000], TensorValues::String(vec!["x".into(); 20_000])).unwrap();
    let compared = vec![
        node("Equal", &["t", "others"], "same", vec![]),
        node("Cast", &["same"], "ones", vec![int("to", 1)]),
        node("ReduceSum", &["ones"], "y", vec![int("keepdims", 0)]),
    ];
    let model = Model::load(file_of(compared, vec![text, write_tensor("others", &others)])).unwrap();
    let none = Tensor::new(vec![], TensorValues::Float32(vec![0.0])).unwrap();
    assert_eq!(model.evaluate(x()).unwrap(), vec![Argument::Tensor(none)]);
}

#[test]
fn texts_that_are_only_moved_may_be_many_and_one_of_them_long() {
    let mut texts = vec!["x".to_owned(); 10_000];
    texts[77] = "y".repeat(20_000);
    let texts = write_tensor("t", &Tensor::new(vec![100, 100], TensorValues::String(texts)).unwrap());
    for moved in [node("Concat", &["t", "t"], "m", vec![int("axis", 0)]), node("Transpose", &["t"], "m", vec![])] {
        let size = node("Size", &["m"], "number", vec![]);
        let nodes = vec![moved, size, node("Cast", &["number"], "y", vec![int("to", 1)])];
        let model = Model::load(file_of(nodes, vec![texts.clone()])).unwrap();
        let x = Tensor::new(vec![], TensorValues::Float32(vec![1.0])).unwrap();
        assert!(model.evaluate(vec![Argument::Tensor(x)]).is_ok());
    }
}

#[test]
fn a_graph_in_a_loop_pays_for_its_constants_in_every_round() {
    let cost = |constants: usize| {
        let body = GraphProto {
            name: "body".into(),
            node: vec![node("Identity", &["go"], "go_on", vec![]), node("Identity", &["state"], "next", vec![])],
            initializer: (0..constants).map(|i| ints(&format!("c{i}"), &[])).collect(),
            input: ["round", "go", "state"].map(value).to_vec(),
            output: ["go_on", "next"].map(value).to_vec(),
            ..Default::default()
        };
        let hundred = write_tensor("n", &Tensor::new(vec![], TensorValues::Int64(vec![100])).unwrap());
        let looped = node("Loop", &["n", "", "x"], "y", vec![graph_attribute("body", body)]);
        let model = Model::load(file_of(vec![looped], vec![hundred])).unwrap();
        model.cost_by_operator(&Sizes::default()).unwrap()[0].ops
    };
    assert!(cost(5000) > cost(5) + 100 * 4900 * 200, "{} {}", cost(5000), cost(5));
}

#[test]
fn a_node_of_many_inputs_costs_more_than_one_of_few() {
    let cost = |inputs: usize| {
        let model = Model::load(file_of(vec![node("Max", &vec!["x"; inputs], "y", vec![])], vec![])).unwrap();
        model.cost_by_operator(&Sizes::default()).unwrap()[0].ops
    };
    assert!(cost(10_000) > cost(10) + 10_000 * 400, "{} {}", cost(10_000), cost(10));
}

#[test]
fn products_of_bytes_count_the_memory_that_they_take() {
    // An output of 256 MiB; its sums, and the products before they are rounded, take a gigabyte each.
    let byte = |name: &str, shape: &[usize]| {
        let count = shape.iter().product();
        write_tensor(name, &Tensor::new(shape.to_vec(), TensorValues::Uint8(vec![1; count])).unwrap())
    };
    let scale = write_tensor("s", &Tensor::new(vec![], TensorValues::Float32(vec![1.0])).unwrap());
    let nodes = vec![
        node("QuantizeLinear", &["x", "s", "z"], "q", vec![]),
        node("Expand", &["q", "tall"], "a", vec![]),
        node("QLinearMatMul", &["a", "s", "z", "b", "s", "z", "s", "z"], "c", vec![]),
        node("Size", &["c"], "size", vec![]),
        node("Cast", &["size"], "y", vec![int("to", 1)]),
    ];
    let constants =
        |columns: usize| vec![ints("tall", &[1 << 15, 1]), byte("b", &[1, columns]), byte("z", &[]), scale.clone()];
    let peak =
        |columns: usize| Model::load(file_of(nodes.clone(), constants(columns))).unwrap().peak_bytes(&Sizes::default());
    assert!(peak(1 << 12).unwrap() > 9 << 27);
    assert!(peak(1 << 13).unwrap_err().to_string().contains("bytes"));
}

#[test]
fn a_great_stride_over_one_output_costs_nothing() {
    let group = AttributeProto { name: "group".into(), i: Some(1000), r#type: 2, ..Default::default() };
    let attributes = vec![attribute("strides", &[1, 1 << 28]), group];
    let model = Model::load(windowed("Conv", &[1, 1000, 1, 1], Some(&[1000, 1, 1, 1]), attributes)).unwrap();
    let x = Tensor::new(vec![], TensorValues::Float32(vec![3.0])).unwrap();
    assert_eq!(model.run(&[x]).unwrap()[0].values(), &TensorValues::Float32(vec![3.0; 1000]));
}

#[test]
fn a_loop_without_end_is_refused_and_a_long_one_has_no_price() {
    let body = |condition: &str| GraphProto {
        name: "body".into(),
        node: vec![node("Identity", &[condition], "go", vec![]), node("Add", &["state", "state"], "next", vec![])],
        input: vec![value("i"), value("c"), value("state")],
        output: vec![value("go"), value("next")],
        ..Default::default()
    };
    let looped = |rounds: i64| {
        let rounds = write_tensor("n", &Tensor::new(vec![], TensorValues::Int64(vec![rounds])).unwrap());
        let inputs = ["n", "", "x"];
        file_of(vec![node("Loop", &inputs, "y", vec![graph_attribute("body", body("c"))])], vec![rounds])
    };
    assert!(fault(looped(i64::MAX)).contains("rounds"));
    let model = Model::load(looped(9_000_000)).unwrap();
    assert!(model.descriptor().unwrap_err().to_string().contains("steps"));
    let model = Model::load(looped(5)).unwrap();
    assert!(model.descriptor().is_ok());
    let x = Tensor::new(vec![], TensorValues::Float32(vec![1.0])).unwrap();
    assert_eq!(model.run(&[x]).unwrap()[0].values(), &TensorValues::Float32(vec![32.0]));
}

#[test]
fn graphs_nested_without_end_are_refused() {
    let mut inner = GraphProto {
        name: "innermost".into(),
        node: vec![node("Identity", &["x"], "z", vec![])],
        output: vec![value("z")],
        ..Default::default()
    };
    for _ in 0..24 {
        inner = GraphProto {
            name: "outer".into(),
            node: vec![node("If", &["c"], "z", vec![graph_attribute("then_branch", inner)])],
            output: vec![value("z")],
            ..Default::default()
        };
    }
    let c = write_tensor("c", &Tensor::new(vec![], TensorValues::Bool(vec![true])).unwrap());
    let file = file_of(vec![node("If", &["c"], "y", vec![graph_attribute("then_branch", inner)])], vec![c]);
    let text = Model::load(file).unwrap_err().to_string();
    assert!(text.contains("nested") || text.contains("recursion"), "{text}");
}

#[test]
fn external_data_outside_the_models_folder_is_never_read() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("model");
    fs::create_dir(&inside).unwrap();
    fs::write(folder.path().join("secret"), [0u8; 8]).unwrap();
    fs::write(inside.join("weights"), 2.5f32.to_le_bytes()).unwrap();
    std::os::unix::fs::symlink(folder.path().join("secret"), inside.join("link")).unwrap();
    let with = |location: &str| {
        let entry = |key: &str, value: &str| StringStringEntryProto { key: key.into(), value: value.into() };
        let constant = TensorProto {
            name: "w".into(),
            data_type: 1,
            data_location: Some(1),
            external_data: vec![entry("location", location), entry("length", "4")],
            ..Default::default()
        };
        let file = file_of(vec![node("Add", &["x", "w"], "y", vec![])], vec![constant]);
        Model::load_in(file, &inside)
    };
    let absolute = folder.path().join("secret").display().to_string();
    for location in ["../secret", "link", absolute.as_str(), "./../model/../secret", "/dev/zero"] {
        assert!(with(location).unwrap_err().to_string().contains("not in the model's folder"), "{location}");
    }
    assert!(with("missing").is_err());
    let x = Tensor::new(vec![], TensorValues::Float32(vec![1.0])).unwrap();
    assert_eq!(with("weights").unwrap().run(&[x]).unwrap()[0].values(), &TensorValues::Float32(vec![3.5]));
}
