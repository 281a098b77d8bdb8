//! What people and programs are shown. Results go to stdout, everything on the way to stderr.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::cli::Output;

/// Why results no longer go anywhere; the first reason there was.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// Whether there has been a result.
static WRITTEN: AtomicBool = AtomicBool::new(false);

/// Writes a result. That it could not be written is told at the end ([`lost`]): what is being done for
/// the user is not left half done for it.
pub(crate) fn print(text: &str) {
    WRITTEN.store(true, Ordering::Relaxed);
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        LOST.get_or_init(|| error);
    }
}

/// For programs, the reason why there is no result takes its place. People are told on stderr, as all are
/// of what fails after the result.
pub(crate) fn no_result(output: Output, reason: &str) {
    if output == Output::Json && !WRITTEN.load(Ordering::Relaxed) {
        print(&format!("{:#}\n", json!({ "error": reason })));
    }
}

/// Whether nobody reads the results any more.
pub(crate) fn has_no_reader() -> bool {
    LOST.get().is_some()
}

/// Why results were lost. A reader that went away has had what it wanted, and is no failure.
pub(crate) fn lost() -> Option<&'static io::Error> {
    LOST.get().filter(|error| error.kind() != io::ErrorKind::BrokenPipe)
}

/// Writes a remark.
pub(crate) fn remark(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Progress towards a number: a bar on a terminal, else a line for each step.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    total: usize,
    what: &'static str,
    reached: Option<usize>,
}

impl Progress {
    /// Progress of `what` ("healthy", "stopped") towards `total`.
    pub(crate) fn new(what: &'static str, total: usize) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let length = u64::try_from(total).unwrap_or(u64::MAX);
            let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
            // Without colours, so there is nothing for NO_COLOR to switch off.
            let style = ProgressStyle::with_template("{bar:24} {pos} of {len} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_message(what);
            bar
        });
        Self { bar, total, what, reached: None }
    }

    /// Shows how far it is.
    pub(crate) fn reach(&mut self, count: usize) {
        if self.reached.replace(count) == Some(count) {
            return;
        }
        match &self.bar {
            Some(bar) => bar.set_position(u64::try_from(count).unwrap_or(u64::MAX)),
            None => remark(&format!("{count} of {} {}", self.total, self.what)),
        }
    }

    /// Writes a line without disturbing the bar.
    pub(crate) fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| remark(line)),
            None => remark(line),
        }
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
