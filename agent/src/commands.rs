//! The commands that ask a running agent: status, drain, resume, reload.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use http::Method;
use instance_contract::{duration, one_line};

use crate::admin::{self, AskError};
use crate::backoff::Backoff;
use crate::cli::{AgentArgs, Output};
use crate::config::Layers;
use crate::status::{AgentStatus, Phase, Registration, ReloadOutcome, ReloadStatus};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(
        "cannot read the status of the running agent: {0}; its version may differ from this command's: run `instance-agent reload`"
    )]
    Status(#[from] serde_json::Error),
    #[error("reload refused: {0}")]
    ReloadRefused(String),
    #[error(
        "the reload did not finish within {RELOAD_PATIENCE:?}; `instance-agent status` shows its progress"
    )]
    ReloadLate,
    /// `--wait` reached its timeout.
    #[error(
        "not {state} within {limit}: still waiting for {waits_for}; `instance-agent status` shows the progress"
    )]
    Late { state: &'static str, limit: String, waits_for: String },
    /// `resume --wait`, but another reason keeps the instance out.
    #[error("not registered: another reason keeps the instance deregistered: {0}")]
    StaysOut(String),
    /// `drain --wait`, but someone ran `resume`.
    #[error("the drain was cancelled: the agent is {0}")]
    CalledOff(Phase),
}

const RELOAD_PATIENCE: Duration = Duration::from_secs(30);

/// The status, after the agent has asked AWS again if its last answer is old.
const FRESH_STATUS: &str = "status?refresh";

/// The default timeout of `resume --wait`.
const RESUME_PATIENCE: Duration = Duration::from_secs(300);

/// What a command waits for first: a process that is stopped carries the request out when it continues.
const UNANSWERED_DRAIN: &str = "the agent's answer, and the agent may still drain";
const UNANSWERED_RESUME: &str = "the agent's answer, and the agent may still resume";

/// In characters.
const LONGEST_WAIT: usize = 1_000;

/// How many requests in a row may fail while one program replaces another.
const UNANSWERED: u32 = 10;

/// The commands must work even if the settings have errors: they need only this folder.
fn runtime_dir(args: AgentArgs) -> PathBuf {
    if let Some(named) = args.runtime_dir {
        return named;
    }
    let (folder, mistakes) = Layers::read([], std::env::vars_os(), args.config.as_deref()).runtime_dir();
    if let Some(mistakes) = mistakes {
        // If stderr is closed, there is nowhere to report it.
        _ = writeln!(
            io::stderr(),
            "instance-agent: invalid settings; asking the agent in {} anyway:\n{mistakes}",
            folder.display()
        );
    }
    folder
}

pub(crate) async fn status(output: Output, args: AgentArgs) -> Result<String, CommandError> {
    let json = admin::request(&runtime_dir(args), Method::GET, FRESH_STATUS).await?;
    Ok(match output {
        Output::Json => format!("{json}\n"),
        Output::Text => serde_json::from_str::<AgentStatus>(&json)?.table(),
    })
}

pub(crate) async fn drain(
    wait: bool,
    timeout: Option<Duration>,
    args: AgentArgs,
) -> Result<String, CommandError> {
    let runtime_dir = runtime_dir(args);
    let limit = WaitLimit::of("drained", timeout);
    let said = limit.keep(UNANSWERED_DRAIN, admin::request(&runtime_dir, Method::POST, "drain")).await??;
    if !wait {
        return Ok(said);
    }
    let step = |registration: &Registration| match registration.phase {
        Phase::Drained => Ok(None),
        Phase::Serving => Err(CommandError::CalledOff(Phase::Serving)),
        Phase::Starting | Phase::Draining => Ok(Some(registration.drain_waits_for())),
    };
    // Its last line explains how to wait. If stderr is closed, there is nowhere to report it.
    let lines = said.lines().take(2).map(|line| format!("{line}\n"));
    _ = write!(io::stderr(), "{}", lines.collect::<String>());
    // Without a timeout the wait still ends: the agent ends a drain at its drain-timeout.
    let drained = until(&runtime_dir, "status", limit, step).await?;
    let left =
        drained.target_groups.iter().filter(|group| group.problem.is_some()).map(|group| {
            format!("warning: may still be registered with target group {}\n", group.in_words())
        });
    Ok(format!("drained\n{}", left.collect::<String>()))
}

