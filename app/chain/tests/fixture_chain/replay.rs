//! The blocks of execution-apis' test chain, executed by revm itself: our executor has no rules before Cancun, and no blobs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]
#![allow(unreachable_pub, reason = "a module of several tests")]

use std::{collections::BTreeMap, fs, path::Path};

use alloy_consensus::{
    Block, Header, Receipt, ReceiptEnvelope, Transaction, TxEnvelope, transaction::SignerRecoverable,
};
use alloy_eips::{eip2935, eip4788, eip7002, eip7251};
use alloy_genesis::Genesis;
use alloy_primitives::{Address, Bytes, U256};
use alloy_rlp::Decodable;
use penstock_evm::tx_env;
use penstock_state::View;
use revm::{
    Context, DatabaseCommit, ExecuteEvm, MainBuilder, MainContext, SystemCallEvm,
    bytecode::Bytecode,
    context::{BlockEnv, TxEnv},
    context_interface::block::BlobExcessGasAndPrice,
    database::{BundleState, State as Working, WrapDatabaseRef, states::bundle_state::BundleRetention},
    database_interface::DatabaseCommitExt,
    primitives::{KECCAK_EMPTY, hardfork::SpecId},
    state::AccountInfo,
};

type Db = Working<WrapDatabaseRef<View>>;

const GWEI: u64 = 1_000_000_000;
const ETHER: u128 = 1_000_000_000_000_000_000;

fn spec_of(config: &alloy_genesis::ChainConfig, header: &Header) -> SpecId {
    let time = |fork: Option<u64>| fork.is_some_and(|time| header.timestamp >= time);
    let block = |fork: Option<u64>| fork.is_some_and(|number| header.number >= number);
    let forks = [
        (time(config.osaka_time), SpecId::OSAKA),
        (time(config.prague_time), SpecId::PRAGUE),
        (time(config.cancun_time), SpecId::CANCUN),
        (time(config.shanghai_time), SpecId::SHANGHAI),
        (block(config.merge_netsplit_block), SpecId::MERGE),
        (block(config.london_block), SpecId::LONDON),
        (block(config.berlin_block), SpecId::BERLIN),
        (block(config.istanbul_block), SpecId::ISTANBUL),
        // Constantinople itself was never on mainnet; revm has its rules with Petersburg's.
        (block(config.petersburg_block), SpecId::PETERSBURG),
        (block(config.byzantium_block), SpecId::BYZANTIUM),
        (block(config.eip158_block), SpecId::SPURIOUS_DRAGON),
        (block(config.eip150_block), SpecId::TANGERINE),
    ];
    forks.into_iter().find(|(active, _)| *active).map_or(SpecId::HOMESTEAD, |(_, spec)| spec)
}

/// The schedule of blobs: the most in a block, and how fast their price moves.
fn blobs_of(config: &alloy_genesis::ChainConfig, timestamp: u64) -> Option<(u64, u64)> {
    let forks = [
        (config.bpo2_time, "bpo2"),
        (config.bpo1_time, "bpo1"),
        (config.osaka_time, "osaka"),
        (config.prague_time, "prague"),
        (config.cancun_time, "cancun"),
    ];
    let (_, name) = forks.into_iter().find(|(time, _)| time.is_some_and(|time| timestamp >= time))?;
    let params = config.blob_schedule.get(name)?;
    Some((params.max_blob_count, params.update_fraction.try_into().unwrap()))
}

/// The state of the genesis.
pub fn genesis_changes(genesis: &Genesis) -> BundleState {
    let mut builder = BundleState::builder(0..=0);
    for (address, account) in &genesis.alloc {
        let code = account.code.clone().filter(|code| !code.is_empty()).map(Bytecode::new_raw);
        let code_hash = code.as_ref().map_or(KECCAK_EMPTY, Bytecode::hash_slow);
        let (balance, nonce) = (account.balance, account.nonce.unwrap_or_default());
        let info = AccountInfo { balance, nonce, code_hash, code: code.clone(), ..AccountInfo::default() };
        builder = builder.state_present_account_info(*address, info);
        let slots = account.storage.iter().flatten();
        builder = builder.state_storage(
            *address,
            slots.map(|(slot, value)| ((*slot).into(), (U256::ZERO, (*value).into()))).collect(),
        );
        if let Some(code) = code {
            builder = builder.contract(code_hash, code);
        }
    }
    builder.build()
}

fn rewards(spec: SpecId, header: &Header, uncles: &[Header]) -> Vec<(Address, u128)> {
    if spec.is_enabled_in(SpecId::MERGE) {
        return vec![];
    }
    let reward = match spec {
        spec if header.number >= 12 && spec.is_enabled_in(SpecId::BYZANTIUM) => 2 * ETHER,
        spec if spec.is_enabled_in(SpecId::BYZANTIUM) => 3 * ETHER,
        _ => 5 * ETHER,
    };
    let own = reward + reward / 32 * uncles.len() as u128;
    let uncle = |uncle: &Header| (uncle.beneficiary, reward * u128::from(8 + uncle.number - header.number) / 8);
    core::iter::once((header.beneficiary, own)).chain(uncles.iter().map(uncle)).collect()
}

