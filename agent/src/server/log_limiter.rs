//! What clients can cause again and again, said now and then.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// At most this often it is said.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Keeps it from filling the log. By time, and not until it is over as `RepeatFilter` does: clients decide how often this is
/// over and begins anew.
#[derive(Default)]
pub(super) struct LogLimiter {
    said: Mutex<Option<Instant>>,
}

impl LogLimiter {
    /// Whether to say it now; then not again for a while, on whichever thread.
    pub(super) fn is_due(&self) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let due = said.is_none_or(|said| said.elapsed() >= SAY_AGAIN);
        if due {
            *said = Some(Instant::now());
        }
        due
    }
}
