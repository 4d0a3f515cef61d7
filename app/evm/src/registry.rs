//! The models that contracts may call, as committed in the chain's state.

use std::{collections::HashMap, sync::Arc};

use penstock_inference::{ContentHash, ModelDescriptor};
use serde::{Deserialize, Serialize};

/// How validators verify a model's results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Every validator's own bit-exact run gives the same output.
    Replicated,
}

/// A model with all that is needed to check, price and verify requests without its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredModel {
    /// The name that contracts use.
    pub id: String,
    /// Other names for it (IPFS CID).
    pub aliases: Vec<String>,
    /// SHA-256 of the file; as hex it is a name for the model, too.
    pub hash: ContentHash,
    /// How results are verified.
    pub policy: Policy,
    /// Inactive models answer `ModelNotActive()`.
    pub active: bool,
    /// Inputs, outputs, cost.
    pub descriptor: ModelDescriptor,
}

/// A name that stands for two models.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the model name `{0}` is used twice (a file, too, can be registered only once: its hash and CID are names)")]
pub struct RegistryError(pub String);

/// All models by every name.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    models: Vec<Arc<RegisteredModel>>,
    names: HashMap<String, usize>,
    hashes: HashMap<ContentHash, usize>,
}

impl Registry {
    /// A registry of `models`, in their order.
    ///
    /// # Errors
    /// [`RegistryError`] when a name or a file is there twice.
    pub fn new(models: Vec<RegisteredModel>) -> Result<Self, RegistryError> {
        let mut registry = Self::default();
        for (index, model) in models.into_iter().enumerate() {
            let names = model.aliases.iter().cloned().chain([model.id.clone(), model.hash.to_string()]);
            for name in names {
                if registry.names.insert(name.clone(), index).is_some() {
                    return Err(RegistryError(name));
                }
            }
            registry.hashes.insert(model.hash, index);
            registry.models.push(Arc::new(model));
        }
        Ok(registry)
    }

    /// The model of a name: its id, an alias, or its content hash in hex.
    pub fn by_name(&self, name: &str) -> Option<&Arc<RegisteredModel>> {
        self.models.get(*self.names.get(name)?)
    }

    /// The model of a file.
    pub fn by_hash(&self, hash: &ContentHash) -> Option<&Arc<RegisteredModel>> {
        self.models.get(*self.hashes.get(hash)?)
    }

    /// All models, in the order of the genesis.
    pub fn models(&self) -> &[Arc<RegisteredModel>] {
        &self.models
    }
}
