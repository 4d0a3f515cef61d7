//! Networks of `penstock` and CometBFT processes on this machine.
//!
//! `scripts/test` installs CometBFT and names its folder in `PENSTOCK_COMETBFT`; without it the tests say that they
//! were skipped.

use std::{
    fs,
    io::Write,
    net::TcpListener,
    ops::Deref,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU16, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{PROGRAM, Rpc};

/// A CometBFT that the tests run with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comet {
    pub version: &'static str,
    /// As `penstock init --cometbft` has it.
    pub short: &'static str,
}

pub const V0_38: Comet = Comet { version: "v0.38.25", short: "0.38" };
pub const V0_40: Comet = Comet { version: "v0.40.0", short: "0.40" };

impl Comet {
    /// The program, or `None` where it is not installed.
    pub fn program(self) -> Option<PathBuf> {
        self.tool("cometbft")
    }

    pub fn tool(self, name: &str) -> Option<PathBuf> {
        let Ok(folder) = std::env::var("PENSTOCK_COMETBFT") else {
            eprintln!("skipped: PENSTOCK_COMETBFT is not set (scripts/test sets it)");
            return None;
        };
        let program = Path::new(&folder).join(self.version).join(name);
        assert!(program.exists(), "{} is missing (scripts/install-cometbft --tests)", program.display());
        Some(program)
    }
}

/// What a network is made of.
#[derive(Debug, Clone)]
pub struct Setup<'a> {
    pub comet: Comet,
    pub validators: usize,
    pub full_nodes: usize,
    pub block_time: &'a str,
    pub genesis: Option<&'a Path>,
    pub validator_admin: Option<&'a str>,
    /// Settings of every node, as environment variables.
    pub environment: Vec<(&'a str, &'a str)>,
}

impl Setup<'_> {
    pub fn of(comet: Comet, validators: usize) -> Self {
        Self {
            comet,
            validators,
            full_nodes: 0,
            block_time: "200ms",
            genesis: None,
            validator_admin: None,
            environment: vec![],
        }
    }
}

/// Networks fill two cores: one at a time in a process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A network; its processes are killed when it is dropped.
pub struct Network {
    pub nodes: Vec<Member>,
    folder: TempDir,
    comet: Comet,
    program: PathBuf,
    environment: Vec<(String, String)>,
    offset: u16,
    _one: MutexGuard<'static, ()>,
}

/// A node of a network.
pub struct Member {
    pub name: String,
    pub home: PathBuf,
    pub rpc: Rpc,
    pub cometbft_rpc: String,
    pub metrics: String,
    program: PathBuf,
    environment: Vec<(String, String)>,
    penstock: Option<Child>,
    cometbft: Option<Child>,
}

impl Deref for Member {
    type Target = Rpc;

    fn deref(&self) -> &Rpc {
        &self.rpc
    }
}

/// Ports that a node uses, without offset.
const PORTS: [u16; 5] = [8545, 9464, 26656, 26657, 26660];

/// An offset at which the ports of `nodes` nodes are free, below the ports that the system gives to clients.
fn free_offset(nodes: usize) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..100 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let offset = (std::process::id() as u16 % 41 + step) % 41 * 120 + 200;
        let mut ports = (0..nodes as u16).flat_map(|node| PORTS.map(|port| port + offset + 10 * node));
        if ports.all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return offset;
        }
    }
    panic!("no free ports");
}

