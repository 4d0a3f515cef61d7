//! The memory that a file's messages take: protobuf writes a message of a hundred bytes in two.

use core::mem::size_of;

use prost::{
    Message,
    bytes::Buf,
    encoding::{WireType, decode_key, decode_varint},
};

use super::proto::{
    AttributeProto, DimensionProto, ElementTypeProto, FunctionProto, GraphProto, ModelProto, NodeProto,
    OperatorSetIdProto, SparseTensorProto, StringStringEntryProto, TensorProto, TensorShapeProto, TensorTypeProto,
    TypeProto, ValueInfoProto,
};

use crate::DType;

/// Messages within messages, as prost reads them at most.
const MAX_DEPTH: usize = 100;

/// A message of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Sparse,
    ValueInfo,
    Type,
    Element,
    TensorType,
    Shape,
    Dimension,
    Function,
    OperatorSet,
    Entry,
}

/// What a field holds.
enum Field {
    Message(Kind),
    /// A list of texts or bytes, whose elements are kept as they are but for a header.
    List,
    /// Numbers, eight bytes each at most.
    Numbers,
    Other,
}

impl Kind {
    fn size(self) -> u64 {
        (match self {
            Self::Model => size_of::<ModelProto>(),
            Self::Graph => size_of::<GraphProto>(),
            Self::Node => size_of::<NodeProto>(),
            Self::Attribute => size_of::<AttributeProto>(),
            Self::Tensor => size_of::<TensorProto>(),
            Self::Sparse => size_of::<SparseTensorProto>(),
            Self::ValueInfo => size_of::<ValueInfoProto>(),
            Self::Type => size_of::<TypeProto>(),
            Self::Element => size_of::<ElementTypeProto>(),
            Self::TensorType => size_of::<TensorTypeProto>(),
            Self::Shape => size_of::<TensorShapeProto>(),
            Self::Dimension => size_of::<DimensionProto>(),
            Self::Function => size_of::<FunctionProto>(),
            Self::OperatorSet => size_of::<OperatorSetIdProto>(),
            Self::Entry => size_of::<StringStringEntryProto>(),
        }) as u64
    }

    /// By its number in the schema: see [`super::proto`].
    fn field(self, tag: u32) -> Field {
        use Field::{List, Message, Numbers, Other};
        match (self, tag) {
            (Self::Model, 7) => Message(Self::Graph),
            (Self::Model, 8) | (Self::Function, 9) => Message(Self::OperatorSet),
            (Self::Model, 25) => Message(Self::Function),
            (Self::Graph, 1) | (Self::Function, 7) => Message(Self::Node),
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::Sparse, 1 | 2) => Message(Self::Tensor),
            (Self::Graph, 15) | (Self::Attribute, 22) => Message(Self::Sparse),
            (Self::Graph, 11 | 12) => Message(Self::ValueInfo),
            (Self::Node, 5) | (Self::Function, 11) => Message(Self::Attribute),
            (Self::Attribute, 6 | 11) => Message(Self::Graph),
            (Self::Attribute, 14) | (Self::ValueInfo, 2) | (Self::Element, 1) => Message(Self::Type),
            (Self::Type, 1) => Message(Self::TensorType),
            (Self::Type, 4 | 9) => Message(Self::Element),
            (Self::TensorType, 2) => Message(Self::Shape),
            (Self::Shape, 1) => Message(Self::Dimension),
            (Self::Tensor, 13) => Message(Self::Entry),
            (Self::Node, 1 | 2) | (Self::Function, 4..=6) | (Self::Attribute, 9) | (Self::Tensor, 6) => List,
            (Self::Attribute, 7 | 8) | (Self::Tensor, 1 | 4 | 5 | 7 | 10 | 11) | (Self::Sparse, 3) => Numbers,
            _ => Other,
        }
    }
}

/// Bytes of memory that a model file takes when it is read, about, besides those of the file itself: a list may have room for
/// twice its elements. `None` for what is no message.
pub(crate) fn of_file(file: &[u8]) -> Option<u64> {
    of_message(file, Kind::Model, 0)
}

fn of_message(mut message: &[u8], kind: Kind, depth: usize) -> Option<u64> {
    if depth > MAX_DEPTH {
        return None;
    }
    let mut bytes = kind.size() * 2;
    while message.has_remaining() {
        let (tag, wire) = decode_key(&mut message).ok()?;
        let content = match wire {
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut message).ok()?).ok()?;
                let (content, rest) = message.split_at_checked(length)?;
                message = rest;
                Some(content)
            }
            WireType::Varint => decode_varint(&mut message).ok().map(|_| None)?,
            WireType::ThirtyTwoBit => message.split_at_checked(4).map(|(_, rest)| message = rest).map(|()| None)?,
            WireType::SixtyFourBit => message.split_at_checked(8).map(|(_, rest)| message = rest).map(|()| None)?,
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        bytes += match (kind.field(tag), content) {
            (Field::Message(kind), Some(content)) => of_message(content, kind, depth + 1)?,
            (Field::List, Some(content)) => content.len() as u64 + 64,
            (Field::Numbers, Some(content)) => content.len() as u64 * 8,
            (Field::Numbers, None) => 16,
            _ => 0,
        };
    }
    Some(bytes)
}

