//! Accounts and transactions of the load.

use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, keccak256};
use alloy_signer::SignerSync;
use alloy_signer_local::PrivateKeySigner;
use anyhow::Context;

/// Enough for a base fee that full blocks have raised.
const MAX_FEE: u128 = 40_000_000_000;
const TIP: u128 = 1_000_000_000;

/// The accounts that send, derived from a seed.
pub(super) fn derive(seed: u64, count: usize) -> anyhow::Result<Vec<PrivateKeySigner>> {
    let key = |index: usize| keccak256(format!("penstock bench {seed} {index}"));
    (0..count).map(|index| PrivateKeySigner::from_bytes(&key(index)).context("a derived key")).collect()
}

/// A transaction to be signed.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) to: TxKind,
    pub(super) value: U256,
    pub(super) input: Bytes,
    pub(super) gas: u64,
}

impl Call {
    /// The most that it may cost its sender.
    pub(super) fn cost(&self) -> U256 {
        U256::from(MAX_FEE) * U256::from(self.gas) + self.value
    }

    pub(super) fn to(address: Address, input: Vec<u8>, gas: u64) -> Self {
        Self { to: TxKind::Call(address), value: U256::ZERO, input: input.into(), gas }
    }

    pub(super) fn sign(self, chain_id: u64, nonce: u64, signer: &PrivateKeySigner) -> anyhow::Result<(B256, Bytes)> {
        let tx = TxEip1559 {
            chain_id,
            nonce,
            gas_limit: self.gas,
            max_fee_per_gas: MAX_FEE,
            max_priority_fee_per_gas: TIP,
            to: self.to,
            value: self.value,
            input: self.input,
            access_list: Default::default(),
        };
        let signature = signer.sign_hash_sync(&tx.signature_hash())?;
        let tx = TxEnvelope::from(tx.into_signed(signature));
        Ok((*tx.tx_hash(), tx.encoded_2718().into()))
    }
}
