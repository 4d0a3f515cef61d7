//! Tensors as they cross a boundary: plain row-major vectors with a canonical byte encoding.

use half::{bf16, f16};
use serde::{Deserialize, Serialize};

use crate::{
    decimal::{Decimal, OutOfRange},
    engine::convert,
};

/// The element types that the engine computes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE 754 binary32.
    Float32,
    /// IEEE 754 binary64.
    Float64,
    /// IEEE 754 binary16.
    Float16,
    /// The upper half of a binary32.
    BFloat16,
    /// Two's complement, 8 bits.
    Int8,
    /// Two's complement, 16 bits.
    Int16,
    /// Two's complement, 32 bits.
    Int32,
    /// Two's complement, 64 bits.
    Int64,
    /// Unsigned, 8 bits.
    Uint8,
    /// Unsigned, 16 bits.
    Uint16,
    /// Unsigned, 32 bits.
    Uint32,
    /// Unsigned, 64 bits.
    Uint64,
    /// True or false.
    Bool,
    /// UTF-8 text.
    String,
}

impl DType {
    /// All types.
    pub const ALL: [Self; 14] = [
        Self::Float32,
        Self::Float64,
        Self::Float16,
        Self::BFloat16,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Bool,
        Self::String,
    ];

    /// The ONNX name of the type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Float64 => "float64",
            Self::Float16 => "float16",
            Self::BFloat16 => "bfloat16",
            Self::Int8 => "int8",
            Self::Int16 => "int16",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Uint8 => "uint8",
            Self::Uint16 => "uint16",
            Self::Uint32 => "uint32",
            Self::Uint64 => "uint64",
            Self::Bool => "bool",
            Self::String => "string",
        }
    }

    /// Bytes of one element in memory; of a string, what its handle takes.
    pub fn size(self) -> usize {
        match self {
            Self::Int8 | Self::Uint8 | Self::Bool => 1,
            Self::Float16 | Self::BFloat16 | Self::Int16 | Self::Uint16 => 2,
            Self::Float32 | Self::Int32 | Self::Uint32 => 4,
            Self::Float64 | Self::Int64 | Self::Uint64 => 8,
            Self::String => 24,
        }
    }

    /// Whether elements are binary fractions.
    pub fn is_float(self) -> bool {
        matches!(self, Self::Float32 | Self::Float64 | Self::Float16 | Self::BFloat16)
    }

    /// The number of the type in ONNX's `TensorProto.DataType`.
    pub fn onnx(self) -> i32 {
        self.tag().into()
    }

    /// The type of a number of ONNX's `TensorProto.DataType`.
    pub fn from_onnx(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.onnx() == number)
    }

    fn tag(self) -> u8 {
        match self {
            Self::Float32 => 1,
            Self::Uint8 => 2,
            Self::Int8 => 3,
            Self::Uint16 => 4,
            Self::Int16 => 5,
            Self::Int32 => 6,
            Self::Int64 => 7,
            Self::String => 8,
            Self::Bool => 9,
            Self::Float16 => 10,
            Self::Float64 => 11,
            Self::Uint32 => 12,
            Self::Uint64 => 13,
            Self::BFloat16 => 16,
        }
    }
}

/// The elements of a [`Tensor`], row-major.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "each variant is named after the type of its elements")]
pub enum TensorValues {
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Float16(Vec<f16>),
    BFloat16(Vec<bf16>),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Uint8(Vec<u8>),
    Uint16(Vec<u16>),
    Uint32(Vec<u32>),
    Uint64(Vec<u64>),
    Bool(Vec<bool>),
    String(Vec<String>),
}

