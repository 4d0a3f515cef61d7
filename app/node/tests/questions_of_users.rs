//! What users of a chain with inference ask, and how Penstock answers: each test is named after its question, and goes
//! through JSON-RPC.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::SolCall;
use serde_json::{Value, json};
use support::{Node, Tx, account, bytes, contracts, eventually, heavy, quantity};

/// A node with a model that takes most of a second, and the Probe and Advisor contracts.
struct Stand {
    node: Node,
    probe: Address,
    advisor: Address,
    _folder: tempfile::TempDir,
}

impl Stand {
    fn new(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let genesis = heavy::genesis_with_heavy(folder.path(), 100);
        let arguments = ["--block-time", "100ms", "--genesis", genesis.to_str().unwrap()];
        let node = Node::start_with(&arguments, settings);
        let probe = node.deploy(&account(9), "Probe", &[]);
        let advisor = node.deploy(&account(9), "Advisor", &[]);
        Self { node, probe, advisor, _folder: folder }
    }

    fn status(&self, hash: B256) -> Value {
        self.node.call("pipe_getTransaction", json!([hash]))
    }

    fn wait_for_stage(&self, hash: B256, stage: &str) {
        eventually(&format!("{hash} is {stage}"), || self.status(hash)["stage"] == stage);
    }

    /// A question to the slow model that nobody else asks.
    fn slow(&self, nonce: u64, n: i128) -> Tx {
        Tx { gas: 29_000_000, ..Tx::call(nonce, self.advisor, contracts::ask(heavy::NAME, &[n, 1, 2, 3])) }
    }

    fn light(&self, nonce: u64, n: i128) -> Tx {
        Tx { gas: 500_000, ..Tx::call(nonce, self.advisor, contracts::ask("penstock/linear", &[n, 1])) }
    }

    fn read<C: SolCall>(&self, call: &C) -> C::Return {
        let data = alloy_primitives::hex::encode_prefixed(call.abi_encode());
        let output = self.node.call("eth_call", json!([{ "to": self.probe, "data": data }, "latest"]));
        C::abi_decode_returns(&bytes(&output)).unwrap()
    }

    fn balance(&self, index: usize) -> U256 {
        let balance = self.node.call("eth_getBalance", json!([account(index).address(), "latest"]));
        balance.as_str().unwrap().parse().unwrap()
    }
}

