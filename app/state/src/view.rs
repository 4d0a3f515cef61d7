//! The state at one height.

use core::fmt;
use std::sync::Arc;

use alloy_consensus::Header;
use alloy_primitives::{Address, B256, U256};
use alloy_rlp::Decodable;
use alloy_trie::TrieAccount;
use revm::{
    DatabaseRef, bytecode::Bytecode, database_interface::DBErrorMarker, primitives::KECCAK_EMPTY, state::AccountInfo,
};

use crate::{Snapshot, StoreError, keys};

impl DBErrorMarker for StoreError {}

/// The state after a block. Cheap to clone; unchanged by later commits.
#[derive(Clone)]
pub struct View {
    height: u64,
    snapshot: Arc<dyn Snapshot>,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("height", &self.height).finish_non_exhaustive()
    }
}

impl View {
    pub(crate) fn new(height: u64, snapshot: Arc<dyn Snapshot>) -> Self {
        Self { height, snapshot }
    }

    /// Height of the block.
    pub fn height(&self) -> u64 {
        self.height
    }

    /// The whole store at this height: blocks and indexes, too.
    pub fn snapshot(&self) -> &dyn Snapshot {
        &*self.snapshot
    }

    /// The Ethereum header of a block.
    ///
    /// # Errors
    /// When the store fails.
    pub fn header(&self, number: u64) -> Result<Option<Header>, StoreError> {
        let Some(bytes) = self.snapshot.get(&keys::header(number))? else { return Ok(None) };
        Header::decode(&mut bytes.as_slice()).map(Some).map_err(|_| StoreError::damaged(format!("header {number}")))
    }

    /// The code of an account; empty when it has none.
    ///
    /// # Errors
    /// When the store fails.
    pub fn code_of(&self, address: Address) -> Result<Bytecode, StoreError> {
        match self.account(address)? {
            Some(account) => self.code_by_hash_ref(account.code_hash),
            None => Ok(Bytecode::default()),
        }
    }

    /// An account as it is in the trie.
    ///
    /// # Errors
    /// When the store fails.
    pub fn account(&self, address: Address) -> Result<Option<TrieAccount>, StoreError> {
        let Some(bytes) = self.snapshot.get(&keys::account(address))? else { return Ok(None) };
        TrieAccount::decode(&mut bytes.as_slice())
            .map(Some)
            .map_err(|_| StoreError::damaged(format!("account {address}")))
    }
}

impl DatabaseRef for View {
    type Error = StoreError;

    fn basic_ref(&self, address: Address) -> Result<Option<AccountInfo>, StoreError> {
        Ok(self.account(address)?.map(|account| AccountInfo {
            balance: account.balance,
            nonce: account.nonce,
            code_hash: account.code_hash,
            ..AccountInfo::default().without_code()
        }))
    }

    fn code_by_hash_ref(&self, hash: B256) -> Result<Bytecode, StoreError> {
        if hash == KECCAK_EMPTY {
            return Ok(Bytecode::default());
        }
        let code = self.snapshot.get(&keys::code(hash))?;
        let damaged = || StoreError::damaged(format!("code {hash}"));
        Bytecode::new_raw_checked(code.ok_or_else(damaged)?.into()).map_err(|_| damaged())
    }

    fn storage_ref(&self, address: Address, slot: U256) -> Result<U256, StoreError> {
        let value = self.snapshot.get(&keys::slot(address, slot))?;
        Ok(value.map_or(U256::ZERO, |bytes| U256::from_be_slice(&bytes)))
    }

    fn block_hash_ref(&self, number: u64) -> Result<B256, StoreError> {
        let Some(bytes) = self.snapshot.get(&keys::block_hash(number))? else { return Ok(B256::ZERO) };
        B256::try_from(bytes.as_slice()).map_err(|_| StoreError::damaged(format!("hash of block {number}")))
    }
}
