//! Settings: `HOME/config/penstock.toml`, environment variables over it, flags over both.
//!
//! Every key `key` of a section `[section]` is also the environment variable
//! `PENSTOCK_SECTION_KEY`, with the same text as in the file (text without quotes).

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use alloy_primitives::Address;
use anyhow::{Context, bail};
use penstock_chain::{ChainConfig, Gossip, SnapshotConfig};
use penstock_inference::NetworkConfig;
use penstock_pipe::PoolConfig;
use penstock_rpc::RpcConfig;
use penstock_state::{Backend, StateConfig};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};
use tracing::warn;

/// All settings, by section.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) rpc: RpcConfig,
    pub(crate) pool: PoolConfig,
    pub(crate) inference: NetworkConfig,
    pub(crate) chain: Chain,
    pub(crate) abci: Abci,
    pub(crate) cometbft: CometBft,
    pub(crate) metrics: Metrics,
    pub(crate) snapshots: Snapshots,
    pub(crate) state: State,
}

/// `[abci]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Abci {
    /// Where CometBFT connects; empty: the socket in the home folder.
    pub(crate) listen: String,
}

/// `[cometbft]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CometBft {
    /// `mempool.type` of CometBFT's configuration.
    pub(crate) mempool: Gossip,
    /// CometBFT's RPC, where transactions are handed over for gossip.
    pub(crate) rpc: String,
}

impl Default for CometBft {
    fn default() -> Self {
        Self { mempool: Gossip::App, rpc: "http://127.0.0.1:26657".into() }
    }
}

/// `[metrics]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Metrics {
    pub(crate) listen: SocketAddr,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464) }
    }
}

/// `[snapshots]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Snapshots {
    /// One every so many blocks; 0: none.
    pub(crate) interval: u64,
    /// How many are kept.
    pub(crate) keep: usize,
}

impl Default for Snapshots {
    fn default() -> Self {
        let SnapshotConfig { interval, keep, .. } = SnapshotConfig::default();
        Self { interval, keep }
    }
}

/// `[state]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct State {
    /// The database: `fjall` or `sled`.
    #[serde(with = "display")]
    pub(crate) backend: Backend,
    /// Heights below the newest one whose state can be read; more than `proof_window`.
    pub(crate) history: u64,
    /// Whether the state of all heights can be read, for ever; `history` does not count then.
    pub(crate) archive: bool,
    /// Heights below the newest one for which `eth_getProof` answers.
    pub(crate) proof_window: u64,
    /// Memory of the state's Merkle tries, in bytes; what does not fit is read again from the disk.
    pub(crate) trie_bytes: u64,
}

impl Default for State {
    fn default() -> Self {
        let StateConfig { history, proof_window, trie_bytes } = StateConfig::default();
        Self { backend: Backend::default(), history, archive: false, proof_window, trie_bytes }
    }
}

impl State {
    pub(crate) fn config(&self) -> StateConfig {
        let history = if self.archive { 0 } else { self.history };
        StateConfig { history, proof_window: self.proof_window, trie_bytes: self.trie_bytes }
    }
}

/// Values that are texts in the file.
mod display {
    use core::{fmt::Display, str::FromStr};

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

/// `[chain]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Chain {
    pub(crate) fee_recipient: Address,
    #[serde(with = "humantime_serde")]
    pub(crate) verification_budget: Duration,
    /// Newest blocks that CometBFT has to keep; 0: all.
    pub(crate) retain_blocks: u64,
}

impl Default for Chain {
    fn default() -> Self {
        let ChainConfig { fee_recipient, verification_budget, retain_blocks, .. } = ChainConfig::default();
        Self { fee_recipient, verification_budget, retain_blocks }
    }
}

/// More threads than cores help nobody; far more bring a system down.
const MAX_THREADS: usize = 1_024;

impl Settings {
    /// Reads the file of a home folder, if there is one, and the environment.
    ///
    /// # Errors
    /// An unknown key or a wrong value, with the key and its line.
    pub(crate) fn load(home: Option<&Path>) -> anyhow::Result<Self> {
        let path = home.map(|home| home.join("config/penstock.toml")).filter(|path| path.exists());
        let text = match &path {
            Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
            None => String::new(),
        };
        let name = path.map_or_else(|| "settings".to_owned(), |path| path.display().to_string());
        // Once for the file alone: its errors name the line.
        toml::from_str::<Self>(&text).with_context(|| name.clone())?;
        let mut table: Table = toml::from_str(&text).with_context(|| name)?;
        let variables =
            std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
        overlay(&mut table, variables)?;
        let settings = Self::deserialize(Value::Table(table)).context("settings from the environment")?;
        settings.check()?;
        Ok(settings)
    }

