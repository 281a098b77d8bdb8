//! How the API is made to fail, and the record of its calls.

use std::time::{Duration, SystemTime};

/// How the API fails an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is denied, as without the IAM permission.
    Deny,
    /// It fails with this status (500 and up) without taking effect.
    Fail(u16),
    /// It fails with this error code and HTTP status 400.
    Error(String),
    /// It takes effect, or fails as it would have, and the connection is closed without an answer.
    LoseAnswer,
    /// It takes effect, or fails as it would have, and the answer's XML breaks off in its middle, whole for HTTP.
    BreakOff,
}

/// A call of the API and its result, also where [`Fault::LoseAnswer`] hid the result from the caller.
#[derive(Clone, Debug)]
pub struct Call {
    /// Since the cloud's start.
    pub at: Duration,
    /// The wall clock.
    pub time: SystemTime,
    /// Such as `RegisterTargets`.
    pub action: String,
    /// The instance whose credentials signed it; `None` for the operator and for strangers.
    pub instance: Option<String>,
    /// All parameters but `Action` and `Version`, sorted by name.
    pub parameters: Vec<(String, String)>,
    /// The error code it was answered with; `None` is success.
    pub error: Option<String>,
}

impl Call {
    /// Whether it changes registrations.
    pub fn is_change(&self) -> bool {
        ["RegisterTargets", "DeregisterTargets"].contains(&self.action.as_str())
    }
}
