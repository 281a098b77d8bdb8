//! Logs connections at `--log-level trace`.

use std::io;
use std::net::SocketAddr;

use tracing::Level;

use super::handover_sockets::Stage;

/// Logs the end of a connection when dropped. Boxed, so that it costs little memory at other log levels.
pub(super) struct TracedConnection(Option<Box<SocketAddr>>);

impl TracedConnection {
    /// Logs the begin of a connection, at trace level only.
    pub(super) fn new(peer: impl FnOnce() -> io::Result<SocketAddr>, stage: Stage) -> Self {
        if !tracing::enabled!(Level::TRACE) {
            return Self(None);
        }
        let peer = peer().ok().map(Box::new);
        if let Some(peer) = &peer {
            tracing::trace!("connection from {peer}: {stage:?}");
        }
        Self(peer)
    }
}

impl Drop for TracedConnection {
    fn drop(&mut self) {
        if let Some(peer) = &self.0 {
            tracing::trace!("connection from {peer}: ended, or handed over");
        }
    }
}
