//! `eth_simulateV1`: blocks of calls on a state, with everything that a block has.
//!
//! What the specification leaves open is as geth has it: blocks are 12 seconds apart, the beacon root is zero, gaps are
//! filled with empty blocks.

use std::{sync::Arc, time::Instant};

use alloy_consensus::{
    BlockBody, EMPTY_OMMER_ROOT_HASH, EthereumTxEnvelope, Header, Receipt, ReceiptEnvelope, SignableTransaction,
    TxEip4844Variant, TxEnvelope, TypedTransaction, constants::EMPTY_WITHDRAWALS, proofs, transaction::Recovered,
};
use alloy_eips::{BlockId, eip7685::EMPTY_REQUESTS_HASH};
use alloy_evm::overrides::OverrideBlockHashes;
use alloy_primitives::{Address, B256, Bloom, Bytes, Log, Signature, U256};
use alloy_rpc_types_eth::{
    Block as RpcBlock, BlockOverrides, BlockTransactions, Header as RpcHeader, Log as RpcLog, Transaction,
    TransactionInfo, TransactionRequest,
    simulate::{MAX_SIMULATE_BLOCKS, SimBlock, SimCallResult, SimulateError, SimulatePayload, SimulatedBlock},
};
use penstock_chain::context_of;
use penstock_evm::{CallOptions, Db, ExecError, Execution, Executor, OnMiss, PrecompilePlaces, Results, Status};
use penstock_state::View;
use revm::{
    Database,
    context::{BlockEnv, TxEnv, result::InvalidTransaction},
    context_interface::block::BlobExcessGasAndPrice,
    database::{State, WrapDatabaseRef, states::bundle_state::BundleRetention},
    primitives::hardfork::SpecId,
};
use revm_inspectors::transfer::TRANSFER_LOG_EMITTER;

use super::{Eth, overrides, transfers::Transfers};
use crate::error::{RpcError, RpcResult, reverted, words_of};

/// Seconds between blocks that do not say when they are.
const SECONDS: u64 = 12;

/// Calls of all blocks together: more than any tool sends.
const MAX_CALLS: usize = 10_000;

/// The specification's error codes.
mod code {
    pub(super) const NONCE_TOO_LOW: i32 = -38010;
    pub(super) const NONCE_TOO_HIGH: i32 = -38011;
    pub(super) const BASE_FEE_TOO_LOW: i32 = -38012;
    pub(super) const INTRINSIC_GAS: i32 = -38013;
    pub(super) const INSUFFICIENT_FUNDS: i32 = -38014;
    pub(super) const BLOCK_GAS_LIMIT: i32 = -38015;
    pub(super) const BLOCK_NUMBER: i32 = -38020;
    pub(super) const BLOCK_TIMESTAMP: i32 = -38021;
    pub(super) const SENDER_IS_CONTRACT: i32 = -38024;
    pub(super) const MAX_INITCODE: i32 = -38025;
    pub(super) const TOO_MANY: i32 = -38026;
    pub(super) const INTERNAL: i32 = -32603;
    /// A call that failed without reverting.
    pub(super) const VM_ERROR: i32 = -32015;
}

type SimDb = State<WrapDatabaseRef<Db<View>>>;

/// `eth_simulateV1`'s parameters.
pub(crate) type Payload = SimulatePayload<TransactionRequest>;

fn coded(code: i32, message: String) -> RpcError {
    RpcError::Coded { code, message }
}

/// A simulated block.
struct Simulated {
    header: Header,
    hash: B256,
    txs: Vec<TxEnvelope>,
    senders: Vec<Address>,
    calls: Vec<SimCallResult>,
}

impl Eth {
    pub(super) async fn simulate(
        self: Arc<Self>,
        payload: Payload,
        block: Option<BlockId>,
    ) -> RpcResult<Vec<SimulatedBlock>> {
        self.blocking(move |eth, _| eth.simulate_now(payload, block)).await
    }

