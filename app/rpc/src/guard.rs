//! Between the transport and the methods: which methods are served, how errors of parameters read, and what is counted.

use std::{collections::HashSet, future::Future, net::IpAddr, sync::Arc, time::Instant};

use jsonrpsee::{
    MethodResponse,
    core::middleware::{Batch, BatchEntry, Notification, RpcServiceT},
    core::server::BatchResponseBuilder,
    types::{
        ErrorObjectOwned, Id, Request,
        error::{INTERNAL_ERROR_CODE, INVALID_PARAMS_CODE, METHOD_NOT_FOUND_CODE},
    },
};
use metrics::{counter, histogram};
use serde_json::Value;

use crate::{
    error::{LIMIT_EXCEEDED, RpcError},
    flow::Flow,
    limits::{Rates, Reads},
};

/// The method behind `GET /health`.
pub(crate) const HEALTH: &str = "pipe_health";

/// Which methods clients may call, by name or by namespace; empty: all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Allowed(Option<Arc<HashSet<String>>>);

impl Allowed {
    pub(crate) fn new(names: &[String]) -> Self {
        Self((!names.is_empty()).then(|| Arc::new(names.iter().cloned().collect())))
    }

    /// The first name that is neither a method nor a namespace of one.
    pub(crate) fn unknown(&self, methods: &HashSet<&'static str>) -> Option<String> {
        let stands = |name: &&String| {
            !methods.iter().any(|method| method == name || method.split('_').next() == Some(name.as_str()))
        };
        let mut unknown: Vec<&String> = self.0.iter().flat_map(|names| names.iter()).filter(stands).collect();
        unknown.sort_unstable();
        unknown.first().map(|name| (*name).clone())
    }

    fn has(&self, method: &str) -> bool {
        let Some(names) = &self.0 else { return true };
        // `GET /health` is for load balancers, whatever clients may do.
        if method == HEALTH {
            return true;
        }
        let namespace = method.split('_').next().unwrap_or(method);
        names.contains(method) || names.contains(namespace)
    }
}

/// Puts a [`Guard`] around the service of one connection.
#[derive(Debug, Clone)]
pub(crate) struct GuardLayer {
    pub(crate) allowed: Allowed,
    /// The names of all methods: others are counted together, so that clients cannot make metrics grow.
    pub(crate) known: Arc<HashSet<&'static str>>,
    pub(crate) max_response_bytes: usize,
    pub(crate) reads: Reads,
    pub(crate) rates: Option<Arc<Rates>>,
    /// Who asks.
    pub(crate) client: IpAddr,
    /// The requests of its connection.
    pub(crate) flow: Arc<Flow>,
}

impl<S> tower::Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard { inner, around: self.clone() }
    }
}

/// The service around jsonrpsee's.
#[derive(Debug, Clone)]
pub(crate) struct Guard<S> {
    inner: S,
    around: GuardLayer,
}

impl<S> Guard<S>
where
    S: RpcServiceT<MethodResponse = MethodResponse> + Clone + Send + Sync + 'static,
{
    async fn answer(self, request: Request<'_>) -> MethodResponse {
        let begin = Instant::now();
        let _under_way = self.around.flow.begin();
        let id = request.id().into_owned();
        let known = self.around.known.get(request.method_name()).copied();
        let method = known.unwrap_or("unknown");
        let refused = |code: i32, message: String| {
            MethodResponse::error(id.clone(), ErrorObjectOwned::owned(code, message, None::<()>))
        };
        let response = if self.around.rates.as_ref().is_some_and(|rates| !rates.admits(self.around.client)) {
            refused(LIMIT_EXCEEDED, "too many requests from this address: ask again in a second".into())
        } else if known.is_none() || !self.around.allowed.has(request.method_name()) {
            let message = format!("the method {} does not exist/is not available", request.method_name());
            refused(METHOD_NOT_FOUND_CODE, message)
        } else {
            match self.around.reads.place(request.method_name()).await {
                Some(place) if place.is_held() => {
                    // In a task of its own: work that runs on a thread goes on when the client hangs up, and its place must
                    // be taken until then.
                    let (inner, request) = (self.inner.clone(), owned(request));
                    let work = tokio::spawn(async move {
                        let answer = inner.call(request).await;
                        drop(place);
                        answer
                    });
                    match work.await {
                        Ok(answer) => with_reason(answer, method, &id),
                        Err(error) => refused(INTERNAL_ERROR_CODE, format!("internal error: {error}")),
                    }
                }
                Some(_) => with_reason(self.inner.call(request).await, method, &id),
                None => MethodResponse::error(id.clone(), ErrorObjectOwned::from(RpcError::Busy)),
            }
        };
        counter!("penstock_rpc_requests_total", "method" => method, "ok" => if response.is_error() { "no" } else { "yes" })
            .increment(1);
        histogram!("penstock_rpc_seconds", "method" => method).record(begin.elapsed().as_secs_f64());
        response
    }

    /// A response that the connection will write, and nothing else: what a batch leaves out is never written.
    fn written(&self, response: MethodResponse) -> MethodResponse {
        self.around.flow.answers(response.as_json().get().len());
        response
    }
}

