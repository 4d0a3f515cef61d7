//! The connections: each gets the methods behind a guard that knows who is at the other end.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use jsonrpsee::{
    Methods,
    core::{middleware::RpcServiceBuilder, traits::IdProvider},
    server::{
        BatchRequestConfig, Server, ServerConfig, StopHandle, TowerServiceBuilder,
        middleware::http::ProxyGetRequestLayer, serve_with_graceful_shutdown,
    },
    types::SubscriptionId,
};
use tokio::net::{TcpListener, TcpStream};
use tower::{
    layer::util::{Identity, Stack},
    util::Either,
};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};
use tracing::debug;

use crate::{
    RpcConfig, ServeError,
    guard::{Allowed, GuardLayer, HEALTH},
    limits::{Lanes, Rates},
};

/// What HTTP requests go through before they are JSON-RPC.
type Http = Stack<ProxyGetRequestLayer, Stack<Either<CorsLayer, Identity>, Identity>>;

/// A pause after a connection that could not be accepted: the process has no file descriptors left, say.
const PAUSE: Duration = Duration::from_millis(50);

/// Everything that a connection needs.
pub(crate) struct Doors {
    service: TowerServiceBuilder<Identity, Http>,
    methods: Methods,
    guard: GuardLayer,
}

/// Subscription ids as geth's: hex texts. jsonrpsee's own are numbers, which clients do not expect.
#[derive(Debug)]
struct HexIds;

impl IdProvider for HexIds {
    fn next_id(&self) -> SubscriptionId<'static> {
        SubscriptionId::Str(format!("{:#034x}", random_id()).into())
    }
}

/// A number that other clients do not guess.
pub(crate) fn random_id() -> u128 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let random = || u128::from(RandomState::new().build_hasher().finish());
    random() << 64 | random()
}

impl Doors {
    pub(crate) fn new(config: &RpcConfig, methods: Methods) -> Result<Self, ServeError> {
        let health = ProxyGetRequestLayer::new([("/health", HEALTH)]);
        let health = health.map_err(|error| ServeError::Internal(error.to_string()))?;
        let server = ServerConfig::builder()
            .max_request_body_size(config.max_body_bytes)
            .max_response_body_size(config.max_response_bytes)
            .max_connections(config.max_connections)
            .max_subscriptions_per_connection(config.max_subscriptions)
            .set_batch_request_config(BatchRequestConfig::Limit(config.max_batch))
            .set_id_provider(HexIds)
            .build();
        let service = Server::builder()
            .set_config(server)
            .set_http_middleware(tower::ServiceBuilder::new().option_layer(cors_layer(&config.cors)?).layer(health))
            .to_service_builder();
        let guard = GuardLayer {
            allowed: Allowed::new(&config.methods),
            known: Arc::new(methods.method_names().collect()),
            max_response_bytes: config.max_response_bytes as usize,
            lanes: Lanes::new(config),
            rates: Rates::new(config.max_requests_per_second).map(Arc::new),
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        if let Some(name) = guard.allowed.unknown(&guard.known) {
            return Err(ServeError::Method(name));
        }
        Ok(Self { service, methods, guard })
    }

    /// Serves connections until the server is told to stop.
    pub(crate) async fn open(self, listener: TcpListener, stop: StopHandle) {
        loop {
            let connection = tokio::select! {
                connection = listener.accept() => connection,
                () = stop.clone().shutdown() => return,
            };
            match connection {
                Ok((stream, client)) => self.serve(stream, client, stop.clone()),
                Err(error) => {
                    debug!(%error, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn serve(&self, stream: TcpStream, client: SocketAddr, stop: StopHandle) {
        // Answers are small and clients wait for them. A connection that is gone already shows that later.
        stream.set_nodelay(true).ok();
        let guard = RpcServiceBuilder::new().layer(GuardLayer { client: client.ip(), ..self.guard.clone() });
        let service = self.service.clone().set_rpc_middleware(guard).build(self.methods.clone(), stop.clone());
        tokio::spawn(async move {
            if let Err(error) = serve_with_graceful_shutdown(stream, service, stop.shutdown()).await {
                debug!(%error, %client, "connection");
            }
        });
    }
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
