//! Constants of a file as tensors.

use bytes::Bytes;
use half::{bf16, f16};

use super::proto::{SparseTensorProto, TensorProto};
use crate::{DType, Tensor, TensorValues, tensor::element_count};

/// Elements of one constant: 1 GiB of float32.
pub(crate) const MAX_ELEMENTS: usize = 1 << 28;

/// ONNX's names of `TensorProto.DataType`, for messages.
pub(crate) fn type_name(data_type: i32) -> String {
    const OTHERS: [(i32, &str); 11] = [
        (0, "undefined"),
        (14, "complex64"),
        (15, "complex128"),
        (17, "float8e4m3fn"),
        (18, "float8e4m3fnuz"),
        (19, "float8e5m2"),
        (20, "float8e5m2fnuz"),
        (21, "uint4"),
        (22, "int4"),
        (23, "float4e2m1"),
        (24, "float8e8m0"),
    ];
    if let Some(dtype) = DType::from_onnx(data_type) {
        return dtype.name().to_owned();
    }
    OTHERS
        .iter()
        .find(|(number, _)| *number == data_type)
        .map_or_else(|| format!("type {data_type}"), |(_, name)| (*name).to_owned())
}

/// The element type of a number of the file.
///
/// # Errors
/// Names the type when the engine has it not.
pub(crate) fn read_dtype(data_type: i32) -> Result<DType, String> {
    DType::from_onnx(data_type).ok_or_else(|| format!("element type {} is not supported", type_name(data_type)))
}

/// The shape of a constant, and its elements.
pub(crate) fn read_shape(dims: &[i64]) -> Result<(Vec<usize>, usize), String> {
    if dims.len() > 64 {
        return Err(format!("it has {} dimensions; at most 64 are allowed", dims.len()));
    }
    let shape = dims
        .iter()
        .map(|dim| usize::try_from(*dim).map_err(|_| format!("negative dimension {dim}")))
        .collect::<Result<Vec<_>, _>>()?;
    // Dimensions beside one of zero are bounded like any others: something may loop over them.
    let largest: Vec<usize> = shape.iter().map(|dim| (*dim).max(1)).collect();
    let count = element_count(&largest).filter(|count| *count <= MAX_ELEMENTS).and_then(|_| element_count(&shape));
    let count = count.ok_or_else(|| format!("shape {shape:?} has more than {MAX_ELEMENTS} elements"))?;
    Ok((shape, count))
}

/// Reads a tensor whose elements are in the file.
///
/// # Errors
/// What is wrong with it.
pub fn read_tensor(proto: &TensorProto) -> Result<Tensor, String> {
    if proto.data_location == Some(1) {
        return Err("its data is in another file: give the model as a path, so that the file beside it is found".into());
    }
    let dtype = read_dtype(proto.data_type)?;
    let (shape, count) = read_shape(&proto.dims)?;
    let values = match &proto.raw_data {
        Some(raw) if dtype == DType::String && (!raw.is_empty() || count > 0) => {
            return Err("strings cannot be raw bytes".into());
        }
        Some(raw) if raw.len() != count * dtype.size() && dtype != DType::String => {
            return Err(format!("shape {shape:?} does not fit its {} bytes", raw.len()));
        }
        Some(raw) => TensorValues::from_le_bytes(dtype, raw).ok_or("a bool is neither 0 nor 1")?,
        None => from_fields(dtype, proto)?,
    };
    let found = values.len();
    Tensor::new(shape.clone(), values).ok_or_else(|| format!("shape {shape:?} does not fit its {found} elements"))
}

