//! `penstock init`, `testnet` and `start` as an operator meets them: what they write, and what they refuse.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};
use support::{
    PROGRAM, Tx, account, eventually,
    network::{Network, Setup, V0_38, V0_40},
};

fn penstock(home: &Path, arguments: &[&str]) -> Output {
    Command::new(PROGRAM).arg("--home").arg(home).args(arguments).env_remove("RUST_LOG").output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// It must fail, with code 1 and these words.
fn refused(home: &Path, arguments: &[&str], words: &[&str]) {
    let output = penstock(home, arguments);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?}: `{word}` is not in: {said}");
    }
}

fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn init_writes_a_home_once_with_secrets_for_its_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let output = penstock(&home, &["init", "--chain-id", "my-chain", "--block-time", "250ms", "--moniker", "alice"]);
    assert!(output.status.success(), "{}", text(&output));
    for secret in ["config/node_key.json", "config/priv_validator_key.json", "data/priv_validator_state.json"] {
        assert_eq!(fs::metadata(home.join(secret)).unwrap().permissions().mode() & 0o777, 0o600, "{secret}");
    }
    let genesis = json_file(&home.join("config/genesis.json"));
    assert_eq!(genesis["chain_id"], "my-chain");
    assert_eq!(genesis["validators"][0]["name"], "alice");
    assert_eq!(genesis["validators"][0]["pub_key"], json_file(&home.join("config/priv_validator_key.json"))["pub_key"]);
    let config = fs::read_to_string(home.join("config/config.toml")).unwrap();
    assert!(config.contains("timeout_commit = \"250ms\"") && config.contains("type = \"app\""), "{config}");
    refused(&home, &["init"], &["exists", "choose another --home"]);
    assert_eq!(json_file(&home.join("config/genesis.json")), genesis, "nothing was changed");

    // A second node joins by the document, which is not changed by a byte.
    let other = folder.path().join("other");
    let document = home.join("config/genesis.json");
    let output = penstock(&other, &["init", "--genesis", document.to_str().unwrap(), "--peers", "ab@10.0.0.1:26656"]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(fs::read(other.join("config/genesis.json")).unwrap(), fs::read(&document).unwrap());
    let config = fs::read_to_string(other.join("config/config.toml")).unwrap();
    assert!(config.contains("persistent_peers = \"ab@10.0.0.1:26656\""));
}

#[test]
fn a_testnet_has_one_genesis_distinct_ports_and_every_peer() {
    let folder = tempfile::tempdir().unwrap();
    let models = tempfile::tempdir().unwrap();
    let genesis = support::heavy::genesis_with_heavy(models.path(), 1);
    let output = Command::new(PROGRAM)
        .args(["testnet", "3", "--full-nodes", "1", "--cometbft", "0.38", "--genesis"])
        .arg(&genesis)
        .arg("--output")
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let mut listening = Vec::new();
    let first = fs::read(folder.path().join("node0/config/genesis.json")).unwrap();
    for index in 0..4 {
        let home = folder.path().join(format!("node{index}/config"));
        assert_eq!(fs::read(home.join("genesis.json")).unwrap(), first);
        assert!(home.join("heavy.onnx").exists(), "the model that is not bundled is copied");
        let config: toml::Table = toml::from_str(&fs::read_to_string(home.join("config.toml")).unwrap()).unwrap();
        assert_eq!(config["p2p"]["persistent_peers"].as_str().unwrap().split(',').count(), 3);
        assert_eq!(config["mempool"]["type"].as_str(), Some("flood"));
        let settings: toml::Table = toml::from_str(&fs::read_to_string(home.join("penstock.toml")).unwrap()).unwrap();
        assert_eq!(settings["cometbft"]["mempool"].as_str(), Some("flood"));
        listening.extend(
            [
                &config["rpc"]["laddr"],
                &config["p2p"]["laddr"],
                &config["instrumentation"]["prometheus_listen_addr"],
                &settings["rpc"]["listen"],
                &settings["metrics"]["listen"],
            ]
            .map(|address| {
                let address = address.as_str().unwrap().trim_start_matches("tcp://");
                assert!(address.starts_with("127.0.0.1:"), "{address}");
                address.to_owned()
            }),
        );
    }
    let count = listening.len();
    listening.sort_unstable();
    listening.dedup();
    assert_eq!(listening.len(), count, "ports collide: {listening:?}");
    assert_eq!(serde_json::from_slice::<Value>(&first).unwrap()["validators"].as_array().unwrap().len(), 3);
}

#[test]
fn start_says_what_is_wrong_with_a_home() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    refused(&home, &["start"], &["genesis.json is missing", "penstock init"]);
    assert!(penstock(&home, &["init"]).status.success());
    refused(&home, &["start", "--with-cometbft", "/bin/false"], &["/bin/false", "version"]);
    refused(&home, &["start", "--with-cometbft", "/nowhere/cometbft"], &["/nowhere/cometbft", "install-cometbft"]);

    let settings = home.join("config/penstock.toml");
    let good = fs::read_to_string(&settings).unwrap();
    for (more, words) in [
        ("[abci]\nlisten = \"localhost\"\n", ["[abci] listen", "unix:///"]),
        ("[snapshots]\nkeep = 0\n", ["[snapshots] keep", "at least 1"]),
        ("[snapshots]\nkept = 1\n", ["kept", "line"]),
    ] {
        fs::write(&settings, format!("{good}\n{more}")).unwrap();
        refused(&home, &["start"], &words);
    }
    fs::write(&settings, good).unwrap();
    let document = home.join("config/genesis.json");
    let mut genesis = json_file(&document);
    genesis["consensus_params"]["block"]["max_gas"] = json!("1000");
    fs::write(&document, genesis.to_string()).unwrap();
    refused(&home, &["start"], &["consensus_params.block.max_gas", "gasLimit"]);
    genesis["consensus_params"]["block"]["max_gas"] = json!("lots");
    fs::write(&document, genesis.to_string()).unwrap();
    refused(&home, &["start"], &["consensus_params.block.max_gas", "lots"]);

    let long = folder.path().join("a".repeat(120));
    refused(&long, &["init"], &["too long", "--abci tcp://"]);
}

