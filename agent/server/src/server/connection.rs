//! One connection: hyper is polled by hand, with our own timers around it.
//!
//! Two reasons: hyper's only header timeout also runs while a connection is idle, and polling by hand
//! stops a connection, or hands it to another process, at a known point.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use bytes::{Buf as _, Bytes};
use hyper::StatusCode;
use hyper::server::conn::http1;
use tokio::io::AsyncWrite as _;
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use super::buffers::unacknowledged;
use super::closing::{ClosingConnection, close_at_once};
use super::endpoints::{CROWDED, Service, ServiceState};
use super::handover_sockets::{HandoverConnection, Stage};
use super::io::{Io, IoParts, write_now};
use super::orders::Order;
use super::parking::Parking;
use super::room::Place;
use super::time_limits::{TimedWait, Timer};
use super::traced::TracedConnection;
use super::track::{LateBody, RequestPhase, Track};
use super::worker::Worker;

/// Largest request head: what a load balancer accepts (a request line of 16 KiB and 64 KiB of header
/// fields), and room for the fields that it adds.
pub(super) const MAX_HEAD: usize = 96 * 1024;

/// Most header fields in a request.
const MAX_HEADERS: usize = 1_024;

/// Shared by all connections of one thread.
pub(super) struct Connections {
    worker: Rc<Worker>,
    service_state: Rc<ServiceState>,
    builders: Builders,
    parking: Parking<ParkedConnection>,
}

impl Connections {
    pub(super) fn new(
        worker: Rc<Worker>,
        service_state: Rc<ServiceState>,
        parking: Parking<ParkedConnection>,
    ) -> Self {
        Self { worker, service_state, builders: Builders::new(), parking }
    }

    pub(super) fn parking(&self) -> &Parking<ParkedConnection> {
        &self.parking
    }

    pub(super) fn worker(&self) -> &Worker {
        &self.worker
    }
}

struct Builders {
    /// For nearly all connections.
    usual: http1::Builder,
    /// For one that sent more header fields than hyper parses without an allocation (100).
    roomy: http1::Builder,
}

impl Builders {
    fn new() -> Self {
        let mut usual = http1::Builder::new();
        // A client that closes its sending half after the request still gets the answer.
        usual.half_close(true).header_read_timeout(None).max_buf_size(MAX_HEAD).max_header_size(MAX_HEAD);
        let mut roomy = usual.clone();
        roomy.max_headers(MAX_HEADERS);
        Self { usual, roomy }
    }
}

/// Counts a connection as open until it is dropped.
pub(super) struct OpenConnection {
    connections: Rc<Connections>,
    place: Rc<Place>,
    _traced: TracedConnection,
}

impl OpenConnection {
    pub(super) fn new(
        connections: &Rc<Connections>,
        place: Place,
        peer: impl FnOnce() -> io::Result<SocketAddr>,
        stage: Stage,
    ) -> Self {
        connections.worker.opened();
        let _traced = TracedConnection::new(peer, stage);
        Self { connections: Rc::clone(connections), place: Rc::new(place), _traced }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.connections.worker.closed();
    }
}

/// An idle connection without hyper, in [`Parking`]. Dropping it closes it.
pub(super) struct ParkedConnection {
    /// Non-blocking.
    pub(super) socket: std::net::TcpStream,
    /// Whether it had a request.
    pub(super) used: bool,
    /// When it is closed.
    pub(super) until: Instant,
    pub(super) open: OpenConnection,
}

impl ParkedConnection {
    pub(super) fn place(&self) -> &Place {
        &self.open.place
    }
}

impl AsFd for ParkedConnection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

type Connection = http1::Connection<Io, Service>;

