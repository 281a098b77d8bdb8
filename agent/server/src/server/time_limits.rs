//! The time limits of a connection: what it waits for, and its one timer.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use super::track::{RequestPhase, Track};
use super::worker::{BEAT, Worker};

/// While the server stops, a connection that has not sent anything yet gets this long for its first request.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// What a connection waits for, if that has a time limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimedWait {
    /// The next request's first byte.
    Request,
    /// As `Request`, and the connection may be parked meanwhile.
    Parking,
    /// The rest of a head.
    Head,
    /// The rest of a body.
    Body,
    /// The client to read more of an answer.
    Peer,
}

impl TimedWait {
    fn of(track: &Track) -> Option<Self> {
        match track.phase() {
            _ if track.is_write_blocked() => Some(Self::Peer),
            RequestPhase::Idle => Some(Self::Request),
            RequestPhase::Head => Some(Self::Head),
            RequestPhase::Body => Some(Self::Body),
            // The agent's own work: no limit for the client.
            RequestPhase::Handling | RequestPhase::Answered => None,
        }
    }
}

/// The one timer of a connection. It is rearmed only when it fires too early, so that a request costs
/// a comparison and no change to the runtime's timer wheel.
pub(super) struct Timer<'a> {
    sleep: Pin<&'a mut Sleep>,
    /// Whether the sleep has a waker.
    registered: bool,
    /// The wait that `deadline` belongs to, its turn, and whether the server was stopping.
    timed: Option<(TimedWait, u32, bool)>,
    deadline: Instant,
    /// Since when the connection is idle, by the coarse clock.
    pub(super) idle_since: Instant,
}

impl<'a> Timer<'a> {
    pub(super) fn new(sleep: Pin<&'a mut Sleep>) -> Self {
        let deadline = sleep.deadline().into_std();
        Self { sleep, registered: false, timed: None, deadline, idle_since: deadline }
    }

    /// When a connection that is idle since then is closed: never too early, at most two beats late.
    pub(super) fn idle_until(worker: &Worker, since: Instant) -> Instant {
        since + BEAT + worker.limits().keep_alive
    }

    /// When a connection that becomes idle now is parked, if that is possible, or closed. One addition, since each request
    /// pays it.
    pub(super) fn parks_at(worker: &Worker) -> Instant {
        worker.now() + worker.idle_first()
    }

    /// Ready when the time limit of the current wait is over.
    pub(super) fn poll(&mut self, track: &Track, cx: &mut Context<'_>) -> Poll<TimedWait> {
        let Some(waiting) = TimedWait::of(track) else { return Poll::Pending };
        let worker = track.worker();
        let timed = (waiting, track.turn(), worker.order().is_stopping());
        if self.timed != Some(timed) {
            self.timed = Some(timed);
            self.deadline = match waiting {
                TimedWait::Request if worker.order().is_stopping() => Instant::now() + FIRST_REQUEST,
                TimedWait::Request | TimedWait::Parking => {
                    self.idle_since = worker.now();
                    Self::parks_at(worker)
                }
                TimedWait::Head => Instant::now() + worker.limits().header_timeout,
                TimedWait::Body => Instant::now() + worker.limits().body_timeout,
                TimedWait::Peer => Instant::now() + worker.limits().write_timeout,
            };
            if self.deadline < self.sleep.deadline().into_std() {
                self.rearm();
            }
        }
        loop {
            if self.registered {
                if !self.sleep.is_elapsed() {
                    return Poll::Pending;
                }
            } else {
                // Without budget left, a sleep wakes the task at once and registers nothing.
                self.registered = tokio::task::coop::has_budget_remaining();
                if self.sleep.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
            let now = Instant::now();
            if now >= self.deadline {
                let until = Self::idle_until(worker, self.idle_since);
                if waiting != TimedWait::Request || worker.order().is_stopping() || now >= until {
                    return Poll::Ready(waiting);
                }
                if track.may_park() {
                    return Poll::Ready(TimedWait::Parking);
                }
                self.deadline = until;
            }
            self.rearm();
        }
    }

    fn rearm(&mut self) {
        self.sleep.as_mut().reset(self.deadline.into());
        self.registered = false;
    }
}
