//! `penstock bench`: the load generator behind the README's figures.

mod accounts;
mod client;
mod drive;
mod load;
mod node;
mod report;
mod scenario;

use std::{
    fs,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use alloy_primitives::{Address, U256};
use alloy_signer_local::PrivateKeySigner;
use anyhow::{Context, bail};
use clap::Args;

use self::{
    accounts::Call,
    client::Client,
    drive::{Outcome, Watch},
    load::Contracts,
    node::{Ground, Node, System},
    report::{Report, Row},
    scenario::{Name, Scenario},
};
use crate::{
    commands::dev::{ACCOUNTS, BlockTime},
    settings::Settings,
};

/// Generate load, against a node that it starts or one that runs, and measure throughput, latency, block intervals.
///
/// Without --url each scenario runs on a fresh node in this process, and those that ask models run a second time with
/// inference inside execution, one request after the other, as older systems did it: the baseline.
///
/// Columns of the table: latency from sending to the block; block: time between blocks; fullest: most of its transactions in
/// one block; defer: proposals that left a transaction out for a new request; eff.: processor time of models over the time
/// of the cores. With a small --scale everything is in one block, and its moment decides over all figures.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// What to measure [default: idle transfers light direct medium dependent contended mixed; with --url without
    /// medium and mixed, whose models have to be in the chain's genesis]
    #[arg(value_enum)]
    scenarios: Vec<Name>,
    /// JSON-RPC of a running node; its chain needs the models of the scenarios
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Private key of the account on that chain that pays for the load [default: the first account of `penstock dev`]
    #[arg(long, value_name = "HEX", env = "PENSTOCK_BENCH_KEY", hide_env_values = true, requires = "url")]
    key: Option<String>,
    /// Time between blocks of the node that is started; 0: a block as soon as a transaction is ready
    #[arg(long, default_value = "200ms", value_name = "TIME", conflicts_with = "url")]
    block_time: BlockTime,
    /// Multiplies the numbers of transactions
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    scale: f64,
    /// Shares of the transactions of `mixed`
    #[arg(long, default_value = scenario::MIX, value_name = "KIND=SHARE,…")]
    mix: scenario::Mix,
    /// Transactions that `mixed` sends in a second
    #[arg(long, default_value_t = 100.0, value_name = "NUMBER")]
    rate: f64,
    /// How long `mixed` sends
    #[arg(long, default_value = "20s", value_name = "TIME")]
    duration: BlockTime,
    /// Without the baseline
    #[arg(long)]
    no_baseline: bool,
    /// Write the results as JSON, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Accounts and order of `mixed` follow from it
    #[arg(long, default_value_t = 7, value_name = "NUMBER")]
    seed: u64,
}

/// Accounts that send.
const SENDERS: usize = 1_024;
/// The same on a node that runs: each of them is given coins first.
const SENDERS_BY_URL: usize = 64;

/// Transactions that are pending at most.
const WINDOW: usize = 4_000;

