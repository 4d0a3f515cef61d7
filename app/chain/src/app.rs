//! The chain as an ABCI application: requests in, answers out; the work is in the other files.

use penstock_abci::{
    Application, Timestamp,
    messages::{
        ExecTxResult, RequestCheckTx, RequestFinalizeBlock, RequestInfo, RequestInitChain, RequestPrepareProposal,
        RequestProcessProposal, ResponseCheckTx, ResponseCommit, ResponseFinalizeBlock, ResponseInfo,
        ResponseInitChain, ResponsePrepareProposal, ResponseProcessProposal, response_process_proposal::ProposalStatus,
    },
};
use tracing::warn;

use crate::{Chain, ChainError, proposal::BlockId};

/// `code` of a transaction that is not admitted.
const REFUSED: u32 = 1;

/// CheckTx of a transaction that CometBFT holds already (`CheckTxType::Recheck`).
const RECHECK: i32 = 1;

impl Application for Chain {
    type Error = ChainError;

    fn info(&self, _: RequestInfo) -> Result<ResponseInfo, ChainError> {
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
        let time = request.time.map_or(0, |time| time.seconds.max(0) as u64);
        let hash = self.initialize(&request.app_state_bytes, time)?;
        Ok(ResponseInitChain { app_hash: hash.to_vec().into(), ..Default::default() })
    }

    fn check_tx(&self, request: RequestCheckTx) -> ResponseCheckTx {
        let verdict =
            if request.r#type == RECHECK { self.still_wanted(&request.tx) } else { self.check_new(request.tx) };
        match verdict {
            Ok(()) => ResponseCheckTx::default(),
            Err(log) => ResponseCheckTx { code: REFUSED, log, ..Default::default() },
        }
    }

    fn prepare_proposal(&self, request: RequestPrepareProposal) -> Result<ResponsePrepareProposal, ChainError> {
        let id = block_id(request.height, request.time, request.proposer_address);
        let txs = self.propose(&id, usize::try_from(request.max_tx_bytes).unwrap_or(usize::MAX))?;
        Ok(ResponsePrepareProposal { txs })
    }

    fn process_proposal(&self, request: RequestProcessProposal) -> Result<ResponseProcessProposal, ChainError> {
        let id = block_id(request.height, request.time, request.proposer_address);
        let status = match self.judge(&id, &request.txs)? {
            Ok(()) => ProposalStatus::Accept,
            Err(rejection) => {
                warn!(height = id.height, %rejection, "proposal rejected");
                ProposalStatus::Reject
            }
        };
        Ok(ResponseProcessProposal { status: status.into() })
    }

    fn finalize_block(&self, request: RequestFinalizeBlock) -> Result<ResponseFinalizeBlock, ChainError> {
        let id = block_id(request.height, request.time, request.proposer_address);
        let (hash, results) = self.finalize(&id, &request.txs)?;
        let tx_results = results
            .into_iter()
            .map(|gas| ExecTxResult { gas_wanted: gas.wanted, gas_used: gas.used, ..Default::default() })
            .collect();
        Ok(ResponseFinalizeBlock { tx_results, app_hash: hash.to_vec().into(), ..Default::default() })
    }

    fn commit(&self) -> Result<ResponseCommit, ChainError> {
        self.commit_finalized()?;
        Ok(ResponseCommit::default())
    }
}

impl Chain {
    fn check_new(&self, tx: bytes::Bytes) -> Result<(), String> {
        self.admit(tx.into()).map(|_| ()).map_err(|error| error.to_string())
    }

    /// The pool's own verdict, without executing anything.
    fn still_wanted(&self, tx: &[u8]) -> Result<(), String> {
        let hash = alloy_primitives::keccak256(tx);
        let pool = self.pool().map_err(|error| error.to_string())?;
        match pool.read(|pool| pool.get(&hash)) {
            Some(_) => Ok(()),
            None => Err("it is not in the pool".into()),
        }
    }
}

fn block_id(height: i64, time: Option<Timestamp>, proposer: bytes::Bytes) -> BlockId {
    let time = time.unwrap_or_default();
    BlockId { height: height.max(0) as u64, seconds: time.seconds, nanos: time.nanos, proposer: proposer.into() }
}
