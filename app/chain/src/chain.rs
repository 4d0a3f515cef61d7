//! The chain: what the parts share, how it is opened, and its genesis.

use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use alloy_consensus::{EMPTY_OMMER_ROOT_HASH, Header, constants::EMPTY_WITHDRAWALS};
use alloy_eips::eip7685::EMPTY_REQUESTS_HASH;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_trie::EMPTY_ROOT_HASH;
use parking_lot::{Mutex, RwLock};
use penstock_evm::{BlockContext, Rules, StateError};
use penstock_inference::InferenceNetwork;
use penstock_pipe::{Account, Pool, PoolConfig, PoolHandle, PoolRules};
use penstock_state::{
    Batch, Fetcher, State, StateConfig, StateReader, Store, StoreError, View, check_layout, clear, keys,
};
use revm::{bytecode::Bytecode, database::BundleState, primitives::KECCAK_EMPTY, state::AccountInfo};
use sha2::{Digest, Sha256};
use tracing::info;

use crate::{
    Block, Genesis, GenesisError, Gossip, SnapshotConfig, VALIDATORS, Validator, execution::Executed,
    finalize::Finalized, recent::RecentBlocks, simulate::HeadSimulator, snapshots::Snapshots, state_sync::Incoming,
    tasks::Ahead, validators, verify::Decoded,
};

/// Local settings of a node. Nothing here is consensus.
#[derive(Debug, Clone)]
pub struct ChainConfig {
    /// The pool.
    pub pool: PoolConfig,
    /// Receiver of the priority fees of the blocks that this node proposes.
    pub fee_recipient: Address,
    /// How long ProcessProposal waits for this node's own runs.
    pub verification_budget: Duration,
    /// How peers hear of transactions.
    pub gossip: Gossip,
    /// Snapshots for peers that join.
    pub snapshots: SnapshotConfig,
    /// Newest blocks that CometBFT has to keep; 0: all.
    pub retain_blocks: u64,
    /// How much of the past can be read and proved.
    pub state: StateConfig,
}

impl Default for ChainConfig {
    fn default() -> Self {
        Self {
            pool: PoolConfig::default(),
            fee_recipient: Address::ZERO,
            verification_budget: Duration::from_secs(1),
            gossip: Gossip::None,
            snapshots: SnapshotConfig::default(),
            retain_blocks: 0,
            state: StateConfig::default(),
        }
    }
}

/// Why the chain cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The genesis is wrong.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// The storage failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state cannot be read.
    #[error("state: {0}")]
    State(#[from] StateError),
    /// The store holds something else.
    #[error("the store {0}")]
    WrongStore(String),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Threads(#[from] std::io::Error),
    /// Consensus called out of order or with a block that no honest majority decides.
    #[error("consensus: {0}")]
    Consensus(String),
}

/// The newest committed block and the state after it.
#[derive(Debug, Clone)]
pub struct Head {
    /// Ethereum header.
    pub header: Header,
    /// Its hash.
    pub hash: B256,
    /// The state.
    pub view: View,
}

impl Head {
    /// Height.
    pub fn number(&self) -> u64 {
        self.header.number
    }

    /// EIP-1559 base fee of the next block.
    pub fn next_base_fee(&self) -> u64 {
        self.header.next_block_base_fee(alloy_eips::eip1559::BaseFeeParams::ethereum()).unwrap_or_default()
    }

    /// The surroundings of a block on this head.
    pub fn next_block(&self, timestamp: u64, beneficiary: Address) -> BlockContext {
        let number = self.number() + 1;
        let prevrandao = keccak256([self.hash.as_slice(), &number.to_be_bytes()].concat());
        BlockContext {
            number,
            timestamp,
            beneficiary,
            base_fee: self.next_base_fee(),
            prevrandao,
            parent_hash: self.hash,
        }
    }

    /// Nonce and balance of an account.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn account(&self, address: Address) -> Result<Account, StoreError> {
        let account = self.view.account(address)?.unwrap_or_default();
        Ok(Account { nonce: account.nonce, balance: account.balance })
    }
}

/// An executed proposal whose results are verified (it was accepted, or this node made it), kept until a
/// block is committed.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) fingerprint: B256,
    pub(crate) block: KeptBlock,
}

/// A decoded block and its execution.
#[derive(Debug, Clone)]
pub(crate) struct KeptBlock {
    pub(crate) decoded: Arc<Decoded>,
    pub(crate) executed: Arc<Executed>,
}

