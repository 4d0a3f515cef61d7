//! What a chain must know of a model to price and to check requests without having its file.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::DType;

/// One dimension of an input or output.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Dim {
    /// The number of rows in the request, at least 1; the same in every input.
    Batch,
    /// A fixed size.
    Fixed(u32),
    /// A size that the request chooses, at least 1; the same wherever the name occurs (the length of a sequence, say).
    Named(String),
}

/// The name that stands for [`Dim::Batch`].
const BATCH: &str = "batch";

impl Serialize for Dim {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Batch => serializer.serialize_str(BATCH),
            Self::Fixed(size) => serializer.serialize_u32(*size),
            Self::Named(name) => serializer.serialize_str(name),
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
            Ok(Text::Name(name)) if name == BATCH => Ok(Self::Batch),
            Ok(Text::Name(name)) if (1..=64).contains(&name.len()) => Ok(Self::Named(name)),
            _ => Err(serde::de::Error::custom("a dimension is a positive integer, \"batch\", or another name")),
        }
    }
}

impl core::fmt::Display for Dim {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Batch => f.write_str(BATCH),
            Self::Fixed(size) => write!(f, "{size}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// The sizes that a request gives to the dimensions that are not fixed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sizes {
    batch: Option<usize>,
    named: Vec<(String, usize)>,
}

impl Sizes {
    /// A number of rows, and no other size.
    pub fn batch(rows: usize) -> Self {
        Self { batch: Some(rows), named: vec![] }
    }

    /// Takes a size for a dimension; false when it is another one than before, or none that the dimension allows.
    pub fn bind(&mut self, dim: &Dim, size: usize) -> bool {
        let bound = match dim {
            Dim::Fixed(fixed) => return *fixed as usize == size,
            Dim::Batch => *self.batch.get_or_insert(size),
            Dim::Named(name) => match self.named.iter().find(|(n, _)| n == name) {
                Some((_, bound)) => *bound,
                None => {
                    self.named.push((name.clone(), size));
                    size
                }
            },
        };
        bound == size && size > 0
    }

    /// Takes the sizes of a shape; false when it does not fit.
    pub fn bind_shape(&mut self, dims: &[Dim], shape: &[usize]) -> bool {
        dims.len() == shape.len() && dims.iter().zip(shape).all(|(dim, size)| self.bind(dim, *size))
    }

    /// The size of a dimension; 1 where none was given.
    pub fn of(&self, dim: &Dim) -> usize {
        match dim {
            Dim::Fixed(size) => *size as usize,
            Dim::Batch => self.rows(),
            Dim::Named(name) => self.named(name),
        }
    }

    /// The number of rows; 1 where none was given.
    pub fn rows(&self) -> usize {
        self.batch.unwrap_or(1)
    }

    fn named(&self, name: &str) -> usize {
        self.named.iter().find(|(n, _)| n == name).map_or(1, |(_, size)| *size)
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
    /// The shape for the sizes of a request.
    pub fn shape_for(&self, sizes: &Sizes) -> Vec<usize> {
        self.shape.iter().map(|dim| sizes.of(dim)).collect()
    }
}

impl core::fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let dims: Vec<String> = self.shape.iter().map(Dim::to_string).collect();
        write!(f, "{} {}[{}]", self.name, self.dtype.name(), dims.join(", "))
    }
}

/// A summand of a cost: `ops` times the product of dimensions, each raised to a power.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpsTerm {
    /// The factor.
    pub ops: i64,
    /// Names of dimensions with their powers; `batch` is the number of rows.
    pub dims: BTreeMap<String, u32>,
}

/// The cost of one run in `ops` (one multiply-add, or one element of cheap work): an integer from
/// the graph and the shapes, the same on every machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpsCost {
    /// Whatever the batch.
    pub fixed: u64,
    /// For each row of the batch.
    pub per_row: u64,
    /// What depends on dimensions other than the batch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub terms: Vec<OpsTerm>,
}

impl OpsCost {
    /// The cost of a run.
    pub fn of(&self, sizes: &Sizes) -> u64 {
        let rows = i128::from(self.per_row).saturating_mul(sizes.rows() as i128);
        let linear = rows.saturating_add(self.fixed.into());
        let total = self.terms.iter().fold(linear, |sum, term| {
            let product = term.dims.iter().fold(i128::from(term.ops), |product, (name, power)| {
                let size = if name == BATCH { sizes.rows() } else { sizes.named(name) } as i128;
                (0..(*power).min(8)).fold(product, |product, _| product.saturating_mul(size))
            });
            sum.saturating_add(product)
        });
        u64::try_from(total.max(0)).unwrap_or(u64::MAX)
    }
}

impl core::fmt::Display for OpsCost {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} + {} · batch", self.fixed, self.per_row)?;
        for term in &self.terms {
            let sign = if term.ops < 0 { '−' } else { '+' };
            write!(f, " {sign} {}", term.ops.unsigned_abs())?;
            for (name, power) in &term.dims {
                write!(f, " · {name}{}", if *power > 1 { format!("^{power}") } else { String::new() })?;
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_is_a_polynomial_of_the_sizes_and_never_wraps() {
        let mut sizes = Sizes::batch(2);
        assert!(sizes.bind(&Dim::Named("seq".into()), 10) && !sizes.bind(&Dim::Named("seq".into()), 11));
        assert!(!sizes.bind(&Dim::Batch, 3) && !sizes.bind(&Dim::Named("other".into()), 0));
        let term =
            |ops, list: &[(&str, u32)]| OpsTerm { ops, dims: list.iter().map(|(n, p)| ((*n).into(), *p)).collect() };
        let cost = OpsCost {
            fixed: 5,
            per_row: 7,
            terms: vec![term(3, &[("batch", 1), ("seq", 2)]), term(-1, &[("seq", 1)])],
        };
        assert_eq!(cost.of(&sizes), 5 + 14 + 3 * 2 * 100 - 10);
        assert_eq!(cost.to_string(), "5 + 7 · batch + 3 · batch · seq^2 − 1 · seq");
        let huge = OpsCost { fixed: u64::MAX, per_row: u64::MAX, terms: vec![term(i64::MAX, &[("batch", 9)])] };
        assert_eq!(huge.of(&Sizes::batch(usize::MAX)), u64::MAX);
        let negative = OpsCost { terms: vec![term(i64::MIN, &[("batch", 8)])], ..OpsCost::default() };
        assert_eq!(negative.of(&Sizes::batch(usize::MAX)), 0);
    }

    #[test]
    fn a_cost_without_terms_is_written_without_them() {
        let cost = OpsCost { fixed: 1, per_row: 2, terms: vec![] };
        let json = serde_json::to_string(&cost).unwrap();
        assert_eq!(json, r#"{"fixed":1,"per_row":2}"#);
        assert_eq!(serde_json::from_str::<OpsCost>(&json).unwrap(), cost);
    }
}
