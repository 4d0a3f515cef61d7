//! What can be measured.

use core::str::FromStr;
use std::time::Duration;

use alloy_primitives::{Address, U256};
use alloy_signer_local::PrivateKeySigner;
use anyhow::Context;
use clap::ValueEnum;

use super::{
    client::Client,
    drive::{LANES, Planned},
    load::{Contracts, Kind},
    node::SLOW_FOR,
};

/// The default of `--mix`.
pub(super) const MIX: &str = "plain=50,light=30,dependent=10,contended=8,heavy=2";

/// A scenario by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// A chain that nobody uses: its block intervals
    Idle,
    /// A chain that nobody sends anything to, and that is asked for calls, traces, logs and proofs without end
    Reads,
    /// Single questions to a model of 10 ms on an idle chain: time from submission to block
    One,
    /// 5,000 transfers at once
    Transfers,
    /// 5,000 questions to digits-mlp at once, by a contract that keeps the answers
    Light,
    /// The same questions straight to the precompile
    Direct,
    /// 500 questions to a model of 10 ms at once: how well the cores are used
    Medium,
    /// 20 questions to a model of most of a second at once
    Heavy,
    /// 300 transactions at once with eight requests each, every one about the answer before
    Dependent,
    /// 200 swaps at once whose fee a model sets from what the swap before left
    Contended,
    /// All kinds together at a steady rate (--mix, --rate, --duration)
    Mixed,
    /// 1,000 questions to a model of a minute (somewhere else), and 1,000 light ones meanwhile: 80 s
    Waiting,
}

impl Name {
    pub(super) const DEFAULT: [Self; 8] = [
        Self::Idle,
        Self::Transfers,
        Self::Light,
        Self::Direct,
        Self::Medium,
        Self::Dependent,
        Self::Contended,
        Self::Mixed,
    ];
}

impl Name {
    /// Those of them that every chain with the bundled models can run.
    pub(super) const DEFAULT_BY_URL: [Self; 6] =
        [Self::Idle, Self::Transfers, Self::Light, Self::Direct, Self::Dependent, Self::Contended];
}

/// Shares of kinds of transactions.
#[derive(Debug, Clone)]
pub(crate) struct Mix(Vec<(Kind, u32)>);

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let part = |part: &str| {
            let (kind, share) = part.split_once('=').with_context(|| format!("`{part}` is not KIND=SHARE"))?;
            let share = share.parse().with_context(|| format!("`{share}` is no share"))?;
            anyhow::Ok((Kind::of(kind)?, share))
        };
        let mix = text.split(',').map(part).collect::<Result<Vec<_>, _>>().map_err(|error| format!("{error:#}"))?;
        let total: u64 = mix.iter().map(|(_, share)| u64::from(*share)).sum();
        if total == 0 {
            return Err("all shares are 0".into());
        }
        if mix.iter().any(|(kind, share)| *kind == Kind::Slow && *share > 0) {
            return Err("`slow` is for the scenario `waiting`".into());
        }
        Ok(Self(mix))
    }
}

/// A part of a load: so many of a kind, at once or over a time.
#[derive(Debug, Clone, Copy)]
struct Part {
    kind: Kind,
    count: usize,
    from: Duration,
    over: Duration,
}

/// A scenario with its numbers.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    name: Name,
    parts: Vec<Part>,
}

impl Scenario {
    pub(super) fn new(name: Name, scale: f64, mix: &Mix, rate: f64, duration: Duration) -> Self {
        let scaled = |count: usize| ((count as f64 * scale).round() as usize).max(1);
        let part = |kind, count| Part { kind, count: scaled(count), from: Duration::ZERO, over: Duration::ZERO };
        let parts = match name {
            Name::Idle | Name::Reads => vec![],
            Name::One => vec![part(Kind::Medium, 20)],
            Name::Transfers => vec![part(Kind::Plain, 5_000)],
            Name::Light => vec![part(Kind::Light, 5_000)],
            Name::Direct => vec![part(Kind::Direct, 5_000)],
            Name::Medium => vec![part(Kind::Medium, 500)],
            Name::Heavy => vec![part(Kind::Heavy, 20)],
            Name::Dependent => vec![part(Kind::Dependent, 300)],
            Name::Contended => vec![part(Kind::Contended, 200)],
            Name::Mixed => {
                let total: f64 = mix.0.iter().map(|(_, share)| f64::from(*share)).sum();
                let count = |share: u32| (rate * duration.as_secs_f64() * f64::from(share) / total * scale).round();
                let part = |(kind, share): &(Kind, u32)| {
                    let count = count(*share) as usize;
                    Part { kind: *kind, count, from: Duration::ZERO, over: duration }
                };
                mix.0.iter().map(part).collect()
            }
            Name::Waiting => {
                let second = Duration::from_secs(1);
                let light = Part { from: 5 * second, over: SLOW_FOR - 10 * second, ..part(Kind::Light, 1_000) };
                vec![Part { over: 3 * second, ..part(Kind::Slow, 1_000) }, light]
            }
        };
        Self { name, parts }
    }

