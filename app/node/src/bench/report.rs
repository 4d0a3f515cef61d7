//! The table and the JSON of a run.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::{drive::Outcome, load::Kind, node::System};

/// Quantiles in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Quantiles {
    pub(super) count: usize,
    pub(super) p50: f64,
    pub(super) p95: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Quantiles {
    /// `None` of nothing.
    pub(super) fn of(values: &[Duration]) -> Option<Self> {
        let mut sorted: Vec<f64> = values.iter().map(|value| value.as_secs_f64() * 1e3).collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let at = |quantile: f64| sorted.get((last as f64 * quantile).ceil() as usize).copied().unwrap_or_default();
        Some(Self { count: sorted.len(), p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1.0) })
    }
}

/// One scenario on one system.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    pub(super) scenario: &'static str,
    pub(super) system: &'static str,
    pub(super) sent: usize,
    pub(super) included: usize,
    pub(super) failed: usize,
    pub(super) refused: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refusal: Option<String>,
    pub(super) missing: usize,
    pub(super) seconds: f64,
    pub(super) transactions_per_second: f64,
    pub(super) latency_ms: BTreeMap<Kind, Option<Quantiles>>,
    pub(super) block_interval_ms: Option<Quantiles>,
    pub(super) blocks: usize,
    pub(super) fullest_block: usize,
    pub(super) deferrals: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) inference_efficiency: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reads_per_second: Option<f64>,
}

impl Row {
    pub(super) fn new(scenario: &'static str, system: System, outcome: Outcome) -> Self {
        let included: usize = outcome.latencies.values().map(Vec::len).sum();
        let seconds = outcome.took.as_secs_f64();
        Self {
            scenario,
            system: match system {
                System::Penstock => "penstock",
                System::Blocking => "blocking",
            },
            sent: outcome.sent.values().sum(),
            included,
            failed: outcome.failed,
            refused: outcome.refused,
            refusal: outcome.refusal,
            missing: outcome.missing,
            seconds,
            transactions_per_second: if seconds > 0.0 { included as f64 / seconds } else { 0.0 },
            latency_ms: outcome.latencies.iter().map(|(kind, times)| (*kind, Quantiles::of(times))).collect(),
            block_interval_ms: Quantiles::of(&outcome.intervals),
            blocks: outcome.blocks,
            fullest_block: outcome.fullest,
            deferrals: outcome.deferrals,
            inference_efficiency: outcome.efficiency,
            reads_per_second: outcome.reads,
        }
    }
}

/// Everything of a run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) version: &'static str,
    pub(super) cores: usize,
    pub(super) node: String,
    pub(super) block_time_ms: Option<f64>,
    pub(super) seed: u64,
    pub(super) rows: Vec<Row>,
}

/// Prints the table.
pub(super) fn print(report: &Report) {
    say!(
        "\nPenstock {} on {} cores; {}; times in ms\n",
        report.version,
        report.cores,
        report.block_time_ms.map_or_else(|| report.node.clone(), |ms| format!("a block every {ms} ms"))
    );
    say!(
        "{:<22} {:>6} {:>8} {:>9} {:>27} {:>25} {:>7} {:>6} {:>6}",
        "scenario",
        "sent",
        "included",
        "tx/s",
        "latency p50 / p95 / p99",
        "block p50 / p99 / max",
        "fullest",
        "defer",
        "eff."
    );
    for row in &report.rows {
        let interval = row.block_interval_ms.map_or_else(String::new, |interval| {
            format!("{:.1} / {:.1} / {:.1}", interval.p50, interval.p99, interval.max)
        });
        let name = if row.system == "penstock" {
            row.scenario.to_owned()
        } else {
            format!("{}, {}", row.scenario, row.system)
        };
        let latency = |quantiles: &Option<Quantiles>| {
            quantiles.map_or_else(String::new, |q| format!("{:.1} / {:.1} / {:.1}", q.p50, q.p95, q.p99))
        };
        let single = row.latency_ms.values().next().filter(|_| row.latency_ms.len() == 1);
        say!(
            "{name:<22} {:>6} {:>8} {:>9.1} {:>27} {interval:>25} {:>7} {:>6} {:>6}",
            row.sent,
            row.included,
            row.transactions_per_second,
            single.map(latency).unwrap_or_default(),
            row.fullest_block,
            row.deferrals,
            row.inference_efficiency.map_or_else(String::new, |efficiency| format!("{efficiency:.2}")),
        );
        if row.latency_ms.len() > 1 {
            for (kind, quantiles) in &row.latency_ms {
                let count = quantiles.map_or(0, |quantiles| quantiles.count);
                say!("  {:<20} {:>6} {:>8} {:>9} {:>27}", kind.name(), "", count, "", latency(quantiles));
            }
        }
        if let Some(reads) = row.reads_per_second {
            say!("  {reads:.0} answers a second to calls, traces, logs and proofs");
        }
        if row.failed + row.refused + row.missing > 0 {
            say!(
                "  ! {} failed, {} refused{}, {} not included in time",
                row.failed,
                row.refused,
                row.refusal.as_ref().map_or_else(String::new, |reason| format!(" ({reason})")),
                row.missing
            );
        }
    }
    let find = |scenario: &str, system: &str| {
        report.rows.iter().find(|row| row.scenario == scenario && row.system == system && row.included > 0)
    };
    say!("");
    for row in report.rows.iter().filter(|row| row.system == "blocking") {
        if let Some(own) = find(row.scenario, "penstock") {
            let ratio = own.transactions_per_second / row.transactions_per_second;
            say!("{}: {ratio:.2} times the throughput of inference inside execution", row.scenario);
        }
    }
    if let Some(plain) = find("transfers", "penstock") {
        for name in ["light", "direct"] {
            if let Some(row) = find(name, "penstock") {
                let ratio = row.transactions_per_second / plain.transactions_per_second;
                say!("{name}: {ratio:.2} of the throughput of transfers");
            }
        }
    }
}
