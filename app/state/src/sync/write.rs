//! Writing a snapshot.

use std::collections::BTreeSet;

use alloy_trie::EMPTY_ROOT_HASH;
use revm::primitives::KECCAK_EMPTY;

use super::{header_range, put_record};
use crate::{
    StoreError, View, keys,
    records::{account_record, decode_account, slot_record},
};

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
        let header = snapshot.get(&key)?.ok_or_else(|| StoreError::damaged(format_args!("header {number}")))?;
        put(&key, &header)?;
    }
    let mut codes = BTreeSet::new();
    // A scan's error is the store's; `emit`'s is kept beside it.
    let mut failed = None;
    view.accounts(&mut |hash, address, leaf| {
        let account = decode_account(leaf)?;
        if account.code_hash != KECCAK_EMPTY {
            codes.insert(account.code_hash);
        }
        let mut result = put(&keys::account(address), &account_record(address, leaf));
        if account.storage_root != EMPTY_ROOT_HASH {
            view.slots(hash, &mut |_, slot, value| {
                if result.is_ok() {
                    result = put(&keys::slot(address, slot), &slot_record(slot, value));
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
        let code = snapshot.get(&keys::code(hash))?.ok_or_else(|| StoreError::damaged(format_args!("code {hash}")))?;
        put(&keys::code(hash), &code)?;
    }
    if !chunk.is_empty() {
        emit(&chunk)?;
    }
    Ok(())
}
