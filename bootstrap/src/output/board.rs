//! The steps under way: on a terminal a line for each with its time and what it waits for, elsewhere
//! a line for each that ends.

use std::cell::RefCell;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::streams::remark;

/// Where steps are shown.
pub(crate) struct Board {
    lines: Option<MultiProgress>,
}

impl Board {
    /// On stderr, as it suits what stderr is.
    pub(crate) fn new() -> Self {
        let terminal = io::stderr().is_terminal();
        Self { lines: terminal.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr())) }
    }

    /// Shows a step that begins.
    pub(crate) fn begin(&self, title: &str) -> Line<'_> {
        let bar = self.lines.as_ref().map(|lines| {
            let bar = lines.add(ProgressBar::new_spinner());
            // Without colours, so there is nothing for NO_COLOR to switch off.
            let style = ProgressStyle::with_template("  {spinner} {prefix} ({elapsed}) {wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.set_prefix(title.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Line { board: self, bar, title: title.to_owned(), begun: Instant::now(), reason: RefCell::default() }
    }

    /// Writes a line above the steps.
    pub(crate) fn remark(&self, text: &str) {
        match &self.lines {
            Some(lines) => lines.suspend(|| remark(text)),
            None => remark(text),
        }
    }
}

/// A step under way.
pub(crate) struct Line<'a> {
    board: &'a Board,
    bar: Option<ProgressBar>,
    title: String,
    begun: Instant,
    reason: RefCell<String>,
}

impl Line<'_> {
    /// Shows why it waits; the same reason again is not news.
    pub(crate) fn waits(&self, reason: &str) {
        if self.reason.replace(reason.to_owned()) == reason {
            return;
        }
        match &self.bar {
            Some(bar) => bar.set_message(reason.to_owned()),
            None => remark(&format!("waits  {}: {reason}", self.title)),
        }
    }

    /// Done; `made` is what it made, if that has a name.
    pub(crate) fn ends(&self, made: &str) {
        let made = if made.is_empty() { String::new() } else { format!(": {made}") };
        self.leave("done ", &made);
    }

    /// It failed.
    pub(crate) fn fails(&self, error: &str) {
        self.leave("FAILED", &format!(": {error}"));
    }

    fn leave(&self, how: &str, text: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let elapsed = self.begun.elapsed().as_secs_f64();
        self.board.remark(&format!("{how}  {}{text} ({elapsed:.1} s)", self.title));
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
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
