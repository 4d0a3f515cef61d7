//! `penstock init`: the home folder of one node.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use alloy_primitives::Address;
use anyhow::{Context, anyhow, bail};
use clap::Args;
use serde_json::Value;

use crate::{
    bundled,
    cometbft::{Version, config::StateSync},
    home::Home,
    network::{Keys, NewHome, Ports, new_genesis},
};

/// Write the home folder of a node: keys, settings, CometBFT's configuration, and a genesis document
///
/// Without --genesis a new network begins, with this node as its only validator. With it the node joins the network of
/// that document.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Genesis document of the network to join
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "chain_id"])]
    genesis: Option<PathBuf>,
    /// Document whose app_state (accounts, models, limits) a new network begins with [default: the bundled one]
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// CometBFT's chain id of a new network [default: the document's]
    #[arg(long, value_name = "ID")]
    chain_id: Option<String>,
    /// Account that may add, change and remove validators, by the contract at 0x…F6 [default: nobody]
    #[arg(long, value_name = "ADDRESS", conflicts_with = "genesis")]
    validator_admin: Option<Address>,
    /// Name of this node among its peers
    #[arg(long, default_value = "penstock")]
    moniker: String,
    /// Nodes to connect to, as ID@HOST:PORT
    #[arg(long, value_name = "PEER", value_delimiter = ',')]
    peers: Vec<String>,
    /// The CometBFT that will run
    #[arg(long, value_enum, default_value = "0.40")]
    cometbft: Version,
    /// Time between blocks
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration, value_name = "TIME")]
    block_time: Duration,
    /// Address for peers; 0.0.0.0:26656 lets them come from other machines
    #[arg(long, default_value = "127.0.0.1:26656", value_name = "ADDRESS")]
    p2p_listen: SocketAddr,
    /// Address of CometBFT's RPC; nodes that join by --state-sync from other machines need one that they reach
    #[arg(long, default_value = "127.0.0.1:26657", value_name = "ADDRESS")]
    cometbft_rpc_listen: SocketAddr,
    /// Address under which peers find this node, when it is not the one it listens on
    #[arg(long, default_value = "", value_name = "HOST:PORT", hide_default_value = true)]
    external_address: String,
    /// Added to every default port (JSON-RPC 8545, metrics 9464, CometBFT 26656, 26657, 26660)
    #[arg(long, default_value = "0", value_name = "N")]
    port_offset: u16,
    /// CometBFT RPC addresses of two nodes or more: begin with a peer's snapshot instead of the first block
    #[arg(long, value_name = "URL", value_delimiter = ',', requires = "genesis")]
    state_sync: Vec<String>,
    /// A height whose header you trust, below the snapshots of the peers [default: one of the first --state-sync node]
    #[arg(long, value_name = "HEIGHT", requires_all = ["state_sync", "trust_hash"])]
    trust_height: Option<u64>,
    /// The hash of that header
    #[arg(long, value_name = "HASH", requires_all = ["state_sync", "trust_height"])]
    trust_hash: Option<String>,
}

pub(crate) fn run(init: Init, home: Option<&Path>) -> anyhow::Result<()> {
    let home = Home::new(home.context("no home folder: name one with --home")?)?;
    let keys = Keys::generate()?;
    let state_sync = init.state_sync()?;
    let source = init.genesis.as_deref().or(init.from.as_deref());
    let document = match source {
        Some(path) => fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => bundled::GENESIS.to_vec(),
    };
    let genesis = match &init.genesis {
        // Not a byte is changed: all nodes have one document.
        Some(_) => document,
        None => {
            let validators = vec![keys.validator.genesis_validator(&init.moniker)];
            let chain_id = init.chain_id.as_deref();
            new_genesis(&document, validators, chain_id, init.validator_admin).with_context(|| name_of(source))?
        }
    };
    penstock_chain::GenesisDoc::parse(&genesis).with_context(|| name_of(source))?;
    let mut ports = Ports::local(init.port_offset)?;
    let moved = |address: SocketAddr| {
        let port = address.port().checked_add(init.port_offset).context("there is no such port")?;
        Ok::<_, anyhow::Error>(SocketAddr::new(address.ip(), port))
    };
    (ports.p2p, ports.cometbft_rpc) = (moved(init.p2p_listen)?, moved(init.cometbft_rpc_listen)?);
    let new = NewHome {
        genesis: &genesis,
        models_from: source.map(|path| path.parent().unwrap_or(Path::new("."))),
        keys: &keys,
        moniker: init.moniker.clone(),
        version: init.cometbft,
        ports,
        external_address: init.external_address.clone(),
        peers: init.peers.clone(),
        local: ports.p2p.ip().is_loopback(),
        block_time: init.block_time,
        state_sync,
    };
    new.write(&home)?;
    say!("Home       {}", home.root().display());
    say!("Node id    {}", keys.node.node_id());
    let address = Some(&init.external_address).filter(|address| !address.is_empty());
    let address = address.cloned().unwrap_or_else(|| ports.p2p.to_string());
    say!("Peers use  {}@{address}", keys.node.node_id());
    say!("Validator  {} (its public key, as setValidator takes it)", keys.validator.public_hex());
    say!("Genesis    {}", home.genesis().display());
    say!("Start it   penstock start --home {} --with-cometbft PATH", home.root().display());
    Ok(())
}

fn name_of(source: Option<&Path>) -> String {
    source.map_or_else(|| "the bundled genesis".to_owned(), |path| path.display().to_string())
}

impl Init {
    fn state_sync(&self) -> anyhow::Result<Option<StateSync>> {
        let Some(first) = self.state_sync.first() else { return Ok(None) };
        if self.state_sync.len() < 2 {
            bail!("--state-sync needs two nodes: the light client compares what they say (one may be named twice)");
        }
        let (trust_height, trust_hash) = match (self.trust_height, &self.trust_hash) {
            (Some(height), Some(hash)) => (height, hash.clone()),
            _ => {
                let (height, hash) =
                    header_to_trust(first).with_context(|| format!("cannot ask {first} for a header to trust"))?;
                say!("Trusting   header {height} {hash} as {first} has it: compare it with one that you trust");
                (height, hash)
            }
        };
        Ok(Some(StateSync { servers: self.state_sync.clone(), trust_height, trust_hash }))
    }
}

/// How far below a node's head the trusted header is: below the snapshots that it has by default, so that the light
/// client goes forward from there, in a few steps.
const TRUST_DISTANCE: u64 = 5_000;

/// Height and hash of a header of a CometBFT node.
fn header_to_trust(url: &str) -> anyhow::Result<(u64, String)> {
    let url = url.trim_end_matches('/');
    let ask = |path: String| -> anyhow::Result<Value> {
        let answer: Value = ureq::get(format!("{url}/{path}")).call()?.body_mut().read_json()?;
        Ok(answer["result"].clone())
    };
    let status = ask("status".into())?;
    let number = |key: &str| status["sync_info"][key].as_str().and_then(|height| height.parse::<u64>().ok());
    let (newest, earliest) = number("latest_block_height")
        .zip(number("earliest_block_height"))
        .filter(|(newest, _)| *newest > 0)
        .ok_or_else(|| anyhow!("it has no block yet"))?;
    let height = newest.saturating_sub(TRUST_DISTANCE).max(earliest).max(1);
    let commit = ask(format!("commit?height={height}"))?;
    let hash = commit["signed_header"]["commit"]["block_id"]["hash"].as_str();
    Ok((height, hash.with_context(|| format!("it has no header {height}: {commit}"))?.to_owned()))
}
