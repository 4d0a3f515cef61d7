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
        BatchRequestConfig, PingConfig, Server, ServerConfig, StopHandle, TowerServiceBuilder,
        middleware::http::ProxyGetRequestLayer, serve_with_graceful_shutdown,
    },
    types::SubscriptionId,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tower::{
    layer::util::{Identity, Stack},
    util::Either,
};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};
use tracing::debug;

use crate::{
    RpcConfig, ServeError,
    flow::{Flow, Paced},
    guard::{Allowed, GuardLayer, HEALTH},
    limits::{Rates, Reads},
};

/// What HTTP requests go through before they are JSON-RPC.
type Http = Stack<ProxyGetRequestLayer, Stack<Either<CorsLayer, Identity>, Identity>>;

/// A pause after a connection that could not be accepted: the process has no file descriptors left, say.
const PAUSE: Duration = Duration::from_millis(50);

/// What somebody is told for whom there is no place.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 25\r\n\r\nToo many connections here";

/// How long it may take to tell so.
const TELLING: Duration = Duration::from_secs(1);

/// Longer than any connection.
const FOR_EVER: Duration = Duration::from_secs(1 << 30);

/// Answers that wait to be written to one WebSocket. More of them wait in their requests.
const WAITING_ANSWERS: u32 = 64;

/// Everything that a connection needs.
pub(crate) struct Doors {
    service: TowerServiceBuilder<Identity, Http>,
    methods: Methods,
    guard: GuardLayer,
    places: Arc<Semaphore>,
    max_under_way: usize,
    idle_time: Duration,
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
            // jsonrpsee counts requests; `places` counts connections.
            .max_connections(u32::MAX)
            .set_message_buffer_capacity(WAITING_ANSWERS)
            // So that something moves on a WebSocket whose client is there. `Flow` sees to those whose client is not:
            // jsonrpsee would take one for gone whose pongs are not read yet.
            .enable_ws_ping(PingConfig::new().ping_interval(config.idle_time / 4).inactive_limit(FOR_EVER))
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
            reads: Reads::new(config),
            rates: Rates::new(config.max_requests_per_second).map(Arc::new),
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            flow: Flow::new(config.max_requests_per_connection, config.idle_time),
        };
        if let Some(name) = guard.allowed.unknown(&guard.known) {
            return Err(ServeError::Method(name));
        }
        let places = Arc::new(Semaphore::new(config.max_connections as usize));
        let (max_under_way, idle_time) = (config.max_requests_per_connection, config.idle_time);
        Ok(Self { service, methods, guard, places, max_under_way, idle_time })
    }

    /// Serves connections until the server is told to stop.
    pub(crate) async fn open(self, listener: TcpListener, stop: StopHandle) {
        loop {
            let connection = tokio::select! {
                connection = listener.accept() => connection,
                () = stop.clone().shutdown() => return,
            };
            match connection {
                Ok((stream, client)) => match self.places.clone().try_acquire_owned() {
                    Ok(place) => self.serve(stream, client, place, stop.clone()),
                    Err(_) => refuse(stream),
                },
                Err(error) => {
                    debug!(%error, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn serve(&self, stream: TcpStream, client: SocketAddr, place: OwnedSemaphorePermit, stop: StopHandle) {
        // Answers are small and clients wait for them. A connection that is gone already shows that later.
        stream.set_nodelay(true).ok();
        let flow = Flow::new(self.max_under_way, self.idle_time);
        let guard = GuardLayer { client: client.ip(), flow: flow.clone(), ..self.guard.clone() };
        let guard = RpcServiceBuilder::new().layer(guard);
        let service = self.service.clone().set_rpc_middleware(guard).build(self.methods.clone(), stop.clone());
        let stream = Paced::new(stream, flow, place);
        tokio::spawn(async move {
            if let Err(error) = serve_with_graceful_shutdown(stream, service, stop.shutdown()).await {
                debug!(%error, %client, "connection");
            }
        });
    }
}

fn refuse(mut stream: TcpStream) {
    debug!("there is no place for another connection ([rpc] max_connections)");
    metrics::counter!("penstock_rpc_connections_refused_total").increment(1);
    // Whether it hears it or not.
    tokio::spawn(async move { tokio::time::timeout(TELLING, stream.write_all(FULL)).await.ok() });
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
