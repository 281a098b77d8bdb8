//! Runs tasks so that a panic or a hang in one does not end the others.

use std::any::Any;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use instance_contract::one_line;
use tokio::time::Instant;

use crate::backoff::Backoff;
use instance_server::repeat_filter::RepeatFilter;

/// The longest panic message, in characters.
const LONGEST: usize = 200;

/// Why a task did not finish: a bug in this program.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TaskFailure {
    #[error("panicked: {0}")]
    Panicked(String),
    #[error("did not finish within {0:?}")]
    Stuck(Duration),
}

/// Runs a task with a time limit and catches panics. After a failure, the caller must repair the state that
/// the task was changing.
pub(crate) async fn guard<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, TaskFailure> {
    tokio::time::timeout(limit, caught(work)).await.unwrap_or(Err(TaskFailure::Stuck(limit)))
}

/// Runs a task until it returns; if it panics, starts it again after a pause.
pub(crate) async fn keep<F: Future<Output = ()>>(what: &str, mut task: impl FnMut() -> F) {
    let mut mistakes = TaskFailures::default();
    while let Err(broken) = caught(task()).await {
        mistakes.say(what, &broken);
        tokio::time::sleep(mistakes.pause()).await;
    }
}

/// Repeated failures of one task: logged once, then counted, with longer and longer pauses. Success in between resets
/// nothing, since the bug may come back.
#[derive(Debug)]
pub(crate) struct TaskFailures {
    said: RepeatFilter<String>,
    pause: Backoff,
    last: Option<Instant>,
}

/// After this long without a failure, the next one is logged again.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3600);

impl Default for TaskFailures {
    fn default() -> Self {
        let pause = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));
        Self { said: RepeatFilter::default(), pause, last: None }
    }
}

impl TaskFailures {
    /// Counts a failure. If it differs from the last one, returns how many came before it.
    pub(crate) fn news(&mut self, mistake: &str) -> Option<u64> {
        if self.last.replace(Instant::now()).is_some_and(|last| last.elapsed() > FORGOTTEN) {
            self.said.end();
            self.pause.reset();
        }
        self.said.news(&mistake.to_owned())
    }

    /// Counts a failure, and logs it if it differs from the last one.
    pub(crate) fn say(&mut self, what: &str, broken: &TaskFailure) {
        if let Some(earlier) = self.news(&broken.to_string()) {
            let earlier = if earlier > 0 { format!(" (after {earlier} others)") } else { String::new() };
            tracing::error!(
                "{what} failed and restarts: {broken}{earlier}; serving continues; this is a bug, please report it; repeats are not logged"
            );
        }
    }

    pub(crate) fn pause(&mut self) -> Duration {
        self.pause.next_delay()
    }
}

thread_local! {
    /// Whether [`guard`] or [`keep`] catches and logs panics here.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Logs uncaught panics in one line, once for each place in the code, instead of Rust's three raw lines on stderr.
pub(crate) fn say_panics_in_one_line() {
    let said = Mutex::new(BTreeSet::new());
    std::panic::set_hook(Box::new(move |panic| {
        if CAUGHT.get() {
            return;
        }
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        if said.lock().unwrap_or_else(PoisonError::into_inner).insert(place.clone()) {
            let text = message(panic.payload());
            tracing::error!("a bug in the agent: {text} ({place}); serving continues; please report it");
        }
    }));
}

async fn caught<T>(work: impl Future<Output = T>) -> Result<T, TaskFailure> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        let outside = CAUGHT.replace(true);
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx)));
        CAUGHT.set(outside);
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
            Err(panic) => Poll::Ready(Err(TaskFailure::Panicked(message(panic.as_ref())))),
        }
    })
    .await
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    one_line(&text.unwrap_or_else(|| "no message".to_owned()), LONGEST)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "a failed expectation is a failed test")]

    use super::*;
    use crate::telemetry::Log;

    #[tokio::test(start_paused = true)]
    async fn a_panic_and_a_standstill_are_told_apart_and_both_end() {
        const LIMIT: Duration = Duration::from_secs(5);
        assert_eq!(guard(LIMIT, async { 7 }).await, Ok(7));
        let panics = guard(LIMIT, async {
            tokio::task::yield_now().await;
            assert_eq!(LIMIT.as_secs(), 6, "a test asked for it");
        });
        let broken = panics.await.expect_err("it panicked");
        assert!(broken.to_string().contains("a test asked for it"), "{broken}");
        assert_eq!(guard(LIMIT, std::future::pending::<()>()).await, Err(TaskFailure::Stuck(LIMIT)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_again_and_again_is_said_once() {
        let log = Log::capture();
        let mut begun = 0;
        keep("a test's task", || {
            begun += 1;
            let last = begun == 20;
            async move { assert!(last, "a test asked for it") }
        })
        .await;
        assert_eq!(log.lines("this is a bug").len(), 1, "{:?}", log.lines(""));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_begun_anew_until_it_ends() {
        let mut begun = 0;
        keep("a test's task", || {
            begun += 1;
            let last = begun == 3;
            async move { assert!(last, "a test asked for it") }
        })
        .await;
        assert_eq!(begun, 3);
    }
}
