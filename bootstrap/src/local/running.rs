//! The mark of a running local fleet, by which other commands find it: an abstract socket. The kernel removes it with
//! the process, also after `kill -9`, so a mark never outlives its fleet.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use rustix::process::geteuid;

/// `FLEET/PORT/PID` follows.
const PREFIX: &str = "instance-bootstrap/local/";

/// Marks a fleet as running until dropped.
pub(crate) struct RunningMark(#[expect(dead_code, reason = "held for its name")] UnixListener);

impl RunningMark {
    /// Marks this fleet, whose balancer listens on this port. Without a mark only a hint is missing.
    pub(crate) fn set(fleet: &str, port: u16) -> Option<Self> {
        let name =
            SocketAddr::from_abstract_name(format!("{PREFIX}{fleet}/{port}/{}", std::process::id())).ok()?;
        UnixListener::bind_addr(&name).ok().map(Self)
    }
}

/// The end of a message about a fleet of this name on AWS: that a local one of this user runs, and how to end it. Empty if
/// none runs on this machine.
pub(crate) fn running_local(fleet: &str) -> String {
    match port_and_pid(&std::fs::read_to_string("/proc/net/unix").unwrap_or_default(), fleet) {
        Some((port, pid)) => format!(
            "; a local fleet named {fleet} runs on this machine, at http://127.0.0.1:{port}: press Ctrl-C in its terminal or \
             run `kill {pid}` to end it"
        ),
        None => String::new(),
    }
}

/// The port of a fleet's balancer and the process that runs it, from the kernel's table of sockets.
fn port_and_pid(sockets: &str, fleet: &str) -> Option<(u16, u32)> {
    let name = format!("@{PREFIX}{fleet}/");
    sockets.lines().find_map(|line| {
        let (port, pid) = line.split_whitespace().last()?.strip_prefix(&name)?.split_once('/')?;
        let (port, pid) = (port.parse().ok()?, pid.parse().ok()?);
        let owner = std::fs::metadata(format!("/proc/{pid}")).ok()?.uid();
        (owner == geteuid().as_raw()).then_some((port, pid))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_is_found_as_long_as_its_mark_is_held() {
        let fleet = format!("marked-{}", std::process::id());
        assert_eq!(running_local(&fleet), "");
        let mark = RunningMark::set(&fleet, 8080).unwrap();
        assert!(running_local(&fleet).contains("at http://127.0.0.1:8080: press Ctrl-C"), "{fleet}");
        assert_eq!(running_local(&fleet[..fleet.len() - 1]), "", "another name");
        drop(mark);
        assert_eq!(running_local(&fleet), "");
    }
}
