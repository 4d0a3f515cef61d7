//! Burn's backend Flex as Burn itself runs it (SIMD and rayon on), with passes written by hand from its operations and
//! the constants of the ONNX file.

use std::path::Path;

use anyhow::{Result, anyhow, bail};
use burn_backend::ops::{ActivationOps, AttentionModuleOptions, ConvOptions, FloatTensorOps, IntTensorOps, ModuleOps};
use burn_backend::{FloatDType, Shape, TensorData, TensorMetadata};
use burn_flex::{Flex, FlexTensor};

use crate::cases::{Case, Input, Values};
use crate::timing::{Measured, measure};
use crate::weights::{Weight, Weights};

pub fn bench(case: &Case, models: &Path, seconds: f64) -> Result<Measured> {
    let mut weights = Weights::load(&case.file(models))?;
    let inputs: Vec<FlexTensor> = case.inputs.iter().map(input).collect();
    let model: Box<dyn Fn(FlexTensor) -> FlexTensor> = match case.model.as_str() {
        "torch-mlp" => mlp(&mut weights)?,
        "torch-digits-cnn" => digits_cnn(&mut weights)?,
        "torch-resnet18" => resnet18(&mut weights)?,
        "torch-encoder" => encoder(&mut weights, inputs[1].clone())?,
        _ => bail!("not written for burn"),
    };
    weights.finish()?;
    measure(
        seconds,
        || Ok(model(inputs[0].clone())),
        |output| output.into_data().to_vec().map_err(|error| anyhow!("{error:?}")),
    )
}

fn input(input: &Input) -> FlexTensor {
    let shape = input.shape.clone();
    match input.values.clone() {
        Values::Floats(values) => FlexTensor::from_data(TensorData::new(values, shape)),
        Values::Integers(values) => FlexTensor::from_data(TensorData::new(values, shape)),
    }
}

fn tensor(weight: Weight) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(weight.values, weight.shape))
}

/// A matrix `[in, out]`, as Burn's linear layers have it, and a bias.
struct Linear(FlexTensor, FlexTensor);

impl Linear {
    /// A Gemm, whose matrix is `[out, in]`.
    fn gemm(weights: &mut Weights) -> Result<Self> {
        Ok(Self(tensor(weights.take()?.transposed()), tensor(weights.take()?)))
    }

    /// A MatMul and an Add.
    fn product(weights: &mut Weights) -> Result<Self> {
        Ok(Self(tensor(weights.take()?), tensor(weights.take()?)))
    }

    fn of(&self, x: FlexTensor) -> FlexTensor {
        Flex::linear(x, self.0.clone(), Some(self.1.clone()))
    }
}

struct Conv {
    weight: FlexTensor,
    bias: FlexTensor,
    options: ConvOptions<2>,
}

impl Conv {
    fn new(weights: &mut Weights, stride: usize, padding: usize) -> Result<Self> {
        let options = ConvOptions::new([stride; 2], [padding; 2], [1; 2], 1);
        Ok(Self { weight: tensor(weights.take()?), bias: tensor(weights.take()?), options })
    }

    fn of(&self, x: FlexTensor) -> FlexTensor {
        Flex::conv2d(x, self.weight.clone(), Some(self.bias.clone()), self.options.clone())
    }
}

fn mlp(weights: &mut Weights) -> Result<Box<dyn Fn(FlexTensor) -> FlexTensor>> {
    let [first, second, third] = [Linear::gemm(weights)?, Linear::gemm(weights)?, Linear::gemm(weights)?];
    Ok(Box::new(move |x| third.of(Flex::relu(second.of(Flex::relu(first.of(x)))))))
}