/// Why hyper no longer serves a connection.
enum ConnectionEnd {
    /// hyper has finished it.
    Done,
    /// The client reads nothing of its answer.
    Stuck,
    /// The client left more answers unread than the agent keeps for it, or too many clients read nothing.
    Overfull,
    /// A head did not come in time.
    HeadLate,
    /// hyper could not read the head, and answered with this status.
    Rejected(StatusCode),
    /// `max-buffered` is used up.
    Crowded,
    /// It has been idle for a while, and is closed at this time.
    Idle(Instant),
    /// The server hands its connections over, or the client has to read earlier answers first. No request is in flight.
    GivenBack,
}

/// A connection that a thread begins to serve: a new one, or one that an earlier server gave back.
pub(super) struct Arrival {
    pub(super) socket: TcpStream,
    /// Bytes that were read from it before.
    pub(super) read: Bytes,
    /// Bytes to write to it first.
    pub(super) unwritten: Bytes,
    pub(super) stage: Stage,
    /// It can be read; the runtime does not know that yet.
    pub(super) readable: bool,
}

/// Makes a connection's task larger than [`NESTED_GROUP`].
const PADDING: usize = 400;

/// musl's allocator keeps small objects in groups of at most this many bytes, and these groups beside other objects of
/// their size. A task is of that size. Without padding, the small objects of connections that are parked would lie between
/// the tasks of those that were in use, and keep all that memory: 2 kB for each connection.
#[cfg(test)]
const NESTED_GROUP: usize = 2_032;

/// Starts the task that serves a connection. A panic ends only this task and its connection.
pub(super) fn spawn(arrival: Arrival, open: OpenConnection) {
    spawn_local(padded(arrival, open));
}

async fn padded(arrival: Arrival, open: OpenConnection) {
    let padding = MaybeUninit::<[u8; PADDING]>::uninit();
    serve(arrival, open).await;
    // Used after the await, so that it is part of the task.
    std::hint::black_box(&padding);
}

/// Serves a connection to its end, or until it is to be given back.
async fn serve(arrival: Arrival, open: OpenConnection) {
    let connections = &*open.connections;
    let left = match arrival.stage {
        Stage::New | Stage::Used => converse(arrival, connections, &open.place).await,
        Stage::Ending | Stage::Lingering => AfterServing::Closing(ClosingConnection {
            socket: arrival.socket,
            unwritten: arrival.unwritten,
            lingers: arrival.stage == Stage::Lingering,
        }),
    };
    let arrival = match left {
        AfterServing::GivenBack(arrival) => arrival,
        AfterServing::Idle { socket, used, until } => {
            // Deregisters it from this thread's runtime, which does not fail in practice.
            if let Ok(socket) = socket.into_std() {
                park(socket, used, until, open);
            }
            return;
        }
        AfterServing::Dropped(socket) => return close_at_once(&socket),
        AfterServing::Closing(farewell) => {
            let Some(ClosingConnection { socket, unwritten, lingers }) =
                farewell.send(&connections.worker, &open.place).await
            else {
                return;
            };
            let stage = if lingers { Stage::Lingering } else { Stage::Ending };
            Arrival { socket, read: Bytes::new(), unwritten, stage, readable: false }
        }
    };
    let Arrival { socket, read, unwritten, stage, .. } = arrival;
    // Deregisters it from this thread's runtime, which does not fail in practice.
    if let Ok(socket) = socket.into_std() {
        connections.worker.give_back(HandoverConnection { socket, read, unwritten, stage });
    }
}

/// What to do with a connection that hyper no longer serves.
enum AfterServing {
    Closing(ClosingConnection),
    /// Close it at once: a client that reads nothing needs no last answer.
    Dropped(TcpStream),
    GivenBack(Arrival),
    Idle {
        socket: TcpStream,
        used: bool,
        until: Instant,
    },
}

/// Parks a connection that was idle when the server before this one gave it back.
pub(super) fn park_from_handover(socket: std::net::TcpStream, stage: Stage, open: OpenConnection) {
    let worker = &open.connections.worker;
    let (used, until) = (stage == Stage::Used, Timer::idle_until(worker, worker.now()));
    open.place.idle(worker.now(), used);
    park(socket, used, until, open);
}

