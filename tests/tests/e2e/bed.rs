//! The region by hand, `tests/bed`: it does what it says, and nothing of it outlives it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use rustix::process::Signal;
use tests::account::IMAGE;
use tests::outside::venv;
use tests::solo::is_root_or_skip;
use tests::{binary, eventually, send, text, within};

/// What a boot may take on a busy machine.
const BOOT: Duration = Duration::from_secs(300);

const WHY: &str = "only root can boot a machine";

/// A bed with folders of its own, so that several can be up.
struct Bed {
    folder: tempfile::TempDir,
    /// The process that it ends with.
    owner: u32,
}

impl Bed {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("tmp")).unwrap();
        Self { folder, owner: std::process::id() }
    }

    async fn order(&self, words: &[&str]) -> Output {
        let run = tokio::process::Command::new(binary("bed"))
            .args(words)
            .env("TESTS_BED_DIR", self.folder.path().join("bed"))
            .env("TMPDIR", self.folder.path().join("tmp"))
            .env("TESTS_VENV", venv().await)
            .env("TESTS_BED_ENDS_WITH", self.owner.to_string())
            .kill_on_drop(true)
            .output();
        tokio::time::timeout(Duration::from_secs(300), run).await.unwrap().unwrap()
    }

    async fn ok(&self, words: &[&str]) -> String {
        let output = self.order(words).await;
        assert!(output.status.success(), "{words:?}: {}{}", text(&output.stderr), self.log());
        text(&output.stdout).trim().to_owned()
    }

    async fn refused(&self, words: &[&str]) -> String {
        let output = self.order(words).await;
        assert!(!output.status.success(), "{words:?}: {}", text(&output.stdout));
        text(&output.stderr)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("bed/log")).unwrap_or_default()
    }

    /// Waits until its one machine is as said.
    async fn until(&self, power: &str) {
        let is = async || self.ok(&["status"]).await.contains(power).then_some(());
        assert!(within(BOOT, is).await.is_some(), "{}", self.ok(&["status"]).await);
    }

    /// An instance by awscli, and its machine up.
    async fn instance(&self) -> String {
        let words =
            ["run", "aws", "ec2", "run-instances", "--image-id", IMAGE, "--instance-type", "t3.micro"];
        let told = self
            .ok(&[&words[..], &["--query", "Instances[0].InstanceId", "--output", "text"]].concat())
            .await;
        self.until(" running On ").await;
        let up = async || self.order(&["shell", &told, "true"]).await.status.success().then_some(());
        assert!(within(BOOT, up).await.is_some(), "{}", self.log());
        told
    }

    /// The process that keeps it, by the folder it was told.
    fn keeper(&self) -> u32 {
        let ours = format!("TESTS_BED_DIR={}", self.folder.path().join("bed").display());
        let is_ours = |pid: &u32| {
            let read = |what: &str| std::fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
            text(&read("cmdline")).contains("\0serve\0")
                && text(&read("environ")).split('\0').any(|v| v == ours)
        };
        pids().find(is_ours).expect("a process keeps it")
    }

    /// Waits until nothing is left: no process in its network, no machine's disk, no file outside of its
    /// folder.
    async fn until_nothing_is_left(&self, network: u64) {
        let names = |folder: &str| {
            let entries = std::fs::read_dir(self.folder.path().join(folder));
            let names = entries.into_iter().flatten().map(|entry| entry.unwrap().file_name());
            names.map(|name| name.to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        let left = || {
            let processes = pids().filter(|pid| network_of(*pid) == Some(network));
            let processes: Vec<_> =
                processes.map(|pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline"))).collect();
            let machines = names("bed/tmp").into_iter().filter(|name| name.starts_with("machine-"));
            (processes, machines.chain(names("tmp")).collect::<Vec<_>>())
        };
        let gone = async || {
            let (processes, files) = left();
            (processes.is_empty() && files.is_empty()).then_some(())
        };
        assert!(eventually(gone).await.is_some(), "{:?}", left());
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // What a failed test leaves behind.
        let _ = std::process::Command::new(binary("bed"))
            .arg("down")
            .env("TESTS_BED_DIR", self.folder.path().join("bed"))
            .output();
    }
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The network namespace that a process is in.
fn network_of(pid: u32) -> Option<u64> {
    std::fs::metadata(Path::new("/proc").join(pid.to_string()).join("ns/net")).ok().map(|file| file.ino())
}

#[tokio::test]
async fn it_is_there_until_it_is_told_to_end() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let bed = Bed::new();
    assert!(bed.refused(&["status"]).await.contains("there is no bed; `tests/bed up 9` makes one"));
    bed.ok(&["up", "1"]).await;
    assert!(bed.refused(&["up", "1"]).await.contains("there is a bed already; `tests/bed down` ends it"));
    let network = network_of(bed.keeper()).unwrap();
    let id = bed.instance().await;

    // The instance is what awscli launched, and knows it; nothing leads out.
    let ask = "T=$(curl -sS -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token) \
               && curl -sS -H \"X-aws-ec2-metadata-token: $T\" http://169.254.169.254/latest/meta-data/instance-id";
    let asked = async || (text(&bed.order(&["shell", &id, ask]).await.stdout) == id).then_some(());
    assert!(eventually(asked).await.is_some(), "{:?}", bed.order(&["shell", &id, ask]).await);
    assert!(bed.refused(&["run", "ip", "route", "get", "192.0.2.1"]).await.contains("unreachable"));

    // One more has no room, and is told so.
    let more = ["run", "aws", "ec2", "run-instances", "--image-id", IMAGE, "--instance-type", "t3.micro"];
    bed.ok(&more).await;
    let told = async || bed.log().contains("this region was made for 1 machines").then_some(());
    assert!(eventually(told).await.is_some(), "{}", bed.log());

    bed.ok(&["cut", &id]).await;
    assert!(bed.refused(&["shell", &id]).await.contains("is Off"));
    bed.ok(&["plug", &id]).await;
    bed.until(" running On ").await;
    bed.ok(&["down"]).await;
    bed.until_nothing_is_left(network).await;
    assert!(!bed.folder.path().join("bed").exists());
    bed.ok(&["down"]).await;
}

#[tokio::test]
async fn nothing_of_it_outlives_a_kill() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let bed = Bed::new();
    bed.ok(&["up", "1"]).await;
    bed.instance().await;
    let keeper = bed.keeper();
    let network = network_of(keeper).unwrap();
    send(Signal::KILL, keeper);
    bed.until_nothing_is_left(network).await;
    assert!(bed.refused(&["status"]).await.contains("there is no bed"));
    // The small files that it has left go with the next one, or when the bed is told to be down.
    bed.ok(&["up", "1"]).await;
    bed.ok(&["down"]).await;
    assert!(!bed.folder.path().join("bed").exists());
}

#[tokio::test]
async fn it_ends_with_the_process_that_it_was_told_to_end_with() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let mut bed = Bed::new();
    let mut owner = tokio::process::Command::new("cat");
    let mut owner = owner.stdin(std::process::Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    bed.owner = owner.id().unwrap();
    bed.ok(&["up", "1"]).await;
    bed.instance().await;
    let network = network_of(bed.keeper()).unwrap();
    owner.kill().await.unwrap();
    bed.until_nothing_is_left(network).await;
    assert!(bed.refused(&["status"]).await.contains("there is no bed"));
}
