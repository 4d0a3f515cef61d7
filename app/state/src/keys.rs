//! The layout of the store: every key there is. Numbers are big-endian, so that a scan runs in order.
//!
//! | key | value |
//! |---|---|
//! | `A` keccak256(address) | account: its address (20 bytes), RLP of `[nonce, balance, storage root, code hash]` as in the trie |
//! | `S` keccak256(address) keccak256(slot) | slot: length of its number, its number, its value; both big-endian without leading zeros |
//! | `c` code hash | code |
//! | `y` nibbles | a zone of the account trie: number of its leaves (2 bytes), reference of its topmost node (`trie`) |
//! | `z` keccak256(address) nibbles | a zone of an account's storage trie |
//! | `H` key of an account or slot, number | its value before block `number` changed it; empty: there was none |
//! | `p` number | keys of accounts and slots that the block changed, each behind its length (1 byte) |
//! | `k` number | hash of the block's Ethereum header |
//! | `h` number | Ethereum header, RLP |
//! | `b` number | the block's CometBFT transactions, RLP list of byte strings, header transaction first |
//! | `r` number | receipts of the users' transactions |
//! | `l` mark number | empty: a log of the block has this mark (`logs` in penstock-chain) |
//! | `n` header hash | number |
//! | `t` transaction hash | number (8 bytes), index among the users' transactions (4 bytes) |
//! | `q` request id | number of the last block that used the result (8 bytes), content hash of the model (32), keccak256 of the canonical request (32) |
//! | `v` number | what consensus said with the block (proposer, votes, misbehaviour), protobuf |
//! | `m` name | metadata: `version`, `chain`, `height`, `first` (the first block that is here, after state sync), `history` (the first height whose state can be read) |
//!
//! Behind every value are four more bytes: the CRC-32 of key and value (`store`).
//!
//! Accounts and slots are in the order of the trie's keys: the leaves below any node are one range, from which the
//! node can be made again.

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_trie::Nibbles;

/// Version of this layout, under [`meta`]`("version")`.
pub const LAYOUT_VERSION: u32 = 2;

/// Prefix of all accounts.
pub const ACCOUNTS: &[u8] = b"A";

/// Prefix of all zones of the account trie.
pub const ACCOUNT_ZONES: &[u8] = b"y";

/// Prefix of all codes.
pub const CODES: &[u8] = b"c";

/// Prefix of all slots of all accounts.
pub const SLOTS: &[u8] = b"S";

/// Key of an account.
pub fn account(address: Address) -> Vec<u8> {
    [ACCOUNTS, keccak256(address).as_slice()].concat()
}

/// Prefix of all slots of the account with an address of this hash.
pub fn slots(address_hash: B256) -> Vec<u8> {
    [SLOTS, address_hash.as_slice()].concat()
}

/// Key of a slot.
pub fn slot(address: Address, slot: U256) -> Vec<u8> {
    [SLOTS, keccak256(address).as_slice(), keccak256(slot.to_be_bytes::<32>()).as_slice()].concat()
}

/// Prefix of all zones of a storage trie.
pub fn storage_zones(address_hash: B256) -> Vec<u8> {
    [b"z", address_hash.as_slice()].concat()
}

/// Key of a zone of the trie whose zones have this prefix.
pub fn zone(prefix: &[u8], path: &Nibbles) -> Vec<u8> {
    [prefix, &path.to_vec()].concat()
}

/// Key of a contract's code.
pub fn code(hash: B256) -> Vec<u8> {
    [CODES, hash.as_slice()].concat()
}

/// Prefix of all former values of an account or slot, or of all with a common prefix.
pub fn former(key: &[u8]) -> Vec<u8> {
    [b"H", key].concat()
}

/// Key of the value that an account or slot had before a block.
pub fn former_at(key: &[u8], number: u64) -> Vec<u8> {
    [b"H", key, &number.to_be_bytes()].concat()
}

/// Key of the list of what a block changed.
pub fn changed(number: u64) -> Vec<u8> {
    numbered(b'p', number)
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

/// Prefix of the numbers of all blocks with a log that has a mark.
pub fn log_mark(mark: &[u8; 8]) -> Vec<u8> {
    [&b"l"[..], mark].concat()
}

/// Key that says that a log of a block has a mark.
pub fn log_mark_at(mark: &[u8; 8], number: u64) -> Vec<u8> {
    [&b"l"[..], mark, &number.to_be_bytes()].concat()
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
