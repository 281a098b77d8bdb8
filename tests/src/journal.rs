//! The journal, as the agent speaks to it and as `journalctl -x` explains it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::net::UnixDatagram;

use crate::eventually;
use crate::solo::{Namespace, Solo};

/// An entry: the fields of one datagram.
pub type Entry = BTreeMap<String, String>;

/// Entries as they come in at the place where the journal listens.
#[derive(Clone, Default)]
pub struct Journal(Arc<Mutex<Vec<Entry>>>);

impl Journal {
    /// The place, in a namespace where it is nobody else's.
    pub const SOCKET: &str = "/run/systemd/journal/socket";
    /// Shell commands that make room for it in such a namespace.
    pub const SETUP: &str = "mount -t tmpfs none /run; mkdir -p /run/systemd/journal";

    /// Listens in a namespace that was set up so, for an agent that is started there with a stderr
    /// that is the journal's.
    pub fn of(solo: &mut Solo, world: &Namespace) -> Self {
        let journal = Self::default();
        let entries = journal.0.clone();
        let socket = UnixDatagram::bind(world.path(Self::SOCKET)).expect("nobody listens there");
        tokio::spawn(async move {
            let mut datagram = vec![0; 256 * 1024];
            while let Ok(length) = socket.recv(&mut datagram).await {
                // An empty one only asks whether anybody listens; the journal ignores it too.
                if length > 0 {
                    entries.lock().expect("no panic").push(fields(&datagram[..length]));
                }
            }
        });
        solo.wrapper = world.wrapper();
        stderr_is_the_journal(solo);
        journal
    }

    /// Everything that came.
    pub fn entries(&self) -> Vec<Entry> {
        self.0.lock().expect("no panic").clone()
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

fn fields(datagram: &[u8]) -> Entry {
    let text = std::str::from_utf8(datagram).expect("text");
    let whole = text.strip_suffix('\n').expect("whole lines");
    let field = |line: &str| {
        let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("not a field: {line}"));
        (name.to_owned(), value.to_owned())
    };
    whole.split('\n').map(field).collect()
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
