//! Windows and mel weights, computed in float64 and converted once to the type that is asked for.

use crate::{
    DType,
    engine::{
        array::Array,
        cx::{Cx, Inputs, Stop},
        numeric::{Wide, cast},
        ops::single,
        program::Eval,
        value::{Value, count},
    },
    onnx::{Node, constants::read_dtype},
};

/// The type of the output: any number.
fn output_type(node: &Node<'_>) -> Result<DType, String> {
    let number = node.int("output_datatype", 1);
    let dtype = read_dtype(i32::try_from(number).map_err(|_| format!("its output_datatype is {number}"))?)?;
    match dtype {
        DType::Bool | DType::String => Err(format!("its output_datatype is {}", dtype.name())),
        dtype => Ok(dtype),
    }
}

/// One size, of which an output's shape is made.
fn length(inputs: &Inputs<'_>, index: usize) -> Result<usize, Stop> {
    let value = inputs.int(index)?.ok_or_else(|| Stop::invalid(format!("its input {index} is missing")))?;
    u32::try_from(value).map(|n| n as usize).map_err(|_| Stop::invalid(format!("{value} is no size")))
}

/// Emits an array that is computed in float64.
fn emit(
    cx: &mut Cx<'_>,
    inputs: &Inputs<'_>,
    dtype: DType,
    shape: Vec<usize>,
    weight: u64,
    compute: impl FnOnce() -> Result<Vec<f64>, Stop>,
) -> Result<Value, Stop> {
    let elements = count(&shape);
    cx.scratch(elements.saturating_mul(8))?;
    cx.emit_with(inputs, dtype, shape, elements.saturating_mul(weight), |shape| {
        Ok(cast(&Array::new(DType::Float64, shape, compute()?), dtype))
    })
}

/// `a₀ − a₁ cos(2πn/N) + a₂ cos(4πn/N)`, with N the length, or one less for a symmetric window. A symmetric window of
/// one element, which the formula leaves open, is 1.
pub(super) fn window(node: &Node<'_>) -> Result<Eval, String> {
    let (a0, a1, a2) = match node.op() {
        "HannWindow" => (0.5, 0.5, 0.0),
        "HammingWindow" => (25.0 / 46.0, 21.0 / 46.0, 0.0),
        _ => (0.42, 0.5, 0.08),
    };
    let dtype = output_type(node)?;
    let periodic = node.flag("periodic", true);
    single(move |cx, inputs| {
        let size = length(inputs, 0)?;
        emit(cx, inputs, dtype, vec![size], 100, || {
            if size == 1 && !periodic {
                return Ok(vec![1.0]);
            }
            let period = if periodic { size as f64 } else { size as f64 - 1.0 };
            let turn = |n: usize, times: f64| Wide::cos(times * core::f64::consts::PI * n as f64 / period);
            Ok((0..size).map(|n| a0 - a1 * turn(n, 2.0) + a2 * turn(n, 4.0)).collect())
        })
    })
}

pub(super) fn mel_weight_matrix(node: &Node<'_>) -> Result<Eval, String> {
    let dtype = output_type(node)?;
    single(move |cx, inputs| {
        let (bands, transform) = (length(inputs, 0)?, length(inputs, 1)?);
        let (bins, scalars) = (transform / 2 + 1, [2, 3, 4]);
        if let Some(index) = scalars.into_iter().find(|index| inputs.count(*index) != Ok(1)) {
            return Err(format!("its input {index} must be one number").into());
        }
        emit(cx, inputs, dtype, vec![bins, bands], 4, || {
            let scalar = |index: usize| -> Result<f64, Stop> {
                let values = inputs.read(index)?.to_doubles().unwrap_or_default();
                values.first().copied().ok_or_else(|| Stop::invalid(format!("its input {index} must be one number")))
            };
            let (rate, low, high) = (scalar(2)?, scalar(3)?, scalar(4)?);
            if rate.is_nan() || rate <= 0.0 {
                return Err(format!("its sample rate is {rate}").into());
            }
            let edges = edges(bands, low, high).map(|hertz| ((transform as f64 + 1.0) * hertz / rate).floor() as i64);
            Ok(triangles(&edges.collect::<Vec<_>>(), bins, bands))
        })
    })
}

/// The edges of the bands in hertz, at equal distances on the mel scale, `mel(f) = 2595 · log10(1 + f/700)`. As in the
/// reference implementation the last edge is one step below the upper one.
fn edges(bands: usize, low: f64, high: f64) -> impl Iterator<Item = f64> {
    const LN_10: f64 = core::f64::consts::LN_10;
    let mel = |hertz: f64| 2595.0 * Wide::log1p(hertz / 700.0) / LN_10;
    let (low, high) = (mel(low), mel(high));
    let step = (high - low) / (bands as f64 + 2.0);
    (0..bands + 2).map(move |i| 700.0 * Wide::expm1((i as f64 * step + low) / 2595.0 * LN_10))
}

/// For each band a triangle from its first edge over the second to the third; what is beyond the last bin is cut off.
fn triangles(edges: &[i64], bins: usize, bands: usize) -> Vec<f64> {
    let mut out = vec![0.0; bins.saturating_mul(bands)];
    for (band, edges) in edges.windows(3).enumerate() {
        let &[low, center, high] = edges else { continue };
        let mut set = |bin: i64, value: f64| {
            let slot =
                usize::try_from(bin).ok().filter(|bin| *bin < bins).and_then(|bin| out.get_mut(bin * bands + band));
            if let Some(slot) = slot {
                *slot = value;
            }
        };
        let inside = |from: i64, to: i64| from.clamp(0, bins as i64)..to.clamp(0, bins as i64);
        let part = |distance: (i64, i64), whole: (i64, i64)| {
            distance.0.saturating_sub(distance.1) as f64 / whole.0.saturating_sub(whole.1) as f64
        };
        if low == center {
            set(center, 1.0);
        } else {
            inside(low, center.saturating_add(1)).for_each(|bin| set(bin, part((bin, low), (center, low))));
        }
        inside(center, high).for_each(|bin| set(bin, part((high, bin), (high, center))));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triangles_beyond_the_bins_are_cut() {
        assert_eq!(triangles(&[0, 2, 4], 3, 1), [0.0, 0.5, 1.0]);
        assert_eq!(triangles(&[i64::MIN, 0, i64::MAX], 2, 1).len(), 2);
        assert_eq!(triangles(&[i64::MAX, i64::MIN, 7], 2, 1).len(), 2);
        assert_eq!(triangles(&[5, 5, 5], 2, 1), [0.0, 0.0]);
    }
}
