//! The home folder of a node on a network. CometBFT lives in the same one: `cometbft start --home HOME` works, and
//! `cometbft unsafe-reset-all --home HOME` resets both.
//!
//! ```text
//!  HOME/config/penstock.toml              our settings
//!  HOME/config/config.toml                CometBFT's
//!  HOME/config/genesis.json               equal on all nodes; model files beside it
//!  HOME/config/node_key.json              names this node to peers
//!  HOME/config/priv_validator_key.json    signs blocks
//!  HOME/data/                             CometBFT's blocks and votes
//!  HOME/data/penstock/                    our state and snapshots
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use penstock_abci::Address;

/// Bytes of a unix socket's path, the final zero included (`sockaddr_un`).
const MAX_SOCKET_PATH: usize = 108;

/// Paths in a home folder.
#[derive(Debug, Clone)]
pub(crate) struct Home(PathBuf);

impl Home {
    /// A home folder by its absolute path.
    pub(crate) fn new(root: &Path) -> anyhow::Result<Self> {
        let root = std::path::absolute(root).with_context(|| format!("no path: {}", root.display()))?;
        Ok(Self(root))
    }

    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.0.join("config")
    }

    pub(crate) fn settings(&self) -> PathBuf {
        self.0.join("config/penstock.toml")
    }

    pub(crate) fn cometbft_config(&self) -> PathBuf {
        self.0.join("config/config.toml")
    }

    pub(crate) fn genesis(&self) -> PathBuf {
        self.0.join("config/genesis.json")
    }

    pub(crate) fn node_key(&self) -> PathBuf {
        self.0.join("config/node_key.json")
    }

    pub(crate) fn validator_key(&self) -> PathBuf {
        self.0.join("config/priv_validator_key.json")
    }

    pub(crate) fn validator_state(&self) -> PathBuf {
        self.0.join("data/priv_validator_state.json")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.0.join("data/penstock/state")
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.0.join("data/penstock/snapshots")
    }

    /// Where CometBFT finds the application, unless the settings say otherwise.
    pub(crate) fn socket(&self) -> anyhow::Result<Address> {
        let path = self.0.join("data/abci.sock");
        if path.as_os_str().len() >= MAX_SOCKET_PATH {
            bail!(
                "the path of the ABCI socket is too long for the system ({}): choose a shorter home, or --abci tcp://127.0.0.1:26658",
                path.display()
            );
        }
        Ok(Address::Unix(path))
    }
}
