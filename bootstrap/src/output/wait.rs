//! A line on the terminal that shows what a command waits for, and for how long. It disappears at the end.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use instance_contract::one_line;

/// Longer than any terminal is wide, in characters.
const LONGEST: usize = 500;

/// The line that is shown, so that remarks are written above it.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// The line; gone when dropped. Not shown where stderr is no terminal.
pub(crate) struct WaitLine(());

impl WaitLine {
    pub(crate) fn new() -> Self {
        if io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{spinner} waiting {elapsed} {wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(200));
            *shown() = Some(bar);
        }
        Self(())
    }

    /// Says what is waited for.
    pub(crate) fn says(&self, what: &str) {
        if let Some(bar) = &*shown() {
            bar.set_message(one_line(what, LONGEST));
        }
    }

    /// Writes to the terminal without the line in the way.
    pub(super) fn beside(write: impl FnOnce()) {
        let bar = shown().clone();
        match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

impl Drop for WaitLine {
    fn drop(&mut self) {
        if let Some(bar) = shown().take() {
            bar.finish_and_clear();
        }
    }
}

fn shown() -> MutexGuard<'static, Option<ProgressBar>> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}
