//! Logging: natively to the journal when stderr is the journal, else one readable line per event.
//!
//! Each event's message is a sentence that says everything. Its fields are for the journal alone, to
//! filter by and to fill in the catalog's texts.

use std::fmt::{self, Display};
use std::io::{self, IsTerminal};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use tracing_core::field::{Field, Visit};
use tracing_core::{Event, Level, LevelFilter, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::journal::Journal;

/// The crate's own events; the others are its libraries'.
const OURS: &str = "instance_agent";

/// No text in an event is longer, in characters.
const LONGEST: usize = 4_096;

/// The id that goes with every entry in the journal.
static INSTANCE_ID: RwLock<Option<String>> = RwLock::new(None);

/// From here on, entries in the journal name this instance. On each, since a fleet's journals are
/// often read as one.
pub(crate) fn name_instance(id: Option<&str>) {
    *INSTANCE_ID.write().unwrap_or_else(PoisonError::into_inner) = id.map(one_line);
}

/// Starts logging events of `level` and above. The libraries' own events are logged from `warn`.
pub(crate) fn start(level: Level) {
    let libraries = LevelFilter::from_level(level).min(LevelFilter::WARN);
    let filter = Targets::new()
        .with_default(libraries)
        .with_target(OURS, level)
        // Says at length what the agent says in a line.
        .with_target("aws_config", libraries.min(LevelFilter::ERROR));
    let path = Path::new("/run/systemd/journal/socket");
    match stderr_is_the_journal().then(|| Journal::connect(path)).and_then(Result::ok) {
        Some(journal) => Registry::default().with(journal.with_filter(filter)).init(),
        None => {
            let lines = tracing_subscriber::fmt::layer()
                .event_format(Line)
                .with_writer(io::stderr)
                .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
            Registry::default().with(lines.with_filter(filter)).init();
        }
    }
}

/// systemd sets `JOURNAL_STREAM` to the device and inode of the stream it connected. Anything that
/// redirected stderr since then inherits the variable but not the file.
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let Ok(stderr) = std::fs::metadata("/proc/self/fd/2") else {
        return false;
    };
    stream == format!("{}:{}", stderr.dev(), stderr.ino())
}

/// An event as it is shown.
pub(crate) struct Entry {
    /// One line that says everything.
    pub(crate) message: String,
    /// What the journal can filter by.
    pub(crate) fields: Vec<(&'static str, String)>,
}

impl Entry {
    pub(crate) fn of(event: &Event<'_>) -> Self {
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

/// `2026-01-01T00:00:00.000000Z  INFO the sentence`
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        SystemTime.format_time(&mut writer)?;
        let level = *event.metadata().level();
        let message = Entry::of(event).message;
        let colour = match level {
            Level::ERROR => 31,
            Level::WARN => 33,
            _ => 32,
        };
        if writer.has_ansi_escapes() {
            writeln!(writer, " \x1b[{colour}m{level:>5}\x1b[0m {message}")
        } else {
            writeln!(writer, " {level:>5} {message}")
        }
    }
}
