//! Chains in this process, driven by the same ABCI calls as consensus makes.

#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on stops"
)]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, address};
use alloy_signer::SignerSync;
use alloy_signer_local::PrivateKeySigner;
use alloy_sol_types::{SolCall, sol};
use penstock_abci::{
    Application, Timestamp,
    messages::{
        RequestFinalizeBlock, RequestInitChain, RequestPrepareProposal, RequestProcessProposal, ValidatorUpdate,
        response_process_proposal::ProposalStatus,
    },
};
use penstock_chain::{Chain, ChainConfig, Genesis, GenesisDoc};
use penstock_inference::{InferenceNetwork, ModelSource, ModelStore, NetworkConfig};
use penstock_pipe::{PoolConfig, Stage};
use penstock_state::Backend;
use serde_json::{Value, json};

pub const PROBE: Address = address!("00000000000000000000000000000000000ab001");

/// A Ticker that asks a model about the number of its runs.
pub const TICKER: Address = address!("00000000000000000000000000000000000ab002");

sol! {
    struct Number { int128 value; int128 decimals; }
    function ask(string model, string inputName, Number[] values, uint32[] shape);
    function tryAsk(string model, string inputName, Number[] values, uint32[] shape);
    function bump();
    function askVolatile(string model);
    function askTwoWays(string model, int128 x, int128 threshold);
    function iterate(int128 x, uint256 depth);
    function askUnlessZero(string model, int128 x, uint8 otherwise);
    function registerTask(address contractAddress, uint256 endTime, uint256 frequency);
    function stopTask(address contractAddress);
}

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

pub fn account(index: u8) -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&B256::repeat_byte(index + 1)).unwrap()
}

/// The account that feeds prices.
pub const FEEDER: u8 = 7;

fn artifact(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(repository().join(format!("app/contracts/out/{name}.json"))).unwrap())
        .unwrap()
}

/// The repository's genesis with the contracts Probe and Ticker, eight funded accounts, and one of them as the feeder.
pub fn genesis() -> (Genesis, Bytes) {
    genesis_with(|_| {})
}

/// The same with a change of `app_state`.
pub fn genesis_with(change: impl FnOnce(&mut Value)) -> (Genesis, Bytes) {
    let text = std::fs::read(repository().join("genesis.json")).unwrap();
    let mut doc: Value = serde_json::from_slice(&text).unwrap();
    let alloc = doc["app_state"]["alloc"].as_object_mut().unwrap();
    // Ticker's mode is in slot 2: it asks.
    let asks = json!({ B256::with_last_byte(2).to_string(): B256::with_last_byte(4) });
    for (address, name, slots) in [(PROBE, "Probe", json!({})), (TICKER, "Ticker", asks)] {
        let code = artifact(name)["deployedBytecode"].clone();
        alloc.insert(address.to_string(), json!({ "balance": "0x0", "nonce": "0x1", "code": code, "storage": slots }));
    }
    for index in 0..8 {
        alloc.insert(account(index).address().to_string(), json!({ "balance": "0x3635c9adc5dea00000" }));
    }
    doc["app_state"]["priceFeed"]["feeder"] = json!(account(FEEDER).address());
    change(&mut doc["app_state"]);
    let doc = GenesisDoc::parse(doc.to_string().as_bytes()).unwrap();
    (doc.genesis, doc.app_state)
}

pub fn models(genesis: &Genesis) -> ModelStore {
    let mut store = ModelStore::default();
    for model in &genesis.models {
        let file = repository().join(model.file.as_ref().unwrap());
        store.load(model.hash, &ModelSource::File(file)).unwrap();
    }
    store
}

/// A proposed or decided block.
#[derive(Debug, Clone)]
pub struct TestBlock {
    pub height: i64,
    pub seconds: i64,
    pub txs: Vec<bytes::Bytes>,
}

pub struct TestChain {
    pub chain: Arc<Chain>,
    folder: tempfile::TempDir,
}

impl TestChain {
    pub fn new() -> Self {
        Self::with(PoolConfig { ripeness: 0.0, ..PoolConfig::default() }, true)
    }

    pub fn with(pool: PoolConfig, has_models: bool) -> Self {
        let chain = Self::open(tempfile::tempdir().unwrap(), has_models, |config| config.pool = pool);
        chain.init();
        chain
    }