impl Network {
    /// Writes the homes; nothing runs yet. `None` where CometBFT is not installed.
    pub fn new(setup: &Setup<'_>) -> Option<Self> {
        let program = setup.comet.program()?;
        let one = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let folder = tempfile::Builder::new().prefix("penstock-net-").tempdir().unwrap();
        // One more, for a node that joins.
        let count = setup.validators + setup.full_nodes;
        let offset = free_offset(count + 2);
        let mut command = Command::new(PROGRAM);
        command.args(["testnet", &setup.validators.to_string(), "--full-nodes", &setup.full_nodes.to_string()]);
        command.args(["--cometbft", setup.comet.short, "--block-time", setup.block_time]);
        command.args(["--port-offset", &offset.to_string(), "--output"]).arg(folder.path());
        if let Some(genesis) = setup.genesis {
            command.arg("--genesis").arg(genesis);
        }
        if let Some(admin) = setup.validator_admin {
            command.args(["--validator-admin", admin]);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let environment: Vec<_> =
            setup.environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let mut network = Self { nodes: vec![], folder, comet: setup.comet, program, environment, offset, _one: one };
        for index in 0..count {
            network.nodes.push(network.member(index));
        }
        Some(network)
    }

    fn member(&self, index: usize) -> Member {
        let name = format!("node{index}");
        let at = |port: u16| format!("http://127.0.0.1:{}", port + self.offset + 10 * index as u16);
        Member {
            home: self.folder.path().join(&name),
            name,
            rpc: Rpc { url: at(8545) },
            cometbft_rpc: at(26657),
            metrics: at(9464),
            program: self.program.clone(),
            environment: self.environment.clone(),
            penstock: None,
            cometbft: None,
        }
    }

    /// Adds a node that joins by `penstock init`.
    pub fn join(&mut self, arguments: &[&str]) -> &mut Member {
        let index = self.nodes.len();
        let member = self.member(index);
        let peers: Vec<String> = self.nodes.iter().map(Member::peer).collect();
        let port_offset = (self.offset + 10 * index as u16).to_string();
        let output = Command::new(PROGRAM)
            .arg("--home")
            .arg(&member.home)
            .args(["init", "--cometbft", self.comet.short, "--block-time", "200ms", "--genesis"])
            .arg(self.nodes[0].home.join("config/genesis.json"))
            .args(["--peers", &peers.join(","), "--port-offset", &port_offset])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.nodes.push(member);
        self.nodes.last_mut().unwrap()
    }

    pub fn start(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.start(&[]));
    }

    /// Starts all and waits until all have a block.
    pub fn start_and_wait(&mut self) {
        self.start();
        self.wait_for(1);
    }

    /// Waits until every node has a height.
    pub fn wait_for(&self, height: u64) {
        for node in &self.nodes {
            node.wait_for(height);
        }
    }

    /// All nodes have the same blocks, up to the lowest height.
    pub fn assert_equal(&self) -> u64 {
        let lowest = self.nodes.iter().map(|node| node.height()).min().unwrap();
        for height in 1..=lowest {
            let hashes: Vec<Value> = self.nodes.iter().filter_map(|node| node.hash_of(height)).collect();
            assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "height {height}: {hashes:?}");
        }
        lowest
    }

    /// Until a new block on every node.
    pub fn wait_for_progress(&self) {
        let height = self.nodes.iter().filter_map(|node| node.try_height()).max().unwrap_or_default();
        self.wait_for(height + 2);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.kill_app();
            node.kill_cometbft();
            if thread::panicking() {
                let log = fs::read_to_string(node.home.join("penstock.log")).unwrap_or_default();
                let lines: Vec<&str> = log.lines().filter(|line| !line.contains("committed height")).collect();
                lines.iter().rev().take(25).rev().for_each(|line| eprintln!("{}: {line}", node.name));
            }
        }
    }
}

/// Children of a process.
fn children_of(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // pid (name) state ppid …
        let ppid = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        ppid == Some(parent)
    })
    .collect()
}

pub fn signal(name: &str, pid: u32) {
    Command::new("kill").args([name, &pid.to_string()]).stderr(Stdio::null()).status().unwrap();
}

impl Member {
    fn log(&self) -> Stdio {
        let mut options = fs::OpenOptions::new();
        let mut file = options.create(true).append(true).open(self.home.join("penstock.log")).unwrap();
        file.write_all(b"--- start\n").unwrap();
        file.into()
    }

    /// What the node logged.
    pub fn log_text(&self) -> String {
        fs::read_to_string(self.home.join("penstock.log")).unwrap_or_default()
    }

    fn command(&self, arguments: &[&str]) -> Child {
        Command::new(PROGRAM)
            .arg("--home")
            .arg(&self.home)
            .arg("start")
            .args(arguments)
            .env_remove("RUST_LOG")
            .envs(self.environment.iter().cloned())
            .stdout(Stdio::null())
            .stderr(self.log())
            .spawn()
            .unwrap()
    }

