//! Checks the blocks of a store: `penstock db verify`. Checksums, state and history are checked by `penstock_state`.

use alloy_consensus::{Header, TxEnvelope, proofs, transaction::SignerRecoverable};
use alloy_primitives::{B256, Bytes};
use alloy_rlp::Decodable;
use penstock_evm::TASK_SENDER;
use penstock_inference::result;
use penstock_state::{Batch, Report, Store, StoreError, Tell, View, keys};

use crate::{HeaderTx, StoredReceipt, block::receipt_envelopes, inference_proof::results_root, logs, tasks};

/// Checks every block that is there: its hash and that of the block before, its transactions, receipts and results
/// against the roots in its header, and the indexes.
///
/// # Errors
/// When the database fails. What is wrong is in the report.
pub fn verify_blocks(store: &dyn Store, report: &mut Report, tell: &mut Tell<'_>) -> Result<(), StoreError> {
    let Some(view) = View::open(store, None)? else { return Ok(()) };
    let first = view.snapshot().meta_number("first")?.unwrap_or_default();
    let mut parent: Option<B256> = None;
    for number in first.saturating_sub(1)..=view.height() {
        let Ok(Some(header)) = view.header(number) else {
            report.problem(format!("the header of block {number} is missing or unreadable"));
            parent = None;
            continue;
        };
        let hash = header.hash_slow();
        let named = |key: Vec<u8>| view.snapshot().get(&key);
        report.check(parent.is_none_or(|parent| header.parent_hash == parent), || {
            format!("block {number} does not follow the block before it")
        });
        report.check(named(keys::block_hash(number))?.as_deref() == Some(hash.as_slice()), || {
            format!("the hash of block {number} is not that of its header")
        });
        report.check(named(keys::number_of(hash))?.as_deref() == Some(&number.to_be_bytes()), || {
            format!("block {number} is not found by its hash")
        });
        parent = Some(hash);
        // The block before the first one is here only by its header.
        if number > 0 && number >= first {
            content(&view, &header, report)?;
        }
        report.blocks += 1;
        if report.blocks.is_multiple_of(10_000) {
            tell("blocks", report.blocks);
        }
    }
    Ok(())
}

fn content(view: &View, header: &Header, report: &mut Report) -> Result<(), StoreError> {
    let number = header.number;
    let snapshot = view.snapshot();
    let body = snapshot.get(&keys::body(number))?;
    let body = body.and_then(|body| Vec::<Bytes>::decode(&mut body.as_slice()).ok());
    let receipts = snapshot.get(&keys::receipts(number))?;
    let receipts = receipts.and_then(|receipts| Vec::<StoredReceipt>::decode(&mut receipts.as_slice()).ok());
    let (Some(body), Some(receipts)) = (body, receipts) else {
        report.problem(format!("the transactions or receipts of block {number} are missing or unreadable"));
        return Ok(());
    };
    let parts = body.split_first().and_then(|(first, users)| {
        let header_tx = HeaderTx::decode(first).ok()?;
        let txs = tasks::transactions(header, &header_tx, users).ok()?;
        Some((header_tx, txs)).filter(|(_, txs)| txs.len() == receipts.len())
    });
    let Some((header_tx, txs)) = parts else {
        report.problem(format!("the transactions of block {number} are not those of a block"));
        return Ok(());
    };
    report.check(proofs::calculate_transaction_root(&txs) == header.transactions_root, || {
        format!("the transactions of block {number} are not those of its header")
    });
    let envelopes = receipt_envelopes(&receipts, txs.iter().map(TxEnvelope::tx_type));
    report.check(proofs::calculate_receipt_root(&envelopes) == header.receipts_root, || {
        format!("the receipts of block {number} are not those of its header")
    });
    report.check(results_root(&header_tx).as_slice() == header.extra_data.as_ref(), || {
        format!("the results of block {number} are not those of its header")
    });
    for (index, (tx, receipt)) in txs.iter().zip(&receipts).enumerate() {
        let place = [&number.to_be_bytes()[..], &(index as u32).to_be_bytes()].concat();
        let found = snapshot.get(&keys::transaction(*tx.tx_hash()))?;
        report
            .check(found.as_ref() == Some(&place), || format!("transaction {} is not found by its hash", tx.tx_hash()));
        // The senders are under no root.
        let sender = if index < header_tx.tasks.len() { Some(TASK_SENDER) } else { tx.recover_signer().ok() };
        report.check(sender == Some(receipt.sender), || {
            format!("the sender of transaction {} is another one", tx.tx_hash())
        });
        let mut named = receipt.requests.iter();
        report.check(named.all(|id| header_tx.results.iter().any(|result| result.id.0 == *id)), || {
            format!("the receipt of transaction {} names a request that its block does not have", tx.tx_hash())
        });
    }
    for result in &header_tx.results {
        let record = snapshot.get(&keys::request(result.id.0))?;
        let last = record.as_ref().and_then(|record| record.first_chunk::<8>()).map(|bytes| u64::from_be_bytes(*bytes));
        report.check(last.is_some_and(|last| last >= number), || {
            format!("inference {} is not found by its id", result.id)
        });
        report.check(result::decode(&result::encode(&result.result)).is_ok(), || {
            format!("the result of inference {} is unreadable", result.id)
        });
    }
    for mark in logs::marks(receipts.iter().flat_map(|receipt| &receipt.logs)) {
        let indexed = snapshot.get(&keys::log_mark_at(&mark, number))?.is_some();
        report.check(indexed, || format!("logs of block {number} are not in the index"));
    }
    Ok(())
}

/// Adds the index of logs for the stored receipts of a block, as [`penstock_state::migrate`] wants it.
///
/// # Errors
/// When the receipts are unreadable.
pub fn index_logs(number: u64, receipts: &[u8], batch: &mut Batch) -> Result<(), StoreError> {
    let receipts = Vec::<StoredReceipt>::decode(&mut &*receipts)
        .map_err(|_| StoreError::damaged(format_args!("the receipts of block {number}")))?;
    for mark in logs::marks(receipts.iter().flat_map(|receipt| &receipt.logs)) {
        batch.put(keys::log_mark_at(&mark, number), Vec::new());
    }
    Ok(())
}
