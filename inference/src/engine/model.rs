//! A compiled model.

use core::fmt;
use std::{
    collections::{BTreeSet, HashMap},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use burn_flex::Flex;
use bytes::Bytes;
use parking_lot::Mutex;

use super::{
    kernels::Kernels,
    ops::{self, Operator, PackedConstants},
    plan::Plan,
    value::{TensorType, Value},
};
use crate::{
    ContentHash, DType, Dim, Failure, InferenceResult, ModelDescriptor, ModelError, OpsCost, Tensor, TensorSpec,
    content,
    onnx::{Graph, ValueId, is_default},
};

/// Plans kept for the batch sizes used last.
const MAX_PLANS: usize = 32;

/// A node, ready to run.
#[derive(Debug)]
pub(super) struct Step<B: Kernels> {
    pub(super) label: String,
    pub(super) operator: Box<dyn Operator<B>>,
    pub(super) inputs: Vec<ValueId>,
    pub(super) output: ValueId,
}

/// A graph whose operators are parsed and whose constants are on the backend.
#[derive(Debug)]
pub(super) struct Compiled<B: Kernels> {
    pub(super) inputs: Vec<(ValueId, TensorSpec)>,
    pub(super) outputs: Vec<(ValueId, TensorSpec)>,
    pub(super) constants: HashMap<ValueId, (Value<B>, TensorType)>,
    pub(super) steps: Vec<Step<B>>,
    pub(super) value_count: usize,
}

/// A model that is ready to run.
pub struct Model {
    hash: ContentHash,
    cid: Option<String>,
    descriptor: ModelDescriptor,
    operators: Vec<(String, usize)>,
    compiled: Compiled<Flex>,
    plans: Mutex<HashMap<usize, Arc<Plan>>>,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("hash", &self.hash).field("descriptor", &self.descriptor).finish_non_exhaustive()
    }
}

impl Model {
    /// Reads, checks and compiles an ONNX file.
    ///
    /// # Errors
    /// [`ModelError`] for whatever would go wrong later: a request for a loaded model can only fail
    /// with one of the fixed [`Failure`]s.
    pub fn load(file: impl Into<Bytes>) -> Result<Self, ModelError> {
        let file = file.into();
        let (hash, cid) = (ContentHash::of(&file), content::cid_v0(&file));
        let graph = Graph::load(file)?;
        let operators = count_operators(&graph)?;
        let compiled = Compiled::new(&graph)?;
        let descriptor = describe(&compiled)?;
        Ok(Self { hash, cid, descriptor, operators, compiled, plans: Mutex::default() })
    }

    /// SHA-256 of the file.
    pub fn hash(&self) -> ContentHash {
        self.hash
    }

    /// IPFS CIDv0 of the file, if it fits one chunk.
    pub fn cid(&self) -> Option<&str> {
        self.cid.as_deref()
    }

    /// Inputs, outputs and cost.
    pub fn descriptor(&self) -> &ModelDescriptor {
        &self.descriptor
    }

    /// The operators of the graph with their number of nodes, in alphabetical order.
    pub fn operators(&self) -> &[(String, usize)] {
        &self.operators
    }

    /// Runs the model on inputs in the order of the graph. Equal inputs give equal output bits, on
    /// every machine. A panic inside a kernel is contained and becomes [`Failure::Engine`].
    pub fn run(&self, inputs: &[Tensor]) -> InferenceResult {
        let batch = self.batch_of(inputs).ok_or(Failure::Engine)?;
        let plan = self.plan(batch).map_err(|_| Failure::Engine)?;
        let values = inputs.iter().map(Value::from_host).collect::<Option<Vec<_>>>().ok_or(Failure::Engine)?;
        let outputs = catch_unwind(AssertUnwindSafe(|| plan.run(&self.compiled, values)))
            .map_err(|_| Failure::Engine)?
            .map_err(|_| Failure::Engine)?;
        let outputs = outputs.into_iter().map(Value::into_host).collect::<Option<Vec<_>>>().ok_or(Failure::Engine)?;
        if outputs.iter().all(Tensor::is_finite) { Ok(outputs) } else { Err(Failure::NonFinite) }
    }

    /// The batch size of inputs that fit the model; `None` when they do not.
    fn batch_of(&self, inputs: &[Tensor]) -> Option<usize> {
        let specs = &self.descriptor.inputs;
        let batch = specs.iter().zip(inputs).find_map(|(spec, tensor)| {
            let axis = spec.shape.iter().position(|dim| *dim == Dim::Batch)?;
            tensor.shape().get(axis).copied()
        });
        let batch = batch.unwrap_or(1);
        let fits = specs.len() == inputs.len()
            && batch > 0
            && specs.iter().zip(inputs).all(|(s, t)| s.dtype == t.dtype() && s.shape_for(batch) == t.shape());
        fits.then_some(batch)
    }

