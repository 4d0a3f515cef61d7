//! What CometBFT's connections are answered: mempool, genesis, later rounds, pruning.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::time::{Duration, Instant};

use alloy_sol_types::{SolCall, sol};
use penstock_abci::{
    Application,
    crypto::{PublicKey, public_key::Sum},
    messages::{RequestCheckTx, RequestInitChain, RequestQuery, ValidatorUpdate},
    types::{AbciParams, BlockParams, ConsensusParams},
    wire::{RequestInsertTx, RequestReapTxs},
};
use penstock_chain::{GenesisDoc, Gossip, SnapshotConfig, VALIDATORS, ValidatorKey};
use penstock_pipe::{PoolConfig, Stage};
use serde_json::json;
use support::{TestChain, Tx, account, genesis};

fn pool() -> PoolConfig {
    PoolConfig { ripeness: 0.0, ..PoolConfig::default() }
}

fn with_gossip(gossip: Gossip) -> TestChain {
    let chain = TestChain::configured(|config| (config.pool, config.gossip) = (pool(), gossip));
    chain.init();
    chain
}

fn check(chain: &TestChain, tx: &[u8], recheck: bool) -> (u32, i64) {
    let request = RequestCheckTx { tx: tx.to_vec().into(), r#type: recheck.into() };
    let response = chain.chain.check_tx(request);
    (response.code, response.gas_wanted)
}

fn insert(chain: &TestChain, tx: &[u8]) -> u32 {
    chain.chain.insert_tx(RequestInsertTx { tx: tx.to_vec().into() }).code
}

fn reap(chain: &TestChain) -> usize {
    chain.chain.reap_txs(RequestReapTxs::default()).txs.len()
}

#[test]
fn check_tx_and_insert_tx_feed_one_pool_and_recheck_is_its_verdict() {
    let chain = with_gossip(Gossip::App);
    let [first, second] = [Tx::transfer(0), Tx::transfer(1)].map(|tx| tx.sign(0));
    assert_eq!(check(&chain, &first, true).0, 1, "not in the pool yet");
    assert_eq!(check(&chain, &first, false), (0, 21_000));
    assert_eq!(insert(&chain, &first), 0, "a peer has it, too");
    assert_eq!(insert(&chain, &second), 0);
    assert_eq!(check(&chain, &second, false).0, 0, "known is good");
    assert_eq!(check(&chain, &second, true), (0, 21_000));
    for tx in [&first, &second] {
        chain.wait_for(alloy_primitives::keccak256(tx), Stage::Ready);
    }
    assert_eq!(chain.produce().txs.len(), 3);
    assert_eq!(check(&chain, &second, true).0, 1, "it is in a block: CometBFT lets go of it");
    assert_eq!(check(&chain, &second, false).0, 1);
    assert_eq!(insert(&chain, &second), 1);
    let header = chain.produce().txs.remove(0);
    assert_eq!((check(&chain, &header, false).0, insert(&chain, &header)), (1, 1), "a header transaction is nobody's");
    assert_eq!(insert(&chain, &[]), 1);
}

#[test]
fn what_a_later_state_may_take_is_to_be_offered_again() {
    const RETRY: u32 = 32_000;
    let chain = with_gossip(Gossip::App);
    assert_eq!(insert(&chain, &Tx::transfer(0).sign(60)), RETRY, "an account without funds may get some");
    assert_eq!(insert(&chain, &Tx::transfer(5_000).sign(0)), RETRY, "far ahead");
    let empty = TestChain::configured(|_| {});
    assert_eq!(insert(&empty, &Tx::transfer(0).sign(0)), RETRY, "not initialized");
}

#[test]
fn peers_are_told_by_the_pool_or_by_cometbft_and_never_by_both() {
    let [a, b, c] = [0, 1, 2].map(|sender| Tx::transfer(0).sign(sender));
    for (gossip, told) in [(Gossip::App, 3), (Gossip::Flood, 2), (Gossip::None, 1)] {
        let chain = with_gossip(gossip);
        chain.chain.admit(a.clone()).unwrap(); // by JSON-RPC
        check(&chain, &b, false); // by CometBFT's RPC, or a peer in a flood
        insert(&chain, &c); // by a peer of an application's mempool
        assert_eq!(reap(&chain), told, "{gossip:?}");
        assert_eq!(reap(&chain), 0, "{gossip:?}: each once");
    }
}

#[test]
fn a_transaction_behind_a_gap_is_held_and_told_when_the_gap_closes() {
    let chain = with_gossip(Gossip::App);
    let behind = Tx::transfer(1).sign(0);
    assert_eq!(insert(&chain, &behind), 0);
    assert_eq!(reap(&chain), 0);
    chain.submit(&Tx::transfer(0), 0);
    let begin = Instant::now();
    let mut told = 0;
    while told < 2 {
        told += reap(&chain);
        assert!(begin.elapsed() < Duration::from_secs(20), "{told} told");
    }
    // Peers are told when it has its turn, not when it has been simulated.
    chain.wait_for(alloy_primitives::keccak256(&behind), Stage::Ready);
    assert_eq!(chain.produce().txs.len(), 3);
}

#[test]
fn in_a_later_round_only_cheap_results_are_proposed() {
    // Every result is dear here.
    let chain = TestChain::with(PoolConfig { inline_ops: 0, ..pool() }, true);
    chain.submit(&Tx::ask(0, [1, 2]), 0);
    chain.submit(&Tx::transfer(0), 1);
    let first = chain.propose();
    assert_eq!(first.txs.len(), 3);
    assert_eq!(chain.propose().txs.len(), 2, "round 1: the transfer only");
    // Another validator that saw the first proposal fail does the same.
    let other = TestChain::with(PoolConfig { inline_ops: 0, ..pool() }, true);
    other.submit(&Tx::ask(0, [1, 2]), 0);
    assert!(other.accepts(&first));
    assert_eq!(other.propose().txs.len(), 1);
    // At the next height it goes in.
    chain.produce();
    assert_eq!(chain.produce().txs.len(), 2);
}

#[test]
fn a_genesis_that_would_lose_transactions_or_halt_is_refused_at_init_chain() {
    let block =
        |max_bytes, max_gas| ConsensusParams { block: Some(BlockParams { max_bytes, max_gas }), ..Default::default() };
    let extensions =
        ConsensusParams { abci: Some(AbciParams { vote_extensions_enable_height: 5 }), ..block(22_020_096, -1) };
    for (params, expected) in [
        (block(22_020_096, 1_000_000), "consensus_params.block.max_gas"),
        (block(100_000, -1), "consensus_params.block.max_bytes"),
        (extensions, "consensus_params.abci.vote_extensions_enable_height"),
    ] {
        let chain = TestChain::configured(|_| {});
        let request =
            RequestInitChain { app_state_bytes: genesis().1.0, consensus_params: Some(params), ..Default::default() };
        let error = chain.chain.init_chain(request).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    for params in [block(22_020_096, -1), block(-1, 60_000_000)] {
        let chain = TestChain::configured(|_| {});
        let app_state_bytes = genesis().1.0;
        let request = RequestInitChain { app_state_bytes, consensus_params: Some(params), ..Default::default() };
        chain.chain.init_chain(request).unwrap();
    }
}

#[test]
fn validators_are_kept_with_their_keys_and_are_part_of_the_app_hash() {
    let update = |sum: Sum, power| ValidatorUpdate { pub_key: Some(PublicKey { sum: Some(sum) }), power };
    let init = |validators: Vec<ValidatorUpdate>| {
        let chain = TestChain::configured(|_| {});
        let request = RequestInitChain { app_state_bytes: genesis().1.0, validators, ..Default::default() };
        chain.chain.init_chain(request).map(|response| (response.app_hash, chain))
    };
    let ed = update(Sum::Ed25519((0..32).collect()), 10);
    let secp = update(Sum::Secp256k1((1..34).collect()), 7);
    let (hash, chain) = init(vec![ed.clone(), secp]).unwrap();
    let kept = chain.chain.validators().unwrap();
    assert_eq!(kept[0].key, ValidatorKey::Ed25519((0..32).collect()));
    assert_eq!(kept[1].key, ValidatorKey::Secp256k1((1..34).collect()));
    assert_eq!((kept[0].power, kept[1].power), (10, 7));
    assert_ne!(init(vec![ed]).unwrap().0, hash);
    let unknown = ValidatorUpdate { pub_key: Some(PublicKey { sum: None }), power: 1 };
    let error = init(vec![unknown]).err().unwrap().to_string();
    assert!(error.contains("validators[0].pub_key"), "{error}");
}

sol! {
    function setValidator(bytes32 ed25519Key, uint64 power);
    function setAdmin(address next);
}

#[test]
fn the_admins_changes_of_validators_become_the_updates_of_their_block() {
    let ed = |byte: u8| PublicKey { sum: Some(Sum::Ed25519(vec![byte; 32])) };
    let update = |byte: u8, power: i64| ValidatorUpdate { pub_key: Some(ed(byte)), power };
    let (mut genesis, _) = genesis();
    genesis.config.validator_admin = Some(account(0).address());
    let app_state = serde_json::to_vec(&genesis).unwrap();
    let [chain, follower] = [true, false].map(|has_models| {
        let chain = TestChain::of_genesis(genesis.clone(), &app_state, has_models, pool());
        let validators = vec![update(1, 10), update(2, 10)];
        let request = RequestInitChain { app_state_bytes: app_state.clone().into(), validators, ..Default::default() };
        chain.chain.init_chain(request).unwrap();
        chain
    });
    let mut nonces = [0u64; 2];
    // Submits calls and decides a block; its updates, on both nodes.
    let mut decide = |calls: Vec<(u8, Vec<u8>)>| {
        for (sender, input) in calls {
            let nonce = &mut nonces[usize::from(sender)];
            chain.submit(&Tx { to: VALIDATORS, ..Tx::call(*nonce, input) }, sender);
            *nonce += 1;
        }
        let block = chain.propose();
        let updates = chain.finalize_with_updates(&block).1;
        assert_eq!(follower.finalize_with_updates(&block), chain.finalize_with_updates(&block));
        chain.chain.commit().unwrap();
        follower.chain.commit().unwrap();
        updates
    };
    let set = |byte: u8, power: u64| setValidatorCall { ed25519Key: [byte; 32].into(), power }.abi_encode();
    assert_eq!(decide(vec![]), []);
    assert_eq!(decide(vec![(1, set(3, 10))]), [], "only the admin may");
    assert_eq!(decide(vec![(0, set(3, 5)), (0, set(2, 0))]), [update(2, 0), update(3, 5)]);
    assert_eq!(
        decide(vec![(0, set(4, 1)), (0, set(4, 0)), (0, set(3, 6)), (0, set(3, 5))]),
        [],
        "nothing is left of it"
    );
    assert_eq!(decide(vec![(0, set(9, 0)), (0, set(3, 1 << 41))]), [], "unknown, and too much power");
    assert_eq!(decide(vec![(0, set(1, 0)), (0, set(3, 0))]), [update(1, 0)], "the last one stays");
    let hand_on = setAdminCall { next: account(1).address() }.abi_encode();
    assert_eq!(decide(vec![(0, hand_on)]), []);
    assert_eq!(decide(vec![(0, set(5, 1))]), []);
    assert_eq!(decide(vec![(1, set(5, 1))]), [update(5, 1)]);

    // Exported, it is the genesis of a chain with the same state, if the same validators begin it.
    let document = json!({
        "chain_id": "exported",
        "genesis_time": "2026-01-01T00:00:00Z",
        "app_state": serde_json::to_value(&genesis).unwrap(),
    });
    let mut text = Vec::new();
    let exported = penstock_chain::export(&chain.chain.head().unwrap().view, &document, &mut text).unwrap();
    let document = GenesisDoc::parse(&text).unwrap();
    assert_eq!(document.genesis.config.validator_admin, Some(account(1).address()));
    for (validators, is_same) in [(vec![update(5, 1), update(3, 5)], true), (vec![update(6, 1)], false)] {
        let new = TestChain::of_genesis(document.genesis.clone(), &document.app_state, false, pool());
        let expected = validators.len();
        let app_state_bytes = document.app_state.clone().0;
        new.chain.init_chain(RequestInitChain { app_state_bytes, validators, ..Default::default() }).unwrap();
        assert_eq!(new.chain.head().unwrap().header.state_root == exported.state_root, is_same);
        assert_eq!(new.chain.validators().unwrap().len(), expected);
    }
    let kept: Vec<_> = chain.chain.validators().unwrap().iter().map(|v| (v.key.bytes()[0], v.power)).collect();
    assert_eq!(kept, [(3, 5), (5, 1)]);

    // Validators that the contract could not change, or whose powers leave it no room, are refused.
    let secp = ValidatorUpdate { pub_key: Some(PublicKey { sum: Some(Sum::Secp256k1((1..34).collect())) }), power: 1 };
    for (validators, expected) in
        [(vec![update(1, 1 << 41)], "validators[0].power"), (vec![update(1, 1), secp], "validators[1].pub_key")]
    {
        let chain = TestChain::of_genesis(genesis.clone(), &app_state, true, pool());
        let request = RequestInitChain { app_state_bytes: app_state.clone().into(), validators, ..Default::default() };
        let error = chain.chain.init_chain(request).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn blocks_that_a_joining_peer_needs_are_retained() {
    let folder = tempfile::tempdir().unwrap();
    let snapshots = SnapshotConfig { folder: Some(folder.path().to_owned()), interval: 4, keep: 1 };
    let chain = TestChain::configured(|config| {
        (config.pool, config.retain_blocks, config.snapshots) = (pool(), 2, snapshots.clone());
    });
    chain.init();
    let mut retained = Vec::new();
    for height in 1..=9u64 {
        let block = chain.propose();
        chain.finalize(&block);
        retained.push(chain.chain.commit().unwrap().retain_height);
        // The snapshot of this height is made beside the chain, and the one before it removed.
        let begin = Instant::now();
        let is_there = |height: u64| folder.path().join(height.to_string()).exists();
        while height % 4 == 0 && (!is_there(height) || is_there(height - 4)) {
            assert!(begin.elapsed() < Duration::from_secs(20));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // Nothing before the first snapshot; then never past the oldest one.
    assert_eq!(retained, [0, 0, 0, 0, 4, 4, 4, 4, 8]);
    // Without snapshots it is the number that counts.
    let chain = TestChain::configured(|config| config.retain_blocks = 2);
    chain.init();
    let retained: Vec<i64> = (1..=4)
        .map(|_| {
            let block = chain.propose();
            chain.finalize(&block);
            chain.chain.commit().unwrap().retain_height
        })
        .collect();
    assert_eq!(retained, [0, 0, 2, 3]);
}

#[test]
fn queries_point_to_json_rpc_and_turn_no_peer_away() {
    let chain = with_gossip(Gossip::App);
    let query = |path: &str| chain.chain.query(RequestQuery { path: path.into(), ..Default::default() });
    assert_eq!(query("/p2p/filter/addr/1.2.3.4").code, 0);
    let answer = query("/store");
    assert!(answer.code != 0 && answer.log.contains("JSON-RPC"), "{answer:?}");
}
