//! The orders to the server threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Accept connections and answer requests.
    Serve,
    /// Begin no further request; bytes from clients stay in the kernel.
    Freeze { bodies: Bodies },
    /// Give back every connection between two requests, and end.
    HandOver,
    /// Accept no more, let requests in flight finish until the deadline, and end.
    Stop(Instant),
}

/// What a freeze does with incomplete bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bodies {
    /// Wait for them.
    Wait,
    /// Answer 408 to those that began before this moment.
    RefuseFrom(Instant),
    /// Answer 408 to all.
    Refuse,
}

impl Order {
    pub(super) fn is_frozen(self) -> bool {
        matches!(self, Self::Freeze { .. } | Self::HandOver)
    }

    /// Connections close after their current request.
    pub(super) fn is_stopping(self) -> bool {
        matches!(self, Self::Stop(_))
    }
}

/// An order with its number.
pub(super) type NumberedOrder = (u64, Order);

/// Sends orders to all threads.
pub(super) struct Orders(watch::Sender<NumberedOrder>);

impl Orders {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new((0, Order::Serve)))
    }

    pub(super) fn follow(&self) -> watch::Receiver<NumberedOrder> {
        self.0.subscribe()
    }

    /// Gives an order; returns its number.
    pub(super) fn give(&self, order: Order) -> u64 {
        let mut number = 0;
        self.0.send_modify(|current| {
            number = current.0 + 1;
            *current = (number, order);
        });
        number
    }
}

/// The number of incomplete bodies, over all threads.
#[derive(Clone, Default)]
pub(super) struct AwaitedBodies(Arc<AtomicUsize>);

impl AwaitedBodies {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn remove(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