    fn plan(&self, batch: usize) -> Result<Arc<Plan>, ModelError> {
        if let Some(plan) = self.plans.lock().get(&batch) {
            return Ok(plan.clone());
        }
        let plan = Arc::new(Plan::new(&self.compiled, batch)?);
        let mut plans = self.plans.lock();
        if plans.len() >= MAX_PLANS {
            plans.clear();
        }
        plans.insert(batch, plan.clone());
        Ok(plan)
    }
}

/// Counts the operators, or names all that are missing.
fn count_operators(graph: &Graph) -> Result<Vec<(String, usize)>, ModelError> {
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    let mut missing = BTreeSet::new();
    for node in &graph.nodes {
        let proto = &node.proto;
        if !is_default(&proto.domain) {
            missing.insert(format!("{}.{}", proto.domain, proto.op_type));
        } else if !ops::is_supported(&proto.op_type) {
            missing.insert(proto.op_type.clone());
        }
        *counts.entry(proto.op_type.clone()).or_default() += 1;
    }
    if missing.is_empty() {
        Ok(counts.into_iter().collect())
    } else {
        Err(ModelError::UnsupportedOperators(missing.into_iter().collect()))
    }
}

impl<B: Kernels> Compiled<B> {
    fn new(graph: &Graph) -> Result<Self, ModelError> {
        let mut constants = HashMap::with_capacity(graph.constants.len());
        for (id, tensor) in &graph.constants {
            let value = Value::from_host(tensor)
                .ok_or_else(|| ModelError::Graph("a constant has an unsupported type".into()))?;
            constants.insert(*id, (value, TensorType::new(tensor.dtype(), tensor.shape().to_vec())));
        }
        let mut packed = PackedConstants::default();
        let mut steps = Vec::with_capacity(graph.nodes.len());
        for (index, node) in graph.nodes.iter().enumerate() {
            let error = |reason: String| ModelError::Node { node: node.label.clone(), reason };
            let operator = ops::parse(&node.proto.op_type, graph.view(index), &mut packed).map_err(error)?;
            let output = *node.outputs.first().ok_or_else(|| error("it has no output".into()))?;
            let inputs = node.inputs.iter().copied().flatten().collect();
            steps.push(Step { label: node.label.clone(), operator, inputs, output });
        }
        Ok(Self {
            inputs: graph.inputs.clone(),
            outputs: graph.outputs.clone(),
            constants,
            steps,
            value_count: graph.value_count,
        })
    }
}

/// Derives the descriptor from the plans for batches of 1, 2 and 3, and checks that cost and
/// shapes grow linearly with the batch: the chain prices every batch size from two numbers.
fn describe<B: Kernels>(model: &Compiled<B>) -> Result<ModelDescriptor, ModelError> {
    let batched = model.inputs.iter().any(|(_, spec)| spec.shape.contains(&Dim::Batch));
    let one = Plan::new(model, 1)?;
    if !batched {
        let outputs =
            model.outputs.iter().map(|(id, spec)| output_spec(spec, &one, &one, *id)).collect::<Result<_, _>>()?;
        let ops = OpsCost { fixed: one.ops, per_row: 0 };
        return Ok(ModelDescriptor { inputs: specs(model), outputs, ops });
    }
    let (two, three) = (Plan::new(model, 2)?, Plan::new(model, 3)?);
    let per_row = two.ops.saturating_sub(one.ops);
    if three.ops.checked_sub(two.ops) != Some(per_row) || per_row > one.ops {
        return Err(ModelError::Graph("its cost does not grow linearly with the batch".into()));
    }
    let outputs =
        model.outputs.iter().map(|(id, spec)| output_spec(spec, &one, &two, *id)).collect::<Result<_, _>>()?;
    Ok(ModelDescriptor { inputs: specs(model), outputs, ops: OpsCost { fixed: one.ops - per_row, per_row } })
}

fn specs<B: Kernels>(model: &Compiled<B>) -> Vec<TensorSpec> {
    model.inputs.iter().map(|(_, spec)| spec.clone()).collect()
}

fn output_spec(spec: &TensorSpec, one: &Plan, two: &Plan, id: ValueId) -> Result<TensorSpec, ModelError> {
    let error = |reason: &str| ModelError::value("output", &spec.name, reason);
    let (one, two) = one.type_of(id).zip(two.type_of(id)).ok_or_else(|| error("no node computes it"))?;
    let dtype: DType = one.dtype;
    let shape = one
        .shape
        .iter()
        .zip(&two.shape)
        .map(|dims| match dims {
            (1, 2) => Ok(Dim::Batch),
            (a, b) if a == b && *a > 0 => Ok(Dim::Fixed(*a as u32)),
            _ => Err(error("its shape does not follow the batch")),
        })
        .collect::<Result<_, _>>()?;
    if dtype != spec.dtype {
        return Err(error("its declared type is not the one that the graph computes"));
    }
    Ok(TensorSpec { name: spec.name.clone(), dtype, shape })
}
