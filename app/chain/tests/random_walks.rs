//! Random walks over ABCI's grammar with several applications that differ in what they know, in timing and in threads:
//! what CometBFT's `spec/abci/abci++_app_requirements.md` asks for holds at every step. With crashes at the
//! three points, rounds that fail, re-proposed older blocks, nodes that are down and catch up by replay, and scheduled tasks
//! that ask a model.
//!
//! The seed is printed; `PENSTOCK_SEED=n` walks that way again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use penstock_abci::{
    Application, Timestamp,
    messages::{
        CommitInfo, ExecTxResult, ExtendedCommitInfo, ExtendedVoteInfo, Misbehavior, RequestCheckTx,
        RequestFinalizeBlock, RequestInitChain, RequestPrepareProposal, RequestProcessProposal, Validator, VoteInfo,
        response_process_proposal::ProposalStatus,
    },
    proto_tx_size,
    wire::{RequestInsertTx, RequestReapTxs},
};
use penstock_chain::{Chain, ChainConfig, Gossip, HeaderTx};
use penstock_inference::{InferenceNetwork, ModelStore, NetworkConfig};
use penstock_pipe::PoolConfig;
use penstock_state::Backend;
use support::{Tx, genesis, models};

const HEIGHTS: i64 = 25;
const WALKS: u64 = 30;

/// A small generator: the seed gives the same walk again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What consensus says of a height, the same to everybody.
#[derive(Clone)]
struct Said {
    height: i64,
    time: Timestamp,
    last_commit: CommitInfo,
    misbehavior: Vec<Misbehavior>,
}

/// A proposal, or the block that it becomes.
#[derive(Clone)]
struct Block {
    said: Said,
    proposer: bytes::Bytes,
    txs: Vec<bytes::Bytes>,
}

impl Block {
    fn process(&self) -> RequestProcessProposal {
        RequestProcessProposal {
            txs: self.txs.clone(),
            proposed_last_commit: Some(self.said.last_commit.clone()),
            misbehavior: self.said.misbehavior.clone(),
            height: self.said.height,
            time: Some(self.said.time),
            proposer_address: self.proposer.clone(),
            ..Default::default()
        }
    }

    fn finalize(&self) -> RequestFinalizeBlock {
        RequestFinalizeBlock {
            txs: self.txs.clone(),
            decided_last_commit: Some(self.said.last_commit.clone()),
            misbehavior: self.said.misbehavior.clone(),
            height: self.said.height,
            time: Some(self.said.time),
            proposer_address: self.proposer.clone(),
            ..Default::default()
        }
    }
}

/// What executing a block gave: equal everywhere, for ever.
#[derive(Debug, Clone, PartialEq)]
struct Outcome {
    app_hash: bytes::Bytes,
    tx_results: Vec<ExecTxResult>,
}

/// An application in this process, with a folder that survives its crashes.
struct Node {
    folder: tempfile::TempDir,
    chain: Option<Arc<Chain>>,
    pool: PoolConfig,
    threads: usize,
    has_models: bool,
    gossip: Gossip,
    /// Heights that it is down for.
    down_until: i64,
}

