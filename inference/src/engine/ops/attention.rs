//! Attention and rotary positions.
//!
//! Scores are (q · s) · (k · s) with s the square root of the scale, one chain of fused multiply-adds over the head, in
//! float32; then the soft cap, the bias, the softmax of a row, and the product with the values. A row whose keys are
//! all masked is zero.

use super::{Parse, check_alike, check_floats, eval, floats, is_half, shapes, single};
use crate::{
    DType,
    engine::{
        array::Array,
        cx::{Cx, Inputs, Stop, threads_within},
        elements::with_floats,
        kernels::{
            matmul::{Packed, laying_out, matmul},
            reduce::softmax_rows,
            unary::{Unary, apply},
        },
        numeric::Real,
        places::Places,
        program::Eval,
        spare,
        threads::share,
        value::{Value, count},
    },
    onnx::Node,
};

pub(super) fn find(name: &str) -> Option<Parse> {
    Some(match name {
        "Attention" => |node, _| attention(node),
        "RotaryEmbedding" => |node, _| rotary(node),
        _ => return None,
    })
}

#[derive(Debug, Clone)]
struct Attributes {
    causal: bool,
    q_heads: usize,
    kv_heads: usize,
    scale: Option<f32>,
    softcap: f32,
    /// Which scores the fourth output is.
    mode: i64,
    left: i64,
    right: i64,
    outputs: usize,
}

/// Sizes of an attention.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    batch: usize,
    heads: usize,
    kv_heads: usize,
    q: usize,
    /// Keys of this call.
    new: usize,
    /// Keys of earlier calls.
    past: usize,
    head: usize,
    v_head: usize,
    /// Inputs and output have heads in their last dimension.
    flat: bool,
}

fn attention(node: &Node<'_>) -> Result<Eval, String> {
    let heads = |name: &str| usize::try_from(node.int(name, 0)).map_err(|_| format!("its {name} is negative"));
    if !(0..=3).contains(&node.int("qk_matmul_output_mode", 0)) {
        return Err("its qk_matmul_output_mode must be from 0 to 3".into());
    }
    let attributes = Attributes {
        causal: node.flag("is_causal", false),
        q_heads: heads("q_num_heads")?,
        kv_heads: heads("kv_num_heads")?,
        scale: node.attribute("scale").map(|_| node.float("scale", 0.0)),
        softcap: node.float("softcap", 0.0),
        mode: node.int("qk_matmul_output_mode", 0),
        left: node.int("left_window_size", -1),
        right: node.int("right_window_size", -1),
        outputs: node.outputs(),
    };
    eval(move |cx, inputs| run(cx, inputs, &attributes))
}

fn sizes(inputs: &Inputs<'_>, a: &Attributes) -> Result<Sizes, Stop> {
    let (q, k, v) = (inputs.shape(0)?, inputs.shape(1)?, inputs.shape(2)?);
    let wrong = || Stop::invalid(format!("queries {q:?}, keys {k:?} and values {v:?} do not fit"));
    let split = |hidden: usize, heads: usize| {
        if heads > 0 && hidden.is_multiple_of(heads) { Ok(hidden / heads) } else { Err(wrong()) }
    };
    let mut s = match (q, k, v) {
        (&[batch, heads, q, head], &[b2, kv_heads, new, h2], &[b3, kv2, n3, v_head])
            if b2 == batch && b3 == batch && h2 == head && kv2 == kv_heads && n3 == new =>
        {
            Sizes { batch, heads, kv_heads, q, new, past: 0, head, v_head, flat: false }
        }
        (&[batch, q, hidden], &[b2, new, k_hidden], &[b3, n3, v_hidden]) if b2 == batch && b3 == batch && n3 == new => {
            let head = split(hidden, a.q_heads)?;
            if split(k_hidden, a.kv_heads)? != head {
                return Err(wrong());
            }
            let v_head = split(v_hidden, a.kv_heads)?;
            Sizes { batch, heads: a.q_heads, kv_heads: a.kv_heads, q, new, past: 0, head, v_head, flat: true }
        }
        _ => return Err(wrong()),
    };
    if s.kv_heads == 0 || s.heads % s.kv_heads != 0 {
        return Err(wrong());
    }
    if inputs.has(4) != inputs.has(5) {
        return Err(Stop::invalid("past keys and values come together"));
    }
    if inputs.has(4) {
        let (k, v) = (inputs.shape(4)?, inputs.shape(5)?);
        match (k, v) {
            (&[b, h, past, d], &[b2, h2, p2, d2])
                if b == s.batch
                    && b2 == b
                    && h == s.kv_heads
                    && h2 == h
                    && p2 == past
                    && d == s.head
                    && d2 == s.v_head =>
            {
                s.past = past;
            }
            _ => return Err(Stop::invalid("its past keys and values do not fit")),
        }
    }
    Ok(s)
}