/// Evaluates an expression with the vector of a [`TensorValues`], whatever its type.
macro_rules! each {
    ($values:expr, $v:ident => $body:expr) => {
        match $values {
            TensorValues::Float32($v) => $body,
            TensorValues::Float64($v) => $body,
            TensorValues::Float16($v) => $body,
            TensorValues::BFloat16($v) => $body,
            TensorValues::Int8($v) => $body,
            TensorValues::Int16($v) => $body,
            TensorValues::Int32($v) => $body,
            TensorValues::Int64($v) => $body,
            TensorValues::Uint8($v) => $body,
            TensorValues::Uint16($v) => $body,
            TensorValues::Uint32($v) => $body,
            TensorValues::Uint64($v) => $body,
            TensorValues::Bool($v) => $body,
            TensorValues::String($v) => $body,
        }
    };
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
            (Self::String(a), Self::String(b)) => a == b,
            (a, b) => a.dtype() == b.dtype() && a.len() == b.len() && a.bytes() == b.bytes(),
        }
    }
}

impl Eq for TensorValues {}

impl TensorValues {
    /// The number of elements.
    pub fn len(&self) -> usize {
        each!(self, v => v.len())
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match self {
            Self::Float32(_) => DType::Float32,
            Self::Float64(_) => DType::Float64,
            Self::Float16(_) => DType::Float16,
            Self::BFloat16(_) => DType::BFloat16,
            Self::Int8(_) => DType::Int8,
            Self::Int16(_) => DType::Int16,
            Self::Int32(_) => DType::Int32,
            Self::Int64(_) => DType::Int64,
            Self::Uint8(_) => DType::Uint8,
            Self::Uint16(_) => DType::Uint16,
            Self::Uint32(_) => DType::Uint32,
            Self::Uint64(_) => DType::Uint64,
            Self::Bool(_) => DType::Bool,
            Self::String(_) => DType::String,
        }
    }

    /// The elements as little-endian bytes, a bool as one byte, a string as its length (u32) and its UTF-8.
    fn write(&self, out: &mut Vec<u8>) {
        macro_rules! words {
            ($v:expr) => {{
                out.reserve($v.len() * self.dtype().size());
                $v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
            }};
        }
        match self {
            Self::Float32(v) => words!(v),
            Self::Float64(v) => words!(v),
            Self::Float16(v) => words!(v),
            Self::BFloat16(v) => words!(v),
            Self::Int8(v) => words!(v),
            Self::Int16(v) => words!(v),
            Self::Int32(v) => words!(v),
            Self::Int64(v) => words!(v),
            Self::Uint8(v) => words!(v),
            Self::Uint16(v) => words!(v),
            Self::Uint32(v) => words!(v),
            Self::Uint64(v) => words!(v),
            Self::Bool(v) => out.extend(v.iter().map(|x| u8::from(*x))),
            Self::String(v) => v.iter().for_each(|text| {
                out.extend_from_slice(&(text.len() as u32).to_le_bytes());
                out.extend_from_slice(text.as_bytes());
            }),
        }
    }

