//! Small graphs, written out, for what real files do not show in isolation.

use penstock_inference::{
    Tensor, TensorValues,
    onnx::{
        proto::{
            AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
            TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
        },
        write_tensor,
    },
};
use prost::Message;

/// An ONNX file in the making: one float32 input `x` of rows, one output.
#[derive(Default)]
pub(crate) struct Graph {
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
}

impl Graph {
    /// Adds a node; answers the name of its output.
    pub(crate) fn node(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let output = format!("v{}", self.nodes.len());
        self.nodes.push(NodeProto {
            op_type: op.into(),
            input: inputs.iter().map(|name| (*name).to_owned()).collect(),
            output: vec![output.clone()],
            attribute: attributes,
            ..Default::default()
        });
        output
    }

    /// The same of another domain.
    #[allow(dead_code, reason = "for one test program alone")]
    pub(crate) fn node_of(
        &mut self,
        domain: &str,
        op: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> String {
        let output = self.node(op, inputs, attributes);
        if let Some(node) = self.nodes.last_mut() {
            node.domain = domain.into();
        }
        output
    }

    /// The same with three outputs.
    #[allow(dead_code, reason = "for one test program alone")]
    pub(crate) fn node_of_three(&mut self, op: &str, inputs: &[&str]) -> [String; 3] {
        let first = self.node(op, inputs, vec![]);
        let names = [first.clone(), format!("{first}b"), format!("{first}c")];
        if let Some(node) = self.nodes.last_mut() {
            node.output = names.to_vec();
        }
        names
    }

    #[allow(dead_code, reason = "for one test program alone")]
    pub(crate) fn nodes_mut(&mut self) -> &mut Vec<NodeProto> {
        &mut self.nodes
    }

    pub(crate) fn constant(&mut self, values: TensorValues, shape: &[usize]) -> String {
        let name = format!("c{}", self.constants.len());
        self.constants.push(write_tensor(&name, &Tensor::new(shape.to_vec(), values).unwrap()));
        name
    }

    /// Pseudo-random weights in ±1.
    fn weights(&mut self, shape: &[usize]) -> String {
        let mut state = 77 + self.constants.len() as u32;
        let count: usize = shape.iter().product();
        let values = (0..count).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        });
        let values = TensorValues::Float32(values.collect());
        self.constant(values, shape)
    }

    fn ints(&mut self, values: &[i64]) -> String {
        self.constant(TensorValues::Int64(values.to_vec()), &[values.len()])
    }

    /// The file, for an input of `[batch, row…]`.
    pub(crate) fn file(self, row: &[i64], output: &str) -> Vec<u8> {
        self.file_of(&["x"], row, output)
    }

    /// The file, for inputs of these names.
    pub(crate) fn file_of(self, inputs: &[&str], row: &[i64], output: &str) -> Vec<u8> {
        let batch = DimensionProto { dim_value: None, dim_param: Some("batch".into()) };
        let fixed = |size: &i64| DimensionProto { dim_value: Some(*size), dim_param: None };
        let shape = TensorShapeProto { dim: core::iter::once(batch).chain(row.iter().map(fixed)).collect() };
        let value = |name: &str, shape: Option<TensorShapeProto>| ValueInfoProto {
            name: name.into(),
            r#type: Some(TypeProto {
                tensor_type: Some(TensorTypeProto { elem_type: 1, shape }),
                ..Default::default()
            }),
        };
        let graph = GraphProto {
            name: "graph".into(),
            node: self.nodes,
            initializer: self.constants,
            input: inputs.iter().map(|name| value(name, Some(shape.clone()))).collect(),
            output: vec![value(output, None)],
            ..Default::default()
        };
        ModelProto {
            ir_version: Some(10),
            graph: Some(graph),
            opset_import: [("", 21), ("ai.onnx.ml", 3), ("com.microsoft", 1)]
                .map(|(domain, version)| OperatorSetIdProto { domain: domain.into(), version })
                .to_vec(),
            functions: vec![],
        }
        .encode_to_vec()
    }
}