#[test]
fn what_if_inference_outlasts_the_block() {
    let stand = Stand::new(&[]);
    let slow = stand.node.send(&stand.slow(0, 1).sign(&account(0)));
    stand.wait_for_stage(slow, "inferring");
    let begin = stand.node.height();
    let reason = stand.status(slow)["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("waits for 1 results"), "{reason}");
    // Blocks go on, and whatever else is sent goes into them.
    let light = stand.node.send_and_succeed(&stand.light(0, 1).sign(&account(1)));
    assert!(quantity(&light["blockNumber"]) <= begin + 2, "the next block, or the one that was being made");
    assert_eq!(stand.status(slow)["stage"], "inferring");
    let receipt = stand.node.receipt(slow);
    assert_eq!(receipt["status"], "0x1");
    assert!(quantity(&receipt["blockNumber"]) > begin + 2, "some blocks later");
}

#[test]
fn what_if_the_execution_asks_for_another_input_than_the_simulation_did() {
    // Whoever pays more moves the counter that the question is about, in the same block. Cheap: answered in the proposal.
    let stand = Stand::new(&[]);
    let ask = Tx { tip: 1_000_000_000, ..Tx::call(0, stand.probe, contracts::ask_volatile("penstock/linear")) };
    let bump = Tx { gas: 100_000, tip: 3_000_000_000, ..Tx::call(0, stand.probe, contracts::bumpCall {}.abi_encode()) };
    let hashes = [stand.node.send(&ask.sign(&account(0))), stand.node.send(&bump.sign(&account(1)))];
    let receipts = hashes.map(|hash| stand.node.receipt(hash));
    assert!(receipts.iter().all(|receipt| receipt["status"] == "0x1"), "{receipts:?}");
    let answer = stand.read(&contracts::firstNumberCall {});
    let value = U256::from(answer.value as u128) / U256::from(10).pow(U256::from(answer.decimals as u128));
    assert_eq!(value, stand.read(&contracts::counterAskedCall {}) + U256::from(3), "the answer to what it asked");
    assert_eq!(stand.status(hashes[0])["deferrals"], 0);
}

#[test]
fn can_a_stale_result_get_into_a_block() {
    // A dear question about a counter that somebody moves every block: never the answer to an older counter; it is
    // deferred, and after `max_deferrals` it is included, its call reverts, and it pays.
    let settings = [
        ("PENSTOCK_POOL_INLINE_OPS", "0"),
        ("PENSTOCK_POOL_SIMULATION_OPS", "0"),
        ("PENSTOCK_POOL_MAX_DEFERRALS", "3"),
    ];
    let stand = Stand::new(&settings);
    let before = stand.balance(0);
    let ask = Tx { gas: 500_000, tip: 1, ..Tx::call(0, stand.probe, contracts::ask_volatile("penstock/linear")) };
    let ask = stand.node.send(&ask.sign(&account(0)));
    let mut nonce = 0;
    eventually("it ends", || {
        let bump = Tx {
            gas: 100_000,
            tip: 3_000_000_000,
            ..Tx::call(nonce, stand.probe, contracts::bumpCall {}.abi_encode())
        };
        stand.node.send_and_succeed(&bump.sign(&account(1)));
        nonce += 1;
        !stand.node.call("eth_getTransactionReceipt", json!([ask])).is_null()
    });
    let receipt = stand.node.receipt(ask);
    if receipt["status"] == "0x1" {
        // Between two bumps: then it has the answer of its place in the block.
        let answer = stand.read(&contracts::firstNumberCall {});
        let value = U256::from(answer.value as u128) / U256::from(10).pow(U256::from(answer.decimals as u128));
        assert_eq!(value, stand.read(&contracts::counterAskedCall {}) + U256::from(3));
    } else {
        assert_eq!(stand.status(ask)["deferrals"], 3);
        assert!(quantity(&receipt["gasUsed"]) > 21_000 && stand.balance(0) < before, "it pays and ends: {receipt}");
        let block = quantity(&receipt["blockNumber"]);
        let results = stand.node.call("pipe_getBlockInferences", json!([format!("{block:#x}")]));
        assert!(results[0]["failure"].as_str().unwrap().contains("was not available in time"), "{results}");
    }
}

#[test]
fn what_about_a_request_that_arrives_mid_block() {
    // Transactions come all the time, whatever block is being made: each is in one of the next blocks.
    let stand = Stand::new(&[]);
    let mut sent = Vec::new();
    for n in 0..60 {
        let at = stand.node.height();
        sent.push((at, stand.node.send(&stand.light(n, i128::from(n)).sign(&account(0)))));
        std::thread::sleep(std::time::Duration::from_millis(7));
    }
    for (at, hash) in sent {
        let receipt = stand.node.receipt(hash);
        assert_eq!(receipt["status"], "0x1");
        let waited = quantity(&receipt["blockNumber"]) - at;
        assert!(waited <= 3, "{waited} blocks");
    }
}

#[test]
fn who_goes_first_when_demand_exceeds_capacity() {
    // One core, and more slow questions than it can answer at once: whoever pays more for a gas goes first.
    let stand = Stand::new(&[("PENSTOCK_INFERENCE_THREADS", "1")]);
    let first = stand.node.send(&stand.slow(0, 1).sign(&account(0))); // runs already when the others come
    stand.wait_for_stage(first, "inferring");
    let tips = [1_000_000_000u128, 5_000_000_000, 3_000_000_000];
    let hashes: Vec<B256> = (1i128..)
        .zip(tips)
        .map(|(n, tip)| stand.node.send(&Tx { tip, ..stand.slow(0, 10 + n) }.sign(&account(n as usize))))
        .collect();
    let blocks: Vec<u64> = hashes.iter().map(|hash| quantity(&stand.node.receipt(*hash)["blockNumber"])).collect();
    assert!(blocks[1] < blocks[2] && blocks[2] < blocks[0], "{tips:?} in blocks {blocks:?}");
}

#[test]
fn can_one_account_have_many_pending() {
    let stand = Stand::new(&[("PENSTOCK_POOL_FREE_SENDER_OPS", "1000000000000")]);
    let hashes: Vec<B256> =
        (0..16).map(|nonce| stand.node.send(&stand.slow(nonce, i128::from(nonce)).sign(&account(0)))).collect();
    // All of them ask at once: none waits for the one before it.
    eventually("all ask", || {
        hashes.iter().all(|hash| stand.status(*hash)["requests"].as_array().is_some_and(|own| own.len() == 1))
    });
    let status = stand.node.call("pipe_status", json!([]));
    let requests = &status["requests"];
    let all: u64 = ["queued", "running", "done"].iter().map(|state| requests[state].as_u64().unwrap()).sum();
    assert!(all >= 16, "{status}");
    let budget = stand.node.call("pipe_getBudget", json!([account(0).address()]));
    assert!(budget["pendingOps"].as_u64().unwrap() > 0, "{budget}");
    // Those that are not in are queued for other Ethereum tools.
    assert!(quantity(&stand.node.call("txpool_status", json!([]))["queued"]) > 0);
    let mut last = 0;
    for hash in hashes {
        let receipt = stand.node.receipt(hash);
        assert_eq!(receipt["status"], "0x1");
        assert!(quantity(&receipt["blockNumber"]) >= last, "in the order of nonces");
        last = quantity(&receipt["blockNumber"]);
    }
}

#[test]
fn what_if_one_account_asks_for_more_than_its_share() {
    // Two slow questions fit the account's budget: the others wait for it, and say so, and all go in in the end.
    let stand = Stand::new(&[("PENSTOCK_POOL_FREE_SENDER_OPS", "60000000000")]);
    let hashes: Vec<B256> =
        (0..5).map(|nonce| stand.node.send(&stand.slow(nonce, i128::from(nonce)).sign(&account(0)))).collect();
    eventually("the last is held back", || {
        let status = stand.status(hashes[4]);
        status["reason"].as_str().is_some_and(|reason| reason.contains("inference budget"))
    });
    assert!(stand.node.call("pipe_status", json!([]))["transactions"]["heldBack"].as_u64().unwrap() >= 1);
    for hash in hashes {
        assert_eq!(stand.node.receipt(hash)["status"], "0x1");
    }
}

#[test]
fn can_i_cancel() {
    let stand = Stand::new(&[("PENSTOCK_INFERENCE_THREADS", "1")]);
    // The first runs; the second waits for its turn.
    let running = stand.node.send(&stand.slow(0, 1).sign(&account(0)));
    stand.wait_for_stage(running, "inferring");
    let waiting = stand.node.send(&stand.slow(0, 2).sign(&account(1)));
    stand.wait_for_stage(waiting, "inferring");
    let queued = || stand.node.call("pipe_status", json!([]))["requests"]["queued"].as_u64().unwrap();
    eventually("its request is queued", || queued() == 1);
    let cancel = |max_fee: u128, tip: u128| Tx { max_fee, tip, to: account(1).address().into(), ..Tx::of(0) };
    let underpriced = cancel(20_000_000_000, 1_000_000_000).sign(&account(1));
    let answer = stand.node.answer("eth_sendRawTransaction", json!([underpriced]));
    assert_eq!(answer["error"]["message"], "replacement transaction underpriced");
    // A plain transfer to oneself with 10 % more, as every wallet's cancel button sends.
    let cancel = stand.node.send(&cancel(22_000_000_000, 1_100_000_000).sign(&account(1)));
    assert_eq!(stand.status(waiting)["stage"], "dropped");
    assert_eq!(stand.status(waiting)["reason"], format!("replaced by {cancel}"));
    eventually("its request is not queued any more", || queued() == 0);
    let receipt = stand.node.receipt(cancel);
    assert_eq!(receipt["gasUsed"], "0x5208", "the gas of a transfer");
    assert!(stand.node.call("eth_getTransactionReceipt", json!([running])).is_null(), "the other one runs on");
    assert_eq!(stand.node.receipt(running)["status"], "0x1");
}

#[test]
fn can_i_raise_the_fee_without_losing_the_answer() {
    let stand = Stand::new(&[("PENSTOCK_INFERENCE_THREADS", "1")]);
    let first = stand.node.send(&stand.slow(0, 1).sign(&account(0)));
    stand.wait_for_stage(first, "inferring");
    let tx = Tx { max_fee: 40_000_000_000, tip: 2_000_000_000, ..stand.slow(0, 1) };
    let raised = stand.node.send(&tx.sign(&account(0)));
    assert_eq!(stand.node.receipt(raised)["status"], "0x1");
    assert_eq!(stand.node.call("pipe_status", json!([]))["requests"]["done"], 1, "one run for both");
}

#[test]
fn what_does_it_cost_me_when_it_fails() {
    let stand = Stand::new(&[]);
    // A call that reverts: the gas that it used, not the gas that it might have used.
    let before = stand.balance(0);
    let unknown = Tx { gas: 5_000_000, ..Tx::call(0, stand.probe, contracts::ask("nobody/nothing", &[1])) };
    let receipt = stand.node.receipt(stand.node.send(&unknown.sign(&account(0))));
    assert_eq!(receipt["status"], "0x0");
    let used = quantity(&receipt["gasUsed"]);
    assert!((21_000..500_000).contains(&used), "{used}");
    let price = U256::from(quantity(&receipt["effectiveGasPrice"]));
    assert_eq!(before - stand.balance(0), U256::from(used) * price);
    // One that never gets into a block: nothing.
    let before = stand.balance(1);
    let late = Tx { max_fee: 1, tip: 1, ..stand.light(0, 5) };
    let late = stand.node.send(&late.sign(&account(1)));
    stand.wait_for_stage(late, "queued");
    let reason = stand.status(late)["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("below the base fee"), "{reason}");
    assert_eq!(stand.balance(1), before);
}

#[test]
fn how_long_does_a_transaction_wait_at_most() {
    let settings = [("PENSTOCK_POOL_MAX_WAIT_BLOCKS", "5"), ("PENSTOCK_POOL_MAX_WAIT", "300ms")];
    let stand = Stand::new(&settings);
    let slow = stand.node.send(&Tx { nonce: 1, ..stand.light(1, 1) }.sign(&account(0)));
    assert_eq!(stand.status(slow)["reason"], "waits for nonce 0");
    stand.wait_for_stage(slow, "dropped");
    let reason = stand.status(slow)["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("not included within 5 blocks"), "{reason}");
    // It may come back.
    stand.node.send(&stand.light(0, 0).sign(&account(0)));
    let again = stand.node.send(&stand.light(1, 1).sign(&account(0)));
    assert_eq!(stand.node.receipt(again)["status"], "0x1");
}

#[test]
fn what_does_a_full_pool_say() {
    let stand = Stand::new(&[
        ("PENSTOCK_POOL_MAX_TXS", "3"),
        ("PENSTOCK_POOL_MAX_GAPPED", "1"),
        ("PENSTOCK_POOL_MAX_PER_SENDER", "2"),
    ]);
    let refused = |tx: &Tx, index: usize| {
        let answer = stand.node.answer("eth_sendRawTransaction", json!([tx.sign(&account(index))]));
        assert_eq!(answer["error"]["code"], -32000, "{answer}");
        answer["error"]["message"].as_str().unwrap().to_owned()
    };
    // Below the base fee: they stay.
    let low = |nonce: u64| Tx { max_fee: 1_000, tip: 1_000, ..Tx::of(nonce) };
    stand.node.send(&low(0).sign(&account(0)));
    stand.node.send(&low(1).sign(&account(0)));
    assert_eq!(refused(&low(2), 0), "account limit exceeded: 2 pending transactions");
    assert!(refused(&low(3), 0).starts_with("nonce too high"));
    stand.node.send(&low(1).sign(&account(1)));
    assert!(refused(&low(1), 2).starts_with("txpool is full: 1 transactions wait for a nonce"));
    assert!(refused(&low(0), 2).starts_with("transaction underpriced: gas fee cap 1000"));
    // One that pays more takes the place of the cheapest sender's last one.
    assert_eq!(stand.node.receipt(stand.node.send(&Tx::of(0).sign(&account(3))))["status"], "0x1");
    assert_eq!(quantity(&stand.node.call("txpool_status", json!([]))["queued"]), 2);
    let poor = Tx { value: U256::MAX / U256::from(2), ..Tx::of(0) };
    assert!(refused(&poor, 4).starts_with("insufficient funds for gas * price + value"));
}
