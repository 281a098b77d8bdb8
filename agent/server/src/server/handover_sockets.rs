//! The port and the connections that a server at rest hands over.

use std::net::{TcpListener, TcpStream};

use bytes::Bytes;

/// See the module's description.
pub struct HandoverSockets {
    /// The listening socket, with the connections in its queue.
    pub listener: TcpListener,
    /// The open connections.
    pub connections: Vec<HandoverConnection>,
    /// The number of connections that could not be handed over.
    pub lost: usize,
}

/// A connection between two requests.
#[derive(Debug)]
pub struct HandoverConnection {
    /// Non-blocking.
    pub socket: TcpStream,
    /// Bytes that were read but not handled yet, perhaps part of a head.
    pub read: Bytes,
    /// Bytes still to write.
    pub unwritten: Bytes,
    /// How far it is.
    pub stage: Stage,
}

/// How a connection continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// It may send its first request.
    New,
    /// It may send another one.
    Used,
    /// It is closed once everything is written.
    Ending,
    /// As `Ending`, but the agent first reads and discards bytes from the client for a while.
    Lingering,
}

#[derive(Default)]
pub(super) struct ThreadResult {
    /// Requests that were not answered in time.
    pub(super) cut_off: usize,
    pub(super) connections: Vec<HandoverConnection>,
    /// Connections that did not come to rest in time.
    pub(super) lost: usize,
}
