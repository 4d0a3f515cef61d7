//! NonMaxSuppression.

use crate::{
    DType,
    engine::{
        array::Array,
        cx::{Cx, Inputs, Stop},
        ops::single,
        program::Eval,
        value::Value,
    },
    onnx::Node,
};

/// Cost of a suppression while a program is traced above which a run must do it.
const MAX_TRACE_OPS: u64 = 1_000_000_000;

pub(super) fn non_max_suppression(node: &Node<'_>) -> Result<Eval, String> {
    let centered = match node.int("center_point_box", 0) {
        0 => false,
        1 => true,
        other => return Err(format!("its center_point_box is {other}")),
    };
    single(move |cx, inputs| suppress(cx, inputs, centered))
}

/// How many boxes are left is known only when they are chosen, so that every input must be there.
fn suppress(cx: &mut Cx<'_>, inputs: &Inputs<'_>, centered: bool) -> Result<Value, Stop> {
    let (boxes, scores) = (floats(inputs, 0)?, floats(inputs, 1)?);
    let ([batches, count, 4], [score_batches, classes, scored]) = (boxes.shape(), scores.shape()) else {
        return Err(format!("it takes no shapes {:?} and {:?}", boxes.shape(), scores.shape()).into());
    };
    if batches != score_batches || count != scored {
        return Err(format!("boxes {:?} do not fit scores {:?}", boxes.shape(), scores.shape()).into());
    }
    let most = inputs.int(2)?.unwrap_or(0).max(0);
    let most = usize::try_from(most).unwrap_or(usize::MAX).min(*count);
    let overlap = threshold(inputs, 3)?.unwrap_or(0.0);
    if !(0.0..=1.0).contains(&overlap) {
        return Err(format!("its iou_threshold is {overlap}").into());
    }
    let least = threshold(inputs, 4)?;
    // Sorting, then every box against every chosen one.
    let rows = (*batches as u64).saturating_mul(*classes as u64);
    let ops = rows.saturating_mul(*count as u64).saturating_mul(800 + 60 * most as u64);
    let ops = ops.saturating_add(rows.saturating_mul(4000));
    let ops = ops.saturating_add((*batches as u64).saturating_mul(*count as u64).saturating_mul(60));
    if cx.is_tracing() && ops > MAX_TRACE_OPS {
        return Err(Stop::DataDependent("how many boxes are left depends on their elements".to_owned()));
    }
    cx.labour(ops)?;
    cx.scratch(rows.saturating_mul(most as u64).saturating_add(*count as u64).saturating_mul(24))?;
    let chosen = if most == 0 || rows == 0 {
        vec![]
    } else {
        let all: Vec<Corners> =
            boxes.values::<f32>().as_chunks::<4>().0.iter().map(|sides| Corners::new(*sides, centered)).collect();
        let scores = scores.values::<f32>();
        let mut chosen = Vec::new();
        for (row, scores) in scores.chunks_exact((*count).max(1)).enumerate() {
            let (batch, class) = (row / (*classes).max(1), row % (*classes).max(1));
            let boxes = all.get(batch * count..).unwrap_or_default();
            for index in select(boxes, scores, most, overlap, least) {
                chosen.extend([batch as i64, class as i64, index as i64]);
            }
        }
        chosen
    };
    cx.emit::<i64>(inputs, DType::Int64, vec![chosen.len() / 3, 3], 0, || Ok(chosen))
}

fn floats<'v>(inputs: &Inputs<'v>, index: usize) -> Result<&'v Array, Stop> {
    let array = inputs.array(index)?;
    if array.dtype() == DType::Float32 { Ok(array) } else { Err(Stop::unsupported(array.dtype())) }
}

fn threshold(inputs: &Inputs<'_>, index: usize) -> Result<Option<f32>, Stop> {
    if !inputs.has(index) {
        return Ok(None);
    }
    // An empty tensor is as good as none.
    let array = floats(inputs, index)?;
    if array.count() > 1 {
        return Err(Stop::invalid("a threshold must be one number"));
    }
    Ok(array.values::<f32>().first().copied())
}

/// The boxes that are left for one class, by descending score; of equal scores the lower index is first. A score that
/// is no number is chosen never.
fn select(boxes: &[Corners], scores: &[f32], most: usize, overlap: f32, least: Option<f32>) -> Vec<usize> {
    let mut candidates: Vec<(f32, &Corners, usize)> = scores
        .iter()
        .zip(boxes)
        .enumerate()
        .map(|(index, (score, corners))| (*score, corners, index))
        .filter(|(score, _, _)| !score.is_nan() && least.is_none_or(|least| *score > least))
        .collect();
    // −0 and 0 are equal; the sort keeps the order of equal ones.
    candidates.sort_by(|a, b| b.0.partial_cmp(&a.0).unwrap_or(core::cmp::Ordering::Equal));
    let mut chosen: Vec<(&Corners, usize)> = Vec::new();
    for (_, corners, index) in candidates {
        if chosen.len() >= most {
            break;
        }
        if !chosen.iter().any(|(other, _)| corners.overlaps(other, overlap)) {
            chosen.push((corners, index));
        }
    }
    chosen.into_iter().map(|(_, index)| index).collect()
}

/// A box by its sides.
#[derive(Debug, Clone, Copy)]
struct Corners {
    x: (f32, f32),
    y: (f32, f32),
}

impl Corners {
    fn new([a, b, c, d]: [f32; 4], centered: bool) -> Self {
        let ordered = |a: f32, b: f32| if a >= b { (b, a) } else { (a, b) };
        if centered {
            // The center, width and height.
            let around = |center: f32, size: f32| (center - size / 2.0, center + size / 2.0);
            Self { x: around(a, c), y: around(b, d) }
        } else {
            // Two opposite corners, each y first.
            Self { x: ordered(b, d), y: ordered(a, c) }
        }
    }

    /// Whether intersection over union is more than a threshold, computed in float32.
    fn overlaps(&self, other: &Self, threshold: f32) -> bool {
        let common = |a: (f32, f32), b: (f32, f32)| a.1.min(b.1) - a.0.max(b.0);
        let (width, height) = (common(self.x, other.x), common(self.y, other.y));
        if !(width > 0.0 && height > 0.0) {
            return false;
        }
        let area = |c: &Self| (c.x.1 - c.x.0) * (c.y.1 - c.y.0);
        let (intersection, first, second) = (width * height, area(self), area(other));
        let union = first + second - intersection;
        intersection > 0.0 && first > 0.0 && second > 0.0 && union > 0.0 && intersection / union > threshold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_scores_keep_their_order_and_no_number_is_not_chosen() {
        let apart = |i: usize| Corners::new([i as f32, 0.0, i as f32 + 1.0, 1.0], false);
        let boxes: Vec<Corners> = (0..5).map(apart).collect();
        let scores = [0.5, f32::NAN, 0.9, 0.5, 0.1];
        assert_eq!(select(&boxes, &scores, 9, 0.5, None), [2, 0, 3, 4]);
        assert_eq!(select(&boxes, &scores, 2, 0.5, None), [2, 0]);
        assert_eq!(select(&boxes, &scores, 9, 0.5, Some(0.5)), [2]);
    }

    #[test]
    fn boxes_of_no_numbers_suppress_nothing() {
        let broken = Corners::new([f32::NAN, f32::INFINITY, 0.0, f32::NEG_INFINITY], true);
        assert!(!broken.overlaps(&broken, 0.0));
    }
}
