//! Times Burn's own CPU backend, Flex, on models of the same sizes, written against the backend's operations as Burn's `nn`
//! modules are. (Burn reads no ONNX file when it runs.) The weights are some numbers: what they are costs no time.

use anyhow::Result;
use burn_backend::{
    Shape, TensorData, TensorMetadata,
    ops::{ActivationOps, AttentionModuleOptions, ConvOptions, FloatTensorOps, ModuleOps},
};
use burn_flex::{Flex, FlexDevice, FlexTensor};

use crate::time;

/// Pseudo-random numbers in ±0.05.
fn numbers(shape: &[usize]) -> FlexTensor {
    let mut state = 77u32;
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * 0.05
        })
        .collect();
    Flex::float_from_data(TensorData::new(values, Shape::from(shape.to_vec())), &FlexDevice)
}

struct Linear(FlexTensor, FlexTensor);

impl Linear {
    fn new(from: usize, to: usize) -> Self {
        Self(numbers(&[from, to]), numbers(&[to]))
    }

    fn run(&self, x: FlexTensor) -> FlexTensor {
        Flex::linear(x, self.0.clone(), Some(self.1.clone()))
    }
}

struct Conv {
    weight: FlexTensor,
    bias: FlexTensor,
    stride: usize,
    padding: usize,
}

impl Conv {
    fn new(from: usize, to: usize, kernel: usize, stride: usize, padding: usize) -> Self {
        Self { weight: numbers(&[to, from, kernel, kernel]), bias: numbers(&[to]), stride, padding }
    }

    fn run(&self, x: FlexTensor) -> FlexTensor {
        let options = ConvOptions::new([self.stride; 2], [self.padding; 2], [1; 2], 1);
        Flex::conv2d(x, self.weight.clone(), Some(self.bias.clone()), options)
    }
}

fn relu(x: FlexTensor) -> FlexTensor {
    <Flex as ActivationOps<Flex>>::relu(x)
}

fn mlp(rows: usize) -> Result<f64> {
    let layers = [Linear::new(64, 256), Linear::new(256, 256), Linear::new(256, 10)];
    let x = numbers(&[rows, 64]);
    time(|| {
        let y = relu(layers[0].run(x.clone()));
        std::hint::black_box(layers[2].run(relu(layers[1].run(y))));
        Ok(())
    })
}

fn cnn(images: usize) -> Result<f64> {
    let (a, b) = (Conv::new(1, 16, 3, 1, 1), Conv::new(16, 32, 3, 1, 1));
    let (c, d) = (Linear::new(32 * 7 * 7, 64), Linear::new(64, 10));
    let x = numbers(&[images, 1, 28, 28]);
    time(|| {
        let y = Flex::max_pool2d(relu(a.run(x.clone())), [2; 2], [2; 2], [0; 2], [1; 2], false);
        let y = Flex::avg_pool2d(relu(b.run(y)), [2; 2], [2; 2], [0; 2], true, false);
        let y = Flex::float_reshape(y, Shape::new([images, 32 * 7 * 7]));
        std::hint::black_box(d.run(relu(c.run(y))));
        Ok(())
    })
}

fn resnet18() -> Result<f64> {
    let first = Conv::new(3, 64, 7, 2, 3);
    let mut blocks = Vec::new();
    let mut from = 64;
    for (to, stride) in [(64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)] {
        let down = (stride != 1).then(|| Conv::new(from, to, 1, stride, 0));
        blocks.push((Conv::new(from, to, 3, stride, 1), Conv::new(to, to, 3, 1, 1), down));
        from = to;
    }
    let last = Linear::new(512, 1000);
    let x = numbers(&[1, 3, 224, 224]);
    time(|| {
        let mut y = Flex::max_pool2d(relu(first.run(x.clone())), [3; 2], [2; 2], [1; 2], [1; 2], false);
        for (a, b, down) in &blocks {
            let skipped = down.as_ref().map_or_else(|| y.clone(), |down| down.run(y.clone()));
            y = relu(Flex::float_add(b.run(relu(a.run(y))), skipped));
        }
        let y = Flex::float_reshape(Flex::adaptive_avg_pool2d(y, [1; 2]), Shape::new([1, 512]));
        std::hint::black_box(last.run(y));
        Ok(())
    })
}

/// Of the encoder without its embeddings: hidden states to hidden states.
fn encoder(batch: usize, tokens: usize) -> Result<f64> {
    const WIDTH: usize = 384;
    const HEADS: usize = 12;
    let layers: Vec<_> = (0..6)
        .map(|_| {
            let square = || Linear::new(WIDTH, WIDTH);
            let norm = || (numbers(&[WIDTH]), numbers(&[WIDTH]));
            let (inner, outer) = (Linear::new(WIDTH, 1536), Linear::new(1536, WIDTH));
            ([square(), square(), square(), square()], inner, outer, [norm(), norm()])
        })
        .collect();
    let x = numbers(&[batch, tokens, WIDTH]);
    let split = |x: FlexTensor| {
        let x = Flex::float_reshape(x, Shape::new([batch, tokens, HEADS, WIDTH / HEADS]));
        Flex::float_swap_dims(x, 1, 2)
    };
    time(|| {
        let mut x = x.clone();
        for ([q, k, v, out], inner, outer, norms) in &layers {
            let norm = |x: FlexTensor, which: usize| {
                Flex::layer_norm(x, norms[which].0.clone(), Some(norms[which].1.clone()), 1e-5)
            };
            let parts = [q, k, v].map(|linear| split(linear.run(x.clone())));
            let [q, k, v] = parts;
            let mixed = Flex::attention(q, k, v, None, None, AttentionModuleOptions::default());
            let mixed = Flex::float_reshape(Flex::float_swap_dims(mixed, 1, 2), x.shape());
            let y = norm(Flex::float_add(x, out.run(mixed)), 0);
            let z = outer.run(<Flex as ActivationOps<Flex>>::gelu(inner.run(y.clone())));
            x = norm(Flex::float_add(y, z), 1);
        }
        std::hint::black_box(x);
        Ok(())
    })
}

/// Prints the times of all.
pub fn all() -> Result<()> {
    println!("| Burn Flex | µs |\n|---|---|");
    for (name, micros) in [
        ("MLP, 1 row", mlp(1)?),
        ("MLP, 64 rows", mlp(64)?),
        ("digits CNN, 1 image", cnn(1)?),
        ("digits CNN, 32 images", cnn(32)?),
        ("ResNet-18", resnet18()?),
        ("encoder, 1 x 128 tokens", encoder(1, 128)?),
        ("encoder, 4 x 128 tokens", encoder(4, 128)?),
    ] {
        println!("| {name} | {micros:.1} |");
    }
    Ok(())
}
