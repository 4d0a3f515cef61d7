//! `LinearClassifier` and `LinearRegressor`: a matrix product (the engine's own, with fused multiply-adds in the order of
//! the features), then the intercepts, then `post_transform`. Inputs are rounded to float32 first.

use super::{Labels, Parse, check_number, classified, cost, eval, matrix, post::Transform, single, singles};
use crate::{
    DType,
    engine::{
        cx::{Inputs, Stop},
        kernels::matmul::{Packed, matmul},
        ops::linear::padding,
        program::Eval,
        value::Value,
    },
    onnx::Node,
};

pub(super) fn find(name: &str) -> Option<Parse> {
    Some(match name {
        "LinearClassifier" => |node, _| classifier(node),
        "LinearRegressor" => |node, _| regressor(node),
        _ => return None,
    })
}

/// Coefficients `[targets, features]`, laid out for the product.
#[derive(Debug)]
pub(super) struct Weights {
    packed: Packed,
    pub(super) features: usize,
    pub(super) targets: usize,
}

impl Weights {
    pub(super) fn new(node: &Node<'_>, coefficients: &[f32], targets: usize) -> Result<Self, String> {
        let features = coefficients.len().checked_div(targets).unwrap_or(0);
        if features == 0 || features * targets != coefficients.len() {
            return Err(format!("its {} coefficients are not for {targets} targets", coefficients.len()));
        }
        // Few targets are padded to a panel: sixteen times the file at most.
        if !node.packs.reserve(Packed::<f32>::bytes(features, targets)) {
            return Err("its coefficients take too much memory".into());
        }
        let packed = Packed::new(coefficients, features, targets, 1, features);
        Ok(Self { packed, features, targets })
    }

    /// Rows of the input, which must have the features.
    pub(super) fn rows(&self, inputs: &Inputs<'_>) -> Result<usize, Stop> {
        let (rows, width) = matrix(inputs, 0)?;
        if width != self.features {
            return Err(Stop::invalid(format!("it takes {} features, not {width}", self.features)));
        }
        Ok(rows)
    }

    /// Cost of rows in ops.
    pub(super) fn ops(&self, rows: usize) -> u64 {
        cost(&[rows, self.features, self.targets]).saturating_add(padding(&self.packed))
    }

    /// The products, `[rows, targets]`.
    pub(super) fn product(&self, rows: &[f32], threads: usize) -> Vec<f32> {
        let mut out = vec![0.0; rows.len() / self.features * self.targets];
        matmul(rows, &self.packed, &mut out, threads);
        out
    }
}

/// Adds the intercepts, if there are any, to each row.
fn add(scores: &mut [f32], intercepts: &[f32]) {
    for row in scores.chunks_exact_mut(intercepts.len().max(1)) {
        row.iter_mut().zip(intercepts).for_each(|(score, intercept)| *score += intercept);
    }
}

/// Without intercepts there is a target for each label. One target has two labels.
fn classifier(node: &Node<'_>) -> Result<Eval, String> {
    let labels = Labels::of_node(node, "classlabels_ints", "classlabels_strings")?;
    let intercepts = node.floats("intercepts").unwrap_or_default();
    let targets = if intercepts.is_empty() { labels.len() } else { intercepts.len() };
    let weights = Weights::new(node, &node.floats("coefficients").unwrap_or_default(), targets)?;
    let transform = Transform::of_name(&node.text("post_transform", "NONE")?)?;
    if labels.len() != targets.max(2) {
        return Err(format!("it has {} labels for {targets} targets", labels.len()));
    }
    let columns = labels.len();
    eval(move |cx, inputs| {
        check_number(inputs.dtype(0)?)?;
        let (rows, threads) = (weights.rows(inputs)?, cx.threads);
        let ops = weights.ops(rows).saturating_add(cost(&[rows, columns]).saturating_mul(400 + transform.ops()));
        classified(cx, inputs, &labels, (rows, columns), ops, || {
            let mut scores = weights.product(&singles(inputs, 0)?.values::<f32>(), threads);
            add(&mut scores, &intercepts);
            Ok(if targets == 1 { binary(&scores, transform) } else { many(scores, targets, transform) })
        })
    })
}

/// The score of the second label; the other's is its complement.
fn binary(scores: &[f32], transform: Transform) -> (Vec<usize>, Vec<f32>) {
    let picked = scores.iter().map(|score| usize::from(*score > 0.0)).collect();
    (picked, scores.iter().flat_map(|score| transform.pair(*score, |x| 1.0 - x)).collect())
}

/// The label is the first with the greatest score before the transformation.
fn many(mut scores: Vec<f32>, targets: usize, transform: Transform) -> (Vec<usize>, Vec<f32>) {
    let picked = scores.chunks_exact(targets).map(greatest).collect();
    scores.chunks_exact_mut(targets).for_each(|row| transform.apply(row));
    (picked, scores)
}

/// Position of the first of the greatest scores.
pub(super) fn greatest(scores: &[f32]) -> usize {
    let mut best = 0;
    for (index, score) in scores.iter().enumerate() {
        if scores.get(best).is_some_and(|greatest| score > greatest) {
            best = index;
        }
    }
    best
}

/// As in onnxruntime, one target's score is transformed by PROBIT only.
fn regressor(node: &Node<'_>) -> Result<Eval, String> {
    let targets = usize::try_from(node.int("targets", 1)).ok().filter(|targets| *targets > 0);
    let targets = targets.ok_or("its targets must be positive")?;
    let weights = Weights::new(node, &node.floats("coefficients").unwrap_or_default(), targets)?;
    let intercepts = node.floats("intercepts").unwrap_or_default();
    let transform = Transform::of_name(&node.text("post_transform", "NONE")?)?;
    if !(intercepts.is_empty() || intercepts.len() == targets) {
        return Err(format!("it has {} intercepts for {targets} targets", intercepts.len()));
    }
    single(move |cx, inputs| -> Result<Value, Stop> {
        check_number(inputs.dtype(0)?)?;
        let (rows, threads) = (weights.rows(inputs)?, cx.threads);
        let ops = weights.ops(rows).saturating_add(cost(&[rows, targets]).saturating_mul(200 + transform.ops()));
        cx.emit::<f32>(inputs, DType::Float32, vec![rows, targets], ops, || {
            let mut scores = weights.product(&singles(inputs, 0)?.values::<f32>(), threads);
            add(&mut scores, &intercepts);
            super::trees::transform_rows(&mut scores, targets, transform);
            Ok(scores)
        })
    })
}
