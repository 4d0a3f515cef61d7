//! `TreeEnsemble` (operator set 5): nodes and leaves in columns of their own, and sets as conditions.
//!
//! Its numbers of `post_transform` are those of the specification (1 is SOFTMAX, 2 is LOGISTIC); onnxruntime 1.32 takes
//! these two for each other.

use half::f16;

use super::{
    Parse,
    forest::{Aggregate, Branch, Child, Mode, Plan},
    post::Transform,
    single,
    trees::{Reals, Trees, finish, scratch, transform_rows},
};
use crate::{
    DType,
    engine::{array::Array, cx::Stop, numeric::convert, program::Eval},
    onnx::Node,
};

pub(super) fn find(name: &str) -> Option<Parse> {
    (name == "TreeEnsemble").then_some(|node, _| ensemble(node))
}

/// The inner nodes of all trees.
struct Columns {
    modes: Vec<Mode>,
    splits: Reals,
    features: Vec<i64>,
    missing: Vec<i64>,
    yes: Vec<i64>,
    yes_is_leaf: Vec<i64>,
    no: Vec<i64>,
    no_is_leaf: Vec<i64>,
}

impl Columns {
    fn of_node(node: &Node<'_>) -> Result<Self, String> {
        let ints = |name: &str| node.ints(name).unwrap_or_default();
        let modes = node.tensor("nodes_modes")?.ok_or("it needs nodes_modes")?;
        if modes.dtype() != DType::Uint8 {
            return Err("its nodes_modes must be uint8".into());
        }
        let mode = |number: &u8| Mode::of_number(*number).ok_or_else(|| format!("there is no mode {number}"));
        let columns = Self {
            modes: modes.values::<u8>().iter().map(mode).collect::<Result<_, _>>()?,
            splits: Reals::of_tensor(node, "nodes_splits")?,
            features: ints("nodes_featureids"),
            missing: ints("nodes_missing_value_tracks_true"),
            yes: ints("nodes_truenodeids"),
            yes_is_leaf: ints("nodes_trueleafs"),
            no: ints("nodes_falsenodeids"),
            no_is_leaf: ints("nodes_falseleafs"),
        };
        let count = columns.modes.len();
        let lengths = [
            columns.splits.values.len(),
            columns.features.len(),
            columns.yes.len(),
            columns.yes_is_leaf.len(),
            columns.no.len(),
            columns.no_is_leaf.len(),
        ];
        if lengths.iter().any(|length| *length != count)
            || !(columns.missing.is_empty() || columns.missing.len() == count)
        {
            return Err("its attributes nodes_* have different lengths".into());
        }
        Ok(columns)
    }

    fn child(ids: &[i64], leaf: &[i64], index: usize) -> Result<Child, String> {
        let id = usize::try_from(ids[index]).map_err(|_| "a child is negative".to_owned())?;
        Ok(if leaf[index] != 0 { Child::Leaf(id) } else { Child::Node(id) })
    }

    fn branch(&self, index: usize, sets: &mut Sets) -> Result<Branch, String> {
        let mode = self.modes[index];
        let split = if mode == Mode::Member { sets.next()? } else { self.splits.values[index] };
        Ok(Branch {
            mode,
            split,
            feature: self.features[index],
            missing: self.missing.get(index) == Some(&1),
            yes: Self::child(&self.yes, &self.yes_is_leaf, index)?,
            no: Self::child(&self.no, &self.no_is_leaf, index)?,
        })
    }

    /// A root both of whose children are one leaf is that leaf.
    fn root(&self, id: i64, branches: &[Branch]) -> Result<Child, String> {
        let index = usize::try_from(id).ok().filter(|index| *index < branches.len());
        let index = index.ok_or_else(|| format!("there is no root {id}"))?;
        match (branches[index].yes, branches[index].no) {
            (Child::Leaf(yes), Child::Leaf(no)) if yes == no => Ok(Child::Leaf(yes)),
            _ => Ok(Child::Node(index)),
        }
    }
}

/// The sets of the nodes with the mode BRANCH_MEMBER, in the order of the nodes, each ended by NaN.
struct Sets {
    members: std::vec::IntoIter<f64>,
    sets: Vec<Vec<f64>>,
}