    /// What [`Tensor::encode`] writes of the elements.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// Elements of a type of fixed size from little-endian bytes, whose number is a multiple of that size; `None` for
    /// strings, and for a bool that is neither 0 nor 1.
    pub(crate) fn from_le_bytes(dtype: DType, bytes: &[u8]) -> Option<Self> {
        Some(match dtype {
            DType::Float32 => Self::Float32(words(bytes).map(f32::from_le_bytes).collect()),
            DType::Float64 => Self::Float64(words(bytes).map(f64::from_le_bytes).collect()),
            DType::Float16 => Self::Float16(words(bytes).map(f16::from_le_bytes).collect()),
            DType::BFloat16 => Self::BFloat16(words(bytes).map(bf16::from_le_bytes).collect()),
            DType::Int8 => Self::Int8(words(bytes).map(i8::from_le_bytes).collect()),
            DType::Int16 => Self::Int16(words(bytes).map(i16::from_le_bytes).collect()),
            DType::Int32 => Self::Int32(words(bytes).map(i32::from_le_bytes).collect()),
            DType::Int64 => Self::Int64(words(bytes).map(i64::from_le_bytes).collect()),
            DType::Uint8 => Self::Uint8(bytes.to_vec()),
            DType::Uint16 => Self::Uint16(words(bytes).map(u16::from_le_bytes).collect()),
            DType::Uint32 => Self::Uint32(words(bytes).map(u32::from_le_bytes).collect()),
            DType::Uint64 => Self::Uint64(words(bytes).map(u64::from_le_bytes).collect()),
            DType::Bool if bytes.iter().all(|b| *b <= 1) => Self::Bool(bytes.iter().map(|b| *b == 1).collect()),
            DType::Bool | DType::String => return None,
        })
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

    /// A tensor of zeros, of false or of empty strings; `None` when the shape's product overflows.
    pub fn zeros(dtype: DType, shape: Vec<usize>) -> Option<Self> {
        let count = element_count(&shape)?;
        let values = match dtype {
            DType::String => TensorValues::String(vec![String::new(); count]),
            dtype => TensorValues::from_le_bytes(dtype, &vec![0; count.checked_mul(dtype.size())?])?,
        };
        Some(Self { shape, values })
    }

    /// A tensor of numbers, each rounded once to the type (float16 and bfloat16: through float64). A bool is 0 or 1.
    ///
    /// # Errors
    /// [`OutOfRange`] when a number does not fit the type, there are too many or too few, or the type is string.
    pub fn from_decimals(
        dtype: DType,
        shape: Vec<usize>,
        numbers: impl Iterator<Item = Decimal>,
    ) -> Result<Self, OutOfRange> {
        macro_rules! integers {
            ($variant:ident, $t:ty) => {
                numbers
                    .map(|n| n.to_integer().and_then(|i| <$t>::try_from(i).map_err(|_| OutOfRange)))
                    .collect::<Result<_, _>>()
                    .map(TensorValues::$variant)
            };
        }
        let finite = |x: f64| if x.is_finite() { Ok(x) } else { Err(OutOfRange) };
        let values = match dtype {
            DType::Float32 => numbers.map(Decimal::to_f32).collect::<Result<_, _>>().map(TensorValues::Float32),
            DType::Float64 => numbers.map(Decimal::to_f64).collect::<Result<_, _>>().map(TensorValues::Float64),
            DType::Float16 => numbers
                .map(|n| n.to_f64().map(convert::<f16>).and_then(|x| finite(x.to_f64()).map(|_| x)))
                .collect::<Result<_, _>>()
                .map(TensorValues::Float16),
            DType::BFloat16 => numbers
                .map(|n| n.to_f64().map(convert::<bf16>).and_then(|x| finite(x.to_f64()).map(|_| x)))
                .collect::<Result<_, _>>()
                .map(TensorValues::BFloat16),
            DType::Int8 => integers!(Int8, i8),
            DType::Int16 => integers!(Int16, i16),
            DType::Int32 => integers!(Int32, i32),
            DType::Int64 => integers!(Int64, i64),
            DType::Uint8 => integers!(Uint8, u8),
            DType::Uint16 => integers!(Uint16, u16),
            DType::Uint32 => integers!(Uint32, u32),
            DType::Uint64 => integers!(Uint64, u64),
            DType::Bool => numbers
                .map(|n| match n.to_integer()? {
                    0 => Ok(false),
                    1 => Ok(true),
                    _ => Err(OutOfRange),
                })
                .collect::<Result<_, _>>()
                .map(TensorValues::Bool),
            DType::String => Err(OutOfRange),
        };
        Self::new(shape, values?).ok_or(OutOfRange)
    }

    /// The numbers as decimals; `None` for one that no decimal stands for (NaN, infinities, 2^127 and more). Strings
    /// have none.
    pub fn decimals(&self) -> Vec<Option<Decimal>> {
        macro_rules! integers {
            ($v:expr) => {
                $v.iter().map(|x| Some(Decimal::from_integer((*x).into()))).collect()
            };
        }
        match &self.values {
            TensorValues::Float32(v) => v.iter().map(|x| Decimal::from_f32(*x).ok()).collect(),
            TensorValues::Float64(v) => v.iter().map(|x| Decimal::from_f64(*x).ok()).collect(),
            // Exact in float32.
            TensorValues::Float16(v) => v.iter().map(|x| Decimal::from_f32(x.to_f32()).ok()).collect(),
            TensorValues::BFloat16(v) => v.iter().map(|x| Decimal::from_f32(x.to_f32()).ok()).collect(),
            TensorValues::Int8(v) => integers!(v),
            TensorValues::Int16(v) => integers!(v),
            TensorValues::Int32(v) => integers!(v),
            TensorValues::Int64(v) => integers!(v),
            TensorValues::Uint8(v) => integers!(v),
            TensorValues::Uint16(v) => integers!(v),
            TensorValues::Uint32(v) => integers!(v),
            TensorValues::Uint64(v) => integers!(v),
            TensorValues::Bool(v) => integers!(v),
            TensorValues::String(_) => vec![],
        }
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
        self.values.dtype()
    }

    /// Bytes that the elements take.
    pub fn byte_len(&self) -> usize {
        let text = match &self.values {
            TensorValues::String(v) => v.iter().map(String::len).sum(),
            _ => 0,
        };
        self.values.len() * self.dtype().size() + text
    }

    /// Whether every element is a finite number, or no number at all.
    pub fn is_finite(&self) -> bool {
        match &self.values {
            TensorValues::Float32(v) => v.iter().all(|x| x.is_finite()),
            TensorValues::Float64(v) => v.iter().all(|x| x.is_finite()),
            TensorValues::Float16(v) => v.iter().all(|x| x.is_finite()),
            TensorValues::BFloat16(v) => v.iter().all(|x| x.is_finite()),
            _ => true,
        }
    }

    /// Tensors of one type joined along the first dimension; `None` when they do not fit.
    pub(crate) fn join(parts: &[&Self]) -> Option<Self> {
        let first = parts.first()?;
        let rest = first.shape.get(1..)?;
        if parts.iter().any(|part| part.shape.get(1..) != Some(rest) || part.dtype() != first.dtype()) {
            return None;
        }
        let rows = parts.iter().map(|part| part.shape[0]).sum();
        let shape = core::iter::once(rows).chain(rest.iter().copied()).collect();
        macro_rules! joined {
            ($($variant:ident),*) => {
                match first.values {
                    $(TensorValues::$variant(_) => TensorValues::$variant(
                        parts.iter().flat_map(|part| match &part.values {
                            TensorValues::$variant(v) => v.as_slice(),
                            _ => &[],
                        }).cloned().collect()
                    ),)*
                }
            };
        }
        let values = joined!(
            Float32, Float64, Float16, BFloat16, Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32, Uint64, Bool, String
        );
        Self::new(shape, values)
    }

    /// The tensor cut along the first dimension; `None` when the sizes are not those of the parts.
    pub(crate) fn split(&self, rows: &[usize]) -> Option<Vec<Self>> {
        let (total, rest) = self.shape.split_first()?;
        if rows.iter().sum::<usize>() != *total {
            return None;
        }
        let row = element_count(rest)?;
        let mut start = 0;
        let mut parts = Vec::with_capacity(rows.len());
        for count in rows {
            let range = start * row..(start + count) * row;
            macro_rules! cut {
                ($($variant:ident),*) => {
                    match &self.values {
                        $(TensorValues::$variant(v) => TensorValues::$variant(v.get(range)?.to_vec()),)*
                    }
                };
            }
            let values = cut!(
                Float32, Float64, Float16, BFloat16, Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32, Uint64, Bool,
                String
            );
            parts.push(Self::new(core::iter::once(*count).chain(rest.iter().copied()).collect(), values)?);
            start += count;
        }
        Some(parts)
    }

    /// Appends the canonical encoding: type (1 byte), rank (1 byte), dimensions (u32 each),
    /// elements; all little-endian.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.dtype().tag());
        out.push(self.shape.len() as u8);
        for dim in &self.shape {
            out.extend_from_slice(&(*dim as u32).to_le_bytes());
        }
        self.values.write(out);
    }

