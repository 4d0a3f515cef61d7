//! Operators that map categories: to one-hot vectors, to other values.

use std::collections::HashMap;

use super::{Parse, check_bytes, check_number, cost, single};
use crate::{
    DType,
    engine::{
        array::Array,
        cx::{Cx, Inputs, Stop},
        elements::with_elements,
        numeric::cast,
        program::Eval,
        value::Value,
    },
    onnx::Node,
};

/// Cost of a look-up.
const FIND_OPS: u64 = 500;
/// Bytes of memory for a look-up: the key as it is compared, and where it is.
const FIND_BYTES: u64 = 32;

pub(super) fn find(name: &str) -> Option<Parse> {
    Some(match name {
        "OneHotEncoder" => |node, _| one_hot(node),
        "LabelEncoder" => |node, _| label_encoder(node),
        "CategoryMapper" => |node, _| category_mapper(node),
        _ => return None,
    })
}

/// Positions of keys. The maps are only looked up in, never gone through: their order is nobody's business.
#[derive(Debug)]
enum Keys {
    Texts(HashMap<String, usize>),
    Ints(HashMap<i64, usize>),
    /// By the bits of a float64; see [`bits`].
    Floats(HashMap<u64, usize>),
}

/// Equal numbers have equal bits: zero is positive, NaN is one.
fn bits(x: f64) -> u64 {
    if x.is_nan() {
        f64::NAN.to_bits()
    } else if x == 0.0 {
        0
    } else {
        x.to_bits()
    }
}

/// Which of equal keys counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Equal {
    First,
    Last,
}

/// The positions of a list of keys.
fn positions<K: core::hash::Hash + Eq>(keys: impl Iterator<Item = K>, equal: Equal) -> HashMap<K, usize> {
    let mut map = HashMap::new();
    for (index, key) in keys.enumerate() {
        match equal {
            Equal::First => {
                map.entry(key).or_insert(index);
            }
            Equal::Last => {
                map.insert(key, index);
            }
        }
    }
    map
}

impl Keys {
    fn new(keys: &Array, equal: Equal) -> Result<Self, String> {
        Ok(match keys.dtype() {
            DType::String => Self::Texts(positions(keys.texts().iter().cloned(), equal)),
            dtype if dtype.is_float() => {
                let doubles = keys.to_doubles().unwrap_or_default();
                Self::Floats(positions(doubles.into_iter().map(bits), equal))
            }
            dtype => {
                let ints = keys.to_ints().ok_or_else(|| format!("its keys cannot be {}", dtype.name()))?;
                Self::Ints(positions(ints.into_iter(), equal))
            }
        })
    }

    /// The position of each element of an array of the keys' type.
    fn find(&self, array: &Array) -> Vec<Option<usize>> {
        match self {
            Self::Texts(map) => array.texts().iter().map(|key| map.get(key).copied()).collect(),
            Self::Ints(map) => array.to_ints().unwrap_or_default().iter().map(|key| map.get(key).copied()).collect(),
            Self::Floats(map) => {
                array.to_doubles().unwrap_or_default().iter().map(|key| map.get(&bits(*key)).copied()).collect()
            }
        }
    }
}

/// Ones where the categories are; floats are cut to integers. With `zeros` off an unknown category is an error.
fn one_hot(node: &Node<'_>) -> Result<Eval, String> {
    let ints = node.ints("cats_int64s").unwrap_or_default();
    let texts = node.texts("cats_strings")?.unwrap_or_default();
    let (count, keys) = match (ints.is_empty(), texts.is_empty()) {
        (false, true) => (ints.len(), Keys::Ints(positions(ints.into_iter(), Equal::Last))),
        (true, false) => (texts.len(), Keys::Texts(positions(texts.into_iter(), Equal::Last))),
        _ => return Err("it needs categories that are either integers or texts".into()),
    };
    let zeros = node.flag("zeros", true);
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        match keys {
            Keys::Texts(_) if dtype == DType::String => {}
            Keys::Texts(_) => return Err(Stop::unsupported(dtype)),
            _ => check_number(dtype)?,
        }
        let mut encoded = shape.to_vec();
        encoded.push(count);
        let ops = cost(&encoded).saturating_add(inputs.count(0)?.saturating_mul(FIND_OPS));
        cx.scratch(inputs.count(0)?.saturating_mul(FIND_BYTES))?;
        cx.emit::<f32>(inputs, DType::Float32, encoded, ops, || {
            let array = inputs.read(0)?;
            let found = match keys {
                Keys::Texts(_) => keys.find(array),
                _ => keys.find(&cast(array, DType::Int64)),
            };
            if !zeros && found.contains(&None) {
                return Err(Stop::invalid("a category is unknown"));
            }
            let mut out = vec![0.0; found.len() * count];
            for (row, at) in out.chunks_exact_mut(count).zip(found) {
                if let Some(slot) = at.and_then(|at| row.get_mut(at)) {
                    *slot = 1.0;
                }
            }
            Ok(out)
        })
    })
}

/// A map with a value for everything else.
#[derive(Debug)]
struct Encoder {
    /// Element type of the keys.
    from: DType,
    keys: Keys,
    /// As many as the keys, then the default.
    values: Array,
    /// NaN has no value, not even as a key.
    skips_nan: bool,
}

impl Encoder {
    fn new(keys: &Array, values: &Array, default: &Array, equal: Equal) -> Result<Self, String> {
        if keys.count() != values.count() || default.count() != 1 || default.dtype() != values.dtype() {
            return Err(format!("it has {} keys and {} values", keys.count(), values.count()));
        }
        let dtype = values.dtype();
        let shape = vec![values.count() + 1];
        let values = with_elements!(dtype, T => {
            let mut all = values.values::<T>().into_owned();
            all.extend_from_slice(&default.values::<T>());
            Array::new(dtype, shape, all)
        }, Array::text(shape, values.texts().iter().chain(default.texts()).cloned().collect()));
        Ok(Self { from: keys.dtype(), keys: Keys::new(keys, equal)?, values, skips_nan: false })
    }

