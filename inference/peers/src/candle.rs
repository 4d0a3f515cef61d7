//! candle, with passes written by hand from its layers and the constants of the ONNX file.

use std::path::Path;

use anyhow::{Result, bail};
use candle_core::{DType, Device, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, Embedding, LayerNorm, Linear, Module, ops::softmax_last_dim};

use crate::cases::{Case, Input, Values};
use crate::timing::{Measured, measure};
use crate::weights::{Weight, Weights};

const CPU: &Device = &Device::Cpu;

pub fn bench(case: &Case, models: &Path, seconds: f64) -> Result<Measured> {
    let mut weights = Weights::load(&case.file(models))?;
    let inputs: Vec<Tensor> = case.inputs.iter().map(input).collect::<Result<_>>()?;
    let model: Box<dyn Module> = match case.model.as_str() {
        "torch-mlp" => Box::new(Mlp::new(&mut weights)?),
        "torch-digits-cnn" => Box::new(DigitsCnn::new(&mut weights)?),
        "torch-resnet18" => Box::new(ResNet::new(&mut weights)?),
        "torch-encoder" => Box::new(Encoder::new(&mut weights, inputs[1].clone())?),
        _ => bail!("not written for candle"),
    };
    weights.finish()?;
    measure(seconds, || Ok(model.forward(&inputs[0])?), |output| Ok(output.flatten_all()?.to_vec1()?))
}

fn input(input: &Input) -> Result<Tensor> {
    Ok(match &input.values {
        Values::Floats(values) => Tensor::from_slice(values, &input.shape[..], CPU)?,
        Values::Integers(values) => Tensor::from_slice(values, &input.shape[..], CPU)?,
    })
}

fn tensor(weight: Weight) -> Result<Tensor> {
    Ok(Tensor::from_vec(weight.values, weight.shape, CPU)?)
}

/// A Gemm, whose matrix is `[out, in]`.
fn linear(weights: &mut Weights) -> Result<Linear> {
    Ok(Linear::new(tensor(weights.take()?)?, Some(tensor(weights.take()?)?)))
}

/// A MatMul, whose matrix is `[in, out]`, and an Add.
fn product(weights: &mut Weights) -> Result<Linear> {
    Ok(Linear::new(tensor(weights.take()?.transposed())?, Some(tensor(weights.take()?)?)))
}

fn conv(weights: &mut Weights, stride: usize, padding: usize) -> Result<Conv2d> {
    let config = Conv2dConfig { stride, padding, ..Default::default() };
    Ok(Conv2d::new(tensor(weights.take()?)?, Some(tensor(weights.take()?)?), config))
}

struct Mlp([Linear; 3]);

impl Mlp {
    fn new(weights: &mut Weights) -> Result<Self> {
        Ok(Self([linear(weights)?, linear(weights)?, linear(weights)?]))
    }
}

impl Module for Mlp {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let [first, second, third] = &self.0;
        x.apply(first)?.relu()?.apply(second)?.relu()?.apply(third)
    }
}

struct DigitsCnn {
    convs: [Conv2d; 2],
    linears: [Linear; 2],
}

impl DigitsCnn {
    fn new(weights: &mut Weights) -> Result<Self> {
        let convs = [conv(weights, 1, 1)?, conv(weights, 1, 1)?];
        Ok(Self { convs, linears: [linear(weights)?, linear(weights)?] })
    }
}

impl Module for DigitsCnn {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let x = x.apply(&self.convs[0])?.relu()?.max_pool2d(2)?;
        let x = x.apply(&self.convs[1])?.relu()?.avg_pool2d(2)?;
        x.flatten_from(1)?.apply(&self.linears[0])?.relu()?.apply(&self.linears[1])
    }
}

struct ResNet {
    stem: Conv2d,
    blocks: Vec<Block>,
    head: Linear,
}

struct Block {
    shortcut: Option<Conv2d>,
    convs: [Conv2d; 2],
}

