//! Accepts connections, and takes over those of an earlier server.

use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::buffers::bound_buffers;
use super::connection::{self, Arrival, Connections, OpenConnection};
use super::handover_sockets::{HandoverConnection, Stage};
use super::log_limiter::LogLimiter;
use super::orders::{NumberedOrder, Order};
use super::parked;
use super::room::{Place, Room};

/// The first and the longest pause after a failed accept.
const PAUSES: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(1);

/// How long connections may take to be given back after all requests are answered.
const GIVING_BACK: Duration = Duration::from_millis(500);

/// Accepts connections until an order to end, then closes this thread's copy of the port. Returns the
/// deadline for the open connections. Before a stop, it accepts those that wait in the kernel.
pub(super) async fn accept_connections(
    connections: &Rc<Connections>,
    listener: TcpListener,
    room: &Arc<Room>,
    mut orders: watch::Receiver<NumberedOrder>,
    rest: &watch::Sender<u64>,
) -> Instant {
    let worker = connections.worker();
    let mut waiting = None;
    let mut failures = Failures::default();
    loop {
        let frozen = worker.order().is_frozen();
        tokio::select! {
            biased;
            changed = orders.changed() => {
                // The server was dropped without an order: stop at once.
                let (number, order) = match changed {
                    Ok(()) => *orders.borrow_and_update(),
                    Err(_) => (u64::MAX, Order::Stop(Instant::now())),
                };
                worker.set_order((number, order));
                parked::obey(connections, order);
                match order {
                    Order::Serve | Order::Freeze { .. } => {}
                    Order::HandOver => {
                        // An accepted connection that waits for room is given back too.
                        waiting.into_iter().for_each(|socket| spawn(connections, socket, room.seat(None)));
                        return Instant::now() + GIVING_BACK;
                    }
                    Order::Stop(deadline) => {
                        waiting.into_iter().for_each(|socket| spawn(connections, socket, room.seat(None)));
                        drain_backlog(connections, listener, room);
                        return deadline;
                    }
                }
            }
            () = worker.at_rest(), if frozen && *rest.borrow() != worker.order_number() => {
                rest.send_replace(worker.order_number());
            }
            socket = accept(&listener, &mut failures), if waiting.is_none() && !frozen => waiting = Some(socket),
            permit = room.permit(), if waiting.is_some() && !frozen => {
                if let Some(socket) = waiting.take() {
                    spawn(connections, socket, room.seat(Some(permit)));
                }
            }
        }
    }
}

/// Continues a connection that an earlier server gave back.
pub(super) fn adopt_connection(
    connections: &Rc<Connections>,
    connection: HandoverConnection,
    room: &Arc<Room>,
) {
    let HandoverConnection { socket, read, unwritten, stage } = connection;
    // An older program may have accepted it without these limits. Does not fail in practice.
    let _ = bound_buffers(&socket);
    // If the limit is lower now, it applies once enough connections have closed.
    let place = room.seat(room.try_permit());
    let open = OpenConnection::new(connections, place, || socket.peer_addr(), stage);
    if read.is_empty() && unwritten.is_empty() && matches!(stage, Stage::New | Stage::Used) {
        return connection::park_from_handover(socket, stage, open);
    }
    let Ok(socket) = TcpStream::from_std(socket) else { return };
    let arrival = Arrival { socket, read, unwritten, stage, readable: false };
    connection::spawn(arrival, open);
}

/// The next connection.
async fn accept(listener: &TcpListener, failures: &mut Failures) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                failures.in_a_row = 0;
                return socket;
            }
            // The fault of that connection only.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
            // EMFILE, ENFILE and similar: retrying at once would burn the CPU.
            Err(error) => tokio::time::sleep(failures.pause_after(&error)).await,
        }
    }
}

/// Accepts the connections in the kernel's queue, then closes this thread's copy of the port.
fn drain_backlog(connections: &Rc<Connections>, listener: TcpListener, room: &Arc<Room>) {
    // Asks the kernel: the runtime may not know of them yet. The limit of connections does not apply, since
    // each gets only one answer.
    let Ok(listener) = listener.into_std() else { return };
    loop {
        let socket = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {
                continue;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => {
                tracing::warn!("cannot accept the waiting connections: {error}; they are lost");
                return;
            }
        };
        if let Ok(socket) = socket.set_nonblocking(true).and_then(|()| TcpStream::from_std(socket)) {
            spawn(connections, socket, room.seat(None));
        }
    }
}

fn spawn(connections: &Rc<Connections>, socket: TcpStream, place: Place) {
    // Now, since its task may run later.
    place.idle(connections.worker().now(), false);
    let open = OpenConnection::new(connections, place, || socket.peer_addr(), Stage::New);
    // Otherwise a small answer can wait for the acknowledgement of the previous one.
    if socket.set_nodelay(true).is_err() {
        return;
    }
    let arrival =
        Arrival { socket, read: Bytes::new(), unwritten: Bytes::new(), stage: Stage::New, readable: false };
    connection::spawn(arrival, open);
}

/// Failed accepts: logged at intervals, retried after longer and longer pauses.
#[derive(Default)]
struct Failures {
    in_a_row: u32,
    unsaid: u64,
    notice: LogLimiter,
}

impl Failures {
    /// The pause, random so that threads do not retry together.
    fn pause_after(&mut self, error: &io::Error) -> Duration {
        self.unsaid += 1;
        if self.notice.is_due() {
            let times = self.unsaid;
            tracing::warn!(
                "cannot accept connections ({times} failures since the last message): {error}; retrying"
            );
            self.unsaid = 0;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        let doubled = PAUSES.start().saturating_mul(1 << self.in_a_row.min(16));
        let longest = doubled.min(*PAUSES.end());
        PAUSES.start().saturating_add((longest - *PAUSES.start()).mul_f64(fastrand::f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_in_bounds() {
        let mut failures = Failures::default();
        let pauses: Vec<_> =
            (0..64).map(|_| failures.pause_after(&io::Error::from_raw_os_error(24))).collect();
        assert!(pauses.iter().all(|pause| PAUSES.contains(pause)), "{pauses:?}");
        assert!(pauses[0] <= Duration::from_millis(20));
    }
}
