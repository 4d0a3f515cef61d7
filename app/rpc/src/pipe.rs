//! Penstock's own methods: the life of transactions and inferences.

use std::{sync::Arc, time::Duration};

use alloy_eips::BlockNumberOrTag;
use alloy_primitives::{Address, B256, Bytes, U64};
use jsonrpsee::{proc_macros::rpc, types::ErrorObjectOwned};
use penstock_chain::Block;
use penstock_evm::RegisteredModel;
use penstock_inference::{
    DType, InferenceResult, OpsCost, RequestId, Tensor, TensorSpec, TensorValues, decimal::Decimal, result,
};
use penstock_pipe::{RequestStatus, Stage, TxStatus};
use serde::Serialize;

use crate::{
    error::{RpcError, RpcResult},
    eth::Eth,
};

type Answer<T> = Result<T, ErrorObjectOwned>;

/// `pipe_health`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Health {
    height: U64,
}

/// `pipe_status`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PipeStatus {
    height: u64,
    syncing: bool,
    transactions: Stages,
    requests: Requests,
    /// Threads that run models in this process.
    workers: usize,
    results_cached: usize,
    /// Models in memory, and the bytes that they take, about.
    models_in_memory: usize,
    model_bytes: u64,
}

/// Pending transactions by stage.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stages {
    queued: usize,
    simulating: usize,
    inferring: usize,
    ready: usize,
    proposed: usize,
    /// Of all of them: those that wait for the inference budget of their account.
    held_back: usize,
    /// Memory of all of them, about.
    bytes: usize,
}

/// Requests of this node.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Requests {
    queued: usize,
    running: usize,
    done: u64,
    /// Of those done: run together with others for the same model.
    together: u64,
    /// Processor time of all runs.
    run_seconds: f64,
}

/// `pipe_getBudget`: what an account may make this node compute before its gas pays for it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Budget {
    /// Cost of requests of its pending transactions.
    pending_ops: u64,
    /// Cost of requests that no gas paid for; forgiven with time.
    unpaid_ops: u64,
    /// The most that both may be together.
    limit_ops: u64,
}

/// `pipe_getTransaction`. Times are milliseconds since the submission.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PipeTransaction {
    hash: B256,
    from: Address,
    nonce: u64,
    stage: &'static str,
    waves: u32,
    deferrals: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block_number: Option<u64>,
    stages: Vec<StageTime>,
    requests: Vec<PipeRequest>,
}

/// When a stage began.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StageTime {
    stage: &'static str,
    at_ms: f64,
}

/// One request of a transaction.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PipeRequest {
    id: String,
    model: Option<String>,
    ops: u64,
    wave: u32,
    found_at_ms: f64,
    answered_at_ms: Option<f64>,
    took_ms: Option<f64>,
    /// How much of its run is done, from 0 to 1; absent unless it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<f64>,
}

/// `pipe_getInference`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Inference {
    id: String,
    model: Option<String>,
    model_hash: String,
    /// keccak256 of the canonical request; with the model and the engine version it makes the id.
    input_digest: B256,
    output_digest: B256,
    output: Option<Vec<Output>>,
    failure: Option<String>,
    block_number: u64,
    block_hash: B256,
    transactions: Vec<B256>,
    /// How every validator verified it before the block was decided.
    policy: Option<penstock_evm::Policy>,
}

/// `pipe_getInferenceProof`: what `penstock verify-proof` checks, and the same in words.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InferenceProof {
    #[serde(flatten)]
    proof: penstock_chain::InferenceProof,
    block_number: u64,
    block_hash: B256,
    model_hash: String,
    /// keccak256 of the canonical request.
    input_digest: B256,
    output_digest: B256,
    output: Option<Vec<Output>>,
    failure: Option<String>,
}

/// One output tensor, as contracts see it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Output {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(rename = "type")]
    dtype: DType,
    shape: Vec<usize>,
    /// `[value, decimals]` of each number, as decimal texts; `null` where no decimal stands for it.
    numbers: Vec<Option<[String; 2]>>,
    /// The texts of a tensor of strings, which has no numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    strings: Option<Vec<String>>,
}

/// A result in a block.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BlockInference {
    id: String,
    output_digest: B256,
    failure: Option<String>,
    /// The canonical bytes of the result.
    result: Bytes,
    transactions: Vec<B256>,
}

