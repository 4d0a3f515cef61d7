//! What it costs that results have one definition to the bit: nodes of the engine against the same work with sums in any
//! order. For products and convolutions that is the CPU's multiply-add units at full load, which no order exceeds; for the
//! reductions of rows, loops with as many running sums as the CPU likes. One thread; the least and the middle of many
//! runs (beside a busy neighbour on the same core, loads and stores suffer more than registers do).
//!
//!     cargo bench -p penstock-inference --bench exactness

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark that cannot go on stops")]

#[path = "../tests/support/graphs.rs"]
#[allow(dead_code, unreachable_pub, reason = "tests use the rest")]
mod graphs;

#[cfg(target_arch = "x86_64")]
#[path = "support/free.rs"]
mod free;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    eprintln!("the kernels to compare with are written for x86-64 with AVX2 or AVX-512");
}

#[cfg(target_arch = "x86_64")]
fn main() {
    x86::main();
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::{
        hint::black_box,
        time::{Duration, Instant},
    };

    use penstock_inference::{Model, Tensor, TensorValues};

    use super::{
        free,
        graphs::{Graph, ints},
    };

    /// Nodes in the longer of two graphs whose difference is what nodes take.
    const NODES: usize = 3;

    pub(super) fn main() {
        let Some(free) = free::Kernels::of_this_cpu() else {
            eprintln!("this CPU has neither AVX2 with FMA nor AVX-512");
            return;
        };
        println!(
            "{:<42} {:>10} {:>13} {:>6} {:>10} {:>13} {:>6}",
            "one node, one thread; least, then middle",
            "engine, µs",
            "any order, µs",
            "ratio",
            "engine, µs",
            "any order, µs",
            "ratio"
        );
        let product = |k: usize, n: usize| {
            move |graph: &mut Graph, x: &str| {
                let inner = graph.constant(numbers(k * n, 2), &[k, n]);
                let wide = graph.node("MatMul", &[x, &inner], vec![]);
                if k == n {
                    return wide;
                }
                let outer = graph.constant(numbers(k * n, 3), &[n, k]);
                graph.node("MatMul", &[&wide, &outer], vec![])
            }
        };
        let multiply_adds = |count: usize| move |free: &free::Kernels| free.multiply_adds(count);
        for (m, n) in [(128, 384), (512, 512)] {
            let name = format!("MatMul, {m} x {n} by {n}");
            report(&name, vec![m, n], product(n, n), multiply_adds(m * n * n), free);
        }
        let two = 2 * 128 * 384 * 1536;
        report(
            "two MatMuls, 128 x 384 by 1536 and back",
            [128, 384].to_vec(),
            product(384, 1536),
            multiply_adds(two),
            free,
        );
        let convolution = |channels: usize| {
            move |graph: &mut Graph, x: &str| {
                let w = graph.constant(numbers(channels * channels * 9, 4), &[channels, channels, 3, 3]);
                graph.node("Conv", &[x, &w], vec![ints("pads", &[1; 4])])
            }
        };
        for (channels, size) in [(64, 56), (128, 28), (256, 14)] {
            let name = format!("Conv, {channels} channels of {size} x {size}, 3 x 3");
            let count = channels * channels * 9 * size * size;
            report(&name, vec![1, channels, size, size], convolution(channels), multiply_adds(count), free);
        }
        let softmax = |graph: &mut Graph, x: &str| graph.node("Softmax", &[x], vec![]);
        let norm = |n: usize| {
            move |graph: &mut Graph, x: &str| {
                let (scale, bias) = (graph.constant(numbers(n, 5), &[n]), graph.constant(numbers(n, 6), &[n]));
                graph.node("LayerNormalization", &[x, &scale, &bias], vec![])
            }
        };
        for n in [128, 384, 1024] {
            let (values, mut to) = (|| floats(128 * n, 1), vec![0.0; 128 * n]);
            report(
                &format!("Softmax, 128 rows of {n}"),
                vec![128, n],
                softmax,
                move |free| free.softmax(&mut values(), n),
                free,
            );
            let (x, scale, bias) = (values(), floats(n, 5), floats(n, 6));
            report(
                &format!("LayerNormalization, 128 rows of {n}"),
                vec![128, n],
                norm(n),
                move |free| free.layer_norm(&x, &mut to, n, &scale, &bias),
                free,
            );
        }
    }

    fn floats(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * 0.04
        };
        (0..count).map(next).collect()
    }

    fn numbers(count: usize, seed: u32) -> TensorValues {
        TensorValues::Float32(floats(count, seed))
    }

    fn report(
        name: &str,
        shape: Vec<usize>,
        node: impl Fn(&mut Graph, &str) -> String,
        mut free: impl FnMut(&free::Kernels) -> Duration,
        kernels: free::Kernels,
    ) {
        let model = |count: usize| {
            let mut graph = Graph::default();
            let y = (0..count).fold("x".to_owned(), |x, _| node(&mut graph, &x));
            let row: Vec<i64> = shape[1..].iter().map(|size| *size as i64).collect();
            Model::load(graph.file(&row, &y)).unwrap()
        };
        let (short, long) = (model(1), model(NODES));
        let input = [Tensor::new(shape.clone(), numbers(shape.iter().product(), 1)).unwrap()];
        let run = |model: &Model| {
            let begin = Instant::now();
            let _ = black_box(model.run(&input));
            begin.elapsed()
        };
        // In turn, and as long as each other, so that a machine's better and worse moments are for both.
        let mut times: [Vec<f64>; 3] = Default::default();
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(3) {
            let round = [run(&short), run(&long), (1..NODES).map(|_| free(&kernels)).sum()];
            times.iter_mut().zip(round).for_each(|(times, time)| times.push(time.as_secs_f64() * 1e6));
        }
        times.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
        let at = |index: usize| {
            let [short, long, free] = times.each_ref().map(|times| times[index]);
            let (engine, free) = ((long - short) / (NODES - 1) as f64, free / (NODES - 1) as f64);
            format!("{engine:>10.1} {free:>13.1} {:>6.2}", engine / free)
        };
        println!("{name:<42} {} {}", at(0), at(times[0].len() / 2));
    }
}
