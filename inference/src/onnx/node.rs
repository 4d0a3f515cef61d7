//! What an operator's parser sees of its node.

use core::cell::Cell;

use bytes::Bytes;

use super::{
    constants::read_tensor,
    proto::{AttributeProto, GraphProto, NodeProto},
};
use crate::engine::{MAX_INTS, Packs, array::Array};

// `AttributeProto.AttributeType`.
const FLOAT: i32 = 1;
const INT: i32 = 2;
const STRING: i32 = 3;
const FLOATS: i32 = 6;
const INTS: i32 = 7;
const STRINGS: i32 = 8;

/// A node whose inputs are resolved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node<'a> {
    pub(crate) proto: &'a NodeProto,
    /// Version of the operator set of its domain.
    pub(crate) opset: i64,
    /// For each input the constant, if it is one.
    pub(crate) constants: &'a [Option<&'a Array>],
    /// For each input its number in the program.
    pub(crate) slots: &'a [Option<usize>],
    /// Constants of the program that are laid out for the kernels already.
    pub(crate) packs: &'a Packs,
    /// Set when an attribute is read as another type than it has.
    pub(crate) misread: &'a Cell<bool>,
    /// Whether the Relu behind it is part of it: of a Conv, or of a product with its scale, alone.
    pub(crate) rectified: bool,
}

impl<'a> Node<'a> {
    pub(crate) fn op(&self) -> &'a str {
        &self.proto.op_type
    }

    /// Outputs that somebody may read.
    pub(crate) fn outputs(&self) -> usize {
        self.proto.output.len()
    }

    pub(crate) fn has_output(&self, index: usize) -> bool {
        self.proto.output.get(index).is_some_and(|name| !name.is_empty())
    }

    pub(crate) fn has_input(&self, index: usize) -> bool {
        self.proto.input.get(index).is_some_and(|name| !name.is_empty())
    }

    /// The constant at an input, if the input is there and constant.
    pub(crate) fn constant(&self, index: usize) -> Option<&'a Array> {
        self.constants.get(index).copied().flatten()
    }

    pub(crate) fn attribute(&self, name: &str) -> Option<&'a AttributeProto> {
        self.proto.attribute.iter().find(|a| a.name == name)
    }

    /// An attribute of a type (`AttributeProto.AttributeType`). Old files do not say which one they have.
    fn typed(&self, name: &str, expected: i32) -> Option<&'a AttributeProto> {
        let found = self.attribute(name)?;
        if found.r#type != 0 && found.r#type != expected {
            self.misread.set(true);
        }
        Some(found)
    }

    pub(crate) fn int(&self, name: &str, default: i64) -> i64 {
        // proto3 writers may leave a zero out: an attribute that is there without a value is zero.
        self.typed(name, INT).map_or(default, |a| a.i.unwrap_or(0))
    }

    pub(crate) fn flag(&self, name: &str, default: bool) -> bool {
        self.int(name, default.into()) != 0
    }

    pub(crate) fn float(&self, name: &str, default: f32) -> f32 {
        self.typed(name, FLOAT).map_or(default, |a| a.f.unwrap_or(0.0))
    }

    pub(crate) fn ints(&self, name: &str) -> Option<Vec<i64>> {
        self.typed(name, INTS).map(|a| a.ints.clone())
    }

    /// Integers for the dimensions of a tensor, two for each at most: what an operator reads again wherever it is evaluated.
    pub(crate) fn axes(&self, name: &str) -> Result<Option<Vec<i64>>, String> {
        match self.typed(name, INTS) {
            Some(a) if a.ints.len() > MAX_INTS => Err(format!("its {name} are more than {MAX_INTS} integers")),
            other => Ok(other.map(|a| a.ints.clone())),
        }
    }

    pub(crate) fn floats(&self, name: &str) -> Option<Vec<f32>> {
        self.typed(name, FLOATS).map(|a| a.floats.clone())
    }

    /// A list of counts: strides, dilations, kernel sizes.
    pub(crate) fn sizes(&self, name: &str) -> Result<Option<Vec<usize>>, String> {
        let convert = |i: &i64| usize::try_from(*i).map_err(|_| format!("its {name} must not be negative"));
        self.ints(name).map(|ints| ints.iter().map(convert).collect()).transpose()
    }

    /// A text, or the default.
    pub(crate) fn text(&self, name: &str, default: &str) -> Result<String, String> {
        match self.typed(name, STRING) {
            None => Ok(default.to_owned()),
            Some(a) => utf8(a.s.as_ref().unwrap_or(&Bytes::new())),
        }
    }

    pub(crate) fn texts(&self, name: &str) -> Result<Option<Vec<String>>, String> {
        self.typed(name, STRINGS).map(|a| a.strings.iter().map(utf8).collect()).transpose()
    }

    /// A tensor.
    pub(crate) fn tensor(&self, name: &str) -> Result<Option<Array>, String> {
        match self.attribute(name) {
            Some(AttributeProto { t: Some(tensor), .. }) => read_tensor(tensor).map(Array::from_host).map(Some),
            Some(AttributeProto { sparse_tensor: Some(tensor), .. }) => {
                let reserve = |bytes| self.packs.reserve(bytes);
                super::constants::read_sparse(tensor, reserve).map(Array::from_host).map(Some)
            }
            Some(_) => Err(format!("its {name} must be a tensor")),
            None => Ok(None),
        }
    }

    /// The attributes that are graphs.
    pub(crate) fn graphs(proto: &'a NodeProto) -> impl Iterator<Item = (&'a str, &'a GraphProto)> {
        proto.attribute.iter().filter_map(|a| Some((a.name.as_str(), a.g.as_deref()?)))
    }
}

fn utf8(bytes: &Bytes) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "an attribute is not UTF-8".to_owned())
}
