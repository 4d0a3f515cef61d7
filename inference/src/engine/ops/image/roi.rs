//! RoiAlign and MaxRoiPool: fixed grids from regions of feature maps.

use core::ops::Range;

use super::{narrow, same_type, wide};
use crate::{
    DType,
    engine::{
        cx::{Cx, Inputs, Stop},
        elements::with_floats,
        numeric::{Number, Real, Wide},
        ops::{is_half, single},
        program::Eval,
        value::{Value, count},
    },
    onnx::Node,
};

/// Shape of a batch of feature maps.
#[derive(Debug, Clone, Copy)]
struct Maps {
    batch: usize,
    channels: usize,
    height: usize,
    width: usize,
}

impl Maps {
    fn new(shape: &[usize]) -> Result<Self, Stop> {
        match *shape {
            [batch, channels, height, width] => Ok(Self { batch, channels, height, width }),
            _ => Err(format!("it takes no input of shape {shape:?}").into()),
        }
    }

    /// The channels of one image.
    fn image<'d, T>(&self, data: &'d [T], batch: i64) -> Result<&'d [T], Stop> {
        let error = || Stop::invalid(format!("a region is in image {batch} of {}", self.batch));
        let batch = usize::try_from(batch).ok().filter(|batch| *batch < self.batch).ok_or_else(error)?;
        let size = self.channels.saturating_mul(self.plane());
        let start = batch.saturating_mul(size);
        data.get(start..start.saturating_add(size)).ok_or_else(error)
    }

    fn plane(&self) -> usize {
        self.height.saturating_mul(self.width)
    }
}

/// A size that an attribute says.
fn extent(value: i64, name: &str) -> Result<usize, String> {
    u32::try_from(value).ok().filter(|n| *n > 0).map(|n| n as usize).ok_or_else(|| format!("its {name} is {value}"))
}

#[derive(Debug, Clone, Copy)]
struct Align {
    max: bool,
    half_pixel: bool,
    height: usize,
    width: usize,
    /// Samples of a bin along each axis; `None`: as many as elements are under it.
    samples: Option<u32>,
    scale: f32,
}

pub(super) fn roi_align(node: &Node<'_>) -> Result<Eval, String> {
    let default = if node.opset >= 16 { "half_pixel" } else { "output_half_pixel" };
    let align = Align {
        half_pixel: match node.text("coordinate_transformation_mode", default)?.as_str() {
            "half_pixel" => true,
            "output_half_pixel" => false,
            other => return Err(format!("its coordinate_transformation_mode is `{other}`")),
        },
        max: match node.text("mode", "avg")?.as_str() {
            "avg" => false,
            "max" => true,
            other => return Err(format!("its mode is `{other}`")),
        },
        height: extent(node.int("output_height", 1), "output_height")?,
        width: extent(node.int("output_width", 1), "output_width")?,
        samples: match node.int("sampling_ratio", 0) {
            0 => None,
            n => Some(u32::try_from(n).map_err(|_| format!("its sampling_ratio is {n}"))?),
        },
        scale: node.float("spatial_scale", 1.0),
    };
    single(move |cx, inputs| align.eval(cx, inputs))
}

