//! The built `bootstrap` as a process, with nothing of the user's around it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::process::{Child, Command};

use super::{Account, REGION};
use crate::{binary, send};

/// The longest that a command may take, on a machine that is busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// A command of `bootstrap` that runs, or will.
pub struct Bootstrap {
    command: Command,
    said: String,
}

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Its exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it told the user beside that.
    pub stderr: String,
    said: String,
}

/// A command that was started.
pub struct Running {
    child: Child,
    said: String,
}

impl Account {
    /// A command of `bootstrap` in this account, as its owner.
    pub fn bootstrap(&self, arguments: &[&str]) -> Bootstrap {
        self.bootstrap_at(&binary("bootstrap"), arguments)
    }

    /// A command of this `bootstrap` in this account, as its owner.
    pub fn bootstrap_at(&self, program: &Path, arguments: &[&str]) -> Bootstrap {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            // Nothing of the user's: neither credentials nor files could reach AWS.
            .env("AWS_ENDPOINT_URL", self.endpoint())
            .env("AWS_ACCESS_KEY_ID", "testing")
            .env("AWS_SECRET_ACCESS_KEY", "testing")
            .env("AWS_REGION", REGION)
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("HOME", self.folder.path())
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Bootstrap { command, said: arguments.join(" ") }
    }

    /// Runs a command of `bootstrap` to its end.
    pub async fn run(&self, arguments: &[&str]) -> Ran {
        self.bootstrap(arguments).run().await
    }

    /// Runs a command of `bootstrap` that has to succeed.
    pub async fn ok(&self, arguments: &[&str]) -> Ran {
        self.run(arguments).await.success()
    }
}

impl Bootstrap {
    /// Sets a variable of its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Takes a variable out of its environment.
    pub fn without(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Sends its results there.
    pub fn stdout(mut self, to: impl Into<Stdio>) -> Self {
        self.command.stdout(to);
        self
    }

    /// Reads answers from there.
    pub fn stdin(mut self, from: impl Into<Stdio>) -> Self {
        self.command.stdin(from);
        self
    }

    /// Sends its remarks there.
    pub fn stderr(mut self, to: impl Into<Stdio>) -> Self {
        self.command.stderr(to);
        self
    }

    /// Runs it to its end.
    pub async fn run(self) -> Ran {
        self.start().end().await
    }

    /// Starts it.
    pub fn start(mut self) -> Running {
        Running { child: self.command.spawn().expect("it starts"), said: self.said }
    }
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("not waited for yet")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        send(signal, self.pid());
    }

    /// Waits for its end.
    pub async fn end(self) -> Ran {
        self.end_within(PATIENCE).await
    }

    /// Waits for its end for as long as this.
    pub async fn end_within(self, patience: Duration) -> Ran {
        let Self { child, said } = self;
        let output = tokio::time::timeout(patience, child.wait_with_output()).await;
        let output = output.unwrap_or_else(|_| panic!("bootstrap {said} did not end")).expect("a status");
        Ran {
            status: output.status.code(),
            stdout: crate::text(&output.stdout),
            stderr: crate::text(&output.stderr),
            said,
        }
    }
}

impl Ran {
    /// Asserts that it succeeded.
    #[track_caller]
    pub fn success(self) -> Self {
        self.exits(0)
    }

    /// Asserts how it exited.
    #[track_caller]
    pub fn exits(self, status: i32) -> Self {
        assert_eq!(self.status, Some(status), "bootstrap {}\n{}\n{}", self.said, self.stdout, self.stderr);
        self
    }

    /// Asserts that the user was told this.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        let told = self.stdout.contains(text) || self.stderr.contains(text);
        assert!(told, "bootstrap {} never said {text:?}\n{}\n{}", self.said, self.stdout, self.stderr);
        self
    }

    /// What it printed, as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.stdout, self.stderr))
    }
}