    /// Reads one tensor off the front of `input`.
    ///
    /// # Errors
    /// [`BadTensor`] when `input` does not begin with what [`Self::encode`] writes. Nothing larger
    /// than a small multiple of `input` is allocated.
    pub fn decode(input: &mut &[u8]) -> Result<Self, BadTensor> {
        let [tag, rank] = take(input)?;
        let mut shape = Vec::with_capacity(rank.into());
        for _ in 0..rank {
            shape.push(u32::from_le_bytes(take(input)?) as usize);
        }
        let count = element_count(&shape).ok_or(BadTensor)?;
        let dtype = DType::from_onnx(tag.into()).ok_or(BadTensor)?;
        let values = if dtype == DType::String {
            if count > input.len() / 4 {
                return Err(BadTensor);
            }
            let mut texts = Vec::with_capacity(count);
            for _ in 0..count {
                let length = u32::from_le_bytes(take(input)?) as usize;
                let (text, rest) = input.split_at_checked(length).ok_or(BadTensor)?;
                *input = rest;
                texts.push(String::from_utf8(text.to_vec()).map_err(|_| BadTensor)?);
            }
            TensorValues::String(texts)
        } else {
            let bytes = count.checked_mul(dtype.size()).filter(|n| *n <= input.len()).ok_or(BadTensor)?;
            let (data, rest) = input.split_at(bytes);
            *input = rest;
            TensorValues::from_le_bytes(dtype, data).ok_or(BadTensor)?
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
    fn encoding_round_trips_for_every_type_and_every_truncation_is_refused() {
        for dtype in DType::ALL {
            let tensor = match dtype {
                DType::String => {
                    let texts = ["", "a", "žluťoučký", "0", "\u{0}", "last"].map(str::to_owned).to_vec();
                    Tensor::new(vec![2, 3], TensorValues::String(texts))
                }
                DType::Bool => Tensor::new(vec![2, 3], TensorValues::Bool(vec![true, false, true, true, false, false])),
                dtype => {
                    let bytes: Vec<u8> = (0..6 * dtype.size()).map(|i| (i * 37 + 5) as u8).collect();
                    Tensor::new(vec![2, 3], TensorValues::from_le_bytes(dtype, &bytes).unwrap())
                }
            };
            let tensor = tensor.unwrap();
            assert_eq!(tensor.dtype(), dtype);
            let mut bytes = Vec::new();
            tensor.encode(&mut bytes);
            assert_eq!(Tensor::decode(&mut bytes.as_slice()), Ok(tensor));
            for end in 0..bytes.len() {
                assert_eq!(Tensor::decode(&mut &bytes[..end]), Err(BadTensor), "{dtype:?} {end}");
            }
        }
    }

    #[test]
    fn a_shape_that_promises_more_than_the_bytes_hold_allocates_nothing() {
        for tag in [1, 8] {
            let mut huge = vec![tag, 2];
            huge.extend_from_slice(&u32::MAX.to_le_bytes());
            huge.extend_from_slice(&u32::MAX.to_le_bytes());
            assert_eq!(Tensor::decode(&mut huge.as_slice()), Err(BadTensor));
        }
        assert_eq!(Tensor::decode(&mut [9, 1, 1, 0, 0, 0, 2].as_slice()), Err(BadTensor), "no bool");
    }

    #[test]
    fn equality_is_of_bits() {
        let floats = |x: f32| Tensor::new(vec![1], TensorValues::Float32(vec![x])).unwrap();
        assert_eq!(floats(f32::NAN), floats(f32::NAN));
        assert_ne!(floats(0.0), floats(-0.0));
    }
}
