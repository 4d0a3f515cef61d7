//! The bits of results are the definition's (NUMERICS.md): pinned, and the same whatever the threads, the batch, the CPU.
//!
//! `scripts/bits` runs this test on emulated CPUs without AVX, with AVX but no FMA, with both, and on aarch64.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

#[path = "support/cases.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod cases;
#[path = "support/graphs.rs"]
mod graphs;

use std::{env, fs, path::PathBuf};

use penstock_inference::{Argument, ContentHash, Model, Sizes, Tensor, TensorValues, result};

/// The models that come with the program, and small graphs of what they lack: attention, recurrence, quantised numbers,
/// functions, reductions, halves, doubles.
fn corpus() -> Vec<(String, Model)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models");
    let mut models: Vec<(String, Model)> = ["linear", "digits-mlp", "digits-cnn", "volatility"]
        .into_iter()
        .map(|name| {
            let file = fs::read(folder.join(format!("{name}/{name}.onnx"))).unwrap();
            (name.to_owned(), Model::load(file).unwrap())
        })
        .collect();
    models.extend(graphs::all().into_iter().map(|(name, file)| {
        let model = Model::load(file).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name.to_owned(), model)
    }));
    models
}

/// Pseudo-random inputs of a number of rows.
fn inputs(model: &Model, rows: usize, seed: u32) -> Vec<Tensor> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let specs = &model.descriptor().unwrap().inputs;
    let mut tensor = |spec: &penstock_inference::TensorSpec| {
        let shape = spec.shape_for(&Sizes::batch(rows));
        let count = shape.iter().product::<usize>();
        Tensor::new(shape, TensorValues::Float32((0..count).map(|_| 3.0 * next()).collect())).unwrap()
    };
    specs.iter().map(&mut tensor).collect()
}

#[test]
fn the_bits_of_the_corpus_are_pinned() {
    // A change of this hash is a change of ENGINE_VERSION: every id of every request changes with it.
    const EXPECTED: &str = "0xb2a5edf8fb24239edde5afdbe7984887f5bedc90e783a4e1421829e523fd91bf";
    let mut bytes = Vec::new();
    for (name, model) in corpus() {
        for rows in [1, 3] {
            let result = model.run(&inputs(&model, rows, rows as u32));
            // Logarithms of what is negative are no numbers: the same failure everywhere.
            assert_ne!(result, Err(penstock_inference::Failure::Engine), "{name}");
            bytes.extend(result::encode(&result));
        }
    }
    let hash = ContentHash::of(&bytes).to_string();
    println!("bits of the corpus {hash}");
    assert_eq!(hash, EXPECTED);
}

