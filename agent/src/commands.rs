//! The commands that talk to a running agent: status, drain, resume, reload.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

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
    /// The agent was not reached, or refused.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The agent's answer is not of this version's form.
    #[error(
        "cannot read the status of the running agent: {0}; its version may differ from this command's: run `instance-agent reload`"
    )]
    Status(#[from] serde_json::Error),
    /// The reload was refused, in the agent's words.
    #[error("reload refused: {0}")]
    ReloadRefused(String),
    /// The reload did not end.
    #[error(
        "the reload did not finish within {RELOAD_PATIENCE:?}; `instance-agent status` shows its progress"
    )]
    ReloadLate,
    /// `--wait`, and its time is over.
    #[error(
        "not {state} within {limit}: still waiting for {waits_for}; `instance-agent status` shows the progress"
    )]
    Late {
        /// What was waited for.
        state: &'static str,
        /// How long.
        limit: String,
        /// What was missing.
        waits_for: String,
    },
    /// `resume --wait` and something else keeps the instance out.
    #[error("not in service: another reason keeps the instance out: {0}")]
    StaysOut(String),
    /// `drain --wait` and somebody resumed.
    #[error("the drain was cancelled: the agent is {0}")]
    CalledOff(Phase),
}

/// How long a reload is waited for.
const RELOAD_PATIENCE: Duration = Duration::from_secs(30);

/// The status, after each target group was asked again what it thinks where that is not known for sure.
const FRESH_STATUS: &str = "status?refresh";

/// How long `resume --wait` waits at most, where nothing else is said.
const RESUME_PATIENCE: Duration = Duration::from_secs(300);

/// What is waited for is shown to this length, in characters.
const LONGEST_WAIT: usize = 1_000;

/// How many questions in a row may be lost while one program replaces another.
const UNANSWERED: u32 = 10;

/// Draining must be possible also while the settings are broken: this folder is all that is needed of them.
fn runtime_dir(args: AgentArgs) -> PathBuf {
    if let Some(named) = args.runtime_dir {
        return named;
    }
    let (folder, mistakes) = Layers::read([], std::env::vars_os(), args.config.as_deref()).runtime_dir();
    if let Some(mistakes) = mistakes {
        // Nothing can be done about a stderr that is gone.
        _ = writeln!(
            io::stderr(),
            "instance-agent: invalid settings; asking the agent in {} anyway:\n{mistakes}",
            folder.display()
        );
    }
    folder
}

/// `status`: what to print.
pub(crate) async fn status(output: Output, args: AgentArgs) -> Result<String, CommandError> {
    let json = admin::request(&runtime_dir(args), Method::GET, FRESH_STATUS).await?;
    Ok(match output {
        Output::Json => format!("{json}\n"),
        Output::Text => serde_json::from_str::<AgentStatus>(&json)?.table(),
    })
}

/// `drain`: what the agent said; with `wait`, once it is drained.
pub(crate) async fn drain(
    wait: bool,
    timeout: Option<Duration>,
    args: AgentArgs,
) -> Result<String, CommandError> {
    let runtime_dir = runtime_dir(args);
    let said = admin::request(&runtime_dir, Method::POST, "drain").await?;
    if !wait {
        return Ok(said);
    }
    let step = |registration: &Registration| match registration.phase {
        Phase::Drained => Ok(None),
        Phase::Serving => Err(CommandError::CalledOff(Phase::Serving)),
        Phase::Starting | Phase::Draining => Ok(Some(registration.waiting_for.clone().unwrap_or_default())),
    };
    // Without a timeout the agent bounds the wait: a drain ends at its drain-timeout.
    until(&runtime_dir, "status", "drained", timeout, step).await?;
    Ok(said + "drained\n")
}

/// `resume`: what the agent said; with `wait`, once it is in service everywhere.
pub(crate) async fn resume(
    wait: bool,
    timeout: Option<Duration>,
    args: AgentArgs,
) -> Result<String, CommandError> {
    let runtime_dir = runtime_dir(args);
    let said = admin::request(&runtime_dir, Method::POST, "resume").await?;
    if !wait {
        return Ok(said);
    }
    let step = |registration: &Registration| match (registration.phase, &registration.reason) {
        (Phase::Serving, _) => Ok(registration.not_in_service()),
        (Phase::Starting, _) => Ok(Some("the instance's identity and notices".to_owned())),
        (_, reason) => Err(CommandError::StaysOut(reason.clone().unwrap_or_default())),
    };
    let timeout = Some(timeout.unwrap_or(RESUME_PATIENCE));
    // The agent asks by itself as well, but slower each time.
    until(&runtime_dir, FRESH_STATUS, "in service", timeout, step).await?;
    Ok(said + "in service\n")
}

/// Asks for the status until `step` waits for nothing any more. What it waits for is said on stderr when it changes.
async fn until(
    runtime_dir: &Path,
    question: &str,
    state: &'static str,
    limit: Option<Duration>,
    step: impl Fn(&Registration) -> Result<Option<String>, CommandError>,
) -> Result<(), CommandError> {
    let mut waits_for = String::new();
    let wait = async {
        let mut pause = Backoff::new(Duration::from_millis(200), Duration::from_secs(1));
        loop {
            let status = admin::request(runtime_dir, Method::GET, question).await?;
            let status: AgentStatus = serde_json::from_str(&status)?;
            let Some(now) = step(&status.registration)? else { return Ok(()) };
            if waits_for != now {
                // Nothing can be done about a stderr that is gone.
                _ = writeln!(io::stderr(), "waiting for {}", one_line(&now, LONGEST_WAIT));
                waits_for = now;
            }
            tokio::time::sleep(pause.next_delay()).await;
        }
    };
    match limit {
        None => wait.await,
        Some(limit) => match tokio::time::timeout(limit, wait).await {
            Ok(ended) => ended,
            Err(_) => Err(CommandError::Late { state, limit: duration::format(limit), waits_for }),
        },
    }
}

/// `reload`: what runs now.
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
            // The program that was about to answer has just been replaced.
            Err(_) if failures < UNANSWERED => {
                failures += 1;
                tokio::time::sleep(pause.next_delay()).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        failures = 0;
        // Whichever program answers: its form may be of another version but for these.
        let AfterReload { version, reload } = serde_json::from_str(&json)?;
        match reload.outcome {
            ReloadOutcome::Refused if reload.attempt >= attempt => {
                return Err(CommandError::ReloadRefused(reload.reason.unwrap_or_default()));
            }
            ReloadOutcome::Done if reload.attempt >= attempt => {
                return Ok(format!("reloaded: version {version} is running\n"));
            }
            _ => tokio::time::sleep(pause.next_delay()).await,
        }
    }
}

/// The part of the status that tells how a reload stands.
#[derive(serde::Deserialize)]
struct AfterReload {
    version: String,
    reload: ReloadStatus,
}
