//! Progress. A step is a live line on a terminal, with its time and what it waits for; elsewhere a line when it ends.
//! A count is a bar on a terminal; elsewhere a line for each change.

use std::cell::RefCell;
use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use instance_contract::one_line;

use super::streams::remark;
use super::terminal;

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
        let bar = self.bar(None, title, "  {spinner} {line}");
        if let Some(bar) = &bar.shown {
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
        let reason = Arc::new(Mutex::new(String::new()));
        let shown = self.lines.as_ref().map(|lines| {
            let bar = lines.add(ProgressBar::with_draw_target(length, ProgressDrawTarget::hidden()));
            // Without colours, so there is nothing for NO_COLOR to switch off.
            let style = ProgressStyle::with_template(template);
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            let (title, reason) = (one_line(prefix, LONGEST), Arc::clone(&reason));
            bar.set_style(style.with_key("line", move |state: &ProgressState, line: &mut dyn Write| {
                let width = terminal::size(io::stderr()).map_or(80, |(width, _)| width);
                let reason = reason.lock().unwrap_or_else(PoisonError::into_inner);
                // What is before it, and the last column, which some terminals keep free.
                let _ =
                    line.write_str(&status_line(&title, state.elapsed(), &reason, width.saturating_sub(5)));
            }));
            bar.set_prefix(one_line(prefix, LONGEST));
            bar
        });
        Bar { shown, reason }
    }

    /// Writes a line above the steps and counts.
    pub(crate) fn remark(&self, text: &str) {
        match &self.lines {
            Some(lines) => lines.suspend(|| remark(text)),
            None => remark(text),
        }
    }
}

/// A step under way in one line of this width: its title, how long it has taken, what it waits for. Where they find no
/// room, title and reason are cut between words; of the reason more is kept, as it is the news.
fn status_line(title: &str, elapsed: Duration, reason: &str, width: usize) -> String {
    let time = format!("({} s)", elapsed.as_secs());
    let room = width.saturating_sub(terminal::columns(&time) + 2);
    let for_title =
        room.saturating_sub(terminal::columns(reason)).max(if reason.is_empty() { room } else { room / 3 });
    let title = terminal::cut(title, for_title);
    let reason = terminal::cut(reason, room.saturating_sub(terminal::columns(&title)));
    [title, time, reason].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// What a terminal shows, until this is dropped.
struct Bar {
    shown: Option<ProgressBar>,
    /// Why the step waits.
    reason: Arc<Mutex<String>>,
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.shown {
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
        match &self.bar.shown {
            Some(bar) => {
                *self.bar.reason.lock().unwrap_or_else(PoisonError::into_inner) = one_line(reason, LONGEST);
                bar.tick();
            }
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
        match &self.bar.shown {
            Some(bar) => bar.set_position(u64::try_from(count).unwrap_or(u64::MAX)),
            None => remark(&format!("{count} of {} {}", self.total, self.what)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_one_line_that_says_first_how_far_it_is() {
        let line = |width| {
            let reason =
                "7 of 9 healthy; i-0123456789abcdef0 is initial (Elb.RegistrationInProgress); and 1 more";
            status_line("wait until all 9 instances are healthy", Duration::from_secs(75), reason, width)
        };
        assert_eq!(line(75), "wait until all 9… (75 s) 7 of 9 healthy; i-0123456789abcdef0 is initial…");
        assert_eq!(line(35), "wait… (75 s) 7 of 9 healthy…");
        assert_eq!(status_line("create role x", Duration::ZERO, "", 35), "create role x (0 s)");
    }
}
