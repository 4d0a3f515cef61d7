//! Contracts that a genesis has by saying so, instead of by their code: compiled from app/contracts, at fixed addresses.
//!
//! | address | contract | where the genesis has |
//! |---|---|---|
//! | 0x…F6 | `Validators` | validators (see `validators.rs`) |
//! | 0x…F7 | `InferenceHub` | `"inferenceHub": true` |
//! | 0x…F8 | `CandleFeed` | `priceFeed` |
//! | 0x…F9 | `WorkflowScheduler` | `scheduler` |
//!
//! A state that another chain exported has them in its `alloc`, with what they hold: there they stay as they are.

use std::collections::BTreeMap;

use alloy_genesis::GenesisAccount;
use alloy_primitives::{Address, B256, Bytes, U256, address};
use penstock_evm::CANDLE_FEED;
use serde::{Deserialize, Serialize};

use crate::{
    Genesis, GenesisError,
    tasks::{Parameters, SCHEDULER},
};

/// The contract that puts models' answers into events.
pub const INFERENCE_HUB: Address = address!("00000000000000000000000000000000000000F7");

const INFERENCE_HUB_ARTIFACT: &str = include_str!("../../contracts/out/InferenceHub.json");
const CANDLE_FEED_ARTIFACT: &str = include_str!("../../contracts/out/CandleFeed.json");
const SCHEDULER_ARTIFACT: &str = include_str!("../../contracts/out/WorkflowScheduler.json");

/// The price feed of a genesis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceFeedConfig {
    /// The account that pushes candles; zero: nobody may.
    pub feeder: Address,
}

/// Scheduled tasks of a genesis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SchedulerConfig {
    /// Gas of a block that tasks may use.
    pub gas_per_block: u64,
    /// Wei that each run pays to the proposer's account.
    pub tip: U256,
    /// Wei that each task holds of its owner's deposit while it is registered.
    pub stake: U256,
}

/// What a genesis says of a slot.
struct Said {
    slot: u64,
    value: U256,
    /// The bits of the slot that are the value's.
    mask: U256,
    /// Where the genesis says it.
    path: &'static str,
}

impl Said {
    fn whole(slot: u64, value: U256, path: &'static str) -> Self {
        Self { slot, value, mask: U256::MAX, path }
    }
}

/// A contract at its address.
struct Predeploy {
    address: Address,
    artifact: &'static str,
    said: Vec<Said>,
}

impl Predeploy {
    /// Its storage at the beginning.
    fn slots(&self) -> BTreeMap<B256, B256> {
        let said = self.said.iter().filter(|said| !said.value.is_zero());
        said.map(|said| (U256::from(said.slot).into(), said.value.into())).collect()
    }
}

/// The predeploys of a genesis.
fn predeploys(genesis: &Genesis) -> Vec<Predeploy> {
    let mut all = Vec::new();
    if genesis.inference_hub {
        all.push(Predeploy { address: INFERENCE_HUB, artifact: INFERENCE_HUB_ARTIFACT, said: vec![] });
    }
    if let Some(PriceFeedConfig { feeder }) = genesis.price_feed {
        let feeder = U256::from_be_slice(feeder.as_slice());
        let said = vec![Said::whole(0, feeder, "priceFeed.feeder")];
        all.push(Predeploy { address: CANDLE_FEED, artifact: CANDLE_FEED_ARTIFACT, said });
    }
    if let Some(SchedulerConfig { gas_per_block, tip, stake }) = genesis.scheduler {
        let parameters = Parameters::with_gas(gas_per_block, tip.saturating_to());
        let said = vec![
            Said {
                slot: Parameters::SLOT,
                value: parameters.slot(),
                mask: Parameters::mask(),
                path: "scheduler (gasPerBlock or tip)",
            },
            Said::whole(3, stake, "scheduler.stake"),
        ];
        all.push(Predeploy { address: SCHEDULER, artifact: SCHEDULER_ARTIFACT, said });
    }
    all
}

/// The accounts of the predeploys.
pub(crate) fn accounts(genesis: &Genesis) -> Result<Vec<(Address, GenesisAccount)>, GenesisError> {
    let account = |predeploy: Predeploy| {
        let account = GenesisAccount {
            nonce: Some(1),
            code: Some(runtime_code(predeploy.artifact)?),
            storage: Some(predeploy.slots()).filter(|slots| !slots.is_empty()),
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
        for said in predeploy.said {
            let in_alloc = account.storage.as_ref().and_then(|slots| slots.get(&B256::from(U256::from(said.slot))));
            let in_alloc: U256 = in_alloc.copied().unwrap_or_default().into();
            if in_alloc & said.mask != said.value {
                return Err(GenesisError::new(
                    format!("app_state.{}", said.path),
                    format!("is not what slot {} of alloc.{} has", said.slot, predeploy.address),
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
