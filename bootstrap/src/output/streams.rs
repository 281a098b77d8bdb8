//! Results go to stdout, everything on the way to stderr.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::outcome::Output;

/// Why results no longer go anywhere; the first reason there was.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// Whether there has been a result.
static WRITTEN: AtomicBool = AtomicBool::new(false);

/// Writes a result. That it could not be written is told at the end ([`write_failure`]): what is being done for
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
pub(crate) fn print_error(output: Output, reason: &str) {
    if output == Output::Json && !WRITTEN.load(Ordering::Relaxed) {
        print(&format!("{:#}\n", json!({ "error": reason })));
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
pub(crate) fn remark(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
