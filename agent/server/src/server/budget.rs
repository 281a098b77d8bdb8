//! Limits the memory for incomplete requests.
//!
//! Each request has a small free allowance, so that usual requests need no accounting. Memory beyond it
//! comes out of one budget for the whole server: many clients that each send most of a large request must
//! not use up the instance's memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The free allowance: enough for most heads and for every body with a number.
const FREE: usize = 8 * 1024;

/// The bytes left, shared by all threads.
#[derive(Clone)]
pub(super) struct Budget(Arc<AtomicUsize>);

impl Budget {
    pub(super) fn of(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    fn take(&self, bytes: usize) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The memory of one request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RequestMemory {
    received: usize,
    taken: usize,
}

impl RequestMemory {
    /// Counts bytes that arrived. False if the budget has no room for them.
    pub(super) fn receive(&mut self, bytes: usize, budget: &Budget) -> bool {
        self.received = self.received.saturating_add(bytes);
        let owed = self.received.saturating_sub(FREE);
        let more = owed.saturating_sub(self.taken);
        if more == 0 {
            return true;
        }
        let taken = budget.take(more);
        if taken {
            self.taken = owed;
        }
        taken
    }

    pub(super) fn release(&mut self, budget: &Budget) {
        if self.taken > 0 {
            budget.give_back(self.taken);
        }
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_requests_are_free_and_large_ones_give_back_what_they_took() {
        let budget = Budget::of(10_000);
        let (mut first, mut second) = (RequestMemory::default(), RequestMemory::default());
        assert!(first.receive(FREE, &budget) && second.receive(FREE, &budget));
        assert!(first.receive(6_000, &budget));
        assert!(!second.receive(6_000, &budget));
        first.release(&budget);
        assert!(second.receive(1, &budget), "there is room again, for all of it");
        second.release(&budget);
        assert!(first.receive(FREE + 10_000, &budget));
        assert!(!second.receive(FREE + 1, &budget));
    }
}
