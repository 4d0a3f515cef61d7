//! Fees: what to pay, and what was paid.

use alloy_consensus::Transaction;
use alloy_eips::BlockNumberOrTag;
use alloy_primitives::U256;
use alloy_rpc_types_eth::FeeHistory;
use parking_lot::Mutex;
use penstock_chain::Block;
use penstock_evm::TASK_SENDER;

use super::Eth;
use crate::error::{RpcError, RpcResult};

/// Blocks that the suggested tip looks at, and the percentile that it takes: geth's oracle.
const ORACLE_BLOCKS: u64 = 20;
const ORACLE_PERCENTILE: f64 = 60.0;

/// Suggested when no transaction paid a tip lately: 1 gwei.
const DEFAULT_TIP: u128 = 1_000_000_000;

/// geth's bounds of `eth_feeHistory`.
const MAX_HISTORY: u64 = 1_024;
const MAX_PERCENTILES: usize = 100;

/// The suggested tip of a head, computed once a block.
#[derive(Debug, Default)]
pub(super) struct TipOracle(Mutex<Option<(u64, u128)>>);

impl Eth {
    pub(super) fn suggested_tip(&self) -> RpcResult<U256> {
        let head = self.chain.head()?.number();
        if let Some((number, tip)) = *self.tip.0.lock()
            && number == head
        {
            return Ok(U256::from(tip));
        }
        let mut tips = Vec::new();
        for number in head.saturating_sub(ORACLE_BLOCKS - 1)..=head {
            if let Some(block) = self.chain.block(number)? {
                tips.extend(paid_tips(&block).map(|(tip, _)| tip));
            }
        }
        tips.sort_unstable();
        let index = (tips.len().saturating_sub(1)) as f64 * ORACLE_PERCENTILE / 100.0;
        let tip = tips.get(index as usize).copied().unwrap_or(DEFAULT_TIP);
        *self.tip.0.lock() = Some((head, tip));
        Ok(U256::from(tip))
    }

    pub(super) fn gas_price(&self) -> RpcResult<U256> {
        let base_fee = self.chain.head()?.next_base_fee();
        Ok(self.suggested_tip()?.saturating_add(U256::from(base_fee)))
    }

    pub(super) fn fee_history(
        &self,
        count: u64,
        newest: BlockNumberOrTag,
        percentiles: Option<Vec<f64>>,
    ) -> RpcResult<FeeHistory> {
        let percentiles = percentiles.unwrap_or_default();
        let in_order = percentiles.windows(2).all(|pair| pair[0] <= pair[1]);
        if percentiles.len() > MAX_PERCENTILES || !in_order || percentiles.iter().any(|p| !(0.0..=100.0).contains(p)) {
            return Err(RpcError::InvalidParams(
                "invalid reward percentiles: at most 100, ascending, from 0 to 100".into(),
            ));
        }
        let head = self.chain.head()?;
        let newest = self.number_of_tag(newest, head.number());
        if newest > head.number() {
            let head = head.number();
            return Err(RpcError::InvalidInput(format!("request beyond head block: requested {newest}, head {head}")));
        }
        let count = count.min(MAX_HISTORY).min(newest + 1);
        let oldest = newest + 1 - count;
        let mut history = FeeHistory { oldest_block: oldest, ..Default::default() };
        let mut rewards = Vec::new();
        for number in oldest..=newest {
            let Some(block) = self.chain.block(number)? else { return Err(RpcError::UnknownBlock) };
            history.base_fee_per_gas.push(block.header.base_fee_per_gas.unwrap_or_default().into());
            history.gas_used_ratio.push(block.header.gas_used as f64 / block.header.gas_limit as f64);
            history.base_fee_per_blob_gas.push(1);
            history.blob_gas_used_ratio.push(0.0);
            rewards.push(rewards_of(&block, &percentiles));
            if number == newest {
                let next = block.header.next_block_base_fee(alloy_eips::eip1559::BaseFeeParams::ethereum());
                history.base_fee_per_gas.push(next.unwrap_or_default().into());
                history.base_fee_per_blob_gas.push(1);
            }
        }
        history.reward = (!percentiles.is_empty()).then_some(rewards);
        Ok(history)
    }
}

/// Tip for each gas and gas used, of every transaction.
fn paid_tips(block: &Block) -> impl Iterator<Item = (u128, u64)> + '_ {
    let base_fee = block.header.base_fee_per_gas.unwrap_or_default();
    let tip = move |tx: &alloy_consensus::TxEnvelope| tx.effective_tip_per_gas(base_fee).unwrap_or_default();
    // Those that run tasks pay otherwise, and compete with nobody.
    let users = block.txs.iter().zip(&block.receipts).filter(|(_, receipt)| receipt.sender != TASK_SENDER);
    users.map(move |(tx, receipt)| (tip(tx), receipt.gas_used))
}

/// The tips at percentiles of the block's gas.
fn rewards_of(block: &Block, percentiles: &[f64]) -> Vec<u128> {
    let mut tips: Vec<(u128, u64)> = paid_tips(block).collect();
    tips.sort_unstable();
    let at = |percentile: &f64| {
        let threshold = block.header.gas_used as f64 * percentile / 100.0;
        let mut gas = 0;
        let reached = tips.iter().find(|(_, used)| {
            gas += used;
            gas as f64 >= threshold
        });
        reached.or(tips.last()).map_or(0, |(tip, _)| *tip)
    };
    percentiles.iter().map(at).collect()
}
