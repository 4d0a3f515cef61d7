//! ProcessProposal: a verdict from the block and the committed state alone.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use alloy_consensus::{TxEnvelope, transaction::SignerRecoverable};
use alloy_eips::eip2718::Decodable2718;
use alloy_primitives::Address;
use metrics::histogram;
use penstock_evm::{BlockContext, Call, OnMiss, Policy, TASK_SENDER};
use penstock_inference::{Failure, InferenceResult, Priority, RequestId, Urgency, network::Order};
use tracing::debug_span;

use crate::{
    BlockResult, Chain, ChainError, Head, HeaderTx, HeaderTxError, ScheduledTask,
    block_id::BlockId,
    execution::{BlockRun, Executed, NotIncluded},
    tasks::most_tasks,
};

/// Why a proposal is rejected. An honest proposer's block never is.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Rejection {
    /// It is not for the next height.
    #[error("it is for height {0}")]
    Height(u64),
    /// Without a header transaction in the first place.
    #[error("the header transaction: {0}")]
    Header(#[from] HeaderTxError),
    /// The header transaction is larger than `maxHeaderBytes`.
    #[error("the header transaction has {0} bytes")]
    HeaderSize(usize),
    /// A result is there twice.
    #[error("the result of {0} is there twice")]
    Duplicate(RequestId),
    /// More results are "unavailable" than a block may have.
    #[error("{0} results are unavailable")]
    TooManyUnavailable(usize),
    /// More tasks than a block has the gas for.
    #[error("{0} tasks are listed")]
    TooManyTasks(usize),
    /// A task is there twice.
    #[error("task {0} is there twice")]
    TaskTwice(u64),
    /// A transaction is no transaction, or a second header transaction.
    #[error("transaction {index}: {reason}")]
    Malformed {
        /// Its index among the users' transactions.
        index: usize,
        /// What is wrong.
        reason: String,
    },
    /// A transaction cannot be at its place.
    #[error("transaction {index} cannot be included: {reason}")]
    NotIncludable {
        /// Its index in the Ethereum block: tasks, then users' transactions.
        index: usize,
        /// Why.
        reason: String,
    },
    /// The results are not those that the execution uses, in the order of their first use.
    #[error("result {index} is not the one that the execution uses there")]
    Results {
        /// Index of the first that differs.
        index: usize,
    },
    /// A result is not the one that this node computes.
    #[error("the result of {0} is wrong")]
    WrongResult(RequestId),
    /// This node's own run did not end in time.
    #[error("the result of {0} could not be verified in time")]
    Unverified(RequestId),
    /// This node has no file of the model: it follows the chain, and vouches for nothing.
    #[error("the result of {0} is of a model that is not here")]
    NoModel(RequestId),
}

impl Rejection {
    /// A word for metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Height(_) => "height",
            Self::Header(_) => "header",
            Self::HeaderSize(_) => "header_size",
            Self::Duplicate(_) => "duplicate_result",
            Self::TooManyUnavailable(_) => "too_many_unavailable",
            Self::TooManyTasks(_) => "too_many_tasks",
            Self::TaskTwice(_) => "duplicate_task",
            Self::Malformed { .. } => "malformed_transaction",
            Self::NotIncludable { .. } => "not_includable",
            Self::Results { .. } => "results",
            Self::WrongResult(_) => "wrong_result",
            Self::Unverified(_) => "unverified",
            Self::NoModel(_) => "no_model",
        }
    }
}

/// A block's transactions, decoded.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) header: HeaderTx,
    /// Those that run the header's tasks, one for each, then the users'; with their senders.
    pub(crate) txs: Vec<(TxEnvelope, Address)>,
}