impl ResNet {
    fn new(weights: &mut Weights) -> Result<Self> {
        let stem = conv(weights, 2, 3)?;
        let mut blocks = Vec::new();
        for stride in [1, 1, 2, 1, 2, 1, 2, 1] {
            let shortcut = if stride > 1 { Some(conv(weights, stride, 0)?) } else { None };
            blocks.push(Block { shortcut, convs: [conv(weights, stride, 1)?, conv(weights, 1, 1)?] });
        }
        Ok(Self { stem, blocks, head: linear(weights)? })
    }
}

impl Module for ResNet {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        // candle's pool has no padding; behind a Relu, zeros are as good as minus infinity.
        let x = x.apply(&self.stem)?.relu()?.pad_with_zeros(2, 1, 1)?.pad_with_zeros(3, 1, 1)?;
        let mut x = x.max_pool2d_with_stride(3, 2)?;
        for block in &self.blocks {
            let skipped = block.shortcut.as_ref().map_or_else(|| Ok(x.clone()), |conv| x.apply(conv))?;
            x = (x.apply(&block.convs[0])?.relu()?.apply(&block.convs[1])? + skipped)?.relu()?;
        }
        x.mean((2, 3))?.apply(&self.head)
    }
}

const HEADS: usize = 12;

/// Without what comes after the last hidden state: a mean over 128 rows.
struct Encoder {
    tokens: Embedding,
    positions: Tensor,
    norm: LayerNorm,
    layers: Vec<Layer>,
    mask: Tensor,
}

/// Query, key, value, what follows the attention, and the two of the feed-forward network.
struct Layer([Linear; 6]);

impl Encoder {
    fn new(weights: &mut Weights, mask: Tensor) -> Result<Self> {
        let tokens = tensor(weights.take()?)?;
        let width = tokens.dim(1)?;
        let tokens = Embedding::new(tokens, width);
        let positions = tensor(weights.take()?)?;
        // The file has one norm for all layers, which untrained are the same.
        let norm = LayerNorm::new(tensor(weights.take()?)?, tensor(weights.take()?)?, 1e-5);
        let mut layers = Vec::new();
        for _ in 0..6 {
            let mut next = || product(weights);
            layers.push(Layer([next()?, next()?, next()?, next()?, next()?, next()?]));
        }
        Ok(Self { tokens, positions, norm, layers, mask })
    }

    fn attention(&self, layer: &Layer, x: &Tensor, bias: &Tensor) -> candle_core::Result<Tensor> {
        let (batch, length, width) = x.dims3()?;
        let size = width / HEADS;
        let split = |linear: &Linear| {
            x.apply(linear)?.reshape((batch, length, HEADS, size))?.transpose(1, 2)?.contiguous()
        };
        let [query, key, value, ..] = &layer.0;
        let scores = (split(query)?.matmul(&split(key)?.t()?)? / (size as f64).sqrt())?.broadcast_add(bias)?;
        let mixed = softmax_last_dim(&scores)?.matmul(&split(value)?)?;
        mixed.transpose(1, 2)?.reshape((batch, length, width))
    }
}

impl Module for Encoder {
    fn forward(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        let (batch, length) = ids.dims2()?;
        let positions = self.positions.narrow(0, 0, length)?;
        let mut x = ids.apply(&self.tokens)?.broadcast_add(&positions)?.apply(&self.norm)?;
        let mask = self.mask.to_dtype(DType::F32)?.reshape((batch, 1, 1, length))?;
        let bias = mask.affine(f64::from(f32::MAX), f64::from(f32::MIN))?;
        for layer in &self.layers {
            let [.., out, inner, outer] = &layer.0;
            x = (&x + self.attention(layer, &x, &bias)?.apply(out)?)?.apply(&self.norm)?;
            x = (&x + x.apply(inner)?.gelu_erf()?.apply(outer)?)?.apply(&self.norm)?;
        }
        Ok(x)
    }
}
