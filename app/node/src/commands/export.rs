//! `penstock export`: a state as the genesis document of a new chain.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, bail};
use clap::Args;
use penstock_state::{View, check_layout};

use super::db::{Which, open};
use crate::{bundled, home::Home};

/// Write the state of a stopped node as a genesis document
///
/// A chain that begins with it (`penstock dev --genesis FILE`; for a network, FILE in place of every node's
/// config/genesis.json before its first start) has the same state root.
#[derive(Debug, Args)]
pub(crate) struct Export {
    #[command(flatten)]
    which: Which,
    /// Height of the state [default: the newest]
    #[arg(long, value_name = "N")]
    height: Option<u64>,
    /// The chain's own genesis document, for models, limits and the rest [default: HOME/config/genesis.json, and for
    /// --store the bundled one]
    #[arg(long, value_name = "FILE")]
    genesis: Option<PathBuf>,
    /// Where to write it [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(export: Export, home: Option<&Path>) -> anyhow::Result<()> {
    let begin = Instant::now();
    let folder = export.which.folder(home)?;
    let own = home.map(Home::new).transpose()?.map(|home| home.genesis()).filter(|file| file.exists());
    let document = match export.genesis.or_else(|| own.filter(|_| !export.which.is_named())) {
        Some(file) => std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?,
        None => bundled::GENESIS.to_vec(),
    };
    let document = serde_json::from_slice(&document).context("the chain's genesis document")?;
    let store = open(&folder)?;
    if !check_layout(&*store)? {
        bail!("the store is empty, or what state sync left unfinished");
    }
    let Some(view) = View::open(&*store, export.height)? else {
        let first = store.snapshot().meta_number("history")?.unwrap_or_default();
        bail!(
            "the state of that height is not kept: the first one here is {first}, and [state] archive = true keeps all"
        );
    };
    let exported = match &export.output {
        Some(path) => {
            let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
            let mut out = BufWriter::new(file);
            let exported = penstock_chain::export(&view, &document, &mut out)?;
            out.flush()?;
            exported
        }
        None => penstock_chain::export(&view, &document, &mut BufWriter::new(io::stdout().lock()))?,
    };
    eprintln!(
        "height {}, state root {}, {} accounts, {} slots, in {:.1?}",
        exported.height,
        exported.state_root,
        exported.accounts,
        exported.slots,
        begin.elapsed()
    );
    Ok(())
}
