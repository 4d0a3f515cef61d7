//! Decision trees, laid out to be walked fast.
//!
//! The nodes of all trees lie in one vector, each tree's in the order in which they are met when the true branch goes
//! first; a node has 16 bytes (24 with float64 thresholds). Rows are taken [`BLOCK`] at a time: a block goes through the
//! first tree, then through the second, so that a tree stays in the cache; fewer rows than [`LANES`] go one after another
//! through [`LANES`] trees at a time. Either way the scores of a row are added up in the order of the trees.

use crate::engine::{numeric::Wide, threads::spread};

/// Deeper trees are refused.
const MAX_DEPTH: u32 = 10_000;
/// Rows that go through a tree together.
const BLOCK: usize = 64;
/// Steps that are taken by turns: the processor goes on with one while another waits for memory.
const LANES: usize = 8;
/// Cost of a weight that is added.
const WEIGHT_OPS: u64 = 40;
/// Cost of each halving of a set that is searched.
const MEMBER_OPS: u64 = 150;
/// Cost of one step down a tree: a comparison whose outcome cannot be foretold.
const STEP_OPS: u64 = 100;
/// The same where the nodes do not fit a core's cache.
const FAR_STEP_OPS: u64 = 400;
/// Nodes that do.
const NEAR_NODES: usize = 1 << 16;

/// Marks a child that is a leaf.
const LEAF: u32 = 1 << 31;
/// The bits of [`Node::feature`] that are the index; above them are `MISSING` and the mode.
const FEATURE: u32 = (1 << 27) - 1;
const MISSING: u32 = 1 << 27;

/// The comparison of a node: what the value is to the threshold when the true branch is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    LessOrEqual,
    Less,
    GreaterOrEqual,
    Greater,
    Equal,
    NotEqual,
    /// The value is in a set.
    Member,
}

impl Mode {
    const ALL: [Self; 7] =
        [Self::LessOrEqual, Self::Less, Self::GreaterOrEqual, Self::Greater, Self::Equal, Self::NotEqual, Self::Member];

    /// By the number that `TreeEnsemble` has for it.
    pub(super) fn of_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// A child of a node, or a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Child {
    Node(usize),
    Leaf(usize),
}

/// An inner node of a [`Plan`].
#[derive(Debug, Clone)]
pub(super) struct Branch {
    pub(super) mode: Mode,
    /// The threshold, or the index of a set.
    pub(super) split: f64,
    pub(super) feature: i64,
    /// NaN takes the true branch.
    pub(super) missing: bool,
    pub(super) yes: Child,
    pub(super) no: Child,
}

/// An ensemble as a file describes it.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) branches: Vec<Branch>,
    pub(super) roots: Vec<Child>,
    /// For each leaf its first weight; then the number of weights.
    pub(super) leaves: Vec<u32>,
    /// Targets and values.
    pub(super) weights: Vec<(u32, f64)>,
    /// Members of sets, sorted, without NaN.
    pub(super) sets: Vec<Vec<f64>>,
}

/// What becomes of the weights of the leaves that a row reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aggregate {
    Sum,
    Average,
    Min,
    Max,
}

#[derive(Debug, Clone, Copy)]
struct Node<S> {
    split: S,
    feature: u32,
    yes: u32,
    no: u32,
}

/// An ensemble with thresholds and weights of type `S`.
#[derive(Debug)]
pub(super) struct Forest<S> {
    nodes: Vec<Node<S>>,
    roots: Vec<u32>,
    leaves: Vec<u32>,
    weights: Vec<(u32, S)>,
    sets: Vec<Vec<f64>>,
    /// The mode of every node, if all have one, and whether NaN takes the true branch anywhere.
    uniform: Option<(Mode, bool)>,
    /// Features that a row must have.
    features: usize,
    /// The greatest number of steps that a row takes through all trees.
    steps: u64,
}

/// State of a branch while an ensemble is laid out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    No,
    /// The walk is below it.
    Open,
    Done,
}

