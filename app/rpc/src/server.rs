//! The server: one port for HTTP and WebSocket.

use std::{net::SocketAddr, sync::Arc, thread, time::Duration};

use jsonrpsee::{
    Methods,
    core::RegisterMethodError,
    server::{ServerHandle, stop_channel},
};
use penstock_chain::Chain;
use tokio::{net::TcpListener, sync::broadcast};
use tracing::info;

use crate::{
    RpcConfig,
    consensus::ConsensusApiServer,
    debug::DebugApiServer,
    doors::Doors,
    eth::{CallApiServer, Eth, EthApiServer, SendApiServer},
    happenings::HappeningsApiServer,
    net::NetApiServer,
    pipe::PipeApiServer,
};

/// Blocks that a subscriber may be behind before it misses some.
const HEADS: usize = 256;

/// How long the server waits for its connections when it stops.
const STOP_TIME: Duration = Duration::from_secs(10);

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        reason: std::io::Error,
    },
    /// An origin of the configuration is no origin.
    #[error("`{0}` is not an origin (for example https://app.example)")]
    Origin(String),
    /// A name of the configuration is no method.
    #[error("[rpc] methods: `{0}` is neither a method nor a namespace")]
    Method(String),
    /// Methods clash or a thread could not be started.
    #[error("{0}")]
    Internal(String),
}

/// A running server.
#[derive(Debug)]
pub struct RpcServer {
    /// Where it listens.
    pub address: SocketAddr,
    handle: ServerHandle,
}

impl RpcServer {
    /// Ends it: open requests are answered, subscriptions close. Clients that take no answer are not waited for.
    pub async fn stop(self) {
        if self.handle.stop().is_ok() {
            tokio::time::timeout(STOP_TIME, self.handle.stopped()).await.ok();
        }
    }
}

/// Starts the server on the current tokio runtime.
///
/// # Errors
/// [`ServeError`].
pub async fn serve(chain: Arc<Chain>, config: RpcConfig) -> Result<RpcServer, ServeError> {
    let internal = |error: &dyn core::fmt::Display| ServeError::Internal(error.to_string());
    let (heads, _) = broadcast::channel(HEADS);
    let blocks = chain.subscribe();
    let sender = heads.clone();
    thread::Builder::new()
        .name("rpc-heads".into())
        .spawn(move || {
            // Ends with the chain. Without subscribers a head goes nowhere, which is no error.
            blocks.iter().for_each(|block| drop(sender.send(block)));
        })
        .map_err(|error| internal(&error))?;

    let eth = Eth::new(chain, config.clone(), heads);
    let methods = methods(eth).map_err(|error| internal(&error))?;
    let listener = TcpListener::bind(config.listen).await;
    let listener = listener.map_err(|reason| ServeError::Listen { address: config.listen, reason })?;
    let address = listener.local_addr().map_err(|error| internal(&error))?;
    let (stop, handle) = stop_channel();
    let doors = Doors::new(&config, methods)?;
    tokio::spawn(doors.open(listener, stop));
    info!(%address, "JSON-RPC over HTTP and WebSocket");
    Ok(RpcServer { address, handle })
}

/// All methods. In the order of the documentation.
fn methods(eth: Arc<Eth>) -> Result<Methods, RegisterMethodError> {
    let mut methods = Methods::new();
    for part in [
        Methods::from(EthApiServer::into_rpc(eth.clone())),
        Methods::from(CallApiServer::into_rpc(eth.clone())),
        Methods::from(SendApiServer::into_rpc(eth.clone())),
        Methods::from(DebugApiServer::into_rpc(eth.clone())),
        Methods::from(NetApiServer::into_rpc(eth.clone())),
        Methods::from(ConsensusApiServer::into_rpc(eth.clone())),
        Methods::from(HappeningsApiServer::into_rpc(eth.clone())),
        Methods::from(PipeApiServer::into_rpc(eth)),
    ] {
        methods.merge(part)?;
    }
    Ok(methods)
}