#[test]
fn cometbft_reads_the_keys_as_they_are_written_and_a_home_of_another_version_is_refused() {
    let Some(network) = Network::new(&Setup::of(V0_38, 1)) else { return };
    let node = &network.nodes[0];
    let program = V0_38.program().unwrap();
    let show = |what: &str, home: &Path| {
        let output = Command::new(&program).args([what, "--home"]).arg(home).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let key = json_file(&node.home.join("config/priv_validator_key.json"));
    let shown: Value = serde_json::from_str(&show("show-validator", &node.home)).unwrap();
    assert_eq!(shown, key["pub_key"]);
    let genesis = json_file(&node.home.join("config/genesis.json"));
    assert_eq!(genesis["validators"][0]["pub_key"], key["pub_key"]);
    assert_eq!(genesis["validators"][0]["address"], key["address"]);
    let other = tempfile::tempdir().unwrap();
    let said = text(&penstock(&other.path().join("x"), &["init", "--cometbft", V0_38.short]));
    let id = show("show-node-id", &other.path().join("x"));
    assert!(id.len() == 40 && said.contains(&format!("Node id    {id}\n")), "{id}: {said}");

    let newer = V0_40.program().unwrap();
    refused(&node.home, &["start", "--with-cometbft", newer.to_str().unwrap()], &["another version", "mempool"]);
}

#[test]
fn over_tcp_a_node_works_as_over_its_socket_and_a_second_process_on_its_home_is_refused() {
    let Some(mut network) = Network::new(&Setup::of(V0_40, 1)) else { return };
    let node = &mut network.nodes[0];
    node.start(&["--abci", "tcp://127.0.0.1:0"]);
    node.wait_for(2);
    let hash = node.send(&Tx::of(0).sign(&account(0)));
    assert_eq!(node.receipt(hash)["status"], "0x1");
    refused(&node.home, &["start", "--rpc-listen", "127.0.0.1:0"], &["another penstock"]);
    assert!(node.stop(), "a clean stop");
    assert!(!node.home.join("data/abci.sock").exists());
}

#[test]
fn a_cometbft_of_another_genesis_ends_the_application_loudly() {
    let Some(mut network) = Network::new(&Setup::of(V0_40, 1)) else { return };
    let node = &mut network.nodes[0];
    node.start_app(&[]);
    // Before CometBFT has come there is no chain to read, and the answer says so.
    eventually("JSON-RPC answers", || node.try_call("eth_chainId", json!([])).is_some());
    let answer = node.answer("eth_blockNumber", json!([]));
    assert!(answer["error"]["message"].as_str().unwrap().contains("not initialized"), "{answer}");
    let document = node.home.join("config/genesis.json");
    let mut genesis = json_file(&document);
    genesis["app_state"]["config"]["baseFee"] = json!(7);
    fs::write(&document, genesis.to_string()).unwrap();
    node.start_cometbft(None);
    assert_eq!(node.wait_for_end(), Some(1));
    let log = node.log_text();
    assert!(log.contains("the application cannot go on: init_chain"), "{log}");
    assert!(log.contains("not the one that this node was started with"), "{log}");
}

#[test]
fn a_cometbft_that_always_ends_is_given_up_with_its_own_words_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    assert!(penstock(&home, &["init", "--port-offset", "5500"]).status.success());
    let program = folder.path().join("cometbft");
    fs::write(
        &program,
        "#!/bin/sh\n[ \"$1\" = version ] && echo 0.39.0 && exit\necho 'no quorum of cats' >&2\nexit 3\n",
    )
    .unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    refused(
        &home,
        &["start", "--with-cometbft", program.to_str().unwrap()],
        &["no quorum of cats", "CometBFT ended 10 times", "exit status: 3"],
    );
}

/// What is sent to a node that proposes nothing gets into a block by gossip only: small transactions, and more large ones
/// than CometBFT's RPC takes in one body.
fn gossip_reaches_the_proposer(comet: support::network::Comet) {
    let setup = Setup { full_nodes: 1, block_time: "100ms", ..Setup::of(comet, 1) };
    let Some(mut network) = Network::new(&setup) else { return };
    network.start_and_wait();
    let follower = &network.nodes[1];
    let mut hashes = Vec::new();
    for nonce in [3u64, 2, 1, 0] {
        hashes.push(follower.send(&Tx::of(nonce).sign(&account(0)))); // the gap closes with the last one
    }
    for nonce in 0..8u64 {
        let input = vec![0; 120 << 10];
        let tx = Tx { gas: 5_000_000, input: input.into(), ..Tx::of(nonce) };
        hashes.push(follower.send(&tx.sign(&account(1))));
    }
    for hash in hashes {
        assert_eq!(follower.receipt(hash)["status"], "0x1");
    }
    network.assert_equal();
}

#[test]
fn transactions_sent_to_a_full_node_reach_the_proposer_on_v0_38() {
    gossip_reaches_the_proposer(V0_38);
}

#[test]
fn transactions_sent_to_a_full_node_reach_the_proposer_on_v0_40() {
    gossip_reaches_the_proposer(V0_40);
}
