//! Operators of images: resampling, regions, blocks.

use super::{Parse, shapes};
use crate::engine::{
    array::Array,
    cx::{Inputs, Stop},
    elements::Element,
    numeric::Real,
};

mod blocks;
mod boxes;
mod col2im;
mod deform;
mod grid;
mod resample;
mod resize;
mod roi;
mod sampling;

#[cfg(test)]
pub(super) mod tests;

pub(super) fn find(name: &str) -> Option<Parse> {
    Some(match name {
        "Resize" => |node, _| resize::resize(node),
        "Upsample" => |node, _| resize::upsample(node),
        "GridSample" => |node, _| grid::grid_sample(node),
        "AffineGrid" => |node, _| grid::affine_grid(node),
        "NonMaxSuppression" => |node, _| boxes::non_max_suppression(node),
        "RoiAlign" => |node, _| roi::roi_align(node),
        "MaxRoiPool" => |node, _| roi::max_roi_pool(node),
        "DeformConv" => |node, _| deform::deform_conv(node),
        "Col2Im" => |node, _| col2im::col2im(node),
        "CenterCropPad" => |node, _| blocks::center_crop_pad(node),
        "DepthToSpace" => |node, _| blocks::depth_to_space(node),
        "SpaceToDepth" => |node, _| blocks::space_to_depth(node),
        _ => return None,
    })
}

/// A size that elements of an input say. Sizes beyond 2^32 are refused so that an empty output cannot have dimensions
/// whose products overflow.
fn size(value: i64) -> Result<usize, Stop> {
    u32::try_from(value).map(|n| n as usize).map_err(|_| Stop::invalid(format!("{value} is no size")))
}

/// What it costs to have all inputs as they are computed with, if the first is of a type.
fn reading(inputs: &Inputs<'_>, dtype: crate::DType) -> Result<u64, Stop> {
    let elements = (0..inputs.len()).filter(|index| inputs.has(*index)).map(|index| inputs.count(index));
    let elements = elements.sum::<Result<u64, _>>()?;
    Ok(elements.saturating_mul(if dtype == crate::DType::Float32 { 6 } else { 60 }))
}

/// The sizes that an input of integers says.
fn sizes(inputs: &Inputs<'_>, index: usize) -> Result<Vec<usize>, Stop> {
    let ints = inputs.ints(index)?.ok_or_else(|| Stop::invalid(format!("its input {index} is missing")))?;
    ints.into_iter().map(size).collect()
}

/// `input` must have the type that `dtype` is.
fn same_type(inputs: &Inputs<'_>, input: usize, dtype: crate::DType) -> Result<(), Stop> {
    let found = inputs.dtype(input)?;
    if found == dtype { Ok(()) } else { Err(Stop::unsupported(found)) }
}

/// The elements as they are computed with.
fn wide<T: Element + Real>(array: &Array) -> Vec<T::Wide> {
    array.values::<T>().iter().map(|x| x.widen()).collect()
}

/// The elements, rounded once.
fn narrow<T: Real>(values: Vec<T::Wide>) -> Vec<T> {
    values.into_iter().map(T::narrow).collect()
}

/// The element that fills what nothing is written to: zero.
fn zero<T: Element>() -> T {
    bytemuck::Zeroable::zeroed()
}
