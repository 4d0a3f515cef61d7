//! Bounds of the RPC server, each with the reason for its number.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Where the server listens and what a client may ask for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RpcConfig {
    /// Address of HTTP and WebSocket.
    pub listen: SocketAddr,
    /// Bytes of a request body. reth's 15 MB; a transaction has 128 KiB at most.
    pub max_body_bytes: u32,
    /// Bytes of a response. reth's are 160 MB; traces that are larger are better made in parts.
    pub max_response_bytes: u32,
    /// Connections at once. reth's default.
    pub max_connections: u32,
    /// Requests of one connection that are under way at once; those after them are not read yet.
    pub max_requests_per_connection: usize,
    /// How long nothing may move on a connection, read or written, while no request of it runs. WebSockets are pinged.
    #[serde(with = "humantime_serde")]
    pub idle_time: Duration,
    /// Subscriptions of one WebSocket connection. reth's default.
    pub max_subscriptions: u32,
    /// Methods (`eth_call`) and namespaces (`eth`) that are served; empty for all.
    pub methods: Vec<String>,
    /// Requests of one batch. cosmos/evm's default.
    pub max_batch: u32,
    /// Blocks that one `eth_getLogs` may look at.
    pub max_log_blocks: u64,
    /// Logs that one `eth_getLogs` may answer. reth's default.
    pub max_logs: usize,
    /// Calls and traces that run at once; others wait.
    pub max_calls: usize,
    /// Requests that read whole blocks (logs, proofs, raw blocks, the pool) that run at once; others wait.
    pub max_reads: usize,
    /// How long such a request waits for its turn before it is refused.
    #[serde(with = "humantime_serde")]
    pub queue_time: Duration,
    /// Requests a second of one address that is not this machine's; 0: as many as it likes.
    pub max_requests_per_second: u32,
    /// Gas of one call, and of all blocks of one `eth_simulateV1` together; 0: as much as a block has.
    pub max_call_gas: u64,
    /// How long a call waits for inference before it answers with the placeholder.
    #[serde(with = "humantime_serde")]
    pub call_inference_time: Duration,
    /// How long a trace may take.
    #[serde(with = "humantime_serde")]
    pub trace_time: Duration,
    /// How long `eth_sendRawTransactionSync` waits for a receipt, at most. reth's default.
    #[serde(with = "humantime_serde")]
    pub sync_send_time: Duration,
    /// Origins that a browser may call from; `*` for all, empty for none.
    pub cors: Vec<String>,
}

impl Default for RpcConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8545),
            max_body_bytes: 15 << 20,
            max_response_bytes: 64 << 20,
            max_connections: 500,
            max_requests_per_connection: 64,
            idle_time: Duration::from_secs(120),
            max_subscriptions: 1_024,
            methods: vec![],
            max_batch: 1_000,
            max_log_blocks: 100_000,
            max_logs: 20_000,
            max_calls: 16,
            max_reads: 32,
            queue_time: Duration::from_secs(10),
            max_requests_per_second: 2_000,
            max_call_gas: 0,
            call_inference_time: Duration::from_secs(5),
            trace_time: Duration::from_secs(10),
            sync_send_time: Duration::from_secs(30),
            cors: vec!["*".into()],
        }
    }
}
