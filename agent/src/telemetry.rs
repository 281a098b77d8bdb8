//! Logging: natively to the journal when stderr is the journal, else one readable line per event.

use std::io::{self, IsTerminal};
use std::os::unix::fs::MetadataExt;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

/// Starts logging events of `level` and above. The libraries' own events are logged from `warn`.
pub(crate) fn start(level: Level) {
    let libraries = LevelFilter::from_level(level).min(LevelFilter::WARN);
    let filter = Targets::new()
        .with_default(libraries)
        .with_target("instance_agent", level)
        // Says at length what the agent says in a line.
        .with_target("aws_config", libraries.min(LevelFilter::ERROR));
    let journal = stderr_is_the_journal().then(tracing_journald::layer).and_then(Result::ok);
    let registry = Registry::default();
    match journal {
        // Plain field names: TARGET_GROUP=, not F_TARGET_GROUP=. The journal stamps and names each
        // entry itself.
        Some(journal) => registry.with(journal.with_field_prefix(None).with_filter(filter)).init(),
        None => {
            let lines = tracing_subscriber::fmt::layer()
                .with_writer(io::stderr)
                .with_target(false)
                .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
            registry.with(lines.with_filter(filter)).init();
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
