//! `penstock model`: what whoever has a model does with it, and what goes wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use penstock_inference::onnx::proto::{
    DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TensorTypeProto, TypeProto, ValueInfoProto,
};
use prost::Message;
use serde_json::{Value, json};
use support::{PROGRAM, program, repository};

/// ONNX's numbers for types.
const FLOAT: i32 = 1;
const INT64: i32 = 7;

fn value(name: &str, elem_type: i32, dims: &[&str]) -> ValueInfoProto {
    let dim = dims.iter().map(|dim| match dim.parse() {
        Ok(size) => DimensionProto { dim_value: Some(size), dim_param: None },
        Err(_) => DimensionProto { dim_value: None, dim_param: Some((*dim).to_owned()) },
    });
    let tensor_type = TensorTypeProto { elem_type, shape: Some(TensorShapeProto { dim: dim.collect() }) };
    let r#type = Some(TypeProto { tensor_type: Some(tensor_type), ..Default::default() });
    ValueInfoProto { name: name.into(), r#type }
}

/// A file of one node from `x` and a constant `c` to `y`.
fn one_node(
    folder: &Path,
    (op_type, inputs): (&str, &[&str]),
    x: ValueInfoProto,
    y: ValueInfoProto,
    constant: Option<TensorProto>,
) -> PathBuf {
    let node = NodeProto {
        op_type: op_type.into(),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec!["y".into()],
        ..Default::default()
    };
    let graph = GraphProto {
        name: "one".into(),
        node: vec![node],
        initializer: constant.into_iter().collect(),
        input: vec![x],
        output: vec![y],
        sparse_initializer: vec![],
    };
    let model = ModelProto {
        ir_version: Some(8),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
        functions: vec![],
    };
    let path = folder.join(format!("{op_type}.onnx"));
    fs::write(&path, model.encode_to_vec()).unwrap();
    path
}

fn floats(dims: &[i64]) -> TensorProto {
    let count: i64 = dims.iter().product();
    let float_data = (0..count).map(|i| i as f32).collect();
    TensorProto { name: "c".into(), dims: dims.to_vec(), data_type: FLOAT, float_data, ..Default::default() }
}

#[test]
fn a_model_without_a_price_is_kept_looked_at_and_run() {
    let home = tempfile::tempdir().unwrap();
    let call = |arguments: &[&str]| program(&[&["--home", home.path().to_str().unwrap(), "model"], arguments].concat());
    let (x, y) = (value("x", FLOAT, &["4"]), value("y", INT64, &["1", "found"]));
    let file = one_node(home.path(), ("NonZero", &["x"]), x, y, None);
    let (code, output, errors) = call(&["add", file.to_str().unwrap(), "--name", "picky"]);
    assert!(code == 0 && output.contains("No chain can register it") && output.contains("NonZero"), "{output}{errors}");
    let (code, output, _) = call(&["inspect", "picky"]);
    assert!(code == 0 && output.contains("x float32[4]") && output.contains("y int64[1, found]"), "{output}");
    assert!(output.contains("No chain can register it"), "{output}");
    let input = home.path().join("input.json");
    fs::write(&input, r#"{"inputs": {"x": {"shape": [4], "values": [0, 2, 0, -1]}}}"#).unwrap();
    let (code, output, errors) = call(&["run", "picky", input.to_str().unwrap()]);
    assert!(code == 0 && errors.contains("no chain can register"), "{errors}");
    let output: Value = serde_json::from_str(&output).unwrap();
    assert_eq!(output["outputs"]["y"]["values"], json!([1, 3]));
    assert!(output.get("requestId").is_none(), "nobody can ask for it");
    fs::write(&input, r#"{"inputs": {"x": {"shape": [3], "values": [0, 2, 0]}}}"#).unwrap();
    let (code, _, errors) = call(&["run", "picky", input.to_str().unwrap()]);
    assert!(code == 1 && errors.contains("x float32[4] is expected"), "{errors}");
}

#[test]
fn a_run_that_fails_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let (x, y) = (value("x", INT64, &["batch"]), value("y", FLOAT, &["batch", "3"]));
    let model = one_node(folder.path(), ("Gather", &["c", "x"]), x, y, Some(floats(&[5, 3])));
    let input = folder.path().join("input.json");
    fs::write(&input, r#"{"inputs": {"x": {"shape": [2], "values": [4, 5]}}}"#).unwrap();
    let (code, _, errors) = program(&["model", "run", model.to_str().unwrap(), input.to_str().unwrap()]);
    assert!(code == 1 && errors.contains("(code 2)"), "{errors}");
    assert!(errors.contains("node 0 Gather: index 5 is out of bounds of 5"), "{errors}");
}

#[test]
fn a_model_with_a_window_is_shown_where_it_fits_and_its_output_is_named_where_nothing_fits() {
    let folder = tempfile::tempdir().unwrap();
    let x = value("x", FLOAT, &["batch", "2", "seq"]);
    // Its output is as long as the input, less two.
    let y = value("y", FLOAT, &["batch", "4", "less"]);
    let file = one_node(folder.path(), ("Conv", &["x", "c"]), x, y, Some(floats(&[4, 2, 3])));
    let (code, output, _) = program(&["model", "inspect", file.to_str().unwrap()]);
    assert!(code == 0 && output.contains("output `y`: its dimension 2 is neither fixed nor"), "{output}");
    // Its mean is not, and it needs three of `seq`.
    let mut model = ModelProto::decode(fs::read(&file).unwrap().as_slice()).unwrap();
    let graph = model.graph.as_mut().unwrap();
    graph.node[0].output = vec!["long".into()];
    let mean = NodeProto {
        op_type: "GlobalAveragePool".into(),
        input: vec!["long".into()],
        output: vec!["y".into()],
        ..Default::default()
    };
    graph.node.push(mean);
    graph.output = vec![value("y", FLOAT, &["batch", "4", "1"])];
    fs::write(&file, model.encode_to_vec()).unwrap();
    let (code, output, errors) = program(&["model", "inspect", file.to_str().unwrap()]);
    assert!(code == 0 && output.contains("batch=1,seq=3") && output.contains("Conv"), "{output}{errors}");
    let (code, _, errors) = program(&["model", "inspect", file.to_str().unwrap(), "--sizes", "seq=2"]);
    assert!(code == 1 && errors.contains("give other --sizes"), "{errors}");
    let (code, _, errors) = program(&["model", "inspect", file.to_str().unwrap(), "--sizes", "length=2"]);
    assert!(code == 1 && errors.contains("`batch`, `seq`"), "{errors}");
}

#[test]
fn a_reader_who_leaves_is_no_fault_and_a_full_disk_is_one() {
    let model = repository().join("inference/models/linear/linear.onnx");
    let inspect = |output: Stdio| {
        let mut command = Command::new(PROGRAM);
        command.args(["model", "inspect", model.to_str().unwrap()]).stdout(output).stderr(Stdio::piped());
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(inspect(writer.into()), (Some(0), String::new()));
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (code, errors) = inspect(full.into());
    assert!(code == Some(1) && errors.contains("standard output"), "{errors}");
}

#[test]
fn unusable_models_get_an_error_that_names_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.onnx");
    let mlp = fs::read(repository().join("inference/models/digits-mlp/digits-mlp.onnx")).unwrap();
    let unsupported: Vec<u8> = {
        // `Relu` and `Gemm` have the same length as these names, so that the protobuf stays well-formed.
        let text = |old: &[u8], new: &[u8], bytes: Vec<u8>| -> Vec<u8> {
            let mut bytes = bytes;
            while let Some(at) = bytes.windows(old.len()).position(|window| window == old) {
                bytes[at..at + new.len()].copy_from_slice(new);
            }
            bytes
        };
        text(b"Relu", b"Relv", text(b"Gemm", b"Lstm", mlp.clone()))
    };
    let cases: [(&[u8], &[&str]); 4] = [
        (&mlp[..mlp.len() / 2], &["not an ONNX model, or a truncated one"]),
        (b"this is no model", &["not an ONNX model"]),
        (b"", &["not an ONNX model"]),
        (&unsupported, &["unsupported operators", "Relv", "Lstm"]),
    ];
    for (bytes, texts) in cases {
        fs::write(&file, bytes).unwrap();
        let (code, output, errors) = program(&["model", "inspect", file.to_str().unwrap()]);
        assert_eq!((code, output.as_str()), (1, ""), "{errors}");
        for text in texts {
            assert!(errors.contains(text) && errors.contains("model.onnx"), "{errors:?} lacks {text:?}");
        }
    }
    let (code, _, errors) = program(&["model", "inspect", "/nonexistent.onnx"]);
    assert!(code == 1 && errors.contains("/nonexistent.onnx"), "{errors}");
}

#[test]
fn a_model_is_added_found_by_any_name_run_and_removed() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path().to_str().unwrap();
    let file = repository().join("inference/models/linear/linear.onnx");
    let call = |arguments: &[&str]| program(&[&["--home", at, "model"], arguments].concat());
    let (code, added, errors) = call(&["add", file.to_str().unwrap(), "--name", "a-line"]);
    assert_eq!(code, 0, "{errors}");
    let hash = added.split_whitespace().next().unwrap();
    let cid = added.split_whitespace().find(|word| word.starts_with("bafk")).unwrap();
    let (_, listed, _) = call(&["list"]);
    assert!(listed.contains(hash) && listed.contains("a-line") && listed.contains(cid), "{listed}");
    let input = home.path().join("input.json");
    fs::write(&input, r#"{"inputs": {"x": {"shape": [1, 2], "values": [1, 2]}}}"#).unwrap();
    for name in [hash, &hash[..12], cid, "a-line"] {
        let (code, output, errors) = call(&["run", name, input.to_str().unwrap()]);
        assert_eq!(code, 0, "{errors}");
        let output: Value = serde_json::from_str(&output).unwrap();
        assert_eq!(output["outputs"]["y"]["values"], json!([8.0]), "{name}");
        let (code, output, _) = call(&["inspect", name, "--sizes", "batch=3"]);
        assert!(code == 0 && output.contains(hash) && output.contains("ops"), "{output}");
    }
    // A file that is not what its name says is never run.
    let stored = home.path().join(format!("models/{}.onnx", &hash[2..]));
    fs::write(&stored, b"something else").unwrap();
    let (code, _, errors) = call(&["run", "a-line", input.to_str().unwrap()]);
    assert!(code == 1 && errors.contains("content hash"), "{errors}");
    assert_eq!(call(&["remove", "a-line"]).0, 0);
    let (code, _, errors) = call(&["inspect", "a-line"]);
    assert!(code == 1 && errors.contains("model list"), "{errors}");
}

#[test]
fn model_run_names_what_is_wrong_with_its_input() {
    let folder = tempfile::tempdir().unwrap();
    let model = repository().join("inference/models/linear/linear.onnx");
    let run = |text: &str| {
        let input = folder.path().join("input.json");
        fs::write(&input, text).unwrap();
        program(&["model", "run", model.to_str().unwrap(), input.to_str().unwrap()])
    };
    let (code, output, _) = run(r#"{"inputs": {"x": {"shape": [2, 2], "values": [1, 2, 0.5, -1e1]}}}"#);
    let output: Value = serde_json::from_str(&output).unwrap();
    assert_eq!((code, &output["outputs"]["y"]["values"]), (0, &json!([8.0, -16.5])));
    for (text, place) in [
        ("{", "the input"),
        (r#"{"inputs": {}}"#, "`x` is missing"),
        (r#"{"inputs": {"z": {"shape": [1, 2], "values": [1, 2]}}}"#, "no input `z`"),
        (r#"{"inputs": {"x": {"shape": [1, 3], "values": [1, 2, 3]}}}"#, "shape"),
        (r#"{"inputs": {"x": {"shape": [1, 2], "values": [1]}}}"#, "1 values"),
        (r#"{"inputs": {"x": {"shape": [1, 2], "values": [1, 1e60]}}}"#, "value 1: 1e60 is out of range for float32"),
        (r#"{"inputs": {"x": {"shape": [1, 2], "values": [1, null]}}}"#, "value 1: `null` is no number"),
        (r#"{"inputs": {"x": {"shape": [1, 2], "values": [1, NaN]}}}"#, "without NaN"),
    ] {
        let (code, _, errors) = run(text);
        assert!(code == 1 && errors.contains(place), "{errors:?} lacks {place:?}");
    }
}
