//! The parameters of a chain that execution depends on. All come from the genesis.

use std::sync::Arc;

use revm::primitives::hardfork::SpecId;
use serde::{Deserialize, Serialize};

use crate::Registry;

/// Gas of a call to a model: `base + per_input_byte · bytes in + per_output_byte · bytes out +
/// ops / ops_per_gas`, charged before the result is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GasSchedule {
    /// Every call: decoding, event, a share of verification.
    pub base: u64,
    /// Each byte of call data.
    pub per_input_byte: u64,
    /// Each byte of output, 64 for a number: it is stored in the block.
    pub per_output_byte: u64,
    /// Multiply-adds that one gas buys.
    pub ops_per_gas: u64,
}

/// Bounds of what transactions and blocks may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Cost of one request; a dearer one reverts.
    pub max_request_ops: u64,
    /// Cost of all different requests of a block.
    pub max_block_ops: u64,
    /// Requests of one transaction; one more reverts.
    pub max_requests_per_tx: u32,
    /// Bytes of outputs of one request (64 for a number); more reverts with `OutputTooLarge()`.
    pub max_output_bytes: u64,
    /// Bytes of the header transaction of a block.
    pub max_header_bytes: u64,
    /// Results of a block that may be "unavailable": how often a proposer may end a transaction
    /// whose result nobody had.
    pub max_unavailable_per_block: u32,
}

/// Everything that execution depends on besides state, block and transaction.
#[derive(Debug, Clone)]
pub struct Rules {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// EVM rules.
    pub spec: SpecId,
    /// Gas of a block, and the most that one transaction may have.
    pub block_gas_limit: u64,
    /// Price of model calls.
    pub gas: GasSchedule,
    /// Bounds.
    pub limits: Limits,
    /// Models.
    pub registry: Arc<Registry>,
}
