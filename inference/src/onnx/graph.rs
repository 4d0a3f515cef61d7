//! A graph whose names are resolved to numbers and whose constants are host tensors.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use prost::Message;

use super::{
    ModelError,
    proto::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto},
};
use crate::{
    DType, Tensor, TensorValues,
    descriptor::{Dim, TensorSpec},
    tensor::{element_count, words},
};

/// Larger files are refused before they are parsed.
const MAX_FILE_BYTES: usize = 1 << 30;
/// More nodes than any real network has.
const MAX_NODES: usize = 100_000;
/// Elements of one constant: 1 GiB of float32.
const MAX_ELEMENTS: usize = 1 << 28;
/// Default-domain operator sets whose semantics the operators follow.
const OPSETS: core::ops::RangeInclusive<i64> = 7..=23;

/// Index of a value: a graph input, a constant or a node's output.
pub(crate) type ValueId = usize;

/// One operation with its names resolved.
#[derive(Debug)]
pub(crate) struct GraphNode {
    pub(crate) proto: NodeProto,
    pub(crate) label: String,
    /// `None` for an omitted optional input.
    pub(crate) inputs: Vec<Option<ValueId>>,
    pub(crate) outputs: Vec<ValueId>,
}

/// A checked graph: every input of a node is defined before it, every value once.
#[derive(Debug)]
pub(crate) struct Graph {
    pub(crate) inputs: Vec<(ValueId, TensorSpec)>,
    pub(crate) outputs: Vec<(ValueId, TensorSpec)>,
    pub(crate) nodes: Vec<GraphNode>,
    pub(crate) constants: HashMap<ValueId, Tensor>,
    pub(crate) value_count: usize,
    pub(crate) opset: i64,
}

/// What an operator's parser sees of its node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeView<'a> {
    node: &'a GraphNode,
    constants: &'a HashMap<ValueId, Tensor>,
    pub(crate) opset: i64,
}

impl Graph {
    /// Parses and checks a file.
    pub(crate) fn load(file: Bytes) -> Result<Self, ModelError> {
        if file.len() > MAX_FILE_BYTES {
            return Err(ModelError::TooLarge { bytes: file.len(), limit: MAX_FILE_BYTES });
        }
        let model = ModelProto::decode(file).map_err(|error| ModelError::NotOnnx(error.to_string()))?;
        let graph = match (model.ir_version, model.graph) {
            (Some(1..), Some(graph)) => graph,
            _ => return Err(ModelError::NotOnnx("no graph or no IR version".into())),
        };
        if let Some(function) = model.functions.first() {
            return Err(ModelError::Graph(format!("model-local functions are not supported (`{}`)", function.name)));
        }
        let opset = model.opset_import.iter().find(|set| is_default(&set.domain)).map_or(1, |set| set.version);
        if !OPSETS.contains(&opset) {
            return Err(ModelError::Graph(format!(
                "operator set {opset} is not supported: export with one of {}..={}",
                OPSETS.start(),
                OPSETS.end()
            )));
        }
        Builder::default().build(graph, opset)
    }

    /// The view of one node for its operator's parser.
    pub(crate) fn view(&self, index: usize) -> NodeView<'_> {
        NodeView { node: &self.nodes[index], constants: &self.constants, opset: self.opset }
    }
}