/// Executes a block on a state. Answers its changes and receipts.
pub fn execute(view: View, genesis: &Genesis, block: &Block<TxEnvelope>) -> (BundleState, Vec<ReceiptEnvelope>) {
    let header = &block.header;
    let spec = spec_of(&genesis.config, header);
    let blobs = blobs_of(&genesis.config, header.timestamp);
    let merged = spec.is_enabled_in(SpecId::MERGE);
    let env = BlockEnv {
        number: U256::from(header.number),
        beneficiary: header.beneficiary,
        timestamp: U256::from(header.timestamp),
        gas_limit: header.gas_limit,
        basefee: header.base_fee_per_gas.unwrap_or_default(),
        difficulty: header.difficulty,
        prevrandao: merged.then_some(header.mix_hash),
        blob_excess_gas_and_price: blobs
            .map(|(_, fraction)| BlobExcessGasAndPrice::new(header.excess_blob_gas.unwrap_or_default(), fraction)),
        ..BlockEnv::default()
    };
    let db: Db = Working::builder().with_database(WrapDatabaseRef(view)).with_bundle_update().build();
    let mut evm = Context::mainnet()
        .with_db(db)
        .with_block(env)
        .modify_cfg_chained(|cfg| {
            cfg.set_spec_and_mainnet_gas_params(spec);
            cfg.chain_id = genesis.config.chain_id;
            cfg.max_blobs_per_tx = blobs.map(|(most, _)| most);
            cfg.blob_base_fee_update_fraction = blobs.map(|(_, fraction)| fraction);
        })
        .build_mainnet();
    let mut calls: Vec<(Address, Bytes)> = Vec::new();
    if let Some(root) = header.parent_beacon_block_root {
        calls.push((eip4788::BEACON_ROOTS_ADDRESS, Bytes::copy_from_slice(root.as_slice())));
    }
    if spec.is_enabled_in(SpecId::PRAGUE) {
        calls.push((eip2935::HISTORY_STORAGE_ADDRESS, Bytes::copy_from_slice(header.parent_hash.as_slice())));
    }
    for (contract, data) in calls {
        let state = evm.system_call(contract, data).unwrap().state;
        evm.ctx.journaled_state.database.commit(state);
    }
    let mut receipts = Vec::new();
    let mut cumulative_gas_used = 0;
    for tx in &block.body.transactions {
        let env = TxEnv {
            blob_hashes: tx.blob_versioned_hashes().unwrap_or_default().to_vec(),
            max_fee_per_blob_gas: tx.max_fee_per_blob_gas().unwrap_or_default(),
            ..tx_env(tx, tx.recover_signer().unwrap())
        };
        let result = evm.transact(env).unwrap_or_else(|error| panic!("block {}: {error:?}", header.number));
        evm.ctx.journaled_state.database.commit(result.state);
        cumulative_gas_used += result.result.tx_gas_used();
        let status = result.result.is_success().into();
        let receipt = Receipt { status, cumulative_gas_used, logs: result.result.into_logs() };
        receipts.push(ReceiptEnvelope::from_typed(tx.tx_type(), receipt));
    }
    assert_eq!(cumulative_gas_used, header.gas_used, "gas of block {}", header.number);
    if spec.is_enabled_in(SpecId::PRAGUE) {
        for contract in
            [eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS, eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS]
        {
            let state = evm.system_call(contract, Bytes::new()).unwrap().state;
            evm.ctx.journaled_state.database.commit(state);
        }
    }
    let mut db = evm.ctx.journaled_state.database;
    let withdrawals = block.body.withdrawals.iter().flatten();
    let withdrawals = withdrawals.map(|w| (w.address, u128::from(w.amount) * u128::from(GWEI)));
    // Each account once: revm adds to what was there before the call.
    let mut payments: BTreeMap<Address, u128> = BTreeMap::new();
    for (address, wei) in rewards(spec, header, &block.body.ommers).into_iter().chain(withdrawals) {
        *payments.entry(address).or_default() += wei;
    }
    db.increment_balances(payments.into_iter().filter(|(_, wei)| *wei > 0)).unwrap();
    db.merge_transitions(BundleRetention::Reverts);
    (db.take_bundle(), receipts)
}

/// The genesis and the blocks after it, from `folder`.
pub fn chain(folder: &Path) -> (Genesis, Vec<Block<TxEnvelope>>) {
    let genesis = serde_json::from_slice(&fs::read(folder.join("genesis.json")).unwrap()).unwrap();
    let raw = fs::read(folder.join("chain.rlp")).unwrap();
    let (mut rest, mut blocks) = (raw.as_slice(), Vec::new());
    while !rest.is_empty() {
        blocks.push(Block::decode(&mut rest).unwrap());
    }
    (genesis, blocks)
}
