//! Operators of `com.microsoft` that exporters write: onnxruntime's quantisation (QGemm, QLinear…) and skl2onnx
//! (CDist, Tokenizer). Defined by onnxruntime's documentation ("ContribOperators.md").

use super::{
    Parse, dequantized,
    quant::{check_single, one, saturate},
    shapes, single,
    windows::Window,
};
use crate::{
    DType,
    engine::{
        array::Array,
        cx::{Cx, Inputs, Stop},
        elements::{with_floats, with_integers},
        kernels::{pool, reduce},
        numeric::{Number, Real},
        program::Eval,
        value::{Value, count},
    },
    onnx::Node,
};

pub(super) fn find(name: &str) -> Option<Parse> {
    Some(match name {
        "QGemm" => |node, _| dequantized::gemm(node),
        "QLinearAdd" => |_, _| arithmetic(|a, b| a + b),
        "QLinearMul" => |_, _| arithmetic(|a, b| a * b),
        "QLinearAveragePool" => |node, _| average_pool(node),
        "CDist" => |node, _| distances(node),
        "Tokenizer" => |node, _| tokenizer(node),
        _ => return None,
    })
}

fn zero(inputs: &Inputs<'_>, index: usize) -> Result<i64, Stop> {
    if !inputs.has(index) {
        return Ok(0);
    }
    check_single(inputs, &[index])?;
    let list = inputs.read(index)?.to_ints().unwrap_or_default();
    list.first().copied().ok_or_else(|| Stop::invalid(format!("its input {index} must be an integer")))
}

/// Inputs A, B each with scale and zero point, then those of the output: dequantised, joined, quantised.
fn arithmetic(f: fn(f32, f32) -> f32) -> Result<Eval, String> {
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        if inputs.dtype(3)? != dtype {
            return Err(Stop::invalid("its inputs have different types"));
        }
        let out = shapes::broadcast(&[shape, inputs.shape(3)?])?;
        let ops = count(&out).saturating_mul(10);
        with_integers!(dtype, T => cx.emit::<T>(inputs, dtype, out.clone(), ops, || {
            let (a_scale, a_zero) = (one(inputs, 1)?, zero(inputs, 2)?);
            let (b_scale, b_zero) = (one(inputs, 4)?, zero(inputs, 5)?);
            let (scale, zero) = (one(inputs, 6)?, zero(inputs, 7)?);
            Ok(shapes::zip(inputs.read(0)?, inputs.read(3)?, &out, |a: T, b: T| {
                let a = (a as i64).wrapping_sub(a_zero) as f32 * a_scale;
                let b = (b as i64).wrapping_sub(b_zero) as f32 * b_scale;
                saturate(f(a, b) / scale, zero, dtype) as T
            }))
        }), Err(Stop::unsupported(dtype)))
    })
}

/// The mean of a window of dequantised elements, quantised.
fn average_pool(node: &Node<'_>) -> Result<Eval, String> {
    let window = Window::new(node)?;
    let include = node.flag("count_include_pad", false);
    if node.flag("channels_last", false) {
        return Err("channels_last is not supported".into());
    }
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        let (placed, out) = super::pool::place(shape, &window)?;
        let ops = super::pool::work(&out, &placed, false);
        cx.scratch(super::pool::tables(&placed).saturating_add(count(&out).saturating_mul(8)))?;
        let planes: usize = shape[..2].iter().product();
        let size: usize = shape[2..].iter().product();
        with_integers!(dtype, T => cx.emit::<T>(inputs, dtype, out.clone(), ops, || {
            let (x_scale, x_zero) = (one(inputs, 1)?, zero(inputs, 2)?);
            let (scale, zero) = (one(inputs, 3)?, zero(inputs, 4)?);
            let values = inputs.values::<T>(0)?;
            if count(&out) == 0 {
                return Ok(vec![]);
            }
            let counts = if include { super::pool::padded_counts(&placed) } else { vec![] };
            if let [rows, columns] = placed.as_slice() {
                let counts = if include { super::pool::padded_counts(&placed) } else { super::pool::inner_counts(&placed) };
                let mut sums = vec![0i64; out.iter().product()];
                let each = super::pool::planes_of(&values, &mut sums, &rows.axis, &columns.axis);
                each.for_each(|(plane, out)| {
                    pool::fold(plane, &rows.axis, &columns.axis, 0, |sum, x: T| sum + (x as i64 - x_zero), out);
                });
                let pixels = counts.len().max(1);
                let each = sums.iter().enumerate();
                return Ok(each.map(|(i, sum)| {
                    saturate(*sum as f32 / counts[i % pixels] as f32 * x_scale / scale, zero, dtype) as T
                }).collect());
            }
            let mut result = Vec::with_capacity(out.iter().product());
            let tables = super::pool::Windows::new(&placed);
            for plane in 0..planes {
                let plane = &values[plane * size..(plane + 1) * size];
                tables.each(|elements, position| {
                    // The sum of integers is exact.
                    let (sum, n) = elements.fold((0i64, 0usize), |(sum, n), at| (sum + (plane[at] as i64 - x_zero), n + 1));
                    let n = if include { counts[position] } else { n.max(1) };
                    result.push(saturate(sum as f32 / n as f32 * x_scale / scale, zero, dtype) as T);
                });
            }
            Ok(result)
        }), Err(Stop::unsupported(dtype)))
    })
}

