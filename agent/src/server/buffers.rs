//! How much the kernel keeps for a connection, and for how long.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::ioctl::{Getter, Opcode, ioctl};
use rustix::net::sockopt;

/// Linux's request for [`unsent`], on every architecture.
const SIOCOUTQNSD: Opcode = 0x894B;

/// What the kernel keeps for one connection that it has not sent, in bytes; it allows itself twice as much (socket(7)). Room
/// for any one answer: without a bound it is several MiB for a peer that does not read.
pub(super) const SEND_BUFFER: usize = 8 * 1024;

/// The same for what has come and was not read.
pub(super) const RECEIVE_BUFFER: usize = 64 * 1024;

/// The longest wait for an acknowledgement that the kernel takes, in milliseconds.
const LONGEST: u32 = i32::MAX as u32;

/// Bounds what the kernel keeps for a connection, or for those that a listening socket accepts. A peer that acknowledges
/// nothing for `write_timeout` has its connection ended by the kernel, which else sends again for a quarter of an hour.
pub(super) fn bound_buffers(socket: impl AsFd, write_timeout: Duration) -> io::Result<()> {
    sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER)?;
    sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)?;
    // 0 would be the kernel's own default.
    let milliseconds = u32::try_from(write_timeout.as_millis()).unwrap_or(LONGEST).clamp(1, LONGEST);
    sockopt::set_tcp_user_timeout(&socket, milliseconds)?;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "a failed expectation is a failed test")]

    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn what_a_listening_socket_accepts_has_its_bounds() {
        for (write_timeout, milliseconds) in
            [(Duration::from_secs(30), 30_000), (Duration::from_nanos(1), 1), (Duration::MAX, LONGEST)]
        {
            let listener = TcpListener::bind(("127.0.0.1", 0)).expect("it binds");
            bound_buffers(&listener, write_timeout).expect("a TCP socket takes them");
            let _client =
                TcpStream::connect(listener.local_addr().expect("it has one")).expect("it connects");
            let accepted = listener.accept().expect("it waits there").0;
            assert_eq!(sockopt::tcp_user_timeout(&accepted), Ok(milliseconds));
            assert_eq!(sockopt::socket_send_buffer_size(&accepted), Ok(2 * SEND_BUFFER));
            assert_eq!(sockopt::socket_recv_buffer_size(&accepted), Ok(2 * RECEIVE_BUFFER));
        }
    }
}
