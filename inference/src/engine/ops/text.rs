//! Operators on texts.
//!
//! A plan knows how many texts there are, not how long they are: operators that make texts longer, or many of one, refuse
//! to make more than [`MAX_TEXT_BYTES`].

use std::collections::{HashMap, HashSet};

use super::{Parse, eval, shapes, single};
use crate::{
    DType,
    engine::{
        array::Array,
        cx::{Cx, Inputs, Stop},
        program::Eval,
        value::{Value, count},
    },
    onnx::Node,
};

/// Bytes of the texts of one tensor that an operator makes.
const MAX_TEXT_BYTES: usize = 64 << 20;
/// Bytes that take as long to read as one whose case is changed.
const CASE_READS: u64 = 8;
/// Cost of handling a text of ordinary length.
const TEXT_OPS: u64 = 100;

pub(super) fn find(name: &str) -> Option<Parse> {
    Some(match name {
        "StringConcat" => |_, _| single(concat),
        "StringSplit" => |node, _| split(node),
        "StringNormalizer" => |node, _| normalizer(node),
        "TfIdfVectorizer" => |node, _| Grams::of_node(node)?.vectorizer(),
        _ => return None,
    })
}

/// Refuses texts that are too long together.
pub(super) fn check_bytes(mut lengths: impl Iterator<Item = usize>) -> Result<(), Stop> {
    let total = lengths.try_fold(0usize, |sum, length| sum.checked_add(length).filter(|sum| *sum <= MAX_TEXT_BYTES));
    total.map(|_| ()).ok_or_else(|| Stop::Limit(format!("it makes texts of more than {MAX_TEXT_BYTES} bytes")))
}

fn check_texts(inputs: &Inputs<'_>, index: usize) -> Result<(), Stop> {
    match inputs.dtype(index)? {
        DType::String => Ok(()),
        other => Err(Stop::unsupported(other)),
    }
}

fn concat(cx: &mut Cx<'_>, inputs: &Inputs<'_>) -> Result<Value, Stop> {
    check_texts(inputs, 0)?;
    check_texts(inputs, 1)?;
    let shape = shapes::broadcast(&[inputs.shape(0)?, inputs.shape(1)?])?;
    let out = shape.clone();
    cx.scratch(count(&shape).saturating_mul(16))?;
    cx.emit_texts(inputs, shape, count(&out).saturating_mul(TEXT_OPS), || {
        let (first, second) = (inputs.read(0)?.texts_over(&out), inputs.read(1)?.texts_over(&out));
        let pairs = || first.iter().zip(&second);
        check_bytes(pairs().map(|(a, b)| a.len().saturating_add(b.len())))?;
        Ok(pairs().map(|(a, b)| format!("{a}{b}")).collect())
    })
}

/// How `StringSplit` splits.
#[derive(Debug)]
struct Split {
    /// Empty: whitespace, of which any number separates.
    delimiter: String,
    /// Greatest number of pieces.
    pieces: usize,
}

impl Split {
    /// The pieces of a text. An empty text has none, whatever the delimiter (as in onnxruntime).
    fn pieces<'t>(&'t self, text: &'t str) -> Box<dyn Iterator<Item = &'t str> + 't> {
        if !self.delimiter.is_empty() {
            let pieces = if text.is_empty() { 0 } else { self.pieces };
            return Box::new(text.splitn(pieces, self.delimiter.as_str()));
        }
        let mut rest = text.trim();
        let mut left = self.pieces;
        Box::new(core::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            left = left.saturating_sub(1);
            let end = if left == 0 { rest.len() } else { rest.find(char::is_whitespace).unwrap_or(rest.len()) };
            let (piece, after) = rest.split_at(end);
            rest = after.trim_start();
            Some(piece)
        }))
    }
}

