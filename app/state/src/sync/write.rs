//! Writing a snapshot.

use std::collections::BTreeSet;

use alloy_primitives::Address;
use alloy_rlp::Decodable;
use alloy_trie::{EMPTY_ROOT_HASH, TrieAccount};
use revm::primitives::KECCAK_EMPTY;

use super::{header_range, put_record};
use crate::{StoreError, View, keys};

/// Gives `emit` the chunks of the snapshot of a view, in order. A chunk has at least `chunk_bytes`, but for the last
/// one, and is longer by less than one record.
///
/// # Errors
/// When the store fails, or the first error of `emit`.
pub fn write_snapshot<E: From<StoreError>>(
    view: &View,
    chunk_bytes: usize,
    mut emit: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let snapshot = view.snapshot();
    let mut chunk = Vec::with_capacity(chunk_bytes + (64 << 10));
    let mut put = |key: &[u8], value: &[u8]| {
        put_record(&mut chunk, key, value);
        if chunk.len() >= chunk_bytes {
            emit(&chunk)?;
            chunk.clear();
        }
        Ok::<(), E>(())
    };
    for number in header_range(view.height()) {
        let key = keys::header(number);
        let header = snapshot.get(&key)?.ok_or_else(|| StoreError::damaged(format!("header {number}")))?;
        put(&key, &header)?;
    }
    let mut codes = BTreeSet::new();
    // A scan's error is the store's; `emit`'s is kept beside it.
    let mut failed = None;
    snapshot.scan(keys::ACCOUNTS, &mut |key, value| {
        let account = TrieAccount::decode(&mut &*value).map_err(|_| StoreError::damaged("an account"))?;
        if account.code_hash != KECCAK_EMPTY {
            codes.insert(account.code_hash);
        }
        let mut result = put(key, value);
        if account.storage_root != EMPTY_ROOT_HASH {
            let address = Address::from_slice(&key[keys::ACCOUNTS.len()..]);
            snapshot.scan(&keys::slots(address), &mut |key, value| {
                if result.is_ok() {
                    result = put(key, value);
                }
                Ok(result.is_ok())
            })?;
        }
        failed = result.err();
        Ok(failed.is_none())
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    for hash in codes {
        let code = snapshot.get(&keys::code(hash))?.ok_or_else(|| StoreError::damaged(format!("code {hash}")))?;
        put(&keys::code(hash), &code)?;
    }
    if !chunk.is_empty() {
        emit(&chunk)?;
    }
    Ok(())
}
