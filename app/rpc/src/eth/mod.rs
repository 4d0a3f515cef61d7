//! Ethereum's methods.

mod access_list;
mod blocks;
mod calls;
mod capabilities;
mod execute;
mod fees;
mod fill;
mod filters;
mod hash;
mod inferences;
mod overrides;
mod pending;
mod pubsub;
mod send;
mod simulate;
mod state;
mod transfers;

use std::sync::Arc;

use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::{Address, B256, Bytes, U64, U256};
use alloy_rpc_types_eth::{
    AccountInfo, Block as RpcBlock, EIP1186AccountProofResponse, FeeHistory, Filter, Log, Transaction,
    TransactionReceipt,
};
use alloy_serde::JsonStorageKey;
use jsonrpsee::{core::SubscriptionResult, proc_macros::rpc, types::ErrorObjectOwned};
use penstock_chain::{Block, Chain};
use penstock_state::View;
use serde_json::Value;
use tokio::sync::broadcast;

use self::{
    capabilities::Capabilities,
    filters::FilterKind,
    hash::{Hash, Slot},
    pubsub::SubscribeParams,
    state::{SlotsOf, ValuesOf},
};
use crate::{
    RpcConfig, convert,
    error::{RpcError, RpcResult},
    happenings::Happenings,
    limits::Turns,
};

pub(crate) use calls::CallApiServer;
pub(crate) use execute::CallParams;
pub(crate) use hash::Hash as StrictHash;
pub(crate) use inferences::InferenceOverride;
pub(crate) use send::SendApiServer;

type Answer<T> = Result<T, ErrorObjectOwned>;

/// What the methods share.
#[derive(Debug)]
pub(crate) struct Eth {
    pub(crate) chain: Arc<Chain>,
    pub(crate) config: RpcConfig,
    heads: broadcast::Sender<Arc<Block>>,
    filters: filters::Filters,
    pending: pending::PendingHashes,
    tip: fees::TipOracle,
    turns: Turns,
    pub(crate) happenings: Happenings,
}

impl Eth {
    pub(crate) fn new(chain: Arc<Chain>, config: RpcConfig, heads: broadcast::Sender<Arc<Block>>) -> Arc<Self> {
        Arc::new(Self {
            chain,
            turns: Turns::new(&config),
            config,
            heads,
            filters: Default::default(),
            pending: Default::default(),
            tip: Default::default(),
            happenings: Happenings::default(),
        })
    }

    /// The number of a block; `None` when there is none.
    pub(crate) fn number(&self, id: BlockId) -> RpcResult<Option<u64>> {
        let head = self.chain.head()?.number();
        Ok(match id {
            BlockId::Hash(hash) => self.chain.number_of(hash.block_hash)?,
            BlockId::Number(tag) => Some(self.number_of_tag(tag, head)).filter(|number| *number <= head),
        })
    }

    /// Blocks are final when they are committed: latest, safe and finalized are one.
    fn number_of_tag(&self, tag: BlockNumberOrTag, head: u64) -> u64 {
        match tag {
            BlockNumberOrTag::Number(number) => number,
            BlockNumberOrTag::Earliest => 0,
            BlockNumberOrTag::Latest
            | BlockNumberOrTag::Safe
            | BlockNumberOrTag::Finalized
            | BlockNumberOrTag::Pending => head,
        }
    }

    pub(crate) fn block(&self, id: BlockId) -> RpcResult<Option<Arc<Block>>> {
        match self.number(id)? {
            Some(number) => Ok(self.chain.block(number)?),
            None => Ok(None),
        }
    }

    /// `false`, or how far it is. The highest block is consensus' business and not known here: the newest own one stands
    /// for it.
    fn sync_status(&self) -> Value {
        if !self.chain.is_syncing() {
            return Value::Bool(false);
        }
        let current = U64::from(self.chain.height().unwrap_or_default());
        let first = U64::from(self.chain.first_block().unwrap_or_default());
        serde_json::json!({ "startingBlock": first, "currentBlock": current, "highestBlock": current })
    }

    /// The state after a block.
    fn view(&self, id: Option<BlockId>) -> RpcResult<View> {
        let number = self.number(id.unwrap_or_default())?.ok_or(RpcError::UnknownBlock)?;
        self.chain.view_at(number)?.ok_or(RpcError::Pruned(number))
    }
}