pub(crate) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i: Some(value), r#type: 2, ..Default::default() }
}

pub(crate) fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), ints: values.to_vec(), r#type: 7, ..Default::default() }
}

/// One graph for each way to compute.
pub(crate) fn all() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("functions", functions()),
        ("reductions", reductions()),
        ("convolutions", convolutions()),
        ("recurrent", recurrent()),
        ("attention", attention()),
        ("quantised", quantised()),
        ("dequantised", dequantised()),
        ("halves", cast_through(10)),
        ("doubles", cast_through(11)),
        ("norms", norms()),
    ]
}

/// Graphs in which a row sees others.
pub(crate) fn mixing() -> Vec<(&'static str, Vec<u8>)> {
    let one = |op: &str, attributes: Vec<AttributeProto>| {
        let mut graph = Graph::default();
        let y = graph.node(op, &["x"], attributes);
        graph.file(&[4], &y)
    };
    let mut sum = Graph::default();
    let axes = sum.ints(&[0]);
    let total = sum.node("ReduceSum", &["x", &axes], vec![int("keepdims", 1)]);
    let y = sum.node("Add", &["x", &total], vec![]);
    let mut sized = Graph::default();
    let shape = sized.node("Shape", &["x"], vec![int("end", 1)]);
    let size = sized.node("Cast", &[&shape], vec![int("to", 1)]);
    let z = sized.node("Mul", &["x", &size], vec![]);
    let mut spread = Graph::default();
    let shape = spread.node("Shape", &["x"], vec![]);
    let end = spread.node("Shape", &["x"], vec![int("end", 1)]);
    let size = spread.node("Cast", &[&end], vec![int("to", 1)]);
    let spread_size = spread.node("Expand", &[&size, &shape], vec![]);
    let s = spread.node("Add", &["x", &spread_size], vec![]);
    let mut vector = Graph::default();
    let n = vector.node_of("ai.onnx.ml", "Normalizer", &["x"], vec![]);
    vec![
        ("a vector as one row", vector.file(&[], &n)),
        ("softmax over rows", one("Softmax", vec![int("axis", 0)])),
        ("sum over rows", sum.file(&[4], &y)),
        ("the number of rows", sized.file(&[4], &z)),
        ("the number of rows, spread over them", spread.file(&[4], &s)),
        ("transposed", one("Transpose", vec![ints("perm", &[1, 0])])),
    ]
}

/// The sum of two inputs.
#[allow(dead_code, reason = "for one test program alone")]
pub(crate) fn sum_of_two() -> Vec<u8> {
    let mut graph = Graph::default();
    let y = graph.node("Add", &["x", "z"], vec![]);
    graph.file_of(&["x", "z"], &[2], &y)
}