/// Keeps an idle connection without hyper until bytes arrive.
fn park(socket: std::net::TcpStream, used: bool, until: Instant, open: OpenConnection) {
    let (connections, place) = (Rc::clone(&open.connections), Rc::clone(&open.place));
    match connections.parking.park(ParkedConnection { socket, used, until, open }) {
        Ok(number) => place.park(connections.parking.leaving(), number),
        // It is idle, so its client loses nothing. Does not happen in practice.
        Err(error) => tracing::debug!("cannot park an idle connection: {error}; closed"),
    }
}

/// Answers requests until the connection ends or is given back.
async fn converse(arrival: Arrival, connections: &Connections, place: &Rc<Place>) -> AfterServing {
    let Connections { worker, service_state, builders, .. } = connections;
    let track = Track::new(Rc::clone(worker), Rc::clone(place), arrival.stage == Stage::Used);
    let Arrival { socket, read, unwritten, readable, .. } = arrival;
    if readable {
        track.expect_bytes();
    }
    let mut rest = IoParts { socket, read, unwritten };
    let mut builder = &builders.usual;
    let end = loop {
        if !rest.unwritten.is_empty() {
            // Boxed: it is rare, and would otherwise enlarge every connection's memory.
            track.set_behind(true);
            if let Err(end) = Box::pin(catch_up(&mut rest, &track)).await {
                break end;
            }
            track.set_behind(false);
        }
        let io = Io::new(rest.socket, rest.read, Rc::clone(&track));
        let mut connection =
            builder.serve_connection(io, Service::new(Rc::clone(&track), Rc::clone(service_state)));
        let end = drive(&mut connection, &track).await;
        let parts = connection.into_parts();
        rest = parts.io.into_parts(parts.read_buf);
        if matches!(end, ConnectionEnd::GivenBack) && worker.order() != Order::HandOver {
            continue;
        }
        if matches!(end, ConnectionEnd::Idle(_)) && !(rest.read.is_empty() && rest.unwritten.is_empty()) {
            // The beginning of a head arrived together with the last request.
            continue;
        }
        let usual = std::ptr::eq(builder, &builders.usual);
        if usual && matches!(end, ConnectionEnd::Rejected(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)) {
            // Perhaps just more fields than hyper parses without allocating: parse again with room for them.
            track.set_rejected(None);
            builder = &builders.roomy;
            continue;
        }
        break end;
    };
    let IoParts { socket, read, unwritten } = rest;
    if let ConnectionEnd::Idle(until) = end {
        return AfterServing::Idle { socket, used: track.was_used(), until };
    }
    if place.leaves() {
        worker.traffic().made_room.increment();
    }
    AfterServing::Closing(match end {
        ConnectionEnd::GivenBack => {
            let stage = if track.was_used() { Stage::Used } else { Stage::New };
            return AfterServing::GivenBack(Arrival { socket, read, unwritten, stage, readable: false });
        }
        ConnectionEnd::Done | ConnectionEnd::Idle(_) => {
            ClosingConnection { socket, unwritten, lingers: track.may_still_send() }
        }
        ConnectionEnd::Stuck => return AfterServing::Dropped(socket),
        ConnectionEnd::Overfull => {
            worker.drops_unread();
            return AfterServing::Dropped(socket);
        }
        ConnectionEnd::HeadLate => {
            worker.traffic().refused.increment();
            let limit = worker.limits().header_timeout;
            let text = format!("the request's head took longer than {limit:?}: send it faster");
            ClosingConnection::refusal(socket, StatusCode::REQUEST_TIMEOUT, &text)
        }
        ConnectionEnd::Crowded => {
            worker.traffic().refused.increment();
            ClosingConnection::refusal(socket, StatusCode::SERVICE_UNAVAILABLE, CROWDED)
        }
        ConnectionEnd::Rejected(status) => {
            worker.traffic().refused.increment();
            ClosingConnection::refusal(socket, status, &rejection(status))
        }
    })
}