/// The pieces of each text in a new last dimension, filled with empty texts; and how many there are.
fn split(node: &Node<'_>) -> Result<Eval, String> {
    let maxsplit = if node.attribute("maxsplit").is_some() { node.int("maxsplit", -1) } else { -1 };
    let pieces = usize::try_from(maxsplit).map_or(usize::MAX, |splits| splits.saturating_add(1));
    let split = Split { delimiter: node.text("delimiter", "")?, pieces };
    eval(move |cx, inputs| {
        check_texts(inputs, 0)?;
        let array = inputs.array(0)?;
        let shape = inputs.shape(0)?;
        let most = array.texts().iter().map(|text| split.pieces(text).count()).max().unwrap_or(0);
        let mut wider = shape.to_vec();
        wider.push(most);
        let ops = count(&wider).saturating_add(count(shape)).saturating_mul(TEXT_OPS);
        let pieces = cx.emit_texts(inputs, wider, ops, || {
            let mut out = Vec::with_capacity(array.count() * most);
            for text in array.texts() {
                let end = out.len() + most;
                out.extend(split.pieces(text).map(str::to_owned));
                out.resize(end, String::new());
            }
            Ok(out)
        })?;
        let counts = cx.emit::<i64>(inputs, DType::Int64, shape.to_vec(), count(shape), || {
            Ok(array.texts().iter().map(|text| split.pieces(text).count() as i64).collect())
        })?;
        Ok(vec![pieces, counts])
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Keep,
    Lower,
    Upper,
}

impl Case {
    /// Letter by letter, by Unicode's simple mappings, whatever the locale: a letter whose other case is several letters
    /// stays.
    fn apply(self, text: &str) -> String {
        fn one(c: char, mut other: impl Iterator<Item = char>) -> char {
            match (other.next(), other.next()) {
                (Some(other), None) => other,
                _ => c,
            }
        }
        match self {
            Self::Keep => text.to_owned(),
            // Of ASCII the other case is ASCII, too, and sooner found.
            Self::Lower if text.is_ascii() => text.to_ascii_lowercase(),
            Self::Upper if text.is_ascii() => text.to_ascii_uppercase(),
            Self::Lower => text.chars().map(|c| one(c, c.to_lowercase())).collect(),
            Self::Upper => text.chars().map(|c| one(c, c.to_uppercase())).collect(),
        }
    }
}

/// How `StringNormalizer` goes about it.
#[derive(Debug)]
struct Normalizer {
    /// In the case that is compared.
    stopwords: HashSet<String>,
    /// In which texts are compared with the stopwords.
    compared: Case,
    case: Case,
}

impl Normalizer {
    /// Whether the case of any text is changed, to be kept or to be compared.
    fn changes(&self) -> bool {
        self.case != Case::Keep || (!self.stopwords.is_empty() && self.compared != Case::Keep)
    }

    fn keeps(&self, text: &str) -> bool {
        self.stopwords.is_empty() || !self.stopwords.contains(&self.compared.apply(text))
    }

    /// What the shape of the output is when some texts stay.
    fn shape(shape: &[usize], kept: usize) -> Vec<usize> {
        let mut out = shape.to_vec();
        out.iter_mut().rev().take(1).for_each(|dim| *dim = kept.max(1));
        out
    }

    fn normalize(&self, array: &Array) -> Result<Vec<String>, Stop> {
        let kept = array.texts().iter().filter(|text| self.keeps(text));
        let mut out: Vec<String> = kept.map(|text| self.case.apply(text)).collect();
        check_bytes(out.iter().map(String::len))?;
        if out.is_empty() {
            out.push(String::new());
        }
        Ok(out)
    }
}

/// Drops texts that are stopwords, as a whole, and changes the case of the others.
fn normalizer(node: &Node<'_>) -> Result<Eval, String> {
    let case = match node.text("case_change_action", "NONE")?.as_str() {
        "NONE" => Case::Keep,
        "LOWER" => Case::Lower,
        "UPPER" => Case::Upper,
        other => return Err(format!("there is no case_change_action `{other}`")),
    };
    let compared = match (node.flag("is_case_sensitive", false), case) {
        (true, _) => Case::Keep,
        (false, Case::Upper) => Case::Upper,
        (false, _) => Case::Lower,
    };
    let stopwords = node.texts("stopwords")?.unwrap_or_default();
    let stopwords = stopwords.iter().map(|word| compared.apply(word)).collect();
    let normalizer = Normalizer { stopwords, compared, case };
    single(move |cx, inputs| {
        check_texts(inputs, 0)?;
        let shape = inputs.shape(0)?;
        if !matches!(shape, [length] | [1, length] if *length > 0) {
            return Err(Stop::invalid(format!("it takes the shapes [C] and [1, C], not {shape:?}")));
        }
        // Only with stopwords does it matter here what the texts are.
        let kept = if normalizer.stopwords.is_empty() {
            shape.last().copied().unwrap_or(0)
        } else {
            inputs.array(0)?.texts().iter().filter(|text| normalizer.keeps(text)).count()
        };
        if let (Some(array), true) = (inputs.get(0).and_then(Value::array), normalizer.changes()) {
            cx.read_texts(array.text_bytes().0.saturating_mul(CASE_READS))?;
        }
        let ops = inputs.count(0)?.saturating_mul(TEXT_OPS * 2);
        cx.emit_texts(inputs, Normalizer::shape(shape, kept), ops, || normalizer.normalize(inputs.read(0)?))
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weighting {
    /// How often an n-gram is there.
    Frequency,
    /// Its weight, if it is there.
    Presence,
    /// How often it is there, times its weight.
    Weighted,
}

/// The tokens of a pool, numbered.
#[derive(Debug)]
enum Tokens {
    Ints(HashMap<i64, u32>),
    Texts(HashMap<String, u32>),
}

impl Tokens {
    /// The numbers of the tokens of an input; `None` for those that the pool has not.
    fn numbers(&self, array: &Array) -> Result<Vec<Option<u32>>, Stop> {
        match self {
            Self::Ints(map) => {
                let ints = array.to_ints().ok_or_else(|| Stop::unsupported(array.dtype()))?;
                Ok(ints.iter().map(|token| map.get(token).copied()).collect())
            }
            Self::Texts(map) => Ok(array.texts().iter().map(|token| map.get(token).copied()).collect()),
        }
    }
}

/// Numbers the distinct keys of a list, in the order in which they come.
fn number<K: core::hash::Hash + Eq>(keys: Vec<K>) -> (HashMap<K, u32>, Vec<u32>) {
    let mut map = HashMap::new();
    let mut numbers = Vec::with_capacity(keys.len());
    for key in keys {
        let next = map.len() as u32;
        numbers.push(*map.entry(key).or_insert(next));
    }
    (map, numbers)
}

/// The n-grams of a `TfIdfVectorizer` as a tree: from the root token by token.
#[derive(Debug)]
struct Grams {
    tokens: Tokens,
    /// Node and token to node; the root is 0.
    next: HashMap<(u32, u32), u32>,
    /// By node: the column of the n-gram that ends there.
    columns: Vec<Option<usize>>,
    /// Columns with the weights of their n-grams.
    weights: Vec<(usize, f32)>,
    weighting: Weighting,
    lengths: core::ops::RangeInclusive<usize>,
    skips: usize,
    /// Columns of the output.
    width: usize,
}

impl Grams {
    fn of_node(node: &Node<'_>) -> Result<Self, String> {
        let weighting = match node.text("mode", "")?.as_str() {
            "TF" => Weighting::Frequency,
            "IDF" => Weighting::Presence,
            "TFIDF" => Weighting::Weighted,
            other => return Err(format!("there is no mode `{other}`")),
        };
        let size = |name: &str| usize::try_from(node.int(name, -1)).map_err(|_| format!("its {name} is negative"));
        let (least, most) = (size("min_gram_length")?, size("max_gram_length")?);
        let starts = node.sizes("ngram_counts")?.unwrap_or_default();
        let indexes = node.sizes("ngram_indexes")?.unwrap_or_default();
        if least == 0 || most < least || most > starts.len() {
            return Err(format!("it has n-grams of {least} to {most} tokens, and {} ngram_counts", starts.len()));
        }
        let width = indexes.iter().max().and_then(|most| most.checked_add(1)).ok_or("it has no ngram_indexes")?;
        let weights = node.floats("weights").unwrap_or_default();
        if !(weights.is_empty() || weights.len() == indexes.len()) {
            return Err(format!("it has {} weights for {} n-grams", weights.len(), indexes.len()));
        }
        // Of n-grams that share a column the last has the weight.
        let by_column: std::collections::BTreeMap<usize, f32> = indexes.iter().copied().zip(weights).collect();
        let (texts, ints) =
            (node.texts("pool_strings")?.unwrap_or_default(), node.ints("pool_int64s").unwrap_or_default());
        let (tokens, pool) = match (texts.is_empty(), ints.is_empty()) {
            (false, true) => {
                let (map, pool) = number(texts);
                (Tokens::Texts(map), pool)
            }
            (true, false) => {
                let (map, pool) = number(ints);
                (Tokens::Ints(map), pool)
            }
            _ => return Err("it needs a pool of either texts or integers".into()),
        };
        let mut grams = Self {
            tokens,
            next: HashMap::new(),
            columns: vec![None],
            weights: by_column.into_iter().collect(),
            weighting,
            lengths: least..=most,
            skips: size("max_skip_count")?,
            width,
        };
        grams.add_pool(&pool, &starts, &indexes)?;
        Ok(grams)
    }

    /// Adds the n-grams of each length: those of n tokens begin at the n-th start.
    fn add_pool(&mut self, pool: &[u32], starts: &[usize], indexes: &[usize]) -> Result<(), String> {
        let mut ids = 0..indexes.len();
        for (index, start) in starts.iter().enumerate() {
            let length = index + 1;
            let end = starts.get(index + 1).copied().unwrap_or(pool.len());
            let grams = pool.get(*start..end).ok_or("its ngram_counts are beyond its pool")?;
            if grams.len() % length != 0 {
                return Err(format!("its pool does not have whole {length}-grams"));
            }
            for gram in grams.chunks_exact(length) {
                let column =
                    ids.next().and_then(|id| indexes.get(id)).ok_or("it has more n-grams than ngram_indexes")?;
                if self.lengths.contains(&length) {
                    self.add(gram, *column)?;
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, gram: &[u32], column: usize) -> Result<(), String> {
        let mut at = 0;
        for token in gram {
            let fresh = self.columns.len() as u32;
            at = *self.next.entry((at, *token)).or_insert(fresh);
            if at == fresh {
                self.columns.push(None);
            }
        }
        match self.columns.get_mut(at as usize) {
            Some(slot @ None) => *slot = Some(column),
            _ => return Err("an n-gram is there twice".into()),
        }
        Ok(())
    }

    /// Counts the n-grams of a row. Those of one token are counted once, whatever may be skipped.
    fn count(&self, row: &[Option<u32>], out: &mut [f32]) {
        let (mut least, most) = (*self.lengths.start(), *self.lengths.end());
        for step in 1..=self.skips.saturating_add(1).min(row.len()) {
            for start in 0..row.len() {
                if step.saturating_mul(least - 1).saturating_add(start) >= row.len() {
                    break;
                }
                let mut at = 0;
                for (index, token) in row[start..].iter().step_by(step).take(most).enumerate() {
                    let next = token.and_then(|token| self.next.get(&(at, token)));
                    let Some(next) = next else { break };
                    at = *next;
                    let column = self.columns.get(at as usize).copied().flatten();
                    if let Some(slot) = column.filter(|_| index + 1 >= least).and_then(|column| out.get_mut(column)) {
                        *slot += 1.0;
                    }
                }
            }
            if least == 1 {
                least = 2;
            }
            if least > most {
                break;
            }
        }
    }

    fn weigh(&self, row: &mut [f32]) {
        if self.weighting == Weighting::Frequency {
            return;
        }
        if self.weighting == Weighting::Presence {
            row.iter_mut().filter(|count| **count > 0.0).for_each(|count| *count = 1.0);
        }
        for (column, weight) in &self.weights {
            if let Some(count) = row.get_mut(*column) {
                *count *= weight;
            }
        }
    }

    fn vectorizer(self) -> Result<Eval, String> {
        single(move |cx, inputs| {
            let (dtype, shape) = inputs.ty(0)?;
            match (&self.tokens, dtype) {
                (Tokens::Texts(_), DType::String) | (Tokens::Ints(_), DType::Int32 | DType::Int64) => {}
                _ => return Err(Stop::unsupported(dtype)),
            }
            let (out, length) = match shape {
                [] => (vec![self.width], 1),
                [length] => (vec![self.width], *length),
                [rows, length] => (vec![*rows, self.width], *length),
                _ => return Err(Stop::invalid(format!("it takes vectors and matrices, not the shape {shape:?}"))),
            };
            let looks = (*self.lengths.end() as u64).saturating_mul((self.skips as u64).saturating_add(1));
            let ops = inputs.count(0)?.saturating_mul(looks.saturating_mul(TEXT_OPS / 2).saturating_add(TEXT_OPS));
            let ops = ops.saturating_add(count(&out).saturating_mul(2));
            let total = count(&out);
            cx.emit::<f32>(inputs, DType::Float32, out, ops, || {
                let numbers = self.tokens.numbers(inputs.read(0)?)?;
                let mut out = vec![0.0; total as usize];
                // Rows without tokens have no chunks, and stay zero.
                let rows = numbers.chunks_exact(length.max(1));
                out.chunks_exact_mut(self.width).zip(rows).for_each(|(out, row)| self.count(row, out));
                out.chunks_exact_mut(self.width).for_each(|row| self.weigh(row));
                Ok(out)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_split_as_the_specification_says() {
        let pieces = |delimiter: &str, pieces: usize, text: &str| {
            let split = Split { delimiter: delimiter.to_owned(), pieces };
            split.pieces(text).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(pieces("", usize::MAX, "  a\t b c "), ["a", "b", "c"]);
        assert_eq!(pieces("", 2, "  a  b c "), ["a", "b c"]);
        assert_eq!(pieces("", 1, " a  b "), ["a  b"]);
        assert!(pieces("", 1, " \n").is_empty());
        assert_eq!(pieces("--", usize::MAX, "a----b"), ["a", "", "b"]);
        assert_eq!(pieces("-", 2, "-a-b"), ["", "a-b"]);
        assert!(pieces("-", 2, "").is_empty());
    }

    #[test]
    fn cases_change_letter_by_letter() {
        assert_eq!(Case::Upper.apply("straße É"), "STRAßE É");
        assert_eq!(Case::Lower.apply("ÉCOLE ΑΣ"), "école ας".replace('ς', "σ"));
        assert_eq!(Case::Keep.apply("aB"), "aB");
    }

    #[test]
    fn texts_together_have_a_bound() {
        assert!(check_bytes([MAX_TEXT_BYTES, 1].into_iter()).is_err());
        assert!(check_bytes([usize::MAX, usize::MAX].into_iter()).is_err());
        assert!(check_bytes([MAX_TEXT_BYTES].into_iter()).is_ok());
    }
}