/// Graphs whose rows look as if they were apart, and are not, or not for every number of them.
#[allow(dead_code, reason = "for one test program alone")]
pub(crate) fn deceiving() -> Vec<(&'static str, Vec<u8>)> {
    let mut list = Vec::new();
    {
        // Positions in the whole batch.
        let mut graph = Graph::default();
        let [_, at, _] = graph.node_of_three("MaxPool", &["x"]);
        if let Some(node) = graph.nodes.last_mut() {
            node.output.truncate(2);
            node.attribute = vec![ints("kernel_shape", &[2, 2])];
        }
        let y = number(&mut graph, &at);
        list.push(("positions of a pool", graph.file(&[1, 4, 4], &y)));
    }
    {
        let mut graph = Graph::default();
        let [from, to, axes, steps] = [-1, i64::MIN, 0, -1].map(|x| graph.ints(&[x]));
        let y = graph.node("Slice", &["x", &from, &to, &axes, &steps], vec![ints("axes", &[1])]);
        list.push(("axes twice", graph.file(&[3], &y)));
    }
    {
        // The rows as a vector, where they are fewer than fifty.
        let mut graph = Graph::default();
        let rows = graph.node("Shape", &["x"], vec![int("end", 1)]);
        let [zero, one, three, fifty, flat] = [&[0][..], &[1], &[3], &[50], &[-1, 1]].map(|list| graph.ints(list));
        let many = graph.node("Greater", &[&rows, &fifty], vec![]);
        let many = graph.node("Cast", &[&many], vec![int("to", 7)]);
        let rank = graph.node("Add", &[&many, &one], vec![]);
        let both = graph.node("Concat", &[&rows, &one], vec![int("axis", 0)]);
        let shape = graph.node("Slice", &[&both, &zero, &rank], vec![]);
        // For a price that is the same.
        let other = graph.node("Sub", &[&three, &rank], vec![]);
        let other = graph.node("Slice", &[&both, &zero, &other], vec![]);
        let other = graph.node("Reshape", &["x", &other], vec![]);
        graph.node("Softmax", &[&other], vec![int("axis", -1)]);
        let view = graph.node("Reshape", &["x", &shape], vec![]);
        let softmax = graph.node("Softmax", &[&view], vec![int("axis", -1)]);
        let y = graph.node("Reshape", &[&softmax, &flat], vec![]);
        list.push(("a vector of few rows", graph.file(&[1], &y)));
    }
    list
}

/// Graphs that keep rows apart, but for four of them: something in them has another shape then, or costs too much.
#[allow(dead_code, reason = "for one test program alone")]
pub(crate) fn apart_but_for_four() -> Vec<(&'static str, Vec<u8>)> {
    // One where there are four rows, else zero.
    let whether_four = |graph: &mut Graph| {
        let rows = graph.node("Shape", &["x"], vec![int("end", 1)]);
        let four = graph.ints(&[4]);
        let equal = graph.node("Equal", &[&rows, &four], vec![]);
        (graph.node("Cast", &[&equal], vec![int("to", 7)]), rows)
    };
    let mut viewed = Graph::default();
    let (four, rows) = whether_four(&mut viewed);
    // [rows, 2, 6], or [4, 3, 4].
    let two = viewed.ints(&[2]);
    let middle = viewed.node("Add", &[&four, &two], vec![]);
    let rest = viewed.ints(&[-1]);
    let shape = viewed.node("Concat", &[&rows, &middle, &rest], vec![int("axis", 0)]);
    let view = viewed.node("Reshape", &["x", &shape], vec![]);
    let softmax = viewed.node("Softmax", &[&view], vec![int("axis", -1)]);
    let flat = viewed.ints(&[-1, 12]);
    let y = viewed.node("Reshape", &[&softmax, &flat], vec![]);
    let mut dear = Graph::default();
    let (four, _) = whether_four(&mut dear);
    let many = dear.ints(&[100_000]);
    let end = dear.node("Mul", &[&four, &many], vec![]);
    let none = dear.ints(&[]);
    let (zero, one) =
        (dear.constant(TensorValues::Int64(vec![0]), &[]), dear.constant(TensorValues::Int64(vec![1]), &[]));
    let end = dear.node("Reshape", &[&end, &none], vec![]);
    dear.node("Range", &[&zero, &end, &one], vec![]);
    let z = dear.node("Relu", &["x"], vec![]);
    vec![("a view", viewed.file(&[12], &y)), ("a range", dear.file(&[12], &z))]
}

fn scalar(graph: &mut Graph, x: f32) -> String {
    graph.constant(TensorValues::Float32(vec![x]), &[])
}

fn bytes(graph: &mut Graph, values: Vec<u8>, shape: &[usize]) -> String {
    graph.constant(TensorValues::Uint8(values), shape)
}

fn number(graph: &mut Graph, x: &str) -> String {
    graph.node("Cast", &[x], vec![int("to", 1)])
}

