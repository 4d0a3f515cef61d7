//! Accounts, code and slots.

use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::{Address, B256, Bytes, U256};
use revm::DatabaseRef;

use super::Eth;
use crate::error::RpcResult;

impl Eth {
    pub(super) fn balance(&self, address: Address, block: Option<BlockId>) -> RpcResult<U256> {
        Ok(self.view(block)?.account(address)?.unwrap_or_default().balance)
    }

    /// The next nonce; with `pending` it counts the account's contiguous transactions in the pool.
    pub(super) fn nonce(&self, address: Address, block: Option<BlockId>) -> RpcResult<u64> {
        let committed = self.view(block)?.account(address)?.unwrap_or_default().nonce;
        if block != Some(BlockId::Number(BlockNumberOrTag::Pending)) {
            return Ok(committed);
        }
        Ok(self.chain.pool()?.read(|pool| pool.pending_nonce(&address, committed)))
    }

    pub(super) fn code(&self, address: Address, block: Option<BlockId>) -> RpcResult<Bytes> {
        Ok(self.view(block)?.code_of(address)?.original_bytes())
    }

    pub(super) fn slot(&self, address: Address, slot: U256, block: Option<BlockId>) -> RpcResult<B256> {
        Ok(self.view(block)?.storage_ref(address, slot)?.into())
    }
}
