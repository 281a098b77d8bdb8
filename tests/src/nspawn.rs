//! A Debian that boots its own systemd, by `tests/bin/machine`.
//!
//! Everything of it is gone when its [`Nspawn`] is dropped, and also when the test is killed.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::debian::script;
use crate::solo::{program, tool};
use crate::{SOON, eventually, output, text};

/// What one command in a machine may take; installing packages is among them.
const COMMAND: Duration = Duration::from_secs(300);
/// What a boot or a poweroff may take on a busy machine.
const BOOT: Duration = Duration::from_secs(300);

/// A machine. It keeps its disk over reboots, and loses it with this value.
pub struct Nspawn {
    script: Child,
    orders: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
    /// The process that holds its namespaces, as this process sees it.
    holder: u32,
    folder: PathBuf,
    /// Its first process, as this process sees it, while it runs.
    leader: Option<u32>,
}

impl Nspawn {
    /// A machine with a fresh disk over this root file system, switched off. Its network is a
    /// namespace without a way out, in which nothing but the loopback is up.
    pub async fn make(root: &Path) -> Self {
        let mut script = Command::new(script("machine"))
            .arg(root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Whoever stops the test's process group stops the test; this cleans up after it.
            .process_group(0)
            .spawn()
            .expect("bash is there");
        let orders = script.stdin.take();
        let mut answers = BufReader::new(script.stdout.take().expect("it is piped")).lines();
        let made = answer(&mut answers).await;
        let folder = made.strip_prefix("made ").unwrap_or_else(|| panic!("not made: {made}")).into();
        // bash, then unshare, then the first process of the new pid namespace.
        let holder = script.id().and_then(only_child).and_then(only_child).expect("it holds them");
        Self { script, orders, answers, holder, folder, leader: None }
    }

    /// Makes one and boots it.
    pub async fn booted(root: &Path) -> Self {
        let mut machine = Self::make(root).await;
        machine.boot().await;
        machine
    }

    /// Boots, and waits until systemd calls itself running.
    pub async fn boot(&mut self) {
        self.power_on().await;
        self.until_running().await;
    }

    /// Powers it on, and waits until its systemd has begun.
    pub async fn power_on(&mut self) {
        assert_eq!(self.leader, None, "it is running");
        self.order("boot").await;
        let deadline = Instant::now() + BOOT;
        while self.leader.is_none() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
            // The holder's shell, the shell that waits for nspawn, nspawn, systemd.
            let nspawn = only_child(self.holder).and_then(only_child).and_then(only_child);
            self.leader = nspawn.filter(|pid| comm(*pid) == "systemd");
        }
        assert!(self.leader.is_some(), "it does not boot:\n{}", self.console());
    }

