//! What is under way. A step: on a terminal a line with its time and what it waits for, elsewhere a line when it
//! ends. A count: a bar on a terminal, elsewhere a line for each change.

use std::cell::RefCell;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use instance_contract::one_line;

use super::streams::remark;

/// What a step is called and waits for is shown on a terminal to this length, in characters.
const LONGEST: usize = 1000;

/// Where steps and counts are shown.
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
        let bar = self.bar(None, title, "  {spinner} {prefix} ({elapsed}) {wide_msg}");
        if let Some(bar) = &bar.0 {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Line { board: self, bar, title: title.to_owned(), begun: Instant::now(), reason: RefCell::default() }
    }

    /// Shows how many of `total` are `what` ("healthy", "stopped").
    pub(crate) fn count(&self, what: &'static str, total: usize) -> Count {
        let bar = self.bar(u64::try_from(total).ok(), what, "{bar:24} {pos} of {len} {prefix}");
        Count { bar, total, what, reached: None }
    }

    fn bar(&self, length: Option<u64>, prefix: &str, template: &str) -> Bar {
        Bar(self.lines.as_ref().map(|lines| {
            let bar = lines.add(ProgressBar::with_draw_target(length, ProgressDrawTarget::hidden()));
            // Without colours, so there is nothing for NO_COLOR to switch off.
            let style = ProgressStyle::with_template(template);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(one_line(prefix, LONGEST));
            bar
        }))
    }

    /// Writes a line above the steps and counts.
    pub(crate) fn remark(&self, text: &str) {
        match &self.lines {
            Some(lines) => lines.suspend(|| remark(text)),
            None => remark(text),
        }
    }
}

/// What a terminal shows, until this is dropped.
struct Bar(Option<ProgressBar>);

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// A step under way.
pub(crate) struct Line<'a> {
    board: &'a Board,
    bar: Bar,
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
        match &self.bar.0 {
            Some(bar) => bar.set_message(one_line(reason, LONGEST)),
            None => remark(&format!("waits  {}: {reason}", self.title)),
        }
    }

    /// Done; `made` is what it made, if that has a name.
    pub(crate) fn ends(self, made: &str) {
        let made = if made.is_empty() { String::new() } else { format!(": {made}") };
        self.leave("done ", &made);
    }

    /// It failed; `error` says why, if nothing else does.
    pub(crate) fn fails(self, error: &str) {
        let error = if error.is_empty() { String::new() } else { format!(": {error}") };
        self.leave("FAILED", &error);
    }

    fn leave(self, how: &str, text: &str) {
        drop(self.bar);
        let elapsed = self.begun.elapsed().as_secs_f64();
        self.board.remark(&format!("{how}  {}{text} ({elapsed:.1} s)", self.title));
    }
}

/// A count under way.
pub(crate) struct Count {
    bar: Bar,
    total: usize,
    what: &'static str,
    reached: Option<usize>,
}

impl Count {
    /// Shows how far it is.
    pub(crate) fn reach(&mut self, count: usize) {
        if self.reached.replace(count) == Some(count) {
            return;
        }
        match &self.bar.0 {
            Some(bar) => bar.set_position(u64::try_from(count).unwrap_or(u64::MAX)),
            None => remark(&format!("{count} of {} {}", self.total, self.what)),
        }
    }
}
