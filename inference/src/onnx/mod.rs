//! Reading ONNX files: protobuf, constants, and what a node says of itself.
//!
//! Everything that is wrong with a file is found here or while the model is compiled, before it can
//! be registered: never while a request runs.

pub(crate) mod constants;
mod external;
mod node;
pub mod proto;
pub(crate) mod weight;

use bytes::Bytes;
use prost::Message;

use self::proto::ModelProto;

pub use constants::{read_tensor, write_tensor};
pub use external::pull_in as one_file;
pub(crate) use node::Node;

/// Why a file is not a model that this engine runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// The bytes are no ONNX model, or end too early.
    #[error("not an ONNX model, or a truncated one: {0}")]
    NotOnnx(String),
    /// The file is larger than the loader accepts.
    #[error("the file has {bytes} bytes; at most {limit} are accepted")]
    TooLarge {
        /// Size of the file.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Operators that the engine lacks: all of them at once.
    #[error("unsupported operators: {}{}", .0.join(", "), advice(.0))]
    UnsupportedOperators(Vec<String>),
    /// A node uses a supported operator in an unsupported way, or wrongly.
    #[error("node {node}: {reason}")]
    Node {
        /// Index, operator and name of the node.
        node: String,
        /// What is wrong.
        reason: String,
    },
    /// An input, output or initializer cannot be used.
    #[error("{what} `{name}`: {reason}")]
    Value {
        /// Input, output or initializer.
        what: &'static str,
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The graph as a whole cannot be used.
    #[error("{0}")]
    Graph(String),
}

/// Memory that what is in a file may take besides eight times its size.
const MAX_MESSAGE_BYTES: u64 = 256 << 20;

/// Reads a file's messages, unless they take far more memory than it.
///
/// # Errors
/// [`ModelError`] for what is no model, or too large.
pub(crate) fn decode(file: Bytes) -> Result<ModelProto, ModelError> {
    let bytes = file.len() as u64;
    let weight = weight::of_file(&file).ok_or_else(|| ModelError::NotOnnx("it is no protobuf".into()))?;
    let limit = MAX_MESSAGE_BYTES.saturating_add(bytes.saturating_mul(8));
    if weight > limit {
        return Err(ModelError::Graph(format!("its messages take {weight} bytes; at most {limit} are allowed")));
    }
    ModelProto::decode(file).map_err(|error| ModelError::NotOnnx(error.to_string()))
}

/// What to do about operators that onnxruntime writes for itself.
fn advice(missing: &[String]) -> &'static str {
    match missing.iter().any(|name| name.starts_with("com.microsoft.")) {
        true => {
            " (those of com.microsoft are onnxruntime's own: export without its graph optimisations, and quantise with \
             QuantFormat.QDQ)"
        }
        false => "",
    }
}

impl ModelError {
    pub(crate) fn value(what: &'static str, name: &str, reason: impl Into<String>) -> Self {
        Self::Value { what, name: name.to_owned(), reason: reason.into() }
    }
}
