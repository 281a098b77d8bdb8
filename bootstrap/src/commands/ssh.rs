//! `ssh` and `logs`: the user's own ssh, with the right address, user and key.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, anyhow, bail};
use futures_util::{StreamExt, stream};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;

use super::fleet_request::ExistingFleet;
use super::status::{InstanceRow, rows, snapshot};
use crate::cloud::look::look;
use crate::fleet::Fleet;
use crate::output::{Outcome, WrongUsage, print, remark};

/// How many instances run a command at a time.
const AT_ONCE: usize = 16;

/// ssh's exit status for its own failures.
const SSH_FAILED: u8 = 255;

/// Which instances, and how to log in.
#[derive(Debug)]
pub(crate) struct Login {
    /// An instance's id, or a group's name.
    pub(crate) on: Option<String>,
    pub(crate) all: bool,
    pub(crate) user: Option<String>,
    pub(crate) identity: Option<PathBuf>,
}

/// Which part of the journal.
#[derive(Debug)]
pub(crate) struct Logs {
    pub(crate) lines: u32,
    pub(crate) follow: bool,
}

/// Logs in to one instance, or runs a command on one or all.
///
/// # Errors
/// A call failed; there is no such instance; ssh cannot be run.
pub(crate) async fn ssh(fleet: ExistingFleet, login: Login, command: Vec<String>) -> Result<Outcome> {
    if login.all && command.is_empty() {
        return Err(
            WrongUsage("--all needs a command: `bootstrap ssh FLEET --all -- uptime`".to_owned()).into()
        );
    }
    let (fleet, chosen) = choose(fleet, &login).await?;
    match &chosen[..] {
        [one] if !login.all => become_ssh(&fleet, &login, one, &command),
        all => on_each(&fleet, &login, all, &command).await,
    }
}

/// Shows the service's journal of one instance or of all.
///
/// # Errors
/// As [`ssh`].
pub(crate) async fn logs(fleet: ExistingFleet, login: Login, logs: Logs) -> Result<Outcome> {
    // Where nothing is named, all: a log is searched before one knows where.
    let login = Login { all: login.on.is_none(), ..login };
    let (fleet, chosen) = choose(fleet, &login).await?;
    let mut command =
        format!("sudo -n journalctl -u instance-agent -o short-iso --no-hostname -n {}", logs.lines);
    command.push_str(if logs.follow { " --follow" } else { " --no-pager" });
    match &chosen[..] {
        [one] if !login.all => become_ssh(&fleet, &login, one, &[command]),
        all => on_each(&fleet, &login, all, &[command]).await,
    }
}

/// The fleet, and the instances that are meant: those that run and have an address.
async fn choose(fleet: ExistingFleet, login: &Login) -> Result<(Fleet, Vec<InstanceRow>)> {
    let (cloud, name) = fleet.connect().await?;
    let found = look(snapshot(&cloud, &name)).await??;
    let rows = rows(&found.desired, &found.have, Some(&found.health));
    let fleet = found.desired.fleet;
    let known = || {
        let names: Vec<_> = fleet.groups.iter().map(|group| group.name.as_str()).collect();
        format!(
            "name one of its instances (`bootstrap status {name}` shows them) or groups: {}",
            names.join(", ")
        )
    };
    let meant = |row: &InstanceRow| login.on.as_ref().is_none_or(|on| row.id == *on || row.group == *on);
    let (reachable, others): (Vec<_>, Vec<_>) =
        rows.into_iter().filter(meant).partition(|row| row.state == "running" && row.address.is_some());
    if reachable.is_empty() {
        match (others.first(), &login.on) {
            (Some(row), _) => bail!("{} is {}: ssh needs an instance that runs", row.id, row.state),
            (None, Some(on)) => bail!("fleet {name} has no {on}; {}", known()),
            (None, None) => bail!("no instance of fleet {name} runs"),
        }
    }
    if login.all {
        for row in &others {
            remark(&format!("{} is {}: left out", row.id, row.state));
        }
        return Ok((fleet, reachable));
    }
    // A healthy one, where the choice is free.
    let several = reachable.len() > 1;
    let one = reachable.into_iter().max_by_key(|row| row.is_healthy).into_iter().collect::<Vec<_>>();
    if let Some(row) = one.first().filter(|_| several) {
        remark(&format!("{} ({}, {})", row.id, row.group, row.target_state));
    }
    Ok((fleet, one))
}

