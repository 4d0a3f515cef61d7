//! Transactions per second on one core, in blocks of 2,000 over a state in memory, without signatures.
//! `plain_revm` is the baseline of the same run: revm without the precompile, with the same state and transactions.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that cannot go on stops")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{collections::HashMap, sync::Arc};

use alloy_primitives::U256;
use alloy_sol_types::SolCall;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use penstock_evm::{Executor, INFERENCE, OnMiss, abi};
use penstock_inference::{InferenceResult, RequestId};
use revm::{
    Context, DatabaseCommit, ExecuteEvm, MainBuilder, MainContext,
    context::TxEnv,
    database::{CacheDB, State, states::bundle_state::BundleRetention},
};
use support::{Nothing, PROBE, TOKEN, block, model, rules, state, tx, user};

const USERS: u64 = 10_000;
const BLOCK: u64 = 2_000;

fn transfers() -> Vec<TxEnv> {
    (0..BLOCK).map(|i| TxEnv { value: U256::from(1), ..tx(i, 0, user((i * 7 + 1) % USERS), vec![], 21_000) }).collect()
}

fn tokens() -> Vec<TxEnv> {
    let call = |i: u64| support::transferCall { to: user((i * 7 + 1) % USERS), amount: U256::from(1) }.abi_encode();
    (0..BLOCK).map(|i| tx(i, 0, TOKEN, call(i), 100_000)).collect()
}

fn questions() -> Vec<TxEnv> {
    let input = |i: u64| support::ask_input("penstock/linear", &[i128::from(i % 100), 7]);
    (0..BLOCK).map(|i| tx(i, 0, PROBE, input(i), 1_000_000)).collect()
}

/// Straight to the precompile: decoding, id, look-up, encoding, event; no contract around it.
fn direct_questions() -> Vec<TxEnv> {
    let number = |value| abi::Number { value, decimals: 0 };
    let input = |i: u64| {
        let values = vec![number(i128::from(i % 100)), number(7)];
        let x = abi::MultiDimensionalNumberTensor { name: "x".into(), values, shape: vec![1, 2] };
        let input = abi::ModelInput { numbers: vec![x], strings: vec![] };
        let request = abi::ModelInferenceRequest { mode: 0, modelCID: "penstock/linear".into(), input };
        abi::runModelInferenceCall { request }.abi_encode()
    };
    (0..BLOCK).map(|i| tx(i, 0, INFERENCE, input(i), 1_000_000)).collect()
}

type Db = State<CacheDB<Nothing>>;

fn fresh(base: &CacheDB<Nothing>) -> Db {
    State::builder().with_database(base.clone()).with_bundle_update().build()
}

fn executor(c: &mut Criterion) {
    let base = state(USERS);
    let rules = rules();
    let answers: HashMap<RequestId, Arc<InferenceResult>> = {
        let linear = model("linear");
        let none = HashMap::new();
        let mut executor = Executor::new(&rules, block(), fresh(&base), &none, OnMiss::Placeholder);
        let calls = questions().into_iter().flat_map(|tx| executor.run(tx).unwrap().calls);
        calls.map(|call| (call.id, Arc::new(linear.run(&call.request.inputs)))).collect()
    };
    let mut group = c.benchmark_group("executor");
    group.throughput(Throughput::Elements(BLOCK)).sample_size(10);
    for (name, txs) in [
        ("transfer", transfers()),
        ("erc20", tokens()),
        ("answered_0xf4_direct", direct_questions()),
        ("answered_0xf4_through_probe", questions()),
    ] {
        group.bench_function(format!("{name}/penstock"), |b| {
            b.iter_batched(
                || (fresh(&base), txs.clone()),
                |(db, txs)| {
                    let mut executor = Executor::new(&rules, block(), db, &answers, OnMiss::Abort);
                    for tx in txs {
                        let execution = executor.run(tx).unwrap();
                        assert!(execution.is_success());
                        executor.commit(execution.state);
                    }
                    let mut db = executor.into_db();
                    db.merge_transitions(BundleRetention::PlainState);
                    db.take_bundle()
                },
                BatchSize::LargeInput,
            );
        });
        if name.starts_with("answered") {
            continue; // plain revm has no such call
        }
        group.bench_function(format!("{name}/plain_revm"), |b| {
            b.iter_batched(
                || (fresh(&base), txs.clone()),
                |(db, txs)| {
                    let ctx = Context::mainnet().with_db(db).modify_cfg_chained(|cfg| cfg.chain_id = 1);
                    let mut evm = ctx.modify_block_chained(|b| b.basefee = 1).build_mainnet();
                    for tx in txs {
                        let result = evm.transact(tx).unwrap();
                        assert!(result.result.is_success());
                        evm.ctx.journaled_state.database.commit(result.state);
                    }
                    let db = &mut evm.ctx.journaled_state.database;
                    db.merge_transitions(BundleRetention::PlainState);
                    db.take_bundle()
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, executor);
criterion_main!(benches);
