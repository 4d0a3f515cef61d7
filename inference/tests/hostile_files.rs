//! Files that are no usable model get an error that names the place, and never a panic.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::{fs, path::PathBuf};

use penstock_inference::{
    Model, ModelError, Sizes, Tensor,
    onnx::proto::{AttributeProto, ModelProto},
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
