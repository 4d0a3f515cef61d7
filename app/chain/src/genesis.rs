//! Penstock's part of a CometBFT genesis document.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use alloy_eips::{
    eip2935::{HISTORY_STORAGE_ADDRESS, HISTORY_STORAGE_CODE},
    eip4788::{BEACON_ROOTS_ADDRESS, BEACON_ROOTS_CODE},
};
use alloy_genesis::GenesisAccount;
use alloy_primitives::{Address, Bytes, U256};
use penstock_evm::{
    GasSchedule, INFERENCE, INFERENCE_V1, Limits, PRICE_FEED, Policy, RegisteredModel, Registry, Rules,
};
use penstock_inference::{ContentHash, Dim, ModelDescriptor, OpsCost, Sizes, TensorSpec};
use revm::primitives::hardfork::SpecId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{PriceFeedConfig, SchedulerConfig, VALIDATORS, consensus_params::Params, predeploys, validators};

/// What is at the addresses of the inference precompile, so that `extcodesize` is not zero: older
/// compilers check it. It is never run.
const PRECOMPILE_CODE: &[u8] = &[0xfe];

/// A genesis that cannot be used, with the path of the wrong field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("genesis: {path}: {reason}")]
pub struct GenesisError {
    /// For example `app_state.models[2].hash`.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

impl GenesisError {
    pub(crate) fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { path: path.into(), reason: reason.into() }
    }
}

/// A CometBFT genesis document: the fields that Penstock reads.
#[derive(Debug, Clone)]
pub struct GenesisDoc {
    /// CometBFT's chain id.
    pub chain_id: String,
    /// Time of the genesis.
    pub time: SystemTime,
    /// The application's part, as it is written.
    pub app_state: Bytes,
    /// The application's part, checked.
    pub genesis: Genesis,
}

impl GenesisDoc {
    /// Reads and checks a document.
    ///
    /// # Errors
    /// [`GenesisError`] with the path of the wrong field.
    pub fn parse(json: &[u8]) -> Result<Self, GenesisError> {
        #[derive(Deserialize)]
        struct Doc<'a> {
            chain_id: String,
            genesis_time: String,
            #[serde(default)]
            initial_height: Option<serde_json::Value>,
            #[serde(default)]
            consensus_params: Option<Params>,
            #[serde(borrow)]
            app_state: &'a RawValue,
        }
        let doc: Doc<'_> = from_json(json, "")?;
        // CometBFT writes int64 as text.
        if doc.initial_height.is_some_and(|height| height != "1" && height != 1 && height != "0" && height != 0) {
            return Err(GenesisError::new("initial_height", "only 1 is supported"));
        }
        let time = humantime::parse_rfc3339(&doc.genesis_time)
            .map_err(|error| GenesisError::new("genesis_time", format!("{error} (RFC 3339 in UTC is expected)")))?;
        let app_state = Bytes::copy_from_slice(doc.app_state.get().as_bytes());
        let genesis = Genesis::parse(&app_state)?;
        let params = doc.consensus_params.unwrap_or_default();
        genesis.check_params(&params.consensus_params())?;
        Ok(Self { chain_id: doc.chain_id, time, app_state, genesis })
    }
}

/// The application's part of a genesis document.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Genesis {
    /// The EVM chain.
    pub config: EvmConfig,
    /// Accounts at the beginning, in geth's format.
    pub alloc: BTreeMap<Address, GenesisAccount>,
    /// Models that contracts may call.
    pub models: Vec<GenesisModel>,
    /// Prices and bounds of inference.
    pub inference: InferenceConfig,
    /// Whether there is the contract at [`INFERENCE_HUB`](crate::INFERENCE_HUB).
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub inference_hub: bool,
    /// The price feed; without it the precompile at [`PRICE_FEED`] and its contract are not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_feed: Option<PriceFeedConfig>,
    /// Scheduled tasks; without them the contract at [`SCHEDULER`](crate::SCHEDULER) is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<SchedulerConfig>,
}

/// The EVM chain.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EvmConfig {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// EVM rules.
    pub fork: Fork,
    /// Gas of a block.
    pub gas_limit: u64,
    /// Base fee of the first block, in wei.
    pub base_fee: u64,
    /// The account that may change the validators, by the contract at [`VALIDATORS`]; without it nobody may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validator_admin: Option<Address>,
}

/// EVM rules that a chain may name: none older than Cancun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fork {
    /// Cancun.
    Cancun,
    /// Prague.
    Prague,
    /// Osaka.
    Osaka,
}

