//! What the load consists of: kinds of transactions, and the contracts that they call.

use alloy_primitives::{Address, Bytes, TxKind, U256, address};
use alloy_sol_types::{SolCall, SolConstructor, sol};
use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::{accounts::Call, client::Client};

sol! {
    struct Number { int128 value; int128 decimals; }

    function ask(string model, string inputName, Number[] values, uint32[] shape);
    function swap(bool aForB, uint256 amountIn);
    function fund(uint256 a, uint256 b);
    function iterate(int128 x, uint256 depth);

    struct MultiDimensionalNumberTensor { string name; Number[] values; uint32[] shape; }
    struct StringTensor { string name; string[] values; }
    struct ModelInput { MultiDimensionalNumberTensor[] numbers; StringTensor[] strings; }
    struct ModelInferenceRequest { uint8 mode; string modelCID; ModelInput input; }
    function runModelInference(ModelInferenceRequest request);

    contract DynamicFeePool {
        constructor(string model, uint256 reserveA, uint256 reserveB);
    }
}

/// Gas of the transaction that an account sends before its swaps.
const PREPARATION_GAS: u64 = 300_000;

const PRECOMPILE: Address = address!("00000000000000000000000000000000000000F4");

pub(super) const DIGITS: &str = "penstock/digits-mlp";
pub(super) const MEDIUM: &str = "bench/medium";
pub(super) const HEAVY: &str = "bench/heavy";
pub(super) const SLOW: &str = "bench/slow";

/// Requests of a `dependent` transaction, each about the answer before.
pub(super) const DEPTH: u64 = 8;

/// A kind of transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// A transfer.
    Plain,
    /// A contract that asks digits-mlp about 64 numbers, keeps and logs the answer.
    Light,
    /// The same question straight to the precompile.
    Direct,
    /// A model of some 10 ms.
    Medium,
    /// A model of more than a second.
    Heavy,
    /// Eight requests, each about the answer before.
    Dependent,
    /// A swap in a pool whose fee a model sets from the state that the swap before left.
    Contended,
    /// A model that answers after a minute, from somewhere else: it takes none of this machine's time.
    Slow,
}

impl Kind {
    pub(super) const ALL: [Self; 8] = [
        Self::Plain,
        Self::Light,
        Self::Direct,
        Self::Medium,
        Self::Heavy,
        Self::Dependent,
        Self::Contended,
        Self::Slow,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Light => "light",
            Self::Direct => "direct",
            Self::Medium => "medium",
            Self::Heavy => "heavy",
            Self::Dependent => "dependent",
            Self::Contended => "contended",
            Self::Slow => "slow",
        }
    }

    pub(super) fn of(name: &str) -> anyhow::Result<Self> {
        let kind = Self::ALL.into_iter().find(|kind| kind.name() == name);
        kind.with_context(|| {
            format!("there is no kind of transaction `{name}` (there are {})", Self::ALL.map(Self::name).join(", "))
        })
    }

    /// Whether it makes requests.
    pub(super) fn asks(self) -> bool {
        self != Self::Plain
    }

    /// The model that it needs.
    pub(super) fn model(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Light | Self::Direct => Some(DIGITS),
            Self::Medium => Some(MEDIUM),
            Self::Heavy => Some(HEAVY),
            Self::Dependent => Some("penstock/linear"),
            Self::Contended => Some("penstock/volatility"),
            Self::Slow => Some(SLOW),
        }
    }

    /// The most that a transaction costs its sender, with what has to be done before.
    pub(super) fn cost(self) -> U256 {
        let gas = self.gas() + if self == Self::Contended { PREPARATION_GAS } else { 0 };
        Call { value: U256::from(1), ..Call::to(PRECOMPILE, vec![], gas) }.cost()
    }

    /// Gas of a transaction, with some to spare.
    fn gas(self) -> u64 {
        match self {
            Self::Plain => 21_000,
            Self::Light | Self::Direct => 600_000,
            Self::Medium => 600_000,
            Self::Heavy | Self::Slow => 29_000_000,
            Self::Dependent => 1_500_000,
            Self::Contended => 1_500_000,
        }
    }
}

/// The contracts of the load.
#[derive(Debug, Clone, Copy)]
pub(super) struct Contracts {
    advisor: Address,
    chain: Address,
    pool: Address,
}

fn bytecode(artifact: &str) -> anyhow::Result<Vec<u8>> {
    let artifact: Value = serde_json::from_str(artifact)?;
    let code: Bytes = serde_json::from_value(artifact["bytecode"].clone()).context("bytecode of a bundled contract")?;
    Ok(code.to_vec())
}