    pub(super) fn name(&self) -> &'static str {
        match self.name {
            Name::Idle => "idle",
            Name::Reads => "reads",
            Name::One => "one",
            Name::Transfers => "transfers",
            Name::Light => "light",
            Name::Direct => "direct",
            Name::Medium => "medium",
            Name::Heavy => "heavy",
            Name::Dependent => "dependent",
            Name::Contended => "contended",
            Name::Mixed => "mixed",
            Name::Waiting => "waiting",
        }
    }

    pub(super) fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.parts.iter().filter(|part| part.count > 0).map(|part| part.kind)
    }

    /// How long nothing is sent, if that is all.
    pub(super) fn idle(&self) -> Option<Duration> {
        matches!(self.name, Name::Idle | Name::Reads).then_some(Duration::from_secs(15))
    }

    /// Whether it is asked for everything that can be read meanwhile.
    pub(super) fn reads(&self) -> bool {
        self.name == Name::Reads
    }

    /// Sent one after the other.
    pub(super) fn one_by_one(&self) -> Option<Kind> {
        (self.name == Name::One).then_some(Kind::Medium)
    }

    pub(super) fn count(&self) -> usize {
        self.parts.iter().map(|part| part.count).sum()
    }

    /// Whether the same load is run with inference inside execution.
    pub(super) fn has_baseline(&self) -> bool {
        !matches!(self.name, Name::Idle | Name::Reads | Name::Transfers | Name::Waiting)
    }

    /// Requests that wait on other machines at once.
    pub(super) fn slow_requests(&self) -> usize {
        self.parts.iter().filter(|part| part.kind == Kind::Slow).map(|part| part.count).sum()
    }

    /// Accounts that send: each has to be prepared for swaps.
    pub(super) fn senders(&self) -> usize {
        if self.kinds().any(|kind| kind == Kind::Contended) { 40 } else { usize::MAX }
    }

    /// The most that any of `senders` accounts may have to pay.
    pub(super) fn cost_for_each(&self, senders: usize) -> U256 {
        let senders = senders.min(self.senders());
        let share = (senders / self.kinds().count().max(1)).max(1);
        let parts = self.parts.iter().map(|part| part.kind.cost() * U256::from(part.count.div_ceil(share)));
        parts.sum()
    }

    /// Time without a block that has something of the load, after which it is given up.
    pub(super) fn patience(&self) -> Duration {
        SLOW_FOR + Duration::from_secs(60)
    }

    /// The signed transactions, in the order in which they are sent.
    pub(super) fn plan(
        &self,
        contracts: &Contracts,
        chain_id: u64,
        senders: &[PrivateKeySigner],
        client: &Client,
        seed: u64,
    ) -> anyhow::Result<Vec<Planned>> {
        let addresses: Vec<Address> = senders.iter().map(PrivateKeySigner::address).collect();
        let mut nonces = client.nonces(&addresses)?;
        let mut due: Vec<(Duration, Kind, u64)> = Vec::new();
        for part in &self.parts {
            let at = |n: usize| part.from + part.over.mul_f64(n as f64 / part.count.max(1) as f64);
            due.extend((0..part.count).map(|n| (at(n), part.kind, n as u64)));
        }
        due.sort_by_key(|(at, ..)| *at);
        // Accounts of one kind of load only: a light question does not wait behind a slow one of its account.
        let kinds: Vec<Kind> = self.kinds().collect();
        let share = (senders.len() / kinds.len().max(1)).max(1);
        due.into_iter()
            .map(|(at, kind, n)| {
                let group = kinds.iter().position(|other| *other == kind).unwrap_or_default();
                let account = (group * share + n as usize % share) % senders.len();
                let (signer, nonce) = (&senders[account], &mut nonces[account]);
                let call = contracts.call(kind, seed.wrapping_mul(1_000_003).wrapping_add(n) % (1 << 40));
                let (hash, raw) = call.sign(chain_id, *nonce, signer)?;
                *nonce += 1;
                Ok(Planned { kind, hash, raw, at, lane: account % LANES })
            })
            .collect()
    }
}
