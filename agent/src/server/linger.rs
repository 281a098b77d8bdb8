//! The last words on a connection whose peer may still be sending.
//!
//! Closing a socket with unread bytes in it makes the kernel send a reset, and a reset can destroy
//! an answer that the peer has not read yet. So: stop writing, and read on for a while.

use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// How long the peer may take to notice.
const PATIENCE: Duration = Duration::from_secs(2);

/// How much it may send meanwhile.
const MAX_DISCARDED: usize = 256 * 1024;

/// Answers a request that hyper could not, and ends the connection.
pub(super) async fn refuse(mut socket: TcpStream, status: StatusCode, text: &str) {
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncache-control: no-store\r\n\
         connection: close\r\ncontent-length: {}\r\ndate: {}\r\n\r\n{text}",
        text.len(),
        httpdate::fmt_http_date(SystemTime::now()),
    );
    let written = tokio::time::timeout(PATIENCE, socket.write_all(answer.as_bytes())).await;
    if matches!(written, Ok(Ok(()))) {
        linger(socket).await;
    }
}

/// Says that nothing more will be written and discards what still comes.
pub(super) async fn linger(mut socket: TcpStream) {
    if socket.shutdown().await.is_ok() {
        // The peer has its answer either way.
        let _ = tokio::time::timeout(PATIENCE, discard(&socket)).await;
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
