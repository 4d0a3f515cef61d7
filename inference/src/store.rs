//! The models of this machine, by content hash.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use crate::{ContentHash, Model, ModelError};

/// Where a model's file comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// Bytes that are part of the program.
    Embedded(&'static [u8]),
    /// A file.
    File(PathBuf),
}

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be read.
    #[error("cannot read {path}: {reason}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
    /// The file's bytes are not those that its hash names.
    #[error("the file has content hash {found}, not {expected}")]
    WrongContent {
        /// The hash that was asked for.
        expected: ContentHash,
        /// The hash of the file.
        found: ContentHash,
    },
    /// The file is no model that the engine runs.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// Loaded models.
#[derive(Debug, Default)]
pub struct ModelStore {
    models: HashMap<ContentHash, Arc<Model>>,
}

impl ModelStore {
    /// Loads a model and verifies that it is the one that `expected` names.
    ///
    /// # Errors
    /// [`StoreError`]; the store is unchanged.
    pub fn load(&mut self, expected: ContentHash, source: &ModelSource) -> Result<Arc<Model>, StoreError> {
        if let Some(model) = self.models.get(&expected) {
            return Ok(model.clone());
        }
        let bytes: bytes::Bytes = match source {
            ModelSource::Embedded(bytes) => (*bytes).into(),
            ModelSource::File(path) => {
                std::fs::read(path).map_err(|reason| StoreError::Read { path: path.clone(), reason })?.into()
            }
        };
        let found = ContentHash::of(&bytes);
        if found != expected {
            return Err(StoreError::WrongContent { expected, found });
        }
        let model = Arc::new(Model::load(bytes)?);
        self.models.insert(expected, model.clone());
        Ok(model)
    }

    /// A loaded model.
    pub fn get(&self, hash: &ContentHash) -> Option<&Arc<Model>> {
        self.models.get(hash)
    }
}
