//! The reader and writer for hyper: the socket, which also tells [`Track`] what happens.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use hyper::StatusCode;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use tokio::net::TcpStream;

use super::buffers::unacknowledged;
use super::track::{RequestPhase, Track};

/// The most bytes kept for a client that reads nothing while the server comes to rest: more than the answers
/// to all requests that hyper has read already.
pub(super) const MAX_UNWRITTEN: usize = 256 * 1024;

/// A socket under hyper.
pub(super) struct Io {
    socket: TokioIo<TcpStream>,
    /// Bytes that were read before hyper got the socket; hyper reads them first.
    prefix: Bytes,
    /// Bytes that hyper has written but the kernel has not taken. Only a freeze fills it.
    unwritten: BytesMut,
    /// How many bytes the client had not acknowledged when the last write was blocked.
    queued_when_blocked: usize,
    track: Rc<Track>,
}

/// Writes directly, without the runtime's readiness; `None` if the client has read nothing since the write was blocked with
/// `queued_before` bytes in the kernel, or the kernel has no room.
///
/// Room alone shows nothing: the kernel reports a socket as writable only once a third of its buffer is free, but takes
/// bytes before. A client that reads nothing could be kept for hours by them.
pub(super) fn write_now(socket: &TcpStream, bytes: &[u8], queued_before: usize) -> Option<io::Result<usize>> {
    if unacknowledged(socket) >= queued_before {
        return None;
    }
    match rustix::net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Err(Errno::AGAIN | Errno::INTR) => None,
        written => Some(written.map_err(io::Error::from)),
    }
}

/// Whether the kernel holds unread bytes. Asks the kernel: the runtime may not know of them yet.
pub(super) fn has_unread(socket: impl AsFd) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    rustix::net::recv(socket, &mut [0_u8; 1], flags).is_ok_and(|(_, len)| len > 0)
}

pub(super) struct IoParts {
    pub(super) socket: TcpStream,
    pub(super) read: Bytes,
    pub(super) unwritten: Bytes,
}

impl Io {
    /// `read` are the bytes that were read from the socket before.
    pub(super) fn new(socket: TcpStream, read: Bytes, track: Rc<Track>) -> Self {
        Self {
            socket: TokioIo::new(socket),
            prefix: read,
            unwritten: BytesMut::new(),
            queued_when_blocked: 0,
            track,
        }
    }

    /// The socket, with the bytes not yet handled and not yet written. `read` comes from hyper.
    pub(super) fn into_parts(self, read: Bytes) -> IoParts {
        let read = match (read.is_empty(), self.prefix.is_empty()) {
            (true, _) => self.prefix,
            (false, true) => read,
            (false, false) => [read, self.prefix].concat().into(),
        };
        IoParts { socket: self.socket.into_inner(), read, unwritten: self.unwritten.freeze() }
    }

    /// How many bytes of an incomplete head the next read will bring. Asks the kernel, since hyper does not
    /// tell; few heads need more than one read.
    fn rest_of_head(&self, room: usize) -> usize {
        if self.track.phase() != RequestPhase::Head {
            return 0;
        }
        let waiting = rustix::io::ioctl_fionread(self.socket.inner()).unwrap_or(0);
        room.min(usize::try_from(waiting).unwrap_or(usize::MAX))
    }

    /// Reads directly, without the runtime's readiness; `None` if there is nothing.
    fn read_now(&self, buf: &mut ReadBufCursor<'_>) -> Option<io::Result<()>> {
        let mut bytes = [0_u8; 8 * 1024];
        let room = bytes.len().min(buf.remaining());
        match rustix::net::recv(self.socket.inner(), &mut bytes[..room], RecvFlags::DONTWAIT) {
            Ok((_, length)) => {
                buf.put_slice(&bytes[..length]);
                Some(Ok(()))
            }
            Err(Errno::AGAIN | Errno::INTR) => None,
            Err(error) => Some(Err(error.into())),
        }
    }

    /// After a time limit, writes directly: the runtime may not know yet that there is room.
    fn poll_socket(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.track.is_overdue()
            && let Some(written) = write_now(self.socket.inner(), bytes, self.queued_when_blocked)
        {
            return Poll::Ready(written);
        }
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        if written.is_pending() && !self.track.is_write_blocked() {
            self.queued_when_blocked = unacknowledged(self.socket.inner());
        }
        written
    }

    fn poll_unwritten(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unwritten.is_empty() {
            let unwritten = std::mem::take(&mut self.unwritten);
            let written = self.poll_socket(cx, &unwritten);
            self.unwritten = unwritten;
            self.track.wrote(written.is_ready());
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.unwritten.advance(written),
            }
            self.track.set_behind(!self.unwritten.is_empty());
        }
        Poll::Ready(Ok(()))
    }

    /// Whether to keep bytes instead of waiting: a slow client must not delay a freeze.
    fn writes_later(&self) -> bool {
        self.track.worker().order().is_frozen()
    }
}

impl Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.track.is_held() {
            return Poll::Pending;
        }
        let more = self.rest_of_head(buf.remaining());
        if self.prefix.has_remaining() {
            let len = self.prefix.len().min(buf.remaining());
            buf.put_slice(&self.prefix.split_to(len));
        } else if self.track.is_overdue()
            && let Some(read) = self.read_now(&mut buf)
        {
            read?;
        } else if Pin::new(&mut self.socket).poll_read(cx, buf)?.is_pending() {
            // Reports an end of file that the client did not send: hyper then ends the connection cleanly.
            let end = self.track.is_ending()
                && self.track.phase() == RequestPhase::Idle
                && !has_unread(self.socket.inner());
            return if end { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        self.track.read();
        self.track.receive(more);
        Poll::Ready(Ok(()))
    }
}

impl Write for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        // Without a request in flight, this is hyper's own answer to a bad head. It has no body, so it is
        // held back and the connection writes one that explains the error.
        if matches!(self.track.phase(), RequestPhase::Idle | RequestPhase::Head) {
            let status = buf.get(9..12).and_then(|code| StatusCode::from_bytes(code).ok());
            self.track.set_rejected(Some(status.unwrap_or(StatusCode::BAD_REQUEST)));
            return Poll::Ready(Ok(buf.len()));
        }
        let written = match self.poll_unwritten(cx)? {
            Poll::Ready(()) => self.poll_socket(cx, buf),
            Poll::Pending => Poll::Pending,
        };
        self.track.wrote(written.is_ready());
        if written.is_pending() && self.writes_later() {
            if self.unwritten.len() + buf.len() > MAX_UNWRITTEN {
                self.track.set_overfull();
                return Poll::Ready(Err(io::ErrorKind::StorageFull.into()));
            }
            self.unwritten.extend_from_slice(buf);
            self.track.set_behind(true);
            return Poll::Ready(Ok(buf.len()));
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.poll_unwritten(cx)?.is_pending() && !self.writes_later() {
            return Poll::Pending;
        }
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        self.track.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    /// Answers are short: copying them costs less than `writev`.
    fn is_write_vectored(&self) -> bool {
        false
    }
}