pub(crate) fn is_default(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

#[derive(Default)]
struct Builder {
    names: HashMap<String, ValueId>,
    constants: HashMap<ValueId, Tensor>,
}

impl Builder {
    fn build(mut self, graph: GraphProto, opset: i64) -> Result<Graph, ModelError> {
        if graph.node.len() > MAX_NODES {
            return Err(ModelError::Graph(format!("{} nodes; at most {MAX_NODES} are accepted", graph.node.len())));
        }
        for tensor in graph.initializer {
            let value =
                read_tensor(&tensor).map_err(|reason| ModelError::value("initializer", &tensor.name, reason))?;
            let id = self.define("initializer", &tensor.name)?;
            self.constants.insert(id, value);
        }
        let initializers: HashSet<String> = self.names.keys().cloned().collect();
        let mut inputs = Vec::new();
        for info in graph.input.iter().filter(|info| !initializers.contains(&info.name)) {
            let spec = read_spec("input", info)?;
            inputs.push((self.define("input", &info.name)?, spec));
        }
        let mut nodes = Vec::with_capacity(graph.node.len());
        for (index, proto) in graph.node.into_iter().enumerate() {
            let label =
                format!("{index} {}{}{}", proto.op_type, if proto.name.is_empty() { "" } else { " " }, proto.name);
            if let Some(constant) = self.constant_node(&proto, &label)? {
                let id = self.define("node output", proto.output.first().map_or("", String::as_str))?;
                self.constants.insert(id, constant);
                continue;
            }
            let inputs = proto.input.iter().map(|name| self.resolve(name, &label)).collect::<Result<_, _>>()?;
            let outputs = proto.output.iter().map(|name| self.define("node output", name)).collect::<Result<_, _>>()?;
            nodes.push(GraphNode { proto, label, inputs, outputs });
        }
        let mut outputs = Vec::new();
        for info in &graph.output {
            let id = *self
                .names
                .get(&info.name)
                .ok_or_else(|| ModelError::value("output", &info.name, "no node computes it"))?;
            outputs.push((id, read_spec("output", info)?));
        }
        if inputs.is_empty() || outputs.is_empty() || inputs.len() > 255 || outputs.len() > 255 {
            return Err(ModelError::Graph("a model has between 1 and 255 inputs and outputs".into()));
        }
        Ok(Graph { inputs, outputs, nodes, value_count: self.names.len(), constants: self.constants, opset })
    }

    fn define(&mut self, what: &'static str, name: &str) -> Result<ValueId, ModelError> {
        // An omitted optional output still needs a number, and may occur often.
        let key = if name.is_empty() { format!("\0omitted {}", self.names.len()) } else { name.to_owned() };
        let id = self.names.len();
        match self.names.insert(key, id) {
            None => Ok(id),
            Some(_) => Err(ModelError::value(what, name, "the name is defined twice")),
        }
    }

    fn resolve(&self, name: &str, label: &str) -> Result<Option<ValueId>, ModelError> {
        if name.is_empty() {
            return Ok(None);
        }
        self.names.get(name).copied().map(Some).ok_or_else(|| ModelError::Node {
            node: label.to_owned(),
            reason: format!("its input `{name}` is not defined before it"),
        })
    }

    fn constant_node(&self, proto: &NodeProto, label: &str) -> Result<Option<Tensor>, ModelError> {
        if proto.op_type != "Constant" || !is_default(&proto.domain) {
            return Ok(None);
        }
        let error = |reason: String| ModelError::Node { node: label.to_owned(), reason };
        let attribute = proto.attribute.first().ok_or_else(|| error("no value".into()))?;
        let vector = |values: TensorValues| Tensor::new(vec![values.len()], values);
        let scalar = |values: TensorValues| Tensor::new(vec![], values);
        match (attribute.name.as_str(), attribute) {
            ("value", AttributeProto { t: Some(tensor), .. }) => read_tensor(tensor).map(Some).map_err(error),
            ("value_float", AttributeProto { f: Some(f), .. }) => Ok(scalar(TensorValues::Float32(vec![*f]))),
            ("value_int", AttributeProto { i: Some(i), .. }) => Ok(scalar(TensorValues::Int64(vec![*i]))),
            ("value_floats", a) => Ok(vector(TensorValues::Float32(a.floats.clone()))),
            ("value_ints", a) => Ok(vector(TensorValues::Int64(a.ints.clone()))),
            (other, _) => Err(error(format!("attribute `{other}` is not supported"))),
        }
    }
}

/// ONNX's names of `TensorProto.DataType`, for messages.
fn type_name(data_type: i32) -> String {
    const NAMES: [&str; 17] = [
        "undefined",
        "float32",
        "uint8",
        "int8",
        "uint16",
        "int16",
        "int32",
        "int64",
        "string",
        "bool",
        "float16",
        "float64",
        "uint32",
        "uint64",
        "complex64",
        "complex128",
        "bfloat16",
    ];
    usize::try_from(data_type)
        .ok()
        .and_then(|i| NAMES.get(i))
        .map_or_else(|| format!("type {data_type}"), |s| (*s).into())
}

pub(crate) fn read_dtype(data_type: i32) -> Result<DType, String> {
    match data_type {
        1 => Ok(DType::Float32),
        7 => Ok(DType::Int64),
        other => Err(format!("element type {} is not supported (float32 and int64 are)", type_name(other))),
    }
}

fn read_tensor(proto: &TensorProto) -> Result<Tensor, String> {
    if proto.data_location == Some(1) {
        return Err("its data is in another file, which is not supported: save the model as one file".into());
    }
    let dtype = read_dtype(proto.data_type)?;
    let shape = proto
        .dims
        .iter()
        .map(|dim| usize::try_from(*dim).map_err(|_| format!("negative dimension {dim}")))
        .collect::<Result<Vec<_>, _>>()?;
    if element_count(&shape).is_none_or(|count| count > MAX_ELEMENTS) {
        return Err(format!("shape {shape:?} has more than {MAX_ELEMENTS} elements"));
    }
    let values = match (&proto.raw_data, dtype) {
        (Some(raw), _) if raw.len() % dtype.size() != 0 => return Err("its bytes end inside an element".into()),
        (Some(raw), DType::Float32) => TensorValues::Float32(words(raw).map(f32::from_le_bytes).collect()),
        (Some(raw), DType::Int64) => TensorValues::Int64(words(raw).map(i64::from_le_bytes).collect()),
        (None, DType::Float32) => TensorValues::Float32(proto.float_data.clone()),
        (None, DType::Int64) => TensorValues::Int64(proto.int64_data.clone()),
    };
    let found = values.len();
    Tensor::new(shape.clone(), values).ok_or_else(|| format!("shape {shape:?} does not fit its {found} elements"))
}

/// The declared type of a graph input or output. An unknown first dimension is the batch.
fn read_spec(what: &'static str, info: &ValueInfoProto) -> Result<TensorSpec, ModelError> {
    let error = |reason: String| ModelError::value(what, &info.name, reason);
    let tensor =
        info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()).ok_or_else(|| error("it is not a tensor".into()))?;
    let dtype = read_dtype(tensor.elem_type).map_err(error)?;
    let dims = tensor.shape.as_ref().map_or(&[][..], |shape| &shape.dim);
    if what == "input" && tensor.shape.is_none() {
        return Err(error("it has no declared rank: export with shapes".into()));
    }
    let shape = dims
        .iter()
        .enumerate()
        .map(|(axis, dim)| match dim.dim_value {
            Some(size) if (1..=u32::MAX as i64).contains(&size) => Ok(Dim::Fixed(size as u32)),
            Some(size) => Err(error(format!("dimension {axis} is {size}"))),
            None if axis == 0 => Ok(Dim::Batch),
            None if what == "output" => Ok(Dim::Batch), // inferred when the model is compiled
            None => Err(error(format!("dimension {axis} is dynamic; only the first may be (the batch)"))),
        })
        .collect::<Result<_, _>>()?;
    Ok(TensorSpec { name: info.name.clone(), dtype, shape })
}