impl Align {
    fn eval(&self, cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Value, Stop> {
        let (dtype, shape) = inputs.ty(0)?;
        let maps = Maps::new(shape)?;
        same_type(inputs, 1, dtype)?;
        same_type(inputs, 2, DType::Int64)?;
        let (rois, batches) = (inputs.shape(1)?, inputs.shape(2)?);
        let (&[regions, 4], &[indices]) = (rois, batches) else {
            return Err(format!("it takes no regions of shape {rois:?} in images {batches:?}").into());
        };
        if regions != indices || maps.plane() == 0 {
            return Err(format!("{regions} regions in {indices} images of shape {shape:?}").into());
        }
        let out = vec![regions, maps.channels, self.height, self.width];
        // Samples along an axis: a fixed number for each bin, or about the elements of the axis.
        let along = |bins: usize, length: usize| match self.samples {
            Some(n) => (bins as u64).saturating_mul(n.into()),
            None => (bins as u64).saturating_add(length as u64),
        };
        let samples = along(self.height, maps.height).saturating_mul(along(self.width, maps.width));
        let planes = (regions as u64).saturating_mul(maps.channels as u64);
        let ops = planes.saturating_mul(samples).saturating_mul(200).saturating_add(count(&out));
        let ops = ops.saturating_add(super::reading(inputs, dtype)?);
        // Up to two samples for each element, and the input and output as they are computed with.
        let lines =
            along(self.height, maps.height).saturating_add(along(self.width, maps.width)).saturating_mul(3 * 40);
        cx.scratch(count(shape).saturating_add(count(&out)).saturating_mul(8).saturating_add(lines))?;
        let total = count(&out);
        with_floats!(dtype, T => cx.emit::<T>(inputs, dtype, out, ops, || {
            if total == 0 {
                return Ok(vec![]);
            }
            let (data, rois) = (wide::<T>(inputs.read(0)?), wide::<T>(inputs.read(1)?));
            let mut values = Vec::with_capacity(total as usize);
            for (roi, batch) in rois.as_chunks::<4>().0.iter().zip(inputs.values::<i64>(2)?.iter()) {
                self.region(maps.image(&data, *batch)?, &maps, *roi, &mut values);
            }
            Ok(narrow(values))
        }), Err(Stop::unsupported(dtype)))
    }

    fn region<W: Wide>(&self, image: &[W], maps: &Maps, [x1, y1, x2, y2]: [W; 4], out: &mut Vec<W>) {
        let rows = self.lines(y1, y2, self.height, maps.height);
        let columns = self.lines(x1, x2, self.width, maps.width);
        for channel in image.chunks_exact(maps.plane()) {
            for row in &rows.bins {
                for column in &columns.bins {
                    let samples = rows.at(row).iter().flat_map(|y| columns.at(column).iter().map(move |x| (y, x)));
                    let corners = samples.map(|(y, x)| corners(channel, maps.width, y, x));
                    out.push(if self.max {
                        // What is outside counts as zero.
                        let outside = rows.count * columns.count > (row.len() * column.len()) as f64;
                        let greatest = corners.flatten().reduce(Number::greater);
                        let zero = outside.then_some(W::ZERO);
                        greatest.into_iter().chain(zero).reduce(Number::greater).unwrap_or(W::ZERO)
                    } else {
                        let sum = corners.fold(W::ZERO, |sum, [a, b, c, d]| sum.plus(a.plus(b).plus(c).plus(d)));
                        sum.over(W::from_f64((rows.count * columns.count).max(1.0)))
                    });
                }
            }
        }
    }

    /// The samples of a region along one axis, computed in the type of the elements (float32 for float16).
    fn lines<W: Wide>(&self, start: W, end: W, bins: usize, length: usize) -> Lines<W> {
        let (scale, half) = (W::from_f64(self.scale.into()), W::from_f64(0.5));
        let shift = if self.half_pixel { half } else { W::ZERO };
        let start = start.times(scale).minus(shift);
        let extent = end.times(scale).minus(shift).minus(start);
        // Regions without an extent are of one element where they are not shifted.
        let extent = if self.half_pixel || extent > W::ONE { extent } else { W::ONE };
        let bin = extent.over(W::from_f64(bins as f64));
        let count = self.samples.map_or(bin.ceil().to_f64(), f64::from);
        let count = if count > 0.0 { count } else { 0.0 };
        let mut lines = Lines { samples: vec![], bins: Vec::with_capacity(bins), count };
        for index in 0..bins {
            let from = lines.samples.len();
            let origin = start.plus(W::from_f64(index as f64).times(bin));
            let steps = bin.over(W::from_f64(count));
            for i in self.candidates(origin.to_f64(), steps.to_f64(), count, length) {
                let place = W::from_f64(i as f64).plus(half).times(bin).over(W::from_f64(count));
                lines.samples.extend(Line::new(origin.plus(place), length));
            }
            lines.bins.push(from..lines.samples.len());
        }
        lines
    }

    /// The samples of a bin that can be inside of an axis. Where their number follows from the region it has no bound,
    /// but those inside are at most two for each element, as they are at least half an element apart.
    fn candidates(&self, origin: f64, step: f64, count: f64, length: usize) -> Range<u64> {
        if self.samples.is_some() || count <= 1.0 {
            return 0..count as u64;
        }
        let index = |place: f64| ((place - origin) / step - 0.5).clamp(0.0, count) as u64;
        let (first, end) = (index(-2.0), index(length as f64 + 1.0));
        let end = end.saturating_add(2).min(count as u64);
        let first = first.saturating_sub(1).min(end);
        first..end.min(first.saturating_add(2 * length as u64 + 10))
    }
}

/// Samples along an axis, and which of them each bin has.
#[derive(Debug)]
struct Lines<W> {
    samples: Vec<Line<W>>,
    bins: Vec<Range<usize>>,
    /// Samples of a bin, those outside included.
    count: f64,
}

impl<W> Lines<W> {
    fn at(&self, bin: &Range<usize>) -> &[Line<W>] {
        self.samples.get(bin.clone()).unwrap_or_default()
    }
}

/// A sample between two elements of an axis.
#[derive(Debug, Clone, Copy)]
struct Line<W> {
    low: usize,
    high: usize,
    /// Weights of the two.
    weights: (W, W),
}

impl<W: Wide> Line<W> {
    /// Up to one element outside is still inside.
    fn new(place: W, length: usize) -> Option<Self> {
        let exact = place.to_f64();
        if !(exact >= -1.0 && exact <= length as f64) {
            return None;
        }
        let place = if place > W::ZERO { place } else { W::ZERO };
        let (low, last) = (place.to_f64() as usize, length.saturating_sub(1));
        Some(if low >= last {
            Self { low: last, high: last, weights: (W::ONE, W::ZERO) }
        } else {
            let weight = place.minus(W::from_f64(low as f64));
            Self { low, high: low + 1, weights: (W::ONE.minus(weight), weight) }
        })
    }
}

/// The four neighbours of a sample, each times its weight.
fn corners<W: Wide>(channel: &[W], width: usize, y: &Line<W>, x: &Line<W>) -> [W; 4] {
    let part = |row: usize, column: usize, a: W, b: W| {
        a.times(b).times(channel.get(row * width + column).copied().unwrap_or(W::ZERO))
    };
    [
        part(y.low, x.low, y.weights.0, x.weights.0),
        part(y.low, x.high, y.weights.0, x.weights.1),
        part(y.high, x.low, y.weights.1, x.weights.0),
        part(y.high, x.high, y.weights.1, x.weights.1),
    ]
}

pub(super) fn max_roi_pool(node: &Node<'_>) -> Result<Eval, String> {
    let shape = node.ints("pooled_shape").unwrap_or_default();
    let &[height, width] = shape.as_slice() else { return Err(format!("its pooled_shape is {shape:?}")) };
    let bins = (extent(height, "pooled_shape")?, extent(width, "pooled_shape")?);
    let scale = node.float("spatial_scale", 1.0);
    single(move |cx, inputs| pool(cx, inputs, bins, scale))
}

/// As Fast R-CNN defines it: edges are rounded to elements, halves away from zero, and both belong to the region; bins
/// overlap where they share an element; an empty bin is zero.
fn pool(cx: &mut Cx<'_>, inputs: &Inputs<'_>, bins: (usize, usize), scale: f32) -> Result<Value, Stop> {
    let (dtype, shape) = inputs.ty(0)?;
    let maps = Maps::new(shape)?;
    same_type(inputs, 1, dtype)?;
    let &[regions, 5] = inputs.shape(1)? else {
        return Err(format!("it takes no regions of shape {:?}", inputs.shape(1)?).into());
    };
    let out = vec![regions, maps.channels, bins.0, bins.1];
    let along = |bins: usize, length: usize| (2 * bins as u64).saturating_add(length as u64);
    let planes = (regions as u64).saturating_mul(maps.channels as u64);
    let elements = along(bins.0, maps.height).saturating_mul(along(bins.1, maps.width));
    let ops = planes.saturating_mul(elements).saturating_mul(if is_half(dtype) { 100 } else { 40 });
    cx.scratch((bins.0 as u64).saturating_add(bins.1 as u64).saturating_mul(16))?;
    let total = count(&out);
    with_floats!(dtype, T => cx.emit::<T>(inputs, dtype, out, ops, || {
        if total == 0 {
            return Ok(vec![]);
        }
        let (data, rois) = (inputs.values::<T>(0)?, wide::<T>(inputs.read(1)?));
        let mut values = Vec::with_capacity(total as usize);
        for &[batch, x1, y1, x2, y2] in rois.as_chunks::<5>().0 {
            let image = maps.image(&data, batch.to_f64() as i64)?;
            let rows = spans(edge(y1, scale), edge(y2, scale), bins.0, maps.height);
            let columns = spans(edge(x1, scale), edge(x2, scale), bins.1, maps.width);
            for channel in 0..maps.channels {
                let channel = image.get(channel * maps.plane()..).unwrap_or_default();
                for row in &rows {
                    values.extend(columns.iter().map(|column| greatest(channel, maps.width, row, column)));
                }
            }
        }
        Ok(values)
    }), Err(Stop::unsupported(dtype)))
}

/// An edge of a region in elements.
fn edge<W: Wide>(x: W, scale: f32) -> i64 {
    x.times(W::from_f64(scale.into())).to_f64().round() as i64
}

/// The elements of an axis that each bin has.
fn spans(start: i64, end: i64, bins: usize, length: usize) -> Vec<Range<usize>> {
    let extent = end.saturating_sub(start).saturating_add(1).max(1) as f32;
    let bin = extent / bins as f32;
    let clamp = |i: i64| start.saturating_add(i).clamp(0, length as i64) as usize;
    let span = |i: usize| clamp((i as f32 * bin).floor() as i64)..clamp(((i + 1) as f32 * bin).ceil() as i64);
    (0..bins).map(span).collect()
}

fn greatest<T: Real>(channel: &[T], width: usize, rows: &Range<usize>, columns: &Range<usize>) -> T {
    let rows = rows.clone().map(|row| {
        let start = row * width;
        channel.get(start + columns.start..start + columns.end).unwrap_or_default()
    });
    rows.flatten().copied().reduce(Number::greater).unwrap_or(T::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn align(samples: Option<u32>) -> Align {
        Align { max: false, half_pixel: true, height: 2, width: 2, samples, scale: 1.0 }
    }

    #[test]
    fn samples_of_endless_regions_are_bounded() {
        let most = f32::MAX;
        for (start, end) in [(-1e30, 1e30), (-most, most), (f32::NAN, 1.0), (0.0, f32::INFINITY), (5.0, -5.0)] {
            let lines = align(None).lines::<f32>(start, end, 3, 8);
            assert!(lines.samples.len() <= 3 * 26, "{start} {end}: {}", lines.samples.len());
        }
    }

    #[test]
    fn leaving_out_what_is_outside_changes_nothing() {
        for (start, end) in [(-7.3f32, 40.9f32), (-100.0, 3.0), (2.2, 6.1), (-0.5, 7.5), (7.9, 300.0), (-40.0, -30.0)] {
            let lines = align(None).lines(start, end, 2, 8);
            // With a fixed number nothing is left out before it is looked at.
            let all = align(Some(lines.count as u32)).lines(start, end, 2, 8);
            assert_eq!(format!("{lines:?}"), format!("{all:?}"), "{start} {end}");
        }
    }

    #[test]
    fn bins_stay_inside() {
        assert_eq!(spans(1, 4, 2, 6), [1..3, 3..5]);
        assert_eq!(spans(i64::MIN, i64::MAX, 2, 6), [0..0, 0..0]);
        assert_eq!(spans(-9, -7, 2, 6), [0..0, 0..0]);
    }
}
