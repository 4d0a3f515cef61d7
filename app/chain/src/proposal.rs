//! PrepareProposal: ready transactions, executed at once with their results.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use alloy_consensus::TxEnvelope;
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::Address;
use metrics::{counter, histogram};
use penstock_abci::proto_tx_size;
use penstock_evm::{BlockContext, Call, OnMiss, Results, TASK_SENDER};
use penstock_inference::{Failure, InferenceNetwork, InferenceRequest, InferenceResult, RequestId, network::Answer};
use penstock_pipe::{Candidate, Event, Held};
use penstock_state::View;
use tracing::{debug, debug_span};

use crate::{
    BlockResult, Chain, ChainError, HeaderTx, ScheduledTask,
    block_id::BlockId,
    execution::{BlockRun, NotIncluded, Ran},
    tasks::due_in,
    verify::Decoded,
};

/// Where a proposal finds results: what the block has already, what the transaction holds, what the
/// network has, what was decided for this attempt ("unavailable"), and what is cheap enough to be computed here.
struct ProposalResults<'a> {
    block: RefCell<HashMap<RequestId, Answer>>,
    attempt: RefCell<HashMap<RequestId, Answer>>,
    held: RefCell<Arc<Held>>,
    network: &'a InferenceNetwork,
    inline: Inline,
    /// Dear requests that the present attempt may do without, and those that it did without.
    may_lack: Cell<u32>,
    lacked: Cell<u32>,
}

/// Inference that the proposal does itself.
struct Inline {
    /// Cost of one request, and of all of them.
    limit: u64,
    left: Cell<u64>,
    /// What the present attempt took of it.
    taken: Cell<u64>,
    deadline: Instant,
}

impl Inline {
    /// Whether a request is none of the proposal's business. One of a transaction that takes most of what all have
    /// together is dear in sum.
    fn is_dear(&self, ops: u64) -> bool {
        ops > self.limit || self.taken.get() > self.limit / 2
    }
}

impl ProposalResults<'_> {
    fn begin_attempt(&self, held: &Arc<Held>, may_lack: u32) {
        self.attempt.borrow_mut().clear();
        self.inline.taken.set(0);
        self.may_lack.set(may_lack);
        self.lacked.set(0);
        *self.held.borrow_mut() = held.clone();
    }

    fn had(&self, id: &RequestId) -> Option<Answer> {
        let own = |map: &RefCell<HashMap<RequestId, Answer>>| map.borrow().get(id).cloned();
        own(&self.block).or_else(|| own(&self.attempt)).or_else(|| self.held.borrow().0.get(id).cloned())
    }

    /// The block has the results of a transaction.
    fn keep_for_block(&self, ran: &Ran) {
        let answers: Vec<_> = ran.new_calls.iter().filter_map(|call| Some((call.id, self.had(&call.id)?))).collect();
        self.block.borrow_mut().extend(answers);
    }

    fn find(&self, id: &RequestId, compute: impl FnOnce() -> Option<Answer>) -> Option<Answer> {
        self.had(id).or_else(|| {
            // Kept for the attempt: the network's cache may lose it before the block is built.
            let answer = self.network.get(id).or_else(compute)?;
            self.attempt.borrow_mut().insert(*id, answer.clone());
            Some(answer)
        })
    }

    /// Runs a cheap request here and now.
    fn compute(&self, id: &RequestId, request: &InferenceRequest, ops: u64) -> Option<Answer> {
        let inline = &self.inline;
        let left = inline.left.get().checked_sub(ops).filter(|_| ops <= inline.limit)?;
        if Instant::now() >= inline.deadline {
            return None;
        }
        let answer = self.network.run_here(*id, request, ops)?;
        inline.left.set(left);
        inline.taken.set(inline.taken.get() + ops);
        Some(answer)
    }

    /// Gives a dear request up, as often as the attempt may.
    fn give_up(&self, request: &InferenceRequest, ops: u64) -> Option<Answer> {
        let dear = self.inline.is_dear(ops) || !self.network.has_model(&request.model);
        if !dear || self.lacked.get() >= self.may_lack.get() {
            return None;
        }
        self.lacked.set(self.lacked.get() + 1);
        Some(Answer { result: Arc::new(Err(Failure::Unavailable)), took: Duration::ZERO, finished: Instant::now() })
    }

    /// Whether the block says of a request that nobody had its result.
    fn is_unavailable(&self, id: &RequestId) -> bool {
        self.block.borrow().get(id).is_some_and(|answer| *answer.result == Err(Failure::Unavailable))
    }
}

