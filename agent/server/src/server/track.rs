//! The state of one connection. The IO wrapper, the service and the answer's body write it while hyper
//! polls them; `drive` in `connection` and its timer read it. hyper itself reports none of this.
//!
//! ```text
//!         read            begin              reads_body
//! Idle ─────────▶ Head ─────────▶ Handling ────────────▶ Body
//!  ▲                               │    ▲                  │
//!  │            InFlight dropped   │    └──── has_body ────┘
//!  └─ flushed ─── Answered ◀───────┘
//! ```
//!
//! - A request is in flight from `begin` until its answer is flushed, or until the connection is lost. Both ends go
//!   through `finish`, which the `Drop` of [`Track`] calls too, so that the counts of the worker always balance.
//! - hyper drops the body of an answer when it has encoded it. [`InFlight`] travels in that body: its drop marks the
//!   moment from outside.
//! - A connection can be given back, closed for another or kept from its next request only in `Idle` and `Head`: between
//!   requests, where hyper holds nothing but unread bytes.
//! - `turn` changes with each phase and each progress of a blocked write. The timer compares it, and so needs no reset on
//!   the fast path.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use hyper::StatusCode;

use super::blocked::BlockedConnection;
use super::budget::RequestMemory;
use super::orders::{Bodies, Order};
use super::room::Place;
use super::worker::{RequestSource, Worker};

/// The phase of a connection's current request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestPhase {
    /// Every answer is written, and no byte of a next request has been read.
    Idle,
    /// Part of a head has been read.
    Head,
    /// The head is complete, the body is being read.
    Body,
    Handling,
    /// The answer is in hyper's buffer, not completely written yet.
    Answered,
}

/// See the module's description. It never leaves its thread.
pub(super) struct Track {
    worker: Rc<Worker>,
    place: Rc<Place>,
    phase: Cell<RequestPhase>,
    /// Changes with every phase and every progress of a blocked write, so that the timer knows whether
    /// it still times the same wait.
    turn: Cell<u32>,
    request: Cell<Option<RequestSource>>,
    /// Whether the connection had a request before.
    used: Cell<bool>,
    /// The client reads nothing at the moment.
    write_blocked: Cell<bool>,
    /// Its entry in the list of blocked connections.
    blocked_turn: RefCell<Option<BlockedConnection>>,
    /// The agent keeps answers that the client has not read.
    behind: Cell<bool>,
    /// The client has left more unread than the agent keeps.
    overfull: Cell<bool>,
    /// Why the body is refused: its reader answers 408.
    body_late: Cell<Option<LateBody>>,
    /// `max-buffered` has no room for the last bytes.
    crowded: Cell<bool>,
    held: Cell<RequestMemory>,
    /// Since when the body is being read.
    body_since: Cell<Option<Instant>>,
    /// The status of hyper's own answer to a bad head, which is held back.
    rejected: Cell<Option<StatusCode>>,
    /// Part of a request was not read: the client may still be sending when the answer is written.
    unread_body: Cell<bool>,
    /// The connection ends now, unless a request has already arrived.
    ending: Cell<bool>,
    /// Set when a time limit is over: how often the socket was read since then, and whether that brought anything.
    overdue: Cell<Option<(u8, bool)>>,
    /// The connection was parked until bytes arrived, and these were not read yet.
    expects: Cell<bool>,
}

/// How often the socket is read after a time limit before it counts as over: the kernel buffers no more than that.
const LAST_LOOKS: u8 = 64;

/// Why a body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LateBody {
    /// It took longer than any body may.
    Timeout,
    /// A reload.
    Reload,
}

impl Track {
    /// `used`: an earlier server answered a request on this connection.
    pub(super) fn new(worker: Rc<Worker>, place: Rc<Place>, used: bool) -> Rc<Self> {
        place.idle(worker.now(), used);
        Rc::new(Self {
            worker,
            place,
            phase: Cell::new(RequestPhase::Idle),
            turn: Cell::new(0),
            request: Cell::new(None),
            used: Cell::new(used),
            write_blocked: Cell::new(false),
            blocked_turn: RefCell::default(),
            behind: Cell::new(false),
            overfull: Cell::new(false),
            body_late: Cell::new(None),
            body_since: Cell::new(None),
            crowded: Cell::new(false),
            held: Cell::default(),
            rejected: Cell::new(None),
            unread_body: Cell::new(false),
            ending: Cell::new(false),
            overdue: Cell::new(None),
            expects: Cell::new(false),
        })
    }

