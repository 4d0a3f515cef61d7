//! `TreeEnsembleClassifier` and `TreeEnsembleRegressor` (operator sets 1 and 3; 5 deprecates them for `TreeEnsemble`).
//!
//! Scores are sums in the order of the trees: in float32, or in float64 when the input or one of the `*_as_tensor`
//! attributes is. Then follow `base_values` and `post_transform`, in float32, as onnxruntime does it
//! (`tree_ensemble_aggregator.h`), with two differences: a target that no leaf has a weight for keeps its base value (as
//! the specification says; onnxruntime gives zero), and a leaf with several weights for one only target adds them all
//! (onnxruntime takes the first).

use std::collections::{HashMap, HashSet, hash_map::Entry};

use super::{
    Labels, Parse, check_number, classified, eval,
    forest::{Aggregate, Branch, Child, Forest, Mode, Plan},
    matrix,
    post::Transform,
    single,
};
use crate::{
    DType,
    engine::{
        cx::{Cx, Inputs, Stop},
        elements::Element,
        numeric::{Wide, cast},
        program::Eval,
    },
    onnx::Node,
};

pub(super) fn find(name: &str) -> Option<Parse> {
    Some(match name {
        "TreeEnsembleClassifier" => |node, _| classifier(node),
        "TreeEnsembleRegressor" => |node, _| regressor(node),
        _ => return None,
    })
}

/// Numbers of an attribute or of its `_as_tensor` twin.
#[derive(Debug, Default)]
pub(super) struct Reals {
    pub(super) values: Vec<f64>,
    /// They are float64.
    pub(super) double: bool,
}

impl Reals {
    /// Those of a tensor attribute, which may be missing.
    pub(super) fn of_tensor(node: &Node<'_>, name: &str) -> Result<Self, String> {
        let Some(tensor) = node.tensor(name)? else { return Ok(Self::default()) };
        match tensor.dtype() {
            dtype @ (DType::Float32 | DType::Float64 | DType::Float16) => {
                Ok(Self { values: tensor.to_doubles().unwrap_or_default(), double: dtype == DType::Float64 })
            }
            other => Err(format!("its {name} must be float, not {}", other.name())),
        }
    }

    fn of_node(node: &Node<'_>, name: &str) -> Result<Self, String> {
        let floats = node.floats(name).unwrap_or_default();
        let tensor = Self::of_tensor(node, &format!("{name}_as_tensor"))?;
        match (floats.is_empty(), tensor.values.is_empty()) {
            (_, true) => Ok(Self { values: floats.into_iter().map(f64::from).collect(), double: false }),
            (true, false) => Ok(tensor),
            (false, false) => Err(format!("it has {name} twice")),
        }
    }
}

/// Cost of an element of the input that is of another type than the sums.
const CONVERTED_OPS: u64 = 60;

/// An ensemble in the precision that the model has.
#[derive(Debug)]
pub(super) enum Trees {
    Single(Forest<f32>),
    Double(Forest<f64>),
}

impl Trees {
    pub(super) fn new(plan: &Plan, double: bool) -> Result<Self, String> {
        Ok(if double { Self::Double(Forest::new(plan)?) } else { Self::Single(Forest::new(plan)?) })
    }

    pub(super) fn features(&self) -> usize {
        match self {
            Self::Single(forest) => forest.features(),
            Self::Double(forest) => forest.features(),
        }
    }

    pub(super) fn trees(&self) -> usize {
        match self {
            Self::Single(forest) => forest.trees(),
            Self::Double(forest) => forest.trees(),
        }
    }

    /// Rows and columns of the input, which must have the features that the trees ask for.
    pub(super) fn rows(&self, inputs: &Inputs<'_>) -> Result<(usize, usize), Stop> {
        let (rows, width) = matrix(inputs, 0)?;
        if width < self.features().max(1) {
            return Err(Stop::invalid(format!("its trees need {} features, not {width}", self.features())));
        }
        Ok((rows, width))
    }

    /// Cost of rows with `targets` scores each; admits what the input takes if it is converted.
    pub(super) fn ops(
        &self,
        cx: &mut Cx<'_>,
        inputs: &Inputs<'_>,
        targets: usize,
        transform: Transform,
    ) -> Result<u64, Stop> {
        let (rows, dtype, elements) = (self.rows(inputs)?.0, inputs.dtype(0)?, inputs.count(0)?);
        let summed = if self.is_double(dtype) { DType::Float64 } else { DType::Float32 };
        let converted = if dtype == summed { 0 } else { elements };
        cx.scratch(converted.saturating_mul(8))?;
        let row = match self {
            Self::Single(forest) => forest.ops(),
            Self::Double(forest) => forest.ops(),
        };
        let row = row.saturating_add((targets as u64).saturating_mul(4 + transform.ops()));
        Ok((rows as u64).saturating_mul(row).saturating_add(converted.saturating_mul(CONVERTED_OPS)))
    }

