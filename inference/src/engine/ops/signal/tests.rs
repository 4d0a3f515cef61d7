//! What the backend tests have not.

use crate::engine::{
    ops::image::tests::{floats, int, parse, refused, run, whole},
    value::Value,
};

#[test]
fn sizes_that_nothing_fits_are_refused() {
    let signal = || floats(&[1, 8, 1], &[1.0, 2.0]);
    for n in [0, -1, i64::MIN, i64::MAX, 1 << 31] {
        refused("DFT", 17, vec![], &[signal(), whole(&[n])]);
        refused("DFT", 17, vec![int("onesided", 1)], &[signal(), whole(&[n])]);
        refused("STFT", 17, vec![], &[signal(), whole(&[4]), Value::Nothing, whole(&[n])]);
        if n < 1 {
            refused("STFT", 17, vec![], &[signal(), whole(&[n]), floats(&[4], &[1.0])]);
        }
        if n != 0 {
            refused("HannWindow", 17, vec![], &[whole(&[n])]);
            let scalars = [16_000.0, 0.0, 8000.0].map(|x| floats(&[1], &[x]));
            let [rate, low, high] = scalars;
            refused("MelWeightMatrix", 17, vec![], &[whole(&[n]), whole(&[n]), rate, low, high]);
        }
        if !(-2..=0).contains(&n) {
            refused("DFT", 20, vec![], &[signal(), Value::Nothing, whole(&[n])]);
        }
    }
    refused("DFT", 20, vec![], &[signal(), Value::Nothing, whole(&[-1])]);
    refused("DFT", 17, vec![], &[floats(&[1, 8, 3], &[1.0])]);
    refused("DFT", 17, vec![], &[floats(&[1, 0, 1], &[])]);
    refused("DFT", 17, vec![int("onesided", 1)], &[floats(&[1, 8, 2], &[1.0])]);
    refused("DFT", 17, vec![int("onesided", 1), int("inverse", 1)], &[signal()]);
    refused("STFT", 17, vec![], &[signal(), whole(&[4]), floats(&[9], &[1.0])]);
    assert!(parse("HannWindow", 17, vec![int("output_datatype", 9)]).is_err());
    assert!(parse("MelWeightMatrix", 17, vec![int("output_datatype", i64::MAX)]).is_err());
}

#[test]
fn transforms_there_and_back_are_the_same() {
    // More transforms than are computed side by side, along an axis inside.
    let values: Vec<f32> = (0..5 * 7 * 13).map(|i| (i * 37 % 101) as f32).collect();
    let (shape, there) = run("DFT", 17, vec![], &[floats(&[5, 7, 13, 1], &values)]).unwrap();
    assert_eq!(shape, [5, 7, 13, 2]);
    let (_, back) = run("DFT", 17, vec![int("inverse", 1)], &[floats(&shape, &there)]).unwrap();
    for (pair, x) in back.chunks_exact(2).zip(&values) {
        assert!((pair[0] - x).abs() < 1e-4 && pair[1].abs() < 1e-4, "{pair:?} {x}");
    }
    let (shape, half) = run("DFT", 17, vec![int("onesided", 1)], &[floats(&[5, 7, 13, 1], &values)]).unwrap();
    assert_eq!(shape, [5, 4, 13, 2]);
    let onesided = vec![int("onesided", 1), int("inverse", 1)];
    let (shape, back) = run("DFT", 17, onesided, &[floats(&shape, &half), whole(&[7])]).unwrap();
    assert_eq!(shape, [5, 7, 13, 1]);
    assert!(back.iter().zip(&values).all(|(a, b)| (a - b).abs() < 1e-4));
}
