//! From a file's graph to a [`Program`]: names become slots, functions are written out, constants are folded.

mod functions;
mod opsets;

use std::{
    cell::Cell,
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use self::opsets::{OPSETS, Opsets, check_opsets, domain, opsets};
use super::{
    Packs,
    array::Array,
    chains::Chains,
    cx::{Cx, Inputs},
    fuse::{Dequantized, fuse},
    ops::{self, Body},
    program::{Program, Slot, Step},
    rows::Rule,
    value::Value,
};
use crate::{
    DType, ModelError,
    onnx::{
        Node,
        constants::{read_sparse, read_tensor},
        proto::{FunctionProto, GraphProto, ModelProto, NodeProto},
        weight,
    },
};

/// More nodes than any real network has, those of functions and inner graphs included.
const MAX_NODES: usize = 100_000;
/// Graphs within graphs, functions within functions.
const MAX_DEPTH: usize = 16;
/// Bytes of constants that are computed while a model is compiled, and of those that are laid out for the kernels, at most.
const MAX_FOLDED_BYTES: u64 = 1 << 30;
const MAX_LAID_OUT_BYTES: u64 = 4 << 30;

/// What of either, and of functions written out, a file of so many bytes may have: a small one that takes gigabytes is not what it seems to be.
fn bytes_of_constants(file: u64) -> u64 {
    (256u64 << 20).saturating_add(file.saturating_mul(8))
}

/// Compiles the graph of a model whose file has so many bytes; and tells the bytes of what is computed, laid out,
/// and kept of attributes.
pub(crate) fn compile(model: &ModelProto, graph: &GraphProto, file: u64) -> Result<(Program, u64), ModelError> {
    let opsets = opsets(&model.opset_import);
    check_opsets(&opsets)?;
    let mut functions = HashMap::new();
    for function in &model.functions {
        let key = (domain(&function.domain), function.name.as_str(), function.overload.as_str());
        if functions.insert(key, function).is_some() {
            return Err(ModelError::Graph(format!("function `{}` is there twice", function.name)));
        }
    }
    let most_folded = MAX_FOLDED_BYTES.min(bytes_of_constants(file));
    let laid_out = MAX_LAID_OUT_BYTES.min(bytes_of_constants(file));
    let most_written = bytes_of_constants(file);
    let mut compiler =
        Compiler { functions, nodes: 0, written: 0, most_written, lists: 0, folding: Cx::compiling(), most_folded };
    compiler.check_operators(graph)?;
    if model.opset_import.is_empty() {
        return Err(ModelError::NotOnnx("no operator sets".into()));
    }
    let mut builder = Builder {
        names: Names::default(),
        program: Program::default(),
        packs: Packs::within(laid_out),
        prefix: String::new(),
        dequantized: HashMap::new(),
        absorbed: HashSet::new(),
    };
    builder.graph(&mut compiler, graph, &opsets, 0, true)?;
    builder.program.finish();
    let beside = laid_out - builder.packs.left();
    Ok((builder.program, compiler.folding.bytes.saturating_add(beside).saturating_add(compiler.lists)))
}

/// Domain, name, and which of several overloads.
type FunctionKey<'m> = (&'m str, &'m str, &'m str);

struct Compiler<'m> {
    functions: HashMap<FunctionKey<'m>, &'m FunctionProto>,
    /// So far.
    nodes: usize,
    /// Bytes of the functions that were written out, and how many that may be.
    written: u64,
    most_written: u64,
    /// Bytes of what operators keep of the lists of their attributes, about.
    lists: u64,
    /// Bounds what is computed at compile time.
    folding: Cx<'static>,
    /// Bytes of that.
    most_folded: u64,
}

