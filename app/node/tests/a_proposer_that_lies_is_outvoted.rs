//! Four validators, one of which lies in every way that DESIGN.md section 3 names: the others reject each lie, the
//! chain goes on, and the right results come with an honest proposer's block.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

#[path = "support/liar.rs"]
mod liar;
mod support;

use alloy_primitives::{B256, U256};
use alloy_sol_types::SolCall;
use liar::{LIES, Liar};
use serde_json::{Value, json};
use support::{
    Tx, account, bytes, contracts, eventually,
    network::{Network, Setup, V0_38, V0_40},
};

fn lies_are_rejected(comet: support::network::Comet) {
    let Some(mut network) = Network::new(&Setup { block_time: "100ms", ..Setup::of(comet, 4) }) else { return };
    let front = network.nodes[0].home.join("data/proxy.sock");
    let back = network.nodes[0].home.join("data/abci.sock");
    // A nonce that this account will not have for long.
    let stray = Tx::of(1_000).sign(&account(7));
    let liar = Liar::start(&front, &back, stray);
    network.nodes[0].start_app(&[]);
    network.nodes[0].start_cometbft(Some(&format!("unix://{}", front.display())));
    network.nodes[1..].iter_mut().for_each(|node| node.start(&[]));
    network.wait_for(1);
    let honest = &network.nodes[1..];
    let probe = honest[0].deploy(&account(9), "Probe", &[]);
    schedule(&honest[0]);

    let mut nonces = [0u64; 4];
    let mut asked: Vec<B256> = Vec::new();
    let rejected = |node: &support::network::Member| node.metric("penstock_proposals_rejected_total");
    for lie in LIES {
        let before: Vec<f64> = honest.iter().map(rejected).collect();
        liar.plan(lie);
        let mut round = 0i128;
        eventually(&format!("{lie:?} is told"), || {
            // Questions by four accounts: more than one result in a block.
            for (sender, nonce) in nonces.iter_mut().enumerate() {
                round += 1;
                let tx = Tx::call(*nonce, probe, contracts::ask("penstock/linear", &[round, i128::from(*nonce)]));
                asked.push(honest[sender % 3].send(&Tx { gas: 1_000_000, ..tx }.sign(&account(sender))));
                *nonce += 1;
            }
            std::thread::sleep(std::time::Duration::from_millis(80));
            liar.told().is_some()
        });
        let told = liar.told().unwrap();
        let height = told.height as u64;
        honest.iter().for_each(|node| node.wait_for(height + 1));
        for (node, before) in honest.iter().zip(before) {
            assert!(rejected(node) > before, "{} did not reject {lie:?}", node.name);
            let block = node.cometbft(&format!("block?height={height}")).unwrap();
            let txs: Vec<Vec<u8>> = block["block"]["data"]["txs"]
                .as_array()
                .unwrap()
                .iter()
                .map(|tx| {
                    base64::Engine::decode(&base64::engine::general_purpose::STANDARD, tx.as_str().unwrap()).unwrap()
                })
                .collect();
            assert!(txs != told.txs, "{lie:?} was decided");
        }
    }

    for hash in &asked {
        assert_eq!(honest[0].receipt(*hash)["status"], "0x1");
    }
    // Four accounts ask for x0 + 2·x1 + 3; the last answer is in the contract.
    let last = honest[1].send(
        &Tx { gas: 1_000_000, ..Tx::call(nonces[0], probe, contracts::ask("penstock/linear", &[40, 1])) }
            .sign(&account(0)),
    );
    assert_eq!(honest[2].receipt(last)["status"], "0x1");
    for node in &network.nodes {
        node.receipt(last);
        let call = json!([{ "to": probe, "data": alloy_primitives::hex::encode_prefixed(contracts::firstNumberCall {}.abi_encode()) }, "latest"]);
        let answer: Value = node.call("eth_call", call);
        let number = contracts::firstNumberCall::abi_decode_returns(&bytes(&answer)).unwrap();
        let value = U256::from(number.value as u128) / U256::from(10).pow(U256::from(number.decimals as u128));
        assert_eq!(value, U256::from(45), "{}", node.name);
    }
    let runs = |node: &support::network::Member| -> usize {
        let topic = alloy_primitives::keccak256("TaskRun(uint256,address,bool,uint256)");
        let filter = json!([{ "fromBlock": "0x0", "address": penstock_chain::SCHEDULER, "topics": [topic] }]);
        node.call("eth_getLogs", filter).as_array().unwrap().len()
    };
    assert!(network.nodes.iter().all(|node| runs(node) >= 3), "a task ran meanwhile, without anybody's transaction");
    network.assert_equal();
}

/// Has a Ticker that asks a model run every second.
fn schedule(node: &support::network::Member) {
    let owner = account(8);
    let ticker = node.deploy(&owner, "Ticker", &[]);
    let mode = Tx::call(1, ticker, contracts::setModeCall { mode: 4 }.abi_encode());
    node.send_and_succeed(&mode.sign(&owner));
    let (end, frequency) = (U256::from(4_000_000_000u64), U256::from(1));
    let call = contracts::registerTaskCall { contractAddress: ticker, endTime: end, frequency };
    let value = U256::from(3_000_000_000_000_000_000u64);
    node.send_and_succeed(&Tx { value, ..Tx::call(2, penstock_chain::SCHEDULER, call.abi_encode()) }.sign(&owner));
}

#[test]
fn on_v0_38() {
    lies_are_rejected(V0_38);
}

#[test]
fn on_v0_40() {
    lies_are_rejected(V0_40);
}