/// The methods, as clients call them. `blocking`: whatever may read or answer more than a few values runs on a thread of its
/// own, so that it holds up no other request; methods that need one block load it there if it is not at hand.
#[rpc(server, namespace = "eth")]
pub(crate) trait EthApi {
    /// The EVM chain id (EIP-155).
    #[method(name = "chainId")]
    fn chain_id(&self) -> Answer<U64>;
    /// Number of the newest block. Blocks are final when they are there.
    #[method(name = "blockNumber")]
    fn block_number(&self) -> Answer<U64>;
    /// `false`, or an object while this node is not up with its peers.
    #[method(name = "syncing")]
    fn syncing(&self) -> Answer<Value>;
    /// What of the past this node can answer for.
    #[method(name = "capabilities")]
    fn capabilities(&self) -> Answer<Capabilities>;
    /// Always empty: the node holds no keys.
    #[method(name = "accounts")]
    fn accounts(&self) -> Answer<Vec<Address>>;
    /// Receiver of the priority fees of the newest block.
    #[method(name = "coinbase")]
    fn coinbase(&self) -> Answer<Address>;

    /// A block with its transactions' hashes, or with whole transactions.
    #[method(name = "getBlockByHash", blocking)]
    fn block_by_hash(&self, hash: Hash, full: Option<bool>) -> Answer<Option<RpcBlock>>;
    /// The same by number or tag; latest, safe, finalized and pending are the newest block.
    #[method(name = "getBlockByNumber", blocking)]
    fn block_by_number(&self, number: BlockNumberOrTag, full: Option<bool>) -> Answer<Option<RpcBlock>>;
    /// How many transactions a block has.
    #[method(name = "getBlockTransactionCountByHash")]
    async fn transaction_count_by_hash(&self, hash: Hash) -> Answer<Option<U64>>;
    /// The same by number or tag.
    #[method(name = "getBlockTransactionCountByNumber")]
    async fn transaction_count_by_number(&self, number: BlockNumberOrTag) -> Answer<Option<U64>>;
    /// Zero: there are no uncles.
    #[method(name = "getUncleCountByBlockHash")]
    async fn uncle_count_by_hash(&self, hash: Hash) -> Answer<Option<U64>>;
    /// Zero: there are no uncles.
    #[method(name = "getUncleCountByBlockNumber")]
    async fn uncle_count_by_number(&self, number: BlockNumberOrTag) -> Answer<Option<U64>>;
    /// The receipts of all transactions of a block.
    #[method(name = "getBlockReceipts", blocking)]
    fn block_receipts(&self, block: BlockId) -> Answer<Option<Vec<TransactionReceipt>>>;
    /// A transaction, in a block or in the pool.
    #[method(name = "getTransactionByHash")]
    async fn transaction_by_hash(&self, hash: Hash) -> Answer<Option<Transaction>>;
    /// Its EIP-2718 bytes.
    #[method(name = "getRawTransactionByHash")]
    async fn raw_transaction_by_hash(&self, hash: Hash) -> Answer<Option<Bytes>>;
    /// A transaction of a block.
    #[method(name = "getTransactionByBlockHashAndIndex")]
    async fn transaction_by_block_hash(&self, hash: Hash, index: U64) -> Answer<Option<Transaction>>;
    /// A transaction of a block.
    #[method(name = "getTransactionByBlockNumberAndIndex")]
    async fn transaction_by_block_number(&self, number: BlockNumberOrTag, index: U64) -> Answer<Option<Transaction>>;
    /// The receipt; `null` until the transaction is in a block.
    #[method(name = "getTransactionReceipt")]
    async fn transaction_receipt(&self, hash: Hash) -> Answer<Option<TransactionReceipt>>;
    /// The logs that a filter selects, by an index of addresses and topics.
    #[method(name = "getLogs", blocking)]
    fn logs(&self, filter: Filter) -> Answer<Vec<Log>>;

    /// Balance in wei.
    #[method(name = "getBalance")]
    fn balance(&self, address: Address, block: Option<BlockId>) -> Answer<U256>;
    /// The next nonce; with `pending` it counts the account's transactions in the pool.
    #[method(name = "getTransactionCount")]
    fn transaction_count(&self, address: Address, block: Option<BlockId>) -> Answer<U64>;
    /// Code of an account.
    #[method(name = "getCode")]
    fn code(&self, address: Address, block: Option<BlockId>) -> Answer<Bytes>;
    /// Value of a slot.
    #[method(name = "getStorageAt")]
    fn storage_at(&self, address: Address, slot: Slot, block: Option<BlockId>) -> Answer<B256>;

    /// Values of slots of several accounts.
    #[method(name = "getStorageValues", blocking)]
    fn storage_values(&self, slots: SlotsOf, block: Option<BlockId>) -> Answer<ValuesOf>;
    /// Balance, nonce and code in one answer (reth's).
    #[method(name = "getAccountInfo")]
    fn account_info(&self, address: Address, block: Option<BlockId>) -> Answer<AccountInfo>;
    /// Merkle proofs of an account and its slots (EIP-1186), for the newest `[state] proof_window` blocks.
    #[method(name = "getProof", blocking)]
    fn proof(
        &self,
        address: Address,
        keys: Vec<JsonStorageKey>,
        block: Option<BlockId>,
    ) -> Answer<EIP1186AccountProofResponse>;