    pub(super) fn worker(&self) -> &Worker {
        &self.worker
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn phase(&self) -> RequestPhase {
        self.phase.get()
    }

    pub(super) fn turn(&self) -> u32 {
        self.turn.get()
    }

    pub(super) fn was_used(&self) -> bool {
        self.used.get()
    }

    pub(super) fn is_between_requests(&self) -> bool {
        matches!(self.phase(), RequestPhase::Idle | RequestPhase::Head)
    }

    /// The client may still be sending after its last answer: a plain close could destroy that answer.
    pub(super) fn may_still_send(&self) -> bool {
        self.unread_body.get() || (self.worker.order().is_stopping() && !self.ending.get())
    }

    /// The request is answered without being read completely.
    pub(super) fn leaves_body_unread(&self) {
        self.unread_body.set(true);
    }

    /// Ends the idle connection at its next read, unless the kernel holds bytes of a request. False if
    /// this was called before.
    pub(super) fn end_if_unread_is_empty(&self) -> bool {
        !self.ending.replace(true)
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.get()
    }

    pub(super) fn is_write_blocked(&self) -> bool {
        self.write_blocked.get()
    }

    pub(super) fn set_behind(&self, behind: bool) {
        self.behind.set(behind);
        if behind {
            self.place.busy();
        } else if self.phase() == RequestPhase::Idle {
            self.place.idle(self.worker.now(), true);
        }
    }

    /// No request may begin before the client has read earlier answers. hyper holds at most bytes of the
    /// next requests.
    pub(super) fn is_behind(&self) -> bool {
        self.behind.get() && self.is_between_requests() && !self.unread_body.get()
    }

    /// Whether it is dropped because too many connections are blocked.
    pub(super) fn is_dropped(&self) -> bool {
        self.write_blocked.get()
            && self.blocked_turn.borrow().as_ref().is_some_and(BlockedConnection::is_dropped)
    }

    /// Returns once [`Self::is_dropped`]. The entry in the list wakes the connection's task.
    pub(super) async fn dropped(&self) {
        poll_fn(|_| if self.is_dropped() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    pub(super) fn set_overfull(&self) {
        self.overfull.set(true);
    }

    pub(super) fn is_overfull(&self) -> bool {
        self.overfull.get()
    }

    /// While the server comes to rest, no next request is read or begun. A connection that will be
    /// closed, because its last request was not read completely, may go on to close.
    pub(super) fn is_held(&self) -> bool {
        self.worker.order().is_frozen() && self.is_between_requests() && !self.unread_body.get()
    }

    pub(super) fn refuses_body(&self, bodies: Bodies) -> bool {
        let refused = match bodies {
            Bodies::Wait => false,
            Bodies::RefuseFrom(before) => self.body_since.get().is_some_and(|since| since < before),
            Bodies::Refuse => true,
        };
        refused && self.phase() == RequestPhase::Body && self.body_late.get().is_none()
    }

    /// Whether hyper holds nothing of the connection that it would not have anew: no request, no answer, no order to close.
    pub(super) fn may_park(&self) -> bool {
        self.phase() == RequestPhase::Idle
            && self.worker.order() == Order::Serve
            && !self.is_write_blocked()
            && !self.behind.get()
            && !self.unread_body.get()
            && !self.ending.get()
            && !self.expects.get()
    }

    fn enter(&self, phase: RequestPhase) {
        let before = self.phase.replace(phase);
        match (before, phase) {
            (RequestPhase::Idle, RequestPhase::Idle) => {}
            (RequestPhase::Idle, _) => self.place.busy(),
            (_, RequestPhase::Idle) => self.place.idle(self.worker.now(), true),
            _ => {}
        }
        if before == RequestPhase::Body {
            self.worker.end_body();
        }
        if phase == RequestPhase::Body {
            self.worker.begin_body();
            self.body_since.set(Some(Instant::now()));
        }
        self.next_turn();
    }

    /// Starts a new wait, with a new time limit.
    fn next_turn(&self) {
        self.turn.set(self.turn.get().wrapping_add(1));
        self.overdue.set(None);
    }

    /// Whether to read the socket once more before a time limit counts as over. A process that was stopped sees its clock
    /// before its sockets: bytes that arrived meanwhile are not late.
    pub(super) fn looks_once_more(&self) -> bool {
        let looks = match self.overdue.get() {
            None => 0,
            Some((looks, true)) if looks < LAST_LOOKS => looks + 1,
            Some(_) => {
                self.overdue.set(None);
                return false;
            }
        };
        self.overdue.set(Some((looks, false)));
        true
    }

    /// Bytes have arrived that the runtime does not know of yet.
    pub(super) fn expect_bytes(&self) {
        self.expects.set(true);
    }

    /// Read the socket directly: the runtime's knowledge of it may be old.
    pub(super) fn is_overdue(&self) -> bool {
        self.overdue.get().is_some()
    }

    pub(super) fn late_body(&self) -> Option<LateBody> {
        self.body_late.get()
    }

    /// Refuses the body: its reader answers 408 when hyper polls it again.
    pub(super) fn set_late_body(&self, late: LateBody) {
        self.body_late.set(Some(late));
    }

    /// Whether `max-buffered` had no room for the last bytes. True only once.
    pub(super) fn take_crowded(&self) -> bool {
        self.crowded.take()
    }

    pub(super) fn rejected(&self) -> Option<StatusCode> {
        self.rejected.get()
    }

    pub(super) fn set_rejected(&self, status: Option<StatusCode>) {
        self.rejected.set(status);
    }

    /// Counts more memory for the request. False if there is no room for it.
    pub(super) fn receive(&self, bytes: usize) -> bool {
        if bytes == 0 {
            return true;
        }
        let mut held = self.held.take();
        let fits = held.receive(bytes, self.worker.budget());
        self.held.set(held);
        self.crowded.set(!fits);
        fits
    }

    /// Bytes arrived.
    pub(super) fn read(&self) {
        self.overdue.set(self.overdue.get().map(|(looks, _)| (looks, true)));
        if self.phase() == RequestPhase::Idle {
            self.ending.set(false);
            self.expects.set(false);
            self.enter(RequestPhase::Head);
        }
    }

    /// A write was tried; `taken` says whether the kernel took bytes.
    pub(super) fn wrote(&self, taken: bool) {
        if taken == self.write_blocked.get() {
            self.write_blocked.set(!taken);
            let blocked = || self.place.waker().map(|waker| self.worker.blocked().enter(waker));
            self.blocked_turn.replace(if taken { None } else { blocked() });
            if taken {
                self.next_turn();
            }
        }
    }

    /// hyper has written everything: it flushes the socket only then.
    pub(super) fn flushed(&self) {
        if self.phase() == RequestPhase::Answered {
            self.finish();
            self.enter(RequestPhase::Idle);
        }
    }

    /// A head is complete.
    pub(super) fn begin(self: &Rc<Self>, sender: RequestSource) -> InFlight {
        self.worker.begin_request(sender);
        self.request.set(Some(sender));
        self.body_late.set(None);
        self.used.set(true);
        self.enter(RequestPhase::Handling);
        InFlight(Rc::clone(self))
    }

    fn finish(&self) {
        let mut held = self.held.take();
        held.release(self.worker.budget());
        if let Some(sender) = self.request.take() {
            self.worker.end_request(sender);
        }
    }
}

impl Drop for Track {
    /// A connection that is lost ends its request too.
    fn drop(&mut self) {
        self.finish();
    }
}

/// A request in flight. It moves from the service into the answer's body, which hyper drops once it
/// has encoded it; see the module's description.
pub(super) struct InFlight(Rc<Track>);

impl InFlight {
    pub(super) fn track(&self) -> &Track {
        &self.0
    }

    pub(super) fn reads_body(&self) {
        self.0.enter(RequestPhase::Body);
    }

    pub(super) fn has_body(&self) {
        self.0.enter(RequestPhase::Handling);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.enter(RequestPhase::Answered);
    }
}
