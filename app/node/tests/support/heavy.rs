//! A genesis with a model that needs more than a second on one core.

use std::path::Path;

use penstock_inference::{Model, synthetic};
use serde_json::{Value, json};

/// The model's name in the genesis.
pub const NAME: &str = "test/heavy";

/// Writes the model and a genesis that has it beside the bundled ones into `folder`.
pub fn genesis_with_heavy(folder: &Path, layers: usize) -> std::path::PathBuf {
    let bytes = synthetic::wide_mlp(256, layers);
    std::fs::write(folder.join("heavy.onnx"), &bytes).unwrap();
    let loaded = Model::load(bytes).unwrap();
    let text = std::fs::read(super::repository().join("genesis.json")).unwrap();
    let mut genesis: Value = serde_json::from_slice(&text).unwrap();
    let descriptor = loaded.descriptor().unwrap();
    genesis["app_state"]["models"].as_array_mut().unwrap().push(json!({
        "id": NAME,
        "hash": loaded.hash(),
        "file": "heavy.onnx",
        "policy": "replicated",
        "inputs": descriptor.inputs,
        "outputs": descriptor.outputs,
        "ops": descriptor.ops,
    }));
    let path = folder.join("genesis.json");
    std::fs::write(&path, genesis.to_string()).unwrap();
    path
}