/// The same of a node.
pub(crate) fn of_node(node: &NodeProto) -> u64 {
    let names = node.input.iter().chain(&node.output).map(|name| 64 + name.len() as u64).sum::<u64>();
    let texts = node.name.len() + node.op_type.len() + node.domain.len();
    let attributes = node.attribute.iter().map(of_attribute).sum::<u64>();
    // Whatever else it holds is there once more.
    Kind::Node.size() * 2 + names + texts as u64 + attributes + node.encoded_len() as u64
}

/// What an operator keeps of an attribute's lists, about: numbers as they are, or in maps.
pub(crate) fn of_lists(attribute: &AttributeProto) -> u64 {
    let numbers = (attribute.floats.len() + attribute.ints.len()) as u64;
    numbers * 24 + attribute.strings.iter().map(|text| 64 + text.len() as u64).sum::<u64>()
}

/// The same of an attribute, with what an operator may make of its lists: maps, say.
pub(crate) fn of_attribute(attribute: &AttributeProto) -> u64 {
    let lists = attribute.floats.len() * 64 + attribute.ints.len() * 64 + attribute.name.len();
    let lists = lists as u64 + attribute.strings.iter().map(|text| 192 + 2 * text.len() as u64).sum::<u64>();
    let tensors = attribute.t.as_deref().into_iter().chain(&attribute.tensors);
    let sparse = attribute.sparse_tensor.iter().flat_map(|sparse| sparse.values.iter().chain(&sparse.indices));
    let tensors = tensors.chain(sparse).map(of_tensor).sum::<u64>();
    let graphs = attribute.g.as_deref().into_iter().chain(&attribute.graphs).map(of_graph).sum::<u64>();
    Kind::Attribute.size() * 2 + lists + tensors + graphs
}

fn of_tensor(tensor: &TensorProto) -> u64 {
    let raw = tensor.raw_data.as_ref().map_or(0, |raw| raw.len());
    let four = tensor.float_data.len() + tensor.int32_data.len();
    let eight = tensor.int64_data.len() + tensor.double_data.len() + tensor.uint64_data.len() + tensor.dims.len();
    let texts = tensor.string_data.iter().map(|text| 64 + text.len()).sum::<usize>();
    // As the elements of an array; those that may be keys in a map, too. (What is raw is shared until then.)
    let raw =
        if matches!(DType::from_onnx(tensor.data_type), Some(DType::Int64 | DType::Float64)) { raw * 4 } else { raw };
    Kind::Tensor.size() * 2 + (raw + 4 * (four * 4 + eight * 8 + texts)) as u64
}

fn of_graph(graph: &GraphProto) -> u64 {
    let values = (graph.input.len() + graph.output.len()) as u64 * (Kind::ValueInfo.size() + Kind::Shape.size());
    let sparse = graph.sparse_initializer.iter().flat_map(|sparse| sparse.values.iter().chain(&sparse.indices));
    let tensors = graph.initializer.iter().chain(sparse).map(of_tensor).sum::<u64>();
    Kind::Graph.size() + values + tensors + graph.node.iter().map(of_node).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_with_what_they_hold() {
        let attribute = AttributeProto { ints: vec![1; 1000], ..Default::default() };
        let node = NodeProto { input: vec!["x".into(); 100], attribute: vec![attribute; 3], ..Default::default() };
        let graph = GraphProto { node: vec![node; 5], ..Default::default() };
        let model = ModelProto { graph: Some(graph.clone()), ..Default::default() };
        let file = model.encode_to_vec();
        // A byte of the file for an integer of eight.
        let sizes =
            2 * (Kind::Model.size() + Kind::Graph.size() + 5 * (Kind::Node.size() + 3 * Kind::Attribute.size()));
        assert_eq!(of_file(&file), Some(sizes + 5 * 100 * 65 + 15 * 8000));
        assert!(of_graph(&graph) > 15 * 8000);
        assert_eq!(of_file(&file[..file.len() - 1]), None);
    }

    #[test]
    fn empty_messages_are_counted_as_what_they_are_in_memory() {
        let many = |tag: u32| [((tag << 3) | 2) as u8, 0].repeat(1000);
        for (kind, tag) in
            [(Kind::Graph, 1), (Kind::Graph, 5), (Kind::Graph, 11), (Kind::Node, 5), (Kind::Attribute, 10)]
        {
            let Field::Message(inner) = kind.field(tag) else { panic!("{kind:?} {tag}") };
            assert_eq!(
                of_message(&many(tag), kind, 0),
                Some(kind.size() * 2 + 1000 * 2 * inner.size()),
                "{kind:?} {tag}"
            );
        }
    }
}
