//! A power cut, on both backends: the file system of a running chain is copied as it is on the disk (an ext4 on a loop
//! device: what the system had not been told to write is not in the copy), and the chain goes on from the copy. And a disk
//! that is full.
//!
//! Needs root and loop devices, and says so where it has none. `PENSTOCK_POWER_CUTS=50` makes it long.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on stops")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use alloy_primitives::{Address, U256};
use parking_lot::Mutex;
use serde_json::{Value, json};
use support::{Node, Rpc, Tx, account, eventually, quantity};

fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

/// A file system in a file.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// `None` where there are no loop devices.
    fn new(megabytes: u64) -> Option<Self> {
        let disk = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(disk.mounted()).unwrap();
        fs::File::create(disk.image()).unwrap().set_len(megabytes << 20).unwrap();
        let made = run("mkfs.ext4", &["-q", "-F", disk.image().to_str().unwrap()]);
        (made && disk.mount()).then_some(disk)
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn mounted(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    fn mount(&self) -> bool {
        run("mount", &["-o", "loop", self.image().to_str().unwrap(), self.mounted().to_str().unwrap()])
    }

    /// What is on the disk at this moment becomes the disk. `kill` ends whoever has files open.
    fn cut(&self, kill: impl FnOnce()) {
        let copy = self.folder.path().join("copy");
        let (from, to) = (self.image(), copy.clone());
        assert!(run("cp", &["--sparse=always", from.to_str().unwrap(), to.to_str().unwrap()]));
        kill();
        eventually("the file system is let go", || run("umount", &[self.mounted().to_str().unwrap()]));
        fs::rename(&copy, self.image()).unwrap();
        assert!(self.mount(), "the copy cannot be mounted");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let begin = Instant::now();
        while !run("umount", &[self.mounted().to_str().unwrap()]) && begin.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Sends transfers, and notes the newest block that the node has told of.
fn load(node: Rpc, stop: Arc<AtomicBool>, told: Arc<Mutex<Option<Value>>>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let signer = account(1);
        while !stop.load(Ordering::Relaxed) {
            let nonce = node.try_call("eth_getTransactionCount", json!([signer.address(), "pending"]));
            if let Some(nonce) = nonce.as_ref().map(quantity) {
                let tx = Tx { to: Address::repeat_byte(nonce as u8).into(), value: U256::from(1), ..Tx::of(nonce) };
                node.try_call("eth_sendRawTransaction", json!([tx.sign(&signer)]));
            }
            if let Some(block) = node.try_call("eth_getBlockByNumber", json!(["latest", false])) {
                *told.lock() = Some(block);
            }
        }
    })
}

fn verified(data: &Path) -> String {
    let store = data.join("state");
    let output = Command::new(env!("CARGO_BIN_EXE_penstock"))
        .args(["db", "verify", "--store", store.to_str().unwrap()])
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    text
}

fn cuts(backend: &str, cuts: u64) {
    let Some(disk) = Disk::new(1_024) else {
        println!("skipped: no loop devices here (root is needed)");
        return;
    };
    let data = disk.mounted().join("data");
    let path = data.to_str().unwrap().to_owned();
    let arguments = ["--block-time", "15ms", "--data", &path];
    let environment = [("PENSTOCK_STATE_BACKEND", backend), ("PENSTOCK_STATE_HISTORY", "200")];
    let mut node = Node::start_with(&arguments, &environment);
    let mut blocks = 0;
    for cut in 0..cuts {
        let (stop, told) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
        let loader = load(node.rpc(), stop.clone(), told.clone());
        thread::sleep(Duration::from_millis(200 + cut * 137 % 1_100));
        support::network::signal("-STOP", node.pid());
        // The node answers nothing more: this is the last it told.
        thread::sleep(Duration::from_millis(20));
        let last: Value = told.lock().clone().expect("the node told of a block");
        stop.store(true, Ordering::Relaxed);
        disk.cut(|| node.kill());
        loader.join().unwrap();
        verified(&data);
        node = Node::start_with(&arguments, &environment);
        let height = quantity(&last["number"]);
        assert!(node.height() >= height, "{backend}, cut {cut}: {} after {height}", node.height());
        let again = node.call("eth_getBlockByNumber", json!([last["number"], false]));
        assert_eq!(again["hash"], last["hash"], "{backend}, cut {cut}");
        blocks = height;
    }
    println!("{backend}: {cuts} power cuts, {blocks} blocks, nothing lost and nothing torn");
    drop(node);
}

fn number_of_cuts() -> u64 {
    std::env::var("PENSTOCK_POWER_CUTS").map_or(2, |text| text.parse().unwrap())
}

#[test]
fn a_power_cut_loses_no_block_that_was_told_of_on_fjall() {
    cuts("fjall", number_of_cuts());
}

#[test]
fn a_power_cut_loses_no_block_that_was_told_of_on_sled() {
    cuts("sled", number_of_cuts());
}

#[test]
fn a_full_disk_stops_the_node_with_a_reason_and_what_was_committed_is_there_when_there_is_room() {
    let Some(disk) = Disk::new(200) else {
        println!("skipped: no loop devices here (root is needed)");
        return;
    };
    let data = disk.mounted().join("data");
    let path = data.to_str().unwrap().to_owned();
    // Room that is given back at the end.
    let ballast = disk.mounted().join("ballast");
    fs::write(&ballast, vec![1_u8; 40 << 20]).unwrap();
    let arguments = ["--block-time", "0", "--data", &path];
    let mut node = Node::start(&arguments);
    let signer = account(1);
    let mut last = Value::Null;
    let mut nonce = 0;
    let begin = Instant::now();
    while node.is_running() && begin.elapsed() < Duration::from_secs(120) {
        let input: Vec<u8> = (0..120_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let tx = Tx { input: input.into(), gas: 6_000_000, ..Tx::of(nonce) };
        match node.try_call("eth_sendRawTransaction", json!([tx.sign(&signer)])) {
            Some(Value::String(_)) => nonce += 1,
            _ => thread::sleep(Duration::from_millis(20)),
        }
        if let Some(block) = node.try_call("eth_getBlockByNumber", json!(["latest", false])).filter(|b| !b.is_null()) {
            last = block;
        }
    }
    assert!(!node.is_running(), "the disk is full, and the node runs on");
    let log = node.log_lines().join("\n");
    // Whichever file needed room first: the store's, or the log of the consensus of `dev`.
    let in_store = log.contains("database") && log.contains("MiB left on the disk");
    assert!(in_store || log.contains("blocks.log: No space left"), "{log}");
    drop(node);
    fs::remove_file(&ballast).unwrap();
    let node = Node::start(&arguments);
    let height = quantity(&last["number"]);
    assert!(height > 10 && node.height() >= height, "{} after {height}", node.height());
    assert_eq!(node.call("eth_getBlockByNumber", json!([last["number"], false]))["hash"], last["hash"]);
    assert!(node.stop().success());
    verified(&data);
}