    /// Whether sums are float64 for such an input.
    pub(super) fn is_double(&self, input: DType) -> bool {
        matches!(self, Self::Double(_)) || input == DType::Float64
    }

    /// See [`Forest::scores`]; `A` is f64 if and only if [`Self::is_double`].
    pub(super) fn scores<A: Wide + Element + From<f32> + Sum>(
        &self,
        inputs: &Inputs<'_>,
        width: usize,
        targets: usize,
        aggregate: Aggregate,
        threads: usize,
    ) -> Result<(Vec<A>, Vec<bool>), Stop> {
        let rows = cast(inputs.read(0)?, A::DTYPE).contiguous();
        let rows = rows.values::<A>();
        Ok(match self {
            Self::Single(forest) => forest.scores(&rows, width, targets, aggregate, threads),
            Self::Double(forest) => A::doubles(forest, &rows, width, targets, aggregate, threads),
        })
    }
}

/// The types that scores are added up in.
pub(super) trait Sum: Sized {
    const DTYPE: DType;
    /// The scores of a forest whose thresholds are float64.
    fn doubles(
        forest: &Forest<f64>,
        rows: &[Self],
        width: usize,
        targets: usize,
        aggregate: Aggregate,
        threads: usize,
    ) -> (Vec<Self>, Vec<bool>);
}

impl Sum for f32 {
    const DTYPE: DType = DType::Float32;
    // Not reached: such a forest sums in float64.
    fn doubles(_: &Forest<f64>, _: &[f32], _: usize, _: usize, _: Aggregate, _: usize) -> (Vec<f32>, Vec<bool>) {
        (vec![], vec![])
    }
}

impl Sum for f64 {
    const DTYPE: DType = DType::Float64;
    fn doubles(
        forest: &Forest<f64>,
        rows: &[f64],
        width: usize,
        targets: usize,
        aggregate: Aggregate,
        threads: usize,
    ) -> (Vec<f64>, Vec<bool>) {
        forest.scores(rows, width, targets, aggregate, threads)
    }
}

/// Adds the base values to the scores of an aggregate.
pub(super) fn finish<A: Wide>(scores: &mut [A], base: &[f64], targets: usize, trees: usize, aggregate: Aggregate) {
    let trees = A::from_f64(trees as f64);
    for row in scores.chunks_exact_mut(targets.max(1)) {
        for (target, score) in row.iter_mut().enumerate() {
            if aggregate == Aggregate::Average {
                *score = score.over(trees);
            }
            if let Some(base) = base.get(target) {
                *score = score.plus(A::from_f64(*base));
            }
        }
    }
}

/// Transforms each row; a row of one score changes by PROBIT only, as in onnxruntime.
pub(super) fn transform_rows<W: Wide>(scores: &mut [W], targets: usize, transform: Transform) {
    for row in scores.chunks_exact_mut(targets.max(1)) {
        match row {
            [score] => *score = transform.apply_single(*score),
            row => transform.apply(row),
        }
    }
}

/// What both operators read from their attributes.
struct Common {
    trees: Trees,
    base: Vec<f64>,
    transform: Transform,
    aggregate: Aggregate,
    /// Targets and weights of all leaves.
    weights: Vec<(u32, f64)>,
}

fn aggregate_of_name(name: &str) -> Result<Aggregate, String> {
    Ok(match name {
        "SUM" => Aggregate::Sum,
        "AVERAGE" => Aggregate::Average,
        "MIN" => Aggregate::Min,
        "MAX" => Aggregate::Max,
        other => return Err(format!("there is no aggregate_function `{other}`")),
    })
}

fn mode_of_name(name: &str) -> Result<Option<Mode>, String> {
    Ok(Some(match name {
        "LEAF" => return Ok(None),
        "BRANCH_LEQ" => Mode::LessOrEqual,
        "BRANCH_LT" => Mode::Less,
        "BRANCH_GTE" => Mode::GreaterOrEqual,
        "BRANCH_GT" => Mode::Greater,
        "BRANCH_EQ" => Mode::Equal,
        "BRANCH_NEQ" => Mode::NotEqual,
        other => return Err(format!("there is no mode `{other}`")),
    }))
}

/// What nodes have become, by tree and id.
type Children = HashMap<(i64, i64), Child>;

