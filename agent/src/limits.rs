//! The limits of the server for its clients.

use std::time::Duration;

/// All but `park_after` are settings; see docs/configuration.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Largest request body, in bytes; a larger one is answered 413.
    pub(crate) max_body: usize,
    /// Memory for incomplete requests, all connections together, not counting a few KiB for each; beyond
    /// it a request is answered 503.
    pub(crate) max_buffered: usize,
    /// Open connections, all threads together; each new one beyond it closes an idle one, or waits.
    pub(crate) max_connections: usize,
    /// From a request's first byte to the end of its head; then 408.
    pub(crate) header_timeout: Duration,
    /// From the end of a request's head to the end of its body; then 408.
    pub(crate) body_timeout: Duration,
    /// How long a connection may stay idle after its last answer, or after it was accepted.
    pub(crate) keep_alive: Duration,
    /// How long a client may read nothing of an answer before the connection is dropped.
    pub(crate) write_timeout: Duration,
    /// How long a connection keeps hyper's state and buffers after its last answer; up to a second less.
    pub(crate) park_after: Duration,
}
