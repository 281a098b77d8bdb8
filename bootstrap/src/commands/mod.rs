//! The commands, a file each, named as they are typed.
//!
//! | file | holds |
//! | --- | --- |
//! | `fleet_request.rs` | which fleet a command is about |
//! | `consent.rs` | asking before something that is there is changed or deleted |
//! | `suggestions.rs` | command lines to try on a fleet that is there |
//! | `typed_command.rs` | the command as it was typed, for messages that say it again |
//! | `plan_text.rs` | a plan for people and for programs |
//!
//! Only here errors become [`anyhow::Error`]s.

use std::time::Duration;

use anyhow::{anyhow, bail};

use self::typed_command::typed_command;
use crate::engine::prepare::{PrepareError, QueryNeeded};
use crate::output::{Outcome, Output, print_error, write_failure};

pub(crate) mod consent;
pub(crate) mod destroy;
pub(crate) mod fleet_request;
pub(crate) mod fleets;
pub(crate) mod launch;
pub(crate) mod list;
pub(crate) mod local;
pub(crate) mod plan;
mod plan_text;
pub(crate) mod policy;
pub(crate) mod scale;
pub(crate) mod ssh;
pub(crate) mod status;
mod suggestions;
mod typed_command;
pub(crate) mod verify;

/// How a command ended, or what failed, with its causes.
pub(crate) type CommandResult = anyhow::Result<Outcome>;

/// Ends a command: a program that reads the result gets the reason why there is none, and a result that could not
/// be written is a failure.
///
/// # Errors
/// The command failed, or its result cannot be written.
pub(crate) fn end(output: Output, result: CommandResult) -> CommandResult {
    let outcome = result.inspect_err(|error| print_error(output, &format!("{error:#}")))?;
    match write_failure() {
        Some(error) => bail!("cannot write the result: {error}"),
        None => Ok(outcome),
    }
}

/// Converts the error, so that wrong usage ends with exit status 2.
pub(crate) fn prepare_failed(error: PrepareError, region: &str) -> anyhow::Error {
    match error {
        PrepareError::Usage(usage) => usage.into(),
        PrepareError::QueryNeeded(needed) => {
            let command = needed.launch.clone().unwrap_or_else(|| typed_command(region));
            let QueryNeeded { address, sha256, .. } = &needed;
            anyhow!("{needed}: `{command} --package-url '{address}?QUERY' --package-sha256 {sha256}`")
        }
        other => other.into(),
    }
}

/// How a command that changes a fleet runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChangeOptions {
    /// Whether to change and delete without asking on the terminal.
    pub(crate) yes: bool,
    /// How long the fleet may take to become healthy; of a destroy, how long each resource to go.
    pub(crate) timeout: Duration,
    /// How the result is written.
    pub(crate) output: Output,
}