    fn simulate_now(&self, payload: Payload, block: Option<BlockId>) -> RpcResult<Vec<SimulatedBlock>> {
        let SimulatePayload { block_state_calls, trace_transfers, validation, return_full_transactions } = payload;
        if block_state_calls.is_empty() {
            return Err(RpcError::InvalidParams("empty input".into()));
        }
        if block_state_calls.iter().map(|block| block.calls.len()).sum::<usize>() > MAX_CALLS {
            return Err(coded(code::TOO_MANY, format!("too many calls: at most {MAX_CALLS}")));
        }
        let overridden = block_state_calls.iter().filter_map(|block| block.state_overrides.as_ref());
        if overridden.map(overrides::size).sum::<usize>() > overrides::MAX_OVERRIDES {
            let most = overrides::MAX_OVERRIDES;
            return Err(coded(code::TOO_MANY, format!("too many overrides: at most {most} accounts and slots")));
        }
        let view = self.view(block)?;
        let height = view.height();
        let (base, base_hash) = self.chain.header(height)?.ok_or(RpcError::UnknownBlock)?;
        let mut db = State::builder().with_database(WrapDatabaseRef(Db(view))).with_bundle_update().build();
        let mut run = Run {
            eth: self,
            results: AtHand { network: self.chain.network().clone() },
            validation,
            trace_transfers,
            height,
            gas_left: self.max_call_gas(),
            until: Instant::now() + self.config.trace_time,
            parent: (base, base_hash),
        };
        let blocks = in_order(block_state_calls, &run.parent.0)?;
        let mut simulated = Vec::with_capacity(blocks.len());
        for block in blocks {
            let (block, after) = run.block(db, block)?;
            db = after;
            run.parent = (block.header.clone(), block.hash);
            simulated.push(answer(block, return_full_transactions));
        }
        Ok(simulated)
    }
}

/// Results that this node has; placeholders for the others.
struct AtHand {
    network: Arc<penstock_inference::InferenceNetwork>,
}

impl Results for AtHand {
    fn get(&self, id: &penstock_inference::RequestId) -> Option<Arc<penstock_inference::InferenceResult>> {
        self.network.get(id).map(|answer| answer.result)
    }
}

/// The blocks with their numbers and times, and those between them.
fn in_order(blocks: Vec<SimBlock>, base: &Header) -> RpcResult<Vec<SimBlock>> {
    let (mut number, mut time) = (base.number, base.timestamp);
    let mut all = Vec::with_capacity(blocks.len());
    for mut block in blocks {
        let overrides = block.block_overrides.get_or_insert_default();
        let wanted = match overrides.number {
            Some(wanted) => u64::try_from(wanted).unwrap_or(u64::MAX),
            None => number.saturating_add(1),
        };
        if wanted <= number {
            let message = format!("block numbers must be in order: {wanted} <= {number}");
            return Err(coded(code::BLOCK_NUMBER, message));
        }
        if wanted - base.number > MAX_SIMULATE_BLOCKS {
            return Err(coded(code::TOO_MANY, "too many blocks".into()));
        }
        for between in number + 1..wanted {
            time = time.saturating_add(SECONDS);
            let overrides =
                BlockOverrides { number: Some(U256::from(between)), time: Some(time), ..Default::default() };
            all.push(SimBlock { block_overrides: Some(overrides), ..SimBlock::default() });
        }
        let at = overrides.time.unwrap_or_else(|| time.saturating_add(SECONDS));
        if at <= time {
            let message = format!("block timestamps must be in order: {at} <= {time}");
            return Err(coded(code::BLOCK_TIMESTAMP, message));
        }
        (overrides.number, overrides.time) = (Some(U256::from(wanted)), Some(at));
        (number, time) = (wanted, at);
        all.push(block);
    }
    Ok(all)
}

/// What the blocks of one request share.
struct Run<'a> {
    eth: &'a Eth,
    results: AtHand,
    validation: bool,
    trace_transfers: bool,
    /// The block whose state it begins with.
    height: u64,
    gas_left: u64,
    until: Instant,
    parent: (Header, B256),
}

