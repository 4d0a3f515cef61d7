//! A model's own functions, written out where they are called.

use std::collections::{HashMap, HashSet};

use super::{
    Builder, Compiler, MAX_DEPTH, Names,
    opsets::{check_opsets, opsets},
};
use crate::{
    ModelError,
    onnx::{
        proto::{AttributeProto, FunctionProto, NodeProto},
        weight,
    },
};

impl Compiler<'_> {
    /// Counts bytes that are about to be written out.
    fn write(&mut self, bytes: u64) -> Result<(), String> {
        self.written = self.written.saturating_add(bytes);
        match self.written > self.most_written {
            true => Err(format!("its functions written out have more than {} bytes", self.most_written)),
            false => Ok(()),
        }
    }
}

impl Builder<'_> {
    /// Writes a function out in place of the node that calls it.
    pub(super) fn call(
        &mut self,
        compiler: &mut Compiler<'_>,
        proto: &NodeProto,
        function: &FunctionProto,
        label: &str,
        depth: usize,
    ) -> Result<(), ModelError> {
        let error = |reason: String| ModelError::Node { node: label.to_owned(), reason };
        if depth > MAX_DEPTH {
            return Err(error(format!("functions are nested more than {MAX_DEPTH} deep")));
        }
        if proto.input.len() > function.input.len() || proto.output.len() > function.output.len() {
            return Err(error("it has more inputs or outputs than its function".into()));
        }
        // Every call has its own copy of the nodes and constants inside.
        let names = function.input.iter().chain(&function.output);
        let names = names.chain(function.opset_import.iter().map(|set| &set.domain));
        let names = names.chain(function.attribute_proto.iter().chain(&proto.attribute).map(|given| &given.name));
        compiler.write(names.map(|name| 128 + name.len() as u64).sum()).map_err(error)?;
        function.node.iter().try_for_each(|node| compiler.write(weight::of_node(node))).map_err(error)?;
        let opsets = opsets(&function.opset_import);
        check_opsets(&opsets)?;
        let outside = self.prefix.clone();
        // No other call has it, and no name that a file has for a value.
        let inside = format!("\0{}\0", compiler.nodes);
        for (name, formal) in proto.input.iter().zip(&function.input) {
            if !name.is_empty() {
                let slot =
                    self.resolve(name).ok_or_else(|| error(format!("its input `{name}` is not defined before it")))?;
                self.names.own.insert(format!("{inside}{formal}"), slot);
            }
        }
        let given = function.attribute_proto.iter().chain(&proto.attribute).map(|a| (a.name.as_str(), a)).collect();
        let formal = function.input.iter().map(String::as_str).collect();
        let substitution = Substitution { given, formal, prefix: &inside };
        let nodes = function.node.iter().map(|node| substitution.node(node, &self.names, compiler));
        let nodes = nodes.collect::<Result<Vec<_>, _>>().map_err(error)?;
        self.prefix = inside.clone();
        let outputs: Vec<&str> = function.output.iter().map(String::as_str).collect();
        let result = self.nodes(compiler, (&nodes, &outputs), &opsets, depth + 1);
        self.prefix = outside;
        result?;
        for (name, formal) in proto.output.iter().zip(&function.output) {
            if name.is_empty() {
                continue;
            }
            let slot = *self
                .names
                .own
                .get(&format!("{inside}{formal}"))
                .ok_or_else(|| error(format!("its function does not compute `{formal}`")))?;
            if self.names.own.insert(format!("{}{name}", self.prefix), slot).is_some() {
                return Err(ModelError::value("node output", name, "the name is defined twice"));
            }
        }
        Ok(())
    }
}

/// What a function's body gets from a call.
struct Substitution<'c> {
    /// The attributes: those of the call, or else the function's own.
    given: HashMap<&'c str, &'c AttributeProto>,
    /// Names of the function's inputs.
    formal: HashSet<&'c str>,
    /// Before the names inside.
    prefix: &'c str,
}

impl Substitution<'_> {
    /// A node of the body with the attributes of the call; inputs of the function that the call leaves out are left out.
    fn node(&self, node: &NodeProto, names: &Names<'_>, compiler: &mut Compiler<'_>) -> Result<NodeProto, String> {
        let mut node = node.clone();
        for input in &mut node.input {
            if self.formal.contains(input.as_str()) && !names.own.contains_key(&format!("{}{input}", self.prefix)) {
                input.clear();
            }
        }
        self.attributes(&mut node.attribute, compiler, 0)?;
        Ok(node)
    }

    fn attributes(
        &self,
        attributes: &mut Vec<AttributeProto>,
        compiler: &mut Compiler<'_>,
        depth: usize,
    ) -> Result<(), String> {
        for attribute in attributes.iter_mut() {
            if attribute.ref_attr_name.is_empty() {
                if let (Some(graph), true) = (&mut attribute.g, depth < MAX_DEPTH) {
                    for node in &mut graph.node {
                        self.attributes(&mut node.attribute, compiler, depth + 1)?;
                    }
                }
            } else if let Some(value) = self.given.get(attribute.ref_attr_name.as_str()) {
                compiler.write(weight::of_attribute(value))?;
                *attribute =
                    AttributeProto { name: attribute.name.clone(), ref_attr_name: String::new(), ..(*value).clone() };
            }
        }
        // Those that the call leaves out.
        attributes.retain(|attribute| attribute.ref_attr_name.is_empty());
        Ok(())
    }
}
