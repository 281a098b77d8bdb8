//! A log entry: one sentence, and the fields that the journal can filter by.

use std::fmt::{self, Display};
use std::sync::{PoisonError, RwLock};

use tracing_core::Event;
use tracing_core::field::{Field, Visit};

/// The crate's own events; the others are its libraries'.
pub(super) const OURS: &str = "instance_agent";

/// No text in an event is longer, in characters.
const LONGEST: usize = 4_096;

/// The id that goes with every entry in the journal.
static INSTANCE_ID: RwLock<Option<String>> = RwLock::new(None);

/// From here on, entries in the journal name this instance. On each, since a fleet's journals are
/// often read as one.
pub(crate) fn name_instance(id: Option<&str>) {
    *INSTANCE_ID.write().unwrap_or_else(PoisonError::into_inner) = id.map(one_line);
}

/// An event as it is shown.
pub(super) struct Entry {
    /// One line that says everything.
    pub(super) message: String,
    /// What the journal can filter by.
    pub(super) fields: Vec<(&'static str, String)>,
}

impl Entry {
    pub(super) fn of(event: &Event<'_>) -> Self {
        let mut entry = Self { message: String::new(), fields: Vec::new() };
        event.record(&mut entry);
        let target = event.metadata().target();
        if target.split("::").next() == Some(OURS) {
            let id = INSTANCE_ID.read().unwrap_or_else(PoisonError::into_inner).clone();
            entry.fields.extend(id.map(|id| ("instance_id", id)));
        } else {
            // A library says in fields what belongs into the sentence, and under names of its own.
            let said = std::mem::take(&mut entry.message);
            let fields = std::mem::take(&mut entry.fields).into_iter();
            let fields = fields.map(|(name, value)| format!("{name}={value}"));
            let parts: Vec<String> =
                [said].into_iter().filter(|said| !said.is_empty()).chain(fields).collect();
            entry.message = format!("{target}: {}", parts.join(" "));
        }
        entry
    }

    fn take(&mut self, field: &Field, value: impl Display) {
        let value = one_line(&value.to_string());
        match field.name() {
            "message" => self.message = value,
            name => self.fields.push((name, value)),
        }
    }
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, format_args!("{value:?}"));
    }
}

/// What AWS, tags or a disk's error say must neither begin a line of its own nor reach a terminal as
/// a control sequence.
fn one_line(text: &str) -> String {
    text.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
