//! Limits the open connections, and chooses the one to close when a new one arrives and there is no room.
//!
//! Connections that never sent anything close first, then those that have been idle for longest, never one with a request
//! in progress. All threads share one list, so a new connection on one thread may close a connection on another. The list's
//! lock is taken when a connection opens, closes or must make room. A request costs only two plain stores: it does not move
//! its connection in the list. Entries may therefore be outdated, and `make` moves them while it looks for one that is not.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::log_limiter::LogLimiter;
use super::worker::BEAT;
use crate::events;

/// A request is in progress, or the connection is ending: it must not be closed for another.
const BUSY: u64 = u64::MAX;

/// Added for connections that had a request, so that they sort behind those that never sent anything.
const USED: u64 = 1 << 62;

/// A connection that becomes idle is noticed within this time.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The order of the list: by [`Seat::state`], then by arrival.
type Key = (u64, u64);

/// See the module's description.
pub(super) struct Room {
    places: Arc<Semaphore>,
    idle: Mutex<BTreeMap<Key, Arc<Seat>>>,
    began: Instant,
    came: AtomicU64,
    /// How many connections wait for a place.
    waiting: AtomicUsize,
    /// Notified when a connection that should make room has ended or got a request, or when another one became idle.
    settled: Notify,
    notices: LimitLogs,
}

#[derive(Default)]
struct LimitLogs {
    closing: LogLimiter,
    full: LogLimiter,
}

/// One connection, as the list sees it.
struct Seat {
    number: u64,
    /// [`BUSY`], or since when it is idle. Only its own thread writes it.
    state: AtomicU64,
    /// Its key in the list: the state, or an earlier one. Written under the list's lock.
    listed: AtomicU64,
    /// It must make room, and is no longer in the list.
    leaves: AtomicBool,
    wake: Mutex<Option<Wake>>,
}

/// How a connection learns that it must make room.
enum Wake {
    /// Wakes its task.
    Task(Waker),
    /// It is parked, under this number.
    Parked(Arc<LeavingParked>, u32),
}

/// The numbers of one thread's parked connections that must make room.
#[derive(Default)]
pub(super) struct LeavingParked {
    numbers: Mutex<Vec<u32>>,
    came: Notify,
}

