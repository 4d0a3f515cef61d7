//! What a simulation read, with the values that it read: while they are unchanged it stays good.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, U256};
use revm::{
    database::{BundleAccount, BundleState},
    state::{Account, EvmState},
};

/// One thing that an execution can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReadKey {
    /// Nonce, balance and code of an account.
    Account(Address),
    /// A slot of an account.
    Slot(Address, U256),
}

/// Every account and slot that an execution loaded, with its value before the execution.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadSet {
    accounts: BTreeMap<Address, AccountRead>,
}

/// Nonce, balance, code hash.
type Info = (u64, U256, B256);

#[derive(Debug, Clone, PartialEq, Eq)]
struct AccountRead {
    /// `None` where it is left out.
    info: Option<Info>,
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

    /// Everything that was read. A reader of slots counts as one of their account, too, which may be destroyed.
    pub fn keys(&self) -> impl Iterator<Item = ReadKey> {
        self.accounts.iter().flat_map(|(address, read)| {
            let account = (read.info.is_some() || !read.slots.is_empty()).then_some(ReadKey::Account(*address));
            account.into_iter().chain(read.slots.keys().map(|slot| ReadKey::Slot(*address, *slot)))
        })
    }

    /// Whether the changes of a block leave every value as it was read. Takes time with the smaller of the two.
    pub fn survives(&self, changes: &BundleState) -> bool {
        let stands = |read: &AccountRead, changed: &BundleAccount| {
            let now = changed.info.as_ref().map(|info| (info.nonce, info.balance, info.code_hash));
            let same_info =
                read.info.is_none_or(|info| now.unwrap_or_default() == info || changed.info == changed.original_info);
            same_info
                && !changed.was_destroyed()
                && read.agree(
                    changed.storage.len(),
                    |key| Some(changed.storage.get(key)?.present_value),
                    || changed.storage.iter().map(|(key, slot)| (*key, slot.present_value)),
                )
        };
        if changes.state.len() < self.accounts.len() {
            return changes
                .state
                .iter()
                .all(|(address, changed)| self.accounts.get(address).is_none_or(|read| stands(read, changed)));
        }
        self.accounts
            .iter()
            .all(|(address, read)| changes.state.get(address).is_none_or(|changed| stands(read, changed)))
    }

    /// Whether every value is as it was read when an earlier transaction, which left `old` behind when it was read,
    /// leaves `new` behind instead. It may say no where a transaction between the two hides the difference.
    pub fn survives_change_before(&self, old: Option<&EvmState>, new: &EvmState) -> bool {
        let touched = new.iter().chain(old.into_iter().flatten().filter(|(address, _)| !new.contains_key(*address)));
        touched.filter_map(|(address, _)| Some((address, self.accounts.get(address)?))).all(|(address, read)| {
            let (old, new) = (old.and_then(|old| old.get(address)), new.get(address));
            let created = |account: Option<&Account>| account.is_some_and(|account| account.is_created());
            if created(old) != created(new) {
                return false;
            }
            let info = new.map(info_of).or_else(|| old.map(original_info_of));
            let gone = |key: &U256| new.is_none_or(|new| !new.storage.contains_key(key));
            let new_slots = new.into_iter().flat_map(|account| &account.storage);
            let old_slots = old.into_iter().flat_map(|account| &account.storage).filter(|(key, _)| gone(key));
            let now = new_slots
                .map(|(key, slot)| (key, slot.present_value))
                .chain(old_slots.map(|(key, slot)| (key, slot.original_value)));
            let same = |(key, now): (&U256, U256)| read.slots.get(key).is_none_or(|value| *value == now);
            read.info.is_none_or(|read| info.is_none_or(|now| now == read)) && now.into_iter().all(same)
        })
    }

    /// Whether every value that an earlier transaction, which left `old` behind, wrote is as it was read when a block
    /// decides what is there. What the block changed itself is [`Self::survives`]'s business.
    pub fn survives_inclusion(&self, old: &EvmState, changes: &BundleState) -> bool {
        let touched = old.iter().filter_map(|(address, old)| Some((address, old, self.accounts.get(address)?)));
        touched.into_iter().all(|(address, old, read)| {
            let changed = changes.state.get(address);
            // What the block did not touch is as it was before the earlier transaction.
            let now = match changed {
                Some(changed) => {
                    let info = changed.info.as_ref().map(|info| (info.nonce, info.balance, info.code_hash));
                    info.unwrap_or_default()
                }
                None => original_info_of(old),
            };
            let in_block = |key: &U256| changed.is_some_and(|account| account.storage.contains_key(key));
            let mut slots = old.storage.iter().filter(|(key, _)| !in_block(key));
            read.info.is_none_or(|info| info == now)
                && slots.all(|(key, slot)| read.slots.get(key).is_none_or(|value| *value == slot.original_value))
        })
    }

    /// Whether something was read that an earlier transaction, which leaves `post` behind, wrote.
    pub fn reads_what_was_written(&self, post: &EvmState) -> bool {
        post.iter().filter_map(|(address, account)| Some((account, self.accounts.get(address)?))).any(
            |(account, read)| {
                let written = account.storage.iter().filter(|(_, slot)| slot.is_changed());
                let info = read.info.is_some() && info_of(account) != original_info_of(account);
                info || written.into_iter().any(|(key, _)| read.slots.contains_key(key))
            },
        )
    }

