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