/// The columns that describe the nodes, all of one length.
struct Columns {
    trees: Vec<i64>,
    ids: Vec<i64>,
    features: Vec<i64>,
    modes: Vec<Option<Mode>>,
    splits: Reals,
    yes: Vec<i64>,
    no: Vec<i64>,
    missing: Vec<i64>,
}

impl Columns {
    fn of_node(node: &Node<'_>) -> Result<Self, String> {
        let ints = |name: &str| node.ints(name).unwrap_or_default();
        let modes = node.texts("nodes_modes")?.unwrap_or_default();
        let columns = Self {
            trees: ints("nodes_treeids"),
            ids: ints("nodes_nodeids"),
            features: ints("nodes_featureids"),
            modes: modes.iter().map(|mode| mode_of_name(mode)).collect::<Result<_, _>>()?,
            splits: Reals::of_node(node, "nodes_values")?,
            yes: ints("nodes_truenodeids"),
            no: ints("nodes_falsenodeids"),
            missing: ints("nodes_missing_value_tracks_true"),
        };
        let count = columns.trees.len();
        let lengths = [
            columns.ids.len(),
            columns.features.len(),
            columns.modes.len(),
            columns.splits.values.len(),
            columns.yes.len(),
            columns.no.len(),
        ];
        if count == 0 || lengths.iter().any(|length| *length != count) || columns.missing.len() > count {
            return Err("its attributes nodes_* have different lengths, or none".into());
        }
        Ok(columns)
    }

    /// The branches and, for each node, what it has become. The first node of a tree is its root.
    fn plan(&self) -> Result<(Plan, Children), String> {
        let mut children = HashMap::with_capacity(self.trees.len());
        let (mut branches, mut leaves) = (0, 0);
        let mut plan = Plan::default();
        let mut known = HashSet::new();
        for (index, key) in self.keys().enumerate() {
            let next = if self.modes[index].is_some() { &mut branches } else { &mut leaves };
            let child = if self.modes[index].is_some() { Child::Node(*next) } else { Child::Leaf(*next) };
            *next += 1;
            match children.entry(key) {
                Entry::Occupied(_) => return Err(format!("node {} of tree {} is there twice", key.1, key.0)),
                Entry::Vacant(entry) => entry.insert(child),
            };
            if known.insert(key.0) {
                plan.roots.push(child);
            }
        }
        for (index, (tree, _)) in self.keys().enumerate() {
            let Some(mode) = self.modes[index] else { continue };
            let find = |id: i64| {
                let child = children.get(&(tree, id)).copied();
                child.ok_or_else(|| format!("tree {tree} has no node {id}"))
            };
            plan.branches.push(Branch {
                mode,
                split: self.splits.values[index],
                feature: self.features[index],
                missing: self.missing.get(index) == Some(&1),
                yes: find(self.yes[index])?,
                no: find(self.no[index])?,
            });
        }
        plan.leaves = vec![0; leaves + 1];
        Ok((plan, children))
    }

    /// Tree and id of each node.
    fn keys(&self) -> impl Iterator<Item = (i64, i64)> {
        self.trees.iter().copied().zip(self.ids.iter().copied())
    }
}

impl Common {
    /// `kind` is `target` or `class`, `targets` how many of them there are.
    fn of_node(node: &Node<'_>, kind: &str, targets: usize) -> Result<Self, String> {
        let columns = Columns::of_node(node)?;
        let base = Reals::of_node(node, "base_values")?;
        let weights = Reals::of_node(node, &format!("{kind}_weights"))?;
        let ints = |name: &str| node.ints(&format!("{kind}_{name}")).unwrap_or_default();
        let (trees, ids, targets_of) = (ints("treeids"), ints("nodeids"), ints("ids"));
        let count = weights.values.len();
        if [trees.len(), ids.len(), targets_of.len()].iter().any(|length| *length != count) || count >= 1 << 31 {
            return Err(format!("its attributes {kind}_* have different lengths"));
        }
        let (mut plan, children) = columns.plan()?;
        // By leaf, in the order of the file; weights of nodes that are no leaves are ignored, as old converters write them.
        let mut sorted = Vec::with_capacity(count);
        for index in 0..count {
            let child = children.get(&(trees[index], ids[index])).copied();
            let child = child.ok_or_else(|| format!("tree {} has no node {}", trees[index], ids[index]))?;
            let target = usize::try_from(targets_of[index]).ok().filter(|target| *target < targets);
            let target = target.and_then(|target| u32::try_from(target).ok());
            let target = target.ok_or_else(|| format!("there is no {kind} {}", targets_of[index]))?;
            if let Child::Leaf(leaf) = child {
                sorted.push((leaf, target, weights.values[index]));
            }
        }
        sorted.sort_by_key(|(leaf, ..)| *leaf);
        sorted.iter().for_each(|(leaf, ..)| plan.leaves[leaf + 1] += 1);
        for leaf in 1..plan.leaves.len() {
            plan.leaves[leaf] += plan.leaves[leaf - 1];
        }
        plan.weights = sorted.into_iter().map(|(_, target, weight)| (target, weight)).collect();
        Ok(Self {
            trees: Trees::new(&plan, columns.splits.double || base.double || weights.double)?,
            base: base.values,
            transform: Transform::of_name(&node.text("post_transform", "NONE")?)?,
            aggregate: aggregate_of_name(&node.text("aggregate_function", "SUM")?)?,
            weights: plan.weights,
        })
    }
}

