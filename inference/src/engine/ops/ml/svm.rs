//! `SVMClassifier` and `SVMRegressor`, with libsvm's layout of coefficients and onnxruntime's arithmetic.
//!
//! Kernels are float32: products by the engine's matrix product, distances as plain sums in the order of the features.
//! Scores of pairs of classes are float64 sums of float32 products, as in onnxruntime. Inputs are rounded to float32.

use core::ops::Range;

use super::{
    Labels, Parse, check_number, classified, cost, eval,
    linear::{Weights, greatest},
    post::{Transform, logistic},
    single, singles,
};
use crate::{
    DType,
    engine::{
        cx::{Inputs, Stop},
        kernels::vectorized,
        numeric::Wide,
        program::Eval,
    },
    onnx::Node,
};

/// Rows whose kernels are computed together.
const BLOCK: usize = 64;
/// Rounds that the coupling of probabilities takes at most.
const ROUNDS: usize = 100;

pub(super) fn find(name: &str) -> Option<Parse> {
    Some(match name {
        "SVMClassifier" => |node, _| classifier(node),
        "SVMRegressor" => |node, _| regressor(node),
        _ => return None,
    })
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kernel {
    Linear,
    Poly { gamma: f32, coef0: f32, degree: f32 },
    Rbf { gamma: f32 },
    Sigmoid { gamma: f32, coef0: f32 },
}

impl Kernel {
    fn of_node(node: &Node<'_>) -> Result<Self, String> {
        let (gamma, coef0, degree) = match node.floats("kernel_params").unwrap_or_default().as_slice() {
            [] => (0.0, 0.0, 0.0),
            [gamma, coef0, degree] => (*gamma, *coef0, *degree),
            other => return Err(format!("it has {} kernel_params, not 3", other.len())),
        };
        Ok(match node.text("kernel_type", "LINEAR")?.as_str() {
            "LINEAR" => Self::Linear,
            "POLY" => Self::Poly { gamma, coef0, degree },
            "RBF" => Self::Rbf { gamma },
            "SIGMOID" => Self::Sigmoid { gamma, coef0 },
            other => return Err(format!("there is no kernel_type `{other}`")),
        })
    }

    /// Cost of one kernel beside its product.
    fn ops(self) -> u64 {
        match self {
            Self::Linear => 0,
            Self::Poly { degree: 2.0 | 3.0, .. } => 4,
            Self::Poly { .. } => 300,
            Self::Rbf { .. } => 24,
            Self::Sigmoid { .. } => 200,
        }
    }

    /// From products, or for RBF squared distances, to kernels.
    fn apply(self, values: &mut [f32]) {
        match self {
            Self::Linear => {}
            Self::Poly { gamma, coef0, degree } => {
                for x in values.iter_mut() {
                    let y = gamma * *x + coef0;
                    *x = match degree {
                        2.0 => y * y,
                        3.0 => y * y * y,
                        degree => Wide::pow(y, degree),
                    };
                }
            }
            Self::Rbf { gamma } => exponentials(values, -gamma),
            Self::Sigmoid { gamma, coef0 } => values.iter_mut().for_each(|x| *x = Wide::tanh(gamma * *x + coef0)),
        }
    }
}

vectorized! {
    fn exponentials(values: &mut [f32], factor: f32) {
        for x in values.iter_mut() {
            *x = Wide::exp(factor * *x);
        }
    }
}

vectorized! {
    /// Squared distances of a row to vectors, of which `columns` has the first features, then the second ones, …
    fn distances(row: &[f32], columns: &[f32], sums: &mut [f32]) {
        for (x, column) in row.iter().zip(columns.chunks_exact(sums.len().max(1))) {
            for (sum, y) in sums.iter_mut().zip(column) {
                let difference = x - y;
                *sum += difference * difference;
            }
        }
    }
}

/// The support vectors, as their kernel needs them.
#[derive(Debug)]
enum Vectors {
    Products(Weights),
    /// Feature by feature.
    Columns {
        columns: Vec<f32>,
        features: usize,
    },
}

#[derive(Debug)]
struct Support {
    kernel: Kernel,
    vectors: Vectors,
    count: usize,
}

impl Support {
    fn new(node: &Node<'_>, kernel: Kernel, vectors: &[f32], count: usize) -> Result<Self, String> {
        let features = vectors.len().checked_div(count).unwrap_or(0);
        if features == 0 || features * count != vectors.len() {
            return Err(format!("its support_vectors have {} numbers for {count} vectors", vectors.len()));
        }
        let vectors = match kernel {
            Kernel::Rbf { .. } => {
                let feature = |f: usize| vectors.iter().skip(f).step_by(features).copied();
                Vectors::Columns { columns: (0..features).flat_map(feature).collect(), features }
            }
            _ => Vectors::Products(Weights::new(node, vectors, count)?),
        };
        Ok(Self { kernel, vectors, count })
    }

    fn features(&self) -> usize {
        match &self.vectors {
            Vectors::Products(weights) => weights.features,
            Vectors::Columns { features, .. } => *features,
        }
    }

    /// Rows of the input, which must have the features.
    fn rows(&self, inputs: &Inputs<'_>) -> Result<usize, Stop> {
        let (rows, width) = super::matrix(inputs, 0)?;
        if width != self.features() {
            return Err(Stop::invalid(format!("it takes {} features, not {width}", self.features())));
        }
        Ok(rows)
    }

    /// Cost of the kernels of a row.
    fn ops(&self) -> u64 {
        let products = match &self.vectors {
            // Features are gone through one by one, whatever the number of vectors.
            Vectors::Columns { features, .. } => cost(&[*features, self.count + 60]),
            Vectors::Products(weights) => weights.ops(1),
        };
        products.saturating_add((self.count as u64).saturating_mul(self.kernel.ops()))
    }

    /// Bytes of the kernels of a block of rows.
    fn scratch(&self) -> u64 {
        cost(&[BLOCK, self.count, size_of::<f32>()])
    }

    /// Calls `f` with the kernels of each row with all vectors.
    fn each_row(&self, rows: &[f32], mut f: impl FnMut(&[f32])) {
        for block in rows.chunks(BLOCK * self.features()) {
            let mut kernels = match &self.vectors {
                Vectors::Products(weights) => weights.product(block, 1),
                Vectors::Columns { columns, features } => {
                    let mut sums = vec![0.0; block.len() / features * self.count];
                    let rows = block.chunks_exact(*features).zip(sums.chunks_exact_mut(self.count));
                    rows.for_each(|(row, sums)| distances(row, columns, sums));
                    sums
                }
            };
            self.kernel.apply(&mut kernels);
            kernels.chunks_exact(self.count).for_each(&mut f);
        }
    }
}

/// Without support vectors the model is linear and has one intercept.
fn classifier(node: &Node<'_>) -> Result<Eval, String> {
    let labels = Labels::of_node(node, "classlabels_ints", "classlabels_strings")?;
    let transform = Transform::of_name(&node.text("post_transform", "NONE")?)?;
    let coefficients = node.floats("coefficients").unwrap_or_default();
    let rho = node.floats("rho").unwrap_or_default();
    let sizes = node.sizes("vectors_per_class")?.unwrap_or_default();
    let total = sizes.iter().try_fold(0usize, |sum, size| sum.checked_add(*size)).ok_or("it has too many vectors")?;
    if total == 0 {
        linear_classifier(node, labels, transform, &coefficients, &rho)
    } else {
        Pairs::of_node(node, labels.len(), coefficients, rho, &sizes, total)?.classifier(labels, transform)
    }
}

fn linear_classifier(
    node: &Node<'_>,
    labels: Labels,
    transform: Transform,
    coefficients: &[f32],
    rho: &[f32],
) -> Result<Eval, String> {
    let classes = labels.len();
    let weights = Weights::new(node, coefficients, classes)?;
    let rho = *rho.first().ok_or("it needs rho")?;
    let positive = coefficients.iter().all(|x| *x >= 0.0);
    eval(move |cx, inputs| {
        check_number(inputs.dtype(0)?)?;
        let (rows, threads) = (weights.rows(inputs)?, cx.threads);
        let ops = weights.ops(rows).saturating_add(cost(&[rows, classes]).saturating_mul(2 + transform.ops()));
        classified(cx, inputs, &labels, (rows, classes), ops, || {
            let mut scores = weights.product(&singles(inputs, 0)?.values::<f32>(), threads);
            scores.iter_mut().for_each(|score| *score += rho);
            let picked = scores.chunks_exact(classes).map(|row| linear_label(row, positive)).collect();
            super::trees::transform_rows(&mut scores, classes, transform);
            Ok((picked, scores))
        })
    })
}

/// Of two classes the second wins when the greatest score is above zero (half, where no coefficient is negative), as in
/// onnxruntime, whichever class has that score.
fn linear_label(scores: &[f32], positive: bool) -> usize {
    let best = greatest(scores);
    let score = scores.get(best).copied().unwrap_or_default();
    let second = scores.len() == 2 && if positive { score >= 0.5 } else { score > 0.0 };
    if second { 1 } else { best }
}

/// A machine for each pair of classes.
#[derive(Debug)]
struct Pairs {
    support: Support,
    /// `[classes − 1, vectors]`: those of a class with each other class.
    coefficients: Vec<f32>,
    rho: Vec<f32>,
    /// Where the vectors of each class are.
    ranges: Vec<Range<usize>>,
    /// `prob_a` and `prob_b`, if the outputs are probabilities.
    sigmoids: Option<(Vec<f32>, Vec<f32>)>,
}

impl Pairs {
    fn of_node(
        node: &Node<'_>,
        classes: usize,
        coefficients: Vec<f32>,
        rho: Vec<f32>,
        sizes: &[usize],
        total: usize,
    ) -> Result<Self, String> {
        if sizes.len() != classes || classes < 2 {
            return Err(format!("it has {} vectors_per_class for {classes} classes", sizes.len()));
        }
        let pairs = classes.checked_mul(classes - 1).ok_or("it has too many classes")? / 2;
        if (classes - 1).checked_mul(total).is_none_or(|count| coefficients.len() < count) {
            return Err(format!("it has {} coefficients for {total} vectors of {classes} classes", coefficients.len()));
        }
        let (a, b) = (node.floats("prob_a").unwrap_or_default(), node.floats("prob_b").unwrap_or_default());
        if rho.len() < pairs || a.len() != b.len() || (!a.is_empty() && a.len() < pairs) {
            return Err(format!("its rho, prob_a or prob_b are not for {pairs} pairs of classes"));
        }
        let mut next = 0;
        let ranges = sizes.iter().map(|size| {
            next += size;
            next - size..next
        });
        Ok(Self {
            ranges: ranges.collect(),
            support: Support::new(
                node,
                Kernel::of_node(node)?,
                &node.floats("support_vectors").unwrap_or_default(),
                total,
            )?,
            coefficients,
            rho,
            sigmoids: (!a.is_empty()).then_some((a, b)),
        })
    }

    fn classes(&self) -> usize {
        self.ranges.len()
    }

    fn pairs(&self) -> usize {
        self.classes() * (self.classes() - 1) / 2
    }

    /// Scores of a row: of the classes if they are probabilities, else of the pairs; two when there are two classes.
    fn columns(&self) -> usize {
        if self.sigmoids.is_some() { self.classes() } else { self.pairs().max(2) }
    }

    /// Cost of a row in ops. A score is a sum in float64, which does not vectorize.
    fn ops(&self, transform: Transform) -> u64 {
        let scores = cost(&[self.support.count, self.classes() - 1, 16]);
        let coupling = match self.sigmoids {
            Some(_) => cost(&[self.classes(), self.classes(), ROUNDS, 8]),
            None => 0,
        };
        let outputs = (self.columns() as u64).saturating_mul(4 + transform.ops());
        self.support.ops().saturating_add(scores).saturating_add(coupling).saturating_add(outputs)
    }

    /// Adds the scores of the pairs, and one vote for the winner of each. `kernels` are those of all vectors.
    fn score(&self, kernels: &[f32], scores: &mut Vec<f32>, votes: &mut [u32]) {
        let dot = |row: usize, range: &Range<usize>, sum: f64| {
            let row = &self.coefficients[row * self.support.count..];
            let products = row[range.clone()].iter().zip(&kernels[range.clone()]).map(|(x, y)| f64::from(x * y));
            products.fold(sum, |sum, product| sum + product)
        };
        let mut rho = self.rho.iter();
        for (i, first) in self.ranges.iter().enumerate() {
            for (j, second) in self.ranges.iter().enumerate().skip(i + 1) {
                let sum = dot(i, second, dot(j - 1, first, 0.0));
                let sum = sum + rho.next().copied().map_or(0.0, f64::from);
                scores.push(sum as f32);
                votes[if sum > 0.0 { i } else { j }] += 1;
            }
        }
    }

    /// From scores of pairs to the outputs of a row.
    fn finish(&self, scores: &[f32], transform: Transform, out: &mut Vec<f32>) {
        if let Some((a, b)) = &self.sigmoids {
            let mut probabilities = couple(scores, a, b, self.classes());
            transform.apply(&mut probabilities);
            out.extend(probabilities);
        } else if let [score] = scores {
            let opposite = transform == Transform::None;
            out.extend(transform.pair(*score, |x| if opposite { -x } else { 1.0 - x }));
        } else {
            let start = out.len();
            out.extend_from_slice(scores);
            transform.apply(&mut out[start..]);
        }
    }

    fn classifier(self, labels: Labels, transform: Transform) -> Result<Eval, String> {
        eval(move |cx, inputs| {
            check_number(inputs.dtype(0)?)?;
            let rows = self.support.rows(inputs)?;
            let ops = (rows as u64).saturating_mul(self.ops(transform));
            cx.scratch(self.support.scratch())?;
            classified(cx, inputs, &labels, (rows, self.columns()), ops, || {
                let (mut picked, mut out) = (Vec::with_capacity(rows), Vec::with_capacity(rows * self.columns()));
                let (mut scores, mut votes) = (Vec::with_capacity(self.pairs()), vec![0; self.classes()]);
                self.support.each_row(&singles(inputs, 0)?.values::<f32>(), |kernels| {
                    scores.clear();
                    votes.fill(0);
                    self.score(kernels, &mut scores, &mut votes);
                    picked.push(most_votes(&votes));
                    self.finish(&scores, transform, &mut out);
                });
                Ok((picked, out))
            })
        })
    }
}

/// The first class with the most votes.
fn most_votes(votes: &[u32]) -> usize {
    let most = votes.iter().max();
    votes.iter().position(|count| Some(count) == most).unwrap_or(0)
}

/// Probabilities of classes from the scores of their pairs: Wu, Lin and Weng's second method, as libsvm does it.
fn couple(scores: &[f32], a: &[f32], b: &[f32], classes: usize) -> Vec<f32> {
    let k = classes;
    let mut r = vec![0.0f32; k * k];
    let mut pairs = scores.iter().zip(a.iter().zip(b));
    for i in 0..k {
        for j in i + 1..k {
            let Some((score, (a, b))) = pairs.next() else { break };
            let p = 1.0 - logistic(score * a + b);
            let p = if p < 1.0e-7 { 1.0e-7 } else { p };
            let p = if p > 1.0 - 1.0e-7 { 1.0 - 1.0e-7 } else { p };
            (r[i * k + j], r[j * k + i]) = (p, 1.0 - p);
        }
    }
    let mut q = vec![0.0f32; k * k];
    for i in 0..k {
        for j in 0..k {
            if j != i {
                q[i * k + i] += r[j * k + i] * r[j * k + i];
                q[i * k + j] = if j < i { q[j * k + i] } else { -r[j * k + i] * r[i * k + j] };
            }
        }
    }
    solve(&q, k)
}

/// Minimizes pᵀQp over the probabilities, by turns.
fn solve(q: &[f32], k: usize) -> Vec<f32> {
    let mut p = vec![1.0 / k as f32; k];
    let mut qp = vec![0.0f32; k];
    let enough = 0.005 / k as f32;
    for _ in 0..ROUNDS {
        let mut pqp = 0.0f32;
        for (i, row) in q.chunks_exact(k).enumerate() {
            qp[i] = row.iter().zip(&p).fold(0.0, |sum, (x, y)| sum + x * y);
            pqp += p[i] * qp[i];
        }
        let error = qp.iter().map(|x| (x - pqp).abs()).fold(0.0, |max, error| if error > max { error } else { max });
        if error < enough {
            break;
        }
        for (i, row) in q.chunks_exact(k).enumerate() {
            let diff = (-qp[i] + pqp) / row[i];
            p[i] += diff;
            pqp = (pqp + diff * (diff * row[i] + 2.0 * qp[i])) / (1.0 + diff) / (1.0 + diff);
            for j in 0..k {
                qp[j] = (qp[j] + diff * row[j]) / (1.0 + diff);
                p[j] /= 1.0 + diff;
            }
        }
    }
    p
}

/// Without support vectors the model is linear. onnxruntime does not apply `post_transform`, so that others than NONE are
/// refused.
fn regressor(node: &Node<'_>) -> Result<Eval, String> {
    if Transform::of_name(&node.text("post_transform", "NONE")?)? != Transform::None {
        return Err("a post_transform is not supported here".into());
    }
    let coefficients = node.floats("coefficients").unwrap_or_default();
    let rho = *node.floats("rho").unwrap_or_default().first().ok_or("it needs rho")?;
    let one_class = node.flag("one_class", false);
    let count = usize::try_from(node.int("n_supports", 0)).map_err(|_| "its n_supports is negative".to_owned())?;
    // A linear model is one support vector with the coefficient 1.
    let (support, coefficients) = if count == 0 {
        (Support::new(node, Kernel::Linear, &coefficients, 1)?, vec![1.0])
    } else {
        let vectors = node.floats("support_vectors").unwrap_or_default();
        (Support::new(node, Kernel::of_node(node)?, &vectors, count)?, coefficients)
    };
    if coefficients.len() != support.count {
        return Err(format!("it has {} coefficients for {count} vectors", coefficients.len()));
    }
    single(move |cx, inputs| {
        check_number(inputs.dtype(0)?)?;
        let rows = support.rows(inputs)?;
        let row = support.ops().saturating_add((support.count as u64).saturating_mul(16));
        cx.scratch(support.scratch())?;
        cx.emit::<f32>(inputs, DType::Float32, vec![rows, 1], row.saturating_mul(rows as u64), || {
            let mut out = Vec::with_capacity(rows);
            support.each_row(&singles(inputs, 0)?.values::<f32>(), |kernels| {
                let score = kernels.iter().zip(&coefficients).fold(0.0, |sum, (x, y)| sum + x * y) + rho;
                out.push(match one_class {
                    false => score,
                    true if score > 0.0 => 1.0,
                    true => -1.0,
                });
            });
            Ok(out)
        })
    })
}
