//! What the settings allow clients of the server.

use std::time::Duration;

/// What the server allows one client to cost. All are settings; see docs/configuration.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Largest request body, in bytes; a larger one is answered 413.
    pub(crate) max_body: usize,
    /// Bytes held for requests that have not all come yet, over all connections and beyond a few KiB
    /// for each; where that is used up, a request is answered 503.
    pub(crate) max_buffered: usize,
    /// Connections served at a time, over all threads; for a further one an idle one is closed, else it waits.
    pub(crate) max_connections: usize,
    /// From a request's first byte to the end of its head; then 408.
    pub(crate) header_timeout: Duration,
    /// From the end of a request's head to the end of its body; then 408.
    pub(crate) body_timeout: Duration,
    /// How long a connection may stay idle after its last answer (or after being accepted).
    pub(crate) keep_alive: Duration,
    /// How long a peer may take none of an answer's bytes before the connection is dropped.
    pub(crate) write_timeout: Duration,
}
