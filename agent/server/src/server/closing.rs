//! Closes a connection: writes the last bytes, and reads on for a while.
//!
//! If a socket is closed with unread bytes in it, the kernel sends a reset, which can destroy an answer that
//! the client has not read yet. So if the client may still be sending: stop writing, and keep reading.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Buf as _, Bytes};
use hyper::StatusCode;
use rustix::net::sockopt;
use tokio::io::{AsyncWrite as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::blocked::BlockedConnection;
use super::buffers::{unacknowledged, unsent};
use super::io::write_now;
use super::orders::Order;
use super::room::Place;
use super::worker::Worker;

/// How long to keep reading.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many bytes to read meanwhile.
const MAX_DISCARDED: usize = 256 * 1024;

/// Between two checks whether the kernel has sent everything.
const LOOK: Duration = Duration::from_millis(250);

pub(super) struct ClosingConnection {
    pub(super) socket: TcpStream,
    pub(super) unwritten: Bytes,
    /// The client may still be sending.
    pub(super) lingers: bool,
}

impl ClosingConnection {
    /// The answer to a request that hyper could not answer.
    pub(super) fn refusal(socket: TcpStream, status: StatusCode, text: &str) -> Self {
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncache-control: no-store\r\n\
             connection: close\r\ncontent-length: {}\r\ndate: {}\r\n\r\n{text}",
            text.len(),
            httpdate::fmt_http_date(SystemTime::now()),
        );
        Self { socket, unwritten: answer.into(), lingers: true }
    }

    /// Writes and closes; returns `None` once that is done. If the server is handed over before, returns the
    /// rest.
    pub(super) async fn send(mut self, worker: &Worker, place: &Place) -> Option<Self> {
        let given_back = async {
            loop {
                // Before the order is read, so that none is missed.
                let ordered = worker.ordered();
                if worker.order() == Order::HandOver {
                    return;
                }
                ordered.await;
            }
        };
        tokio::select! {
            biased;
            () = given_back => Some(self),
            () = self.finish(worker, place) => None,
        }
    }

    async fn finish(&mut self, worker: &Worker, place: &Place) {
        if !self.unwritten.is_empty() || self.lingers {
            place.busy();
            if self.write(worker).await.is_err() {
                return;
            }
            if self.lingers {
                // Whether or not this times out, the client has its answer.
                drop(tokio::time::timeout(PATIENCE, discard(&self.socket)).await);
            }
        }
        if unsent(&self.socket) > 0 && !worker.order().is_stopping() {
            self.until_sent(worker, place).await;
        }
    }

    /// Waits until the kernel has sent everything. A socket closed before would be in no limit of connections, and its
    /// answers would use the service's memory for minutes. A client that reads nothing counts as blocked.
    async fn until_sent(&mut self, worker: &Worker, place: &Place) {
        if place.leaves() {
            return close_at_once(&self.socket);
        }
        place.busy();
        if self.socket.shutdown().await.is_err() {
            return;
        }
        let turn = poll_fn(|cx| Poll::Ready(worker.blocked().enter(cx.waker().clone()))).await;
        let dropped = poll_fn(|_| if turn.is_dropped() { Poll::Ready(()) } else { Poll::Pending });
        let sent = async {
            let (mut before, mut since) = (usize::MAX, Instant::now());
            loop {
                let now = unsent(&self.socket);
                if now == 0 || worker.order().is_stopping() || !matches!(self.socket.take_error(), Ok(None)) {
                    return true;
                }
                if now < before {
                    (before, since) = (now, Instant::now());
                } else if since.elapsed() >= worker.limits().write_timeout {
                    return false;
                }
                // The kernel does not report progress on a socket that is shut down.
                tokio::select! {
                    () = worker.ordered() => {}
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
        };
        tokio::select! {
            biased;
            () = dropped => worker.drops_unread(),
            sent = sent => if sent { return },
        }
        close_at_once(&self.socket);
    }

    /// Writes the remaining bytes. A client that reads none of them counts as blocked.
    async fn write(&mut self, worker: &Worker) -> io::Result<()> {
        let mut turn: Option<BlockedConnection> = None;
        while self.unwritten.has_remaining() {
            let queued_before = unacknowledged(&self.socket);
            let written = poll_fn(|cx| {
                if turn.as_ref().is_some_and(BlockedConnection::is_dropped) {
                    return Poll::Ready(Ok(0));
                }
                let written = Pin::new(&mut self.socket).poll_write(cx, &self.unwritten);
                match written {
                    Poll::Pending if turn.is_none() => {
                        turn = Some(worker.blocked().enter(cx.waker().clone()))
                    }
                    Poll::Pending => {}
                    Poll::Ready(_) => turn = None,
                }
                written
            });
            let written = match tokio::time::timeout(worker.limits().write_timeout, written).await {
                Ok(written) => written?,
                // The process may have been stopped all that time, while the client read.
                Err(_) => match write_now(&self.socket, &self.unwritten, queued_before) {
                    Some(written) => written?,
                    None => {
                        close_at_once(&self.socket);
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                },
            };
            match written {
                0 => {
                    worker.drops_unread();
                    close_at_once(&self.socket);
                    return Err(io::ErrorKind::WriteZero.into());
                }
                written => self.unwritten.advance(written),
            }
        }
        self.socket.shutdown().await
    }
}

/// Makes the kernel drop unsent bytes when the socket is closed; otherwise it keeps them for minutes.
pub(super) fn close_at_once(socket: &TcpStream) {
    // Does not fail in practice, and would only cost memory.
    let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

async fn discard(socket: &TcpStream) {
    let mut left = MAX_DISCARDED;
    while left > 0 && socket.readable().await.is_ok() {
        // Inside the loop: across the await it would be part of every connection's memory.
        let mut scrap = [0; 4096];
        match socket.try_read(&mut scrap) {
            Ok(0) => return,
            Ok(len) => left = left.saturating_sub(len),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
