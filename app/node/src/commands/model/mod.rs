//! `penstock model`: the models of this machine, what they are and cost, and runs as the chain does them.

mod inspect;
mod run;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use clap::Subcommand;
use penstock_inference::{Model as Loaded, ModelFolder, StoreError};

pub(super) use run::output;

/// Keep, look at and run ONNX models.
#[derive(Debug, Subcommand)]
pub(crate) enum Model {
    /// Check a model and copy it into HOME/models, where this machine's nodes find it by its hash
    ///
    /// A model whose weights are in other files (external data) is stored as one file.
    Add {
        /// The ONNX file
        file: PathBuf,
        /// Another name for it (a blob id, say); may be given several times
        #[arg(long, value_name = "NAME")]
        name: Vec<String>,
    },
    /// List the models of HOME/models
    List,
    /// Print the content ids, inputs, outputs, and the cost of a model by operator
    Inspect {
        /// An ONNX file, or a hash, CID or name of HOME/models
        model: String,
        /// Sizes of open dimensions for the cost, like batch=4,seq=128
        #[arg(long, value_name = "SIZES", value_delimiter = ',')]
        sizes: Vec<String>,
        /// Print the entry for `app_state.models` of a genesis, under this name
        #[arg(long, value_name = "NAME")]
        genesis_entry: Option<String>,
    },
    /// Run a model on this machine: the bits that the chain gives
    ///
    /// The input is JSON: {"inputs": {"NAME": {"shape": [1, 2], "values": [1.5, 2]}}}.
    /// Values are in the order of the elements, the last dimension first. Numbers are taken as exact
    /// decimals and rounded once, as the chain does: there is no NaN and no infinity.
    /// A model that no chain can register runs as well, without a request id.
    #[command(verbatim_doc_comment)]
    Run {
        /// An ONNX file, or a hash, CID or name of HOME/models
        model: String,
        /// The input file; - for standard input
        #[arg(default_value = "-")]
        input: PathBuf,
    },
    /// Remove a model from HOME/models
    Remove {
        /// Its hash, CID or name
        model: String,
    },
}

pub(crate) fn run(command: Model, folder: &ModelFolder) -> anyhow::Result<()> {
    match command {
        Model::Add { file, name } => add(folder, &file, &name),
        Model::List => list(folder),
        Model::Inspect { model, sizes, genesis_entry } => {
            inspect::inspect(&load(folder, &model)?, &sizes, genesis_entry)
        }
        Model::Run { model, input } => run::run(&load(folder, &model)?.model, &input),
        Model::Remove { model } => {
            say!("removed {}", folder.remove(&model)?.hash);
            Ok(())
        }
    }
}

/// A model, and the file that it was read from.
struct Found {
    model: Arc<Loaded>,
    path: PathBuf,
}

/// What a path or a name of the folder means; a file that exists comes first.
fn load(folder: &ModelFolder, model: &str) -> anyhow::Result<Found> {
    let path = Path::new(model);
    if path.exists() {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let loaded = Loaded::load_in(bytes, parent(path)).with_context(|| path.display().to_string())?;
        return Ok(Found { model: Arc::new(loaded), path: path.to_owned() });
    }
    let loaded = folder.load(model).with_context(|| format!("no file `{model}`, and in HOME/models"))?;
    let path = folder.path(&loaded.hash()).context("its file has gone")?;
    Ok(Found { model: loaded, path })
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn add(folder: &ModelFolder, file: &Path, names: &[String]) -> anyhow::Result<()> {
    let (stored, model) = folder.add(file, names).map_err(|error| match error {
        // Of the file, and nothing that says so.
        StoreError::Model(error) => anyhow::Error::new(error).context(file.display().to_string()),
        error => error.into(),
    })?;
    say!("{}  {} bytes", stored.hash, stored.bytes);
    stored.names.iter().for_each(|name| say!("  {name}"));
    match model.descriptor() {
        Ok(descriptor) => say!("ops: {}", descriptor.ops),
        Err(error) => say!("{NOT_FOR_CHAINS} {error}"),
    }
    Ok(())
}

/// Before the reason.
const NOT_FOR_CHAINS: &str = "No chain can register it (`penstock model run` takes it all the same):";

fn list(folder: &ModelFolder) -> anyhow::Result<()> {
    let models = folder.list()?;
    if models.is_empty() {
        say!("No models here yet: `penstock model add FILE.onnx` adds one.");
    }
    for stored in models {
        let gone = if folder.path(&stored.hash).is_none() { "  (its file has gone)" } else { "" };
        say!("{}  {:>12} bytes  {}{gone}", stored.hash, stored.bytes, stored.names.join("  "));
    }
    Ok(())
}
