//! What a node keeps: flat state, its Merkle trie, blocks and indexes, in one embedded store.
//! Knows nothing of the EVM's rules.
//!
//! ```text
//!  BundleState ──► State::apply ──► new root + Batch ──► Store::commit (atomic, durable)
//!                    │                                        │
//!                    └── account trie in memory               └──► View (a snapshot) ──► readers
//! ```
//!
//! Only a commit writes: one atomic batch a block, height included. After a crash the store is at
//! some height, exactly. State sync is the exception: `Restore` fills an empty store chunk by chunk and gives it
//! a height at the end; a store without one is emptied when it is opened.

mod fjall_store;
pub mod keys;
mod state;
mod store;
mod sync;
mod trie;
mod view;

pub use fjall_store::FjallStore;
pub use state::{Applied, State};
pub use store::{Batch, Snapshot, Store, StoreError, Visit, clear};
pub use sync::{Restore, RestoreError, write_snapshot};
pub use trie::Trie;
pub use view::View;
