//! From the models of a genesis to loaded files.

use std::path::Path;

use anyhow::{Context, bail};
use penstock_chain::GenesisModel;
use penstock_inference::{ModelSource, ModelStore};

use crate::bundled;

/// Loads the models of a genesis. `folder` is where the genesis document is: its `file`s are relative to it.
///
/// # Errors
/// When a file is missing (a chain of one process has nobody else who could run its model), or is not the model that
/// the genesis describes.
pub(crate) fn load(models: &[GenesisModel], folder: Option<&Path>) -> anyhow::Result<ModelStore> {
    let mut store = ModelStore::default();
    for (index, model) in models.iter().enumerate() {
        let place = || format!("genesis: app_state.models[{index}] ({})", model.id);
        let file = folder.zip(model.file.as_ref()).map(|(folder, file)| folder.join(file));
        let source = match (bundled::model(&model.hash), file) {
            (Some(bytes), _) => ModelSource::Embedded(bytes),
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
