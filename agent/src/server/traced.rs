//! What `--log-level trace` tells of a connection.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tracing::Level;

use super::handover_sockets::Stage;

/// A connection whose end is told. In a box, as few have one and it would be part of every connection's memory.
pub(super) struct TracedConnection(Option<Box<SocketAddr>>);

impl TracedConnection {
    /// Tells that a connection begins, or goes on after a reload, where anybody wants to know.
    pub(super) fn new(socket: &TcpStream, stage: Stage) -> Self {
        if !tracing::enabled!(Level::TRACE) {
            return Self(None);
        }
        let peer = socket.peer_addr().ok().map(Box::new);
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
