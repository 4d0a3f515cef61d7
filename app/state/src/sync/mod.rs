//! The state at one height as a stream of bytes, for state sync: made by [`write_snapshot`], read by [`Restore`].
//!
//! ```text
//!  chunk 0            chunk 1      …   records, never cut in two
//!  h h h … h  a s s s  a  a s …  c c c
//!  └ headers └ accounts, each       └ codes that the accounts name, by hash
//!    (256 at    with its slots
//!    most, for
//!    BLOCKHASH)
//! ```
//!
//! A record is the store's own key and value (without its checksum), each behind its length (u32, big-endian). The order
//! is that of the keys, which is that of the tries, so that every node writes the same bytes. Everything in it can be checked against one hash,
//! the one of the last header, which is CometBFT's app hash: headers by their parent hashes, accounts and
//! slots by the state root, codes by their own hashes.

mod restore;
mod write;

pub use restore::{Restore, RestoreError};
pub use write::write_snapshot;

/// Headers in a snapshot: as many as BLOCKHASH can reach.
pub(crate) const HEADERS: u64 = 256;

/// Heights of the headers in the snapshot of a height.
pub(crate) fn header_range(height: u64) -> core::ops::RangeInclusive<u64> {
    height.saturating_sub(HEADERS - 1)..=height
}

/// Appends a record.
fn put_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    for part in [key, value] {
        out.extend_from_slice(&(part.len() as u32).to_be_bytes());
        out.extend_from_slice(part);
    }
}

/// Takes the next record off; `None` when the bytes are not a whole one.
fn take_record<'a>(input: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let mut part = || {
        let (length, rest) = input.split_first_chunk::<4>()?;
        let (part, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        *input = rest;
        Some(part)
    };
    Some((part()?, part()?))
}
