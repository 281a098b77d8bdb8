//! `launch --local` as a process, with agents that are shell scripts: what it does when they fail,
//! and that nothing outlives it.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);

/// An agent that does this; its state folder is `$5`.
fn agent(dir: &Path, script: &str) -> PathBuf {
    let path = dir.join("agent.sh");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn bootstrap(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bootstrap"));
    command.args(["launch", "--local", "seed", "--port=0"]);
    command.args(arguments);
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Waits for a condition on other processes, which nothing here is told of.
fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "{what}");
        #[expect(clippy::disallowed_methods, reason = "no runtime here, and a deadline ends the loop")]
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Agents that note their process id and then wait.
const WAITING: &str = "echo $$ > $5/new; mv $5/new $5/pid; exec sleep 600";

fn pids(dir: &Path) -> Vec<u32> {
    let folders = fs::read_dir(dir).into_iter().flatten();
    let files = folders.filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("state/pid")).ok());
    files.filter_map(|text| text.trim().parse().ok()).collect()
}

/// Whether a process runs; one that ended and was not waited for does not.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn a_launch_on_aws_that_cannot_begin_says_why_in_one_line() {
    let output = Command::new(env!("CARGO_BIN_EXE_bootstrap")).arg("launch").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
}

#[test]
fn a_fleet_that_does_not_become_healthy_exits_3_with_reasons() {
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(dir.path(), "echo this is why >&2; exec sleep 600");
    let arguments = ["--timeout=500ms", "--agent", agent.to_str().unwrap()];
    let output = bootstrap(&arguments).env("TMPDIR", dir.path()).output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert_eq!(text.matches("Target.NotRegistered").count(), 2, "{text}");
    assert_eq!(text.matches("    this is why").count(), 2, "{text}");
    let folder = text.split("folders are in ").nth(1).unwrap().lines().next().unwrap();
    assert_eq!(text.lines().last(), Some(&*format!("seeds and logs are in {folder}")));
    let logs = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path().join("agent.log"));
    assert!(logs.into_iter().all(|log| fs::read_to_string(log).unwrap().contains("this is why")), "{text}");
}

#[test]
fn an_agent_that_ends_early_fails_the_launch_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(dir.path(), "echo no such setting >&2; exit 7");
    let arguments = ["--timeout=10m", "--agent", agent.to_str().unwrap()];
    let output = bootstrap(&arguments).env("TMPDIR", dir.path()).output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("exit status: 7") && text.contains("    no such setting"), "{text}");
    let (_, folder) = text.trim_end().split_once("healthy; seeds and logs are in ").unwrap();
    assert!(fs::read_dir(folder).unwrap().count() == 2, "{text}");
}

#[test]
fn a_wrong_argument_of_the_agents_is_told_once_and_without_their_usage() {
    let dir = tempfile::tempdir().unwrap();
    let said = "info: begins\nerror: unexpected argument\n\n  tip: another one\n\nUsage: agent\n\nFor more";
    let agent = agent(dir.path(), &format!("printf '{}' >&2; exit 2", said.replace('\n', "\\n")));
    let output = bootstrap(&["--agent", agent.to_str().unwrap()]).env("TMPDIR", dir.path()).output().unwrap();
    let text = stderr(&output);
    let told = ": the agent ended (exit status: 2); not restarted\n    error: unexpected argument\n      tip: another \
                one\n2 of 2 stopped\n";
    assert!(text.contains(told), "{text}");
    assert_eq!(text.matches("the agent ended").count(), 1, "{text}");
}

#[test]
fn agents_are_told_this_fleet_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(dir.path(), "echo \"$@\" > $5/arguments; env > $5/environment; exit 1");
    let kept = dir.path().join("kept");
    let arguments = [
        "--agent-arg=--log-level=debug",
        "--dir",
        kept.to_str().unwrap(),
        "--agent",
        agent.to_str().unwrap(),
    ];
    bootstrap(&arguments)
        .env("AWS_PROFILE", "real")
        .env("INSTANCE_AGENT_ROOT", "health")
        .env("HTTP_PROXY", "http://proxy")
        .output()
        .unwrap();
    let told = |file: &str| {
        let mut texts = fs::read_dir(&kept)
            .unwrap()
            .filter_map(|entry| fs::read_to_string(entry.unwrap().path().join("state").join(file)).ok());
        texts.find(|text| !text.is_empty()).unwrap()
    };
    let arguments = told("arguments");
    assert!(arguments.starts_with("serve --listen 127."), "{arguments}");
    assert!(arguments.ends_with(" --log-level=debug\n"), "{arguments}");
    let mut names: Vec<_> = told("environment")
        .lines()
        .filter_map(|line| Some(line.split_once('=')?.0.to_owned()))
        .filter(|name| {
            name.starts_with("AWS_")
                || name.starts_with("INSTANCE_AGENT_")
                || name.to_ascii_lowercase().ends_with("_proxy")
        })
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "AWS_CONFIG_FILE",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT",
            "AWS_ENDPOINT_URL_EC2",
            "AWS_ENDPOINT_URL_ELASTIC_LOAD_BALANCING_V2",
            "AWS_SHARED_CREDENTIALS_FILE",
            "INSTANCE_AGENT_CONFIG",
            "INSTANCE_AGENT_DRAIN_QUIET",
        ]
    );
}

#[test]
fn a_taken_port_is_named_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(dir.path(), WAITING);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bootstrap"));
    command.args(["launch", "--local", "seed", "--agent"]).arg(&agent);
    let output = command.arg(format!("--port={port}")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains(&format!("127.0.0.1:{port} is in use")), "{text}");
    assert!(text.contains("--port") && text.lines().count() == 1, "{text}");
}

#[test]
fn a_signal_takes_everything_down_and_so_does_kill_9() {
    for signal in ["-TERM", "-KILL"] {
        let dir = tempfile::tempdir().unwrap();
        let agent = agent(dir.path(), WAITING);
        let kept = dir.path().join("kept");
        let arguments = ["--dir", kept.to_str().unwrap(), "--agent", agent.to_str().unwrap()];
        let mut child = bootstrap(&arguments).spawn().unwrap();
        wait_for("both agents run", || pids(&kept).len() == 2);
        let again = bootstrap(&arguments).output().unwrap();
        assert_eq!(again.status.code(), Some(1));
        assert!(stderr(&again).contains("another launch uses the folder"), "{}", stderr(&again));

        let pid = child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        let status = child.wait().unwrap();
        // It was not what was asked for: not all were healthy yet.
        assert_eq!(status.code(), (signal == "-TERM").then_some(1), "{status}");
        wait_for("no agent is left", || !pids(&kept).into_iter().any(runs));
    }
}
