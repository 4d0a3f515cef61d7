//! What a node keeps: flat state, its Merkle tries, its history, blocks and indexes, in one embedded store.
//! Knows nothing of the EVM's rules.
//!
//! ```text
//!  BundleState ──► State::apply ──► new root + Batch ──► Store::commit (atomic, durable)
//!                    │                                        │
//!                    └── tries in memory, by version          └──► StateReader ──► View (any height that is kept)
//!                                                                      └─────────► proofs (of the newest heights)
//! ```
//!
//! Only a commit writes: one atomic batch a block, height included. After a crash the store is at
//! some height, exactly. State sync is the exception: `Restore` fills an empty store chunk by chunk and gives it
//! a height at the end; a store without one is emptied when it is opened. Old history goes on a thread of its own,
//! and another one reads ahead what a proposed block will change.

mod beside;
mod codes;
mod fetcher;
mod history;
pub mod keys;
mod migrate;
mod reader;
mod records;
mod state;
mod store;
mod sync;
mod trie;
mod tries;
mod verify;
mod view;
mod what_if;

pub use fetcher::Fetcher;
pub use migrate::{AddIndexes, migrate};
pub use reader::{AccountProof, SlotProof, StateReader, TrieMemory};
pub use records::{decode_account, read_account, read_slot};
pub use state::{Applied, State, StateConfig};
pub use store::{Backend, Batch, Durability, Range, Snapshot, Store, StoreError, Visit, check_layout, clear};
pub use sync::{Restore, RestoreError, write_snapshot};
pub use trie::{Cache, Change, Leaves, NoLeaves, Trie, TrieBuilder, Updated, ZoneChange};
pub use verify::{Report, Tell, verify_records, verify_state};
pub use view::{View, VisitAccount, VisitSlot};