/// Parameters that are others for each row of a batch.
pub(crate) fn parameters_by_rows() -> Vec<(&'static str, Vec<u8>)> {
    let mut list = vec![];
    {
        // Scales by the number of rows that there are.
        let mut graph = Graph::default();
        let (scale, zero) = (scalar(&mut graph, 0.1), bytes(&mut graph, vec![7], &[]));
        let q = graph.node("QuantizeLinear", &["x", &scale, &zero], vec![]);
        let scales = graph.constant(TensorValues::Float32((1..9).map(|i| i as f32).collect()), &[8]);
        let b = bytes(&mut graph, vec![1, 2, 3], &[3, 1]);
        let product = graph.node("QLinearMatMul", &[&q, &scales, &zero, &b, &scale, &zero, &scale, &zero], vec![]);
        let y = number(&mut graph, &product);
        list.push(("scales for more rows", graph.file(&[3], &y)));
    }
    for (op, row, shape) in [("MatMulInteger", &[2, 1][..], &[1, 2][..]), ("ConvInteger", &[1, 2, 1], &[1, 1, 1, 1])] {
        let mut graph = Graph::default();
        let (scale, zero) = (scalar(&mut graph, 0.1), bytes(&mut graph, vec![7], &[]));
        let q = graph.node("QuantizeLinear", &["x", &scale, &zero], vec![]);
        let zeros = bytes(&mut graph, vec![1, 20, 40, 90], &[4]);
        let w = bytes(&mut graph, vec![3; shape.iter().product()], shape);
        let sums = graph.node(op, &[&q, &w, &zeros], vec![]);
        let y = number(&mut graph, &sums);
        list.push(("zero points for more rows", graph.file(row, &y)));
    }
    {
        let mut graph = Graph::default();
        let axes = graph.ints(&[1]);
        let least = graph.node("ReduceMean", &["x", &axes], vec![int("keepdims", 1)]);
        let y = graph.node("Clip", &["x", &least], vec![]);
        list.push(("a bound for each row", graph.file(&[2], &y)));
    }
    list
}

fn functions() -> Vec<u8> {
    let mut graph = Graph::default();
    let names = [
        "Exp",
        "Tanh",
        "Sigmoid",
        "Erf",
        "Gelu",
        "Mish",
        "Softplus",
        "Softsign",
        "HardSwish",
        "Elu",
        "Selu",
        "Sin",
        "Cos",
        "Tan",
        "Atan",
        "Sinh",
        "Cosh",
        "Asinh",
        "Floor",
        "Round",
    ];
    let mut parts: Vec<String> = names.iter().map(|op| graph.node(op, &["x"], vec![])).collect();
    let positive = graph.node("Abs", &["x"], vec![]);
    let third = graph.constant(TensorValues::Float32(vec![1.0 / 3.0]), &[]);
    for op in ["Sqrt", "Log"] {
        let part = graph.node(op, &[&positive], vec![]);
        parts.push(graph.node("Clip", &[&part], vec![]));
    }
    parts.push(graph.node("Pow", &[&positive, &third], vec![]));
    let inputs: Vec<&str> = parts.iter().map(String::as_str).collect();
    let y = graph.node("Concat", &inputs, vec![int("axis", 1)]);
    graph.file(&[50], &y)
}

fn reductions() -> Vec<u8> {
    let mut graph = Graph::default();
    let axes = graph.ints(&[-1]);
    let mut parts = Vec::new();
    for op in ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceLogSumExp", "ReduceSumSquare"] {
        parts.push(graph.node(op, &["x", &axes], vec![int("keepdims", 1)]));
    }
    parts.push(graph.node("Softmax", &["x"], vec![]));
    parts.push(graph.node("LogSoftmax", &["x"], vec![]));
    let inputs: Vec<&str> = parts.iter().map(String::as_str).collect();
    let y = graph.node("Concat", &inputs, vec![int("axis", -1)]);
    graph.file(&[3, 37], &y)
}

