//! Functions of each element of a slice.

use super::vectorized;
use crate::engine::numeric::Wide;

/// A function of one fraction. Parameters are float32 as in the file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Unary {
    Relu,
    /// Slope below zero.
    LeakyRelu(f32),
    /// Least and greatest value; NaN passes.
    Clip(f32, f32),
    Sigmoid,
    Tanh,
    Exp,
    Log,
    Sqrt,
    Erf,
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Asinh,
    Acosh,
    Atanh,
    Floor,
    Ceil,
    Round,
    Reciprocal,
    Softplus,
    Softsign,
    HardSigmoid(f32, f32),
    HardSwish,
    Elu(f32),
    Celu(f32),
    /// Alpha and gamma.
    Selu(f32, f32),
    Gelu,
    GeluTanh,
    Mish,
    Swish(f32),
    ThresholdedRelu(f32),
    Affine(f32, f32),
    ScaledTanh(f32, f32),
}

impl Unary {
    /// Cost of one element in ops.
    pub(crate) fn ops(self) -> u64 {
        match self {
            Self::Relu | Self::LeakyRelu(_) | Self::Clip(..) | Self::ThresholdedRelu(_) | Self::Affine(..) => 1,
            Self::Floor | Self::Ceil | Self::Round | Self::HardSigmoid(..) | Self::HardSwish => 2,
            Self::Sqrt | Self::Reciprocal | Self::Softsign => 4,
            Self::Sigmoid | Self::Tanh | Self::Exp | Self::Erf | Self::Gelu | Self::GeluTanh | Self::Swish(_) => 24,
            _ => 300,
        }
    }

    /// The function.
    #[inline(always)]
    pub(crate) fn of<W: Wide>(self, x: W) -> W {
        let zero = W::ZERO;
        let one = W::ONE;
        let of = |x: f32| W::from_f64(x.into());
        match self {
            // Comparisons rather than `max`, whose NaN and signed-zero rules are loose.
            Self::Relu => {
                if x < zero {
                    zero
                } else {
                    x
                }
            }
            Self::LeakyRelu(slope) => {
                if x < zero {
                    x.times(of(slope))
                } else {
                    x
                }
            }
            Self::Clip(low, high) => {
                let x = if x < of(low) { of(low) } else { x };
                if x > of(high) { of(high) } else { x }
            }
            Self::Sigmoid => sigmoid(x),
            Self::Tanh => x.tanh(),
            Self::Exp => x.exp(),
            Self::Log => x.log(),
            Self::Sqrt => x.sqrt(),
            Self::Erf => x.erf(),
            Self::Sin => x.sin(),
            Self::Cos => x.cos(),
            Self::Tan => x.tan(),
            Self::Asin => x.asin(),
            Self::Acos => x.acos(),
            Self::Atan => x.atan(),
            Self::Sinh => x.sinh(),
            Self::Cosh => x.cosh(),
            Self::Asinh => x.asinh(),
            Self::Acosh => x.acosh(),
            Self::Atanh => x.atanh(),
            Self::Floor => x.floor(),
            Self::Ceil => x.ceil(),
            Self::Round => x.round(),
            Self::Reciprocal => one.over(x),
            Self::Softplus => softplus(x),
            Self::Softsign => x.over(one.plus(x.magnitude())),
            Self::HardSigmoid(alpha, beta) => hard_sigmoid(x, of(alpha), of(beta)),
            Self::HardSwish => x.times(hard_sigmoid(x, W::from_f64(1.0 / 6.0), W::from_f64(0.5))),
            Self::Elu(alpha) => {
                if x < zero {
                    of(alpha).times(x.expm1())
                } else {
                    x
                }
            }
            Self::Celu(alpha) => {
                if x < zero {
                    of(alpha).times(x.over(of(alpha)).expm1())
                } else {
                    x
                }
            }
            Self::Selu(alpha, gamma) => {
                if x > zero {
                    of(gamma).times(x)
                } else {
                    of(gamma).times(of(alpha).times(x.expm1()))
                }
            }
            Self::Gelu => {
                let half = W::from_f64(0.5);
                let scaled = x.times(W::from_f64(core::f64::consts::FRAC_1_SQRT_2));
                half.times(x).times(one.plus(scaled.erf()))
            }
            Self::GeluTanh => {
                let cube = x.times(x).times(x);
                let inner = cube.fma(W::from_f64(0.044_715), x).times(W::from_f64(0.797_884_560_802_865_4));
                W::from_f64(0.5).times(x).times(one.plus(inner.tanh()))
            }
            Self::Mish => x.times(softplus(x).tanh()),
            Self::Swish(alpha) => x.times(sigmoid(of(alpha).times(x))),
            Self::ThresholdedRelu(alpha) => {
                if x > of(alpha) {
                    x
                } else {
                    zero
                }
            }
            Self::Affine(alpha, beta) => of(alpha).times(x).plus(of(beta)),
            Self::ScaledTanh(alpha, beta) => of(alpha).times(of(beta).times(x).tanh()),
        }
    }
}

#[inline(always)]
fn sigmoid<W: Wide>(x: W) -> W {
    W::ONE.over(W::ONE.plus(x.negated().exp()))
}

/// log(1 + e^x), as max(x, 0) + log1p(e^−|x|).
#[inline(always)]
fn softplus<W: Wide>(x: W) -> W {
    let positive = if x > W::ZERO { x } else { W::ZERO };
    let y = positive.plus(x.magnitude().negated().exp().log1p());
    if x.is_nan() { x } else { y }
}

#[inline(always)]
fn hard_sigmoid<W: Wide>(x: W, alpha: W, beta: W) -> W {
    let y = alpha.times(x).plus(beta);
    let y = if y > W::ONE { W::ONE } else { y };
    if y < W::ZERO { W::ZERO } else { y }
}

vectorized! {
    /// Applies a function to each element.
    pub(crate) fn apply(f: Unary, values: &mut [f32]) {
        // One loop for each function that vectorizes: a function that is chosen inside a loop does not.
        macro_rules! each {
            ($f:expr) => { for x in values.iter_mut() { *x = $f.of(*x); } };
        }
        match f {
            Unary::Relu => each!(Unary::Relu),
            Unary::LeakyRelu(slope) => each!(Unary::LeakyRelu(slope)),
            Unary::Clip(low, high) => each!(Unary::Clip(low, high)),
            Unary::Sigmoid => each!(Unary::Sigmoid),
            Unary::Tanh => each!(Unary::Tanh),
            Unary::Exp => each!(Unary::Exp),
            Unary::Sqrt => each!(Unary::Sqrt),
            Unary::Erf => each!(Unary::Erf),
            Unary::Floor => each!(Unary::Floor),
            Unary::Ceil => each!(Unary::Ceil),
            Unary::Round => each!(Unary::Round),
            Unary::Reciprocal => each!(Unary::Reciprocal),
            Unary::HardSigmoid(a, b) => each!(Unary::HardSigmoid(a, b)),
            Unary::HardSwish => each!(Unary::HardSwish),
            Unary::Gelu => each!(Unary::Gelu),
            Unary::GeluTanh => each!(Unary::GeluTanh),
            Unary::Swish(alpha) => each!(Unary::Swish(alpha)),
            other => each!(other),
        }
    }
}
