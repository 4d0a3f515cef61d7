//! CometBFT's `config.toml`: the values that suit this application, each with its reason. Keys that are not in the file
//! have CometBFT's defaults.

use std::{net::SocketAddr, time::Duration};

use penstock_abci::Address;

use super::Version;

/// What differs between nodes and networks.
#[derive(Debug, Clone)]
pub(crate) struct CometConfig {
    pub(crate) version: Version,
    pub(crate) moniker: String,
    pub(crate) abci: Address,
    pub(crate) rpc: SocketAddr,
    pub(crate) p2p: SocketAddr,
    /// What peers dial, where that is not `p2p`.
    pub(crate) external_address: String,
    pub(crate) metrics: SocketAddr,
    /// `id@host:port`.
    pub(crate) peers: Vec<String>,
    /// All nodes are on one machine.
    pub(crate) local: bool,
    pub(crate) block_time: Duration,
    /// Transactions in our pool.
    pub(crate) pool_txs: usize,
    pub(crate) state_sync: Option<StateSync>,
}

/// Where a new node finds the state that it begins with.
#[derive(Debug, Clone)]
pub(crate) struct StateSync {
    /// CometBFT RPC addresses, at least two for the light client.
    pub(crate) servers: Vec<String>,
    /// A height that the operator trusts.
    pub(crate) trust_height: u64,
    /// The hash of its header.
    pub(crate) trust_hash: String,
}

impl CometConfig {
    /// The file.
    pub(crate) fn render(&self) -> String {
        let Self { rpc, p2p, metrics, pool_txs, .. } = self;
        let [moniker, abci, external_address, peers] =
            [self.moniker.clone(), self.abci.to_string(), self.external_address.clone(), self.peers.join(",")]
                .map(quoted);
        let block_time = humantime::format_duration(self.block_time).to_string().replace(' ', "");
        let (strict, duplicates) = (!self.local, self.local);
        let mempool = self.mempool();
        let state_sync = self.state_sync();
        let cache = pool_txs * 2;
        format!(
            r#"# CometBFT's configuration, written by penstock. Keys that are not here have CometBFT's defaults
# (https://docs.cometbft.com). `penstock start` needs no change here.

moniker = {moniker}
# A unix socket: half the latency of TCP, and nobody else on the machine can open it.
proxy_app = {abci}
# Blocks and votes are logged by the application; errors and the life of the node remain.
log_level = "main:info,statesync:info,blocksync:info,*:error"

[rpc]
laddr = "tcp://{rpc}"
# A batch of transactions that the application hands over.
max_request_batch_size = 10

[p2p]
laddr = "tcp://{p2p}"
external_address = {external_address}
persistent_peers = {peers}
# On one machine all peers have one address, which is not routable.
addr_book_strict = {strict}
allow_duplicate_ip = {duplicates}
# How long messages are collected before they are sent. 100 ms, the default of v0.38, costs a height some 300 ms.
flush_throttle_timeout = "10ms"
# Bytes a second for each peer: a block of 20 MB in less than half a second.
send_rate = 52428800
recv_rate = 52428800

[mempool]
{mempool}# The application's own limit is 128 KiB.
max_tx_bytes = 131072
# As many as the application's pool.
size = {pool_txs}
cache_size = {cache}

{state_sync}[consensus]
# A proposal is built within [pool] proposal_budget (300 ms) and verified within [chain] verification_budget (1 s).
timeout_propose = "2s"
timeout_propose_delta = "500ms"
timeout_prevote = "500ms"
timeout_prevote_delta = "250ms"
timeout_precommit = "500ms"
timeout_precommit_delta = "250ms"
# The time between blocks.
timeout_commit = "{block_time}"
# Blocks are the clock of the pool (max_wait_blocks), and an application's mempool cannot ask for one.
create_empty_blocks = true
# The default of 100 ms is most of the latency of a height in one data centre.
peer_gossip_sleep_duration = "10ms"

[tx_index]
# Transactions are indexed by the application: eth_getTransactionByHash.
indexer = "null"

[instrumentation]
prometheus = true
# The default listens on all interfaces.
prometheus_listen_addr = "{metrics}"
"#
        )
    }

    fn mempool(&self) -> &'static str {
        match self.version {
            Version::V0_38 => {
                r#"# CheckTx and gossip by CometBFT; the order of a block is the application's.
type = "flood"
# After each block CometBFT asks again for what it holds. The application answers from its pool's verdict, so
# that this takes microseconds, and drops what cannot come any more.
recheck = true
# Refused transactions may be valid later (nonce, balance, full pool).
keep-invalid-txs-in-cache = false
"#
            }
            Version::V0_40 => {
                r#"# The pool is the application's; CometBFT gossips what it gives (ReapTxs) and brings what peers have (InsertTx).
type = "app"
# How long a new transaction waits for its gossip. The default is 500 ms.
reap_interval = "50ms"
"#
            }
        }
    }

    fn state_sync(&self) -> String {
        let Some(StateSync { servers, trust_height, trust_hash }) = &self.state_sync else { return String::new() };
        let [servers, trust_hash] = [servers.join(","), trust_hash.clone()].map(quoted);
        format!(
            r#"[statesync]
# The node begins with a peer's snapshot, checked against headers that a light client verified. Used once: a
# node that has a state goes on with block sync.
enable = true
rpc_servers = {servers}
trust_height = {trust_height}
trust_hash = {trust_hash}
# Below the age at which evidence against validators stops to count (48 h).
trust_period = "36h0m0s"
discovery_time = "5s"

"#
        )
    }
}

/// Text as TOML has it.
fn quoted(text: String) -> String {
    toml::Value::String(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(version: Version) -> CometConfig {
        CometConfig {
            version,
            moniker: "a \"b\" \\".into(),
            abci: "unix:///x/abci.sock".parse().unwrap(),
            rpc: "127.0.0.1:1".parse().unwrap(),
            p2p: "127.0.0.1:2".parse().unwrap(),
            external_address: String::new(),
            metrics: "127.0.0.1:3".parse().unwrap(),
            peers: vec!["id@127.0.0.1:4".into()],
            local: true,
            block_time: Duration::from_millis(1_500),
            pool_txs: 10,
            state_sync: None,
        }
    }

    #[test]
    fn the_file_is_toml_with_go_durations() {
        for version in [Version::V0_38, Version::V0_40] {
            let state_sync =
                StateSync { servers: vec!["a:1".into(), "b:2".into()], trust_height: 7, trust_hash: "AB".into() };
            let config = CometConfig { state_sync: Some(state_sync), ..config(version) };
            let table: toml::Table = toml::from_str(&config.render()).unwrap();
            assert_eq!(table["consensus"]["timeout_commit"].as_str(), Some("1s500ms"));
            assert_eq!(table["moniker"].as_str(), Some("a \"b\" \\"));
            assert_eq!(table["statesync"]["rpc_servers"].as_str(), Some("a:1,b:2"));
            let kind = if version == Version::V0_38 { "flood" } else { "app" };
            assert_eq!(table["mempool"]["type"].as_str(), Some(kind));
        }
    }
}