impl Run<'_> {
    fn block(&mut self, mut db: SimDb, block: SimBlock) -> RpcResult<(Simulated, SimDb)> {
        self.check_time()?;
        let rules = self.eth.chain.rules();
        let SimBlock { block_overrides, state_overrides, calls } = block;
        let overrides = block_overrides.unwrap_or_default();
        let mut header = self.header(&overrides);
        let mut places = PrecompilePlaces::new();
        let (parent, parent_hash) = &self.parent;
        db.override_block_hashes([(parent.number, *parent_hash)].into());
        db.override_block_hashes(overrides.block_hash.clone().unwrap_or_default());
        if let Some(state) = state_overrides {
            overrides::apply_state(state, rules, &mut places, &mut db)?;
        }
        let context = context_of(&header);
        let blob_gasprice = overrides.blob_base_fee.map_or(1, |price| price.saturating_to());
        let env = BlockEnv {
            difficulty: header.difficulty,
            blob_excess_gas_and_price: Some(BlobExcessGasAndPrice { excess_blob_gas: 0, blob_gasprice }),
            ..context.env(header.gas_limit)
        };
        let mut executor = Executor::new(rules, context, db, &self.results, OnMiss::Placeholder)
            .with_options(CallOptions { unchecked: !self.validation })
            .with_block_env(env.clone())
            .with_precompiles(places)
            .with_inspector(Transfers::new(self.trace_transfers));
        let beacon_root = header.parent_beacon_block_root.unwrap_or_default();
        executor.begin_block_with(beacon_root).map_err(RpcError::from)?;

        let mut done = Done::default();
        for request in calls {
            self.check_time()?;
            let (tx, env) = self.call(&request, executor.db_mut(), &env, done.gas_used)?;
            let (sender, gas_limit) = (env.caller, env.gas_limit);
            let inspected = executor.inspect(env).map_err(|error| invalid(error, sender, gas_limit))?;
            let gas = *inspected.result.result.gas();
            let (max_used, gas_used) = (gas.total_gas_spent().max(gas.floor_gas()), gas.tx_gas_used());
            self.gas_left = self.gas_left.saturating_sub(gas_used);
            let execution = Execution::from(inspected);
            executor.commit(execution.state.clone());
            done.add(&header, tx, sender, execution, max_used);
        }
        let mut db = executor.into_db();
        // What came so far stays in the bundle, and so in the root of every later block.
        db.merge_transitions(BundleRetention::PlainState);
        let Done { txs, senders, receipts, calls, gas_used, .. } = done;
        header.gas_used = gas_used;
        header.transactions_root = proofs::calculate_transaction_root(&txs);
        header.receipts_root = proofs::calculate_receipt_root(&receipts);
        header.logs_bloom = receipts.iter().fold(Bloom::ZERO, |bloom, receipt| bloom | *receipt.logs_bloom());
        let root = self.eth.chain.root_with(self.height, &db.bundle_state)?;
        header.state_root = root.ok_or(RpcError::NoProof(self.height))?;
        let hash = header.hash_slow();
        Ok((Simulated { header, hash, txs, senders, calls }, db))
    }

    fn check_time(&self) -> RpcResult<()> {
        if Instant::now() >= self.until { Err(RpcError::Timeout(self.eth.config.trace_time)) } else { Ok(()) }
    }

    /// The header without what its transactions make of it.
    fn header(&self, overrides: &BlockOverrides) -> Header {
        let (parent, parent_hash) = &self.parent;
        let spec = self.eth.chain.rules().spec;
        let base_fee = match overrides.base_fee {
            Some(fee) => fee.saturating_to(),
            None if self.validation => {
                parent.next_block_base_fee(alloy_eips::eip1559::BaseFeeParams::ethereum()).unwrap_or_default()
            }
            // Else calls without a gas price would be refused.
            None => 0,
        };
        Header {
            parent_hash: *parent_hash,
            number: overrides.number.map_or_else(|| parent.number.saturating_add(1), |number| number.saturating_to()),
            timestamp: overrides.time.unwrap_or_else(|| parent.timestamp.saturating_add(SECONDS)),
            beneficiary: overrides.coinbase.unwrap_or(parent.beneficiary),
            gas_limit: overrides.gas_limit.unwrap_or(parent.gas_limit),
            mix_hash: overrides.random.unwrap_or_default(),
            difficulty: overrides.difficulty.unwrap_or_default(),
            base_fee_per_gas: Some(base_fee),
            ommers_hash: EMPTY_OMMER_ROOT_HASH,
            withdrawals_root: Some(EMPTY_WITHDRAWALS),
            blob_gas_used: Some(0),
            excess_blob_gas: Some(0),
            parent_beacon_block_root: Some(overrides.beacon_root.unwrap_or_default()),
            requests_hash: spec.is_enabled_in(SpecId::PRAGUE).then_some(EMPTY_REQUESTS_HASH),
            ..Header::default()
        }
    }

    /// A call with everything filled in, as a transaction of the block and as revm's.
    fn call(
        &self,
        request: &TransactionRequest,
        db: &mut impl Database<Error: core::fmt::Display>,
        env: &BlockEnv,
        used: u64,
    ) -> RpcResult<(TxEnvelope, TxEnv)> {
        let mut request = request.clone();
        let left = env.gas_limit.saturating_sub(used);
        let gas = request.gas.unwrap_or(left);
        if gas > left {
            let message = format!("block gas limit reached: {} >= {}", used.saturating_add(gas), env.gas_limit);
            return Err(coded(code::BLOCK_GAS_LIMIT, message));
        }
        let gas = gas.min(self.gas_left);
        request.gas = Some(gas);
        if request.gas_price.is_none() {
            request.max_fee_per_gas.get_or_insert(0);
            request.max_priority_fee_per_gas.get_or_insert(0);
        }
        let mut tx_env = self.eth.tx_env(&request, db, env)?;
        tx_env.gas_limit = gas;
        request.nonce = Some(tx_env.nonce);
        request.chain_id = tx_env.chain_id;
        request.to = Some(tx_env.kind);
        request.value = Some(tx_env.value);
        let tx = request
            .build_typed_tx()
            .map_err(|_| RpcError::InvalidParams("no transaction has the fields of the call together".into()))?;
        Ok((unsigned(tx), tx_env))
    }
}

