//! Logging: natively to the journal if stderr is the journal, else one line for each event.
//!
//! The message of each event is a complete sentence. Its fields are only for the journal, for filters and for
//! the catalog's texts.

#[cfg(test)]
mod captured;
mod entry;
mod journal;
mod library_repeats;
mod queue;

use std::fmt;
use std::io::{self, IsTerminal};
use std::os::unix::fs::MetadataExt;

use tracing_core::{Event, Level, LevelFilter, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

#[cfg(test)]
pub(crate) use self::captured::Log;
pub(crate) use self::entry::name_instance;
use self::entry::{Entry, OURS};
use self::journal::Journal;
pub(crate) use self::journal::flush;

/// When dropped, waits a moment for the journal to take the last entries.
#[must_use]
pub(crate) struct Logging(());

impl Drop for Logging {
    fn drop(&mut self) {
        flush();
    }
}

/// Starts logging events of `level` and above; of libraries only from `warn`. `lost` entries were dropped before a reload.
///
/// Call it in a thread that handles no signals.
pub(crate) fn start(level: Level, lost: u64) -> Logging {
    let libraries = LevelFilter::from_level(level).min(LevelFilter::WARN);
    let filter = Targets::new()
        .with_default(libraries)
        .with_targets(OURS.map(|target| (target, level)))
        // Dropped entries are logged at every level.
        .with_target(module_path!(), LevelFilter::from_level(level).max(LevelFilter::WARN))
        // The agent logs the same failures itself.
        .with_target("aws_config", libraries.min(LevelFilter::ERROR));
    let registry = Registry::default().with(filter.clone());
    match stderr_is_the_journal().then(|| Journal::start(filter, lost)).and_then(Result::ok) {
        Some(journal) => registry.with(journal).init(),
        None => {
            let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let lines = tracing_subscriber::fmt::layer().event_format(Line { colour });
            registry.with(lines.with_writer(io::stderr)).init();
        }
    }
    Logging(())
}

/// systemd sets `JOURNAL_STREAM` to device and inode of the stream that it connected. A program whose stderr was
/// redirected since then inherits the variable, but not the stream.
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let Ok(stderr) = std::fs::metadata("/proc/self/fd/2") else {
        return false;
    };
    stream == format!("{}:{}", stderr.dev(), stderr.ino())
}

/// `2026-01-01T00:00:00.000000Z  INFO the sentence`
struct Line {
    /// Whether the level is in colour. Done here, since tracing-subscriber would need another crate for it.
    colour: bool,
}

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
        let level = *event.metadata().level();
        let entry = Entry::of(event);
        if library_repeats::is_repeated(&entry) {
            return Ok(());
        }
        let message = entry.message;
        let colour = match level {
            Level::ERROR => 31,
            Level::WARN => 33,
            _ => 32,
        };
        SystemTime.format_time(&mut writer)?;
        if self.colour {
            writeln!(writer, " \x1b[{colour}m{level:>5}\x1b[0m {message}")
        } else {
            writeln!(writer, " {level:>5} {message}")
        }
    }
}