fn digits_cnn(weights: &mut Weights) -> Result<Box<dyn Fn(FlexTensor) -> FlexTensor>> {
    let convs = [Conv::new(weights, 1, 1)?, Conv::new(weights, 1, 1)?];
    let linears = [Linear::gemm(weights)?, Linear::gemm(weights)?];
    Ok(Box::new(move |x| {
        let x = Flex::max_pool2d(Flex::relu(convs[0].of(x)), [2; 2], [2; 2], [0; 2], [1; 2], false);
        let x = Flex::avg_pool2d(Flex::relu(convs[1].of(x)), [2; 2], [2; 2], [0; 2], false, false);
        let shape = x.shape();
        let x = Flex::float_reshape(x, Shape::new([shape[0], shape[1] * shape[2] * shape[3]]));
        linears[1].of(Flex::relu(linears[0].of(x)))
    }))
}

fn resnet18(weights: &mut Weights) -> Result<Box<dyn Fn(FlexTensor) -> FlexTensor>> {
    let stem = Conv::new(weights, 2, 3)?;
    let mut blocks = Vec::new();
    for stride in [1, 1, 2, 1, 2, 1, 2, 1] {
        let shortcut = if stride > 1 { Some(Conv::new(weights, stride, 0)?) } else { None };
        blocks.push((shortcut, Conv::new(weights, stride, 1)?, Conv::new(weights, 1, 1)?));
    }
    let head = Linear::gemm(weights)?;
    Ok(Box::new(move |x| {
        let mut x = Flex::max_pool2d(Flex::relu(stem.of(x)), [3; 2], [2; 2], [1; 2], [1; 2], false);
        for (shortcut, first, second) in &blocks {
            let skipped = shortcut.as_ref().map_or_else(|| x.clone(), |conv| conv.of(x.clone()));
            x = Flex::relu(Flex::float_add(second.of(Flex::relu(first.of(x))), skipped));
        }
        let x = Flex::adaptive_avg_pool2d(x, [1; 2]);
        let shape = x.shape();
        head.of(Flex::float_reshape(x, Shape::new([shape[0], shape[1]])))
    }))
}

const HEADS: usize = 12;

/// Without what comes after the last hidden state: a mean over 128 rows.
fn encoder(weights: &mut Weights, mask: FlexTensor) -> Result<Box<dyn Fn(FlexTensor) -> FlexTensor>> {
    let tokens = tensor(weights.take()?);
    let positions = tensor(weights.take()?);
    // The file has one norm for all layers, which untrained are the same.
    let norm = (tensor(weights.take()?), tensor(weights.take()?));
    let mut layers = Vec::new();
    for _ in 0..6 {
        let mut next = || Linear::product(weights);
        layers.push([next()?, next()?, next()?, next()?, next()?, next()?]);
    }
    let normalise = move |x| Flex::layer_norm(x, norm.0.clone(), Some(norm.1.clone()), 1e-5);
    Ok(Box::new(move |ids| {
        let x = Flex::embedding(tokens.clone(), ids);
        let shape = x.shape();
        let [batch, length, width] = [shape[0], shape[1], shape[2]];
        let positions = Flex::float_reshape(positions.clone(), Shape::new([1, length, width]));
        let mut x = normalise(Flex::float_add(x, positions));
        let mask = Flex::float_reshape(Flex::int_into_float(mask.clone(), FloatDType::F32), Shape::new([batch, 1, 1, length]));
        let bias = Flex::float_add_scalar(Flex::float_mul_scalar(mask, f32::MAX.into()), f32::MIN.into());
        let bias = Flex::float_expand(bias, Shape::new([batch, HEADS, length, length]));
        for [query, key, value, out, inner, outer] in &layers {
            let split = |linear: &Linear| {
                let parts = Shape::new([batch, length, HEADS, width / HEADS]);
                Flex::float_swap_dims(Flex::float_reshape(linear.of(x.clone()), parts), 1, 2)
            };
            let options = AttentionModuleOptions::default();
            let mixed = Flex::attention(split(query), split(key), split(value), None, Some(bias.clone()), options);
            let mixed = Flex::float_reshape(Flex::float_swap_dims(mixed, 1, 2), Shape::new([batch, length, width]));
            x = normalise(Flex::float_add(x, out.of(mixed)));
            let fed = outer.of(Flex::gelu(inner.of(x.clone())));
            x = normalise(Flex::float_add(x, fed));
        }
        x
    }))
}
