//! Tensors as they cross a boundary: plain row-major vectors with a canonical byte encoding.

use serde::{Deserialize, Serialize};

/// The element types that the engine computes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE 754 binary32.
    Float32,
    /// Two's complement, 64 bits.
    Int64,
}

impl DType {
    /// The ONNX name of the type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Int64 => "int64",
        }
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::Float32 => 4,
            Self::Int64 => 8,
        }
    }

    fn tag(self) -> u8 {
        match self {
            Self::Float32 => 1,
            Self::Int64 => 7, // ONNX's numbers (TensorProto.DataType)
        }
    }
}

/// The elements of a [`Tensor`], row-major.
#[derive(Debug, Clone)]
pub enum TensorValues {
    /// float32 elements.
    Float32(Vec<f32>),
    /// int64 elements.
    Int64(Vec<i64>),
}

/// A row-major tensor. Equality is equality of bits: NaN equals itself, 0.0 differs from -0.0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    shape: Vec<usize>,
    values: TensorValues,
}

impl PartialEq for TensorValues {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float32(a), Self::Float32(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
            }
            (Self::Int64(a), Self::Int64(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for TensorValues {}

impl TensorValues {
    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Float32(v) => v.len(),
            Self::Int64(v) => v.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why bytes are not a canonical tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the canonical encoding of a tensor")]
pub struct BadTensor;

impl Tensor {
    /// A tensor of `shape`; `None` when the number of elements differs from the shape's product.
    pub fn new(shape: Vec<usize>, values: TensorValues) -> Option<Self> {
        (element_count(&shape)? == values.len()).then_some(Self { shape, values })
    }

    /// A tensor of zeros; `None` when the shape's product overflows.
    pub fn zeros(dtype: DType, shape: Vec<usize>) -> Option<Self> {
        let count = element_count(&shape)?;
        let values = match dtype {
            DType::Float32 => TensorValues::Float32(vec![0.0; count]),
            DType::Int64 => TensorValues::Int64(vec![0; count]),
        };
        Some(Self { shape, values })
    }

    /// The dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements.
    pub fn values(&self) -> &TensorValues {
        &self.values
    }

    /// The elements, taken out.
    pub fn into_values(self) -> TensorValues {
        self.values
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match self.values {
            TensorValues::Float32(_) => DType::Float32,
            TensorValues::Int64(_) => DType::Int64,
        }
    }

    /// Bytes that the elements take.
    pub fn byte_len(&self) -> usize {
        self.values.len() * self.dtype().size()
    }

    /// Whether every element is a finite number.
    pub fn is_finite(&self) -> bool {
        match &self.values {
            TensorValues::Float32(v) => v.iter().all(|x| x.is_finite()),
            TensorValues::Int64(_) => true,
        }
    }

    /// Appends the canonical encoding: type (1 byte), rank (1 byte), dimensions (u32 each),
    /// elements; all little-endian.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.dtype().tag());
        out.push(self.shape.len() as u8);
        for dim in &self.shape {
            out.extend_from_slice(&(*dim as u32).to_le_bytes());
        }
        match &self.values {
            TensorValues::Float32(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_bits().to_le_bytes())),
            TensorValues::Int64(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        }
    }

    /// Reads one tensor off the front of `input`.
    ///
    /// # Errors
    /// [`BadTensor`] when `input` does not begin with what [`Self::encode`] writes. Nothing larger
    /// than `input` is allocated.
    pub fn decode(input: &mut &[u8]) -> Result<Self, BadTensor> {
        let [tag, rank] = take(input)?;
        let mut shape = Vec::with_capacity(rank.into());
        for _ in 0..rank {
            shape.push(u32::from_le_bytes(take(input)?) as usize);
        }
        let count = element_count(&shape).ok_or(BadTensor)?;
        let dtype = [DType::Float32, DType::Int64].into_iter().find(|t| t.tag() == tag).ok_or(BadTensor)?;
        let bytes = count.checked_mul(dtype.size()).filter(|n| *n <= input.len()).ok_or(BadTensor)?;
        let (data, rest) = input.split_at(bytes);
        *input = rest;
        let values = match dtype {
            DType::Float32 => {
                TensorValues::Float32(words(data).map(|w| f32::from_bits(u32::from_le_bytes(w))).collect())
            }
            DType::Int64 => TensorValues::Int64(words(data).map(i64::from_le_bytes).collect()),
        };
        Ok(Self { shape, values })
    }
}

/// The product of the dimensions, or `None` on overflow.
pub fn element_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, dim| product.checked_mul(*dim))
}

/// Little-endian words of `N` bytes; a trailing part of a word is ignored.
pub(crate) fn words<const N: usize>(data: &[u8]) -> impl Iterator<Item = [u8; N]> {
    data.as_chunks::<N>().0.iter().copied()
}

/// Takes the first `N` bytes off `input`.
pub(crate) fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], BadTensor> {
    let (head, rest) = input.split_first_chunk::<N>().ok_or(BadTensor)?;
    *input = rest;
    Ok(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_round_trips_and_every_truncation_is_refused() {
        let tensor =
            Tensor::new(vec![2, 3], TensorValues::Float32(vec![0.0, -0.0, 1.5, f32::MAX, f32::MIN_POSITIVE, 7.0]))
                .unwrap();
        let mut bytes = Vec::new();
        tensor.encode(&mut bytes);
        assert_eq!(Tensor::decode(&mut bytes.as_slice()), Ok(tensor));
        for end in 0..bytes.len() {
            assert_eq!(Tensor::decode(&mut &bytes[..end]), Err(BadTensor), "{end}");
        }
    }

    #[test]
    fn a_shape_that_promises_more_than_the_bytes_hold_allocates_nothing() {
        let mut huge = vec![1, 2];
        huge.extend_from_slice(&u32::MAX.to_le_bytes());
        huge.extend_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Tensor::decode(&mut huge.as_slice()), Err(BadTensor));
    }
}