/// The application's state machine.
#[derive(Debug)]
pub struct Chain {
    pub(crate) rules: Rules,
    pub(crate) config: ChainConfig,
    pub(crate) genesis: Genesis,
    pub(crate) genesis_digest: B256,
    pub(crate) state: Mutex<State>,
    /// Reads what the state has committed, without its lock.
    pub(crate) reader: StateReader,
    fetcher: Fetcher,
    pub(crate) head: Arc<RwLock<Option<Head>>>,
    pub(crate) network: Arc<InferenceNetwork>,
    pool: OnceLock<PoolHandle>,
    /// Only on a chain with scheduled tasks.
    ahead: OnceLock<Ahead>,
    pub(crate) kept: Mutex<VecDeque<Kept>>,
    pub(crate) finalized: Mutex<Option<Finalized>>,
    /// Height of the newest proposal that was made or judged here.
    proposal_seen: AtomicU64,
    /// Whether the newest block was seen as a proposal: consensus is up with its peers.
    live: Arc<AtomicBool>,
    pub(crate) snapshots: Snapshots,
    /// A snapshot that is being restored.
    pub(crate) incoming: Mutex<Option<Incoming>>,
    subscribers: Mutex<Vec<mpsc::Sender<Arc<Block>>>>,
    pub(crate) recent: RecentBlocks,
}

/// Executed proposals that are kept: the rounds of one height, within reason.
const MAX_KEPT: usize = 4;

impl Chain {
    /// Opens the chain of a store; a new store waits for `init_chain`.
    ///
    /// # Errors
    /// [`ChainError`]: the store is of another chain or another version, or fails.
    pub fn open(
        store: Arc<dyn Store>,
        genesis: Genesis,
        app_state: &[u8],
        network: Arc<InferenceNetwork>,
        config: ChainConfig,
    ) -> Result<Self, ChainError> {
        let rules = genesis.rules()?;
        let genesis_digest = digest_of(app_state)?;
        let snapshot = store.snapshot();
        let height = if check_layout(&*store)? {
            if snapshot.get(&keys::meta("chain"))?.as_deref() != Some(genesis_digest.as_slice()) {
                return Err(ChainError::WrongStore(
                    "belongs to a chain with another genesis: use its genesis, or another data folder".into(),
                ));
            }
            Some(snapshot.meta_number("height")?.ok_or_else(|| StoreError::damaged("the height"))?)
        } else {
            None
        };
        drop(snapshot);
        if height.is_none() {
            // A restoration that was cut short.
            clear(&*store)?;
        }
        let snapshots = Snapshots::open(config.snapshots.clone())?;
        let state = State::open(store, height.unwrap_or_default(), config.state)?;
        let head = Arc::new(RwLock::new(None));
        let chain = Self {
            rules,
            config,
            genesis,
            genesis_digest,
            reader: state.reader(),
            fetcher: Fetcher::start(state.reader())?,
            state: Mutex::new(state),
            head,
            network,
            pool: OnceLock::new(),
            ahead: OnceLock::new(),
            kept: Mutex::default(),
            finalized: Mutex::default(),
            proposal_seen: AtomicU64::new(0),
            live: Arc::default(),
            snapshots,
            incoming: Mutex::default(),
            subscribers: Mutex::default(),
            recent: RecentBlocks::default(),
        };
        if let Some(height) = height {
            chain.load_head(height)?;
        }
        Ok(chain)
    }

    pub(crate) fn load_head(&self, height: u64) -> Result<(), ChainError> {
        let state = self.state.lock();
        let view = state.head();
        let header = view.header(height)?.ok_or_else(|| StoreError::damaged("the head's header"))?;
        if state.root() != header.state_root {
            return Err(
                StoreError::contradiction(format!("the state at height {height} is not that of its header")).into()
            );
        }
        let hash = header.hash_slow();
        self.set_head(Head { header, hash, view })
    }

    /// Moves the head; the first one starts the pool.
    pub(crate) fn set_head(&self, head: Head) -> Result<(), ChainError> {
        let (number, base_fee) = (head.number(), head.next_base_fee());
        *self.head.write() = Some(head);
        if self.pool.get().is_none() {
            let simulator = HeadSimulator {
                rules: self.rules.clone(),
                inline_ops: self.config.pool.simulation_ops,
                head: self.head.clone(),
            };
            let rules = PoolRules {
                max_tx_ops: self.rules.limits.max_tx_ops,
                max_waves: self.rules.limits.max_waves_per_tx,
                ops_per_gas: self.rules.gas.ops_per_gas,
            };
            let pool = Pool::new(self.config.pool, rules, number, base_fee);
            let pool = PoolHandle::start(pool, self.config.pool, self.network.clone(), Arc::new(simulator))?;
            // Heads are set by one caller at a time: nobody else has set the pool meanwhile.
            let _ = self.pool.set(pool);
            if self.rules.task_gas_per_block > 0 {
                let inline_ops = self.config.pool.simulation_ops;
                let live = (self.config.gossip != Gossip::None).then(|| self.live.clone());
                let ahead =
                    Ahead::start(self.rules.clone(), inline_ops, self.head.clone(), self.network.clone(), live)?;
                let _ = self.ahead.set(ahead);
            }
        }
        Ok(())
    }

