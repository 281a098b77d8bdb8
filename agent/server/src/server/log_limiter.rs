//! Limits how often a message is logged that clients can cause.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Limits by time, unlike `RepeatFilter`: clients control how often the condition ends and begins again.
#[derive(Default)]
pub(super) struct LogLimiter {
    said: Mutex<Option<Instant>>,
}

impl LogLimiter {
    /// Whether to log now; if so, not again for a while on any thread.
    pub(super) fn is_due(&self) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let due = said.is_none_or(|said| said.elapsed() >= SAY_AGAIN);
        if due {
            *said = Some(Instant::now());
        }
        due
    }
}