    /// Waits until systemd calls itself running: everything that starts at boot has started.
    pub async fn until_running(&self) {
        let deadline = Instant::now() + BOOT;
        loop {
            let state = self.run("systemctl is-system-running").await;
            match text(&state.stdout).trim() {
                "running" => return,
                "degraded" => panic!("{}", text(&self.run("systemctl --failed; journalctl -b").await.stdout)),
                state => assert!(Instant::now() < deadline, "still {state}:\n{}", self.console()),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Runs a line of shell in the machine, as root, to its end.
    pub async fn run(&self, line: &str) -> Output {
        let leader = self.leader.expect("it is running").to_string();
        let limit = COMMAND.as_secs().to_string();
        // Its own clock stops it in there: a kill from here would not reach further than nsenter.
        let words = ["-t", &leader, "-a", "--", "timeout", "-k", "5", &limit, "bash", "-c", line];
        let words: Vec<_> = words.iter().map(Into::into).collect();
        let environment = [("HOME", "/root"), ("LANG", "C.UTF-8"), ("TERM", "dumb")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut command = program(&[], "nsenter".as_ref(), &words, &environment);
        command
            .env_remove("AWS_EC2_METADATA_DISABLED")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("SYSTEMD_PAGER", "");
        output(&mut command, COMMAND + SOON).await
    }

    /// What a line of shell printed that has to succeed.
    pub async fn ok(&self, line: &str) -> String {
        let output = self.run(line).await;
        let (out, error) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{line}: {}\n{out}{error}", output.status);
        out.trim_end().to_owned()
    }

    /// Runs a line of shell again and again until it succeeds, and returns what it printed.
    pub async fn until(&self, line: &str) -> String {
        let asked = async || {
            let output = self.run(line).await;
            output.status.success().then(|| text(&output.stdout).trim_end().to_owned())
        };
        match eventually(asked).await {
            Some(out) => out,
            None => panic!("{line}: {:?}\n{}", self.run(line).await, self.journal().await),
        }
    }

    /// The agent's journal of this boot.
    pub async fn journal(&self) -> String {
        self.ok("journalctl -b -u instance-agent -o short-precise --no-hostname").await
    }

    /// Runs a line of shell in its disk without booting it, as the build of an image does.
    pub async fn chroot(&self, line: &str) -> Output {
        let holder = self.holder.to_string();
        let disk = self.folder.join("disk").to_string_lossy().into_owned();
        let words = ["-t", &holder, "-a", "--", "chroot", &disk, "bash", "-c", line];
        let words: Vec<_> = words.iter().map(Into::into).collect();
        let mut command = program(&[], "nsenter".as_ref(), &words, &[]);
        output(command.env("DEBIAN_FRONTEND", "noninteractive"), COMMAND).await
    }

    /// Switches it off as its user would, and waits until it is.
    pub async fn power_off(&mut self) {
        self.run("systemctl poweroff").await;
        assert_eq!(self.ended().await, 0, "{}", self.console());
    }

    /// Switches it off as its user would; for one that takes longer than this the plug is pulled.
    pub async fn shut_down(&mut self, patience: Duration) {
        self.run("systemctl poweroff").await;
        if tokio::time::timeout(patience, self.answers_end()).await.is_err() {
            self.order("cut").await;
            self.answers_end().await;
        }
    }

    /// Kills all its processes at once.
    pub async fn cut(&mut self) {
        self.order("cut").await;
        self.ended().await;
    }

    /// Waits until it is off; 0 is a poweroff.
    pub async fn ended(&mut self) -> i32 {
        let line = tokio::time::timeout(BOOT, self.answers_end()).await.expect("an end");
        let code = line.strip_prefix("ended ").and_then(|code| code.parse().ok());
        code.unwrap_or_else(|| panic!("not an end: {line}"))
    }

    /// The line that says that it has ended, whenever it comes.
    async fn answers_end(&mut self) -> String {
        let line = self.answers.next_line().await.expect("its output");
        self.leader = None;
        line.expect("the machine's script ended: see above")
    }

    /// A file of its disk, also while it is off.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.outside("disk").join(inside.trim_start_matches('/'))
    }

    /// Writes a file of its disk; also makes the folder it is in.
    pub fn write(&self, inside: &str, content: impl AsRef<[u8]>) {
        let path = self.path(inside);
        std::fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("the folder");
        std::fs::write(&path, content).unwrap_or_else(|error| panic!("{inside}: {error}"));
    }

    /// Copies a file onto its disk.
    pub fn copy(&self, file: &Path, inside: &str) {
        let copied = std::fs::copy(file, self.path(inside));
        copied.unwrap_or_else(|error| panic!("{} to {inside}: {error}", file.display()));
    }

    /// The other end of a cable, one end of which is in the network namespace of this thread.
    pub async fn plug_in(&self, here: &str, there: &str) {
        let holder = self.holder.to_string();
        let words = ["link", "add", here, "type", "veth", "peer", "name", there, "netns", &holder];
        let output = tool("ip", &words).await;
        assert!(output.status.success(), "{output:?}");
    }

    /// Its first process, as this process sees it; `None` while it is off.
    pub fn leader(&self) -> Option<u32> {
        self.leader
    }

    /// What it wrote to its console.
    pub fn console(&self) -> String {
        std::fs::read_to_string(self.outside("console")).unwrap_or_default()
    }

    /// A file of its folder, seen through the mount namespace it is in.
    fn outside(&self, name: &str) -> PathBuf {
        let folder = self.folder.strip_prefix("/").expect("an absolute path");
        Path::new("/proc").join(self.holder.to_string()).join("root").join(folder).join(name)
    }

    async fn order(&mut self, order: &str) {
        let orders = self.orders.as_mut().expect("it takes orders");
        orders.write_all(format!("{order}\n").as_bytes()).await.expect("it takes orders");
    }
}

impl Drop for Nspawn {
    fn drop(&mut self) {
        // The end of its orders is the end of it all.
        drop(self.orders.take());
        let deadline = Instant::now() + SOON;
        while let Ok(None) = self.script.try_wait() {
            if Instant::now() > deadline {
                eprintln!("a machine does not end");
                return;
            }
            #[expect(clippy::disallowed_methods, reason = "drop cannot await, and a deadline ends the loop")]
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

async fn answer(answers: &mut Lines<BufReader<ChildStdout>>) -> String {
    let line = tokio::time::timeout(BOOT, answers.next_line()).await.expect("an answer");
    line.expect("its output").expect("the machine's script ended: see above")
}

/// The one child that a process has.
fn only_child(parent: u32) -> Option<u32> {
    let mut children = std::fs::read_dir("/proc").ok()?.filter_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before it may hold anything, a parenthesis too.
        let parent_of: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        (parent_of == parent).then_some(pid)
    });
    let child = children.next()?;
    children.next().is_none().then_some(child)
}

fn comm(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}
