//! Adapts the limit of connections to the limit of open files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors reserved for AWS, the seed, the admin socket and logging, and for each server thread; at
/// most half of all.
const RESERVED_FILES: u64 = 64;
const RESERVED_FOR_THREAD: u64 = 7;

/// Raises the soft limit of open files, often 1024, to the hard limit. Returns how many connections it
/// allows, at most `wanted`.
pub fn limit_connections(wanted: usize, threads: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::debug!("cannot raise the limit of open files: {error}");
    }
    let Some(files) = getrlimit(Resource::Nofile).current else { return wanted };
    let threads = u64::try_from(threads).unwrap_or(u64::MAX);
    let reserved = threads.saturating_mul(RESERVED_FOR_THREAD).saturating_add(RESERVED_FILES);
    let room = usize::try_from(files - reserved.min(files / 2)).unwrap_or(usize::MAX).max(1);
    if wanted > room {
        tracing::warn!(
            "the limit of open files allows only {room} connections; max-connections is {wanted}: raise \
             LimitNOFILE, now {files}"
        );
    }
    wanted.min(room)
}
