//! What a server that has come to rest hands over: its port and its connections.

use std::net::{TcpListener, TcpStream};

use bytes::Bytes;

/// The port and the connections of a server that has come to rest.
pub(crate) struct HandoverSockets {
    /// The listening socket, with whoever waits in its queue.
    pub(crate) listener: TcpListener,
    /// Every open connection.
    pub(crate) connections: Vec<HandoverConnection>,
    /// Connections that could not be given back, and are lost.
    pub(crate) lost: usize,
}

/// A connection between two requests.
#[derive(Debug)]
pub(crate) struct HandoverConnection {
    /// Its socket, non-blocking.
    pub(crate) socket: TcpStream,
    /// What was read from it and not yet understood: perhaps part of a head.
    pub(crate) read: Bytes,
    /// What is still to be written to it.
    pub(crate) unwritten: Bytes,
    /// What is to become of it.
    pub(crate) stage: Stage,
}

/// What is to become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stage {
    /// It may send its first request.
    New,
    /// It may send another one.
    Used,
    /// It is closed once everything is written.
    Ending,
    /// As `Ending`, but what the peer still sends is read and discarded first, for a while.
    Lingering,
}

/// What a thread has left when it ends.
#[derive(Default)]
pub(super) struct ThreadResult {
    /// Requests that were not answered in time.
    pub(super) cut_off: usize,
    /// The connections, where they were asked for.
    pub(super) connections: Vec<HandoverConnection>,
    /// Connections that did not come to rest in time.
    pub(super) lost: usize,
}
