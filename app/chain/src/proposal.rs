//! PrepareProposal: ready transactions, executed at once with their results.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use alloy_eips::eip2718::Encodable2718;
use metrics::{counter, histogram};
use penstock_abci::proto_tx_size;
use penstock_evm::{Call, OnMiss, Results};
use penstock_inference::{Failure, InferenceNetwork, InferenceResult, RequestId, network::Answer};
use penstock_pipe::{Candidate, Event, Held};
use tracing::{debug, debug_span};

use crate::{
    BlockResult, Chain, ChainError, HeaderTx,
    block_id::BlockId,
    execution::{BlockRun, NotIncluded, Ran},
    verify::Decoded,
};

/// Where a proposal finds results: what the block has already, what the transaction holds, what the
/// network has, and what was decided for this attempt (inline answers, "unavailable").
struct ProposalResults<'a> {
    block: RefCell<HashMap<RequestId, Answer>>,
    attempt: RefCell<HashMap<RequestId, Answer>>,
    held: RefCell<Arc<Held>>,
    network: &'a InferenceNetwork,
}

impl ProposalResults<'_> {
    fn answer(&self, id: &RequestId) -> Option<Answer> {
        let own = |map: &RefCell<HashMap<RequestId, Answer>>| map.borrow().get(id).cloned();
        let here = own(&self.block).or_else(|| own(&self.attempt)).or_else(|| self.held.borrow().0.get(id).cloned());
        here.or_else(|| {
            // Kept for the attempt: the network's cache may lose it before the block is built.
            let answer = self.network.get(id)?;
            self.attempt.borrow_mut().insert(*id, answer.clone());
            Some(answer)
        })
    }
}

impl Results for ProposalResults<'_> {
    fn get(&self, id: &RequestId) -> Option<Arc<InferenceResult>> {
        self.answer(id).map(|answer| answer.result)
    }
}

