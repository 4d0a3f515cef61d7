//! An inference on a network of real CometBFTs is proved up to the header that CometBFT signs, and a validator's state becomes
//! the genesis of another network. On sled, which the other tests of networks do not use.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::process::{Command, Output};

use serde_json::{Value, json};
use support::{
    PROGRAM, Tx, account, contracts,
    network::{Network, Setup, V0_40},
    quantity,
};

fn penstock(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().unwrap()
}

fn succeeds(arguments: &[&str]) -> String {
    let output = penstock(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_result_is_proved_by_cometbfts_header_and_the_state_is_exported() {
    let environment = vec![("PENSTOCK_STATE_BACKEND", "sled")];
    let setup = Setup { block_time: "100ms", environment, ..Setup::of(V0_40, 2) };
    let Some(mut network) = Network::new(&setup) else { return };
    network.start_and_wait();
    let node = &network.nodes[0];
    let signer = account(0);
    let probe = node.deploy(&signer, "Probe", &[]);
    let ask = Tx { gas: 1_000_000, ..Tx::call(1, probe, contracts::ask("penstock/linear", &[3, 4])) };
    let receipt = node.send_and_succeed(&ask.sign(&signer));
    let height = quantity(&receipt["blockNumber"]);
    node.wait_for(height + 3);

    let id = node.call("pipe_getBlockInferences", json!([format!("{height:#x}")]))[0]["id"].clone();
    let files = tempfile::tempdir().unwrap();
    let write = |name: &str, value: &Value| {
        let path = files.path().join(name);
        std::fs::write(&path, value.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let proof = write("proof.json", &node.answer("pipe_getInferenceProof", json!([id])));
    let header = |height: u64| json!({ "result": node.cometbft(&format!("commit?height={height}")).unwrap() });
    let said = succeeds(&["verify-proof", &proof, "--header", &write("next.json", &header(height + 1))]);
    assert!(said.contains("Proved") && said.contains(id.as_str().unwrap()), "{said}");
    let wrong = penstock(&["verify-proof", &proof, "--header", &write("same.json", &header(height))]);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("height"), "{wrong:?}");

    network.assert_equal();
    let node = &mut network.nodes[0];
    let home = node.home.clone();
    let home = home.to_str().unwrap();
    assert!(node.stop());
    assert!(succeeds(&["--home", home, "db", "verify"]).contains("Nothing is wrong"));
    let exported = files.path().join("genesis.json");
    let exported = exported.to_str().unwrap();
    succeeds(&["--home", home, "export", "--output", exported]);
    let document: Value = serde_json::from_slice(&std::fs::read(exported).unwrap()).unwrap();
    assert_eq!(document["validators"].as_array().unwrap().len(), 2);
    assert_eq!(document["app_state"]["alloc"][probe.to_string()]["nonce"], "0x1");
    // It is a document that a home can be made from, with the one validator that it then has.
    let new = files.path().join("new");
    succeeds(&["--home", new.to_str().unwrap(), "init", "--from", exported, "--chain-id", "again"]);
}
