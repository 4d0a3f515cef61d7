//! Writing the files of a network: the genesis document that its nodes share, and their home folders.

use std::{
    fs,
    net::SocketAddr,
    path::{Component, Path},
    time::{Duration, SystemTime},
};

use alloy_primitives::Address;
use anyhow::{Context, bail};
use penstock_chain::{GenesisDoc, Gossip};
use serde_json::{Value, json};

use crate::{
    bundled,
    cometbft::{
        Version,
        config::{CometConfig, StateSync},
        keys::{self, Key},
    },
    home::Home,
    settings::Settings,
};

/// Bytes of a block: CometBFT v0.38's default.
const MAX_BLOCK_BYTES: u64 = 21 << 20;

/// Evidence counts for as many blocks and as long as in CometBFT's defaults.
const EVIDENCE_BLOCKS: u64 = 100_000;
const EVIDENCE_AGE: Duration = Duration::from_secs(48 * 60 * 60);

/// The keys of a node.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) node: Key,
    pub(crate) validator: Key,
}

impl Keys {
    pub(crate) fn generate() -> anyhow::Result<Self> {
        Ok(Self { node: Key::generate()?, validator: Key::generate()? })
    }
}

/// Addresses of a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) rpc: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) cometbft_rpc: SocketAddr,
    pub(crate) cometbft_metrics: SocketAddr,
    pub(crate) p2p: SocketAddr,
}

impl Ports {
    /// The default ports, each moved by `offset`, on the loopback interface.
    pub(crate) fn local(offset: u16) -> anyhow::Result<Self> {
        let port = |port: u16| {
            let port = port.checked_add(offset).with_context(|| format!("there is no port {port} + {offset}"))?;
            Ok::<_, anyhow::Error>(SocketAddr::from(([127, 0, 0, 1], port)))
        };
        Ok(Self {
            rpc: port(8545)?,
            metrics: port(9464)?,
            cometbft_rpc: port(26657)?,
            cometbft_metrics: port(26660)?,
            p2p: port(26656)?,
        })
    }
}

/// The genesis document of a new network: a document's `app_state`, these validators, now.
pub(crate) fn new_genesis(
    document: &[u8],
    validators: Vec<Value>,
    chain_id: Option<&str>,
    validator_admin: Option<Address>,
) -> anyhow::Result<Vec<u8>> {
    // Checked as it is, so that an error names a path in the given file.
    GenesisDoc::parse(document)?;
    let mut document: Value = serde_json::from_slice(document).context("genesis")?;
    let fields = document.as_object_mut().context("genesis: no JSON object")?;
    if let Some(chain_id) = chain_id {
        fields.insert("chain_id".into(), chain_id.into());
    }
    if let Some(admin) = validator_admin {
        // The document was parsed: it has this object.
        fields["app_state"]["config"]["validatorAdmin"] = admin.to_string().into();
    }
    fields.insert("genesis_time".into(), humantime::format_rfc3339_nanos(SystemTime::now()).to_string().into());
    fields.insert("initial_height".into(), "1".into());
    fields.insert("app_hash".into(), "".into());
    fields.insert("validators".into(), validators.into());
    fields.entry("consensus_params").or_insert_with(|| {
        json!({
            "block": { "max_bytes": MAX_BLOCK_BYTES.to_string(), "max_gas": "-1" },
            "evidence": {
                "max_age_num_blocks": EVIDENCE_BLOCKS.to_string(),
                "max_age_duration": EVIDENCE_AGE.as_nanos().to_string(),
                "max_bytes": "1048576",
            },
            "validator": { "pub_key_types": ["ed25519"] },
            "version": { "app": "0" },
            "abci": { "vote_extensions_enable_height": "0" },
        })
    });
    let text = serde_json::to_vec_pretty(&document).context("genesis")?;
    GenesisDoc::parse(&text)?;
    Ok(text)
}

/// What one home folder is made of.
#[derive(Debug)]
pub(crate) struct NewHome<'a> {
    pub(crate) genesis: &'a [u8],
    /// Where the genesis document comes from: its models' files are relative to it.
    pub(crate) models_from: Option<&'a Path>,
    pub(crate) keys: &'a Keys,
    pub(crate) moniker: String,
    pub(crate) version: Version,
    pub(crate) ports: Ports,
    pub(crate) external_address: String,
    pub(crate) peers: Vec<String>,
    pub(crate) local: bool,
    pub(crate) block_time: Duration,
    pub(crate) state_sync: Option<StateSync>,
}

impl NewHome<'_> {
    /// Writes the folder. Refuses one that has a node already.
    ///
    /// # Errors
    /// When a file is there or cannot be written.
    pub(crate) fn write(self, home: &Home) -> anyhow::Result<()> {
        for file in [
            home.genesis(),
            home.node_key(),
            home.validator_key(),
            home.validator_state(),
            home.settings(),
            home.cometbft_config(),
        ] {
            if file.exists() {
                bail!("{} exists: this home has a node already (choose another --home, or remove it)", file.display());
            }
        }
        for folder in [home.config(), home.root().join("data")] {
            fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        let config = CometConfig {
            version: self.version,
            moniker: self.moniker.clone(),
            abci: home.socket()?,
            rpc: self.ports.cometbft_rpc,
            p2p: self.ports.p2p,
            external_address: self.external_address.clone(),
            metrics: self.ports.cometbft_metrics,
            peers: self.peers.clone(),
            local: self.local,
            block_time: self.block_time,
            pool_txs: Settings::default().pool.max_txs,
            state_sync: self.state_sync.clone(),
        };
        self.keys.node.write_node_key(&home.node_key())?;
        self.keys.validator.write_validator_key(&home.validator_key())?;
        keys::write_validator_state(&home.validator_state())?;
        write(&home.cometbft_config(), config.render().as_bytes())?;
        write(&home.settings(), self.settings().as_bytes())?;
        write(&home.genesis(), self.genesis)?;
        match self.models_from {
            Some(folder) => copy_models(self.genesis, folder, &home.config()),
            None => Ok(()),
        }
    }

    fn settings(&self) -> String {
        let gossip = match self.version.gossip() {
            Gossip::Flood => "flood",
            Gossip::App => "app",
            Gossip::None => "none",
        };
        let Ports { rpc, metrics, cometbft_rpc, .. } = self.ports;
        format!(
            r#"# Penstock's settings; keys that are not here have their defaults (README, "Settings").

[rpc]
listen = "{rpc}"

[metrics]
listen = "{metrics}"

[cometbft]
# The same as mempool.type in config.toml: "flood" for v0.38, "app" for v0.40.
mempool = "{gossip}"
# Where transactions are handed over for gossip ("flood").
rpc = "http://{cometbft_rpc}"
"#
        )
    }
}

fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

/// Copies the models that are not part of the program beside the genesis document. One that is missing is left
/// out: the node will follow the chain without it.
fn copy_models(genesis: &[u8], from: &Path, to: &Path) -> anyhow::Result<()> {
    for (index, model) in GenesisDoc::parse(genesis)?.genesis.models.iter().enumerate() {
        let Some(file) = model.file.as_ref().map(Path::new).filter(|file| file.is_relative()) else { continue };
        let source = from.join(file);
        if bundled::model(&model.hash).is_some() || !source.exists() {
            continue;
        }
        if file.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
            bail!(
                "genesis: app_state.models[{index}].file: {} leads out of the document's folder: \
                 a file that is to be copied must be below it",
                file.display()
            );
        }
        let target = to.join(file);
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        fs::copy(&source, &target)
            .with_context(|| format!("cannot copy {} to {}", source.display(), target.display()))?;
    }
    Ok(())
}