/// Lays the branches of a plan out and checks that they are trees. Branches that no root leads to are left out; a branch
/// that two lead to is kept once.
struct Layout<'p> {
    plan: &'p Plan,
    seen: Vec<Seen>,
    /// By branch: its place and its depth.
    place: Vec<(u32, u32)>,
    /// The branches in their new order.
    order: Vec<usize>,
}

impl<'p> Layout<'p> {
    fn new(plan: &'p Plan) -> Self {
        let count = plan.branches.len();
        Self { plan, seen: vec![Seen::No; count], place: vec![(0, 0); count], order: Vec::new() }
    }

    /// A child in the new order, with its depth.
    fn code(&self, child: Child) -> Result<(u32, u32), String> {
        match child {
            Child::Leaf(leaf) if leaf + 1 < self.plan.leaves.len() => Ok((LEAF | leaf as u32, 0)),
            Child::Node(branch) => self.place.get(branch).copied().ok_or_else(|| "a node is missing".to_owned()),
            Child::Leaf(_) => Err("a leaf is missing".into()),
        }
    }

    /// Walks down from a root, without recursion: a file decides how deep it goes.
    fn add(&mut self, root: Child) -> Result<(), String> {
        let mut stack = vec![(root, false)];
        while let Some((child, leaving)) = stack.pop() {
            let Child::Node(index) = child else { continue };
            let branch = self.plan.branches.get(index).ok_or("a node is missing")?;
            if leaving {
                let depth = 1 + self.code(branch.yes)?.1.max(self.code(branch.no)?.1);
                if depth > MAX_DEPTH {
                    return Err(format!("a tree is deeper than {MAX_DEPTH}"));
                }
                self.seen[index] = Seen::Done;
                self.place[index].1 = depth;
                continue;
            }
            match self.seen[index] {
                Seen::Done => {}
                Seen::Open => return Err("a node is its own descendant".into()),
                Seen::No => {
                    self.seen[index] = Seen::Open;
                    self.place[index].0 = self.order.len() as u32;
                    self.order.push(index);
                    stack.extend([(child, true), (branch.no, false), (branch.yes, false)]);
                }
            }
        }
        Ok(())
    }
}

impl<S: Wide> Forest<S> {
    /// Lays an ensemble out.
    pub(super) fn new(plan: &Plan) -> Result<Self, String> {
        if plan.branches.len() >= LEAF as usize || plan.leaves.len() >= LEAF as usize {
            return Err("it has too many nodes".into());
        }
        if plan.sets.len() > 1 << 24 {
            return Err("it has too many sets".into()); // their indices are exact float32 numbers
        }
        let mut layout = Layout::new(plan);
        plan.roots.iter().try_for_each(|root| layout.add(*root))?;
        let roots = plan.roots.iter().map(|root| layout.code(*root)).collect::<Result<Vec<_>, _>>()?;
        let mut nodes = Vec::with_capacity(layout.order.len());
        let (mut features, mut modes, mut missing) = (0, [false; 7], false);
        for index in &layout.order {
            let branch = &plan.branches[*index];
            let feature = u32::try_from(branch.feature).ok().filter(|f| *f < FEATURE);
            let feature = feature.ok_or_else(|| format!("there is no feature {}", branch.feature))?;
            if branch.mode == Mode::Member && branch.split as usize >= plan.sets.len() {
                return Err("a set is missing".into());
            }
            features = features.max(feature as usize + 1);
            modes[branch.mode as usize] = true;
            missing |= branch.missing;
            let flags = (branch.mode as u32) << 28 | if branch.missing { MISSING } else { 0 };
            nodes.push(Node {
                split: S::from_f64(branch.split),
                feature: feature | flags,
                yes: layout.code(branch.yes)?.0,
                no: layout.code(branch.no)?.0,
            });
        }
        let mut used = Mode::ALL.into_iter().filter(|mode| modes[*mode as usize]);
        let uniform = match (used.next(), used.next()) {
            (Some(mode), None) => Some((mode, missing)),
            _ => None,
        };
        Ok(Self {
            nodes,
            steps: roots.iter().map(|(_, depth)| u64::from(*depth)).sum(),
            roots: roots.into_iter().map(|(code, _)| code).collect(),
            leaves: plan.leaves.clone(),
            weights: plan.weights.iter().map(|(target, value)| (*target, S::from_f64(*value))).collect(),
            sets: plan.sets.clone(),
            uniform,
            features,
        })
    }

