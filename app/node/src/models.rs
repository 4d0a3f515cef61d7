//! From the models of a genesis to loaded files.

use std::path::Path;

use anyhow::{Context, bail};
use penstock_chain::GenesisModel;
use penstock_inference::{ModelSource, ModelStore};
use tracing::warn;

use crate::bundled;

/// What to do about a model whose file is not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// A chain of one process has nobody else who could run it.
    Refuse,
    /// A node of a network follows the chain without it, but cannot vouch for its results.
    Follow,
}

/// Loads the models of a genesis. `folder` is where the genesis document is: its `file`s are relative to it.
///
/// # Errors
/// When a file is missing and `missing` says so, or is not the model that the genesis describes.
pub(crate) fn load(models: &[GenesisModel], folder: Option<&Path>, missing: Missing) -> anyhow::Result<ModelStore> {
    let mut store = ModelStore::default();
    for (index, model) in models.iter().enumerate() {
        let place = || format!("genesis: app_state.models[{index}] ({})", model.id);
        let file = folder.zip(model.file.as_ref()).map(|(folder, file)| folder.join(file));
        let source = match (bundled::model(&model.hash), file) {
            (Some(bytes), _) => ModelSource::Embedded(bytes),
            (None, file) if missing == Missing::Follow && !file.as_ref().is_some_and(|file| file.exists()) => {
                warn!(
                    model = model.id,
                    "its file is not here: this node follows the chain, but as a validator it rejects blocks with its results"
                );
                continue;
            }
            (None, Some(file)) if file.exists() => ModelSource::File(file),
            (None, Some(file)) => bail!("{}: the file {} is missing", place(), file.display()),
            (None, None) => bail!("{}: no file is named, and it is not a bundled model", place()),
        };
        let loaded = store.load(model.hash, &source).with_context(place)?;
        if *loaded.descriptor() != model.descriptor() {
            bail!(
                "{}: inputs, outputs or ops differ from the file's; `penstock model inspect` prints the right entry",
                place()
            );
        }
    }
    Ok(store)
}
