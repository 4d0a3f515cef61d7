//! The node under load, when the bench starts it: as `penstock dev`, with models of a chosen cost.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use alloy_primitives::{Address, U256};
use anyhow::Context;
use penstock_chain::{Block, GenesisDoc};
use penstock_inference::{
    ContentHash, Failure, InferenceNetwork, Model, NetworkConfig, Tensor, TensorValues, synthetic,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::load::{HEAVY, MEDIUM, SLOW};
use crate::{bundled, embedded, models, settings::Settings};

/// How long [`SLOW`] pretends to take.
pub(super) const SLOW_FOR: Duration = Duration::from_secs(60);

/// Gas of a block: so much that the machine is measured and not this limit.
const GAS_LIMIT: u64 = 3_000_000_000;

/// Generated models: name, rows, layers. Some million multiply-adds for each row and layer.
const MODELS: [(&str, u32, usize); 3] = [(MEDIUM, 370, 1), (HEAVY, 256, 100), (SLOW, 200, 100)];

/// Where inference runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum System {
    /// Before execution, in parallel.
    Penstock,
    /// Inside execution, one request after the other, as in older systems.
    Blocking,
}

/// A genesis with the generated models and funded accounts, and the loaded models.
pub(super) struct Ground {
    genesis: GenesisDoc,
    slow: ContentHash,
    /// The files of the generated models.
    folder: TempDir,
}

impl Ground {
    pub(super) fn new(accounts: &[Address]) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("penstock-bench-models-").tempdir()?;
        let mut doc: Value = serde_json::from_slice(bundled::GENESIS)?;
        doc["app_state"]["config"]["gasLimit"] = json!(GAS_LIMIT);
        let limits = &mut doc["app_state"]["inference"]["limits"];
        limits["maxBlockOps"] = json!(1_000_000_000_000u64);
        for account in accounts {
            doc["app_state"]["alloc"][account.to_string()] = json!({ "balance": U256::from(10u128.pow(26)) });
        }
        let mut slow = None;
        for (name, rows, layers) in MODELS {
            let bytes = synthetic::wide_mlp(rows, layers);
            let path = folder.path().join(format!("{}.onnx", name.replace('/', "-")));
            std::fs::write(&path, &bytes)?;
            let model = Model::load(bytes)?;
            let descriptor = model.descriptor().map_err(Clone::clone)?;
            let entry = json!({
                "id": name, "hash": model.hash(), "file": path, "policy": "replicated",
                "inputs": descriptor.inputs, "outputs": descriptor.outputs, "ops": descriptor.ops,
            });
            doc["app_state"]["models"].as_array_mut().context("models of the bundled genesis")?.push(entry);
            slow = (name == SLOW).then(|| model.hash()).or(slow);
        }
        let genesis = GenesisDoc::parse(doc.to_string().as_bytes())?;
        Ok(Self { genesis, slow: slow.context("the slow model")?, folder })
    }
}

/// A started node.
pub(super) struct Node {
    pub(super) url: String,
    runtime: Runtime,
    chain: Option<embedded::Embedded>,
    _data: TempDir,
}

impl Node {
    /// `slow` requests wait at once on machines that are not there.
    pub(super) fn start(
        ground: &Ground,
        mut settings: Settings,
        system: System,
        block_time: Duration,
        slow: usize,
    ) -> anyhow::Result<Self> {
        settings.rpc.listen.set_port(0);
        settings.rpc.max_batch = 10_000;
        settings.rpc.max_response_bytes = 1 << 30;
        settings.pool.ripeness = 0.0;
        if system == System::Blocking {
            settings.pool.blocking = true;
            settings.pool.inline_ops = u64::MAX;
            settings.pool.proposal_budget = Duration::from_secs(3_600);
            settings.chain.verification_budget = Duration::from_secs(3_600);
        }
        let config = NetworkConfig { threads: settings.inference.threads + slow, ..settings.inference };
        let slow = ground.slow;
        let network = InferenceNetwork::start_with(
            models::load(
                &ground.genesis.genesis.models,
                Some(ground.folder.path()),
                &models::folder(None),
                settings.inference.model_bytes,
                models::Missing::Refuse,
            )?,
            config,
            Some(Box::new(move |_, request| {
                (request.model == slow).then(|| {
                    thread::sleep(SLOW_FOR);
                    // One number, whose value does not matter.
                    let tensor = Tensor::new(vec![1, 1], TensorValues::Float32(vec![1.0]));
                    tensor.map(|tensor| vec![tensor]).ok_or(Failure::Engine)
                })
            })),
        )
        .context("cannot start inference threads")?;
        let data = tempfile::Builder::new().prefix("penstock-bench-").tempdir()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let parts = embedded::Parts {
            genesis: &ground.genesis,
            network: Arc::new(network),
            data: data.path(),
            settings: &settings,
            block_time,
        };
        let chain = runtime.block_on(parts.start())?;
        Ok(Self { url: format!("http://{}", chain.address), runtime, chain: Some(chain), _data: data })
    }

    /// Blocks from now on.
    pub(super) fn blocks(&self) -> Option<mpsc::Receiver<Arc<Block>>> {
        self.chain.as_ref().map(|chain| chain.chain.subscribe())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(chain) = self.chain.take()
            && let Err(error) = self.runtime.block_on(chain.stop())
        {
            tracing::warn!(%error, "the node under load did not stop well");
        }
    }
}