/// Writes the answers that were kept for the client. No request of this connection begins meanwhile, so that the kept
/// bytes do not grow with every reload. A client that reads none of them counts as blocked.
async fn catch_up(rest: &mut IoParts, track: &Track) -> Result<(), ConnectionEnd> {
    let worker = track.worker();
    // Only `drive` sets the waker, and it has not run yet on a connection from an earlier server.
    poll_fn(|cx| {
        track.place().wake(cx.waker());
        Poll::Ready(())
    })
    .await;
    while rest.unwritten.has_remaining() {
        // Before the order is read, so that none is missed.
        let ordered = worker.ordered();
        match worker.order() {
            Order::HandOver => return Err(ConnectionEnd::GivenBack),
            Order::Freeze { .. } => {
                tokio::select! {
                    biased;
                    () = track.dropped() => return Err(ConnectionEnd::Overfull),
                    () = ordered => continue,
                }
            }
            Order::Serve | Order::Stop(_) => {}
        }
        let queued_before = unacknowledged(&rest.socket);
        let write = poll_fn(|cx| {
            let written = Pin::new(&mut rest.socket).poll_write(cx, &rest.unwritten);
            track.wrote(written.is_ready());
            written
        });
        tokio::select! {
            biased;
            () = track.dropped() => return Err(ConnectionEnd::Overfull),
            () = ordered => {}
            written = tokio::time::timeout(worker.limits().write_timeout, write) => match written {
                Ok(Ok(written @ 1..)) => rest.unwritten.advance(written),
                Ok(_) => return Err(ConnectionEnd::Stuck),
                // The process may have been stopped all that time, while the client read.
                Err(_) => match write_now(&rest.socket, &rest.unwritten, queued_before) {
                    Some(Ok(written @ 1..)) => rest.unwritten.advance(written),
                    _ => return Err(ConnectionEnd::Stuck),
                }
            }
        }
    }
    Ok(())
}

/// The text for a head that hyper could not read.
fn rejection(status: StatusCode) -> String {
    match status {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => format!(
            "the request's head is too large: send at most {MAX_HEAD} bytes in at most {MAX_HEADERS} header fields"
        ),
        StatusCode::URI_TOO_LONG => "the request's target is too long: send at most 65534 bytes".to_owned(),
        _ => "this is not an HTTP/1.1 request: check its request line and header fields".to_owned(),
    }
}

