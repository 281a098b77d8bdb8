//! A piece of work that may fail in any way without taking anything else along.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// Why a piece of work did not come to its end: a mistake in this program.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    /// It panicked.
    #[error("it panicked: {0}")]
    Panicked(String),
    /// It did not end.
    #[error("it did not end within {0:?}")]
    Stuck(Duration),
}

/// Does a piece of work, with a limit to how long it may take. Whatever it was changing when it
/// broke is for the caller to put right.
pub(super) async fn guard<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, Broken> {
    let mut work = pin!(work);
    let caught = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
        Err(panic) => Poll::Ready(Err(Broken::Panicked(message(panic.as_ref())))),
    });
    tokio::time::timeout(limit, caught).await.unwrap_or(Err(Broken::Stuck(limit)))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "a failed expectation is a failed test")]

    use super::*;

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
        assert_eq!(guard(LIMIT, std::future::pending::<()>()).await, Err(Broken::Stuck(LIMIT)));
    }
}
