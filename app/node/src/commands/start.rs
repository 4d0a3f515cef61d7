//! `penstock start`: the application of a network's node, for a CometBFT that runs already or is started here.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Instant,
};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use penstock_abci::{Address, Fatal, Server};
use penstock_chain::{Chain, GenesisDoc, Gossip, SnapshotConfig};
use penstock_inference::{InferenceNetwork, ModelStore};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{StopSignal, db::refuse_half_migrated, serving_runtime};
use crate::{
    cometbft::{
        handover::Handover,
        supervisor::{self, Supervisor},
    },
    home::Home,
    metrics::{self, MetricsServer},
    models,
    settings::Settings,
};

/// Run a node: the application behind CometBFT, JSON-RPC, metrics
#[derive(Debug, Args)]
pub(crate) struct Start {
    /// Where CometBFT connects, as unix:///path or tcp://127.0.0.1:26658 [default: unix://HOME/data/abci.sock]
    #[arg(long, value_name = "ADDRESS")]
    abci: Option<Address>,
    /// Start this CometBFT, too, keep it running, and stop it at the end
    #[arg(long, value_name = "PROGRAM")]
    with_cometbft: Option<PathBuf>,
    /// IP address and port of JSON-RPC over HTTP and WebSocket
    #[arg(long, value_name = "ADDRESS")]
    rpc_listen: Option<SocketAddr>,
    /// Load no model: the node follows the chain by the results in its blocks
    #[arg(long)]
    no_models: bool,
    /// IP address and port of the metrics
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,
}

pub(crate) fn run(start: Start, home: Option<&Path>) -> anyhow::Result<()> {
    let started = Instant::now();
    let home = Home::new(home.context("no home folder: name one with --home")?)?;
    if !home.genesis().exists() {
        bail!(
            "{} is missing: `penstock init --home {}` writes a home",
            home.genesis().display(),
            home.root().display()
        );
    }
    let mut settings = Settings::load(Some(home.root()))?;
    settings.rpc.listen = start.rpc_listen.unwrap_or(settings.rpc.listen);
    settings.metrics.listen = start.metrics_listen.unwrap_or(settings.metrics.listen);
    let abci = match (start.abci, settings.abci.listen.as_str()) {
        (Some(address), _) => address,
        (None, "") => home.socket()?,
        (None, text) => text.parse().map_err(|why: String| anyhow!("[abci] listen: {why}"))?,
    };
    if let Some(program) = &start.with_cometbft {
        let version = supervisor::version_of(program)?;
        if settings.cometbft.mempool != version.gossip() {
            bail!(
                "{} needs mempool.type and [cometbft] mempool \"{}\", but this home was written for another version \
                 (change both, in config.toml and penstock.toml)",
                program.display(),
                if version.gossip() == Gossip::App { "app" } else { "flood" }
            );
        }
    }
    let document =
        std::fs::read(home.genesis()).with_context(|| format!("cannot read {}", home.genesis().display()))?;
    let document = GenesisDoc::parse(&document).with_context(|| home.genesis().display().to_string())?;

    let handle = metrics::install()?;
    let models = if start.no_models {
        warn!("no models are loaded: this node follows the chain, but as a validator it rejects blocks with results");
        ModelStore::default()
    } else {
        let stored = models::folder(Some(home.root()));
        let budget = settings.inference.model_bytes;
        models::load(&document.genesis.models, Some(&home.config()), &stored, budget, models::Missing::Follow)?
    };
    let network =
        Arc::new(InferenceNetwork::start(models, settings.inference).context("cannot start inference threads")?);
    std::fs::create_dir_all(home.state()).with_context(|| format!("cannot make {}", home.state().display()))?;
    refuse_half_migrated(&home.state())?;
    let store = settings
        .state
        .backend
        .open(&home.state())
        .with_context(|| format!("cannot open {} (another penstock may be using it)", home.state().display()))?;
    let mut config = settings.chain_config();
    config.snapshots = SnapshotConfig { folder: Some(home.snapshots()), ..config.snapshots };
    let chain = Arc::new(Chain::open(store, document.genesis.clone(), &document.app_state, network, config)?);

    let runtime = serving_runtime()?;
    runtime.block_on(async {
        let stop = StopSignal::listen()?;
        let rpc = penstock_rpc::serve(chain.clone(), settings.rpc.clone())
            .await
            .context("choose another address with --rpc-listen")?;
        let metrics = MetricsServer::start(settings.metrics.listen, handle, chain.clone()).await?;
        let (server, fatals) = Server::start(chain.clone(), &abci)?;
        let (failed, fatal) = oneshot::channel::<Fatal>();
        thread::Builder::new().name("abci-fatal".into()).spawn(move || {
            // Both ends may be gone when the process is stopping anyway.
            fatals.recv().map(|fatal| failed.send(fatal)).ok();
        })?;
        let handover = (settings.cometbft.mempool == Gossip::Flood)
            .then(|| Handover::start(chain.clone(), settings.cometbft.rpc.clone()))
            .transpose()?;
        let (supervisor, gave_up) = match start.with_cometbft {
            Some(program) => {
                let (supervisor, gave_up) = Supervisor::start(program, &home, server.address())?;
                (Some(supervisor), Some(gave_up))
            }
            None => (None, None),
        };
        info!(height = chain.height(), took = ?started.elapsed(), "ready");
        let result = tokio::select! {
            name = stop.received() => {
                info!(signal = name, "stopping");
                Ok(())
            }
            Ok(fatal) = fatal => Err(anyhow!("the application cannot go on: {fatal}")),
            Some(error) = gives_up(gave_up) => Err(error),
        };
        // CometBFT first: it must not lose the application in the middle of a block.
        let stopped = tokio::task::spawn_blocking(move || {
            if let Some(supervisor) = supervisor {
                supervisor.stop();
            }
            if let Some(handover) = handover {
                handover.stop();
            }
            server.stop();
        });
        if let Err(error) = stopped.await {
            warn!(%error, "the stop was not clean");
        }
        metrics.stop();
        rpc.stop().await;
        result
    })
}

/// Waits until the supervision gives up; for ever without one.
async fn gives_up(receiver: Option<oneshot::Receiver<anyhow::Error>>) -> Option<anyhow::Error> {
    match receiver {
        Some(receiver) => receiver.await.ok(),
        None => core::future::pending().await,
    }
}
