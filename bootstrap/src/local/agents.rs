//! The agents' processes.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// An agent to start.
#[derive(Clone, Debug)]
pub struct AgentCommand {
    /// The agent's binary.
    pub binary: PathBuf,
    /// Where it serves.
    pub listen: SocketAddr,
    /// Its folder: `state`, `run`, `agent.toml` and `agent.log` are in it. Made if it does not exist.
    pub folder: PathBuf,
    /// What it is told beside the folders and the address.
    pub environment: Vec<(String, String)>,
    /// Further arguments.
    pub arguments: Vec<OsString>,
}

impl AgentCommand {
    /// Where it keeps its seed.
    pub fn state_dir(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// Where its socket is.
    pub fn runtime_dir(&self) -> PathBuf {
        self.folder.join("run")
    }

    /// Where its log goes.
    pub fn log(&self) -> PathBuf {
        self.folder.join("agent.log")
    }

    /// Starts the process; the kernel kills it if this program goes first.
    ///
    /// The kernel sends that signal when the *thread* that forked ends, not the process. So this
    /// must be called from a thread that lives as long as the program, which is why `bootstrap`
    /// runs everything on its main thread. From a runtime with worker threads, call it inside
    /// `block_on`, whose thread is the caller's own.
    ///
    /// # Errors
    /// A folder cannot be made, or the binary not be run.
    pub fn spawn(&self) -> io::Result<AgentProcess> {
        std::fs::create_dir_all(self.state_dir())?;
        std::fs::create_dir_all(self.runtime_dir())?;
        // An empty one: the settings of an agent that is installed on this machine are not meant.
        let settings = self.folder.join("agent.toml");
        File::options().create(true).append(true).open(&settings)?;
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new(&self.binary);
        command
            .arg("serve")
            .arg("--listen")
            .arg(self.listen.to_string())
            .arg("--state-dir")
            .arg(self.state_dir())
            .arg("--runtime-dir")
            .arg(self.runtime_dir())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C in the terminal is for bootstrap alone: it tells the agents, in its own time.
            .process_group(0)
            .kill_on_drop(true);
        for (name, _) in std::env::vars_os() {
            if is_foreign(&name.to_string_lossy()) {
                command.env_remove(&name);
            }
        }
        command.env("INSTANCE_AGENT_CONFIG", settings);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        die_with_parent(&mut command);
        let child = command.spawn()?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Ok(AgentProcess {
            child,
            pid: pid.ok_or_else(|| io::Error::other("the agent ended at once"))?,
            log: self.log(),
        })
    }
}

/// Whether a variable would tell the agent something that is meant for this program or for another
/// fleet: real AWS settings, a proxy, or systemd's words to bootstrap.
fn is_foreign(name: &str) -> bool {
    let exact = [
        "NOTIFY_SOCKET",
        "JOURNAL_STREAM",
        "STATE_DIRECTORY",
        "RUNTIME_DIRECTORY",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
        "LISTEN_PID",
    ];
    name.starts_with("AWS_")
        || name.starts_with("INSTANCE_AGENT_")
        || name.to_ascii_lowercase().ends_with("_proxy")
        || exact.contains(&name)
}

#[expect(
    unsafe_code,
    reason = "pre_exec is unsafe: its closure runs between fork and exec. It only makes two system \
              calls, allocates nothing and takes no lock."
)]
fn die_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    let arrange = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // If the parent went before that call, no signal will come: do not start at all.
        if rustix::process::getppid() != Some(parent) {
            return Err(io::ErrorKind::Other.into());
        }
        Ok(())
    };
    // SAFETY: `arrange` is async-signal-safe, see above.
    unsafe {
        command.pre_exec(arrange);
    }
}

/// A running agent. Dropping it kills the process.
#[derive(Debug)]
pub struct AgentProcess {
    child: Child,
    pid: Pid,
    log: PathBuf,
}

impl AgentProcess {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Its log file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Asks it to drain and exit (SIGTERM). Nothing happens if it has ended.
    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    /// Kills it (SIGKILL). Nothing happens if it has ended.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
    }

    fn signal(&mut self, signal: Signal) {
        // Asked first: the number of a process that was waited for may be another's by now.
        if let Ok(None) = self.child.try_wait() {
            let _ = kill_process(self.pid, signal);
        }
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// The system cannot wait for it.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// The last lines of its log, at most `count`.
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let start = lines.len().saturating_sub(count);
        lines.iter().skip(start).map(|line| (*line).to_owned()).collect()
    }
}
