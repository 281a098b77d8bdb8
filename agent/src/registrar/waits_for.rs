//! What a drain waits for, in words.

use std::fmt;
use std::time::Duration;

/// What a drain waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WaitsFor {
    /// These target groups may still send requests.
    Deregistration(Vec<String>),
    /// No request may come for this long. Requests come and go meanwhile, which is no news.
    Silence(Duration),
    /// The instance was in no target group: what has begun is to end.
    Requests,
}

impl fmt::Display for WaitsFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deregistration(groups) => write!(f, "the deregistration from {}", groups.join(", ")),
            Self::Silence(quiet) => write!(f, "{} without requests", seconds(*quiet)),
            Self::Requests => f.write_str("the requests in flight"),
        }
    }
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}