    /// Bytes of memory, about, with those of an index of it.
    pub fn memory_bytes(&self) -> usize {
        self.accounts.values().map(|read| 450 + 330 * read.slots.len()).sum()
    }
}

impl AccountRead {
    /// Whether the slots that were read and changed have the values that were read; goes over the fewer of them.
    fn agree<I: Iterator<Item = (U256, U256)>>(
        &self,
        changed: usize,
        get: impl Fn(&U256) -> Option<U256>,
        all: impl FnOnce() -> I,
    ) -> bool {
        if changed < self.slots.len() {
            return all().all(|(key, now)| self.slots.get(&key).is_none_or(|value| *value == now));
        }
        self.slots.iter().all(|(key, value)| get(key).is_none_or(|now| now == *value))
    }
}

/// What a block changed, as readers know it.
pub fn changed_keys(changes: &BundleState) -> impl Iterator<Item = ReadKey> {
    changes.state.iter().flat_map(|(address, account)| {
        let info =
            (account.info != account.original_info || account.was_destroyed()).then_some(ReadKey::Account(*address));
        info.into_iter().chain(account.storage.keys().map(|slot| ReadKey::Slot(*address, *slot)))
    })
}

/// Whether a block left everything that a transaction was expected to write as expected.
pub fn happened(post: &EvmState, changes: &BundleState) -> bool {
    post.iter().all(|(address, account)| {
        let changed = changes.state.get(address);
        let mut written = account.storage.iter().filter(|(_, slot)| slot.is_changed());
        written.all(|(key, slot)| {
            let now = changed.and_then(|changed| changed.storage.get(key));
            now.is_some_and(|now| now.present_value == slot.present_value)
        })
    })
}

fn info_of(account: &Account) -> Info {
    if account.is_selfdestructed() {
        return Info::default();
    }
    (account.info.nonce, account.info.balance, account.info.code_hash)
}

fn original_info_of(account: &Account) -> Info {
    let info = account.original_info();
    (info.nonce, info.balance, info.code_hash)
}

#[cfg(test)]
mod tests {
    use revm::state::{AccountInfo, EvmStorageSlot, TransactionId};

    use super::*;

    const CONTRACT: Address = Address::repeat_byte(1);
    const SENDER: Address = Address::repeat_byte(2);

    /// A transaction that found `before` in slot 0 of the contract and left `after`.
    fn post(before: u64, after: u64) -> EvmState {
        let mut account = Account::from(AccountInfo { nonce: 1, ..Default::default() });
        let slot = EvmStorageSlot::new_changed(U256::from(before), U256::from(after), TransactionId::ZERO);
        account.storage.insert(U256::ZERO, slot);
        EvmState::from_iter([(CONTRACT, account)])
    }

    fn changes(before: u64, after: u64) -> BundleState {
        let info = || AccountInfo { nonce: 1, ..Default::default() };
        BundleState::builder(0..=0)
            .state_original_account_info(CONTRACT, info())
            .state_present_account_info(CONTRACT, info())
            .state_storage(CONTRACT, [(U256::ZERO, (U256::from(before), U256::from(after)))].into_iter().collect())
            .build()
    }

    #[test]
    fn a_read_of_what_an_earlier_transaction_wrote_stands_as_long_as_that_writes_the_same() {
        // 5 was there, the earlier one made it 6, which was read.
        let reads = ReadSet::of(&post(6, 9), [SENDER, SENDER]);
        assert!(reads.survives_change_before(Some(&post(5, 6)), &post(5, 6)));
        assert!(!reads.survives_change_before(Some(&post(5, 6)), &post(5, 7)));
        assert!(!reads.survives_change_before(Some(&post(5, 6)), &EvmState::default()), "its write is gone");
        assert!(reads.survives_change_before(Some(&EvmState::default()), &EvmState::default()));
        assert!(reads.reads_what_was_written(&post(5, 6)) && !reads.reads_what_was_written(&post(6, 6)));
        assert!(!reads.survives_change_before(None, &post(5, 7)), "a write that was not there");
    }

    #[test]
    fn a_read_stands_when_a_block_writes_what_the_earlier_transaction_was_expected_to() {
        let reads = ReadSet::of(&post(6, 9), [SENDER, SENDER]);
        assert!(reads.survives_inclusion(&post(5, 6), &changes(5, 6)));
        assert!(!reads.survives(&changes(5, 7)) && reads.survives(&changes(5, 6)));
        assert!(!reads.survives_inclusion(&post(5, 6), &BundleState::default()), "the block did not write it");
        assert!(reads.survives_inclusion(&EvmState::default(), &BundleState::default()));
    }

    #[test]
    fn keys_of_a_block_find_the_readers_and_only_them() {
        let reads: Vec<ReadKey> = ReadSet::of(&post(6, 9), [SENDER, SENDER]).keys().collect();
        let slot = ReadKey::Slot(CONTRACT, U256::ZERO);
        assert_eq!(reads, [ReadKey::Account(CONTRACT), slot]);
        assert_eq!(changed_keys(&changes(5, 6)).collect::<Vec<_>>(), [slot], "nonce, balance and code are as before");
    }
}