/// Cost of a head, however few queries and keys it has.
const HEAD_OPS: u64 = 8000;
/// Cost of an element that is rotated.
const ROTATED_OPS: u64 = 10;
const ROTATED_HALF_OPS: u64 = 200;

fn run(cx: &mut Cx<'_>, inputs: &Inputs<'_>, a: &Attributes) -> Result<Vec<Value>, Stop> {
    let dtype = inputs.dtype(0)?;
    check_floats(inputs, &[0, 1, 2, 4, 5])?;
    if inputs.has(3) && inputs.dtype(3)? != DType::Bool {
        check_floats(inputs, &[3])?;
    }
    let s = sizes(inputs, a)?;
    let keys = s.past + s.new;
    let scores = vec![s.batch, s.heads, s.q, keys];
    if inputs.has(3) {
        let mask = inputs.shape(3)?;
        let mut padded = mask.to_vec();
        match padded.last_mut() {
            Some(last) if *last <= keys => *last = keys,
            _ => return Err(Stop::invalid("its mask does not fit")),
        }
        if shapes::broadcast(&[&padded, &scores])? != scores {
            return Err(Stop::invalid("its mask does not fit"));
        }
    }
    if inputs.has(6) && inputs.shape(6)? != [s.batch] {
        return Err(Stop::invalid("its nonpad_kv_seqlen does not fit"));
    }
    let y = if s.flat { vec![s.batch, s.q, s.heads * s.v_head] } else { vec![s.batch, s.heads, s.q, s.v_head] };
    let layouts = laying_out(s.head, keys).saturating_add(laying_out(keys, s.v_head));
    let layouts = layouts.saturating_mul(count(&[s.batch, s.heads]));
    let biased = inputs.has(3) || inputs.has(6) || a.causal || a.left >= 0 || a.right >= 0;
    let each = (s.head + s.v_head + 40 + if biased { 20 } else { 0 }) as u64;
    let ops = count(&scores).saturating_mul(each).saturating_add(layouts);
    let ops = ops.saturating_add(count(&[s.batch, s.heads]).saturating_mul(HEAD_OPS));
    // The scores of heads, their bias and the mask that it is made of, and what is shown of them; queries, keys, values and
    // outputs as float32, with those of earlier calls, and turned.
    let shown = if a.outputs > 3 { 12 } else { 0 };
    let bytes = count(&scores).saturating_mul(8 + shown + if inputs.has(3) { 16 } else { 4 * u64::from(biased) });
    let kept = count(&[s.batch, s.kv_heads, keys, s.head + s.v_head]).saturating_mul(16);
    let rows = inputs.count(0)?.saturating_mul(8).saturating_add(count(&y).saturating_mul(12));
    cx.scratch(bytes.saturating_add(kept).saturating_add(rows))?;
    // The scores of a head, and its keys and values laid out.
    let laid_out = Packed::<f32>::bytes(s.head, keys).saturating_add(Packed::<f32>::bytes(keys, s.v_head));
    let each = count(&[s.q, keys, 4]).saturating_add(laid_out);
    let threads = cx.threads_for(&scores, ops);
    let mut result: Option<(Vec<f32>, Vec<f32>)> = None;
    let mut compute = |scores_too: bool| -> Result<Vec<f32>, Stop> {
        if result.is_none() {
            result = Some(attend(inputs, a, s, (threads, threads_within(threads, each)))?);
        }
        Ok(result.as_ref().map(|(y, scores)| if scores_too { scores.clone() } else { y.clone() }).unwrap_or_default())
    };
    with_floats!(dtype, T => {
        let narrow = |values: Vec<f32>| values.into_iter().map(|x| T::narrow(x.into())).collect::<Vec<T>>();
        let mut values = vec![cx.emit::<T>(inputs, dtype, y, ops, || Ok(narrow(compute(false)?)))?];
        for (index, head) in [(1, s.head), (2, s.v_head)] {
            if a.outputs > index {
                let shape = vec![s.batch, s.kv_heads, keys, head];
                let ops = count(&shape);
                let kind = inputs.dtype(index)?;
                values.push(with_floats!(kind, U => cx.emit::<U>(inputs, kind, shape, ops, || {
                    Ok(present(inputs, s, index)?.into_iter().map(|x| U::narrow(x.into())).collect())
                }), Err(Stop::unsupported(kind)))?);
            }
        }
        if a.outputs > 3 {
            values.push(cx.emit::<T>(inputs, dtype, scores, 0, || Ok(narrow(compute(true)?)))?);
        }
        Ok(values)
    }, Err(Stop::unsupported(dtype)))
}