impl Contracts {
    /// The transactions that deploy them, in order.
    pub(super) fn deployments() -> anyhow::Result<[Call; 3]> {
        let arguments = DynamicFeePool::constructorCall {
            model: "penstock/volatility".into(),
            reserveA: U256::from(1_000_000_000u64),
            reserveB: U256::from(1_000_000_000u64),
        };
        let advisor = bytecode(include_str!("../../../contracts/out/Advisor.json"))?;
        let chain = bytecode(include_str!("../../../contracts/out/ModelChain.json"))?;
        let pool =
            [bytecode(include_str!("../../../contracts/out/DynamicFeePool.json"))?, arguments.abi_encode()].concat();
        let deploy = |code: Vec<u8>| Call { to: TxKind::Create, value: U256::ZERO, input: code.into(), gas: 4_000_000 };
        Ok([deploy(advisor), deploy(chain), deploy(pool)])
    }

    pub(super) fn from_receipts(receipts: &[Value]) -> anyhow::Result<Self> {
        let at = |index: usize| -> anyhow::Result<Address> {
            let receipt = receipts.get(index).context("a contract was not deployed")?;
            Ok(serde_json::from_value(receipt["contractAddress"].clone())?)
        };
        Ok(Self { advisor: at(0)?, chain: at(1)?, pool: at(2)? })
    }

    /// What an account has to do before it sends `kind`.
    pub(super) fn preparation(&self, kind: Kind) -> Option<Call> {
        let fund = fundCall { a: U256::from(1u64 << 40), b: U256::from(1u64 << 40) };
        (kind == Kind::Contended).then(|| Call::to(self.pool, fund.abi_encode(), PREPARATION_GAS))
    }

    /// The `index`-th transaction of a kind; no two ask the same.
    pub(super) fn call(&self, kind: Kind, index: u64) -> Call {
        let gas = kind.gas();
        let ask = |model: &str, values: Vec<Number>| {
            askCall { model: model.into(), inputName: String::new(), values, shape: vec![] }.abi_encode()
        };
        let few = || (0..4).map(|n| number(i128::from(index) + n)).collect();
        match kind {
            Kind::Plain => Call { value: U256::from(1), ..Call::to(recipient(index), vec![], gas) },
            Kind::Light => Call::to(self.advisor, ask(DIGITS, picture(index)), gas),
            Kind::Direct => Call::to(PRECOMPILE, direct(picture(index)), gas),
            Kind::Medium => Call::to(self.advisor, ask(MEDIUM, few()), gas),
            Kind::Heavy => Call::to(self.advisor, ask(HEAVY, few()), gas),
            Kind::Slow => Call::to(self.advisor, ask(SLOW, few()), gas),
            Kind::Dependent => {
                Call::to(self.chain, iterateCall { x: i128::from(index), depth: U256::from(DEPTH) }.abi_encode(), gas)
            }
            Kind::Contended => {
                let amount = U256::from(1_000 + index * 17 % 5_000);
                Call::to(self.pool, swapCall { aForB: index.is_multiple_of(2), amountIn: amount }.abi_encode(), gas)
            }
        }
    }
}

/// Refuses a load whose models the node does not have.
pub(super) fn check_models(client: &Client, kinds: impl Iterator<Item = Kind>) -> anyhow::Result<()> {
    for kind in kinds {
        let Some(model) = kind.model() else { continue };
        if client.call("pipe_getModel", json!([model]))?["available"] != true {
            bail!(
                "`{}` needs the model {model}, which the node does not have (without --url a node that has it is started)",
                kind.name()
            );
        }
    }
    Ok(())
}

fn number(value: i128) -> Number {
    Number { value, decimals: 0 }
}

/// A picture of 8 × 8 shades from 0 to 16, different for each index.
fn picture(index: u64) -> Vec<Number> {
    let shade = |n: u64| number(i128::from(index.rotate_right(u32::try_from(n).unwrap_or_default() * 4) % 17));
    (0..64).map(|n| if n < 16 { shade(n) } else { number(i128::from((n * 7 + index) % 17)) }).collect()
}

fn recipient(index: u64) -> Address {
    Address::left_padding_from(&[&[0x77, 0x01], &(index % 1_000).to_be_bytes()[..]].concat())
}

fn direct(values: Vec<Number>) -> Vec<u8> {
    let tensor = MultiDimensionalNumberTensor { name: String::new(), values, shape: vec![1, 64] };
    let input = ModelInput { numbers: vec![tensor], strings: vec![] };
    let request = ModelInferenceRequest { mode: 0, modelCID: DIGITS.into(), input };
    runModelInferenceCall { request }.abi_encode()
}
