//! The commands, a file each, named as they are typed.
//!
//! | file | holds |
//! | --- | --- |
//! | `fleet_request.rs` | which fleet a command is about |
//! | `consent.rs` | asking before something that is there is changed or deleted |
//! | `plan_text.rs` | a plan for people and for programs |
//!
//! Only here, and in the command line above, errors become [`anyhow::Error`]s.

use std::time::Duration;

use crate::output::Output;

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
pub(crate) mod status;
pub(crate) mod verify;

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