fn convolutions() -> Vec<u8> {
    let mut graph = Graph::default();
    let (w, b) = (graph.weights(&[6, 2, 3, 3]), graph.weights(&[6]));
    let pads = || ints("pads", &[1, 1, 1, 1]);
    let a = graph.node("Conv", &["x", &w, &b], vec![pads(), ints("strides", &[2, 1])]);
    let depthwise = graph.weights(&[6, 1, 3, 3]);
    let c = graph.node("Conv", &[&a, &depthwise], vec![pads(), int("group", 6)]);
    let d = graph.node("MaxPool", &[&c], vec![ints("kernel_shape", &[2, 2]), ints("strides", &[1, 2])]);
    let e = graph.node("AveragePool", &[&d], vec![ints("kernel_shape", &[2, 2])]);
    let t = graph.weights(&[6, 2, 2, 2]);
    let y = graph.node("ConvTranspose", &[&e, &t], vec![ints("strides", &[2, 2])]);
    graph.file(&[2, 13, 14], &y)
}

fn recurrent() -> Vec<u8> {
    let mut graph = Graph::default();
    let turned = graph.node("Transpose", &["x"], vec![ints("perm", &[1, 0, 2])]);
    let (w, r, b) = (graph.weights(&[2, 40, 5]), graph.weights(&[2, 40, 10]), graph.weights(&[2, 80]));
    let direction = || AttributeProto {
        name: "direction".into(),
        s: Some("bidirectional".into()),
        r#type: 3,
        ..Default::default()
    };
    let a = graph.node("LSTM", &[&turned, &w, &r, &b], vec![int("hidden_size", 10), direction()]);
    let (w, r) = (graph.weights(&[2, 30, 5]), graph.weights(&[2, 30, 10]));
    let c =
        graph.node("GRU", &[&turned, &w, &r], vec![int("hidden_size", 10), direction(), int("linear_before_reset", 1)]);
    let d = graph.node("Add", &[&a, &c], vec![]);
    let y = graph.node("Transpose", &[&d], vec![ints("perm", &[2, 0, 1, 3])]);
    graph.file(&[7, 5], &y)
}

fn attention() -> Vec<u8> {
    let mut graph = Graph::default();
    let project = |graph: &mut Graph| {
        let w = graph.weights(&[24, 24]);
        let flat = graph.node("MatMul", &["x", &w], vec![]);
        let shape = graph.ints(&[0, 9, 3, 8]);
        let split = graph.node("Reshape", &[&flat, &shape], vec![]);
        graph.node("Transpose", &[&split], vec![ints("perm", &[0, 2, 1, 3])])
    };
    let (q, k, v) = (project(&mut graph), project(&mut graph), project(&mut graph));
    let kt = graph.node("Transpose", &[&k], vec![ints("perm", &[0, 1, 3, 2])]);
    let scores = graph.node("MatMul", &[&q, &kt], vec![]);
    let weights = graph.node("Softmax", &[&scores], vec![int("axis", -1)]);
    let mixed = graph.node("MatMul", &[&weights, &v], vec![]);
    let heads = graph.node("Transpose", &[&mixed], vec![ints("perm", &[0, 2, 1, 3])]);
    let shape = graph.ints(&[0, 9, 24]);
    let y = graph.node("Reshape", &[&heads, &shape], vec![]);
    graph.file(&[9, 24], &y)
}

