//! The metrics endpoint: `GET /metrics` in Prometheus' text format. The README lists what it tells.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Bytes, body::Incoming, header, service::service_fn};
use hyper_util::rt::TokioIo;
use metrics::{describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use penstock_chain::Chain;
use penstock_pipe::Stage;
use tokio::{net::TcpListener, task::JoinHandle};
use tracing::{debug, info};

/// Seconds: from an ABCI call over a unix socket to a slow model.
const SECONDS: [f64; 14] = [0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0, 3.0, 10.0, 30.0];
const BYTES: [f64; 7] = [1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8];
const COUNTS: [f64; 8] = [0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3];

/// How often histograms are folded when nobody reads them.
const UPKEEP: Duration = Duration::from_secs(5);

/// Begins to collect; once in a process.
pub(crate) fn install() -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_bytes".into()), &BYTES))
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_results".into()), &COUNTS))
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_waves".into()), &COUNTS))
        .and_then(PrometheusBuilder::install_recorder)
        .context("cannot collect metrics")?;
    describe();
    Ok(handle)
}

fn describe() {
    describe_histogram!("penstock_abci_call_seconds", "Time of ABCI calls, by method");
    describe_counter!("penstock_abci_refused_total", "ABCI connections closed because of unreadable requests");
    describe_gauge!("penstock_block_height", "Height of the newest committed block");
    describe_counter!("penstock_block_transactions_total", "Committed transactions");
    describe_counter!("penstock_block_inferences_total", "Results in committed blocks");
    describe_counter!("penstock_block_gas_used_total", "Gas of committed transactions");
    describe_histogram!("penstock_block_execution_seconds", "Time of executing a block that was not kept");
    describe_counter!(
        "penstock_finalized_executions_total",
        "Finalized blocks, by where their execution came from: the proposal, or the block alone"
    );
    describe_histogram!("penstock_proposal_bytes", "Size of the proposals of this node, as CometBFT counts it");
    describe_histogram!("penstock_proposal_results", "Results in the proposals of this node");
    describe_counter!("penstock_tasks_proposed_total", "Runs of scheduled tasks in this node's proposals");
    describe_counter!("penstock_proposals_rejected_total", "Proposals that this node rejected, by reason");
    describe_counter!("penstock_transactions_refused_total", "Transactions that were not admitted, by reason");
    describe_counter!("penstock_rpc_requests_total", "JSON-RPC requests, by method and by whether they succeeded");
    describe_histogram!("penstock_rpc_seconds", "Time of JSON-RPC requests, waiting for their turn included");
    describe_gauge!("penstock_pool_transactions", "Transactions in the pool, by stage");
    describe_gauge!("penstock_pool_oldest_seconds", "Age of the oldest transaction in the pool, by stage");
    describe_gauge!("penstock_pool_inferring", "Transactions that wait for results, by wave");
    describe_gauge!("penstock_pool_held_back", "Transactions that wait for the inference budget of their account");
    describe_gauge!("penstock_pool_memory_bytes", "Memory of the transactions in the pool, about");
    describe_histogram!("penstock_pool_new_head_seconds", "Time that the pool takes for a new head");
    describe_histogram!("penstock_simulation_seconds", "Time of simulations");
    describe_histogram!("penstock_transaction_stage_seconds", "Time that transactions spend in a stage, by stage");
    describe_histogram!("penstock_transaction_waves", "Waves of requests of included transactions");
    describe_counter!("penstock_transactions_dropped_total", "Transactions dropped from the pool, by reason");
    describe_counter!(
        "penstock_deferrals_total",
        "Transactions that a proposal of this node left out for new requests"
    );
    describe_gauge!("penstock_inference_requests", "Requests of this node, by state");
    describe_gauge!("penstock_inference_core_seconds", "Processor time of all model runs");
    describe_counter!("penstock_inference_requests_done_total", "Requests that this node answered");
    describe_gauge!("penstock_inference_cached_results", "Results in memory");
    describe_histogram!("penstock_inference_run_seconds", "Time of model runs");
    describe_histogram!("penstock_snapshot_seconds", "Time of making a snapshot");
    describe_gauge!("penstock_snapshot_height", "Height of the newest snapshot");
    describe_counter!("penstock_snapshot_failures_total", "Snapshots that could not be made");
    describe_counter!("penstock_handed_over_transactions_total", "Transactions handed over to CometBFT for gossip");
    describe_counter!("penstock_cometbft_restarts_total", "Ends of the supervised CometBFT");
}