/// `pipe_models`, `pipe_getModel`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Model {
    id: String,
    aliases: Vec<String>,
    hash: String,
    policy: penstock_evm::Policy,
    active: bool,
    /// Whether this node has the file and can run it.
    available: bool,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    ops: OpsCost,
}

/// `pipe_quote`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Quote {
    /// Gas of the call itself, for call data as `abi.encode` makes it.
    gas: U64,
    ops: u64,
    input_bytes: u64,
    output_bytes: u64,
}

/// The `pipe_` methods.
#[rpc(server, namespace = "pipe")]
pub(crate) trait PipeApi {
    /// Also `GET /health`: an error while this node is not up with its peers.
    #[method(name = "health")]
    fn health(&self) -> Answer<Health>;
    /// Height, transactions by stage, requests queued, running and done.
    #[method(name = "status")]
    fn status(&self) -> Answer<PipeStatus>;
    /// Stage of a transaction, its requests with ids, waves and times, why it waits or was dropped.
    #[method(name = "getTransaction")]
    fn transaction(&self, hash: B256) -> Answer<Option<PipeTransaction>>;
    /// Inference of an account that is pending, unpaid, and allowed.
    #[method(name = "getBudget")]
    fn budget(&self, address: Address) -> Answer<Budget>;
    /// A recorded inference: model, input and output digests, output, block, transactions.
    #[method(name = "getInference")]
    fn inference(&self, id: B256) -> Answer<Option<Inference>>;
    /// What proves an inference to somebody who trusts a header: see the README, State.
    #[method(name = "getInferenceProof", blocking)]
    fn inference_proof(&self, id: B256, block: Option<BlockNumberOrTag>) -> Answer<Option<InferenceProof>>;
    /// The results recorded in a block.
    #[method(name = "getBlockInferences", blocking)]
    fn block_inferences(&self, block: BlockNumberOrTag) -> Answer<Option<Vec<BlockInference>>>;
    /// All models of the registry: inputs, outputs, cost, policy, availability.
    #[method(name = "models")]
    fn models(&self) -> Answer<Vec<Model>>;
    /// One of them, by id, alias or content hash.
    #[method(name = "getModel")]
    fn model(&self, id: String) -> Answer<Option<Model>>;
    /// Gas and cost of one call, for example `["penstock/digits-mlp", [[1, 64]]]`.
    #[method(name = "quote", blocking)]
    fn quote(&self, model: String, shapes: Vec<Vec<u32>>) -> Answer<Quote>;
}

impl PipeApiServer for Arc<Eth> {
    fn health(&self) -> Answer<Health> {
        let height = self.chain.head().map_err(RpcError::from)?.number();
        if self.chain.is_syncing() {
            return Err(RpcError::InvalidInput(format!("this node is syncing: it is at height {height}")).into());
        }
        Ok(Health { height: U64::from(height) })
    }

    fn status(&self) -> Answer<PipeStatus> {
        Ok(status(self)?)
    }

    fn transaction(&self, hash: B256) -> Answer<Option<PipeTransaction>> {
        Ok(transaction(self, hash)?)
    }

    fn budget(&self, address: Address) -> Answer<Budget> {
        let allowance = self.chain.pool().map_err(RpcError::from)?.allowance(&address);
        Ok(Budget { pending_ops: allowance.pending, unpaid_ops: allowance.debt, limit_ops: allowance.limit })
    }

    fn inference(&self, id: B256) -> Answer<Option<Inference>> {
        Ok(inference(self, RequestId(id))?)
    }

    fn inference_proof(&self, id: B256, block: Option<BlockNumberOrTag>) -> Answer<Option<InferenceProof>> {
        Ok(inference_proof(self, RequestId(id), block)?)
    }

    fn block_inferences(&self, block: BlockNumberOrTag) -> Answer<Option<Vec<BlockInference>>> {
        Ok(block_inferences(self, block)?)
    }

    fn models(&self) -> Answer<Vec<Model>> {
        Ok(self.chain.rules().registry.models().iter().map(|model| model_of(self, model)).collect())
    }

    fn model(&self, id: String) -> Answer<Option<Model>> {
        Ok(self.chain.rules().registry.by_name(&id).map(|model| model_of(self, model)))
    }

