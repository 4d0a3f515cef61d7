//! The parameters of a chain that execution depends on. All come from the genesis.

use std::sync::Arc;

use alloy_sol_types::SolCall;
use penstock_inference::DType;
use revm::primitives::hardfork::SpecId;
use serde::{Deserialize, Serialize};

use crate::{RegisteredModel, Registry, abi};

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
    /// Cost of all requests of one transaction, each call counted; what exceeds it reverts.
    pub max_tx_ops: u64,
    /// Steps of requests of one transaction that depend on answers of the step before. The pools keep this limit: a
    /// transaction with more does not become ready.
    pub max_waves_per_tx: u32,
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
    /// Whether there is a price feed: the precompile at [`PRICE_FEED`](crate::PRICE_FEED) and the contract that it reads.
    pub price_feed: bool,
    /// Gas of a block that scheduled tasks may use; 0: there are none.
    pub task_gas_per_block: u64,
}

/// What one call costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quote {
    /// Gas of the call itself.
    pub gas: u64,
    /// Cost of the run.
    pub ops: u64,
    /// Bytes of call data.
    pub input_bytes: u64,
    /// Bytes of the outputs' numbers.
    pub output_bytes: u64,
}

impl Rules {
    /// The gas of a call to a model with inputs of these shapes (in the order of the model's inputs), for
    /// call data as `abi.encode` makes it with the tensors named.
    ///
    /// # Errors
    /// A text that says which shape does not fit.
    pub fn quote(&self, model: &RegisteredModel, name: &str, shapes: &[Vec<u32>]) -> Result<Quote, String> {
        let specs = &model.descriptor.inputs;
        if shapes.len() != specs.len() {
            return Err(format!("{} shapes are given; the model has {} inputs", shapes.len(), specs.len()));
        }
        let (mut numbers, mut strings) = (Vec::new(), Vec::new());
        for (spec, shape) in specs.iter().zip(shapes) {
            let count = shape.iter().map(|dim| *dim as usize).try_fold(1usize, usize::checked_mul);
            let count = count.filter(|n| *n <= 1 << 20).ok_or_else(|| format!("shape {shape:?} is too large"))?;
            let name = spec.name.clone();
            if spec.dtype == DType::String {
                // How long texts are only a call knows: here a word each.
                strings.push(abi::StringTensor { name, values: vec!["x".to_owned(); count] });
            } else {
                let values = vec![abi::Number { value: 1, decimals: 0 }; count];
                numbers.push(abi::MultiDimensionalNumberTensor { name, values, shape: shape.clone() });
            }
        }
        let input = abi::ModelInput { numbers, strings };
        let (ops, output_bytes) = crate::precompile::work_of(model, &input)
            .map_err(|denied| format!("the call would fail: {denied:?} (shapes {shapes:?})"))?;
        let request = abi::ModelInferenceRequest { mode: 0, modelCID: name.to_owned(), input };
        let input_bytes = abi::runModelInferenceCall { request }.abi_encoded_size() as u64 + 4;
        let gas = self.gas.entry(input_bytes).saturating_add(self.gas.work(ops, output_bytes));
        Ok(Quote { gas, ops, input_bytes, output_bytes })
    }
}

impl GasSchedule {
    /// Charged first of all, for decoding.
    pub(crate) fn entry(&self, input_bytes: u64) -> u64 {
        self.base.saturating_add(self.per_input_byte.saturating_mul(input_bytes))
    }

    /// Charged before the result is looked up.
    pub(crate) fn work(&self, ops: u64, output_bytes: u64) -> u64 {
        self.per_output_byte.saturating_mul(output_bytes).saturating_add(ops / self.ops_per_gas)
    }
}
