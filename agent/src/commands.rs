//! The commands that talk to a running agent: status, drain, resume, reload.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Method;

use crate::admin::{self, AskError};
use crate::backoff::Backoff;
use crate::cli::{AgentArgs, Output};
use crate::config::Layers;
use crate::status::{AgentStatus, Phase, ReloadOutcome, ReloadStatus};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// The agent was not reached, or refused.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The agent's answer is not of this version's form.
    #[error("the running agent's status cannot be read: {0}; it may be of another version than this command")]
    Status(#[from] serde_json::Error),
    /// The reload was refused, in the agent's words.
    #[error("not reloaded: {0}")]
    ReloadRefused(String),
    /// The reload did not end.
    #[error(
        "the reload has not ended within {RELOAD_PATIENCE:?}; `instance-agent status` tells how it goes on"
    )]
    ReloadLate,
    /// `drain --wait` and somebody resumed.
    #[error("the drain was called off: the agent is {0}")]
    CalledOff(Phase),
}

/// How long a reload is waited for.
const RELOAD_PATIENCE: Duration = Duration::from_secs(30);

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
            "instance-agent: the settings cannot be used, asking the agent in {}:\n{mistakes}",
            folder.display()
        );
    }
    folder
}

/// `status`: what to print.
pub(crate) async fn status(output: Output, args: AgentArgs) -> Result<String, CommandError> {
    let json = admin::request(&runtime_dir(args), Method::GET, "status").await?;
    Ok(match output {
        Output::Json => format!("{json}\n"),
        Output::Text => serde_json::from_str::<AgentStatus>(&json)?.table(),
    })
}

/// `drain`: what the agent said; with `wait`, once it is drained.
pub(crate) async fn drain(wait: bool, args: AgentArgs) -> Result<String, CommandError> {
    let runtime_dir = runtime_dir(args);
    let mut said = admin::request(&runtime_dir, Method::POST, "drain").await?;
    if !wait {
        return Ok(said);
    }
    // The agent bounds the wait: a drain ends at its drain-timeout.
    let mut pause = Backoff::new(Duration::from_millis(200), Duration::from_secs(1));
    loop {
        let status: AgentStatus =
            serde_json::from_str(&admin::request(&runtime_dir, Method::GET, "status").await?)?;
        match status.registration.phase {
            Phase::Drained => {
                said.push_str("drained\n");
                return Ok(said);
            }
            Phase::Serving => return Err(CommandError::CalledOff(Phase::Serving)),
            Phase::Starting | Phase::Draining => tokio::time::sleep(pause.next_delay()).await,
        }
    }
}

/// `resume`: what the agent said.
pub(crate) async fn resume(args: AgentArgs) -> Result<String, CommandError> {
    Ok(admin::request(&runtime_dir(args), Method::POST, "resume").await?)
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
                return Ok(format!("reloaded; version {version} runs\n"));
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
