//! Crafted files: real graphs with fields changed at random, loaded and run. None may crash the process, hang it, or make
//! it take unbounded memory; a panic that was contained is a fault too.
//!
//! A few seconds by default; `PENSTOCK_FUZZ_SECONDS=3600 cargo test --release --workspace --test fuzz -- --nocapture` runs
//! longer, and `PENSTOCK_FUZZ_SEED` begins elsewhere. The corpus is the bundled models, written-out graphs, and, if
//! `PENSTOCK_ONNX_CASES` is set, every small model of the ONNX backend tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

#[path = "support/cases.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod cases;
#[path = "support/graphs.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod graphs;

use std::{
    env, fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use penstock_inference::{
    Argument, DType, EvaluationError, Model, Tensor,
    onnx::proto::{AttributeProto, GraphProto, ModelProto, TensorProto},
};
use prost::Message;

/// Larger files would only make it slow.
const MOST_BYTES: usize = 60_000;
/// Cost that a run may have.
const MOST_OPS: u64 = 20_000_000;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn number(&mut self) -> i64 {
        const NUMBERS: [i64; 20] = [
            0,
            1,
            2,
            3,
            4,
            7,
            -1,
            -2,
            8,
            16,
            64,
            255,
            1 << 16,
            1 << 31,
            1 << 40,
            i64::MAX,
            i64::MIN,
            -7,
            100,
            1_000_000,
        ];
        NUMBERS[self.below(NUMBERS.len())]
    }
}

fn corpus() -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models");
    let mut files: Vec<Vec<u8>> = ["linear", "digits-mlp"]
        .iter()
        .map(|name| fs::read(folder.join(format!("{name}/{name}.onnx"))).unwrap())
        .collect();
    files.extend(graphs::all().into_iter().map(|(_, file)| file));
    files.extend(graphs::mixing().into_iter().map(|(_, file)| file));
    if let Some(cases) = env::var_os("PENSTOCK_ONNX_CASES").map(PathBuf::from) {
        for case in cases::find(&cases) {
            let path = case.join("model.onnx");
            if fs::metadata(&path).unwrap().len() < MOST_BYTES as u64 {
                files.push(fs::read(path).unwrap());
            }
        }
    }
    files
}

fn change_tensor(tensor: &mut TensorProto, random: &mut Random) {
    match random.below(6) {
        0 => tensor.data_type = random.below(27) as i32,
        1 if !tensor.dims.is_empty() => {
            let at = random.below(tensor.dims.len());
            tensor.dims[at] = random.number();
        }
        2 => tensor.dims.push(random.number()),
        3 => {
            tensor.dims.pop();
        }
        4 if !tensor.int64_data.is_empty() => {
            let at = random.below(tensor.int64_data.len());
            tensor.int64_data[at] = random.number();
        }
        _ => {
            if let Some(raw) = &tensor.raw_data {
                let mut raw = raw.to_vec();
                if raw.len() >= 8 && random.below(2) == 0 {
                    let at = random.below(raw.len() / 8) * 8;
                    raw[at..at + 8].copy_from_slice(&random.number().to_le_bytes());
                } else {
                    let length = random.below(raw.len() + 3);
                    raw.resize(length, 0xff);
                }
                tensor.raw_data = Some(raw.into());
            }
        }
    }
}

fn change_attribute(attribute: &mut AttributeProto, random: &mut Random) {
    match random.below(7) {
        0 => attribute.i = Some(random.number()),
        1 if !attribute.ints.is_empty() => {
            let at = random.below(attribute.ints.len());
            attribute.ints[at] = random.number();
        }
        2 => attribute.ints.push(random.number()),
        3 => {
            attribute.ints.pop();
            attribute.floats.pop();
            attribute.strings.pop();
        }
        4 => attribute.f = Some(f32::from_bits(random.next() as u32)),
        5 if attribute.t.is_some() => change_tensor(attribute.t.as_mut().unwrap(), random),
        6 if attribute.g.is_some() => change_graph(attribute.g.as_mut().unwrap(), random, &[]),
        _ => attribute.i = None,
    }
}

fn change_graph(graph: &mut GraphProto, random: &mut Random, operators: &[(String, String)]) {
    let nodes = graph.node.len();
    match random.below(12) {
        0 if !graph.initializer.is_empty() => {
            let at = random.below(graph.initializer.len());
            change_tensor(&mut graph.initializer[at], random);
        }
        1 if nodes > 0 && !operators.is_empty() => {
            let (domain, op) = operators[random.below(operators.len())].clone();
            let node = &mut graph.node[random.below(nodes)];
            (node.domain, node.op_type) = (domain, op);
        }
        2 if nodes > 0 => {
            let node = random.below(nodes);
            graph.node.remove(node);
        }
        3 if nodes > 0 => {
            let copy = graph.node[random.below(nodes)].clone();
            graph.node.push(copy);
        }
        4 if nodes > 1 => {
            let (a, b) = (random.below(nodes), random.below(nodes));
            let name = graph.node[a].output.first().cloned().unwrap_or_default();
            let node = &mut graph.node[b];
            if !node.input.is_empty() {
                let at = random.below(node.input.len());
                node.input[at] = name;
            }
        }
        5 if nodes > 0 => {
            let node = &mut graph.node[random.below(nodes)];
            match random.below(4) {
                0 => drop(node.input.pop()),
                1 => drop(node.output.pop()),
                2 => node.input.push(String::new()),
                _ => node.output.push(format!("new{}", random.next())),
            }
        }
        6 if !graph.input.is_empty() => {
            let at = random.below(graph.input.len());
            if let Some(tensor) = graph.input[at].r#type.as_mut().and_then(|t| t.tensor_type.as_mut()) {
                match (random.below(3), &mut tensor.shape) {
                    (0, Some(shape)) if !shape.dim.is_empty() => {
                        let axis = random.below(shape.dim.len());
                        shape.dim[axis].dim_value = Some(random.number());
                    }
                    (1, Some(shape)) => drop(shape.dim.pop()),
                    _ => tensor.elem_type = random.below(17) as i32,
                }
            }
        }
        _ if nodes > 0 => {
            let node = &mut graph.node[random.below(nodes)];
            if node.attribute.is_empty() {
                return;
            }
            let at = random.below(node.attribute.len());
            change_attribute(&mut node.attribute[at], random);
        }
        _ => {}
    }
}

