//! What the backend tests do not cover: attributes of hostile files, and classifiers of two classes.

use bytes::Bytes;

use super::*;
use crate::onnx::proto::{AttributeProto, NodeProto};

/// An attribute's value.
#[derive(Clone)]
enum A {
    I(i64),
    Is(Vec<i64>),
    Fs(Vec<f32>),
    S(&'static str),
    Ss(Vec<&'static str>),
    T(crate::Tensor),
}

fn attribute(name: &str, value: &A) -> AttributeProto {
    let mut proto = AttributeProto { name: name.to_owned(), ..Default::default() };
    match value.clone() {
        A::I(i) => proto.i = Some(i),
        A::Is(ints) => proto.ints = ints,
        A::Fs(floats) => proto.floats = floats,
        A::S(text) => proto.s = Some(Bytes::from_static(text.as_bytes())),
        A::Ss(texts) => proto.strings = texts.into_iter().map(|text| Bytes::from_static(text.as_bytes())).collect(),
        A::T(tensor) => proto.t = Some(Box::new(crate::onnx::constants::write_tensor("", &tensor))),
    }
    proto
}

type Attributes = Vec<(&'static str, A)>;

/// The attributes with some of them replaced.
fn with(mut attributes: Attributes, changes: Attributes) -> Attributes {
    attributes.retain(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
    attributes.extend(changes);
    attributes
}

fn parse(op: &str, opset: i64, attributes: &Attributes) -> Result<crate::engine::program::Eval, String> {
    let proto = NodeProto {
        op_type: op.to_owned(),
        attribute: attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
        output: vec!["y".to_owned(), "z".to_owned()],
        ..Default::default()
    };
    let packs = crate::engine::Packs::within(u64::MAX);
    let misread = core::cell::Cell::new(false);
    let node =
        Node { proto: &proto, opset, constants: &[], slots: &[], packs: &packs, misread: &misread, rectified: false };
    find(op).unwrap()(&node, &[])
}

fn run(op: &str, opset: i64, attributes: &Attributes, inputs: Vec<Array>) -> Result<Vec<Array>, Stop> {
    let eval = parse(op, opset, attributes)?;
    let values: Vec<Value> = inputs.into_iter().map(Value::Known).collect();
    let (mut running, mut tracing) = (Cx::running(1, None, None), Cx::tracing());
    let outputs = eval(&mut running, &Inputs::new(values.iter().map(Some).collect()))?;
    // A trace infers the same types, and computes nothing.
    let unknown: Vec<Value> = values.iter().map(Value::forget).collect();
    let traced = eval(&mut tracing, &Inputs::new(unknown.iter().map(Some).collect()));
    if let Ok(traced) = traced {
        assert_eq!(running.ops, tracing.ops, "what is priced is what is done");
        assert!(traced.iter().zip(&outputs).all(|(a, b)| a.ty() == b.ty() && !a.is_known()));
    }
    Ok(outputs
        .into_iter()
        .map(|value| match value {
            Value::Known(array) => array,
            other => panic!("{other:?}"),
        })
        .collect())
}

fn rows(rows: &[&[f32]]) -> Array {
    Array::new(DType::Float32, vec![rows.len(), rows[0].len()], rows.concat())
}

/// One node `x[0] <= 0.5`, with the leaves 1 and 2.
fn stump() -> Attributes {
    vec![
        ("nodes_treeids", A::Is(vec![0, 0, 0])),
        ("nodes_nodeids", A::Is(vec![0, 1, 2])),
        ("nodes_featureids", A::Is(vec![0, 0, 0])),
        ("nodes_modes", A::Ss(vec!["BRANCH_LEQ", "LEAF", "LEAF"])),
        ("nodes_values", A::Fs(vec![0.5, 0.0, 0.0])),
        ("nodes_truenodeids", A::Is(vec![1, 0, 0])),
        ("nodes_falsenodeids", A::Is(vec![2, 0, 0])),
    ]
}

fn regressor() -> Attributes {
    with(
        stump(),
        vec![
            ("n_targets", A::I(1)),
            ("target_treeids", A::Is(vec![0, 0])),
            ("target_nodeids", A::Is(vec![1, 2])),
            ("target_ids", A::Is(vec![0, 0])),
            ("target_weights", A::Fs(vec![0.25, 0.75])),
        ],
    )
}

fn classifier(ids: [i64; 2], weights: [f32; 2]) -> Attributes {
    with(
        stump(),
        vec![
            ("classlabels_int64s", A::Is(vec![10, 11])),
            ("class_treeids", A::Is(vec![0, 0])),
            ("class_nodeids", A::Is(vec![1, 2])),
            ("class_ids", A::Is(ids.to_vec())),
            ("class_weights", A::Fs(weights.to_vec())),
        ],
    )
}

#[test]
fn trees_that_are_none_are_refused() {
    let refused = |changes: Attributes| {
        let attributes = with(regressor(), changes);
        assert!(parse("TreeEnsembleRegressor", 3, &attributes).is_err(), "{}", attributes.last().unwrap().0);
    };
    assert!(parse("TreeEnsembleRegressor", 3, &regressor()).is_ok());
    refused(vec![("nodes_truenodeids", A::Is(vec![0, 0, 0]))]); // itself
    refused(vec![("nodes_truenodeids", A::Is(vec![7, 0, 0]))]); // nobody
    refused(vec![("nodes_truenodeids", A::Is(vec![1, 0]))]);
    refused(vec![("nodes_truenodeids", A::Is(vec![i64::MIN, 0, 0]))]);
    refused(vec![("nodes_nodeids", A::Is(vec![0, 1, 1]))]);
    refused(vec![("nodes_treeids", A::Is(vec![0, 1, 0]))]); // a child in another tree
    refused(vec![("nodes_modes", A::Ss(vec!["BRANCH", "LEAF", "LEAF"]))]);
    refused(vec![("nodes_featureids", A::Is(vec![-1, 0, 0]))]);
    refused(vec![("nodes_featureids", A::Is(vec![1 << 27, 0, 0]))]);
    refused(vec![("nodes_values", A::Fs(vec![0.5]))]);
    refused(vec![("target_ids", A::Is(vec![0, 1]))]);
    refused(vec![("target_ids", A::Is(vec![0, -1]))]);
    refused(vec![("target_nodeids", A::Is(vec![1, 9]))]);
    refused(vec![("target_weights", A::Fs(vec![0.25]))]);
    refused(vec![("n_targets", A::I(0))]);
    refused(vec![("n_targets", A::I(-1))]);
    refused(vec![("base_values", A::Fs(vec![1.0, 2.0]))]);
    refused(vec![("post_transform", A::S("LOG"))]);
    refused(vec![("aggregate_function", A::S("MEDIAN"))]);
    // A cycle of two.
    refused(vec![
        ("nodes_modes", A::Ss(vec!["BRANCH_LEQ", "BRANCH_LEQ", "LEAF"])),
        ("nodes_truenodeids", A::Is(vec![1, 0, 0])),
        ("nodes_falsenodeids", A::Is(vec![2, 2, 0])),
    ]);
    // More targets than memory: refused when run, before anything is allocated.
    let vast = with(regressor(), vec![("n_targets", A::I(1 << 40))]);
    assert!(matches!(run("TreeEnsembleRegressor", 3, &vast, vec![rows(&[&[0.0]])]), Err(Stop::Limit(_))));
    // Features that the input has not.
    let wide = with(regressor(), vec![("nodes_featureids", A::Is(vec![3, 0, 0]))]);
    assert!(run("TreeEnsembleRegressor", 3, &wide, vec![rows(&[&[0.0, 1.0, 2.0]])]).is_err());
}

#[test]
fn trees_may_be_deep_but_not_too_deep() {
    let chain = |depth: i64| {
        let nodes = 2 * depth + 1; // branch 2i has the leaf 2i + 1 and the branch 2i + 2; the last is a leaf
        let even =
            |f: fn(i64) -> i64| A::Is((0..nodes).map(|i| if i % 2 == 0 && i < nodes - 1 { f(i) } else { 0 }).collect());
        let modes = (0..nodes).map(|i| if i % 2 == 0 && i < nodes - 1 { "BRANCH_GT" } else { "LEAF" }).collect();
        let leaves: Vec<i64> = (0..nodes).filter(|i| i % 2 == 1 || *i == nodes - 1).collect();
        let count = leaves.len();
        vec![
            ("nodes_treeids", A::Is(vec![0; nodes as usize])),
            ("nodes_nodeids", A::Is((0..nodes).collect())),
            ("nodes_featureids", A::Is(vec![0; nodes as usize])),
            ("nodes_modes", A::Ss(modes)),
            ("nodes_values", A::Fs((0..nodes).map(|i| (i / 2) as f32).collect())),
            ("nodes_truenodeids", even(|i| i + 2)),
            ("nodes_falsenodeids", even(|i| i + 1)),
            ("n_targets", A::I(1)),
            ("target_treeids", A::Is(vec![0; count])),
            ("target_nodeids", A::Is(leaves)),
            ("target_ids", A::Is(vec![0; count])),
            ("target_weights", A::Fs((0..count).map(|i| i as f32).collect())),
        ]
    };
    let out = run("TreeEnsembleRegressor", 1, &chain(9_000), vec![rows(&[&[1e9], &[17.5], &[-1.0]])]).unwrap();
    assert_eq!(&*out[0].values::<f32>(), [9_000.0, 18.0, 0.0]);
    assert!(parse("TreeEnsembleRegressor", 1, &chain(10_001)).is_err());
}

#[test]
fn missing_values_go_where_the_tree_says() {
    let input = || vec![rows(&[&[f32::NAN], &[0.0], &[1.0]])];
    let out = run("TreeEnsembleRegressor", 3, &regressor(), input()).unwrap();
    assert_eq!(&*out[0].values::<f32>(), [0.75, 0.25, 0.75]);
    let tracked = with(regressor(), vec![("nodes_missing_value_tracks_true", A::Is(vec![1, 0, 0]))]);
    let out = run("TreeEnsembleRegressor", 3, &tracked, input()).unwrap();
    assert_eq!(&*out[0].values::<f32>(), [0.25, 0.25, 0.75]);
}

#[test]
fn a_model_in_float64_is_summed_in_float64() {
    let double =
        |values: Vec<f64>| A::T(crate::Tensor::new(vec![values.len()], crate::TensorValues::Float64(values)).unwrap());
    let mut attributes = with(regressor(), vec![("nodes_values_as_tensor", double(vec![0.1, 0.0, 0.0]))]);
    attributes.retain(|(name, _)| *name != "nodes_values");
    // 0.1f32 is greater than 0.1.
    let out = run("TreeEnsembleRegressor", 3, &attributes, vec![rows(&[&[0.1]])]).unwrap();
    assert_eq!(&*out[0].values::<f32>(), [0.75]);
    let input = Array::new(DType::Float64, vec![1, 1], vec![0.1f64]);
    let out = run("TreeEnsembleRegressor", 3, &attributes, vec![input]).unwrap();
    assert_eq!(&*out[0].values::<f32>(), [0.25]);
    assert!(
        parse("TreeEnsembleRegressor", 3, &with(attributes, vec![("nodes_values", A::Fs(vec![0.5, 0.0, 0.0]))]))
            .is_err()
    );
}

/// Labels and scores of the rows 0 and 1.
fn classify(attributes: &Attributes) -> (Vec<i64>, Vec<f32>) {
    let out = run("TreeEnsembleClassifier", 3, attributes, vec![rows(&[&[0.0], &[1.0]])]).unwrap();
    (out[0].values::<i64>().into_owned(), out[1].values::<f32>().into_owned())
}

/// The expected values are what onnxruntime 1.32 gave.
#[test]
fn two_classes_are_as_in_onnxruntime() {
    let close = |(labels, scores): (Vec<i64>, Vec<f32>), expected: ([i64; 2], [f32; 4])| {
        assert_eq!(labels, expected.0);
        assert!(scores.iter().zip(expected.1).all(|(a, b)| (a - b).abs() < 1e-6), "{scores:?} {expected:?}");
    };
    let post = |name: &'static str| vec![("post_transform", A::S(name))];
    let base = |values: &[f32]| vec![("base_values", A::Fs(values.to_vec()))];
    // Probabilities of one class: the threshold is one half.
    close(classify(&classifier([0, 0], [0.2, 0.9])), ([10, 11], [0.8, 0.2, 0.1, 0.9]));
    // Raw scores: the threshold is zero.
    close(classify(&classifier([0, 0], [-0.2, 0.9])), ([10, 11], [0.2, -0.2, -0.9, 0.9]));
    let logistic = with(classifier([0, 0], [-0.2, 0.9]), post("LOGISTIC"));
    close(classify(&logistic), ([10, 11], [0.549_834, 0.450_166, 0.289_050_5, 0.710_949_5]));
    let softmax = with(classifier([0, 0], [-0.2, 0.9]), post("SOFTMAX"));
    close(classify(&softmax), ([10, 11], [0.2, -0.2, -0.9, 0.9]));
    close(classify(&with(classifier([0, 0], [-0.2, 0.9]), base(&[0.25]))), ([11, 11], [-0.05, 0.05, -1.15, 1.15]));
    close(classify(&with(classifier([0, 0], [0.2, 0.9]), base(&[0.25, 0.5]))), ([10, 11], [0.45, 0.0, 1.15, 0.0]));
    close(classify(&classifier([1, 1], [0.2, 0.9])), ([10, 11], [0.0, 0.2, 0.0, 0.9]));
    close(classify(&with(classifier([1, 1], [-0.2, 0.9]), base(&[0.25, 0.5]))), ([11, 11], [0.0, 0.5, 0.0, 0.5]));
    // Weights for both classes: integer labels are 0 and 1, whatever the labels are.
    close(classify(&classifier([0, 1], [0.2, 0.9])), ([1, 1], [-0.2, 0.2, 0.0, 0.9]));
    let both = with(
        classifier([0, 1], [0.0, 0.0]),
        vec![
            ("class_treeids", A::Is(vec![0; 4])),
            ("class_nodeids", A::Is(vec![1, 1, 2, 2])),
            ("class_ids", A::Is(vec![0, 1, 0, 1])),
            ("class_weights", A::Fs(vec![0.8, 0.2, 0.1, 0.9])),
        ],
    );
    close(classify(&both), ([1, 1], [0.8, 0.2, 0.1, 0.9]));
}

#[test]
fn labels_are_of_one_kind_and_enough() {
    let changed =
        |changes: Attributes| parse("TreeEnsembleClassifier", 3, &with(classifier([0, 0], [0.2, 0.9]), changes));
    assert!(changed(vec![("classlabels_strings", A::Ss(vec!["a", "b"]))]).is_err());
    assert!(changed(vec![("classlabels_int64s", A::Is(vec![]))]).is_err());
    assert!(changed(vec![("base_values", A::Fs(vec![0.0; 3]))]).is_err());
    assert!(changed(vec![("classlabels_int64s", A::Is(vec![])), ("classlabels_strings", A::Ss(vec!["a"]))]).is_err());
    let linear = |labels: Vec<i64>, intercepts: usize| {
        let attributes = vec![
            ("classlabels_ints", A::Is(labels)),
            ("intercepts", A::Fs(vec![0.0; intercepts])),
            ("coefficients", A::Fs(vec![1.0; 6])),
        ];
        parse("LinearClassifier", 1, &attributes).is_ok()
    };
    assert!(linear(vec![1, 2], 1) && linear(vec![1, 2], 2) && linear(vec![1, 2, 3], 3));
    assert!(!linear(vec![1], 1) && !linear(vec![1, 2, 3], 2) && !linear(vec![1, 2, 3, 4], 4) && !linear(vec![1], 0));
}

fn leaf_tree() -> Attributes {
    let tensor =
        |values: Vec<f32>| A::T(crate::Tensor::new(vec![values.len()], crate::TensorValues::Float32(values)).unwrap());
    let modes =
        |values: Vec<u8>| A::T(crate::Tensor::new(vec![values.len()], crate::TensorValues::Uint8(values)).unwrap());
    vec![
        ("n_targets", A::I(1)),
        ("tree_roots", A::Is(vec![0])),
        ("nodes_modes", modes(vec![6])),
        ("nodes_splits", tensor(vec![0.0])),
        ("nodes_featureids", A::Is(vec![0])),
        ("nodes_truenodeids", A::Is(vec![0])),
        ("nodes_trueleafs", A::Is(vec![1])),
        ("nodes_falsenodeids", A::Is(vec![1])),
        ("nodes_falseleafs", A::Is(vec![1])),
        ("leaf_targetids", A::Is(vec![0, 0])),
        ("leaf_weights", tensor(vec![3.0, 4.0])),
        ("membership_values", tensor(vec![2.0, 0.0, -1.0, f32::NAN])),
    ]
}

#[test]
fn sets_and_lone_leaves_are_trees() {
    let input = || vec![rows(&[&[-1.0], &[0.0], &[-0.0], &[1.0], &[2.0], &[f32::NAN]])];
    let out = run("TreeEnsemble", 5, &leaf_tree(), input()).unwrap();
    assert_eq!(&*out[0].values::<f32>(), [3.0, 3.0, 3.0, 4.0, 3.0, 4.0]);
    let leaf = with(leaf_tree(), vec![("nodes_falsenodeids", A::Is(vec![0]))]);
    let out = run("TreeEnsemble", 5, &leaf, input()).unwrap();
    assert_eq!(&*out[0].values::<f32>(), [3.0; 6]);
    let refused = |changes: Attributes| assert!(parse("TreeEnsemble", 5, &with(leaf_tree(), changes)).is_err());
    refused(vec![("tree_roots", A::Is(vec![1]))]);
    refused(vec![("tree_roots", A::Is(vec![-1]))]);
    refused(vec![("nodes_truenodeids", A::Is(vec![2]))]);
    refused(vec![("nodes_truenodeids", A::Is(vec![-1]))]);
    refused(vec![("nodes_trueleafs", A::Is(vec![0]))]); // itself
    refused(vec![("leaf_targetids", A::Is(vec![0, 1]))]);
    refused(vec![("leaf_targetids", A::Is(vec![0]))]);
    refused(vec![(
        "membership_values",
        A::T(crate::Tensor::new(vec![0], crate::TensorValues::Float32(vec![])).unwrap()),
    )]);
    refused(vec![("nodes_modes", A::T(crate::Tensor::new(vec![1], crate::TensorValues::Uint8(vec![7])).unwrap()))]);
    refused(vec![("post_transform", A::I(5))]);
    refused(vec![("aggregate_function", A::I(-1))]);
}

#[test]
fn support_vector_machines_check_their_sizes() {
    let machine = || -> Attributes {
        vec![
            ("classlabels_ints", A::Is(vec![4, 5, 6])),
            ("vectors_per_class", A::Is(vec![1, 2, 1])),
            ("support_vectors", A::Fs(vec![0.5; 8])),
            ("coefficients", A::Fs(vec![0.25; 8])),
            ("rho", A::Fs(vec![0.0, 1.0, -1.0])),
            ("prob_a", A::Fs(vec![-1.0; 3])),
            ("prob_b", A::Fs(vec![0.0; 3])),
            ("kernel_type", A::S("RBF")),
            ("kernel_params", A::Fs(vec![0.5, 0.0, 3.0])),
        ]
    };
    let out = run("SVMClassifier", 1, &machine(), vec![rows(&[&[0.5, 0.5]])]).unwrap();
    let sum: f32 = out[1].values::<f32>().iter().sum();
    assert!((sum - 1.0).abs() < 1e-3, "{sum}");
    let refused = |changes: Attributes| assert!(parse("SVMClassifier", 1, &with(machine(), changes)).is_err());
    refused(vec![("vectors_per_class", A::Is(vec![1, 2]))]);
    refused(vec![("vectors_per_class", A::Is(vec![1, -2, 3]))]);
    refused(vec![("vectors_per_class", A::Is(vec![i64::MAX, i64::MAX, i64::MAX]))]);
    refused(vec![("support_vectors", A::Fs(vec![0.5; 7]))]);
    refused(vec![("support_vectors", A::Fs(vec![]))]);
    refused(vec![("coefficients", A::Fs(vec![0.25; 7]))]);
    refused(vec![("rho", A::Fs(vec![0.0]))]);
    refused(vec![("prob_b", A::Fs(vec![0.0]))]);
    refused(vec![("kernel_params", A::Fs(vec![0.0]))]);
    refused(vec![("kernel_type", A::S("COSINE"))]);
    refused(vec![("classlabels_ints", A::Is(vec![4])), ("vectors_per_class", A::Is(vec![4]))]);
    assert!(run("SVMClassifier", 1, &machine(), vec![rows(&[&[0.5]])]).is_err());
    let regressor = |supports: i64| {
        vec![
            ("n_supports", A::I(supports)),
            ("support_vectors", A::Fs(vec![0.5; 4])),
            ("coefficients", A::Fs(vec![0.25; 2])),
            ("rho", A::Fs(vec![0.0])),
        ]
    };
    assert!(parse("SVMRegressor", 1, &regressor(2)).is_ok());
    assert!(parse("SVMRegressor", 1, &regressor(-1)).is_err());
    assert!(parse("SVMRegressor", 1, &regressor(4)).is_err());
    assert!(parse("SVMRegressor", 1, &regressor(i64::MAX)).is_err());
}

#[test]
fn encoders_check_keys_and_values() {
    let encoder = |keys: A, values: A| vec![("keys_int64s", keys), ("values_strings", values)];
    assert!(parse("LabelEncoder", 4, &encoder(A::Is(vec![1, 2]), A::Ss(vec!["a"]))).is_err());
    assert!(parse("LabelEncoder", 4, &encoder(A::Is(vec![]), A::Ss(vec![]))).is_err());
    let two = with(encoder(A::Is(vec![1]), A::Ss(vec!["a"])), vec![("keys_floats", A::Fs(vec![1.0]))]);
    assert!(parse("LabelEncoder", 4, &two).is_err());
    assert!(parse("LabelEncoder", 1, &vec![]).is_err());
    let input = Array::ints(vec![1, 2, 3]);
    // Of equal keys the last one counts from operator set 4 on.
    let twice = encoder(A::Is(vec![1, 2, 1]), A::Ss(vec!["a", "b", "c"]));
    for (opset, first) in [(2, "a"), (4, "c")] {
        let out = run("LabelEncoder", opset, &twice, vec![input.clone()]).unwrap();
        assert_eq!(out[0].texts(), [first, "b", "_Unused"]);
    }
    // The encoder takes nothing but the type of its keys.
    assert!(run("LabelEncoder", 4, &encoder(A::Is(vec![1]), A::Ss(vec!["a"])), vec![rows(&[&[1.0]])]).is_err());
    let unknown = vec![("cats_int64s", A::Is(vec![1])), ("zeros", A::I(0))];
    assert!(run("OneHotEncoder", 1, &unknown, vec![Array::ints(vec![2])]).is_err());
}

#[test]
fn features_check_their_sizes() {
    let input = || vec![rows(&[&[1.0, 2.0, 3.0]])];
    assert!(run("Scaler", 1, &vec![("scale", A::Fs(vec![1.0; 2])), ("offset", A::Fs(vec![1.0; 2]))], input()).is_err());
    assert!(parse("Scaler", 1, &vec![("scale", A::Fs(vec![1.0; 2])), ("offset", A::Fs(vec![1.0]))]).is_err());
    assert!(parse("Scaler", 1, &vec![]).is_err());
    assert!(parse("Normalizer", 1, &vec![("norm", A::S("L3"))]).is_err());
    assert!(parse("Imputer", 1, &vec![]).is_err());
    assert!(run("Imputer", 1, &vec![("imputed_value_floats", A::Fs(vec![1.0; 2]))], input()).is_err());
    assert!(parse("FeatureVectorizer", 1, &vec![("inputdimensions", A::Is(vec![-1]))]).is_err());
    assert!(parse("FeatureVectorizer", 1, &vec![("inputdimensions", A::Is(vec![i64::MAX; 3]))]).is_err());
    assert!(run("FeatureVectorizer", 1, &vec![("inputdimensions", A::Is(vec![1, 1]))], input()).is_err());
    let pick = |at: i64| run("ArrayFeatureExtractor", 1, &vec![], [input(), vec![Array::ints(vec![at])]].concat());
    assert_eq!(&*pick(2).unwrap()[0].values::<f32>(), [3.0]);
    assert!(pick(3).is_err() && pick(-1).is_err());
}

#[test]
fn maps_are_texts_or_refused() {
    let labels = vec![("classlabels_strings", A::Ss(vec!["no", "yes"]))];
    let out = run("ZipMap", 1, &labels, vec![rows(&[&[0.25, 0.75], &[f32::NAN, 1.0]])]).unwrap();
    assert_eq!(out[0].texts(), [r#"{"no": 0.25, "yes": 0.75}"#, r#"{"no": "NaN", "yes": 1.0}"#]);
    assert!(run("ZipMap", 1, &labels, vec![rows(&[&[0.25]])]).is_err());
    assert!(parse("ZipMap", 1, &vec![("classlabels_int64s", A::Is(vec![3, 3]))]).is_err());
    assert!(parse("DictVectorizer", 1, &vec![]).is_err() && parse("CastMap", 1, &vec![]).is_err());
}

#[test]
fn no_rows_are_no_work() {
    let none = || vec![Array::new::<f32>(DType::Float32, vec![0, 2], vec![])];
    let out = run("TreeEnsembleClassifier", 3, &classifier([0, 0], [0.2, 0.9]), none()).unwrap();
    assert_eq!((out[0].shape(), out[1].shape()), (&[0][..], &[0, 2][..]));
    let linear = vec![("targets", A::I(1)), ("coefficients", A::Fs(vec![1.0, 2.0]))];
    assert_eq!(run("LinearRegressor", 1, &linear, none()).unwrap()[0].shape(), [0, 1]);
    // Rows without features are no rows that a tree can take.
    let empty = vec![Array::new::<f32>(DType::Float32, vec![3, 0], vec![])];
    assert!(run("TreeEnsembleRegressor", 3, &regressor(), empty).is_err());
}
