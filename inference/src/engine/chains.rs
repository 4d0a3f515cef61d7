//! Nodes that are computed together with the one before them. That changes no bits: it saves the writing and reading of what
//! is between them.

use std::collections::{HashMap, HashSet};

use crate::onnx::{
    Node,
    proto::{GraphProto, NodeProto},
};

/// `TensorProto.FLOAT`.
const FLOAT: i64 = 1;

/// What of a graph's nodes is computed together.
#[derive(Debug, Default)]
pub(crate) struct Chains {
    /// The outputs of convolutions that a Relu reads, and nobody else.
    pub(crate) rectified: HashSet<String>,
    /// By the output of a product the index of the QuantizeLinear that reads it, and nobody else.
    pub(crate) quantized: HashMap<String, usize>,
    /// By the index of the last of its nodes.
    pub(crate) scaled: HashMap<usize, Scaled>,
    /// The nodes of [`Self::scaled`] before the last ones.
    pub(crate) left_out: HashSet<usize>,
}

/// A MatMulInteger whose sums become float32, times a scale, plus a bias, as exporters of dynamically quantised models write
/// it: MatMulInteger, Cast, Mul, and perhaps Add and Relu.
#[derive(Debug, PartialEq)]
pub(crate) struct Scaled {
    /// The index of the product.
    pub(crate) index: usize,
    /// The product with the scale as input 4 and the bias as input 5.
    pub(crate) node: NodeProto,
    /// Whether the last node is a Relu.
    pub(crate) rectified: bool,
}

impl Chains {
    /// Those of nodes whose graph has `outputs`. `calls` says whether a node calls a function of the file, which may have any
    /// name.
    pub(crate) fn of(nodes: &[NodeProto], outputs: &[&str], calls: impl Fn(&NodeProto) -> bool) -> Self {
        let own: Vec<&str> = nodes
            .iter()
            .map(|node| match node.domain.as_str() {
                "" | "ai.onnx" if !calls(node) => node.op_type.as_str(),
                _ => "",
            })
            .collect();
        let mut chains = Self::default();
        if !own.iter().any(|op| matches!(*op, "Conv" | "MatMulInteger" | "QuantizeLinear")) {
            return chains;
        }
        let readers = Readers::of(nodes, outputs);
        for (index, node) in nodes.iter().enumerate() {
            match own[index] {
                "Conv" => {
                    let relu = node.output.first().filter(|output| readers.next(output, index, &own, "Relu").is_some());
                    chains.rectified.extend(relu.cloned());
                }
                "MatMul" | "Gemm" => {
                    let [output] = node.output.as_slice() else { continue };
                    let quantize = readers.next(output, index, &own, "QuantizeLinear");
                    chains.quantized.extend(
                        quantize
                            .filter(|quantize| {
                                let NodeProto { input, output: bytes, attribute, .. } = &nodes[*quantize];
                                // It may name an axis, which does not matter for one scale.
                                let plain = attribute.iter().all(|attribute| attribute.name == "axis");
                                input.len() == 3 && input[0] == *output && bytes.len() == 1 && plain
                            })
                            .map(|quantize| (output.clone(), quantize)),
                    );
                }
                "MatMulInteger" => {
                    let free = |node: &usize| !chains.left_out.contains(node) && !chains.scaled.contains_key(node);
                    if let Some((scaled, between)) = scaled(nodes, index, &own, &readers, free) {
                        chains.left_out.extend(&between[..between.len() - 1]);
                        chains.left_out.insert(index);
                        chains.scaled.extend(between.last().map(|last| (*last, scaled)));
                    }
                }
                _ => {}
            }
        }
        chains
    }
}

