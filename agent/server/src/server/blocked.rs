//! Limits the connections whose clients read nothing of their answers, over all threads.
//!
//! Every single answer fits into the send buffer, so a client that reads its answers never gets here. A blocked connection
//! costs more memory than others: full kernel buffers in both directions, and requests that were read but not begun. Beyond
//! the limit, the connection that has been blocked for longest is dropped.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::log_limiter::LogLimiter;

pub(super) const MAX_BLOCKED: usize = 128;

/// The blocked connections, longest first.
#[derive(Default)]
pub(super) struct Blocked {
    in_order: Mutex<BTreeMap<u64, (Arc<AtomicBool>, Waker)>>,
    came: AtomicU64,
    notice: LogLimiter,
}

/// The entry of a connection in the list; dropping it removes the entry.
pub(super) struct BlockedConnection {
    blocked: Arc<Blocked>,
    number: u64,
    dropped: Arc<AtomicBool>,
}

impl Blocked {
    /// Adds a connection; `waker` wakes it if it is dropped later.
    pub(super) fn enter(self: &Arc<Self>, waker: Waker) -> BlockedConnection {
        let (number, dropped) = (self.came.fetch_add(1, Relaxed), Arc::new(AtomicBool::new(false)));
        let mut in_order = self.lock();
        in_order.insert(number, (Arc::clone(&dropped), waker));
        let first = (in_order.len() > MAX_BLOCKED).then(|| in_order.pop_first()).flatten();
        drop(in_order);
        if let Some((_, (dropped, waker))) = first {
            dropped.store(true, Relaxed);
            waker.wake();
        }
        BlockedConnection { blocked: Arc::clone(self), number, dropped }
    }

    /// Whether to log now that connections are dropped.
    pub(super) fn is_news(&self) -> bool {
        self.notice.is_due()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, (Arc<AtomicBool>, Waker)>> {
        self.in_order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlockedConnection {
    /// Whether the connection must be dropped because too many are blocked.
    pub(super) fn is_dropped(&self) -> bool {
        self.dropped.load(Relaxed)
    }
}

impl Drop for BlockedConnection {
    fn drop(&mut self) {
        self.blocked.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_the_limit_the_one_that_has_been_blocked_for_longest_goes() {
        let blocked = Arc::new(Blocked::default());
        let enter = || blocked.enter(Waker::noop().clone());
        let mut turns: Vec<_> = (0..MAX_BLOCKED).map(|_| enter()).collect();
        assert!(!turns.iter().any(BlockedConnection::is_dropped));
        // One that its peer has read again is blocked no more.
        drop(turns.remove(0));
        turns.push(enter());
        assert!(!turns.iter().any(BlockedConnection::is_dropped));
        turns.push(enter());
        assert!(turns[0].is_dropped() && turns.iter().filter(|turn| turn.is_dropped()).count() == 1);
        turns.clear();
        assert_eq!(blocked.lock().len(), 0);
    }
}