/// Elements in the field that the schema names for their type.
fn from_fields(dtype: DType, proto: &TensorProto) -> Result<TensorValues, String> {
    macro_rules! narrow {
        ($variant:ident, $field:expr, $t:ty) => {
            $field
                .iter()
                .map(|x| <$t>::try_from(*x).map_err(|_| format!("{x} is no {}", dtype.name())))
                .collect::<Result<_, _>>()
                .map(TensorValues::$variant)
        };
    }
    let words = || proto.int32_data.iter().map(|x| *x as u16); // the lower half, as the schema says
    match dtype {
        DType::Float32 => Ok(TensorValues::Float32(proto.float_data.clone())),
        DType::Float64 => Ok(TensorValues::Float64(proto.double_data.clone())),
        DType::Float16 => Ok(TensorValues::Float16(words().map(f16::from_bits).collect())),
        DType::BFloat16 => Ok(TensorValues::BFloat16(words().map(bf16::from_bits).collect())),
        DType::Int8 => narrow!(Int8, proto.int32_data, i8),
        DType::Int16 => narrow!(Int16, proto.int32_data, i16),
        DType::Int32 => Ok(TensorValues::Int32(proto.int32_data.clone())),
        DType::Int64 => Ok(TensorValues::Int64(proto.int64_data.clone())),
        DType::Uint8 => narrow!(Uint8, proto.int32_data, u8),
        DType::Uint16 => narrow!(Uint16, proto.int32_data, u16),
        DType::Uint32 => narrow!(Uint32, proto.uint64_data, u32),
        DType::Uint64 => Ok(TensorValues::Uint64(proto.uint64_data.clone())),
        DType::Bool => Ok(TensorValues::Bool(proto.int32_data.iter().map(|x| *x != 0).collect())),
        DType::String => proto
            .string_data
            .iter()
            .map(|bytes| String::from_utf8(bytes.to_vec()).map_err(|_| "a string is not UTF-8".to_owned()))
            .collect::<Result<_, _>>()
            .map(TensorValues::String),
    }
}

/// Writes a tensor as the schema has it.
pub fn write_tensor(name: &str, tensor: &Tensor) -> TensorProto {
    let mut proto = TensorProto {
        name: name.to_owned(),
        dims: tensor.shape().iter().map(|dim| *dim as i64).collect(),
        data_type: tensor.dtype().onnx(),
        ..Default::default()
    };
    match tensor.values() {
        TensorValues::String(texts) => {
            proto.string_data = texts.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect();
        }
        values => proto.raw_data = Some(values.bytes().into()),
    }
    proto
}

/// A sparse tensor, written out. `reserve` says whether so many bytes may be taken for it: a few in a file are any number.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read_sparse(proto: &SparseTensorProto, reserve: impl Fn(u64) -> bool) -> Result<Tensor, String> {
    let (Some(values), Some(indices)) = (&proto.values, &proto.indices) else {
        return Err("a sparse tensor has values and indices".into());
    };
    let (values, indices) = (read_tensor(values)?, read_tensor(indices)?);
    let (shape, count) = read_shape(&proto.dims)?;
    // A text takes some bytes, though it is empty.
    let each = if values.dtype() == DType::String { size_of::<String>() } else { values.dtype().size() };
    if !reserve(count as u64 * each as u64) {
        return Err("written out, the model's sparse tensors are too large".into());
    }
    let TensorValues::Int64(indices_flat) = indices.values() else { return Err("indices are int64".into()) };
    let rank = if indices.shape().len() == 2 { shape.len() } else { 1 };
    if indices_flat.len() != values.values().len() * rank {
        return Err("there must be one index for each value".into());
    }
    let positions = indices_flat.chunks_exact(rank.max(1)).map(|index| {
        let flat = if rank == 1 && indices.shape().len() != 2 {
            usize::try_from(index[0]).ok()
        } else {
            index.iter().zip(&shape).try_fold(0usize, |flat, (i, dim)| {
                let i = usize::try_from(*i).ok().filter(|i| i < dim)?;
                Some(flat * dim + i)
            })
        };
        flat.filter(|flat| *flat < count).ok_or_else(|| "an index is out of bounds".to_owned())
    });
    let positions = positions.collect::<Result<Vec<_>, _>>()?;
    let mut dense = Tensor::zeros(values.dtype(), shape.clone()).ok_or("it is too large")?.into_values();
    macro_rules! scatter {
        ($($variant:ident),*) => {
            match (&mut dense, values.values()) {
                $((TensorValues::$variant(out), TensorValues::$variant(values)) => {
                    positions.iter().zip(values).for_each(|(at, x)| out[*at] = x.clone());
                })*
                _ => {}
            }
        };
    }
    scatter!(
        Float32, Float64, Float16, BFloat16, Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32, Uint64, Bool, String
    );
    Tensor::new(shape, dense).ok_or_else(|| "it is too large".to_owned())
}
