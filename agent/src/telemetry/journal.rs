//! Writes to journald: a queue, and one thread that reads from it and uses tracing-journald.
//!
//! tracing-journald blocks while journald is slow or hangs, and a web server must not wait for its log. So only this
//! thread uses a subscriber with tracing-journald's layer. The subscriber of all other threads has the layer below, which
//! puts a copy of each event into the queue.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tracing_core::dispatcher::with_default;
use tracing_core::{Dispatch, Event, Subscriber};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::{Layer, Registry};

use super::entry::{self, Entry};
use super::library_repeats;
use super::queue::Queue;

/// journald's socket, the same as in tracing-journald.
const SOCKET: &str = "/run/systemd/journal/socket";

/// How long a stop or a reload waits for journald.
const LAST_WORDS: Duration = Duration::from_millis(200);

static QUEUE: Queue<Entry> = Queue::new();

/// Puts events into the queue.
pub(super) struct Journal(());

impl Journal {
    /// Starts the thread that writes entries that pass `filter`, if journald listens. `lost` entries were dropped before.
    ///
    /// The thread inherits the signal mask of the calling one, which blocks the handled signals.
    pub(super) fn start(filter: Targets, lost: u64) -> io::Result<Self> {
        listens(Path::new(SOCKET))?;
        let mut writer = Writer { filter, current: None };
        let pass_on = move |lost, entry: Option<&Entry>| writer.write(lost, entry).is_ok();
        std::thread::Builder::new().name("journal".to_owned()).spawn(move || QUEUE.read(pass_on))?;
        QUEUE.add_lost(lost);
        Ok(Self(()))
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let entry = Entry::of(event);
        if library_repeats::is_repeated(&entry) {
            return;
        }
        let size = entry.size();
        QUEUE.put(entry, size);
    }
}

/// Waits a moment for journald to take all entries. Returns the number of those that it did not take.
pub(crate) fn flush() -> u64 {
    QUEUE.flush(LAST_WORDS)
}

/// Whether journald listens. A datagram socket connects without waiting, even if the other queue is full.
fn listens(path: &Path) -> io::Result<()> {
    UnixDatagram::unbound()?.connect(path)
}

struct Writer {
    filter: Targets,
    /// The subscriber, and the instance that its entries name.
    current: Option<(Option<Arc<str>>, Dispatch)>,
}

impl Writer {
    fn write(&mut self, lost: u64, entry: Option<&Entry>) -> io::Result<()> {
        let instance = entry.map_or_else(entry::instance, |entry| entry.instance.clone());
        with_default(self.naming(instance)?, || {
            if lost > 0 {
                tracing::warn!("journald was too slow: {lost} log entries dropped");
            }
            if let Some(entry) = entry {
                entry.dispatch();
            }
        });
        // tracing-journald does not report whether it could send.
        listens(Path::new(SOCKET))
    }

    /// The subscriber whose entries have this instance's id. The custom fields of a layer are fixed, so a new id, which is
    /// rare, needs a new subscriber.
    fn naming(&mut self, instance: Option<Arc<str>>) -> io::Result<&Dispatch> {
        let current = match self.current.take() {
            Some(current) if current.0 == instance => current,
            _ => {
                let priorities = PriorityMappings {
                    info: Priority::Informational,
                    debug: Priority::Debug,
                    ..PriorityMappings::new()
                };
                // May block too: it sends an empty entry, which journald ignores.
                let layer = tracing_journald::Layer::new()?
                    .with_field_prefix(None)
                    .with_priority_mappings(priorities)
                    .with_syslog_identifier("instance-agent".to_owned())
                    .with_custom_fields(instance.iter().map(|id| ("INSTANCE_ID", id.as_bytes())));
                // Without a filter, tracing would enable every event of every library.
                (instance, Dispatch::new(Registry::default().with(self.filter.clone()).with(layer)))
            }
        };
        Ok(&self.current.insert(current).1)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::sync::mpsc::channel;

    use super::super::Logging;
    use super::*;

    #[test]
    fn the_end_of_logging_waits_for_what_was_said_last() {
        let subscriber = Registry::default().with(Journal(()));
        with_default(&subscriber.into(), || tracing::info!("the last words"));
        let (read, was_read) = channel();
        std::thread::spawn(move || {
            QUEUE.read(|lost, entry| read.send((lost, entry.map(|entry| entry.message.clone()))).is_ok())
        });
        drop(Logging(()));
        assert_eq!(was_read.try_recv(), Ok((0, Some("the last words".to_owned()))));
    }

    #[test]
    fn the_question_whether_anybody_listens_is_answered_at_once_and_leaves_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        assert_eq!(listens(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        let listening = UnixDatagram::bind(&path).unwrap();
        listening.set_nonblocking(true).unwrap();
        listens(&path).unwrap();
        assert_eq!(listening.recv(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        // With a full queue too.
        let sender = UnixDatagram::unbound().unwrap();
        sender.set_nonblocking(true).unwrap();
        while sender.send_to(b"MESSAGE=filler\n", &path).is_ok() {}
        listens(&path).unwrap();
        drop(listening);
        assert_eq!(listens(&path).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
