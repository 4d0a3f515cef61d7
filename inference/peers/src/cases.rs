//! What is measured: `cases.json`, which `bench_onnxruntime.py` reads too, and inputs that are the same in both.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Deserialize;

/// One model at one batch size: a row of the tables.
pub struct Case {
    pub model: String,
    pub batch: usize,
    pub inputs: Vec<Input>,
}

pub struct Input {
    pub shape: Vec<usize>,
    pub values: Values,
}

#[derive(Clone)]
pub enum Values {
    Floats(Vec<f32>),
    Integers(Vec<i64>),
}

#[derive(Deserialize)]
struct ModelSpec {
    model: String,
    batches: Vec<usize>,
    inputs: Vec<InputSpec>,
}

#[derive(Deserialize)]
struct InputSpec {
    /// Without the batch.
    shape: Vec<usize>,
    fill: Fill,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Fill {
    /// float32, between the two.
    Uniform(f32, f32),
    /// int64, from 0 and below it.
    Below(u64),
    /// int64.
    Ones,
}

impl Case {
    /// All, in the order of the tables.
    pub fn all() -> Result<Vec<Self>> {
        let models: Vec<ModelSpec> = serde_json::from_str(include_str!("../cases.json"))?;
        let cases = models.iter().flat_map(|spec| spec.batches.iter().map(|batch| Self::new(spec, *batch)));
        Ok(cases.collect())
    }

    fn new(spec: &ModelSpec, batch: usize) -> Self {
        let inputs = spec.inputs.iter().enumerate().map(|(i, input)| {
            let shape = [&[batch], &input.shape[..]].concat();
            let values = input.fill.values(i as u64 + 1, shape.iter().product::<usize>() as u64);
            Input { shape, values }
        });
        Self { model: spec.model.clone(), batch, inputs: inputs.collect() }
    }

    /// Whether there are passes written by hand for it.
    pub fn by_hand(&self) -> bool {
        ["torch-mlp", "torch-digits-cnn", "torch-resnet18", "torch-encoder"].contains(&self.model.as_str())
    }

    pub fn file(&self, models: &Path) -> PathBuf {
        models.join(&self.model).join("model.onnx")
    }
}

impl Fill {
    fn values(self, seed: u64, count: u64) -> Values {
        let random = (0..count).map(|i| split_mix((seed << 32) | i));
        match self {
            Self::Uniform(low, high) => {
                Values::Floats(random.map(|x| low + (high - low) * ((x >> 40) as f32 / (1 << 24) as f32)).collect())
            }
            Self::Below(end) => Values::Integers(random.map(|x| ((x >> 32) % end) as i64).collect()),
            Self::Ones => Values::Integers(vec![1; count as usize]),
        }
    }
}

/// The output function of the generator SplitMix64.
fn split_mix(counter: u64) -> u64 {
    let mut x = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
