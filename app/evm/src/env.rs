//! Blocks and transactions as revm wants them.

use alloy_consensus::{Transaction, TxEnvelope};
use alloy_primitives::{Address, B256, U256};
use revm::{
    DatabaseRef,
    bytecode::Bytecode,
    context::{BlockEnv, TxEnv, either::Either},
    context_interface::block::BlobExcessGasAndPrice,
    state::AccountInfo,
};

use crate::StateError;

/// What execution knows of the block that it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockContext {
    /// Height.
    pub number: u64,
    /// Seconds since the epoch, from the consensus time of the block.
    pub timestamp: u64,
    /// Receiver of the priority fees.
    pub beneficiary: Address,
    /// EIP-1559 base fee in wei.
    pub base_fee: u64,
    /// keccak256(parent header hash ‖ number): the same whoever proposes. Not random.
    pub prevrandao: B256,
    /// Hash of the parent's Ethereum header.
    pub parent_hash: B256,
}

impl BlockContext {
    /// The same as revm's, for a block of `gas_limit`.
    pub fn env(&self, gas_limit: u64) -> BlockEnv {
        BlockEnv {
            number: U256::from(self.number),
            beneficiary: self.beneficiary,
            timestamp: U256::from(self.timestamp),
            gas_limit,
            basefee: self.base_fee,
            prevrandao: Some(self.prevrandao),
            // No blobs on this chain; BLOBBASEFEE answers the minimum.
            blob_excess_gas_and_price: Some(BlobExcessGasAndPrice { excess_blob_gas: 0, blob_gasprice: 1 }),
            ..BlockEnv::default()
        }
    }
}

/// A signed transaction as revm wants it.
pub fn tx_env(tx: &TxEnvelope, sender: Address) -> TxEnv {
    TxEnv {
        tx_type: tx.tx_type().into(),
        caller: sender,
        gas_limit: tx.gas_limit(),
        gas_price: tx.max_fee_per_gas(),
        kind: tx.kind(),
        value: tx.value(),
        data: tx.input().clone(),
        nonce: tx.nonce(),
        chain_id: tx.chain_id(),
        access_list: tx.access_list().cloned().unwrap_or_default(),
        gas_priority_fee: tx.max_priority_fee_per_gas(),
        blob_hashes: Vec::new(), // blob transactions are refused before they get here
        max_fee_per_blob_gas: 0,
        authorization_list: tx.authorization_list().unwrap_or_default().iter().cloned().map(Either::Left).collect(),
    }
}

/// A database whose errors are [`StateError::Storage`], from one whose errors are its own.
#[derive(Debug, Clone)]
pub struct Db<D>(pub D);

impl<D: DatabaseRef> Db<D> {
    fn storage_error(error: D::Error) -> StateError {
        StateError::Storage(error.to_string())
    }
}

impl<D: DatabaseRef> DatabaseRef for Db<D> {
    type Error = StateError;

    fn basic_ref(&self, address: Address) -> Result<Option<AccountInfo>, StateError> {
        self.0.basic_ref(address).map_err(Self::storage_error)
    }

    fn code_by_hash_ref(&self, hash: B256) -> Result<Bytecode, StateError> {
        self.0.code_by_hash_ref(hash).map_err(Self::storage_error)
    }

    fn storage_ref(&self, address: Address, slot: U256) -> Result<U256, StateError> {
        self.0.storage_ref(address, slot).map_err(Self::storage_error)
    }

    fn block_hash_ref(&self, number: u64) -> Result<B256, StateError> {
        self.0.block_hash_ref(number).map_err(Self::storage_error)
    }
}
