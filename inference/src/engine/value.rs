//! Values while a program is traced or runs.

use std::sync::Arc;

use super::{array::Array, cx::Stop};
use crate::DType;

/// Bytes of a part of a sequence besides its elements, about: whatever it is, and for each dimension.
const PART_BYTES: u64 = 192;
const PART_DIM_BYTES: u64 = 64;

/// Bytes of a part of so many dimensions besides its elements.
pub(crate) fn part_bytes(rank: usize) -> u64 {
    PART_BYTES + PART_DIM_BYTES * rank as u64
}

/// A value. While a program is traced, values that follow from the inputs' elements are not known: only their types.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// A tensor whose elements are there.
    Known(Array),
    /// A tensor whose elements a run computes.
    Unknown(DType, Vec<usize>),
    /// A sequence of values.
    Sequence(Arc<Vec<Value>>),
    /// An optional value that is not there.
    Nothing,
}

impl Value {
    /// Element type and shape of a tensor.
    pub(crate) fn ty(&self) -> Result<(DType, &[usize]), Stop> {
        match self {
            Self::Known(array) => Ok((array.dtype(), array.shape())),
            Self::Unknown(dtype, shape) => Ok((*dtype, shape)),
            Self::Sequence(_) | Self::Nothing => Err(Stop::invalid("it takes tensors, not sequences or optionals")),
        }
    }

    /// The tensor, if its elements are there.
    pub(crate) fn array(&self) -> Option<&Array> {
        match self {
            Self::Known(array) => Some(array),
            _ => None,
        }
    }

    /// Whether all its elements are there.
    pub(crate) fn is_known(&self) -> bool {
        match self {
            Self::Known(_) | Self::Nothing => true,
            Self::Unknown(..) => false,
            Self::Sequence(values) => values.iter().all(Self::is_known),
        }
    }

    /// Bytes that its elements take.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            // Of texts only a run knows how long they are.
            Self::Known(array) => size(array.dtype(), array.shape()).saturating_add(array.text_bytes().0),
            Self::Unknown(dtype, shape) => size(*dtype, shape),
            Self::Sequence(values) => values.iter().map(Self::bytes_as_part).fold(0, u64::saturating_add),
            Self::Nothing => 0,
        }
    }

    /// The same where it is one of many in a list.
    pub(crate) fn bytes_as_part(&self) -> u64 {
        self.bytes().saturating_add(part_bytes(self.rank()))
    }

    /// Dimensions of a tensor.
    pub(crate) fn rank(&self) -> usize {
        self.ty().map_or(0, |(_, shape)| shape.len())
    }

    /// The same type without elements.
    pub(crate) fn forget(&self) -> Self {
        match self {
            Self::Known(array) => Self::Unknown(array.dtype(), array.shape().to_vec()),
            Self::Sequence(values) => Self::Sequence(Arc::new(values.iter().map(Self::forget).collect())),
            other => other.clone(),
        }
    }
}

/// Bytes of a tensor, saturating.
pub(crate) fn size(dtype: DType, shape: &[usize]) -> u64 {
    count(shape).saturating_mul(dtype.size() as u64)
}

/// Elements that a tensor would have if no dimension were zero, saturating: what loops over some of its dimensions may take.
pub(crate) fn extent(shape: &[usize]) -> u64 {
    shape.iter().fold(1u64, |n, dim| n.saturating_mul((*dim).max(1) as u64))
}

/// Elements of a tensor, saturating.
pub(crate) fn count(shape: &[usize]) -> u64 {
    shape.iter().fold(1u64, |n, dim| n.saturating_mul(*dim as u64))
}
