//! The kernel's buffers of a connection.

use std::io;
use std::os::fd::AsFd;

use rustix::ioctl::{Getter, Opcode, ioctl};
use rustix::net::sockopt;

/// The ioctl for [`unsent`], the same on every architecture.
const SIOCOUTQNSD: Opcode = 0x894B;

/// The ioctl for [`unacknowledged`]: `TIOCOUTQ` on x86-64 and arm64.
const SIOCOUTQ: Opcode = 0x5411;

/// The send buffer in bytes, which Linux doubles (socket(7)). Every single answer fits. By default the kernel buffers several
/// MiB for a client that does not read.
pub(super) const SEND_BUFFER: usize = 8 * 1024;

/// The receive buffer in bytes, doubled too.
pub(super) const RECEIVE_BUFFER: usize = 64 * 1024;

/// Sets the buffer sizes of a connection, or of those that a listening socket accepts.
pub(super) fn bound_buffers(socket: impl AsFd) -> io::Result<()> {
    sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER)?;
    sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)?;
    Ok(())
}

/// The number of bytes that the kernel has not sent yet, because the client has no room for them. Bytes that were sent but
/// not acknowledged do not count: nearly every connection has some when it is closed.
pub(super) fn unsent(socket: impl AsFd) -> usize {
    bytes_by::<SIOCOUTQNSD>(socket)
}

/// The number of written bytes that the client's kernel has not acknowledged, sent or not. While a write is blocked it falls
/// only if the client reads, apart from the few that were on their way.
pub(super) fn unacknowledged(socket: impl AsFd) -> usize {
    bytes_by::<SIOCOUTQ>(socket)
}

#[expect(unsafe_code, reason = "rustix has no function for these")]
fn bytes_by<const OPCODE: Opcode>(socket: impl AsFd) -> usize {
    // SAFETY: the kernel writes one int for both requests.
    let answer = unsafe { ioctl(socket, Getter::<OPCODE, std::ffi::c_int>::new()) };
    answer.map_or(0, |bytes| usize::try_from(bytes).unwrap_or(0))
}
