//! The last words on a connection: what is still to be written, and reading on for a while.
//!
//! Closing a socket with unread bytes in it makes the kernel send a reset, and a reset can destroy
//! an answer that the peer has not read yet. So, where the peer may still be sending: stop writing,
//! and read on.

use std::time::{Duration, SystemTime};

use bytes::{Buf as _, Bytes};
use hyper::StatusCode;
use rustix::net::sockopt;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::orders::Order;
use super::worker::Worker;

/// How long the peer may take to notice.
const PATIENCE: Duration = Duration::from_secs(2);

/// How much it may send meanwhile.
const MAX_DISCARDED: usize = 256 * 1024;

/// A connection that hyper is done with.
pub(super) struct Farewell {
    pub(super) socket: TcpStream,
    /// What is still to be written.
    pub(super) unwritten: Bytes,
    /// The peer may still be sending.
    pub(super) lingers: bool,
}

impl Farewell {
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

    /// No last words, for a peer that reads nothing: the kernel would keep its answers for minutes.
    pub(super) fn none(socket: TcpStream) -> Self {
        // That it fails is not to be expected, and costs memory alone.
        let _ = sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
        Self { socket, unwritten: Bytes::new(), lingers: false }
    }

    /// Sends it; `None` once that is over. Returns what is left of it where the connection is to be
    /// given back before.
    pub(super) async fn send(mut self, worker: &Worker) -> Option<Self> {
        let given_back = async {
            loop {
                // Before the look, so that no order is missed.
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
            () = self.finish(worker.limits().write_timeout) => None,
        }
    }

    async fn finish(&mut self, write_timeout: Duration) {
        if self.unwritten.is_empty() && !self.lingers {
            return;
        }
        let write = async {
            while self.unwritten.has_remaining() {
                self.socket.write_buf(&mut self.unwritten).await?;
            }
            self.socket.shutdown().await
        };
        let written = tokio::time::timeout(write_timeout, write).await;
        if self.lingers && matches!(written, Ok(Ok(()))) {
            // The peer has its answer either way.
            let _ = tokio::time::timeout(PATIENCE, discard(&self.socket)).await;
        }
    }
}

async fn discard(socket: &TcpStream) {
    let mut left = MAX_DISCARDED;
    while left > 0 && socket.readable().await.is_ok() {
        // Not held while waiting: it would be part of every connection's memory.
        let mut scrap = [0; 4096];
        match socket.try_read(&mut scrap) {
            Ok(0) => return,
            Ok(len) => left = left.saturating_sub(len),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
