//! External data: constants in files beside the model's. A model that is used is always one file: they are pulled in.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Component, Path},
};

use prost::Message;

use super::{
    ModelError,
    constants::{read_dtype, read_shape},
    decode,
    proto::{AttributeProto, GraphProto, TensorProto},
};
use crate::DType;

/// Bytes that are read from other files for one model.
const MAX_EXTERNAL_BYTES: u64 = 8 << 30;
/// Graphs within graphs.
const MAX_DEPTH: usize = 32;

/// The model with all its constants in one file. A file without external data is returned as it is, byte for byte.
///
/// # Errors
/// [`ModelError`] when data cannot be read, or lies outside `folder`.
pub fn pull_in(file: bytes::Bytes, folder: &Path) -> Result<bytes::Bytes, ModelError> {
    let mut model = decode(file.clone())?;
    let mut reader = Reader { folder, left: MAX_EXTERNAL_BYTES, found: false };
    if let Some(graph) = &mut model.graph {
        reader.graph(graph, 0)?;
    }
    for function in &mut model.functions {
        for node in &mut function.node {
            reader.attributes(&mut node.attribute, 0)?;
        }
    }
    Ok(if reader.found { model.encode_to_vec().into() } else { file })
}

struct Reader<'a> {
    folder: &'a Path,
    left: u64,
    found: bool,
}

impl Reader<'_> {
    fn graph(&mut self, graph: &mut GraphProto, depth: usize) -> Result<(), ModelError> {
        if depth > MAX_DEPTH {
            return Err(ModelError::Graph(format!("graphs are nested more than {MAX_DEPTH} deep")));
        }
        for tensor in &mut graph.initializer {
            self.tensor(tensor)?;
        }
        for node in &mut graph.node {
            self.attributes(&mut node.attribute, depth)?;
        }
        Ok(())
    }

    fn attributes(&mut self, attributes: &mut [AttributeProto], depth: usize) -> Result<(), ModelError> {
        for attribute in attributes {
            if let Some(tensor) = &mut attribute.t {
                self.tensor(tensor)?;
            }
            for tensor in &mut attribute.tensors {
                self.tensor(tensor)?;
            }
            if let Some(graph) = &mut attribute.g {
                self.graph(graph, depth + 1)?;
            }
            for graph in &mut attribute.graphs {
                self.graph(graph, depth + 1)?;
            }
        }
        Ok(())
    }

    fn tensor(&mut self, tensor: &mut TensorProto) -> Result<(), ModelError> {
        if tensor.data_location != Some(1) {
            return Ok(());
        }
        self.found = true;
        let error = |reason: String| ModelError::value("initializer", &tensor.name, reason);
        let bytes = self.read(tensor).map_err(error)?;
        tensor.raw_data = Some(bytes.into());
        tensor.data_location = None;
        tensor.external_data.clear();
        Ok(())
    }

    fn read(&mut self, tensor: &TensorProto) -> Result<Vec<u8>, String> {
        let entry = |key: &str| tensor.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
        let number = |key: &str| {
            entry(key)
                .map(|text| text.parse::<u64>().map_err(|_| format!("its {key} `{text}` is no number")))
                .transpose()
        };
        let location = entry("location").ok_or("it names no file for its data")?;
        let relative = Path::new(location);
        if relative.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(format!("its data file `{location}` is not in the model's folder"));
        }
        let io = |error: std::io::Error| format!("its data file `{location}`: {error}");
        let folder = self.folder.canonicalize().map_err(io)?;
        // A link that leads out of the folder is as bad as a path that does.
        let path = folder.join(relative).canonicalize().map_err(io)?;
        if !path.starts_with(&folder) {
            return Err(format!("its data file `{location}` is not in the model's folder"));
        }
        // Before it is opened: a pipe would wait for a writer.
        let metadata = path.metadata().map_err(io)?;
        if !metadata.is_file() {
            return Err(format!("its data file `{location}` is not a file"));
        }
        let mut file = File::open(path).map_err(io)?;
        let offset = number("offset")?.unwrap_or(0);
        let available =
            metadata.len().checked_sub(offset).ok_or_else(|| format!("`{location}` ends before its data"))?;
        let dtype = read_dtype(tensor.data_type)?;
        let (shape, count) = read_shape(&tensor.dims)?;
        let whole = count as u64 * dtype.size() as u64;
        let length = number("length")?.unwrap_or(whole);
        if length > available {
            return Err(format!("`{location}` ends before its data"));
        }
        if length != whole || dtype == DType::String {
            return Err(format!("shape {shape:?} does not fit the {length} bytes of its data"));
        }
        self.left = self
            .left
            .checked_sub(length)
            .ok_or_else(|| format!("the model has more than {MAX_EXTERNAL_BYTES} bytes of external data"))?;
        file.seek(SeekFrom::Start(offset)).map_err(io)?;
        let mut bytes = Vec::new();
        file.take(length).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 != length {
            return Err(format!("`{location}` ends before its data"));
        }
        Ok(bytes)
    }
}
