//! What the connections of one server thread share.
//!
//! It never leaves its thread, so nothing is locked. Other files change it by its methods alone.

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

/// Between two beats of a thread, and the grain of its coarse clock.
pub(super) const BEAT: Duration = Duration::from_secs(1);

/// Who sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestSource {
    /// The load balancer's health check; not traffic.
    Probe,
    /// Anyone else.
    Client,
}

/// See the module's description.
pub(super) struct Worker {
    limits: Limits,
    traffic: Arc<ThreadTraffic>,
    /// The time of the last beat. Enough for idle connections, and no clock is read per request
    /// (on Xen instance types that is a system call).
    now: Cell<Instant>,
    /// Requests being answered, probes included.
    in_flight: Cell<usize>,
    /// Memory for incomplete requests, shared by all threads.
    budget: Budget,
    /// Connections whose peers take nothing of their answers, on any thread.
    blocked: Arc<Blocked>,
    /// Requests' bodies that are being waited for, on any thread.
    awaited: AwaitedBodies,
    /// Requests refused because their body was not there when the server had to come to rest.
    refused_bodies: Arc<AtomicUsize>,
    /// Open connections.
    open: Cell<usize>,
    /// Notified when no request is being answered any more, while that is waited for.
    at_rest: Notify,
    /// Notified when the last connection closes.
    all_closed: Notify,
    /// The latest order, and its number.
    order: Cell<Order>,
    order_number: Cell<u64>,
    /// Wakes every connection when there is a new order.
    ordered: Notify,
    /// Connections that were given back.
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

    /// The coarse clock: at most one beat behind.
    pub(super) fn now(&self) -> Instant {
        self.now.get()
    }

    /// Shows that the thread is alive, and sets the coarse clock.
    pub(super) fn beat(&self, now: Instant) {
        self.now.set(now);
        self.traffic.beats.increment();
    }

    pub(super) fn order(&self) -> Order {
        self.order.get()
    }

    /// Changes with every order.
    pub(super) fn order_number(&self) -> u64 {
        self.order_number.get()
    }

    /// Sets what every connection on this thread is to do from now on, and wakes them.
    pub(super) fn set_order(&self, (number, order): NumberedOrder) {
        self.order.set(order);
        self.order_number.set(number);
        self.ordered.notify_waiters();
    }

    /// Ready at the next order after this call.
    pub(super) fn ordered(&self) -> Notified<'_> {
        self.ordered.notified()
    }

    /// A request's head is complete.
    pub(super) fn begin_request(&self, sender: RequestSource) {
        self.in_flight.set(self.in_flight.get() + 1);
        if sender == RequestSource::Client {
            self.traffic.started.increment();
        }
    }

    /// A request's answer is written, or its connection is lost.
    pub(super) fn end_request(&self, sender: RequestSource) {
        self.in_flight.set(self.in_flight.get() - 1);
        if self.in_flight.get() == 0 && self.order.get().is_frozen() {
            self.at_rest.notify_one();
        }
        if sender == RequestSource::Client {
            self.traffic.finished.increment();
        }
    }

    /// Returns once no request is being answered.
    pub(super) async fn at_rest(&self) {
        while self.in_flight.get() > 0 {
            self.at_rest.notified().await;
        }
    }

    /// A request's body is waited for from now on.
    pub(super) fn begin_body(&self) {
        self.awaited.add();
    }

    /// A request's body is complete, or no longer waited for.
    pub(super) fn end_body(&self) {
        self.awaited.remove();
    }

    /// A request is refused because its body is not there.
    pub(super) fn count_refused_body(&self) {
        self.refused_bodies.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection is open from now on.
    pub(super) fn opened(&self) {
        self.traffic.opened.increment();
        self.open.set(self.open.get() + 1);
    }

    /// A connection is closed, or was given back.
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

    /// A connection is dropped, as it has left more unread than is kept for it, or for all like it.
    pub(super) fn drops_unread(&self) {
        self.traffic.unread_dropped.increment();
        if self.blocked.is_news() {
            tracing::warn!(
                message_id = events::UNREAD_DROPPED,
                "dropping connections: their clients send requests and read no answers"
            );
        }
    }

    /// Gives a connection back: it leaves this thread.
    pub(super) fn give_back(&self, connection: HandoverConnection) {
        self.handed.borrow_mut().push(connection);
    }

    /// What is left at the thread's end.
    pub(super) fn ending(&self) -> ThreadResult {
        ThreadResult { cut_off: self.in_flight.get(), connections: self.handed.take(), lost: self.open.get() }
    }
}
