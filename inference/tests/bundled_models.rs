//! The bundled models give the outputs that onnxruntime recorded, and equal bits however they are batched.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::{fs, path::PathBuf};

use penstock_inference::{Model, Tensor, TensorValues};
use serde_json::Value;

const MODELS: [&str; 4] = ["linear", "digits-mlp", "digits-cnn", "volatility"];

fn load(name: &str) -> (Model, Vec<Value>) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models").join(name);
    let model = Model::load(fs::read(folder.join(format!("{name}.onnx"))).unwrap()).unwrap();
    let samples: Value = serde_json::from_slice(&fs::read(folder.join("samples.json")).unwrap()).unwrap();
    (model, samples["samples"].as_array().unwrap().clone())
}

fn floats(value: &Value) -> Vec<f32> {
    value["values"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn shape(value: &Value) -> Vec<usize> {
    value["shape"].as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as usize).collect()
}

fn inputs(model: &Model, sample: &Value) -> Vec<Tensor> {
    let input = |name: &str| &sample["inputs"][name];
    let tensor = |name: &str| Tensor::new(shape(input(name)), TensorValues::Float32(floats(input(name)))).unwrap();
    model.descriptor().unwrap().inputs.iter().map(|spec| tensor(&spec.name)).collect()
}

#[test]
fn outputs_equal_those_of_onnxruntime_within_1e_4() {
    for name in MODELS {
        let (model, samples) = load(name);
        assert!(samples.len() >= 10, "{name}");
        for sample in &samples {
            let outputs = model.run(&inputs(&model, sample)).unwrap();
            for (spec, output) in model.descriptor().unwrap().outputs.iter().zip(&outputs) {
                let expected = &sample["outputs"][&spec.name];
                assert_eq!(output.shape(), shape(expected), "{name} {}", spec.name);
                match output.values() {
                    TensorValues::Float32(values) => {
                        for (ours, theirs) in values.iter().zip(floats(expected)) {
                            let close = (ours - theirs).abs() <= 1e-4 * theirs.abs().max(1.0);
                            assert!(close, "{name} {}: {ours} and {theirs}", spec.name);
                        }
                    }
                    TensorValues::Int64(values) => {
                        let expected: Vec<i64> =
                            expected["values"].as_array().unwrap().iter().map(|x| x.as_i64().unwrap()).collect();
                        assert_eq!(*values, expected, "{name}");
                    }
                    other => panic!("{name}: {other:?}"),
                }
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_a_batch() {
    for name in MODELS {
        let (model, samples) = load(name);
        for sample in samples.iter().filter(|s| shape(&s["inputs"][&model.descriptor().unwrap().inputs[0].name])[0] > 1)
        {
            let batch = inputs(&model, sample);
            let rows = batch[0].shape()[0];
            let together = model.run(&batch).unwrap();
            for row in 0..rows {
                let alone: Vec<Tensor> = batch.iter().map(|t| take_row(t, row, rows)).collect();
                let expected: Vec<Tensor> = together.iter().map(|t| take_row(t, row, rows)).collect();
                assert_eq!(model.run(&alone).unwrap(), expected, "{name} row {row} of {rows}");
            }
        }
    }
}

fn take_row(tensor: &Tensor, row: usize, rows: usize) -> Tensor {
    let mut shape = tensor.shape().to_vec();
    shape[0] = 1;
    let values = match tensor.values() {
        TensorValues::Float32(v) => TensorValues::Float32(v[row * v.len() / rows..(row + 1) * v.len() / rows].to_vec()),
        TensorValues::Int64(v) => TensorValues::Int64(v[row * v.len() / rows..(row + 1) * v.len() / rows].to_vec()),
        other => panic!("{other:?}"),
    };
    Tensor::new(shape, values).unwrap()
}

#[test]
fn the_bits_of_all_outputs_are_pinned() {
    // A change of this hash is a change of ENGINE_VERSION: every id of every request changes with it.
    let mut bytes = Vec::new();
    for name in MODELS {
        let (model, samples) = load(name);
        for sample in &samples {
            bytes.extend(penstock_inference::result::encode(&model.run(&inputs(&model, sample))));
        }
    }
    let hash = penstock_inference::ContentHash::of(&bytes).to_string();
    assert_eq!(hash, "0x462545eccc32a7535fd880536fbc2dc72b380a7a73e6481f66ad65dbecbb1dbe");
}

#[test]
fn inputs_that_are_not_finite_and_outputs_that_are_not_fail_with_a_fixed_code() {
    let (model, _) = load("volatility");
    let zeros = Tensor::new(vec![1, 10, 4], TensorValues::Float32(vec![0.0; 40])).unwrap();
    assert_eq!(model.run(&[zeros]), Err(penstock_inference::Failure::NonFinite));
    let wrong = Tensor::new(vec![1, 3], TensorValues::Float32(vec![0.0; 3])).unwrap();
    assert_eq!(model.run(&[wrong]), Err(penstock_inference::Failure::Engine));
}
