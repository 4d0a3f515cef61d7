//! From a request to the method of the application, and back.

use tendermint_proto::v0_38::abci::{ResponseEcho, ResponseException, ResponseFlush};
use tracing::warn;

use crate::{
    Application,
    wire::{request::Value as Request, response::Value as Response},
};

/// The method's name, for metrics and messages.
pub(super) fn name(request: &Request) -> &'static str {
    match request {
        Request::Echo(_) => "echo",
        Request::Flush(_) => "flush",
        Request::Info(_) => "info",
        Request::InitChain(_) => "init_chain",
        Request::Query(_) => "query",
        Request::CheckTx(_) => "check_tx",
        Request::Commit(_) => "commit",
        Request::ListSnapshots(_) => "list_snapshots",
        Request::OfferSnapshot(_) => "offer_snapshot",
        Request::LoadSnapshotChunk(_) => "load_snapshot_chunk",
        Request::ApplySnapshotChunk(_) => "apply_snapshot_chunk",
        Request::PrepareProposal(_) => "prepare_proposal",
        Request::ProcessProposal(_) => "process_proposal",
        Request::ExtendVote(_) => "extend_vote",
        Request::VerifyVoteExtension(_) => "verify_vote_extension",
        Request::FinalizeBlock(_) => "finalize_block",
        Request::InsertTx(_) => "insert_tx",
        Request::ReapTxs(_) => "reap_txs",
    }
}

/// Whether a request may change what consensus builds on: one of these at a time, whoever is connected.
pub(super) fn is_consensus(request: &Request) -> bool {
    matches!(
        request,
        // Not to answer with the height before a commit that is under way.
        Request::Info(_)
            | Request::InitChain(_)
            | Request::PrepareProposal(_)
            | Request::ProcessProposal(_)
            | Request::FinalizeBlock(_)
            | Request::Commit(_)
            | Request::OfferSnapshot(_)
            | Request::ApplySnapshotChunk(_)
    )
}

pub(super) fn exception(error: impl Into<String>) -> Response {
    Response::Exception(ResponseException { error: error.into() })
}

/// Calls the application.
pub(super) fn call<A: Application>(app: &A, request: Request) -> Result<Response, A::Error> {
    Ok(match request {
        Request::Echo(echo) => Response::Echo(ResponseEcho { message: echo.message }),
        Request::Flush(_) => Response::Flush(ResponseFlush {}),
        Request::Info(request) => match supported(&request.version) {
            Ok(()) => Response::Info(app.info(request)?),
            Err(why) => exception(why),
        },
        Request::InitChain(request) => Response::InitChain(app.init_chain(request)?),
        Request::Query(request) => Response::Query(app.query(request)),
        Request::CheckTx(request) => Response::CheckTx(app.check_tx(request)),
        Request::InsertTx(request) => Response::InsertTx(app.insert_tx(request)),
        Request::ReapTxs(request) => Response::ReapTxs(app.reap_txs(request)),
        Request::Commit(_) => Response::Commit(app.commit()?),
        Request::ListSnapshots(_) => Response::ListSnapshots(app.list_snapshots()),
        Request::OfferSnapshot(request) => Response::OfferSnapshot(app.offer_snapshot(request)?),
        Request::LoadSnapshotChunk(request) => Response::LoadSnapshotChunk(app.load_snapshot_chunk(request)),
        Request::ApplySnapshotChunk(request) => Response::ApplySnapshotChunk(app.apply_snapshot_chunk(request)?),
        Request::PrepareProposal(request) => Response::PrepareProposal(app.prepare_proposal(request)?),
        Request::ProcessProposal(request) => Response::ProcessProposal(app.process_proposal(request)?),
        Request::FinalizeBlock(request) => Response::FinalizeBlock(app.finalize_block(request)?),
        Request::ExtendVote(_) | Request::VerifyVoteExtension(_) => {
            exception("vote extensions are not supported: abci.vote_extensions_enable_height must be 0")
        }
    })
}

/// Whether this is a CometBFT whose ABCI is spoken here. v1 looks alike and means other fields
/// (`../shared/facts/abci.md`, section 2): it would go wrong in silence.
fn supported(version: &str) -> Result<(), String> {
    // Tools and drivers have no version; v0.40.0 calls itself 0.39.0. The other releases of 0.39 lose the requests of
    // an application's mempool (no `InsertTx` in their socket client).
    if ["", "0.38.25", "0.39.0", "0.40.0"].contains(&version) {
        return Ok(());
    }
    if ["0.38.", "0.40."].iter().any(|line| version.starts_with(line)) {
        warn!(version, "this release of CometBFT is not tested with Penstock: v0.38.25 and v0.40.0 are");
        return Ok(());
    }
    Err(format!("CometBFT {version} is not supported: use v0.38.25 or v0.40.0 (scripts/install-cometbft)"))
}

#[cfg(test)]
mod tests {
    use super::supported;

    #[test]
    fn versions_that_mean_other_fields_are_refused() {
        for version in ["", "0.38.25", "0.38.26", "0.39.0", "0.40.0", "0.40.1"] {
            assert_eq!(supported(version), Ok(()), "{version}");
        }
        for version in ["0.34.24", "0.37.2", "0.39.4", "1.0.1", "2.0.0-rc1", "abc"] {
            assert!(supported(version).is_err(), "{version}");
        }
    }
}