    fn encode(&self, cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Value, Stop> {
        let (dtype, shape) = inputs.ty(0)?;
        if dtype != self.from {
            return Err(Stop::unsupported(dtype));
        }
        let to = self.values.dtype();
        cx.scratch(inputs.count(0)?.saturating_mul(FIND_BYTES))?;
        cx.emit_with(inputs, to, shape.to_vec(), inputs.count(0)?.saturating_mul(FIND_OPS), |shape| {
            let array = inputs.read(0)?;
            let default = self.values.count().saturating_sub(1);
            let mut found: Vec<usize> = self.keys.find(array).into_iter().map(|at| at.unwrap_or(default)).collect();
            if self.skips_nan {
                let doubles = array.to_doubles().unwrap_or_default();
                found.iter_mut().zip(doubles).filter(|(_, x)| x.is_nan()).for_each(|(at, _)| *at = default);
            }
            if to == DType::String {
                let texts = self.values.texts();
                let picked = || found.iter().filter_map(|at| texts.get(*at));
                check_bytes(picked().map(String::len))?;
                return Ok(Array::text(shape, picked().cloned().collect()));
            }
            Ok(with_elements!(to, T => {
                let values = self.values.values::<T>();
                Array::new(to, shape, found.into_iter().map(|at| values[at]).collect::<Vec<T>>())
            }, array.clone()))
        })
    }
}

fn text(text: String) -> Array {
    Array::text(vec![1], vec![text])
}

fn texts(texts: Vec<String>) -> Array {
    Array::text(vec![texts.len()], texts)
}

fn floats(floats: Vec<f32>) -> Array {
    Array::new(DType::Float32, vec![floats.len()], floats)
}

/// Operator set 1 maps between texts and their positions; later ones have keys and values.
fn label_encoder(node: &Node<'_>) -> Result<Eval, String> {
    match node.texts("classes_strings")? {
        Some(classes) if node.opset < 2 => {
            let positions = Array::ints((0..classes.len() as i64).collect());
            both_ways(node, &texts(classes), &positions)
        }
        _ if node.opset < 2 => Err("it needs classes_strings".into()),
        _ => {
            let (keys, values) = (list(node, "keys")?, list(node, "values")?);
            let default = default_value(node, values.dtype())?;
            // From operator set 4 on the last of equal keys is the one that counts; before it, as onnxruntime has it, the first.
            let equal = if node.opset < 4 { Equal::First } else { Equal::Last };
            let mut encoder = Encoder::new(&keys, &values, &default, equal)?;
            // As onnxruntime does it: NaN is a key like others only from operator set 4 on.
            encoder.skips_nan = node.opset < 4 && keys.dtype().is_float();
            single(move |cx, inputs| encoder.encode(cx, inputs))
        }
    }
}

/// The keys or the values: of four lists one.
fn list(node: &Node<'_>, kind: &str) -> Result<Array, String> {
    let mut lists = Vec::new();
    lists.extend(node.texts(&format!("{kind}_strings"))?.map(texts));
    lists.extend(node.ints(&format!("{kind}_int64s")).map(Array::ints));
    lists.extend(node.floats(&format!("{kind}_floats")).map(floats));
    lists.extend(node.tensor(&format!("{kind}_tensor"))?.map(|tensor| tensor.contiguous()));
    lists.retain(|list| list.count() > 0);
    match (lists.pop(), lists.is_empty()) {
        (Some(list), true) => Ok(list),
        _ => Err(format!("it needs {kind} of one type")),
    }
}

/// The value of unknown keys: of the tensor, or of the attribute for the type, or what the specification says.
fn default_value(node: &Node<'_>, dtype: DType) -> Result<Array, String> {
    if let Some(tensor) = node.tensor("default_tensor")? {
        return Ok(tensor.contiguous());
    }
    match dtype {
        DType::String => Ok(text(node.text("default_string", "_Unused")?)),
        DType::Int64 => Ok(Array::ints(vec![node.int("default_int64", -1)])),
        DType::Float32 => Ok(floats(vec![node.float("default_float", -0.0)])),
        dtype if dtype.is_float() => Ok(cast(&floats(vec![-0.0]), dtype)),
        DType::Int16 | DType::Int32 => Ok(cast(&Array::ints(vec![-1]), dtype)),
        other => Err(format!("its values cannot be {}", other.name())),
    }
}

fn category_mapper(node: &Node<'_>) -> Result<Eval, String> {
    let names = node.texts("cats_strings")?.unwrap_or_default();
    let numbers = node.ints("cats_int64s").unwrap_or_default();
    both_ways(node, &texts(names), &Array::ints(numbers))
}

/// From texts to integers or back, as the input is; of equal keys the last counts.
fn both_ways(node: &Node<'_>, names: &Array, numbers: &Array) -> Result<Eval, String> {
    let (no_number, no_name) =
        (Array::ints(vec![node.int("default_int64", -1)]), text(node.text("default_string", "_Unused")?));
    let to_numbers = Encoder::new(names, numbers, &no_number, Equal::Last)?;
    let to_names = Encoder::new(numbers, names, &no_name, Equal::Last)?;
    single(move |cx, inputs| match inputs.dtype(0)? {
        DType::String => to_numbers.encode(cx, inputs),
        _ => to_names.encode(cx, inputs),
    })
}