/// With the zero signature: nobody signed it.
fn unsigned(tx: TypedTransaction) -> TxEnvelope {
    let signature = Signature::new(U256::ZERO, U256::ZERO, false);
    match tx {
        TypedTransaction::Legacy(tx) => tx.into_signed(signature).into(),
        TypedTransaction::Eip2930(tx) => tx.into_signed(signature).into(),
        TypedTransaction::Eip1559(tx) => tx.into_signed(signature).into(),
        TypedTransaction::Eip4844(tx) => EthereumTxEnvelope::<TxEip4844Variant>::Eip4844(tx.into_signed(signature)),
        TypedTransaction::Eip7702(tx) => tx.into_signed(signature).into(),
    }
}

/// The transactions of a block so far.
#[derive(Default)]
struct Done {
    txs: Vec<TxEnvelope>,
    senders: Vec<Address>,
    receipts: Vec<ReceiptEnvelope>,
    calls: Vec<SimCallResult>,
    gas_used: u64,
    logs: u64,
}

impl Done {
    fn add(&mut self, header: &Header, tx: TxEnvelope, sender: Address, execution: Execution, max_used: u64) {
        let index = self.txs.len() as u64;
        let hash = *tx.tx_hash();
        let (gas_used, success) = (execution.gas_used, execution.is_success());
        self.gas_used += gas_used;
        let error = match &execution.status {
            Status::Success => None,
            Status::Revert => {
                let error = reverted(execution.output.clone());
                let data = Some(execution.output.clone());
                Some(SimulateError { code: SimulateError::EXECUTION_REVERTED_CODE, message: error.to_string(), data })
            }
            Status::Halt(reason) => Some(SimulateError { code: code::VM_ERROR, message: reason.clone(), data: None }),
        };
        let logs = execution.logs.iter().enumerate().map(|(offset, log)| RpcLog {
            inner: log.clone(),
            block_hash: None,
            block_number: Some(header.number),
            block_timestamp: Some(header.timestamp),
            transaction_hash: Some(hash),
            transaction_index: Some(index),
            log_index: Some(self.logs + offset as u64),
            removed: false,
        });
        let logs: Vec<RpcLog> = logs.collect();
        self.logs += logs.len() as u64;
        // Transfers are told to the caller only: no contract logged them.
        let own = execution.logs.into_iter().filter(|log: &Log| log.address != TRANSFER_LOG_EMITTER).collect();
        let receipt = Receipt { status: success.into(), cumulative_gas_used: self.gas_used, logs: own };
        self.receipts.push(ReceiptEnvelope::from_typed(tx.tx_type(), receipt));
        self.calls.push(SimCallResult {
            // A failed call returns nothing: what it reverted with is in the error.
            return_data: if success { execution.output } else { Bytes::new() },
            logs,
            gas_used,
            max_used_gas: Some(max_used),
            status: success,
            error,
        });
        self.txs.push(tx);
        self.senders.push(sender);
    }
}

