//! How much the kernel keeps for a connection.

use std::io;
use std::os::fd::AsFd;

use rustix::net::sockopt;

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