    pub(super) fn features(&self) -> usize {
        self.features
    }

    pub(super) fn trees(&self) -> usize {
        self.roots.len()
    }

    /// Cost of one row in ops: as if it reached the deepest leaf of every tree.
    pub(super) fn ops(&self) -> u64 {
        let step = if self.nodes.len() > NEAR_NODES { FAR_STEP_OPS } else { STEP_OPS };
        let step =
            step.saturating_add(self.sets.iter().map(Vec::len).max().map_or(0, |most| MEMBER_OPS * halvings(most)));
        // The leaf with the most weights, of every tree.
        let weights = self.leaves.windows(2).map(|pair| u64::from(pair[1] - pair[0])).max().unwrap_or(0);
        let leaf = weights.saturating_mul(WEIGHT_OPS).saturating_add(16);
        self.steps.saturating_mul(step).saturating_add((self.trees() as u64).saturating_mul(leaf))
    }

    /// The scores of rows of `width` numbers, `targets` for each, and whether any leaf had a weight for them. `width` is
    /// at least [`Self::features`] and one, and the targets of all weights are less than `targets`.
    pub(super) fn scores<A: Wide + From<S>>(
        &self,
        rows: &[A],
        width: usize,
        targets: usize,
        aggregate: Aggregate,
        threads: usize,
    ) -> (Vec<A>, Vec<bool>) {
        let count = rows.len().checked_div(width).unwrap_or(0);
        let mut scores = vec![A::ZERO; count * targets];
        let mut reached = vec![false; count * targets];
        if count == 0 || targets == 0 {
            return (scores, reached);
        }
        let work = (count as u64).saturating_mul(self.steps);
        let threads = if work > 1 << 17 { threads.max(1) } else { 1 };
        // Each thread has rows of its own, and goes through all trees with them.
        let part = count.div_ceil(threads).next_multiple_of(BLOCK);
        let outputs = scores.chunks_mut(part * targets).zip(reached.chunks_mut(part * targets));
        spread(threads, rows.chunks(part * width).zip(outputs), |(rows, (scores, reached))| {
            let outputs = scores.chunks_mut(BLOCK * targets).zip(reached.chunks_mut(BLOCK * targets));
            for (block, (scores, reached)) in rows.chunks(BLOCK * width).zip(outputs) {
                self.block(block, width, targets, aggregate, scores, reached);
            }
        });
        (scores, reached)
    }

    /// Takes a block of rows through all trees: many rows through one tree at a time, few rows each through many trees.
    fn block<A: Wide + From<S>>(
        &self,
        rows: &[A],
        width: usize,
        targets: usize,
        aggregate: Aggregate,
        scores: &mut [A],
        reached: &mut [bool],
    ) {
        let mut at = [0u32; LANES];
        if scores.len() / targets < LANES {
            let slots = scores.chunks_exact_mut(targets).zip(reached.chunks_exact_mut(targets));
            for (row, (scores, reached)) in rows.chunks_exact(width).zip(slots) {
                for roots in self.roots.chunks(LANES) {
                    at[..roots.len()].copy_from_slice(roots);
                    self.descend(&mut at[..roots.len()], row, 0);
                    at[..roots.len()].iter().for_each(|leaf| self.add(*leaf, aggregate, scores, reached));
                }
            }
            return;
        }
        for root in &self.roots {
            let slots = scores.chunks_mut(LANES * targets).zip(reached.chunks_mut(LANES * targets));
            for (rows, (scores, reached)) in rows.chunks(LANES * width).zip(slots) {
                let lanes = rows.len() / width;
                at.fill(*root);
                self.descend(&mut at[..lanes], rows, width);
                let slots = scores.chunks_exact_mut(targets).zip(reached.chunks_exact_mut(targets));
                at.iter().zip(slots).for_each(|(leaf, (scores, reached))| self.add(*leaf, aggregate, scores, reached));
            }
        }
    }