/// An input as `[batch, heads, length, head]`.
fn by_heads(array: &Array, heads: usize, flat: bool) -> Result<Vec<f32>, Stop> {
    if !flat {
        return floats(array);
    }
    let &[batch, length, hidden] = array.shape() else { return Err(Stop::invalid("it takes three dimensions")) };
    let split = array.contiguous().reshape(vec![batch, length, heads, hidden / heads.max(1)]);
    floats(&split.permute(&[0, 2, 1, 3]).contiguous())
}

/// Keys (1) or values (2) of earlier calls and of this one.
fn present(inputs: &Inputs<'_>, s: Sizes, index: usize) -> Result<Vec<f32>, Stop> {
    let new = by_heads(inputs.read(index)?, s.kv_heads, s.flat)?;
    if s.past == 0 {
        return Ok(new);
    }
    let past = floats(inputs.read(index + 3)?)?;
    let head = if index == 1 { s.head } else { s.v_head };
    let (old, fresh) = (s.past * head, s.new * head);
    let mut out = Vec::with_capacity(past.len() + new.len());
    for row in 0..s.batch * s.kv_heads {
        out.extend_from_slice(&past[row * old..(row + 1) * old]);
        out.extend_from_slice(&new[row * fresh..(row + 1) * fresh]);
    }
    Ok(out)
}

/// The bias of scores: 0, minus infinity, or what the mask says.
fn bias(inputs: &Inputs<'_>, a: &Attributes, s: Sizes) -> Result<Option<Vec<f32>>, Stop> {
    let keys = s.past + s.new;
    let lengths = match inputs.has(6) {
        true => Some(inputs.read(6)?.to_ints().ok_or("its lengths must be integers")?),
        false => None,
    };
    if !inputs.has(3) && !a.causal && a.left < 0 && a.right < 0 && lengths.is_none() {
        return Ok(None);
    }
    let total = s.batch * s.heads * s.q * keys;
    let mut bias = vec![0.0f32; total];
    if inputs.has(3) {
        let mask = inputs.read(3)?;
        let values: Vec<f32> = match mask.dtype() {
            DType::Bool => mask.values::<u8>().iter().map(|x| if *x != 0 { 0.0 } else { f32::NEG_INFINITY }).collect(),
            _ => floats(mask)?,
        };
        // What the mask leaves out at the end is masked.
        let width = mask.shape().last().copied().unwrap_or(0);
        let mut padded = Vec::with_capacity(values.len() / width.max(1) * keys);
        for row in values.chunks_exact(width.max(1)) {
            padded.extend_from_slice(row);
            padded.resize(padded.len() + keys - width, f32::NEG_INFINITY);
        }
        let mut shape = mask.shape().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = keys;
        }
        if padded.len() != shape.iter().product::<usize>() {
            return Err(Stop::invalid("its mask does not fit"));
        }
        let wide = Array::new(DType::Float32, shape, padded).broadcast(&[s.batch, s.heads, s.q, keys]);
        bias = wide.values::<f32>().into_owned();
    }
    for (row, line) in bias.chunks_exact_mut(keys.max(1)).enumerate() {
        let (i, b) = ((row % s.q.max(1)) as i64, row / (s.q * s.heads).max(1));
        let offset = match &lengths {
            Some(lengths) if s.past == 0 => lengths[b] - s.q as i64,
            _ => s.past as i64,
        };
        for (j, x) in line.iter_mut().enumerate() {
            let distance = i + offset - j as i64;
            let allowed = (!a.causal || distance >= 0)
                && (a.left < 0 || distance <= a.left)
                && (a.right < 0 || -distance <= a.right)
                && lengths.as_ref().is_none_or(|lengths| (j as i64) < lengths[b]);
            if !allowed {
                *x = f32::NEG_INFINITY;
            }
        }
    }
    Ok(Some(bias))
}

