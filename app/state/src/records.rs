//! Accounts and slots as they are stored.

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_rlp::{Decodable, Encodable};
use alloy_trie::TrieAccount;

use crate::{StoreError, keys};

/// An account's value in the trie.
pub(crate) fn account_leaf(account: &TrieAccount) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(110);
    account.encode(&mut bytes);
    bytes
}

/// A slot's value in the trie.
pub(crate) fn slot_leaf(value: U256) -> Vec<u8> {
    alloy_rlp::encode(value)
}

/// The record of an account, from its address and its value in the trie.
pub(crate) fn account_record(address: Address, leaf: &[u8]) -> Vec<u8> {
    [address.as_slice(), leaf].concat()
}

/// Address, and value in the trie, of an account's record.
pub fn read_account(record: &[u8]) -> Result<(Address, &[u8]), StoreError> {
    let (address, leaf) = record.split_first_chunk::<20>().ok_or_else(|| StoreError::damaged("an account"))?;
    Ok((address.into(), leaf))
}

/// An account from its value in the trie.
pub fn decode_account(mut leaf: &[u8]) -> Result<TrieAccount, StoreError> {
    let account = TrieAccount::decode(&mut leaf).ok().filter(|_| leaf.is_empty());
    account.ok_or_else(|| StoreError::damaged("an account"))
}

/// The record of a slot.
pub(crate) fn slot_record(slot: U256, value: U256) -> Vec<u8> {
    let slot = slot.to_be_bytes_trimmed_vec();
    let mut record = vec![slot.len() as u8];
    record.extend_from_slice(&slot);
    record.extend_from_slice(&value.to_be_bytes_trimmed_vec());
    record
}

/// Number and value of a slot's record.
pub fn read_slot(record: &[u8]) -> Result<(U256, U256), StoreError> {
    let parts = record.split_first().and_then(|(length, rest)| rest.split_at_checked((*length).into()));
    let canonical = |bytes: &[u8]| bytes.len() <= 32 && bytes.first() != Some(&0);
    match parts {
        Some((slot, value)) if canonical(slot) && canonical(value) && !value.is_empty() => {
            Ok((U256::from_be_slice(slot), U256::from_be_slice(value)))
        }
        _ => Err(StoreError::damaged("a slot")),
    }
}

/// The trie's key and value of the account with a store key and record; both must fit.
pub(crate) fn account_entry(key: &[u8], record: &[u8]) -> Result<(B256, Address, Vec<u8>), StoreError> {
    let (address, leaf) = read_account(record)?;
    let hash = keccak256(address);
    if key.strip_prefix(keys::ACCOUNTS) != Some(hash.as_slice()) {
        return Err(StoreError::contradiction(format!("the record of account {address} is under another key")));
    }
    Ok((hash, address, leaf.to_vec()))
}

/// The trie's key of the slot with a store key, and number and value; they must fit.
pub(crate) fn slot_entry(address_hash: B256, key: &[u8], record: &[u8]) -> Result<(B256, U256, U256), StoreError> {
    let (slot, value) = read_slot(record)?;
    let hash = keccak256(slot.to_be_bytes::<32>());
    if key.strip_prefix(keys::slots(address_hash).as_slice()) != Some(hash.as_slice()) {
        return Err(StoreError::contradiction(format!("the record of slot {slot} is under another key")));
    }
    Ok((hash, slot, value))
}
