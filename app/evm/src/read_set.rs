//! What a simulation read, with the values that it read: while they are unchanged it stays good.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, U256};
use revm::{database::BundleState, state::EvmState};

/// Every account and slot that an execution loaded, with its value before the execution.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadSet {
    accounts: BTreeMap<Address, AccountRead>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct AccountRead {
    /// Nonce, balance and code hash; `None` where they are left out.
    info: Option<(u64, U256, B256)>,
    slots: BTreeMap<U256, U256>,
}

impl ReadSet {
    /// The read set of an execution, from revm's result state. Nonce and balance of those in
    /// `passing` are left out: the sender and the fee receiver change with every transaction, hardly
    /// any contract looks at them, and the proposal's own execution decides in the end.
    pub fn of(state: &EvmState, passing: [Address; 2]) -> Self {
        let accounts = state
            .iter()
            .map(|(address, account)| {
                let before = account.original_info();
                let info = (!passing.contains(address)).then_some((before.nonce, before.balance, before.code_hash));
                let slots = account.storage.iter().map(|(key, slot)| (*key, slot.original_value)).collect();
                (*address, AccountRead { info, slots })
            })
            .collect();
        Self { accounts }
    }

    /// Whether the changes of a block leave every value as it was read. Looks only at what the block
    /// changed.
    pub fn survives(&self, changes: &BundleState) -> bool {
        self.accounts.iter().all(|(address, read)| {
            let Some(changed) = changes.state.get(address) else { return true };
            let now = changed.info.as_ref().map(|info| (info.nonce, info.balance, info.code_hash));
            let same_info =
                read.info.is_none_or(|info| now.unwrap_or_default() == info || changed.info == changed.original_info);
            same_info
                && !changed.was_destroyed()
                && read
                    .slots
                    .iter()
                    .all(|(key, value)| changed.storage.get(key).is_none_or(|slot| slot.present_value == *value))
        })
    }
}