/// The output, and the scores that the fourth output shows; with so many threads, and with so many heads at a time.
fn attend(
    inputs: &Inputs<'_>,
    a: &Attributes,
    s: Sizes,
    (threads, apart): (usize, usize),
) -> Result<(Vec<f32>, Vec<f32>), Stop> {
    let keys = s.past + s.new;
    let scale = a.scale.unwrap_or_else(|| 1.0 / (s.head as f32).sqrt()).sqrt();
    let mut q = by_heads(inputs.read(0)?, s.heads, s.flat)?;
    q.iter_mut().for_each(|x| *x *= scale);
    let mut k = present(inputs, s, 1)?;
    k.iter_mut().for_each(|x| *x *= scale);
    let v = present(inputs, s, 2)?;
    let bias = bias(inputs, a, s)?;
    let mut y = vec![0.0f32; s.batch * s.heads * s.q * s.v_head];
    let mut shown = vec![0.0f32; if a.outputs > 3 { s.batch * s.heads * s.q * keys } else { 0 }];
    let group = s.heads / s.kv_heads;
    // A thread for each of many heads, or several for each of few.
    let each = threads.checked_div(s.batch * s.heads).unwrap_or(0).max(1);
    let head = |bh: usize, (y, shown): (&mut [f32], &mut [f32]), scores: &mut [f32]| {
        let (b, h) = (bh / s.heads, bh % s.heads);
        let kv = b * s.kv_heads + h / group;
        let queries = &q[bh * s.q * s.head..(bh + 1) * s.q * s.head];
        let keys_t = Packed::new(&k[kv * keys * s.head..(kv + 1) * keys * s.head], s.head, keys, 1, s.head);
        matmul(queries, &keys_t, scores, each);
        let mut show = |modes: &[i64], scores: &[f32]| {
            if a.outputs > 3 && modes.contains(&a.mode) {
                shown.copy_from_slice(scores);
            }
        };
        if a.softcap > 0.0 {
            scores.iter_mut().for_each(|x| *x /= a.softcap);
            apply(Unary::Tanh, scores);
            scores.iter_mut().for_each(|x| *x *= a.softcap);
        }
        show(&[0, 1], scores);
        let bias = bias.as_ref().map(|bias| &bias[bh * s.q * keys..(bh + 1) * s.q * keys]);
        if let Some(bias) = bias {
            scores.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
        }
        show(&[2], scores);
        softmax_rows(scores, keys);
        if let Some(bias) = bias {
            for (row, bias) in scores.chunks_exact_mut(keys.max(1)).zip(bias.chunks_exact(keys.max(1))) {
                if bias.iter().all(|b| *b == f32::NEG_INFINITY) {
                    row.fill(0.0);
                }
            }
        }
        show(&[3], scores);
        let values = Packed::new(&v[kv * keys * s.v_head..(kv + 1) * keys * s.v_head], keys, s.v_head, s.v_head, 1);
        matmul(scores, &values, y, each);
    };
    if !y.is_empty() || !shown.is_empty() {
        let heads = s.batch * s.heads;
        let (size, show) = (s.q * s.v_head, shown.len() / heads);
        let (ys, shows) = (Places::new(&mut y), Places::new(&mut shown));
        share(apart, heads, &|bh| {
            // SAFETY: nobody else has what is of this head.
            let places = unsafe { (ys.some(bh * size..(bh + 1) * size), shows.some(bh * show..(bh + 1) * show)) };
            spare::lend(s.q * keys, |scores| head(bh, places, scores));
        });
    }
    if s.flat {
        let by_head = Array::new(DType::Float32, vec![s.batch, s.heads, s.q, s.v_head], y);
        y = by_head.permute(&[0, 2, 1, 3]).contiguous().into_vec();
    }
    Ok((y, shown))
}

