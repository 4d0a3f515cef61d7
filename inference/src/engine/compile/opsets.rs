//! Which operator sets are understood.

use std::collections::HashMap;

use crate::{ModelError, onnx::proto::OperatorSetIdProto};

/// Default-domain operator sets whose semantics the operators follow.
pub(super) const OPSETS: core::ops::RangeInclusive<i64> = 6..=28;
/// The same of `ai.onnx.ml`.
const ML_OPSETS: core::ops::RangeInclusive<i64> = 1..=5;

/// The default domain has two names.
pub(super) fn domain(name: &str) -> &str {
    if name == "ai.onnx" { "" } else { name }
}

/// The versions of operator sets by domain.
pub(super) type Opsets = HashMap<String, i64>;

pub(super) fn opsets(imports: &[OperatorSetIdProto]) -> Opsets {
    imports.iter().map(|set| (domain(&set.domain).to_owned(), set.version)).collect()
}

/// Refuses the versions that are not understood.
pub(super) fn check_opsets(opsets: &Opsets) -> Result<(), ModelError> {
    for (name, allowed, version) in [
        ("", OPSETS, opsets.get("").copied().unwrap_or(*OPSETS.end())),
        ("ai.onnx.ml", ML_OPSETS, opsets.get("ai.onnx.ml").copied().unwrap_or(1)),
    ] {
        if !allowed.contains(&version) {
            let name = if name.is_empty() { "" } else { " of ai.onnx.ml" };
            return Err(ModelError::Graph(format!(
                "operator set {version}{name} is not supported: export with one of {}..={}",
                allowed.start(),
                allowed.end()
            )));
        }
    }
    Ok(())
}