impl<'m> Compiler<'m> {
    fn function(&self, node: &NodeProto) -> Option<&'m FunctionProto> {
        self.functions.get(&(domain(&node.domain), node.op_type.as_str(), node.overload.as_str())).copied()
    }

    /// Names all operators that are missing.
    fn check_operators(&self, graph: &GraphProto) -> Result<(), ModelError> {
        let names = self.functions.keys().map(|(domain, name, _)| (*domain, *name)).collect();
        let mut missing = BTreeSet::new();
        self.collect_missing(&graph.node, &names, &mut missing, 0)?;
        for function in self.functions.values() {
            self.collect_missing(&function.node, &names, &mut missing, 0)?;
        }
        if missing.is_empty() { Ok(()) } else { Err(ModelError::UnsupportedOperators(missing.into_iter().collect())) }
    }

    fn collect_missing(
        &self,
        nodes: &[NodeProto],
        names: &HashSet<(&str, &str)>,
        missing: &mut BTreeSet<String>,
        depth: usize,
    ) -> Result<(), ModelError> {
        if depth > MAX_DEPTH {
            return Err(ModelError::Graph(format!("graphs are nested more than {MAX_DEPTH} deep")));
        }
        for node in nodes {
            let name = domain(&node.domain);
            // Where there are functions of this name, it is one of them.
            let meant = !node.overload.is_empty() && names.contains(&(name, node.op_type.as_str()));
            let operator = ops::find(name, &node.op_type).is_some() && !meant;
            if self.function(node).is_none() && !operator {
                let dot = if name.is_empty() { "" } else { "." };
                let colon = if node.overload.is_empty() { "" } else { ":" };
                missing.insert(format!("{name}{dot}{}{colon}{}", node.op_type, node.overload));
            }
            for (_, graph) in Node::graphs(node) {
                self.collect_missing(&graph.node, names, missing, depth + 1)?;
            }
        }
        Ok(())
    }
}

/// The names that a graph sees: its own, and those of the graphs around it.
#[derive(Default)]
struct Names<'p> {
    own: HashMap<String, Slot>,
    outer: Option<(&'p Names<'p>, &'p Program)>,
}

enum Outer {
    Constant(Value),
    Computed,
}

impl Names<'_> {
    fn find_outside(&self, name: &str) -> Option<Outer> {
        let (names, program) = self.outer?;
        match names.own.get(name) {
            Some(slot) => Some(program.constants[*slot].clone().map_or(Outer::Computed, Outer::Constant)),
            None => names.find_outside(name),
        }
    }
}

/// What is computed together with a node: see [`Chains`].
#[derive(Debug, Clone, Copy, PartialEq)]
enum With<'n> {
    Nothing,
    /// The QuantizeLinear behind a product, if that is one of dequantised numbers.
    Quantize(&'n NodeProto),
    /// The Relu behind a convolution, unless that becomes something else.
    Relu,
    /// The scale, the bias and perhaps the Relu behind a product of integers.
    Scale {
        rectified: bool,
    },
}

struct Builder<'p> {
    names: Names<'p>,
    program: Program,
    packs: Packs,
    /// Before the names inside a function that is written out.
    prefix: String,
    /// By the slot of the output: what was dequantised so far.
    dequantized: HashMap<Slot, Dequantized>,
    /// Outputs whose only reader, a Relu or a QuantizeLinear, is part of the node that computes them.
    absorbed: HashSet<Slot>,
}