impl Chain {
    /// Judges a proposal; the execution of an accepted one is kept.
    ///
    /// # Errors
    /// When the state cannot be read; a bad proposal is `Ok(Err(..))`.
    pub(crate) fn judge(&self, id: &BlockId, txs: &[bytes::Bytes]) -> Result<Result<(), Rejection>, ChainError> {
        let fingerprint = id.fingerprint(txs);
        self.note_proposal(id.height);
        if self.find_kept(fingerprint).is_some() {
            return Ok(Ok(()));
        }
        let head = self.head()?;
        if id.height != head.number() + 1 {
            return Ok(Err(Rejection::Height(id.height)));
        }
        let decoded = match self.decode_block(&head, txs) {
            Ok(decoded) => decoded,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let block = id.context(&head, decoded.header.fee_recipient);
        let executed = match self.execute(block, &decoded, OnMiss::Abort)? {
            Ok(executed) => executed,
            Err(rejection) => return Ok(Err(rejection)),
        };
        if let Err(rejection) = self.check_results(&decoded.header, &executed.calls) {
            return Ok(Err(rejection));
        }
        self.keep(fingerprint, decoded, executed);
        Ok(Ok(()))
    }

    /// Everything that can be said of a block on a head without executing it.
    pub(crate) fn decode_block(&self, head: &Head, txs: &[bytes::Bytes]) -> Result<Decoded, Rejection> {
        let (first, users) = txs.split_first().ok_or(HeaderTxError::NotOne)?;
        if first.len() as u64 > self.rules.limits.max_header_bytes {
            return Err(Rejection::HeaderSize(first.len()));
        }
        let header = HeaderTx::decode(first)?;
        let mut ids = HashSet::with_capacity(header.results.len());
        if let Some(twice) = header.results.iter().find(|result| !ids.insert(result.id)) {
            return Err(Rejection::Duplicate(twice.id));
        }
        let unavailable = header.results.iter().filter(|result| result.result == Err(Failure::Unavailable)).count();
        if unavailable > self.rules.limits.max_unavailable_per_block as usize {
            return Err(Rejection::TooManyUnavailable(unavailable));
        }
        // Before anything is made of each.
        if header.tasks.len() > most_tasks(self.rules.task_gas_per_block) {
            return Err(Rejection::TooManyTasks(header.tasks.len()));
        }
        let mut tasks = HashSet::with_capacity(header.tasks.len());
        if let Some(twice) = header.tasks.iter().find(|task| !tasks.insert(task.id)) {
            return Err(Rejection::TaskTwice(twice.id));
        }
        let run = |task: &ScheduledTask| (task.transaction(head.number() + 1, head.next_base_fee()), TASK_SENDER);
        let mut decoded: Vec<_> = header.tasks.iter().map(run).collect();
        for (index, raw) in users.iter().enumerate() {
            let malformed = |reason: String| Rejection::Malformed { index, reason };
            if HeaderTx::is_one(raw) {
                return Err(malformed("a second header transaction".into()));
            }
            let tx = TxEnvelope::decode_2718_exact(raw).map_err(|error| malformed(error.to_string()))?;
            let sender = self.sender_of(&tx).ok_or_else(|| malformed("its signature is not valid".into()))?;
            decoded.push((tx, sender));
        }
        Ok(Decoded { header, txs: decoded })
    }

    /// The sender of a transaction. The pool knows it when the transaction came by it: the hash
    /// covers the signature, so that it names the sender.
    fn sender_of(&self, tx: &TxEnvelope) -> Option<Address> {
        let pooled = self.pool().ok().and_then(|pool| pool.read(|pool| pool.get(tx.tx_hash())));
        pooled.map(|pooled| pooled.sender).or_else(|| tx.recover_signer().ok())
    }

    /// Executes the transactions of a block with its own results. The inner error names the first
    /// transaction that cannot be at its place.
    pub(crate) fn execute(
        &self,
        block: BlockContext,
        decoded: &Decoded,
        on_miss: OnMiss,
    ) -> Result<Result<Executed, Rejection>, ChainError> {
        let begin = Instant::now();
        let results = decoded.header.results.iter().map(|result| (result.id, Arc::new(result.result.clone())));
        let results: HashMap<RequestId, Arc<InferenceResult>> = results.collect();
        let mut run = BlockRun::begin(&self.rules, block, self.head()?.view, &results, on_miss)?;
        for (index, (tx, sender)) in decoded.txs.iter().enumerate() {
            let _span = debug_span!("tx", index, hash = %tx.tx_hash()).entered();
            let ran = match decoded.header.tasks.get(index) {
                Some(task) => run.run_task(task, tx).map(|ran| run.commit_task(tx, ran)),
                None => run.run(tx, *sender).map(|ran| run.commit(tx, *sender, ran)),
            };
            match ran {
                Ok(()) => {}
                Err(NotIncluded::State(error)) => return Err(error.into()),
                Err(reason) => return Ok(Err(Rejection::NotIncludable { index, reason: reason.to_string() })),
            }
        }
        let executed = run.finish();
        histogram!("penstock_block_execution_seconds").record(begin.elapsed());
        Ok(Ok(executed))
    }

    /// The results are exactly those that the execution used, in its order, and every one verifies.
    fn check_results(&self, header: &HeaderTx, calls: &[Call]) -> Result<(), Rejection> {
        let results = &header.results;
        let differs = |index: usize| results.get(index).map(|r| r.id) != calls.get(index).map(|c| c.id);
        if let Some(index) = (0..results.len().max(calls.len())).find(|index| differs(*index)) {
            return Err(Rejection::Results { index });
        }
        let claims = calls.iter().zip(results).filter(|(_, claimed)| claimed.result != Err(Failure::Unavailable));
        // All are asked for before the first is waited for: they run side by side.
        let urgency = Urgency::of(Priority::Verification);
        let orders = claims
            .map(|(call, claimed)| {
                (call, claimed, self.network.order(call.id, call.request.clone(), call.ops, urgency))
            })
            .collect::<Vec<_>>();
        let deadline = Instant::now() + self.config.verification_budget;
        orders.iter().try_for_each(|(call, claimed, own)| self.check_result(call, claimed, own, deadline))
    }

    fn check_result(
        &self,
        call: &Call,
        claimed: &BlockResult,
        own: &Order,
        deadline: Instant,
    ) -> Result<(), Rejection> {
        let model = &call.request.model;
        match self.rules.registry.by_hash(model).map(|model| model.policy) {
            Some(Policy::Replicated) if self.network.has_model(model) => {
                let own = own.wait(deadline).ok_or(Rejection::Unverified(call.id))?;
                if *own.result == claimed.result { Ok(()) } else { Err(Rejection::WrongResult(call.id)) }
            }
            _ => Err(Rejection::NoModel(call.id)),
        }
    }
}
