//! The log, as a unit test reads it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

/// The log of this thread, as text, for as long as it is kept.
pub(crate) struct Log {
    text: Arc<Mutex<Vec<u8>>>,
    _default: tracing::subscriber::DefaultGuard,
}

impl Log {
    pub(crate) fn capture() -> Self {
        let text: Arc<Mutex<Vec<u8>>> = Arc::default();
        let writer = {
            let text = text.clone();
            move || LogWriter(text.clone())
        };
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(writer).finish();
        Self { text, _default: tracing::subscriber::set_default(subscriber) }
    }

    /// The lines that hold `part`.
    pub(crate) fn lines(&self, part: &str) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned();
        text.lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
    }
}

struct LogWriter(Arc<Mutex<Vec<u8>>>);

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
