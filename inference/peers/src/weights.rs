//! The constants of an ONNX file in the order of their use, for the passes that are written by hand.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use prost::Message;

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, tag = "4")]
    op_type: String,
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
}

const FLOAT: i32 = 1;

pub struct Weight {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

impl Weight {
    /// The transpose of a matrix.
    pub fn transposed(self) -> Self {
        let [rows, columns] = self.shape[..] else { return self };
        let values = (0..columns).flat_map(|j| (0..rows).map(move |i| (i, j)));
        let values = values.map(|(i, j)| self.values[i * columns + j]).collect();
        Self { shape: vec![columns, rows], values }
    }
}

/// The float32 constants that the nodes of the file take.
pub struct Weights(std::vec::IntoIter<Weight>);

impl Weights {
    pub fn load(path: &Path) -> Result<Self> {
        let graph = ModelProto::decode(&*std::fs::read(path)?)?.graph.context("no graph")?;
        let constants: HashMap<_, _> = graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        let mut list = Vec::new();
        for name in graph.node.iter().filter(|node| node.op_type != "Identity").flat_map(|node| &node.input) {
            let Some(tensor) = constants.get(name.as_str()).filter(|tensor| tensor.data_type == FLOAT) else { continue };
            let shape: Vec<usize> = tensor.dims.iter().map(|d| *d as usize).collect();
            let (words, _) = tensor.raw_data.as_chunks();
            let values: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
            ensure!(values.len() == shape.iter().product::<usize>(), "{name} has not its values in raw_data");
            list.push(Weight { shape, values });
        }
        Ok(Self(list.into_iter()))
    }

    /// The next one.
    pub fn take(&mut self) -> Result<Weight> {
        self.0.next().context("too few constants")
    }

    /// Fails if there are more.
    pub fn finish(self) -> Result<()> {
        ensure!(self.0.len() == 0, "{} constants are left", self.0.len());
        Ok(())
    }
}
