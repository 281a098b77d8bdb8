//! The most memory that clients can make the agent and the kernel use: the sum of the limits in this folder.

use super::blocked::MAX_BLOCKED;
use super::buffers::{RECEIVE_BUFFER, SEND_BUFFER};
use super::connection::MAX_HEAD;
use super::io::MAX_UNWRITTEN;

/// An open connection in use: its task, hyper's first buffers, the kernel's socket. Clients decide how many are idle, which
/// cost much less.
const CONNECTION: u64 = 14 * 1024;

/// The rest of the agent: code, AWS's clients, one answer of AWS.
const REST: u64 = 64 * 1024 * 1024;

/// The most memory, in bytes, with these settings. For moments, the kernel may buffer more bytes that are about to be read.
pub(crate) const fn most_memory(max_connections: usize, max_buffered: usize) -> u64 {
    // Linux doubles buffer sizes.
    let each = CONNECTION + 2 * SEND_BUFFER as u64;
    let blocked = (2 * RECEIVE_BUFFER + MAX_HEAD + MAX_UNWRITTEN) as u64;
    REST + max_connections as u64 * each + MAX_BLOCKED as u64 * blocked + max_buffered as u64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "a failed expectation is a failed test")]

    use super::*;
    use crate::limits::Limits;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn the_unit_allows_what_the_default_settings_can_take_and_the_documentation_says_the_same() {
        let limits = Limits::default();
        let most = most_memory(limits.max_connections, limits.max_buffered);
        let unit = include_str!("../../../../systemd/instance-agent.service");
        let allowed = unit.lines().find_map(|line| line.strip_prefix("MemoryMax=")?.strip_suffix('M'));
        let allowed: u64 = allowed.expect("a limit in MiB").parse().expect("a number");
        assert!(most <= allowed * MIB, "{} MiB of {allowed}", most.div_ceil(MIB));

        let table = include_str!("../../../../docs/configuration.md");
        for row in [
            format!("| each of `max-connections` | {} KiB |", (CONNECTION + 2 * SEND_BUFFER as u64) / 1024),
            format!(
                "| each of the {MAX_BLOCKED} connections whose clients read nothing | {} KiB more |",
                (2 * RECEIVE_BUFFER + MAX_HEAD + MAX_UNWRITTEN) / 1024
            ),
            format!("| everything else | {} MiB |", REST / MIB),
            format!(
                "| all with the defaults, of the unit's `MemoryMax={allowed}M` | {} MiB |",
                most.div_ceil(MIB)
            ),
        ] {
            assert!(table.contains(&row), "docs/configuration.md lacks: {row}");
        }
    }
}
