//! Resize and Upsample: attributes, the shape of the output, and which way it is computed.

use super::{
    narrow,
    resample::{Axis, Filter, Mode, Rounding, Transform, fill, gather},
    shapes, size, sizes, wide,
};
use crate::{
    DType,
    engine::{
        array::Array,
        cx::{Cx, Inputs, MAX_INTS, Stop},
        elements::{with_elements, with_floats},
        numeric::{Wide, cast},
        ops::single,
        program::Eval,
        value::{Value, count},
    },
    onnx::Node,
};

/// `keep_aspect_ratio_policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Stretch,
    NotLarger,
    NotSmaller,
}

/// Where the sizes come from.
#[derive(Debug, Clone)]
enum Target {
    /// An attribute (Upsample up to operator set 8).
    Scales(Vec<f32>),
    /// The input of this index.
    ScalesAt(usize),
    /// Inputs: region, scales, sizes.
    Inputs,
}

#[derive(Debug, Clone)]
struct Resize {
    filter: Filter,
    extrapolation: f32,
    axes: Option<Vec<i64>>,
    policy: Policy,
    target: Target,
}

pub(super) fn resize(node: &Node<'_>) -> Result<Eval, String> {
    if node.opset < 11 {
        return simple(node, Target::ScalesAt(1));
    }
    let transform = match node.text("coordinate_transformation_mode", "half_pixel")?.as_str() {
        "half_pixel" => Transform::HalfPixel,
        "half_pixel_symmetric" => Transform::HalfPixelSymmetric,
        "pytorch_half_pixel" => Transform::PytorchHalfPixel,
        "align_corners" => Transform::AlignCorners,
        "asymmetric" => Transform::Asymmetric,
        "tf_half_pixel_for_nn" => Transform::TfHalfPixelForNn,
        "tf_crop_and_resize" => Transform::TfCropAndResize,
        other => return Err(format!("its coordinate_transformation_mode is `{other}`")),
    };
    let rounding = match node.text("nearest_mode", "round_prefer_floor")?.as_str() {
        "round_prefer_floor" | "" => Rounding::PreferFloor,
        "round_prefer_ceil" => Rounding::PreferCeil,
        "floor" => Rounding::Floor,
        "ceil" => Rounding::Ceil,
        other => return Err(format!("its nearest_mode is `{other}`")),
    };
    let policy = match node.text("keep_aspect_ratio_policy", "stretch")?.as_str() {
        "stretch" => Policy::Stretch,
        "not_larger" => Policy::NotLarger,
        "not_smaller" => Policy::NotSmaller,
        other => return Err(format!("its keep_aspect_ratio_policy is `{other}`")),
    };
    let mode = mode(node)?;
    let antialias = node.flag("antialias", false);
    if antialias && mode == Mode::Nearest {
        return Err("antialias is for the modes linear and cubic".to_owned());
    }
    let filter = Filter {
        mode,
        transform,
        rounding,
        antialias,
        exclude_outside: node.flag("exclude_outside", false),
        cubic_a: node.float("cubic_coeff_a", -0.75).into(),
    };
    let extrapolation = node.float("extrapolation_value", 0.0);
    build(Resize { filter, extrapolation, axes: node.axes("axes")?, policy, target: Target::Inputs })
}

pub(super) fn upsample(node: &Node<'_>) -> Result<Eval, String> {
    if node.opset >= 9 {
        return simple(node, Target::ScalesAt(1));
    }
    simple(node, Target::Scales(node.floats("scales").ok_or("it has no scales")?))
}

/// Resizing as it was before it had attributes.
fn simple(node: &Node<'_>, target: Target) -> Result<Eval, String> {
    let filter = Filter {
        mode: mode(node)?,
        transform: Transform::Asymmetric,
        rounding: Rounding::Simple,
        antialias: false,
        exclude_outside: false,
        cubic_a: -0.75,
    };
    build(Resize { filter, extrapolation: 0.0, axes: None, policy: Policy::Stretch, target })
}

