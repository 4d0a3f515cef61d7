//! The tests that the `onnx` package has for every operator: what the engine supports it does right.
//!
//! `scripts/conformance` writes the cases; without them (`PENSTOCK_ONNX_CASES`) the test says so and passes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

#[path = "support/cases.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod cases;

use std::{collections::BTreeMap, env, path::PathBuf};

use cases::{Tolerance, Verdict};

#[test]
fn every_supported_operator_gives_the_expected_outputs() {
    let Some(folder) = env::var_os("PENSTOCK_ONNX_CASES").map(PathBuf::from) else {
        eprintln!("skipped: PENSTOCK_ONNX_CASES is not set (scripts/test sets it)");
        return;
    };
    let only = env::var("PENSTOCK_ONNX_ONLY").unwrap_or_default();
    let mut counts = BTreeMap::<&str, usize>::new();
    let (mut wrong, mut unsupported) = (Vec::new(), Vec::new());
    for case in cases::find(&folder.join("backend")) {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        if !name.contains(&only) {
            continue;
        }
        // The tolerance of the package's own runner; its float16 results are rounded in other places than ours.
        let half = ["float16", "FLOAT16", "bf16", "fp16"].iter().any(|word| name.contains(word));
        let relative = if half { 2e-2 } else { 1e-3 };
        let verdict = cases::run(&case, Tolerance { relative, absolute: if half { 1e-3 } else { 1e-6 } }, &mut |_| ());
        let kind = match &verdict {
            Verdict::Passed => "passed",
            Verdict::Unsupported(reason) => {
                unsupported.push(format!("{name}: {reason}"));
                "unsupported"
            }
            Verdict::Wrong(reason) => {
                wrong.push(format!("{name}: {reason}"));
                "wrong"
            }
        };
        *counts.entry(kind).or_default() += 1;
    }
    println!("{counts:?}");
    unsupported.iter().for_each(|line| println!("unsupported {line}"));
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    if only.is_empty() {
        assert!(counts["passed"] >= 1_500, "{counts:?}");
    }
}