/// The arguments of ssh for an instance.
fn arguments(fleet: &Fleet, login: &Login, row: &InstanceRow, command: &[String]) -> Vec<String> {
    let mut words = vec![
        // The key of a new instance is taken as it is, and known from then on by the instance's id: another instance may
        // get the same address.
        "-o".to_owned(),
        "StrictHostKeyChecking=accept-new".to_owned(),
        "-o".to_owned(),
        format!("HostKeyAlias={}", row.id),
    ];
    if let Some(user) = login.user.clone().or_else(|| user_of(&fleet.image).map(str::to_owned)) {
        words.extend(["-l".to_owned(), user]);
    }
    if let Some(identity) = login.identity.clone().or_else(|| key_of(fleet)) {
        words.extend(["-i".to_owned(), identity.to_string_lossy().into_owned()]);
    }
    words.push(row.address.clone().unwrap_or_default());
    words.extend_from_slice(command);
    words
}

/// The user whom the image's makers give the key pair to. An image without a name here is Ubuntu's, unless told.
fn user_of(image: &str) -> Option<&'static str> {
    match image.split('-').next() {
        Some("ubuntu" | "ami") => Some("ubuntu"),
        Some("debian") => Some("admin"),
        Some("amazon") => Some("ec2-user"),
        _ => None,
    }
}

/// The file of the fleet's key pair, if it lies where keys lie. Otherwise ssh looks for keys itself.
fn key_of(fleet: &Fleet) -> Option<PathBuf> {
    let folder = std::env::home_dir()?.join(".ssh");
    let name = fleet.key_pair.as_ref()?;
    [format!("{name}.pem"), name.clone()]
        .map(|file| folder.join(file))
        .into_iter()
        .find(|file| file.is_file())
}

/// Replaces this program by ssh, which then has the terminal and gives the exit status.
fn become_ssh(fleet: &Fleet, login: &Login, row: &InstanceRow, command: &[String]) -> Result<Outcome> {
    let error = std::process::Command::new("ssh").args(arguments(fleet, login, row, command)).exec();
    Err(not_run(error))
}

fn not_run(error: std::io::Error) -> anyhow::Error {
    anyhow!("cannot run ssh: {error}; install the OpenSSH client (package openssh-client)")
}

/// Runs a command on all, each line with the instance's id before it. The worst exit status is that of the whole.
async fn on_each(fleet: &Fleet, login: &Login, all: &[InstanceRow], command: &[String]) -> Result<Outcome> {
    // Nobody can answer a question of sixteen.
    let batch = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10"].map(str::to_owned);
    let run = async |row: &InstanceRow| -> Result<u8> {
        let mut ssh = Command::new("ssh");
        ssh.args(&batch).args(arguments(fleet, login, row, command)).kill_on_drop(true);
        ssh.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = ssh.spawn().map_err(not_run)?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let said = each_line(out, |line| print(&format!("{}: {line}\n", row.id)));
        let warned = each_line(err, |line| remark(&format!("{}: {line}", row.id)));
        let (_, _, ended) = tokio::join!(said, warned, child.wait());
        let status = ended.context("cannot wait for ssh")?.code();
        Ok(status.and_then(|code| u8::try_from(code).ok()).unwrap_or(SSH_FAILED))
    };
    let mut worst = 0;
    let mut failed = Vec::new();
    let mut ended =
        stream::iter(all).map(|row| async move { (row, run(row).await) }).buffer_unordered(AT_ONCE);
    while let Some((row, status)) = ended.next().await {
        let status = status?;
        if status != 0 {
            failed.push(format!("{} ({status})", row.id));
        }
        worst = worst.max(status);
    }
    if !failed.is_empty() {
        remark(&format!("{} of {} instances failed: {}", failed.len(), all.len(), failed.join(", ")));
    }
    Ok(if worst == 0 { Outcome::Done } else { Outcome::Exits(worst) })
}

async fn each_line(stream: Option<impl AsyncRead + Unpin>, show: impl Fn(&str)) {
    let Some(stream) = stream else { return };
    let mut lines = BufReader::new(stream).split(b'\n');
    // A stream that breaks ends as one that is over: ssh's exit status tells.
    while let Ok(Some(line)) = lines.next_segment().await {
        show(String::from_utf8_lossy(&line).trim_end_matches('\r'));
    }
}