/// Polls hyper until the connection ends or has to leave hyper.
///
/// hyper speaks the protocol; this loop keeps the time limits and obeys the server's orders. While hyper is polled, the
/// IO wrapper, the service and the request's body note in [`Track`] what happens. The loop reads those notes after each
/// poll. What it decides takes effect when hyper is polled again, hence the many `continue`s.
///
/// The order of the checks matters:
///
/// 1. Register the wakers, then read the state: in the other order an order could be missed.
/// 2. Before hyper is polled: leave if the connection is dropped, behind or held. hyper would begin the next request if it
///    has read one already, and a server that comes to rest must begin none.
/// 3. Poll hyper. If it is done, `Track` knows why.
/// 4. Check again, since the poll may have ended a request. Then refuse late bodies, close an idle connection of a server
///    that stops, or make room for another connection.
/// 5. The timer comes last, when hyper can do nothing without the client. A time limit counts only after the socket was
///    read once more: a process that was stopped sees its clock before its sockets.
/// 6. A connection that has been idle for a while leaves hyper, whose state and buffers are made anew when bytes arrive.
///
/// A connection is given back only between two requests: everything read or not yet written is then in hyper's parts, and
/// another server can continue with it.
async fn drive(connection: &mut Connection, track: &Rc<Track>) -> ConnectionEnd {
    let worker = track.worker();
    let sleep = std::pin::pin!(tokio::time::sleep_until(Timer::parks_at(worker).into()));
    let mut timer = Timer::new(sleep);
    let mut ordered = std::pin::pin!(worker.ordered());
    // The order after which this task registered to be woken by the next one.
    let mut obeyed = None;
    let mut known = false;
    poll_fn(|cx| {
        if !known {
            known = true;
            track.place().wake(cx.waker());
        }
        if obeyed != Some(worker.order_number()) {
            obeyed = Some(worker.order_number());
            ordered.set(worker.ordered());
            // Polled once, only to register the waker: the order itself is read below.
            let _ = ordered.as_mut().poll(cx);
        }
        loop {
            if track.is_dropped() {
                return Poll::Ready(ConnectionEnd::Overfull);
            }
            if track.is_behind() {
                return Poll::Ready(ConnectionEnd::GivenBack);
            }
            // hyper is not polled: it would begin requests that it has read already. The next order
            // wakes this task.
            match worker.order() {
                Order::HandOver if track.is_held() => return Poll::Ready(ConnectionEnd::GivenBack),
                Order::Freeze { .. } if track.is_held() => return Poll::Pending,
                _ => {}
            }
            if let Poll::Ready(result) = connection.poll_without_shutdown(cx) {
                return Poll::Ready(match (track.rejected(), result) {
                    _ if track.is_overfull() => ConnectionEnd::Overfull,
                    (Some(status), _) => ConnectionEnd::Rejected(status),
                    // Another protocol, to which hyper gives no answer at all.
                    (None, Err(error)) if error.is_parse() && track.is_between_requests() => {
                        ConnectionEnd::Rejected(StatusCode::BAD_REQUEST)
                    }
                    (None, _) => ConnectionEnd::Done,
                });
            }
            if track.take_crowded() && track.phase() == RequestPhase::Head {
                return Poll::Ready(ConnectionEnd::Crowded);
            }
            if track.is_behind() {
                return Poll::Ready(ConnectionEnd::GivenBack);
            }
            match worker.order() {
                Order::HandOver if track.is_held() => return Poll::Ready(ConnectionEnd::GivenBack),
                Order::Freeze { bodies } if track.refuses_body(bodies) => {
                    if track.looks_once_more() {
                        continue;
                    }
                    worker.count_refused_body();
                    track.set_late_body(LateBody::Reload);
                    continue;
                }
                Order::Stop(_)
                    if track.phase() == RequestPhase::Idle
                        && track.was_used()
                        && track.end_if_unread_is_empty() =>
                {
                    continue;
                }
                _ => {}
            }
            if track.place().leaves() && track.phase() == RequestPhase::Idle && track.end_if_unread_is_empty()
            {
                continue;
            }
            match timer.poll(track, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(TimedWait::Parking) => {
                    return Poll::Ready(ConnectionEnd::Idle(Timer::idle_until(worker, timer.idle_since)));
                }
                Poll::Ready(TimedWait::Request) if track.end_if_unread_is_empty() => {}
                // A request has just arrived; reading it wakes this task.
                Poll::Ready(TimedWait::Request) => return Poll::Pending,
                Poll::Ready(TimedWait::Head | TimedWait::Body | TimedWait::Peer)
                    if track.looks_once_more() => {}
                Poll::Ready(TimedWait::Head) => return Poll::Ready(ConnectionEnd::HeadLate),
                // The reader of the body answers 408 when hyper polls it again.
                Poll::Ready(TimedWait::Body) => track.set_late_body(LateBody::Timeout),
                Poll::Ready(TimedWait::Peer) => return Poll::Ready(ConnectionEnd::Stuck),
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_does_not_share_its_memory_with_small_objects() {
        fn size<F>(_: impl Fn(Arrival, OpenConnection) -> F) -> usize {
            size_of::<F>()
        }
        let (task, bare) = (size(padded), size(serve));
        assert!(task > NESTED_GROUP, "{task} bytes: more PADDING");
        assert!(bare < NESTED_GROUP, "{bare} bytes: PADDING is no longer needed");
    }
}
