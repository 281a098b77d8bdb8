//! A log entry: one sentence, and the fields for the journal's filters.

use std::fmt::{self, Display};
use std::sync::{Arc, PoisonError, RwLock};

use instance_contract::one_line;
use tracing_core::field::{Field, Value, Visit};
use tracing_core::{Event, Level, Metadata};

/// The targets of the program's own events begin with these crates; others come from libraries.
pub(super) const OURS: [&str; 2] = ["instance_agent", "instance_server"];

/// The longest text in an event, in characters.
const LONGEST: usize = 4_096;

/// The id in every entry of the journal.
static INSTANCE_ID: RwLock<Option<Arc<str>>> = RwLock::new(None);

/// Sets the instance id in all later entries. Each entry has it, since the journals of a fleet are often read
/// together.
pub(crate) fn name_instance(id: Option<&str>) {
    *INSTANCE_ID.write().unwrap_or_else(PoisonError::into_inner) = id.map(|id| one_line(id, LONGEST).into());
}

pub(super) fn instance() -> Option<Arc<str>> {
    INSTANCE_ID.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// An owned copy of an event, for another thread.
pub(super) struct Entry {
    metadata: &'static Metadata<'static>,
    /// One line.
    pub(super) message: String,
    /// The fields for the journal; those of a library's event are in the message.
    fields: Vec<(Field, String)>,
    pub(super) instance: Option<Arc<str>>,
}

impl Entry {
    pub(super) fn of(event: &Event<'_>) -> Self {
        let metadata = event.metadata();
        let mut entry = Self { metadata, message: String::new(), fields: Vec::new(), instance: instance() };
        event.record(&mut entry);
        let target = metadata.target();
        if entry.is_of_library() {
            // Libraries put parts of their sentence into fields, with their own names.
            let said = std::mem::take(&mut entry.message);
            let fields = std::mem::take(&mut entry.fields).into_iter();
            let fields = fields.map(|(field, value)| format!("{}={value}", field.name()));
            let parts: Vec<String> =
                [said].into_iter().filter(|said| !said.is_empty()).chain(fields).collect();
            entry.message = format!("{target}: {}", parts.join(" "));
        }
        entry
    }

    pub(super) fn is_of_library(&self) -> bool {
        !self.metadata.target().split("::").next().is_some_and(|name| OURS.contains(&name))
    }

    /// Approximate memory in bytes.
    pub(super) fn size(&self) -> usize {
        let fields: usize = self.fields.iter().map(|(_, value)| value.len() + size_of::<Field>()).sum();
        size_of::<Self>() + self.message.len() + fields
    }

    /// Sends it as an event of its original callsite to this thread's subscriber.
    pub(super) fn dispatch(&self) {
        let set = self.metadata.fields();
        let Some(message) = set.field("message") else {
            // The callsite of a library, without a message field.
            return match *self.metadata.level() {
                Level::ERROR => tracing::error!("{}", self.message),
                _ => tracing::warn!("{}", self.message),
            };
        };
        let mut values: Vec<Option<&dyn Value>> = vec![None; set.len()];
        let fields = self.fields.iter().map(|(field, value)| (field, value));
        for (field, value) in fields.chain([(&message, &self.message)]) {
            if let Some(place) = values.get_mut(field.index()) {
                *place = Some(value);
            }
        }
        Event::dispatch(self.metadata, &set.value_set_all(&values));
    }

    fn take(&mut self, field: &Field, value: impl Display) {
        let value = one_line(&value.to_string(), LONGEST);
        match field.name() {
            "message" => self.message = value,
            _ => self.fields.push((field.clone(), value)),
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::sync::Mutex;

    use tracing_core::Subscriber;
    use tracing_core::dispatcher::with_default;
    use tracing_subscriber::layer::{Context, SubscriberExt};
    use tracing_subscriber::{Layer, Registry};

    use super::*;

    /// Keeps each event as an entry, and as text.
    #[derive(Default)]
    struct Recorder(Mutex<Vec<(Entry, String)>>);

    struct Text(String);

    impl Visit for Text {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            self.0 += &format!(" {}={value:?}", field.name());
        }
    }

    impl<S: Subscriber> Layer<S> for &'static Recorder {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let metadata = event.metadata();
            let mut text = Text(format!("{} {}", metadata.level(), metadata.target()));
            event.record(&mut text);
            self.0.lock().unwrap().push((Entry::of(event), text.0));
        }
    }

    fn record(log: impl FnOnce()) -> Vec<(Entry, String)> {
        let recorder: &'static Recorder = Box::leak(Box::default());
        with_default(&Registry::default().with(recorder).into(), log);
        std::mem::take(&mut recorder.0.lock().unwrap())
    }

    #[test]
    fn an_entry_becomes_an_event_of_the_same_callsite_with_the_same_values_as_text() {
        let missing: Option<u8> = None;
        let before = record(|| {
            tracing::info!(message_id = "4f", count = 5, missing, listen = %"[::]:80", "it {}", "listens");
            tracing::debug!(reason = "two\nlines \x1b[31m", "{}", "long".repeat(2_000));
            tracing::warn!(target: "library::part", path = ?"p", code = 7, "failed");
            tracing::error!(target: "library::part", code = 7);
        });
        let after = record(|| before.iter().for_each(|(entry, _)| entry.dispatch()));
        let texts: Vec<&str> = after.iter().map(|(_, text)| &**text).collect();
        let ours = module_path!();
        let long = "long".repeat(1_023) + "lon…";
        assert_eq!(
            texts,
            [
                &format!(
                    "INFO {ours} message=\"it listens\" message_id=\"4f\" count=\"5\" listen=\"[::]:80\""
                ),
                &format!("DEBUG {ours} message=\"{long}\" reason=\"two lines  [31m\""),
                "WARN library::part message=\"library::part: failed path=\\\"p\\\" code=7\"",
                "ERROR instance_agent::telemetry::entry message=library::part: code=7",
            ]
        );
        for ((entry, _), (again, _)) in before.iter().zip(&after).take(2) {
            assert!(std::ptr::eq(entry.metadata, again.metadata), "{}", entry.message);
        }
    }
}
