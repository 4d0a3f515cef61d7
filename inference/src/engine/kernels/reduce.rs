//! Sums, means, maxima and softmax of rows. See the [module above](super) for their bits.

use super::elementwise::exp;

/// Running sums of one row.
const LANES: usize = 16;

/// What a row becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reduction {
    Sum,
    Mean,
    Max,
    Min,
}

impl Reduction {
    pub(crate) fn of(self, row: &[f32]) -> f32 {
        match self {
            Self::Sum => sum(row),
            Self::Mean => sum(row) / row.len() as f32,
            Self::Max => max(row),
            Self::Min => -row.iter().fold(f32::NEG_INFINITY, |best, x| greater(best, -*x)),
        }
    }
}

pub(crate) fn sum(row: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for chunk in row.chunks(LANES) {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += x;
        }
    }
    let mut half = LANES / 2;
    while half > 0 {
        for j in 0..half {
            lanes[j] += lanes[j + half];
        }
        half /= 2;
    }
    lanes[0]
}

fn max(row: &[f32]) -> f32 {
    row.iter().fold(f32::NEG_INFINITY, |best, x| greater(best, *x))
}

fn greater(best: f32, x: f32) -> f32 {
    if best.is_nan() || best >= x { best } else { x }
}

/// The index of the first greatest element; NaN counts as greater than every number.
pub(crate) fn argmax(row: &[f32]) -> i64 {
    let mut best = 0;
    for (i, x) in row.iter().enumerate() {
        if *x > row[best] || (x.is_nan() && !row[best].is_nan()) {
            best = i;
        }
    }
    best as i64
}

pub(crate) fn softmax(row: &mut [f32]) {
    let max = max(row);
    row.iter_mut().for_each(|x| *x = exp(*x - max));
    let sum = sum(row);
    row.iter_mut().for_each(|x| *x /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_use_sixteen_lanes_and_a_fixed_tree() {
        // 2^24 absorbs a single 1.0, but not the 1.0 that meets it as part of another lane's sum.
        let mut row = vec![1.0f32; 64];
        row[0] = 16_777_216.0;
        assert_eq!(sum(&row), 16_777_276.0);
        assert_eq!(sum(&[]), 0.0);
    }

    #[test]
    fn nan_wins_a_maximum_and_ties_keep_the_first_index() {
        assert!(Reduction::Max.of(&[1.0, f32::NAN, 2.0]).is_nan());
        assert_eq!(Reduction::Min.of(&[1.0, -3.0, 2.0]), -3.0);
        assert_eq!(argmax(&[1.0, 5.0, 5.0]), 1);
        assert_eq!(argmax(&[1.0, f32::NAN, 5.0]), 1);
    }

    #[test]
    fn softmax_sums_to_one() {
        let mut row = [1.0, 2.0, 3.0, -100.0];
        softmax(&mut row);
        assert!((sum(&row) - 1.0).abs() < 1e-6);
        assert!(row[2] > row[1] && row[1] > row[0]);
    }
}