/// Rotates pairs of features by angles whose sines and cosines are given: (c · x1 − s · x2, s · x1 + c · x2).
fn rotary(node: &Node<'_>) -> Result<Eval, String> {
    let size = |name: &str| usize::try_from(node.int(name, 0)).map_err(|_| format!("its {name} is negative"));
    let (interleaved, rotated, heads) =
        (node.flag("interleaved", false), size("rotary_embedding_dim")?, size("num_heads")?);
    single(move |cx, inputs| {
        let (dtype, shape) = inputs.ty(0)?;
        check_alike(inputs, &[1, 2])?;
        // Strides of batch, head and position, whatever the layout.
        let (batch, heads, length, head, strides) = match *shape {
            [batch, heads, length, head] => (batch, heads, length, head, (heads * length * head, length * head, head)),
            [batch, length, hidden] if heads > 0 && hidden % heads == 0 => {
                (batch, heads, length, hidden / heads, (length * hidden, hidden / heads, hidden))
            }
            _ => return Err(Stop::invalid("its input or num_heads does not fit")),
        };
        let rotated = if rotated == 0 { head } else { rotated };
        let half = rotated / 2;
        if rotated > head || rotated % 2 != 0 {
            return Err(Stop::invalid("its rotary_embedding_dim does not fit"));
        }
        let cache = inputs.shape(1)?;
        let fits = cache == inputs.shape(2)?
            && cache.last() == Some(&half)
            && match inputs.has(3) {
                true => cache.len() == 2 && inputs.shape(3)? == [batch, length],
                false => cache == [batch, length, half],
            };
        if !fits {
            return Err(Stop::invalid("its caches do not fit"));
        }
        let each = if is_half(dtype) { ROTATED_HALF_OPS } else { ROTATED_OPS };
        let ops = count(shape).saturating_mul(each).saturating_add(count(&[batch, length]).saturating_mul(200));
        cx.scratch(count(&[batch, length]).saturating_mul(16))?;
        with_floats!(dtype, T => cx.emit::<T>(inputs, dtype, shape.to_vec(), ops, || {
            let mut values = inputs.values::<T>(0)?.into_owned();
            let (cos, sin) = (inputs.values::<T>(1)?, inputs.values::<T>(2)?);
            let positions = match inputs.has(3) {
                true => inputs.read(3)?.to_ints().ok_or("its positions must be integers")?,
                false => (0..(batch * length) as i64).collect(),
            };
            for b in 0..batch {
                for p in 0..length {
                    let row = usize::try_from(positions[b * length + p]).map_err(|_| "a position is negative")?;
                    let (cos, sin) = cos.get(row * half..(row + 1) * half).zip(sin.get(row * half..(row + 1) * half)).ok_or("a position is out of bounds")?;
                    for h in 0..heads {
                        let at = b * strides.0 + h * strides.1 + p * strides.2;
                        for i in 0..half {
                            let (first, second) = if interleaved { (at + 2 * i, at + 2 * i + 1) } else { (at + i, at + half + i) };
                            let (x1, x2) = (values[first].widen(), values[second].widen());
                            let (c, s) = (cos[i].widen(), sin[i].widen());
                            values[first] = T::narrow(c * x1 - s * x2);
                            values[second] = T::narrow(s * x1 + c * x2);
                        }
                    }
                }
            }
            Ok(values)
        }), Err(Stop::unsupported(dtype)))
    })
}
