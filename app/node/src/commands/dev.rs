//! `penstock dev`: a whole chain in one process.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use alloy_primitives::{Address, U256, address, utils::format_ether};
use anyhow::{Context, anyhow};
use clap::Args;
use penstock_chain::{Chain, GenesisDoc};
use penstock_inference::{InferenceNetwork, Sizes};
use tracing::info;

use super::{StopSignal, serving_runtime};
use crate::{
    bundled, embedded,
    metrics::{self, MetricsServer},
    models,
    settings::Settings,
};

/// Accounts and keys of the well-known test mnemonic, the same as anvil's and hardhat's.
const MNEMONIC: &str = "test test test test test test test test test test test junk";
pub(crate) const ACCOUNTS: [(Address, &str); 10] = [
    (
        address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266"),
        "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    ),
    (
        address!("70997970C51812dc3A010C7d01b50e0d17dc79C8"),
        "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
    ),
    (
        address!("3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"),
        "5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
    ),
    (
        address!("90F79bf6EB2c4f870365E785982E1f101E93b906"),
        "7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6",
    ),
    (
        address!("15d34AAf54267DB7D7c367839AAf71A00a2C6A65"),
        "47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a",
    ),
    (
        address!("9965507D1a55bcC2695C58ba16FB37d819B0A4dc"),
        "8b3a350cf5c34c9194ca85829a2df0ec3153be0318b5e2d3348e872092edffba",
    ),
    (
        address!("976EA74026E726554dB657fA54763abd0C3a0aa9"),
        "92db14e403b83dfe3df233f83dfa3a0d7096f21ca9b0d6d6b8d88b2b4ec1564e",
    ),
    (
        address!("14dC79964da2C08b23698B3D3cc7Ca32193d9955"),
        "4bbbf85ce3377467afe5d46f804f221813b2bb87f24d81f60f1fcdbf7cbf4356",
    ),
    (
        address!("23618e81E3f5cdF7f54C3d65f7FBc0aBf5B21E8f"),
        "dbda1821b80551c9d65939329250298aa3472ba22feea921c0cf5d620ea67b97",
    ),
    (
        address!("a0Ee7A142d267C1f36714E4a8F75612F20a79720"),
        "2a871d0798f97d79848a013d4936a73bf4cc922c825d33c1cf7073dff6d409c6",
    ),
];

/// A time as people write it: `1s`, `300ms`; `0` is zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockTime(pub(crate) Duration);

impl FromStr for BlockTime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        humantime::parse_duration(text).map(Self).map_err(|error| format!("{error} (for example 1s or 300ms)"))
    }
}

/// Run a whole chain in this process: consensus, models, JSON-RPC, funded accounts.
#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// Time between blocks; 0: a block as soon as a transaction is ready
    #[arg(long, default_value = "1s", value_name = "TIME")]
    block_time: BlockTime,
    /// Folder that keeps the chain [default: a temporary one, gone at the end]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Genesis document [default: the bundled one, with the bundled models]
    #[arg(long, value_name = "FILE")]
    genesis: Option<PathBuf>,
    /// IP address and port of JSON-RPC over HTTP and WebSocket; port 0 takes a free one [default: 127.0.0.1:8545]
    #[arg(long, value_name = "ADDRESS")]
    rpc_listen: Option<SocketAddr>,
    /// IP address and port of the metrics [default: none are served]
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,
    /// Print neither accounts nor models
    #[arg(long)]
    quiet: bool,
}