    /// Values that the types allow and the program does not.
    fn check(&self) -> anyhow::Result<()> {
        if !(0.0..=1_000.0).contains(&self.pool.ripeness) {
            bail!("[pool] ripeness must be from 0 to 1000");
        }
        if !self.state.archive && self.state.history <= self.state.proof_window {
            bail!("[state] history must be more than proof_window: a block is proved from the state after it");
        }
        if self.pool.max_bytes < 1 << 20 {
            bail!("[pool] max_bytes must be at least 1048576: the pool could hold nothing");
        }
        if self.rpc.idle_time < Duration::from_secs(1) {
            bail!("[rpc] idle_time must be at least 1s");
        }
        let at_least_one = [
            ("[rpc] max_calls", self.rpc.max_calls),
            ("[rpc] max_reads", self.rpc.max_reads),
            ("[rpc] max_connections", self.rpc.max_connections as usize),
            ("[rpc] max_requests_per_connection", self.rpc.max_requests_per_connection),
            ("[rpc] max_batch", self.rpc.max_batch as usize),
            ("[pool] max_txs", self.pool.max_txs),
            ("[pool] max_per_sender", self.pool.max_per_sender),
            ("[snapshots] keep", self.snapshots.keep),
            ("[inference] batch", self.inference.batch),
        ];
        if let Some((name, _)) = at_least_one.iter().find(|(_, value)| *value == 0) {
            bail!("{name} must be at least 1");
        }
        for (name, threads) in [
            ("[pool] simulation_threads", self.pool.simulation_threads),
            ("[inference] threads", self.inference.threads),
        ] {
            if !(1..=MAX_THREADS).contains(&threads) {
                bail!("{name} must be from 1 to {MAX_THREADS}");
            }
        }
        Ok(())
    }

    pub(crate) fn chain_config(&self) -> ChainConfig {
        let Chain { fee_recipient, verification_budget, retain_blocks } = self.chain;
        let Snapshots { interval, keep } = self.snapshots;
        ChainConfig {
            pool: self.pool,
            fee_recipient,
            verification_budget,
            gossip: self.cometbft.mempool,
            snapshots: SnapshotConfig { folder: None, interval, keep },
            retain_blocks,
            state: self.state.config(),
        }
    }
}

/// Puts the variables `PENSTOCK_SECTION_KEY` over the table.
fn overlay(table: &mut Table, variables: impl Iterator<Item = (String, String)>) -> anyhow::Result<()> {
    let defaults = Table::try_from(Settings::default()).context("default settings")?;
    for (name, text) in variables {
        let Some(rest) = name.strip_prefix("PENSTOCK_") else { continue };
        let Some((section, key)) = rest.split_once('_') else { continue };
        let (section, key) = (section.to_lowercase(), key.to_lowercase());
        let Some(known) = defaults.get(&section).and_then(Value::as_table) else {
            warn!(variable = name, "not a setting: there is no section [{section}]");
            continue;
        };
        let Some(default) = known.get(&key) else {
            let keys: Vec<&str> = known.keys().map(String::as_str).collect();
            bail!("environment variable {name}: section [{section}] has no key `{key}` (it has {})", keys.join(", "));
        };
        let value = match default {
            Value::String(_) => Value::String(text.clone()),
            _ => {
                let parsed: Table = toml::from_str(&format!("value = {text}")).with_context(|| {
                    format!("environment variable {name}: `{text}` is no value for [{section}] {key}")
                })?;
                parsed.get("value").cloned().unwrap_or(Value::String(text.clone()))
            }
        };
        let entry = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
        if let Some(section) = entry.as_table_mut() {
            section.insert(key, value);
        }
        Settings::deserialize(Value::Table(table.clone()))
            .with_context(|| format!("environment variable {name}: `{text}`"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(file: &str, variables: &[(&str, &str)]) -> anyhow::Result<Settings> {
        let home = tempfile::tempdir()?;
        std::fs::create_dir(home.path().join("config"))?;
        std::fs::write(home.path().join("config/penstock.toml"), file)?;
        let mut table: Table = toml::from_str(file)?;
        Settings::load(Some(home.path()))?;
        overlay(&mut table, variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))?;
        Ok(Settings::deserialize(Value::Table(table))?)
    }

    #[test]
    fn the_environment_goes_over_the_file() {
        let file = "[rpc]\nlisten = \"127.0.0.1:1\"\nmax_batch = 5\n";
        let variables = [
            ("PENSTOCK_RPC_MAX_BATCH", "7"),
            ("PENSTOCK_RPC_CALL_INFERENCE_TIME", "20ms"),
            ("PENSTOCK_RPC", "http://x"),
        ];
        let settings = with(file, &variables).unwrap();
        assert_eq!(settings.rpc.max_batch, 7);
        assert_eq!(settings.rpc.listen.port(), 1);
        assert_eq!(settings.rpc.call_inference_time, Duration::from_millis(20));
    }

    #[test]
    fn unknown_keys_are_errors_that_name_the_key_and_the_line() {
        let error = format!("{:#}", with("[rpc]\nlisten = \"127.0.0.1:1\"\nlissten = 3\n", &[]).unwrap_err());
        assert!(error.contains("lissten") && error.contains("line 3"), "{error}");
        let error = format!("{:#}", with("", &[("PENSTOCK_POOL_MAX_TX", "3")]).unwrap_err());
        assert!(error.contains("PENSTOCK_POOL_MAX_TX") && error.contains("max_txs"), "{error}");
        let error = format!("{:#}", with("", &[("PENSTOCK_RPC_LISTEN", "foo")]).unwrap_err());
        assert!(error.contains("PENSTOCK_RPC_LISTEN: `foo`"), "{error}");
        for text in [
            "[inference]\nthreads = 0",
            "[inference]\nthreads = 20000",
            "[rpc]\nmax_batch = 0",
            "[pool]\nripeness = -1.0",
            "[pool]\nmax_bytes = 1000",
        ] {
            let error = format!("{:#}", with(text, &[]).unwrap_err());
            assert!(error.contains(" must be "), "{error}");
        }
        let error = format!("{:#}", with("[pool]\nproposal_budget = \"soon\"\n", &[]).unwrap_err());
        assert!(error.contains("line 2"), "{error}");
    }
}
