//! `ZipMap`: names the scores of a classifier.
//!
//! The specification's output is a sequence of maps. This engine has none: each row becomes a JSON object with the scores
//! in the order of the labels, `{"setosa": 0.97, "other": 0.03}`. What JSON has no number for is a string (`"NaN"`,
//! `"INF"`, `"-INF"`).

use std::collections::HashSet;

use super::{Labels, Parse, check_bytes, cost, matrix, single};
use crate::{
    DType,
    engine::{cx::Stop, numeric::to_text, program::Eval},
    onnx::Node,
};

pub(super) fn find(name: &str) -> Option<Parse> {
    (name == "ZipMap").then_some(|node, _| zip_map(node))
}

fn zip_map(node: &Node<'_>) -> Result<Eval, String> {
    let names: Vec<String> = match Labels::of_node(node, "classlabels_int64s", "classlabels_strings")? {
        Labels::Ints(labels) => labels.iter().map(|label| format!("\"{label}\": ")).collect(),
        Labels::Texts(labels) => labels.iter().map(|label| format!("{}: ", quoted(label))).collect(),
    };
    if names.iter().collect::<HashSet<_>>().len() != names.len() {
        return Err("two of its labels are the same".into());
    }
    // A number has 24 characters at most; then there are quotes, commas and braces.
    let longest = names.iter().map(|name| name.len() + 32).sum::<usize>();
    single(move |cx, inputs| {
        let dtype = inputs.dtype(0)?;
        let (rows, width) = matrix(inputs, 0)?;
        if !matches!(dtype, DType::Float32 | DType::Float64) {
            return Err(Stop::unsupported(dtype));
        }
        if width != names.len() {
            return Err(Stop::invalid(format!("it names {} scores, not {width}", names.len())));
        }
        let ops = cost(&[rows, width, 6000]).saturating_add(cost(&[rows, longest]));
        cx.emit_texts(inputs, vec![rows], ops, || {
            check_bytes(core::iter::once(rows.saturating_mul(longest)))?;
            let numbers = to_text(inputs.read(0)?);
            Ok(numbers.chunks_exact(width).map(|row| object(&names, row)).collect())
        })
    })
}

fn object(names: &[String], numbers: &[String]) -> String {
    let mut text = String::from("{");
    for (index, (name, number)) in names.iter().zip(numbers).enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        text.push_str(name);
        let quote = if number.ends_with(|c: char| c.is_ascii_digit()) { "" } else { "\"" };
        text.extend([quote, number, quote]);
    }
    text.push('}');
    text
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_json() {
        let names = ["a\"b\\\n", "ü"].map(|name| format!("{}: ", quoted(name)));
        assert_eq!(object(&names, &["0.5".into(), "NaN".into()]), "{\"a\\\"b\\\\\\u000a\": 0.5, \"ü\": \"NaN\"}");
        assert_eq!(object(&names[1..], &["-1.0e-05".into()]), "{\"ü\": -1.0e-05}");
    }
}
