//! Results go to stdout, progress and remarks to stderr. Control characters in texts of AWS, an instance or a file never
//! reach the terminal.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use instance_contract::{is_plain, plain_lines};
use serde_json::{Value, json};

use super::outcome::Output;
use super::terminal;
use super::wait::WaitLine;

/// Why results no longer go anywhere; the first reason there was.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// Whether there has been a result.
static WRITTEN: AtomicBool = AtomicBool::new(false);

/// Writes a result for people. That it could not be written is told at the end ([`write_failure`]): what is being
/// done for the user is not left half done for it.
pub(crate) fn print(text: &str) {
    write_out(&shown(&plain_lines(text), io::stdout()));
}

/// Writes a file as it is.
pub(crate) fn print_verbatim(text: &str) {
    write_out(&plain_lines(text));
}

/// The text as this stream shows it.
fn shown(text: &str, stream: impl AsFd) -> String {
    match terminal::size(stream) {
        Some((width, _)) => terminal::fold(text, width),
        None => text.to_owned(),
    }
}

/// A result that is written again and again: on a terminal each time in the place of the one before.
#[derive(Default)]
pub(crate) struct Screen {
    /// The lines that are there, as they were written.
    there: Vec<usize>,
}

impl Screen {
    /// Writes the first part, as much of it as there is room for, and the second. Elsewhere than on a terminal all of
    /// both, and an empty line.
    pub(crate) fn show(&mut self, first: &str, second: &str) {
        let Some((width, height)) = terminal::size(io::stdout()) else {
            return write_out(&format!("{}{}\n", plain_lines(first), plain_lines(second)));
        };
        let first = terminal::fold(&plain_lines(first), width);
        let second = terminal::fold(&plain_lines(second), width);
        let mut lines: Vec<&str> = first.lines().collect();
        let taken = |line: &str| terminal::columns(line).div_ceil(width).max(1);
        let below: usize = second.lines().map(taken).sum();
        let room = height.saturating_sub(below + 2).max(1);
        let left_out = format!("… {} lines more", lines.len().saturating_sub(room));
        if lines.len() > room {
            lines.truncate(room);
            lines.push(&left_out);
        }
        lines.extend(second.lines());
        // What is there may take more lines than when it was written, if the terminal has become narrower.
        let up: usize = self.there.iter().map(|columns| columns.div_ceil(width).max(1)).sum();
        self.there = lines.iter().map(|line| terminal::columns(line)).collect();
        let back = if up == 0 { String::new() } else { format!("\u{1b}[{up}A\r\u{1b}[J") };
        write_out(&format!("{back}{}\n", lines.join("\n")));
    }
}

/// Writes a result for programs. They get every character; those that would steer a terminal are written as escapes.
pub(crate) fn print_json(result: &Value) {
    write_out(&format!("{}\n", escaped(&format!("{result:#}"))));
}

/// Of the characters that are not plain, JSON itself escapes only some. The others can only be within texts.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\n' => text.push(c),
            // None of them is past U+FFFF. Writing to a text cannot fail.
            c if !is_plain(c) => _ = write!(text, "\\u{:04x}", u32::from(c)),
            c => text.push(c),
        }
    }
    text
}

fn write_out(text: &str) {
    WRITTEN.store(true, Ordering::Relaxed);
    WaitLine::beside(|| {
        let mut out = io::stdout().lock();
        if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            LOST.get_or_init(|| error);
        }
    });
}

/// For programs, the reason why there is no result takes its place. People are told on stderr, as all are
/// of what fails after the result.
pub(crate) fn print_error(output: Output, reason: &str) {
    if output == Output::Json && !WRITTEN.load(Ordering::Relaxed) {
        print_json(&json!({ "error": reason }));
    }
}

/// Whether nobody reads the results any more.
pub(crate) fn reader_is_gone() -> bool {
    LOST.get().is_some()
}

/// Why results were lost. A reader that went away has had what it wanted, and is no failure.
pub(crate) fn write_failure() -> Option<&'static io::Error> {
    LOST.get().filter(|error| error.kind() != io::ErrorKind::BrokenPipe)
}

/// Writes a remark.
pub fn remark(line: &str) {
    let text = shown(&plain_lines(line), io::stderr());
    WaitLine::beside(|| {
        let _ = writeln!(io::stderr().lock(), "{text}");
    });
}

/// Writes a question, at whose end the answer is typed.
pub(crate) fn prompt(question: &str) {
    let text = shown(&plain_lines(question), io::stderr());
    let mut error = io::stderr().lock();
    let _ = write!(error, "{text} ").and_then(|()| error.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_get_every_character_and_a_terminal_none_that_steers_it() {
        let said = json!({ "reason": "a\u{1b}[2Jb\u{9b}31m\u{202e}c\n", "Größe": ["\u{2028}"] });
        let text = escaped(&format!("{said:#}"));
        assert!(text.lines().count() > 1 && text.chars().all(|c| c == '\n' || is_plain(c)), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), said);
    }
}
