//! The state root that changes would give, of changes that are never applied: `eth_simulateV1`'s blocks.

use std::collections::BTreeMap;

use alloy_primitives::{B256, U256, keccak256};
use alloy_trie::EMPTY_ROOT_HASH;
use revm::database::{BundleState, OriginalValuesKnown};

use crate::{
    StateReader, StoreError,
    records::{account_leaf, slot_leaf},
    state::Touched,
    trie::Trie,
    tries::load_storage,
    view::{AccountLeaves, SlotLeaves},
};

/// The update of a trie that is thrown away. No committed update has this number.
const THROWN_AWAY: u32 = u32::MAX;

impl StateReader {
    /// The state root of the state after a block with changes on top; `None`: the tries of that block are not kept.
    ///
    /// # Errors
    /// When the store fails or is damaged.
    pub fn root_with(&self, height: u64, bundle: &BundleState) -> Result<Option<B256>, StoreError> {
        let Some(view) = self.at(height)? else { return Ok(None) };
        let plain = bundle.to_plain_state(OriginalValuesKnown::Yes);
        let mut touched: BTreeMap<B256, Touched> = BTreeMap::new();
        for (address, info) in plain.accounts {
            touched.entry(keccak256(address)).or_insert_with(|| Touched::new(address)).info = Some(info);
        }
        for slots in plain.storage {
            let address = slots.address;
            touched.entry(keccak256(address)).or_insert_with(|| Touched::new(address)).slots = Some(slots);
        }
        let mut leaves = Vec::with_capacity(touched.len());
        for (hash, touched) in touched {
            let before = view.account(touched.address)?;
            let mut after = touched.account(before);
            if let (Some(account), Some(slots)) = (&mut after, &touched.slots) {
                let root = before.map_or(EMPTY_ROOT_HASH, |account| account.storage_root);
                let base = match slots.wipe_storage {
                    true => Trie::default(),
                    false => match self.storage_at(height, &hash).filter(|trie| trie.root() == root) {
                        Some(trie) => trie,
                        None => load_storage(&view, hash, root)?,
                    },
                };
                let leaf = |value: U256| (!value.is_zero()).then(|| slot_leaf(value));
                let new: BTreeMap<B256, Option<Vec<u8>>> = slots
                    .storage
                    .iter()
                    .map(|(slot, value)| (keccak256(slot.to_be_bytes::<32>()), leaf(*value)))
                    .filter(|(_, leaf)| leaf.is_some() || !slots.wipe_storage)
                    .collect();
                let new: Vec<_> = new.into_iter().collect();
                account.storage_root = base.update(&new, &SlotLeaves(&view, hash), THROWN_AWAY)?.trie.root();
            }
            leaves.push((hash, after.as_ref().map(account_leaf)));
        }
        let Some(accounts) = self.accounts_at(height) else { return Ok(None) };
        Ok(Some(accounts.update(&leaves, &AccountLeaves(&view), THROWN_AWAY)?.trie.root()))
    }
}