fn regressor(node: &Node<'_>) -> Result<Eval, String> {
    let targets = usize::try_from(node.int("n_targets", 0)).ok().filter(|targets| *targets > 0);
    let targets = targets.ok_or("it needs n_targets")?;
    let Common { trees, base, transform, aggregate, weights: _ } = Common::of_node(node, "target", targets)?;
    if !(base.is_empty() || base.len() == targets) {
        return Err(format!("it has {} base_values for {targets} targets", base.len()));
    }
    single(move |cx, inputs| {
        let dtype = inputs.dtype(0)?;
        check_number(dtype)?;
        let ((rows, width), threads) = (trees.rows(inputs)?, cx.threads);
        let ops = trees.ops(cx, inputs, targets, transform)?;
        let double = trees.is_double(dtype);
        scratch(cx, rows, targets, double)?;
        cx.emit::<f32>(inputs, DType::Float32, vec![rows, targets], ops, || {
            let mut scores = if double {
                let (mut scores, _) = trees.scores::<f64>(inputs, width, targets, aggregate, threads)?;
                finish(&mut scores, &base, targets, trees.trees(), aggregate);
                scores.into_iter().map(|x| x as f32).collect()
            } else {
                let (mut scores, _) = trees.scores::<f32>(inputs, width, targets, aggregate, threads)?;
                finish(&mut scores, &base, targets, trees.trees(), aggregate);
                scores
            };
            transform_rows(&mut scores, targets, transform);
            Ok(scores)
        })
    })
}

/// Memory of the sums and of what says whether there are any.
pub(super) fn scratch(cx: &mut Cx<'_>, rows: usize, targets: usize, double: bool) -> Result<(), Stop> {
    let each: usize = if double { 9 } else { 5 };
    cx.scratch(super::cost(&[rows, targets, each]))
}

/// How a classifier turns sums into scores and labels.
#[derive(Debug)]
struct Classes {
    base: Vec<f64>,
    transform: Transform,
    /// There are two classes, and all weights are for one of them.
    binary: bool,
    /// No weight is negative: the score of a binary ensemble is a probability.
    positive: bool,
}

impl Classes {
    /// The scores of a row, and the position of its label.
    fn finish<A: Wide>(&self, sums: &mut [A], reached: &mut [bool], out: &mut [f32]) -> usize {
        match (sums, reached) {
            ([sum], _) => {
                let score = self.base.first().map_or(*sum, |base| sum.plus(A::from_f64(*base)));
                out.iter_mut().for_each(|out| *out = self.transform.apply_single(score.to_f64() as f32));
                usize::from(score > A::ZERO)
            }
            ([first, second], [has_first, has_second]) => self.two((*first, *has_first), (*second, *has_second), out),
            (sums, reached) => self.many(sums, reached, out),
        }
    }

    /// Without weights for the second class, the first sum is the score of the positive class. The peculiar cases (base
    /// values that count only if the second class has a weight, …) are onnxruntime's `FinalizeScores`.
    fn two<A: Wide>(&self, first: (A, bool), second: (A, bool), out: &mut [f32]) -> usize {
        let ((mut first, has_first), (mut second, has_second)) = (first, second);
        let base = |index: usize| self.base.get(index).map_or(A::ZERO, |base| A::from_f64(*base));
        let only = match self.base.len() {
            0 => !has_second,
            1 => {
                first = first.plus(base(0));
                !has_second
            }
            _ if has_second => {
                second = base(1).plus(first);
                first = second.negated();
                false
            }
            _ => {
                second = second.plus(base(1));
                first = first.plus(base(0));
                false
            }
        };
        let shown = |score: A, has: bool| if has { score } else { A::ZERO };
        let decisive = if has_second && !only { second } else { shown(first, has_first) };
        let threshold = if self.binary && self.positive { A::from_f64(0.5) } else { A::ZERO };
        let scores = if only {
            let score = shown(first, has_first);
            if self.binary || self.base.is_empty() {
                let probability = self.binary && self.positive;
                self.both(score, probability)
            } else {
                [self.transform.apply_single(score.to_f64() as f32), 0.0]
            }
        } else {
            let mut scores = [shown(first, has_first), shown(second, has_second)].map(|x| x.to_f64() as f32);
            self.transform.apply(&mut scores);
            scores
        };
        out.iter_mut().zip(scores).for_each(|(out, score)| *out = score);
        usize::from(decisive > threshold)
    }

