//! The operations whose bits this engine defines itself, as an extension of Burn's [`Backend`].
//!
//! Burn's own kernels choose the order of their sums by the machine (cache sizes, FMA, threads), so
//! equal inputs can give unequal bits on two validators. Structure (reshape, permute, slice, concat,
//! select) and the single operations that IEEE 754 defines (+ − × ÷) run on Burn's primitives;
//! everything with a sum or a transcendental function is defined here, exactly:
//!
//! - **Matrix product**: element (i, j) is one chain of fused multiply-adds over k in increasing
//!   order, starting from +0.0. Vector lanes run across columns, never across k, so neither lanes
//!   nor blocking nor batch size can change a bit. A bias is added afterwards, by one addition.
//! - **Convolution**: the matrix product of the kernel (rows: output channels; k: input channel, kernel row,
//!   kernel column) with the padded patches (padding contributes a multiply-add with +0.0).
//! - **Sum**: sixteen running sums, element i into sum i mod 16, then the tree
//!   `(s[j] + s[j+8])`, `(+4)`, `(+2)`, `(+1)`. **Mean**: that sum divided by the count.
//! - **Max**: the running maximum with `a > b ? a : b`, from the first element; NaN wins.
//! - **exp**: Cody-Waite reduction and a polynomial, see [`elementwise::exp`]; results below the smallest
//!   normal number are +0.0. **tanh, log**: the `libm` crate's pure-Rust ports.
//!   **sigmoid**: `1 / (1 + exp(-x))`. **softmax**: `exp(x - max)` divided by the sum above.
//!
//! `is_x86_feature_detected!` selects machine code, not arithmetic: without FMA hardware `mul_add`
//! is slow and gives the same bits.

pub(crate) mod conv;
pub(crate) mod elementwise;
mod flex;
pub(crate) mod matmul;
pub(crate) mod reduce;

use burn_backend::{
    Backend,
    tensor::{FloatTensor, IntTensor},
};
use core::fmt;

pub(crate) use conv::{ConvGeometry, Pool, PoolKind};
pub(crate) use elementwise::Unary;
pub(crate) use reduce::Reduction;

use crate::{Tensor, TensorValues};

/// Burn's custom-kernel pattern: a backend that has our kernels.
pub(crate) trait Kernels: Backend {
    /// The right-hand side of a matrix product, laid out for the kernel.
    type Packed: Send + Sync + fmt::Debug;

    /// Lays out a row-major `[k, n]` matrix.
    fn pack(matrix: &[f32], k: usize, n: usize) -> Self::Packed;
    /// `[m, k] × [k, n] → [m, n]`.
    fn exact_matmul(lhs: FloatTensor<Self>, rhs: &Self::Packed) -> FloatTensor<Self>;
    /// `[batch, channels, height, width]` with the kernel `[out, channels / groups, kh, kw]`.
    fn exact_conv2d(
        input: FloatTensor<Self>,
        kernel: &[f32],
        bias: Option<&[f32]>,
        geometry: &ConvGeometry,
    ) -> FloatTensor<Self>;
    /// Maximum or average over windows of `[batch, channels, height, width]`.
    fn exact_pool2d(input: FloatTensor<Self>, pool: &Pool) -> FloatTensor<Self>;
    /// A function of each element.
    fn exact_unary(input: FloatTensor<Self>, function: Unary) -> FloatTensor<Self>;
    /// Softmax of each row of `[rows, n]`.
    fn exact_softmax(input: FloatTensor<Self>) -> FloatTensor<Self>;
    /// `[rows, n] → [rows]`.
    fn exact_reduce(input: FloatTensor<Self>, reduction: Reduction) -> FloatTensor<Self>;
    /// Index of the first greatest element of each row of `[rows, n]`, as `[rows]`.
    fn exact_argmax(input: FloatTensor<Self>) -> IntTensor<Self>;
    /// A host tensor as a float tensor; `None` for other element types.
    fn float_from_host(tensor: &Tensor) -> Option<FloatTensor<Self>>;
    /// A host tensor as an integer tensor; `None` for other element types.
    fn int_from_host(tensor: &Tensor) -> Option<IntTensor<Self>>;
    /// The elements, row-major.
    fn float_to_host(tensor: FloatTensor<Self>) -> TensorValues;
    /// The elements, row-major.
    fn int_to_host(tensor: IntTensor<Self>) -> TensorValues;
}