pub(crate) async fn resume(
    wait: bool,
    timeout: Option<Duration>,
    args: AgentArgs,
) -> Result<String, CommandError> {
    let runtime_dir = runtime_dir(args);
    let limit = WaitLimit::of("healthy", Some(timeout.unwrap_or(RESUME_PATIENCE)));
    let said = limit.keep(UNANSWERED_RESUME, admin::request(&runtime_dir, Method::POST, "resume")).await??;
    if !wait {
        return Ok(said);
    }
    let step = |registration: &Registration| match (registration.phase, &registration.reason) {
        (Phase::Serving, _) => Ok(registration.without_traffic()),
        (Phase::Starting, _) => Ok(Some("the instance's identity and notices".to_owned())),
        (_, reason) => Err(CommandError::StaysOut(reason.clone().unwrap_or_default())),
    };
    _ = write!(io::stderr(), "{said}");
    // The agent asks AWS by itself as well, but after longer and longer pauses.
    let serving = until(&runtime_dir, FRESH_STATUS, limit, step).await?;
    if serving.target_groups.is_empty() {
        return Ok("serving; no target group is set\n".to_owned());
    }
    Ok("healthy\n".to_owned())
}

/// How long a command waits for a state.
#[derive(Clone, Copy)]
struct WaitLimit {
    state: &'static str,
    limit: Option<Duration>,
    begun: Instant,
}

impl WaitLimit {
    fn of(state: &'static str, limit: Option<Duration>) -> Self {
        Self { state, limit, begun: Instant::now() }
    }

    /// Waits for `work`, as long as the limit allows.
    async fn keep<T>(&self, waits_for: &str, work: impl Future<Output = T>) -> Result<T, CommandError> {
        let Some(limit) = self.limit else { return Ok(work.await) };
        let left = limit.saturating_sub(self.begun.elapsed());
        tokio::time::timeout(left, work).await.map_err(|_| self.late(waits_for))
    }

    fn late(&self, waits_for: &str) -> CommandError {
        let limit = duration::format(self.limit.unwrap_or_default());
        CommandError::Late { state: self.state, limit, waits_for: waits_for.to_owned() }
    }
}

/// Asks for the status until `step` returns `None`; the last answer. Prints on stderr what `step` waits for, whenever it
/// changes.
async fn until(
    runtime_dir: &Path,
    question: &str,
    limit: WaitLimit,
    step: impl Fn(&Registration) -> Result<Option<String>, CommandError>,
) -> Result<Registration, CommandError> {
    let mut waits_for = "the agent's answer".to_owned();
    let wait = async {
        let mut pause = Backoff::new(Duration::from_millis(200), Duration::from_secs(1));
        loop {
            let status = admin::request(runtime_dir, Method::GET, question).await?;
            let status: AgentStatus = serde_json::from_str(&status)?;
            let Some(now) = step(&status.registration)? else { return Ok(status.registration) };
            if waits_for != now {
                _ = writeln!(io::stderr(), "waiting for {}", one_line(&now, LONGEST_WAIT));
                waits_for = now;
            }
            tokio::time::sleep(pause.next_delay()).await;
        }
    };
    match limit.keep("", wait).await {
        Ok(ended) => ended,
        Err(_) => Err(limit.late(&waits_for)),
    }
}

pub(crate) async fn reload(args: AgentArgs) -> Result<String, CommandError> {
    let runtime_dir = runtime_dir(args);
    tokio::time::timeout(RELOAD_PATIENCE, finish_reload(&runtime_dir))
        .await
        .unwrap_or(Err(CommandError::ReloadLate))
}

async fn finish_reload(runtime_dir: &Path) -> Result<String, CommandError> {
    let asked = admin::request(runtime_dir, Method::POST, "reload").await.map_err(|error| match error {
        AskError::Refused(reason) => CommandError::ReloadRefused(reason),
        error => error.into(),
    })?;
    let attempt: u64 = asked.trim().parse().unwrap_or_default();
    let mut pause = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
    let mut failures = 0;
    loop {
        let json = match admin::request(runtime_dir, Method::GET, "status").await {
            Ok(json) => json,
            // The new program may just be replacing the one that should answer.
            Err(_) if failures < UNANSWERED => {
                failures += 1;
                tokio::time::sleep(pause.next_delay()).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        failures = 0;
        // The answering program may have another version: rely only on these fields.
        let AfterReload { version, reload, overridden } = serde_json::from_str(&json)?;
        match reload.outcome {
            ReloadOutcome::Refused if reload.attempt >= attempt => {
                return Err(CommandError::ReloadRefused(reload.reason.unwrap_or_default()));
            }
            ReloadOutcome::Done if reload.attempt >= attempt => {
                let notes: String = overridden.iter().map(|sentence| format!("note: {sentence}\n")).collect();
                return Ok(format!("reloaded: version {version} is running\n{notes}"));
            }
            _ => tokio::time::sleep(pause.next_delay()).await,
        }
    }
}

/// The part of the status that every version has.
#[derive(serde::Deserialize)]
struct AfterReload {
    version: String,
    reload: ReloadStatus,
    #[serde(default)]
    overridden: Vec<String>,
}