    /// Height of the head; `None` before the genesis.
    pub fn height(&self) -> Option<u64> {
        self.head.read().as_ref().map(Head::number)
    }

    /// The head.
    ///
    /// # Errors
    /// Before `init_chain`.
    pub fn head(&self) -> Result<Head, ChainError> {
        self.head.read().clone().ok_or_else(|| ChainError::Consensus("the chain is not initialized".into()))
    }

    /// The pool.
    ///
    /// # Errors
    /// Before `init_chain`.
    pub fn pool(&self) -> Result<&PoolHandle, ChainError> {
        self.pool.get().ok_or_else(|| ChainError::Consensus("the chain is not initialized".into()))
    }

    /// The results for tasks, on a chain that has tasks.
    pub(crate) fn tasks_ahead(&self) -> Option<&Ahead> {
        self.ahead.get()
    }

    /// Whether a scheduled task is due at a time, in seconds since the epoch, and has all its results: a block could run it.
    pub fn has_ready_task(&self, time: u64) -> bool {
        self.tasks_ahead().is_some_and(|ahead| ahead.is_ready(time))
    }

    /// The rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The models of the genesis, with their files.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// The inference network.
    pub fn network(&self) -> &Arc<InferenceNetwork> {
        &self.network
    }

    /// Every block from now on, once it is committed.
    pub fn subscribe(&self) -> mpsc::Receiver<Arc<Block>> {
        let (sender, receiver) = mpsc::channel();
        self.subscribers.lock().push(sender);
        receiver
    }

    pub(crate) fn tell_subscribers(&self, block: &Arc<Block>) {
        self.subscribers.lock().retain(|subscriber| subscriber.send(block.clone()).is_ok());
    }

    /// A proposal for a height was made or judged here.
    pub(crate) fn note_proposal(&self, height: u64) {
        self.proposal_seen.store(height, Ordering::Relaxed);
    }

    /// Whether a proposal for a height was made or judged here before: then its round failed, and this is a later one.
    pub(crate) fn saw_proposal(&self, height: u64) -> bool {
        self.proposal_seen.swap(height, Ordering::Relaxed) == height
    }

    /// A decided block is executed.
    pub(crate) fn note_decided(&self, height: u64) {
        self.live.store(self.proposal_seen.load(Ordering::Relaxed) == height, Ordering::Relaxed);
    }

    /// Whether this node is not up with its peers: its newest block came by block sync or replay, or none has come
    /// since its start.
    pub fn is_syncing(&self) -> bool {
        self.config.gossip != Gossip::None && !self.live.load(Ordering::Relaxed)
    }

    pub(crate) fn keep(&self, fingerprint: B256, decoded: Decoded, executed: Executed) {
        let block = KeptBlock { decoded: Arc::new(decoded), executed: Arc::new(executed) };
        // While the validators vote.
        self.fetcher.expect(&block.executed.changes);
        let mut kept = self.kept.lock();
        kept.retain(|other| other.fingerprint != fingerprint);
        kept.push_back(Kept { fingerprint, block });
        while kept.len() > MAX_KEPT {
            kept.pop_front();
        }
    }

    pub(crate) fn find_kept(&self, fingerprint: B256) -> Option<KeptBlock> {
        let kept = self.kept.lock();
        kept.iter().find(|kept| kept.fingerprint == fingerprint).map(|kept| kept.block.clone())
    }

    /// Writes the genesis state and block. Done again after a crash before the first commit, it
    /// gives the same.
    pub(crate) fn initialize(&self, app_state: &[u8], time: u64, validators: &[Validator]) -> Result<B256, ChainError> {
        if digest_of(app_state)? != self.genesis_digest {
            return Err(ChainError::Consensus(
                "the genesis that consensus brings is not the one that this node was started with".into(),
            ));
        }
        if let Some(height) = self.height().filter(|height| *height > 0) {
            return Err(ChainError::Consensus(format!("InitChain at height {height}")));
        }
        // What is here is the genesis of an InitChain before a crash, or the rest of a state sync that was given up.
        *self.incoming.lock() = None;
        let mut state = self.state.lock();
        let store = state.store().clone();
        clear(&*store)?;
        state.reload(0)?;
        let applied = state.apply(0, &genesis_changes(&self.genesis, validators)?)?;
        let header = self.genesis_header(applied.root, time);
        let hash = header.hash_slow();
        let mut batch = applied.batch;
        batch.put(keys::meta("version"), keys::LAYOUT_VERSION.to_be_bytes().to_vec());
        batch.put(keys::meta("chain"), self.genesis_digest.to_vec());
        batch.put(keys::meta("history"), 0_u64.to_be_bytes().to_vec());
        put_block(&mut batch, &header, hash);
        state.commit(0, batch)?;
        let view = state.head();
        drop(state);
        info!(%hash, "genesis written");
        self.set_head(Head { header, hash, view })?;
        Ok(hash)
    }