fn quantised() -> Vec<u8> {
    let mut graph = Graph::default();
    let scale = graph.constant(TensorValues::Float32(vec![0.021]), &[]);
    let zero = graph.constant(TensorValues::Uint8(vec![131]), &[]);
    let q = graph.node("QuantizeLinear", &["x", &scale, &zero], vec![]);
    let w = graph.constant(TensorValues::Int8((0..60).map(|i| ((i * 37) % 251) as u8 as i8).collect()), &[12, 5]);
    let w_zero = graph.constant(TensorValues::Int8(vec![3]), &[]);
    let product = graph.node("MatMulInteger", &[&q, &w, &zero, &w_zero], vec![]);
    let floats = graph.node("Cast", &[&product], vec![int("to", 1)]);
    let y = graph.node("Mul", &[&floats, &scale], vec![]);
    graph.file(&[12], &y)
}

/// Products of what was quantised and dequantised, as exporters write them.
fn dequantised() -> Vec<u8> {
    let mut graph = Graph::default();
    let scale = graph.constant(TensorValues::Float32(vec![0.0237]), &[]);
    let zero = graph.constant(TensorValues::Int8(vec![-11]), &[]);
    let both = |graph: &mut Graph, x: &str| {
        let q = graph.node("QuantizeLinear", &[x, &scale, &zero], vec![]);
        graph.node("DequantizeLinear", &[&q, &scale, &zero], vec![])
    };
    let weights = |graph: &mut Graph, shape: &[usize], axis: usize| {
        let count = shape.iter().product::<usize>();
        let w = graph.constant(TensorValues::Int8((0..count).map(|i| ((i * 61) % 253) as u8 as i8).collect()), shape);
        let scales = (0..shape[axis]).map(|i| 0.002 + 0.0001 * i as f32).collect();
        let scales = graph.constant(TensorValues::Float32(scales), &[shape[axis]]);
        graph.node("DequantizeLinear", &[&w, &scales], vec![int("axis", axis as i64)])
    };
    let (x, w, b) = (both(&mut graph, "x"), weights(&mut graph, &[4, 2, 3, 3], 0), graph.weights(&[4]));
    let a = graph.node("Conv", &[&x, &w, &b], vec![ints("pads", &[1, 1, 1, 1])]);
    let flat = graph.node("Flatten", &[&a], vec![]);
    let (c, w, b) = (both(&mut graph, &flat), weights(&mut graph, &[22, 120], 0), graph.weights(&[22]));
    let d = graph.node("Gemm", &[&c, &w, &b], vec![int("transB", 1)]);
    let (e, w) = (both(&mut graph, &d), weights(&mut graph, &[22, 7], 1));
    let y = graph.node("MatMul", &[&e, &w], vec![]);
    graph.file(&[2, 5, 6], &y)
}

/// A product and some functions in another type.
fn cast_through(dtype: i64) -> Vec<u8> {
    let mut graph = Graph::default();
    let w = graph.weights(&[20, 11]);
    let a = graph.node("Cast", &["x"], vec![int("to", dtype)]);
    let b = graph.node("Cast", &[&w], vec![int("to", dtype)]);
    let c = graph.node("MatMul", &[&a, &b], vec![]);
    let d = graph.node("Tanh", &[&c], vec![]);
    let e = graph.node("Exp", &[&d], vec![]);
    let f = graph.node("Softmax", &[&e], vec![int("axis", 1)]);
    let y = graph.node("Cast", &[&f], vec![int("to", 1)]);
    graph.file(&[20], &y)
}

fn norms() -> Vec<u8> {
    let mut graph = Graph::default();
    let (scale, bias) = (graph.weights(&[6]), graph.weights(&[6]));
    let a = graph.node("LayerNormalization", &["x", &scale, &bias], vec![int("axis", -1)]);
    let (s, b) = (graph.weights(&[4]), graph.weights(&[4]));
    let c = graph.node("InstanceNormalization", &[&a, &s, &b], vec![]);
    let d = graph.node("GroupNormalization", &[&c, &s, &b], vec![int("num_groups", 2)]);
    let variance = graph.node("Abs", &[&s], vec![]);
    let y = graph.node("BatchNormalization", &[&d, &s, &b, &b, &variance], vec![]);
    graph.file(&[4, 5, 6], &y)
}