pub(crate) fn run(bench: Bench, home: Option<&Path>) -> anyhow::Result<()> {
    let settings = Settings::load(home)?;
    if !(bench.scale > 0.0 && bench.scale <= 100.0 && bench.rate > 0.0) {
        bail!("--scale must be more than 0 and at most 100, and --rate more than 0");
    }
    if bench.duration.0.is_zero() {
        bail!("--duration must be more than 0");
    }
    if let Some(path) = &bench.json {
        // Before minutes are spent on it.
        fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let names = match (bench.scenarios.as_slice(), &bench.url) {
        ([], None) => Name::DEFAULT.to_vec(),
        ([], Some(_)) => Name::DEFAULT_BY_URL.to_vec(),
        (names, _) => names.to_vec(),
    };
    let scenarios: Vec<Scenario> = names
        .into_iter()
        .map(|name| Scenario::new(name, bench.scale, &bench.mix, bench.rate, bench.duration.0))
        .collect();
    let mut rows = Vec::new();
    match &bench.url {
        Some(url) => {
            let stand = Stand::of_url(url, &bench, &scenarios)?;
            for scenario in &scenarios {
                rows.extend(stand.run(scenario, System::Penstock, bench.seed, || Watch::Asked)?);
            }
        }
        None => {
            let senders = accounts::derive(bench.seed, SENDERS)?;
            let addresses: Vec<Address> = senders.iter().map(PrivateKeySigner::address).collect();
            let ground = Ground::new(&addresses)?;
            for scenario in &scenarios {
                let baseline = (scenario.has_baseline() && !bench.no_baseline).then_some(System::Blocking);
                for system in [System::Penstock].into_iter().chain(baseline) {
                    let slow = scenario.slow_requests();
                    let node = Node::start(&ground, settings.clone(), system, bench.block_time.0, slow)?;
                    let stand = Stand::new(&node.url, senders.clone())?;
                    let watch = || node.blocks().map_or(Watch::Asked, Watch::Told);
                    rows.extend(stand.run(scenario, system, bench.seed, watch)?);
                }
            }
        }
    }
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        node: bench.url.clone().unwrap_or_else(|| "started by the bench".into()),
        block_time_ms: bench.url.is_none().then_some(bench.block_time.0.as_secs_f64() * 1e3),
        seed: bench.seed,
        rows,
    };
    report::print(&report);
    if let Some(path) = &bench.json {
        fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// A node with everything that the load needs on it.
struct Stand {
    client: Client,
    chain_id: u64,
    senders: Vec<PrivateKeySigner>,
    contracts: Contracts,
}

impl Stand {
    /// On a node whose genesis has the senders.
    fn new(url: &str, senders: Vec<PrivateKeySigner>) -> anyhow::Result<Self> {
        let client = Client::new(url);
        let payer = senders.first().context("no accounts")?.clone();
        Self::with(client, &payer, senders, None)
    }

    /// On a node that runs: senders are given coins.
    fn of_url(url: &str, bench: &Bench, scenarios: &[Scenario]) -> anyhow::Result<Self> {
        let key = bench.key.as_deref().unwrap_or(ACCOUNTS[0].1);
        let payer: PrivateKeySigner = key.trim_start_matches("0x").parse().context("--key is no private key")?;
        let client = Client::new(url);
        load::check_models(&client, scenarios.iter().flat_map(Scenario::kinds))?;
        let coins = scenarios.iter().map(|scenario| scenario.cost_for_each(SENDERS_BY_URL)).sum();
        // Other accounts than those of a run before: what that left pending is not in the way.
        let nonce = client.nonces(&[payer.address()])?;
        let seed = bench.seed.wrapping_add(nonce.first().copied().unwrap_or_default() << 20);
        Self::with(client, &payer, accounts::derive(seed, SENDERS_BY_URL)?, Some(coins))
    }

    fn with(
        client: Client,
        payer: &PrivateKeySigner,
        senders: Vec<PrivateKeySigner>,
        coins: Option<U256>,
    ) -> anyhow::Result<Self> {
        let chain_id = drive::chain_id(&client)?;
        let first = client.nonces(&[payer.address()])?.first().copied().unwrap_or_default();
        let give =
            |(sender, value): (&PrivateKeySigner, U256)| Call { value, ..Call::to(sender.address(), vec![], 21_000) };
        let gifts = senders.iter().filter_map(|sender| Some((sender, coins?))).map(give);
        let calls = Contracts::deployments()?.into_iter().chain(gifts);
        let signed = (first..).zip(calls).map(|(nonce, call)| Ok(call.sign(chain_id, nonce, payer)?.1));
        let signed = signed.collect::<anyhow::Result<Vec<_>>>()?;
        let receipts = client.send_and_wait(&signed).context("preparing the load")?;
        let contracts = Contracts::from_receipts(&receipts)?;
        Ok(Self { client, chain_id, senders, contracts })
    }

    fn run(
        &self,
        scenario: &Scenario,
        system: System,
        seed: u64,
        watch: impl Fn() -> Watch,
    ) -> anyhow::Result<Vec<Row>> {
        let mut progress = Progress::new(scenario.name(), system);
        if let Some(time) = scenario.idle() {
            progress.say(&format!("{} s", time.as_secs_f64()));
            let outcome = match scenario.reads() {
                true => drive::reads(&self.client, watch(), time)?,
                false => drive::idle(&self.client, watch(), time)?,
            };
            return Ok(vec![Row::new(scenario.name(), system, outcome)]);
        }
        let senders = &self.senders[..self.senders.len().min(scenario.senders())];
        self.prepare(scenario, senders)?;
        if let Some(kind) = scenario.one_by_one() {
            return Ok(vec![self.one_by_one(scenario, kind, system, watch)?]);
        }
        progress.say("signing");
        let load = scenario.plan(&self.contracts, self.chain_id, senders, &self.client, seed)?;
        let total = load.len();
        let outcome = drive::drive(&self.client, watch(), &load, WINDOW, scenario.patience(), |sent, included| {
            progress.say(&format!("{sent} of {total} sent, {included} included"));
        })?;
        Ok(vec![Row::new(scenario.name(), system, outcome)])
    }

    fn prepare(&self, scenario: &Scenario, senders: &[PrivateKeySigner]) -> anyhow::Result<()> {
        let kinds: Vec<_> = scenario.kinds().collect();
        let addresses: Vec<Address> = senders.iter().map(PrivateKeySigner::address).collect();
        let mut nonces = self.client.nonces(&addresses)?;
        let mut signed = Vec::new();
        for kind in kinds {
            for (signer, nonce) in senders.iter().zip(&mut nonces) {
                if let Some(call) = self.contracts.preparation(kind) {
                    signed.push(call.sign(self.chain_id, *nonce, signer)?.1);
                    *nonce += 1;
                }
            }
        }
        self.client.send_and_wait(&signed).context("preparing the load")?;
        Ok(())
    }

    /// One transaction after the other on an idle chain.
    fn one_by_one(
        &self,
        scenario: &Scenario,
        kind: load::Kind,
        system: System,
        watch: impl Fn() -> Watch,
    ) -> anyhow::Result<Row> {
        let mut all = Outcome::default();
        let mut progress = Progress::new(scenario.name(), system);
        for (index, signer) in self.senders.iter().take(scenario.count()).enumerate() {
            progress.say(&format!("{index} of {}", scenario.count()));
            let nonce = self.client.nonces(&[signer.address()])?.first().copied().unwrap_or_default();
            let call = self.contracts.call(kind, 1_000_000 + index as u64);
            let (hash, raw) = call.sign(self.chain_id, nonce, signer)?;
            let planned = drive::Planned { kind, hash, raw, at: Duration::ZERO, lane: 0 };
            let outcome = drive::drive(&self.client, watch(), &[planned], 1, scenario.patience(), |_, _| {})?;
            all.add(outcome);
        }
        Ok(Row::new(scenario.name(), system, all))
    }
}

/// One line on the terminal that changes; lines now and then elsewhere.
struct Progress {
    name: String,
    last: Option<Instant>,
    terminal: bool,
}

impl Progress {
    fn new(scenario: &str, system: System) -> Self {
        let name = match system {
            System::Penstock => scenario.to_owned(),
            System::Blocking => format!("{scenario}, inference inside execution"),
        };
        Self { name, last: None, terminal: std::io::stderr().is_terminal() }
    }

    fn say(&mut self, what: &str) {
        let every = Duration::from_millis(if self.terminal { 200 } else { 10_000 });
        if self.last.is_some_and(|last| last.elapsed() < every) {
            return;
        }
        self.last = Some(Instant::now());
        let mut to = std::io::stderr().lock();
        // Progress that nobody can read is no reason to stop.
        let _ = if self.terminal {
            write!(to, "\r\x1b[K{}: {what}", self.name)
        } else {
            writeln!(to, "{}: {what}", self.name)
        };
        let _ = to.flush();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal && self.last.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}
