//! What a simulation read, with the values that it read: while they are unchanged it stays good.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, U256};
use revm::{DatabaseRef, state::EvmState};

use crate::StateError;

/// Every account and slot that an execution loaded, with its value before the execution.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadSet {
    accounts: BTreeMap<Address, AccountRead>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct AccountRead {
    nonce: u64,
    balance: U256,
    code_hash: B256,
    slots: BTreeMap<U256, U256>,
}

impl ReadSet {
    /// The read set of an execution, from revm's result state. The fee receiver is left out: every
    /// transaction touches it, and hardly any looks at it.
    pub fn of(state: &EvmState, beneficiary: Address) -> Self {
        let accounts = state
            .iter()
            .filter(|(address, _)| **address != beneficiary)
            .map(|(address, account)| {
                let slots = account.storage.iter().map(|(key, slot)| (*key, slot.original_value)).collect();
                let before = account.original_info();
                let read =
                    AccountRead { nonce: before.nonce, balance: before.balance, code_hash: before.code_hash, slots };
                (*address, read)
            })
            .collect();
        Self { accounts }
    }

    /// Whether a state still has every value that was read.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn holds_in<DB: DatabaseRef<Error = StateError>>(&self, state: &DB) -> Result<bool, StateError> {
        for (address, read) in &self.accounts {
            let now = state.basic_ref(*address)?.unwrap_or_default();
            if (now.nonce, now.balance, now.code_hash) != (read.nonce, read.balance, read.code_hash) {
                return Ok(false);
            }
            for (key, value) in &read.slots {
                if state.storage_ref(*address, *key)? != *value {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}