/// Loads a file and runs it on small inputs. `Err` is a fault of the engine.
fn attempt(file: Vec<u8>, random: &mut Random) -> Result<bool, String> {
    let proto = ModelProto::decode(file.as_slice()).map_err(|_| String::new());
    let model = match Model::load(file) {
        Ok(model) => model,
        Err(error) if error.to_string().contains("the engine failed") => return Err(error.to_string()),
        Err(_) => return Ok(false),
    };
    let Ok(proto) = proto else { return Ok(false) };
    let graph = proto.graph.unwrap_or_default();
    let mut arguments = Vec::new();
    for info in graph.input.iter().filter(|info| !graph.initializer.iter().any(|t| t.name == info.name)) {
        let Some(tensor) = info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()) else {
            arguments.push(Argument::Sequence(vec![]));
            continue;
        };
        let dims = tensor.shape.iter().flat_map(|shape| &shape.dim);
        let shape: Vec<usize> =
            dims.map(|d| d.dim_value.filter(|v| (0..64).contains(v)).unwrap_or(2) as usize).collect();
        let (Some(dtype), true) = (DType::from_onnx(tensor.elem_type), shape.iter().product::<usize>() < 100_000)
        else {
            return Ok(false);
        };
        let zeros = Tensor::zeros(dtype, shape.clone()).unwrap();
        // Small integers and fractions, so that indices are sometimes right.
        let mut bytes = Vec::new();
        zeros.encode(&mut bytes);
        if dtype != DType::Bool && dtype != DType::String && random.below(2) == 0 {
            let width = dtype.size();
            let count = shape.iter().product::<usize>();
            let first = bytes.len() - count * width;
            for i in 0..count {
                bytes[first + i * width] = random.below(4) as u8;
            }
        }
        arguments.push(Argument::Tensor(Tensor::decode(&mut bytes.as_slice()).unwrap()));
    }
    match model.evaluate_within(arguments, MOST_OPS) {
        Err(EvaluationError::Panicked(text)) => Err(format!("panic in a run: {text}")),
        Ok(_) => Ok(true),
        Err(_) => Ok(false),
    }
}

#[test]
fn crafted_files_are_refused_or_run_within_bounds() {
    let number = |name: &str, default: u64| env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let seconds = number("PENSTOCK_FUZZ_SECONDS", 10);
    let mut random = Random(number("PENSTOCK_FUZZ_SEED", 88_172_645_463_325_252) | 1);
    let files = corpus();
    let mut operators: Vec<(String, String)> = files
        .iter()
        .flat_map(|file| ModelProto::decode(file.as_slice()).unwrap().graph.unwrap_or_default().node)
        .map(|node| (node.domain, node.op_type))
        .collect();
    operators.sort();
    operators.dedup();
    // A contained panic is reported once, below: not by the hook, thousands of times.
    std::panic::set_hook(Box::new(|_| ()));
    let (start, mut tried, mut ran) = (Instant::now(), 0u64, 0u64);
    let mut faults: Vec<String> = Vec::new();
    let mut slowest = Duration::ZERO;
    let last = env::temp_dir().join(format!("penstock-fuzz-last-{}.onnx", std::process::id()));
    while start.elapsed() < Duration::from_secs(seconds) && faults.len() < 20 {
        let file = &files[random.below(files.len())];
        let bytes = if random.below(10) == 0 {
            let mut bytes = file.clone();
            for _ in 0..1 + random.below(4) {
                let at = random.below(bytes.len());
                bytes[at] = random.next() as u8;
            }
            bytes
        } else {
            let mut model = ModelProto::decode(file.as_slice()).unwrap();
            let mut graph = model.graph.take().unwrap_or_default();
            for _ in 0..1 + random.below(4) {
                change_graph(&mut graph, &mut random, &operators);
            }
            model.graph = Some(graph);
            model.encode_to_vec()
        };
        tried += 1;
        if seconds > 60 {
            // What cannot be contained leaves the file that did it.
            fs::write(&last, &bytes).unwrap();
        }
        let begin = Instant::now();
        match attempt(bytes.clone(), &mut random) {
            Ok(done) => ran += u64::from(done),
            Err(text) => {
                if !faults.iter().any(|fault| fault.ends_with(&text)) {
                    let path = env::temp_dir().join(format!("penstock-fuzz-{tried}.onnx"));
                    fs::write(&path, &bytes).unwrap();
                    faults.push(format!("{}: {text}", path.display()));
                }
            }
        }
        let took = begin.elapsed();
        if took > slowest {
            slowest = took;
            if took > Duration::from_secs(5) {
                let path = env::temp_dir().join(format!("penstock-slow-{tried}.onnx"));
                fs::write(&path, &bytes).unwrap();
                println!("{took:?}: {}", path.display());
            }
        }
    }
    let _ = std::panic::take_hook();
    let _ = fs::remove_file(&last);
    println!("{tried} files tried, {ran} of them ran to the end; the slowest took {slowest:?}");
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    assert!(ran > 0);
}
