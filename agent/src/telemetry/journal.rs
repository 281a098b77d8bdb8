//! The journal's native protocol: an entry is one datagram with a line for each field.
//!
//! Nothing here waits. An entry that the journal does not take at once, because it hangs or is being
//! restarted, is lost and counted: a web server must not stand still for its log.

use std::fmt::{Display, Write as _};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use tracing_core::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::entry::Entry;

/// A way to the journal.
pub(super) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
    /// Entries that it has not taken since the last one it took.
    lost: AtomicU64,
}

impl Journal {
    /// The journal that listens at `path`, if one does.
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        // It ignores an empty datagram.
        match socket.send_to(&[], path) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
        Ok(Self { socket, path: path.to_owned(), lost: AtomicU64::new(0) })
    }

    fn send(&self, level: Level, entry: &Entry) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let mut unsent = lost;
        if lost > 0 {
            let message = format!("{lost} log entries are lost: the journal did not take them");
            if self.try_send(Level::WARN, &Entry { message, fields: Vec::new() }).is_ok() {
                unsent = 0;
            }
        }
        if self.try_send(level, entry).is_err() {
            unsent += 1;
        }
        self.lost.fetch_add(unsent, Ordering::Relaxed);
    }

    fn try_send(&self, level: Level, entry: &Entry) -> io::Result<()> {
        self.socket.send_to(datagram(level, entry).as_bytes(), &self.path).map(drop)
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.send(*event.metadata().level(), &Entry::of(event));
    }
}

fn datagram(level: Level, entry: &Entry) -> String {
    // As syslog counts.
    let priority = match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    };
    let mut text = String::with_capacity(512);
    let mut add = |name: &str, value: &dyn Display| _ = writeln!(text, "{name}={value}");
    add("MESSAGE", &entry.message);
    add("PRIORITY", &priority);
    add("SYSLOG_IDENTIFIER", &"instance-agent");
    for (name, value) in &entry.fields {
        add(&name.to_ascii_uppercase(), value);
    }
    text
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::time::Duration;

    use super::*;

    fn entry(message: &str) -> Entry {
        Entry { message: message.to_owned(), fields: vec![("target_group", "cluster1".to_owned())] }
    }

    #[test]
    fn a_journal_that_hangs_holds_nobody_up_and_is_told_later_what_it_missed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        assert!(Journal::connect(&path).is_err(), "nobody listens there");
        let listening = UnixDatagram::bind(&path).unwrap();
        listening.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let journal = Journal::connect(&path).unwrap();
        let sent = 100_000;
        for _ in 0..sent {
            journal.send(Level::INFO, &entry("said"));
        }
        let lost = journal.lost.load(Ordering::Relaxed);
        assert!(lost > 0, "its queue has no end");
        let receive = || {
            let mut bytes = [0; 1024];
            let length = listening.recv(&mut bytes).unwrap();
            String::from_utf8(bytes[..length].to_vec()).unwrap()
        };
        assert_eq!(receive(), "", "the question whether anybody listens");
        for _ in lost..sent {
            assert_eq!(
                receive(),
                "MESSAGE=said\nPRIORITY=6\nSYSLOG_IDENTIFIER=instance-agent\nTARGET_GROUP=cluster1\n"
            );
        }
        journal.send(Level::ERROR, &entry("after"));
        let told = receive();
        assert!(told.starts_with(&format!("MESSAGE={lost} log entries are lost")), "{told}");
        assert!(told.contains("\nPRIORITY=4\n"), "{told}");
        assert!(receive().starts_with("MESSAGE=after\nPRIORITY=3\n"));
        // Gone altogether, and back: as at a restart of the journal.
        drop(listening);
        std::fs::remove_file(&path).unwrap();
        journal.send(Level::INFO, &entry("to nobody"));
        let listening = UnixDatagram::bind(&path).unwrap();
        journal.send(Level::INFO, &entry("again"));
        let mut bytes = [0; 1024];
        let length = listening.recv(&mut bytes).unwrap();
        assert!(bytes[..length].starts_with(b"MESSAGE=1 log entries"));
    }
}
