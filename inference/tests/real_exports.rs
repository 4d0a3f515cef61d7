//! Models that people export: PyTorch, scikit-learn, XGBoost, LightGBM, quantised by onnxruntime. Outputs equal those of
//! onnxruntime within the tolerance of each case.
//!
//! `scripts/conformance` makes the cases; without them (`PENSTOCK_ONNX_CASES`) the test says so and passes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

#[path = "support/cases.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod cases;

use std::{collections::BTreeMap, env, fs, path::PathBuf};

use cases::{Tolerance, Verdict};
use penstock_inference::{Dim, Model, Sizes};
use serde_json::Value;

/// Exports that take maps, or hash features with MurmurHash3: refused when they are loaded.
const NOT_BUILT: [&str; 2] = ["sklearn-DictVectorizer", "sklearn-FeatureHasher"];

#[test]
fn real_exports_run_and_agree_with_onnxruntime() {
    let Some(folder) = env::var_os("PENSTOCK_ONNX_CASES").map(PathBuf::from) else {
        eprintln!("skipped: PENSTOCK_ONNX_CASES is not set (scripts/test sets it)");
        return;
    };
    let only = env::var("PENSTOCK_ONNX_ONLY").unwrap_or_default();
    let mut counts = BTreeMap::<&str, usize>::new();
    let mut failed = Vec::new();
    for case in cases::find(&folder.join("real")) {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        if !name.contains(&only) {
            continue;
        }
        let json =
            fs::read(case.join("tolerance.json")).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        let number = |key: &str, default: f64| json.as_ref().and_then(|v| v[key].as_f64()).unwrap_or(default);
        let tolerance = Tolerance { relative: number("rtol", 1e-4), absolute: number("atol", 1e-5) };
        let verdict = cases::run(&case, tolerance, &mut |_| ());
        let kind = match &verdict {
            Verdict::Passed => "passed",
            Verdict::Unsupported(_) if NOT_BUILT.contains(&name.as_str()) => "not built",
            Verdict::Unsupported(reason) => {
                failed.push(format!("{name}: unsupported: {reason}"));
                "unsupported"
            }
            Verdict::Wrong(reason) => {
                failed.push(format!("{name}: {reason}"));
                "wrong"
            }
        };
        *counts.entry(kind).or_default() += 1;
    }
    println!("{counts:?}");
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

/// A price is a polynomial through a few sizes; a run of a registered model fails when it costs more. `PENSTOCK_PRICE_SIZES`
/// tries more sizes.
#[test]
fn no_run_of_an_export_costs_more_than_its_price() {
    // What a run and its graph cost beside the nodes: `RUN_OPS`, `GRAPH_OPS`.
    const BESIDE: u64 = 18_000;
    let Some(folder) = env::var_os("PENSTOCK_ONNX_CASES").map(PathBuf::from) else {
        eprintln!("skipped: PENSTOCK_ONNX_CASES is not set (scripts/test sets it)");
        return;
    };
    let most: usize = env::var("PENSTOCK_PRICE_SIZES").map_or(40, |most| most.parse().unwrap());
    let mut checked = 0;
    for case in cases::find(&folder.join("real")) {
        let Ok(model) = Model::load_in(fs::read(case.join("model.onnx")).unwrap(), &case) else { continue };
        let Ok(descriptor) = model.descriptor() else { continue };
        // Without open dimensions they are all the same.
        let mut seen = Vec::new();
        for size in (1..=most).chain([64, 100, 127, 128, 129, 200, 500, 513]) {
            for rows in [1, 2, 7] {
                let mut sizes = Sizes::default();
                for dim in descriptor.inputs.iter().flat_map(|spec| &spec.shape) {
                    match dim {
                        Dim::Fixed(_) => continue,
                        Dim::Batch => sizes.bind(dim, rows),
                        Dim::Named(_) => sizes.bind(dim, size),
                    };
                }
                if seen.contains(&sizes) {
                    continue;
                }
                seen.push(sizes.clone());
                // It may be too large for a table of positions, say.
                let Ok(nodes) = model.cost_by_operator(&sizes) else { continue };
                let cost = BESIDE + nodes.iter().map(|node| node.ops).sum::<u64>();
                let price = descriptor.ops.of(&sizes);
                assert!(cost <= price, "{}: {cost} for {price} at {sizes:?}", case.display());
                checked += 1;
            }
        }
    }
    println!("{checked} prices");
    assert!(checked > 500, "{checked}");
}
