//! `penstock testnet N`: the home folders of a whole network on this machine.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use alloy_primitives::Address;
use anyhow::Context;
use clap::Args;

use crate::{
    bundled,
    cometbft::Version,
    home::Home,
    network::{Keys, NewHome, Ports, new_genesis},
};

/// Distance of the ports of neighbouring nodes.
const STRIDE: u16 = 10;

/// Write the home folders of a network on this machine: validators that know each other and share a genesis
#[derive(Debug, Args)]
pub(crate) struct Testnet {
    /// Validators
    #[arg(value_parser = clap::value_parser!(u16).range(1..=100))]
    validators: u16,
    /// Folder of the homes, which are node0, node1, …
    #[arg(long, default_value = "testnet", value_name = "DIR")]
    output: PathBuf,
    /// Nodes that only follow the chain, behind the validators
    #[arg(long, default_value = "0", value_name = "N", value_parser = clap::value_parser!(u16).range(0..=100))]
    full_nodes: u16,
    /// Document whose app_state (accounts, models, limits) the network begins with [default: the bundled one]
    #[arg(long, value_name = "FILE")]
    genesis: Option<PathBuf>,
    /// CometBFT's chain id [default: the document's]
    #[arg(long, value_name = "ID")]
    chain_id: Option<String>,
    /// Account that may add, change and remove validators, by the contract at 0x…F6 [default: nobody]
    #[arg(long, value_name = "ADDRESS")]
    validator_admin: Option<Address>,
    /// The CometBFT that will run
    #[arg(long, value_enum, default_value = "0.40")]
    cometbft: Version,
    /// Time between blocks
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration, value_name = "TIME")]
    block_time: Duration,
    /// Added to every default port; each node's are ten above those of the node before
    #[arg(long, default_value = "0", value_name = "N")]
    port_offset: u16,
}

pub(crate) fn run(testnet: &Testnet) -> anyhow::Result<()> {
    let document = match &testnet.genesis {
        Some(path) => fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => bundled::GENESIS.to_vec(),
    };
    let count = testnet.validators + testnet.full_nodes;
    let nodes = (0..count)
        .map(|index| {
            let offset = index.checked_mul(STRIDE).and_then(|offset| offset.checked_add(testnet.port_offset));
            let ports = Ports::local(offset.context("the ports do not fit: choose a smaller --port-offset")?)?;
            Ok((Keys::generate()?, ports))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let validators = nodes
        .iter()
        .take(testnet.validators.into())
        .enumerate()
        .map(|(index, (keys, _))| keys.validator.genesis_validator(&format!("node{index}")))
        .collect();
    let genesis = new_genesis(&document, validators, testnet.chain_id.as_deref(), testnet.validator_admin)?;
    let addresses: Vec<String> =
        nodes.iter().map(|(keys, ports)| format!("{}@{}", keys.node.node_id(), ports.p2p)).collect();
    for (index, (keys, ports)) in nodes.iter().enumerate() {
        let home = Home::new(&testnet.output.join(format!("node{index}")))?;
        let peers = addresses.iter().enumerate().filter(|(other, _)| *other != index);
        let new = NewHome {
            genesis: &genesis,
            models_from: testnet.genesis.as_deref().map(|path| path.parent().unwrap_or(Path::new("."))),
            keys,
            moniker: format!("node{index}"),
            version: testnet.cometbft,
            ports: *ports,
            external_address: String::new(),
            peers: peers.map(|(_, address)| address.clone()).collect(),
            local: true,
            block_time: testnet.block_time,
            state_sync: None,
        };
        new.write(&home)?;
        let kind = if index < usize::from(testnet.validators) { "validator" } else { "full node" };
        say!("{} {kind:<9}  JSON-RPC {}  CometBFT {}", home.root().display(), ports.rpc, ports.cometbft_rpc);
    }
    Ok(())
}
