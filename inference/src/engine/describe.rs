//! A model's inputs, outputs and cost as a chain knows them: the cost as a polynomial of the dimensions, found by tracing
//! the program at a few sizes and checked at others.

use core::fmt;
use std::{cell::Cell, collections::BTreeMap};

use super::{
    cx::{Allowance, Cx, MAX_RANK, RUN_OPS, Stop},
    program::{Program, Trace},
    value::{Value, count},
};
use crate::{
    DType, Dim, ModelDescriptor, ModelError, OpsCost, Sizes, TensorSpec,
    descriptor::OpsTerm,
    onnx::{constants::read_dtype, proto::ValueInfoProto},
};

/// Cost of an element of an input or an output.
const COPY_OPS: u64 = 6;

/// Dimensions other than the batch that a model may leave open.
const MAX_NAMED: usize = 2;
/// Sizes of those dimensions from which on the cost is looked for, one after the other: some graphs need a few elements.
const BASES: [usize; 5] = [1, 3, 8, 32, 128];

/// What a file says of an input or output.
#[derive(Debug, Clone)]
pub struct Declared {
    /// The graph's name for it.
    pub name: String,
    /// `None` for a sequence or an optional, and for an output whose type the file leaves out.
    pub dtype: Option<DType>,
    /// `None` where not even the rank is known.
    pub dims: Option<Vec<Dim>>,
}

impl fmt::Display for Declared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.dtype, &self.dims) {
            (Some(dtype), Some(shape)) => TensorSpec { name: self.name.clone(), dtype, shape: shape.clone() }.fmt(f),
            (Some(dtype), None) => write!(f, "{} {} of any shape", self.name, dtype.name()),
            (None, _) => write!(f, "{} (not declared as a tensor)", self.name),
        }
    }
}

/// Reads the declarations of the inputs and outputs. An open first dimension is the batch, and so is every dimension of
/// the same name; others have their name, or one made of the input's name and the axis.
pub(crate) fn declare(
    inputs: &[&ValueInfoProto],
    outputs: &[ValueInfoProto],
) -> Result<(Vec<Declared>, Vec<Declared>), ModelError> {
    let dim_name = |info: &&ValueInfoProto| {
        let shape = info.r#type.as_ref()?.tensor_type.as_ref()?.shape.as_ref()?;
        let first = shape.dim.first()?;
        match (first.dim_value, &first.dim_param) {
            (None, Some(name)) if !name.is_empty() => Some(name.clone()),
            _ => None,
        }
    };
    let batch = inputs.iter().find_map(dim_name);
    let read = |what: &'static str, info: &ValueInfoProto| -> Result<Declared, ModelError> {
        let error = |reason: String| ModelError::value(what, &info.name, reason);
        let none = Declared { name: info.name.clone(), dtype: None, dims: None };
        let Some(ty) = &info.r#type else { return Ok(none) };
        let Some(tensor) = &ty.tensor_type else { return Ok(none) };
        let dtype = match tensor.elem_type {
            0 if what == "output" => None,
            number => Some(read_dtype(number).map_err(error)?),
        };
        let rank = tensor.shape.as_ref().map_or(0, |shape| shape.dim.len());
        if rank > MAX_RANK {
            return Err(error(format!("it has {rank} dimensions; at most {MAX_RANK} are allowed")));
        }
        let mut dims = Vec::new();
        for (axis, dim) in tensor.shape.iter().flat_map(|shape| &shape.dim).enumerate() {
            let name = dim.dim_param.as_deref().unwrap_or("");
            dims.push(match dim.dim_value {
                Some(size @ 1..) if size <= u32::MAX.into() => Dim::Fixed(size as u32),
                // Exporters write 0 for an unknown size.
                Some(0) | None if axis == 0 && (name.is_empty() || Some(name) == batch.as_deref()) => Dim::Batch,
                Some(0) | None if !name.is_empty() && Some(name) == batch.as_deref() => Dim::Batch,
                Some(0) | None if name.is_empty() => Dim::Named(format!("{}.{axis}", info.name)),
                Some(0) | None if name == "batch" => Dim::Named("batch_".to_owned()),
                Some(0) | None => Dim::Named(name.to_owned()),
                Some(size) => return Err(error(format!("dimension {axis} is {size}"))),
            });
        }
        Ok(Declared { name: info.name.clone(), dtype, dims: tensor.shape.as_ref().map(|_| dims) })
    };
    let inputs = inputs.iter().map(|info| read("input", info)).collect::<Result<_, _>>()?;
    let outputs = outputs.iter().map(|info| read("output", info)).collect::<Result<_, _>>()?;
    Ok((inputs, outputs))
}

