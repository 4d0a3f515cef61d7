//! Values and their types while a plan runs.

use burn_backend::{
    Shape, TensorMetadata,
    tensor::{FloatTensor, IntTensor},
};

use super::{kernels::Kernels, ops::RunError};
use crate::{DType, Tensor, tensor::element_count};

/// Element type and shape of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TensorType {
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
}

impl TensorType {
    pub(crate) fn new(dtype: DType, shape: Vec<usize>) -> Self {
        Self { dtype, shape }
    }

    /// Number of elements (saturating: plans refuse sizes that large).
    pub(crate) fn count(&self) -> usize {
        element_count(&self.shape).unwrap_or(usize::MAX)
    }

    pub(crate) fn float(&self) -> Result<&[usize], String> {
        match self.dtype {
            DType::Float32 => Ok(&self.shape),
            DType::Int64 => Err("it supports float32 inputs only".into()),
        }
    }
}

/// A tensor on the backend. Cloning shares the data.
#[derive(Debug)]
pub(crate) enum Value<B: Kernels> {
    Float(FloatTensor<B>),
    Int(IntTensor<B>),
}

impl<B: Kernels> Clone for Value<B> {
    fn clone(&self) -> Self {
        match self {
            Self::Float(t) => Self::Float(t.clone()),
            Self::Int(t) => Self::Int(t.clone()),
        }
    }
}

impl<B: Kernels> Value<B> {
    pub(crate) fn from_host(tensor: &Tensor) -> Option<Self> {
        B::float_from_host(tensor).map(Self::Float).or_else(|| B::int_from_host(tensor).map(Self::Int))
    }

    pub(crate) fn into_host(self) -> Option<Tensor> {
        let (shape, values) = match self {
            Self::Float(t) => (t.shape().to_vec(), B::float_to_host(t)),
            Self::Int(t) => (t.shape().to_vec(), B::int_to_host(t)),
        };
        Tensor::new(shape, values)
    }

    /// The float tensor; an operator that calls this has refused other types in `infer`.
    pub(crate) fn float(&self) -> Result<FloatTensor<B>, RunError> {
        match self {
            Self::Float(t) => Ok(t.clone()),
            Self::Int(_) => Err(RunError),
        }
    }

    pub(crate) fn reshape(&self, shape: &[usize]) -> Self {
        match self {
            Self::Float(t) => Self::Float(B::float_reshape(t.clone(), Shape::from(shape.to_vec()))),
            Self::Int(t) => Self::Int(B::int_reshape(t.clone(), Shape::from(shape.to_vec()))),
        }
    }

    pub(crate) fn permute(&self, axes: &[usize]) -> Self {
        match self {
            Self::Float(t) => Self::Float(B::float_permute(t.clone(), axes)),
            Self::Int(t) => Self::Int(B::int_permute(t.clone(), axes)),
        }
    }
}
