//! Accounts, code and slots.

use std::collections::BTreeMap;

use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_rpc_types_eth::{AccountInfo, EIP1186AccountProofResponse, EIP1186StorageProof};
use alloy_serde::JsonStorageKey;
use revm::DatabaseRef;

use super::Eth;
use crate::error::{RpcError, RpcResult};

/// Slots of one proof. geth's bound.
const MAX_PROOF_SLOTS: usize = 1_024;

/// Slots of one `eth_getStorageValues`. geth's bound.
const MAX_SLOTS: usize = 1_024;

/// Slots by account, and their values in the same order.
pub(crate) type SlotsOf = BTreeMap<Address, Vec<JsonStorageKey>>;
pub(crate) type ValuesOf = BTreeMap<Address, Vec<B256>>;

impl Eth {
    pub(super) fn slots(&self, slots: SlotsOf, block: Option<BlockId>) -> RpcResult<ValuesOf> {
        let count: usize = slots.values().map(Vec::len).sum();
        if count == 0 {
            return Err(RpcError::InvalidParams("empty request".into()));
        }
        if count > MAX_SLOTS {
            return Err(RpcError::InvalidParams(format!("too many slots: at most {MAX_SLOTS}")));
        }
        let view = self.view(block)?;
        let values = |(address, keys): (Address, Vec<JsonStorageKey>)| {
            let value = |key: JsonStorageKey| Ok(view.storage_ref(address, key.as_b256().into())?.into());
            Ok((address, keys.into_iter().map(value).collect::<RpcResult<_>>()?))
        };
        slots.into_iter().map(values).collect()
    }

    pub(super) fn account_info(&self, address: Address, block: Option<BlockId>) -> RpcResult<AccountInfo> {
        let view = self.view(block)?;
        let account = view.account(address)?.unwrap_or_default();
        let code = view.code_of(address)?.original_bytes();
        Ok(AccountInfo { balance: account.balance, nonce: account.nonce, code })
    }

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

    /// EIP-1186.
    pub(super) fn account_proof(
        &self,
        address: Address,
        keys: Vec<JsonStorageKey>,
        block: Option<BlockId>,
    ) -> RpcResult<EIP1186AccountProofResponse> {
        if keys.len() > MAX_PROOF_SLOTS {
            return Err(RpcError::InvalidInput(format!("a proof has at most {MAX_PROOF_SLOTS} slots")));
        }
        let number = self.number(block.unwrap_or_default())?.ok_or(RpcError::UnknownBlock)?;
        let slots: Vec<U256> = keys.iter().map(|key| key.as_b256().into()).collect();
        let proof = self.chain.prove(number, address, &slots)?.ok_or(RpcError::NoProof(number))?;
        let account = proof.account.unwrap_or_default();
        let storage_proof = keys.into_iter().zip(proof.slots);
        Ok(EIP1186AccountProofResponse {
            address,
            balance: account.balance,
            code_hash: account.code_hash,
            nonce: account.nonce,
            storage_hash: account.storage_root,
            account_proof: proof.proof,
            storage_proof: storage_proof
                .map(|(key, slot)| EIP1186StorageProof { key, value: slot.value, proof: slot.proof })
                .collect(),
        })
    }

    pub(super) fn slot(&self, address: Address, slot: U256, block: Option<BlockId>) -> RpcResult<B256> {
        Ok(self.view(block)?.storage_ref(address, slot)?.into())
    }
}
