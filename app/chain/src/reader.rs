//! Reading the chain.

use std::sync::Arc;

use alloy_consensus::Header;
use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_rlp::Decodable;
use penstock_inference::{ContentHash, RequestId};
use penstock_state::{AccountProof, StateConfig, StoreError, View, keys};
use prost::Message;
use revm::database::BundleState;

use crate::{
    Block, Chain, ChainError, ConsensusRecord, HeaderTx, RecordedRequest, StoredReceipt, TxPlace, Validator, tasks,
    validators,
};

impl Chain {
    /// The state after a block; `None` for a later one, and for one whose state is not kept.
    ///
    /// # Errors
    /// Before `init_chain`.
    pub fn view_at(&self, number: u64) -> Result<Option<View>, ChainError> {
        let head = self.head()?;
        if number == head.number() {
            return Ok(Some(head.view));
        }
        Ok(self.reader.at(number)?)
    }

    /// Proves an account and some of its slots after a block; `None`: that block cannot be proved (any more).
    ///
    /// # Errors
    /// When the store fails or is damaged.
    pub fn prove(&self, number: u64, address: Address, slots: &[U256]) -> Result<Option<AccountProof>, ChainError> {
        Ok(self.reader.prove(number, address, slots)?)
    }

    /// The state root that changes on top of a block would give; `None`: the tries of that block are not kept.
    ///
    /// # Errors
    /// When the store fails or is damaged.
    pub fn root_with(&self, number: u64, changes: &BundleState) -> Result<Option<B256>, ChainError> {
        Ok(self.reader.root_with(number, changes)?)
    }

    /// The first block whose state can be read.
    ///
    /// # Errors
    /// When the store fails.
    pub fn first_state(&self) -> Result<u64, ChainError> {
        Ok(self.reader.first()?)
    }

    /// The first block whose state can be proved.
    pub fn first_proof(&self) -> u64 {
        self.reader.first_proof()
    }

    /// How much of the past is kept.
    pub fn state_config(&self) -> StateConfig {
        self.config.state
    }

    /// The number of a block by its hash.
    ///
    /// # Errors
    /// When the store fails.
    pub fn number_of(&self, hash: B256) -> Result<Option<u64>, ChainError> {
        let head = self.head()?;
        let bytes = head.view.snapshot().get(&keys::number_of(hash))?;
        Ok(bytes.map(|bytes| number(&bytes, "a block number")).transpose()?)
    }

    /// The header of a block.
    ///
    /// # Errors
    /// When the store fails.
    pub fn header(&self, number: u64) -> Result<Option<(Header, B256)>, ChainError> {
        let head = self.head()?;
        if number == head.number() {
            return Ok(Some((head.header, head.hash)));
        }
        Ok(head.view.header(number)?.map(|header| {
            let hash = header.hash_slow();
            (header, hash)
        }))
    }

    /// A block with everything that is known of it.
    ///
    /// # Errors
    /// When the store fails.
    pub fn block(&self, number: u64) -> Result<Option<Arc<Block>>, ChainError> {
        if let Some(block) = self.block_at_hand(number) {
            return Ok(Some(block));
        }
        let Some((header, hash)) = self.header(number)? else { return Ok(None) };
        let head = self.head()?;
        let snapshot = head.view.snapshot();
        let damaged = || StoreError::damaged(format_args!("block {number}"));
        let Some(body) = snapshot.get(&keys::body(number))? else {
            // Only the genesis block has none; those before a restored snapshot are not here.
            let empty = Block { header, hash, header_tx: None, txs: vec![], receipts: vec![] };
            return Ok((number == 0).then(|| Arc::new(empty)));
        };
        let body = Vec::<Bytes>::decode(&mut body.as_slice()).map_err(|_| damaged())?;
        let (header_tx, users) = body.split_first().ok_or_else(damaged)?;
        let header_tx = HeaderTx::decode(header_tx).map_err(|_| damaged())?;
        let txs = tasks::transactions(&header, &header_tx, users).map_err(|_| damaged())?;
        let receipts = snapshot.get(&keys::receipts(number))?.ok_or_else(damaged)?;
        let receipts = Vec::<StoredReceipt>::decode(&mut receipts.as_slice()).map_err(|_| damaged())?;
        let block = Arc::new(Block { header, hash, header_tx: Some(Arc::new(header_tx)), txs, receipts });
        self.recent.keep(&block);
        Ok(Some(block))
    }

    /// A block that was read lately, or committed: nothing is read from the store.
    pub fn block_at_hand(&self, number: u64) -> Option<Arc<Block>> {
        self.recent.get(number)
    }

    /// The first block that is here: 0, or the one after the snapshot that the node joined with.
    ///
    /// # Errors
    /// When the store fails.
    pub fn first_block(&self) -> Result<u64, ChainError> {
        let first = self.head()?.view.snapshot().get(&keys::meta("first"))?;
        Ok(first.map(|bytes| number(&bytes, "the first block")).transpose()?.unwrap_or_default())
    }

    /// What consensus said with a block; `None` for the genesis, and for blocks that are not here.
    ///
    /// # Errors
    /// When the store fails.
    pub fn consensus_record(&self, number: u64) -> Result<Option<ConsensusRecord>, ChainError> {
        let Some(bytes) = self.head()?.view.snapshot().get(&keys::consensus(number))? else { return Ok(None) };
        let record = ConsensusRecord::decode(bytes.as_slice());
        Ok(Some(record.map_err(|_| StoreError::damaged(format_args!("the consensus record of block {number}")))?))
    }

    /// The validators, with their public keys; none on a chain without consensus peers.
    ///
    /// # Errors
    /// When the store fails.
    pub fn validators(&self) -> Result<Vec<Validator>, ChainError> {
        Ok(validators::read(&self.head()?.view)?)
    }

    /// Where a committed transaction is.
    ///
    /// # Errors
    /// When the store fails.
    pub fn place_of(&self, hash: B256) -> Result<Option<TxPlace>, ChainError> {
        let head = self.head()?;
        let Some(bytes) = head.view.snapshot().get(&keys::transaction(hash))? else { return Ok(None) };
        let (block, index) = bytes.split_at_checked(8).ok_or_else(|| StoreError::damaged("a transaction's place"))?;
        let index =
            index.try_into().map(u32::from_be_bytes).map_err(|_| StoreError::damaged("a transaction's place"))?;
        Ok(Some(TxPlace { block: number(block, "a transaction's place")?, index: index as usize }))
    }

    /// What is recorded of a request that a block used.
    ///
    /// # Errors
    /// When the store fails.
    pub fn recorded_request(&self, id: RequestId) -> Result<Option<RecordedRequest>, ChainError> {
        let head = self.head()?;
        let Some(bytes) = head.view.snapshot().get(&keys::request(id.0))? else { return Ok(None) };
        let damaged = || StoreError::damaged("the record of a request");
        let bytes: [u8; 72] = bytes.as_slice().try_into().map_err(|_| damaged())?;
        let (block, rest) = bytes.split_at(8);
        let (model, input_digest) = rest.split_at(32);
        Ok(Some(RecordedRequest {
            block: number(block, "the record of a request")?,
            model: ContentHash(model.try_into().map_err(|_| damaged())?),
            input_digest: B256::from_slice(input_digest),
        }))
    }
}

fn number(bytes: &[u8], what: &str) -> Result<u64, StoreError> {
    bytes.try_into().map(u64::from_be_bytes).map_err(|_| StoreError::damaged(what))
}
