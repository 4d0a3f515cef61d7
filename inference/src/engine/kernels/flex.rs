//! The kernels on Burn's CPU backend.

use burn_backend::{
    TensorData, TensorMetadata,
    tensor::{FloatTensor, IntTensor},
};
use burn_flex::{Flex, FlexTensor};

use super::{ConvGeometry, Kernels, Pool, Reduction, Unary, conv, matmul, reduce};
use crate::{Tensor, TensorValues};

impl Kernels for Flex {
    type Packed = matmul::Packed;

    fn pack(matrix: &[f32], k: usize, n: usize) -> Self::Packed {
        matmul::Packed::new(matrix, k, n)
    }

    fn exact_matmul(lhs: FloatTensor<Self>, rhs: &Self::Packed) -> FloatTensor<Self> {
        let rows = lhs.shape()[0];
        let mut out = vec![0.0; rows * rhs.columns()];
        with_floats(lhs, |lhs| matmul::matmul(lhs, rhs, &mut out));
        tensor(out, vec![rows, rhs.columns()])
    }

    fn exact_conv2d(
        input: FloatTensor<Self>,
        kernel: &[f32],
        bias: Option<&[f32]>,
        geometry: &ConvGeometry,
    ) -> FloatTensor<Self> {
        let out = with_floats(input, |input| conv::conv2d(input, kernel, bias, geometry));
        tensor(out, geometry.output.to_vec())
    }

    fn exact_pool2d(input: FloatTensor<Self>, pool: &Pool) -> FloatTensor<Self> {
        let out = with_floats(input, |input| conv::pool2d(input, pool));
        tensor(out, pool.output.to_vec())
    }

    fn exact_unary(input: FloatTensor<Self>, function: Unary) -> FloatTensor<Self> {
        let shape = input.shape().to_vec();
        let out = with_floats(input, |input| input.iter().map(|x| function.of(*x)).collect());
        tensor(out, shape)
    }

    fn exact_softmax(input: FloatTensor<Self>) -> FloatTensor<Self> {
        let shape = input.shape().to_vec();
        let mut out = with_floats(input, <[f32]>::to_vec);
        out.chunks_exact_mut(shape[1].max(1)).for_each(reduce::softmax);
        tensor(out, shape)
    }

    fn exact_reduce(input: FloatTensor<Self>, reduction: Reduction) -> FloatTensor<Self> {
        let n = input.shape()[1].max(1);
        let out: Vec<f32> = with_floats(input, |input| input.chunks_exact(n).map(|row| reduction.of(row)).collect());
        let rows = out.len();
        tensor(out, vec![rows])
    }

    fn exact_argmax(input: FloatTensor<Self>) -> IntTensor<Self> {
        let n = input.shape()[1].max(1);
        let out: Vec<i64> = with_floats(input, |input| input.chunks_exact(n).map(reduce::argmax).collect());
        let rows = out.len();
        FlexTensor::from_data(TensorData::new(out, vec![rows]))
    }

    fn float_from_host(host: &Tensor) -> Option<FloatTensor<Self>> {
        match host.values() {
            TensorValues::Float32(v) => Some(tensor(v.clone(), host.shape().to_vec())),
            TensorValues::Int64(_) => None,
        }
    }

    fn int_from_host(host: &Tensor) -> Option<IntTensor<Self>> {
        match host.values() {
            TensorValues::Float32(_) => None,
            TensorValues::Int64(v) => Some(FlexTensor::from_data(TensorData::new(v.clone(), host.shape().to_vec()))),
        }
    }

    fn float_to_host(tensor: FloatTensor<Self>) -> TensorValues {
        TensorValues::Float32(with_floats(tensor, <[f32]>::to_vec))
    }

    fn int_to_host(tensor: IntTensor<Self>) -> TensorValues {
        let tensor = tensor.to_contiguous();
        TensorValues::Int64(tensor.as_slice::<i64>().unwrap_or_default().to_vec())
    }
}

fn tensor(values: Vec<f32>, shape: Vec<usize>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// The elements of a float32 tensor, row-major.
fn with_floats<R>(tensor: FlexTensor, f: impl FnOnce(&[f32]) -> R) -> R {
    let tensor = if tensor.is_contiguous() { tensor } else { tensor.to_contiguous() };
    // Every float tensor of the engine is float32: `as_slice` cannot fail on a contiguous one.
    f(tensor.as_slice::<f32>().unwrap_or_default())
}
