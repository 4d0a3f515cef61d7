//! What a chain must know of a model to price and to check requests without having its file.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::DType;

/// One dimension of an input or output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dim {
    /// The number of rows in the request, at least 1; the same in every input.
    Batch,
    /// A fixed size.
    Fixed(u32),
}

impl Dim {
    /// The size for a batch.
    pub fn size(self, batch: usize) -> usize {
        match self {
            Self::Batch => batch,
            Self::Fixed(size) => size as usize,
        }
    }
}

impl Serialize for Dim {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Batch => serializer.serialize_str("batch"),
            Self::Fixed(size) => serializer.serialize_u32(*size),
        }
    }
}

impl<'de> Deserialize<'de> for Dim {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Text {
            Size(u32),
            Name(String),
        }
        match Text::deserialize(deserializer) {
            Ok(Text::Size(size)) if size > 0 => Ok(Self::Fixed(size)),
            Ok(Text::Name(name)) if name == "batch" => Ok(Self::Batch),
            _ => Err(serde::de::Error::custom("a dimension is a positive integer or \"batch\"")),
        }
    }
}

/// Name, type and shape of an input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// The graph's name for it.
    pub name: String,
    /// Element type.
    #[serde(rename = "type")]
    pub dtype: DType,
    /// Shape, outermost dimension first.
    pub shape: Vec<Dim>,
}

impl TensorSpec {
    /// The shape for a batch.
    pub fn shape_for(&self, batch: usize) -> Vec<usize> {
        self.shape.iter().map(|dim| dim.size(batch)).collect()
    }
}

/// The cost of one run in `ops` (one multiply-add, or one element of cheap work): an integer from
/// the graph and the shapes, the same on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpsCost {
    /// Whatever the batch.
    pub fixed: u64,
    /// For each row of the batch.
    pub per_row: u64,
}

impl OpsCost {
    /// The cost of a run with `batch` rows.
    pub fn of(self, batch: usize) -> u64 {
        self.fixed.saturating_add(self.per_row.saturating_mul(batch as u64))
    }
}

/// The registry's view of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelDescriptor {
    /// Inputs in the order of the graph.
    pub inputs: Vec<TensorSpec>,
    /// Outputs in the order of the graph.
    pub outputs: Vec<TensorSpec>,
    /// Cost of a run.
    pub ops: OpsCost,
}
