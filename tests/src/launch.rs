//! `bootstrap launch --local` as a process of its own.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::Signal;
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::{SOON, binary, eventually, run, send};

/// The port on which launched instances serve. Not [`crate::PORT`]: the addresses follow from the
/// balancer's port, and could be those of a bed in another process.
pub const INSTANCE_PORT: u16 = 8081;

/// A port on 127.0.0.1 that nothing listens on, below those that the kernel gives to clients, so
/// that no connection can take it before it is used.
pub fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    loop {
        // Tests that run at the same time have process ids that are close together.
        let number = std::process::id() + 3989 * TAKEN.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(20_000 + number % 12_000).expect("it fits");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// A running launch. Dropping it kills `bootstrap`, and thereby its agents.
pub struct Launch {
    /// The balancer's port.
    pub port: u16,
    child: Child,
    /// Holds what it prints, and is its folder for temporary files.
    folder: tempfile::TempDir,
}

impl Launch {
    /// Launches a fleet on a port of its own; `arguments` follow `launch --local`.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_on(free_port(), arguments)
    }

    /// The process of bootstrap.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Launches a fleet on this port.
    pub fn start_on(port: u16, arguments: &[&str]) -> Self {
        let mut command = Command::new(binary("bootstrap"));
        command.args(["launch", "--local", "--port", &port.to_string()]);
        command.args(["--instance-port", &INSTANCE_PORT.to_string()]).args(arguments);
        Self::spawn(port, command)
    }

    /// Runs a command that launches a fleet on this port.
    pub fn spawn(port: u16, mut command: Command) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let temporary = folder.path().join("tmp");
        std::fs::create_dir(&temporary).expect("a folder");
        let file = |name| std::fs::File::create(folder.path().join(name)).expect("a file");
        command
            .env("TMPDIR", &temporary)
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .kill_on_drop(true);
        Self { port, child: command.spawn().expect("it starts"), folder }
    }

    /// Waits until the fleet is healthy, and returns what `--output json` said of it.
    pub async fn healthy(&mut self) -> Fleet {
        let shown = eventually(async || serde_json::from_str(&self.stdout()).ok()).await;
        match shown {
            Some(json) => Fleet::new(json),
            None => panic!("never healthy: {}{}", self.stdout(), self.stderr()),
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        send(signal, self.child.id().expect("not waited for yet"));
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let end = tokio::time::timeout(SOON, self.child.wait()).await;
        end.unwrap_or_else(|_| panic!("bootstrap did not end:\n{}", self.stderr())).expect("a status")
    }

    /// Interrupts it as Ctrl-C does, and waits for its end.
    pub async fn interrupted(&mut self) -> ExitStatus {
        self.signal(Signal::INT);
        self.ended().await
    }

    /// Waits until it has written this to stderr.
    pub async fn until_said(&self, wanted: &str) {
        let found = eventually(async || self.stderr().contains(wanted).then_some(())).await;
        assert!(found.is_some(), "never said {wanted:?}:\n{}", self.stderr());
    }

    /// What it printed so far.
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("stdout")).unwrap_or_default()
    }

    /// What it said on the way so far.
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }

    /// What is in its folder for temporary files.
    pub fn temporary_files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.path().join("tmp")).expect("the folder");
        entries.map(|entry| entry.expect("an entry").path()).collect()
    }
}

/// A fleet as `launch --local --output json` describes it.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// The description as it was printed.
    pub json: Value,
    /// Its instances.
    pub instances: Vec<Instance>,
}

/// One instance of it.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// Its group's name.
    pub group: String,
    /// Where it serves.
    pub address: SocketAddr,
    /// The agent's process.
    pub pid: u32,
    runtime_dir: String,
}

impl Fleet {
    fn new(json: Value) -> Self {
        let instances = json["instances"].as_array().expect("instances").iter().map(Instance::new);
        Self { instances: instances.collect(), json }
    }

    /// The balancer's URL.
    pub fn url(&self) -> &str {
        self.json["url"].as_str().expect("a URL")
    }

    /// Everything the fleet listens on: balancer, endpoint, instances and their metadata.
    pub fn listeners(&self) -> Vec<SocketAddr> {
        let imds = self.json["instances"].as_array().expect("instances").iter().map(|i| &i["imds"]);
        let urls = imds.chain([&self.json["url"], &self.json["endpoint"]]);
        let address = |url: &Value| {
            let text = url.as_str().and_then(|url| url.strip_prefix("http://")).expect("a URL");
            text.parse().expect("an address")
        };
        urls.map(address).chain(self.instances.iter().map(|instance| instance.address)).collect()
    }

    /// Waits until no agent runs and nothing listens any more.
    pub async fn until_gone(&self) {
        let left = || {
            let agents = self.instances.iter().filter(|instance| instance.runs());
            let agents = agents.map(|instance| format!("agent {}", instance.pid));
            let taken = |address: &SocketAddr| TcpListener::bind(address).is_err();
            let taken = self.listeners().into_iter().filter(taken).map(|address| format!("{address}"));
            agents.chain(taken).collect::<Vec<_>>()
        };
        let gone = eventually(async || left().is_empty().then_some(())).await;
        assert!(gone.is_some(), "left behind: {:?}", left());
    }
}

impl Instance {
    fn new(json: &Value) -> Self {
        let text = |key: &str| json[key].as_str().unwrap_or_else(|| panic!("{key} in {json}")).to_owned();
        Self {
            id: text("id"),
            group: text("group"),
            address: text("address").parse().expect("an address"),
            pid: json["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a process id"),
            runtime_dir: text("runtime_dir"),
        }
    }

    /// The URL of a path on the instance itself.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Whether its agent's process is there. Its number alone could be another's by now.
    pub fn runs(&self) -> bool {
        let line = std::fs::read(Path::new("/proc").join(self.pid.to_string()).join("cmdline"));
        let line = line.unwrap_or_default();
        line.split(|byte| *byte == 0).any(|argument| argument == self.runtime_dir.as_bytes())
    }

    /// Kills its agent.
    pub fn kill(&self) {
        assert!(self.runs(), "{self:?}");
        send(Signal::KILL, self.pid);
    }

    /// The agent's status.
    pub async fn status(&self) -> Value {
        let arguments = ["status", "--output", "json", "--runtime-dir", &self.runtime_dir];
        let output = run("instance-agent", &arguments).await;
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    }
}
