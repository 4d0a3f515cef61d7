//! `penstock db`: the store of a node that is stopped.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use penstock_chain::{index_logs, verify_blocks};
use penstock_state::{Backend, Report, check_layout, verify_records, verify_state};

use crate::{home::Home, settings::Settings};

/// Check, copy and describe the store of a node that is stopped
#[derive(Debug, Subcommand)]
pub(crate) enum Db {
    /// Check everything: checksums, the state and its history against the roots in the headers, blocks, receipts, indexes
    Verify(Verify),
    /// Rewrite a store of an older layout, or move it to another backend; the old one stays beside the new one
    Migrate(Migrate),
    /// Height, layout, backend, size, and how far back state and blocks go
    Info(Which),
}

/// Which store
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Folder of the store [default: HOME/data/penstock/state; `penstock dev --data DIR` keeps its own in DIR/state]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Args)]
pub(crate) struct Migrate {
    #[command(flatten)]
    which: Which,
    /// The backend to move to: fjall or sled [default: the one that [state] backend names]
    #[arg(long, value_name = "NAME")]
    backend: Option<Backend>,
}

pub(crate) fn run(db: Db, home: Option<&Path>) -> anyhow::Result<()> {
    match db {
        Db::Verify(verify) => self::verify(&verify.which.folder(home)?),
        Db::Migrate(migrate) => self::migrate(&migrate, home),
        Db::Info(which) => info(&which.folder(home)?),
    }
}

impl Which {
    /// Whether it is named, instead of being the home's.
    pub(crate) fn is_named(&self) -> bool {
        self.store.is_some()
    }

    /// The store's folder; it has to be there.
    pub(crate) fn folder(&self, home: Option<&Path>) -> anyhow::Result<PathBuf> {
        let folder = match &self.store {
            Some(folder) => folder.clone(),
            None => {
                Home::new(home.context("no home folder: name one with --home, or the store with --store")?)?.state()
            }
        };
        if Backend::of(&folder).is_none() {
            bail!("there is no store in {}", folder.display());
        }
        Ok(folder)
    }
}

/// Opens a store with the backend that it has.
pub(crate) fn open(folder: &Path) -> anyhow::Result<std::sync::Arc<dyn penstock_state::Store>> {
    let backend = Backend::of(folder).with_context(|| format!("there is no store in {}", folder.display()))?;
    backend.open(folder).with_context(|| format!("cannot open {} (another penstock may be using it)", folder.display()))
}

/// Refuses to begin an empty store in the place of one that a migration was about to put there.
pub(crate) fn refuse_half_migrated(folder: &Path) -> anyhow::Result<()> {
    let old = folder.with_file_name(format!("{}.old", folder.file_name().unwrap_or_default().to_string_lossy()));
    if Backend::of(folder).is_none() && Backend::of(&old).is_some() {
        bail!(
            "{} has no store, and {} has one: a migration was cut short; rename the latter, and migrate again",
            folder.display(),
            old.display()
        );
    }
    Ok(())
}

/// Says on stderr how far something long is, not more than once a second.
pub(crate) fn progress() -> impl FnMut(&str, u64) {
    let mut last = Instant::now();
    move |what, number| {
        if last.elapsed() >= Duration::from_secs(1) {
            last = Instant::now();
            eprintln!("{number} {what} …");
        }
    }
}

fn verify(folder: &Path) -> anyhow::Result<()> {
    let begin = Instant::now();
    let store = open(folder)?;
    if !check_layout(&*store)? {
        bail!("the store is empty, or what state sync left unfinished");
    }
    let mut report = Report::default();
    let mut tell = progress();
    verify_records(&*store, &mut report, &mut tell).context("the records cannot be read")?;
    // What is beyond a wrong record cannot be told from what follows from it.
    if report.is_clean() {
        verify_state(&*store, &mut report, &mut tell)?;
        verify_blocks(&*store, &mut report, &mut tell)?;
    }
    for problem in &report.problems {
        say!("{problem}");
    }
    if report.more > 0 {
        say!("and {} more", report.more);
    }
    let Report { records, accounts, slots, heights, blocks, .. } = report;
    say!(
        "{records} records, {accounts} accounts, {slots} slots, {heights} heights of history, {blocks} blocks, in {:.1?}",
        begin.elapsed()
    );
    if report.is_clean() {
        say!("Nothing is wrong.");
        Ok(())
    } else {
        bail!("the store is damaged: restore a copy of it, or remove it and join again by state sync or block sync")
    }
}

fn migrate(migrate: &Migrate, home: Option<&Path>) -> anyhow::Result<()> {
    let folder = migrate.which.folder(home)?;
    let to = match migrate.backend {
        Some(backend) => backend,
        None => Settings::load(home)?.state.backend,
    };
    let from = Backend::of(&folder);
    let version = open(&folder)?.snapshot().get(&penstock_state::keys::meta("version"))?;
    if from == Some(to) && version.as_deref() == Some(&penstock_state::keys::LAYOUT_VERSION.to_be_bytes()) {
        say!("Nothing to do: the store has the newest layout, and its backend is {to}.");
        return Ok(());
    }
    let beside = |suffix: &str| -> anyhow::Result<PathBuf> {
        let name = folder.file_name().context("the store's folder has no name")?;
        Ok(folder.with_file_name(format!("{}.{suffix}", name.to_string_lossy())))
    };
    let (new, old) = (beside("new")?, beside("old")?);
    if old.exists() {
        bail!(
            "{} is in the way: it is what an earlier migration left; remove it when you do not need it",
            old.display()
        );
    }
    // What an interrupted migration left.
    fs::remove_dir_all(&new).or_else(|error| if new.exists() { Err(error) } else { Ok(()) })?;
    let begin = Instant::now();
    let store = to.open(&new)?;
    let records = penstock_state::migrate(&folder, &*store, &mut index_logs, &mut progress())?;
    drop(store);
    let parent = folder.parent().context("the store's folder has no parent")?;
    for (from, to) in [(&folder, &old), (&new, &folder)] {
        fs::rename(from, to).with_context(|| format!("cannot rename {}", from.display()))?;
        fs::File::open(parent)?.sync_all().with_context(|| format!("cannot sync {}", parent.display()))?;
    }
    say!("{records} records in {:.1?}; backend: {to}. The old store is in {}.", begin.elapsed(), old.display());
    Ok(())
}

fn info(folder: &Path) -> anyhow::Result<()> {
    let store = open(folder)?;
    let snapshot = store.snapshot();
    let version = snapshot.get(&penstock_state::keys::meta("version"))?;
    let version = version.and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
    let number = |name: &str| snapshot.meta_number(name);
    let text = |number: Option<u64>| number.map_or_else(|| "none".to_owned(), |number| number.to_string());
    say!("Folder   {}", folder.display());
    say!("Backend  {}", Backend::of(folder).map_or_else(|| "none".to_owned(), |backend| backend.to_string()));
    say!("Layout   {}", text(version.map(u64::from)));
    // Layout 1 has its numbers without checksums.
    if version == Some(penstock_state::keys::LAYOUT_VERSION) {
        say!("Height   {}", text(number("height")?));
        say!("Blocks   from {}", number("first")?.unwrap_or_default());
        say!("State    from {}", number("history")?.unwrap_or_default());
    }
    say!("Bytes    {}", store.disk_bytes()?);
    Ok(())
}
