//! What a drain waits for, for the log and the status.

use std::fmt;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WaitsFor {
    /// From these target groups.
    Deregistration(Vec<String>),
    /// No request for this long.
    Silence(Duration),
    /// The instance was in no target group: only the requests in flight count.
    Requests,
}

impl fmt::Display for WaitsFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deregistration(groups) => write!(f, "the deregistration from {}", groups.join(", ")),
            Self::Silence(quiet) => write!(f, "{} in a row without requests", seconds(*quiet)),
            Self::Requests => f.write_str("the requests in flight"),
        }
    }
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}
