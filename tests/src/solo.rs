//! An agent without any cloud: one process, its folders, and what wraps it.
//!
//! The agent's process is always a direct child of the test: the wrappers used here (`setpriv`,
//! `nsenter`, `prlimit`, `strace -D`) put themselves aside with exec. So killing the child kills
//! the agent, and nothing is left behind.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};

use rustix::process::{Signal, geteuid};
use tokio::process::{Child, Command};

use crate::wire::{Answer, Wire};
use crate::{PORT, SOON, binary, eventually, network, send, text};

/// The user without rights, as Debian has it.
pub const NOBODY: u32 = 65534;

/// Whether this test runs as root.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// Whether this test runs as root; says why it is skipped if not.
pub fn is_root_or_skip(why: &str) -> bool {
    if !is_root() {
        skipped(&format!("not root: {why}"));
    }
    is_root()
}

/// Says that the running test is skipped: where nothing may be, it fails; else `tests/bin/run-tests`
/// shows it at the end.
fn skipped(why: &str) {
    assert!(std::env::var_os("TESTS_NO_SKIP").is_none(), "may not be skipped: {why}");
    println!("SKIPPED: {why}");
    if let Some(list) = std::env::var_os("TESTS_SKIPPED") {
        let name = std::env::var("NEXTEST_TEST_NAME").unwrap_or_default();
        let mut list = std::fs::File::options().append(true).open(list).expect("the list of skipped tests");
        // In one piece, as others write to it at the same time.
        list.write_all(format!("{name}: {why}\n").as_bytes()).expect("room for a line");
    }
}

/// The first of these wrappers under which a line of shell succeeds; says that the test is skipped where
/// there is none.
pub async fn wrapper_or_skip(wrappers: Vec<Vec<OsString>>, line: &str) -> Option<Vec<OsString>> {
    let mut why = String::new();
    for wrapper in wrappers {
        let tried = output(program(&wrapper, "sh".as_ref(), &["-c".into(), line.into()], &[])).await;
        if tried.status.success() {
            return Some(wrapper);
        }
        why = text(&tried.stderr);
    }
    skipped(&format!("this kernel allows no namespace of one's own: {}", why.trim()));
    None
}

/// What runs a program as a user without rights: nothing where the test is one already.
pub fn as_nobody() -> Vec<OsString> {
    if !is_root() {
        return Vec::new();
    }
    let user = format!("--reuid={NOBODY}");
    let group = format!("--regid={NOBODY}");
    ["setpriv", &user, &group, "--clear-groups", "--"].map(OsString::from).to_vec()
}

