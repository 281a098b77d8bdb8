//! Keeps idle sockets with little memory, and reports those that can be read.
//!
//! The runtime's registration, a task and hyper's state and buffers cost 14 kB for each connection. Here, a socket costs its
//! entry in a list: one epoll instance for each server thread watches all of them, and the runtime watches that instance.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::retry_on_intr;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::room::LeavingParked;
use crate::traffic::ThreadTraffic;

/// How many sockets are reported at a time; other tasks run in between.
const BATCH: usize = 64;

/// The parked sockets of one server thread, each with its state.
pub(super) struct Parking<T> {
    epoll: AsyncFd<OwnedFd>,
    slots: RefCell<Slots<T>>,
    /// Those that must make room.
    leaving: Arc<LeavingParked>,
    traffic: Arc<ThreadTraffic>,
}

struct Slots<T> {
    all: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T: AsFd> Parking<T> {
    /// Needs a runtime.
    pub(super) fn new(traffic: Arc<ThreadTraffic>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // SAFETY: an owned descriptor stays open and the same until it is dropped, and nothing replaces it.
        #[expect(unsafe_code, reason = "the safe function is deprecated")]
        let epoll = unsafe { AsyncFd::register_with_interest(epoll, Interest::READABLE) }?;
        Ok(Self {
            epoll,
            slots: RefCell::new(Slots { all: Vec::new(), free: Vec::new() }),
            leaving: Arc::default(),
            traffic,
        })
    }

    pub(super) fn leaving(&self) -> &Arc<LeavingParked> {
        &self.leaving
    }

    /// Watches a socket. Returns its number, by which it is taken back.
    pub(super) fn park(&self, socket: T) -> io::Result<u32> {
        let slots = &mut *self.slots.borrow_mut();
        let number = match slots.free.last() {
            Some(number) => *number,
            None => u32::try_from(slots.all.len()).map_err(io::Error::other)?,
        };
        // Level-triggered: bytes that arrived before are reported too. The end of the stream is readable as well.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(number.into()), flags)?;
        if slots.free.pop().is_none() {
            slots.all.push(None);
        }
        if let Some(slot) = slots.all.get_mut(number as usize) {
            *slot = Some(socket);
        }
        self.traffic.parked.increment();
        Ok(number)
    }

    /// Takes a socket back; `None` if it was taken before.
    pub(super) fn take(&self, number: u32) -> Option<T> {
        let slots = &mut *self.slots.borrow_mut();
        let socket = slots.all.get_mut(number as usize)?.take()?;
        slots.free.push(number);
        self.traffic.unparked.increment();
        // Does not fail: the socket is registered.
        let _ = epoll::delete(&self.epoll, &socket);
        Some(socket)
    }

    /// Takes a socket back if `filter` is true for it.
    pub(super) fn take_one_if(&self, number: u32, filter: impl FnOnce(&T) -> bool) -> Option<T> {
        let fits = self.slots.borrow().all.get(number as usize)?.as_ref().is_some_and(filter);
        if fits { self.take(number) } else { None }
    }

    /// Takes back those for which `filter` is true.
    pub(super) fn take_if(&self, mut filter: impl FnMut(&T) -> bool) -> Vec<T> {
        let fits: Vec<_> = (0_u32..)
            .zip(&self.slots.borrow().all)
            .filter(|(_, slot)| slot.as_ref().is_some_and(&mut filter))
            .map(|(number, _)| number)
            .collect();
        fits.into_iter().filter_map(|number| self.take(number)).collect()
    }

    /// Returns once some sockets can be read: takes them back.
    pub(super) async fn readable(&self) -> Vec<T> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(BATCH);
        loop {
            // Fails only while the runtime ends, and this task with it.
            let Ok(mut guard) = self.epoll.readable().await else { std::future::pending().await };
            let count = retry_on_intr(|| {
                epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&Timespec::default()))
            });
            // Fails for no other reason.
            let count = count.unwrap_or(0);
            if count < BATCH {
                // These were all. What comes later makes the instance readable again.
                guard.clear_ready();
            }
            if count > 0 {
                let numbers = events.iter().filter_map(|event| u32::try_from(event.data.u64()).ok());
                return numbers.filter_map(|number| self.take(number)).collect();
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::future::poll_fn;
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;
    use std::pin::pin;
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn sockets_that_can_be_read_come_back_and_the_others_stay() {
        let parking = Parking::new(Arc::default()).unwrap();
        let (ours, theirs): (Vec<_>, Vec<_>) = (0..3 * BATCH).map(|_| UnixStream::pair().unwrap()).unzip();
        // Before and after the socket is parked.
        (&theirs[0]).write_all(b"x").unwrap();
        for socket in ours {
            parking.park(socket).unwrap();
        }
        assert_eq!(parking.readable().await.len(), 1);
        let mut none = Box::pin(parking.readable());
        assert!(poll_fn(|cx| Poll::Ready(none.as_mut().poll(cx).is_pending())).await);
        drop(none);
        // More than one batch, whether bytes or an end.
        for mut socket in theirs.into_iter().skip(1).take(2 * BATCH) {
            socket.write_all(b"x").unwrap();
        }
        let mut came = 0;
        while came < 2 * BATCH {
            came += parking.readable().await.len();
        }
        // All the others were closed with the list.
        let mut left = 0;
        while left < BATCH - 1 {
            left += parking.readable().await.len();
        }
        assert!(parking.take_if(|_| true).is_empty());
    }

    #[tokio::test]
    async fn a_number_is_used_again_and_names_nobody_meanwhile() {
        let parking = Parking::new(Arc::default()).unwrap();
        let (first, _theirs) = UnixStream::pair().unwrap();
        let (second, _others) = UnixStream::pair().unwrap();
        let number = parking.park(first).unwrap();
        assert!(parking.take(number + 1).is_none());
        assert!(parking.take(number).is_some() && parking.take(number).is_none());
        assert_eq!(parking.park(second).unwrap(), number);
        assert_eq!(parking.take_if(|_| true).len(), 1);
        assert!(
            pin!(parking.readable())
                .as_mut()
                .poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
                .is_pending()
        );
    }
}
