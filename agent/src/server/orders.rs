//! What the server's threads are told to do, and how they say that it is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::watch;

/// What a thread is to do from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Accept connections and answer requests.
    Serve,
    /// Begin no further request; what clients send stays in the kernel.
    Freeze {
        /// What becomes of requests whose body has not all come.
        bodies: Bodies,
    },
    /// Give every connection back, as it is between two requests, and end.
    HandOver,
    /// Accept no more, let what was begun finish until the deadline, and end.
    Stop(Instant),
}

/// What becomes of requests whose body has not all come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bodies {
    /// They are waited for.
    Wait,
    /// Those that began before this moment are answered 408.
    RefuseFrom(Instant),
    /// All are answered 408.
    Refuse,
}

impl Order {
    /// No request may begin.
    pub(super) fn is_frozen(self) -> bool {
        matches!(self, Self::Freeze { .. } | Self::HandOver)
    }

    /// Connections are to end after what they are doing.
    pub(super) fn is_stopping(self) -> bool {
        matches!(self, Self::Stop(_))
    }
}

/// An order, and its number in the sequence of all that were given.
pub(super) type NumberedOrder = (u64, Order);

/// Gives the same orders to all threads.
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

/// How many requests' bodies are being waited for, over all threads.
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