    fn genesis_header(&self, state_root: B256, timestamp: u64) -> Header {
        Header {
            number: 0,
            state_root,
            timestamp,
            gas_limit: self.rules.block_gas_limit,
            base_fee_per_gas: Some(self.genesis.config.base_fee),
            // Block 0 has no results: this names the genesis with its models, prices and limits.
            extra_data: Bytes::copy_from_slice(self.genesis_digest.as_slice()),
            ..empty_header(&self.rules)
        }
    }
}

/// A header with the fields that are the same in every block.
pub(crate) fn empty_header(rules: &Rules) -> Header {
    let prague = rules.spec.is_enabled_in(revm::primitives::hardfork::SpecId::PRAGUE);
    Header {
        ommers_hash: EMPTY_OMMER_ROOT_HASH,
        transactions_root: EMPTY_ROOT_HASH,
        receipts_root: EMPTY_ROOT_HASH,
        withdrawals_root: Some(EMPTY_WITHDRAWALS),
        blob_gas_used: Some(0),
        excess_blob_gas: Some(0),
        parent_beacon_block_root: Some(B256::ZERO),
        requests_hash: prague.then_some(EMPTY_REQUESTS_HASH),
        ..Default::default()
    }
}

/// What every block writes besides its content.
pub(crate) fn put_block(batch: &mut Batch, header: &Header, hash: B256) {
    batch.put(keys::header(header.number), alloy_rlp::encode(header));
    batch.put(keys::block_hash(header.number), hash.to_vec());
    batch.put(keys::number_of(hash), header.number.to_be_bytes().to_vec());
    batch.put(keys::meta("height"), header.number.to_be_bytes().to_vec());
}

/// The digest by which a store knows its genesis: of the JSON value, so that white space does not count.
fn digest_of(app_state: &[u8]) -> Result<B256, ChainError> {
    let value: serde_json::Value = serde_json::from_slice(app_state)
        .map_err(|error| GenesisError { path: "app_state".into(), reason: error.to_string() })?;
    // serde_json's maps are sorted: equal values have equal texts.
    Ok(B256::from_slice(&Sha256::digest(value.to_string())))
}

fn genesis_changes(genesis: &Genesis, validators: &[Validator]) -> Result<BundleState, GenesisError> {
    let mut builder = BundleState::builder(0..=0);
    // The state that another chain exported has the contract. With the same validators it stays as it is, to the order of
    // its list; with others they take the place of those.
    let exported = genesis.alloc.get(&VALIDATORS).is_some_and(|account| validators::are_in(account, validators));
    if !validators.is_empty() && !exported {
        let code = Bytecode::new_raw(validators::code()?);
        let info = AccountInfo { nonce: 1, code_hash: code.hash_slow(), ..AccountInfo::default() };
        let slots = validators::slots(validators, genesis.config.validator_admin).into_iter();
        builder = builder
            .contract(info.code_hash, code.clone())
            .state_present_account_info(VALIDATORS, AccountInfo { code: Some(code), ..info })
            .state_storage(VALIDATORS, slots.map(|(slot, value)| (slot, (U256::ZERO, value))).collect());
    }
    for (address, account) in genesis.accounts()? {
        let code = account.code.filter(|code| !code.is_empty()).map(Bytecode::new_raw);
        let code_hash = code.as_ref().map_or(KECCAK_EMPTY, Bytecode::hash_slow);
        let info = AccountInfo {
            balance: account.balance,
            nonce: account.nonce.unwrap_or_default(),
            code_hash,
            code: code.clone(),
            ..AccountInfo::default()
        };
        if info.is_empty() || (address == VALIDATORS && !validators.is_empty() && !exported) {
            // EIP-161: there are no empty accounts.
            continue;
        }
        builder = builder.state_present_account_info(address, info);
        let slots = account.storage.unwrap_or_default().into_iter();
        let slots = slots.map(|(slot, value)| (slot.into(), (U256::ZERO, value.into()))).collect();
        builder = builder.state_storage(address, slots);
        if let Some(code) = code {
            builder = builder.contract(code_hash, code);
        }
    }
    Ok(builder.build())
}