/// Unknown values of types.
pub(crate) fn unknown(specs: &[TensorSpec], sizes: &Sizes) -> Vec<Value> {
    specs.iter().map(|spec| Value::Unknown(spec.dtype, spec.shape_for(sizes))).collect()
}

/// The whole cost and the outputs of a run with given sizes.
#[derive(Debug)]
struct Sample {
    ops: u64,
    outputs: Vec<(DType, Vec<usize>)>,
}

/// Derives the descriptor.
pub(crate) fn describe(
    program: &Program,
    inputs: &[Declared],
    outputs: &[Declared],
) -> Result<ModelDescriptor, ModelError> {
    let specs = inputs.iter().map(spec).collect::<Result<Vec<_>, _>>()?;
    if specs.is_empty() || outputs.is_empty() || specs.len() > 255 || outputs.len() > 255 {
        return Err(ModelError::Graph("a model has between 1 and 255 inputs and outputs".into()));
    }
    let mut variables: Vec<Dim> = Vec::new();
    for dim in specs.iter().flat_map(|spec| &spec.shape) {
        if !matches!(dim, Dim::Fixed(_)) && !variables.contains(dim) {
            variables.push(dim.clone());
        }
        // More are refused below, and need not be told apart.
        if variables.len() > 2 * MAX_NAMED + 1 {
            break;
        }
    }
    variables.sort_by_key(|dim| *dim != Dim::Batch);
    let named = variables.iter().filter(|dim| **dim != Dim::Batch).count();
    if named > MAX_NAMED {
        let names: Vec<String> = variables.iter().map(Dim::to_string).collect();
        return Err(ModelError::Graph(format!(
            "{named} or more dimensions besides the batch are open ({}); at most {MAX_NAMED} may be: export with fixed ones",
            names.join(", ")
        )));
    }
    let left = Cell::new(Allowance::PRICE);
    let sample = |values: &[usize]| -> Result<Sample, ModelError> {
        let mut sizes = Sizes::default();
        variables.iter().zip(values).for_each(|(dim, size)| {
            sizes.bind(dim, *size);
        });
        let mut cx = Cx::tracing_within(left.get());
        let trace = program.trace(&mut cx, unknown(&specs, &sizes));
        left.set(left.get().behind(&cx));
        let trace = trace.map_err(failed)?;
        let types = trace.outputs.iter().map(|value| value.ty().map(|(dtype, shape)| (dtype, shape.to_vec())));
        let outputs: Vec<_> = types.collect::<Result<_, _>>().map_err(|_| {
            ModelError::Graph("an output is a sequence or an optional: a chain knows tensors only".into())
        })?;
        // Inputs are copied for the run, and outputs behind it.
        let inputs = specs.iter().map(|spec| count(&spec.shape_for(&sizes)));
        let copied = inputs.chain(outputs.iter().map(|(_, shape)| count(shape)));
        let copied = copied.fold(0, u64::saturating_add).saturating_mul(COPY_OPS);
        Ok(Sample { ops: cx.ops.saturating_add(RUN_OPS).saturating_add(copied), outputs })
    };
    // Some graphs need a few elements (a kernel's width, say): the polynomial is found where they run.
    let mut not_run = None;
    let mut unfit = None;
    let names: Vec<&str> = outputs.iter().map(|declared| declared.name.as_str()).collect();
    for base in BASES {
        let grid = match Grid::new(&variables, base, &sample) {
            Ok(grid) => grid,
            Err(error) => {
                not_run.get_or_insert(error);
                if named == 0 { break } else { continue }
            }
        };
        match grid.fit(&variables, &names, &sample) {
            Ok((ops, shapes)) => {
                let outputs = outputs.iter().zip(shapes).map(|(declared, (dtype, shape))| {
                    if declared.dtype.is_some_and(|d| d != dtype) {
                        let reason = "its declared type is not the one that the graph computes";
                        return Err(ModelError::value("output", &declared.name, reason));
                    }
                    Ok(TensorSpec { name: declared.name.clone(), dtype, shape })
                });
                return Ok(ModelDescriptor { inputs: specs, outputs: outputs.collect::<Result<_, _>>()?, ops });
            }
            Err(error) => {
                unfit.get_or_insert(error);
            }
        }
        if named == 0 {
            break;
        }
    }
    // Where it runs there is more to learn than where it does not.
    Err(unfit.or(not_run).unwrap_or_else(|| ModelError::Graph("it cannot be priced".into())))
}

fn spec(declared: &Declared) -> Result<TensorSpec, ModelError> {
    let error = |reason: &str| ModelError::value("input", &declared.name, reason);
    Ok(TensorSpec {
        name: declared.name.clone(),
        dtype: declared.dtype.ok_or_else(|| error("it is not a tensor"))?,
        shape: declared.dims.clone().ok_or_else(|| error("it has no declared rank: export with shapes"))?,
    })
}

