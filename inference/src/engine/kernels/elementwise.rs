//! Functions of one element. See the [module above](super) for their bits.

/// A function of one float32.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Unary {
    Relu,
    LeakyRelu(f32),
    Sigmoid,
    Tanh,
    Exp,
    Log,
    Sqrt,
    Neg,
    Abs,
    /// Lower and upper bound; NaN passes.
    Clip(f32, f32),
}

impl Unary {
    /// Cost of one element in ops.
    pub(crate) fn ops(self) -> u64 {
        match self {
            Self::Sigmoid | Self::Tanh | Self::Exp | Self::Log => 16,
            Self::Sqrt => 4,
            _ => 1,
        }
    }

    pub(crate) fn of(self, x: f32) -> f32 {
        match self {
            // Comparisons rather than f32::max, whose NaN and signed-zero rules are loose.
            Self::Relu if x < 0.0 => 0.0,
            Self::Relu => x,
            Self::LeakyRelu(slope) if x < 0.0 => x * slope,
            Self::LeakyRelu(_) => x,
            Self::Sigmoid => 1.0 / (1.0 + exp(-x)),
            Self::Tanh => libm::tanhf(x),
            Self::Exp => exp(x),
            Self::Log => libm::logf(x),
            Self::Sqrt => x.sqrt(),
            Self::Neg => -x,
            Self::Abs => x.abs(),
            Self::Clip(low, _) if x < low => low,
            Self::Clip(_, high) if x > high => high,
            Self::Clip(..) => x,
        }
    }
}

/// e^x: n = round(x / ln 2) by adding and subtracting 1.5·2^23; r = x − n·ln 2 in two steps
/// (Cody and Waite); the polynomial of Cephes' `expf` in Horner form with fused multiply-adds;
/// scaled by 2^n in two exact steps. Above 88.72284 infinity, below −87.33654 zero.
pub(crate) fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const COEFFICIENTS: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1];
    if x > 88.722_84 {
        return f32::INFINITY;
    }
    if x < -87.336_54 {
        return 0.0;
    }
    let n = x.mul_add(core::f32::consts::LOG2_E, MAGIC) - MAGIC;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let p = COEFFICIENTS[1..].iter().fold(COEFFICIENTS[0], |p, c| p.mul_add(r, *c));
    let y = p.mul_add(r * r, r) + 1.0;
    let half = (n as i32) >> 1;
    y * power_of_two(half) * power_of_two(n as i32 - half)
}

/// 2^n for |n| < 127.
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n + 127) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let mut worst = 0;
        for i in -87_000..88_700 {
            let x = i as f32 / 1000.0;
            let exact = f64::from(x).exp() as f32;
            worst = worst.max(exp(x).to_bits().abs_diff(exact.to_bits()));
        }
        assert!(worst <= 2, "{worst}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!((exp(-100.0), exp(100.0)), (0.0, f32::INFINITY));
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn exp_is_pinned() {
        // Equal on every machine; a change of these bits is a change of ENGINE_VERSION.
        let hash =
            (-8000..8000).fold(0u64, |h, i| h.wrapping_mul(31).wrapping_add(exp(i as f32 / 97.0).to_bits().into()));
        assert_eq!(hash, 10_576_489_477_687_531_499);
    }

    #[test]
    fn relu_keeps_nan_and_clip_keeps_its_bounds() {
        assert!(Unary::Relu.of(f32::NAN).is_nan());
        assert_eq!(Unary::Relu.of(-1.0).to_bits(), 0);
        assert_eq!([-5.0, 0.5, 5.0].map(|x| Unary::Clip(0.0, 1.0).of(x)), [0.0, 0.5, 1.0]);
    }
}