impl<'a> NodeView<'a> {
    pub(crate) fn input_count(&self) -> usize {
        self.node.inputs.len()
    }

    pub(crate) fn has_input(&self, index: usize) -> bool {
        self.node.inputs.get(index).is_some_and(Option::is_some)
    }

    pub(crate) fn input_id(&self, index: usize) -> Option<ValueId> {
        *self.node.inputs.get(index)?
    }

    /// The constant at an input, if the input is there and constant.
    pub(crate) fn constant(&self, index: usize) -> Option<&'a Tensor> {
        self.constants.get(&(*self.node.inputs.get(index)?)?)
    }

    /// A constant list of integers, or a clear error when the graph computes it.
    pub(crate) fn constant_ints(&self, index: usize, what: &str) -> Result<Option<Vec<i64>>, String> {
        if !self.has_input(index) {
            return Ok(None);
        }
        match self.constant(index).map(Tensor::values) {
            Some(TensorValues::Int64(v)) => Ok(Some(v.clone())),
            _ => Err(format!("its {what} must be a constant")),
        }
    }

    /// A constant float scalar.
    pub(crate) fn constant_float(&self, index: usize, what: &str) -> Result<Option<f32>, String> {
        if !self.has_input(index) {
            return Ok(None);
        }
        match self.constant(index).map(Tensor::values) {
            Some(TensorValues::Float32(v)) if v.len() == 1 => Ok(Some(v[0])),
            _ => Err(format!("its {what} must be a constant float32 scalar")),
        }
    }

    fn attribute(&self, name: &str) -> Option<&'a AttributeProto> {
        self.node.proto.attribute.iter().find(|a| a.name == name)
    }

    pub(crate) fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).and_then(|a| a.i).unwrap_or(default)
    }

    pub(crate) fn float(&self, name: &str, default: f32) -> f32 {
        self.attribute(name).and_then(|a| a.f).unwrap_or(default)
    }

    pub(crate) fn ints(&self, name: &str) -> Option<Vec<i64>> {
        self.attribute(name).map(|a| a.ints.clone())
    }

    pub(crate) fn text(&self, name: &str) -> Option<&'a [u8]> {
        self.attribute(name).and_then(|a| a.s.as_deref())
    }
}
