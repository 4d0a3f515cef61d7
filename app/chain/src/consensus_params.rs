//! CometBFT's consensus parameters: what this application needs of them. Checked when a genesis document is read, and
//! again when consensus brings them (InitChain).

use std::borrow::Cow;

use penstock_abci::types::ConsensusParams;
use serde::Deserialize;

use crate::{Genesis, GenesisError};

/// Bytes of a block besides the header transaction that must fit: a transaction, CometBFT's header, and the commit of
/// some hundred validators.
const BLOCK_OVERHEAD: i64 = 256 << 10;

/// CometBFT writes int64 as text.
#[derive(Debug, Clone, Copy)]
struct Int64(i64);

impl<'de> Deserialize<'de> for Int64 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|_| serde::de::Error::custom(format!("`{text}` is no whole number in quotes")))
    }
}

/// The consensus parameters that matter here, with CometBFT's defaults (`types/params.go`).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Params {
    block: BlockParams,
    validator: ValidatorParams,
    abci: AbciParams,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default)]
struct BlockParams {
    max_bytes: Int64,
    max_gas: Int64,
}

impl Default for BlockParams {
    fn default() -> Self {
        Self { max_bytes: Int64(22_020_096), max_gas: Int64(-1) }
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default)]
struct AbciParams {
    vote_extensions_enable_height: Int64,
}

impl Default for AbciParams {
    fn default() -> Self {
        Self { vote_extensions_enable_height: Int64(0) }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct ValidatorParams {
    pub_key_types: Vec<String>,
}

impl Params {
    /// The same as a message.
    pub(crate) fn consensus_params(&self) -> ConsensusParams {
        use penstock_abci::types::{AbciParams, BlockParams, ValidatorParams};
        ConsensusParams {
            block: Some(BlockParams { max_bytes: self.block.max_bytes.0, max_gas: self.block.max_gas.0 }),
            abci: Some(AbciParams { vote_extensions_enable_height: self.abci.vote_extensions_enable_height.0 }),
            validator: Some(ValidatorParams { pub_key_types: self.validator.pub_key_types.clone() }),
            ..Default::default()
        }
    }
}

impl Genesis {
    /// Checks CometBFT's parameters against what this application needs of them.
    ///
    /// # Errors
    /// [`GenesisError`] with the path of the wrong parameter.
    pub(crate) fn check_params(&self, params: &ConsensusParams) -> Result<(), GenesisError> {
        let error = |path: &str, reason: String| Err(GenesisError::new(format!("consensus_params.{path}"), reason));
        let block = params.block.unwrap_or_default();
        let gas_limit = self.config.gas_limit;
        if block.max_gas >= 0 && (block.max_gas as u64) < gas_limit {
            // CometBFT would drop transactions above it without a word.
            return error("block.max_gas", format!("must be -1, or at least app_state.config.gasLimit ({gas_limit})"));
        }
        let least = self.inference.limits.max_header_bytes as i64 + BLOCK_OVERHEAD;
        if block.max_bytes >= 0 && block.max_bytes < least {
            return error("block.max_bytes", format!("must be at least {least}: maxHeaderBytes and a transaction"));
        }
        let keys = params.validator.as_ref().map(|validator| validator.pub_key_types.as_slice()).unwrap_or_default();
        if self.config.validator_admin.is_some() && !keys.is_empty() && !keys.iter().any(|kind| kind == "ed25519") {
            return error(
                "validator.pub_key_types",
                "must have ed25519: validators that app_state.config.validatorAdmin adds have such keys".into(),
            );
        }
        if params.abci.unwrap_or_default().vote_extensions_enable_height != 0 {
            return error("abci.vote_extensions_enable_height", "must be 0: vote extensions are not used".into());
        }
        Ok(())
    }
}
