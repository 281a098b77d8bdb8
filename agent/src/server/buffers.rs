//! How much the kernel keeps for a connection.

use std::io;
use std::os::fd::AsFd;

use rustix::ioctl::{Getter, Opcode, ioctl};
use rustix::net::sockopt;

/// Linux's request for [`unsent`], on every architecture.
const SIOCOUTQNSD: Opcode = 0x894B;

/// What the kernel keeps for one connection that it has not sent, in bytes; it allows itself twice as much (socket(7)). Room
/// for any one answer: without a bound it is several MiB for a peer that does not read.
pub(super) const SEND_BUFFER: usize = 8 * 1024;

/// The same for what has come and was not read.
pub(super) const RECEIVE_BUFFER: usize = 64 * 1024;

/// Bounds what the kernel keeps for a connection, or for those that a listening socket accepts.
pub(super) fn bound_buffers(socket: impl AsFd) -> io::Result<()> {
    sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER)?;
    sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)?;
    Ok(())
}

/// How many bytes the kernel has not sent even once, as the peer has no room for them. Where all were sent, the peer's
/// acknowledgement is perhaps still on its way: nearly every connection is closed at such a moment.
#[expect(unsafe_code, reason = "rustix has no function for it")]
pub(super) fn unsent(socket: impl AsFd) -> usize {
    // SAFETY: for this request the kernel writes one int.
    let answer = unsafe { ioctl(socket, Getter::<SIOCOUTQNSD, std::ffi::c_int>::new()) };
    answer.map_or(0, |bytes| usize::try_from(bytes).unwrap_or(0))
}