/// Prices and bounds of inference.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InferenceConfig {
    /// Gas of a call.
    pub gas: GasSchedule,
    /// Bounds.
    pub limits: Limits,
}

/// A model in the genesis: everything that a node without the file must know, too.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisModel {
    /// The name that contracts use.
    pub id: String,
    /// Other names (IPFS CIDv0).
    #[serde(default)]
    pub aliases: Vec<String>,
    /// SHA-256 of the file.
    pub hash: ContentHash,
    /// Where a node finds the file, relative to the genesis document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// How results are verified.
    pub policy: Policy,
    /// Whether contracts may call it.
    #[serde(default = "yes")]
    pub active: bool,
    /// Inputs in the order of the graph.
    pub inputs: Vec<TensorSpec>,
    /// Outputs in the order of the graph.
    pub outputs: Vec<TensorSpec>,
    /// Cost of a run.
    pub ops: OpsCost,
}

fn yes() -> bool {
    true
}

impl GenesisModel {
    /// Inputs, outputs and cost.
    pub fn descriptor(&self) -> ModelDescriptor {
        ModelDescriptor { inputs: self.inputs.clone(), outputs: self.outputs.clone(), ops: self.ops.clone() }
    }
}

fn from_json<'a, T: Deserialize<'a>>(json: &'a [u8], prefix: &str) -> Result<T, GenesisError> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let inner = error.path().to_string();
        let path = match (prefix, inner.as_str()) {
            ("", ".") => "document".to_owned(),
            (prefix, ".") => prefix.to_owned(),
            ("", inner) => inner.to_owned(),
            (prefix, inner) => format!("{prefix}.{inner}"),
        };
        GenesisError::new(path, error.into_inner().to_string())
    })?;
    deserializer.end().map_err(|error| GenesisError::new("document", error.to_string()))?;
    Ok(value)
}

impl Genesis {
    /// Reads and checks the application's part.
    ///
    /// # Errors
    /// [`GenesisError`] with the path of the wrong field.
    pub fn parse(json: &[u8]) -> Result<Self, GenesisError> {
        let genesis: Self = from_json(json, "app_state")?;
        genesis.check()?;
        Ok(genesis)
    }

    fn check(&self) -> Result<(), GenesisError> {
        let error = |path: &str, reason: &str| Err(GenesisError::new(format!("app_state.{path}"), reason));
        if !(5_000_000..=1 << 50).contains(&self.config.gas_limit) {
            return error("config.gasLimit", "must be from 5,000,000 to 2^50");
        }
        // An exported state has the contract.
        let code = self.alloc.get(&VALIDATORS).map(|account| account.code.clone().unwrap_or_default());
        if code.is_some_and(|code| validators::code().ok() != Some(code)) {
            return error(&format!("alloc.{VALIDATORS}"), "is the place of the validators' contract");
        }
        if let Some(scheduler) = self.scheduler {
            let most = self.config.gas_limit / 2;
            if !(1_000_000..=most).contains(&scheduler.gas_per_block) {
                return error("scheduler.gasPerBlock", "must be from 1,000,000 to half of config.gasLimit");
            }
            if scheduler.tip > U256::from(u64::MAX) {
                return error("scheduler.tip", "must be below 2^64");
            }
            if scheduler.stake > U256::from(u128::MAX) {
                return error("scheduler.stake", "must be below 2^128");
            }
        }
        predeploys::check(self)?;
        let has_no_owner = |account: &GenesisAccount| {
            account.balance.is_zero()
                && account.nonce.unwrap_or_default() == 0
                && account.code.as_ref().is_none_or(|code| code.is_empty())
                && account.storage.as_ref().is_some_and(|storage| !storage.is_empty())
        };
        if let Some((address, _)) = self.alloc.iter().find(|(_, account)| has_no_owner(account)) {
            return error(&format!("alloc.{address}"), "has storage, and neither balance nor nonce nor code (EIP-161)");
        }
        if self.config.chain_id == 0 {
            return error("config.chainId", "must not be 0");
        }
        if self.inference.gas.ops_per_gas == 0 {
            return error("inference.gas.opsPerGas", "must not be 0");
        }
        let limits = &self.inference.limits;
        if limits.max_header_bytes < 1_024 {
            return error("inference.limits.maxHeaderBytes", "must be at least 1024");
        }
        if limits.max_block_ops < limits.max_request_ops {
            return error("inference.limits.maxBlockOps", "must be at least maxRequestOps");
        }
        if !(limits.max_request_ops..=limits.max_block_ops).contains(&limits.max_tx_ops) {
            return error("inference.limits.maxTxOps", "must be from maxRequestOps to maxBlockOps");
        }
        if limits.max_waves_per_tx == 0 {
            return error("inference.limits.maxWavesPerTx", "must be at least 1");
        }
        for (index, model) in self.models.iter().enumerate() {
            let error = |field: &str, reason: String| {
                Err(GenesisError::new(format!("app_state.models[{index}].{field}"), reason))
            };
            if model.id.is_empty() || model.id.len() > 256 {
                return error("id", "must have from 1 to 256 bytes".into());
            }
            if model.inputs.is_empty() || model.inputs.len() > 255 {
                return error("inputs", "there must be from 1 to 255".into());
            }
            if model.outputs.is_empty() || model.outputs.len() > 255 {
                return error("outputs", "there must be from 1 to 255".into());
            }
            let open = |name: &String| {
                let dims = model.inputs.iter().flat_map(|input| &input.shape);
                dims.filter(|dim| !matches!(dim, Dim::Fixed(_))).any(|dim| dim.to_string() == *name)
            };
            let powers = model.ops.terms.iter().flat_map(|term| &term.dims);
            if let Some((name, power)) =
                powers.into_iter().find(|(name, power)| !open(name) || !(1..=2).contains(*power))
            {
                return error(
                    "ops.terms",
                    format!("`{name}` to the power {power}: no open dimension of an input, or not 1 or 2"),
                );
            }
            let ops = model.ops.of(&Sizes::default());
            if ops > limits.max_request_ops {
                return error(
                    "ops",
                    format!("{ops} ops for one row; inference.limits.maxRequestOps is {}", limits.max_request_ops),
                );
            }
        }
        self.registry().map(|_| ())
    }