/// The product at an index with what comes after it, and the indices of that.
/// Two of them may meet at one: only nodes that are `free` are taken.
fn scaled(
    nodes: &[NodeProto],
    index: usize,
    own: &[&str],
    readers: &Readers<'_>,
    free: impl Fn(&usize) -> bool,
) -> Option<(Scaled, Vec<usize>)> {
    let [sums] = nodes[index].output.as_slice() else { return None };
    let cast = readers.next(sums, index, own, "Cast").filter(&free)?;
    let to = nodes[cast].attribute.iter().find(|attribute| attribute.name == "to")?;
    let [numbers] = nodes[cast].output.as_slice() else { return None };
    if to.i != Some(FLOAT) || nodes[cast].attribute.len() != 1 || nodes[cast].input.len() != 1 {
        return None;
    }
    let times = readers.next(numbers, cast, own, "Mul").filter(&free)?;
    let scale = other(&nodes[times], numbers)?;
    let mut between = vec![cast, times];
    let mut output = nodes[times].output.first()?;
    let mut bias = "";
    if let Some(plus) = readers.next(output, times, own, "Add").filter(&free)
        && let Some(addend) = other(&nodes[plus], output)
    {
        between.push(plus);
        (bias, output) = (addend, nodes[plus].output.first()?);
    }
    let last = between[between.len() - 1];
    let alone = |relu: &usize| nodes[*relu].input.len() == 1 && nodes[*relu].output.len() == 1;
    let relu = readers.next(output, last, own, "Relu").filter(&free).filter(alone);
    if let Some(relu) = relu {
        between.push(relu);
        output = nodes[relu].output.first()?;
    }
    if nodes[index].input.len() > 4 {
        return None;
    }
    let mut node = nodes[index].clone();
    node.input.resize(4, String::new());
    node.input.extend([scale.to_owned(), bias.to_owned()]);
    node.output = vec![output.clone()];
    Some((Scaled { index, node, rectified: relu.is_some() }, between))
}

/// The other operand of a plain node of two.
fn other<'n>(node: &'n NodeProto, name: &str) -> Option<&'n str> {
    match node.input.as_slice() {
        [first, second] if node.attribute.is_empty() && node.output.len() == 1 => {
            let other = if first == name { second } else { first };
            (!other.is_empty()).then_some(other.as_str())
        }
        _ => None,
    }
}

/// Who reads the values of a graph: how often each is read, and by which node last.
struct Readers<'n>(HashMap<&'n str, (usize, usize)>);