pub(crate) fn run(dev: Dev, home: Option<&Path>) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut settings = Settings::load(home)?;
    if let Some(listen) = dev.rpc_listen {
        settings.rpc.listen = listen;
    }
    // Alone there is nobody to wait for: a result may be proposed at once.
    settings.pool.ripeness = 0.0;
    let handle = dev.metrics_listen.map(|listen| Ok::<_, anyhow::Error>((listen, metrics::install()?))).transpose()?;
    let genesis = read_genesis(dev.genesis.as_deref())?;
    let folder = dev.genesis.as_deref().and_then(Path::parent);
    let stored = models::folder(home);
    let budget = settings.inference.model_bytes;
    let models = models::load(&genesis.genesis.models, folder, &stored, budget, models::Missing::Refuse)?;
    let network =
        Arc::new(InferenceNetwork::start(models, settings.inference).context("cannot start inference threads")?);

    let temporary = match &dev.data {
        Some(data) => {
            fs::create_dir_all(data).with_context(|| format!("cannot make the folder {}", data.display()))?;
            None
        }
        None => {
            let temporary = tempfile::Builder::new().prefix("penstock-dev-").tempdir();
            Some(temporary.context("cannot make a temporary folder")?)
        }
    };
    let data = match (&dev.data, &temporary) {
        (Some(data), _) => data.as_path(),
        (None, Some(temporary)) => temporary.path(),
        (None, None) => return Err(anyhow!("no data folder")),
    };
    let runtime = serving_runtime()?;
    runtime.block_on(async {
        let stop = StopSignal::listen()?;
        let chain =
            embedded::Parts { genesis: &genesis, network, data, settings: &settings, block_time: dev.block_time.0 };
        let mut chain = chain.start().await?;
        // Ends with the process.
        let _metrics = match handle {
            Some((listen, handle)) => Some(MetricsServer::start(listen, handle, chain.chain.clone()).await?),
            None => None,
        };
        if !dev.quiet {
            print_banner(&chain.chain, &genesis, chain.address, &dev)?;
        }
        info!(height = chain.first_height, took = ?started.elapsed(), "ready");
        let result = tokio::select! {
            name = stop.received() => {
                info!(signal = name, "stopping");
                Ok(())
            }
            failure = chain.failure() => Err(failure),
        };
        chain.stop().await?;
        result
    })
}

pub(crate) fn read_genesis(path: Option<&Path>) -> anyhow::Result<GenesisDoc> {
    match path {
        None => Ok(GenesisDoc::parse(bundled::GENESIS)?),
        Some(path) => {
            let json = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            GenesisDoc::parse(&json).with_context(|| path.display().to_string())
        }
    }
}

fn print_banner(chain: &Chain, genesis: &GenesisDoc, address: SocketAddr, dev: &Dev) -> anyhow::Result<()> {
    let head = chain.head()?;
    say!("\nPenstock {}\n", env!("CARGO_PKG_VERSION"));
    say!("Accounts");
    let mut keys = Vec::new();
    for (index, (account, key)) in ACCOUNTS.iter().enumerate() {
        if genesis.genesis.alloc.contains_key(account) {
            let balance = head.account(*account)?.balance;
            say!("({index}) {account} ({} PEN)", whole(balance));
            keys.push((index, key));
        }
    }
    say!("\nPrivate keys (known to everybody: never use them on a network that matters)");
    keys.iter().for_each(|(index, key)| say!("({index}) 0x{key}"));
    say!("\nMnemonic      {MNEMONIC}");
    say!("Chain id      {}", chain.rules().chain_id);
    say!("Gas limit     {}", chain.rules().block_gas_limit);
    say!("Base fee      {} wei in the next block", head.next_base_fee());
    say!("Genesis hash  {}", chain.header(0)?.map(|(_, hash)| hash.to_string()).unwrap_or_default());
    say!("\nModels");
    for model in chain.rules().registry.models() {
        let available = if chain.network().has_model(&model.hash) { "" } else { "  (no file here)" };
        say!("{:<24} {}  {} ops{available}", model.id, model.hash, model.descriptor.ops.of(&Sizes::default()));
    }
    let data = dev.data.as_ref().map_or("a temporary folder".to_owned(), |data| data.display().to_string());
    say!("\nData          {data}");
    say!("Listening on  {address}\n");
    Ok(())
}

/// Whole coins.
fn whole(wei: U256) -> String {
    let text = format_ether(wei);
    text.split('.').next().unwrap_or_default().to_owned()
}
