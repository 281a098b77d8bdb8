//! How much the kernel keeps for a connection.

use std::io;
use std::os::fd::AsFd;

use rustix::net::sockopt;

/// What the kernel keeps for one connection in each direction, in bytes; it allows itself twice as much
/// (socket(7)). Without a bound it is several MiB for a peer that does not read.
pub(super) const SOCKET_BUFFER: usize = 64 * 1024;

/// Bounds what the kernel keeps for a connection, or for those that a listening socket accepts.
pub(super) fn bound_buffers(socket: impl AsFd) -> io::Result<()> {
    sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER)?;
    sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER)?;
    Ok(())
}