#[test]
fn threads_change_no_bit() {
    for (name, model) in corpus() {
        let inputs = inputs(&model, 7, 5);
        let one = model.run(&inputs);
        for threads in [2, 3, 8] {
            assert_eq!(model.run_watched(&inputs, threads, None, None).unwrap(), one, "{name} with {threads} threads");
        }
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_a_batch() {
    let mut batched = 0;
    for (name, model) in corpus().into_iter().filter(|(_, model)| model.batches()) {
        batched += 1;
        for rows in [7, 64] {
            let requests: Vec<Vec<Tensor>> = (0..rows).map(|row| inputs(&model, 1 + row % 2, row as u32)).collect();
            let together = model.run_batch(&requests.iter().map(Vec::as_slice).collect::<Vec<_>>(), 2).unwrap();
            for (request, result) in requests.iter().zip(together) {
                assert_eq!(model.run(request), result, "{name} in a batch of {rows}");
            }
        }
    }
    assert!(batched >= 8, "{batched} models keep rows apart");
}

#[test]
fn a_graph_that_mixes_rows_is_never_run_as_a_batch() {
    for (name, file) in graphs::mixing() {
        assert!(!Model::load(file).unwrap().batches(), "{name}");
    }
}

#[test]
fn no_batch_gives_a_row_other_bits_than_it_has_alone() {
    for (name, file) in graphs::deceiving() {
        let model = Model::load(file).unwrap();
        assert!(model.descriptor().is_ok(), "{name}: {:?}", model.descriptor());
        let requests: Vec<Vec<Tensor>> =
            [1, 2, 1, 3, 60].iter().zip(1..).map(|(rows, i)| inputs(&model, *rows, i)).collect();
        for picked in [&[0, 1][..], &[0, 2], &[1, 3], &[0, 1, 2, 3], &[0, 4]] {
            let picked: Vec<&[Tensor]> = picked.iter().map(|i: &usize| requests[*i].as_slice()).collect();
            let together = model.run_batch(&picked, 1);
            for (request, result) in picked.iter().zip(together.into_iter().flatten()) {
                assert_eq!(result, model.run(request), "{name}");
            }
        }
    }
}

#[test]
fn parameters_that_are_others_for_each_row_are_refused() {
    for (name, file) in graphs::parameters_by_rows() {
        let model = Model::load(file).unwrap();
        let refused = model.descriptor().is_err() || model.run(&inputs(&model, 2, 1)).is_err();
        assert!(refused, "{name}");
    }
}

#[test]
fn requests_whose_inputs_disagree_in_their_rows_are_run_alone() {
    let sum = graphs::sum_of_two();
    let model = Model::load(sum).unwrap();
    let request = |a: usize, b: usize| {
        [a, b]
            .map(|rows| Tensor::new(vec![rows, 2], TensorValues::Float32(vec![rows as f32; 2 * rows])).unwrap())
            .to_vec()
    };
    assert!(model.batches());
    let batch = |list: &[Vec<Tensor>]| model.run_batch(&list.iter().map(Vec::as_slice).collect::<Vec<_>>(), 1);
    assert!(batch(&[request(2, 2), request(3, 3)]).is_some());
    assert_eq!(batch(&[request(2, 3), request(2, 1), request(2, 2)]), None);
}

#[test]
fn a_row_that_would_be_something_else_in_a_batch_is_run_alone() {
    for (name, file) in graphs::apart_but_for_four() {
        let model = Model::load(file).unwrap();
        assert!(model.batches(), "{name}");
        let requests: Vec<Vec<Tensor>> = [1, 4, 2, 5].iter().map(|rows| inputs(&model, *rows, *rows as u32)).collect();
        let batch = |picked: &[usize]| {
            let picked: Vec<&[Tensor]> = picked.iter().map(|i| requests[*i].as_slice()).collect();
            model.run_batch(&picked, 1)
        };
        // Alone, beside others, and where others come to four.
        for picked in [&[1][..], &[1, 3], &[0, 1, 2, 3], &[2, 2]] {
            if let Some(together) = batch(picked) {
                for (i, result) in picked.iter().zip(together) {
                    assert_eq!(result, model.run(&requests[*i]), "{name}, {picked:?}");
                }
            }
        }
        assert_eq!(batch(&[1, 3]), None, "{name}");
        assert!(batch(&[0, 2, 3]).is_some(), "{name}");
    }
}

/// Prints one hash over the outputs of all real exports up to a cost, for `scripts/bits` to compare.
#[test]
fn the_bits_of_the_real_exports() {
    let Some(folder) = env::var_os("PENSTOCK_ONNX_CASES").map(PathBuf::from) else {
        eprintln!("skipped: PENSTOCK_ONNX_CASES is not set (scripts/test sets it)");
        return;
    };
    let most: u64 = env::var("PENSTOCK_BITS_MOST").ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
    let (mut bytes, mut count) = (Vec::new(), 0);
    for case in cases::find(&folder.join("real")) {
        let tolerance = cases::Tolerance { relative: f64::INFINITY, absolute: f64::INFINITY };
        let size = fs::metadata(case.join("model.onnx")).unwrap().len();
        if size > most {
            continue;
        }
        count += 1;
        cases::run(&case, tolerance, &mut |outputs| outputs.iter().for_each(|output| write(output, &mut bytes)));
    }
    println!("bits of {count} real exports {}", ContentHash::of(&bytes));
}

fn write(argument: &Argument, bytes: &mut Vec<u8>) {
    match argument {
        Argument::Tensor(tensor) => tensor.encode(bytes),
        Argument::Sequence(list) => list.iter().for_each(|argument| write(argument, bytes)),
        Argument::Nothing => bytes.push(0),
    }
}
