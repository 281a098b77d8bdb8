//! What people and programs are shown. Results go to stdout, everything on the way to stderr.

use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Writes a result. A reader that went away is not this program's failure.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes a remark.
pub(crate) fn remark(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
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
        let bar = std::io::stderr().is_terminal().then(|| {
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
