//! The options of a local launch.

use std::path::PathBuf;
use std::time::Duration;

use crate::commands::fleet_request::FleetRequest;
use crate::local::LocalOptions;
use crate::output::Output;

/// What `launch --local` is asked for.
#[derive(Debug)]
pub(crate) struct LaunchOptions {
    pub(crate) request: FleetRequest,
    /// The agent's binary; `None` looks for it beside this program, then on `PATH`.
    pub(crate) agent: Option<PathBuf>,
    /// How the fleet is run.
    pub(crate) local: LocalOptions,
    /// The folder to keep; `None` is a temporary one.
    pub(crate) dir: Option<PathBuf>,
    /// How long the fleet may take to become healthy.
    pub(crate) timeout: Duration,
    /// How long to run; `None` is until a signal.
    pub(crate) duration: Option<Duration>,
    /// Whether to stop once healthy.
    pub(crate) exit_when_healthy: bool,
    /// How the result is written.
    pub(crate) output: Output,
}
