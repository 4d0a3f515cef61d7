//! Settings: `HOME/config/penstock.toml`, environment variables over it, flags over both.
//!
//! Every key `key` of a section `[section]` is also the environment variable
//! `PENSTOCK_SECTION_KEY`, with the same text as in the file (text without quotes).

use std::{net::SocketAddr, path::Path, str::FromStr, time::Duration};

use alloy_primitives::Address;
use anyhow::{Context, bail};
use penstock_chain::ChainConfig;
use penstock_inference::NetworkConfig;
use penstock_pipe::PoolConfig;
use penstock_rpc::RpcConfig;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

/// A duration as people write it: `1s`, `300ms`; `0` is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        humantime::parse_duration(text).map(Self).map_err(|error| format!("{error} (for example 1s or 300ms)"))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

/// All settings.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) rpc: Rpc,
    pub(crate) pool: Pool,
    pub(crate) inference: Inference,
    pub(crate) chain: Chain,
}

/// `[rpc]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Rpc {
    pub(crate) listen: SocketAddr,
    pub(crate) max_body_bytes: u32,
    pub(crate) max_response_bytes: u32,
    pub(crate) max_connections: u32,
    pub(crate) max_batch: u32,
    pub(crate) max_log_blocks: u64,
    pub(crate) max_logs: usize,
    pub(crate) max_calls: usize,
    pub(crate) call_inference_time: Span,
    pub(crate) cors: Vec<String>,
}

/// `[pool]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Pool {
    pub(crate) max_txs: usize,
    pub(crate) max_per_sender: usize,
    pub(crate) max_waves: u32,
    pub(crate) max_tx_ops: u64,
    pub(crate) speculative_ops: u64,
    pub(crate) max_deferrals: u32,
    pub(crate) max_wait_blocks: u64,
    pub(crate) inline_ops: u64,
    pub(crate) proposal_budget: Span,
    pub(crate) ripeness: f64,
    pub(crate) simulation_threads: usize,
}

/// `[inference]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Inference {
    pub(crate) threads: usize,
    pub(crate) dear_ops: u64,
    pub(crate) cache_bytes: usize,
}

/// `[chain]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Chain {
    pub(crate) fee_recipient: Address,
    pub(crate) verification_budget: Span,
}

impl Default for Rpc {
    fn default() -> Self {
        let RpcConfig {
            listen,
            max_body_bytes,
            max_response_bytes,
            max_connections,
            max_batch,
            max_log_blocks,
            max_logs,
            max_calls,
            call_inference_time,
            cors,
        } = RpcConfig::default();
        Self {
            listen,
            max_body_bytes,
            max_response_bytes,
            max_connections,
            max_batch,
            max_log_blocks,
            max_logs,
            max_calls,
            call_inference_time: Span(call_inference_time),
            cors,
        }
    }
}

impl Default for Pool {
    fn default() -> Self {
        let config = PoolConfig::default();
        Self {
            max_txs: config.max_txs,
            max_per_sender: config.max_per_sender,
            max_waves: config.max_waves,
            max_tx_ops: config.max_tx_ops,
            speculative_ops: config.speculative_ops,
            max_deferrals: config.max_deferrals,
            max_wait_blocks: config.max_wait_blocks,
            inline_ops: config.inline_ops,
            proposal_budget: Span(config.proposal_budget),
            ripeness: config.ripeness,
            simulation_threads: config.simulation_threads,
        }
    }
}

impl Default for Inference {
    fn default() -> Self {
        let NetworkConfig { threads, dear_ops, cache_bytes } = NetworkConfig::default();
        Self { threads, dear_ops, cache_bytes }
    }
}

impl Default for Chain {
    fn default() -> Self {
        let ChainConfig { fee_recipient, verification_budget, .. } = ChainConfig::default();
        Self { fee_recipient, verification_budget: Span(verification_budget) }
    }
}

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
        Self::deserialize(Value::Table(table)).context("settings from the environment")
    }

    pub(crate) fn rpc_config(&self) -> RpcConfig {
        let rpc = self.rpc.clone();
        RpcConfig {
            listen: rpc.listen,
            max_body_bytes: rpc.max_body_bytes,
            max_response_bytes: rpc.max_response_bytes,
            max_connections: rpc.max_connections,
            max_batch: rpc.max_batch,
            max_log_blocks: rpc.max_log_blocks,
            max_logs: rpc.max_logs,
            max_calls: rpc.max_calls,
            call_inference_time: rpc.call_inference_time.0,
            cors: rpc.cors,
        }
    }

    pub(crate) fn network_config(&self) -> NetworkConfig {
        let Inference { threads, dear_ops, cache_bytes } = self.inference;
        NetworkConfig { threads, dear_ops, cache_bytes }
    }

    pub(crate) fn chain_config(&self) -> ChainConfig {
        let pool = &self.pool;
        ChainConfig {
            pool: PoolConfig {
                max_txs: pool.max_txs,
                max_per_sender: pool.max_per_sender,
                max_waves: pool.max_waves,
                max_tx_ops: pool.max_tx_ops,
                speculative_ops: pool.speculative_ops,
                max_deferrals: pool.max_deferrals,
                max_wait_blocks: pool.max_wait_blocks,
                inline_ops: pool.inline_ops,
                proposal_budget: pool.proposal_budget.0,
                ripeness: pool.ripeness,
                simulation_threads: pool.simulation_threads,
            },
            fee_recipient: self.chain.fee_recipient,
            verification_budget: self.chain.verification_budget.0,
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
        let Some(known) = defaults.get(&section).and_then(Value::as_table) else { continue };
        let Some(default) = known.get(&key) else {
            let keys: Vec<&str> = known.keys().map(String::as_str).collect();
            bail!("environment variable {name}: section [{section}] has no key `{key}` (it has {})", keys.join(", "));
        };
        let value = match default {
            Value::String(_) => Value::String(text),
            _ => {
                let parsed: Table = toml::from_str(&format!("value = {text}")).with_context(|| {
                    format!("environment variable {name}: `{text}` is no value for [{section}] {key}")
                })?;
                parsed.get("value").cloned().unwrap_or(Value::String(text))
            }
        };
        let entry = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
        if let Some(section) = entry.as_table_mut() {
            section.insert(key, value);
        }
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
        assert_eq!(settings.rpc.call_inference_time, Span(Duration::from_millis(20)));
    }

    #[test]
    fn unknown_keys_are_errors_that_name_the_key_and_the_line() {
        let error = format!("{:#}", with("[rpc]\nlisten = \"127.0.0.1:1\"\nlissten = 3\n", &[]).unwrap_err());
        assert!(error.contains("lissten") && error.contains("line 3"), "{error}");
        let error = format!("{:#}", with("", &[("PENSTOCK_POOL_MAX_TX", "3")]).unwrap_err());
        assert!(error.contains("PENSTOCK_POOL_MAX_TX") && error.contains("max_txs"), "{error}");
        let error = format!("{:#}", with("[pool]\nproposal_budget = \"soon\"\n", &[]).unwrap_err());
        assert!(error.contains("line 2"), "{error}");
    }
}
