//! The quantised operators and products of dequantised numbers, element by element as NUMERICS.md defines them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

#[path = "support/graphs.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod graphs;

use graphs::{Graph, int, ints};
use penstock_inference::{Argument, Model, Tensor, TensorValues, onnx::proto::AttributeProto};

/// Pseudo-random numbers.
struct Random(u32);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as usize % n
    }

    fn floats(&mut self, count: usize, most: f32) -> Vec<f32> {
        (0..count).map(|_| most * (self.below(2001) as f32 / 1000.0 - 1.0)).collect()
    }

    fn bytes(&mut self, count: usize) -> Vec<i8> {
        (0..count).map(|_| self.below(256) as u8 as i8).collect()
    }
}

fn run(file: Vec<u8>, shape: &[usize], x: &[f32]) -> Tensor {
    let model = Model::load(file).unwrap();
    let x = Tensor::new(shape.to_vec(), TensorValues::Float32(x.to_vec())).unwrap();
    let one = model.run(std::slice::from_ref(&x)).unwrap();
    assert_eq!(model.run_watched(&[x], 3, None, None).unwrap().unwrap(), one, "threads");
    one.into_iter().next().unwrap()
}

fn floats(tensor: &Tensor) -> &[f32] {
    match tensor.values() {
        TensorValues::Float32(values) => values,
        other => panic!("{other:?}"),
    }
}

fn quantize(x: f32, scale: f32, zero: i32, low: i32, high: i32) -> i32 {
    ((x / scale).round_ties_even() as i32 + zero).clamp(low, high)
}

/// The numbers that a graph quantises: int8 with a zero point, or uint8.
#[derive(Clone, Copy)]
struct Quantised {
    scale: f32,
    zero: i32,
    signed: bool,
}

impl Quantised {
    fn of(self, x: f32) -> i32 {
        let (low, high) = if self.signed { (-128, 127) } else { (0, 255) };
        quantize(x, self.scale, self.zero, low, high)
    }

    /// Scale and zero point in a graph.
    fn constants(self, graph: &mut Graph) -> (String, String) {
        let zero = if self.signed {
            TensorValues::Int8(vec![self.zero as i8])
        } else {
            TensorValues::Uint8(vec![self.zero as u8])
        };
        (graph.constant(TensorValues::Float32(vec![self.scale]), &[]), graph.constant(zero, &[]))
    }
}

const KINDS: [Quantised; 3] = [
    Quantised { scale: 0.031, zero: -7, signed: true },
    Quantised { scale: 0.017, zero: 131, signed: false },
    Quantised { scale: 0.023, zero: 0, signed: false },
];

#[test]
fn a_product_of_dequantised_numbers_is_the_exact_product_scaled_once() {
    let mut random = Random(1);
    for round in 0..60 {
        let kind = KINDS[round % 3];
        let (m, k, n) = (1 + random.below(9), 1 + random.below(70), 1 + random.below(40));
        let turned = round % 2 == 0;
        let each = round % 4 < 2;
        let gemm = turned || round % 8 < 4;
        let x = random.floats(m * k, 4.0);
        let w = random.bytes(k * n);
        let scales: Vec<f32> =
            (0..if each { n } else { 1 }).map(|_| 0.001 + random.below(100) as f32 / 40_000.0).collect();
        let zeros: Vec<i8> = scales.iter().map(|_| [0, 0, 9][round % 3]).collect();
        let bias = random.floats(n, 1.0);

        let mut graph = Graph::default();
        let (x_scale, x_zero) = kind.constants(&mut graph);
        let q = graph.node("QuantizeLinear", &["x", &x_scale, &x_zero], vec![]);
        let dq = graph.node("DequantizeLinear", &[&q, &x_scale, &x_zero], vec![]);
        let shape = if turned { [n, k] } else { [k, n] };
        let w_name = graph.constant(TensorValues::Int8(w.clone()), &shape);
        let sizes: &[usize] = if each { &[n] } else { &[] };
        let w_scale = graph.constant(TensorValues::Float32(scales.clone()), sizes);
        let w_zero = graph.constant(TensorValues::Int8(zeros.clone()), sizes);
        let axis = vec![int("axis", if turned { 0 } else { -1 })];
        let dw = graph.node("DequantizeLinear", &[&w_name, &w_scale, &w_zero], axis);
        let b = graph.constant(TensorValues::Float32(bias.clone()), &[n]);
        let y = if gemm {
            graph.node("Gemm", &[&dq, &dw, &b], vec![int("transB", turned.into())])
        } else {
            let product = graph.node("MatMul", &[&dq, &dw], vec![]);
            graph.node("Add", &[&product, &b], vec![])
        };
        let out = run(graph.file(&[k as i64], &y), &[m, k], &x);
        for (at, found) in floats(&out).iter().enumerate() {
            let (i, j) = (at / n, at % n);
            let which = if each { j } else { 0 };
            let sum: i32 = (0..k)
                .map(|l| {
                    let w = w[if turned { j * k + l } else { l * n + j }];
                    (kind.of(x[i * k + l]) - kind.zero) * (i32::from(w) - i32::from(zeros[which]))
                })
                .sum();
            let expected = sum as f32 * (kind.scale * scales[which]) + bias[j];
            assert_eq!(found.to_bits(), expected.to_bits(), "round {round}: {m}x{k}x{n} at {i},{j}");
        }
    }
}