/// Distances of all rows of A to all rows of B: the sum of squared differences, and its root.
fn distances(node: &Node<'_>) -> Result<Eval, String> {
    let root = match node.text("metric", "sqeuclidean")?.as_str() {
        "euclidean" => true,
        "sqeuclidean" => false,
        other => return Err(format!("the metric `{other}` is not supported")),
    };
    single(move |cx, inputs| {
        let ((dtype, a), (right, b)) = (inputs.ty(0)?, inputs.ty(1)?);
        let (&[m, k], &[n, k2]) = (a, b) else { return Err(Stop::invalid("it takes matrices")) };
        if k != k2 || dtype != right {
            return Err(Stop::invalid("its matrices do not fit"));
        }
        let ops = count(&[m, n, k]).saturating_mul(2).saturating_add(count(&[m, n]).saturating_mul(200));
        let operands = count(&[m, k]).saturating_add(count(&[n, k]));
        cx.scratch(operands.saturating_add(k as u64).saturating_mul(8))?;
        let ops = ops.saturating_add(operands.saturating_mul(60));
        with_floats!(dtype, T => cx.emit::<T>(inputs, dtype, vec![m, n], ops, || {
            type W = <T as Real>::Wide;
            let wide = |index: usize| -> Result<Vec<W>, Stop> { Ok(inputs.values::<T>(index)?.iter().map(|x| x.widen()).collect()) };
            let (a, b) = (wide(0)?, wide(1)?);
            let mut out = Vec::with_capacity(m * n);
            let mut pairs: Vec<W> = Vec::with_capacity(k);
            for i in 0..m {
                for j in 0..n {
                    pairs.clear();
                    pairs.extend((0..k).map(|l| a[i * k + l].minus(b[j * k + l])));
                    let sum = reduce::fold(&pairs, |d: W| d.times(d), <W as Number>::ZERO, <W as Number>::plus);
                    out.push(T::narrow(if root { sum.sqrt() } else { sum }));
                }
            }
            Ok(out)
        }), Err(Stop::unsupported(dtype)))
    })
}

/// Bytes of memory for a token, about.
const TOKEN_BYTES: u64 = 64;

/// What a token is made of: every character by itself, or runs of characters of a class.
#[derive(Debug, Clone)]
enum Tokens {
    Characters,
    /// By ASCII character: whether it belongs to the class.
    Runs([bool; 128]),
}

/// The expressions that skl2onnx writes: `.`, and a class of ASCII characters with `+`, like `[a-zA-Z0-9_]+`.
fn tokens(expression: &str) -> Option<Tokens> {
    if expression == "." {
        return Some(Tokens::Characters);
    }
    let class: Vec<char> = expression.strip_prefix('[')?.strip_suffix("]+")?.chars().collect();
    if class.is_empty() || class.iter().any(|c| !c.is_ascii() || "[]^\\&".contains(*c)) {
        return None;
    }
    let (mut members, mut at) = ([false; 128], 0);
    while at < class.len() {
        let (from, to, length) = match class.get(at..at + 3) {
            Some(&[from, '-', to]) => (from, to, 3),
            _ => (class[at], class[at], 1),
        };
        // All of them are ASCII.
        (from..=to).for_each(|c| members[c as usize % 128] = true);
        at += length;
    }
    Some(Tokens::Runs(members))
}

/// Texts as rows of tokens, filled up with a pad value to the longest row.
fn tokenizer(node: &Node<'_>) -> Result<Eval, String> {
    let expression = node.text("tokenexp", "")?;
    let how = tokens(&expression).ok_or_else(|| format!("the expression `{expression}` is not supported"))?;
    let (mark, pad) = (node.flag("mark", false), node.text("pad_value", "")?);
    let least = usize::try_from(node.int("mincharnum", 1)).map_err(|_| "its mincharnum is negative".to_owned())?;
    if mark || !node.texts("stopwords")?.unwrap_or_default().is_empty() {
        return Err("marks and stop words are not supported".into());
    }
    single(move |cx: &mut Cx<'_>, inputs: &Inputs<'_>| -> Result<Value, Stop> {
        let array: &Array = inputs.array(0)?;
        if array.dtype() != DType::String {
            return Err(Stop::unsupported(array.dtype()));
        }
        let total = array.text_bytes().0;
        // A token may be one byte.
        cx.scratch(total.saturating_mul(TOKEN_BYTES))?;
        let rows: Vec<Vec<String>> = array.texts().iter().map(|text| cut(text, &how, least)).collect();
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut shape = array.shape().to_vec();
        shape.push(longest);
        let ops = total.saturating_mul(4).saturating_add(count(&shape).saturating_mul(20));
        cx.check_texts(count(&shape).saturating_mul(pad.len() as u64))?;
        cx.emit_texts(inputs, shape, ops, || {
            Ok(rows
                .into_iter()
                .flat_map(|mut row| {
                    row.resize(longest, pad.clone());
                    row
                })
                .collect())
        })
    })
}

fn cut(text: &str, how: &Tokens, least: usize) -> Vec<String> {
    let tokens: Vec<String> = match how {
        Tokens::Characters => text.chars().map(String::from).collect(),
        Tokens::Runs(members) => text
            .split(|c: char| !members.get(c as usize).is_some_and(|member| *member))
            .filter(|token| !token.is_empty())
            .map(str::to_owned)
            .collect(),
    };
    tokens.into_iter().filter(|token| token.chars().count() >= least).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_as_the_expressions_say() {
        let words = tokens("[a-zA-Z0-9_]+").unwrap();
        assert_eq!(cut("Hello, big_world 42!", &words, 1), ["Hello", "big_world", "42"]);
        assert_eq!(cut("a bc", &words, 2), ["bc"]);
        assert_eq!(cut("aé", &tokens(".").unwrap(), 1), ["a", "é"]);
        for other in ["", "[^a]+", "a+", "[a-z]*", "\\w+"] {
            assert!(tokens(other).is_none(), "{other}");
        }
    }
}