    /// The registry of the models.
    ///
    /// # Errors
    /// [`GenesisError`] when a name or a file is there twice.
    pub fn registry(&self) -> Result<Registry, GenesisError> {
        let registered = |model: &GenesisModel| RegisteredModel {
            id: model.id.clone(),
            aliases: model.aliases.clone(),
            hash: model.hash,
            policy: model.policy,
            active: model.active,
            descriptor: model.descriptor(),
        };
        Registry::new(self.models.iter().map(registered).collect())
            .map_err(|error| GenesisError::new("app_state.models", error.to_string()))
    }

    /// The rules that the chain runs by.
    ///
    /// # Errors
    /// As [`Self::registry`].
    pub fn rules(&self) -> Result<Rules, GenesisError> {
        Ok(Rules {
            chain_id: self.config.chain_id,
            spec: match self.config.fork {
                Fork::Cancun => SpecId::CANCUN,
                Fork::Prague => SpecId::PRAGUE,
                Fork::Osaka => SpecId::OSAKA,
            },
            block_gas_limit: self.config.gas_limit,
            gas: self.inference.gas,
            limits: self.inference.limits,
            registry: Arc::new(self.registry()?),
            price_feed: self.price_feed.is_some(),
            task_gas_per_block: self.scheduler.map_or(0, |scheduler| scheduler.gas_per_block),
        })
    }

    /// The accounts at the beginning: `alloc`, and the contracts that the rules need where `alloc`
    /// does not have them (EIP-2935, EIP-4788, a byte of code at the precompiles, predeploys).
    ///
    /// # Errors
    /// When a contract's artifact is damaged.
    pub fn accounts(&self) -> Result<BTreeMap<Address, GenesisAccount>, GenesisError> {
        let contract = |code: Bytes| GenesisAccount {
            nonce: Some(1),
            code: Some(code),
            balance: U256::ZERO,
            ..Default::default()
        };
        let mut accounts = self.alloc.clone();
        let precompile = Bytes::from_static(PRECOMPILE_CODE);
        let contracts = [
            (HISTORY_STORAGE_ADDRESS, contract(HISTORY_STORAGE_CODE.clone())),
            (BEACON_ROOTS_ADDRESS, contract(BEACON_ROOTS_CODE.clone())),
            (INFERENCE, contract(precompile.clone())),
            (INFERENCE_V1, contract(precompile.clone())),
        ];
        let price_feed = self.price_feed.is_some().then(|| (PRICE_FEED, contract(precompile)));
        for (address, account) in contracts.into_iter().chain(price_feed).chain(predeploys::accounts(self)?) {
            accounts.entry(address).or_insert(account);
        }
        Ok(accounts)
    }
}
