//! The chain as an ABCI application: requests in, answers out; the work is in the other files.

use metrics::{counter, histogram};
use penstock_abci::{
    Application,
    messages::{
        ExecTxResult, RequestApplySnapshotChunk, RequestCheckTx, RequestFinalizeBlock, RequestInfo, RequestInitChain,
        RequestLoadSnapshotChunk, RequestOfferSnapshot, RequestPrepareProposal, RequestProcessProposal, RequestQuery,
        ResponseApplySnapshotChunk, ResponseCheckTx, ResponseCommit, ResponseFinalizeBlock, ResponseInfo,
        ResponseInitChain, ResponseListSnapshots, ResponseLoadSnapshotChunk, ResponseOfferSnapshot,
        ResponsePrepareProposal, ResponseProcessProposal, ResponseQuery, response_process_proposal::ProposalStatus,
    },
    proto_tx_size,
    wire::{RequestInsertTx, RequestReapTxs, ResponseInsertTx, ResponseReapTxs},
};
use tracing::{debug, info_span, warn};

use crate::{Chain, ChainError, Gossip, Rejection, block_id::BlockId, finalize::Outcome, validators};

impl Application for Chain {
    type Error = ChainError;

    fn info(&self, request: RequestInfo) -> Result<ResponseInfo, ChainError> {
        if self.config.gossip == Gossip::App && request.version.starts_with("0.38.") {
            // It would not ask for what is to be gossiped, without a word.
            return Err(ChainError::Consensus(format!(
                "CometBFT {} has no mempool of type \"app\": set [cometbft] mempool = \"flood\", and mempool.type in config.toml",
                request.version
            )));
        }
        // At height 0 nothing is committed yet as consensus counts: it sends InitChain (again).
        let committed = self.head.read().clone().filter(|head| head.number() > 0);
        Ok(ResponseInfo {
            data: "penstock".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            app_version: 1,
            last_block_height: committed.as_ref().map_or(0, |head| head.number() as i64),
            last_block_app_hash: committed.map(|head| head.hash.to_vec().into()).unwrap_or_default(),
        })
    }

    fn init_chain(&self, request: RequestInitChain) -> Result<ResponseInitChain, ChainError> {
        if request.initial_height > 1 {
            return Err(ChainError::Consensus(format!(
                "initial_height {} (only 1 is supported)",
                request.initial_height
            )));
        }
        if let Some(params) = &request.consensus_params {
            self.genesis.check_params(params)?;
        }
        let validators =
            validators::from_init_chain(&request.validators, self.genesis.config.validator_admin.is_some())?;
        let time = request.time.map_or(0, |time| time.seconds.max(0) as u64);
        let hash = self.initialize(&request.app_state_bytes, time, &validators)?;
        Ok(ResponseInitChain { app_hash: hash.to_vec().into(), ..Default::default() })
    }

    fn query(&self, request: RequestQuery) -> ResponseQuery {
        if request.path.starts_with("/p2p/filter/") {
            // CometBFT asks this for each peer when `filter_peers` is on; anything but 0 turns the peer away.
            return ResponseQuery::default();
        }
        let log = "queries are answered by JSON-RPC: eth_ and pipe_".into();
        ResponseQuery { code: 1, log, ..Default::default() }
    }

    fn check_tx(&self, request: RequestCheckTx) -> ResponseCheckTx {
        self.check(request)
    }

    fn insert_tx(&self, request: RequestInsertTx) -> ResponseInsertTx {
        self.insert(request)
    }

    fn reap_txs(&self, request: RequestReapTxs) -> ResponseReapTxs {
        self.reap(request)
    }

    fn list_snapshots(&self) -> ResponseListSnapshots {
        ResponseListSnapshots { snapshots: self.snapshots.list(self.height().unwrap_or_default()) }
    }

    fn load_snapshot_chunk(&self, request: RequestLoadSnapshotChunk) -> ResponseLoadSnapshotChunk {
        let chunk = self.snapshots.chunk(request.height, request.format, request.chunk);
        ResponseLoadSnapshotChunk { chunk: chunk.unwrap_or_default().into() }
    }

    fn offer_snapshot(&self, request: RequestOfferSnapshot) -> Result<ResponseOfferSnapshot, ChainError> {
        self.offer(&request)
    }

    fn apply_snapshot_chunk(
        &self,
        request: RequestApplySnapshotChunk,
    ) -> Result<ResponseApplySnapshotChunk, ChainError> {
        self.take_chunk(&request)
    }

    fn prepare_proposal(&self, request: RequestPrepareProposal) -> Result<ResponsePrepareProposal, ChainError> {
        let _span = info_span!("prepare", height = request.height).entered();
        let id = BlockId::from(&request);
        let txs = self.propose(&id, usize::try_from(request.max_tx_bytes).unwrap_or(usize::MAX))?;
        let bytes: usize = txs.iter().map(|tx| proto_tx_size(tx.len())).sum();
        histogram!("penstock_proposal_bytes").record(bytes as f64);
        Ok(ResponsePrepareProposal { txs })
    }

    fn process_proposal(&self, request: RequestProcessProposal) -> Result<ResponseProcessProposal, ChainError> {
        let _span = info_span!("process", height = request.height).entered();
        let id = BlockId::from(&request);
        let status = match self.judge(&id, &request.txs)? {
            Ok(()) => ProposalStatus::Accept,
            Err(rejection) => {
                counter!("penstock_proposals_rejected_total", "reason" => rejection.label()).increment(1);
                match rejection {
                    // For a node without models this is every block with results.
                    Rejection::NoModel(_) => debug!(%rejection, "proposal rejected"),
                    _ => warn!(%rejection, "proposal rejected"),
                }
                ProposalStatus::Reject
            }
        };
        Ok(ResponseProcessProposal { status: status.into() })
    }

    fn finalize_block(&self, request: RequestFinalizeBlock) -> Result<ResponseFinalizeBlock, ChainError> {
        let _span = info_span!("finalize", height = request.height).entered();
        let id = BlockId::from(&request);
        let Outcome { app_hash, results, validator_updates } = self.finalize(&id, &request.txs)?;
        let tx_results = results
            .into_iter()
            .map(|gas| ExecTxResult { gas_wanted: gas.wanted, gas_used: gas.used, ..Default::default() })
            .collect();
        let app_hash = app_hash.to_vec().into();
        Ok(ResponseFinalizeBlock { tx_results, app_hash, validator_updates, ..Default::default() })
    }

    fn commit(&self) -> Result<ResponseCommit, ChainError> {
        let _span = info_span!("commit").entered();
        let height = self.commit_finalized()?;
        Ok(ResponseCommit { retain_height: self.retain_height(height) as i64 })
    }
}

impl Chain {
    /// The oldest block that CometBFT has to keep; 0: all. Blocks after the oldest snapshot stay, so that
    /// whoever restores it can catch up.
    fn retain_height(&self, height: u64) -> u64 {
        let keep = self.config.retain_blocks;
        if keep == 0 || height <= keep {
            return 0;
        }
        let by_count = height - keep + 1;
        match (self.snapshots.are_made(), self.snapshots.oldest()) {
            (false, _) => by_count,
            (true, None) => 0,
            (true, Some(oldest)) => by_count.min(oldest),
        }
    }
}
