//! The layout of the store: every key there is. Numbers are big-endian, so that a scan runs in order.
//!
//! | key | value |
//! |---|---|
//! | `a` address | account: RLP of `[nonce, balance, storage root, code hash]`, as in the trie |
//! | `s` address slot | slot: the value's big-endian bytes without leading zeros |
//! | `c` code hash | code |
//! | `k` number | hash of the block's Ethereum header |
//! | `h` number | Ethereum header, RLP |
//! | `b` number | the block's CometBFT transactions, RLP list of byte strings, header transaction first |
//! | `r` number | receipts of the users' transactions |
//! | `n` header hash | number |
//! | `t` transaction hash | number (8 bytes), index among the users' transactions (4 bytes) |
//! | `q` request id | number of the last block that used the result (8 bytes), content hash of the model (32), keccak256 of the canonical request (32) |
//! | `v` number | what consensus said with the block (proposer, votes, misbehaviour), protobuf |
//! | `m` name | metadata: `version`, `chain`, `height`, `first` (the first block that is here, after state sync) |

use alloy_primitives::{Address, B256, U256};

/// Version of this layout, under [`meta`]`("version")`.
pub const LAYOUT_VERSION: u32 = 1;

/// Prefix of all accounts.
pub const ACCOUNTS: &[u8] = b"a";

/// Key of an account.
pub fn account(address: Address) -> Vec<u8> {
    [ACCOUNTS, address.as_slice()].concat()
}

/// Prefix of all slots of an account.
pub fn slots(address: Address) -> Vec<u8> {
    [b"s", address.as_slice()].concat()
}

/// Key of a slot.
pub fn slot(address: Address, slot: U256) -> Vec<u8> {
    [b"s", address.as_slice(), &slot.to_be_bytes::<32>()].concat()
}

/// Key of a contract's code.
pub fn code(hash: B256) -> Vec<u8> {
    [b"c", hash.as_slice()].concat()
}

/// Key of a block's hash.
pub fn block_hash(number: u64) -> Vec<u8> {
    numbered(b'k', number)
}

/// Key of a block's header.
pub fn header(number: u64) -> Vec<u8> {
    numbered(b'h', number)
}

/// Key of a block's transactions.
pub fn body(number: u64) -> Vec<u8> {
    numbered(b'b', number)
}

/// Key of a block's receipts.
pub fn receipts(number: u64) -> Vec<u8> {
    numbered(b'r', number)
}

/// Key of the number of a block by its hash.
pub fn number_of(hash: B256) -> Vec<u8> {
    [b"n", hash.as_slice()].concat()
}

/// Key of the place of a transaction.
pub fn transaction(hash: B256) -> Vec<u8> {
    [b"t", hash.as_slice()].concat()
}

/// Key of the block that used a result last.
pub fn request(id: B256) -> Vec<u8> {
    [b"q", id.as_slice()].concat()
}

/// Key of what consensus said with a block.
pub fn consensus(number: u64) -> Vec<u8> {
    numbered(b'v', number)
}

/// Key of a piece of metadata.
pub fn meta(name: &str) -> Vec<u8> {
    [b"m", name.as_bytes()].concat()
}

fn numbered(prefix: u8, number: u64) -> Vec<u8> {
    let mut key = vec![prefix];
    key.extend_from_slice(&number.to_be_bytes());
    key
}
