//! JSON-RPC over HTTP and WebSocket: Ethereum's methods and Penstock's own, over a [`Chain`].
//! Knows nothing of ABCI.
//!
//! | file | methods |
//! |---|---|
//! | `eth/blocks.rs` | blocks, transactions, receipts, logs |
//! | `eth/state.rs` | balances, nonces, code, slots, proofs |
//! | `eth/execute.rs` | `eth_call`, `eth_estimateGas`; what they share with `overrides.rs`, `inferences.rs` |
//! | `eth/access_list.rs`, `fill.rs`, `simulate.rs` | `eth_createAccessList`, `eth_fillTransaction`, `eth_simulateV1` |
//! | `eth/send.rs` | sending, with and without waiting |
//! | `debug/` | `debug_` |
//! | `eth/fees.rs` | gas price, fee history |
//! | `eth/filters.rs` | filters that are polled |
//! | `eth/pubsub.rs` | `eth_subscribe` |
//! | `net.rs` | `net_`, `web3_`, `txpool_` |
//! | `pipe.rs` | `pipe_` |
//! | `happenings.rs` | `pipe_subscribe` |
//! | `consensus.rs` | `pipe_` about validators and votes |
//! | `doors.rs`, `flow.rs`, `guard.rs`, `limits.rs` | no methods: what stands before all of them |
//!
//! [`Chain`]: penstock_chain::Chain

mod config;
mod consensus;
mod convert;
mod debug;
mod doors;
mod error;
mod eth;
mod flow;
mod guard;
mod happenings;
mod limits;
mod net;
mod pipe;
mod server;

pub use config::RpcConfig;
pub use server::{RpcServer, ServeError, serve};