/// A failure of tracing as an error for whoever loads the model.
pub(crate) fn failed(failed: super::program::Failed) -> ModelError {
    let reason = match failed.stop {
        Stop::Invalid(reason) | Stop::Limit(reason) => reason,
        Stop::DataDependent(reason) => format!("{reason}, so that the model has no static cost"),
        Stop::Cancelled => "cancelled".to_owned(),
    };
    if failed.label.is_empty() { ModelError::Graph(reason) } else { ModelError::Node { node: failed.label, reason } }
}

type Shapes = Vec<(DType, Vec<Dim>)>;

/// Runs at some sizes, from which a polynomial follows: of degree 1 in the batch, of degree 2 in every other dimension.
struct Grid {
    base: usize,
    degrees: Vec<usize>,
    starts: Vec<usize>,
    /// The last variable varies fastest.
    samples: Vec<(Vec<usize>, Sample)>,
}

type Sampler<'s> = &'s dyn Fn(&[usize]) -> Result<Sample, ModelError>;

impl Grid {
    /// Fails where the graph does.
    fn new(variables: &[Dim], base: usize, sample: Sampler<'_>) -> Result<Self, ModelError> {
        let degree = |dim: &Dim| if *dim == Dim::Batch { 1 } else { 2 };
        let start = |dim: &Dim| if *dim == Dim::Batch { 1 } else { base };
        let degrees: Vec<usize> = variables.iter().map(degree).collect();
        let starts: Vec<usize> = variables.iter().map(start).collect();
        let count: usize = degrees.iter().map(|d| d + 1).product();
        let mut samples = Vec::with_capacity(count);
        for index in 0..count {
            let powers = unravel(index, &degrees);
            let point: Vec<usize> = powers.iter().zip(&starts).map(|(i, start)| start + i).collect();
            let found = sample(&point)?;
            samples.push((point, found));
        }
        Ok(Self { base, degrees, starts, samples })
    }

    /// Finds the cost, and the shapes of the outputs; fails where there is no polynomial, or no dimension.
    fn fit(&self, variables: &[Dim], names: &[&str], sample: Sampler<'_>) -> Result<(OpsCost, Shapes), ModelError> {
        let (base, count) = (self.base, self.samples.len());
        let mut coefficients: Vec<i128> = self.samples.iter().map(|(_, s)| s.ops.into()).collect();
        let open =
            || ModelError::Graph("its cost is no polynomial of its open dimensions: export with fixed ones".into());
        for (axis, degree) in self.degrees.iter().enumerate() {
            let stride: usize = self.degrees[axis + 1..].iter().map(|d| d + 1).product();
            for index in (0..count).filter(|index| (index / stride).is_multiple_of(degree + 1)) {
                let values: Vec<i128> = (0..=*degree).map(|i| coefficients[index + i * stride]).collect();
                let found = monomials(&values, self.starts[axis] as i128).ok_or_else(open)?;
                for (i, c) in found.into_iter().enumerate() {
                    coefficients[index + i * stride] = c;
                }
            }
        }
        let cost = cost(variables, &self.degrees, &coefficients)?;
        let shapes = output_shapes(variables, names, &self.samples)?;
        let sizes_at = |point: &[usize]| {
            let mut sizes = Sizes::default();
            variables.iter().zip(point).for_each(|(dim, size)| {
                sizes.bind(dim, *size);
            });
            sizes
        };
        // Other sizes must agree.
        for (rows, scale) in [(3, 1), (7, 3), (64, 5)] {
            let point: Vec<usize> =
                variables.iter().map(|dim| if *dim == Dim::Batch { rows } else { base * scale + 3 + scale }).collect();
            let Ok(found) = sample(&point) else { continue }; // too large for a position table, say
            let sizes = sizes_at(&point);
            if cost.of(&sizes) != found.ops {
                return Err(open());
            }
            for (output, ((_, dims), (_, shape))) in shapes.iter().zip(&found.outputs).enumerate() {
                let differs = |(dim, size): (&Dim, &usize)| sizes.of(dim) != *size;
                if let Some(axis) = dims.iter().zip(shape).position(differs) {
                    return Err(no_dimension(names, output, axis));
                }
                if dims.len() != shape.len() {
                    return Err(no_dimension(names, output, dims.len()));
                }
            }
        }
        // Where it was found at greater sizes, lesser ones may cost more than it says: an image that is all edges, say.
        let mut excess = 0;
        for size in [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96].into_iter().filter(|size| *size < base) {
            let point: Vec<usize> = variables.iter().map(|dim| if *dim == Dim::Batch { 1 } else { size }).collect();
            let Ok(found) = sample(&point) else { continue };
            excess = excess.max(found.ops.saturating_sub(cost.of(&sizes_at(&point))));
        }
        Ok((OpsCost { fixed: cost.fixed.saturating_add(excess), ..cost }, shapes))
    }
}