    /// Base fee of the next block and the suggested tip.
    #[method(name = "gasPrice", blocking)]
    fn gas_price(&self) -> Answer<U256>;
    /// Suggested tip: the 60th percentile of the last 20 blocks.
    #[method(name = "maxPriorityFeePerGas", blocking)]
    fn max_priority_fee_per_gas(&self) -> Answer<U256>;
    /// Of the next block.
    #[method(name = "baseFee")]
    fn base_fee(&self) -> Answer<U256>;
    /// One: there are no blobs.
    #[method(name = "blobBaseFee")]
    fn blob_base_fee(&self) -> Answer<U256>;
    /// Base fees, fullness and tips of past blocks.
    #[method(name = "feeHistory", blocking)]
    fn fee_history(&self, count: U64, newest: BlockNumberOrTag, percentiles: Option<Vec<f64>>) -> Answer<FeeHistory>;

    /// A filter for logs of new blocks, to be polled; forgotten after five minutes without a poll.
    #[method(name = "newFilter")]
    fn new_filter(&self, filter: Filter) -> Answer<U256>;
    /// A filter for hashes of new blocks.
    #[method(name = "newBlockFilter")]
    fn new_block_filter(&self) -> Answer<U256>;
    /// With `full` whole transactions, else their hashes.
    #[method(name = "newPendingTransactionFilter")]
    fn new_pending_transaction_filter(&self, full: Option<bool>) -> Answer<U256>;
    /// What is new since the last poll.
    #[method(name = "getFilterChanges", blocking)]
    fn filter_changes(&self, id: U256) -> Answer<Value>;
    /// All logs that a filter selects.
    #[method(name = "getFilterLogs", blocking)]
    fn filter_logs(&self, id: U256) -> Answer<Vec<Log>>;
    /// Forgets a filter.
    #[method(name = "uninstallFilter")]
    fn uninstall_filter(&self, id: U256) -> Answer<bool>;

    /// Over WebSocket: `newHeads`, `logs` with a filter, `newPendingTransactions` with `true` for whole ones, `syncing`.
    #[subscription(name = "subscribe" => "subscription", unsubscribe = "unsubscribe", item = Value)]
    async fn subscribe(&self, kind: String, filter: Option<SubscribeParams>) -> SubscriptionResult;
}

#[jsonrpsee::core::async_trait]
impl EthApiServer for Arc<Eth> {
    fn chain_id(&self) -> Answer<U64> {
        Ok(U64::from(self.chain.rules().chain_id))
    }

    fn block_number(&self) -> Answer<U64> {
        Ok(U64::from(self.chain.head().map_err(RpcError::from)?.number()))
    }

    fn syncing(&self) -> Answer<Value> {
        Ok(self.sync_status())
    }

    fn capabilities(&self) -> Answer<Capabilities> {
        Ok(Eth::capabilities(self)?)
    }

    /// The node holds no keys.
    fn accounts(&self) -> Answer<Vec<Address>> {
        Ok(vec![])
    }

    fn coinbase(&self) -> Answer<Address> {
        Ok(self.chain.head().map_err(RpcError::from)?.header.beneficiary)
    }

    fn block_by_hash(&self, hash: Hash, full: Option<bool>) -> Answer<Option<RpcBlock>> {
        let block = Eth::block(self, hash.0.into())?;
        Ok(block.map(|block| convert::block(&block, full.unwrap_or_default())))
    }

    fn block_by_number(&self, number: BlockNumberOrTag, full: Option<bool>) -> Answer<Option<RpcBlock>> {
        let block = Eth::block(self, number.into())?;
        Ok(block.map(|block| convert::block(&block, full.unwrap_or_default())))
    }

    async fn transaction_count_by_hash(&self, hash: Hash) -> Answer<Option<U64>> {
        Ok(Eth::load_by_id(self, hash.0.into()).await?.map(|block| U64::from(block.txs.len())))
    }

    async fn transaction_count_by_number(&self, number: BlockNumberOrTag) -> Answer<Option<U64>> {
        Ok(Eth::load_by_id(self, number.into()).await?.map(|block| U64::from(block.txs.len())))
    }

    async fn uncle_count_by_hash(&self, hash: Hash) -> Answer<Option<U64>> {
        Ok(Eth::load_by_id(self, hash.0.into()).await?.map(|_| U64::ZERO))
    }

    async fn uncle_count_by_number(&self, number: BlockNumberOrTag) -> Answer<Option<U64>> {
        Ok(Eth::load_by_id(self, number.into()).await?.map(|_| U64::ZERO))
    }

