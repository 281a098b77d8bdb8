//! A region as a command, `tests/bed`: one process keeps it, others ask that one by its socket.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::{Power, Region};
use crate::account::REGION;
use crate::binary;

/// What starting moto may take on a busy machine, and what ending many machines may.
const PATIENCE: Duration = Duration::from_secs(300);

/// The folder of the one region that the command keeps.
pub struct Place(PathBuf);

impl Place {
    /// In the folder for temporary files, or where `TESTS_BED_DIR` says.
    pub fn new() -> Self {
        let given = std::env::var_os("TESTS_BED_DIR").map(PathBuf::from);
        Self(given.unwrap_or_else(|| std::env::temp_dir().join("instance-agent-bed")))
    }

    fn socket(&self) -> PathBuf {
        self.0.join("socket")
    }

    fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// For all files of the region, so that none can outlive it.
    fn files(&self) -> PathBuf {
        self.0.join("tmp")
    }

    /// Begins a region and returns when it takes orders.
    ///
    /// # Errors
    /// There is one already, or it does not come up.
    pub fn up(&self, room: u32) -> io::Result<()> {
        if self.ask(&["pid"]).is_ok() {
            return Err(io::Error::other("there is a bed already; `tests/bed down` ends it"));
        }
        std::fs::DirBuilder::new().mode(0o700).recursive(true).create(&self.0)?;
        let log = File::create(self.log())?;
        let mut keeper = Command::new(std::env::current_exe()?);
        keeper.args(["serve", &room.to_string()]).env("TMPDIR", self.files()).stdin(Stdio::null());
        keeper.stdout(log.try_clone()?).stderr(log);
        // Its own group: whoever stops the one who typed `up` does not stop it.
        let mut keeper = keeper.process_group(0).spawn()?;
        let deadline = Instant::now() + PATIENCE;
        while self.ask(&["pid"]).is_err() {
            if keeper.try_wait()?.is_some() || Instant::now() > deadline {
                let said = std::fs::read_to_string(self.log()).unwrap_or_default();
                return Err(io::Error::other(format!("it did not come up:\n{said}")));
            }
            #[expect(clippy::disallowed_methods, reason = "no runtime here, and a deadline ends the loop")]
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Ends the region, and returns when nothing of it is left.
    ///
    /// # Errors
    /// It does not end.
    pub fn down(&self) -> io::Result<()> {
        let Ok(lock) = File::open(self.0.join("lock")) else { return Ok(()) };
        // One that does not answer may be on its way up or down; the lock tells.
        let _ = self.ask(&["down"]);
        let deadline = Instant::now() + PATIENCE;
        while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            if Instant::now() > deadline {
                return Err(io::Error::other("it does not end"));
            }
            #[expect(clippy::disallowed_methods, reason = "no runtime here, and a deadline ends the loop")]
            std::thread::sleep(Duration::from_millis(50));
        }
        std::fs::remove_dir_all(&self.0)
    }

    /// Asks the process that keeps the region.
    ///
    /// # Errors
    /// There is none, or it refuses.
    pub fn ask(&self, words: &[&str]) -> io::Result<String> {
        let no_bed = |_| io::Error::other("there is no bed; `tests/bed up 9` makes one");
        let mut stream = UnixStream::connect(self.socket()).map_err(no_bed)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        writeln!(stream, "{}", json!(words))?;
        let mut answer = String::new();
        BufReader::new(&mut stream).read_line(&mut answer)?;
        let answer: Value = serde_json::from_str(&answer).map_err(io::Error::other)?;
        let text = |key: &str| answer[key].as_str().map(str::to_owned);
        text("said").ok_or_else(|| io::Error::other(text("refused").unwrap_or_default()))
    }

    /// Becomes a command in the region's network, as the account's owner.
    ///
    /// # Errors
    /// There is no region, or the command cannot be run.
    pub fn run(&self, words: &[String]) -> io::Result<()> {
        let pid = self.ask(&["pid"])?;
        let folder = std::env::current_dir()?;
        let programs = binary("bootstrap");
        let venv = std::env::var("TESTS_VENV").unwrap_or_default();
        let beside = programs.parent().unwrap_or(Path::new("/")).display();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &pid, "--net", "--mount"])
            .arg(format!("--wd={}", folder.display()))
            .arg("--")
            .args(words)
            .env("PATH", format!("{beside}:{venv}/bin:{path}"))
            .env("AWS_ENDPOINT_URL", self.ask(&["endpoint"])?)
            // Nothing of the user's: neither credentials nor files could reach AWS.
            .env("AWS_ACCESS_KEY_ID", "testing")
            .env("AWS_SECRET_ACCESS_KEY", "testing")
            .env("AWS_REGION", REGION)
            .env("AWS_DEFAULT_REGION", REGION)
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .env("AWS_EC2_METADATA_DISABLED", "true");
        for name in ["AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE", "http_proxy", "https_proxy"] {
            command.env_remove(name);
        }
        Err(command.exec())
    }

    /// Becomes a command in the machine of an instance; a shell if no command is given.
    ///
    /// # Errors
    /// There is no such machine, it is off, or the command cannot be run.
    pub fn shell(&self, id: &str, words: &[String]) -> io::Result<()> {
        let leader = self.ask(&["leader", id])?;
        let mut command = Command::new("nsenter");
        command.args(["--target", &leader, "--all", "--"]).env("HOME", "/root");
        if words.is_empty() {
            command.args(["bash", "-l"]);
        } else {
            command.args(["bash", "-c", &words.join(" ")]);
        }
        Err(command.exec())
    }

    /// Keeps a region until it is told to end.
    ///
    /// # Errors
    /// Another process keeps one.
    pub async fn serve(&self, room: u32) -> io::Result<()> {
        let lock = File::create(self.0.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        // What one has left behind that was killed.
        let _ = std::fs::remove_dir_all(self.files());
        std::fs::create_dir(self.files())?;
        let mut owner = Owner::of_the_bed()?;
        let mut region = Region::up(room).await;
        // One that was left behind by a kill.
        let _ = std::fs::remove_file(self.socket());
        let listener = UnixListener::bind(self.socket())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => accepted?.0,
                said = region.failed() => return Err(io::Error::other(said)),
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                () = owner.ended() => break,
            };
            let mut stream = tokio::io::BufReader::new(stream);
            let mut line = String::new();
            // Who does not ask, or does not wait for the answer, has none.
            let asked = tokio::time::timeout(Duration::from_secs(5), stream.read_line(&mut line)).await;
            let Ok(Ok(_)) = asked else { continue };
            let words: Vec<String> = serde_json::from_str(&line).unwrap_or_default();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let ends = words == ["down"];
            let answer = match answer(&region, &words).await {
                Ok(said) => json!({ "said": said }),
                Err(refused) => json!({ "refused": refused }),
            };
            let _ = stream.write_all(format!("{answer}\n").as_bytes()).await;
            if ends {
                break;
            }
        }
        drop(region);
        Ok(())
    }
}

