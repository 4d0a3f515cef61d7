//! Brings what a proposed block will change into memory while validators still vote on it: what nobody used lately has to
//! be read, and that is the part of a block's cost that grows with the state.
//!
//! Nothing depends on it. A block that comes before it is done, or that was never proposed here, reads for itself.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, U256, keccak256};
use revm::database::BundleState;
use tracing::warn;

use crate::{StateReader, StoreError, beside::Beside};

/// Accounts and slots, by address.
pub(crate) type Touches = Vec<(Address, Vec<U256>)>;

/// A thread that reads ahead.
#[derive(Debug)]
pub struct Fetcher {
    beside: Beside<Touches>,
}

impl Fetcher {
    /// Starts the thread; it ends with this.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(reader: StateReader) -> Result<Self, StoreError> {
        let work = move |touches: Touches| {
            // Whoever needs it will see the same error.
            if let Err(error) = reader.fetch(&touches) {
                warn!(%error, "what a proposal changes could not be read ahead");
            }
        };
        Ok(Self { beside: Beside::start("fetcher", work)? })
    }

    /// A block with these changes is likely to come. Does not wait.
    pub fn expect(&self, changes: &BundleState) {
        let touches = changes.state.iter().map(|(address, account)| {
            let slots = account.storage.iter().filter(|(_, slot)| slot.is_changed());
            (*address, slots.map(|(slot, _)| *slot).collect())
        });
        self.beside.give(touches.collect());
    }
}

impl StateReader {
    /// Brings the zones of accounts and slots into the newest tries.
    pub(crate) fn fetch(&self, touches: &Touches) -> Result<(), StoreError> {
        let by_hash: BTreeMap<B256, Vec<B256>> = touches
            .iter()
            .map(|(address, slots)| {
                let mut slots: Vec<B256> = slots.iter().map(|slot| keccak256(slot.to_be_bytes::<32>())).collect();
                slots.sort_unstable();
                (keccak256(address), slots)
            })
            .collect();
        self.shared.fetch(&by_hash)
    }
}