impl<'n> Readers<'n> {
    fn of(nodes: &'n [NodeProto], outputs: &[&'n str]) -> Self {
        let mut readers = Self(HashMap::new());
        // Who reads from outside of the nodes is no single reader.
        outputs.iter().for_each(|name| readers.read(name, 2, 0));
        for (index, node) in nodes.iter().enumerate() {
            node.input.iter().for_each(|name| readers.read(name, 1, index));
            Node::graphs(node).for_each(|(_, graph)| readers.read_inside(graph));
        }
        readers
    }

    fn read(&mut self, name: &'n str, times: usize, index: usize) {
        let reader = self.0.entry(name).or_default();
        *reader = (reader.0 + times, index);
    }

    /// What a graph inside a node reads, as far as it can be seen by names.
    fn read_inside(&mut self, graph: &'n GraphProto) {
        let names = graph.node.iter().flat_map(|node| &node.input).chain(graph.output.iter().map(|info| &info.name));
        names.for_each(|name| self.read(name, 2, 0));
        graph.node.iter().flat_map(Node::graphs).for_each(|(_, graph)| self.read_inside(graph));
    }

    /// The node that reads a value, if it is the only one, comes after the node at an index, and is of an operator.
    fn next(&self, name: &str, index: usize, own: &[&str], op: &str) -> Option<usize> {
        let (times, reader) = *self.0.get(name)?;
        (times == 1 && reader > index && own[reader] == op && !name.is_empty()).then_some(reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::{AttributeProto, ValueInfoProto};

    fn node(op: &str, input: &[&str], output: &str) -> NodeProto {
        let input = input.iter().map(|name| (*name).to_owned()).collect();
        let to = AttributeProto { name: "to".into(), i: Some(FLOAT), r#type: 2, ..Default::default() };
        let attribute = if op == "Cast" { vec![to] } else { vec![] };
        NodeProto { op_type: op.into(), input, output: vec![output.into()], attribute, ..Default::default() }
    }

    fn dynamic() -> Vec<NodeProto> {
        vec![
            node("MatMulInteger", &["x", "w", "z"], "sums"),
            node("Cast", &["sums"], "numbers"),
            node("Mul", &["scale", "numbers"], "scaled"),
            node("Add", &["scaled", "bias"], "sum"),
            node("Relu", &["sum"], "y"),
        ]
    }

    fn last(nodes: &[NodeProto], output: &str) -> Option<(usize, Vec<String>, bool)> {
        let chains = Chains::of(nodes, &[output], |_| false);
        let (last, Scaled { index, node, rectified }) = chains.scaled.into_iter().next()?;
        assert_eq!(chains.left_out.len() + 1, 3 + usize::from(!node.input[5].is_empty()) + usize::from(rectified));
        assert_eq!((index, &node.output), (0, &vec![output.to_owned()]));
        Some((last, node.input, rectified))
    }

    #[test]
    fn a_product_takes_what_follows_it_as_far_as_nobody_else_reads() {
        let nodes = dynamic();
        let inputs = |bias: &str| ["x", "w", "z", "", "scale", bias].map(str::to_owned).to_vec();
        assert_eq!(last(&nodes, "y"), Some((4, inputs("bias"), true)));
        assert_eq!(last(&nodes[..4], "sum"), Some((3, inputs("bias"), false)));
        assert_eq!(last(&nodes[..3], "scaled"), Some((2, inputs(""), false)));
        // Somebody else reads one of the values in between.
        for (name, end) in [("sums", None), ("numbers", None), ("scaled", Some(2)), ("sum", Some(3))] {
            let mut nodes = dynamic();
            nodes.push(node("Abs", &[name], "other"));
            let chains = Chains::of(&nodes, &["y", "other"], |_| false);
            assert_eq!(chains.scaled.keys().next().copied(), end, "{name}");
            // Or a graph inside a node does.
            let body = GraphProto {
                output: vec![ValueInfoProto { name: name.into(), ..Default::default() }],
                ..Default::default()
            };
            let body =
                AttributeProto { name: "then_branch".into(), g: Some(Box::new(body)), r#type: 5, ..Default::default() };
            nodes[5] = NodeProto { attribute: vec![body], ..node("If", &["c"], "other") };
            let chains = Chains::of(&nodes, &["y", "other"], |_| false);
            assert_eq!(chains.scaled.keys().next().copied(), end, "{name}");
        }
    }

    #[test]
    fn chains_that_meet_share_no_node() {
        let second = |name: &str| format!("{name}2");
        let other: Vec<NodeProto> = dynamic()[..3]
            .iter()
            .map(|node| NodeProto {
                input: node.input.iter().map(|name| second(name)).collect(),
                output: node.output.iter().map(|name| second(name)).collect(),
                ..node.clone()
            })
            .collect();
        let mut nodes =
            [dynamic()[..3].to_vec(), other.clone(), vec![node("Add", &["scaled", "scaled2"], "y")]].concat();
        let chains = Chains::of(&nodes, &["y"], |_| false);
        assert_eq!(chains.scaled[&6].node.input[5], "scaled2");
        assert_eq!(chains.scaled[&5].node.output, ["scaled2"]);
        assert_eq!(chains.left_out, HashSet::from([0, 1, 2, 3, 4]));
        // Each is the scale of the other.
        nodes.truncate(2);
        nodes.extend_from_slice(&other[..2]);
        nodes.push(node("Mul", &["numbers", "numbers2"], "y"));
        let chains = Chains::of(&nodes, &["y"], |_| false);
        assert_eq!((chains.scaled.len(), chains.left_out), (1, HashSet::from([0, 1])));
    }

    #[test]
    fn a_product_that_is_quantised_and_not_read_otherwise_is_found() {
        let mut nodes =
            vec![node("Gemm", &["x", "w", "b"], "y"), node("QuantizeLinear", &["y", "scale", "zero"], "bytes")];
        let found = |nodes: &[NodeProto]| {
            Chains::of(nodes, &["bytes"], |_| false).quantized.into_values().collect::<Vec<usize>>()
        };
        assert_eq!(found(&nodes), vec![1]);
        nodes[1].input.swap(0, 1);
        assert!(found(&nodes).is_empty());
        nodes[1].input = ["y", "scale"].map(str::to_owned).to_vec();
        assert!(found(&nodes).is_empty());
        nodes[1] = node("QuantizeLinear", &["y", "scale", "y"], "bytes");
        assert!(found(&nodes).is_empty());
    }

    #[test]
    fn what_is_not_as_exporters_write_it_stays_as_it_is() {
        let changed = |change: &dyn Fn(&mut Vec<NodeProto>)| {
            let mut nodes = dynamic();
            change(&mut nodes);
            Chains::of(&nodes, &["y"], |node| node.name == "function").scaled.len()
        };
        assert_eq!(changed(&|_| ()), 1);
        assert_eq!(changed(&|nodes| nodes[1].attribute[0].i = Some(11)), 0);
        assert_eq!(changed(&|nodes| nodes[1].name = "function".into()), 0);
        assert_eq!(changed(&|nodes| nodes[2].domain = "com.example".into()), 0);
        assert_eq!(changed(&|nodes| nodes[2].input[0] = "numbers".into()), 0);
        assert_eq!(changed(&|nodes| nodes.swap(0, 1)), 0);
        // What has inputs that it does not read.
        assert_eq!(changed(&|nodes| nodes[1].input.insert(0, "other".into())), 0);
        assert_eq!(changed(&|nodes| nodes[0].input.extend(["a", "b"].map(str::to_owned))), 0);
        assert_eq!(changed(&|nodes| nodes[0].output[0] = String::new()), 0);
    }
}
