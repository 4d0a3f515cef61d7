//! Whether the rows of a batch are independent: then requests may be run together, and each gets the bits that it would
//! have got alone, because no operator lets a row see another one.
//!
//! This is a proof, not a guess: each operator says when it keeps rows apart, and one that says nothing does not. It is made for
//! every request and for the batch, with the shapes that their values have: a shape that follows from the number of rows may be
//! anything for another number. Behind the first dimension they must be the same ([`shapes`]).

use super::program::{Program, Slot, Types};
use super::{MAX_INTS, array::Array};
use crate::{DType, onnx::Node};

/// When an operator keeps the rows of its first dimension apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rule {
    /// It is not known to.
    Never,
    /// Element by element, broadcast.
    Elementwise,
    /// The first input has the rows; the others are the same for all.
    First,
    /// The first input has the rows, in row-major order, and the output has as many.
    View,
    /// Along one axis, which must not be the rows'.
    Along(i64),
    /// Along axes, which must not hold the rows'; `None`: along all, or along what an input says.
    Reduced(Option<Vec<i64>>),
    /// A permutation that leaves the first axis where it is.
    Permuted(Vec<i64>),
    /// The rows are joined along another axis.
    Joined(i64),
    /// Stacks of matrices: the rows are of the left one, or of both.
    Product,
    /// Rows of a table are picked by indices that have the rows, or columns of rows by indices that are the same for all.
    Picked(i64),
    /// What follows from a shape.
    Shape,
    /// Repeats to a shape.
    Expanded,
}

impl Rule {
    /// The rule of a node.
    pub(crate) fn of(node: &Node<'_>) -> Self {
        let ints = |index: usize| node.constant(index).filter(|axes| axes.count() <= MAX_INTS).and_then(Array::to_ints);
        let axes = || if node.has_input(1) { ints(1) } else { node.ints("axes") };
        // Scales and zero points that are one for all rows.
        let single = |list: &[usize]| {
            list.iter().all(|i| !node.has_input(*i) || node.constant(*i).is_some_and(|x| x.count() == 1))
        };
        if node.proto.domain == "ai.onnx.ml" {
            return match node.op() {
                "ArrayFeatureExtractor" | "DictVectorizer" | "CastMap" => Self::Never,
                // A vector is one row to it.
                "Normalizer" => Self::Along(-1),
                _ => Self::First,
            };
        }
        match node.op() {
            "MatMulInteger" | "ConvInteger" if single(&[2]) => Self::First,
            "QLinearMatMul" | "QLinearConv" if single(&[1, 2, 6, 7]) => Self::First,
            "QLinearAveragePool" if single(&[1, 2, 3, 4]) => Self::First,
            "QGemm" if single(&[1, 2, 7, 8]) && !node.flag("transA", false) => Self::First,
            // Positions count from the first image of the batch.
            "MaxPool" if node.has_output(1) => Self::Never,
            // The bounds are one for all.
            "Clip" => Self::First,
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Mod" | "PRelu" | "Sum" | "Mean" | "Max" | "Min" | "Equal"
            | "Greater" | "Less" | "GreaterOrEqual" | "LessOrEqual" | "And" | "Or" | "Xor" | "Where" | "BitwiseAnd"
            | "BitwiseOr" | "BitwiseXor" | "BitShift" | "Cast" | "CastLike" | "Not" | "Neg" | "Abs" | "Sign"
            | "Relu" | "LeakyRelu" | "Sigmoid" | "Tanh" | "Exp" | "Log" | "Sqrt" | "Erf" | "Sin" | "Cos" | "Floor"
            | "Ceil" | "Round" | "Reciprocal" | "Softplus" | "Softsign" | "HardSigmoid" | "HardSwish" | "Elu"
            | "Celu" | "Selu" | "Gelu" | "Mish" | "Swish" | "ThresholdedRelu" | "Shrink" | "IsNaN" | "IsInf"
            | "BitwiseNot" => Self::Elementwise,
            "Identity" | "Dropout" => Self::View,
            "Conv"
            | "ConvTranspose"
            | "MaxPool"
            | "AveragePool"
            | "LpPool"
            | "GlobalMaxPool"
            | "GlobalAveragePool"
            | "GlobalLpPool"
            | "BatchNormalization"
            | "InstanceNormalization"
            | "GroupNormalization"
            | "LRN" => Self::First,
            // Scales and zero points are the same for all, unless their axis is the rows'.
            "QuantizeLinear" | "DequantizeLinear" => Self::Along(node.int("axis", 1)),
            "Gemm" if !node.flag("transA", false) => Self::First,
            "MatMul" => Self::Product,
            "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" => Self::View,
            "Softmax" | "LogSoftmax" | "Hardmax" => Self::Along(node.int("axis", if node.opset < 13 { 1 } else { -1 })),
            "LayerNormalization" | "RMSNormalization" | "LpNormalization" => Self::Along(node.int("axis", -1)),
            "ArgMax" | "ArgMin" => Self::Along(node.int("axis", 0)),
            "TopK" => Self::Along(node.int("axis", -1)),
            "Split" => Self::Along(node.int("axis", 0)),
            "Concat" => Self::Joined(node.int("axis", 1)),
            "ReduceSum" | "ReduceMean" | "ReduceMax" | "ReduceMin" | "ReduceProd" | "ReduceL1" | "ReduceL2"
            | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceSumSquare" => Self::Reduced(axes()),
            "Slice" if node.ints("starts").is_some() && node.ints("ends").is_some() => Self::Reduced(node.ints("axes")),
            "Slice" => Self::Reduced(ints(3)),
            "Transpose" => node.ints("perm").map_or(Self::Never, Self::Permuted),
            "Gather" => Self::Picked(node.int("axis", 0)),
            "Shape" | "Size" => Self::Shape,
            "Expand" | "ConstantOfShape" => Self::Expanded,
            _ => Self::Never,
        }
    }
}

