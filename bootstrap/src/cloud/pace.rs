//! Waits between calls to AWS: growing, jittered, and with a deadline.

use std::time::Duration;

use tokio::time::Instant;

use super::CallError;

const FIRST_DELAY: Duration = Duration::from_millis(500);
const MAX_DELAY: Duration = Duration::from_secs(10);

/// How long something new may take to be visible everywhere.
pub(super) const VISIBLE_WITHIN: Duration = Duration::from_secs(120);

/// Delays that grow by half from half a second to ten, each drawn from the upper half of its step,
/// until a deadline.
pub(crate) struct Pace {
    step: Duration,
    deadline: Instant,
}

impl Pace {
    /// For a wait of at most `timeout`.
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { step: FIRST_DELAY, deadline: Instant::now() + timeout }
    }

    /// Waits for the next step. `false`, at once, when the time is over.
    pub(crate) async fn next(&mut self) -> bool {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let delay = self.step.mul_f64(0.5 + 0.5 * fastrand::f64());
        self.step = self.step.mul_f64(1.5).min(MAX_DELAY);
        tokio::time::sleep(delay.min(left)).await;
        true
    }
}

/// Repeats a call as long as its failure is one that time cures (`again`), telling `waiting` why.
///
/// # Errors
/// The last failure.
pub(crate) async fn retry_while<T>(
    timeout: Duration,
    waiting: &dyn Fn(&str),
    again: impl Fn(&CallError) -> bool,
    mut attempt: impl AsyncFnMut() -> Result<T, CallError>,
) -> Result<T, CallError> {
    let mut pace = Pace::new(timeout);
    loop {
        match attempt().await {
            Err(error) if again(&error) => {
                waiting(&error.reason_to_wait());
                if !pace.next().await {
                    return Err(error);
                }
            }
            result => return result,
        }
    }
}
