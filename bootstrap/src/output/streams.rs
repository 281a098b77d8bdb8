//! Results go to stdout, everything on the way to stderr. Whatever AWS, an instance or a file says in them, nothing
//! steers the terminal.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use instance_contract::{is_plain, plain_lines};
use serde_json::{Value, json};

use super::outcome::Output;

/// Why results no longer go anywhere; the first reason there was.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// Whether there has been a result.
static WRITTEN: AtomicBool = AtomicBool::new(false);

/// Writes a result for people. That it could not be written is told at the end ([`write_failure`]): what is being
/// done for the user is not left half done for it.
pub(crate) fn print(text: &str) {
    write_out(&plain_lines(text));
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
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        LOST.get_or_init(|| error);
    }
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
    let _ = writeln!(io::stderr().lock(), "{}", plain_lines(line));
}

/// Writes a question, at whose end the answer is typed.
pub(crate) fn prompt(question: &str) {
    let mut error = io::stderr().lock();
    let _ = write!(error, "{} ", plain_lines(question)).and_then(|()| error.flush());
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