impl Node {
    fn new(pool: PoolConfig, threads: usize, has_models: bool, gossip: Gossip) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut node = Self { folder, chain: None, pool, threads, has_models, gossip, down_until: 0 };
        node.open();
        node.init_chain();
        node
    }

    fn open(&mut self) {
        let (genesis, app_state) = genesis();
        let store = if self.has_models { models(&genesis) } else { ModelStore::default() };
        let config = NetworkConfig { threads: self.threads, ..NetworkConfig::default() };
        let network = Arc::new(InferenceNetwork::start(store, config).unwrap());
        let begin = Instant::now();
        // The threads of the one that crashed let go of the store one after the other.
        let database = loop {
            match Backend::Fjall.open(self.folder.path()) {
                Ok(database) => break database,
                Err(error) => assert!(begin.elapsed() < Duration::from_secs(20), "{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let config = ChainConfig { pool: self.pool, gossip: self.gossip, ..ChainConfig::default() };
        self.chain = Some(Arc::new(Chain::open(database, genesis, &app_state, network, config).unwrap()));
    }

    fn init_chain(&self) {
        let (_, app_state) = genesis();
        let request = RequestInitChain { app_state_bytes: app_state.0, ..Default::default() };
        self.app().init_chain(request).unwrap();
    }

    fn app(&self) -> &Chain {
        self.chain.as_ref().unwrap()
    }

    fn height(&self) -> i64 {
        self.app().info(Default::default()).unwrap().last_block_height
    }

    /// Ends it without a word, and starts it again; CometBFT's handshake sends InitChain when nothing is committed.
    fn crash(&mut self) {
        self.chain = None;
        self.open();
        if self.height() == 0 {
            self.init_chain();
        }
    }

    fn is_up(&self, height: i64) -> bool {
        height >= self.down_until
    }
}

struct Walk {
    random: Random,
    nodes: Vec<Node>,
    /// Decided blocks with their outcomes; height 1 first.
    chain: Vec<(Block, Outcome)>,
    nonces: [u64; 4],
    sent: Vec<bytes::Bytes>,
}

impl Walk {
    fn new(seed: u64) -> Self {
        let pool = |inline_ops: u64, ripeness: f64, simulation_threads: usize, max_deferrals: u32| PoolConfig {
            inline_ops,
            ripeness,
            simulation_threads,
            max_deferrals,
            ..PoolConfig::default()
        };
        let nodes = vec![
            Node::new(pool(50_000_000, 0.0, 2, 8), 2, true, Gossip::App),
            Node::new(pool(50_000_000, 1.0, 1, 8), 4, true, Gossip::Flood),
            // Answers nothing inside a proposal: it defers, and gives up at once.
            Node::new(pool(0, 0.0, 3, 1), 3, true, Gossip::App),
            // Follows without a model.
            Node::new(pool(0, 0.0, 1, 8), 2, false, Gossip::App),
        ];
        Self { random: Random(seed), nodes, chain: vec![], nonces: [0; 4], sent: vec![] }
    }

    fn said(&mut self, height: i64) -> Said {
        let validator = |byte: u8| Validator { address: vec![byte; 20].into(), power: 10 };
        let votes = (0..4u8)
            .map(|byte| VoteInfo { validator: Some(validator(byte)), block_id_flag: 1 + self.random.below(3) as i32 });
        let last_commit = CommitInfo { round: 0, votes: votes.collect() };
        let misbehavior = match self.random.one_in(5) {
            true => vec![Misbehavior { r#type: 1, validator: Some(validator(3)), height: 1, ..Default::default() }],
            false => vec![],
        };
        // Equal stamps in neighbouring blocks are fine.
        let time = Timestamp { seconds: 1_800_000_000 + height / 2, nanos: self.random.below(1_000) as i32 };
        Said { height, time, last_commit, misbehavior }
    }

    /// The mempool connection: new transactions reach some nodes, by one way or another.
    fn transactions(&mut self) {
        for _ in 0..self.random.below(6) {
            let sender = self.random.below(4) as usize;
            let nonce = self.nonces[sender];
            self.nonces[sender] += 1;
            let tx = match self.random.below(20) {
                0 => Tx::schedule(nonce),
                1 => Tx::stop(nonce),
                2..6 => Tx::transfer(nonce),
                6..10 => Tx::bump(nonce),
                10..15 => Tx::ask_volatile(nonce),
                _ => Tx::ask(nonce, [self.random.below(20).into(), 1]),
            };
            self.sent.push(Tx { tip: 1_000_000_000 + u128::from(self.random.below(1_000)), ..tx }.sign(sender as u8).0);
        }
        let recent = self.sent.len().saturating_sub(100);
        for tx in &self.sent[recent..] {
            let tx = tx.clone();
            let node = &self.nodes[self.random.below(4) as usize];
            match self.random.below(3) {
                0 => drop(node.app().insert_tx(RequestInsertTx { tx })),
                kind => drop(node.app().check_tx(RequestCheckTx { tx, r#type: i32::from(kind == 2) })),
            }
        }
        if self.random.one_in(3) {
            let limit = RequestReapTxs { max_bytes: 1 + self.random.below(2_000), max_gas: 0 };
            let reaped = self.nodes[0].app().reap_txs(limit);
            assert!(reaped.txs.iter().map(|tx| tx.len() as u64).sum::<u64>() <= limit.max_bytes);
        }
    }

    /// PrepareProposal of a node, and what must hold of it.
    fn propose(&mut self, proposer: usize, said: &Said) -> Block {
        let max_tx_bytes = [600, 3_000, 1 << 20][self.random.below(3) as usize];
        let votes = said.last_commit.votes.iter().map(|vote| ExtendedVoteInfo {
            validator: vote.validator.clone(),
            block_id_flag: vote.block_id_flag,
            ..Default::default()
        });
        let address = bytes::Bytes::from(vec![proposer as u8; 20]);
        let request = RequestPrepareProposal {
            max_tx_bytes,
            local_last_commit: Some(ExtendedCommitInfo { round: 0, votes: votes.collect() }),
            misbehavior: said.misbehavior.clone(),
            height: said.height,
            time: Some(said.time),
            proposer_address: address.clone(),
            ..Default::default()
        };
        let app = self.nodes[proposer].app();
        let before = app.info(Default::default()).unwrap();
        let txs = app.prepare_proposal(request).unwrap().txs;
        assert_eq!(app.info(Default::default()).unwrap(), before, "Req9: a proposal changes no committed state");
        let size: usize = txs.iter().map(|tx| proto_tx_size(tx.len())).sum();
        assert!(size as i64 <= max_tx_bytes, "Req2: {size} bytes of {max_tx_bytes}");
        Block { said: said.clone(), proposer: address, txs }
    }

    /// ProcessProposal on a node.
    fn accepts(&self, node: usize, block: &Block) -> bool {
        let process = || self.nodes[node].app().process_proposal(block.process()).unwrap().status;
        let status = process();
        assert_eq!(status, process(), "Req4: the verdict depends on the block and the committed state alone");
        status == ProposalStatus::Accept as i32
    }

    /// The rounds of a height, up to a decision.
    fn decide(&mut self, said: &Said) -> Block {
        let mut proposals: Vec<Block> = Vec::new();
        for round in 0.. {
            // The one without models does not propose: it is no validator.
            let up: Vec<usize> = (0..3).filter(|node| self.nodes[*node].is_up(said.height)).collect();
            let proposer = up[self.random.below(up.len() as u64) as usize];
            let block = match proposals.last() {
                // A proposer that holds a valid block proposes that.
                Some(older) if self.random.one_in(3) => older.clone(),
                _ => self.propose(proposer, said),
            };
            for node in up {
                // It also runs on the proposer, and may not run at all.
                if !self.random.one_in(4) {
                    assert!(self.accepts(node, &block), "Req3: node {node} rejects what node {proposer} proposes");
                }
            }
            proposals.push(block.clone());
            if round >= 3 || !self.random.one_in(3) {
                let any = self.random.below(proposals.len() as u64) as usize;
                // Mostly the last; an older one when a late polka is found.
                return if self.random.one_in(5) { proposals[any].clone() } else { block };
            }
        }
        unreachable!()
    }

    fn finalize(&self, node: usize, block: &Block) -> Outcome {
        let response = self.nodes[node].app().finalize_block(block.finalize()).unwrap();
        assert_eq!(response.tx_results.len(), block.txs.len(), "one result for each transaction");
        Outcome { app_hash: response.app_hash, tx_results: response.tx_results }
    }

    /// Executes a height on a node that is at the one before, with crashes in between.
    fn execute(&mut self, node: usize, height: i64) {
        let (block, known) = self.chain[height as usize - 1].clone();
        if self.random.one_in(12) {
            self.nodes[node].crash(); // the block is stored, nothing is executed
        }
        let outcome = self.finalize(node, &block);
        assert_eq!(outcome, known, "Req11, Req12: node {node}, height {height}");
        if self.random.one_in(12) {
            self.nodes[node].crash(); // executed, not committed
            assert_eq!(self.nodes[node].height(), height - 1, "FinalizeBlock persists nothing");
            assert_eq!(self.finalize(node, &block), known, "replayed results are equal");
        }
        self.nodes[node].app().commit().unwrap();
        if self.random.one_in(12) {
            self.nodes[node].crash(); // committed
        }
        let info = self.nodes[node].app().info(Default::default()).unwrap();
        assert_eq!((info.last_block_height, info.last_block_app_hash), (height, known.app_hash), "Info after Commit");
    }

    fn height(&mut self, height: i64) {
        for node in (0..self.nodes.len()).filter(|node| self.nodes[*node].is_up(height)).collect::<Vec<_>>() {
            // Whatever it missed while it was down: FinalizeBlock without any proposal.
            for missed in self.nodes[node].height() + 1..height {
                self.execute(node, missed);
            }
        }
        self.transactions();
        if self.random.one_in(2) {
            // Sometimes everybody is ready, sometimes nobody is.
            std::thread::sleep(Duration::from_millis(self.random.below(15)));
        }
        let said = self.said(height);
        let block = self.decide(&said);
        let first = (0..3).find(|node| self.nodes[*node].is_up(height)).unwrap();
        let outcome = self.finalize(first, &block);
        self.chain.push((block, outcome));
        for node in 0..self.nodes.len() {
            if !self.nodes[node].is_up(height) {
                continue;
            }
            self.execute(node, height);
            if node > 0 && self.random.one_in(10) {
                self.nodes[node].down_until = height + 1 + self.random.below(4) as i64;
            }
        }
    }
}

#[test]
fn applications_that_differ_in_everything_but_the_blocks_agree_at_every_step() {
    let seed = std::env::var("PENSTOCK_SEED").ok().and_then(|seed| seed.parse().ok());
    let first = seed.unwrap_or_else(|| u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos()));
    let walks = if seed.is_some() { 1 } else { WALKS as usize };
    let (mut users, mut tasks) = (0, 0);
    for seed in (first..).take(walks) {
        println!("PENSTOCK_SEED={seed}");
        let mut walk = Walk::new(seed);
        for height in 1..=HEIGHTS {
            walk.height(height);
        }
        users += walk.chain.iter().map(|(block, _)| block.txs.len() - 1).sum::<usize>();
        tasks +=
            walk.chain.iter().map(|(block, _)| HeaderTx::decode(&block.txs[0]).unwrap().tasks.len()).sum::<usize>();
    }
    // Some walks lose the nonce that all others wait for.
    assert!(walks == 1 || users > 10 * walks, "only {users} transactions in {walks} walks");
    assert!(walks == 1 || tasks > walks, "only {tasks} runs of tasks in {walks} walks");
}
