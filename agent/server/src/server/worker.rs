//! The state that the connections of one server thread share.
//!
//! It never leaves its thread, so nothing is locked. Other files change it only through its methods.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::blocked::Blocked;
use super::budget::Budget;
use super::handover_sockets::{HandoverConnection, ThreadResult};
use super::orders::{AwaitedBodies, NumberedOrder, Order};
use crate::events;
use crate::limits::Limits;
use crate::traffic::ThreadTraffic;

/// Between two beats of a thread; also the resolution of its coarse clock.
pub(super) const BEAT: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestSource {
    /// A health check of the load balancer, which is not traffic.
    Probe,
    Client,
}

/// See the module's description.
pub(super) struct Worker {
    limits: Limits,
    idle_first: Duration,
    traffic: Arc<ThreadTraffic>,
    /// The time of the last beat. It is exact enough for idle connections and saves reading the clock for each
    /// request, which is a system call on Xen instance types.
    now: Cell<Instant>,
    /// Requests in flight, including probes.
    in_flight: Cell<usize>,
    /// Memory for incomplete requests, shared by all threads.
    budget: Budget,
    /// Blocked connections, on all threads.
    blocked: Arc<Blocked>,
    /// Incomplete bodies, on all threads.
    awaited: AwaitedBodies,
    /// Requests refused because their body was incomplete at a reload.
    refused_bodies: Arc<AtomicUsize>,
    /// Open connections.
    open: Cell<usize>,
    /// Notified in a freeze when no request is in flight any more.
    at_rest: Notify,
    /// Notified when the last connection closes.
    all_closed: Notify,
    /// The latest order, and its number.
    order: Cell<Order>,
    order_number: Cell<u64>,
    /// Wakes every connection when there is a new order.
    ordered: Notify,
    handed: RefCell<Vec<HandoverConnection>>,
}

impl Worker {
    pub(super) fn new(
        limits: Limits,
        traffic: Arc<ThreadTraffic>,
        budget: Budget,
        blocked: Arc<Blocked>,
        awaited: AwaitedBodies,
        refused_bodies: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            idle_first: limits.park_after.min(BEAT + limits.keep_alive),
            limits,
            traffic,
            now: Cell::new(Instant::now()),
            in_flight: Cell::new(0),
            budget,
            blocked,
            awaited,
            refused_bodies,
            open: Cell::new(0),
            at_rest: Notify::new(),
            all_closed: Notify::new(),
            order: Cell::new(Order::Serve),
            order_number: Cell::new(0),
            ordered: Notify::new(),
            handed: RefCell::default(),
        }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn traffic(&self) -> &ThreadTraffic {
        &self.traffic
    }

    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    pub(super) fn blocked(&self) -> &Arc<Blocked> {
        &self.blocked
    }

    /// The time before an idle connection is parked, or closed if that is earlier.
    pub(super) fn idle_first(&self) -> Duration {
        self.idle_first
    }

    /// The coarse clock, at most one beat behind.
    pub(super) fn now(&self) -> Instant {
        self.now.get()
    }

    pub(super) fn beat(&self, now: Instant) {
        self.now.set(now);
        self.traffic.beats.increment();
    }

    pub(super) fn order(&self) -> Order {
        self.order.get()
    }

    pub(super) fn order_number(&self) -> u64 {
        self.order_number.get()
    }

    /// Sets the order for every connection on this thread, and wakes them.
    pub(super) fn set_order(&self, (number, order): NumberedOrder) {
        self.order.set(order);
        self.order_number.set(number);
        self.ordered.notify_waiters();
    }

    /// Ready at the next order after this call.
    pub(super) fn ordered(&self) -> Notified<'_> {
        self.ordered.notified()
    }

    pub(super) fn begin_request(&self, sender: RequestSource) {
        self.in_flight.set(self.in_flight.get() + 1);
        if sender == RequestSource::Client {
            self.traffic.started.increment();
        }
    }

    /// The answer is written, or the connection is lost.
    pub(super) fn end_request(&self, sender: RequestSource) {
        self.in_flight.set(self.in_flight.get() - 1);
        if self.in_flight.get() == 0 && self.order.get().is_frozen() {
            self.at_rest.notify_one();
        }
        if sender == RequestSource::Client {
            self.traffic.finished.increment();
        }
    }

    /// Returns once no request is in flight.
    pub(super) async fn at_rest(&self) {
        while self.in_flight.get() > 0 {
            self.at_rest.notified().await;
        }
    }

    pub(super) fn begin_body(&self) {
        self.awaited.add();
    }

    pub(super) fn end_body(&self) {
        self.awaited.remove();
    }

    pub(super) fn count_refused_body(&self) {
        self.refused_bodies.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn opened(&self) {
        self.traffic.opened.increment();
        self.open.set(self.open.get() + 1);
    }

    pub(super) fn closed(&self) {
        self.traffic.closed.increment();
        self.open.set(self.open.get() - 1);
        if self.open.get() == 0 {
            self.all_closed.notify_one();
        }
    }

    /// Returns once no connection is open.
    pub(super) async fn all_closed(&self) {
        while self.open.get() > 0 {
            self.all_closed.notified().await;
        }
    }

    /// Counts and logs a dropped connection whose client reads nothing.
    pub(super) fn drops_unread(&self) {
        self.traffic.unread_dropped.increment();
        if self.blocked.is_news() {
            tracing::warn!(
                message_id = events::UNREAD_DROPPED,
                "dropping connections: their clients send requests and read no answers"
            );
        }
    }

    /// Keeps a connection for the next server.
    pub(super) fn give_back(&self, connection: HandoverConnection) {
        self.handed.borrow_mut().push(connection);
    }

    pub(super) fn ending(&self) -> ThreadResult {
        ThreadResult { cut_off: self.in_flight.get(), connections: self.handed.take(), lost: self.open.get() }
    }
}