/// The running endpoint.
#[derive(Debug)]
pub(crate) struct MetricsServer {
    tasks: [JoinHandle<()>; 2],
}

impl MetricsServer {
    /// Starts it on the current tokio runtime.
    pub(crate) async fn start(listen: SocketAddr, handle: PrometheusHandle, chain: Arc<Chain>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(listen).await.with_context(|| {
            format!("cannot serve metrics on {listen}: choose another address with --metrics-listen")
        })?;
        info!(address = %listener.local_addr()?, "metrics");
        let upkeep = {
            let handle = handle.clone();
            tokio::spawn(async move {
                let mut ticks = tokio::time::interval(UPKEEP);
                loop {
                    ticks.tick().await;
                    handle.run_upkeep();
                }
            })
        };
        let serve = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    // Out of file descriptors, for example: not to spin.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let (handle, chain) = (handle.clone(), chain.clone());
                tokio::spawn(async move {
                    let answer = |request| core::future::ready(answer(&request, &handle, &chain));
                    let connection = hyper::server::conn::http1::Builder::new()
                        .timer(hyper_util::rt::TokioTimer::new())
                        .header_read_timeout(Duration::from_secs(10))
                        .serve_connection(TokioIo::new(stream), service_fn(answer));
                    if let Err(error) = connection.await {
                        debug!(%error, "a reader of metrics went away");
                    }
                });
            }
        });
        Ok(Self { tasks: [upkeep, serve] })
    }

    /// Ends it.
    pub(crate) fn stop(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn answer(
    request: &Request<Incoming>,
    handle: &PrometheusHandle,
    chain: &Chain,
) -> Result<Response<Full<Bytes>>, hyper::http::Error> {
    if request.method() != Method::GET || request.uri().path() != "/metrics" {
        return Response::builder().status(StatusCode::NOT_FOUND).body("GET /metrics\n".into());
    }
    look(chain);
    Response::builder()
        .header(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")
        .body(handle.render().into())
}

/// Sets what is counted elsewhere.
fn look(chain: &Chain) {
    if let Ok(pool) = chain.pool() {
        let counts = pool.read(penstock_pipe::Pool::counts);
        for (stage, count) in [
            ("queued", counts.queued),
            ("simulating", counts.simulating),
            ("inferring", counts.inferring),
            ("ready", counts.ready),
            ("proposed", counts.proposed),
        ] {
            gauge!("penstock_pool_transactions", "stage" => stage).set(count as f64);
        }
        gauge!("penstock_pool_held_back").set(counts.held_back as f64);
        gauge!("penstock_pool_memory_bytes").set(counts.bytes as f64);
        let ages = pool.ages();
        for stage in [Stage::Queued, Stage::Simulating, Stage::Inferring, Stage::Ready, Stage::Proposed] {
            let oldest = ages.oldest.get(&stage).copied().unwrap_or_default();
            gauge!("penstock_pool_oldest_seconds", "stage" => stage.name()).set(oldest.as_secs_f64());
        }
        // Buckets: a wave of its own for the first ones only.
        for (name, waves) in [("1", 0..=1), ("2", 2..=2), ("3-4", 3..=4), ("5-8", 5..=8), ("9-", 9..=u32::MAX)] {
            let count: usize = ages.waves.range(waves).map(|(_, count)| count).sum();
            gauge!("penstock_pool_inferring", "wave" => name).set(count as f64);
        }
    }
    let status = chain.network().status();
    gauge!("penstock_inference_requests", "state" => "queued").set(status.queued as f64);
    gauge!("penstock_inference_requests", "state" => "running").set(status.running as f64);
    gauge!("penstock_inference_cached_results").set(status.cached as f64);
    gauge!("penstock_inference_core_seconds").set(status.run_time.as_secs_f64());
    metrics::counter!("penstock_inference_requests_done_total").absolute(status.done);
}