/// What a value has of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    /// The same for every batch.
    Same,
    /// It follows from the shapes, and so from the number of rows.
    Sized,
    /// Its first dimension is the rows, each by itself.
    Apart,
}

/// The values that have the rows of a program's inputs, if those stay apart up to its outputs. `values` are the types of all
/// values, by slot, as traced for a batch of `batch` rows. That another dimension has that size by chance, or follows from it,
/// shows for another number of rows.
pub(crate) fn independent(program: &Program, values: &Types, batched: &[bool], batch: usize) -> Option<Vec<Slot>> {
    let mut rows: Vec<Option<Rows>> = vec![None; values.len()];
    for (slot, constant) in program.constants.iter().enumerate() {
        if constant.is_some() {
            rows[slot] = Some(Rows::Same);
        }
    }
    for (slot, batched) in program.inputs.iter().zip(batched) {
        rows[*slot] = Some(if *batched { Rows::Apart } else { Rows::Same });
    }
    let shape = |slot: usize| values[slot].as_ref().and_then(|value| value.ty().ok()).map(|(_, shape)| shape.to_vec());
    for step in &program.steps {
        let inputs: Vec<Option<Rows>> = step.inputs.iter().flatten().map(|slot| rows[*slot]).collect();
        let inputs = inputs.into_iter().collect::<Option<Vec<Rows>>>()?;
        let shapes: Option<Vec<Vec<usize>>> = step.inputs.iter().flatten().map(|slot| shape(*slot)).collect();
        let outputs: Vec<usize> = step.outputs.iter().flatten().copied().collect();
        let out_shapes: Option<Vec<Vec<usize>>> = outputs.iter().map(|slot| shape(*slot)).collect();
        let kept = keep(&step.rule, &inputs, &shapes?, &out_shapes?, batch)?;
        outputs.iter().for_each(|slot| rows[*slot] = Some(kept));
    }
    let apart = |slot: &Slot| rows[*slot] == Some(Rows::Apart);
    let all = |slot: &Slot| apart(slot) && shape(*slot).is_some_and(|shape| shape.first() == Some(&batch));
    program.outputs.iter().all(all).then(|| (0..rows.len()).filter(apart).collect())
}