/// A program with a clean environment, so that nothing of the tester's machine reaches it.
pub fn program(
    wrapper: &[OsString],
    name: &OsStr,
    arguments: &[OsString],
    environment: &[(String, String)],
) -> Command {
    let mut words = wrapper.iter().map(OsString::as_os_str).chain([name]);
    let mut command = Command::new(words.next().unwrap_or(name));
    command
        .args(words)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        // Where there is no metadata service, asking for it only takes time.
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs a program that ends by itself.
pub async fn output(mut command: Command) -> Output {
    crate::output(&mut command, SOON).await
}

/// Runs a tool of the machine to its end.
pub async fn tool(name: &str, arguments: &[&str]) -> Output {
    let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    output(program(&[], name.as_ref(), &arguments, &[])).await
}

/// An agent's folders, address and settings; it can be started again and again.
pub struct Solo {
    folder: tempfile::TempDir,
    /// Where it serves.
    pub listen: SocketAddr,
    /// The program: the built one, or a copy that everyone may read.
    pub binary: PathBuf,
    /// Where the seed is kept.
    pub state_dir: PathBuf,
    /// Where the admin socket is.
    pub runtime_dir: PathBuf,
    /// What starts the agent, if not the test itself.
    pub wrapper: Vec<OsString>,
    /// Its environment.
    pub environment: Vec<(String, String)>,
    /// Further arguments.
    pub arguments: Vec<OsString>,
}

impl Default for Solo {
    fn default() -> Self {
        Self::new()
    }
}

impl Solo {
    /// An agent with folders and an address of its own.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (high, low) = network();
        Self {
            listen: SocketAddr::from((Ipv4Addr::new(127, high, low, 2), PORT)),
            binary: binary("instance-agent"),
            state_dir: folder.path().join("state"),
            runtime_dir: folder.path().join("run"),
            wrapper: Vec::new(),
            environment: Vec::new(),
            arguments: Vec::new(),
            folder,
        }
    }

    /// Adds arguments for the next start.
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(OsString::from));
        self
    }

    /// Sets a variable for the next start.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.environment.push((name.to_owned(), value.into()));
    }

    /// Lets a user without rights run it: with a program and a runtime folder within its reach.
    /// The state folder stays the tester's.
    pub fn for_nobody(mut self) -> Self {
        let open = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("our own file");
        };
        self.wrapper = as_nobody();
        open(self.folder.path(), 0o711);
        // Now, as a test may take the right to make files here away.
        std::fs::write(self.path("agent.log"), "").expect("a log");
        let copy = self.path("instance-agent");
        std::fs::copy(&self.binary, &copy).expect("room for the program");
        open(&copy, 0o755);
        self.binary = copy;
        std::fs::create_dir(&self.runtime_dir).expect("a new folder");
        if is_root() {
            chown(&self.runtime_dir, Some(NOBODY), Some(NOBODY)).expect("root may");
        }
        self
    }

    /// A file beside its folders.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The seed's file.
    pub fn seed_file(&self) -> PathBuf {
        self.state_dir.join("seed")
    }

    /// Everything it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }

    fn arguments(&self) -> Vec<OsString> {
        let own: [&OsStr; 7] = [
            "serve".as_ref(),
            "--listen".as_ref(),
            &OsString::from(self.listen.to_string()),
            "--state-dir".as_ref(),
            self.state_dir.as_ref(),
            "--runtime-dir".as_ref(),
            self.runtime_dir.as_ref(),
        ];
        own.map(OsString::from).into_iter().chain(self.arguments.iter().cloned()).collect()
    }

    /// Starts it without waiting for anything.
    pub fn launch(&self) -> Running {
        let log = self.path("agent.log");
        let log = std::fs::File::options().create(true).append(true).open(log).expect("a log");
        self.launch_with_stderr(log.into())
    }

    /// Starts it with another place to log to.
    pub fn launch_with_stderr(&self, stderr: OwnedFd) -> Running {
        let mut command =
            program(&self.wrapper, self.binary.as_os_str(), &self.arguments(), &self.environment);
        command.stdout(stderr.try_clone().expect("a copy of it")).stderr(stderr);
        let what = format!("{command:?}");
        let child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
        Running { child }
    }

    /// Starts it and waits until it answers.
    pub async fn start(&self) -> Running {
        let mut running = self.launch();
        let answers = async || {
            if let Ok(Some(status)) = running.child.try_wait() {
                panic!("the agent ended with {status}:\n{}", self.log());
            }
            Wire::connect(self.listen).await.ok()?.get("/health").await.ok()
        };
        assert!(eventually(answers).await.is_some(), "never answered:\n{}", self.log());
        running
    }

    /// Starts it where it is expected to end by itself at once.
    pub async fn fails(&self) -> Output {
        output(program(&self.wrapper, self.binary.as_os_str(), &self.arguments(), &self.environment)).await
    }

    /// Runs a command of the agent against it, as the user of `wrapper`.
    pub async fn command(&self, wrapper: &[OsString], arguments: &[&str]) -> Output {
        let folder: [&OsStr; 2] = ["--runtime-dir".as_ref(), self.runtime_dir.as_ref()];
        let arguments: Vec<OsString> =
            arguments.iter().map(OsString::from).chain(folder.map(OsString::from)).collect();
        output(program(wrapper, self.binary.as_os_str(), &arguments, &[])).await
    }

    /// The agent's status; `None` while its socket does not answer.
    pub async fn status(&self) -> Option<serde_json::Value> {
        let output = self.command(&[], &["status", "--output", "json"]).await;
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Waits until it has logged this text.
    pub async fn until_logged(&self, wanted: &str) {
        let found = eventually(async || self.log().contains(wanted).then_some(())).await;
        assert!(found.is_some(), "never logged {wanted:?}:\n{}", self.log());
    }

    /// Waits until it knows that it has no metadata. Before, it answers any path that could be its
    /// cluster's with 503.
    pub async fn until_started(&self) {
        let started = async || (self.get("/cluster1").await.status != 503).then_some(());
        assert!(eventually(started).await.is_some(), "still starting:\n{}", self.log());
    }

    /// A new connection to it.
    pub async fn connect(&self) -> Wire {
        match Wire::connect(self.listen).await {
            Ok(wire) => wire,
            Err(error) => panic!("cannot connect: {error}\n{}", self.log()),
        }
    }

    /// One GET on a connection of its own.
    pub async fn get(&self, path: &str) -> Answer {
        self.connect().await.get(path).await.unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    /// One POST of a number on a connection of its own.
    pub async fn post(&self, number: &str) -> Answer {
        let answer = self.connect().await.post(number).await;
        answer.unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    /// A URL for programs that want one.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listen)
    }
}

/// A started agent; killed when dropped.
pub struct Running {
    child: Child,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("not waited for yet")
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        send(Signal::TERM, self.pid());
    }

    /// Sends SIGKILL.
    pub fn kill(&self) {
        send(Signal::KILL, self.pid());
    }

    /// Waits for its end.
    pub async fn ended(&mut self, solo: &Solo) -> ExitStatus {
        match tokio::time::timeout(SOON, self.child.wait()).await {
            Ok(status) => status.expect("an exit status"),
            Err(_) => panic!("the agent did not end:\n{}", solo.log()),
        }
    }

    /// Sends SIGTERM and waits for a clean end.
    pub async fn stop(&mut self, solo: &Solo) {
        self.terminate();
        let status = self.ended(solo).await;
        assert!(status.success(), "{status}:\n{}", solo.log());
    }

    /// Sends SIGKILL and waits for the end.
    pub async fn die(&mut self, solo: &Solo) {
        self.kill();
        self.ended(solo).await;
    }
}

