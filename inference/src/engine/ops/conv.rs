//! Conv, MaxPool and AveragePool over two spatial dimensions.

use super::{NodeError, Operator, RunError, input};
use crate::{
    DType, TensorValues,
    engine::{
        kernels::{ConvGeometry, Kernels, Pool, PoolKind, conv::Window, matmul::Packed},
        value::{TensorType, Value},
    },
    onnx::NodeView,
};

#[derive(Debug)]
struct Conv {
    kernel: Vec<f32>,
    kernel_shape: [usize; 4],
    bias: Option<Vec<f32>>,
    window: Window,
    groups: usize,
}

pub(super) fn parse_conv<B: Kernels>(node: NodeView<'_>) -> Result<Box<dyn Operator<B>>, NodeError> {
    let constant = |index, what: &str| match node.constant(index) {
        Some(tensor) => match tensor.values() {
            TensorValues::Float32(values) => Ok(Some((tensor.shape().to_vec(), values.clone()))),
            TensorValues::Int64(_) => Err(format!("its {what} must be float32")),
        },
        None if node.has_input(index) => Err(format!("its {what} must be a constant")),
        None => Ok(None),
    };
    let (shape, kernel) = constant(1, "kernel")?.ok_or("it has no kernel")?;
    let kernel_shape: [usize; 4] = shape
        .try_into()
        .map_err(|s: Vec<_>| format!("a kernel of {} dimensions; only two spatial ones are supported", s.len()))?;
    let bias = constant(2, "bias")?.map(|(_, values)| values);
    let groups = usize::try_from(node.int("group", 1)).ok().filter(|g| *g > 0).ok_or("group must be positive")?;
    let [out_channels, ..] = kernel_shape;
    if out_channels % groups != 0 || bias.as_ref().is_some_and(|b| b.len() != out_channels) {
        return Err(format!("{out_channels} output channels do not fit its groups or its bias"));
    }
    if kernel_shape.contains(&0) || kernel_shape[1].checked_mul(groups).is_none() {
        return Err(format!("a kernel of shape {kernel_shape:?} in {groups} groups"));
    }
    let window = parse_window(node, Some([kernel_shape[2], kernel_shape[3]]))?;
    Ok(Box::new(Conv { kernel, kernel_shape, bias, window, groups }))
}

fn parse_window(node: NodeView<'_>, kernel: Option<[usize; 2]>) -> Result<Window, NodeError> {
    if !matches!(node.text("auto_pad"), None | Some(b"NOTSET")) {
        return Err("auto_pad is not supported: export with explicit pads".into());
    }
    if node.int("ceil_mode", 0) != 0 {
        return Err("ceil_mode is not supported".into());
    }
    let list = |name: &str, least: usize, default: Option<Vec<usize>>, count: usize| -> Result<Vec<usize>, NodeError> {
        let Some(values) = node.ints(name) else {
            return default.ok_or_else(|| format!("it has no {name}"));
        };
        let values: Vec<usize> =
            values.iter().filter_map(|v| usize::try_from(*v).ok()).filter(|v| (least..=65_535).contains(v)).collect();
        if values.len() == count {
            Ok(values)
        } else {
            Err(format!("{name} must be {count} integers from {least} to 65535"))
        }
    };
    let pair = |v: Vec<usize>| [v[0], v[1]];
    let kernel_list = list("kernel_shape", 1, kernel.map(Vec::from), 2)?;
    if kernel.is_some_and(|k| k != kernel_list[..] || k.contains(&0)) {
        return Err("kernel_shape differs from the kernel's shape".into());
    }
    let pads = list("pads", 0, Some(vec![0; 4]), 4)?;
    Ok(Window {
        kernel: pair(kernel_list),
        strides: pair(list("strides", 1, Some(vec![1; 2]), 2)?),
        dilations: pair(list("dilations", 1, Some(vec![1; 2]), 2)?),
        pads: [pads[0], pads[1], pads[2], pads[3]],
    })
}

fn four(shape: &[usize]) -> Result<[usize; 4], NodeError> {
    shape.try_into().map_err(|_| format!("input of shape {shape:?}; [batch, channels, height, width] is supported"))
}

