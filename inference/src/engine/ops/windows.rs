//! Windows over spatial dimensions: attributes and sizes that convolutions and poolings share.

use crate::{
    engine::{cx::Stop, kernels::planes::Axis},
    onnx::Node,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AutoPad {
    NotSet,
    SameUpper,
    SameLower,
    Valid,
}

/// The attributes of a window.
#[derive(Debug, Clone)]
pub(super) struct Window {
    kernel: Option<Vec<usize>>,
    strides: Option<Vec<usize>>,
    dilations: Option<Vec<usize>>,
    pads: Option<Vec<usize>>,
    auto: AutoPad,
    ceil: bool,
}

/// One dimension of a window over an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) axis: Axis,
    /// Padding behind the last element.
    pub(super) after: usize,
}

impl Window {
    pub(super) fn new(node: &Node<'_>) -> Result<Self, String> {
        let auto = match node.text("auto_pad", "NOTSET")?.as_str() {
            "NOTSET" | "" => AutoPad::NotSet,
            "SAME_UPPER" => AutoPad::SameUpper,
            "SAME_LOWER" => AutoPad::SameLower,
            "VALID" => AutoPad::Valid,
            other => return Err(format!("there is no auto_pad `{other}`")),
        };
        let positive = |name: &str| -> Result<Option<Vec<usize>>, String> {
            let list = node.sizes(name)?;
            // Greater ones would only overflow.
            match list.as_ref().is_some_and(|list| list.iter().any(|x| *x == 0 || *x > 1 << 31)) {
                true => Err(format!("its {name} are out of range")),
                false => Ok(list),
            }
        };
        let pads = node.sizes("pads")?;
        if pads.as_ref().is_some_and(|pads| pads.iter().any(|x| *x > 1 << 31)) {
            return Err("its pads are out of range".into());
        }
        Ok(Self {
            kernel: positive("kernel_shape")?,
            strides: positive("strides")?,
            dilations: positive("dilations")?,
            pads,
            auto,
            ceil: node.flag("ceil_mode", false),
        })
    }

    /// Places the window over spatial dimensions. `kernel` is that of the weights, if there are any.
    pub(super) fn place(&self, input: &[usize], kernel: Option<&[usize]>) -> Result<Vec<Placed>, Stop> {
        let rank = input.len();
        let kernel = match (kernel, &self.kernel) {
            (Some(kernel), Some(own)) if kernel != own.as_slice() => {
                return Err(Stop::invalid("its kernel_shape is not that of its weights"));
            }
            (Some(kernel), _) => kernel,
            (None, Some(own)) => own.as_slice(),
            (None, None) => return Err(Stop::invalid("its kernel_shape is missing")),
        };
        let ones = vec![1; rank];
        let strides = self.strides.as_ref().unwrap_or(&ones);
        let dilations = self.dilations.as_ref().unwrap_or(&ones);
        let zeros = vec![0; 2 * rank];
        let pads = self.pads.as_ref().unwrap_or(&zeros);
        if kernel.len() != rank || strides.len() != rank || dilations.len() != rank || pads.len() != 2 * rank {
            return Err(Stop::invalid(format!("its window does not have {rank} dimensions")));
        }
        (0..rank)
            .map(|i| {
                let (size, stride, dilation) = (input[i], strides[i], dilations[i]);
                let too_large = || Stop::Limit("its window is too large".into());
                let extent =
                    (kernel[i] - 1).checked_mul(dilation).and_then(|n| n.checked_add(1)).ok_or_else(too_large)?;
                let (before, after, output) = match self.auto {
                    AutoPad::SameUpper | AutoPad::SameLower => {
                        let output = size.div_ceil(stride);
                        let total = (output.max(1) - 1) * stride + extent;
                        let total = total.saturating_sub(size);
                        let less = total / 2;
                        match self.auto {
                            AutoPad::SameUpper => (less, total - less, output),
                            _ => (total - less, less, output),
                        }
                    }
                    auto => {
                        let (before, after) = if auto == AutoPad::Valid { (0, 0) } else { (pads[i], pads[i + rank]) };
                        let padded = size + before + after;
                        let room = padded.checked_sub(extent).ok_or_else(|| {
                            Stop::invalid(format!("a window of {extent} does not fit {size} elements with padding"))
                        })?;
                        let mut output = room / stride + 1;
                        if self.ceil && room % stride != 0 && output * stride < size + before {
                            // A window that starts in the padding behind is left out.
                            output += 1;
                        }
                        (before, after, output)
                    }
                };
                let axis = Axis { input: size, kernel: kernel[i], stride, dilation, before, output };
                Ok(Placed { axis, after })
            })
            .collect()
    }
}
