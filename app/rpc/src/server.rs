//! The server: one port for HTTP and WebSocket.

use std::{net::SocketAddr, sync::Arc, thread};

use jsonrpsee::{
    Methods,
    core::traits::IdProvider,
    server::{BatchRequestConfig, Server, ServerConfig, ServerHandle},
    types::SubscriptionId,
};
use penstock_chain::Chain;
use tokio::sync::broadcast;
use tower_http::cors::{AllowOrigin, Any, CorsLayer};
use tracing::info;

use crate::{
    RpcConfig,
    consensus::ConsensusApiServer,
    debug::DebugApiServer,
    eth::{CallApiServer, Eth, EthApiServer, SendApiServer},
    happenings::HappeningsApiServer,
    net::NetApiServer,
    pipe::PipeApiServer,
};

/// Blocks that a subscriber may be behind before it misses some.
const HEADS: usize = 256;

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
    /// Ends it: open requests are answered, subscriptions close.
    pub async fn stop(self) {
        if self.handle.stop().is_ok() {
            self.handle.stopped().await;
        }
    }
}

/// Subscription ids as geth's: hex texts. jsonrpsee's own are numbers, which clients do not expect.
#[derive(Debug)]
struct HexIds;

impl IdProvider for HexIds {
    fn next_id(&self) -> SubscriptionId<'static> {
        use std::hash::{BuildHasher, Hasher, RandomState};
        let random = || RandomState::new().build_hasher().finish();
        SubscriptionId::Str(format!("0x{:016x}{:016x}", random(), random()).into())
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

    let cors = tower::ServiceBuilder::new().option_layer(cors_layer(&config.cors)?);
    let server = Server::builder()
        .set_config(
            ServerConfig::builder()
                .max_request_body_size(config.max_body_bytes)
                .max_response_body_size(config.max_response_bytes)
                .max_connections(config.max_connections)
                .set_batch_request_config(BatchRequestConfig::Limit(config.max_batch))
                .set_id_provider(HexIds)
                .build(),
        )
        .set_http_middleware(cors)
        .build(config.listen)
        .await
        .map_err(|reason| ServeError::Listen { address: config.listen, reason })?;
    let address = server.local_addr().map_err(|error| internal(&error))?;
    let eth = Eth::new(chain, config, heads);
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
        methods.merge(part).map_err(|error| internal(&error))?;
    }
    info!(%address, "JSON-RPC over HTTP and WebSocket");
    Ok(RpcServer { address, handle: server.start(methods) })
}

fn cors_layer(origins: &[String]) -> Result<Option<CorsLayer>, ServeError> {
    let allowed = match origins {
        [] => return Ok(None),
        list if list.iter().any(|origin| origin == "*") => AllowOrigin::any(),
        list => {
            let parse = |origin: &String| origin.parse().map_err(|_| ServeError::Origin(origin.clone()));
            AllowOrigin::list(list.iter().map(parse).collect::<Result<Vec<_>, _>>()?)
        }
    };
    Ok(Some(CorsLayer::new().allow_origin(allowed).allow_methods(Any).allow_headers(Any)))
}
