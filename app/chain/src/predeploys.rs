//! Contracts that a genesis has by saying so, instead of by their code: compiled from app/contracts, at fixed addresses.
//!
//! | address | contract | where the genesis has |
//! |---|---|---|
//! | 0x…F6 | `Validators` | validators (see `validators.rs`) |
//! | 0x…F7 | `InferenceHub` | `"inferenceHub": true` |
//! | 0x…F8 | `CandleFeed` | `priceFeed` |
//!
//! A state that another chain exported has them in its `alloc`, with what they hold: there they stay as they are.

use std::collections::BTreeMap;

use alloy_genesis::GenesisAccount;
use alloy_primitives::{Address, B256, Bytes, U256, address};
use penstock_evm::CANDLE_FEED;
use serde::{Deserialize, Serialize};

use crate::{Genesis, GenesisError};

/// The contract that puts models' answers into events.
pub const INFERENCE_HUB: Address = address!("00000000000000000000000000000000000000F7");

const INFERENCE_HUB_ARTIFACT: &str = include_str!("../../contracts/out/InferenceHub.json");
const CANDLE_FEED_ARTIFACT: &str = include_str!("../../contracts/out/CandleFeed.json");

/// The price feed of a genesis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceFeedConfig {
    /// The account that pushes candles; zero: nobody may.
    pub feeder: Address,
}

/// A contract at its address.
struct Predeploy {
    address: Address,
    artifact: &'static str,
    /// Its storage at the beginning, without zeros.
    slots: BTreeMap<B256, B256>,
    /// The slots that a genesis says something of, and where it does.
    said: Vec<(U256, &'static str)>,
}

impl Predeploy {
    fn new(address: Address, artifact: &'static str, said: &[(u64, U256, &'static str)]) -> Self {
        let slots = said.iter().filter(|(_, value, _)| !value.is_zero());
        Self {
            address,
            artifact,
            slots: slots.map(|(slot, value, _)| (U256::from(*slot).into(), (*value).into())).collect(),
            said: said.iter().map(|(slot, _, path)| (U256::from(*slot), *path)).collect(),
        }
    }
}

/// The predeploys of a genesis.
fn predeploys(genesis: &Genesis) -> Vec<Predeploy> {
    let mut all = Vec::new();
    if genesis.inference_hub {
        all.push(Predeploy::new(INFERENCE_HUB, INFERENCE_HUB_ARTIFACT, &[]));
    }
    if let Some(PriceFeedConfig { feeder }) = genesis.price_feed {
        let feeder = U256::from_be_slice(feeder.as_slice());
        all.push(Predeploy::new(CANDLE_FEED, CANDLE_FEED_ARTIFACT, &[(0, feeder, "priceFeed.feeder")]));
    }
    all
}

/// The accounts of the predeploys.
pub(crate) fn accounts(genesis: &Genesis) -> Result<Vec<(Address, GenesisAccount)>, GenesisError> {
    let account = |predeploy: Predeploy| {
        let account = GenesisAccount {
            nonce: Some(1),
            code: Some(runtime_code(predeploy.artifact)?),
            storage: Some(predeploy.slots).filter(|slots| !slots.is_empty()),
            ..GenesisAccount::default()
        };
        Ok((predeploy.address, account))
    };
    predeploys(genesis).into_iter().map(account).collect()
}

/// Checks what `alloc` has at their addresses: they themselves, and with what the genesis says of them.
pub(crate) fn check(genesis: &Genesis) -> Result<(), GenesisError> {
    for predeploy in predeploys(genesis) {
        let Some(account) = genesis.alloc.get(&predeploy.address) else { continue };
        let path = format!("app_state.alloc.{}", predeploy.address);
        if account.code != Some(runtime_code(predeploy.artifact)?) {
            return Err(GenesisError::new(path, "is the place of a contract of the chain"));
        }
        let in_alloc = |slot: B256| account.storage.as_ref().and_then(|slots| slots.get(&slot)).copied();
        for (slot, said) in predeploy.said {
            let slot = B256::from(slot);
            if in_alloc(slot).unwrap_or_default() != predeploy.slots.get(&slot).copied().unwrap_or_default() {
                return Err(GenesisError::new(
                    format!("app_state.{said}"),
                    format!("is not what slot {} of alloc.{} has", U256::from_be_bytes(slot.0), predeploy.address),
                ));
            }
        }
    }
    Ok(())
}

/// The code of a compiled contract as it is on the chain.
pub(crate) fn runtime_code(artifact: &str) -> Result<Bytes, GenesisError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Artifact {
        deployed_bytecode: Bytes,
    }
    let artifact: Result<Artifact, _> = serde_json::from_str(artifact);
    artifact
        .map(|artifact| artifact.deployed_bytecode)
        .map_err(|error| GenesisError::new("contract", error.to_string()))
}
