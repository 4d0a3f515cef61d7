//! Operators of the domain `ai.onnx.ml` (operator sets 1 to 5): trees, linear models, support vectors, encoders.
//!
//! Where the specification is vague they do what onnxruntime does, because that is what exports are tested against.
//! Maps do not exist in this engine: `ZipMap` gives texts, `DictVectorizer` and `CastMap` are refused.

use super::{Body, Parse, eval, single, text::check_bytes};
use crate::{
    DType,
    engine::{
        array::Array,
        cx::{Cx, Inputs, Stop},
        numeric::cast,
        value::Value,
    },
    onnx::Node,
};

mod encode;
mod features;
mod forest;
mod linear;
mod post;
mod svm;
mod trees;
mod trees5;
mod zip_map;

pub(super) fn find(name: &str) -> Option<Parse> {
    trees::find(name)
        .or_else(|| trees5::find(name))
        .or_else(|| linear::find(name))
        .or_else(|| svm::find(name))
        .or_else(|| encode::find(name))
        .or_else(|| features::find(name))
        .or_else(|| zip_map::find(name))
        .or(match name {
            // Named rather than missing, so that whoever loads the model reads why.
            "DictVectorizer" | "CastMap" => Some(refuse_maps),
            _ => None,
        })
}

fn refuse_maps(_: &Node<'_>, _: &[Body]) -> Result<crate::engine::program::Eval, String> {
    Err("its input is a map, and maps are not supported: export the model with a tensor input".into())
}

/// The labels of a classifier: one and only one kind is given.
#[derive(Debug, Clone, PartialEq)]
enum Labels {
    Ints(Vec<i64>),
    Texts(Vec<String>),
}

impl Labels {
    fn of_node(node: &Node<'_>, ints: &str, texts: &str) -> Result<Self, String> {
        let (ints, texts) = (node.ints(ints).unwrap_or_default(), node.texts(texts)?.unwrap_or_default());
        match (ints.is_empty(), texts.is_empty()) {
            (false, true) => Ok(Self::Ints(ints)),
            (true, false) => Ok(Self::Texts(texts)),
            _ => Err("it needs labels that are either integers or texts".into()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Ints(labels) => labels.len(),
            Self::Texts(labels) => labels.len(),
        }
    }

    fn dtype(&self) -> DType {
        match self {
            Self::Ints(_) => DType::Int64,
            Self::Texts(_) => DType::String,
        }
    }

    /// The labels at some positions; a position beyond them, which no operator makes, is the last.
    fn pick(&self, positions: &[usize], shape: Vec<usize>) -> Result<Array, Stop> {
        let clamp = |at: &usize| (*at).min(self.len().saturating_sub(1));
        Ok(match self {
            Self::Ints(labels) => {
                let picked = positions.iter().map(|at| labels.get(clamp(at)).copied().unwrap_or_default()).collect();
                Array::new(DType::Int64, shape, picked)
            }
            Self::Texts(labels) => {
                let picked = || positions.iter().filter_map(|at| labels.get(clamp(at)));
                check_bytes(picked().map(String::len))?;
                Array::text(shape, picked().cloned().collect())
            }
        })
    }
}

/// The two outputs of a classifier: a label and scores for each row. Both come from one computation, which gives the
/// position of each row's label and the scores.
fn classified(
    cx: &mut Cx<'_>,
    inputs: &Inputs<'_>,
    labels: &Labels,
    (rows, columns): (usize, usize),
    ops: u64,
    compute: impl FnOnce() -> Result<(Vec<usize>, Vec<f32>), Stop>,
) -> Result<Vec<Value>, Stop> {
    let mut positions = None;
    let scores = cx.emit(inputs, DType::Float32, vec![rows, columns], ops, || {
        let (picked, scores) = compute()?;
        positions = Some(picked);
        Ok(scores)
    })?;
    let positions = match positions {
        Some(positions) => positions,
        // There was nothing to compute.
        None if scores.is_known() => vec![0; rows],
        // Not computed now: the labels are not, either, however cheap they look.
        None => return Ok(vec![cx.omit(labels.dtype(), vec![rows], rows as u64)?, scores]),
    };
    let picked =
        cx.emit_with(inputs, labels.dtype(), vec![rows], rows as u64, |shape| labels.pick(&positions, shape))?;
    Ok(vec![picked, scores])
}

/// Rows and columns of an input; a vector is one row.
fn matrix(inputs: &Inputs<'_>, index: usize) -> Result<(usize, usize), Stop> {
    match inputs.shape(index)? {
        [columns] => Ok((1, *columns)),
        [rows, columns] => Ok((*rows, *columns)),
        shape => Err(Stop::invalid(format!("it takes a matrix or a vector, not the shape {shape:?}"))),
    }
}

/// Refuses what the specification's "float, double, int64, int32" leaves out.
fn check_number(dtype: DType) -> Result<(), Stop> {
    match dtype {
        DType::Float32 | DType::Float64 | DType::Int32 | DType::Int64 => Ok(()),
        other => Err(Stop::unsupported(other)),
    }
}

/// An input rounded to float32, laid out row by row.
fn singles(inputs: &Inputs<'_>, index: usize) -> Result<Array, Stop> {
    Ok(cast(inputs.read(index)?, DType::Float32).contiguous())
}

/// A product of sizes for a cost.
fn cost(factors: &[usize]) -> u64 {
    factors.iter().fold(1, |product: u64, factor| product.saturating_mul(*factor as u64))
}

#[cfg(test)]
mod tests;