fn answer(block: Simulated, full: bool) -> SimulatedBlock {
    let Simulated { header, hash, txs, senders, mut calls } = block;
    for log in calls.iter_mut().flat_map(|call| &mut call.logs) {
        log.block_hash = Some(hash);
    }
    let body = BlockBody { transactions: txs.clone(), ommers: vec![], withdrawals: Some(Default::default()) };
    let size = alloy_consensus::Block::<TxEnvelope>::rlp_length_for(&header, &body);
    let transactions = if full {
        let info = |index: usize| TransactionInfo {
            hash: txs.get(index).map(|tx| *tx.tx_hash()),
            index: Some(index as u64),
            block_hash: Some(hash),
            block_number: Some(header.number),
            base_fee: header.base_fee_per_gas,
            block_timestamp: Some(header.timestamp),
        };
        let txs = txs.iter().zip(senders).enumerate();
        BlockTransactions::Full(
            txs.map(|(index, (tx, sender))| {
                Transaction::from_transaction(Recovered::new_unchecked(tx.clone(), sender), info(index))
            })
            .collect(),
        )
    } else {
        BlockTransactions::Hashes(txs.iter().map(|tx| *tx.tx_hash()).collect())
    };
    let header = RpcHeader { hash, inner: header, total_difficulty: None, size: Some(U256::from(size)) };
    let inner = RpcBlock { header, uncles: vec![], transactions, withdrawals: Some(Default::default()) };
    SimulatedBlock { inner, calls }
}

/// Why a call cannot be in its block, with the specification's code.
fn invalid(error: ExecError, sender: Address, gas: u64) -> RpcError {
    let ExecError::Invalid(invalid) = error else { return error.into() };
    let code = match &invalid {
        InvalidTransaction::NonceTooLow { .. } => code::NONCE_TOO_LOW,
        InvalidTransaction::NonceTooHigh { .. } => code::NONCE_TOO_HIGH,
        InvalidTransaction::GasPriceLessThanBasefee => code::BASE_FEE_TOO_LOW,
        InvalidTransaction::CallGasCostMoreThanGasLimit { .. }
        | InvalidTransaction::GasFloorMoreThanGasLimit { .. } => code::INTRINSIC_GAS,
        InvalidTransaction::LackOfFundForMaxFee { .. } => code::INSUFFICIENT_FUNDS,
        InvalidTransaction::CallerGasLimitMoreThanBlock => code::BLOCK_GAS_LIMIT,
        InvalidTransaction::RejectCallerWithCode => code::SENDER_IS_CONTRACT,
        InvalidTransaction::CreateInitCodeSizeLimit => code::MAX_INITCODE,
        _ => code::INTERNAL,
    };
    coded(code, format!("err: {}: address {sender} (supplied gas {gas})", words_of(&invalid)))
}
