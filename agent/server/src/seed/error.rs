//! Why the seed cannot be opened, read or stored.

use std::io;

/// Writes that may wait for the disk; one more gets [`SetError::Busy`].
pub(super) const QUEUE: usize = 1_024;

/// Another process holds the store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the seed in {path} is in use by {}: stop it or choose another --state-dir", owner(*pid))]
pub struct SeedInUse {
    /// The folder.
    pub path: String,
    /// The owner's process id, if its lock file contains it.
    pub pid: Option<u32>,
}

pub(super) fn owner(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// There is no value to read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the seed: {reason}")]
pub struct SeedUnreadable {
    /// Why, and what to do.
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SetError {
    /// The disk has no room for a first file.
    #[error("the seed was not stored: the disk is full; free some space and send it again")]
    NoSpace,
    /// A file operation failed; the previous value stays.
    #[error("the seed was not stored: {reason}; the previous value stays")]
    Failed { reason: String },
    /// Too many writes wait for the disk.
    #[error("the seed was not stored: {QUEUE} writes already wait for the disk; send it again later")]
    Busy,
}

pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
