//! The limits of the server for its clients.

use std::time::Duration;

/// All but `park_after` are settings; see docs/configuration.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest request body, in bytes; a larger one is answered 413.
    pub max_body: usize,
    /// Memory for incomplete requests, all connections together, not counting a few KiB for each; beyond
    /// it a request is answered 503.
    pub max_buffered: usize,
    /// Open connections, all threads together; each new one beyond it closes an idle one, or waits.
    pub max_connections: usize,
    /// From a request's first byte to the end of its head; then 408.
    pub header_timeout: Duration,
    /// From the end of a request's head to the end of its body; then 408.
    pub body_timeout: Duration,
    /// How long a connection may stay idle after its last answer, or after it was accepted.
    pub keep_alive: Duration,
    /// How long a client may read nothing of an answer before the connection is dropped.
    pub write_timeout: Duration,
    /// How long a connection keeps hyper's state and buffers after its last answer; up to a second less.
    pub park_after: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            max_body: 64 * 1024,
            max_buffered: 64 * MIB,
            max_connections: 10_000,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            park_after: Duration::from_secs(3),
        }
    }
}
