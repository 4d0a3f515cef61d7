//! Models of a chosen cost, for tests and benchmarks. Generated, because their cost is their only content.

use prost::Message;

use crate::onnx::proto::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};

const FLOAT: i32 = 1;
const INT64: i32 = 7;
const NARROW: i64 = 256;
const WIDE: i64 = 2048;

/// An ONNX file: `x[1, 4] → y[1, 1]` through `layers` pairs of layers of 256 and 2048 units with shared weights, over
/// `rows` rows that the one input is spread to, so that the work is matrix products rather than reading weights. A run
/// costs some `rows · layers` million multiply-adds.
pub fn wide_mlp(rows: u32, layers: usize) -> Vec<u8> {
    let rows = i64::from(rows);
    let mut nodes = vec![
        node("MatMul", &["x", "spread"], "row", vec![]),
        node("Add", &["row", "offsets"], "h0", vec![]), // [1, 256] + [rows, 256]
    ];
    for layer in 0..layers {
        let (input, output) = (format!("h{layer}"), format!("h{}", layer + 1));
        let (a, b, c) = (format!("a{layer}"), format!("b{layer}"), format!("c{layer}"));
        nodes.push(node("MatMul", &[&input, "up"], &a, vec![]));
        nodes.push(node("Relu", &[&a], &b, vec![]));
        nodes.push(node("MatMul", &[&b, "down"], &c, vec![]));
        nodes.push(node("Relu", &[&c], &output, vec![]));
    }
    let last = format!("h{layers}");
    nodes.push(node("ReduceMean", &[&last], "mean", vec![ints("axes", &[0, 1])]));
    nodes.push(node("Reshape", &["mean", "one"], "y", vec![]));
    let graph = GraphProto {
        name: "heavy".into(),
        node: nodes,
        initializer: vec![
            weights("spread", &[4, NARROW], 1, 0.5),
            weights("offsets", &[rows, NARROW], 2, 1.0),
            weights("up", &[NARROW, WIDE], 3, 0.1),
            weights("down", &[WIDE, NARROW], 4, 0.036),
            TensorProto {
                name: "one".into(),
                dims: vec![2],
                data_type: INT64,
                int64_data: vec![1, 1],
                ..Default::default()
            },
        ],
        input: vec![value("x", &[1, 4])],
        output: vec![value("y", &[1, 1])],
        sparse_initializer: vec![],
    };
    ModelProto {
        ir_version: Some(8),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
        functions: vec![],
    }
    .encode_to_vec()
}

fn node(op_type: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: op_type.into(),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.into()],
        attribute,
        ..Default::default()
    }
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), ints: values.to_vec(), r#type: 7, ..Default::default() }
}

/// Pseudo-random weights in ±`scale`.
fn weights(name: &str, dims: &[i64], seed: u32, scale: f32) -> TensorProto {
    let count: i64 = dims.iter().product();
    let mut state = seed;
    let float_data = (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * scale
        })
        .collect();
    TensorProto { name: name.into(), dims: dims.to_vec(), data_type: FLOAT, float_data, ..Default::default() }
}

fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = dims.iter().map(|size| DimensionProto { dim_value: Some(*size), dim_param: None }).collect();
    let tensor_type = TensorTypeProto { elem_type: FLOAT, shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto { tensor_type: Some(tensor_type), ..Default::default() }),
    }
}