    /// `penstock start --with-cometbft`.
    pub fn start(&mut self, arguments: &[&str]) {
        let program = self.program.display().to_string();
        self.penstock = Some(self.command(&[&["--with-cometbft", &program], arguments].concat()));
    }

    /// `penstock start` alone.
    pub fn start_app(&mut self, arguments: &[&str]) {
        self.penstock = Some(self.command(arguments));
    }

    /// `cometbft start` alone, with another address of the application if one is given.
    pub fn start_cometbft(&mut self, proxy_app: Option<&str>) {
        let mut command = Command::new(&self.program);
        command.arg("start").arg("--home").arg(&self.home);
        if let Some(address) = proxy_app {
            command.args(["--proxy_app", address]);
        }
        let log = self.log();
        self.cometbft = Some(command.stdout(log).stderr(self.log()).spawn().unwrap());
    }

    pub fn kill_app(&mut self) {
        if let Some(mut child) = self.penstock.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGKILL for CometBFT, supervised or not. Answers whether there was one.
    pub fn kill_cometbft(&mut self) -> bool {
        let own = self.cometbft.take().map(|mut child| {
            child.kill().unwrap();
            child.wait().unwrap();
        });
        let supervised = self.penstock.as_ref().map(|child| children_of(child.id())).unwrap_or_default();
        supervised.iter().for_each(|pid| signal("-KILL", *pid));
        own.is_some() || !supervised.is_empty()
    }

    /// SIGKILL for both.
    pub fn kill(&mut self) {
        let supervised = self.penstock.as_ref().map(|child| children_of(child.id())).unwrap_or_default();
        if let Some(mut child) = self.penstock.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        supervised.iter().for_each(|pid| signal("-KILL", *pid));
        self.kill_cometbft();
    }

    /// SIGTERM; whether the process ended with code 0.
    pub fn stop(&mut self) -> bool {
        let mut child = self.penstock.take().unwrap();
        signal("-TERM", child.id());
        child.wait().unwrap().success()
    }

    /// Whether `penstock` runs.
    pub fn is_running(&mut self) -> bool {
        self.penstock.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// The exit code of a `penstock` that ends by itself.
    pub fn wait_for_end(&mut self) -> Option<i32> {
        self.penstock.take().unwrap().wait().unwrap().code()
    }

    pub fn wait_for(&self, height: u64) {
        let begin = Instant::now();
        let mut seen = None;
        while begin.elapsed() < Duration::from_secs(120) {
            seen = self.try_height().or(seen);
            if seen.is_some_and(|seen| seen >= height) {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("{} did not reach height {height}: {seen:?}", self.name);
    }

    /// Hash of a block.
    pub fn hash_of(&self, height: u64) -> Option<Value> {
        let block = self.call("eth_getBlockByNumber", json!([format!("{height:#x}"), false]));
        block.get("hash").cloned()
    }

    /// `id@host:port`.
    pub fn peer(&self) -> String {
        let output = Command::new(&self.program).args(["show-node-id", "--home"]).arg(&self.home).output().unwrap();
        let port: u16 = self.cometbft_rpc.rsplit(':').next().unwrap().parse().unwrap();
        format!("{}@127.0.0.1:{}", String::from_utf8(output.stdout).unwrap().trim(), port - 1)
    }

    /// An answer of CometBFT's RPC.
    pub fn cometbft(&self, path: &str) -> Option<Value> {
        let mut answer = ureq::get(format!("{}/{path}", self.cometbft_rpc)).call().ok()?;
        let answer: Value = answer.body_mut().read_json().ok()?;
        answer.get("result").cloned()
    }

    /// The value of a metric by its name with labels, or the sum over all labels by its bare name.
    pub fn metric(&self, name: &str) -> f64 {
        let Ok(mut answer) = ureq::get(format!("{}/metrics", self.metrics)).call() else { return 0.0 };
        let text = answer.body_mut().read_to_string().unwrap();
        let values = text
            .lines()
            .filter(|line| line.split(['{', ' ']).next() == Some(name) || line.split(' ').next() == Some(name));
        values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}