    /// The scores of both classes from one: its complement is 1 − p where it is a probability, else −s. A probability
    /// with another transformation than PROBIT stays as it is.
    fn both<A: Wide>(&self, score: A, probability: bool) -> [f32; 2] {
        let complement = if probability { A::ONE.minus(score) } else { score.negated() };
        let complement = complement.to_f64() as f32;
        self.transform.pair(score.to_f64() as f32, |_| complement)
    }

    /// A class that no leaf has a weight for cannot be chosen, unless there are base values.
    fn many<A: Wide>(&self, sums: &mut [A], reached: &mut [bool], out: &mut [f32]) -> usize {
        for ((sum, reached), base) in sums.iter_mut().zip(reached.iter_mut()).zip(&self.base) {
            *sum = sum.plus(A::from_f64(*base));
            *reached = true;
        }
        let mut best: Option<(usize, A)> = None;
        for (class, (sum, _)) in sums.iter().zip(reached).enumerate().filter(|(_, (_, reached))| **reached) {
            if best.is_none_or(|(_, greatest)| *sum > greatest) {
                best = Some((class, *sum));
            }
        }
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum.to_f64() as f32);
        self.transform.apply(out);
        best.map_or(0, |(class, _)| class)
    }

    fn finish_all<A: Wide>(
        &self,
        (mut sums, mut reached): (Vec<A>, Vec<bool>),
        classes: usize,
    ) -> (Vec<usize>, Vec<f32>) {
        let mut scores = vec![0.0; sums.len()];
        let rows = sums.chunks_exact_mut(classes).zip(reached.chunks_exact_mut(classes));
        let picked = rows
            .zip(scores.chunks_exact_mut(classes))
            .map(|((sums, reached), out)| self.finish(sums, reached, out))
            .collect();
        (picked, scores)
    }
}

fn classifier(node: &Node<'_>) -> Result<Eval, String> {
    let labels = Labels::of_node(node, "classlabels_int64s", "classlabels_strings")?;
    let count = labels.len();
    let Common { trees, base, transform, aggregate, weights } = Common::of_node(node, "class", count)?;
    if aggregate != Aggregate::Sum {
        return Err("a classifier sums".into());
    }
    let fits = match count {
        1 => base.len() <= 1,
        2 => base.len() <= 2,
        _ => base.is_empty() || base.len() == count,
    };
    if !fits {
        return Err(format!("it has {} base_values for {count} classes", base.len()));
    }
    let first = weights.first().map(|(class, _)| *class);
    let binary = count == 2 && first.is_some() && weights.iter().all(|(class, _)| Some(*class) == first);
    let positive = !weights.iter().any(|(_, weight)| *weight < 0.0);
    // With integer labels onnxruntime names the classes 1 and 0 unless the ensemble is binary; with texts it does not.
    let labels = match labels {
        Labels::Ints(_) if count == 1 || (count == 2 && !binary) => Labels::Ints(vec![0, 1]),
        Labels::Texts(_) if count == 1 => return Err("one text cannot name both classes".into()),
        labels => labels,
    };
    let classes = Classes { base, transform, binary, positive };
    eval(move |cx, inputs| {
        let dtype = inputs.dtype(0)?;
        check_number(dtype)?;
        let ((rows, width), threads) = (trees.rows(inputs)?, cx.threads);
        let ops = trees.ops(cx, inputs, count, transform)?;
        let double = trees.is_double(dtype);
        scratch(cx, rows, count, double)?;
        classified(cx, inputs, &labels, (rows, count), ops, || {
            Ok(if double {
                classes.finish_all(trees.scores::<f64>(inputs, width, count, aggregate, threads)?, count)
            } else {
                classes.finish_all(trees.scores::<f32>(inputs, width, count, aggregate, threads)?, count)
            })
        })
    })
}