    fn quote(&self, model: String, shapes: Vec<Vec<u32>>) -> Answer<Quote> {
        Ok(quote(self, &model, &shapes)?)
    }
}

fn status(eth: &Eth) -> RpcResult<PipeStatus> {
    let counts = eth.chain.pool()?.read(penstock_pipe::Pool::counts);
    let network = eth.chain.network().status();
    Ok(PipeStatus {
        height: eth.chain.head()?.number(),
        syncing: eth.chain.is_syncing(),
        transactions: Stages {
            queued: counts.queued,
            simulating: counts.simulating,
            inferring: counts.inferring,
            ready: counts.ready,
            proposed: counts.proposed,
            held_back: counts.held_back,
            bytes: counts.bytes,
        },
        requests: Requests {
            queued: network.queued,
            running: network.running,
            done: network.done,
            together: network.together,
            run_seconds: network.run_time.as_secs_f64(),
        },
        workers: network.threads,
        results_cached: network.cached,
        models_in_memory: network.models,
        model_bytes: network.model_bytes,
    })
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn transaction(eth: &Eth, hash: B256) -> RpcResult<Option<PipeTransaction>> {
    if let Some(status) = eth.chain.pool()?.read(|pool| pool.status(&hash)) {
        return Ok(Some(from_status(eth, status)));
    }
    // Before the start of this process: what the chain tells.
    let Some(place) = eth.chain.place_of(hash)? else { return Ok(None) };
    let Some(block) = eth.chain.block(place.block)? else { return Ok(None) };
    let (Some(tx), Some(receipt)) = (block.txs.get(place.index), block.receipts.get(place.index)) else {
        return Ok(None);
    };
    Ok(Some(PipeTransaction {
        hash,
        from: receipt.sender,
        nonce: alloy_consensus::Transaction::nonce(tx),
        stage: Stage::Included.name(),
        waves: 0,
        deferrals: 0,
        reason: None,
        block_number: Some(place.block),
        stages: vec![],
        requests: receipt
            .requests
            .iter()
            .map(|id| PipeRequest {
                id: RequestId(*id).to_string(),
                model: None,
                ops: 0,
                wave: 0,
                found_at_ms: 0.0,
                answered_at_ms: None,
                took_ms: None,
                progress: None,
            })
            .collect(),
    }))
}

fn from_status(eth: &Eth, status: TxStatus) -> PipeTransaction {
    let request = |request: RequestStatus| PipeRequest {
        id: request.id.to_string(),
        model: eth.chain.rules().registry.by_hash(&request.model).map(|model| model.id.clone()),
        ops: request.ops,
        wave: request.wave,
        found_at_ms: millis(request.found),
        answered_at_ms: request.answered.map(millis),
        took_ms: request.took.map(millis),
        progress: eth.chain.network().progress(&request.id),
    };
    PipeTransaction {
        hash: status.hash,
        from: status.sender,
        nonce: status.nonce,
        stage: status.stage.name(),
        waves: status.waves,
        deferrals: status.deferrals,
        reason: status.reason,
        block_number: status.block,
        stages: status
            .stages
            .into_iter()
            .map(|(stage, at)| StageTime { stage: stage.name(), at_ms: millis(at) })
            .collect(),
        requests: status.requests.into_iter().map(request).collect(),
    }
}

fn users_of(block: &Block, id: RequestId) -> Vec<B256> {
    let uses = block.txs.iter().zip(&block.receipts).filter(|(_, receipt)| receipt.requests.contains(&id.0));
    uses.map(|(tx, _)| *tx.tx_hash()).collect()
}

fn inference(eth: &Eth, id: RequestId) -> RpcResult<Option<Inference>> {
    let Some(request) = eth.chain.recorded_request(id)? else { return Ok(None) };
    let Some(block) = eth.chain.block(request.block)? else { return Ok(None) };
    let results = block.header_tx.as_ref().map(|header| header.results.as_slice()).unwrap_or_default();
    let Some(recorded) = results.iter().find(|result| result.id == id) else { return Ok(None) };
    let model = eth.chain.rules().registry.by_hash(&request.model);
    Ok(Some(Inference {
        id: id.to_string(),
        model: model.map(|model| model.id.clone()),
        model_hash: request.model.to_string(),
        input_digest: request.input_digest,
        output_digest: result::digest(&recorded.result),
        output: outputs(&recorded.result, model.map(AsRef::as_ref)),
        failure: recorded.result.as_ref().err().map(ToString::to_string),
        block_number: request.block,
        block_hash: block.hash,
        transactions: users_of(&block, id),
        policy: model.map(|model| model.policy),
    }))
}

/// The proof for a block that used the request; without a block, for the last one that did.
fn inference_proof(eth: &Eth, id: RequestId, block: Option<BlockNumberOrTag>) -> RpcResult<Option<InferenceProof>> {
    let Some(request) = eth.chain.recorded_request(id)? else { return Ok(None) };
    let number = match block {
        None => request.block,
        Some(block) => match eth.number(block.into())? {
            Some(number) => number,
            None => return Ok(None),
        },
    };
    let Some(proof) = eth.chain.prove_inference(id, number)? else { return Ok(None) };
    let proved = proof.verify().map_err(|error| RpcError::Internal(error.to_string()))?;
    let model = eth.chain.rules().registry.by_hash(&request.model);
    Ok(Some(InferenceProof {
        block_number: number,
        block_hash: proved.block_hash,
        model_hash: request.model.to_string(),
        input_digest: request.input_digest,
        output_digest: result::digest(&proved.result),
        output: outputs(&proved.result, model.map(AsRef::as_ref)),
        failure: proved.result.as_ref().err().map(ToString::to_string),
        proof,
    }))
}

fn outputs(result: &InferenceResult, model: Option<&RegisteredModel>) -> Option<Vec<Output>> {
    let name = |index: usize| Some(model?.descriptor.outputs.get(index)?.name.clone());
    let outputs = result.as_ref().ok()?.iter().enumerate();
    Some(outputs.map(|(index, tensor)| output(tensor, name(index))).collect())
}

fn output(tensor: &Tensor, name: Option<String>) -> Output {
    let text = |decimal: Decimal| [decimal.value.to_string(), decimal.decimals.to_string()];
    let numbers = tensor.decimals().into_iter().map(|decimal| decimal.map(text)).collect();
    let strings = match tensor.values() {
        TensorValues::String(values) => Some(values.clone()),
        _ => None,
    };
    Output { name, dtype: tensor.dtype(), shape: tensor.shape().to_vec(), numbers, strings }
}

fn block_inferences(eth: &Eth, block: BlockNumberOrTag) -> RpcResult<Option<Vec<BlockInference>>> {
    let head = eth.chain.head()?.number();
    let number = block.as_number().unwrap_or(if block.is_earliest() { 0 } else { head });
    let Some(block) = eth.chain.block(number)? else { return Ok(None) };
    let results = block.header_tx.as_ref().map(|header| header.results.as_slice()).unwrap_or_default();
    Ok(Some(
        results
            .iter()
            .map(|recorded| BlockInference {
                id: recorded.id.to_string(),
                output_digest: result::digest(&recorded.result),
                failure: recorded.result.as_ref().err().map(ToString::to_string),
                result: result::encode(&recorded.result).into(),
                transactions: users_of(&block, recorded.id),
            })
            .collect(),
    ))
}

fn model_of(eth: &Eth, model: &RegisteredModel) -> Model {
    Model {
        id: model.id.clone(),
        aliases: model.aliases.clone(),
        hash: model.hash.to_string(),
        policy: model.policy,
        active: model.active,
        available: eth.chain.network().has_model(&model.hash),
        inputs: model.descriptor.inputs.clone(),
        outputs: model.descriptor.outputs.clone(),
        ops: model.descriptor.ops.clone(),
    }
}

fn quote(eth: &Eth, name: &str, shapes: &[Vec<u32>]) -> RpcResult<Quote> {
    let rules = eth.chain.rules();
    let model =
        rules.registry.by_name(name).ok_or_else(|| RpcError::InvalidInput(format!("unknown model `{name}`")))?;
    let quote = rules.quote(model, name, shapes).map_err(RpcError::InvalidParams)?;
    Ok(Quote {
        gas: U64::from(quote.gas),
        ops: quote.ops,
        input_bytes: quote.input_bytes,
        output_bytes: quote.output_bytes,
    })
}
