//! Functions of one element.

use super::{Parse, norm::check_test, single};
use crate::{
    DType,
    engine::{
        array::Array,
        cx::{Cx, Inputs, Stop},
        elements::{with_floats, with_integers, with_numbers},
        kernels::unary::{Unary, apply},
        numeric::{Number, Real},
        program::Eval,
        threads::pieces,
        value::Value,
    },
    onnx::Node,
};

pub(super) fn find(name: &str) -> Option<Parse> {
    Some(match name {
        "Relu" | "LeakyRelu" | "Sigmoid" | "Tanh" | "Exp" | "Log" | "Sqrt" | "Erf" | "Sin" | "Cos" | "Tan" | "Asin"
        | "Acos" | "Atan" | "Sinh" | "Cosh" | "Asinh" | "Acosh" | "Atanh" | "Floor" | "Ceil" | "Round"
        | "Reciprocal" | "Softplus" | "Softsign" | "HardSigmoid" | "HardSwish" | "Elu" | "Celu" | "Selu" | "Gelu"
        | "Mish" | "Swish" | "ThresholdedRelu" => |node, _| function(of_node(node)?),
        "Shrink" => |node, _| shrink(node),
        "Neg" | "Abs" | "Sign" => |node, _| signs(node),
        "Clip" => |node, _| clip(node),
        "Not" => |_, _| {
            single(|cx, inputs| {
                let (dtype, shape) = inputs.ty(0)?;
                if dtype != DType::Bool {
                    return Err(Stop::unsupported(dtype));
                }
                let count = inputs.count(0)?;
                cx.emit::<u8>(inputs, dtype, shape.to_vec(), count, || {
                    Ok(inputs.values::<u8>(0)?.iter().map(|x| 1 - *x).collect())
                })
            })
        },
        "BitwiseNot" => |_, _| {
            single(|cx, inputs| {
                let (dtype, shape) = inputs.ty(0)?;
                let count = inputs.count(0)?;
                with_integers!(dtype, T => cx.emit::<T>(inputs, dtype, shape.to_vec(), count, || {
                    Ok(inputs.values::<T>(0)?.iter().map(|x| !*x).collect())
                }), Err(Stop::unsupported(dtype)))
            })
        },
        "IsNaN" => |_, _| tested(f64::is_nan),
        "IsInf" => |node, _| {
            let (positive, negative) = (node.flag("detect_positive", true), node.flag("detect_negative", true));
            tested(move |x| (positive && x == f64::INFINITY) || (negative && x == f64::NEG_INFINITY))
        },
        "Identity" => |_, _| single(identity),
        "Dropout" => |node, _| dropout(node),
        _ => return None,
    })
}

/// The function of a node, with its attributes.
fn of_node(node: &Node<'_>) -> Result<Unary, String> {
    let given = |name: &str| node.attribute(name).map(|_| node.float(name, 0.0));
    match node.op() {
        "Gelu" => match node.text("approximate", "none")?.as_str() {
            "none" => Ok(Unary::Gelu),
            "tanh" => Ok(Unary::GeluTanh),
            other => Err(format!("there is no approximation `{other}`")),
        },
        "Selu" => Ok(Unary::Selu(node.float("alpha", 1.673_263_2), node.float("gamma", 1.050_701))),
        name => activation(name, given("alpha"), given("beta")).ok_or_else(|| format!("no function `{name}`")),
    }
}

