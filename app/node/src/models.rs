//! From the models of a genesis to loaded files.

use std::path::Path;

use anyhow::{Context, bail};
use penstock_chain::GenesisModel;
use penstock_inference::{ModelFolder, ModelSource, ModelStore};
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

/// The models that `penstock model add` has put on this machine.
pub(crate) fn folder(home: Option<&Path>) -> ModelFolder {
    ModelFolder::new(home.unwrap_or(Path::new(".penstock")).join("models"))
}

/// Loads the models of a genesis: those that are part of the program, then files beside the genesis document in `folder`,
/// then what `stored` has. At most `budget` bytes of them stay in memory.
///
/// # Errors
/// When a file is missing and `missing` says so, or is not the model that the genesis describes.
pub(crate) fn load(
    models: &[GenesisModel],
    folder: Option<&Path>,
    stored: &ModelFolder,
    budget: u64,
    missing: Missing,
) -> anyhow::Result<ModelStore> {
    let mut store = ModelStore::with_budget(budget);
    for (index, model) in models.iter().enumerate() {
        let place = || format!("genesis: app_state.models[{index}] ({})", model.id);
        let named = folder.zip(model.file.as_ref()).map(|(folder, file)| folder.join(file));
        let file = match stored.path(&model.hash) {
            Some(path) if !named.as_ref().is_some_and(|file| file.exists()) => Some(path),
            _ => named,
        };
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
            (None, None) => bail!(
                "{}: no file is named, it is not a bundled model, and not in HOME/models (`penstock model add` puts it there)",
                place()
            ),
        };
        let loaded = store.load(model.hash, &source).with_context(place)?;
        let descriptor = loaded.descriptor().map_err(Clone::clone).with_context(place)?;
        if *descriptor != model.descriptor() {
            bail!(
                "{}: inputs, outputs or ops differ from the file's; `penstock model inspect` prints the right entry",
                place()
            );
        }
    }
    Ok(store)
}