fn mode(node: &Node<'_>) -> Result<Mode, String> {
    match node.text("mode", "nearest")?.as_str() {
        "nearest" => Ok(Mode::Nearest),
        "linear" | "bilinear" => Ok(Mode::Linear),
        "cubic" if node.opset >= 11 => Ok(Mode::Cubic),
        other => Err(format!("its mode is `{other}`")),
    }
}

fn build(resize: Resize) -> Result<Eval, String> {
    single(move |cx, inputs| resize.eval(cx, inputs))
}

impl Resize {
    fn eval(&self, cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Value, Stop> {
        let (dtype, shape) = inputs.ty(0)?;
        let named = match &self.axes {
            Some(list) => list.iter().map(|axis| shapes::axis(*axis, shape.len())).collect::<Result<Vec<_>, _>>()?,
            None => (0..shape.len()).collect(),
        };
        if self.filter.transform == Transform::TfCropAndResize && inputs.count(1)? != 2 * named.len() as u64 {
            return Err(format!("its roi has {} elements for {} axes", inputs.count(1)?, named.len()).into());
        }
        let axes = self.axes(inputs, shape, &named)?;
        let out: Vec<usize> = axes.iter().map(|axis| axis.output).collect();
        if self.filter.mode == Mode::Nearest {
            return self.nearest(cx, inputs, &named, axes, dtype, out);
        }
        if dtype == DType::Bool || dtype == DType::String {
            return Err(Stop::unsupported(dtype));
        }
        let (ops, scratch) = self.cost(&axes, shape);
        let ops = ops.saturating_add(inputs.count(0)?.saturating_mul(if dtype == DType::Float32 { 6 } else { 60 }));
        cx.scratch(scratch)?;
        let finish = out.clone();
        with_floats!(dtype, T => {
            cx.emit::<T>(inputs, dtype, out, ops, || {
                let axes = self.regions(inputs, &named, axes)?;
                Ok(narrow(self.interpolate(wide::<T>(inputs.read(0)?), &finish, &axes)))
            })
        }, {
            // Integers are rounded to the nearest, ties to even, and saturate.
            cx.emit_with(inputs, dtype, out, ops, |shape| {
                let axes = self.regions(inputs, &named, axes)?;
                let values = inputs.read(0)?.to_doubles().ok_or_else(|| Stop::unsupported(dtype))?;
                let values = self.interpolate::<f64>(values, &finish, &axes);
                let values = values.into_iter().map(f64::round_ties_even).collect();
                Ok(cast(&Array::new::<f64>(DType::Float64, shape, values), dtype))
            })
        })
    }

    /// What becomes of each axis; regions are not read yet.
    fn axes(&self, inputs: &Inputs<'_>, shape: &[usize], named: &[usize]) -> Result<Vec<Axis>, Stop> {
        let keep =
            |n: &usize| Axis { input: *n, output: *n, scale: 1.0, exact: true, width: *n as f32, roi: (0.0, 1.0) };
        let mut axes: Vec<Axis> = shape.iter().map(keep).collect();
        let given = |index: usize| inputs.has(index) && inputs.count(index).is_ok_and(|count| count > 0);
        let scales = match &self.target {
            Target::Scales(scales) => scales.clone(),
            Target::ScalesAt(index) => scales_at(inputs, *index)?,
            Target::Inputs if given(3) && given(2) => return Err("it has both scales and sizes".into()),
            // A tensor without axes has neither.
            Target::Inputs if given(3) => {
                self.fit(&mut axes, &sizes(inputs, 3)?, named)?;
                return finish(axes);
            }
            Target::Inputs if given(2) => scales_at(inputs, 2)?,
            Target::Inputs if named.is_empty() => vec![],
            Target::Inputs => return Err("it has neither scales nor sizes".into()),
        };
        if scales.len() != named.len() {
            return Err(format!("it has {} scales for {} axes", scales.len(), named.len()).into());
        }
        for (index, scale) in named.iter().zip(scales) {
            if !(scale.is_finite() && scale > 0.0) {
                return Err(format!("its scale {scale} is not positive").into());
            }
            if let Some(axis) = axes.get_mut(*index) {
                // In float32, as ONNX infers shapes: 10 · 0.7 is 7.
                let width = axis.input as f32 * scale;
                *axis = Axis { output: size(width.floor() as i64)?, scale, exact: false, width, ..*axis };
            }
        }
        finish(axes)
    }

    /// Sets the sizes that are asked for, or the nearest ones of the same aspect ratio.
    fn fit(&self, axes: &mut [Axis], sizes: &[usize], named: &[usize]) -> Result<(), Stop> {
        if sizes.len() != named.len() {
            return Err(format!("it has {} sizes for {} axes", sizes.len(), named.len()).into());
        }
        let mut common: Option<f64> = None;
        for (index, size) in named.iter().zip(sizes) {
            let Some(axis) = axes.get_mut(*index) else { continue };
            if axis.input == 0 && (*size > 0 || self.policy != Policy::Stretch) {
                return Err("there is nothing to resize".into());
            }
            let scale = if axis.input == 0 { 1.0 } else { *size as f64 / axis.input as f64 };
            // float32 divided by float32, rounded once.
            let single = if axis.input == 0 { 1.0 } else { *size as f32 / axis.input as f32 };
            *axis = Axis { output: *size, scale: single, width: *size as f32, ..*axis };
            common = Some(match (common, self.policy) {
                (Some(other), Policy::NotLarger) => scale.min(other),
                (Some(other), _) => scale.max(other),
                (None, _) => scale,
            });
        }
        if let (Some(scale), Policy::NotLarger | Policy::NotSmaller) = (common, self.policy) {
            for index in named {
                let Some(axis) = axes.get_mut(*index) else { continue };
                let width = scale * axis.input as f64;
                let output = size((width + 0.5).floor() as i64)?;
                *axis = Axis { output, scale: scale as f32, exact: false, width: width as f32, ..*axis };
            }
        }
        Ok(())
    }

    /// The axes with their regions, which may be known to a run only.
    fn regions(&self, inputs: &Inputs<'_>, named: &[usize], mut axes: Vec<Axis>) -> Result<Vec<Axis>, Stop> {
        if self.filter.transform != Transform::TfCropAndResize {
            return Ok(axes);
        }
        let roi = inputs.read(1)?.to_doubles().unwrap_or_default();
        if roi.len() != 2 * named.len() {
            return Err(format!("its roi has {} elements for {} axes", roi.len(), named.len()).into());
        }
        let (starts, ends) = roi.split_at(named.len());
        for (index, (start, end)) in named.iter().zip(starts.iter().zip(ends)) {
            if let Some(axis) = axes.get_mut(*index) {
                axis.roi = (*start as f32, *end as f32);
            }
        }
        Ok(axes)
    }

    /// Axes along which something happens, before the region is known.
    fn resampled(&self, axis: &Axis) -> bool {
        self.filter.transform == Transform::TfCropAndResize || !axis.is_identity(self.filter.transform)
    }

    /// Cost of interpolation, and the bytes that it needs.
    fn cost(&self, axes: &[Axis], shape: &[usize]) -> (u64, u64) {
        let (mut shape, last) = (shape.to_vec(), shape.len());
        let (mut ops, mut elements) = (count(&shape), count(&shape));
        for (index, axis) in axes.iter().enumerate().filter(|(_, axis)| self.resampled(axis)) {
            let others = shape.iter().enumerate().filter(|(i, _)| *i != index);
            let rows = others.fold(1u64, |n, (_, dim)| n.saturating_mul(*dim as u64));
            // Neighbours of the last axis are gathered, those of others are whole rows.
            let each = if index + 1 == last { 40 } else { 6 };
            let taps = axis.ops(&self.filter);
            ops = ops.saturating_add(rows.saturating_mul(taps).saturating_mul(each));
            ops = ops.saturating_add(taps.saturating_mul(200));
            if let Some(dim) = shape.get_mut(index) {
                *dim = axis.output;
            }
            // The weights with their indices, and the result.
            let table = axis.ops(&self.filter).saturating_add(axis.output as u64).saturating_mul(4);
            elements = elements.saturating_add(count(&shape)).saturating_add(table);
        }
        (ops, elements.saturating_mul(8))
    }

    /// Resamples one axis after the other, in ascending order.
    fn interpolate<W: Wide>(&self, mut data: Vec<W>, out: &[usize], axes: &[Axis]) -> Vec<W> {
        if count(out) == 0 {
            return vec![];
        }
        let mut shape: Vec<usize> = axes.iter().map(|axis| axis.input).collect();
        for (index, axis) in axes.iter().enumerate().filter(|(_, axis)| !axis.is_identity(self.filter.transform)) {
            let inner = shape.iter().skip(index + 1).product();
            data = axis.weights::<W>(&self.filter).apply(&data, axis.input, inner);
            if let Some(dim) = shape.get_mut(index) {
                *dim = axis.output;
            }
        }
        fill(&mut data, out, &self.outside(axes), &W::from_f64(self.extrapolation.into()));
        data
    }

    fn outside(&self, axes: &[Axis]) -> Vec<Vec<bool>> {
        axes.iter().map(|axis| axis.outside(self.filter.transform)).collect()
    }

    /// Picks elements, of any type.
    fn nearest(
        &self,
        cx: &mut Cx<'_>,
        inputs: &Inputs<'_>,
        named: &[usize],
        axes: Vec<Axis>,
        dtype: DType,
        out: Vec<usize>,
    ) -> Result<Value, Stop> {
        let lengths = out.iter().fold(0u64, |n, dim| n.saturating_add(*dim as u64));
        cx.scratch(lengths.saturating_mul(9))?;
        let steps = count(&out).saturating_mul(40).saturating_add(shapes::stretches(&out).saturating_mul(60));
        let ops = steps.saturating_add(lengths.saturating_mul(100));
        cx.emit_with(inputs, dtype, out, ops, |out| {
            let axes = self.regions(inputs, named, axes)?;
            let array = inputs.read(0)?;
            let empty = count(&out) == 0;
            let indices: Vec<Vec<usize>> =
                axes.iter().map(|axis| if empty { vec![] } else { axis.nearest(&self.filter) }).collect();
            let outside = if empty { vec![] } else { self.outside(&axes) };
            with_elements!(dtype, T => {
                let mut values = if empty { vec![] } else { gather(&array.values::<T>(), array.shape(), &indices) };
                if outside.iter().flatten().any(|outside| *outside) {
                    let value = Array::new(DType::Float32, vec![1], vec![self.extrapolation]);
                    let value = cast(&value, dtype).values::<T>().first().copied().ok_or("no value")?;
                    fill(&mut values, &out, &outside, &value);
                }
                Ok(Array::new(dtype, out, values))
            }, {
                if outside.iter().flatten().any(|outside| *outside) {
                    return Err("there is no text outside of the input".into());
                }
                let texts = if empty { vec![] } else { gather(array.texts(), array.shape(), &indices) };
                Ok(Array::text(out, texts))
            })
        })
    }
}

/// An output of elements needs elements.
fn finish(axes: Vec<Axis>) -> Result<Vec<Axis>, Stop> {
    let empty = axes.iter().any(|axis| axis.output == 0);
    if !empty && axes.iter().any(|axis| axis.input == 0) {
        return Err("there is nothing to resize".into());
    }
    Ok(axes)
}

fn scales_at(inputs: &Inputs<'_>, index: usize) -> Result<Vec<f32>, Stop> {
    let array = inputs.array(index)?;
    if array.dtype() != DType::Float32 {
        return Err(Stop::unsupported(array.dtype()));
    }
    if array.count() > MAX_INTS {
        return Err(Stop::invalid(format!("it has {} scales", array.count())));
    }
    Ok(array.values::<f32>().into_owned())
}