/// A mount namespace of its own, held open by a sleeping process. What is mounted in it nobody
/// else sees, and it is gone with the process, however the test ends.
pub struct Namespace {
    holder: Child,
    /// The namespaces that it has of its own, by the names of nsenter's options and of /proc.
    kinds: &'static [(&'static str, &'static str)],
}

impl Namespace {
    /// Makes one, and runs these shell commands in it. In a user namespace, so that nobody needs to be
    /// root; root needs none. Where the kernel allows neither, the test is skipped.
    pub async fn new_or_skip(setup: &str) -> Option<Self> {
        use tokio::io::{AsyncBufReadExt, BufReader};
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let mut wrappers = vec![words(&["unshare", "--user", "--map-root-user", "--mount", "--"])];
        if is_root() {
            wrappers.push(words(&["unshare", "--mount", "--"]));
        }
        let wrapper = wrapper_or_skip(wrappers, "mount -t tmpfs none /mnt").await?;
        let is_user = wrapper.contains(&OsString::from("--user"));
        let kinds: &[_] = if is_user { &[("user", "user"), ("mount", "mnt")] } else { &[("mount", "mnt")] };
        let script = format!("set -e; {setup}; echo ready; exec sleep infinity");
        let arguments = ["sh", "-c", &script].map(OsString::from);
        let mut command = program(&wrapper, &arguments[0], &arguments[1..], &[]);
        let mut holder = command.stdout(Stdio::piped()).spawn().expect("unshare starts");
        let mut said = String::new();
        let output = holder.stdout.take().expect("piped");
        let read = tokio::time::timeout(SOON, BufReader::new(output).read_line(&mut said)).await;
        assert!(matches!(read, Ok(Ok(_))) && said == "ready\n", "{script}: {said}");
        Some(Self { holder, kinds })
    }

    fn pid(&self) -> u32 {
        self.holder.id().expect("not waited for")
    }

    /// What starts a program inside.
    pub fn wrapper(&self) -> Vec<OsString> {
        let enter = |(option, file): &(&str, &str)| format!("--{option}=/proc/{}/ns/{file}", self.pid());
        let enter = self.kinds.iter().map(enter);
        let all = ["nsenter".to_owned(), "--preserve-credentials".to_owned()].into_iter().chain(enter);
        all.chain(["--".to_owned()]).map(OsString::from).collect()
    }

    /// A path inside, as seen from outside.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.pid()))
    }
}

/// Asserts that a program failed, and that its last line contains all of `parts`.
pub fn refuses_after_lines(output: &Output, parts: &[&str]) {
    let said = text(&output.stderr);
    let last = said.lines().last().unwrap_or_default();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(last.starts_with("instance-agent: "), "{said}");
    for part in parts {
        assert!(last.contains(part), "no {part:?} in: {said}");
    }
}

/// Asserts that a program ended with this code and one line that contains all of `parts`.
pub fn refuses(output: &Output, code: i32, parts: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(said.lines().count(), 1, "not one line: {said}");
    assert!(said.starts_with("instance-agent: "), "{said}");
    for part in parts {
        assert!(said.contains(part), "no {part:?} in: {said}");
    }
}