/// What is left for the rest of a proposal.
struct Budget {
    /// Inference that the proposal may do itself.
    inline_ops: u64,
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

/// What the proposal's own budget gives for a request.
enum Inline {
    Answer(Answer),
    /// It would have been answered earlier in this proposal.
    UsedUp,
    /// It never is.
    TooDear,
}

/// What became of a candidate.
enum Attempt {
    Included,
    /// Another time: not ripe, not executable after those before it.
    Skipped,
    /// More than what is left of the block; for ever, if the block is empty.
    TooLarge(&'static str),
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
        let results = ProposalResults {
            block: RefCell::default(),
            attempt: RefCell::default(),
            held: RefCell::default(),
            network: &self.network,
        };
        let mut run = BlockRun::begin(&self.rules, block, head.view, &results, OnMiss::Abort)?;
        let mut header = HeaderTx { fee_recipient: block.beneficiary, results: Vec::new() };
        // The header transaction grows with its results: its length prefix may, too.
        const PREFIX_RESERVE: usize = 10;
        let empty_header = header.encode().len();
        let mut budget = Budget {
            inline_ops: pool.config().inline_ops,
            bytes: max_tx_bytes.saturating_sub(empty_header + PREFIX_RESERVE),
            header_bytes: (self.rules.limits.max_header_bytes as usize).saturating_sub(empty_header),
            unavailable: self.rules.limits.max_unavailable_per_block,
            deadline: Instant::now() + pool.config().proposal_budget,
            only_cheap: self.saw_proposal(id.height),
        };
        let (mut txs, mut users) = (Vec::new(), Vec::new());
        let (mut included, mut deferred, mut unfit) = (Vec::new(), Vec::new(), Vec::new());
        // Senders whose next transaction is not in the block: their later ones cannot be, either.
        let mut blocked = HashSet::new();
        let mut order = pool.candidates();
        let mut batch = Vec::new().into_iter();
        loop {
            if run.gas_left() < 21_000 {
                break;
            }
            let Some(candidate) = batch.next() else {
                // A few at a time: what does not fit costs nothing, whatever the pool holds.
                batch = pool.next_candidates(&mut order, BATCH).into_iter();
                if batch.len() == 0 {
                    break;
                }
                continue;
            };
            // It will take about as long as its simulation did.
            if Instant::now() + candidate.took >= budget.deadline {
                debug!(height = id.height, "the time of the proposal is used up");
                break;
            }
            let (hash, sender) = (candidate.tx.hash(), candidate.tx.sender);
            if blocked.contains(&sender) {
                continue;
            }
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
                    if included.is_empty() {
                        unfit.push((hash, reason));
                    }
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
        results.attempt.borrow_mut().clear();
        *results.held.borrow_mut() = candidate.held.clone();
        let mut given_up = 0;
        loop {
            match run.run(&tx.tx, tx.sender) {
                Ok(ran) => {
                    if !self.is_ripe(results, &ran, budget.only_cheap) {
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
                    budget.unavailable -= given_up;
                    let answers: Vec<_> =
                        ran.new_calls.iter().filter_map(|call| Some((call.id, results.answer(&call.id)?))).collect();
                    results.block.borrow_mut().extend(answers);
                    header.results.extend(new);
                    run.commit(&tx.tx, tx.sender, ran);
                    return Ok(Attempt::Included);
                }
                Err(NotIncluded::Missing { id, calls }) => {
                    let Some(missing) = calls.last().filter(|call| call.id == id) else { return Ok(Attempt::Skipped) };
                    let answer = match self.answer_inline(missing, budget) {
                        Inline::Answer(answer) => answer,
                        // Nobody's fault, and the state moves on meanwhile: the next proposal answers it.
                        Inline::UsedUp => return Ok(Attempt::Skipped),
                        Inline::TooDear if candidate.gives_up && given_up < budget.unavailable => {
                            given_up += 1;
                            Answer {
                                result: Arc::new(Err(Failure::Unavailable)),
                                took: Duration::ZERO,
                                finished: Instant::now(),
                            }
                        }
                        Inline::TooDear => return Ok(Attempt::Deferred(calls)),
                    };
                    results.attempt.borrow_mut().insert(id, answer);
                }
                Err(NotIncluded::State(error)) => return Err(error.into()),
                Err(NotIncluded::Ops) => return Ok(Attempt::TooLarge("its requests exceed maxBlockOps")),
                Err(reason) => {
                    debug!(hash = %tx.hash(), %reason, "left out of the proposal");
                    return Ok(Attempt::Skipped);
                }
            }
        }
    }

    /// Runs a cheap request here and now.
    fn answer_inline(&self, call: &Call, budget: &mut Budget) -> Inline {
        let Some(model) = self.network.models().get(&call.request.model) else { return Inline::TooDear };
        if call.ops > self.config.pool.inline_ops {
            return Inline::TooDear;
        }
        if call.ops > budget.inline_ops || Instant::now() >= budget.deadline {
            return Inline::UsedUp;
        }
        budget.inline_ops -= call.ops;
        let begin = Instant::now();
        let result = Arc::new(model.run(&call.request.inputs));
        let finished = Instant::now();
        let answer = Answer { result, took: finished - begin, finished };
        self.network.remember(call.id, &answer, call.ops);
        Inline::Answer(answer)
    }

    /// Whether other validators can be expected to have the dear results of a run by now. In rounds above 0
    /// there are none: a slow model can cost one round, never liveness.
    fn is_ripe(&self, results: &ProposalResults<'_>, ran: &Ran, only_cheap: bool) -> bool {
        let config = &self.config.pool;
        ran.new_calls.iter().filter(|call| call.ops > config.inline_ops).all(|call| {
            let is_ripe = |answer: Answer| answer.finished.elapsed() >= answer.took.mul_f64(config.ripeness);
            !only_cheap && results.answer(&call.id).is_none_or(is_ripe)
        })
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