impl<S> RpcServiceT for Guard<S>
where
    S: RpcServiceT<
            MethodResponse = MethodResponse,
            NotificationResponse = MethodResponse,
            BatchResponse = MethodResponse,
        > + Clone
        + Send
        + Sync
        + 'static,
{
    type MethodResponse = MethodResponse;
    type NotificationResponse = MethodResponse;
    type BatchResponse = MethodResponse;

    fn call<'a>(&self, request: Request<'a>) -> impl Future<Output = MethodResponse> + Send + 'a {
        let guard = self.clone();
        async move {
            let response = guard.clone().answer(request).await;
            guard.written(response)
        }
    }

    fn batch<'a>(&self, requests: Batch<'a>) -> impl Future<Output = MethodResponse> + Send + 'a {
        let guard = self.clone();
        async move {
            let _under_way = guard.around.flow.begin();
            let mut answers = BatchResponseBuilder::new_with_limit(guard.around.max_response_bytes);
            let mut notified = false;
            for request in requests {
                let answer = match request {
                    Ok(BatchEntry::Call(request)) => guard.clone().answer(request).await,
                    Ok(BatchEntry::Notification(notification)) => {
                        guard.inner.notification(notification).await;
                        notified = true;
                        continue;
                    }
                    Err(error) => {
                        let (error, id) = error.into_parts();
                        MethodResponse::error(id, error)
                    }
                };
                if let Err(too_large) = answers.append(answer) {
                    return guard.written(too_large);
                }
            }
            match answers.is_empty() && notified {
                true => MethodResponse::notification(),
                // An empty batch is an error, which `finish` knows.
                false => guard.written(MethodResponse::from_batch(answers.finish())),
            }
        }
    }

    fn notification<'a>(&self, notification: Notification<'a>) -> impl Future<Output = MethodResponse> + Send + 'a {
        let guard = self.clone();
        async move { guard.inner.notification(notification).await }
    }
}

fn owned(request: Request<'_>) -> Request<'static> {
    Request {
        jsonrpc: request.jsonrpc,
        id: request.id.into_owned(),
        method: request.method.into_owned().into(),
        params: request.params.map(|params| std::borrow::Cow::Owned(params.into_owned())),
        extensions: request.extensions,
    }
}

/// The parser's reason stands in `data`, where no client looks: geth has it in the message.
fn with_reason(response: MethodResponse, method: &str, id: &Id<'static>) -> MethodResponse {
    if method.ends_with("ubscribe") && response.as_error_code() == Some(INTERNAL_ERROR_CODE) {
        // All that jsonrpsee says of a subscription over HTTP. geth's words and code.
        let message = "notifications not supported: subscriptions need a WebSocket";
        return MethodResponse::error(id.clone(), ErrorObjectOwned::owned(METHOD_NOT_FOUND_CODE, message, None::<()>));
    }
    if response.as_error_code() != Some(INVALID_PARAMS_CODE) {
        return response;
    }
    let error = serde_json::from_str::<Value>(response.as_json().get()).ok();
    let data = error.as_ref().and_then(|error| error["error"]["data"].as_str());
    let Some(reason) = data else { return response };
    // Where in the text: of no use to somebody who sent a value.
    let reason = reason.rsplit_once(" at line ").map_or(reason, |(reason, _)| reason);
    let message = format!("invalid params: {reason}");
    MethodResponse::error(id.clone(), ErrorObjectOwned::owned(INVALID_PARAMS_CODE, message, None::<()>))
}