    /// Adds the weights of a leaf to the scores of a row.
    #[inline(always)]
    fn add<A: Wide + From<S>>(&self, leaf: u32, aggregate: Aggregate, scores: &mut [A], reached: &mut [bool]) {
        let leaf = (leaf & !LEAF) as usize;
        let (first, last) = (self.leaves[leaf] as usize, self.leaves[leaf + 1] as usize);
        for (target, weight) in &self.weights[first..last] {
            let (score, reached) = (&mut scores[*target as usize], &mut reached[*target as usize]);
            let weight = A::from(*weight);
            match aggregate {
                Aggregate::Sum | Aggregate::Average => *score = score.plus(weight),
                Aggregate::Min if *reached && *score <= weight => {}
                Aggregate::Max if *reached && *score >= weight => {}
                Aggregate::Min | Aggregate::Max => *score = weight,
            }
            *reached = true;
        }
    }

    /// Goes from nodes to leaves; lane `i` has the row at `i · stride`.
    fn descend<A: Wide + From<S>>(&self, at: &mut [u32], rows: &[A], stride: usize) {
        let missing = |node: &Node<S>, x: A| node.feature & MISSING != 0 && x.is_nan();
        // A loop for each kind of tree that converters make.
        match self.uniform {
            Some((Mode::LessOrEqual, false)) => self.walk(at, rows, stride, |_, x, y| x <= y),
            Some((Mode::Less, false)) => self.walk(at, rows, stride, |_, x, y| x < y),
            Some((Mode::LessOrEqual, true)) => self.walk(at, rows, stride, |node, x, y| x <= y || missing(node, x)),
            Some((Mode::Less, true)) => self.walk(at, rows, stride, |node, x, y| x < y || missing(node, x)),
            _ => self.walk(at, rows, stride, |node, x, y| self.test(node, x, y) || missing(node, x)),
        }
    }

    #[inline(always)]
    fn walk<A: Wide + From<S>>(
        &self,
        at: &mut [u32],
        rows: &[A],
        stride: usize,
        test: impl Fn(&Node<S>, A, A) -> bool,
    ) {
        let mut open = true;
        while open {
            open = false;
            for (lane, at) in at.iter_mut().enumerate() {
                if *at & LEAF == 0 {
                    let node = &self.nodes[*at as usize];
                    let x = rows[lane * stride + (node.feature & FEATURE) as usize];
                    *at = if test(node, x, A::from(node.split)) { node.yes } else { node.no };
                    open = true;
                }
            }
        }
    }

    /// The comparison of any node, of a value that is not missing.
    fn test<A: Wide>(&self, node: &Node<S>, x: A, y: A) -> bool {
        match Mode::ALL.get((node.feature >> 28) as usize) {
            Some(Mode::LessOrEqual) => x <= y,
            Some(Mode::Less) => x < y,
            Some(Mode::GreaterOrEqual) => x >= y,
            Some(Mode::Greater) => x > y,
            Some(Mode::Equal) => x == y,
            Some(Mode::NotEqual) => x != y,
            Some(Mode::Member) => self.sets.get(y.to_f64() as usize).is_some_and(|set| contains(set, x.to_f64())),
            None => false,
        }
    }
}

/// Whether a sorted set without NaN has a number.
fn contains(set: &[f64], x: f64) -> bool {
    let at = set.partition_point(|member| *member < x);
    set.get(at).is_some_and(|member| *member == x)
}
/// How often a sorted list of so many is halved until one is left.
fn halvings(length: usize) -> u64 {
    u64::from(usize::BITS - length.leading_zeros())
}