impl Builder<'_> {
    fn slot(&mut self, constant: Option<Value>) -> Slot {
        self.program.constants.push(constant);
        self.program.constants.len() - 1
    }

    fn define(&mut self, what: &'static str, name: &str, constant: Option<Value>) -> Result<Slot, ModelError> {
        let slot = self.slot(constant);
        match self.names.own.insert(format!("{}{name}", self.prefix), slot) {
            None => Ok(slot),
            Some(_) => Err(ModelError::value(what, name, "the name is defined twice")),
        }
    }

    /// The slot of a name, captured from the graph around this one if need be.
    fn resolve(&mut self, name: &str) -> Option<Slot> {
        let name = format!("{}{name}", self.prefix);
        if let Some(slot) = self.names.own.get(&name) {
            return Some(*slot);
        }
        let slot = match self.names.find_outside(&name)? {
            Outer::Constant(value) => self.slot(Some(value)),
            Outer::Computed => {
                let slot = self.slot(None);
                self.program.inputs.push(slot);
                self.program.captures.push(name.clone());
                slot
            }
        };
        self.names.own.insert(name, slot);
        Some(slot)
    }

    fn graph(
        &mut self,
        compiler: &mut Compiler<'_>,
        graph: &GraphProto,
        opsets: &Opsets,
        depth: usize,
        main: bool,
    ) -> Result<(), ModelError> {
        if depth > MAX_DEPTH {
            return Err(ModelError::Graph(format!("graphs are nested more than {MAX_DEPTH} deep")));
        }
        for tensor in &graph.initializer {
            let value = read_tensor(tensor).map_err(|reason| ModelError::value("initializer", &tensor.name, reason))?;
            self.define("initializer", &tensor.name, Some(Value::Known(Array::from_host(value))))?;
        }
        for sparse in &graph.sparse_initializer {
            let name = sparse.values.as_ref().map_or("", |values| &values.name);
            let value = read_sparse(sparse, |bytes| self.packs.reserve(bytes));
            let value = value.map_err(|reason| ModelError::value("initializer", name, reason))?;
            self.define("initializer", name, Some(Value::Known(Array::from_host(value))))?;
        }
        for info in &graph.input {
            // Old files list initializers among the inputs.
            if main && self.names.own.contains_key(&info.name) {
                continue;
            }
            let slot = self.define("input", &info.name, None)?;
            self.program.inputs.push(slot);
        }
        let outputs: Vec<&str> = graph.output.iter().map(|info| info.name.as_str()).collect();
        self.nodes(compiler, (&graph.node, &outputs), opsets, depth)?;
        for info in &graph.output {
            let slot = self
                .resolve(&info.name)
                .ok_or_else(|| ModelError::value("output", &info.name, "no node computes it"))?;
            self.program.outputs.push(slot);
        }
        Ok(())
    }

    fn nodes(
        &mut self,
        compiler: &mut Compiler<'_>,
        (nodes, outputs): (&[NodeProto], &[&str]),
        opsets: &Opsets,
        depth: usize,
    ) -> Result<(), ModelError> {
        let chains = Chains::of(nodes, outputs, |node| compiler.function(node).is_some());
        for (index, proto) in nodes.iter().enumerate() {
            // What is inside of functions has names with one.
            if proto.input.iter().chain(&proto.output).any(|name| name.contains('\0')) {
                return Err(ModelError::Graph(format!("node {index} has a name with a NUL character")));
            }
            compiler.nodes += 1;
            if compiler.nodes > MAX_NODES {
                return Err(ModelError::Graph(format!("more than {MAX_NODES} nodes")));
            }
            if chains.left_out.contains(&index) {
                self.pass_over(proto, index)?;
                continue;
            }
            let scaled = chains.scaled.get(&index);
            let (index, proto) = scaled.map_or((index, proto), |scaled| (scaled.index, &scaled.node));
            let space = if proto.name.is_empty() { "" } else { " " };
            let label = format!("{index} {}{space}{}", proto.op_type, proto.name);
            let with = match (scaled, proto.output.first()) {
                (Some(scaled), _) => With::Scale { rectified: scaled.rectified },
                (None, Some(output)) if chains.rectified.contains(output) => With::Relu,
                (None, Some(output)) => {
                    chains.quantized.get(output).map_or(With::Nothing, |index| With::Quantize(&nodes[*index]))
                }
                (None, None) => With::Nothing,
            };
            match compiler.function(proto) {
                Some(function) if scaled.is_none() => self.call(compiler, proto, function, &label, depth)?,
                _ => self.node(compiler, (proto, with), opsets, label, depth)?,
            }
        }
        Ok(())
    }

    fn node(
        &mut self,
        compiler: &mut Compiler<'_>,
        (proto, with): (&NodeProto, With<'_>),
        opsets: &Opsets,
        label: String,
        depth: usize,
    ) -> Result<(), ModelError> {
        let error = |reason: String| ModelError::Node { node: label.clone(), reason };
        let lists = proto.attribute.iter().map(weight::of_lists).sum();
        compiler.lists = compiler.lists.saturating_add(lists);
        let name = domain(&proto.domain);
        let opset = opsets.get(name).copied().unwrap_or(if name.is_empty() { *OPSETS.end() } else { 1 });
        let mut inputs = Vec::with_capacity(proto.input.len());
        for name in &proto.input {
            let slot = match name.as_str() {
                "" => None,
                name => Some(
                    self.resolve(name).ok_or_else(|| error(format!("its input `{name}` is not defined before it")))?,
                ),
            };
            inputs.push(slot);
        }
        if let ("Relu" | "QuantizeLinear", [Some(slot), ..], [output]) =
            (proto.op_type.as_str(), inputs.as_slice(), proto.output.as_slice())
            && self.absorbed.remove(slot)
        {
            if !output.is_empty() && self.names.own.insert(format!("{}{output}", self.prefix), *slot).is_some() {
                return Err(ModelError::value("node output", output, "the name is defined twice"));
            }
            return Ok(());
        }
        let quantize = match with {
            With::Quantize(node) => self.quantize(node),
            _ => None,
        };
        let mut bodies = Vec::new();
        for (name, graph) in Node::graphs(proto) {
            let outer = Names { own: HashMap::new(), outer: Some((&self.names, &self.program)) };
            let mut inner = Builder {
                names: outer,
                program: Program::default(),
                packs: self.packs.inner(),
                prefix: self.prefix.clone(),
                dequantized: HashMap::new(),
                absorbed: HashSet::new(),
            };
            inner.graph(compiler, graph, opsets, depth + 1, false)?;
            inner.program.finish();
            let program = inner.program;
            let first = inputs.len();
            for captured in &program.captures {
                // The name carries its prefix already.
                let prefix = core::mem::take(&mut self.prefix);
                let slot = self.resolve(captured);
                self.prefix = prefix;
                inputs.push(Some(
                    slot.ok_or_else(|| error(format!("its graph reads `{captured}`, which is not defined")))?,
                ));
            }
            bodies.push(Body { name: name.to_owned(), program: Arc::new(program), first });
        }
        let (eval, rule, fused, dequantized) = {
            let constant = |slot: &Option<Slot>| match self.program.constants[(*slot)?].as_ref()? {
                Value::Known(array) => Some(array),
                _ => None,
            };
            let constants: Vec<Option<&Array>> = inputs.iter().map(constant).collect();
            let rectified = matches!(with, With::Relu | With::Scale { rectified: true });
            let misread = Cell::new(false);
            let node = Node {
                proto,
                opset,
                constants: &constants,
                slots: &inputs,
                packs: &self.packs,
                misread: &misread,
                rectified,
            };
            let fused =
                if name.is_empty() { fuse(&node, &self.dequantized, quantize, &self.program.constants) } else { None };
            let parsed = match fused.zip(ops::dequantized::find(&proto.op_type)) {
                Some(((proto, inputs), parse)) => {
                    let constants: Vec<Option<&Array>> = inputs.iter().map(constant).collect();
                    let node = Node { proto: &proto, constants: &constants, slots: &inputs, ..node };
                    (parse(&node, &bodies).map_err(error)?, Rule::First, Some(inputs), None)
                }
                None => {
                    let scaled = matches!(with, With::Scale { .. }).then_some(ops::scaled as ops::Parse);
                    let parse = scaled
                        .or_else(|| ops::find(name, &proto.op_type))
                        .ok_or_else(|| ModelError::UnsupportedOperators(vec![proto.op_type.clone()]))?;
                    let dequantized = if name.is_empty() { Dequantized::of(&node) } else { None };
                    (parse(&node, &bodies).map_err(error)?, Rule::of(&node), None, dequantized)
                }
            };
            if misread.get() {
                return Err(error("an attribute has another type than its operator gives it".into()));
            }
            parsed
        };
        let (fused, inputs) = (fused.is_some(), fused.unwrap_or(inputs));
        let mut step = Step {
            label: label.clone(),
            operator: proto.op_type.clone(),
            eval,
            rule,
            inputs,
            outputs: vec![],
            dead: vec![],
            takes: proto.input.len() <= 2 && ops::takes(name, &proto.op_type, opset),
        };
        let folded = self.fold(compiler, &step);
        // A convolution of dequantised numbers leaves its Relu to itself; other products do not quantise.
        let absorbed = if fused { quantize.is_some() } else { with == With::Relu };
        for (index, name) in proto.output.iter().enumerate() {
            let constant = folded.as_ref().and_then(|values| values.get(index).cloned());
            let slot = if name.is_empty() { None } else { Some(self.define("node output", name, constant)?) };
            if let (Some(slot), true) = (slot, absorbed) {
                self.absorbed.insert(slot);
            }
            if let (Some(slot), Some(dequantized)) = (slot, &dequantized) {
                self.dequantized.insert(slot, dequantized.clone());
            }
            step.outputs.push(slot);
        }
        if step.outputs.is_empty() {
            return Err(error("it has no output".into()));
        }
        if folded.is_none() {
            self.program.steps.push(step);
        }
        Ok(())
    }

    /// A node that is part of another one: its names are read and defined here all the same.
    fn pass_over(&mut self, proto: &NodeProto, index: usize) -> Result<(), ModelError> {
        for name in proto.input.iter().filter(|name| !name.is_empty()) {
            self.resolve(name).ok_or_else(|| ModelError::Node {
                node: format!("{index} {}", proto.op_type),
                reason: format!("its input `{name}` is not defined before it"),
            })?;
        }
        proto.output.iter().try_for_each(|name| self.define("node output", name, None).map(|_| ()))
    }

    /// The scale and the zero point of a QuantizeLinear, if they are constants: one number each, the latter a byte.
    fn quantize(&self, node: &NodeProto) -> Option<(Slot, Slot)> {
        let [_, scale, zero] = node.input.as_slice() else { return None };
        // In another precision than float32 it is left to itself.
        if node
            .attribute
            .iter()
            .any(|attribute| attribute.name == "precision" && !matches!(attribute.i, None | Some(0 | 1)))
        {
            return None;
        }
        // Of this graph: one that is captured before its time could not be defined here any more.
        let own = |name: &str| self.names.own.get(&format!("{}{name}", self.prefix)).copied();
        let (scale, zero) = (own(scale)?, own(zero)?);
        let one = |slot: Slot, types: &[DType]| match self.program.constants[slot].as_ref()? {
            Value::Known(array) => (array.count() == 1 && types.contains(&array.dtype())).then_some(slot),
            _ => None,
        };
        Some((one(scale, &[DType::Float32])?, one(zero, &[DType::Int8, DType::Uint8])?))
    }

    /// The outputs of a step whose inputs are constants, if they are cheap to have. An error is left to the run, where
    /// the step may never be reached.
    fn fold(&self, compiler: &mut Compiler<'_>, step: &Step) -> Option<Vec<Value>> {
        let constant = |slot: &Option<Slot>| slot.and_then(|slot| self.program.constants[slot].as_ref());
        let values: Vec<Option<&Value>> = step.inputs.iter().map(constant).collect();
        let all = step.inputs.iter().zip(&values).all(|(slot, value)| slot.is_none() || value.is_some());
        if !all || compiler.folding.bytes > compiler.most_folded {
            return None;
        }
        let texts = values.iter().flatten().filter_map(|value| value.array());
        let read = texts.map(|array| array.text_bytes().0).fold(0, u64::saturating_add);
        compiler.folding.read_texts(read).ok()?;
        let outputs = (step.eval)(&mut compiler.folding, &Inputs::new(values)).ok()?;
        if !outputs.iter().all(Value::is_known) {
            return None;
        }
        outputs.iter().try_for_each(|value| compiler.folding.hold(value)).ok()?;
        Some(outputs)
    }
}