fn no_dimension(names: &[&str], output: usize, axis: usize) -> ModelError {
    let name = names.get(output).copied().unwrap_or_default();
    ModelError::value(
        "output",
        name,
        format!("its dimension {axis} is neither fixed nor one of the open ones of the inputs: export with fixed ones"),
    )
}

fn unravel(mut index: usize, degrees: &[usize]) -> Vec<usize> {
    let mut powers = vec![0; degrees.len()];
    for (slot, degree) in powers.iter_mut().zip(degrees).rev() {
        *slot = index % (degree + 1);
        index /= degree + 1;
    }
    powers
}

/// Coefficients of the polynomial that takes `values` at `start`, `start + 1`, …; `None` if they are no integers.
fn monomials(values: &[i128], start: i128) -> Option<Vec<i128>> {
    match values {
        [a, b] => Some(vec![a - (b - a) * start, b - a]),
        [a, b, c] => {
            let second = c - 2 * b + a;
            if second % 2 != 0 {
                return None;
            }
            let square = second / 2;
            let linear = b - a - square * (2 * start + 1);
            Some(vec![a - linear * start - square * start * start, linear, square])
        }
        _ => Some(values.to_vec()),
    }
}

fn cost(variables: &[Dim], degrees: &[usize], coefficients: &[i128]) -> Result<OpsCost, ModelError> {
    let error = || ModelError::Graph("its cost is out of range".into());
    let mut cost = OpsCost::default();
    for (index, ops) in coefficients.iter().enumerate().filter(|(_, ops)| **ops != 0) {
        let powers = unravel(index, degrees);
        let dims: BTreeMap<String, u32> = variables
            .iter()
            .zip(powers)
            .filter(|(_, power)| *power > 0)
            .map(|(dim, power)| (dim.to_string(), power as u32))
            .collect();
        let only_batch = dims.len() == 1 && dims.get("batch") == Some(&1);
        match u64::try_from(*ops) {
            Ok(ops) if dims.is_empty() => cost.fixed = ops,
            Ok(ops) if only_batch => cost.per_row = ops,
            _ => cost.terms.push(OpsTerm { ops: i64::try_from(*ops).map_err(|_| error())?, dims }),
        }
    }
    Ok(cost)
}

/// The dimension that each size of an output is.
fn output_shapes(variables: &[Dim], names: &[&str], samples: &[(Vec<usize>, Sample)]) -> Result<Shapes, ModelError> {
    let Some((_, first)) = samples.first() else { return Ok(vec![]) };
    let mut shapes = Vec::new();
    for (output, (dtype, shape)) in first.outputs.iter().enumerate() {
        let mut dims = Vec::new();
        for (axis, own) in shape.iter().enumerate() {
            let sizes = samples.iter().map(|(point, s)| (point, s.outputs[output].1.get(axis).copied()));
            let sizes: Vec<_> = sizes.collect();
            let constant = sizes.iter().all(|(_, size)| *size == Some(*own));
            let variable = (0..variables.len()).find(|v| sizes.iter().all(|(point, size)| *size == Some(point[*v])));
            dims.push(match (constant, variable) {
                (true, _) if *own > 0 && *own <= u32::MAX as usize => Dim::Fixed(*own as u32),
                (false, Some(v)) => variables[v].clone(),
                _ => return Err(no_dimension(names, output, axis)),
            });
        }
        if samples.iter().any(|(_, s)| s.outputs[output].1.len() != shape.len() || s.outputs[output].0 != *dtype) {
            let name = names.get(output).copied().unwrap_or_default();
            return Err(ModelError::value("output", name, "its type or its rank follows from the open dimensions"));
        }
        shapes.push((*dtype, dims));
    }
    Ok(shapes)
}

/// Cost by operator, in descending order.
pub(crate) fn by_operator(program: &Program, trace: &Trace) -> Vec<(String, usize, u64)> {
    let mut costs = BTreeMap::<&str, (usize, u64)>::new();
    for (step, ops) in program.steps.iter().zip(&trace.ops) {
        let entry = costs.entry(&step.operator).or_default();
        *entry = (entry.0 + 1, entry.1.saturating_add(*ops));
    }
    let mut list: Vec<_> = costs.into_iter().map(|(name, (count, ops))| (name.to_owned(), count, ops)).collect();
    list.sort_by_key(|(_, _, ops)| core::cmp::Reverse(*ops));
    list
}
