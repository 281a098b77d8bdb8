//! The journal, as the agent speaks to it and as `journalctl -x` explains it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::net::UnixDatagram;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::eventually;
use crate::solo::{Namespace, Solo};

/// An entry: the fields of one datagram.
pub type Entry = BTreeMap<String, String>;

/// Entries as they come in at the place where the journal listens.
pub struct Journal {
    entries: Arc<Mutex<Vec<Entry>>>,
    /// Whether it reads what comes, or hangs.
    reads: watch::Sender<bool>,
    reader: JoinHandle<()>,
    path: PathBuf,
}

/// What fills the queue of a journal that hangs; no entry.
const FILLER: &[u8] = b"filler";

impl Journal {
    /// The place, in a namespace where it is nobody else's.
    pub const SOCKET: &str = "/run/systemd/journal/socket";
    /// Shell commands that make room for it in such a namespace.
    pub const SETUP: &str = "mount -t tmpfs none /run; mkdir -p /run/systemd/journal";

    /// Listens in a namespace that was set up so, for an agent that is started there with a stderr
    /// that is the journal's.
    pub fn of(solo: &mut Solo, world: &Namespace) -> Self {
        let entries = Arc::<Mutex<Vec<Entry>>>::default();
        let (reads, mut reading) = watch::channel(true);
        let path = world.path(Self::SOCKET);
        let socket = UnixDatagram::bind(&path).expect("nobody listens there");
        let read = entries.clone();
        let reader = tokio::spawn(async move {
            let mut datagram = vec![0; 256 * 1024];
            while reading.wait_for(|reads| *reads).await.is_ok() {
                let length = tokio::select! {
                    biased;
                    _ = reading.wait_for(|reads| !*reads) => continue,
                    length = socket.recv(&mut datagram) => length.expect("a datagram"),
                };
                // An empty one only asks whether anybody listens; the journal ignores it too.
                if length > 0 && &datagram[..length] != FILLER {
                    read.lock().expect("no panic").push(fields(&datagram[..length]));
                }
            }
        });
        solo.wrapper = world.wrapper();
        stderr_is_the_journal(solo);
        Self { entries, reads, reader, path }
    }

    /// Hangs: its queue is full to the brim and nothing is read from it, so that it takes no entry at all.
    pub fn hang(&self) {
        self.reads.send_replace(false);
        // The room of one sender is limited as well; the queue is full when a new one can send nothing.
        loop {
            let filler = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
            filler.set_nonblocking(true).expect("a socket");
            let mut sent = 0;
            let error = loop {
                match filler.send_to(FILLER, &self.path) {
                    Ok(_) => sent += 1,
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
            if sent == 0 {
                break;
            }
        }
    }

    /// Ends, so that nobody listens.
    pub async fn end(self) {
        self.reader.abort();
        assert!(self.reader.await.is_err_and(|ended| ended.is_cancelled()));
        std::fs::remove_file(self.path).expect("where it listened");
    }

    /// Reads again.
    pub fn recover(&self) {
        self.reads.send_replace(true);
    }

    /// Everything that came.
    pub fn entries(&self) -> Vec<Entry> {
        self.entries.lock().expect("no panic").clone()
    }

    /// Waits for the first entry that is as wanted.
    pub async fn until(&self, what: &str, wanted: impl Fn(&Entry) -> bool) -> Entry {
        let found = eventually(async || self.entries().into_iter().find(&wanted)).await;
        found.unwrap_or_else(|| panic!("no entry {what}: {:#?}", self.entries()))
    }

    /// Waits for the first entry of this event of a target group.
    pub async fn of_group(&self, event: &str, group: &str) -> Entry {
        let id = message_id(event);
        let is = |entry: &Entry| is_from(entry, "MESSAGE_ID", &id) && is_from(entry, "TARGET_GROUP", group);
        self.until(&format!("{event} of {group}"), is).await
    }

    /// Waits for the first entry of this event.
    pub async fn event(&self, name: &str) -> Entry {
        let id = message_id(name);
        self.until(name, |entry| is_from(entry, "MESSAGE_ID", &id)).await
    }
}

/// Whether an entry has this field with this value.
pub fn is_from(entry: &Entry, field: &str, value: &str) -> bool {
    entry.get(field).is_some_and(|found| found == value)
}

/// Tells the agent that its stderr, which is its log file, is the journal's: systemd names the file
/// behind stderr, whatever it is.
pub fn stderr_is_the_journal(solo: &mut Solo) {
    let log = solo.path("agent.log");
    std::fs::write(&log, "").expect("room for a log");
    let stderr = std::fs::metadata(log).expect("it was made");
    solo.set("JOURNAL_STREAM", format!("{}:{}", stderr.dev(), stderr.ino()));
}

/// Reads the journal's native protocol: `NAME=value`, or the name alone and then the value after its length.
fn fields(datagram: &[u8]) -> Entry {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).expect("text").to_owned();
    let mut entry = Entry::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').expect("whole lines");
        let (line, after) = (&rest[..end], &rest[end + 1..]);
        let (name, value) = if let Some(equals) = line.iter().position(|byte| *byte == b'=') {
            rest = after;
            (&line[..equals], &line[equals + 1..])
        } else {
            let (length, after) = after.split_first_chunk().expect("a length");
            let length = usize::try_from(u64::from_le_bytes(*length)).expect("one that fits");
            assert_eq!(after.get(length), Some(&b'\n'), "a line break after each value");
            rest = &after[length + 1..];
            (line, &after[..length])
        };
        let twice = entry.insert(text(name), text(value));
        assert!(twice.is_none(), "{} is in it twice: {entry:?}", text(name));
    }
    entry
}

/// What the catalog says about one message id.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// What the agent's source calls the event, such as `HEALTHY`.
    pub name: String,
    /// The message id.
    pub id: String,
    /// The headline.
    pub subject: String,
    /// The fields of an entry that headline and text show.
    pub fields: BTreeSet<String>,
}

/// The catalog that is shipped.
pub fn catalog_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd/instance-agent.catalog")
}

/// Everything that the catalog explains.
pub fn catalog() -> Vec<Explanation> {
    let text = std::fs::read_to_string(catalog_file()).expect("the catalog is there");
    let mut found: Vec<Explanation> = Vec::new();
    let mut comment = "";
    for line in text.lines() {
        if let Some(said) = line.strip_prefix("# ") {
            comment = said;
        } else if let Some(id) = line.strip_prefix("-- ") {
            found.push(Explanation {
                name: comment.to_owned(),
                id: id.to_owned(),
                subject: String::new(),
                fields: BTreeSet::new(),
            });
        } else if let Some(explanation) = found.last_mut() {
            if let Some(subject) = line.strip_prefix("Subject: ") {
                subject.clone_into(&mut explanation.subject);
            }
            // Between two at signs stands a name.
            explanation.fields.extend(line.split('@').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

/// The message id of an event by its name in the agent's source, such as `HEALTHY`.
pub fn message_id(name: &str) -> String {
    let found = catalog().into_iter().find(|explanation| explanation.name == name);
    found.unwrap_or_else(|| panic!("the catalog has no {name}")).id
}
