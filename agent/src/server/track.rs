//! What one connection is doing: written by the IO wrapper, the service and the answer's body,
//! read by the connection's timers.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use hyper::StatusCode;

use super::blocked::BlockedConnection;
use super::budget::RequestMemory;
use super::orders::Bodies;
use super::room::Place;
use super::worker::{RequestSource, Worker};

/// Where a connection is in its current request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestPhase {
    /// Every answer is written, and nothing of a next request has been read.
    Idle,
    /// Part of a head has been read.
    Head,
    /// The head is complete, the body is being read.
    Body,
    /// The answer is being made.
    Handling,
    /// The answer is in hyper's buffer, not yet all written.
    Answered,
}

/// One connection's memory. It never leaves its thread.
pub(super) struct Track {
    worker: Rc<Worker>,
    place: Rc<Place>,
    phase: Cell<RequestPhase>,
    /// Changes with every phase and with every progress of a write that was stuck, so that a timer
    /// can tell whether it still times the same thing.
    turn: Cell<u32>,
    /// The request that is being answered.
    request: Cell<Option<RequestSource>>,
    /// Whether there was any request yet.
    used: Cell<bool>,
    /// The peer takes no bytes at the moment.
    write_blocked: Cell<bool>,
    /// Its turn among those.
    blocked_turn: RefCell<Option<BlockedConnection>>,
    /// Answers were taken that the peer has not.
    behind: Cell<bool>,
    /// The peer has left more unread than is kept for it.
    overfull: Cell<bool>,
    /// Why the body is not waited for any longer: whoever reads it answers 408.
    body_late: Cell<Option<LateBody>>,
    /// There is no room for what has come of the request.
    crowded: Cell<bool>,
    held: Cell<RequestMemory>,
    /// When the body that is being waited for began to be.
    body_since: Cell<Option<Instant>>,
    /// The status of an answer that hyper made up itself and that was kept back.
    rejected: Cell<Option<StatusCode>>,
    /// Part of a request was left unread: its sender may not be done when the answer is written.
    unread_body: Cell<bool>,
    /// The connection ends now unless a request is already there.
    ending: Cell<bool>,
    /// The time for what is waited for is over: how often the socket was looked at since, and whether that moved anything.
    overdue: Cell<Option<(u8, bool)>>,
}

/// How often the socket is looked at before its time is judged to be over: the kernel holds no more than is read by then.
const LAST_LOOKS: u8 = 64;

/// Why a body is not waited for any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LateBody {
    /// It took longer than any body may.
    Timeout,
    /// The server has to come to rest.
    Reload,
}

impl Track {
    /// `used`: an earlier server had already answered a request on this connection.
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

    /// Nothing has been handed to the service that is not answered.
    pub(super) fn is_between_requests(&self) -> bool {
        matches!(self.phase(), RequestPhase::Idle | RequestPhase::Head)
    }

    /// The peer may still be sending after its last answer: a plain close could destroy that answer.
    pub(super) fn may_still_send(&self) -> bool {
        self.unread_body.get() || (self.worker.order().is_stopping() && !self.ending.get())
    }

    /// An answer goes out without its request having been read to the end.
    pub(super) fn leaves_body_unread(&self) {
        self.unread_body.set(true);
    }

    /// Lets the next read of an idle connection end it, unless the kernel holds bytes of a request.
    /// False if that was asked before.
    pub(super) fn end_if_unread_is_empty(&self) -> bool {
        !self.ending.replace(true)
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.get()
    }

    pub(super) fn is_write_blocked(&self) -> bool {
        self.write_blocked.get()
    }

    /// Whether answers were taken that the peer has not.
    pub(super) fn set_behind(&self, behind: bool) {
        self.behind.set(behind);
        if behind {
            self.place.busy();
        } else if self.phase() == RequestPhase::Idle {
            self.place.idle(self.worker.now(), true);
        }
    }

