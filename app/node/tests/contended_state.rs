//! Transactions whose requests depend on state that others change end right, whatever the order.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use alloy_primitives::{B256, U256};
use alloy_sol_types::SolCall;
use serde_json::json;
use support::{Node, Tx, account, bytes, contracts};

fn read<C: SolCall>(node: &Node, to: alloy_primitives::Address, call: &C) -> C::Return {
    let data = alloy_primitives::hex::encode_prefixed(call.abi_encode());
    let output = node.call("eth_call", json!([{ "to": to, "data": data }, "latest"]));
    C::abi_decode_returns(&bytes(&output)).unwrap()
}

#[test]
fn a_question_about_a_counter_that_another_account_increments_gets_the_answer_of_its_place_in_the_block() {
    let node = Node::start(&["--block-time", "150ms"]);
    let probe = node.deploy(&account(0), "Probe", &[]);
    for round in 0..6u64 {
        let ask = Tx { tip: 2_000_000_000, ..Tx::call(round, probe, contracts::ask_volatile("penstock/linear")) };
        let bump = Tx { gas: 100_000, ..Tx::call(round, probe, contracts::bumpCall {}.abi_encode()) };
        // The higher tip goes first in the block: once the question, once the increment.
        let bump = Tx { tip: if round % 2 == 0 { 1_000_000_000 } else { 3_000_000_000 }, ..bump };
        let hashes = [node.send(&ask.sign(&account(1))), node.send(&bump.sign(&account(2)))];
        let receipts = hashes.map(|hash| node.receipt(hash));
        assert!(receipts.iter().all(|receipt| receipt["status"] == "0x1"), "{receipts:?}");
        // linear: y = x0 + 2·x1 + 3 with x = (counter, 0), whatever the counter was at that place.
        let asked = read(&node, probe, &contracts::counterAskedCall {});
        let answer = read(&node, probe, &contracts::firstNumberCall {});
        let value = U256::from(answer.value as u128) / U256::from(10).pow(U256::from(answer.decimals as u128));
        assert_eq!(value, asked + U256::from(3), "round {round}");
        assert!(!read(&node, probe, &contracts::simulatedCall {}));
    }
    assert_eq!(read(&node, probe, &contracts::counterCall {}), U256::from(6));
}

#[test]
fn swaps_whose_fee_a_model_sets_from_the_state_that_the_swap_before_left_are_all_included() {
    const SWAPS: u64 = 40;
    let node = Node::start(&["--block-time", "150ms"]);
    let pool = node.deploy(&account(0), "DynamicFeePool", &contracts::pool_arguments(1_000_000_000, 1_000_000_000));
    let traders = [1usize, 2];
    for trader in traders {
        let fund = contracts::fundCall { a: U256::from(10_000_000), b: U256::from(10_000_000) };
        node.send_and_succeed(&Tx { gas: 300_000, ..Tx::call(0, pool, fund.abi_encode()) }.sign(&account(trader)));
    }
    let swap = |trader: usize, i: u64| {
        let call =
            contracts::swapCall { aForB: (i + trader as u64).is_multiple_of(2), amountIn: U256::from(1_000 + 17 * i) };
        let tx = Tx { gas: 1_500_000, ..Tx::call(1 + i, pool, call.abi_encode()) };
        node.send(&tx.sign(&account(trader)))
    };
    let hashes: Vec<B256> = (0..SWAPS / 2).flat_map(|i| traders.map(|trader| swap(trader, i))).collect();
    for hash in hashes {
        let receipt = node.receipt(hash);
        assert_eq!(receipt["status"], "0x1", "{receipt}");
    }
    let fee = read(&node, pool, &contracts::lastFeeBpsCall {});
    assert!((U256::from(5)..=U256::from(500)).contains(&fee), "{fee}");
}