impl Sets {
    /// Reads the next set and gives its index.
    fn next(&mut self) -> Result<f64, String> {
        let mut set = Vec::new();
        loop {
            match self.members.next() {
                Some(member) if member.is_nan() => break,
                Some(member) => set.push(member),
                // The last one may end with the list.
                None if set.is_empty() => return Err("its membership_values are fewer than its sets".into()),
                None => break,
            }
        }
        set.sort_by(f64::total_cmp);
        self.sets.push(set);
        Ok((self.sets.len() - 1) as f64)
    }
}

fn plan(node: &Node<'_>, targets: usize) -> Result<(Plan, bool), String> {
    let columns = Columns::of_node(node)?;
    let weights = Reals::of_tensor(node, "leaf_weights")?;
    let members = Reals::of_tensor(node, "membership_values")?;
    let targets_of = node.ints("leaf_targetids").unwrap_or_default();
    if targets_of.len() != weights.values.len() || targets_of.len() >= 1 << 31 {
        return Err("its attributes leaf_* have different lengths".into());
    }
    let mut sets = Sets { members: members.values.into_iter(), sets: Vec::new() };
    let branches =
        (0..columns.modes.len()).map(|index| columns.branch(index, &mut sets)).collect::<Result<Vec<_>, _>>()?;
    let roots = node.ints("tree_roots").unwrap_or_default();
    let target = |target: &i64| {
        let index = u32::try_from(*target).ok().filter(|index| (*index as usize) < targets);
        index.ok_or_else(|| format!("there is no target {target}"))
    };
    let targets_of = targets_of.iter().map(target).collect::<Result<Vec<_>, _>>()?;
    let double = columns.splits.double || weights.double || members.double;
    let plan = Plan {
        roots: roots.iter().map(|id| columns.root(*id, &branches)).collect::<Result<_, _>>()?,
        branches,
        leaves: (0..=targets_of.len() as u32).collect(),
        weights: targets_of.into_iter().zip(weights.values).collect(),
        sets: sets.sets,
    };
    Ok((plan, double))
}

fn ensemble(node: &Node<'_>) -> Result<Eval, String> {
    let targets = usize::try_from(node.int("n_targets", 0)).ok().filter(|targets| *targets > 0);
    let targets = targets.ok_or("it needs n_targets")?;
    let aggregate = match node.int("aggregate_function", 1) {
        0 => Aggregate::Average,
        1 => Aggregate::Sum,
        2 => Aggregate::Min,
        3 => Aggregate::Max,
        other => return Err(format!("there is no aggregate_function {other}")),
    };
    let transform = match node.int("post_transform", 0) {
        0 => Transform::None,
        1 => Transform::Softmax,
        2 => Transform::Logistic,
        3 => Transform::SoftmaxZero,
        4 => Transform::Probit,
        other => return Err(format!("there is no post_transform {other}")),
    };
    let (plan, double) = plan(node, targets)?;
    let trees = Trees::new(&plan, double)?;
    single(move |cx, inputs| {
        let dtype = inputs.dtype(0)?;
        if !matches!(dtype, DType::Float16 | DType::Float32 | DType::Float64) {
            return Err(Stop::unsupported(dtype));
        }
        let ((rows, width), threads) = (trees.rows(inputs)?, cx.threads);
        let ops = trees.ops(cx, inputs, targets, transform)?;
        scratch(cx, rows, targets, trees.is_double(dtype))?;
        cx.emit_with(inputs, dtype, vec![rows, targets], ops, |shape| {
            if trees.is_double(dtype) {
                let (mut scores, _) = trees.scores::<f64>(inputs, width, targets, aggregate, threads)?;
                finish(&mut scores, &[], targets, trees.trees(), aggregate);
                transform_rows(&mut scores, targets, transform);
                return Ok(match dtype {
                    DType::Float64 => Array::new(dtype, shape, scores),
                    DType::Float32 => Array::new(dtype, shape, scores.into_iter().map(|x| x as f32).collect()),
                    _ => Array::new(dtype, shape, scores.into_iter().map(convert::<f16>).collect()),
                });
            }
            let (mut scores, _) = trees.scores::<f32>(inputs, width, targets, aggregate, threads)?;
            finish(&mut scores, &[], targets, trees.trees(), aggregate);
            transform_rows(&mut scores, targets, transform);
            Ok(match dtype {
                DType::Float32 => Array::new(dtype, shape, scores),
                _ => Array::new(dtype, shape, scores.into_iter().map(f16::from_f32).collect()),
            })
        })
    })
}
