//! Commands in the virtual machine, by ssh, as root.

use std::ffi::OsString;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::{BOOT, COMMAND, Guest, INSTANCE, dies_with_us};
use crate::solo::program;
use crate::{text, within};

impl Guest {
    /// Waits until root can log in, and stays logged in: each command by itself would cost a second.
    pub async fn log_in(&mut self) {
        let control = self.path("control");
        let again = async || {
            self.check();
            let _ = std::fs::remove_file(&control);
            let master = ["-M", "-N", "-o", "ConnectTimeout=10"];
            let mut master = self.ssh(&dies_with_us(), &master).stderr(Stdio::null()).spawn().expect("ssh");
            loop {
                if matches!(master.try_wait(), Ok(Some(_))) {
                    return None;
                }
                let check = self.ssh(&[], &["-O", "check"]).stderr(Stdio::null()).status().await;
                if check.is_ok_and(|status| status.success()) {
                    return Some(master);
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        let shell = within(BOOT, again).await;
        assert!(shell.is_some(), "nobody could log in:\n{}", self.console());
        self.shell = shell;
    }

    fn ssh(&self, wrapper: &[OsString], arguments: &[&str]) -> Command {
        let options = [
            "BatchMode=yes".to_owned(),
            "LogLevel=ERROR".to_owned(),
            "StrictHostKeyChecking=no".to_owned(),
            "UserKnownHostsFile=/dev/null".to_owned(),
            "ServerAliveInterval=30".to_owned(),
            format!("IdentityFile={}", self.path("key").display()),
            format!("ControlPath={}", self.path("control").display()),
        ];
        let options = options.iter().flat_map(|option| ["-o", option.as_str()]);
        let address = format!("root@{INSTANCE}");
        let words = ["-F", "none"].into_iter().chain(options).chain(arguments.iter().copied());
        // The command, if there is one, comes after the address.
        let (mut words, mut command) = (words.collect::<Vec<_>>(), None);
        if let ["--", script] = arguments[..] {
            words.truncate(words.len() - 2);
            command = Some(script);
        }
        words.push(&address);
        words.extend(command);
        let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
        program(wrapper, "ssh".as_ref(), &words, &[])
    }

    /// Runs a shell script in the guest, as root.
    pub async fn run(&self, script: &str) -> Output {
        let run = self.ssh(&[], &["--", script]).output();
        match tokio::time::timeout(COMMAND, run).await {
            Ok(output) => output.expect("ssh starts"),
            Err(_) => panic!("{script} did not end:\n{}", self.console()),
        }
    }

    /// What a shell script that has to succeed printed.
    pub async fn ok(&self, script: &str) -> String {
        let output = self.run(script).await;
        assert!(output.status.success(), "{script}: {output:?}");
        text(&output.stdout).trim_end().to_owned()
    }

    /// Waits until a shell script succeeds.
    pub async fn until(&self, limit: Duration, script: &str) {
        let done = within(limit, async || self.run(script).await.status.success().then_some(())).await;
        assert!(done.is_some(), "never succeeded: {script}: {:?}", self.run(script).await);
    }

    /// Puts a file into the guest.
    pub async fn put(&self, path: &str, contents: &str) {
        use tokio::io::AsyncWriteExt;
        let mut command = self.ssh(&[], &["--", &format!("cat >{path}")]);
        let mut child = command.stdin(Stdio::piped()).spawn().expect("ssh starts");
        let mut input = child.stdin.take().expect("piped");
        input.write_all(contents.as_bytes()).await.expect("it is read");
        drop(input);
        let ended = tokio::time::timeout(COMMAND, child.wait()).await.expect("it ends");
        assert!(ended.expect("a status").success(), "{path}");
    }

    /// Starts a shell script that goes on beside the test.
    pub fn start(&self, script: &str) -> Job {
        let mut command = self.ssh(&[], &["--", script]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("ssh starts");
        let input = child.stdin.take().expect("piped");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Job { child, input, lines }
    }
}

/// A script that runs in the guest.
pub struct Job {
    child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Job {
    /// The next line that it prints.
    pub async fn line(&mut self) -> String {
        let line = tokio::time::timeout(COMMAND, self.lines.next_line()).await.expect("a line in time");
        line.expect("it can be read").expect("it has not ended")
    }

    /// Gives it a line to read, and waits for its end.
    pub async fn end(mut self) {
        self.input.write_all(b"\n").await.expect("it reads");
        let ended = tokio::time::timeout(COMMAND, self.child.wait()).await.expect("it ends");
        assert!(ended.expect("a status").success());
    }
}