    fn block_receipts(&self, block: BlockId) -> Answer<Option<Vec<TransactionReceipt>>> {
        let block = Eth::block(self, block)?;
        Ok(block.map(|block| (0..block.txs.len()).filter_map(|index| convert::receipt(&block, index)).collect()))
    }

    async fn transaction_by_hash(&self, hash: Hash) -> Answer<Option<Transaction>> {
        Ok(Eth::transaction(self, hash.0).await?)
    }

    async fn raw_transaction_by_hash(&self, hash: Hash) -> Answer<Option<Bytes>> {
        Ok(Eth::raw_transaction(self, hash.0).await?)
    }

    async fn transaction_by_block_hash(&self, hash: Hash, index: U64) -> Answer<Option<Transaction>> {
        Ok(Eth::load_by_id(self, hash.0.into()).await?.and_then(|block| convert::transaction(&block, index.to())))
    }

    async fn transaction_by_block_number(&self, number: BlockNumberOrTag, index: U64) -> Answer<Option<Transaction>> {
        Ok(Eth::load_by_id(self, number.into()).await?.and_then(|block| convert::transaction(&block, index.to())))
    }

    async fn transaction_receipt(&self, hash: Hash) -> Answer<Option<TransactionReceipt>> {
        Ok(Eth::receipt(self, hash.0).await?)
    }

    fn logs(&self, filter: Filter) -> Answer<Vec<Log>> {
        Ok(Eth::find_logs(self, &filter)?)
    }

    fn balance(&self, address: Address, block: Option<BlockId>) -> Answer<U256> {
        Ok(Eth::balance(self, address, block)?)
    }

    fn transaction_count(&self, address: Address, block: Option<BlockId>) -> Answer<U64> {
        Ok(U64::from(Eth::nonce(self, address, block)?))
    }

    fn code(&self, address: Address, block: Option<BlockId>) -> Answer<Bytes> {
        Ok(Eth::code(self, address, block)?)
    }

    fn storage_at(&self, address: Address, slot: Slot, block: Option<BlockId>) -> Answer<B256> {
        Ok(Eth::slot(self, address, slot.0, block)?)
    }

    fn storage_values(&self, slots: SlotsOf, block: Option<BlockId>) -> Answer<ValuesOf> {
        Ok(Eth::slots(self, slots, block)?)
    }

    fn account_info(&self, address: Address, block: Option<BlockId>) -> Answer<AccountInfo> {
        Ok(Eth::account_info(self, address, block)?)
    }

    fn proof(
        &self,
        address: Address,
        keys: Vec<JsonStorageKey>,
        block: Option<BlockId>,
    ) -> Answer<EIP1186AccountProofResponse> {
        Ok(Eth::account_proof(self, address, keys, block)?)
    }

    fn gas_price(&self) -> Answer<U256> {
        Ok(Eth::gas_price(self)?)
    }

    fn max_priority_fee_per_gas(&self) -> Answer<U256> {
        Ok(Eth::suggested_tip(self)?)
    }

    fn base_fee(&self) -> Answer<U256> {
        Ok(U256::from(self.chain.head().map_err(RpcError::from)?.next_base_fee()))
    }

    /// There are no blobs: the protocol's minimum, as on an idle Ethereum chain.
    fn blob_base_fee(&self) -> Answer<U256> {
        Ok(U256::from(1))
    }

    fn fee_history(&self, count: U64, newest: BlockNumberOrTag, percentiles: Option<Vec<f64>>) -> Answer<FeeHistory> {
        Ok(Eth::fee_history(self, count.to(), newest, percentiles)?)
    }

    fn new_filter(&self, filter: Filter) -> Answer<U256> {
        Ok(Eth::install_filter(self, FilterKind::Logs(Box::new(filter)))?)
    }

    fn new_block_filter(&self) -> Answer<U256> {
        Ok(Eth::install_filter(self, FilterKind::Blocks)?)
    }

    fn new_pending_transaction_filter(&self, full: Option<bool>) -> Answer<U256> {
        Ok(Eth::install_filter(self, FilterKind::Pending { full: full.unwrap_or_default() })?)
    }

    fn filter_changes(&self, id: U256) -> Answer<Value> {
        Ok(Eth::poll_filter(self, id)?)
    }

    fn filter_logs(&self, id: U256) -> Answer<Vec<Log>> {
        Ok(Eth::all_of_filter(self, id)?)
    }

    fn uninstall_filter(&self, id: U256) -> Answer<bool> {
        Ok(self.filters.remove(id))
    }

    async fn subscribe(
        &self,
        pending: jsonrpsee::PendingSubscriptionSink,
        kind: String,
        filter: Option<SubscribeParams>,
    ) -> SubscriptionResult {
        pubsub::subscribe(self, pending, &kind, filter).await
    }
}