/// The types of values that have so many rows, without these; `None` when one has another number of them.
pub(crate) fn shapes(values: &Types, apart: &[Slot], rows: usize) -> Option<Vec<(DType, Vec<usize>)>> {
    apart
        .iter()
        .map(|slot| match values[*slot].as_ref()?.ty().ok()? {
            (dtype, [first, rest @ ..]) if *first == rows => Some((dtype, rest.to_vec())),
            _ => None,
        })
        .collect()
}

fn keep(rule: &Rule, inputs: &[Rows], shapes: &[Vec<usize>], outputs: &[Vec<usize>], batch: usize) -> Option<Rows> {
    // Without rows nothing can be mixed up.
    if inputs.iter().all(|rows| *rows == Rows::Same) && *rule != Rule::Expanded {
        return Some(Rows::Same);
    }
    let has_rows = outputs.iter().all(|shape| shape.first() == Some(&batch));
    let rank = shapes.first().map_or(0, Vec::len);
    let at = |axis: i64| usize::try_from(if axis < 0 { axis + rank as i64 } else { axis }).ok();
    if *rule == Rule::Shape {
        return Some(Rows::Sized);
    }
    if inputs.iter().all(|rows| *rows != Rows::Apart) {
        // Arithmetic with sizes; or the rows are made here, all alike.
        return match rule {
            // What is repeated must not know how often.
            Rule::Expanded
                if has_rows
                    && (inputs.len() == 1 || inputs[0] == Rows::Same)
                    && shapes
                        .first()
                        .is_none_or(|s| s.len() < outputs[0].len() || s.first() == Some(&1) || s.is_empty()) =>
            {
                Some(Rows::Apart)
            }
            Rule::Expanded => None,
            _ => Some(Rows::Sized),
        };
    }
    let first_apart = inputs.first() == Some(&Rows::Apart);
    let rest_same = inputs.iter().skip(1).all(|rows| *rows == Rows::Same);
    let kept = match rule {
        Rule::Never | Rule::Shape | Rule::Expanded => false,
        Rule::Elementwise => {
            let rank = outputs[0].len();
            inputs.iter().zip(shapes).all(|(rows, shape)| match rows {
                Rows::Apart => shape.len() == rank,
                Rows::Same => shape.len() < rank || shape.first() == Some(&1),
                Rows::Sized => false,
            })
        }
        Rule::First => first_apart && rest_same,
        // Further inputs say the shape.
        Rule::View => first_apart && inputs.iter().skip(1).all(|rows| *rows != Rows::Apart),
        Rule::Along(axis) => first_apart && rest_same && at(*axis).is_some_and(|axis| axis > 0),
        Rule::Reduced(axes) => {
            let clear = |axes: &Vec<i64>| axes.iter().all(|axis| at(*axis).is_some_and(|axis| axis > 0));
            first_apart && rest_same && axes.as_ref().is_some_and(|axes| !axes.is_empty() && clear(axes))
        }
        Rule::Permuted(axes) => first_apart && axes.first() == Some(&0),
        Rule::Joined(axis) => inputs.iter().all(|rows| *rows == Rows::Apart) && at(*axis).is_some_and(|axis| axis > 0),
        Rule::Product => match inputs {
            [Rows::Apart, Rows::Same] => rank >= 2 && shapes[1].len() <= 2,
            [Rows::Apart, Rows::Apart] => rank >= 3 && shapes[1].len() == rank,
            _ => false,
        },
        Rule::Picked(axis) => match inputs {
            [Rows::Apart, Rows::Same] => at(*axis).is_some_and(|axis| axis > 0),
            [Rows::Same, Rows::Apart] => at(*axis) == Some(0),
            _ => false,
        },
    };
    (kept && has_rows).then_some(Rows::Apart)
}
