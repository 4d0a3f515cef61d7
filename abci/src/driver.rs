//! A single validator's consensus, in process: the same calls in the same order as CometBFT makes.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prost::{Message, bytes::Bytes};
use tendermint_proto::{
    google::protobuf::Timestamp,
    v0_38::abci::{
        CommitInfo, ExtendedCommitInfo, RequestFinalizeBlock, RequestInfo, RequestInitChain, RequestPrepareProposal,
        RequestProcessProposal, response_process_proposal::ProposalStatus,
    },
};

use crate::{Application, BlockLog, LogError, LoggedBlock};

/// Proposals that may be rejected before the driver gives up on a height: an honest application accepts
/// its own first one.
const MAX_ROUNDS: usize = 3;

/// Time that a block is at least ahead of its parent, as in CometBFT (`types/time`).
const TIME_STEP: Duration = Duration::from_millis(1);

/// What a chain begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Genesis {
    /// CometBFT's chain id.
    pub chain_id: String,
    /// Time of the genesis.
    pub time: SystemTime,
    /// The application's part of the genesis document, as JSON.
    pub app_state: Bytes,
}

/// Why the driver stopped.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The application cannot go on.
    #[error("{0}")]
    Application(Box<dyn core::error::Error + Send + Sync>),
    /// The block log cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The application rejects what it proposes.
    #[error("the application rejected its own proposal for height {0}, {MAX_ROUNDS} times")]
    Rejected(u64),
    /// The application is ahead of the block log: the two are not of one chain.
    #[error("the state is at height {app}, but the block log ends at {log}: they do not belong together")]
    AheadOfLog {
        /// Height of the application.
        app: u64,
        /// Height of the log.
        log: u64,
    },
}

fn application(error: impl core::error::Error + Send + Sync + 'static) -> DriverError {
    DriverError::Application(Box::new(error))
}

/// Drives one application.
#[derive(Debug)]
pub struct Driver<A> {
    app: Arc<A>,
    log: BlockLog,
    height: u64,
    last_time: SystemTime,
    proposer_address: Vec<u8>,
    max_tx_bytes: i64,
}

impl<A: Application> Driver<A> {
    /// CometBFT's handshake: asks the application where it is, initializes a new chain, and replays the
    /// logged blocks that the application has not committed.
    ///
    /// # Errors
    /// [`DriverError`].
    pub fn start(
        app: Arc<A>,
        log: BlockLog,
        genesis: &Genesis,
        proposer_address: Vec<u8>,
        max_tx_bytes: i64,
    ) -> Result<Self, DriverError> {
        let info = app.info(RequestInfo { abci_version: "2.0.0".into(), ..Default::default() }).map_err(application)?;
        let height = info.last_block_height as u64;
        if height > log.height() {
            return Err(DriverError::AheadOfLog { app: height, log: log.height() });
        }
        if height == 0 {
            let request = RequestInitChain {
                time: Some(timestamp(genesis.time)),
                chain_id: genesis.chain_id.clone(),
                app_state_bytes: genesis.app_state.clone(),
                initial_height: 1,
                ..Default::default()
            };
            app.init_chain(request).map_err(application)?;
        }
        let mut driver = Self { app, log, height, last_time: genesis.time, proposer_address, max_tx_bytes };
        for height in driver.height + 1..=driver.log.height() {
            let block = driver.log.read(height)?;
            driver.finalize(&block)?;
        }
        if driver.height > 0 {
            let head = driver.log.read(driver.height)?;
            driver.last_time = head.time.map_or(genesis.time, system_time);
        }
        Ok(driver)
    }

    /// Height of the last committed block.
    pub fn height(&self) -> u64 {
        self.height
    }

    /// The committed blocks, for another application to replay.
    pub fn log(&mut self) -> &mut BlockLog {
        &mut self.log
    }

    /// One height: proposal, decision, execution, commit. Answers the app hash.
    ///
    /// # Errors
    /// [`DriverError`]; the process has to stop.
    pub fn produce(&mut self) -> Result<Bytes, DriverError> {
        let height = self.height + 1;
        for _ in 0..MAX_ROUNDS {
            let time = SystemTime::now().max(self.last_time + TIME_STEP);
            let request = RequestPrepareProposal {
                max_tx_bytes: self.max_tx_bytes,
                local_last_commit: Some(ExtendedCommitInfo::default()),
                height: height as i64,
                time: Some(timestamp(time)),
                proposer_address: self.proposer_address.clone().into(),
                ..Default::default()
            };
            let txs = self.app.prepare_proposal(request).map_err(application)?.txs;
            let block = LoggedBlock {
                height: height as i64,
                time: Some(timestamp(time)),
                proposer_address: self.proposer_address.clone(),
                txs,
            };
            if self.accepts(&block)? {
                self.log.append(&block)?;
                self.last_time = time;
                return self.finalize(&block);
            }
        }
        Err(DriverError::Rejected(height))
    }

    fn accepts(&self, block: &LoggedBlock) -> Result<bool, DriverError> {
        let request = RequestProcessProposal {
            txs: block.txs.clone(),
            proposed_last_commit: Some(CommitInfo::default()),
            hash: hash_of(block),
            height: block.height,
            time: block.time,
            proposer_address: block.proposer_address.clone().into(),
            ..Default::default()
        };
        let response = self.app.process_proposal(request).map_err(application)?;
        Ok(response.status == ProposalStatus::Accept as i32)
    }

    fn finalize(&mut self, block: &LoggedBlock) -> Result<Bytes, DriverError> {
        let request = RequestFinalizeBlock {
            txs: block.txs.clone(),
            decided_last_commit: Some(CommitInfo::default()),
            hash: hash_of(block),
            height: block.height,
            time: block.time,
            proposer_address: block.proposer_address.clone().into(),
            ..Default::default()
        };
        let response = self.app.finalize_block(request).map_err(application)?;
        self.app.commit().map_err(application)?;
        self.height = block.height as u64;
        Ok(response.app_hash)
    }
}

/// Stands for CometBFT's block hash, which an application must not rely on to name an execution: height and CRC-32.
fn hash_of(block: &LoggedBlock) -> Bytes {
    let crc = crc32fast::hash(&block.encode_to_vec());
    let mut hash = vec![0; 32];
    hash[..8].copy_from_slice(&block.height.to_be_bytes());
    hash[28..].copy_from_slice(&crc.to_be_bytes());
    hash.into()
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() as i32 }
}

fn system_time(time: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::new(time.seconds.max(0) as u64, time.nanos.max(0) as u32)
}
