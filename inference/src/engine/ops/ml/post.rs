//! What classifiers and regressors do to their scores last (`post_transform`).
//!
//! Formulas and order of operations are those of onnxruntime's `ml_common.h`.

use crate::engine::numeric::Wide;

/// A transformation of the scores of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transform {
    None,
    Logistic,
    Softmax,
    /// A softmax that leaves scores of zero at zero.
    SoftmaxZero,
    Probit,
}

impl Transform {
    pub(super) fn of_name(name: &str) -> Result<Self, String> {
        Ok(match name {
            "NONE" => Self::None,
            "LOGISTIC" => Self::Logistic,
            "SOFTMAX" => Self::Softmax,
            "SOFTMAX_ZERO" => Self::SoftmaxZero,
            "PROBIT" => Self::Probit,
            other => return Err(format!("there is no post_transform `{other}`")),
        })
    }

    /// Cost of one score in ops.
    pub(super) fn ops(self) -> u64 {
        match self {
            Self::None => 1,
            Self::Logistic => 32,
            Self::Softmax | Self::SoftmaxZero => 40,
            Self::Probit => 320,
        }
    }

    /// Transforms two scores or more.
    pub(super) fn apply<W: Wide>(self, scores: &mut [W]) {
        match self {
            Self::None => {}
            Self::Logistic => scores.iter_mut().for_each(|x| *x = logistic(*x)),
            Self::Softmax => softmax(scores),
            Self::SoftmaxZero => softmax_zero(scores),
            Self::Probit => scores.iter_mut().for_each(|x| *x = probit(*x)),
        }
    }

    /// Transforms an only score: nothing but PROBIT changes it.
    pub(super) fn apply_single<W: Wide>(self, score: W) -> W {
        if self == Self::Probit { probit(score) } else { score }
    }

    /// The scores of both classes from the positive one's: LOGISTIC is taken of the score and its opposite, NONE and the
    /// softmaxes leave it and its complement. (PROBIT leaves onnxruntime's second score to chance; the probit of the
    /// complement is the opposite of the probit.)
    pub(super) fn pair<W: Wide>(self, score: W, complement: impl Fn(W) -> W) -> [W; 2] {
        match self {
            Self::Logistic => [logistic(score.negated()), logistic(score)],
            Self::Probit => {
                let score = probit(score);
                [score.negated(), score]
            }
            Self::None | Self::Softmax | Self::SoftmaxZero => [complement(score), score],
        }
    }
}

/// 1 / (1 + e^−x), from e^−|x|, which does not overflow.
pub(super) fn logistic<W: Wide>(x: W) -> W {
    let y = W::ONE.over(W::ONE.plus(x.magnitude().negated().exp()));
    if x < W::ZERO { W::ONE.minus(y) } else { y }
}

/// The quantile function of the normal distribution, by Winitzki's approximation of erf⁻¹.
fn probit<W: Wide>(x: W) -> W {
    let of = W::from_f64;
    let two = of(2.0);
    let x = two.times(x).minus(W::ONE);
    let log = W::ONE.minus(x).times(W::ONE.plus(x)).log();
    let v = two.over(of(core::f64::consts::PI).times(of(0.147))).plus(of(0.5).times(log));
    let w = W::ONE.over(of(0.147)).times(log);
    let root = v.negated().plus(v.times(v).minus(w).sqrt()).sqrt();
    let inverse = if x < W::ZERO { root.negated() } else { root };
    of(core::f64::consts::SQRT_2).times(inverse)
}

fn greatest<W: Wide>(scores: &[W]) -> W {
    scores.iter().fold(W::from_f64(-f64::from(f32::MAX)), |max, x| if *x > max { *x } else { max })
}

fn softmax<W: Wide>(scores: &mut [W]) {
    let max = greatest(scores);
    let mut sum = W::ZERO;
    for x in scores.iter_mut() {
        *x = x.minus(max).exp();
        sum = sum.plus(*x);
    }
    scores.iter_mut().for_each(|x| *x = x.over(sum));
}

/// Scores within 1e-7 of zero are not part of the sum; if all are, the result is NaN.
fn softmax_zero<W: Wide>(scores: &mut [W]) {
    let max = greatest(scores);
    let scale = max.negated().exp();
    let small = W::from_f64(0.000_000_1);
    let mut sum = W::ZERO;
    for x in scores.iter_mut() {
        if *x > small || *x < small.negated() {
            *x = x.minus(max).exp();
            sum = sum.plus(*x);
        } else {
            *x = x.times(scale);
        }
    }
    scores.iter_mut().for_each(|x| *x = x.over(sum));
}
