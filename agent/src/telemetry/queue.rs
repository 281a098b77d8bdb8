//! A queue whose writers never wait, even if its reader hangs.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The size in bytes: some thousand entries of usual length.
const ROOM: usize = 256 * 1024;

/// A bounded queue that counts the entries it had to drop.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    waiting: VecDeque<Waiting<T>>,
    /// The size of all waiting entries, in bytes.
    size: usize,
    /// Entries dropped since the last accepted one, not reported yet.
    lost: u64,
    /// Entries that the reader has taken, including dropped ones that it is about to report.
    held: u64,
    /// The reader could not pass on the last entry: dropped ones are reported with the next one.
    refused: bool,
}

struct Waiting<T> {
    entry: T,
    size: usize,
    lost_before: u64,
}

impl<T> Queue<T> {
    pub(super) const fn new() -> Self {
        let state = State { waiting: VecDeque::new(), size: 0, lost: 0, held: 0, refused: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts entries that were dropped before.
    pub(super) fn add_lost(&self, lost: u64) {
        self.state().lost += lost;
        self.changed.notify_all();
    }

    /// Adds an entry of this size, or counts it as dropped.
    pub(super) fn put(&self, entry: T, size: usize) {
        let mut state = self.state();
        if state.size + size > ROOM {
            state.lost += 1;
            return;
        }
        state.size += size;
        let lost_before = std::mem::take(&mut state.lost);
        state.waiting.push_back(Waiting { entry, size, lost_before });
        self.changed.notify_all();
    }

    /// Passes each entry to `pass_on`, with the number of entries dropped right before it. If `pass_on` returns false, these
    /// count as dropped.
    ///
    /// The entry is `None` if some were dropped and none came after them.
    pub(super) fn read(&self, mut pass_on: impl FnMut(u64, Option<&T>) -> bool) -> ! {
        loop {
            let (lost, entry) = self.next();
            let passed = pass_on(lost, entry.as_ref());
            let mut state = self.state();
            let held = std::mem::take(&mut state.held);
            state.refused = !passed;
            if !passed {
                state.lost += held;
            }
            self.changed.notify_all();
        }
    }

    fn next(&self) -> (u64, Option<T>) {
        let nothing = |state: &mut State<T>| state.waiting.is_empty() && (state.lost == 0 || state.refused);
        let state = self.changed.wait_while(self.state(), nothing);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        let (lost, entry) = match state.waiting.pop_front() {
            Some(Waiting { entry, size, lost_before }) => {
                state.size -= size;
                (lost_before, Some(entry))
            }
            None => (std::mem::take(&mut state.lost), None),
        };
        state.held = lost + u64::from(entry.is_some());
        (lost, entry)
    }

    /// Waits at most `limit` until all entries are passed on. Returns how many are not.
    pub(super) fn flush(&self, limit: Duration) -> u64 {
        let unread = |state: &mut State<T>| {
            !state.waiting.is_empty() || state.held > 0 || (state.lost > 0 && !state.refused)
        };
        let waited = self.changed.wait_timeout_while(self.state(), limit, unread);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let waiting: u64 = state.waiting.iter().map(|waiting| waiting.lost_before + 1).sum();
        waiting + state.held + state.lost
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const SOON: Duration = Duration::from_secs(60);
    /// Four of them fill the queue.
    const QUARTER: usize = ROOM / 4;

    /// A queue with a reader that says what it was given, and then waits to be told how it went.
    #[expect(clippy::type_complexity, reason = "the two ends of one reader")]
    fn read() -> (Arc<Queue<u32>>, Receiver<(u64, Option<u32>)>, Sender<bool>) {
        let queue = Arc::new(Queue::new());
        let (given, receive_given) = channel();
        let (outcome, outcomes) = channel();
        let reader = queue.clone();
        std::thread::spawn(move || {
            reader.read(|lost, entry| {
                given.send((lost, entry.copied())).is_ok() && outcomes.recv().unwrap_or(false)
            })
        });
        (queue, receive_given, outcome)
    }

    #[test]
    fn what_comes_in_goes_out_in_order_and_a_flush_waits_for_it() {
        let (queue, given, outcome) = read();
        for number in 0..1000 {
            outcome.send(true).unwrap();
            queue.put(number, 1);
        }
        assert_eq!(queue.flush(SOON), 0);
        let all: Vec<_> = given.try_iter().collect();
        assert_eq!(all, (0..1000).map(|number| (0, Some(number))).collect::<Vec<_>>());
    }

    #[test]
    fn a_reader_that_hangs_keeps_nobody_waiting_and_is_told_later_what_was_lost_and_where() {
        let (queue, given, outcome) = read();
        queue.put(0, QUARTER);
        assert_eq!(given.recv_timeout(SOON).unwrap(), (0, Some(0)));
        // It holds the first; four more fill the queue.
        for number in 1..8 {
            queue.put(number, QUARTER);
        }
        assert_eq!(queue.flush(Duration::ZERO), 8);
        outcome.send(true).unwrap();
        assert_eq!(given.recv_timeout(SOON).unwrap(), (0, Some(1)));
        queue.put(8, QUARTER);
        queue.put(9, QUARTER);
        for expected in [(0, Some(2)), (0, Some(3)), (0, Some(4)), (3, Some(8)), (1, None)] {
            outcome.send(true).unwrap();
            assert_eq!(given.recv_timeout(SOON).unwrap(), expected);
        }
        outcome.send(true).unwrap();
        assert_eq!(queue.flush(SOON), 0);
    }

    #[test]
    fn what_nobody_took_is_told_of_with_the_next_one() {
        let (queue, given, outcome) = read();
        queue.add_lost(2);
        assert_eq!(given.recv_timeout(SOON).unwrap(), (2, None));
        outcome.send(false).unwrap();
        // Nobody is there: it does not try for ever.
        assert_eq!(queue.flush(SOON), 2);
        assert!(given.try_recv().is_err());
        queue.put(1, 1);
        assert_eq!(given.recv_timeout(SOON).unwrap(), (2, Some(1)));
        outcome.send(false).unwrap();
        assert_eq!(queue.flush(SOON), 3);
        queue.put(2, 1);
        assert_eq!(given.recv_timeout(SOON).unwrap(), (3, Some(2)));
        outcome.send(true).unwrap();
        assert_eq!(queue.flush(SOON), 0);
    }
}
