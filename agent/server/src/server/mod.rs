//! The HTTP server: one listening socket, one thread with its own runtime per core.
//!
//! A connection stays on the thread that accepted it, so a request takes no lock and shares no counter.
//!
//! | file | holds |
//! | --- | --- |
//! | `accept` | accepts connections, and takes over those of an earlier server |
//! | `blocked` | limits the connections whose clients read nothing |
//! | `budget` | limits the memory for incomplete requests |
//! | `buffers` | limits the kernel's buffers of a connection |
//! | `closing` | the last bytes of a connection before it is closed |
//! | `connection` | one connection, from its first byte to its last |
//! | `endpoints` | answers requests |
//! | `handover` | brings a running server to rest and takes it apart |
//! | `handover_sockets` | the port and the connections that the next program gets |
//! | `io` | the reader and writer that hyper uses |
//! | `log_limiter` | limits how often one message is logged |
//! | `memory` | the most memory that all limits together allow |
//! | `open_files` | how many connections the limit of open files allows |
//! | `orders` | the orders to the server threads |
//! | `parked` | idle connections without hyper: what becomes of them |
//! | `parking` | keeps idle sockets with little memory |
//! | `room` | the limit of connections, and which connection closes for another |
//! | `routes` | the route table |
//! | `thread` | one server thread and its tasks |
//! | `traced` | connections at `--log-level trace` |
//! | `track` | the state of one connection |
//! | `worker` | the state that the connections of one thread share |
//!
//! `docs/http-api.md` describes what clients see.

mod accept;
mod blocked;
mod budget;
mod buffers;
mod closing;
mod connection;
mod endpoints;
mod handover;
mod handover_sockets;
mod io;
mod log_limiter;
#[cfg(test)]
mod memory;
mod open_files;
mod orders;
mod parked;
mod parking;
mod room;
mod routes;
mod thread;
mod time_limits;
mod traced;
mod track;
mod worker;

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::sync::watch;

use self::blocked::Blocked;
use self::budget::Budget;
pub use self::handover_sockets::{HandoverConnection, HandoverSockets, Stage};
pub use self::open_files::limit_connections;
use self::orders::{AwaitedBodies, Order, Orders};
use self::room::Room;
use self::thread::{ServerThread, ThreadInputs};
use crate::answers::Answers;
use crate::limits::Limits;
use crate::seed::SeedStore;
use crate::traffic::Traffic;

const BACKLOG: i32 = 1_024;

/// Binds the one listening socket.
///
/// Without `SO_REUSEPORT`, so that a second start fails instead of taking half of the connections.
pub fn bind(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &addr)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Prepares a listening socket that systemd has bound.
pub fn adopt_listener(socket: OwnedFd) -> std::io::Result<TcpListener> {
    let unfit = |why| Err(std::io::Error::other(format!("it {why}; use one TCP ListenStream=")));
    if sockopt::socket_type(&socket)? != SocketType::STREAM || !sockopt::socket_acceptconn(&socket)? {
        return unfit("does not listen");
    }
    if !matches!(sockopt::socket_domain(&socket)?, AddressFamily::INET | AddressFamily::INET6) {
        return unfit("is not a TCP socket");
    }
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Accepts connections on `listener` with `threads` threads until [`Server::shutdown`], and continues `connections` of
/// an earlier server.
///
/// `traffic` must have counters for as many threads.
pub fn start(
    listener: TcpListener,
    connections: Vec<HandoverConnection>,
    threads: usize,
    limits: Limits,
    answers: watch::Receiver<Arc<Answers>>,
    traffic: Arc<Traffic>,
    seed: SeedStore,
) -> std::io::Result<Server> {
    // Also for a socket from systemd or from before a reload.
    buffers::bound_buffers(&listener)?;
    let room = Room::of(limits.max_connections);
    let budget = Budget::of(limits.max_buffered);
    let blocked = Arc::new(Blocked::default());
    let orders = Orders::new();
    let awaited = AwaitedBodies::default();
    let mut shares: Vec<Vec<HandoverConnection>> = (0..threads).map(|_| Vec::new()).collect();
    for (number, connection) in connections.into_iter().enumerate() {
        shares[number % threads].push(connection);
    }
    let mut server = Server { listener, orders, awaited, threads: Vec::with_capacity(threads) };
    for (number, (counters, connections)) in traffic.threads().iter().zip(shares).enumerate() {
        let inputs = ThreadInputs {
            connections,
            room: Arc::clone(&room),
            answers: answers.clone(),
            orders: server.orders.follow(),
            limits,
            traffic: Arc::clone(counters),
            seed: seed.clone(),
            budget: budget.clone(),
            blocked: Arc::clone(&blocked),
            awaited: server.awaited.clone(),
        };
        // Another descriptor of the same socket; closing the last one closes the port.
        let listener = server.listener.try_clone()?;
        server.threads.push(ServerThread::start(number, listener, inputs)?);
    }
    Ok(server)
}

/// A running server. Dropping it stops the threads at once, without waiting for requests.
pub struct Server {
    listener: TcpListener,
    orders: Orders,
    awaited: AwaitedBodies,
    threads: Vec<ServerThread>,
}

impl Server {
    /// Stops accepting and lets requests in flight finish. Returns how many were cut off at the deadline.
    /// Needs a tokio runtime with time.
    pub async fn shutdown(self, deadline: Instant) -> usize {
        self.orders.give(Order::Stop(deadline));
        // The threads accept the connections in its queue, then close their copies.
        drop(self.listener);
        let mut cut_off = 0;
        for thread in self.threads {
            cut_off += thread.ended(deadline).await.cut_off;
        }
        cut_off
    }
}

#[cfg(test)]
mod tests;
