//! What hyper reads and writes through: the socket, with the connection's phase noted on the way.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use hyper::StatusCode;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use rustix::net::RecvFlags;
use tokio::net::TcpStream;

use super::track::{Phase, Track};

/// A socket under hyper.
pub(super) struct Io {
    socket: TokioIo<TcpStream>,
    /// Bytes that were read from the socket before hyper got it, read first.
    prefix: Bytes,
    track: Rc<Track>,
}

impl Io {
    pub(super) fn new(socket: TcpStream, prefix: Bytes, track: Rc<Track>) -> Self {
        Self { socket: TokioIo::new(socket), prefix, track }
    }

    /// Whether the kernel holds bytes that were not read. Asked directly: the runtime may not have
    /// heard of them yet.
    fn has_unread(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        rustix::net::recv(self.socket.inner(), &mut [0_u8; 1], flags).is_ok_and(|(_, len)| len > 0)
    }

    pub(super) fn into_socket(self) -> TcpStream {
        self.socket.into_inner()
    }
}

impl Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.has_remaining() {
            let len = self.prefix.len().min(buf.remaining());
            buf.put_slice(&self.prefix.split_to(len));
        } else if Pin::new(&mut self.socket).poll_read(cx, buf)?.is_pending() {
            // An end of file that the peer did not send: hyper then ends the connection cleanly.
            let end = self.track.is_ending() && self.track.phase() == Phase::Idle && !self.has_unread();
            return if end { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        self.track.read();
        Poll::Ready(Ok(()))
    }
}

impl Write for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        // No request was handed on and none is being answered: this is hyper's own answer to a head
        // it cannot read. Its body is empty; the connection writes one that says what was wrong.
        if matches!(self.track.phase(), Phase::Idle | Phase::Head) {
            let status = buf.get(9..12).and_then(|code| StatusCode::from_bytes(code).ok());
            self.track.rejected.set(Some(status.unwrap_or(StatusCode::BAD_REQUEST)));
            return Poll::Ready(Ok(buf.len()));
        }
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.track.wrote(written.is_ready());
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        self.track.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    /// Answers are short: copying them behind their head costs less than `writev`.
    fn is_write_vectored(&self) -> bool {
        false
    }
}
