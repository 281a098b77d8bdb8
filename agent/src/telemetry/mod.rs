//! Logging: natively to the journal when stderr is the journal, else one readable line per event.
//!
//! Each event's message is a sentence that says everything. Its fields are for the journal alone, to
//! filter by and to fill in the catalog's texts.

#[cfg(test)]
mod captured;
mod entry;
mod journal;
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

/// When it is dropped, the journal has been given a moment to take what was said.
#[must_use]
pub(crate) struct Logging(());

impl Drop for Logging {
    fn drop(&mut self) {
        flush();
    }
}

/// Starts logging events of `level` and above. The libraries' own events are logged from `warn`. `lost` entries are
/// missing in the journal already.
///
/// To be called in a thread that handles no signals.
pub(crate) fn start(level: Level, lost: u64) -> Logging {
    let libraries = LevelFilter::from_level(level).min(LevelFilter::WARN);
    let filter = Targets::new()
        .with_default(libraries)
        .with_target(OURS, level)
        // That entries are lost is said whatever their level was.
        .with_target(module_path!(), LevelFilter::from_level(level).max(LevelFilter::WARN))
        // Says at length what the agent says in a line.
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

/// `2026-01-01T00:00:00.000000Z  INFO the sentence`
struct Line {
    /// Whether the level is in colour: nothing else is, for which tracing-subscriber would bring a crate.
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
        SystemTime.format_time(&mut writer)?;
        let level = *event.metadata().level();
        let message = Entry::of(event).message;
        let colour = match level {
            Level::ERROR => 31,
            Level::WARN => 33,
            _ => 32,
        };
        if self.colour {
            writeln!(writer, " \x1b[{colour}m{level:>5}\x1b[0m {message}")
        } else {
            writeln!(writer, " {level:>5} {message}")
        }
    }
}