impl Results for ProposalResults<'_> {
    fn get(&self, id: &RequestId) -> Option<Arc<InferenceResult>> {
        self.find(id, || None).map(|answer| answer.result)
    }

    fn answer(&self, id: &RequestId, request: &InferenceRequest, ops: u64) -> Option<Arc<InferenceResult>> {
        let last_resort = || self.compute(id, request, ops).or_else(|| self.give_up(request, ops));
        self.find(id, last_resort).map(|answer| answer.result)
    }
}

/// What is left for the rest of a proposal.
struct Budget {
    /// Bytes of transactions as consensus counts them, the header transaction included.
    bytes: usize,
    /// Bytes of the header transaction.
    header_bytes: usize,
    unavailable: u32,
    deadline: Instant,
    /// A proposal of this height failed already: only what every validator can verify at once goes in.
    only_cheap: bool,
}

/// Candidates that are taken from the pool at once.
const BATCH: usize = 64;

/// Seconds that a task is late when it does without results that nobody has: longer than the models take whose results
/// are worth waiting for.
const GIVES_UP_AFTER: u64 = 120;

/// What became of a candidate.
enum Attempt {
    Included,
    /// Another time: not ripe, not executable after those before it.
    Skipped,
    /// More than what is left of the block; for ever, if the block is empty.
    TooLarge(&'static str),
    /// More than any block gives.
    Unfit(&'static str),
    /// It asks for results that are not here.
    Deferred(Vec<Call>),
}

impl Chain {
    /// Builds a block: answers its transactions, header transaction first.
    pub(crate) fn propose(&self, id: &BlockId, max_tx_bytes: usize) -> Result<Vec<bytes::Bytes>, ChainError> {
        let (head, pool) = (self.head()?, self.pool()?);
        if id.height != head.number() + 1 {
            return Err(ChainError::Consensus(format!(
                "a proposal for height {} on head {}",
                id.height,
                head.number()
            )));
        }
        let block = id.context(&head, self.config.fee_recipient);
        let deadline = Instant::now() + pool.config().proposal_budget;
        let (limit, left) = (pool.config().inline_ops, Cell::new(pool.config().inline_ops));
        let results = ProposalResults {
            block: RefCell::default(),
            attempt: RefCell::default(),
            held: RefCell::default(),
            network: &self.network,
            inline: Inline { limit, left, taken: Cell::new(0), deadline },
            may_lack: Cell::new(0),
            lacked: Cell::new(0),
        };
        let mut run = BlockRun::begin(&self.rules, block, head.view.clone(), &results, OnMiss::Abort)?;
        let mut header = HeaderTx { fee_recipient: block.beneficiary, tasks: Vec::new(), results: Vec::new() };
        // The header transaction grows with its results: its length prefix may, too.
        const PREFIX_RESERVE: usize = 10;
        let empty_header = header.encode().len();
        let mut budget = Budget {
            bytes: max_tx_bytes.saturating_sub(empty_header + PREFIX_RESERVE),
            header_bytes: (self.rules.limits.max_header_bytes as usize).saturating_sub(empty_header),
            unavailable: self.rules.limits.max_unavailable_per_block,
            deadline,
            only_cheap: self.saw_proposal(id.height),
        };
        let (mut txs, mut users) =
            (Vec::new(), self.add_tasks(&mut run, &results, &block, &head.view, &mut header, &mut budget)?);
        let (mut included, mut deferred, mut unfit) = (Vec::new(), Vec::new(), Vec::new());
        // Senders whose next transaction is not in the block: their later ones cannot be, either.
        let mut blocked = HashSet::new();
        let mut order = pool.candidates();
        let mut batch = Vec::new().into_iter();
        let mut attempts = 0;
        while run.gas_left() >= 21_000 && (attempts == 0 || Instant::now() < budget.deadline) {
            let Some(candidate) = batch.next() else {
                // A few at a time: what does not fit costs nothing, whatever the pool holds.
                batch = pool.next_candidates(&mut order, BATCH).into_iter();
                if batch.len() == 0 {
                    break;
                }
                continue;
            };
            let (hash, sender) = (candidate.tx.hash(), candidate.tx.sender);
            // The first one has all the time that it needs, so that no transaction is too long for ever; the others take
            // about as long as their simulations did.
            let too_long = attempts > 0 && Instant::now() + candidate.took >= budget.deadline;
            // What has to be answered here is not even tried when there is hardly anything left for it.
            let used_up = candidate.moved && results.inline.left.get() < limit / 8;
            if too_long || used_up || !self.is_ripe(&results, &candidate, budget.only_cheap) {
                blocked.insert(sender);
            }
            if blocked.contains(&sender) {
                continue;
            }
            attempts += 1;
            match self.attempt(&mut run, &results, &candidate, &mut header, &mut budget)? {
                Attempt::Included => {
                    included.push(hash);
                    txs.push(candidate.tx.raw.0.clone());
                    users.push((candidate.tx.tx.clone(), sender));
                }
                Attempt::Skipped => {
                    blocked.insert(sender);
                }
                Attempt::TooLarge(reason) => {
                    blocked.insert(sender);
                    // Alone in a block it might fit.
                    if included.is_empty() && header.tasks.is_empty() {
                        unfit.push((hash, reason));
                    }
                }
                Attempt::Unfit(reason) => {
                    blocked.insert(sender);
                    unfit.push((hash, reason));
                }
                Attempt::Deferred(calls) => {
                    blocked.insert(sender);
                    deferred.push((hash, calls));
                }
            }
        }
        debug!(
            height = id.height,
            included = included.len(),
            deferred = deferred.len(),
            results = header.results.len(),
            "proposal"
        );
        counter!("penstock_deferrals_total").increment(deferred.len() as u64);
        histogram!("penstock_proposal_results").record(header.results.len() as f64);
        let executed = run.finish();
        txs.insert(0, header.encode().0);
        self.keep(id.fingerprint(&txs), Decoded { header, txs: users }, executed);
        pool.step(Event::Proposed(included));
        for (hash, reason) in unfit {
            pool.step(Event::Unfit { hash, reason: reason.into() });
        }
        for (hash, calls) in deferred {
            pool.step(Event::Deferred { hash, calls });
        }
        Ok(txs)
    }

    /// Puts in the tasks that are due and lack nothing; the others are left for a later block. Answers their transactions.
    fn add_tasks(
        &self,
        run: &mut BlockRun<'_>,
        results: &ProposalResults<'_>,
        block: &BlockContext,
        view: &View,
        header: &mut HeaderTx,
        budget: &mut Budget,
    ) -> Result<Vec<(TxEnvelope, Address)>, ChainError> {
        let Some(ahead) = self.tasks_ahead() else { return Ok(vec![]) };
        // Half of the time, and half of the inline budget, are the users'.
        let deadline = Instant::now() + self.pool()?.config().proposal_budget / 2;
        // An attempt that comes to nothing is not paid: it counts with all its gas.
        let mut gas_to_try = 2 * self.rules.task_gas_per_block;
        let (mut txs, mut tried) = (Vec::new(), false);
        let due = due_in(view, block.timestamp, block.base_fee)?;
        let attempts = ahead.attempts(&due, block.number);
        for due in due.iter().filter(|due| attempts.may_try(due)) {
            let task = ScheduledTask::from(due);
            let used_up = results.inline.left.get() < results.inline.limit / 2 && results.inline.limit > 0;
            if used_up || (tried && Instant::now() >= deadline) {
                break;
            }
            let Some(left) = gas_to_try.checked_sub(task.gas) else { continue };
            gas_to_try = left;
            tried = true;
            // One that has waited long enough does without what nobody has, so that it pays and is scheduled again.
            let gives_up = block.timestamp.saturating_sub(due.next_run) >= GIVES_UP_AFTER;
            results.begin_attempt(&ahead.held(task.id), if gives_up { budget.unavailable } else { 0 });
            let tx = task.transaction(block.number, block.base_fee);
            let ran = match run.run_task(&task, &tx) {
                Ok(ran) => ran,
                Err(NotIncluded::State(error)) => return Err(error.into()),
                Err(reason) => {
                    debug!(task = task.id, %reason, "left out of the proposal");
                    // What others took up is not its fault.
                    if txs.is_empty() || matches!(reason, NotIncluded::Missing { .. }) {
                        attempts.failed(due);
                    }
                    continue;
                }
            };
            // Somebody else's giving up is no reason to fail this one.
            let forced = |call: &Call| !gives_up && results.is_unavailable(&call.id);
            let waits = self.waits_for_others(results, &ran.ran, budget.only_cheap);
            let Some(new) = block_results(results, &ran.ran) else { continue };
            let size = task.encoded_len() + new.iter().map(BlockResult::encoded_len).sum::<usize>();
            let fits = size <= budget.bytes && size <= budget.header_bytes;
            if !fits || waits || ran.ran.execution.calls.iter().any(forced) {
                if fits || txs.is_empty() {
                    attempts.failed(due);
                }
                continue;
            }
            budget.bytes -= size;
            budget.header_bytes -= size;
            budget.unavailable -= results.lacked.get();
            gas_to_try = gas_to_try.saturating_add(task.gas - ran.ran.execution.gas_used.min(task.gas));
            results.keep_for_block(&ran.ran);
            header.tasks.push(task);
            header.results.extend(new);
            run.commit_task(&tx, ran);
            txs.push((tx, TASK_SENDER));
        }
        counter!("penstock_tasks_proposed_total").increment(txs.len() as u64);
        Ok(txs)
    }

    fn attempt(
        &self,
        run: &mut BlockRun<'_>,
        results: &ProposalResults<'_>,
        candidate: &Candidate,
        header: &mut HeaderTx,
        budget: &mut Budget,
    ) -> Result<Attempt, ChainError> {
        let tx = &candidate.tx;
        let _span = debug_span!("tx", hash = %tx.hash()).entered();
        results.begin_attempt(&candidate.held, if candidate.gives_up { budget.unavailable } else { 0 });
        match run.run(&tx.tx, tx.sender) {
            Ok(ran) => {
                let waits = self.waits_for_others(results, &ran, budget.only_cheap);
                // Somebody else's giving up is no reason to fail this one.
                let forced = |call: &Call| !candidate.gives_up && results.is_unavailable(&call.id);
                if waits || ran.execution.calls.iter().any(forced) {
                    return Ok(Attempt::Skipped);
                }
                let Some(new) = block_results(results, &ran) else { return Ok(Attempt::Skipped) };
                let header_size = new.iter().map(BlockResult::encoded_len).sum::<usize>();
                let size = header_size + proto_tx_size(tx.tx.encode_2718_len());
                if size > budget.bytes || header_size > budget.header_bytes {
                    return Ok(Attempt::TooLarge("it and its results exceed the bytes of a block"));
                }
                budget.bytes -= size;
                budget.header_bytes -= header_size;
                budget.unavailable -= results.lacked.get();
                results.keep_for_block(&ran);
                header.results.extend(new);
                run.commit(&tx.tx, tx.sender, ran);
                Ok(Attempt::Included)
            }
            Err(NotIncluded::Missing { id, calls }) => {
                let Some(missing) = calls.last().filter(|call| call.id == id) else { return Ok(Attempt::Skipped) };
                let has_model = self.network.has_model(&missing.request.model);
                if !results.inline.is_dear(missing.ops) && has_model {
                    // Used up by others, and the state moves on meanwhile: the next proposal answers it.
                    return Ok(Attempt::Skipped);
                }
                if !candidate.gives_up {
                    return Ok(Attempt::Deferred(calls));
                }
                let none_used = budget.unavailable == self.rules.limits.max_unavailable_per_block;
                Ok(if none_used {
                    Attempt::Unfit("more of its results are not here than a block may be without")
                } else {
                    Attempt::Skipped
                })
            }
            Err(NotIncluded::State(error)) => Err(error.into()),
            Err(NotIncluded::Ops) => Ok(Attempt::TooLarge("its requests exceed maxBlockOps")),
            Err(reason) => {
                debug!(hash = %tx.hash(), %reason, "left out of the proposal");
                Ok(Attempt::Skipped)
            }
        }
    }

    /// Whether other validators can be expected to have a dear result by now. In rounds above 0
    /// there are none: a slow model can cost one round, never liveness.
    fn has_ripened(&self, answer: &Answer, only_cheap: bool) -> bool {
        !only_cheap && answer.finished.elapsed() >= answer.took.mul_f64(self.config.pool.ripeness)
    }

    /// Whether all dear results of a candidate are ripe, as far as is known before it is executed.
    fn is_ripe(&self, results: &ProposalResults<'_>, candidate: &Candidate, only_cheap: bool) -> bool {
        candidate.dear.iter().all(|id| {
            let in_block = results.block.borrow().contains_key(id);
            in_block || candidate.held.0.get(id).is_none_or(|answer| self.has_ripened(answer, only_cheap))
        })
    }

    /// The same after its execution, which may have asked for something else.
    fn waits_for_others(&self, results: &ProposalResults<'_>, ran: &Ran, only_cheap: bool) -> bool {
        let dear = |call: &&Call| call.ops > self.config.pool.inline_ops;
        let unripe = |call: &Call| results.had(&call.id).is_some_and(|answer| !self.has_ripened(&answer, only_cheap));
        ran.new_calls.iter().filter(dear).any(unripe)
    }
}

/// The results of the requests that the block has not had yet.
fn block_results(results: &ProposalResults<'_>, ran: &Ran) -> Option<Vec<BlockResult>> {
    let result = |call: &Call| {
        let result = results.get(&call.id)?;
        Some(BlockResult { id: call.id, result: result.as_ref().clone() })
    };
    ran.new_calls.iter().map(result).collect()
}