    /// A new store with other settings; nothing is initialized.
    pub fn configured(configure: impl FnOnce(&mut ChainConfig)) -> Self {
        Self::open(tempfile::tempdir().unwrap(), true, configure)
    }

    /// InitChain.
    pub fn init(&self) {
        self.init_with(genesis().1);
    }

    /// InitChain with another genesis.
    pub fn init_with(&self, app_state: Bytes) {
        let request = RequestInitChain { app_state_bytes: app_state.0, ..Default::default() };
        self.chain.init_chain(request).unwrap();
    }

    /// A new store of another genesis; nothing is initialized.
    pub fn of_genesis(genesis: Genesis, app_state: &[u8], has_models: bool, pool: PoolConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::open_with(folder, genesis, app_state, has_models, |config| config.pool = pool)
    }

    /// Opens what is in a folder; nothing is initialized.
    pub fn open(folder: tempfile::TempDir, has_models: bool, configure: impl FnOnce(&mut ChainConfig)) -> Self {
        let (genesis, app_state) = genesis();
        Self::open_with(folder, genesis, &app_state, has_models, configure)
    }

    fn open_with(
        folder: tempfile::TempDir,
        genesis: Genesis,
        app_state: &[u8],
        has_models: bool,
        configure: impl FnOnce(&mut ChainConfig),
    ) -> Self {
        let store = if has_models { models(&genesis) } else { ModelStore::default() };
        let network = InferenceNetwork::start(store, NetworkConfig::default()).unwrap();
        let begin = Instant::now();
        // The threads of one that was just dropped let go of the store one after the other.
        let database = loop {
            match Backend::Fjall.open(folder.path()) {
                Ok(database) => break database,
                Err(error) => assert!(begin.elapsed() < Duration::from_secs(20), "{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let fee_recipient = Address::repeat_byte(0xfe);
        let mut config = ChainConfig { fee_recipient, ..ChainConfig::default() };
        configure(&mut config);
        let chain = Arc::new(Chain::open(database, genesis, app_state, Arc::new(network), config).unwrap());
        Self { chain, folder }
    }

    /// Ends it; what is on its disk.
    pub fn close(self) -> tempfile::TempDir {
        self.folder
    }

    pub fn next_height(&self) -> i64 {
        self.chain.height().unwrap() as i64 + 1
    }

    /// Waits until a transaction is at a stage.
    pub fn wait_for(&self, hash: B256, stage: Stage) {
        let begin = Instant::now();
        loop {
            let status = self.chain.pool().unwrap().read(|pool| pool.status(&hash));
            if status.as_ref().is_some_and(|status| status.stage == stage) {
                return;
            }
            assert!(begin.elapsed() < Duration::from_secs(20), "{hash} is not {}: {status:?}", stage.name());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Admits a transaction and waits until it is ready.
    pub fn submit(&self, tx: &Tx, sender: u8) -> B256 {
        let hash = self.chain.admit(tx.sign(sender)).unwrap();
        self.wait_for(hash, Stage::Ready);
        hash
    }

    pub fn propose(&self) -> TestBlock {
        let height = self.next_height();
        let request =
            RequestPrepareProposal { max_tx_bytes: 1 << 20, height, time: Some(time(height)), ..Default::default() };
        let txs = self.chain.prepare_proposal(request).unwrap().txs;
        TestBlock { height, seconds: time(height).seconds, txs }
    }

    pub fn accepts(&self, block: &TestBlock) -> bool {
        let request = RequestProcessProposal {
            txs: block.txs.clone(),
            height: block.height,
            time: Some(Timestamp { seconds: block.seconds, nanos: 0 }),
            ..Default::default()
        };
        self.chain.process_proposal(request).unwrap().status == ProposalStatus::Accept as i32
    }

    pub fn finalize(&self, block: &TestBlock) -> B256 {
        self.finalize_with_updates(block).0
    }

    pub fn finalize_with_updates(&self, block: &TestBlock) -> (B256, Vec<ValidatorUpdate>) {
        let request = RequestFinalizeBlock {
            txs: block.txs.clone(),
            height: block.height,
            time: Some(Timestamp { seconds: block.seconds, nanos: 0 }),
            ..Default::default()
        };
        let response = self.chain.finalize_block(request).unwrap();
        (B256::from_slice(&response.app_hash), response.validator_updates)
    }

    pub fn decide(&self, block: &TestBlock) -> B256 {
        let hash = self.finalize(block);
        self.chain.commit().unwrap();
        hash
    }

    /// Deploys a contract of `app/contracts` in a block of its own, from an account without transactions.
    pub fn deploy(&self, name: &str, sender: u8) -> Address {
        let code: Bytes = artifact(name)["bytecode"].as_str().unwrap().parse().unwrap();
        let hash =
            self.chain.admit(Tx { input: code, gas: 5_000_000, ..Tx::transfer(0) }.sign_creation(sender)).unwrap();
        self.wait_for(hash, Stage::Ready);
        self.produce();
        account(sender).address().create(0)
    }

    /// One height of a single validator.
    pub fn produce(&self) -> TestBlock {
        let block = self.propose();
        assert!(self.accepts(&block), "its own proposal");
        self.decide(&block);
        block
    }
}

fn time(height: i64) -> Timestamp {
    Timestamp { seconds: 1_800_000_000 + height, nanos: 0 }
}

/// A transaction to be signed.
#[derive(Clone)]
pub struct Tx {
    pub nonce: u64,
    pub to: Address,
    pub value: U256,
    pub input: Bytes,
    pub gas: u64,
    pub tip: u128,
}

impl Tx {
    pub fn transfer(nonce: u64) -> Self {
        let to = Address::repeat_byte(7);
        Self { nonce, to, value: U256::from(1), input: Bytes::new(), gas: 21_000, tip: 1_000_000_000 }
    }

    pub fn call(nonce: u64, input: impl Into<Bytes>) -> Self {
        Self { to: PROBE, value: U256::ZERO, input: input.into(), gas: 2_000_000, ..Self::transfer(nonce) }
    }

    pub fn ask(nonce: u64, values: [i128; 2]) -> Self {
        let values = values.map(|value| Number { value, decimals: 0 }).to_vec();
        Self::call(
            nonce,
            askCall { model: "penstock/linear".into(), inputName: "x".into(), values, shape: vec![1, 2] }.abi_encode(),
        )
    }

    pub fn ask_volatile(nonce: u64) -> Self {
        Self::call(nonce, askVolatileCall { model: "penstock/linear".into() }.abi_encode())
    }

    pub fn bump(nonce: u64) -> Self {
        Self::call(nonce, bumpCall {}.abi_encode())
    }

    /// Has Ticker run every other second.
    pub fn schedule(nonce: u64) -> Self {
        let (end, frequency) = (U256::from(1_900_000_000), U256::from(2));
        let call = registerTaskCall { contractAddress: TICKER, endTime: end, frequency };
        let value = U256::from(2_000_000_000_000_000_000u64);
        Self { to: penstock_chain::SCHEDULER, value, ..Self::call(nonce, call.abi_encode()) }
    }

    /// Ends that.
    pub fn stop(nonce: u64) -> Self {
        let call = stopTaskCall { contractAddress: TICKER };
        Self { to: penstock_chain::SCHEDULER, ..Self::call(nonce, call.abi_encode()) }
    }

    pub fn sign(&self, sender: u8) -> Bytes {
        self.sign_to(TxKind::Call(self.to), sender)
    }

    /// As the creation of a contract, without value.
    pub fn sign_creation(&self, sender: u8) -> Bytes {
        Self { value: U256::ZERO, ..self.clone() }.sign_to(TxKind::Create, sender)
    }

    fn sign_to(&self, to: TxKind, sender: u8) -> Bytes {
        let tx = TxEip1559 {
            chain_id: 7483,
            nonce: self.nonce,
            gas_limit: self.gas,
            max_fee_per_gas: 100_000_000_000,
            max_priority_fee_per_gas: self.tip,
            to,
            value: self.value,
            input: self.input.clone(),
            access_list: Default::default(),
        };
        let signature = account(sender).sign_hash_sync(&tx.signature_hash()).unwrap();
        TxEnvelope::from(tx.into_signed(signature)).encoded_2718().into()
    }
}
