//! A whole chain in this process, with its own driver in the place of CometBFT: what `dev` and `bench` run.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, anyhow};
use penstock_abci::{BlockLog, Driver, Genesis};
use penstock_chain::{Chain, ChainConfig, GenesisDoc, Gossip};
use penstock_inference::InferenceNetwork;
use penstock_rpc::RpcServer;
use tokio::sync::oneshot;
use tracing::error;

use crate::{commands::db::refuse_half_migrated, settings::Settings};

/// CometBFT's default `block.max_bytes` of v0.38.
const MAX_TX_BYTES: i64 = 21 << 20;

/// Address of the one validator: a chain of one needs no keys.
const VALIDATOR: [u8; 20] = *b"penstock dev validtr";

/// What a chain is made of.
pub(crate) struct Parts<'a> {
    pub(crate) genesis: &'a GenesisDoc,
    pub(crate) network: Arc<InferenceNetwork>,
    /// Folder of its data.
    pub(crate) data: &'a Path,
    pub(crate) settings: &'a Settings,
    /// Time between blocks; zero: a block as soon as a transaction or a task is ready.
    pub(crate) block_time: Duration,
}

/// A running chain.
pub(crate) struct Embedded {
    pub(crate) chain: Arc<Chain>,
    /// Where JSON-RPC listens.
    pub(crate) address: SocketAddr,
    /// Height that it started from.
    pub(crate) first_height: u64,
    server: RpcServer,
    stop: Arc<AtomicBool>,
    producer: JoinHandle<()>,
    failed: oneshot::Receiver<anyhow::Error>,
}

impl Parts<'_> {
    /// Starts it on the current tokio runtime.
    pub(crate) async fn start(self) -> anyhow::Result<Embedded> {
        let Self { genesis, network, data, settings, block_time } = self;
        let folder = data.join("state");
        refuse_half_migrated(&folder)?;
        let store = settings
            .state
            .backend
            .open(&folder)
            .with_context(|| format!("cannot open {} (another penstock may be using it)", folder.display()))?;
        let chain = Arc::new(Chain::open(
            store,
            genesis.genesis.clone(),
            &genesis.app_state,
            network,
            // Alone there is nobody to tell.
            ChainConfig { gossip: Gossip::None, ..settings.chain_config() },
        )?);
        let log = BlockLog::open(&data.join("blocks.log"))?;
        let driver_genesis =
            Genesis { chain_id: genesis.chain_id.clone(), time: genesis.time, app_state: genesis.app_state.clone().0 };
        let mut driver = Driver::start(chain.clone(), log, &driver_genesis, VALIDATOR.to_vec(), MAX_TX_BYTES)?;
        let first_height = driver.height();
        let server = penstock_rpc::serve(chain.clone(), settings.rpc.clone())
            .await
            .context("choose another address with --rpc-listen")?;
        let stop = Arc::new(AtomicBool::new(false));
        let (fail, failed) = oneshot::channel();
        let producer = {
            let (chain, stop) = (chain.clone(), stop.clone());
            thread::Builder::new().name("driver".into()).spawn(move || {
                if let Err(error) = produce(&chain, &mut driver, block_time, &stop) {
                    error!(error = format!("{error:#}"), "consensus stopped");
                    // The receiver is gone when the process is stopping anyway.
                    let _ = fail.send(error);
                }
            })?
        };
        Ok(Embedded { chain, address: server.address, first_height, server, stop, producer, failed })
    }
}

impl Embedded {
    /// Waits until the driver fails.
    pub(crate) async fn failure(&mut self) -> anyhow::Error {
        (&mut self.failed).await.unwrap_or_else(|_| anyhow!("the driver thread ended"))
    }

    /// Ends it: open requests are answered, the block that is being made is committed.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.server.stop().await;
        let joined = tokio::task::spawn_blocking(move || self.producer.join()).await?;
        joined.map_err(|_| anyhow!("the driver thread panicked"))
    }
}

fn produce(chain: &Chain, driver: &mut Driver<Chain>, block_time: Duration, stop: &AtomicBool) -> anyhow::Result<()> {
    /// How often a waiting driver looks whether it has to stop.
    const GLANCE: Duration = Duration::from_millis(50);
    let mut next = Instant::now() + block_time;
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut last_task = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        if block_time.is_zero() {
            // A task's time has whole seconds: more often than once a second none is due again.
            let task = || last_task.elapsed() >= Duration::from_secs(1) && chain.has_ready_task(now());
            if !chain.pool()?.wait_ready(Instant::now() + GLANCE) {
                if !task() {
                    continue;
                }
                last_task = Instant::now();
            }
        } else {
            let left = next.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                thread::sleep(left.min(GLANCE));
                continue;
            }
            // Kept to the grid, without catching up after a pause.
            next = (next + block_time).max(Instant::now());
        }
        driver.produce()?;
    }
    Ok(())
}