/// The process that a bed ends with, if one was named: a test that is killed can clean up nothing.
struct Owner(Option<oneshot::Receiver<()>>);

impl Owner {
    fn of_the_bed() -> io::Result<Self> {
        let Some(pid) = std::env::var_os("TESTS_BED_ENDS_WITH") else {
            return Ok(Self(None));
        };
        let pid = pid.to_str().and_then(|pid| Pid::from_raw(pid.parse().ok()?));
        let pid = pid.ok_or_else(|| io::Error::other("TESTS_BED_ENDS_WITH is not a process's number"))?;
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        let (tell, ended) = oneshot::channel();
        std::thread::spawn(move || {
            // It is readable when the process has ended.
            let mut watched = [PollFd::new(&process, PollFlags::IN)];
            while poll(&mut watched, None) == Err(Errno::INTR) {}
            // Nobody listens any more where the bed has ended before.
            let _ = tell.send(());
        });
        Ok(Self(Some(ended)))
    }

    async fn ended(&mut self) {
        match &mut self.0 {
            Some(ended) => drop(ended.await),
            None => std::future::pending().await,
        }
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

async fn answer(region: &Region, words: &[&str]) -> Result<String, String> {
    let machine = |id: &str| {
        let found = region.machines().into_iter().find(|machine| machine.id == id);
        found.ok_or_else(|| format!("there is no machine {id}"))
    };
    let on = |id: &str| {
        let machine = machine(id)?;
        if machine.power() == Power::On { Ok(machine) } else { Err(format!("{id} is {:?}", machine.power())) }
    };
    match words {
        ["pid"] => Ok(std::process::id().to_string()),
        ["down"] => Ok(String::new()),
        ["endpoint"] => Ok(region.account.endpoint().to_owned()),
        ["status"] => Ok(status(region).await),
        ["leader", id] => {
            let leader = on(id)?.leader().await;
            leader.map(|pid| pid.to_string()).ok_or_else(|| format!("{id} is not up yet"))
        }
        ["cut", id] => {
            on(id)?.cut().await;
            Ok(String::new())
        }
        ["plug", id] => {
            let machine = machine(id)?;
            if machine.power() != Power::Off || !machine.instance().is_on() {
                return Err(format!(
                    "{id} is {:?}, its instance {}",
                    machine.power(),
                    machine.instance().state
                ));
            }
            machine.plug_in().await;
            Ok(String::new())
        }
        ["spot", id] => {
            on(id)?.tell_spot_interruption();
            Ok(String::new())
        }
        ["rebalance", id] => {
            on(id)?.tell_rebalance();
            Ok(String::new())
        }
        ["lifecycle", id, state] => {
            on(id)?.tell_lifecycle(state);
            Ok(String::new())
        }
        _ => Err(format!("the bed does not know {words:?}")),
    }
}

/// A line for each machine: its instance, and what its target groups' balancers say of it.
async fn status(region: &Region) -> String {
    let mut lines = Vec::new();
    for machine in region.machines() {
        let instance = machine.instance();
        let address = |address: Option<std::net::Ipv4Addr>| {
            address.map_or_else(|| "-".to_owned(), |address| address.to_string())
        };
        let fleet = instance.tag(instance_contract::tags::FLEET).unwrap_or("-");
        let mut health = Vec::new();
        for group in
            instance.tag(instance_contract::tags::TARGET_GROUP).unwrap_or_default().split_whitespace()
        {
            let told = region.health(group, &machine.id).await;
            let told = told.map_or_else(|| "not registered".to_owned(), |(state, _)| state);
            health.push(format!("{group}: {told}"));
        }
        let (private, public) = (address(instance.private), address(instance.public));
        lines.push(format!(
            "{} {} {:?} {} {private} {public} {fleet} {}",
            machine.id,
            instance.state,
            machine.power(),
            instance.zone,
            health.join(", ")
        ));
    }
    lines.join("\n")
}