fn output_plane(window: &Window, height: usize, width: usize) -> Result<(usize, usize), NodeError> {
    window
        .output(0, height)
        .zip(window.output(1, width))
        .ok_or_else(|| format!("the window does not fit an input of {height} x {width}"))
}

impl Conv {
    fn geometry(&self, shape: &[usize]) -> Result<ConvGeometry, NodeError> {
        let input = four(shape)?;
        let [batch, channels, height, width] = input;
        let [out_channels, in_group, ..] = self.kernel_shape;
        if channels != in_group * self.groups {
            return Err(format!("{channels} input channels; the kernel is for {}", in_group * self.groups));
        }
        let (out_height, out_width) = output_plane(&self.window, height, width)?;
        Ok(ConvGeometry {
            window: self.window,
            groups: self.groups,
            input,
            output: [batch, out_channels, out_height, out_width],
        })
    }
}

impl<B: Kernels> Operator<B> for Conv {
    fn infer(&self, inputs: &[&TensorType]) -> Result<TensorType, NodeError> {
        let geometry = self.geometry(input(inputs, 0)?.float()?)?;
        Ok(TensorType::new(DType::Float32, geometry.output.to_vec()))
    }

    fn ops(&self, _: &[&TensorType], output: &TensorType) -> u64 {
        let [_, in_group, kh, kw] = self.kernel_shape;
        (output.count() as u64).saturating_mul((in_group * kh * kw + 1) as u64)
    }

    fn scratch(&self, _: &[&TensorType], output: &TensorType) -> Option<usize> {
        let [_, in_group, kh, kw] = self.kernel_shape;
        Packed::bytes(in_group.checked_mul(kh)?.checked_mul(kw)?, output.shape[2].checked_mul(output.shape[3])?)
    }

    fn run(&self, inputs: &[&Value<B>], _: &TensorType) -> Result<Value<B>, RunError> {
        let x = inputs[0].float()?;
        let shape = burn_backend::TensorMetadata::shape(&x).to_vec();
        let geometry = self.geometry(&shape).map_err(|_| RunError)?;
        Ok(Value::Float(B::exact_conv2d(x, &self.kernel, self.bias.as_deref(), &geometry)))
    }
}

#[derive(Debug)]
struct PoolOperator {
    kind: PoolKind,
    window: Window,
}

pub(super) fn parse_pool<B: Kernels>(op_type: &str, node: NodeView<'_>) -> Result<Box<dyn Operator<B>>, NodeError> {
    let kind = match op_type {
        "MaxPool" => PoolKind::Max,
        _ => PoolKind::Average { include_pad: node.int("count_include_pad", 0) != 0 },
    };
    let window = parse_window(node, None)?;
    if window.pads.iter().zip(window.kernel.iter().cycle()).any(|(pad, kernel)| pad >= kernel) {
        return Err("pads must be smaller than the kernel".into());
    }
    Ok(Box::new(PoolOperator { kind, window }))
}

impl PoolOperator {
    fn pool(&self, shape: &[usize]) -> Result<Pool, NodeError> {
        let input = four(shape)?;
        let (height, width) = output_plane(&self.window, input[2], input[3])?;
        Ok(Pool { kind: self.kind, window: self.window, input, output: [input[0], input[1], height, width] })
    }
}

impl<B: Kernels> Operator<B> for PoolOperator {
    fn infer(&self, inputs: &[&TensorType]) -> Result<TensorType, NodeError> {
        Ok(TensorType::new(DType::Float32, self.pool(input(inputs, 0)?.float()?)?.output.to_vec()))
    }

    fn ops(&self, _: &[&TensorType], output: &TensorType) -> u64 {
        (output.count() as u64).saturating_mul((self.window.kernel[0] * self.window.kernel[1]) as u64)
    }

    fn run(&self, inputs: &[&Value<B>], _: &TensorType) -> Result<Value<B>, RunError> {
        let x = inputs[0].float()?;
        let pool = self.pool(&burn_backend::TensorMetadata::shape(&x).to_vec()).map_err(|_| RunError)?;
        Ok(Value::Float(B::exact_pool2d(x, &pool)))
    }
}
