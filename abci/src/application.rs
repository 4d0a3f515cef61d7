//! The application's side of ABCI.

use tendermint_proto::v0_38::abci::{
    RequestApplySnapshotChunk, RequestCheckTx, RequestFinalizeBlock, RequestInfo, RequestInitChain,
    RequestLoadSnapshotChunk, RequestOfferSnapshot, RequestPrepareProposal, RequestProcessProposal, RequestQuery,
    ResponseApplySnapshotChunk, ResponseCheckTx, ResponseCommit, ResponseFinalizeBlock, ResponseInfo,
    ResponseInitChain, ResponseListSnapshots, ResponseLoadSnapshotChunk, ResponseOfferSnapshot,
    ResponsePrepareProposal, ResponseProcessProposal, ResponseQuery,
};

use crate::wire::{RequestInsertTx, RequestReapTxs, ResponseInsertTx, ResponseReapTxs};

/// What consensus calls. Calls of the consensus connection come one at a time, in the order of the
/// grammar (CometBFT `spec/abci/abci++_comet_expected_behavior.md`); those of the mempool, the info and the
/// snapshot connection come at any time, beside them.
///
/// An error means that the application cannot go on (its storage failed, its genesis is wrong): the
/// caller stops the process. Bad input from outside is never an error but an answer.
pub trait Application: Send + Sync {
    /// What ends the process.
    type Error: core::error::Error + Send + Sync + 'static;

    /// The last height whose Commit finished, and its app hash.
    ///
    /// # Errors
    /// See the trait.
    fn info(&self, request: RequestInfo) -> Result<ResponseInfo, Self::Error>;

    /// Sets up the state of a new chain.
    ///
    /// # Errors
    /// See the trait.
    fn init_chain(&self, request: RequestInitChain) -> Result<ResponseInitChain, Self::Error>;

    /// Admits a transaction into the mempool; answers in microseconds.
    fn check_tx(&self, request: RequestCheckTx) -> ResponseCheckTx;

    /// Takes a transaction from a peer into the mempool (v0.40, `mempool.type = "app"`).
    fn insert_tx(&self, request: RequestInsertTx) -> ResponseInsertTx;

    /// Transactions that peers should hear of, each once (v0.40, `mempool.type = "app"`).
    fn reap_txs(&self, request: RequestReapTxs) -> ResponseReapTxs;

    /// Reads the application's state.
    fn query(&self, request: RequestQuery) -> ResponseQuery;

    /// Snapshots that peers can be given.
    fn list_snapshots(&self) -> ResponseListSnapshots;

    /// A part of a snapshot, for a peer.
    fn load_snapshot_chunk(&self, request: RequestLoadSnapshotChunk) -> ResponseLoadSnapshotChunk;

    /// A peer has a snapshot; the app hash is the light client's.
    ///
    /// # Errors
    /// See the trait.
    fn offer_snapshot(&self, request: RequestOfferSnapshot) -> Result<ResponseOfferSnapshot, Self::Error>;

    /// The next part of the accepted snapshot.
    ///
    /// # Errors
    /// See the trait.
    fn apply_snapshot_chunk(
        &self,
        request: RequestApplySnapshotChunk,
    ) -> Result<ResponseApplySnapshotChunk, Self::Error>;

    /// Builds a block.
    ///
    /// # Errors
    /// See the trait.
    fn prepare_proposal(&self, request: RequestPrepareProposal) -> Result<ResponsePrepareProposal, Self::Error>;

    /// Judges a block, by the block and the committed state alone.
    ///
    /// # Errors
    /// See the trait.
    fn process_proposal(&self, request: RequestProcessProposal) -> Result<ResponseProcessProposal, Self::Error>;

    /// Executes a decided block. It may come without any proposal before it (replay).
    ///
    /// # Errors
    /// See the trait.
    fn finalize_block(&self, request: RequestFinalizeBlock) -> Result<ResponseFinalizeBlock, Self::Error>;

    /// Makes the finalized block durable.
    ///
    /// # Errors
    /// See the trait.
    fn commit(&self) -> Result<ResponseCommit, Self::Error>;
}