/// A function by its name, as recurrent operators name it.
pub(super) fn activation(name: &str, alpha: Option<f32>, beta: Option<f32>) -> Option<Unary> {
    Some(match name {
        "Relu" => Unary::Relu,
        "LeakyRelu" => Unary::LeakyRelu(alpha.unwrap_or(0.01)),
        "Sigmoid" => Unary::Sigmoid,
        "Tanh" => Unary::Tanh,
        "Affine" => Unary::Affine(alpha.unwrap_or(1.0), beta.unwrap_or(0.0)),
        "ScaledTanh" => Unary::ScaledTanh(alpha.unwrap_or(1.0), beta.unwrap_or(1.0)),
        "Exp" => Unary::Exp,
        "Log" => Unary::Log,
        "Sqrt" => Unary::Sqrt,
        "Erf" => Unary::Erf,
        "Sin" => Unary::Sin,
        "Cos" => Unary::Cos,
        "Tan" => Unary::Tan,
        "Asin" => Unary::Asin,
        "Acos" => Unary::Acos,
        "Atan" => Unary::Atan,
        "Sinh" => Unary::Sinh,
        "Cosh" => Unary::Cosh,
        "Asinh" => Unary::Asinh,
        "Acosh" => Unary::Acosh,
        "Atanh" => Unary::Atanh,
        "Floor" => Unary::Floor,
        "Ceil" => Unary::Ceil,
        "Round" => Unary::Round,
        "Reciprocal" => Unary::Reciprocal,
        "Softplus" => Unary::Softplus,
        "Softsign" => Unary::Softsign,
        "HardSigmoid" => Unary::HardSigmoid(alpha.unwrap_or(0.2), beta.unwrap_or(0.5)),
        "HardSwish" => Unary::HardSwish,
        "Elu" => Unary::Elu(alpha.unwrap_or(1.0)),
        "Celu" => Unary::Celu(alpha.unwrap_or(1.0)),
        "Mish" => Unary::Mish,
        "Swish" => Unary::Swish(alpha.unwrap_or(1.0)),
        "ThresholdedRelu" => Unary::ThresholdedRelu(alpha.unwrap_or(1.0)),
        _ => return None,
    })
}

pub(super) fn function(f: Unary) -> Result<Eval, String> {
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        // Functions of float64 and of halves are computed an element at a time.
        let alone = match dtype {
            DType::Float32 => 1,
            DType::Float64 if f.ops() > 4 => 16,
            _ if f.ops() > 4 => 40,
            _ => 4,
        };
        let ops = inputs.count(0)?.saturating_mul(f.ops()).saturating_mul(alone);
        let threads = cx.threads_for(shape, ops);
        match dtype {
            DType::Float32 => cx.emit(inputs, dtype, shape.to_vec(), ops, || {
                let mut values = inputs.owned_values::<f32>(0)?;
                pieces(threads, &mut values, 1, &|_, values| apply(f, values));
                Ok(values)
            }),
            dtype => with_floats!(dtype, T => cx.emit::<T>(inputs, dtype, shape.to_vec(), ops, || {
                Ok(inputs.owned(0)?.values::<T>().iter().map(|x| T::narrow(f.of(x.widen()))).collect())
            }), match f {
                Unary::Relu => with_integers!(dtype, T => cx.emit::<T>(inputs, dtype, shape.to_vec(), ops, || {
                    Ok(inputs.owned(0)?.values::<T>().iter().map(|x| if *x > T::ZERO { *x } else { T::ZERO }).collect())
                }), Err(Stop::unsupported(dtype))),
                _ => Err(Stop::unsupported(dtype)),
            }),
        }
    })
}

fn shrink(node: &Node<'_>) -> Result<Eval, String> {
    let (lambda, bias) = (f64::from(node.float("lambd", 0.5)), f64::from(node.float("bias", 0.0)));
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        let count = inputs.count(0)?;
        let shrink = move |x: f64| {
            if x < -lambda {
                x + bias
            } else if x > lambda {
                x - bias
            } else {
                0.0
            }
        };
        cx.scratch(count.saturating_mul(8))?;
        let count = count.saturating_mul(20);
        with_numbers!(dtype, T => cx.emit::<T>(inputs, dtype, shape.to_vec(), count, || {
            let doubles = inputs.read(0)?.to_doubles().unwrap_or_default();
            Ok(doubles.into_iter().map(|x| crate::engine::numeric::convert::<T>(shrink(x))).collect())
        }), Err(Stop::unsupported(dtype)))
    })
}

fn signs(node: &Node<'_>) -> Result<Eval, String> {
    let op = node.op().to_owned();
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        let count = inputs.count(0)?;
        with_numbers!(dtype, T => {
            let f: fn(T) -> T = match op.as_str() {
                "Neg" => T::negated,
                "Abs" => T::magnitude,
                _ => T::sign,
            };
            cx.emit::<T>(inputs, dtype, shape.to_vec(), count, || {
                Ok(inputs.values::<T>(0)?.iter().map(|x| f(*x)).collect())
            })
        }, Err(Stop::unsupported(dtype)))
    })
}