impl LeavingParked {
    fn push(&self, number: u32) {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).push(number);
        self.came.notify_one();
    }

    /// Returns once there are some.
    pub(super) async fn numbers(&self) -> Vec<u32> {
        self.came.notified().await;
        std::mem::take(&mut self.numbers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A connection's place, given back when it is dropped.
pub(super) struct Place {
    room: Arc<Room>,
    seat: Arc<Seat>,
    /// `None` for a connection beyond the limit: from an earlier server, or accepted while the server stops.
    permit: Option<OwnedSemaphorePermit>,
}

impl Room {
    pub(super) fn of(max_connections: usize) -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS))),
            idle: Mutex::default(),
            began: Instant::now(),
            came: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            settled: Notify::new(),
            notices: LimitLogs::default(),
        })
    }

    pub(super) fn try_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Waits for a place: a free one, that of an idle connection, or the next one that is released. Meanwhile further
    /// connections stay in the kernel's queue.
    pub(super) async fn permit(&self) -> OwnedSemaphorePermit {
        let _waiting = Waiting::new(&self.waiting);
        let mut chosen: Option<Arc<Seat>> = None;
        loop {
            // Before the check, so that no notification is missed.
            let mut settled = std::pin::pin!(self.settled.notified());
            settled.as_mut().enable();
            // A notification can be about another connection: one place needs only one connection to close. Read before
            // the check, since one that has ended has given its place back.
            let leaving = chosen.as_ref().is_some_and(|seat| seat.leaves.load(Acquire));
            if let Some(permit) = self.try_permit() {
                return permit;
            }
            if !leaving {
                chosen = self.make();
                self.say(chosen.is_some());
            }
            tokio::select! {
                permit = Arc::clone(&self.places).acquire_owned() => match permit {
                    Ok(permit) => return permit,
                    // The semaphore is never closed.
                    Err(_) => std::future::pending().await,
                },
                () = settled => {}
                // Not synchronised with `waiting`: a thread may just have seen that nobody waits.
                () = tokio::time::sleep(LOOK_AGAIN) => chosen = None,
            }
        }
    }

    /// Adds a connection, busy at first.
    pub(super) fn seat(self: &Arc<Self>, permit: Option<OwnedSemaphorePermit>) -> Place {
        let seat = Arc::new(Seat {
            number: self.came.fetch_add(1, Relaxed),
            state: AtomicU64::new(BUSY),
            listed: AtomicU64::new(0),
            leaves: AtomicBool::new(false),
            wake: Mutex::default(),
        });
        self.list(&mut self.lock(), &seat, 0);
        Place { room: Arc::clone(self), seat, permit }
    }

    /// Tells one idle connection to close; `None` if there is none.
    fn make(&self) -> Option<Arc<Seat>> {
        let mut idle = self.lock();
        let (mut busy, mut leaving) = (Vec::new(), None);
        while let Some(((listed, _), seat)) = idle.pop_first() {
            match seat.state.load(Relaxed) {
                BUSY => busy.push(seat),
                state if state == listed => {
                    seat.leaves.store(true, Relaxed);
                    leaving = Some(seat);
                    break;
                }
                state => self.list(&mut idle, &seat, state),
            }
        }
        for seat in busy {
            self.list(&mut idle, &seat, self.idle_from_now());
        }
        drop(idle);
        if let Some(seat) = &leaving {
            seat.wake();
        }
        leaving
    }

    /// Logs that the limit is reached; `made`: an idle connection closes.
    fn say(&self, made: bool) {
        match made {
            true if self.notices.closing.is_due() => tracing::warn!(
                message_id = events::CONNECTION_LIMIT,
                "connection limit reached: each new connection closes an idle one; raise max-connections"
            ),
            false if self.notices.full.is_due() => tracing::warn!(
                message_id = events::CONNECTION_LIMIT,
                "connection limit reached and no connection is idle: new ones wait until others close; raise \
                 max-connections"
            ),
            _ => {}
        }
    }

    fn list(&self, idle: &mut BTreeMap<Key, Arc<Seat>>, seat: &Arc<Seat>, at: u64) {
        seat.listed.store(at, Relaxed);
        idle.insert((at, seat.number), Arc::clone(seat));
    }

    /// The earliest idle time of a connection that is busy now; the threads' clocks may be a beat behind.
    fn idle_from_now(&self) -> u64 {
        USED | self.seconds(Instant::now()).saturating_sub(BEAT.as_secs())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<Seat>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seconds(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.began).as_secs()
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Seat {
    fn wake(&self) {
        match &*self.lock() {
            Some(Wake::Task(waker)) => waker.wake_by_ref(),
            Some(Wake::Parked(leaving, number)) => leaving.push(*number),
            None => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Wake>> {
        self.wake.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Whether the connection must close to make room.
    pub(super) fn leaves(&self) -> bool {
        self.seat.leaves.load(Relaxed)
    }

    /// Idle since `since`, by the coarse clock; `used`: it had a request before.
    pub(super) fn idle(&self, since: Instant, used: bool) {
        self.seat.state.store(self.room.seconds(since) | if used { USED } else { 0 }, Relaxed);
        if self.room.waiting.load(Relaxed) > 0 {
            self.room.settled.notify_waiters();
        }
    }

    pub(super) fn busy(&self) {
        self.seat.state.store(BUSY, Relaxed);
        // Its request arrived while it was chosen: another connection must make room.
        if self.leaves() && self.seat.leaves.swap(false, Relaxed) {
            let from_now = self.room.idle_from_now();
            self.room.list(&mut self.room.lock(), &self.seat, from_now);
            self.room.settled.notify_waiters();
        }
    }

    pub(super) fn waker(&self) -> Option<Waker> {
        match &*self.seat.lock() {
            Some(Wake::Task(waker)) => Some(waker.clone()),
            _ => None,
        }
    }

    /// Sets the waker for when the connection must close.
    pub(super) fn wake(&self, waker: &Waker) {
        *self.seat.lock() = Some(Wake::Task(waker.clone()));
    }

    /// The connection is parked: if it must close, its number is added to `leaving`.
    pub(super) fn park(&self, leaving: &Arc<LeavingParked>, number: u32) {
        *self.seat.lock() = Some(Wake::Parked(Arc::clone(leaving), number));
        if self.leaves() {
            leaving.push(number);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Self { room, seat, permit } = self;
        room.lock().remove(&(seat.listed.load(Relaxed), seat.number));
        drop(permit.take());
        if seat.leaves.swap(false, Release) {
            room.settled.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    /// Whether it is still pending.
    async fn waits(work: &mut (impl Future + Unpin)) -> bool {
        poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut *work).poll(cx).is_pending())).await
    }

    /// A room without a place, and a connection for each of these states: `None` is busy.
    fn room_with(states: &[Option<(u64, bool)>]) -> (Arc<Room>, Vec<Place>) {
        let room = Room::of(0);
        let places = states.iter().map(|state| {
            let place = room.seat(None);
            if let Some((second, used)) = state {
                place.idle(room.began + Duration::from_secs(*second), *used);
            }
            place
        });
        let places = places.collect();
        (room, places)
    }

    fn order_of_leaving(room: &Room, places: &[Place]) -> Vec<usize> {
        let mut order = Vec::new();
        while room.make().is_some() {
            let new = places.iter().enumerate().filter(|(at, place)| place.leaves() && !order.contains(at));
            let new: Vec<_> = new.map(|(at, _)| at).collect();
            assert_eq!(new.len(), 1, "{new:?} at once");
            order.extend(new);
        }
        order
    }

    #[test]
    fn who_never_sent_anything_goes_first_then_who_is_idle_for_longest_and_nobody_in_a_request() {
        let states = [
            Some((5, true)),
            None,
            Some((9, false)),
            Some((2, true)),
            Some((8, false)),
            None,
            Some((1, true)),
        ];
        let (room, places) = room_with(&states);
        assert_eq!(order_of_leaving(&room, &places), [4, 2, 6, 3, 0]);
    }

    #[test]
    fn a_connection_that_was_used_meanwhile_has_a_later_turn() {
        let (room, places) = room_with(&[Some((1, false)), Some((2, true)), Some((3, true))]);
        assert!(room.make().is_some() && places[0].leaves());
        places[0].busy();
        assert!(!places[0].leaves(), "its request had come");
        places[0].idle(room.began + Duration::from_secs(9), true);
        places[1].busy();
        places[1].idle(room.began + Duration::from_secs(8), true);
        assert_eq!(order_of_leaving(&room, &places), [2, 1, 0]);
    }

    #[test]
    fn one_that_is_idle_is_found_behind_those_that_are_not_within_the_same_second() {
        let (room, places) = room_with(&[None, None, None]);
        assert!(room.make().is_none());
        places[1].idle(room.began, true);
        assert_eq!(order_of_leaving(&room, &places), [1]);
    }

    #[test]
    fn a_connection_that_has_ended_is_not_listed_any_more() {
        let (room, mut places) = room_with(&[Some((1, true)), None]);
        places.remove(0);
        assert!(room.make().is_none());
        assert_eq!(room.lock().len(), 1);
        drop(places);
        assert_eq!(room.lock().len(), 0);
    }

    #[tokio::test]
    async fn one_connection_closes_for_one_that_waits_whatever_else_happens() {
        let room = Room::of(1);
        let places = [room.seat(room.try_permit()), room.seat(None)];
        let mut permit = std::pin::pin!(room.permit());
        for place in &places {
            place.idle(room.began, true);
            assert!(waits(&mut permit).await);
        }
        // As a connection that ended for an earlier one.
        room.settled.notify_waiters();
        assert!(waits(&mut permit).await && places[0].leaves() && !places[1].leaves());
    }

    #[tokio::test]
    async fn whoever_waits_gets_the_place_of_one_that_ends_and_tries_again_where_one_does_not() {
        let room = Room::of(1);
        let place = room.seat(room.try_permit());
        let mut permit = std::pin::pin!(room.permit());
        assert!(waits(&mut permit).await && !place.leaves(), "it has a request");
        place.idle(room.began, true);
        assert!(waits(&mut permit).await && place.leaves());
        place.busy();
        assert!(waits(&mut permit).await && !place.leaves(), "its next request had come");
        place.idle(room.began, true);
        assert!(waits(&mut permit).await && place.leaves());
        drop(place);
        drop(permit.await);
    }
}