#[test]
fn a_qgemm_is_the_exact_product_and_its_addend_scaled_once() {
    let mut random = Random(5);
    for round in 0..240 {
        let kind = KINDS[round % 3];
        let (m, k, n) = (1 + random.below(7), 1 + random.below(40), 1 + random.below(40));
        let (turn_a, turn_b, constant) = (round % 4 == 0, round % 2 == 0, round % 5 != 0);
        let alpha = [1.0, 0.5, -1.25][round / 2 % 3];
        let x = random.floats(m * k, 4.0);
        let w = random.bytes(k * n);
        let scales: Vec<f32> =
            (0..if round % 3 == 0 { n } else { 1 }).map(|_| 0.001 + random.below(100) as f32 / 4e4).collect();
        // One for all, or one for each row: then nothing is as simple as it nearly always is.
        let a_zeros: Vec<i32> =
            (0..if round % 7 == 0 { m } else { 1 }).map(|_| kind.zero + random.below(3) as i32).collect();
        let addend_shape: Option<Vec<usize>> =
            [None, Some(vec![n]), Some(vec![1]), Some(vec![m, 1]), Some(vec![1, n]), Some(vec![m, n])][random.below(6)]
                .clone();

        let mut graph = Graph::default();
        let (x_scale, x_zero) = kind.constants(&mut graph);
        let q = graph.node("QuantizeLinear", &["x", &x_scale, &x_zero], vec![]);
        let zeros = match kind.signed {
            true => TensorValues::Int8(a_zeros.iter().map(|zero| *zero as i8).collect()),
            false => TensorValues::Uint8(a_zeros.iter().map(|zero| *zero as u8).collect()),
        };
        let a_zero = graph.constant(zeros, &[a_zeros.len()][..usize::from(a_zeros.len() > 1)]);
        let mut b = graph.constant(TensorValues::Int8(w.clone()), &if turn_b { [n, k] } else { [k, n] });
        if !constant {
            // What no compiler knows: whether the input's first element is a number.
            let index = graph.constant(TensorValues::Int64(vec![0]), &[]);
            let row = graph.node("Gather", &["x", &index], vec![int("axis", 0)]);
            let first = graph.node("Gather", &[&row, &index], vec![int("axis", 0)]);
            let strange = graph.node("IsNaN", &[&first], vec![]);
            b = graph.node("Where", &[&strange, &b, &b], vec![]);
        }
        let b_scale = graph.constant(TensorValues::Float32(scales.clone()), &[scales.len()]);
        let b_zero = graph.constant(TensorValues::Int8(vec![3]), &[]);
        let mut names = vec![q, x_scale, a_zero, b, b_scale, b_zero];
        let addends = addend_shape.map(|shape| {
            let count = shape.iter().product();
            let values: Vec<i32> = (0..count).map(|_| random.below(100_000) as i32 - 50_000).collect();
            names.push(graph.constant(TensorValues::Int32(values.clone()), &shape));
            (shape, values)
        });
        let quantised = round % 3 != 1;
        if quantised {
            names.resize(6 + 1, String::new());
            names.push(graph.constant(TensorValues::Float32(vec![0.37]), &[]));
            names.push(graph.constant(TensorValues::Uint8(vec![90]), &[]));
        }
        let mut attributes = vec![int("transA", turn_a.into()), int("transB", turn_b.into())];
        attributes.push(AttributeProto { name: "alpha".into(), f: Some(alpha), r#type: 1, ..Default::default() });
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let y = graph.node_of("com.microsoft", "QGemm", &names, attributes);
        let shape = if turn_a { [k, m] } else { [m, k] };
        let input = Tensor::new(shape.to_vec(), TensorValues::Float32(x.clone())).unwrap();
        let model = Model::load(graph.file(&[shape[1] as i64], &y)).unwrap();
        let out = model.evaluate(vec![Argument::Tensor(input)]).unwrap().remove(0);
        let Argument::Tensor(out) = out else { panic!("{out:?}") };

        for at in 0..m * n {
            let (i, j) = (at / n, at % n);
            let sum: i32 = (0..k)
                .map(|l| {
                    let a = kind.of(x[if turn_a { l * m + i } else { i * k + l }]) - a_zeros[i % a_zeros.len()];
                    a * (i32::from(w[if turn_b { j * k + l } else { l * n + j }]) - 3)
                })
                .sum();
            let addend = addends.as_ref().map_or(0, |(shape, values)| match shape.as_slice() {
                [1] => values[0],
                [rows, 1] if *rows == m => values[i],
                shape if shape.len() == 2 && shape[0] == m && m > 1 => values[at],
                _ => values[j],
            });
            let number = (sum + addend) as f32 * (alpha * kind.scale * scales[j % scales.len()]);
            let place = format!("round {round}: {m}x{k}x{n} at {i},{j}");
            match out.values() {
                TensorValues::Float32(found) if !quantised => {
                    assert_eq!(found[at].to_bits(), number.to_bits(), "{place}");
                }
                TensorValues::Uint8(found) if quantised => {
                    assert_eq!(i32::from(found[at]), quantize(number, 0.37, 90, 0, 255), "{place}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// One image and its convolution: sizes, and the exact sums at each output.
struct Image {
    channels: usize,
    size: (usize, usize),
    outputs: usize,
    kernel: usize,
}

impl Image {
    fn shape(&self) -> [usize; 4] {
        [1, self.channels, self.size.0, self.size.1]
    }

    fn pixels(&self) -> usize {
        self.size.0 * self.size.1
    }

    /// The sums over a kernel with padding on all sides, so that outputs lie as the inputs do; `x` is centred.
    fn sums(&self, x: &[i32], w: &[i8], w_zero: i32) -> Vec<i32> {
        let (height, width) = (self.size.0 as isize, self.size.1 as isize);
        let half = self.kernel as isize / 2;
        let mut out = vec![0; self.outputs * self.pixels()];
        for (at, sum) in out.iter_mut().enumerate() {
            let (o, pixel) = (at / self.pixels(), (at % self.pixels()) as isize);
            for (i, w) in w[o * self.channels * self.kernel * self.kernel..]
                [..self.channels * self.kernel * self.kernel]
                .iter()
                .enumerate()
            {
                let (c, position) = (i / (self.kernel * self.kernel), (i % (self.kernel * self.kernel)) as isize);
                let y = pixel / width + position / self.kernel as isize - half;
                let x_at = pixel % width + position % self.kernel as isize - half;
                if (0..height).contains(&y) && (0..width).contains(&x_at) {
                    *sum += x[c * self.pixels() + (y * width + x_at) as usize] * (i32::from(*w) - w_zero);
                }
            }
        }
        out
    }
}

#[test]
fn convolutions_of_quantised_images_are_exact_sums_scaled_once() {
    let mut random = Random(2);
    for round in 0..45 {
        let kind = KINDS[round % 3];
        let image = Image {
            channels: 1 + random.below(5),
            size: (1 + random.below(20), 1 + random.below(20)),
            outputs: 1 + random.below(9),
            kernel: [1, 3, 5][random.below(3)],
        };
        let depth = image.channels * image.kernel * image.kernel;
        let x = random.floats(image.channels * image.pixels(), 4.0);
        let w = random.bytes(image.outputs * depth);
        let w_zero = [0i8, 5][round % 2];
        let bias: Vec<i32> = (0..image.outputs).map(|_| random.below(2000) as i32 - 1000).collect();
        let (w_scale, y_scale, y_zero) = (0.0041f32, 0.37f32, 3u8);
        let centred: Vec<i32> = x.iter().map(|x| kind.of(*x) - kind.zero).collect();
        let sums = image.sums(&centred, &w, w_zero.into());
        let channel = |at: usize| at / image.pixels();
        let half = image.kernel as i64 / 2;
        let pads = || vec![ints("pads", &[half; 4])];

        for operator in ["ConvInteger", "QLinearConv", "Conv"] {
            let mut graph = Graph::default();
            let (x_scale, x_zero) = kind.constants(&mut graph);
            let q = graph.node("QuantizeLinear", &["x", &x_scale, &x_zero], vec![]);
            let shape = [image.outputs, image.channels, image.kernel, image.kernel];
            let w_name = graph.constant(TensorValues::Int8(w.clone()), &shape);
            let ws = graph.constant(TensorValues::Float32(vec![w_scale]), &[]);
            let wz = graph.constant(TensorValues::Int8(vec![w_zero]), &[]);
            let y = match operator {
                "ConvInteger" => {
                    let sums = graph.node("ConvInteger", &[&q, &w_name, &x_zero, &wz], pads());
                    graph.node("Cast", &[&sums], vec![int("to", 1)])
                }
                "QLinearConv" => {
                    let ys = graph.constant(TensorValues::Float32(vec![y_scale]), &[]);
                    let yz = graph.constant(TensorValues::Uint8(vec![y_zero]), &[]);
                    let b = graph.constant(TensorValues::Int32(bias.clone()), &[image.outputs]);
                    let inputs: [&str; 9] = [&q, &x_scale, &x_zero, &w_name, &ws, &wz, &ys, &yz, &b];
                    let sums = graph.node("QLinearConv", &inputs, pads());
                    graph.node("Cast", &[&sums], vec![int("to", 1)])
                }
                _ => {
                    let dq = graph.node("DequantizeLinear", &[&q, &x_scale, &x_zero], vec![]);
                    let dw = graph.node("DequantizeLinear", &[&w_name, &ws, &wz], vec![]);
                    let values = TensorValues::Float32(bias.iter().map(|b| *b as f32).collect());
                    let b = graph.constant(values, &[image.outputs]);
                    graph.node("Conv", &[&dq, &dw, &b], pads())
                }
            };
            let row = image.shape()[1..].iter().map(|size| *size as i64).collect::<Vec<_>>();
            let out = run(graph.file(&row, &y), &image.shape(), &x);
            for (at, (found, sum)) in floats(&out).iter().zip(&sums).enumerate() {
                let expected = match operator {
                    "ConvInteger" => *sum as f32,
                    "QLinearConv" => {
                        let scaled = (sum + bias[channel(at)]) as f32 * (kind.scale * w_scale / y_scale);
                        quantize(scaled, 1.0, y_zero.into(), 0, 255) as f32
                    }
                    _ => *sum as f32 * (kind.scale * w_scale) + bias[channel(at)] as f32,
                };
                assert_eq!(found.to_bits(), expected.to_bits(), "round {round}: {operator} at {at}");
            }
        }
    }
}

#[test]
fn integer_products_are_exact_and_scaled_as_defined() {
    let mut random = Random(3);
    for round in 0..40 {
        let kind = KINDS[round % 3];
        let (m, k, n) = (1 + random.below(9), 1 + random.below(70), 1 + random.below(40));
        let x = random.floats(m * k, 4.0);
        let w = random.bytes(k * n);
        let zeros: Vec<i8> = (0..n).map(|_| if round % 2 == 0 { 0 } else { random.below(20) as i8 - 10 }).collect();
        let (w_scale, y_scale, y_zero) = (0.0041f32, 0.037f32, -3i8);
        let sum = |i: usize, j: usize| -> i32 {
            let term = |l: usize| (kind.of(x[i * k + l]) - kind.zero) * (i32::from(w[l * n + j]) - i32::from(zeros[j]));
            (0..k).map(term).sum()
        };
        for operator in ["MatMulInteger", "QLinearMatMul"] {
            let mut graph = Graph::default();
            let (x_scale, x_zero) = kind.constants(&mut graph);
            let q = graph.node("QuantizeLinear", &["x", &x_scale, &x_zero], vec![]);
            let w_name = graph.constant(TensorValues::Int8(w.clone()), &[k, n]);
            let wz = graph.constant(TensorValues::Int8(zeros.clone()), &[n]);
            let product = if operator == "MatMulInteger" {
                graph.node(operator, &[&q, &w_name, &x_zero, &wz], vec![])
            } else {
                let ws = graph.constant(TensorValues::Float32(vec![w_scale; n]), &[n]);
                let ys = graph.constant(TensorValues::Float32(vec![y_scale]), &[]);
                let yz = graph.constant(TensorValues::Int8(vec![y_zero]), &[]);
                graph.node(operator, &[&q, &x_scale, &x_zero, &w_name, &ws, &wz, &ys, &yz], vec![])
            };
            let y = graph.node("Cast", &[&product], vec![int("to", 1)]);
            let out = run(graph.file(&[k as i64], &y), &[m, k], &x);
            for (at, found) in floats(&out).iter().enumerate() {
                let exact = sum(at / n, at % n);
                let expected = if operator == "MatMulInteger" {
                    exact as f32
                } else {
                    let scaled = exact as f32 * (kind.scale * w_scale / y_scale);
                    quantize(scaled, 1.0, y_zero.into(), -128, 127) as f32
                };
                assert_eq!(found.to_bits(), expected.to_bits(), "round {round}: {operator} at {at}");
            }
        }
    }
}

#[test]
fn what_is_not_as_simple_is_computed_as_it_is_written() {
    // A zero point that is computed, a scale for each row: the product is of the dequantised numbers themselves.
    let mut random = Random(4);
    let (m, k, n) = (3, 20, 5);
    let (x, w) = (random.floats(m * k, 4.0), random.floats(k * n, 1.0));
    let kind = KINDS[0];
    let mut graph = Graph::default();
    let (x_scale, x_zero) = kind.constants(&mut graph);
    let q = graph.node("QuantizeLinear", &["x", &x_scale, &x_zero], vec![]);
    let dq = graph.node("DequantizeLinear", &[&q, &x_scale, &x_zero], vec![]);
    let weights = graph.constant(TensorValues::Float32(w.clone()), &[k, n]);
    let y = graph.node("MatMul", &[&dq, &weights], vec![]);
    let out = run(graph.file(&[k as i64], &y), &[m, k], &x);
    for (at, found) in floats(&out).iter().enumerate() {
        let (i, j) = (at / n, at % n);
        let term = |l: usize| (kind.of(x[i * k + l]) - kind.zero) as f32 * kind.scale;
        let sum = (0..k).fold(0.0f32, |sum, l| term(l).mul_add(w[l * n + j], sum));
        assert_eq!(found.to_bits(), sum.to_bits(), "at {i},{j}");
    }
}

#[test]
fn dynamic_quantisation_spans_the_least_and_the_greatest_number_and_zero() {
    let mut random = Random(5);
    for round in 0..30 {
        let count = 1 + random.below(100);
        let shift = [0.0, 9.0, -9.0][round % 3];
        let mut x: Vec<f32> = random.floats(count, 4.0).iter().map(|x| x + shift).collect();
        if round == 7 {
            x.fill(0.0);
        }
        let mut graph = Graph::default();
        // Dequantised again, by the scale and zero point that it gave.
        let outputs = graph.node_of_three("DynamicQuantizeLinear", &["x"]);
        let y = graph.node("DequantizeLinear", &[&outputs[0], &outputs[1], &outputs[2]], vec![]);
        let out = run(graph.file(&[count as i64], &y), &[1, count], &x);
        let (low, high) = x.iter().fold((0.0f32, 0.0f32), |(low, high), x| (low.min(*x), high.max(*x)));
        let scale = (high - low) / 255.0;
        let zero = if scale == 0.0 { 0 } else { quantize(-low, scale, 0, 0, 255) };
        for (found, x) in floats(&out).iter().zip(&x) {
            let q = if scale == 0.0 { zero } else { quantize(*x, scale, zero, 0, 255) };
            assert_eq!(found.to_bits(), ((q - zero) as f32 * scale).to_bits(), "round {round}: {x}");
        }
    }
}

#[test]
fn average_pools_count_padding_only_where_they_say_so() {
    let mut random = Random(6);
    for (include, ceil) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
        let (height, width, kernel, stride) = (7usize, 6usize, 3usize, 2usize);
        let x = random.floats(height * width, 3.0);
        let mut graph = Graph::default();
        let attributes = vec![
            ints("kernel_shape", &[3, 3]),
            ints("strides", &[2, 2]),
            ints("pads", &[1, 1, 1, 1]),
            int("count_include_pad", include),
            int("ceil_mode", ceil),
        ];
        let y = graph.node("AveragePool", &["x"], attributes);
        let out = run(graph.file(&[1, height as i64, width as i64], &y), &[1, 1, height, width], &x);
        let columns = out.shape()[3];
        for (at, found) in floats(&out).iter().enumerate() {
            let (top, left) = (at / columns * stride, at % columns * stride);
            let (mut sum, mut elements, mut padded) = (0.0f32, 0usize, 0usize);
            for y in top..top + kernel {
                for x_at in left..left + kernel {
                    // Padded coordinates: the padding is one wide; what lies beyond it is not counted at all.
                    if (1..=height).contains(&y) && (1..=width).contains(&x_at) {
                        sum += x[(y - 1) * width + x_at - 1];
                        elements += 1;
                    }
                    padded += usize::from(y < height + 2 && x_at < width + 2);
                }
            }
            let expected = sum / (if include == 1 { padded } else { elements }) as f32;
            assert_eq!(found.to_bits(), expected.to_bits(), "{include} {ceil} at {at}");
        }
    }
}