/// Bounds are attributes up to operator set 10, then inputs.
fn clip(node: &Node<'_>) -> Result<Eval, String> {
    let attribute = |name: &str| node.attribute(name).and_then(|a| a.f);
    let given = match node.opset < 11 {
        // The attributes had defaults, which infinity is beyond.
        true => (attribute("min").or(Some(f32::MIN)), attribute("max").or(Some(f32::MAX))),
        false => (None, None),
    };
    let (low, high) = (scalar(node, 1), scalar(node, 2));
    let constant = (low.is_some() || !node.has_input(1)) && (high.is_some() || !node.has_input(2));
    if given == (None, None) && constant && (low.is_some() || high.is_some()) {
        return function(Unary::Clip(low.unwrap_or(f32::NEG_INFINITY), high.unwrap_or(f32::INFINITY)));
    }
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        let count = inputs.count(0)?;
        if (1..3).any(|index| inputs.has(index) && inputs.count(index).is_ok_and(|count| count != 1)) {
            return Err(Stop::invalid("a bound must be one number"));
        }
        with_numbers!(dtype, T => cx.emit::<T>(inputs, dtype, shape.to_vec(), count, || {
            let bound = |index: usize, given: Option<f32>, default: T| -> Result<T, Stop> {
                match (given, inputs.has(index)) {
                    (Some(x), _) => Ok(crate::engine::numeric::convert::<T>(x)),
                    (None, false) => Ok(default),
                    (None, true) => {
                        let bound = inputs.read(index)?;
                        bound.values::<T>().first().copied().ok_or_else(|| Stop::invalid("a bound has another type"))
                    }
                }
            };
            let (low, high) = (bound(1, given.0, T::LEAST)?, bound(2, given.1, T::GREATEST)?);
            let clip = |x: &T| {
                let x = if *x < low { low } else { *x };
                if x > high { high } else { x }
            };
            Ok(inputs.values::<T>(0)?.iter().map(clip).collect())
        }), Err(Stop::unsupported(dtype)))
    })
}

/// A constant float32 scalar at an input.
fn scalar(node: &Node<'_>, index: usize) -> Option<f32> {
    let array = node.constant(index)?;
    match (array.dtype(), array.count()) {
        (DType::Float32, 1) => array.values::<f32>().first().copied(),
        _ => None,
    }
}

fn tested(test: impl Fn(f64) -> bool + Copy + Send + Sync + 'static) -> Result<Eval, String> {
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        let count = inputs.count(0)?;
        if !dtype.is_float() {
            return Err(Stop::unsupported(dtype));
        }
        cx.scratch(count.saturating_mul(8))?;
        let count = count.saturating_mul(20);
        cx.emit::<u8>(inputs, DType::Bool, shape.to_vec(), count, || {
            Ok(inputs.read(0)?.to_doubles().unwrap_or_default().into_iter().map(|x| u8::from(test(x))).collect())
        })
    })
}

fn identity(_: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Value, Stop> {
    Ok(inputs.value(0)?.clone())
}

/// At inference nothing is dropped: the mask is all true.
fn dropout(node: &Node<'_>) -> Result<Eval, String> {
    check_test(node)?;
    let with_mask = node.outputs() > 1;
    Ok(Box::new(move |cx, inputs| {
        if inputs.has(2) && inputs.ints(2)?.is_some_and(|mode| mode.first() == Some(&1)) {
            // Dropping by chance has no defined result, unless the chance is none.
            let ratio = match inputs.has(1) {
                true if inputs.count(1)? == 1 => inputs.array(1)?.to_doubles().unwrap_or_default(),
                true => return Err(Stop::invalid("its ratio must be one number")),
                false => vec![0.5],
            };
            if ratio.first().is_none_or(|ratio| *ratio != 0.0) {
                return Err(Stop::invalid("training mode is not supported"));
            }
        }
        let mut outputs = vec![inputs.value(0)?.clone()];
        if with_mask {
            let shape = inputs.shape(0)?.to_vec();
            let count = inputs.count(0)?;
            outputs.push(cx.emit_with(inputs, DType::Bool, shape, count, |shape| {
                Ok(Array::new(DType::Bool, shape, vec![1u8; count as usize]))
            })?);
        }
        Ok(outputs)
    }))
}