    /// No request begins before the peer has taken earlier answers: hyper holds nothing but perhaps the
    /// next requests' bytes.
    pub(super) fn is_behind(&self) -> bool {
        self.behind.get() && self.is_between_requests() && !self.unread_body.get()
    }

    /// Whether it is dropped, as the peers of too many others take nothing either.
    pub(super) fn is_dropped(&self) -> bool {
        self.write_blocked.get()
            && self.blocked_turn.borrow().as_ref().is_some_and(BlockedConnection::is_dropped)
    }

    /// Returns once it is to be dropped for that reason. Its turn wakes the connection's task itself.
    pub(super) async fn dropped(&self) {
        poll_fn(|_| if self.is_dropped() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// The peer has left more unread than is kept for it.
    pub(super) fn set_overfull(&self) {
        self.overfull.set(true);
    }

    pub(super) fn is_overfull(&self) -> bool {
        self.overfull.get()
    }

    /// Nothing of a next request is read or begun while the server comes to rest. One that is to be
    /// closed, as its last request was not read to its end, is not kept from that.
    pub(super) fn is_held(&self) -> bool {
        self.worker.order().is_frozen() && self.is_between_requests() && !self.unread_body.get()
    }

    /// Whether a body that is being waited for is to be refused now.
    pub(super) fn refuses_body(&self, bodies: Bodies) -> bool {
        let refused = match bodies {
            Bodies::Wait => false,
            Bodies::RefuseFrom(before) => self.body_since.get().is_some_and(|since| since < before),
            Bodies::Refuse => true,
        };
        refused && self.phase() == RequestPhase::Body && self.body_late.get().is_none()
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

    /// Something else is waited for, or the same with new time.
    fn next_turn(&self) {
        self.turn.set(self.turn.get().wrapping_add(1));
        self.overdue.set(None);
    }

    /// Whether to look at the socket itself before the time for what is waited for is judged to be over. A process that was
    /// stopped, or is slow, sees its clock before its sockets: what has come meanwhile is not late.
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

    /// The socket is to be asked itself: what the runtime knows of it may be old.
    pub(super) fn is_overdue(&self) -> bool {
        self.overdue.get().is_some()
    }

    /// Why the body is not waited for any longer.
    pub(super) fn late_body(&self) -> Option<LateBody> {
        self.body_late.get()
    }

    /// Gives up waiting for the body: its reader answers 408 when hyper polls it again.
    pub(super) fn set_late_body(&self, late: LateBody) {
        self.body_late.set(Some(late));
    }

    /// Whether there was no room for the last bytes of the request. Returns true once.
    pub(super) fn take_crowded(&self) -> bool {
        self.crowded.take()
    }

    /// The status of an answer that hyper made up itself and that was kept back.
    pub(super) fn rejected(&self) -> Option<StatusCode> {
        self.rejected.get()
    }

    pub(super) fn set_rejected(&self, status: Option<StatusCode>) {
        self.rejected.set(status);
    }

    /// So much more is held for the request. False when there is no room for it.
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

    /// Bytes came from the peer.
    pub(super) fn read(&self) {
        self.overdue.set(self.overdue.get().map(|(looks, _)| (looks, true)));
        if self.phase() == RequestPhase::Idle {
            self.ending.set(false);
            self.enter(RequestPhase::Head);
        }
    }

    /// Bytes were written, or the peer took none.
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

    /// hyper has nothing left to write. It flushes the socket only then.
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

/// A request that is being answered. It travels from the service into the answer's body, which
/// hyper drops once it is encoded: that is how the moment is known from outside.
pub(super) struct InFlight(Rc<Track>);

impl InFlight {
    pub(super) fn track(&self) -> &Track {
        &self.0
    }

    /// The body is being read.
    pub(super) fn reads_body(&self) {
        self.0.enter(RequestPhase::Body);
    }

    /// The body is complete.
    pub(super) fn has_body(&self) {
        self.0.enter(RequestPhase::Handling);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.enter(RequestPhase::Answered);
    }
}
